"""Bedrock's event streams read along with: they stay botocore's objects, and settle however the caller goes away."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

pytest.importorskip("boto3")

from botocore.eventstream import EventStream
from botocore.exceptions import EventStreamError

from rr_bedrock import STREAMS, BedrockWorld, claude, edge_of, invoke_stream, read, run_of, stream
from rr_clients import TOLD
from runrails import BudgetExceeded, Limits
from runrails.testing.provider import Error, HangUp, Stall, Text, ToolCalls, ToolUse
from runrails.usage import Usage

# urllib3 warns of a body that nobody closes, which is what is tested here.
dropping = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
WORDS = Text("one two three four five six seven eight nine ten")


@pytest.mark.parametrize("wire", STREAMS)
def test_stream_stays_what_it_was(wire: str) -> None:
    """The same class by name and by isinstance, and the same events as without a guard."""
    with BedrockWorld(TOLD) as world:
        plain, tapped = (STREAMS[wire](world.boto(wrapped=wrapped)) for wrapped in (False, True))
        assert (True, "EventStream") == (isinstance(tapped, EventStream), type(tapped).__name__)
        assert str(read(plain)).replace("msg_000001", "msg_000002") == str(read(tapped))


@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_is_closed_is_charged_for_what_came(wire: str) -> None:
    """At least the bill, less than the hold, marked unresolved; nothing stays held; closing twice is fine."""
    gate = threading.Event()
    with BedrockWorld(Stall(gate, WORDS, after_chunks=3)) as world:
        client = world.boto()
        events = STREAMS[wire](client)
        for _, _ in zip(range(4), events, strict=False):
            pass
        held = world.held
        events.close()
        events.close()
        gate.set()
        world.provider.wait_idle()
        assert (True, 0) == (world.billed <= world.spent < held, world.held)
        assert world.spent == run_of(client).report().unresolved_pusd


@dropping
@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_is_dropped_is_settled(wire: str, started: bool) -> None:
    """Nobody closed it: the garbage collector's word is passed on, and settled off the finaliser."""
    gate = threading.Event()
    with BedrockWorld(Stall(gate, WORDS, after_chunks=3)) as world:
        client = world.boto()
        events = STREAMS[wire](client)
        if started:
            next(iter(events))
        held = world.held
        assert held > 0
        del events
        gc.collect()
        assert held == world.held
        gate.set()
        world.provider.wait_idle()
        world.guard.flush()
        assert (True, 0) == (0 < world.spent <= held, world.held)


@dropping
def test_finaliser_takes_no_lock() -> None:
    """The collector may run while this very thread has one of our locks; it must not wait for it."""
    with BedrockWorld(WORDS) as world:
        client = world.boto()
        events = stream(client)
        next(iter(events))
        run = run_of(client)
        done: list[bool] = []

        def collect() -> None:
            gc.collect()
            done.append(True)

        del events
        with world.guard.housekeeper._lock, world.guard.room, run.latch.lock:
            thread = threading.Thread(target=collect, daemon=True)
            thread.start()
            thread.join(10)
        assert [True] == done
        world.guard.flush()
        assert 0 == world.held


@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_is_open_when_the_program_ends_is_settled(wire: str) -> None:
    """Nothing stays held for a reader who is gone."""
    with BedrockWorld(WORDS) as world:
        client = world.boto()
        events = STREAMS[wire](client)
        next(iter(events))
        edge_of(client).at_exit()
        assert (0, True) == (world.held, world.spent > 0)
        events.close()


@pytest.mark.parametrize("wire", STREAMS)
def test_iteration_may_be_left_and_taken_up_again(wire: str) -> None:
    """A `for` that is left ends nothing; the rest comes in the next one, and the call is billed as a whole."""
    with BedrockWorld(WORDS) as world:
        events = STREAMS[wire](world.boto())
        first = next(iter(events))
        gc.collect()
        assert world.held > 0
        assert first not in list(events)
        world.settled()


@pytest.mark.parametrize("wire", STREAMS)
def test_all_told_is_settled_at_once(wire: str) -> None:
    """Whoever stops reading at the last event need not close the stream."""
    with BedrockWorld(TOLD) as world:
        client = world.boto()
        events = STREAMS[wire](client)
        for event in events:
            if "metadata" in event or b"message_stop" in event.get("chunk", {}).get("bytes", b""):
                break
        world.settled()
        assert 0 == run_of(client).report().unresolved_pusd


@pytest.mark.parametrize("wire", STREAMS)
def test_lost_connection_is_charged_for_what_came(wire: str) -> None:
    """The input and what came, unresolved; the error is the one botocore lets through."""
    with BedrockWorld(HangUp(WORDS, after_chunks=3)) as world:
        events = STREAMS[wire](world.boto())
        held = world.held
        with pytest.raises(Exception, match="ended prematurely"):
            read(events)
        assert (True, 0) == (world.billed <= world.spent < held, world.held)


@pytest.mark.parametrize("wire", STREAMS)
def test_error_inside_a_stream_is_charged_for_what_came(wire: str) -> None:
    """The provider gave up in the middle: it has worked no further than it said."""
    with BedrockWorld(HangUp(WORDS, after_chunks=2, error=Error(429))) as world:
        events = STREAMS[wire](world.boto())
        held = world.held
        with pytest.raises(EventStreamError, match="throttlingException"):
            read(events)
        assert (True, 0) == (world.billed <= world.spent < held, world.held)


DIGITS = "0123456789" * 800
IGNORES = Text(
    DIGITS, usage=Usage(input_tokens=20, output_tokens=len(DIGITS)), ignores_max_tokens=True, chunks=100
)  # fmt: skip
"""Nearly nine times the cap of these calls, at a token a byte as some tokenizers count digits."""


@pytest.mark.parametrize("wire", STREAMS)
def test_hold_grows_with_an_answer_that_ignores_the_cap(wire: str) -> None:
    """What was reported replaces it at the end, without an overrun."""
    with BedrockWorld(IGNORES) as world:
        events = STREAMS[wire](world.boto())
        held = [world.held, *(world.held for _ in events)]
        world.settled()
        assert (True, False) == (held[0] < max(held), "bound_violated" in world.names())


@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_no_budget_pays_for_is_closed(wire: str) -> None:
    """The reader gets what came, then the stop; it is charged for what came, and the run stays stopped."""
    limits = Limits(run=None, month="0.06", steps=None, hold_wait_ms=0)
    with BedrockWorld(IGNORES, limits) as world:
        client = world.boto()
        seen: list[Any] = []
        with pytest.raises(BudgetExceeded):
            for event in STREAMS[wire](client):
                seen.append(event)  # noqa: PERF402 -- what came before the stop is looked at
        world.provider.wait_idle()
        assert (0, 1, True) == (world.held, world.hits, len(seen) > 80)
        assert 0.06 < world.spent / 1e12
        with pytest.raises(BudgetExceeded):
            STREAMS[wire](client)
        assert 1 == world.hits


def test_input_that_was_told_at_the_start_is_charged_exactly() -> None:
    """Anthropic's first event reports the input, so only the output of a stream that is left is a bound."""
    gate = threading.Event()
    told = Text("one two three four five six", usage=Usage(input_tokens=5, output_tokens=6))
    with BedrockWorld(Stall(gate, told, after_chunks=2)) as world:
        events = invoke_stream(world.boto())
        seen = 0
        for event in events:
            seen += b"text_delta" in event["chunk"]["bytes"]
            if seen == 2:
                break
        events.close()
        gate.set()
        world.provider.wait_idle()
        rates = {"input": 3_000_000, "output": 15_000_000}
        output = (world.spent - 5 * rates["input"]) // rates["output"]
        assert (0, True) == ((world.spent - 5 * rates["input"]) % rates["output"], len("one two ") <= output < 60)


@pytest.mark.parametrize("wire", STREAMS)
def test_hidden_reasoning_keeps_the_whole_hold(wire: str) -> None:
    """What a reasoning model wrote before its answer may not be in the stream."""
    thinking: dict[str, Any] = (
        {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 100}}}
        if wire == "ConverseStream" else {"body": claude(thinking={"type": "enabled", "budget_tokens": 100})}
    )  # fmt: skip
    ask = {"ConverseStream": stream, "InvokeModelWithResponseStream": invoke_stream}[wire]
    with BedrockWorld(WORDS) as world:
        events = ask(world.boto(), **thinking)
        next(iter(events))
        held = world.held
        events.close()
        assert (held, 0) == (world.spent, world.held)


@pytest.mark.parametrize("wire", STREAMS)
def test_streamed_tool_calls_are_billed(wire: str) -> None:
    """Their arguments come in pieces, and count when the stream is left."""
    gate = threading.Event()
    calls = ToolCalls([ToolUse("weather", {"city": "Bern" * 50})])
    with BedrockWorld([calls, Stall(gate, calls, after_chunks=1)]) as world:
        client = world.boto()
        read(STREAMS[wire](client))
        world.settled()
        events = STREAMS[wire](client)
        for event in events:
            if "Bern" in str(event):
                break
        events.close()
        gate.set()
        world.provider.wait_idle()
        assert (True, 0) == (world.spent >= world.billed, world.held)


def test_long_streams_are_not_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past some size only the texts are kept; a stream that is left then still pays for all that came."""
    from runrails.clients import coming

    monkeypatch.setattr(coming, "KEPT_SIZE_MAX", 100)
    gate = threading.Event()
    for ask in STREAMS.values():
        gate.clear()
        with BedrockWorld(Stall(gate, Text("word " * 60), after_chunks=50)) as world:
            events = ask(world.boto())
            for _, _ in zip(range(50), events, strict=False):
                pass
            events.close()
            gate.set()
            world.provider.wait_idle()
            assert world.spent >= world.billed > 0
