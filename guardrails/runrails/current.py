"""Which run the code that is being executed belongs to."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from threading import Thread

    from runrails.errors import GuardrailStopped
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = [
    "Stay", "current", "current_run", "default", "enclosing", "given_up", "inside", "is_of", "opened", "run_around",
    "stay",
]  # fmt: skip

current: ContextVar[Run | None] = ContextVar("runrails_run", default=None)
default: Callable[[], Run | None] | None = None
"""
Where the whole process is one run (`runrails run`), what gives it. Threads and event loops that begin without a context
are in it as well.
"""
opened: Callable[[str], None] | None = None
"""Where the whole process is one run, who hears of the ids of runs that are opened inside it."""


enclosing: list[Callable[[Guard], Run | None]] = []
"""How adapters, whose framework carries a context of its own, tell which run of a guard the asking code is in."""


class Stay:
    """One stay inside a run's `with` block; a run that is resumed and entered again has another."""

    __slots__ = ("given_up", "outer", "threads")

    def __init__(self, outer: Stay | None) -> None:
        self.outer = outer
        self.given_up: GuardrailStopped | None = None
        """The stop for which what still runs in here was left alone."""
        self.threads: set[Thread] = set()
        """Threads of ours in which something of it runs that cannot be cancelled."""


stay: ContextVar[Stay | None] = ContextVar("runrails_stay", default=None)


def given_up(here: Stay | None = None) -> GuardrailStopped | None:
    """
    The stop for which this code, or what began in the stay `here`, was left alone.

    It may start nothing, whatever its run does by now.
    """
    here = stay.get() if here is None else here
    while here is not None:
        if here.given_up is not None:
            return here.given_up
        here = here.outer
    return None


def current_run() -> Run | None:
    """The run whose `with` block this code is in; else the run of the whole process, if `runrails run` guards it."""
    run = current.get()
    return run if run is not None or default is None else default()


def run_around(guard: Guard) -> Run | None:
    """The run of a guard that an adapter knows the asking code to be in, where no `with` says so."""
    for find in enclosing:
        run = find(guard)
        if run is not None:
            return run
    return None


def is_of(run: Run, guard: Guard) -> bool:
    """Whether a run, or one that it is part of, is one of `guard`: then it pays for calls that `guard` guards."""
    around: Run | None = run
    while around is not None and around.guard is not guard:
        around = around.parent
    return around is not None


@contextmanager
def inside(run: Run) -> Generator[None]:
    """What is called in here belongs to `run`, without a boundary: its stops stay public exceptions."""
    token = current.set(run)
    try:
        yield
    finally:
        current.reset(token)
