"""
One call seen by two layers: a guarded client under a model whose calls a callback guards already.

The outer layer's permit covers one request of the same model from the same context, from the moment the call may start
to its end or its first token: a stream's consumer runs in that context too, and what it calls is another call. A second
request is guarded for itself.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails.calls import ModelCall, Permit
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["offer_cover", "take_cover", "withdraw_cover"]


class _Cover:
    """Keeps neither the run nor what the call said alive: contexts live long."""

    __slots__ = ("id", "model", "request_type", "run", "tickets")

    def __init__(self, run: Run, permit: Permit) -> None:
        self.run = weakref.ref(run)
        self.id = permit.id
        self.model = permit.call.model
        self.request_type = permit.call.request_type
        self.tickets = [None]
        """One; taking it is atomic, as a context may have been copied to several threads."""


_covering: ContextVar[_Cover | None] = ContextVar("runrails_cover", default=None)


def offer_cover(run: Run, permit: Permit) -> None:
    """This permit's caller sends its request through layers below, one of which may be guarded too."""
    _covering.set(_Cover(run, permit))


def take_cover(guard: Guard, call: ModelCall) -> bool:
    """Whether a layer above holds a permit of this guard for this very call; asking takes it."""
    cover = _covering.get()
    if cover is None or cover.model != call.model or cover.request_type != call.request_type:
        return False
    run = cover.run()
    if run is None or run.guard is not guard or not run.is_open(cover.id):
        return False
    try:
        cover.tickets.pop()
    except IndexError:
        return False
    return True


def withdraw_cover() -> None:
    """The call that was covered has begun to answer: what is requested from here on is something else."""
    cover = _covering.get()
    if cover is not None:
        cover.tickets.clear()
