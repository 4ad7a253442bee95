"""The ledger in one SQLite file: exact, durable, shared by the threads and processes of one machine."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, cast

from runrails.clocks import Clock, system_ms
from runrails.ledger import (
    SCOPES_MAX,
    Account,
    Balance,
    Correction,
    Expired,
    Refused,
    Reservation,
    Reserved,
    ResultFacts,
    RunRecord,
    Settled,
    UsageRecord,
    WarningMark,
)
from runrails.stores import _sqlite_archive as archive
from runrails.stores import _sqlite_quick as quick
from runrails.stores import _sqlite_rows as rows
from runrails.stores import checks, rules
from runrails.stores._codec import (
    facts_from_text,
    month_bounds,
    plain,
    refused_from_text,
    run_copy,
)
from runrails.stores._sqlite_file import SharedFile

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runrails.deliveries import Delivered, Delivery
    from runrails.rates.limiter import RateLimiter
    from runrails.stores.draws import Drawing, Drawn
    from runrails.stores.records import Extra, LedgerRecord, Summed

__all__ = ["SQLiteStore"]


class SQLiteStore:
    """
    An engine of the ledger in one file, for one machine. Threads and processes may share it; a fork may inherit it.

    Args:
        path: The file; made with mode 0600 if it does not exist. Its directory must exist.
        clock: Wall clock in milliseconds since the epoch; it alone decides what is overdue.
        synchronous: ``FULL`` has everything on the disk before a verb returns but records of runs and settlements of no
            more than was held: those get there with the next write, and if the power fails before, such a call is
            charged at its hold.
            With ``NORMAL`` a power failure (not a crash) may lose the last moments, which is some four times quicker.
        busy_timeout_ms: How long a verb waits for other threads and processes.

    Raises:
        ConfigError: The path cannot be a ledger: no directory, no permission, another program's or a damaged file.
        StoreUnavailable: The disk is full, or somebody holds the file for longer than the timeout.
    """

    remote = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = system_ms,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout_ms: int = 5_000,
    ) -> None:
        self._clock = clock
        self._ids = rows.AccountIds()
        self._made: dict[str, quick.Made] = {}
        """Reservations of this process that it has not settled; see `_sqlite_quick`."""
        self._odd: set[Account] = set()
        """Accounts that a quick reserve would stumble over again: without room, or with limits that change."""
        self._tells = False
        self._left: tuple[str, tuple[quick.Left, ...], int] | None = None
        """What the newest settlement has left, once somebody has asked for such, and which write that was."""
        self.swept = 0
        """How many reservations this process found overdue; those of processes that died are among them."""
        self._file = SharedFile(path, synchronous=synchronous, busy_timeout_ms=busy_timeout_ms)
        self.unflushed: ContextVar[bool] | None = _unflushed if synchronous == "FULL" else None
        """See `runrails.aio.SupportsFlush`."""

    @property
    def path(self) -> str:
        """The file, absolute."""
        return self._file.path

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """Take every hold or none. See `runrails.ledger.Store.reserve`."""
        checks.check_reservation(reservation, known=self._ids)
        waits, odd = not _unflushed.get(), self._odd
        if not odd or odd.isdisjoint([hold.account for hold in reservation.holds]):
            with suppress(quick.Doubtful):
                made, accounts = self._file.write(
                    lambda connection: quick.reserve(connection, self._ids, reservation, self._clock()), waits=waits
                )
                self._ids.keep_all(accounts)
                self._note_made(reservation.id, made)
                return Reserved(reservation.id)
        taken = self._file.write(lambda connection: self._reserve(connection, reservation), waits=waits)
        self._ids.keep_all(taken.accounts)
        if taken.made is not None:
            self._note_made(reservation.id, taken.made)
        self._note_odd(reservation, taken.odd)
        return taken.answer

    def _note_odd(self, reservation: Reservation, accounts: tuple[Account, ...]) -> None:
        if not accounts:
            self._odd.difference_update([hold.account for hold in reservation.holds])
        elif len(self._odd) < _REMEMBERED_MAX:
            self._odd.update(accounts)
        else:
            self._odd.clear()

    def _note_made(self, reservation_id: str, made: quick.Made) -> None:
        if len(self._made) >= _REMEMBERED_MAX:
            self._made.clear()
        self._made[reservation_id] = made

    def flush(self) -> None:
        """Wait until what was reserved unflushed is on the disk. Raises StoreUnavailable: it may not be there."""
        self._file.flush()

    def _reserve(self, connection: sqlite3.Connection, reservation: Reservation) -> quick.Taken:
        now_ms = self._clock()
        holds = reservation.holds
        account_ids = [self._ids.find(connection, hold.account) for hold in holds]
        seen = rows.glance(connection, account_ids, reservation.id, now_ms)
        first = rows.find(connection, self._ids, reservation.id) if seen.taken else None
        if first is not None:
            return quick.Taken(self._replay(connection, reservation, first))
        if seen.overdue and self._expire(connection, now_ms, checks.SWEEP_MAX):
            seen = rows.glance(connection, account_ids, reservation.id, now_ms)
        standings, changed = rows.standings(connection, seen, account_ids, holds)
        refused = rules.refusal(holds, standings)
        if refused is not None:
            impossible = rules.overflow(holds, standings)
            if impossible is not None or reservation.enforce:
                return quick.Taken(impossible or refused, odd=(refused.account,))
        for place in changed:
            if account_ids[place] is not None:
                connection.execute(
                    "UPDATE account SET code_limit = ? WHERE id = ?", (holds[place].limit, account_ids[place])
                )
        there = [known for known in account_ids if known is not None]
        if there:
            deltas = [(h.amount, 0) for h, known in zip(holds, account_ids, strict=True) if known is not None]
            rows.add_amounts(connection, there, deltas)
        ids = [
            rows.add_account(connection, hold.account, held=hold.amount, limit=hold.limit) if known is None else known
            for hold, known in zip(holds, account_ids, strict=True)
        ]
        seq, written = rows.insert(connection, reservation, ids, now_ms, refused)
        accounts = tuple(zip((hold.account for hold in holds), ids, strict=True))
        made = quick.Made(seq, written, tuple(ids), holds, reservation.on_expiry)
        odd = [holds[place].account for place in changed if account_ids[place] is not None]
        odd += [] if refused is None else [refused.account]
        return quick.Taken(Reserved(reservation.id, would_refuse=refused), accounts, made, tuple(odd))

    def _replay(self, connection: sqlite3.Connection, reservation: Reservation, first: rows.Found) -> Reserved:
        row = cast(
            "tuple[str | None, str, str, str | None]",
            connection.execute(
                "SELECT would_refuse, user, run, facts FROM reservation WHERE id = ?", (reservation.id,)
            ).fetchone(),
        )
        would_refuse, user, run, facts = row
        accounts = [self._ids.account(connection, account_id) for account_id in first.account_ids]
        rules.check_same(
            reservation,
            holds=zip(accounts, first.asked, strict=True),
            on_expiry=first.on_expiry,
            same_facts=reservation.facts == (None if facts is None else facts_from_text(user, run, facts)),
        )
        refused = None if would_refuse is None else refused_from_text(would_refuse)
        return Reserved(reservation.id, first.entry.state, replayed=True, would_refuse=refused)

    def _expire(self, connection: sqlite3.Connection, now_ms: int, count_max: int) -> list[str]:
        found = rows.overdue(connection, self._ids, now_ms, count_max)
        for one in found:
            rows.write_change(connection, self._ids, one, rules.expired(one.entry, one.on_expiry), now_ms)
        self.swept += len(found)
        return [one.entry.id for one in found]

    def settle(
        self,
        reservation_id: str,
        actual: int,
        *,
        units: Mapping[str, int] | None = None,
        result: ResultFacts | None = None,
        unresolved: bool = False,
    ) -> Settled:
        """Replace the holds by what the call really cost. See `runrails.ledger.Store.settle`."""
        made = self._made.pop(reservation_id, None) if type(reservation_id) is str else None
        if made is not None:
            what = quick.resolution(made, reservation_id, actual, units=units, unresolved=unresolved)
            with suppress(quick.Doubtful):
                return self._settle_made(made, what, result)

        def decide(entry: rules.Entry) -> rules.Change | None:
            return rules.settled(entry, actual, units=units, unresolved=unresolved)

        def step(connection: sqlite3.Connection) -> Settled:
            return self._resolve(connection, reservation_id, decide, result, losable=True)

        try:
            return self._file.write(step, waits=False)
        except _MustLast:
            return self._file.write(lambda connection: self._resolve(connection, reservation_id, decide, result))

    def _settle_made(self, made: quick.Made, what: quick.Resolution, result: ResultFacts | None) -> Settled:
        tells = self._tells

        def step(connection: sqlite3.Connection) -> tuple[tuple[quick.Left, ...] | None, int]:
            return quick.settle(connection, made, what, self._clock(), result, tells=tells), self._file.writes

        left, write = self._file.write(step, waits=not what.covered)
        if left is not None:
            self._left = (what.entry.id, left, write)
        return what.answer()

    def left_by(self, reservation_id: str) -> tuple[quick.Left, ...] | None:
        """
        A settled reservation's accounts as its settlement has left them, if this process has written nothing since.

        None if it has, or that is not known: ask `balances_of`. The first to ask is told nothing.
        """
        self._tells = True
        newest = self._left
        return newest[1] if newest and newest[0] == reservation_id and newest[2] == self._file.writes else None

    def release(self, reservation_id: str) -> Settled:
        """Give the holds back. See `runrails.ledger.Store.release`."""
        return self._file.write(lambda connection: self._resolve(connection, reservation_id, rules.released, None))

    def _resolve(
        self,
        connection: sqlite3.Connection,
        reservation_id: str,
        decide: Callable[[rules.Entry], rules.Change | None],
        result: ResultFacts | None,
        *,
        losable: bool = False,
    ) -> Settled:
        """Raises _MustLast if it should be `losable`, and were less charged than is right if it was lost."""
        found = rows.find(connection, self._ids, reservation_id) if rows.can_be_id(reservation_id) else None
        if found is None:
            raise rules.unknown(reservation_id)
        change = decide(found.entry)
        if change is None:
            return found.entry.answer(replayed=True)
        if losable and not rows.is_covered(found, change):
            raise _MustLast
        rows.write_change(connection, self._ids, found, change, self._clock(), result)
        return found.entry.after(change).answer(replayed=False)

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """Replace what a call was charged by what it was billed. See `runrails.ledger.SupportsCorrections.correct`."""
        checks.check_source(source)

        def step(connection: sqlite3.Connection) -> Settled:
            found = rows.find(connection, self._ids, reservation_id) if rows.can_be_id(reservation_id) else None
            if found is None:
                raise rules.unknown(reservation_id)
            entry, now_ms = found.entry, self._clock()
            change = rules.corrected(entry, actual)
            if change is None:
                return entry.answer(replayed=True)
            rows.write_change(connection, self._ids, found, change, now_ms)
            line = Correction(
                reservation_id=entry.id, at_ms=now_ms, source=source, state_before=entry.state,
                before_pusd=entry.actual, after_pusd=actual,
            )  # fmt: skip
            archive.keep_correction(connection, line)
            return entry.after(change).answer(replayed=False)

        return self._file.write(step)

    def corrections(self, *, reservation_id: str | None = None) -> Iterator[Correction]:
        """The audit trail of corrections, oldest first."""
        return archive.corrections(self._file, _findable(reservation_id))

    def expire(self, *, count_max: int = checks.SWEEP_MAX) -> Expired:
        """Resolve overdue reservations. See `runrails.ledger.Store.expire`."""
        checks.check_count(count_max, what="count_max")
        return Expired(tuple(self._file.write(lambda connection: self._expire(connection, self._clock(), count_max))))

    def extend(self, reservation_id: str, *, ttl_ms: int) -> bool:
        """Let a hold live `ttl_ms` from now; never shortens it. False if it is no longer open."""
        checks.check_ttl(ttl_ms)
        if not rows.can_be_id(reservation_id):
            return False
        return self._file.write(
            lambda connection: (
                connection.execute(
                    "UPDATE reservation SET expires_ms = max(expires_ms, ?) WHERE id = ? AND state = 'held'",
                    (self._clock() + ttl_ms, reservation_id),
                ).rowcount
                == 1
            )
        )

    def raise_hold(self, reservation_id: str, amount: int, *, enforce: bool = True) -> Reserved | Refused:
        """Let a reservation hold more. See `runrails.ledger.SupportsRaise.raise_hold`."""
        checks.check_amount(amount, what="The amount to hold")
        return self._file.write(lambda connection: self._raise(connection, reservation_id, amount, enforce=enforce))

    def _raise(
        self, connection: sqlite3.Connection, reservation_id: str, amount: int, *, enforce: bool
    ) -> Reserved | Refused:
        found = rows.find(connection, self._ids, reservation_id) if rows.can_be_id(reservation_id) else None
        if found is None:
            raise rules.unknown(reservation_id)
        if found.entry.state != "held":
            return Reserved(reservation_id, found.entry.state, replayed=True)
        accounts = [self._ids.account(connection, account_id) for account_id in found.account_ids]
        more = rules.raises(accounts, found.entry, amount)
        if not any(hold.amount for hold in more):
            return Reserved(reservation_id)
        standings = rows.standings_of(connection, found.account_ids)
        refused = rules.no_raise(more, standings)
        if refused is not None:
            impossible = rules.overflow(more, standings)
            if impossible is not None or enforce:
                return impossible or refused
        rows.write_raise(connection, found, more)
        return Reserved(reservation_id, would_refuse=refused)

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """Write calls that a slice has paid for. See `runrails.stores.draws.SupportsDraws.draw`."""
        from runrails.stores import _sqlite_draws, draws

        draws.check_draw(calls)
        return self._file.write(
            lambda connection: _sqlite_draws.draw(connection, self._ids, slice_id, calls, self._clock(), close=close)
        )

    def balance(self, account: Account) -> Balance:
        """The account as it stands; zeroes if it has never been used."""
        checks.check_account(account)

        def step(connection: sqlite3.Connection) -> Balance:
            row = connection.execute(
                f"SELECT {rows.BALANCE_COLUMNS} FROM account WHERE scope = ? AND period = ? AND unit = ?",  # noqa: S608 -- a constant
                account,
            ).fetchone()
            if row is not None:
                return rows.balance_of(row)
            limit = rows.operator_limit(connection, account.scope, account.unit)
            return rows.balance_of((account.scope, account.period, account.unit, None, limit, 0, 0))

        return self._file.read(step)

    def balances_of(self, accounts: Sequence[Account]) -> list[Balance]:
        """Some accounts as they stand, in any order. See `runrails.ledger.SupportsBalances`."""
        known = {account_id: account for account in accounts if (account_id := self._ids.known(account)) is not None}
        told = [] if len(known) == len(accounts) else [self.balance(each) for each in set(accounts) - {*known.values()}]
        if len(known) > SCOPES_MAX:
            return told + self._file.read(lambda connection: rows.balances_of(connection, known))
        return told + self._file.at_once(lambda connection: rows.balances_of(connection, known), reads=True)

    def balances(self, *, scope: str | None = None, period: str | None = None) -> Iterator[Balance]:
        """Every account, newest period first, then by scope and unit."""
        return archive.balances(self._file, _findable(scope), _findable(period))

    def set_limit(self, scope: str, limit: int | None, *, unit: str = rules.MONEY) -> None:
        """Set or remove (None) the operator's limit of a scope in every period."""
        checks.check_limit_key(scope, unit)
        if limit is not None:
            checks.check_amount(limit, what=f"The limit of {scope}")
        self._file.write(lambda connection: archive.set_limit(connection, scope, limit, unit))

    def limits(self) -> Iterator[tuple[str, str, int]]:
        """(scope, unit, limit) for every limit an operator has set, in order of scope and unit."""
        return iter(archive.limits(self._file))

    def claim_warning(self, account: Account, mark: WarningMark, *, window_ms: int = 21_600_000) -> bool:
        """True for exactly one caller per account, mark and window: that caller sends."""
        checks.check_account(account)
        checks.check_warning(mark, window_ms)
        return archive.claim_warning(self._file, account, mark, now_ms=self._clock(), window_ms=window_ms)

    def usage(
        self, *, user: str | None = None, period: str | None = None, run: str | None = None
    ) -> Iterator[UsageRecord]:
        """Records of calls, oldest first; `period` is a month like ``2026-11`` in UTC."""
        first_ms, end_ms = month_bounds(period)
        return archive.usage(self._file, _findable(user), _findable(run), first_ms, end_ms)

    def usage_since(self, first_ms: int) -> Iterator[UsageRecord]:
        """Calls from that moment on, oldest first; see `runrails.recent`."""
        return archive.usage(self._file, None, None, first_ms, month_bounds(None)[1])

    def fix_zone(self, scope: str, zone: str) -> str:
        """The scope's zone: the one given at its first use."""
        checks.check_zone_of(scope, zone)
        return archive.fix_zone(self._file, scope, zone)

    def keep_price_card(self, fingerprint: str, text: str) -> None:
        """Keep a price card's text."""
        checks.check_price_card(fingerprint, text)
        archive.keep_price_card(self._file, fingerprint, text)

    def price_card(self, fingerprint: str) -> str | None:
        """The card's text; None if it was never kept."""
        return archive.price_card(self._file, plain(fingerprint))

    def save_run(self, record: RunRecord) -> None:
        """Keep a run's record; saving the same id again replaces it."""
        kept = run_copy(record)
        self._file.write(lambda connection: archive.save_run(connection, kept), waits=False)

    def runs(self, *, user: str | None = None, count_max: int = 100) -> Iterator[RunRecord]:
        """Runs that ended last come first."""
        checks.check_count(count_max, what="count_max")
        return archive.runs(self._file, user=_findable(user), count_max=count_max)

    def run(self, run_id: str) -> RunRecord | None:
        """One run, or None."""
        return archive.run(self._file, plain(run_id))

    def note_delivery(self, sender: str, what: Delivered) -> None:
        """Add up what became of notifications. See `runrails.deliveries.SupportsDeliveries`."""
        self._file.write(lambda connection: archive.note_delivery(connection, plain(sender), what, self._clock()))

    def deliveries(self) -> Iterator[Delivery]:
        """Every sender's account, by name."""
        return iter(archive.deliveries(self._file))

    def sums(self) -> Iterator[Summed]:
        """Every account with what its records add up to. See `runrails.stores.records.SupportsRecords`."""
        from runrails.stores import _sqlite_records

        return iter(_sqlite_records.sums(self._file))

    def records(self) -> Iterator[LedgerRecord]:
        """Every reservation, oldest first."""
        from runrails.stores import _sqlite_records

        return _sqlite_records.read(self._file, self._ids)

    def extras(self) -> Iterator[Extra]:
        """Everything else that is kept for good."""
        from runrails.stores import _sqlite_records

        return _sqlite_records.extras(self._file)

    def put_records(self, records: Sequence[LedgerRecord]) -> int:
        """Add records of another store."""
        from runrails.stores import _sqlite_records

        return self._file.write(lambda connection: _sqlite_records.put(connection, self._ids, records))

    def put_extras(self, extras: Sequence[Extra]) -> None:
        """Keep them; again is nothing new."""
        from runrails.stores import _sqlite_records

        self._file.write(lambda connection: _sqlite_records.put_extras(connection, self._ids, extras))

    def rates(self) -> RateLimiter:
        """A rate limiter in the same file. See `runrails.rates.SupportsRates`."""
        from runrails.stores.rates_sqlite import SQLiteRates

        return SQLiteRates(self.path, clock=self._clock)

    def close(self) -> None:
        """Let go of the file. Open holds stay and expire. Closing twice is fine."""
        self._file.close()


def _findable(text: str | None) -> str | None:
    return None if text is None else plain(text)


_REMEMBERED_MAX = 1_000
_unflushed = ContextVar("runrails_unflushed", default=False)


class _MustLast(Exception):
    """What was to be written without waiting for the disk may not be lost."""
