"""A recorded run as typed steps: what a person said, what a model answered, what a tool gave back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from runrails.calls import ToolCall, ToolOutcome
    from runrails.usage import Usage

__all__ = ["ModelAnswered", "Recording", "Step", "ToolRan", "UserSpoke"]


class UserSpoke(NamedTuple):
    """A person said something to an agent."""

    agent: str


class ModelAnswered(NamedTuple):
    """One model call, with what it reported about itself; None where it reported nothing."""

    agent: str
    model: str | None
    usage: Usage | None


class ToolRan(NamedTuple):
    """One tool call and what came of it."""

    number: int
    """Its 1-based place: among the tool results of `messages`, among all of `steps`."""
    call: ToolCall
    outcome: ToolOutcome


Step: TypeAlias = UserSpoke | ModelAnswered | ToolRan


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recorded run, as it was."""

    id: str | int
    steps: tuple[Step, ...]
    poll_tools: frozenset[str] = frozenset()
    """Tools whose unchanged answers are expected, because the agent waits for something."""
