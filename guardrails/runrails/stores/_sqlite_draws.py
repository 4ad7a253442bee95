"""Drawing calls from a slice in a SQLite ledger. Every function runs inside a step of `SharedFile`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runrails.errors import ReservationMismatch
from runrails.ledger import Hold
from runrails.stores import _sqlite_rows as rows
from runrails.stores import rules
from runrails.stores._codec import facts_from_text, facts_text, result_text
from runrails.stores.draws import Drawing, change_of, rest_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from runrails.stores.draws import Drawn

__all__ = ["draw"]


def draw(
    connection: sqlite3.Connection, ids: rows.AccountIds, slice_id: str, calls: Sequence[Drawn], now_ms: int, *,
    close: bool,
) -> Drawing:  # fmt: skip
    """Write the calls and lower the slice. See `runrails.stores.draws.SupportsDraws.draw`."""
    cost = kept = 0
    taken: list[str] = []
    sums: dict[tuple[int, ...], tuple[int, int]] = {}
    for call in calls:
        known = rows.find(connection, ids, call.reservation.id)
        if known is None:
            account_ids = _insert(connection, ids, call)
            held, spent = sums.get(account_ids, (0, 0))
            sums[account_ids] = (held + call.amount, spent) if call.state == "held" else (held, spent + call.actual)
            cost += call.cost
        elif not _is_same(connection, ids, known, call):
            taken.append(call.reservation.id)
            kept += call.cost
        elif (change := change_of(known.entry, call)) is not None:
            rows.write_change(connection, ids, known, change, call.end_ms, call.result)
    found = rows.find(connection, ids, slice_id)
    if found is not None:
        rest = rest_of(found.entry, cost, close=close, kept=kept)
        if rest.amounts is not None:
            accounts = [ids.account(connection, account_id) for account_id in found.account_ids]
            pairs = zip(accounts, rest.amounts, found.entry.amounts, strict=True)
            rows.write_raise(connection, found, [Hold(account, left - amount) for account, left, amount in pairs])
        elif rest.change is not None:
            rows.write_change(connection, ids, found, rest.change, now_ms)
    for account_ids, (held, spent) in sums.items():
        if not rows.add_amounts(connection, account_ids, [(held, spent)] * len(account_ids)):
            raise OverflowError("an account cannot count what was drawn")
    return Drawing(tuple(taken), found is not None and found.entry.state == "unresolved")


def _is_same(connection: sqlite3.Connection, ids: rows.AccountIds, known: rows.Found, call: Drawn) -> bool:
    user, run, text = connection.execute(
        "SELECT user, run, facts FROM reservation WHERE seq = ?", (known.seq,)
    ).fetchone()
    facts = None if text is None else facts_from_text(user, run, text)
    accounts = [ids.account(connection, account_id) for account_id in known.account_ids]
    try:
        rules.check_same(
            call.reservation, holds=zip(accounts, known.asked, strict=True), on_expiry=known.on_expiry,
            same_facts=facts == call.reservation.facts,
        )  # fmt: skip
    except ReservationMismatch:
        return False
    return True


def _insert(connection: sqlite3.Connection, ids: rows.AccountIds, call: Drawn) -> tuple[int, ...]:
    reservation, facts, open_ = call.reservation, call.reservation.facts, call.state == "held"
    account_ids: list[int] = []
    written: list[tuple[int, ...]] = []
    for account, asked, _ in reservation.holds:
        account_id = ids.find(connection, account)
        account_id = rows.add_account(connection, account) if account_id is None else account_id
        account_ids.append(account_id)
        written.append((account_id, call.amount) if asked == call.amount else (account_id, call.amount, asked))
    connection.execute(
        "INSERT INTO reservation (seq, id, state, at_ms, expires_ms, resolved_ms, on_expiry, holds, estimated_pusd, "
        "actual_pusd, stand_in, user, run, facts, result) VALUES ("
        "max(? << 20, 1 + coalesce((SELECT max(seq) FROM reservation WHERE seq < (? + 1) << 20), 0)), "
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            call.at_ms,
            call.at_ms,
            reservation.id,
            call.state,
            call.at_ms,
            call.end_ms if open_ else call.at_ms + reservation.ttl_ms,
            None if open_ else call.end_ms,
            reservation.on_expiry,
            json.dumps(written, separators=(",", ":")),
            call.amount,
            None if open_ else call.actual,
            int(call.stand_in),
            None if facts is None else facts.user,
            None if facts is None else facts.run,
            None if facts is None else facts_text(facts),
            None if call.result is None else result_text(call.result),
        ),
    )
    return tuple(account_ids)
