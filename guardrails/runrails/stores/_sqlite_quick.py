"""
The ordinary reserve and settle of a SQLite ledger in few statements. Every function runs inside a step of `SharedFile`.

What this process remembers is a hint: each statement proves it as it writes. Whatever is out of the ordinary raises
`Doubtful`, which undoes the step, and the store decides anew by all that is in the file.
"""

from __future__ import annotations

import sqlite3
from operator import le
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.ledger import SCOPES_MAX, Account, Hold, Refused, Reservation, Reserved, ResultFacts, Settled
from runrails.stores import rules
from runrails.stores._codec import result_text
from runrails.stores._sqlite_rows import AccountIds, add_amounts, amounts_of, charges_text, insert

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Doubtful", "Left", "Made", "Resolution", "Taken", "reserve", "resolution", "settle"]

# What cannot be counted, or has no room, or has another limit in code than it is to have, is not written.
_ROOM = "coalesce(operator_limit, code_limit, 9223372036854775807)"
_NOTHING_OVERDUE = "NOT EXISTS (SELECT 1 FROM reservation WHERE state = 'held' AND expires_ms <= ?)"
_HOLD = tuple(
    f"UPDATE account SET held = held + ? WHERE id IN ({','.join('?' * count)}) AND spent + held <= {_ROOM} - ? "  # noqa: S608 -- texts of this module alone
    f"AND coalesce(CASE id {'WHEN ? THEN ? ' * count}END, code_limit) IS code_limit AND {_NOTHING_OVERDUE}"
    for count in range(SCOPES_MAX + 1)
)
# Numbered places are refused by sqlite3 of Python 3.12.0 to 3.12.3.
_OPEN = (
    "INSERT INTO account (scope, period, unit, code_limit, held, operator_limit) "
    "SELECT ?, ?, ?, ?, ?, (SELECT amount FROM operator_limit WHERE scope = ? AND unit = ?) "
    "WHERE ? <= coalesce((SELECT amount FROM operator_limit WHERE scope = ? AND unit = ?), ?, 9223372036854775807) "
    "ON CONFLICT (scope, period, unit) DO NOTHING"
)
_SETTLE = (
    "UPDATE reservation SET state = ?, charges = ?, actual_pusd = ?, stand_in = ?, resolved_ms = ?, "
    "result = coalesce(?, result) WHERE seq = ? AND +id = ? AND state = 'held' AND holds = ? AND on_expiry = ?"
)


class Doubtful(Exception):
    """Something is out of the ordinary, and nothing is to be written."""


class Made(NamedTuple):
    """What a process remembers of a reservation it has made."""

    seq: int
    written: str
    """Its holds, as they are in the file."""
    account_ids: tuple[int, ...]
    holds: tuple[Hold, ...]
    on_expiry: str


class Taken(NamedTuple):
    """What a reserve came to that was decided by all that is in the file."""

    answer: Reserved | Refused
    accounts: tuple[tuple[Account, int], ...] = ()
    """Those whose ids are in the file for good once it is written."""
    made: Made | None = None
    odd: tuple[Account, ...] = ()
    """Those without room, or whose limit from code was another: a quick reserve would stumble over them again."""


class Left(NamedTuple):
    """An account as a settlement has left it, with the limits of code and of an operator."""

    account: Account
    code: int | None
    operator: int | None
    spent: int
    held: int


class Resolution(NamedTuple):
    """What settling is to make of a reservation, if it is as it is remembered."""

    entry: rules.Entry
    change: rules.Change
    covered: bool
    """Whether as much is charged, or more, if it is lost."""

    def answer(self) -> Settled:
        """Of the settlement, once it is written."""
        entry, change = self.entry, self.change
        held = [amount for amount, unit in zip(entry.amounts, entry.units, strict=True) if unit == rules.MONEY]
        return Settled(entry.id, change.state, change.actual, max(held, default=0))


def reserve(
    connection: sqlite3.Connection, ids: AccountIds, reservation: Reservation, now_ms: int
) -> tuple[Made, tuple[tuple[Account, int], ...]]:
    """
    Take holds of which at least one account is known.

    Returns:
        What to remember once it is written: the reservation, and its accounts' ids.

    Raises:
        Doubtful: Something has no room, is overdue, or has another limit in code; or the id is taken.
        sqlite3.Error: Nothing was written.
    """
    holds = reservation.holds
    account_ids = [_id(connection, ids, hold) for hold in holds]
    groups: dict[int, list[tuple[int, int | None]]] = {}
    for (_, amount, limit), (account_id, there) in zip(holds, account_ids, strict=True):
        if there:
            groups.setdefault(amount, []).append((account_id, limit))
    if not groups:
        raise Doubtful  # Nobody has looked whether anything is overdue.
    for amount, group in groups.items():
        named = [value for pair in group for value in pair]
        values = (amount, *named[::2], amount, *named, now_ms)
        if connection.execute(_HOLD[len(group)], values).rowcount != len(group):
            raise Doubtful
    numbers = tuple([account_id for account_id, _ in account_ids])
    try:
        seq, written = insert(connection, reservation, numbers, now_ms, None)
    except sqlite3.IntegrityError:
        raise Doubtful from None
    accounts = tuple(zip([hold.account for hold in holds], numbers, strict=True))
    return Made(seq, written, numbers, holds, reservation.on_expiry), accounts


def _id(connection: sqlite3.Connection, ids: AccountIds, hold: Hold) -> tuple[int, bool]:
    """The id of an account, and whether it was there; else it is made, with what it is to hold."""
    account, amount, limit = hold
    known = ids.known(account)
    if known is not None:
        return known, True
    scope, _, unit = account
    made = connection.execute(_OPEN, (*account, limit, amount, scope, unit, amount, scope, unit, limit))
    if made.rowcount == 1:
        return cast("int", made.lastrowid), False
    there = ids.find(connection, account)
    if there is None:
        raise Doubtful
    return there, True


def resolution(
    made: Made, reservation_id: str, actual: int, *, units: Mapping[str, int] | None, unresolved: bool
) -> Resolution:
    """What settling makes of a reservation that is still held. Raises TypeError or ValueError for amounts."""
    amounts = tuple([hold.amount for hold in made.holds])
    entry = rules.Entry(
        reservation_id, "held", tuple([hold.account.unit for hold in made.holds]), amounts, (0,) * len(amounts)
    )
    charges = rules.settlement(entry, actual, units)
    change = rules.Change("unresolved" if unresolved else "settled", charges, actual, unresolved)
    return Resolution(entry, change, made.on_expiry == "charge" and all(map(le, charges, amounts)))


def settle(
    connection: sqlite3.Connection,
    made: Made,
    what: Resolution,
    now_ms: int,
    result: ResultFacts | None,
    *,
    tells: bool,
) -> tuple[Left, ...] | None:
    """
    Write a settlement.

    Returns:
        The accounts as it has left them, if it `tells`.

    Raises:
        Doubtful: The reservation is not as it was made: raised, overdue, settled; or a sum would be too large.
    """
    entry, change = what.entry, what.change
    written = connection.execute(
        _SETTLE,
        (
            change.state, charges_text(change), change.actual, int(change.stand_in), now_ms,
            None if result is None else result_text(result), made.seq, entry.id, made.written, made.on_expiry,
        ),
    )  # fmt: skip
    if written.rowcount != 1:
        raise Doubtful
    if not add_amounts(connection, made.account_ids, change.deltas(entry)):
        raise Doubtful
    return _left_in(connection, made) if tells else None


def _left_in(connection: sqlite3.Connection, made: Made) -> tuple[Left, ...]:
    """The accounts of a reservation as they stand."""
    found = amounts_of(connection, made.account_ids)
    return tuple(
        [Left(hold.account, *found[number]) for hold, number in zip(made.holds, made.account_ids, strict=True)]
    )
