"""The input bound over simulated conversations: never below the truth, and close to it from the second call on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
import quicktok

from rr_bound_texts import LANGUAGES, texts
from runrails.anchoring import Margins
from runrails.calls import ModelCall, ModelResult
from runrails.events import Emitter, Event
from runrails.inputwatch import InputWatch
from runrails.pricing import Price, PriceBook
from runrails.request_wire import answer_texts, openai_chat
from runrails.usage import Usage

NOW_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC
STEPS = 24
TOOLS = [
    {"type": "function", "function": {
        "name": f"find_{name}", "description": f"Look up one {name} by its number and tell what is known of it.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}, "limit": {"type": "integer"}},
                       "required": ["number"]}}}
    for name in ("ticket", "customer", "order", "article", "parcel", "invoice", "address", "return")
]  # fmt: skip
SYSTEM = " ".join([LANGUAGES["en"]] * 24)
"""About 1,200 tokens, as the instructions of an agent are."""
MODELS = {
    "gpt-4o": ("openai", "o200k_base"), "gpt-4-turbo": ("openai", "cl100k_base"),
    "llama-3.3-70b-versatile": ("groq", "llama3"), "qwen3-32b": ("groq", "qwen3"),
}  # fmt: skip
"""Models whose tokens can be counted, and how."""


def percentile(values: list[float], percent: int) -> float:
    """The value below which that many lie."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def conversation(
    text: str, count: Callable[[str], int], *, provider: str, model: str, draw: random.Random
) -> tuple[list[float], list[Event]]:
    """Predicted over actual input of the calls of one conversation from the second on, and what was told of it."""
    events: list[Event] = []
    watch = InputWatch(Margins(), Emitter([events.append]), run_id="r")
    card = PriceBook(overrides={f"{provider}:{model}": Price(input="1", output="1")}).card(
        model, provider=provider, now_ms=NOW_MS
    )

    def piece(least: int, most: int) -> str:
        size = draw.randrange(least, most)
        start = draw.randrange(max(1, len(text) - size))
        return text[start : start + size]

    said: list[dict[str, object]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": piece(60, 400)}]
    truth = 3 + sum(count(str(one["content"])) + 4 for one in said) + sum(count(json.dumps(tool)) + 9 for tool in TOOLS)
    ratios: list[float] = []
    for step in range(STEPS):
        prompt = openai_chat({"model": model, "messages": said, "tools": TOOLS}).prompt
        call = ModelCall(model=model, provider=provider, prompt=prompt)
        predicted = watch.bound(call, card)
        if step:
            ratios.append(predicted.input_tokens / truth)
        assert predicted.input_tokens >= truth
        answer = piece(30, 300) if draw.random() < 0.5 else ""
        arguments = json.dumps({"number": str(draw.randrange(10**6)), "limit": 5})
        wanted = [f"call_{draw.getrandbits(96):024x}" for _ in range(draw.choice((1, 1, 1, 2)))]
        output = count(answer) + len(wanted) * (count(arguments) + 12)
        usage = Usage(input_tokens=truth, output_tokens=output)
        texts = answer_texts(answer, [("find_order", one, arguments) for one in wanted])
        watch.ended(call, card, predicted, ModelResult(end="completed", usage=usage, answer=texts))
        function = {"name": "find_order", "arguments": arguments}
        calls = [{"id": one, "type": "function", "function": function} for one in wanted]
        said = [*said, {"role": "assistant", "content": answer or None, "tool_calls": calls}]
        truth += count(answer) + 4 + len(wanted) * (count(arguments) + 12)
        for one in wanted:
            result_text = piece(200, 2_000)
            said = [*said, {"role": "tool", "tool_call_id": one, "content": result_text}]
            truth += count(result_text) + 4 + count(one)
    return ratios, events


def simulate(model: str, provider: str, encoding: str) -> dict[str, list[float]]:
    """The ratios of each language and format."""
    tokenizer = quicktok.get_encoding(encoding)
    found: dict[str, list[float]] = {}
    for number, (name, text) in enumerate(texts(20261122).items()):
        draw = random.Random(number)
        found[name], events = conversation(text, tokenizer.count, provider=provider, model=model, draw=draw)
        assert [] == events
    return found


@pytest.mark.parametrize("model", MODELS)
def test_with_the_models_own_tokenizer(model: str) -> None:
    """At most 1.06 of the truth at the median and 1.7 in the tail, of everything together and of each kind of text."""
    provider, encoding = MODELS[model]
    found = simulate(model, provider, encoding)
    assert len(found) >= 40
    everything = [ratio for ratios in found.values() for ratio in ratios]
    assert percentile(everything, 50) <= 1.06
    assert percentile(everything, 95) <= 1.7
    assert max(percentile(ratios, 50) for ratios in found.values()) <= 1.06
    assert max(percentile(ratios, 95) for ratios in found.values()) <= 1.7


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base", "llama3", "qwen3"])
def test_without_a_tokenizer(encoding: str) -> None:
    """A model nobody can count for: never below, at most 1.4 of the truth in the tail, and 2 of any kind of text."""
    found = simulate("somebody-elses", "somebody", encoding)
    everything = [ratio for ratios in found.values() for ratio in ratios]
    assert percentile(everything, 50) <= 1.11
    assert percentile(everything, 95) <= 1.4
    assert max(percentile(ratios, 50) for ratios in found.values()) <= 1.3
    assert max(percentile(ratios, 95) for ratios in found.values()) <= 2
