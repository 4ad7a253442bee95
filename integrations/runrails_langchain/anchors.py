"""A root chain or a tool call of LangChain's, to which what happens inside belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.current import given_up, stay

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from runrails.errors import GuardrailStopped
    from runrails.run import Run

__all__ = ["STOPS_TOLD_MAX", "Anchor"]

STOPS_TOLD_MAX = 8
"""Who goes on in a tool call after so many errors that tell of a stop would go on for ever."""


class Anchor:
    """A root chain or a tool call: what happens inside belongs to it."""

    __slots__ = ("bare", "base", "calls", "ended", "id", "opened", "outer", "root", "run", "stay", "told")

    def __init__(
        self, run: Run, anchor_id: UUID, root: UUID | None, *, base: str, opened: bool, outer: Anchor | None = None,
        bare: bool = False,
    ) -> None:  # fmt: skip
        self.run = run
        self.id = anchor_id
        self.outer = outer
        """The root chain or the tool call in which an agent of its own is such an anchor as well."""
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
        anchor = self
        while anchor.outer is not None and anchor.outer.bare:
            anchor = anchor.outer
        anchor.told += anchor.bare
        return anchor.bare and anchor.told <= STOPS_TOLD_MAX

    def is_in(self, ids: Collection[UUID]) -> bool:
        """Whether it is one of these, or inside one."""
        anchor: Anchor | None = self
        while anchor is not None and anchor.id not in ids:
            anchor = anchor.outer
        return anchor is not None

    def hold(self, call: int, *, open: bool) -> None:  # noqa: A002 -- of a call: in flight or not
        """A model call in it, and so in what encloses it, is in flight or is not any more."""
        anchor: Anchor | None = self
        while anchor is not None:
            (anchor.calls.add if open else anchor.calls.discard)(call)
            anchor = anchor.outer
