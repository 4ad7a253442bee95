"""What an answer says of its price: the tier that served it, usage that is not final yet, work that goes on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from rr_clients import HI, MODEL, Canned, World, run_of, sse
from runrails import Price
from runrails.answers.anthropic import MessageEvents
from runrails.answers.openai import ChatEvents
from runrails.clients.sse import SseReader
from runrails.pricing.cards import cost_pusd
from runrails.testing.prices import PRICES
from runrails.testing.provider import Stall, Text
from runrails.tiers import served_tier
from runrails.usage import Usage

USED = Usage(input_tokens=1_000, output_tokens=200)
COUNTS = {"prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200}


def _plain_pusd(world: World) -> int:
    return cost_pusd(world.guard.prices.card(MODEL, now_ms=0), USED)


def _chat(tier: object) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice],
            "usage": COUNTS, "service_tier": tier}  # fmt: skip


def _chunks(tier: object) -> bytes:
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "service_tier": tier}
    piece = {"index": 0, "delta": {"content": "fine"}, "finish_reason": None}
    return sse({**head, "choices": [piece], "usage": None}, {**head, "choices": [], "usage": COUNTS}, "[DONE]")


def _response(tier: object) -> dict[str, Any]:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 1_000, "output_tokens": 200, "total_tokens": 1_200, **details}
    return {"id": "1", "object": "response", "created_at": 1, "model": MODEL, "output": [], "usage": usage,
            "status": "completed", "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
            "service_tier": tier}  # fmt: skip


def _events(tier: object) -> bytes:
    begun = {"type": "response.created", "response": {**_response("auto"), "usage": None}, "sequence_number": 0}
    return sse(begun, {"type": "response.completed", "response": _response(tier), "sequence_number": 1})


def _message(tier: object, **more: object) -> dict[str, Any]:
    usage = {"input_tokens": 1_000, "output_tokens": 200, "service_tier": tier, **more}
    return {"id": "1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
            "stop_reason": "end_turn", "usage": usage}  # fmt: skip


def _message_events(tier: object) -> bytes:
    start = {**_message(tier), "stop_reason": None}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 200}}
    return b"".join(
        b"event: " + str(event["type"]).encode() + b"\n" + sse(event)
        for event in ({"type": "message_start", "message": start}, delta, {"type": "message_stop"})
    )


def _ask(world: World, wire: str, url: str) -> None:
    if wire.startswith("message"):
        client: Any = world.anthropic(base_url=url.removesuffix("/v1"))
        asked = client.messages.create(model=MODEL, messages=HI, max_tokens=500, stream=wire.endswith("stream"))
    elif wire.startswith("response"):
        client = world.openai(base_url=url)
        asked = client.responses.create(model=MODEL, input="hi", max_output_tokens=500, stream=wire.endswith("stream"))
    elif wire == "chat raw":
        client = world.openai(base_url=url)
        client.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=500)
        return
    else:
        client = world.openai(base_url=url)
        asked = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=500, stream=wire.endswith("stream"))
    if wire.endswith("stream"):
        for _ in asked:
            pass


WIRES: dict[str, Any] = {
    "chat": _chat, "chat raw": _chat, "chat stream": _chunks, "response": _response, "response stream": _events,
    "message": _message, "message stream": _message_events,
}  # fmt: skip


def _served(wire: str, tier: object) -> Canned:
    body = WIRES[wire](tier)
    if isinstance(body, bytes):
        return Canned(body, kind="text/event-stream")
    return Canned(sse(body).removeprefix(b"data: "))


@pytest.mark.parametrize("wire", WIRES)
def test_premium_tier_without_a_price_is_charged_at_the_most(wire: str) -> None:
    """The project's default made it premium: three times the plain price, unresolved, and the tier is named."""
    with World() as world, _served(wire, "priority") as server:
        _ask(world, wire, server.url)
        assert (3 * _plain_pusd(world), 0) == (world.spent, world.held)
        told = [event for event in world.events if event.name == "runrails.tier_unpriced"]
        assert [("warning", "priority", MODEL)] == [
            (event.level, event.fields["service_tier"], event.fields["model"]) for event in told
        ]
        _ask(world, wire, server.url)
        assert 6 * _plain_pusd(world) == world.spent


@pytest.mark.parametrize("tier", [None, "auto", "default", "standard", "flex", "batch", "scale", "on_demand"])
@pytest.mark.parametrize("wire", WIRES)
def test_plain_and_cheaper_tiers_are_charged_the_plain_price(wire: str, tier: str | None) -> None:
    """What is no dearer than the standard tier, and has no price of its own, costs what that does."""
    with World() as world, _served(wire, tier) as server:
        _ask(world, wire, server.url)
        assert (_plain_pusd(world), 0) == (world.spent, world.held)
        assert "runrails.tier_unpriced" not in {event.name for event in world.events if event.level == "warning"}


def test_tier_with_a_price_is_charged_exactly() -> None:
    """Where somebody has published the tier's price, that one counts, and nothing is a stand-in."""
    with World(prices={}) as world:
        card = world.guard.prices.card("gpt-5.5", provider="openai", now_ms=world.guard.clock())
        tier = card.tier("priority")
        if tier is None:
            pytest.skip("the price data has no priority tier of gpt-5.5")
        from runrails.calls import ModelCall, ModelResult

        run = world.guard.run()
        permit = run.before_model(ModelCall(model="gpt-5.5", provider="openai", max_tokens=500))
        run.after_model(
            permit, ModelResult(end="completed", usage=USED, tier=served_tier({"service_tier": "priority"}))
        )
        assert (cost_pusd(tier, USED), 0) == (world.spent, run.report().unresolved_pusd)
        assert world.spent > cost_pusd(card, USED)
        assert "tier_unpriced" not in world.names()


@pytest.mark.parametrize(
    ("told", "factor_bp"),
    [
        ({"service_tier": "standard", "speed": "fast"}, 60_000), ({"inference_geo": "us"}, 11_000),
        ({"service_tier": "priority", "inference_geo": "us"}, 33_000), ({"service_tier": ["odd"]}, 30_000),
        ({"service_tier": "flex", "inference_geo": "us"}, 11_000),
    ],
)  # fmt: skip
def test_speed_and_place_count_as_well(told: dict[str, object], factor_bp: int) -> None:
    """A workspace's defaults for speed and place make an answer dearer, too; several multiply."""
    served = served_tier(told)
    assert served is not None
    assert factor_bp == served.factor_bp


@pytest.mark.parametrize("told", [{}, {"service_tier": None, "speed": "standard", "inference_geo": "global"}])
def test_nothing_said_is_the_plain_price(told: dict[str, object]) -> None:
    """No word of a tier is no surcharge."""
    assert served_tier(told) is None


def test_no_published_tier_is_dearer_than_the_most() -> None:
    """The factor for tiers without a price is above what every published premium tier costs."""
    from runrails.pricing.book import shipped_snapshot
    from runrails.tiers import TIER_FACTOR_BP_MAX

    dearest = 0
    for schedule in _schedules(shipped_snapshot()):
        for window in schedule.windows:
            for tier in getattr(window.card, "service_tiers", ()):
                if tier.service_tier in ("priority", "fast") and window.card.denominator == tier.denominator == 1:
                    pairs = zip(tier.rates, window.card.rates, strict=True)
                    dearest = max(dearest, *(rate * 10_000 // plain for rate, plain in pairs if plain))
    assert dearest <= TIER_FACTOR_BP_MAX


def _schedules(snapshot: Any) -> list[Any]:
    found = []
    for provider in snapshot.provider_ids():
        for model in ("gpt-5.5", "gpt-5", "gpt-4o", "gpt-4.1", "o3", "o4-mini", "gemini-2.5-pro", "claude-opus-4-8"):
            schedule = snapshot.find(provider, model)
            if schedule is not None:
                found.append(schedule)
    return found


def test_flat_price_is_multiplied_as_well() -> None:
    """A price per call in a premium tier is not told either: the upper figure covers it."""
    prices = {**PRICES, MODEL: Price(call="0.01")}
    with World(prices=prices) as world, _served("chat", "priority") as server:
        _ask(world, "chat", server.url)
        assert 30_000_000_000 == world.spent


# Usage that is not final yet.


def _running(content: str, used: int, finish: str | None = None) -> dict[str, Any]:
    usage = {"prompt_tokens": 10, "completion_tokens": used, "total_tokens": 10 + used}
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}], "model": "m",
            "usage": usage}  # fmt: skip


def _read(*chunks: object, answers: int = 1, hides: bool = False) -> SseReader:
    reader = SseReader(ChatEvents(reasoning=False, hides=hides, answers=answers))
    for chunk in chunks:
        reader.feed(sse(chunk))
    return reader


def test_running_usage_is_a_floor_until_the_answer_is_complete() -> None:
    """A server that reports in every chunk is not done with the first: a cut stream pays for what came since."""
    text = "x" * 50
    result = _read(_running("one", 1), {**_running(text, 2), "usage": None}).outcome("left")
    assert ("cut", None, 1) == (result.end, result.usage, getattr(result.floor_usage, "output_tokens", None))
    assert 53 == len("".join(result.output_text))


@pytest.mark.parametrize(
    "last",
    [
        (_running("", 9, "stop"),), ({"choices": [], "usage": COUNTS},), (_running("x", 9), "[DONE]"),
        (_running("x", 8), {"choices": [], "usage": None}, {"choices": [], "usage": COUNTS}),
    ],
)  # fmt: skip
def test_usage_is_final_once_the_answer_is(last: tuple[object, ...]) -> None:
    """With a reason to finish, without choices, or before `[DONE]` the newest report is the truth."""
    result = _read(_running("one", 1), *last).outcome("left")
    assert result.end == "completed"
    assert result.usage is not None
    assert result.usage.output_tokens in (9, 200)


def test_one_answer_of_several_is_not_all() -> None:
    """With n=2 the usage is final only when both answers have ended."""
    other = _running("two", 7, "stop")
    other["choices"][0]["index"] = 1
    assert _read(_running("one", 3, "stop"), answers=2).outcome("left").usage is None
    assert _read(_running("one", 3, "stop"), other, answers=2).outcome("left").usage is not None


def test_lost_stream_is_charged_no_less_than_it_had_reported() -> None:
    """The hold stands in for a stream that broke, unless what was reported is more."""
    chunks = sse(_running("one", 1_000_000), _running("two", 2_000_000), {"error": {"message": "broken"}})
    with World() as world, Canned(chunks, kind="text/event-stream") as server:
        stream = world.openai(base_url=server.url).chat.completions.create(
            model=MODEL, messages=HI, max_tokens=5, stream=True
        )
        held = world.held
        with pytest.raises(Exception, match="broken"):
            list(stream)
        floor = cost_pusd(world.guard.prices.card(MODEL, now_ms=0), Usage(input_tokens=10, output_tokens=2_000_000))
        assert (floor, True, 0) == (world.spent, floor > held, world.held)


def test_cut_stream_with_running_usage_pays_for_what_came() -> None:
    """Left in the middle: what came, at the price of its bytes, on the input that was reported."""
    chunks = sse(_running("one", 1), {**_running("y" * 300, 2), "usage": None}, *[_running("z", 3)] * 200)
    with World() as world, Canned(chunks, kind="text/event-stream") as server:
        client = world.openai(base_url=server.url)
        stream = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=5_000, stream=True)
        next(stream)
        next(stream)
        stream.close()
        card = world.guard.prices.card(MODEL, now_ms=0)
        least = cost_pusd(card, Usage(input_tokens=10, output_tokens=303))
        assert least <= world.spent == run_of(client).report().unresolved_pusd


def test_running_usage_of_a_message_is_a_floor_as_well() -> None:
    """Before it has a reason to stop, a message's counts are of what was used so far."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}}
    early = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 4}}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
    reader = SseReader(MessageEvents(reasoning=False, names_model=True))
    reader.feed(sse(start, early))
    cut = reader.outcome("left")
    assert ("cut", 4) == (cut.end, getattr(cut.floor_usage, "output_tokens", None))
    reader.feed(sse(last))
    done = reader.outcome("left")
    assert ("completed", 9) == (done.end, getattr(done.usage, "output_tokens", None))


# Work that goes on.


@pytest.mark.parametrize("background", [True, False])
def test_background_response_that_is_left_keeps_its_hold(background: bool) -> None:
    """Nobody reads it any more, and the provider works on: the hold stands in for what it will cost."""
    gate = threading.Event()
    with World(Stall(gate, Text("one two three four five"), after_chunks=3)) as world:
        client = world.openai()
        stream = client.responses.create(
            model=MODEL, input="hi", max_output_tokens=1000, stream=True, background=background
        )
        next(stream)
        held = world.held
        stream.close()
        gate.set()
        assert (background, 0) == (world.spent == held, world.held)
        assert world.spent == run_of(client).report().unresolved_pusd > 0
