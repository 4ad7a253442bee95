"""What time it is for the ledger, and when it is worth looking for overdue holds."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from runrails.clocks import Clock, system_ms

if TYPE_CHECKING:
    from runrails_aws.dynamodb.servertime import ServerTime

__all__ = ["LedgerTime", "Lookout"]


class LedgerTime:
    """
    The ledger's time: that of the server with an uncertainty, or of a clock that is believed.

    Holds are written by the latest moment it may be, and judged by the earliest, less the grace: they never end early.
    """

    def __init__(self, server_time: ServerTime, clock: Clock | None, grace_ms: int) -> None:
        self._server_time = server_time
        self._clock = clock
        self._grace_ms = grace_ms

    def written_ms(self) -> int:
        """Now, for what is written. The host's own clock only as long as no answer has told the time."""
        if self._clock is not None:
            return self._clock()
        moment = self._server_time.now()
        return system_ms() if moment is None else moment.latest_ms

    def until_ms(self, began_ms: int, end_ms: int) -> int:
        """When that ends here which by the clock of a host lasts from one moment to the other: it never ends early."""
        return end_ms if self._clock is not None else self.written_ms() + end_ms - began_ms

    def earliest_ms(self) -> int | None:
        """The earliest moment it may be, which never goes back as more is heard; None if nobody has told the time."""
        if self._clock is not None:
            return self._clock()
        moment = self._server_time.now()
        return None if moment is None else moment.earliest_ms

    def judged_ms(self) -> int | None:
        """What is overdue at this moment may be resolved; None if nothing may, since nobody knows the time."""
        if self._clock is not None:
            return self._clock()
        moment = self._server_time.now()
        return None if moment is None else moment.earliest_ms - self._grace_ms


class Lookout:
    """
    Knows when an open hold may be overdue, so that an ordinary reserve need not ask. Thread-safe.

    What this process holds it knows; what others hold it learns when it looks, which it does every so often.
    """

    def __init__(self, monotonic: Clock, *, every_ms: int) -> None:
        self._monotonic = monotonic
        self._every_ms = every_ms
        self._lock = Lock()
        self._first_ms: float = float("-inf")
        self._fresh_ms: float = float("inf")
        self._looked_ms: float = float("-inf")
        self._looking = Lock()

    def holds_until(self, expires_ms: int) -> None:
        """A hold of ours is about to be made that ends then."""
        with self._lock:
            self._first_ms = min(self._first_ms, expires_ms)
            self._fresh_ms = min(self._fresh_ms, expires_ms)

    def is_due(self, now_ms: int | None) -> bool:
        """Whether some hold may be overdue by now, or it is long ago that anybody looked."""
        return now_ms is None or now_ms >= self._first_ms or self.is_old(self._every_ms)

    def is_old(self, age_ms: int) -> bool:
        """Whether the last look was that long ago."""
        return self._monotonic() - self._looked_ms >= age_ms

    def begin(self, *, wait_ms: int = 0) -> bool:
        """Whether the caller is the one who looks now, at once or once others have looked; it must then call `end`."""
        if not (self._looking.acquire(timeout=wait_ms / 1_000) if wait_ms else self._looking.acquire(blocking=False)):
            return False
        with self._lock:
            self._fresh_ms = float("inf")
        return True

    def end(self, first_ms: float | None) -> None:
        """The look has found that the first of the other holds ends then; None if it came to nothing."""
        with self._lock:
            if first_ms is not None:
                self._first_ms = min(first_ms, self._fresh_ms)
                self._looked_ms = self._monotonic()
        self._looking.release()
