"""A clock that stands still until it is moved."""

from __future__ import annotations

from threading import Lock

__all__ = ["ManualClock"]


class ManualClock:
    """
    A wall clock in milliseconds for tests: call it to read it, `advance` it to let time pass.

    Any number of threads may read and move it. It may be moved back, as real clocks are.
    """

    def __init__(self, start_ms: int = 1_795_000_000_000) -> None:
        """Start at `start_ms`, by default a moment in November 2026 (UTC)."""
        self._now_ms = start_ms
        self._lock = Lock()

    def __call__(self) -> int:
        """The time, milliseconds since the epoch."""
        return self._now_ms

    def advance(self, ms: int) -> int:
        """Move by `ms` (negative: back) and return the new time."""
        with self._lock:
            self._now_ms += ms
            return self._now_ms

    def set(self, now_ms: int) -> int:
        """Move to `now_ms` and return it."""
        with self._lock:
            self._now_ms = now_ms
            return now_ms

    def __repr__(self) -> str:
        return f"ManualClock({self._now_ms})"
