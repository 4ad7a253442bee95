"""
Worker processes of one gateway: as many as are asked for, begun anew where they die, ended together.

They are forked from a process that has loaded everything and opened nothing, so that four are ready as soon as one, and
one that was killed is replaced in a moment.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import connection
from typing import TYPE_CHECKING

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkProcess
    from types import FrameType

__all__ = ["Supervisor"]

LOOK_S = 0.5
"""How long a signal may wait in the worst case; the end of a worker is noticed at once."""
LIVES_S = 5.0
"""A worker that gives up sooner could not start; the next one waits so long: what is wrong may be over by then."""
KILLED_S = 1.0
"""The same for one that is killed, which says nothing about the next one unless it was at once."""
PARENT_LOOK_S = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("runrails.workers")


class Supervisor:
    """
    Keeps workers going until it is told to end.

    Args:
        work: What a worker does. It ends in good order at SIGTERM.
        count: How many there are.
        patience_s: How long they have for that before they are killed.

    Raises:
        ConfigError: This system cannot fork.
    """

    def __init__(self, work: Callable[[], None], count: int, *, patience_s: float) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ConfigError(
                "This system cannot serve with several processes.",
                next_step="Leave --workers out, or start several gateways on ports of their own behind a proxy.",
            )
        self._work = work
        self._count = count
        self._patience_s = patience_s
        self._ending = threading.Event()
        self._workers: dict[ForkProcess, float] = {}
        """And when each was begun."""
        self._begin_at: list[float] = []
        """When those that are missing are begun."""

    def run(self) -> None:
        """Begin the workers, and return when all have ended after SIGTERM or SIGINT."""
        before = {each: signal.signal(each, self._end) for each in SIGNALS}
        self._begin_at = [0.0] * self._count
        try:
            while not self._ending.is_set():
                self._begin_missing()
                connection.wait([each.sentinel for each in self._workers] or [], LOOK_S)
                self._look()
            self._end_workers()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._ending.set()

    def _begin_missing(self) -> None:
        now = time.monotonic()
        due = [at for at in self._begin_at if at <= now]
        self._begin_at = [at for at in self._begin_at if at > now]
        for _ in due:
            worker = multiprocessing.get_context("fork").Process(target=_be_worker, args=(self._work, os.getpid()))
            # A signal that comes before the child has handlers of its own waits until then.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                worker.start()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._workers[worker] = now

    def _look(self) -> None:
        now = time.monotonic()
        for worker in [each for each in self._workers if not each.is_alive()]:
            lived_s = now - self._workers.pop(worker)
            least_s = KILLED_S if worker.exitcode is not None and worker.exitcode < 0 else LIVES_S
            self._begin_at.append(now if lived_s >= least_s else now + least_s)
            if not self._ending.is_set():
                _log.warning("worker %d ended with %s; another one is begun", worker.pid, worker.exitcode)

    def _end_workers(self) -> None:
        until = time.monotonic() + self._patience_s
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
            if worker.is_alive():
                _log.error("worker %d did not end in time and was killed", worker.pid)
                worker.kill()
                worker.join()


def _be_worker(work: Callable[[], None], parent: int) -> None:
    for each in SIGNALS:  # Ctrl-C reaches every process of a terminal, and ends them as SIGTERM does.
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_outlive_no_parent, args=(parent,), name="runrails-parent", daemon=True).start()
    try:
        work()
    finally:
        logging.shutdown()  # A worker ends without what is done at the end of a process.


def _outlive_no_parent(parent: int) -> None:
    """Whoever kills the supervisor wants no workers that nobody can end."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
