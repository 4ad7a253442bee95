"""A store that fails on cue, as a network does: before a verb has done its work, or after."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from runrails.errors import StoreUnavailable
from runrails.stores.draws import DrawsByVerbs, SupportsDraws

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runrails.ledger import (
        Account,
        Balance,
        Correction,
        Expired,
        FullStore,
        Refused,
        Reservation,
        Reserved,
        ResultFacts,
        RunRecord,
        Settled,
        SupportsCorrections,
        UsageRecord,
        WarningMark,
    )
    from runrails.stores.draws import Drawing, Drawn

__all__ = ["Fault", "FlakyStore"]

Fault = Literal["ok", "request_lost", "response_lost"]
"""
What becomes of one verb: it works; it never reaches the store and nothing is written; or the store does its work but
the answer never arrives. The caller cannot tell the last two apart, so it must repeat the verb with the same id.
"""

T = TypeVar("T")


class FlakyStore:
    """
    A store in front of another one, that raises `StoreUnavailable` when its plan says so.

    Args:
        store: The store that does the work.
        plan: The fate of each verb in the order they are called; after its end everything works.
        verbs: The verbs that use up the plan, for instance ``{"settle"}``; None for all of them.
        remote: What the store says about itself; True sends its verbs off the event loop.

    The verbs that were called, with their fates, are in `log`.
    """

    def __init__(
        self,
        store: FullStore,
        plan: Iterable[Fault] = (),
        *,
        verbs: frozenset[str] | set[str] | None = None,
        remote: bool = False,
    ) -> None:
        self.inner = store
        self.remote = remote
        self.log: list[tuple[str, Fault]] = []
        self._plan: Iterator[Fault] = iter(plan)
        self._verbs = verbs
        self._lock = Lock()

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """See `runrails.ledger.Store.reserve`."""
        return self._call("reserve", lambda: self.inner.reserve(reservation))

    def settle(
        self,
        reservation_id: str,
        actual: int,
        *,
        units: Mapping[str, int] | None = None,
        result: ResultFacts | None = None,
        unresolved: bool = False,
    ) -> Settled:
        """See `runrails.ledger.Store.settle`."""
        return self._call(
            "settle",
            lambda: self.inner.settle(reservation_id, actual, units=units, result=result, unresolved=unresolved),
        )

    def release(self, reservation_id: str) -> Settled:
        """See `runrails.ledger.Store.release`."""
        return self._call("release", lambda: self.inner.release(reservation_id))

    def expire(self, *, count_max: int = 64) -> Expired:
        """See `runrails.ledger.Store.expire`."""
        return self._call("expire", lambda: self.inner.expire(count_max=count_max))

    def extend(self, reservation_id: str, *, ttl_ms: int) -> bool:
        """See `runrails.ledger.SupportsExtend.extend`."""
        return self._call("extend", lambda: self.inner.extend(reservation_id, ttl_ms=ttl_ms))

    def raise_hold(self, reservation_id: str, amount: int, *, enforce: bool = True) -> Reserved | Refused:
        """See `runrails.ledger.SupportsRaise.raise_hold`."""
        return self._call("raise_hold", lambda: self.inner.raise_hold(reservation_id, amount, enforce=enforce))

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """See `runrails.stores.draws.SupportsDraws.draw`; of a store without it, verb by verb."""
        inner = self.inner
        if isinstance(inner, SupportsDraws):
            return self._call("draw", lambda: inner.draw(slice_id, calls, close=close))
        return DrawsByVerbs(self).draw(slice_id, calls, close=close)

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """See `runrails.ledger.SupportsCorrections.correct`; the store behind must have it."""
        inner = cast("SupportsCorrections", self.inner)
        return self._call("correct", lambda: inner.correct(reservation_id, actual, source=source))

    def corrections(self, *, reservation_id: str | None = None) -> Iterator[Correction]:
        """See `runrails.ledger.SupportsCorrections.corrections`."""
        inner = cast("SupportsCorrections", self.inner)
        return self._call("corrections", lambda: inner.corrections(reservation_id=reservation_id))

    def balance(self, account: Account) -> Balance:
        """See `runrails.ledger.Store.balance`."""
        return self._call("balance", lambda: self.inner.balance(account))

    def balances(self, *, scope: str | None = None, period: str | None = None) -> Iterator[Balance]:
        """See `runrails.ledger.SupportsLimits.balances`."""
        return self._call("balances", lambda: self.inner.balances(scope=scope, period=period))

    def set_limit(self, scope: str, limit: int | None, *, unit: str = "pusd") -> None:
        """See `runrails.ledger.SupportsLimits.set_limit`."""
        self._call("set_limit", lambda: self.inner.set_limit(scope, limit, unit=unit))

    def limits(self) -> Iterator[tuple[str, str, int]]:
        """See `runrails.ledger.SupportsLimits.limits`."""
        return self._call("limits", self.inner.limits)

    def claim_warning(self, account: Account, mark: WarningMark, *, window_ms: int = 21_600_000) -> bool:
        """See `runrails.ledger.SupportsWarnings.claim_warning`."""
        return self._call("claim_warning", lambda: self.inner.claim_warning(account, mark, window_ms=window_ms))

    def usage(
        self, *, user: str | None = None, period: str | None = None, run: str | None = None
    ) -> Iterator[UsageRecord]:
        """See `runrails.ledger.SupportsUsage.usage`."""
        return self._call("usage", lambda: self.inner.usage(user=user, period=period, run=run))

    def fix_zone(self, scope: str, zone: str) -> str:
        """See `runrails.ledger.SupportsZones.fix_zone`."""
        return self._call("fix_zone", lambda: self.inner.fix_zone(scope, zone))

    def save_run(self, record: RunRecord) -> None:
        """See `runrails.ledger.RunArchive.save_run`."""
        self._call("save_run", lambda: self.inner.save_run(record))

    def runs(self, *, user: str | None = None, count_max: int = 100) -> Iterator[RunRecord]:
        """See `runrails.ledger.RunArchive.runs`."""
        return self._call("runs", lambda: self.inner.runs(user=user, count_max=count_max))

    def run(self, run_id: str) -> RunRecord | None:
        """See `runrails.ledger.RunArchive.run`."""
        return self._call("run", lambda: self.inner.run(run_id))

    def close(self) -> None:
        """Close the store behind; never fails."""
        self.inner.close()

    def _call(self, verb: str, work: Callable[[], T]) -> T:
        with self._lock:
            fate: Fault = "ok"
            if self._verbs is None or verb in self._verbs:
                fate = self._next()
            self.log.append((verb, fate))
        if fate == "request_lost":
            raise _lost(verb)
        answer = work()
        if fate == "response_lost":
            raise _lost(verb)
        return answer

    def _next(self) -> Fault:
        for planned in self._plan:
            return planned
        return "ok"


def _lost(verb: str) -> StoreUnavailable:
    return StoreUnavailable(f"The store did not answer to {verb}.", next_step="Try again with the same id.", verb=verb)
