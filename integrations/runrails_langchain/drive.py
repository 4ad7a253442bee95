"""
What a `GuardrailMiddleware` and the callback inside it tell each other of one call, so that it counts once.

The middleware stands around the call and can answer in its place; the callback stands at the call itself, below every
retry and fallback layer, and knows what is really sent. So the middleware asks first and the callback, which a context
variable attaches for as long as the call lasts, takes that answer over; a second attempt is a call of its own.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from runrails.calls import Finding, Permit, ToolCall
    from runrails.run import Run

__all__ = ["Blocked", "ModelDrive", "ToolDrive", "model_drive", "tool_drive"]


class Blocked(BaseException):
    """
    A further attempt of a tool call, made by a retry layer below the middleware, is blocked; the middleware answers.

    Not an Exception: the layers between would swallow it, and try again.
    """

    def __init__(self, message: str) -> None:
        super().__init__("a tool call was blocked")
        self.message = message


class ModelDrive:
    """One model call of the agent: a permit for its first attempt, and the calls that were made of it."""

    __slots__ = ("_permits", "calls", "run")

    def __init__(self, run: Run, permit: Permit | None) -> None:
        self.run = run
        self._permits = [] if permit is None else [permit]
        self.calls: list[int] = []
        """As numbers, since LangChain is seen to have lost a call when nobody holds its id any more."""

    def take(self) -> Permit | None:
        """The permit, for whoever asks first; popping is atomic."""
        try:
            return self._permits.pop()
        except IndexError:
            return None


class ToolDrive:
    """One tool call of the agent: admitted already for its first attempt."""

    __slots__ = ("_calls", "attempts", "call", "finding", "run")

    def __init__(self, run: Run, call: ToolCall) -> None:
        self.run = run
        self.call = call
        self._calls = [call]
        self.attempts: set[UUID] = set()
        """Those the callback has seen; what starts inside one of them is a sub-agent's."""
        self.finding: Finding | None = None
        """What the loop detector said of the last result."""

    def take(self) -> ToolCall | None:
        """The admitted call, for whoever asks first; popping is atomic."""
        try:
            return self._calls.pop()
        except IndexError:
            return None


model_drive: ContextVar[ModelDrive | None] = ContextVar("runrails_model_drive", default=None)
tool_drive: ContextVar[ToolDrive | None] = ContextVar("runrails_tool_drive", default=None)
