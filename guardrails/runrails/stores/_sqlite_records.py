"""A SQLite ledger record by record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, assert_never, cast

from runrails.ledger import Account, CallFacts, Correction, RunRecord, State, WarningMark
from runrails.stores import _sqlite_archive as archive
from runrails.stores import _sqlite_rows as rows
from runrails.stores import rules
from runrails.stores._codec import (
    facts_from_text,
    facts_text,
    refused_from_text,
    refused_text,
    result_from_text,
    result_text,
)
from runrails.stores.records import (
    CodeLimit,
    Extra,
    Held,
    LedgerRecord,
    OperatorLimit,
    PriceCardText,
    ScopeZone,
    Summed,
    WarningSent,
    disagreement,
    unreadable,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from runrails.stores._sqlite_file import SharedFile

__all__ = ["extras", "put", "put_extras", "read", "sums"]

_PAGE = 500
_COLUMNS = (
    "seq, id, state, at_ms, expires_ms, resolved_ms, on_expiry, holds, charges, actual_pusd, stand_in, would_refuse, "
    "user, run, facts, result"
)
_Row = tuple[
    int, str, State, int, int, int | None, Literal["charge", "release"], str, str | None, int | None, int, str | None,
    str | None, str | None, str | None, str | None,
]  # fmt: skip


def read(file: SharedFile, ids: rows.AccountIds) -> Iterator[LedgerRecord]:
    """Every record, oldest first, a page at a time."""
    after = -1

    def page(connection: sqlite3.Connection) -> list[tuple[int, LedgerRecord]]:
        found = cast(
            "list[_Row]",
            connection.execute(
                f"SELECT {_COLUMNS} FROM reservation WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 -- a constant
                (after, _PAGE),
            ).fetchall(),
        )
        return [(row[0], _record(connection, ids, row)) for row in found]

    while True:
        found = file.read(page)
        yield from (record for _, record in found)
        if len(found) < _PAGE:
            return
        after = found[-1][0]


def _record(connection: sqlite3.Connection, ids: rows.AccountIds, row: _Row) -> LedgerRecord:
    _, name, state, at_ms, expires_ms, resolved_ms, on_expiry, holds, charges, actual, stand_in, refused, *said = row
    user, run, facts, result = said
    known: CallFacts | None = None
    if facts is not None:
        known = facts_from_text(user or "", run or "", facts)
    return LedgerRecord(
        name, state, at_ms, expires_ms, resolved_ms, on_expiry,
        tuple(
            [
                Held(ids.account(connection, account_id), amount, asked, charge)
                for account_id, amount, asked, charge in _holds(name, holds, charges, actual or 0)
            ]
        ),
        actual or 0, stand_in == rows.STAND_IN, stand_in == rows.CORRECTED,
        None if refused is None else refused_from_text(refused), known,
        None if result is None else result_from_text(result),
    )  # fmt: skip


def _holds(name: str, holds: str, charges: str | None, actual: int) -> list[tuple[int, int, int, int]]:
    """(account id, amount, amount asked for, charge) of each hold; see the table's columns."""
    try:
        parts = cast("list[list[int]]", json.loads(holds))
        charged = [actual] * len(parts) if charges is None else cast("list[int]", json.loads(charges))
        return [(part[0], part[1], part[-1], charge) for part, charge in zip(parts, charged, strict=True)]
    except (ValueError, TypeError, IndexError, KeyError):
        raise unreadable(name) from None


def sums(file: SharedFile) -> list[Summed]:
    """Every account with what its records add up to, in one look at the file."""

    def step(connection: sqlite3.Connection) -> list[Summed]:
        found: dict[int, tuple[int, int]] = {}
        named: dict[int, str] = {}
        cursor = cast(
            "Iterable[tuple[str, str, str, str | None, int | None]]",
            connection.execute("SELECT id, state, holds, charges, actual_pusd FROM reservation"),
        )
        for name, state, holds, charges, actual in cursor:
            for account_id, amount, _, charge in _holds(name, holds, charges, actual or 0):
                spent, held = found.get(account_id, (0, 0))
                found[account_id] = (spent, held + amount) if state == "held" else (spent + charge, held)
                named[account_id] = name
        accounts = cast(
            "list[tuple[int, str, str, str, int, int]]",
            connection.execute("SELECT id, scope, period, unit, spent, held FROM account ORDER BY id").fetchall(),
        )
        gone = named.keys() - {account_id for account_id, *_ in accounts}
        if gone:
            raise unreadable(named[min(gone)])
        return [
            Summed(Account(scope, period, unit), spent, held, *found.get(account_id, (0, 0)))
            for account_id, scope, period, unit, spent, held in accounts
        ]

    return file.read(step)


def put(connection: sqlite3.Connection, ids: rows.AccountIds, records: Sequence[LedgerRecord]) -> int:
    """Add records of another store. Runs inside a step of `SharedFile`."""
    count = 0
    for record in records:
        row = cast(
            "_Row | None",
            connection.execute(f"SELECT {_COLUMNS} FROM reservation WHERE id = ?", (record.id,)).fetchone(),  # noqa: S608 -- a constant
        )
        if row is None:
            _insert(connection, ids, record)
            count += 1
        elif (known := _record(connection, ids, row)) != record:
            raise disagreement(known)
    return count


def _insert(connection: sqlite3.Connection, ids: rows.AccountIds, record: LedgerRecord) -> None:
    account_ids: list[int] = []
    for hold in record.holds:
        known = ids.find(connection, hold.account)
        account_ids.append(rows.add_account(connection, hold.account) if known is None else known)
    open_ = record.state == "held"
    deltas = [(hold.amount, 0) if open_ else (0, hold.charge) for hold in record.holds]
    if not rows.add_amounts(connection, account_ids, deltas):
        for hold, standing, (held, spent) in zip(
            record.holds, rows.standings_of(connection, account_ids), deltas, strict=True
        ):
            used = standing.spent + standing.held + held + spent
            rules.check_sum(rules.Entry(record.id, "held", (), (), ()), hold.account, used)
    charges = [hold.charge for hold in record.holds]
    money = [hold.amount for hold in record.holds if hold.account.unit == rules.MONEY]
    facts = record.facts
    connection.execute(
        "INSERT INTO reservation (seq, id, state, at_ms, expires_ms, resolved_ms, on_expiry, holds, charges, "
        "estimated_pusd, actual_pusd, stand_in, would_refuse, user, run, facts, result) VALUES ("
        "max(? << 20, 1 + coalesce((SELECT max(seq) FROM reservation WHERE seq < (? + 1) << 20), 0)), "
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.at_ms,
            record.at_ms,
            record.id,
            record.state,
            record.at_ms,
            record.expires_ms,
            record.resolved_ms,
            record.on_expiry,
            json.dumps(
                [
                    [account_id, hold.amount] if hold.amount == hold.asked else [account_id, hold.amount, hold.asked]
                    for account_id, hold in zip(account_ids, record.holds, strict=True)
                ],
                separators=(",", ":"),
            ),
            None if open_ or charges.count(record.actual) == len(charges) else json.dumps(charges),
            max(money, default=0),
            None if open_ else record.actual,
            rows.CORRECTED if record.corrected else int(record.stand_in),
            None if record.would_refuse is None else refused_text(record.would_refuse),
            None if facts is None else facts.user,
            None if facts is None else facts.run,
            None if facts is None else facts_text(facts),
            None if record.result is None else result_text(record.result),
        ),
    )


def extras(file: SharedFile) -> Iterator[Extra]:
    """Everything else that is kept for good."""
    for query, make in _EXTRAS:
        yield from map(make, _all(file, query))
    yield from archive.corrections(file, None)
    yield from archive.every_run(file)


def _all(file: SharedFile, query: str) -> list[tuple[str, ...]]:
    return file.read(lambda connection: cast("list[tuple[str, ...]]", connection.execute(query).fetchall()))


def _code_limit(row: tuple[str, ...]) -> Extra:
    scope, period, unit, limit = cast("tuple[str, str, str, int]", row)
    return CodeLimit(Account(scope, period, unit), limit)


def _operator_limit(row: tuple[str, ...]) -> Extra:
    return OperatorLimit(*cast("tuple[str, str, int]", row))


def _warning(row: tuple[str, ...]) -> Extra:
    scope, period, unit, mark, at_ms = cast("tuple[str, str, str, WarningMark, int]", row)
    return WarningSent(Account(scope, period, unit), mark, at_ms)


def _zone(row: tuple[str, ...]) -> Extra:
    return ScopeZone(*cast("tuple[str, str]", row))


def _price_card(row: tuple[str, ...]) -> Extra:
    return PriceCardText(*cast("tuple[str, str]", row))


_EXTRAS: tuple[tuple[str, Callable[[tuple[str, ...]], Extra]], ...] = (
    (
        "SELECT scope, period, unit, code_limit FROM account WHERE code_limit IS NOT NULL ORDER BY id",
        _code_limit,
    ),
    ("SELECT scope, unit, amount FROM operator_limit", _operator_limit),
    ("SELECT scope, period, unit, mark, at_ms FROM warning", _warning),
    ("SELECT scope, zone FROM zone", _zone),
    ("SELECT fingerprint, card FROM price_card", _price_card),
)


def put_extras(connection: sqlite3.Connection, ids: rows.AccountIds, extras: Sequence[Extra]) -> None:
    """Keep them; again is nothing new. Runs inside a step of `SharedFile`."""
    for extra in extras:
        if isinstance(extra, RunRecord):
            archive.save_run(connection, extra)
        elif isinstance(extra, PriceCardText):
            connection.execute("INSERT OR IGNORE INTO price_card (fingerprint, card) VALUES (?, ?)", extra)
        elif isinstance(extra, ScopeZone):
            connection.execute("INSERT OR IGNORE INTO zone VALUES (?, ?)", extra)
        elif isinstance(extra, OperatorLimit):
            archive.set_limit(connection, extra.scope, extra.limit, extra.unit)
        elif isinstance(extra, CodeLimit):
            _put_code_limit(connection, ids, extra)
        elif isinstance(extra, WarningSent):
            connection.execute(
                "INSERT INTO warning VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)",
                (*extra.account, extra.mark, extra.at_ms),
            )
        elif isinstance(extra, Correction):  # pyright: ignore[reportUnnecessaryIsInstance] -- so that a new kind is noticed
            _put_correction(connection, extra)
        else:
            assert_never(extra)


def _put_correction(connection: sqlite3.Connection, line: Correction) -> None:
    there = connection.execute(
        "SELECT 1 FROM correction WHERE reservation_id = ? AND at_ms = ? AND source = ? AND state_before = ? "
        "AND before_pusd = ? AND after_pusd = ?",
        (line.reservation_id, line.at_ms, line.source, line.state_before, line.before_pusd, line.after_pusd),
    ).fetchone()
    if there is None:
        archive.keep_correction(connection, line)


def _put_code_limit(connection: sqlite3.Connection, ids: rows.AccountIds, extra: CodeLimit) -> None:
    known = ids.find(connection, extra.account)
    account_id = rows.add_account(connection, extra.account) if known is None else known
    connection.execute("UPDATE account SET code_limit = ? WHERE id = ?", (extra.limit, account_id))
