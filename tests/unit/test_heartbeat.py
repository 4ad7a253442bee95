"""An event loop stays punctual beside 64 guarded runs on a slow store, and none of them waits for another's call."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from rr_core import cent_call, done
from rr_far import FarStore
from rr_heartbeat import RUNS, AwayStore, bare, guard_of, guarded
from runrails import aio
from runrails.pricing import shipped
from runrails.stores.memory import MemoryStore
from runrails_aws.dynamodb import DynamoDBStore
from runrails_aws.dynamodb.calling import CALLS_MAX

TRIES_MAX = 6
LATE_MS_MAX = 20


async def test_as_many_store_calls_as_there_are_threads_are_under_way_at_once() -> None:
    """Each of 64 calls is answered only once all 64 have arrived, to reserve and to settle: none waits for another."""
    met = threading.Barrier(RUNS)
    store = AwayStore(lambda: met.wait(30))
    with guard_of(store) as guard:
        runs = [guard.run() for _ in range(RUNS)]
        for _ in range(2):
            permits = await asyncio.gather(*(aio.before_model(run, cent_call()) for run in runs))
            await asyncio.gather(
                *(aio.after_model(run, permit, done()) for run, permit in zip(runs, permits, strict=True))
            )
    assert (CALLS_MAX, RUNS) == (DynamoDBStore.calls_max, CALLS_MAX)
    assert threading.get_ident() not in store.threads
    assert 2 * RUNS == len(store.threads)


async def test_calls_that_wait_to_be_settled_do_not_keep_up_those_that_begin() -> None:
    """64 settlements hang; as many reservations go on, in threads of their own."""
    hang = threading.Event()

    class HangingStore(AwayStore):
        def settle(self, reservation_id: str, actual: int, **more: object) -> object:  # type: ignore[override]
            hang.wait(30)
            return super().settle(reservation_id, actual, **more)

    store = HangingStore(lambda: None)
    with guard_of(store) as guard:
        runs = [guard.run() for _ in range(RUNS)]
        permits = await asyncio.gather(*(aio.before_model(run, cent_call()) for run in runs))
        ends = [
            asyncio.create_task(aio.after_model(run, permit, done())) for run, permit in zip(runs, permits, strict=True)
        ]
        more = await asyncio.wait_for(asyncio.gather(*(aio.before_model(run, cent_call()) for run in runs)), 30)
        assert not any(end.done() for end in ends)
        hang.set()
        await asyncio.gather(*ends)
        await asyncio.gather(*(aio.after_model(run, each, done()) for run, each in zip(runs, more, strict=True)))


async def test_the_loop_starts_none_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four calls that begin at once cost the loop the start of one thread, which starts the others."""
    starters: Counter[bool] = Counter()
    loop_thread, start = threading.current_thread(), threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        starters[threading.current_thread() is loop_thread] += 1
        start(thread)

    met = threading.Barrier(RUNS)
    with guard_of(AwayStore(lambda: met.wait(30))) as guard:
        runs = [guard.run() for _ in range(RUNS)]
        monkeypatch.setattr(threading.Thread, "start", noting)
        permits = await asyncio.gather(*(aio.before_model(run, cent_call()) for run in runs))
        monkeypatch.undo()
        assert starters[True] <= 1
        assert starters[False] >= RUNS
        await asyncio.gather(*(aio.after_model(run, each, done()) for run, each in zip(runs, permits, strict=True)))


def test_prices_are_read_before_a_loop_could_stand_still_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard on a remote store reads them when it is made; on a local one when they are first needed, as before."""
    monkeypatch.setattr(shipped, "_read", [])
    with guard_of(MemoryStore()):
        assert [] == shipped._read
    with guard_of(FarStore()):
        assert 1 == len(shipped._read)


def test_a_heartbeat_beside_64_runs_is_never_late_by_more_than_20_ms() -> None:
    """
    Beyond what 64 bare sleeping calls make it late in the same minute.

    Other work on a shared machine comes in bursts, so the best of some tries counts: what our code makes late it makes
    late every time.
    """
    measured: list[tuple[float, float]] = []
    for _ in range(TRIES_MAX):
        control, ours = asyncio.run(bare()).worst_ms, asyncio.run(guarded()).worst_ms
        measured.append((ours, control))
        if ours <= LATE_MS_MAX + control:
            return
    pytest.fail(f"The loop stood still, guarded and bare, ms: {measured}")
