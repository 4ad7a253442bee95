"""The numbers of the loop detector, and what an owner may say about single tools."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LoopPolicy", "ToolRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPolicy:
    """
    When a repeated call is hinted at, blocked and stopped.

    A *repeat* is a call that gave an outcome it had given before, failed or not, with nothing new between.

    Raises:
        TypeError: A threshold is not an int.
        ValueError: A threshold is out of range, or the ladder would not rise.

    """

    hint_at: int = 3
    """The model is told after this many equal outcomes of the same call."""
    block_at: int = 5
    """
    This attempt is not executed any more, and the one after it stops the run. Where only a callback is attached, the
    run stops after this many executed results. The default lets four failures and then a success pass.
    """
    failure_at: int = 8
    """
    As `block_at`, for a failure that keeps coming back though other calls bring news between. Twice that for a lookup
    that has nothing to say; never for silence of what acts (a command, a write, a key press), for an empty answer to a
    call without arguments, or for one about what was just changed.
    """
    same_failure_at: int = 10
    """
    As `block_at`, for one failure text that different calls of a tool give in a row. "Not found" counts only
    where the input is no other one: a long list of ids that do not exist is work, a question in other words is not.
    """
    no_progress_at: int = 12
    """
    As `block_at`, for results in a row without a single word that is new in this run. A new combination of short
    arguments is new, and one look back at what is known does not count.
    """
    no_progress_lines_at: int = 30
    """The same for results of several lines, whose reading is often repeated for good reasons."""
    poll_at: int = 24
    """As `block_at`, for a tool declared with `ToolRule(poll=True)`."""
    batch_max: int = 10
    """Equal calls that one answer of the model may hold; together they count as one attempt."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is not int:
                raise TypeError(f"LoopPolicy({item.name}=…) must be a whole number (an int), not {_kind(value)}.")
            least = 1 if item.name in ("hint_at", "batch_max") else 2
            if not least <= value <= 1_000_000:
                raise ValueError(
                    f"LoopPolicy({item.name}=…) must be {least} to 1,000,000, not {value}. "
                    "To switch loop detection off, write Limits(loops=None).",
                )
        for name in ("block_at", "failure_at", "same_failure_at", "no_progress_at", "poll_at"):
            if self.hint_at > getattr(self, name):
                raise ValueError(
                    f"LoopPolicy(hint_at={self.hint_at}) is above {name}={getattr(self, name)}: the hint would come "
                    f"after the block. Lower hint_at or raise {name}.",
                )
        if self.no_progress_lines_at < self.no_progress_at:
            raise ValueError(
                f"LoopPolicy(no_progress_lines_at={self.no_progress_lines_at}) is below "
                f"no_progress_at={self.no_progress_at}; raise it, or lower no_progress_at.",
            )

    @property
    def points_max(self) -> int:
        """Points of no progress at which the run is stuck; see `counting.count_progress`."""
        return self.no_progress_at * self.no_progress_lines_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRule:
    """
    What the owner of a tool knows better than the detector.

    Raises:
        TypeError: `poll` is not a bool, or a key is neither None nor callable.

    """

    poll: bool = False
    """The tool is asked again on purpose until its answer changes: it gets `LoopPolicy.poll_at` equal answers."""
    loop_key: Callable[[object], object] | None = None
    """From the arguments (parsed, if they are JSON) to what of them makes two calls the same."""
    outcome_key: Callable[[object], object] | None = None
    """From the result (parsed, if it is JSON) to what of it makes two outcomes the same."""

    def __post_init__(self) -> None:
        if type(self.poll) is not bool:
            raise TypeError(f"ToolRule(poll=…) must be True or False, not {_kind(self.poll)}.")
        for name in ("loop_key", "outcome_key"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"ToolRule({name}=…) must be a function of one argument, not {_kind(value)}.")


def _kind(value: object) -> str:
    return type(value).__name__
