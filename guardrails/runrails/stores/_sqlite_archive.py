"""What a SQLite ledger keeps besides balances and holds: limits of operators, warnings, usage, runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from runrails.ledger import AMOUNT_MAX, Account, Balance, Correction, RunRecord, State, UsageRecord
from runrails.stores import _sqlite_rows as rows
from runrails.stores import rules
from runrails.stores._codec import facts_from_text, report_text, result_from_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from runrails.deliveries import Delivered, Delivery
    from runrails.stores._sqlite_file import SharedFile

__all__ = [
    "balances",
    "claim_warning",
    "corrections",
    "deliveries",
    "every_run",
    "fix_zone",
    "keep_correction",
    "keep_price_card",
    "limits",
    "note_delivery",
    "price_card",
    "runs",
    "save_run",
    "set_limit",
    "usage",
]

_PAGE = 500
"""Rows read at once, so that a long listing neither fills the memory nor holds the file."""
_LOOKED_AT_MAX = 20_000
"""Rows looked at at once for those of one user, so that others wait some milliseconds and not for the whole month."""

UsageRow = tuple[int, str, State, int, int | None, int, int | None, int, str, str, str, str | None]
RunRow = tuple[str, str, str, int, int, str, str | None, str]
_RUN_COLUMNS = "id, name, user, started_ms, ended_ms, mode, stop_reason, report"


def balances(file: SharedFile, scope: str | None, period: str | None) -> Iterator[Balance]:
    """Every account, or those of one scope or period; newest period first, then by scope and unit."""
    where, given = _where(scope=scope, period=period)
    return map(
        rows.balance_of,
        file.read(
            lambda connection: connection.execute(
                f"SELECT {rows.BALANCE_COLUMNS} FROM account WHERE {where} ORDER BY period DESC, scope, unit",  # noqa: S608 -- names of ours and question marks
                given,
            ).fetchall()
        ),
    )


def _where(**wanted: str | None) -> tuple[str, list[str]]:
    """A condition for the columns that are asked for, as SQLite finds an index for, and its values."""
    named = {column: value for column, value in wanted.items() if value is not None}
    return " AND ".join(["1", *(f"{column} = ?" for column in named)]), list(named.values())


def set_limit(connection: sqlite3.Connection, scope: str, limit: int | None, unit: str) -> None:
    """Write or remove an operator's limit, also in the accounts that are there already."""
    connection.execute("DELETE FROM operator_limit WHERE scope = ? AND unit = ?", (scope, unit))
    if limit is not None:
        connection.execute("INSERT INTO operator_limit VALUES (?, ?, ?)", (scope, unit, limit))
    connection.execute("UPDATE account SET operator_limit = ? WHERE scope = ? AND unit = ?", (limit, scope, unit))


def limits(file: SharedFile) -> list[tuple[str, str, int]]:
    """(scope, unit, limit) for every limit an operator has set."""
    return file.read(
        lambda connection: cast(
            "list[tuple[str, str, int]]",
            connection.execute("SELECT scope, unit, amount FROM operator_limit ORDER BY scope, unit").fetchall(),
        )
    )


def claim_warning(file: SharedFile, account: Account, mark: str, *, now_ms: int, window_ms: int) -> bool:
    """Whether this caller is the one who sends."""
    latest_ms = now_ms - window_ms
    # A mark from beyond this was made by a clock that has been put right since.
    future_ms = now_ms + window_ms
    # Nearly every caller comes too late, and finds that out without waiting for the right to write.
    if file.read(
        lambda connection: connection.execute(
            "SELECT 1 FROM warning "
            "WHERE scope = ? AND period = ? AND unit = ? AND mark = ? AND at_ms > ? AND at_ms <= ?",
            (*account, mark, latest_ms, future_ms),
        ).fetchone()
    ):
        return False
    return file.write(
        lambda connection: (
            connection.execute(
                "INSERT INTO warning VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms WHERE warning.at_ms <= ? OR warning.at_ms > ?",
                (*account, mark, now_ms, latest_ms, future_ms),
            ).rowcount
            == 1
        )
    )


def fix_zone(file: SharedFile, scope: str, zone: str) -> str:
    """The scope's zone: the one given at its first use."""

    def known(connection: sqlite3.Connection) -> str | None:
        row = cast(
            "tuple[str] | None", connection.execute("SELECT zone FROM zone WHERE scope = ?", (scope,)).fetchone()
        )
        return None if row is None else row[0]

    def fix(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT OR IGNORE INTO zone VALUES (?, ?)", (scope, zone))
        return known(connection) or zone

    return file.read(known) or file.write(fix)


def usage(file: SharedFile, user: str | None, run: str | None, first_ms: int, end_ms: int) -> Iterator[UsageRecord]:
    """Records of calls reserved from `first_ms` until before `end_ms`, oldest first, a page at a time."""
    # Rows lie in order of time; see `seq` in the schema.
    after, end = (first_ms << 20) - 1, min(end_ms << 20, AMOUNT_MAX)
    where, wanted = _where(user=user, run=run)
    statement = (
        "SELECT seq, id, state, at_ms, resolved_ms, estimated_pusd, actual_pusd, stand_in, user, run, facts, result "  # noqa: S608 -- names of ours and question marks
        f"FROM reservation WHERE seq > ? AND seq < ? AND facts IS NOT NULL AND {where} ORDER BY seq LIMIT ?"
    )
    scans = user is not None and run is None  # A run's rows have an index.

    def page(connection: sqlite3.Connection) -> tuple[list[UsageRow], int]:
        until = _ahead(connection, after, end) if scans else end
        return connection.execute(statement, (after, until, *wanted, _PAGE)).fetchall(), until

    while True:
        found, until = file.read(page)
        for row in found:
            yield _usage_of(row)
        if len(found) == _PAGE:
            after = found[-1][0]
        elif until < end:
            after = until - 1
        else:
            return


def _ahead(connection: sqlite3.Connection, after: int, end: int) -> int:
    """The `seq` so many rows after this one that it is time to let others in; `end` if it comes first."""
    row = cast(
        "tuple[int] | None",
        connection.execute(
            "SELECT seq FROM reservation WHERE seq > ? AND seq < ? ORDER BY seq LIMIT 1 OFFSET ?",
            (after, end, _LOOKED_AT_MAX),
        ).fetchone(),
    )
    return end if row is None else row[0]


def _usage_of(row: UsageRow) -> UsageRecord:
    _, reservation_id, state, at_ms, resolved_ms, estimated, actual, stand_in, user, run, facts, result = row
    return UsageRecord(
        id=reservation_id,
        state=state,
        at_ms=at_ms,
        settled_at_ms=resolved_ms,
        estimated_pusd=estimated,
        actual_pusd=actual,
        facts=facts_from_text(user, run, facts),
        result=None if result is None else result_from_text(result),
        corrected=stand_in == rows.CORRECTED,
    )


def keep_correction(connection: sqlite3.Connection, line: Correction) -> None:
    """Add a line to the audit trail, in the step that makes the correction."""
    connection.execute(
        "INSERT INTO correction (reservation_id, at_ms, source, state_before, before_pusd, after_pusd) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (line.reservation_id, line.at_ms, line.source, line.state_before, line.before_pusd, line.after_pusd),
    )


def corrections(file: SharedFile, reservation_id: str | None) -> Iterator[Correction]:
    """The audit trail, oldest first, a page at a time."""
    where, wanted = _where(reservation_id=reservation_id)
    statement = (
        "SELECT seq, reservation_id, at_ms, source, state_before, before_pusd, after_pusd "  # noqa: S608 -- as above
        f"FROM correction WHERE seq > ? AND {where} ORDER BY seq LIMIT ?"
    )
    after = 0

    def page(connection: sqlite3.Connection) -> list[tuple[int, str, int, str, State, int, int]]:
        return connection.execute(statement, (after, *wanted, _PAGE)).fetchall()

    while True:
        found = file.read(page)
        for _, name, at_ms, source, state, amount, billed in found:
            yield Correction(
                reservation_id=name, at_ms=at_ms, source=source, state_before=state, before_pusd=amount,
                after_pusd=billed,
            )  # fmt: skip
        if len(found) < _PAGE:
            return
        after = found[-1][0]


def keep_price_card(file: SharedFile, fingerprint: str, text: str) -> None:
    """Keep a price card's text. One that is there already is not written again."""
    if price_card(file, fingerprint) is None:
        file.write(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO price_card (fingerprint, card) VALUES (?, ?)", (fingerprint, text)
            )
        )


def price_card(file: SharedFile, fingerprint: str) -> str | None:
    """The text of the card with that fingerprint."""
    row = cast(
        "tuple[str] | None",
        file.read(
            lambda connection: connection.execute(
                "SELECT card FROM price_card WHERE fingerprint = ?", (fingerprint,)
            ).fetchone()
        ),
    )
    return None if row is None else row[0]


_DELIVERY_COLUMNS = "sender, sent, failed, dropped, sent_ms, last_error, error_ms"


def note_delivery(connection: sqlite3.Connection, sender: str, what: Delivered, now_ms: int) -> None:
    """Add to a sender's account."""
    from runrails.deliveries import Delivery

    row = connection.execute(f"SELECT {_DELIVERY_COLUMNS} FROM delivery WHERE sender = ?", (sender[:200],)).fetchone()  # noqa: S608 -- a constant
    after = rules.delivery(sender, None if row is None else Delivery(*row), what, now_ms)
    connection.execute(f"INSERT OR REPLACE INTO delivery ({_DELIVERY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", after)  # noqa: S608 -- a constant


def deliveries(file: SharedFile) -> list[Delivery]:
    """Every sender's account, by name."""
    from runrails.deliveries import Delivery

    found = file.read(
        lambda connection: cast(
            "list[tuple[str, int, int, int, int | None, str | None, int | None]]",
            connection.execute(f"SELECT {_DELIVERY_COLUMNS} FROM delivery ORDER BY sender").fetchall(),  # noqa: S608 -- a constant
        )
    )
    return [Delivery(*row) for row in found]


def save_run(connection: sqlite3.Connection, record: RunRecord) -> None:
    """Keep a run's record, in the place of an earlier one with its id."""
    connection.execute(
        f"INSERT OR REPLACE INTO run ({_RUN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 -- a constant
        (
            record.id,
            record.name,
            record.user,
            record.started_ms,
            record.ended_ms,
            record.mode,
            record.stop_reason,
            report_text(record.report),
        ),
    )


def runs(file: SharedFile, *, user: str | None = None, run_id: str | None = None, count_max: int) -> list[RunRecord]:
    """Runs that ended last come first."""
    where, given = _where(user=user, id=run_id)
    found = file.read(
        lambda connection: cast(
            "list[RunRow]",
            connection.execute(
                f"SELECT {_RUN_COLUMNS} FROM run WHERE {where} ORDER BY ended_ms DESC, id DESC LIMIT ?",  # noqa: S608 -- names of ours and question marks
                (*given, count_max),
            ).fetchall(),
        )
    )
    return [_run_of(row) for row in found]


def every_run(file: SharedFile) -> Iterator[RunRecord]:
    """Every run, by id, a page at a time."""
    after = ""

    def page(connection: sqlite3.Connection) -> list[RunRow]:
        return connection.execute(
            f"SELECT {_RUN_COLUMNS} FROM run WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 -- a constant
            (after, _PAGE),
        ).fetchall()

    while True:
        found = file.read(page)
        yield from map(_run_of, found)
        if len(found) < _PAGE:
            return
        after = found[-1][0]


def _run_of(row: RunRow) -> RunRecord:
    run_id, name, user, started_ms, ended_ms, mode, stop_reason, report = row
    return RunRecord(
        id=run_id,
        name=name,
        user=user,
        started_ms=started_ms,
        ended_ms=ended_ms,
        mode=mode,
        stop_reason=stop_reason,
        report=cast("dict[str, object]", json.loads(report)),
    )
