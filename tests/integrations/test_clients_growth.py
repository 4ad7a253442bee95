"""Streams that come to more than was held for: the hold grows with them, or they are closed and settled as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rr_clients import HI, MODEL, World, in_loop, run_of
from runrails import BudgetExceeded, Limits, Price
from runrails.errors import BudgetBusy
from runrails.ledger import Account, FullStore, Hold, Reservation
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore
from runrails.testing.provider import Text
from runrails.usage import Usage

CAP = 40
LONG = "0123456789" * 200
"""Fifty times the cap, at a token a byte as some tokenizers count digits."""
IGNORES = Text(LONG, usage=Usage(input_tokens=20, output_tokens=len(LONG)), ignores_max_tokens=True, chunks=100)
RUNNING = Text(
    LONG, usage=Usage(input_tokens=20, output_tokens=len(LONG)), ignores_max_tokens=True, chunks=100, report="running"
)
TIGHT = Limits(run=None, month="0.006", steps=None, hold_wait_ms=0)
"""Two holds of such calls fit, not what the answer comes to ($0.03)."""


def chat(client: Any, **more: Any) -> Any:
    """A stream of chunks."""
    return client.chat.completions.create(model=MODEL, messages=HI, max_tokens=CAP, stream=True, **more)


def response(client: Any) -> Any:
    """A stream of a response's events."""
    return client.responses.create(model=MODEL, input="hi", max_output_tokens=CAP, stream=True)


def message(client: Any) -> Any:
    """A stream of a message's events."""
    return client.messages.create(model=MODEL, messages=HI, max_tokens=CAP, stream=True)


STREAMS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "chat": ("openai", chat), "responses": ("openai", response), "messages": ("anthropic", message),
    "bedrock": ("bedrock", message),
}  # fmt: skip


def one_record(world: World) -> Any:
    """The one usage record there is."""
    assert isinstance(world.store, FullStore)
    (record,) = world.store.usage()
    return record


@pytest.mark.parametrize("wire", STREAMS)
def test_hold_grows_with_an_answer_that_ignores_the_cap(wire: str) -> None:
    """Before the end more is held than at the start; the reported usage replaces it, in one record without overrun."""
    kind, ask = STREAMS[wire]
    with World(IGNORES) as world:
        stream = ask(getattr(world, kind)())
        first, held = world.held, [world.held]
        held.extend(world.held for _ in stream)
        world.settled()
        assert first < max(held)
        assert world.billed < one_record(world).estimated_pusd == max(held)
        assert ("hold_raised" in world.names(), "bound_violated" in world.names()) == (True, False)


@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_no_budget_pays_for_is_closed(wire: str) -> None:
    """The reader gets what came, then the stop; it is charged for what came, and the run stays stopped."""
    kind, ask = STREAMS[wire]
    with World(IGNORES, TIGHT) as world:
        client = getattr(world, kind)()
        seen = ""
        with pytest.raises(BudgetExceeded):
            for event in ask(client):
                seen += str(event)
        world.provider.wait_idle()
        assert (0, 1) == (world.held, world.hits)
        assert LONG[: 8 * CAP] in _digits(seen)
        assert (3 * 0.000_001 * CAP, True) < (world.spent / 1e12, one_record(world).state == "unresolved")
        assert "stream_closed" in world.names()
        with pytest.raises(BudgetExceeded):
            ask(client)
        assert (1, "budget_exceeded") == (world.hits, run_of(client).stop_reason)


def _digits(shown: str) -> str:
    """The digits of the text's pieces, one after the other."""
    import re

    return "".join(re.findall(r"[\"'](\d{20})[\"']", shown))


def test_usage_told_on_the_way_is_believed() -> None:
    """A server that counts as it goes is closed at the first count above what the budget pays, not by a bound."""
    with World(RUNNING, TIGHT) as world:
        client = world.openai()
        with pytest.raises(BudgetExceeded):
            for _ in chat(client, stream_options={"include_usage": True}):
                pass
        world.provider.wait_idle()
        assert 0 == world.held
        assert 0.006 < world.spent / 1e12 < 0.006 + 40 * 15e-6


def test_capped_stream_is_trusted_until_it_contradicts_its_cap() -> None:
    """English of the full length of its cap has four times as many bytes as tokens: nothing is raised or closed."""
    words = "word " * 300
    told = Text(words, usage=Usage(input_tokens=20, output_tokens=375), chunks=300)
    with World(told, Limits(run=None, month="0.0065", steps=None)) as world:
        for _ in world.openai().chat.completions.create(model=MODEL, messages=HI, max_tokens=375, stream=True):
            pass
        world.settled()
        assert "hold_raised" not in world.names()


def test_several_answers_are_capped_each() -> None:
    """`n` answers may have `n` times the cap."""
    with World(Text("0123456789" * 24, chunks=24, ignores_max_tokens=True)) as world:
        for _ in chat(world.openai(), n=4):
            pass
        world.provider.wait_idle()
        assert (0, False) == (world.held, "hold_raised" in world.names())


def test_uncapped_stream_grows_from_the_start() -> None:
    """Where no budget limits it no cap is set; what is held then is a guess, and grows before it is passed."""
    told = Text("0123456789" * 400, usage=Usage(input_tokens=20, output_tokens=4000), chunks=200)
    with World(told, Limits(run=None, month=None, steps=None), prices={MODEL: _price()}) as world:
        stream = world.openai().chat.completions.create(model=MODEL, messages=HI, stream=True)
        held = [world.held for _ in stream]
        world.provider.wait_idle()
        assert None is world.provider.received[0].max_tokens
        assert (True, 0) == (4000 * 15_000_000 <= max(held), world.held)
        assert "bound_violated" not in world.names()


def _price() -> Any:
    from runrails.pricing.spec import Price

    return Price(input="3", output="15")


def test_money_that_others_hold_refuses_this_stream_alone() -> None:
    """The run is not over: the money is there, but held; the stream is closed all the same."""
    with World(IGNORES, TIGHT) as world:
        client = world.openai()
        stream = chat(client)
        left = world.store.balance(world.month()).available
        assert left is not None
        world.store.reserve(Reservation("other", (Hold(world.month(), left),)))
        world.store.set_limit("user:alice", 10**12)  # type: ignore[attr-defined]  # every engine here has it
        world.store.reserve(Reservation("more", (Hold(world.month(), 10**12 - 2 * 10**9 - left),)))
        with pytest.raises(BudgetBusy):
            for _ in stream:
                pass
        world.provider.wait_idle()
        assert (True, None) == (world.spent > 0, run_of(client).stop_reason)


def test_observing_closes_nothing() -> None:
    """It is held all the same, and told of; the answer comes whole."""
    with World(IGNORES, TIGHT, mode="observe") as world:
        seen = sum(1 for _ in chat(world.openai()))
        world.settled()
        assert (True, True) == (seen > 100, "run_would_stop" in world.names())


@pytest.mark.parametrize("fate", ["request_lost", "response_lost"])
def test_unreachable_store_closes_nothing(fate: Any) -> None:
    """What cannot be held for now is tried again later, and recorded in full at the end."""
    store = FlakyStore(MemoryStore(), [fate] * 3, verbs={"raise_hold"})
    with World(IGNORES, store=store) as world:
        for _ in chat(world.openai()):
            pass
        world.settled()
        assert 3 <= sum(verb == "raise_hold" for verb, _ in store.log)


def test_async_stream_that_no_budget_pays_for_is_closed() -> None:
    """As the synchronous one, with a store that must not block the event loop."""
    for store in (MemoryStore(), FlakyStore(MemoryStore(), remote=True)):
        with World(IGNORES, TIGHT, store=store) as world:

            async def work(world: World = world) -> None:
                for kind, ask in (("aopenai", chat), ("aanthropic", message)):
                    client = getattr(world, kind)()
                    with pytest.raises(BudgetExceeded):
                        async for _ in await ask(client):
                            pass
                    assert 0 == world.held
                    run = world.guard.run_of(client)
                    await asyncio.to_thread(run.resume)
                    world.store.set_limit("user:alice", world.spent + 6 * 10**9)  # type: ignore[attr-defined]  # see above

            in_loop(world, work)
            assert 2 == world.hits


def test_store_that_cannot_raise_is_left_alone() -> None:
    """It is not asked, and nothing is closed; the overrun is recorded in full, as ever."""
    inner = MemoryStore()

    class Plain:
        """The verbs that every store has."""

        remote = False
        reserve, settle, release = inner.reserve, inner.settle, inner.release
        expire, balance, close = inner.expire, inner.balance, inner.close

    with World(IGNORES, TIGHT, store=Plain()) as world:
        for _ in chat(world.openai()):
            pass
        world.settled()
        assert "bound_violated" in world.names()
        assert Account("user:alice", "2026-11")[0] == world.month()[0]


@pytest.mark.parametrize("retries", [0, 2])
def test_what_is_held_for_retries_hides_nothing(retries: int) -> None:
    """A server that ignores the cap is cut by its reader: what came is charged, not just the cap of one attempt."""
    with World(IGNORES) as world:
        asked: Any = [{"role": "user", "content": "0123456789" * 100}]
        stream = world.openai(max_retries=retries).chat.completions.create(
            model=MODEL, messages=asked, max_tokens=CAP, stream=True
        )
        came = 0
        for chunk in stream:
            came += len(chunk.choices[0].delta.content or "")
            if came > 12 * CAP:
                break
        stream.close()
        world.provider.wait_idle()

        assert 0 == world.held
        assert came * 15 * 10**6 < world.spent
        assert "unresolved" == one_record(world).state


def test_a_hold_at_a_tiers_price_covers_what_that_tier_charges() -> None:
    """It is raised by that tier's prices, at the latest when a quarter more has come."""
    prices = {"tiered": Price(input="1", output="15", tiers={"priority": Price(input="2", output="30")})}
    with World(RUNNING, prices=prices) as world:
        stream = world.openai().chat.completions.create(
            model="tiered",
            messages=HI,
            max_tokens=CAP,
            stream=True,
            service_tier="priority",
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            if chunk.usage is not None and world.held:
                assert 4 * chunk.usage.completion_tokens * 30 * 10**6 <= 5 * world.held

        assert "hold_raised" in world.names()


def test_a_stream_that_meets_the_money_of_the_last_turn_ends_the_run() -> None:
    """That money is given back to no call of the run, so to wait for it is of no use; it pays for the last answer."""
    with World(IGNORES, Limits(run="0.04", steps=None, wrap_up=True)) as world:
        client = world.openai()
        with world.guard.run() as run:
            last = run.expect_last_turn()
            with pytest.raises(BudgetExceeded):
                for _ in chat(client):
                    pass
            with last.turn() as room:
                assert room > 0
        assert "budget_exceeded" == run.stop_reason
        world.provider.wait_idle()
        assert 0 == world.held
