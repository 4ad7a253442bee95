"""
The server's time, as its answers tell it.

Every answer has a `Date` header, to the second. With the moments at which a request left and its answer came, by a
clock that never jumps, each narrows down how far the server's time is from that clock. Hosts whose own clocks are
minutes apart, or jump, so agree on what is overdue to within the uncertainty. Pure but for the clock that is injected.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from runrails.clocks import Clock

__all__ = ["Moment", "ServerTime", "date_ms"]

DRIFT_PPM = 500
"""How far two good clocks part: 30 ms a minute. What was learnt long ago is trusted that much less."""


class Moment(NamedTuple):
    """Now, by the server's time: between these two."""

    earliest_ms: int
    latest_ms: int


class ServerTime:
    """
    What is known of the server's time. Thread-safe.

    Args:
        monotonic: Milliseconds of a clock that never jumps.
    """

    def __init__(self, monotonic: Clock) -> None:
        self.monotonic = monotonic
        self._lock = Lock()
        self._bounds: tuple[int, int] | None = None
        self._heard_ms = 0

    def heard(self, date_ms: int, sent_ms: int, came_ms: int) -> None:
        """An answer with that date belongs to a request that left and came at those moments of the monotonic clock."""
        # The date was written between the two, and is cut to the second.
        lowest, highest = date_ms - came_ms, date_ms + 1_000 - sent_ms
        with self._lock:
            known = self._widened(came_ms)
            if known is not None and max(lowest, known[0]) <= min(highest, known[1]):
                lowest, highest = max(lowest, known[0]), min(highest, known[1])
            # Otherwise one of the clocks was set: what was known before is of no use.
            self._bounds, self._heard_ms = (lowest, highest), came_ms

    def now(self) -> Moment | None:
        """Now, or None if no answer has told yet."""
        now_ms = self.monotonic()
        with self._lock:
            known = self._widened(now_ms)
        return None if known is None else Moment(known[0] + now_ms, known[1] + now_ms)

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock."""
        self._lock = Lock()

    def _widened(self, now_ms: int) -> tuple[int, int] | None:
        if self._bounds is None:
            return None
        drift = max(0, now_ms - self._heard_ms) * DRIFT_PPM // 1_000_000
        return self._bounds[0] - drift, self._bounds[1] + drift


def date_ms(header: str | None) -> int | None:
    """The moment in a `Date` header, milliseconds since the epoch; None if there is none to be read."""
    from email.utils import parsedate_to_datetime

    if not header:
        return None
    try:
        return int(parsedate_to_datetime(header).timestamp()) * 1_000
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
