"""A root chain or a tool call of LangChain's, to which what happens inside belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.current import given_up, stay

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from runrails.errors import GuardrailStopped
    from runrails.run import Run

__all__ = ["STOPS_TOLD_MAX", "Enclosure"]

STOPS_TOLD_MAX = 8
"""Who goes on in a tool call after so many errors that tell of a stop would go on for ever."""


class Enclosure:
    """A root chain or a tool call: what happens inside belongs to it."""

    __slots__ = ("bare", "base", "calls", "ended", "id", "opened", "outer", "root", "run", "stay", "told")

    def __init__(
        self, run: Run, enclosure_id: UUID, root: UUID | None, *, base: str, opened: bool,
        outer: Enclosure | None = None, bare: bool = False,
    ) -> None:  # fmt: skip
        self.run = run
        self.id = enclosure_id
        self.outer = outer
        """The root chain or the tool call in which an agent of its own is such an enclosure as well."""
        self.root = root
        self.base = base
        """Agent path of what is inside."""
        self.opened = opened
        """Whether the run was opened for it and ends with it."""
        self.bare: bool = bare or (outer is not None and outer.bare)
        """Whether it is in a tool call that nobody of ours stands around, who could answer in the tool's place."""
        self.ended = False
        self.told = 0
        """How many stops were raised inside as errors that code may catch."""
        self.calls: set[int] = set()
        """Model calls in flight."""
        self.stay = stay.get()
        """What is inside may be called from a thread that has no context of ours."""

    @property
    def given_up(self) -> GuardrailStopped | None:
        """The stop for which what is inside was left alone."""
        return None if self.stay is None else given_up(self.stay)

    @property
    def is_tool(self) -> bool:
        """Whether it is a tool call; neither a root chain nor an agent inside of either."""
        return self.outer is None and self.id != self.root

    def may_tell(self) -> bool:
        """Whether a stop is raised inside as an error, for which the tool's call is answered; not for ever."""
        enclosure = self
        while enclosure.outer is not None and enclosure.outer.bare:
            enclosure = enclosure.outer
        enclosure.told += enclosure.bare
        return enclosure.bare and enclosure.told <= STOPS_TOLD_MAX

    def is_in(self, ids: Collection[UUID]) -> bool:
        """Whether it is one of these, or inside one."""
        enclosure: Enclosure | None = self
        while enclosure is not None and enclosure.id not in ids:
            enclosure = enclosure.outer
        return enclosure is not None

    def hold(self, call: int, *, open: bool) -> None:  # noqa: A002 -- of a call: in flight or not
        """A model call in it, and so in what encloses it, is in flight or is not any more."""
        enclosure: Enclosure | None = self
        while enclosure is not None:
            (enclosure.calls.add if open else enclosure.calls.discard)(call)
            enclosure = enclosure.outer
