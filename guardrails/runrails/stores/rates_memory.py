"""Rate limiting in this process's memory: one lock, and no more entries than scopes in use."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from runrails.clocks import Clock, monotonic_ms
from runrails.errors import StoreUnavailable
from runrails.rates.gcra import FULL, Times, credited, decide
from runrails.rates.limiter import check_asks, check_unused
from runrails.stores.checks import check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.rates.limiter import Ask, Cost, Granted, Limited

__all__ = ["MemoryRates"]

_SWEEP_FROM = 1_024


class MemoryRates:
    """
    An engine of rate limiting for one process.

    Args:
        clock: Milliseconds since any moment; by default a clock that never jumps.
        scopes_max: Most scopes that are kept. Those whose buckets are full are dropped, which changes no decision; if
            so many are in use at once, a new one is refused.
    """

    remote = False

    def __init__(self, *, clock: Clock = monotonic_ms, scopes_max: int = 100_000) -> None:
        check_count(scopes_max, what="scopes_max", count_max=10**9)
        self._clock = clock
        self._scopes_max = scopes_max
        self._lock = Lock()
        self._times: dict[str, Times] = {}
        self._sweep_at = min(_SWEEP_FROM, scopes_max)
        self._pointless_until_ms: int | None = None
        """Until then every scope is in use: looking again would find nothing to drop."""

    def __len__(self) -> int:
        """How many scopes are kept."""
        return len(self._times)

    def take(self, asks: Sequence[Ask], cost: Cost) -> Granted | Limited:
        """Take from every scope or from none. See `runrails.rates.RateLimiter.take`."""
        check_asks(asks, cost)
        # The clock is read under the lock: a decision at an earlier moment than the last one would not be exact.
        with self._lock:
            now_ms = self._clock()
            times = self._times
            decision, new = decide(asks, [times.get(ask.scope, FULL) for ask in asks], cost, now_ms)
            if new is not None:
                changed = {ask.scope: time for ask, time in zip(asks, new, strict=True) if not time.full_at(now_ms)}
                self._make_room(sum(scope not in times for scope in changed), now_ms)
                self._times.update(changed)  # Making room may have replaced it.
            return decision

    def give_back(self, granted: Granted, unused: Cost) -> None:
        """Give back what was not used. See `runrails.rates.RateLimiter.give_back`."""
        check_unused(unused)
        with self._lock:
            now_ms = self._clock()
            for taken in granted.taken:
                time = self._times.get(taken.scope)
                if time is None:
                    continue
                time = credited(time, taken, unused, now_ms)
                if time.full_at(now_ms):
                    del self._times[taken.scope]
                else:
                    self._times[taken.scope] = time

    def close(self) -> None:
        """Nothing is open."""

    def _make_room(self, count: int, now_ms: int) -> None:
        """See that so many scopes can be added. Raises StoreUnavailable; nothing was taken then."""
        wanted = len(self._times) + count
        if not count or wanted <= self._sweep_at:
            return
        pointless = self._pointless_until_ms
        if pointless is None or not pointless - 1_000 <= now_ms < pointless:
            self._times = {scope: time for scope, time in self._times.items() if not time.full_at(now_ms)}
            wanted = len(self._times) + count
            self._sweep_at = min(max(_SWEEP_FROM, 2 * wanted), self._scopes_max)
            # One look at all of them a second at most, however many new ones are refused.
            self._pointless_until_ms = now_ms + 1_000 if wanted > self._scopes_max else None
        if wanted > self._scopes_max:
            raise StoreUnavailable(
                f"{self._scopes_max:,} scopes are in use at once, the most that this rate limiter keeps.",
                next_step="Try again in a moment, or make the limiter with a larger scopes_max.",
                scopes_max=self._scopes_max,
            )
