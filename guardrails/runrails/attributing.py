"""Whose money the calls of a piece of code are: what `with guard.attribute(…):` says in the current context."""

from __future__ import annotations

import sys
from contextlib import suppress
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

if TYPE_CHECKING:
    from types import TracebackType

    from runrails.attribution import Attribution

__all__ = ["Ambient", "Attributing", "Entered", "Here", "here"]


class Ambient:
    """One guard's part of the context. Another guard has another one: its calls are not paid by our users."""

    def get(self) -> Attribution | None:
        """What the blocks around the current code say together; None outside of all."""
        inner = here.get()
        while inner is not None:
            if inner.block.ambient is self:
                return self._now(inner) if inner.some_ended() else inner.by
            inner = inner.outer
        return None

    def _now(self, inner: Here | None) -> Attribution | None:
        """What those blocks say that have not ended."""
        by: Attribution | None = None
        while inner is not None:
            if inner.block.ambient is self and not inner.entered.is_over():
                by = inner.block.by if by is None else by.over(inner.block.by)
            inner = inner.outer
        return by


class Attributing:
    """
    A block whose calls are somebody's. It nests, and may be entered from many threads and tasks.

    It is no decorator: around an ``async def`` that would end before the coroutine has begun.
    """

    __slots__ = ("_live", "ambient", "by")

    def __init__(self, ambient: Ambient, by: Attribution) -> None:
        self.ambient = ambient
        self.by = by
        self._live: list[Entered] = []
        """Who is inside."""

    def __enter__(self) -> None:
        outer = self.ambient.get()
        entered = Entered()
        here.set(Here(self, self.by if outer is None else self.by.over(outer), here.get(), entered))
        self._live.append(entered)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inner = here.get()
        found = inner
        # Blocks of generators that are read in turns do not end in the order they began.
        while found is not None and found.block is not self:
            found = found.outer
        if inner is not None and found is not None:
            here.set(_without(inner, found))
            self._ends(found.entered)
        elif len(self._live) == 1:
            self._ends(self._live[0])

    def _ends(self, entered: Entered) -> None:
        # Another task may finalise the (async) generator that entered it, for a reader who has gone on without it.
        entered.ended = not entered.is_here()
        with suppress(ValueError):  # it was left twice
            self._live.remove(entered)


class Entered:
    """One entry into a block, and which thread and task it was."""

    __slots__ = ("_task", "_thread", "ended")

    def __init__(self) -> None:
        task = _current_task()
        self._thread = get_ident()
        self._task = None if task is None else ref(task)
        self.ended = False
        """Whether it ended elsewhere."""

    def is_here(self) -> bool:
        """Whether it was the thread and task that asks."""
        return self._thread == get_ident() and _current_task() is (None if self._task is None else self._task())

    def is_over(self) -> bool:
        """Whether it has ended for the code that asks; what was started inside goes on in it."""
        return self.ended and self.is_here()


class Here(NamedTuple):
    """The blocks around the current code, innermost first."""

    block: Attributing
    by: Attribution
    """This block's word over those of the blocks of its guard around it."""
    outer: Here | None
    entered: Entered

    def some_ended(self) -> bool:
        """Whether one of them has ended elsewhere."""
        inner: Here | None = self
        while inner is not None:
            if inner.entered.ended:
                return True
            inner = inner.outer
        return False


here: ContextVar[Here | None] = ContextVar("runrails_attribution", default=None)


def _without(inner: Here, ended: Here) -> Here | None:
    """The same blocks but one."""
    kept: list[Here] = []
    while inner is not ended and inner.outer is not None:
        kept.append(inner)
        inner = inner.outer
    left = ended.outer
    for one in reversed(kept):
        around = left
        while around is not None and around.block.ambient is not one.block.ambient:
            around = around.outer
        left = Here(one.block, one.block.by if around is None else one.block.by.over(around.by), left, one.entered)
    return left


def _current_task() -> object:
    """The task that is being executed, if any. Looks without importing asyncio."""
    current_task = getattr(sys.modules.get("asyncio.tasks"), "current_task", None)
    if current_task is None:
        return None
    try:
        found: object = current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
    return found
