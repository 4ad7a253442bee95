"""
One call seen by two layers: a guarded client under a model whose calls a callback guards already.

The outer layer's permit covers one request of the same model from the same context, from the moment the call may start
to its end or its first token: a stream's consumer runs in that context too, and what it calls is another call. A second
request is guarded for itself.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from runrails.calls import Prompt
from runrails.current import given_up, is_of

if TYPE_CHECKING:
    from runrails.attribution import Attribution
    from runrails.calls import ModelCall, Permit
    from runrails.guard import Guard
    from runrails.keyroutes import Route
    from runrails.run import Run

__all__ = [
    "Above", "call_above", "covering", "expect_cover", "offer_cover", "route_above", "take_cover", "withdraw_cover",
]  # fmt: skip


class _Cover:
    """Keeps neither the run nor what the call said alive: contexts live long."""

    __slots__ = ("by", "id", "model", "permit", "request_type", "route", "run", "tickets")

    def __init__(self, run: Run, permit: Permit) -> None:
        self.run = weakref.ref(run)
        self.id = permit.id
        self.by = permit.by
        self.route = permit.route
        self.model = permit.call.model
        self.request_type = permit.call.request_type
        self.permit = replace(permit, call=replace(permit.call, prompt=Prompt())) if run.guard.yields else None
        """To be handed back where the guard of a whole process finds that the program guards the call itself."""
        self.tickets = [None]
        """One; taking it is atomic, as a context may have been copied to several threads."""


class _Place:
    """Where a cover is. Copies of a context share it."""

    __slots__ = ("cover",)

    def __init__(self, cover: _Cover | None) -> None:
        self.cover = cover


covering: ContextVar[_Place | None] = ContextVar("runrails_cover", default=None)
"""Whether a layer above has ever told of a call in this context; a quick look before `take_cover`."""


def expect_cover() -> None:
    """What asks for the next permit runs in a copy of this context, and the request is made in this one."""
    covering.set(_Place(None))


def offer_cover(run: Run, permit: Permit) -> None:
    """This permit's caller sends its request through layers below, one of which may be guarded too."""
    place = covering.get()
    if place is not None and place.cover is None:
        place.cover = _Cover(run, permit)
    else:
        covering.set(_Place(_Cover(run, permit)))


def take_cover(guard: Guard, call: ModelCall, *, unnamed: bool = False) -> bool:
    """
    Whether a layer above holds a permit of this guard for this very call; asking takes it.

    Args:
        guard: Who asks.
        call: What is about to be sent.
        unnamed: Whether it names no model but something that stands for one; which one, the layer above was told.
    """
    place = covering.get()
    cover = None if place is None else place.cover
    if cover is None or cover.request_type != call.request_type or not (unnamed or cover.model == call.model):
        return False
    run = cover.run()
    if run is None or not run.is_open(cover.id) or given_up() is not None:
        return False
    covered = is_of(run, guard)
    if not covered and cover.permit is None:
        return False
    try:
        cover.tickets.pop()
    except IndexError:
        return False
    if cover.permit is not None and not covered:
        run.withdraw(cover.permit)  # What the program guards itself pays, for the run of the whole process too.
    return covered


class Above(NamedTuple):
    """What a layer above has told of the call that is being made."""

    run: Run
    by: Attribution
    """Whose money it is."""
    model: str
    """What the layer above calls the model."""


def call_above(guard: Guard) -> Above | None:
    """The call that is being made in this context, if a layer above has told of one of this guard."""
    place = covering.get()
    cover = None if place is None else place.cover
    run = None if cover is None else cover.run()
    if cover is None or run is None or not run.is_open(cover.id) or not is_of(run, guard):
        return None
    return Above(run, cover.by or run.attribution, cover.model)


def route_above(guard: Guard) -> Route | None:
    """The key for the request that this context's cover has just been taken for."""
    place = covering.get()
    cover = None if place is None else place.cover
    if cover is None or cover.tickets or call_above(guard) is None:
        return None
    return cover.route


def withdraw_cover() -> None:
    """The call that was covered has begun to answer: what is requested from here on is something else."""
    place = covering.get()
    if place is not None and place.cover is not None:
        place.cover.tickets.clear()
