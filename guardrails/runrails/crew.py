"""Threads for what may wait, which an event loop can ask for without waiting itself."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

__all__ = ["Crew"]

_R = TypeVar("_R")


class Crew:
    """
    Up to `count_max` threads, each doing one job at a time; they end once the crew is dismissed or collected.

    Whoever starts a thread waits until it runs. Once that is nothing; sixty times in a row, while those that were
    started before want to run as well, an event loop stands still for longer than the calls take. So a thread starts
    the others.
    """

    def __init__(self, count_max: int, name: str) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(count_max, name)
        self._starter = ThreadPoolExecutor(1, f"{name}-starter")
        self._lock = Lock()
        self._busy = 0
        self._started = 0
        self._count_max = count_max

    def do(self, job: Callable[[], _R]) -> Future[_R]:
        """Have a job done."""
        with self._lock:
            self._busy += 1
            starts = self._started < min(self._busy, self._count_max)
            self._started += starts
        future = self._by_starter(job) if starts else self._pool.submit(job)
        future.add_done_callback(self._ended)
        return future

    def dismiss(self) -> None:
        """Let the threads end, once they have done what they were given."""
        self._starter.shutdown(wait=False)
        self._pool.shutdown(wait=False)

    def _ended(self, _: Future[_R]) -> None:
        with self._lock:
            self._busy -= 1

    def _by_starter(self, job: Callable[[], _R]) -> Future[_R]:
        from concurrent.futures import Future

        future: Future[_R] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                answer = job()
            except BaseException as error:  # noqa: BLE001 -- whoever waits for the answer is told
                future.set_exception(error)
            else:
                future.set_result(answer)

        def hand_over() -> None:
            try:
                self._pool.submit(work)
            except RuntimeError:  # dismissed since, or no thread can be started any more
                work()

        self._starter.submit(hand_over)
        return future
