"""
How punctual an event loop is beside 64 guarded runs whose store answers in 20 ms, and beside bare calls of that store.

``python tests/rr_heartbeat.py`` measures it ten times in a fresh interpreter, on a quiet machine please.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from rr_core import CENT, PRICES, cent_call, done
from runrails import Guard, Limits, aio
from runrails.ledger import Reserved, Settled
from runrails.stores.memory import MemoryStore
from runrails_aws.dynamodb.calling import CALLS_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RUNS = 64
ANSWER_S = 0.02
BEAT_S = 0.005
CALLS = 5


class AwayStore:
    """Across a network: each verb takes as long as `wait` does. As many at once as of the DynamoDB store."""

    remote = True
    calls_max = CALLS_MAX

    def __init__(self, wait: Callable[[], object] = lambda: time.sleep(ANSWER_S)) -> None:
        self.wait = wait
        self.threads: set[int] = set()

    def reserve(self, reservation: Any) -> Reserved:
        """Yes."""
        self._answer()
        return Reserved(reservation.id)

    def settle(self, reservation_id: str, actual: int, **_: Any) -> Settled:
        """Done."""
        self._answer()
        return Settled(reservation_id, "settled", actual, CENT)

    def release(self, reservation_id: str) -> Settled:
        """Nobody asks for it here."""
        raise AssertionError(reservation_id)

    def expire(self, *, count_max: int = 64) -> Any:
        """Nobody asks for it here."""
        raise AssertionError(count_max)

    def balance(self, account: Any) -> Any:
        """Empty; the housekeeper looks at it."""
        return MemoryStore().balance(account)

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self) -> None:
        self.threads.add(threading.get_ident())
        self.wait()


class Beats(NamedTuple):
    """How late a task came back from sleeping, and how long each store call took, in milliseconds."""

    late_ms: list[float]
    waits_ms: list[float]

    @property
    def worst_ms(self) -> float:
        """The latest beat."""
        return max(self.late_ms)


@asynccontextmanager
async def beating(late_ms: list[float]) -> AsyncIterator[None]:
    """A heartbeat in this event loop."""

    async def beat() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(BEAT_S)
            late_ms.append((time.perf_counter() - began - BEAT_S) * 1_000)

    task = asyncio.create_task(beat())
    await asyncio.sleep(2 * BEAT_S)
    try:
        yield
    finally:
        task.cancel()


async def timed(waits_ms: list[float], call: Awaitable[Any]) -> Any:
    """Its answer; how long it took is noted."""
    began = time.perf_counter()
    answer = await call
    waits_ms.append((time.perf_counter() - began) * 1_000)
    return answer


def guard_of(store: Any) -> Guard:
    """A guard for many runs of one user."""
    return Guard(Limits(run=None, month="500.00", steps=None), user="alice", store=store, prices=PRICES, sinks=[])


async def guarded(store: Any = None) -> Beats:
    """64 runs at once, each of some calls one after the other."""
    beats = Beats([], [])
    # What the process had loaded before is not what is measured: a full collection of it takes 30 ms and more.
    gc.collect()
    with guard_of(AwayStore() if store is None else store) as guard:
        runs = [guard.run() for _ in range(RUNS)]

        async def one(run: Any) -> None:
            for _ in range(CALLS):
                permit = await timed(beats.waits_ms, aio.before_model(run, cent_call()))
                await timed(beats.waits_ms, aio.after_model(run, permit, done()))

        async with beating(beats.late_ms):
            await asyncio.gather(*(one(run) for run in runs))
    return beats


async def bare() -> Beats:
    """As many tasks whose store calls sleep in plain executors of that size: what the interpreter and machine cost."""
    beats, loop = Beats([], []), asyncio.get_running_loop()
    gc.collect()
    with ThreadPoolExecutor(CALLS_MAX) as reserving, ThreadPoolExecutor(CALLS_MAX) as settling:

        async def one() -> None:
            for _ in range(CALLS):
                for pool in (reserving, settling):
                    await timed(beats.waits_ms, loop.run_in_executor(pool, time.sleep, ANSWER_S))

        async with beating(beats.late_ms):
            await asyncio.gather(*(one() for _ in range(RUNS)))
    return beats


def main() -> None:
    """Measure and print."""
    for name, measure in (("guarded", guarded), ("bare", bare)) * 10:
        beats = asyncio.run(measure())
        late, waits = sorted(beats.late_ms), sorted(beats.waits_ms)
        print(
            f"{name:8s} latest beat {late[-1]:5.1f} ms, median {late[len(late) // 2]:4.1f}; "
            f"store call median {waits[len(waits) // 2]:5.1f} ms, longest {waits[-1]:5.1f}"
        )


if __name__ == "__main__":
    main()
