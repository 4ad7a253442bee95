"""Which run the code that is being executed belongs to."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from runrails.errors import GuardrailStopped
    from runrails.run import Run

__all__ = ["Stay", "current", "current_run", "given_up", "inside", "stay"]

current: ContextVar[Run | None] = ContextVar("runrails_run", default=None)


class Stay:
    """One stay inside a run's `with` block; a run that is resumed and entered again has another."""

    __slots__ = ("given_up", "outer")

    def __init__(self, outer: Stay | None) -> None:
        self.outer = outer
        self.given_up: GuardrailStopped | None = None
        """The stop for which what still runs in here was left alone."""


stay: ContextVar[Stay | None] = ContextVar("runrails_stay", default=None)


def given_up() -> GuardrailStopped | None:
    """The stop for which this code was left alone; it may start nothing, whatever its run does by now."""
    here = stay.get()
    while here is not None:
        if here.given_up is not None:
            return here.given_up
        here = here.outer
    return None


def current_run() -> Run | None:
    """The run whose `with` block this code is in, if any."""
    return current.get()


@contextmanager
def inside(run: Run) -> Generator[None]:
    """What is called in here belongs to `run`, without a boundary: its stops stay public exceptions."""
    token = current.set(run)
    try:
        yield
    finally:
        current.reset(token)
