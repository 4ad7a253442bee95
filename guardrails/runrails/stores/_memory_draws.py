"""Drawing calls from a slice in the memory store's books. Callers hold the store's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import ReservationMismatch
from runrails.ledger import AMOUNT_MAX, Hold
from runrails.stores import rules
from runrails.stores._memory_books import RaisedRecord, Record
from runrails.stores.draws import Drawing, change_of, rest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.stores._memory_books import Books
    from runrails.stores.draws import Drawn

__all__ = ["draw"]


def draw(books: Books, slice_id: str, calls: Sequence[Drawn], now_ms: int, *, close: bool) -> Drawing:
    """Write the calls and lower the slice. See `runrails.stores.draws.SupportsDraws.draw`."""
    fresh: list[Drawn] = []
    taken: list[Drawn] = []
    for call in calls:
        known = books.records.get(call.reservation.id)
        if known is None:
            fresh.append(call)
        elif not _is_same(known, call):
            taken.append(call)
        elif (change := change_of(known.entry(), call)) is not None:
            books.apply(known, change, call.end_ms, call.result)
    cost = sum(call.cost for call in fresh)
    found = books.records.get(slice_id)
    lost = found is not None and found.state == "unresolved"
    if found is not None:
        rest = rest_of(found.entry(), cost, close=close, kept=sum(call.cost for call in taken))
        if rest.amounts is not None:
            books.lower(found, rest.amounts)
        elif rest.change is not None:
            books.apply(found, rest.change, now_ms)
    for call in fresh:
        _add(books, call)
    return Drawing(tuple([call.reservation.id for call in taken]), lost)


def _is_same(known: Record, call: Drawn) -> bool:
    first = known.asked
    try:
        rules.check_same(
            call.reservation, holds=[(hold.account, hold.amount) for hold in first.holds], on_expiry=first.on_expiry,
            same_facts=first.facts == call.reservation.facts,
        )  # fmt: skip
    except ReservationMismatch:
        return False
    return True


def _add(books: Books, call: Drawn) -> None:
    reservation = call.reservation
    rows = [books.row(hold.account) for hold in reservation.holds]
    for row in rows:
        books.keep(row)
        if row.spent + row.held + call.cost > AMOUNT_MAX:
            raise OverflowError("an account cannot count what was drawn")
    open_ = call.state == "held"
    expires_ms = call.end_ms if open_ else call.at_ms + reservation.ttl_ms
    record = Record(reservation, rows, -1, call.at_ms, expires_ms)
    asked = reservation.holds[0].amount
    if call.amount != asked:
        record = RaisedRecord(record, [Hold(hold.account, call.amount - asked) for hold in reservation.holds])
    for row in rows:
        row.room -= call.cost
        row.spent += 0 if open_ else call.actual
    if open_:
        books.records[reservation.id] = record
        books.add_deadline(expires_ms, reservation.id)
        return
    record.actual, record.result, record.resolved_ms = call.actual, call.result, call.end_ms
    record.change = rules.Change(call.state, (call.actual,) * len(rows), call.actual, call.stand_in)
    record.state = call.state
    books.records[reservation.id] = record
    books.keep_resolved(reservation.id)
