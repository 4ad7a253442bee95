"""
The ledger's arithmetic, without an engine: when a reservation fits, and which transitions are legal.

Every engine decides with these functions and with those of `checks`, so that two engines given the same trace cannot
disagree. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.errors import LedgerError, ReservationMismatch, StoreUnavailable, UnknownReservation
from runrails.ledger import (
    AMOUNT_MAX,
    Account,
    Hold,
    Refused,
    Reservation,
    Settled,
    State,
)
from runrails.stores.checks import MONEY, check_amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runrails.deliveries import Delivered, Delivery

__all__ = [
    "MONEY",
    "Change",
    "Entry",
    "Standing",
    "check_same",
    "check_sum",
    "closed",
    "corrected",
    "delivery",
    "effective_limit",
    "expired",
    "limit_source",
    "no_raise",
    "overflow",
    "raises",
    "refusal",
    "released",
    "settled",
    "settlement",
    "taken",
    "unknown",
]


class Standing(NamedTuple):
    """An account's amounts as a decision sees them; `limit` is the effective one."""

    limit: int | None
    spent: int
    held: int


class Entry(NamedTuple):
    """A reservation as it stands in the books."""

    id: str
    state: State
    units: tuple[str, ...]
    amounts: tuple[int, ...]
    charges: tuple[int, ...]
    """What each account has been charged so far; zeroes while held."""
    actual: int = 0
    stand_in: bool = False
    """Its owner has settled it with an amount that a later settle will correct."""
    corrected: bool = False
    """A bill has corrected it, and stands."""

    def answer(self, *, replayed: bool) -> Settled:
        """What `settle` or `release` returns for this entry."""
        held = max((a for a, unit in zip(self.amounts, self.units, strict=True) if unit == MONEY), default=0)
        return Settled(self.id, self.state, self.actual, held, replayed)

    def after(self, change: Change) -> Entry:
        """The entry once the change is written."""
        return self._replace(
            state=change.state, charges=change.charges, actual=change.actual, stand_in=change.stand_in,
            corrected=change.corrected,
        )  # fmt: skip


class Change(NamedTuple):
    """What becomes of an entry. The charges replace the former ones; the holds end if it was held."""

    state: State
    charges: tuple[int, ...]
    actual: int
    stand_in: bool = False
    corrected: bool = False

    def deltas(self, entry: Entry) -> list[tuple[int, int]]:
        """(held, spent) to add to each account, in the order of the holds."""
        was_held = entry.state == "held"
        return [
            (-amount if was_held else 0, new - old)
            for amount, old, new in zip(entry.amounts, entry.charges, self.charges, strict=True)
        ]


def check_same(
    reservation: Reservation, *, holds: Iterable[tuple[Account, int]], on_expiry: str, same_facts: bool
) -> None:
    """
    Check that a reservation made again asks for what the first one with its id asked for.

    Limits, time to live and enforcement are how a reservation is treated, not what it is, and may differ.

    Raises:
        ReservationMismatch: It does not. Nothing was changed.
    """
    if (
        same_facts
        and reservation.on_expiry == on_expiry
        and {hold.account: hold.amount for hold in reservation.holds} == dict(holds)
    ):
        return
    raise taken(reservation.id)


def effective_limit(*, operator: int | None, code: int | None, code_before: int | None) -> int | None:
    """The limit that counts: the operator's, else the newest one from code, else none."""
    if operator is not None:
        return operator
    return code_before if code is None else code


def limit_source(*, operator: int | None, code: int | None) -> Literal["none", "code", "operator"]:
    """Who gave the limit that counts."""
    if operator is not None:
        return "operator"
    return "none" if code is None else "code"


def refusal(holds: Sequence[Hold], standings: Sequence[Standing]) -> Refused | None:
    """
    The refusal these holds get, or None if all fit.

    Of several accounts without room, one that lacks it even without its open holds is named first: waiting would not
    help there. An account without a limit refuses only what no integer could count.
    """
    found: Refused | None = None
    for (account, amount, _), (limit, spent, held) in zip(holds, standings, strict=True):
        most = AMOUNT_MAX if limit is None else limit
        if spent + held + amount <= most:
            continue
        refused = Refused(account, most, spent, held, amount)
        if not refused.only_held:
            return refused
        found = found or refused
    return found


def overflow(holds: Sequence[Hold], standings: Sequence[Standing]) -> Refused | None:
    """The refusal if an account would pass the largest amount there is; observing cannot take such holds either."""
    return refusal(holds, [Standing(AMOUNT_MAX, spent, held) for _, spent, held in standings])


def raises(accounts: Sequence[Account], entry: Entry, amount: int) -> list[Hold]:
    """By how much each hold of an entry grows if money is to hold `amount`; nothing for accounts that hold enough."""
    return [
        Hold(account, max(0, amount - held) if unit == MONEY else 0)
        for account, held, unit in zip(accounts, entry.amounts, entry.units, strict=True)
    ]


def no_raise(more: Sequence[Hold], standings: Sequence[Standing]) -> Refused | None:
    """The refusal that holds get which are to grow; an account in which nothing grows refuses nothing."""
    growing = [(hold, each) for hold, each in zip(more, standings, strict=True) if hold.amount]
    return refusal([hold for hold, _ in growing], [each for _, each in growing])


def settled(entry: Entry, actual: int, *, units: Mapping[str, int] | None, unresolved: bool) -> Change | None:
    """
    What settling makes of an entry; None if it is a repetition of the settlement it already has.

    Raises:
        TypeError: An amount is not an int.
        ValueError: An amount is out of range, or a unit is named that was not held.
        ReservationMismatch: Already resolved with another amount, or released.
    """
    charges = settlement(entry, actual, units)
    if entry.corrected:
        return None
    state = entry.state
    if state == "held":
        return Change("unresolved" if unresolved else "settled", charges, actual, unresolved)
    if state == "unresolved" and not (unresolved and entry.stand_in):
        # The owner knows better than the clock did; its own stand-in may be corrected once, by a final amount.
        return Change("unresolved" if unresolved else "late", charges, actual, unresolved)
    if state != "released" and actual == entry.actual and charges == entry.charges:
        return None
    raise _resolved_otherwise(entry, "settled" if state == "released" else "settled with another amount")


def settlement(entry: Entry, actual: int, units: Mapping[str, int] | None) -> tuple[int, ...]:
    """What each account is to be charged: `actual` for money, the named amount or the hold for other units."""
    check_amount(actual, what="The actual cost")
    named = units or {}
    for unit, amount in named.items():
        if unit == MONEY or unit not in entry.units:
            raise ValueError(f"The unit {unit!r} was not held; money is given as `actual`, other units by their name.")
        check_amount(amount, what=f"The actual amount of {unit}")
    return tuple(
        actual if unit == MONEY else named.get(unit, amount)
        for unit, amount in zip(entry.units, entry.amounts, strict=True)
    )


def released(entry: Entry) -> Change | None:
    """
    What releasing makes of an entry; None if it has been released.

    Raises:
        ReservationMismatch: It was resolved otherwise. One that expired is settled with 0 instead.
    """
    if entry.state == "held":
        return Change("released", (0,) * len(entry.amounts), 0)
    if entry.state == "released" or entry.corrected:
        return None
    raise _resolved_otherwise(entry, "released")


def corrected(entry: Entry, actual: int) -> Change | None:
    """
    What a bill makes of an entry; None if it stands in the books as billed.

    Raises:
        TypeError, ValueError: The amount is none.
        ReservationMismatch: It is in flight, and its owner may still settle it.
    """
    check_amount(actual, what="The billed cost")
    if entry.state == "held":
        raise ReservationMismatch(
            "This reservation is in flight and cannot be corrected yet; nothing was changed.",
            next_step="Correct it once its call has ended, or its time has run out.",
            reservation_id=entry.id,
            state=entry.state,
        )
    charges = tuple(
        actual if unit == MONEY else charge for unit, charge in zip(entry.units, entry.charges, strict=True)
    )
    if entry.state != "unresolved" and (actual, charges) == (entry.actual, entry.charges):
        return None
    return Change("settled" if entry.state == "settled" else "late", charges, actual, corrected=True)


def expired(entry: Entry, on_expiry: Literal["charge", "release"] | str) -> Change:
    """What the store's clock makes of an overdue hold: charged in full, or given back; either way unresolved."""
    charges = entry.amounts if on_expiry == "charge" else (0,) * len(entry.amounts)
    money = max((c for c, unit in zip(charges, entry.units, strict=True) if unit == MONEY), default=0)
    return Change("unresolved", charges, money)


def check_sum(entry: Entry, account: Account, used: int) -> None:
    """
    Check that what an account would count after a settlement can be counted.

    Raises:
        LedgerError: It would pass 2^63 − 1. Nothing was changed; the hold stays.
    """
    if used > AMOUNT_MAX:
        raise LedgerError(
            f"Settling this would take {account.scope} past the largest amount a ledger counts (2^63 - 1).",
            next_step="Check the actual cost: $9.22 million in one account is more likely an error than a bill.",
            scope=account.scope,
            period=account.period,
            unit=account.unit,
            reservation_id=entry.id,
        )


def delivery(sender: str, known: Delivery | None, what: Delivered, now_ms: int) -> Delivery:
    """
    A sender's account once something has become of notices of its own. Names are cut at 200 characters.

    What is written last counts as the newest, also by a clock behind that of the process that wrote before.
    """
    from runrails.deliveries import Delivery

    before = known or Delivery(sender[:200], 0, 0, 0, None, None, None)
    missed = what.failed + what.dropped > 0
    sent_ms, error_ms = before.sent_ms, before.error_ms
    if what.sent:
        sent_ms = now_ms if error_ms is None else max(now_ms, error_ms)
    if missed:
        after_sent_ms = 0 if sent_ms is None else sent_ms if what.sent else sent_ms + 1
        error_ms = max(now_ms, after_sent_ms)
    return Delivery(
        before.sender, before.sent + what.sent, before.failed + what.failed, before.dropped + what.dropped,
        sent_ms, what.error if missed else before.last_error, error_ms,
    )  # fmt: skip


def closed() -> StoreUnavailable:
    """The error of every verb of a closed store."""
    return StoreUnavailable("The store is closed.", next_step="Keep the guard or the store open while runs use it.")


def taken(reservation_id: str) -> ReservationMismatch:
    """The error for an id that stands for another reservation."""
    return ReservationMismatch(
        "A reservation with this id was made before with other content; nothing was changed.",
        next_step="Use a fresh id for every call, and the same id only to repeat the same reservation.",
        reservation_id=reservation_id,
    )


def unknown(reservation_id: str) -> UnknownReservation:
    """The error for an id nobody reserved with, or whose record a bounded store has dropped."""
    return UnknownReservation(
        "No reservation with this id was made in this store.",
        next_step="Reserve before settling, with the same store and the same id.",
        reservation_id=reservation_id,
    )


def _resolved_otherwise(entry: Entry, attempt: str) -> ReservationMismatch:
    hint = (
        "It expired before that; settle it with what the call really cost, 0 if nothing was sent."
        if entry.state == "unresolved"
        else "Resolve a reservation once, and repeat only the very same resolution."
    )
    return ReservationMismatch(
        f"This reservation is {entry.state} and cannot be {attempt}; nothing was changed.",
        next_step=hint,
        reservation_id=entry.id,
        state=entry.state,
        actual=entry.actual,
    )
