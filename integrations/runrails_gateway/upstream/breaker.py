"""Letting an upstream rest that keeps failing. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Breaker", "BreakerPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """
    When an upstream is let rest.

    Args:
        failures_max: After so many failures in a row.
        rest_ms: For so long; then a single request is let through to see.
    """

    failures_max: int = 5
    rest_ms: int = 5_000


class Breaker:
    """
    One upstream's: closed, as long as it answers; open after too many failures in a row; then a single request is let
    through every so often, until one succeeds.

    For one event loop: it has no lock.
    """

    __slots__ = ("_failures", "_policy", "_rests_until_ms")

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._failures = 0
        self._rests_until_ms: int | None = None

    @property
    def closed(self) -> bool:
        """Whether it may be asked by anybody."""
        return self._rests_until_ms is None

    def left_ms(self, now_ms: int) -> int:
        """How long until it may be asked; 0: now."""
        until = self._rests_until_ms
        return 0 if until is None else max(0, until - now_ms)

    def enter(self, now_ms: int) -> bool:
        """Whether it may be asked now, by whoever asks this. Of those that try one that rests, it is the first."""
        if self._rests_until_ms is None:
            return True
        if now_ms < self._rests_until_ms:
            return False
        self._rests_until_ms = now_ms + self._policy.rest_ms  # All others wait for what becomes of this one.
        return True

    def succeeded(self) -> None:
        """It has answered."""
        self._failures = 0
        self._rests_until_ms = None

    def failed(self, now_ms: int) -> None:
        """It has not answered, or said itself that it failed."""
        self._failures += 1
        if self._failures >= self._policy.failures_max or self._rests_until_ms is not None:
            self._rests_until_ms = now_ms + self._policy.rest_ms
