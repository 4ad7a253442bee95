"""The asynchronous edge: threads of a store of its own, nothing lost, and no thread left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from rr_core import CENT, Bench, cent_call, done
from rr_far import FarStore
from runrails import Limits, aio
from runrails.cover import take_cover
from runrails.ledger import Reservation
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore

WAIT_S = 30


class Stuck(FarStore):
    """A store that answers nobody until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def reserve(self, reservation: Reservation) -> Any:
        """Wait, then work."""
        self.release.wait(WAIT_S)
        return super().reserve(reservation)


def pool_threads() -> set[threading.Thread]:
    """The threads of ours that wait for stores."""
    return {
        thread for thread in threading.enumerate() if thread.name.startswith(("runrails-reserve", "runrails-settle"))
    }


def gone(threads: set[threading.Thread]) -> bool:
    """Whether they have all ended, given a little time; asking for a collection while one runs does nothing."""
    for _ in range(300):
        alive = [thread for thread in threads if thread.is_alive()]
        if not alive:
            return True
        alive[0].join(0.1)
        gc.collect()
    return False


async def test_a_store_that_does_not_answer_keeps_up_no_other() -> None:
    """Twice as many calls as there are threads wait for one store; those of the other store go on."""
    stuck, other = Bench(Limits(run=None, steps=None), store=Stuck()), Bench(store=FarStore())
    run = stuck.guard.run()
    waiting = [asyncio.create_task(aio.before_model(run, cent_call())) for _ in range(2 * aio.THREADS_MAX)]
    await asyncio.sleep(0)

    async def works() -> None:
        async with other.guard.run() as theirs:
            for _ in range(3):
                await aio.after_model(theirs, await aio.before_model(theirs, cent_call()), done())

    await asyncio.wait_for(works(), WAIT_S)
    assert not any(task.done() for task in waiting)
    assert 3 * CENT == other.spent("user:alice")

    stuck.store.release.set()  # type: ignore[attr-defined]
    for permit in await asyncio.gather(*waiting):
        await aio.after_model(run, permit, done())
    assert (2 * aio.THREADS_MAX * CENT, 0) == (stuck.spent("user:alice"), stuck.held("user:alice"))


async def test_the_threads_of_a_store_are_bounded_and_end_with_it() -> None:
    """A hundred calls at once; when nobody has the store any more its threads are gone."""
    before = pool_threads()
    bench = Bench(Limits(run=None, steps=None), store=FarStore())
    run = bench.guard.run()
    permits = await asyncio.gather(*(aio.before_model(run, cent_call()) for _ in range(100)))
    await asyncio.gather(*(aio.after_model(run, permit, done()) for permit in permits))
    mine = pool_threads() - before
    starters = {thread for thread in mine if "-starter" in thread.name}  # They ask no store.
    assert 0 < len(mine - starters) <= 2 * aio.THREADS_MAX
    assert len(starters) <= 2

    bench.guard.close()
    del bench, run, permits
    gc.collect()
    assert gone(mine)


async def test_the_threads_end_when_the_guard_closes_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may still hold the store; used again it has threads again."""
    before, store = pool_threads(), FarStore()
    bench = Bench(store=store)
    bench.guard._owns_store = True
    run = bench.guard.run()
    await aio.after_model(run, await aio.before_model(run, cent_call()), done())
    mine = pool_threads() - before
    assert mine
    await asyncio.to_thread(bench.guard.close)
    assert gone(mine)

    assert 7 == await aio.off_loop(bench.guard, lambda: 7)
    aio.forget(store)


async def test_a_store_nothing_can_be_tied_to_works_too() -> None:
    """One with slots shares its threads with others of its kind."""

    class Slotted(FlakyStore):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    bench = Bench(store=Slotted(MemoryStore(), remote=True))
    run = bench.guard.run()
    await aio.after_model(run, await aio.before_model(run, cent_call()), done())
    aio.forget(bench.store)
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


@pytest.mark.parametrize("remote", [False, True])
async def test_a_permit_covers_the_call_of_the_task_that_asked_for_it(remote: bool) -> None:
    """Once, and only where it was asked for by somebody who does not send the request."""
    bench = Bench(store=FarStore() if remote else None)
    run = bench.guard.run()
    permit = await aio.before_model(run, cent_call(), sends=False)
    assert [True, False] == [take_cover(bench.guard, cent_call()) for _ in range(2)]
    await aio.after_model(run, permit, done())

    permit = await aio.before_model(run, cent_call())
    assert not take_cover(bench.guard, cent_call())
    await aio.after_model(run, permit, done())


async def test_what_was_left_alone_does_not_get_through_by_way_of_a_thread() -> None:
    """The thread that asks the store belongs to whoever asked for it."""
    bench, go_on, over, late = Bench(Limits(seconds=1), store=FarStore()), asyncio.Event(), asyncio.Event(), []

    async def hangs() -> None:
        from runrails import current_run

        run = current_run()
        assert run is not None
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        try:
            await aio.before_model(run, cent_call())
        except Exception as exc:
            late.append(type(exc).__name__)
        over.set()

    outcome = await bench.guard.supervise(hangs).ainvoke()
    assert ("limit_reached", True) == (outcome.stop_reason, outcome.abandoned)
    outcome.run.resume(limits=Limits(seconds=60))
    go_on.set()
    await over.wait()
    assert (["LimitReached"], 0, []) == (late, bench.store.called("reserve"), bench.store.on_loop)  # type: ignore[attr-defined]


def test_chunks_add_up_at_a_cost_that_hardly_grows() -> None:
    """What a sum copies is counted: for n chunks at most n log n, where adding one by one copies n * n / 2."""
    from runrails.streams import Chunks

    copied = 0

    class Part:
        def __init__(self, items: tuple[int, ...]) -> None:
            self.items = items

        def __add__(self, other: Part) -> Part:
            nonlocal copied
            copied += len(self.items) + len(other.items)
            return Part(self.items + other.items)

    chunks, count = Chunks(), 5_000
    for n in range(count):
        chunks.add(Part((n,)))
    assert isinstance(chunks.total, Part)
    assert tuple(range(count)) == chunks.total.items
    assert copied <= count * (count.bit_length() + 1)
    assert "".join(f"{n} " for n in range(2_001)) == _sum(f"{n} " for n in range(2_001))


def test_message_chunks_add_up_to_what_they_come_to_one_by_one() -> None:
    """Text, and a tool call whose arguments come in pieces."""
    from langchain_core.messages import AIMessageChunk

    def message(n: int) -> AIMessageChunk:
        call: Any = {"name": "t" if n == 0 else None, "args": f"{n},", "id": "c" if n == 0 else None, "index": 0}
        return AIMessageChunk(content=f"{n} ", tool_call_chunks=[{**call, "type": "tool_call_chunk"}], id="m")

    expected = message(0)
    for n in range(1, 45):
        expected += message(n)
    assert expected == _sum(message(n) for n in range(45))


def _sum(parts: Iterable[object]) -> object:
    from runrails.streams import Chunks

    chunks = Chunks()
    for part in parts:
        chunks.add(part)
    return chunks.total


def test_chunks_that_do_not_add_up_are_the_newest_one() -> None:
    """Of another type, of a type without a sum, or numbers and lists, whose sum would be something else."""

    def total(*parts: object) -> object:
        return _sum(parts)

    assert [None, "c", {"b": 1}, 3, [2], ("x",), "de"] == [
        total(), total(1, "c"), total({"a": 1}, {"b": 1}), total(1, 2, 3), total([1], [2]), total(("w",), ("x",)),
        total("a", {}, "d", "e"),
    ]  # fmt: skip
