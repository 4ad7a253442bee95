"""
Calls that were paid out of one larger reservation, a slice, become reservations of their own.

A client that spends a slice by itself (see `leased`) writes what its calls were afterwards, many at once. Each gets its
record, as if it had been reserved and settled here, and what it cost comes out of what the slice holds: the accounts
count it once at every moment. If the client dies, what it had not written is the rest of the slice, which expires like
any other hold.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from runrails.errors import ReservationMismatch, UnknownReservation
from runrails.ledger import Hold, Refused, Reservation, ResultFacts
from runrails.stores import rules
from runrails.stores.checks import TTL_MS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.clocks import Clock
    from runrails.ledger import FullStore

__all__ = [
    "DRAWS_MAX",
    "Drawing",
    "Drawn",
    "DrawsByVerbs",
    "Rest",
    "SupportsDraws",
    "change_of",
    "check_draw",
    "rest_of",
]

DRAWS_MAX = 64
"""Most calls in one draw, so that it fits into one transaction of any engine."""


class Drawn(NamedTuple):
    """One call that a slice has paid for. It holds the same amount of money in each of its accounts."""

    reservation: Reservation
    """As it was made."""
    state: Literal["held", "settled", "released", "unresolved"]
    amount: int
    """What it holds, or held in the end: more than it was made with if it was raised."""
    actual: int
    """What it is charged; 0 while it is held, and if it was released."""
    at_ms: int
    """When it was reserved."""
    end_ms: int
    """When it ended; while it is held, when it expires."""
    stand_in: bool = False
    """Its owner has settled it with an amount that a later settle will correct."""
    result: ResultFacts | None = None

    @property
    def cost(self) -> int:
        """What it takes out of the slice."""
        return self.amount if self.state == "held" else self.actual

    def holds(self) -> tuple[Hold, ...]:
        """What it holds, or held in the end."""
        return tuple([hold._replace(amount=self.amount) for hold in self.reservation.holds])


class Drawing(NamedTuple):
    """What a draw has come to."""

    taken: tuple[str, ...] = ()
    """Ids under which other reservations were made: not written, and what they cost stays charged to the slice."""
    lost: bool = False
    """The slice had expired: it has been charged, and what was drawn came out of that charge."""
    lowered: bool = True
    """What was drawn came out of the slice; else the accounts count it twice until that is closed."""


@runtime_checkable
class SupportsDraws(Protocol):
    """A store that writes what a slice was spent on in one step."""

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """
        Make reservations of calls that an open (or expired) reservation has paid for, and lower it by what they cost.

        All of it or nothing. Calls that are in the books are not written again (one that is held there, and has ended
        since, is settled), so a draw whose answer was lost can be repeated.

        Args:
            slice_id: The reservation that pays; if it is unknown or closed, calls are written all the same.
            calls: At most `DRAWS_MAX`.
            close: The slice is done: give its rest back, or the rest of its charge if it had expired.
        """
        ...


class Rest(NamedTuple):
    """What a draw makes of its slice."""

    amounts: tuple[int, ...] | None
    """It stays open and holds this."""
    change: rules.Change | None
    """It is charged otherwise from now on."""


def rest_of(entry: rules.Entry, cost: int, *, close: bool, kept: int = 0) -> Rest:
    """What is left of a slice once `cost` was drawn from each of its accounts; `kept` stays charged when it closes."""
    if entry.state == "held":
        if close:
            return Rest(None, rules.Change("settled", (kept,) * len(entry.amounts), kept))
        return Rest(tuple([max(0, amount - cost) for amount in entry.amounts]), None)
    if entry.state == "unresolved" and not entry.corrected:
        if close:
            return Rest(None, rules.Change("late", (kept,) * len(entry.charges), kept))
        left = tuple([max(0, charge - cost) for charge in entry.charges])
        return Rest(None, rules.Change("unresolved", left, max(0, entry.actual - cost), entry.stand_in))
    return Rest(None, None)


def change_of(entry: rules.Entry, call: Drawn) -> rules.Change | None:
    """What a drawn call makes of its record that is in the books; None if that knows as much, or better."""
    try:
        if call.state == "held":
            return None
        if call.state == "released":
            return rules.released(entry)
        if call.state == "unresolved" and not call.stand_in:  # By a clock, and no word of its owner's.
            return rules.expired(entry, call.reservation.on_expiry) if entry.state == "held" else None
        return rules.settled(entry, call.actual, units=None, unresolved=call.state == "unresolved")
    except ReservationMismatch:
        return None


class DrawsByVerbs:
    """
    The same for a store that cannot draw, by its ordinary verbs, one call after the other.

    Until the slice is closed its hold is not lowered, so the accounts count twice what was written meanwhile: never too
    little, but after a crash up to the whole slice too much, marked unresolved. Records have the time at which they
    were written, and what the clock has ended here counts as a stand-in of its owner's.
    """

    def __init__(self, store: FullStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """See `SupportsDraws.draw`."""
        taken = [call for call in calls if not self._write(call)]
        if close:
            self._close(slice_id, sum(call.cost for call in taken))
        return Drawing(tuple([call.reservation.id for call in taken]), lowered=False)

    def _write(self, call: Drawn) -> bool:
        store, reservation = self._store, call.reservation
        left_ms = reservation.ttl_ms
        if call.state == "held" and self._clock is not None:
            left_ms = min(max(1, call.end_ms - self._clock()), TTL_MS_MAX)
        try:
            answer = store.reserve(reservation._replace(enforce=False, ttl_ms=left_ms))
            if isinstance(answer, Refused):
                return False
            if call.amount > reservation.holds[0].amount:
                store.raise_hold(reservation.id, call.amount, enforce=False)
        except ReservationMismatch:
            return False
        with suppress(ReservationMismatch):  # It is in the books and resolved: they know better.
            if call.state == "released":
                store.release(reservation.id)
            elif call.state != "held":
                store.settle(reservation.id, call.actual, result=call.result, unresolved=call.state == "unresolved")
        return True

    def _close(self, slice_id: str, kept: int) -> None:
        with suppress(UnknownReservation, ReservationMismatch):  # It never was, or has been closed before.
            self._store.settle(slice_id, kept)


def check_draw(calls: Sequence[Drawn]) -> None:
    """Check the size of a draw. Raises ValueError."""
    if len(calls) > DRAWS_MAX:
        raise ValueError(f"At most {DRAWS_MAX} calls may be drawn at once.")
