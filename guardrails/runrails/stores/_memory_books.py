"""The rows of the memory store and the bookkeeping that is not on its hot path. Callers hold the store's lock."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from runrails.ledger import (
    AMOUNT_MAX,
    Account,
    Balance,
    Hold,
    Refused,
    Reservation,
    Reserved,
    ResultFacts,
    State,
    UsageRecord,
)
from runrails.stores import rules

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = ["Books", "RaisedRecord", "Record", "Row"]

_DEADLINES_SLACK = 1_024


class Row:
    """
    One account. It keeps `room`, what still fits, instead of `held`: a reservation then compares and writes one number.

    `most` is the effective limit, or the largest amount there is; ``room + held + spent = most`` at every moment.
    """

    __slots__ = ("account", "code_limit", "most", "operator_limit", "room", "spent")

    def __init__(self, account: Account, operator_limit: int | None) -> None:
        self.account = account
        self.code_limit: int | None = None
        self.operator_limit: int | None = None
        self.spent = 0
        self.most = self.room = AMOUNT_MAX
        self.set_limits(code=None, operator=operator_limit)

    @property
    def held(self) -> int:
        """The sum of the open holds."""
        return self.most - self.spent - self.room

    def set_limits(self, *, code: int | None, operator: int | None) -> None:
        """Give the account other limits; `code` None leaves that one as it is."""
        held = self.held
        self.operator_limit = operator
        if code is not None:
            self.code_limit = code
        limit = self.limit(None)
        self.most = AMOUNT_MAX if limit is None else limit
        self.room = self.most - self.spent - held

    def limit(self, code: int | None) -> int | None:
        """The effective limit if code gives `code`."""
        return rules.effective_limit(operator=self.operator_limit, code=code, code_before=self.code_limit)

    def balance(self) -> Balance:
        """The row as callers see it."""
        return Balance(
            account=self.account,
            limit=self.limit(None),
            spent=self.spent,
            held=self.held,
            limit_source=rules.limit_source(operator=self.operator_limit, code=self.code_limit),
        )


class Record:
    """One reservation and what became of it."""

    __slots__ = (
        "actual", "at_ms", "change", "expires_ms", "reservation", "resolved_ms", "result", "rows", "state", "uniform",
        "would_refuse",
    )  # fmt: skip

    def __init__(self, reservation: Reservation, rows: list[Row], uniform: int, at_ms: int, expires_ms: int) -> None:
        self.reservation = reservation
        self.rows = rows
        self.uniform = uniform
        """The amount held in every account if all count money and hold the same, else -1."""
        self.at_ms = at_ms
        self.expires_ms = expires_ms
        self.state: State = "held"
        self.change: rules.Change | None = None
        self.would_refuse: Refused | None = None
        # Written when the hold ends and read only after that: a record is made on the hot path.
        self.actual: int
        self.resolved_ms: int
        self.result: ResultFacts | None

    @property
    def asked(self) -> Reservation:
        """The reservation as it was made."""
        return self.reservation

    def entry(self) -> rules.Entry:
        """The record as the rules see it."""
        holds = self.reservation.holds
        change = self.change
        actual = 0 if self.state == "held" else self.actual
        return rules.Entry(
            self.reservation.id,
            self.state,
            tuple(hold.account.unit for hold in holds),
            tuple(hold.amount for hold in holds),
            # Without a change it is held, or was settled the quick way: every account was charged the same.
            (actual,) * len(holds) if change is None else change.charges,
            actual,
            change is not None and change.stand_in,
            change is not None and change.corrected,
        )

    def usage(self) -> UsageRecord | None:
        """The record as a usage record; None if nothing is known of its call."""
        facts = self.reservation.facts
        if facts is None:
            return None
        held = self.state == "held"
        return UsageRecord(
            id=self.reservation.id,
            state=self.state,
            at_ms=self.at_ms,
            settled_at_ms=None if held else self.resolved_ms,
            estimated_pusd=self.entry().answer(replayed=False).held,
            actual_pusd=None if held else self.actual,
            facts=facts,
            result=None if held else self.result,
            corrected=self.change is not None and self.change.corrected,
        )


class RaisedRecord(Record):
    """A reservation that holds more than it was made with: `reservation` has what it holds now."""

    __slots__ = ("_asked",)

    def __init__(self, record: Record, more: Sequence[Hold]) -> None:
        holds = [
            hold._replace(amount=hold.amount + add.amount)
            for hold, add in zip(record.reservation.holds, more, strict=True)
        ]
        super().__init__(
            record.reservation._replace(holds=tuple(holds)), record.rows, -1, record.at_ms, record.expires_ms
        )
        self.would_refuse = record.would_refuse
        self._asked = record.asked

    @property
    def asked(self) -> Reservation:
        """The reservation as it was made."""
        return self._asked


class Books:
    """All rows and records, and every change of them that is not on the hot path."""

    def __init__(self, *, records_max: int) -> None:
        self.rows: dict[Account, Row] = {}
        self.money_rows: dict[Account, Row] = {}
        self.records: dict[str, Record] = {}
        self.operator_limits: dict[tuple[str, str], int] = {}
        self.deadlines: list[tuple[int, str]] = []
        """Heap of (expires_ms, id); entries of resolved or extended holds are stale and skipped."""
        self.deadlines_max = _DEADLINES_SLACK
        self.latest_rows: list[Row] = []
        self.resolved: deque[str] = deque()
        self.records_max = records_max

    def row(self, account: Account) -> Row:
        """The account's row, which is not yet in the books if it is new."""
        row = self.rows.get(account)
        return Row(account, self.operator_limits.get((account.scope, account.unit))) if row is None else row

    def take_quickly(self, holds: tuple[Hold, ...], amount: int) -> list[Row] | None:
        """
        Take the holds of an ordinary reservation; None, with nothing taken, if the rules must be asked.

        Ordinary: money only, the same amount in each account, accounts and limits already known, and room for all.
        """
        latest = self.latest_rows
        if type(amount) is not int or amount < 0:
            return None
        if len(holds) != len(latest):
            return self._take_known(holds, amount)
        # A run's calls follow each other and name the same accounts, which need not be looked up again.
        for (account, wanted, limit), row in zip(holds, latest):  # noqa: B905 -- told above; saying it costs 0.1 us
            if (
                account is not row.account
                or wanted is not amount
                or row.room < amount
                or (limit is not row.code_limit and limit is not None)
            ):
                return self._take_known(holds, amount)
        for row in latest:
            row.room -= amount
        return latest

    def _take_known(self, holds: tuple[Hold, ...], amount: int) -> list[Row] | None:
        known = self.money_rows
        rows: list[Row] = []
        for account, wanted, limit in holds:
            row = known.get(account)
            if row is None or wanted is not amount or row.room < amount or row in rows:
                return None
            if limit is not None and (limit != row.code_limit or type(limit) is not int):
                return None
            rows.append(row)
        for row, (account, _, limit) in zip(rows, holds, strict=True):
            row.room -= amount
            # The same key and limit as objects, so that the next call's are told by identity.
            row.account = account
            row.code_limit = row.code_limit if limit is None else limit
        self.latest_rows = rows  # One list serves all records of a run.
        return rows

    def take(self, reservation: Reservation, now_ms: int) -> Record | Refused:
        """Take every hold and apply the limits from code, or change nothing."""
        holds = reservation.holds
        rows = [self.row(hold.account) for hold in holds]
        standings = [
            rules.Standing(row.limit(hold.limit), row.spent, row.held) for row, hold in zip(rows, holds, strict=True)
        ]
        refused = rules.refusal(holds, standings)
        if refused is not None:
            impossible = rules.overflow(holds, standings)
            if impossible is not None or reservation.enforce:
                return impossible or refused
        for row, hold in zip(rows, holds, strict=True):
            self.rows[row.account] = row
            if row.account.unit == rules.MONEY:
                self.money_rows[row.account] = row
            row.set_limits(code=hold.limit, operator=row.operator_limit)
            row.room -= hold.amount
        record = Record(reservation, rows, -1, now_ms, now_ms + reservation.ttl_ms)
        record.would_refuse = refused
        return record

    def lower(self, record: Record, amounts: Sequence[int]) -> None:
        """Let an open reservation hold less."""
        pairs = list(zip(record.rows, record.reservation.holds, amounts, strict=True))
        lowered = RaisedRecord(record, [Hold(row.account, left - hold.amount) for row, hold, left in pairs])
        for row, hold, left in pairs:
            row.room += hold.amount - left
        self.records[lowered.reservation.id] = lowered

    def keep(self, row: Row) -> None:
        """A row is in the books from now on."""
        self.rows[row.account] = row
        if row.account.unit == rules.MONEY:
            self.money_rows[row.account] = row

    def raise_hold(self, record: Record, amount: int, *, enforce: bool) -> Reserved | Refused:
        """Hold `amount` in every account of money that holds less, or change nothing."""
        rows = record.rows
        more = rules.raises([row.account for row in rows], record.entry(), amount)
        standings = [rules.Standing(row.limit(None), row.spent, row.held) for row in rows]
        if not any(hold.amount for hold in more):
            return Reserved(record.reservation.id)
        refused = rules.no_raise(more, standings)
        if refused is not None:
            impossible = rules.overflow(more, standings)
            if impossible is not None or enforce:
                return impossible or refused
        raised = RaisedRecord(record, more)
        for row, hold in zip(rows, more, strict=True):
            row.room -= hold.amount
        self.records[raised.reservation.id] = raised
        return Reserved(raised.reservation.id, would_refuse=refused)

    def apply(self, record: Record, change: rules.Change, now_ms: int, result: ResultFacts | None = None) -> None:
        """Write a change: charges, released holds and the record's new state."""
        entry = record.entry()
        deltas = change.deltas(entry)
        for row, (held, spent) in zip(record.rows, deltas, strict=True):
            rules.check_sum(entry, row.account, row.spent + row.held + held + spent)
        was_held = record.state == "held"
        kept = None if was_held else (record.actual, record.result, record.resolved_ms)
        before = [(row, row.spent, row.room) for row in record.rows]
        change_before = record.change
        try:
            for row, (held, spent) in zip(record.rows, deltas, strict=True):
                row.spent += spent
                row.room -= held + spent
            record.result = result or (None if was_held else record.result)
            record.actual = change.actual
            record.change = change
            record.resolved_ms = now_ms
            record.state = change.state
        except BaseException:  # Ctrl-C: all of it or nothing
            for row, spent, room in before:
                row.spent, row.room = spent, room
            record.state, record.change = entry.state, change_before
            if kept is not None:
                record.actual, record.result, record.resolved_ms = kept
            raise
        if was_held:
            self.keep_resolved(entry.id)

    def mend_after(self, error: BaseException, record: Record | None = None) -> None:
        """
        Make the rows what the records say, after Ctrl-C has struck in the middle of a verb.

        Whatever was being taken is held if its record was made, and else not; whatever was being settled the quick
        way (`record`) is settled, or as if nobody had tried.
        """
        if isinstance(error, Exception):
            return  # One of ours, raised before anything was changed.
        held: dict[Row, int] = {}
        for one in self.records.values():
            if one.state == "held":
                for row, hold in zip(one.rows, one.reservation.holds, strict=True):
                    held[row] = held.get(row, 0) + hold.amount
        if record is not None and record.state == "held":
            for row in record.rows:
                if row.spent + row.room + held[row] != row.most:
                    row.spent -= record.actual
        elif record is not None and record.reservation.id not in self.resolved:
            self.resolved.append(record.reservation.id)
        for row in self.rows.values():
            limit = row.limit(None)
            row.most = AMOUNT_MAX if limit is None else limit
            row.room = row.most - row.spent - held.get(row, 0)
        fresh = [(one.expires_ms, name) for name, one in self.records.items() if one.state == "held"]
        heapify(fresh)
        self.deadlines = fresh
        self.deadlines_max = 2 * len(fresh) + _DEADLINES_SLACK

    @contextmanager
    def mended(self) -> Generator[None]:
        """Mend what Ctrl-C leaves half done inside."""
        try:
            yield
        except BaseException as error:
            self.mend_after(error)
            raise

    def keep_resolved(self, reservation_id: str) -> None:
        """Note a hold that has ended, and drop the oldest such record beyond the most that are kept."""
        self.resolved.append(reservation_id)
        if len(self.resolved) > self.records_max:
            del self.records[self.resolved.popleft()]

    def expire(self, now_ms: int, count_max: int) -> list[str]:
        """Resolve at most `count_max` overdue holds, the longest overdue first, and name them."""
        ids: list[str] = []
        deadlines = self.deadlines
        while deadlines and deadlines[0][0] <= now_ms and len(ids) < count_max:
            expires_ms, reservation_id = heappop(deadlines)
            record = self.records.get(reservation_id)
            if record is not None and record.state == "held" and record.expires_ms == expires_ms:
                self.apply(record, rules.expired(record.entry(), record.reservation.on_expiry), now_ms)
                ids.append(reservation_id)
        return ids

    def add_deadline(self, expires_ms: int, reservation_id: str) -> None:
        """Note when a hold is overdue."""
        heappush(self.deadlines, (expires_ms, reservation_id))
        if len(self.deadlines) > self.deadlines_max:
            self.compact_deadlines()

    def compact_deadlines(self) -> None:
        """Drop stale deadlines, so that the heap stays as large as the number of open holds asks for."""
        records = self.records
        fresh = [
            (expires_ms, reservation_id)
            for expires_ms, reservation_id in set(self.deadlines)
            if (record := records.get(reservation_id)) is not None
            and record.state == "held"
            and record.expires_ms == expires_ms
        ]
        heapify(fresh)
        self.deadlines = fresh
        self.deadlines_max = 2 * len(fresh) + _DEADLINES_SLACK
