"""Writes to the ledger at the end of a call, which may have to wait until the store is back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from runrails.errors import ReservationMismatch, RunrailsError, StoreUnavailable, UnknownReservation
from runrails.ledger import RUN_PERIOD, Hold, Refused, Reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runrails.admission import Claim
    from runrails.guard import Guard
    from runrails.ledger import Account, CallFacts, ResultFacts, Store
    from runrails.settlement import Settlement

__all__ = ["Writes", "reason_of"]

_TRIES_MAX = 3


class Writes:
    """Those of one run. Thread-safe; the call has ended and its result is the user's, so none of them raises."""

    __slots__ = ("_guard", "_run_id")

    def __init__(self, guard: Guard, *, run_id: str) -> None:
        self._guard = guard
        self._run_id = run_id

    def release(self, reservation: Reservation) -> None:
        """Give back what a call that was never sent may hold: whether it does is what nobody could say, at times."""
        store, reservation_id = self._guard.store, reservation.id
        self.written(reservation_id)

        def release() -> None:
            for _ in range(_TRIES_MAX):
                try:
                    store.release(reservation_id)
                except UnknownReservation:
                    # The request to reserve never arrived. One that is on its way still would be charged when it
                    # expires, so it must find that it has been here.
                    if store.remote and _leave_mark(store, reservation):
                        continue
                except ReservationMismatch:
                    store.settle(reservation_id, 0)  # It expired, charged, while the store was away.
                return

        self.soon(
            release, event="release_postponed", level="warning", hold=(reservation_id, reservation.ttl_ms)
        )  # fmt: skip

    def soon(
        self, write: Callable[[], object], *, event: str = "settlement_postponed",
        level: Literal["warning", "error"] = "error", hold: tuple[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Write now, or in the background once the store is back. `hold`: what it ends, and how long that lives."""
        try:
            write()
        except BaseException as exc:
            self.failed(exc, write, event, level, hold=hold)
            if not isinstance(exc, Exception):
                raise

    def failed(
        self, error: BaseException, write: Callable[[], object], event: str = "settlement_postponed",
        level: Literal["warning", "error"] = "error", *, hold: tuple[str, int] | None = None,
    ) -> None:  # fmt: skip
        """A write has failed: repeat it later if that can help, and tell of it. If it is lost the hold expires."""
        if isinstance(error, StoreUnavailable):
            if self._guard.housekeeper.postpone(write, hold=hold):
                self._guard.emit(event, level, run=self._run_id, reason=error.what)
        elif isinstance(error, Exception):
            self._guard.emit("settlement_failed", "error", run=self._run_id, reason=reason_of(error))
        else:  # an interrupt, in the middle of it
            self._guard.housekeeper.postpone(write, hold=hold)

    def bypassed(
        self, error: StoreUnavailable, claim: Claim, accounts: Iterable[tuple[Account, int | None]], amount: int,
        facts: CallFacts, *, ttl_ms: int,
    ) -> None:  # fmt: skip
        """A call starts although the ledger cannot be asked: tell of it, and write it down where that is possible."""
        self._guard.emit("store_bypassed", "error", run=self._run_id, reason=error.what)
        bypass = self._guard.housekeeper.bypass
        if bypass is not None:
            asked = claim.reservation
            if asked is None:
                asked = Reservation(claim.id, tuple([Hold(one, amount) for one, _ in accounts]), ttl_ms, facts)
                claim.reservation = asked
            bypass.begun(asked)

    def ended(self, reservation_id: str, settlement: Settlement, result: ResultFacts) -> None:
        """Such a call has ended, and the ledger is still away."""
        bypass = self._guard.housekeeper.bypass
        if bypass is not None:
            bypass.ended(reservation_id, settlement, result)

    def written(self, reservation_id: str, reservation: Reservation | None = None) -> None:
        """Such a call is in the ledger now, or it was never sent (None)."""
        keeper = self._guard.housekeeper
        if keeper.bypass is not None:
            keeper.bypass.written(reservation_id)
        if reservation is not None:  # its accounts may have been looked at before it was there
            months = [hold for hold in reservation.holds if hold.account.period != RUN_PERIOD]
            keeper.watch([hold.account for hold in months], [hold.limit for hold in months])


def _leave_mark(store: Store, reservation: Reservation) -> bool:
    """Take the id for nothing, so that nobody can take it for something. Whether there is something to release."""
    holds = tuple([hold._replace(amount=0) for hold in reservation.holds])
    try:
        answer = store.reserve(reservation._replace(holds=holds, enforce=False))
    except ReservationMismatch:
        return True  # It has come since.
    return not isinstance(answer, Refused)


def reason_of(error: Exception) -> str:
    """What an event may say of an error: the words of one of ours, of any other its type alone."""
    return error.what if isinstance(error, RunrailsError) else type(error).__name__
