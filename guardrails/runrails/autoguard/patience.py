"""What a stopped program that goes on asking is answered: for a while the stop, then something it cannot swallow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.boundary import Trip

if TYPE_CHECKING:
    from runrails.clocks import Clock
    from runrails.errors import GuardrailStopped

__all__ = ["REFUSED_MAX", "Patience"]

REFUSED_MAX = 25
"""So many refused attempts may be a list that is worked off, whose results the program wants to save at its end."""


class Patience:
    """
    A program's `except Exception: continue` costs nothing any more after a stop, but may never end.

    A stop is an ordinary exception, as a provider's "insufficient quota" is, so that the program can save what it has
    paid for. After more than 25 attempts, and when the grace since the first of them is over, it becomes a `Trip`,
    which is no `Exception` and ends the program.
    """

    def __init__(self, grace_ms: int, monotonic: Clock) -> None:
        self._grace_ms = grace_ms
        self._monotonic = monotonic
        self._since_ms: int | None = None
        self._refused = 0

    def refuse(self, stop: GuardrailStopped) -> BaseException:
        """What to raise for one more attempt. Called under the run's lock."""
        now_ms = self._monotonic()
        if self._since_ms is None:
            self._since_ms = now_ms
        self._refused += 1
        over = self._refused > REFUSED_MAX and now_ms - self._since_ms >= self._grace_ms
        return Trip(stop.again()) if over else stop.again()
