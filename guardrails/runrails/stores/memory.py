"""The ledger in this process's memory: exact and quick, gone when the process ends. For tests and notebooks."""

from __future__ import annotations

from collections import deque
from heapq import heappush
from threading import Lock
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from runrails.clocks import Clock, system_ms
from runrails.ledger import (
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
from runrails.stores import checks, rules
from runrails.stores._codec import month_bounds, plain, run_copy
from runrails.stores._memory_books import Books, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from runrails.deliveries import Delivered, Delivery
    from runrails.rates.limiter import RateLimiter
    from runrails.stores.draws import Drawing, Drawn
    from runrails.stores.records import Extra, LedgerRecord, Summed

__all__ = ["MemoryStore"]

_Answer = TypeVar("_Answer", Reserved, Settled)
_RUNS_MAX = 10_000
_new = cast("_New", tuple.__new__)  # pyright: ignore[reportUnknownMemberType] -- typeshed leaves it open
"""Makes a named tuple in half the time, for the two answers of the hot path."""


class MemoryStore:
    """
    An engine of the ledger in one process. One lock makes every verb atomic.

    Args:
        clock: Wall clock in milliseconds since the epoch; it alone decides what is overdue.
        records_max: Most records of ended calls that are kept, the oldest dropped first. A dropped id is forgotten:
            reserving it again takes new holds. Balances keep counting what dropped records cost.
    """

    remote = False

    def __init__(self, *, clock: Clock = system_ms, records_max: int = 100_000) -> None:
        checks.check_count(records_max, what="records_max", count_max=10**9)
        self._clock = clock
        self._lock: Lock | _Closed = Lock()
        self._books = Books(records_max=records_max)
        self._warned: dict[tuple[Account, WarningMark], int] = {}
        self._zones: dict[str, str] = {}
        self._runs: dict[str, RunRecord] = {}
        self._price_cards: dict[str, str] = {}
        self._corrections: deque[Correction] = deque(maxlen=records_max)
        self._rates: RateLimiter | None = None
        self._deliveries: dict[str, Delivery] = {}

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """Take every hold or none. See `runrails.ledger.Store.reserve`."""
        reservation_id, holds, ttl_ms, facts, on_expiry, _ = reservation
        # Ordinary reservations skip the checks one by one: the rules are asked about all others.
        if not (
            type(reservation_id) is str
            and reservation_id.isalnum()
            and reservation_id.isascii()
            and len(reservation_id) <= 128
            and type(ttl_ms) is int
            and 0 < ttl_ms <= 3_600_000
            and on_expiry == "charge"
            and holds
        ):
            checks.check_head(reservation)
        elif facts is not None and not (
            facts.user in checks.known_ids and facts.run in checks.known_ids and not facts.tags
            and len(facts.endpoint) + len(facts.user_agent) + len(facts.model) + len(facts.agent)
            <= checks.FACTS_CHARS_MAX
        ):  # fmt: skip
            checks.check_facts(facts)
        books = self._books
        # Always `with`: Ctrl-C may strike as soon as a plain `acquire` has returned, and the lock would stay taken.
        with self._lock:
            try:
                if reservation_id in books.records:
                    return self._replay(reservation)
                now_ms = self._clock()
                deadlines = books.deadlines
                if deadlines and deadlines[0][0] <= now_ms:
                    return self._reserve_by_the_rules(reservation, now_ms)
                amount = holds[0][1]
                rows = books.take_quickly(holds, amount)
                if rows is None:
                    return self._reserve_by_the_rules(reservation, now_ms)
                expires_ms = now_ms + ttl_ms
                books.records[reservation_id] = Record(reservation, rows, amount, now_ms, expires_ms)
                heappush(deadlines, (expires_ms, reservation_id))
                if len(deadlines) > books.deadlines_max:
                    books.compact_deadlines()
                return _new(Reserved, (reservation_id, "held", False, None))
            except BaseException as error:
                books.mend_after(error)
                raise

    def _reserve_by_the_rules(self, reservation: Reservation, now_ms: int) -> Reserved | Refused:
        checks.check_reservation(reservation)
        books = self._books
        books.expire(now_ms, checks.SWEEP_MAX)
        record = books.take(reservation, now_ms)
        if isinstance(record, Refused):
            return record
        books.records[reservation.id] = record
        books.add_deadline(record.expires_ms, reservation.id)
        return Reserved(reservation.id, would_refuse=record.would_refuse)

    def _replay(self, reservation: Reservation) -> Reserved:
        checks.check_reservation(reservation)
        record = self._books.records[reservation.id]
        first = record.asked
        rules.check_same(
            reservation,
            holds=[(hold.account, hold.amount) for hold in first.holds],
            on_expiry=first.on_expiry,
            same_facts=first.facts == reservation.facts,
        )
        return Reserved(reservation.id, record.state, replayed=True, would_refuse=record.would_refuse)

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
        books = self._books
        record: Record | None = None
        with self._lock:
            try:
                record = books.records.get(reservation_id)
                if record is None:
                    raise rules.unknown(reservation_id)  # noqa: TRY301 -- a helper for it would cost the hot path a call
                held = record.uniform
                if (
                    record.state != "held"
                    or type(actual) is not int
                    or not 0 <= actual <= held
                    or unresolved
                    or units is not None
                ):
                    return self._settle_by_the_rules(record, actual, units, result, unresolved=unresolved)
                # The quick way: money only, the same hold everywhere and not exceeded, so that no sum can overflow.
                record.actual = actual
                record.result = result
                record.resolved_ms = self._clock()
                back = held - actual
                for row in record.rows:
                    row.spent += actual
                    row.room += back
                record.state = "settled"
                deadlines = books.deadlines
                if deadlines[-1][1] == reservation_id:
                    deadlines.pop()  # The last slot of a heap is a leaf; with few calls in flight it is this one.
                resolved = books.resolved
                resolved.append(reservation_id)
                if len(resolved) > books.records_max:
                    del books.records[resolved.popleft()]
                return _new(Settled, (reservation_id, "settled", actual, held, False))
            except BaseException as error:
                books.mend_after(error, record)
                raise

    def _settle_by_the_rules(
        self,
        record: Record,
        actual: int,
        units: Mapping[str, int] | None,
        result: ResultFacts | None,
        *,
        unresolved: bool,
    ) -> Settled:
        change = rules.settled(record.entry(), actual, units=units, unresolved=unresolved)
        if change is not None:
            self._books.apply(record, change, self._clock(), result)
        return record.entry().answer(replayed=change is None)

    def release(self, reservation_id: str) -> Settled:
        """Give the holds back. See `runrails.ledger.Store.release`."""
        with self._lock, self._books.mended():
            record = self._books.records.get(reservation_id)
            if record is None:
                raise rules.unknown(reservation_id)
            change = rules.released(record.entry())
            if change is not None:
                self._books.apply(record, change, self._clock())
            return record.entry().answer(replayed=change is None)

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """Replace what a call was charged by what it was billed. See `runrails.ledger.SupportsCorrections.correct`."""
        checks.check_source(source)
        with self._lock, self._books.mended():
            record = self._books.records.get(reservation_id)
            if record is None:
                raise rules.unknown(reservation_id)
            entry = record.entry()
            change = rules.corrected(entry, actual)
            if change is not None:
                now_ms = self._clock()
                line = Correction(
                    reservation_id=reservation_id, at_ms=now_ms, source=source, state_before=entry.state,
                    before_pusd=entry.actual, after_pusd=actual,
                )  # fmt: skip
                self._books.apply(record, change, now_ms)
                self._corrections.append(line)
            return record.entry().answer(replayed=change is None)

    def corrections(self, *, reservation_id: str | None = None) -> Iterator[Correction]:
        """The audit trail of corrections, oldest first."""
        with self._lock:
            found = [line for line in self._corrections if reservation_id in (None, line.reservation_id)]
        return iter(found)

    def expire(self, *, count_max: int = checks.SWEEP_MAX) -> Expired:
        """Resolve overdue reservations. See `runrails.ledger.Store.expire`."""
        checks.check_count(count_max, what="count_max")
        with self._lock, self._books.mended():
            return Expired(tuple(self._books.expire(self._clock(), count_max)))

    def extend(self, reservation_id: str, *, ttl_ms: int) -> bool:
        """Let a hold live `ttl_ms` from now; never shortens it. False if it is no longer open."""
        checks.check_ttl(ttl_ms)
        with self._lock, self._books.mended():
            record = self._books.records.get(reservation_id)
            if record is None or record.state != "held":
                return False
            expires_ms = self._clock() + ttl_ms
            if expires_ms > record.expires_ms:
                record.expires_ms = expires_ms
                self._books.add_deadline(expires_ms, reservation_id)
            return True

    def raise_hold(self, reservation_id: str, amount: int, *, enforce: bool = True) -> Reserved | Refused:
        """Let a reservation hold more. See `runrails.ledger.SupportsRaise.raise_hold`."""
        checks.check_amount(amount, what="The amount to hold")
        with self._lock, self._books.mended():
            record = self._books.records.get(reservation_id)
            if record is None:
                raise rules.unknown(reservation_id)
            if record.state != "held":
                return Reserved(reservation_id, record.state, replayed=True)
            return self._books.raise_hold(record, amount, enforce=enforce)

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """Write calls that a slice has paid for. See `runrails.stores.draws.SupportsDraws.draw`."""
        from runrails.stores import _memory_draws, draws

        draws.check_draw(calls)
        with self._lock, self._books.mended():
            return _memory_draws.draw(self._books, slice_id, calls, self._clock(), close=close)

    def balance(self, account: Account) -> Balance:
        """The account as it stands; zeroes if it has never been used."""
        checks.check_account(account)
        with self._lock:
            return self._books.row(account).balance()

    def balances(self, *, scope: str | None = None, period: str | None = None) -> Iterator[Balance]:
        """Every account, newest period first, then by scope and unit."""
        with self._lock:
            rows = [
                row.balance()
                for row in self._books.rows.values()
                if (scope is None or row.account.scope == scope) and (period is None or row.account.period == period)
            ]
        rows.sort(key=lambda balance: (balance.account.scope, balance.account.unit))
        rows.sort(key=lambda balance: balance.account.period, reverse=True)
        return iter(rows)

    def set_limit(self, scope: str, limit: int | None, *, unit: str = rules.MONEY) -> None:
        """Set or remove (None) the operator's limit of a scope in every period."""
        checks.check_limit_key(scope, unit)
        if limit is not None:
            checks.check_amount(limit, what=f"The limit of {scope}")
        with self._lock, self._books.mended():
            if limit is None:
                self._books.operator_limits.pop((scope, unit), None)
            else:
                self._books.operator_limits[scope, unit] = limit
            for row in self._books.rows.values():
                if row.account.scope == scope and row.account.unit == unit:
                    row.set_limits(code=None, operator=limit)

    def limits(self) -> Iterator[tuple[str, str, int]]:
        """(scope, unit, limit) for every limit an operator has set, in order of scope and unit."""
        with self._lock:
            listed = sorted((scope, unit, limit) for (scope, unit), limit in self._books.operator_limits.items())
        return iter(listed)

    def claim_warning(self, account: Account, mark: WarningMark, *, window_ms: int = 21_600_000) -> bool:
        """True for exactly one caller per account, mark and window: that caller sends."""
        checks.check_account(account)
        checks.check_warning(mark, window_ms)
        with self._lock:
            now_ms = self._clock()
            before_ms = self._warned.get((account, mark))
            # A mark from far in the future was made by a clock that has been put right since.
            if before_ms is not None and -window_ms <= now_ms - before_ms < window_ms:
                return False
            self._warned[account, mark] = now_ms
            return True

    def usage(
        self, *, user: str | None = None, period: str | None = None, run: str | None = None
    ) -> Iterator[UsageRecord]:
        """Records of calls, oldest first; `period` is a month like ``2026-11`` in UTC."""
        first_ms, end_ms = month_bounds(period)
        with self._lock:
            found = [
                usage
                for record in self._books.records.values()
                if (facts := record.reservation.facts) is not None
                and (user is None or facts.user == user)
                and (run is None or facts.run == run)
                and first_ms <= record.at_ms < end_ms
                and (usage := record.usage()) is not None
            ]
        found.sort(key=lambda usage: usage.at_ms)
        return iter(found)

    def fix_zone(self, scope: str, zone: str) -> str:
        """The scope's zone: the one given at its first use."""
        checks.check_zone_of(scope, zone)
        with self._lock:
            return self._zones.setdefault(scope, zone)

    def keep_price_card(self, fingerprint: str, text: str) -> None:
        """Keep a price card's text."""
        checks.check_price_card(fingerprint, text)
        with self._lock:
            self._price_cards[fingerprint] = text

    def price_card(self, fingerprint: str) -> str | None:
        """The card's text; None if it was never kept."""
        with self._lock:
            return self._price_cards.get(fingerprint)

    def save_run(self, record: RunRecord) -> None:
        """Keep a run's record; the oldest is dropped beyond 10,000."""
        kept = run_copy(record)
        with self._lock:
            self._runs.pop(kept.id, None)
            self._runs[kept.id] = kept
            if len(self._runs) > _RUNS_MAX:
                del self._runs[next(iter(self._runs))]

    def runs(self, *, user: str | None = None, count_max: int = 100) -> Iterator[RunRecord]:
        """Runs that ended last come first."""
        checks.check_count(count_max, what="count_max")
        with self._lock:
            found = [record for record in self._runs.values() if user is None or record.user == plain(user)]
        found.sort(key=lambda record: (record.ended_ms, record.id), reverse=True)
        return iter(found[:count_max])

    def run(self, run_id: str) -> RunRecord | None:
        """One run, or None."""
        with self._lock:
            return self._runs.get(plain(run_id))

    def note_delivery(self, sender: str, what: Delivered) -> None:
        """Add up what became of notifications. See `runrails.deliveries.SupportsDeliveries`."""
        with self._lock:
            self._deliveries[sender] = rules.delivery(sender, self._deliveries.get(sender), what, self._clock())

    def deliveries(self) -> Iterator[Delivery]:
        """Every sender's account, by name."""
        with self._lock:
            return iter(sorted(self._deliveries.values()))

    def sums(self) -> Iterator[Summed]:
        """
        Every account with what its records add up to. See `runrails.stores.records.SupportsRecords`.

        What records cost that were dropped (`records_max`) shows as a difference.
        """
        from runrails.stores import _memory_records

        with self._lock:
            return iter(_memory_records.sums(self._books))

    def records(self) -> Iterator[LedgerRecord]:
        """Every reservation that is kept, oldest first."""
        from runrails.stores import _memory_records

        with self._lock:
            return iter(_memory_records.read(self._books))

    def extras(self) -> Iterator[Extra]:
        """Everything else that is kept."""
        from runrails.stores.records import CodeLimit, OperatorLimit, PriceCardText, ScopeZone, WarningSent

        with self._lock:
            rows = self._books.rows.values()
            found: list[Extra] = [CodeLimit(row.account, row.code_limit) for row in rows if row.code_limit is not None]
            found += [OperatorLimit(*key, limit) for key, limit in self._books.operator_limits.items()]
            found += [WarningSent(*key, at_ms) for key, at_ms in self._warned.items()]
            found += [ScopeZone(*pair) for pair in self._zones.items()]
            found += [PriceCardText(*pair) for pair in self._price_cards.items()]
            return iter([*found, *self._corrections, *self._runs.values()])

    def put_records(self, records: Sequence[LedgerRecord]) -> int:
        """Add records of another store."""
        from runrails.stores import _memory_records

        with self._lock, self._books.mended():
            return _memory_records.put(self._books, records)

    def put_extras(self, extras: Sequence[Extra]) -> None:
        """Keep them; again is nothing new."""
        for extra in extras:
            self._put_extra(extra)

    def _put_extra(self, extra: Extra) -> None:
        from runrails.stores.records import CodeLimit, OperatorLimit, PriceCardText, ScopeZone, WarningSent

        if isinstance(extra, RunRecord):
            self.save_run(extra)
        elif isinstance(extra, PriceCardText):
            self.keep_price_card(*extra)
        elif isinstance(extra, ScopeZone):
            self.fix_zone(*extra)
        elif isinstance(extra, OperatorLimit):
            self.set_limit(extra.scope, extra.limit, unit=extra.unit)
        else:
            with self._lock:
                if isinstance(extra, CodeLimit):
                    row = self._books.row(extra.account)
                    self._books.keep(row)
                    row.set_limits(code=extra.limit, operator=row.operator_limit)
                elif isinstance(extra, WarningSent):
                    key = (extra.account, extra.mark)
                    self._warned[key] = max(extra.at_ms, self._warned.get(key, extra.at_ms))
                elif extra not in self._corrections:
                    self._corrections.append(extra)

    def rates(self) -> RateLimiter:
        """Its rate limiter, the same for all who ask. See `runrails.rates.SupportsRates`."""
        from runrails.stores.rates_memory import MemoryRates

        with self._lock:
            if self._rates is None:
                self._rates = MemoryRates(clock=self._clock)
            return self._rates

    def close(self) -> None:
        """End it: every verb raises `StoreUnavailable` from now on. Closing twice is fine."""
        self._lock = _Closed()


class _New(Protocol):
    def __call__(self, kind: type[_Answer], values: tuple[object, ...], /) -> _Answer: ...


class _Closed:
    """Stands in for the lock of a closed store, so that an open one need not ask whether it is."""

    def __enter__(self) -> None:
        raise rules.closed()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
