"""
How a supervisor talks to what it runs.

A plain function needs nothing. What a framework's executor needs beyond being called (its answer as text, a whole
conversation after a stop, how to go on) its adapter knows, found by the entry point group `runrails.executors`: the
name is the module that must have been imported already, the value is called with the guard and the executor and gives
an `Adapted`, or None for what it does not know.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.attribution import Attribution
    from runrails.errors import GuardrailStopped
    from runrails.guard import Guard
    from runrails.lastwords import Speaker
    from runrails.outcome import Given

__all__ = ["ENTRY_POINTS", "Adapted", "adapt"]

ENTRY_POINTS = "runrails.executors"


class Adapted(Protocol):
    """An executor as its framework's adapter sees it."""

    @property
    def executor(self) -> object:
        """What is called: the executor, or a copy of it whose tool calls can be hinted at, blocked and left alone."""
        ...

    def whose(self, given: Given) -> Attribution | None:
        """
        Whose the call is, as its arguments say it; None if they do not.

        Raises:
            ConfigError: They say it wrongly.
        """
        ...

    def speaker(self, how: object) -> Speaker | None:
        """Who gives a stopped run its last answer, as the user has told it; None if that is not known here."""
        ...

    def answer(self, value: object) -> str | None:
        """The final answer in a result, as text."""
        ...

    def repair(self, given: Given, stop: GuardrailStopped) -> object:
        """Make the conversation that a stop left behind whole again. Returns the saved state, or None."""
        ...

    async def arepair(self, given: Given, stop: GuardrailStopped) -> object:
        """As `repair`, on an event loop."""
        ...

    def again(self, given: Given) -> Given:
        """With which arguments a stopped call goes on where it stopped."""
        ...

    async def aagain(self, given: Given) -> Given:
        """As `again`, on an event loop."""
        ...


class Plain:
    """A function, or anything no adapter knows: it keeps no state, so going on is calling it again."""

    def __init__(self, executor: object) -> None:
        self.executor = executor

    def whose(self, given: Given) -> Attribution | None:  # noqa: ARG002 -- the protocol's
        """Its arguments are its own business."""
        return None

    def speaker(self, how: object) -> Speaker | None:
        """Only functions speak."""
        from runrails.lastwords import PlainSpeaker

        return PlainSpeaker(how) if callable(how) else None

    def answer(self, value: object) -> str | None:
        """Only text is an answer."""
        return value if isinstance(value, str) else None

    def repair(self, given: Given, stop: GuardrailStopped) -> object:  # noqa: ARG002 -- the protocol's
        """Nothing was saved."""
        return None

    async def arepair(self, given: Given, stop: GuardrailStopped) -> object:
        """As `repair`."""
        return self.repair(given, stop)

    def again(self, given: Given) -> Given:
        """From the beginning."""
        return given

    async def aagain(self, given: Given) -> Given:
        """As `again`."""
        return given


def adapt(guard: Guard, executor: object) -> Adapted:
    """The executor as the first adapter that knows it sees it."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        # Who has an executor of a framework has imported the framework.
        if entry.name in sys.modules:
            known: Callable[[Guard, object], Adapted | None] = entry.load()
            found = known(guard, executor)
            if found is not None:
                return found
    return Plain(executor)
