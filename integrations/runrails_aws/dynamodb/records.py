"""Everything that a ledger on DynamoDB keeps, record by record: to check it by, and to fill it from another engine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from runrails.errors import StoreUnavailable
from runrails.ledger import Account, Correction, RunRecord
from runrails.stores import rules
from runrails.stores._codec import facts_from_text, facts_text, refused_text, result_from_text, result_text
from runrails.stores.records import (
    CodeLimit,
    Extra,
    Held,
    LedgerRecord,
    OperatorLimit,
    PriceCardText,
    ScopeZone,
    WarningSent,
    change_of,
    disagreement,
)
from runrails_aws.dynamodb import items, requests
from runrails_aws.dynamodb.archive import run_of
from runrails_aws.dynamodb.drawing import BYTES_MAX
from runrails_aws.dynamodb.items import Found, Row, deadline, deadline_of, found_of, order, shard_of
from runrails_aws.dynamodb.places import marks
from runrails_aws.dynamodb.summing import sums
from runrails_aws.dynamodb.units import item_bytes
from runrails_aws.dynamodb.wire import Item, integer, maybe_text, n, s, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runrails.stores.records import Summed
    from runrails_aws.dynamodb.archive import Archive

__all__ = ["Records"]

WRITES_MAX = 100
"""Most writes of a transaction."""
_TRIES_MAX = 16


class Records:
    """The table read in full, and filled. Thread-safe."""

    def __init__(self, archive: Archive) -> None:
        self._table = archive.table
        self._caller = archive.caller
        self._archive = archive

    def sums(self) -> Iterator[Summed]:
        """Every account with what its records add up to."""
        return sums(self._archive)

    def read(self) -> Iterator[LedgerRecord]:
        """Every reservation, oldest first."""
        return map(_record_of, sorted(self._archive.scan("R#"), key=lambda item: text(item, "sq")))

    def extras(self) -> Iterator[Extra]:
        """Everything else that is kept for good."""
        yield from (CodeLimit(row.account, row.code) for row in self._archive.rows() if row.code is not None)
        yield from (OperatorLimit(*limit) for limit in self._archive.limits())
        for item in self._archive.scan("W#"):
            account = Account(*text(item, "pk")[2:].split("#"))
            yield WarningSent(account, "limit" if text(item, "sk") == "limit" else "warning", integer(item, "ms"))
        yield from (ScopeZone(text(item, "pk")[2:], text(item, "zone")) for item in self._archive.scan("Z#"))
        yield from (PriceCardText(text(item, "pk")[2:], text(item, "card")) for item in self._archive.scan("P#"))
        yield from self._archive.corrections(None)
        yield from map(run_of, self._archive.scan("N#"))

    def put(self, records: Sequence[LedgerRecord]) -> int:
        """
        Add records of another store; how many are new.

        All of them are looked at before the first is written; what is interrupted goes on when it is put again.
        """
        fresh = self._missing(records)
        rows = self._rows({hold.account for record in fresh for hold in record.holds})
        more: dict[Account, int] = {}
        for record in fresh:
            for account, (held, spent) in _moves([record]).items():
                more[account] = more.get(account, 0) + held + spent
                entry = rules.Entry(record.id, "held", (), (), ())
                rules.check_sum(entry, account, rows[account].spent + rows[account].held + more[account])
        for group in _groups(fresh):
            self._put_group(group)
        return len(fresh)

    def _put_group(self, group: list[LedgerRecord]) -> None:
        verb = self._caller.begin()
        for attempt in range(1, _TRIES_MAX):
            moves = _moves(group)
            rows = self._rows(moves)
            takings = [requests.found_account(rows[account], *move) for account, move in moves.items()]
            keep_s = self._archive.retention.keep_s()
            writes = [requests.make(_item_of(record, time.time_ns(), verb.writer, keep_s)) for record in group]
            writes += [taking.write for taking in takings]
            writes += {str(taking.check): taking.check for taking in takings if taking.check is not None}.values()
            if self._caller.write(requests.transaction(self._table, writes), verb) is None:
                return
            # A lost answer: they are there. Or others have made an account meanwhile, or a limit.
            group = self._missing(group)
            if not group:
                return
            self._caller.patience.sleep(self._caller.patience.pause_s(attempt))
        raise StoreUnavailable("The ledger is written to while it is filled.", next_step="Stop those, and begin again.")

    def _missing(self, records: Sequence[LedgerRecord]) -> list[LedgerRecord]:
        """Those that are not here yet. Raises ReservationMismatch if one is, with other content."""
        there = self._many(items.reservation_key(record.id) for record in records)
        known = {record.id: record for record in map(_record_of, there)}
        for record in records:
            if known.get(record.id, record) != record:
                raise disagreement(known[record.id])
        return [record for record in records if record.id not in known]

    def _rows(self, accounts: Iterable[Account]) -> dict[Account, Row]:
        """Accounts as they are, or as they would be made."""
        wanted = list(accounts)
        there = map(items.row_of, self._many(map(items.account_key, wanted)))
        rows = {row.account: row for row in there if row.exists}
        absent = [account for account in wanted if account not in rows]
        keys = dict.fromkeys((account.scope, account.unit) for account in absent)
        limits = {
            (text(item, "pk")[2:], text(item, "sk")): integer(item, "lim")
            for item in self._many(items.limit_key(*key) for key in keys)
        }
        for account in absent:
            rows[account] = Row(account, None, limits.get((account.scope, account.unit)), 0, 0, exists=False)
        return rows

    def _many(self, keys: Iterable[Item]) -> list[Item]:
        wanted, found = list(keys), list[Item]()
        for start in range(0, len(wanted), requests.BATCH_MAX):
            asked = requests.get_many(self._table, wanted[start : start + requests.BATCH_MAX])
            found += self._caller.batch(asked, self._caller.begin())
        return found

    def put_extras(self, extras: Sequence[Extra]) -> None:
        """Keep them; again is nothing new."""
        lines = list(self._archive.corrections(None)) if any(isinstance(each, Correction) for each in extras) else []
        for extra in extras:
            if isinstance(extra, Correction):
                if extra not in lines:
                    self._archive.write([self._archive.correction(extra)])
            else:
                self._put_extra(extra)

    def _put_extra(self, extra: Extra) -> None:
        if isinstance(extra, RunRecord):
            self._archive.save_run(extra)
        elif isinstance(extra, PriceCardText):
            self._archive.keep_price_card(*extra)
        elif isinstance(extra, ScopeZone):
            self._archive.fix_zone(*extra)
        elif isinstance(extra, OperatorLimit):
            self._archive.set_limit(extra.scope, extra.limit, extra.unit)
        elif isinstance(extra, WarningSent):
            self._archive.keep_warning(extra.account, extra.mark, extra.at_ms)
        elif isinstance(extra, CodeLimit):
            self._put_limit(extra)

    def _put_limit(self, given: CodeLimit) -> None:
        for attempt in range(1, _TRIES_MAX):
            row = self._rows([given.account])[given.account]
            if row.code == given.limit:
                return
            taking = requests.write_code_limit(row, given.limit)
            writes = [taking.write] if taking.check is None else [taking.write, taking.check]
            if self._caller.write(requests.transaction(self._table, writes), self._caller.begin()) is None:
                return
            self._caller.patience.sleep(self._caller.patience.pause_s(attempt))
        raise StoreUnavailable("An account is too busy to take its limit.", next_step="Put it again.")


def _moves(records: Iterable[LedgerRecord]) -> dict[Account, tuple[int, int]]:
    """(held, spent) that records add to each account."""
    moves: dict[Account, tuple[int, int]] = {}
    for record in records:
        for hold in record.holds:
            held, spent = moves.get(hold.account, (0, 0))
            is_held = record.state == "held"
            moves[hold.account] = held + (hold.amount if is_held else 0), spent + (0 if is_held else hold.charge)
    return moves


def _groups(records: Sequence[LedgerRecord]) -> Iterator[list[LedgerRecord]]:
    """As many records at once as a transaction takes with their accounts, and the limits these are made with."""
    group: list[LedgerRecord] = []
    accounts: set[Account] = set()
    size = 0
    for record in records:
        theirs = accounts | {hold.account for hold in record.holds}
        more = item_bytes(_item_of(record, 0, "", None))
        if group and (len(group) + 1 + 2 * len(theirs) > WRITES_MAX or size + more > BYTES_MAX):
            yield group
            group, theirs, size = [], {hold.account for hold in record.holds}, 0
        group.append(record)
        accounts, size = theirs, size + more
    if group:
        yield group


def _record_of(item: Item) -> LedgerRecord:
    found = found_of(item)
    entry, held = found.entry, found.entry.state == "held"
    facts, result = maybe_text(item, "fa"), maybe_text(item, "re")
    holds = zip(found.accounts, entry.amounts, found.asked, entry.charges, strict=True)
    return LedgerRecord(
        entry.id, entry.state, integer(item, "ts"), deadline_of(text(item, "hx"))[0],
        None if held else integer(item, "rs"), "release" if found.on_expiry == "release" else "charge",
        tuple([Held(*hold) for hold in holds]), entry.actual, entry.stand_in, entry.corrected,
        items.would_refuse_of(item),
        None if facts is None else facts_from_text(text(item, "us"), text(item, "rn"), facts),
        None if held or result is None else result_from_text(result),
    )  # fmt: skip


def _item_of(record: LedgerRecord, stamp: int, writer: str, keep_s: int | None) -> Item:
    accounts, amounts, asked, charges = (tuple(column) for column in zip(*record.holds, strict=True))
    entry = rules.Entry(
        record.id, record.state, tuple([account.unit for account in cast("tuple[Account, ...]", accounts)]),
        cast("tuple[int, ...]", amounts), cast("tuple[int, ...]", charges), record.actual,
    )  # fmt: skip
    found = Found(entry, cast("tuple[Account, ...]", accounts), cast("tuple[int, ...]", asked), record.on_expiry)
    item: Item = {
        **items.reservation_key(record.id), "st": s(record.state), "v": n(1), "tk": s(writer),
        "h": s(found.holds_text()), "ts": n(record.at_ms), "sq": s(order(record.at_ms, stamp)),
        "hx": s(deadline(record.expires_ms, record.id)),
    }  # fmt: skip
    change, facts = change_of(record), record.facts
    if change is None:
        item["hs"] = s(shard_of(record.id))
    else:
        resolved_ms = record.resolved_ms or record.at_ms
        item |= {"ac": n(record.actual), "rs": n(resolved_ms)} | requests.outcome(change)
        if keep_s is not None:
            item["ttl"] = n(resolved_ms // 1_000 + keep_s)
    if record.on_expiry != "charge":
        item["oe"] = s(record.on_expiry)
    if record.would_refuse is not None:
        item["wr"] = s(refused_text(record.would_refuse))
    if record.result is not None:
        item["re"] = s(result_text(record.result))
    if facts is not None:
        item |= {"us": s(facts.user), "rn": s(facts.run), "fa": s(facts_text(facts))}
        item |= marks(record.id, facts.user, facts.run, record.at_ms)
    return item
