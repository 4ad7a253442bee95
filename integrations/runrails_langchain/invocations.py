"""Runs of agents that have the middleware alone: one for each invocation, found again by a key in the agent's state."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from runrails_langchain.handler import tracker_of
from runrails_langchain.payers import open_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["Invocations", "invocations_of"]

RUNS_OPEN_MAX = 1_000


class Invocations:
    """
    Thread-safe and bounded; shared by all middlewares of a guard.

    A run ends with its invocation. One that an exception or an interrupt has left behind stays open, so that the
    invocation can go on in it, until a thousand newer ones have been opened or the guard is closed.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        guard.before_close.add(self)

    def open(self, metadata: Mapping[str, object] | None) -> str:
        """Open a run for an invocation with this metadata and return its key."""
        key = self._guard.new_id()
        self.get(key, metadata)
        return key

    def get(self, key: str, metadata: Mapping[str, object] | None) -> Run:
        """The run of a key; a new one if this process does not have it, as after a restart."""
        oldest = None
        with self._lock:
            run = self._runs.get(key)
            if run is not None:
                self._runs.move_to_end(key)
                return run
        fresh = open_run(self._guard, metadata)
        with self._lock:
            run = self._runs.setdefault(key, fresh)
            if len(self._runs) > RUNS_OPEN_MAX:
                oldest = self._runs.popitem(last=False)[1]
        if oldest is not None:
            self._end(oldest)
        return run

    def end(self, key: str) -> None:
        """The invocation is over."""
        with self._lock:
            run = self._runs.pop(key, None)
        if run is not None:
            self._end(run)

    def close(self) -> None:
        """End every run that is still open."""
        with self._lock:
            runs, self._runs = list(self._runs.values()), OrderedDict()
        for run in runs:
            self._end(run)

    def _end(self, run: Run) -> None:
        try:
            tracker_of(self._guard).left(run)
            run.close()
        except Exception as exc:  # noqa: BLE001 -- the agent has ended; its result is the user's
            self._guard.emit("adapter_failed", "error", run=run.id, hook="after_agent", error=type(exc).__name__)


def invocations_of(guard: Guard) -> Invocations:
    """The guard's one table of them."""
    found = guard.adapters.get(Invocations)
    if found is None:
        found = guard.adapters.setdefault(Invocations, Invocations(guard))
    assert isinstance(found, Invocations)  # noqa: S101 -- for the type checker: the key is the type
    return found
