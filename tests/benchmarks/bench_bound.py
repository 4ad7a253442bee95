"""What it costs to bound, price and remember a call that continues a conversation by five messages."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rr_bench import Row, main, percentile

from runrails.admission import bound_of
from runrails.anchoring import Anchors, anchor_of, input_bound
from runrails.calls import ModelCall
from runrails.pricing import PriceBook
from runrails.pricing.cards import cost_pusd
from runrails.request_wire import anthropic_messages
from runrails.usage_wire import from_anthropic

CALLS = 4_000
TEXT_SIZES = (0, 0, 240, 90, 240)
"""Characters of the five new messages: two tool calls, a result, a question, a result; 770 with the calls."""
PREFIX_MESSAGES = 40
PROSE = (
    "The order was found, but its payment has not been received yet; the customer was asked twice. Invoice 4711-B of "
    "2026-11-03 is open with 249.90 EUR, and the parcel waits in the warehouse at Hanover until the end of the week. "
)
# The target is 25 us at the median; the gates are what it comes to over the yardstick on the machine where they were
# set (2 cores, CPython 3.11).
GATES = {"delta": 3.8, "whole": 36.0}
YARDSTICK = "json.dumps of the five messages"
NOW_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC
REPORT = {
    "input_tokens": 4_000, "output_tokens": 120, "cache_read_input_tokens": 3_000, "cache_creation_input_tokens": 500,
    "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 100},
}  # fmt: skip


def _message(number: int, size: int) -> dict[str, object]:
    if size == 0:
        block = {"type": "tool_use", "id": f"toolu_{number:024}", "name": "find_order", "input": {"order": number}}
        return {"role": "assistant", "content": [block]}
    offset = number % 60
    return {"role": "user", "content": (PROSE * 3)[offset : offset + size]}


def measure() -> list[Row]:
    """The delta of five messages, and the same prompt without an anchor."""
    card = PriceBook().card("claude-sonnet-4-5", provider="anthropic", now_ms=NOW_MS)
    said = [_message(number, 400) for number in range(PREFIX_MESSAGES)]
    tools = [{"name": "find_order", "description": "Find an order.", "input_schema": {"type": "object"}}]
    before = anthropic_messages({"model": "claude-sonnet-4-5", "system": PROSE, "messages": said, "tools": tools})
    first = ModelCall(model=before.model, provider="anthropic", prompt=before.prompt, max_tokens=1_000)
    anchor = anchor_of(first.prompt, 8_000, output_tokens=100)
    if anchor is None:
        raise TypeError("the prompt must be one that can be built on")
    ours: list[float] = []
    wholes: list[float] = []
    theirs: list[float] = []
    clock = time.perf_counter
    for number in range(CALLS):
        new = [_message(1_000 + number * 5 + place, size) for place, size in enumerate(TEXT_SIZES)]
        body = {"model": "claude-sonnet-4-5", "system": PROSE, "messages": [*said, *new], "tools": tools}
        call = ModelCall(
            model=before.model, provider="anthropic", prompt=anthropic_messages(body).prompt, max_tokens=1_000
        )
        anchors = Anchors()
        anchors.keep(first, card, anchor)
        began = clock()
        known = anchors.find(call, card)
        tokens = input_bound(call, card, known)
        bound_of(call, card, None, tokens)
        usage = from_anthropic(REPORT)
        if usage is not None:
            cost_pusd(card, usage)
            anchor_of(call.prompt, usage.input_tokens, output_tokens=usage.output_tokens, before=known)
        ours.append(clock() - began)
        began = clock()
        input_bound(call, card)
        wholes.append(clock() - began)
        began = clock()
        json.dumps(new, ensure_ascii=False, separators=(",", ":"))
        theirs.append(clock() - began)
    yardstick = percentile(sorted(theirs), 50)
    delta, whole = percentile(sorted(ours), 50), percentile(sorted(wholes), 50)
    return [
        Row("price + normalise + bound of a 5-message delta, p50", delta * 1e6, "us", delta / yardstick, YARDSTICK,
            GATES["delta"]),
        Row("bound of the same prompt as a whole, p50", whole * 1e6, "us", whole / yardstick, YARDSTICK,
            GATES["whole"]),
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(measure))
