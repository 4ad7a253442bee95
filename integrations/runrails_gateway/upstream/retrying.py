"""Whether a request is sent once more, and what its failures have cost. Pure."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Attempt", "is_upstreams_fault", "pause_ms", "retry_after_ms"]

FIRST_PAUSE_MS = 250
PAUSE_MS_MAX = 2_000
"""A provider that asks for more is left to the caller's own patience."""
AFTER_MS_MAX = 60_000
_TRANSIENT = frozenset({408, 500, 502, 503, 504, 529})
"""Answers that another attempt may better; 529 is Anthropic's word for too much to do."""
_DOWN = frozenset({502, 503, 529})
_BUSY = 429


class Attempt(NamedTuple):
    """What became of one attempt before any answer was handed on."""

    status: int | None
    """What it was answered with; None: with nothing."""
    sent: bool
    """Whether any of it may have left, so that it may have been worked on."""
    retry_after_ms: int | None = None
    should_retry: bool | None = None
    """What the provider says of that itself."""
    timed_out: bool = False

    @property
    def unknown(self) -> bool:
        """Whether it may have cost something that nobody tells of."""
        return self.status is None and self.sent


def pause_ms(attempt: Attempt, *, made: int, left: int, jitter: float) -> int | None:
    """
    How long to wait before another attempt; None: there is to be none.

    Args:
        attempt: What became of the newest one.
        made: How many were made.
        left: How many more are paid for.
        jitter: A number from 0 to 1 by chance, so that callers who failed together do not come back together.
    """
    if left <= 0 or attempt.should_retry is False or (attempt.timed_out and attempt.sent):
        return None
    asked = attempt.retry_after_ms
    if asked is not None and asked > PAUSE_MS_MAX:
        return None
    status = attempt.status
    if status == _BUSY and asked is None:
        return None
    if status is not None and status != _BUSY and status not in _TRANSIENT:
        return None
    usual = min(FIRST_PAUSE_MS << (made - 1), PAUSE_MS_MAX)
    return asked if asked is not None else int(usual * (0.5 + jitter / 2))


def is_upstreams_fault(status: int) -> bool:
    """
    Whether an answer says that the provider is down for everybody.

    500 and 504 may be about a single request, and whoever can bring them about must not have it rest for the others.
    """
    return status in _DOWN


def retry_after_ms(seconds: str | None, milliseconds: str | None) -> int | None:
    """What `Retry-After` and `retry-after-ms` say; None: nothing that can be understood, or a date."""
    for text, factor in ((milliseconds, 1), (seconds, 1_000)):
        if text is not None:
            try:
                number = float(text)
            except ValueError:
                continue
            if 0 <= number < 1e9:
                return int(number * factor)
    return None
