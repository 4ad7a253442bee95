"""The memory store's books record by record. Callers hold the store's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.ledger import Hold, Reservation
from runrails.stores import _memory_books as books_of
from runrails.stores import rules
from runrails.stores.checks import TTL_MS_MAX
from runrails.stores.records import Held, LedgerRecord, Summed, change_of, disagreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.ledger import Account

__all__ = ["put", "read", "sums"]


def read(books: books_of.Books) -> list[LedgerRecord]:
    """Every record, oldest first."""
    return sorted((_record(each) for each in books.records.values()), key=lambda record: record.at_ms)


def _record(one: books_of.Record) -> LedgerRecord:
    entry, held = one.entry(), one.state == "held"
    holds = zip(one.reservation.holds, one.asked.holds, entry.charges, strict=True)
    return LedgerRecord(
        entry.id, one.state, one.at_ms, one.expires_ms, None if held else one.resolved_ms, one.reservation.on_expiry,
        tuple([Held(now.account, now.amount, asked.amount, charge) for now, asked, charge in holds]), entry.actual,
        entry.stand_in, entry.corrected, one.would_refuse, one.reservation.facts, None if held else one.result,
    )  # fmt: skip


def sums(books: books_of.Books) -> list[Summed]:
    """Every account, with what the records that are kept add up to."""
    found: dict[Account, tuple[int, int]] = {}
    for one in books.records.values():
        entry, held = one.entry(), one.state == "held"
        for row, amount, charge in zip(one.rows, entry.amounts, entry.charges, strict=True):
            spent, open_ = found.get(row.account, (0, 0))
            found[row.account] = (spent + charge, open_ + (amount if held else 0))
    return [Summed(row.account, row.spent, row.held, *found.get(row.account, (0, 0))) for row in books.rows.values()]


def put(books: books_of.Books, records: Sequence[LedgerRecord]) -> int:
    """Add records of another store; all or none."""
    fresh: list[LedgerRecord] = []
    for record in records:
        known = books.records.get(record.id)
        if known is None:
            fresh.append(record)
        elif (as_known := _record(known)) != record:
            raise disagreement(as_known)
    more: dict[Account, int] = {}
    for record in fresh:
        for hold in record.holds:
            amount = hold.amount if record.state == "held" else hold.charge
            row, more[hold.account] = books.row(hold.account), more.get(hold.account, 0) + amount
            entry = rules.Entry(record.id, "held", (), (), ())
            rules.check_sum(entry, hold.account, row.spent + row.held + more[hold.account])
    for record in fresh:
        _put(books, record)
    return len(fresh)


def _put(books: books_of.Books, record: LedgerRecord) -> None:
    rows = [books.row(hold.account) for hold in record.holds]
    for row in rows:
        books.keep(row)
    ttl_ms = min(TTL_MS_MAX, max(1, record.expires_ms - record.at_ms))
    asked = tuple([Hold(hold.account, hold.asked) for hold in record.holds])
    reservation = Reservation(record.id, asked, ttl_ms, record.facts, record.on_expiry)
    one = books_of.Record(reservation, rows, -1, record.at_ms, record.expires_ms)
    one.would_refuse = record.would_refuse
    if any(hold.amount != hold.asked for hold in record.holds):
        one = books_of.RaisedRecord(one, [Hold(hold.account, hold.amount - hold.asked) for hold in record.holds])
    one.state, one.change = record.state, change_of(record)
    books.records[record.id] = one
    for row, hold in zip(rows, record.holds, strict=True):
        row.spent += hold.charge
        row.room -= hold.amount if record.state == "held" else hold.charge
    if record.state == "held":
        books.add_deadline(record.expires_ms, record.id)
    else:
        one.actual, one.result, one.resolved_ms = record.actual, record.result, record.resolved_ms or record.at_ms
        books.keep_resolved(record.id)
