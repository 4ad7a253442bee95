"""Streams broken off in every form, through every door of the SDKs: one line each, never free, nothing held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from rr_clients import HI, MODEL, World, in_loop, run_of
from runrails.ledger import FullStore, ResultFacts, Settled
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore
from runrails.testing.provider import HangUp, Stall, Text

WORDS = Text("one two three four five six seven eight nine ten")
ASKED: Any = {"model": MODEL, "max_tokens": 1000, "messages": HI}


def _raw_lines(client: Any) -> None:
    with client.chat.completions.with_streaming_response.create(**ASKED, stream=True) as raw:
        for line in raw.iter_lines():
            if "two" in line:
                break


def _raw_bytes(client: Any) -> None:
    with client.messages.with_streaming_response.create(**ASKED, stream=True) as raw:
        for data in raw.iter_bytes():
            if b"two" in data:
                break


def _raw_parsed(client: Any) -> None:
    stream = client.chat.completions.with_raw_response.create(**ASKED, stream=True).parse()
    _until_two(stream)
    stream.close()


def _chat_helper(client: Any) -> None:
    with client.chat.completions.stream(**ASKED) as stream:
        _until_two(stream)


def _chat_helper_raises(client: Any) -> None:
    with suppress(ZeroDivisionError), client.chat.completions.stream(**ASKED) as stream:
        _until_two(stream)
        raise ZeroDivisionError


def _response_helper(client: Any) -> None:
    with client.responses.stream(model=MODEL, input="hi", max_output_tokens=1000) as stream:
        _until_two(stream)


def _message_helper(client: Any) -> None:
    with client.messages.stream(**ASKED) as stream:
        _until_two(stream.text_stream)


def _generator(client: Any) -> None:
    def texts() -> Any:
        with client.messages.create(**ASKED, stream=True) as stream:
            yield from stream

    made = texts()
    _until_two(made)
    made.close()


def _client_closed(client: Any) -> None:
    stream = client.chat.completions.create(**ASKED, stream=True)
    _until_two(stream)
    client.close()
    stream.close()


def _until_two(stream: Any) -> None:
    for event in stream:
        if "two" in str(event):
            break


DOORS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "with_streaming_response, lines": ("openai", _raw_lines),
    "with_streaming_response, bytes": ("anthropic", _raw_bytes),
    "with_raw_response, parsed": ("openai", _raw_parsed), "chat.stream": ("openai", _chat_helper),
    "chat.stream, its block raises": ("openai", _chat_helper_raises), "responses.stream": ("openai", _response_helper),
    "messages.stream": ("anthropic", _message_helper), "inside a generator": ("anthropic", _generator),
    "the client is closed": ("openai", _client_closed),
}  # fmt: skip


def one_line(world: World) -> Any:
    """The one usage record there is, of a call that was cut."""
    assert isinstance(world.store, FullStore)
    (record,) = world.store.usage()
    assert record.result is not None
    assert ("unresolved", "cut", 0) == (record.state, record.result.end, world.held)
    assert record.actual_pusd == world.spent
    return record


@pytest.mark.parametrize("door", DOORS)
def test_every_door_is_cut_alike(door: str) -> None:
    """Left after the second word: the input and what came, no less than the bill, in one line."""
    kind, leave = DOORS[door]
    gate = threading.Event()
    with World(Stall(gate, WORDS, after_chunks=2)) as world:
        leave(getattr(world, kind)())
        gate.set()
        world.provider.wait_idle()
        world.guard.flush()
        assert world.billed <= world.spent < one_line(world).estimated_pusd


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", ["openai", "anthropic", "bedrock"])
def test_connection_that_the_server_closes_or_resets(kind: str, reset: bool) -> None:
    """A reset throws away what was not read yet, so that only its input is certain; it is never free."""
    with World(HangUp(WORDS, after_chunks=3, reset=reset)) as world:
        client = getattr(world, kind)()
        create = client.chat.completions.create if kind == "openai" else client.messages.create
        with suppress(Exception):
            for _ in create(**ASKED, stream=True):
                pass
        world.provider.wait_idle()
        world.guard.flush()
        assert isinstance(world.store, FullStore)
        (record,) = world.store.usage()
        assert (True, 0, "unresolved") == (world.spent > 0, world.held, record.state)
        assert reset or world.billed <= world.spent


def test_time_that_is_up_in_the_middle() -> None:
    """A read timeout after the second word is no other than leaving there."""
    with World(Stall(threading.Event(), WORDS, after_chunks=2)) as world:
        client = world.openai(timeout=2)  # of each read: none but the last takes as long on a busy machine
        with pytest.raises(Exception, match="timed out"):
            _until_two(
                event for event in client.chat.completions.create(**ASKED, stream=True) if "two" not in str(event)
            )
        world.provider.wait_idle()
        assert world.billed <= world.spent < one_line(world).estimated_pusd


class SlowStore(FlakyStore):
    """A remote store that takes its time to settle."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), remote=True)
        self.settling, self.go_on = threading.Event(), threading.Event()

    def settle(self, reservation_id: str, actual: int, **how: Any) -> Settled:
        """Wait first."""
        self.settling.set()
        assert self.go_on.wait(60)
        result: ResultFacts | None = how.get("result")
        assert result is not None
        return super().settle(reservation_id, actual, **how)


@pytest.mark.parametrize("kind", ["aopenai", "aanthropic"])
def test_task_that_is_cancelled_while_it_settles(kind: str) -> None:
    """Cancelled in the middle of a read, and again and again while the ledger takes its time: settled all the same."""
    store = SlowStore()
    with World(Stall(threading.Event(), WORDS, after_chunks=2), store=store) as world:

        async def work() -> None:
            client = getattr(world, kind)()
            create = client.chat.completions.create if kind == "aopenai" else client.messages.create
            seen = asyncio.Event()

            async def read() -> None:
                async for event in await create(**ASKED, stream=True):
                    if "two" in str(event):
                        seen.set()

            task = asyncio.create_task(read())
            await seen.wait()
            while not task.done():
                task.cancel()
                await asyncio.to_thread(store.settling.wait, 60)
                await asyncio.sleep(0)
            assert task.cancelled()
            store.go_on.set()
            await asyncio.to_thread(world.provider.wait_idle)

        in_loop(world, work)
        world.guard.close()
        assert [("settle", "ok")] == [each for each in store.log if each[0] == "settle"]
        assert 0 < world.billed <= world.spent < one_line(world).estimated_pusd


def test_stream_is_settled_once_whoever_ends_it() -> None:
    """Closed, closed again, dropped, and the program's end: one line, and no word of a second settlement."""
    with World(WORDS) as world:
        client = world.openai()
        stream = client.chat.completions.create(**ASKED, stream=True)
        next(stream)
        stream.close()
        stream.response.close()
        stream.close()
        client.runrails_edge.at_exit()
        del stream
        world.guard.flush()
        one_line(world)
        assert (1, False) == (len(run_of(client).report().rows), "permit_repeated" in world.names())
