"""Streams that are left: what had come is charged, and the hold is given back, however the caller goes away."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rr_clients import HI, MODEL, Canned, World, in_loop, run_of
from runrails.testing.provider import Error, HangUp, Stall, Text

WORDS = Text("one two three four five six seven eight nine ten")


def chat(client: Any) -> Any:
    """A stream of chunks."""
    return client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000, stream=True)


def response(client: Any) -> Any:
    """A stream of a response's events."""
    return client.responses.create(model=MODEL, input="hi", max_output_tokens=1000, stream=True)


def message(client: Any) -> Any:
    """A stream of a message's events."""
    return client.messages.create(model=MODEL, messages=HI, max_tokens=1000, stream=True)


STREAMS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "chat": ("openai", chat), "responses": ("openai", response), "messages": ("anthropic", message),
    "bedrock": ("bedrock", message),
}  # fmt: skip


def _close(stream: Any) -> None:
    stream.close()


def _leave_block(stream: Any) -> None:
    with stream:
        next(iter(stream))


LEAVING: dict[str, Callable[[Any], None]] = {"close": _close, "with": _leave_block}


@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_is_left_is_charged_for_what_came(wire: str, leaving: str) -> None:
    """At least the bill, less than the hold, marked unresolved; nothing stays held."""
    gate = threading.Event()
    kind, ask = STREAMS[wire]
    with World(Stall(gate, WORDS, after_chunks=3)) as world:
        client = getattr(world, kind)()
        stream = ask(client)
        for _, _ in zip(range(3), stream, strict=False):
            pass
        held = world.held
        LEAVING[leaving](stream)
        gate.set()
        world.provider.wait_idle()
        assert (True, 0) == (world.billed <= world.spent < held, world.held)
        assert world.spent == run_of(client).report().unresolved_pusd


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_is_dropped_is_settled(wire: str, started: bool) -> None:
    """Nobody closed it: the garbage collector's word is passed on, and settled off the finaliser."""
    gate = threading.Event()
    kind, ask = STREAMS[wire]
    with World(Stall(gate, WORDS, after_chunks=3)) as world:
        client = getattr(world, kind)()
        stream = ask(client)
        if started:
            next(iter(stream))
        held = world.held
        assert held > 0
        del stream
        gc.collect()
        gate.set()
        world.provider.wait_idle()
        world.guard.flush()
        assert (True, 0) == (0 < world.spent <= held, world.held)


def test_finaliser_takes_no_lock() -> None:
    """The collector may run while this very thread has one of our locks; it must not wait for it."""
    with World(WORDS) as world:
        client = world.openai()
        stream = chat(client)
        next(stream)
        run = run_of(client)
        blocked: list[bool] = []

        def collect() -> None:
            gc.collect()
            blocked.append(False)

        del stream
        with world.guard.housekeeper._lock, world.guard.room, run.latch.lock:
            thread = threading.Thread(target=collect, daemon=True)
            thread.start()
            thread.join(10)
        assert [False] == blocked
        assert world.held > 0
        world.guard.flush()
        assert 0 == world.held


def test_next_call_settles_what_was_dropped() -> None:
    """Money that a dropped stream held is there for the next call."""
    with World(WORDS) as world:
        client = world.openai()
        stream = chat(client)
        next(stream)
        del stream
        gc.collect()
        client.chat.completions.create(model=MODEL, messages=HI, max_tokens=10)
        assert 0 == world.held


@pytest.mark.parametrize("wire", STREAMS)
def test_stream_that_told_its_usage_is_charged_exactly(wire: str) -> None:
    """All had arrived when the caller left: the report counts, not a bound."""
    kind, ask = STREAMS[wire]
    with World(Text("one", chunks=1)) as world:
        client = getattr(world, kind)()
        stream = ask(client)
        for _ in stream:
            pass
        stream.close()
        world.settled()
        assert 0 == run_of(client).report().unresolved_pusd


@pytest.mark.parametrize("wire", STREAMS)
def test_lost_connection_is_charged_for_what_came(wire: str) -> None:
    """The input and what came, unresolved: no less than the bill, and less than the hold."""
    kind, ask = STREAMS[wire]
    with World(HangUp(WORDS, after_chunks=3)) as world:
        client = getattr(world, kind)()
        stream = ask(client)
        held = world.held
        with pytest.raises(Exception) as caught:
            for _ in stream:
                pass
            raise EOFError  # some wires end without a word
        world.guard.flush()
        assert caught.value is not None
        assert (True, 0) == (world.billed <= world.spent < held, world.held)
        assert world.spent == run_of(client).report().unresolved_pusd


@pytest.mark.parametrize("wire", ["chat", "responses", "messages"])
def test_stream_that_is_lost_before_anything_came_is_charged_the_hold(wire: str) -> None:
    """Headers alone do not tell how far the provider came: the whole bound, unresolved."""
    kind, ask = STREAMS[wire]
    with World() as world, Canned(b"", kind="text/event-stream") as server:
        url = server.url if kind == "openai" else server.url.removesuffix("/v1")
        stream = ask(getattr(world, kind)(base_url=url))
        held = world.held
        list(stream)
        assert (held, 0, True) == (world.spent, world.held, held > 0)


def test_error_inside_a_stream_is_charged_for_what_came() -> None:
    """The provider gave up in the middle: it has worked no further than it said."""
    for kind, ask in (STREAMS["chat"], STREAMS["messages"]):
        with World(HangUp(WORDS, after_chunks=2, error=Error(500))) as world:
            stream = ask(getattr(world, kind)())
            held = world.held
            with pytest.raises(Exception, match=r"scripted error|error"):
                for _ in stream:
                    pass
            assert (True, 0) == (world.billed <= world.spent < held, world.held)


def test_hidden_reasoning_keeps_the_whole_hold() -> None:
    """What a reasoning model wrote before its answer is not in the stream."""
    with World(WORDS) as world:
        client = world.openai()
        stream = client.chat.completions.create(model="fake-reasoner", messages=HI, max_tokens=1000, stream=True)
        next(stream)
        held = world.held
        stream.close()
        assert (held, 0) == (world.spent, world.held)


def test_raw_bytes_read_past_the_guard_keep_the_hold() -> None:
    """Nobody read along, so the hold stands in for what came."""
    with World(WORDS) as world:
        client = world.openai()
        with client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=HI, max_tokens=1000, stream=True
        ) as raw:
            held = world.held
            assert b"data:" in b"".join(raw.http_response.iter_raw())
        assert (held, 0) == (world.spent, world.held)


def test_unread_body_keeps_the_hold() -> None:
    """A plain answer was generated in full, whether the caller read it or not."""
    with World(WORDS) as world:
        client = world.openai()
        with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HI, max_tokens=1000):
            held = world.held
        assert (held, 0, True) == (world.spent, world.held, held > 0)


def test_long_streams_are_not_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past some size only the texts are kept; a stream that is left then still pays for all that came."""
    from runrails.clients import coming

    monkeypatch.setattr(coming, "KEPT_SIZE_MAX", 300)
    gate = threading.Event()
    with World(Stall(gate, Text("word " * 60), after_chunks=50)) as world:
        client = world.openai()
        stream = chat(client)
        for _, _ in zip(range(50), stream, strict=False):
            pass
        stream.close()
        gate.set()
        world.provider.wait_idle()
        assert world.spent >= world.billed > 0


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_lines_broken_anywhere_are_read_and_hidden(size: int) -> None:
    """Where the network breaks the bytes makes no difference to what is read or shown."""
    from runrails.answers.openai import ChatEvents
    from runrails.clients.sse import SseReader

    usage = b'{"choices":[],"model":"m","usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}'
    chunk = b'{"choices":[{"index":0,"delta":{"content":"say \\"usage\\": {}"}}],"usage":null}'
    for end in (b"\n\n", b"\r\n\r\n"):
        body = b"data: " + chunk + end + b"data: " + usage + end + b"data: [DONE]" + end
        events = ChatEvents(reasoning=False, hides=True)
        reader = SseReader(events)
        shown = b"".join(reader.feed(body[i : i + size]) for i in range(0, len(body), size)) + reader.rest()
        lines = [line for line in shown.split(b"\n") if line.strip()]
        assert [b"data: " + chunk, b"data: [DONE]"] == [line.strip() for line in lines]
        assert events.usage is not None
        assert (5, 7, True) == (events.usage.input_tokens, events.usage.output_tokens, events.ended)


@pytest.mark.parametrize("wire", STREAMS)
def test_async_stream_that_is_left_is_charged_for_what_came(wire: str) -> None:
    """Closing, and cancelling the task that reads."""
    gate = threading.Event()
    kind, ask = STREAMS[wire]
    with World(Stall(gate, WORDS, after_chunks=3)) as world:

        async def work() -> None:
            client = getattr(world, f"a{kind}")()
            stream = await ask(client)
            await anext(aiter(stream))
            held = world.held
            await stream.close()
            assert (True, 0) == (0 < world.spent < held, world.held)

            async def read() -> None:
                async for _ in await ask(client):
                    pass

            task = asyncio.create_task(read())
            await asyncio.to_thread(world.provider.wait_received, 2)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        in_loop(world, work)
        gate.set()
        world.provider.wait_idle()
        world.guard.flush()
        assert (True, 0) == (world.billed <= world.spent, world.held)
