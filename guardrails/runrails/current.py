"""Which run the code that is being executed belongs to."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from runrails.run import Run

__all__ = ["current", "current_run", "inside"]

current: ContextVar[Run | None] = ContextVar("runrails_run", default=None)


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
