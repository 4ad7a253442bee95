"""What came of a supervised call. A stop is a result like any other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Group

    from runrails.errors import GuardrailStopped
    from runrails.report import Report
    from runrails.run import Run

__all__ = ["Given", "Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The arguments of a call, kept so that it can go on. Never shown."""

    args: tuple[object, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a supervised call."""

    answer: str | None = field(repr=False)
    """
    The final answer as text; after a stop the model's last answer, if there is one, what was done and why it ended.
    None if the result holds no text.
    """
    value: object = field(repr=False)
    """
    What the executor returned, or the chunks of a stream added up (the newest one, where they do not add up). After a
    stop, the saved state if there is one.
    """
    stop: GuardrailStopped | None
    """Why the run ended early; None if it did not."""
    report: Report
    run: Run = field(repr=False)
    abandoned: bool = False
    """Something was still running and did not end when it was told to: it was left alone, and can start nothing."""
    wrapped_up: bool = False
    """The model was asked for the answer in a last turn, paid from money kept back for it."""
    given: Given = field(default_factory=Given, repr=False)

    @property
    def stop_reason(self) -> str | None:
        """Short machine-readable reason of the stop, or None."""
        return None if self.stop is None else self.stop.stop_reason

    def _repr_html_(self) -> str:
        """For notebooks: with the answer."""
        from runrails.showing.outcomes import outcome_html

        return outcome_html(self)

    def __rich__(self) -> Group:
        """For terminals, with Rich: with the answer."""
        from runrails.showing.outcomes import outcome_rich

        return outcome_rich(self)
