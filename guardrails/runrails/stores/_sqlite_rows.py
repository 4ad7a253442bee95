"""Reading and writing single rows of a SQLite ledger. Every function runs inside a step of `SharedFile`."""

from __future__ import annotations

import json
import sqlite3
from operator import le
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

from runrails.ledger import (
    AMOUNT_MAX,
    SCOPES_MAX,
    Account,
    Balance,
    Hold,
    Refused,
    Reservation,
    ResultFacts,
    State,
)
from runrails.stores import rules
from runrails.stores._codec import facts_text, refused_text, result_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "BALANCE_COLUMNS",
    "CORRECTED",
    "STAND_IN",
    "AccountIds",
    "Found",
    "Glance",
    "add_account",
    "add_amounts",
    "amounts_of",
    "balance_of",
    "balances_of",
    "can_be_id",
    "charges_text",
    "find",
    "glance",
    "insert",
    "is_covered",
    "operator_limit",
    "overdue",
    "standings",
    "standings_of",
    "write_change",
    "write_raise",
]

BALANCE_COLUMNS = "scope, period, unit, code_limit, operator_limit, spent, held"
_ACCOUNTS_KNOWN_MAX = 2_000
STAND_IN, CORRECTED = 1, 2
"""What a reservation's `stand_in` says, if it is not 0."""

BalanceRow = tuple[str, str, str, int | None, int | None, int, int]

# Statements for 1 to 16 accounts, made once: SQLite compiles each and keeps it.
_MARKS = tuple(",".join("?" * count) for count in range(SCOPES_MAX + 1))
_GLANCE = tuple(
    "SELECT id, code_limit, operator_limit, spent, held, EXISTS (SELECT 1 FROM reservation WHERE id = ?), "  # noqa: S608 -- only question marks go in
    f"EXISTS (SELECT 1 FROM reservation WHERE state = 'held' AND expires_ms <= ?) FROM account WHERE id IN ({m})"
    for m in _MARKS
)
_STANDING = tuple(
    f"SELECT id, code_limit, operator_limit, spent, held FROM account WHERE id IN ({m})"  # noqa: S608 -- only question marks go in
    for m in _MARKS
)
_UPDATE = tuple(
    f"UPDATE account SET held = held + ?, spent = spent + ? WHERE id IN ({m}) AND spent + held <= ?"  # noqa: S608 -- only question marks go in
    for m in _MARKS
)


class AccountIds:
    """
    What this process knows of account ids. Ids never change and accounts are never removed, so knowing is for ever.

    Bounded; forgetting costs one look-up.
    """

    def __init__(self) -> None:
        self._by_account: dict[Account, int] = {}
        self._by_id: dict[int, Account] = {}

    def __contains__(self, account: object) -> bool:
        return account in self._by_account

    def known(self, account: Account) -> int | None:
        """The account's id, if it is remembered."""
        return self._by_account.get(account)

    def find(self, connection: sqlite3.Connection, account: Account) -> int | None:
        """The account's id; None if it is not in the file."""
        known = self._by_account.get(account)
        if known is not None:
            return known
        row = cast(
            "tuple[int] | None",
            connection.execute(
                "SELECT id FROM account WHERE scope = ? AND period = ? AND unit = ?", account
            ).fetchone(),
        )
        return None if row is None else row[0]

    def account(self, connection: sqlite3.Connection, account_id: int) -> Account:
        """The account with this id."""
        known = self._by_id.get(account_id)
        if known is None:
            row = cast(
                "tuple[str, str, str]",
                connection.execute("SELECT scope, period, unit FROM account WHERE id = ?", (account_id,)).fetchone(),
            )
            known = Account(*row)
            self.keep_all([(known, account_id)])
        return known

    def keep_all(self, accounts: Iterable[tuple[Account, int]]) -> None:
        """Remember ids that are in the file for good, not those of a step that may yet be undone."""
        for account, account_id in accounts:
            if account_id in self._by_id:
                continue
            if len(self._by_id) >= _ACCOUNTS_KNOWN_MAX:
                self._by_account.clear()
                self._by_id.clear()
            self._by_account[account] = account_id
            self._by_id[account_id] = account


class Found(NamedTuple):
    """A reservation's row. A hold that was raised is written as [account id, amount, amount it was made with]."""

    seq: int
    entry: rules.Entry
    account_ids: tuple[int, ...]
    on_expiry: str
    asked: tuple[int, ...]
    """What it was made with."""


_ENTRY = "SELECT seq, id, state, holds, charges, actual_pusd, stand_in, on_expiry FROM reservation "
EntryRow = tuple[int, str, State, str, str | None, int | None, int, str]


def can_be_id(reservation_id: object) -> bool:
    """Whether a reservation can have this id; SQLite would take the number 5 for the text "5"."""
    return isinstance(reservation_id, str) and reservation_id.isascii()


def find(connection: sqlite3.Connection, ids: AccountIds, reservation_id: str) -> Found | None:
    """The reservation with this id, or None."""
    row = cast("EntryRow | None", connection.execute(_ENTRY + "WHERE id = ?", (reservation_id,)).fetchone())
    return None if row is None else _found(connection, ids, row)


def is_covered(found: Found, change: rules.Change) -> bool:
    """Whether as much is charged, or more, if the change is lost: the hold is charged when its time is over."""
    entry = found.entry
    is_charged = entry.state == "held" and found.on_expiry == "charge"
    return is_charged and all(map(le, change.charges, entry.amounts))


def overdue(connection: sqlite3.Connection, ids: AccountIds, now_ms: int, count_max: int) -> list[Found]:
    """At most `count_max` open holds whose time is over, the longest overdue first."""
    rows = cast(
        "list[EntryRow]",
        connection.execute(
            _ENTRY + "WHERE state = 'held' AND expires_ms <= ? ORDER BY expires_ms, id LIMIT ?", (now_ms, count_max)
        ).fetchall(),
    )
    return [_found(connection, ids, row) for row in rows]


def _found(connection: sqlite3.Connection, ids: AccountIds, row: EntryRow) -> Found:
    seq, reservation_id, state, holds_text, charges_text, actual, stand_in, on_expiry = row
    holds = cast("list[list[int]]", json.loads(holds_text))
    amounts = tuple([hold[1] for hold in holds])
    # Charges are written only where accounts were charged differently.
    charges = (
        (actual or 0,) * len(holds) if charges_text is None else tuple(cast("list[int]", json.loads(charges_text)))
    )
    units = tuple([ids.account(connection, hold[0]).unit for hold in holds])
    entry = rules.Entry(
        reservation_id, state, units, amounts, charges, actual or 0, stand_in == STAND_IN, stand_in == CORRECTED
    )
    return Found(seq, entry, tuple([hold[0] for hold in holds]), on_expiry, tuple([hold[-1] for hold in holds]))


class Glance(NamedTuple):
    """All that an ordinary reserve needs to know, read at once."""

    taken: bool
    """The reservation's id is in use."""
    overdue: bool
    """Some hold's time is over."""
    amounts: dict[int, tuple[int | None, int | None, int, int]]
    """Account id -> limit from code, limit of an operator, spent, held."""


def glance(
    connection: sqlite3.Connection, account_ids: Sequence[int | None], reservation_id: str, now_ms: int
) -> Glance:
    """Look at the accounts that are there, and at whether anything is out of the ordinary."""
    present = [account_id for account_id in account_ids if account_id is not None]
    if not present:
        return Glance(taken=True, overdue=True, amounts={})
    found = cast(
        "list[tuple[int, int | None, int | None, int, int, int, int]]",
        connection.execute(_GLANCE[len(present)], (reservation_id, now_ms, *present)).fetchall(),
    )
    return Glance(bool(found[0][5]), bool(found[0][6]), {row[0]: row[1:5] for row in found})


def standings(
    connection: sqlite3.Connection, seen: Glance, account_ids: Sequence[int | None], holds: Sequence[Hold]
) -> tuple[list[rules.Standing], list[int]]:
    """What the decision has to know of every account, and the places of those whose limit from code is another now."""
    found: list[rules.Standing] = []
    changed: list[int] = []
    for place, (account_id, hold) in enumerate(zip(account_ids, holds, strict=True)):
        account, _, limit = hold
        if account_id is None:
            operator = operator_limit(connection, account.scope, account.unit)
            code, spent, held = None, 0, 0
        else:
            code, operator, spent, held = seen.amounts[account_id]
        if limit is not None and limit != code:
            changed.append(place)
        effective = rules.effective_limit(operator=operator, code=limit, code_before=code)
        found.append(rules.Standing(effective, spent, held))
    return found, changed


def operator_limit(connection: sqlite3.Connection, scope: str, unit: str) -> int | None:
    """The limit an operator has set for a scope, or None."""
    row = cast(
        "tuple[int] | None",
        connection.execute("SELECT amount FROM operator_limit WHERE scope = ? AND unit = ?", (scope, unit)).fetchone(),
    )
    return None if row is None else row[0]


def add_account(connection: sqlite3.Connection, account: Account, *, held: int = 0, limit: int | None = None) -> int:
    """Make an account, with the limit an operator may have set for its scope, and return its id."""
    cursor = connection.execute(
        "INSERT INTO account (scope, period, unit, code_limit, held, operator_limit) "
        "VALUES (?, ?, ?, ?, ?, (SELECT amount FROM operator_limit WHERE scope = ? AND unit = ?))",
        # Numbered places are refused by sqlite3 of Python 3.12.0 to 3.12.3.
        (*account, limit, held, account.scope, account.unit),
    )
    return cast("int", cursor.lastrowid)


def add_amounts(connection: sqlite3.Connection, account_ids: Sequence[int], deltas: Sequence[tuple[int, int]]) -> bool:
    """Add (held, spent) to each account, equal ones in one statement. False if a sum would be too large to count."""
    groups: list[tuple[tuple[int, int], list[int]]]
    if deltas.count(deltas[0]) == len(deltas):
        groups = [(deltas[0], list(account_ids))]
    else:
        groups = [
            (wanted, [i for i, delta in zip(account_ids, deltas, strict=True) if delta == wanted])
            for wanted in set(deltas)
        ]
    for (held, spent), group in groups:
        most = min(AMOUNT_MAX, AMOUNT_MAX - held - spent)
        if connection.execute(_UPDATE[len(group)], (held, spent, *group, most)).rowcount != len(group):
            return False
    return True


def balances_of(connection: sqlite3.Connection, accounts: dict[int, Account]) -> list[Balance]:
    """Accounts that are there as callers see them, by their ids: 16 take one statement."""
    account_ids, told = tuple(accounts), list[Balance]()
    for first in range(0, len(account_ids), SCOPES_MAX):
        found = amounts_of(connection, account_ids[first : first + SCOPES_MAX])
        for account_id, (code, operator, spent, held) in found.items():
            scope, period, unit = accounts[account_id]
            told.append(balance_of((scope, period, unit, code, operator, spent, held)))
    return told


def amounts_of(
    connection: sqlite3.Connection, account_ids: Sequence[int]
) -> dict[int, tuple[int | None, int | None, int, int]]:
    """By the ids of accounts, 16 at most: limit from code, limit of an operator, spent, held."""
    found = cast(
        "list[tuple[int, int | None, int | None, int, int]]",
        connection.execute(_STANDING[len(account_ids)], account_ids).fetchall(),
    )
    return {row[0]: row[1:] for row in found}


def insert(
    connection: sqlite3.Connection,
    reservation: Reservation,
    account_ids: Sequence[int],
    now_ms: int,
    refused: Refused | None,
) -> tuple[int, str]:
    """Write a reservation's row, and return its `seq` and its holds as they are written."""
    pairs = zip(account_ids, reservation.holds, strict=True)
    holds = f"[{','.join([f'[{account_id},{hold.amount}]' for account_id, hold in pairs])}]"
    facts = reservation.facts
    cursor = connection.execute(
        "INSERT INTO reservation "
        "(seq, id, state, at_ms, expires_ms, on_expiry, holds, estimated_pusd, would_refuse, user, run, facts) VALUES ("
        "max(? << 20, 1 + coalesce((SELECT max(seq) FROM reservation WHERE seq < (? + 1) << 20), 0)), "
        "?, 'held', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            now_ms,
            now_ms,
            reservation.id,
            now_ms,
            now_ms + reservation.ttl_ms,
            reservation.on_expiry,
            holds,
            max((hold.amount for hold in reservation.holds if hold.account.unit == rules.MONEY), default=0),
            None if refused is None else refused_text(refused),
            None if facts is None else facts.user,
            None if facts is None else facts.run,
            None if facts is None else facts_text(facts),
        ),
    )
    return cast("int", cursor.lastrowid), holds


def standings_of(connection: sqlite3.Connection, account_ids: Sequence[int]) -> list[rules.Standing]:
    """What a decision has to know of accounts that are there."""
    found: list[rules.Standing] = []
    for account_id in account_ids:
        code, operator, spent, held = cast(
            "tuple[int | None, int | None, int, int]",
            connection.execute(
                "SELECT code_limit, operator_limit, spent, held FROM account WHERE id = ?", (account_id,)
            ).fetchone(),
        )
        limit = rules.effective_limit(operator=operator, code=None, code_before=code)
        found.append(rules.Standing(limit, spent, held))
    return found


def write_raise(connection: sqlite3.Connection, found: Found, more: Sequence[Hold]) -> None:
    """Write by how much the holds of an open reservation grow."""
    add_amounts(connection, found.account_ids, [(hold.amount, 0) for hold in more])
    amounts = [held + hold.amount for held, hold in zip(found.entry.amounts, more, strict=True)]
    money = [a for a, unit in zip(amounts, found.entry.units, strict=True) if unit == rules.MONEY]
    connection.execute(
        "UPDATE reservation SET holds = ?, estimated_pusd = ? WHERE seq = ?",
        (
            json.dumps(list(zip(found.account_ids, amounts, found.asked, strict=True)), separators=(",", ":")),
            max(money, default=0),
            found.seq,
        ),
    )


def write_change(
    connection: sqlite3.Connection,
    ids: AccountIds,
    found: Found,
    change: rules.Change,
    now_ms: int,
    result: ResultFacts | None = None,
) -> None:
    """
    Write what becomes of a reservation, in its accounts and in its row.

    Raises:
        LedgerError: An account could not count the sum; the step must be undone.
    """
    entry = found.entry
    if not add_amounts(connection, found.account_ids, change.deltas(entry)):
        _refuse_sum(connection, ids, found, change)
    connection.execute(
        "UPDATE reservation SET state = ?, charges = ?, actual_pusd = ?, stand_in = ?, resolved_ms = ?, "
        "result = coalesce(?, result) WHERE seq = ?",
        (
            change.state,
            charges_text(change),
            change.actual,
            CORRECTED if change.corrected else int(change.stand_in),
            now_ms,
            None if result is None else result_text(result),
            found.seq,
        ),
    )


def charges_text(change: rules.Change) -> str | None:
    """The charges as they are written; None if each is the actual cost."""
    charges = change.charges
    return None if charges.count(change.actual) == len(charges) else json.dumps(charges)


def _refuse_sum(connection: sqlite3.Connection, ids: AccountIds, found: Found, change: rules.Change) -> NoReturn:
    # Accounts that had the room are written already: undo them first, or one of them would be named for its new sum.
    connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    accounts = [ids.account(connection, account_id) for account_id in found.account_ids]
    for account, standing, (held, spent) in zip(
        accounts, standings_of(connection, found.account_ids), change.deltas(found.entry), strict=True
    ):
        rules.check_sum(found.entry, account, standing.spent + standing.held + held + spent)
    # Another process made room between the two statements above. Nothing is written, and the caller may ask again.
    raise sqlite3.IntegrityError("an account of this reservation had no room, and has it now")


def balance_of(row: BalanceRow) -> Balance:
    """A row of `BALANCE_COLUMNS` as callers see it."""
    scope, period, unit, code, operator, spent, held = row
    return Balance(
        account=Account(scope, period, unit),
        limit=rules.effective_limit(operator=operator, code=None, code_before=code),
        spent=spent,
        held=held,
        limit_source=rules.limit_source(operator=operator, code=code),
    )
