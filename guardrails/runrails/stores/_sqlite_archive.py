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
    "run",
    "runs",
    "save_run",
    "set_limit",
    "usage",
]

_PAGE = 500
"""Rows read at once, so that a long listing neither fills the memory nor holds the file."""
_RUNS_PAGE = 50
_NO_RUN = (-1, "")
"""Before every run."""
_LOOKED_AT_MAX = 20_000
"""Rows looked at at once for those of one user, so that others wait some milliseconds and not for the whole month."""

UsageRow = tuple[int, str, State, int, int | None, int, int | None, int, str, str, str, str | None]
RunRow = tuple[str, str, str, int, int, str, str | None, str]
_RUN_COLUMNS = "id, name, user, started_ms, ended_ms, mode, stop_reason, report"


def balances(file: SharedFile, scope: str | None, period: str | None) -> Iterator[Balance]:
    """Every account, or those of one scope or period; newest period first, then by scope and unit."""
    if scope is None and period is not None:
        return iter(_balances_in(file, period))
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


def _balances_in(file: SharedFile, period: str) -> list[Balance]:
    """
    The accounts of one period. Every run that ever was has an account, so they are looked through some at a time, while
    calls go on: it is not the same moment for all of them.
    """
    after = 0

    def page(connection: sqlite3.Connection) -> tuple[list[rows.BalanceRow], int | None]:
        last: tuple[int | None] = connection.execute(
            "SELECT max(id) FROM (SELECT id FROM account WHERE id > ? ORDER BY id LIMIT ?)", (after, _LOOKED_AT_MAX)
        ).fetchone()
        found: list[rows.BalanceRow] = connection.execute(
            f"SELECT {rows.BALANCE_COLUMNS} FROM account WHERE id > ? AND id <= ? AND period = ?",  # noqa: S608 -- a constant
            (after, last[0], period),
        ).fetchall()
        return found, last[0]

    listed: list[Balance] = []
    while True:
        found, last = file.read(page)
        listed += map(rows.balance_of, found)
        if last is None:
            return sorted(listed, key=lambda balance: (balance.account.scope, balance.account.unit))
        after = last


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


def run(file: SharedFile, run_id: str) -> RunRecord | None:
    """One run, or None."""
    row = cast(
        "RunRow | None",
        file.read(
            lambda connection: connection.execute(
                f"SELECT {_RUN_COLUMNS} FROM run WHERE id = ?",  # noqa: S608 -- a constant
                (run_id,),
            ).fetchone()
        ),
    )
    return None if row is None else _run_of(row)


def runs(file: SharedFile, *, user: str | None = None, count_max: int) -> Iterator[RunRecord]:
    """Runs that ended last come first, a few at a time: reports may be long, and calls wait for the file."""
    where, wanted = _where(user=user)
    statement = (
        f"SELECT {_RUN_COLUMNS} FROM run WHERE (ended_ms, id) < (?, ?) AND (ended_ms, id) >= (?, ?) AND {where} "  # noqa: S608 -- names of ours and question marks
        "ORDER BY ended_ms DESC, id DESC LIMIT ?"
    )
    before, left = (AMOUNT_MAX, ""), count_max

    def page(connection: sqlite3.Connection) -> tuple[list[RunRow], tuple[int, str]]:
        until = _NO_RUN if user is None else _runs_ahead(connection, before)
        found: list[RunRow] = connection.execute(
            statement, (*before, *until, *wanted, min(left, _RUNS_PAGE))
        ).fetchall()
        return found, until

    while left > 0:
        found, until = file.read(page)
        yield from map(_run_of, found)
        left -= len(found)
        if len(found) == _RUNS_PAGE:
            before = (found[-1][4], found[-1][0])
        elif until > _NO_RUN:
            before = until
        else:
            return


def _runs_ahead(connection: sqlite3.Connection, before: tuple[int, str]) -> tuple[int, str]:
    """The run so many before this one that it is time to let others in; `_NO_RUN` if there are fewer."""
    row = cast(
        "tuple[int, str] | None",
        connection.execute(
            "SELECT ended_ms, id FROM run WHERE (ended_ms, id) < (?, ?) "
            "ORDER BY ended_ms DESC, id DESC LIMIT 1 OFFSET ?",
            (*before, _LOOKED_AT_MAX),
        ).fetchone(),
    )
    return _NO_RUN if row is None else row


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
