"""Whose money the calls of a piece of code are: what `with guard.attribute(…):` says in the current context."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

    from runrails.attribution import Attribution

__all__ = ["Ambient", "Attributing", "Here", "here"]


class Ambient:
    """One guard's part of the context. Another guard has another one: its calls are not paid by our users."""

    def get(self) -> Attribution | None:
        """What the blocks around the current code say together; None outside of all."""
        inner = here.get()
        while inner is not None:
            if inner.block.ambient is self:
                return inner.by
            inner = inner.outer
        return None


class Attributing:
    """
    A block whose calls are somebody's. Keeps no state: it nests, and may be entered from many threads and tasks.

    It is no decorator: around an ``async def`` that would end before the coroutine has begun.
    """

    __slots__ = ("_by", "ambient")

    def __init__(self, ambient: Ambient, by: Attribution) -> None:
        self.ambient = ambient
        self._by = by

    def __enter__(self) -> None:
        outer = self.ambient.get()
        here.set(Here(self, self._by if outer is None else self._by.over(outer), here.get()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inner = here.get()
        # Not there if another task finalises the (async) generator that entered it.
        if inner is not None and inner.block is self:
            here.set(inner.outer)


class Here(NamedTuple):
    """The blocks around the current code, innermost first."""

    block: Attributing
    by: Attribution
    """This block's word over those of the blocks of its guard around it."""
    outer: Here | None


here: ContextVar[Here | None] = ContextVar("runrails_attribution", default=None)
