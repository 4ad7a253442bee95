"""The verbs of the ledger on DynamoDB."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

from runrails.clocks import Clock, system_ms
from runrails.errors import ConfigError, LedgerError, StoreUnavailable
from runrails.ledger import Correction, Expired, Refused, Reservation, Reserved, ResultFacts, Settled
from runrails.stores import checks, rules
from runrails.stores._refusals import Refusals
from runrails_aws.dynamodb import items, requests
from runrails_aws.dynamodb import table as tables
from runrails_aws.dynamodb.archive import Archive
from runrails_aws.dynamodb.calling import CALLS_MAX, Caller, Client, Patience, Verb, make_client
from runrails_aws.dynamodb.clockwork import LedgerTime, Lookout
from runrails_aws.dynamodb.drawing import Drawer
from runrails_aws.dynamodb.items import Found, Row, deadline, deadline_of, found_of, row_of
from runrails_aws.dynamodb.known import Known
from runrails_aws.dynamodb.retention import Retention
from runrails_aws.dynamodb.shelf import Shelf
from runrails_aws.dynamodb.wire import maybe_text, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runrails.ledger import Hold
    from runrails.rates import RateLimiter
    from runrails.stores.draws import Drawing, Drawn
    from runrails_aws.dynamodb.failures import Failed
    from runrails_aws.dynamodb.wire import Item, Write

__all__ = ["DynamoDBStore"]

GRACE_MS = 5_000
"""How long an overdue hold is left to its owner, who may have heard a little later than we what the time is."""
LOOK_EVERY_MS = 15_000
"""How often a store that reserves looks for overdue holds of other processes."""
LOOK_REFUSED_MS = 1_000
"""How often at most it looks because a reservation was refused."""
REFUSALS_MS_MAX = 1_000
"""How old a refusal may be that is given again unasked."""
_TRIES_MAX = 64
"""Most times that a verb decides anew because others were quicker; its deadline may end it sooner."""


class DynamoDBStore(Shelf):
    """
    An engine of the ledger in one table of DynamoDB, shared by any number of processes. Thread-safe.

    Args:
        table: Its name; `runrails aws table create` makes it.
        region: AWS region; what boto3 finds by default.
        endpoint: Another server than AWS's, for instance DynamoDB Local.
        profile: A profile of the AWS configuration.
        clock: Milliseconds since the epoch, that is believed. None, as it should be: the server's own time, which its
            answers tell; then nothing expires before that is known, nor earlier than `grace_ms` after its time.
        grace_ms: See `clock`; without effect if one is given.
        patience: How long a verb goes on trying.
        retention_days: Let DynamoDB delete the records of calls and runs so many days after their end, 35 or more. By
            default they are kept for good, as balances, open holds and corrections are in any case.
        refusals_ms: Answer a call that was refused so long ago or less (1,000 at most) with the same refusal, without
            asking again: a loop of refused calls then costs a write a second, not each. It may be refused that much
            longer than needed, also one whose id another process has reserved.
        client: Makes the boto3 client, for special credentials and tests; it must attempt a request only once.
    """

    remote = True
    calls_max = CALLS_MAX
    """How many of its verbs may be under way at once."""

    def __init__(  # noqa: PLR0913 -- options of a public class, all but one with defaults
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        profile: str | None = None,
        clock: Clock | None = None,
        grace_ms: int = GRACE_MS,
        patience: Patience | None = None,
        retention_days: int | None = None,
        refusals_ms: int = 0,
        client: Callable[[], Client] | None = None,
    ) -> None:
        make = client or (lambda: make_client(region=region, endpoint=endpoint, profile=profile))
        self.table = table
        self.place = f"dynamodb://{table}?region={region or ''}&endpoint={endpoint or ''}"
        """What two stores have in common that keep the same books."""
        patience = patience or Patience()
        self.caller = Caller(table, make, patience)
        self._time = LedgerTime(self.caller.server_time, clock, grace_ms)
        self._lookout = Lookout(patience.monotonic, every_ms=LOOK_EVERY_MS)
        self._known = Known()
        if not 0 <= refusals_ms <= REFUSALS_MS_MAX:
            raise ConfigError(
                f"refusals_ms must be 0 to {REFUSALS_MS_MAX}.", next_step="Leave it out to ask each time."
            )
        self._refusals = Refusals(patience.monotonic, refusals_ms)
        _stores.add(self)
        self._retention = Retention(table, self.caller, retention_days)
        self.swept = 0
        """How many reservations this process found overdue; those of processes that died are among them."""
        super().__init__(Archive(table, self.caller, self._time.written_ms, self._retention))

    @property
    def throttled(self) -> int:
        """How many attempts DynamoDB has throttled since the store was opened."""
        return self.caller.throttled

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """Take every hold or none. See `runrails.ledger.Store.reserve`."""
        checks.check_reservation(reservation, known=self._known.accounts)
        verb = self.caller.begin()
        if reservation.enforce and self._known.get(reservation.id) is None:
            remembered = self._refusals.of((hold.account, hold.limit, hold.amount) for hold in reservation.holds)
            if remembered is not None:
                return remembered
        swept = False
        if self._lookout.is_due(self._time.judged_ms()):
            # What was reserved before is answered before anything else happens.
            item = self._read(items.reservation_key(reservation.id), verb)
            if item is not None:
                return self._again(reservation, item, verb)
            swept = self._sweep(verb, checks.SWEEP_MAX) is not None
        answer = self._take(reservation, verb)
        if isinstance(answer, Refused) and not swept and self._lookout.is_old(LOOK_REFUSED_MS):
            answer = self._take(reservation, verb) if self._sweep(verb, checks.SWEEP_MAX) else answer
        if isinstance(answer, Refused):
            refused = answer.account
            self._refusals.note(next(hold.limit for hold in reservation.holds if hold.account == refused), answer)
            if requests.TRANSACTION in verb.lost:
                # Once there is room for it again, an attempt that is still on its way would take the holds.
                raise StoreUnavailable(
                    "An attempt to reserve was not answered, and another one was refused.",
                    next_step="Give the reservation up with `release`, and try again.", table=self.table, refused=True,
                )  # fmt: skip
        return answer

    def set_limit(self, scope: str, limit: int | None, *, unit: str = rules.MONEY) -> None:
        """Set or remove (None) the operator's limit of a scope in every period."""
        super().set_limit(scope, limit, unit=unit)
        self._refusals.forget()

    def _take(self, reservation: Reservation, verb: Verb) -> Reserved | Refused:
        """Take the holds at once if nothing is out of the ordinary; else look, decide, and write what was decided."""
        now_ms = self._time.written_ms()
        holds, known = reservation.holds, self._known.accounts
        takings = [requests.take(hold, known=hold.account in known, now_ms=now_ms) for hold in holds]
        ordinary = [taking for taking in takings if taking is not None]
        if len(ordinary) == len(holds):
            failed = self._write_taking(reservation, ordinary, None, now_ms, verb)
            if failed is None:
                return Reserved(reservation.id)
            answer = self._answer(reservation, failed, verb)
            if answer is not None:
                return answer
        return self._take_as_seen(reservation, verb)

    def _write_taking(
        self,
        reservation: Reservation,
        takings: Sequence[requests.Taking],
        would_refuse: Refused | None,
        now_ms: int,
        verb: Verb,
    ) -> Failed | None:
        expires_ms = now_ms + reservation.ttl_ms
        self._lookout.holds_until(expires_ms)
        found = items.new_found(reservation, verb.writer)
        item = items.reservation_item(
            reservation, found, now_ms=now_ms, expires_ms=expires_ms, stamp=time.time_ns(), would_refuse=would_refuse
        )
        writes = [requests.make(item), *(taking.write for taking in takings)]
        # Months and days of one scope have one limit of an operator, and no item may be named twice.
        writes += {str(taking.check): taking.check for taking in takings if taking.check is not None}.values()
        failed = self.caller.write(requests.transaction(self.table, writes), verb)
        if failed is None:
            self._known.keep(found)
        return failed

    def _answer(self, reservation: Reservation, failed: Failed, verb: Verb) -> Reserved | Refused | None:
        """What failed conditions say by themselves; None if the accounts must be looked at."""
        if failed.reasons[0].failed and failed.first is not None:
            return self._again(reservation, failed.first, verb)
        holds = reservation.holds
        poor: list[tuple[Hold, Row]] = []
        for hold, reason in zip(holds, failed.reasons[1:], strict=False):
            if not reason.failed:
                continue
            row = None if reason.item is None else row_of(reason.item)
            if row is None or not row.exists or hold.limit not in (None, row.code):
                self._known.forget(hold.account)
                return None
            poor.append((hold, row))
        checked = any(reason.failed for reason in failed.reasons[1 + len(holds) :])
        if checked or not reservation.enforce:
            return None
        return _refusal([hold for hold, _ in poor], [row.standing() for _, row in poor])

    def _again(self, reservation: Reservation, item: Item, verb: Verb) -> Reserved:
        found = items.check_same(reservation, item)
        ours = found.writer == verb.writer
        if ours:
            self._known.keep(found)
        return Reserved(reservation.id, found.entry.state, not ours, items.would_refuse_of(item))

    def _take_as_seen(self, reservation: Reservation, verb: Verb) -> Reserved | Refused:
        holds = reservation.holds
        for attempt in range(1, _TRIES_MAX):
            item, rows = self._archive.look(reservation, verb)
            if item is not None:
                return self._again(reservation, item, verb)
            standings = [row.standing(hold.limit) for row, hold in zip(rows, holds, strict=True)]
            refused = rules.refusal(holds, standings)
            if refused is not None:
                impossible = rules.overflow(holds, standings)
                if impossible is not None or reservation.enforce:
                    return impossible or refused
            now_ms = self._time.written_ms()
            takings = [
                requests.take_as_seen(row, hold, enforce=refused is None, now_ms=now_ms)
                for row, hold in zip(rows, holds, strict=True)
            ]
            failed = self._write_taking(reservation, takings, refused, now_ms, verb)
            if failed is None:
                return Reserved(reservation.id, would_refuse=refused)
            if failed.reasons[0].failed and failed.first is not None:
                return self._again(reservation, failed.first, verb)
            self._pause(attempt, verb)
        raise self._contended()

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
        return self._resolve(
            reservation_id,
            lambda entry: rules.settled(entry, actual, units=units, unresolved=unresolved),
            result=result,
        )

    def release(self, reservation_id: str) -> Settled:
        """Give the holds back. See `runrails.ledger.Store.release`."""
        return self._resolve(reservation_id, rules.released)

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """Replace what a call was charged by what it was billed. See `runrails.ledger.SupportsCorrections.correct`."""
        checks.check_source(source)
        self._known.drop(reservation_id)

        def line(entry: rules.Entry, now_ms: int) -> Write:
            return self._archive.correction(
                Correction(
                    reservation_id=entry.id, at_ms=now_ms, source=source, state_before=entry.state,
                    before_pusd=entry.actual, after_pusd=actual,
                )
            )  # fmt: skip

        return self._resolve(reservation_id, lambda entry: rules.corrected(entry, actual), also=line)

    def _resolve(
        self,
        reservation_id: str,
        decide: Callable[[rules.Entry], rules.Change | None],
        *,
        result: ResultFacts | None = None,
        also: Callable[[rules.Entry, int], Write] | None = None,
    ) -> Settled:
        verb = self.caller.begin()
        found = self._found(reservation_id, verb)
        for attempt in range(1, _TRIES_MAX):
            entry = found.entry
            change = decide(entry)
            if change is None:
                return entry.answer(replayed=True)
            now_ms = self._time.written_ms()
            keep_s = self._retention.keep_s()
            writes = requests.change(found, change, now_ms=now_ms, writer=verb.writer, result=result, keep_s=keep_s)
            if also is not None:
                writes.append(also(entry, now_ms))
            failed = self.caller.write(requests.transaction(self.table, writes), verb)
            if failed is None:
                self._known.drop(reservation_id)
                self._refusals.forget()
                return entry.after(change).answer(replayed=False)
            if failed.reasons[0].failed:
                self._known.drop(reservation_id)
                if failed.first is None:
                    raise rules.unknown(reservation_id)
                found = found_of(failed.first)
                if found.writer == verb.writer:
                    return found.entry.answer(replayed=False)
            else:
                self._check_sums(found, change, failed)
                self._pause(attempt, verb)
                found = self._found(reservation_id, verb)
        raise self._contended()

    def _check_sums(self, found: Found, change: rules.Change, failed: Failed) -> None:
        """Raise if an account cannot count what a change adds to it, or is gone."""
        deltas = dict(zip(found.accounts, change.deltas(found.entry), strict=True))
        for reason in failed.reasons[1:]:
            if reason.failed and "avail" in (reason.item or {}):
                row = row_of(cast("Item", reason.item))
                held, spent = deltas[row.account]
                rules.check_sum(found.entry, row.account, row.spent + row.held + held + spent)
            elif reason.failed:
                raise LedgerError(
                    "An account of this reservation is no longer in the table; nothing was changed.",
                    next_step="Nothing of ours deletes accounts: see who does, and restore this one from a backup.",
                    reservation_id=found.entry.id,
                )

    def expire(self, *, count_max: int = checks.SWEEP_MAX) -> Expired:
        """
        Resolve overdue reservations. See `runrails.ledger.Store.expire`.

        None is resolved before the server's time is known.
        """
        checks.check_count(count_max, what="count_max")
        verb = self.caller.begin()
        if self._time.judged_ms() is None:
            self._read(items.reservation_key("-"), verb)  # any answer tells the time
        return Expired(tuple(self._sweep(verb, count_max, wait_ms=self.caller.patience.deadline_ms) or ()))

    def _sweep(self, verb: Verb, count_max: int, *, wait_ms: int = 0) -> list[str] | None:
        """Resolve what is overdue; None if another thread is at it for so long, or nobody knows the time."""
        judged_ms = self._time.judged_ms()
        if judged_ms is None or not self._lookout.begin(wait_ms=wait_ms):
            return None
        first_ms: float | None = None
        try:
            overdue, first_ms = self._archive.overdue(judged_ms, count_max, verb)
            resolved = [name for name in overdue if self._expire_one(name, judged_ms, verb.writer)]
        finally:
            self._lookout.end(first_ms)
        self.swept += len(resolved)
        return resolved

    def _expire_one(self, reservation_id: str, judged_ms: int, writer: str) -> bool:
        verb = self.caller.begin()._replace(writer=writer)
        item = self._read(items.reservation_key(reservation_id), verb)
        if item is None or text(item, "st") != "held" or deadline_of(text(item, "hx"))[0] > judged_ms:
            return False
        found = found_of(item)
        writes = requests.change(
            found, rules.expired(found.entry, found.on_expiry), now_ms=self._time.written_ms(), writer=writer,
            overdue_before=deadline(judged_ms + 1), keep_s=self._retention.keep_s(),
        )  # fmt: skip
        self._known.drop(reservation_id)
        failed = self.caller.write(requests.transaction(self.table, writes), verb)
        return failed is None or (failed.first is not None and maybe_text(failed.first, "tk") == writer)

    def extend(self, reservation_id: str, *, ttl_ms: int) -> bool:
        """Let a hold live `ttl_ms` from now; never shortens it. False if it is no longer open."""
        checks.check_ttl(ttl_ms)
        verb = self.caller.begin()
        if not _can_be_id(reservation_id):
            return False
        operation = requests.extend(reservation_id, self._time.written_ms() + ttl_ms)
        failed = self.caller.write(requests.update(self.table, operation), verb)
        return failed is None or (failed.first is not None and text(failed.first, "st") == "held")

    def raise_hold(self, reservation_id: str, amount: int, *, enforce: bool = True) -> Reserved | Refused:
        """Let a reservation hold more. See `runrails.ledger.SupportsRaise.raise_hold`."""
        checks.check_amount(amount, what="The amount to hold")
        verb = self.caller.begin()
        found = self._found(reservation_id, verb)
        would: Refused | None = None
        for attempt in range(1, _TRIES_MAX):
            if found.entry.state != "held":
                return Reserved(reservation_id, found.entry.state, replayed=True)
            more = rules.raises(found.accounts, found.entry, amount)
            if not any(hold.amount for hold in more):
                if not self._known.drop(reservation_id):
                    return Reserved(reservation_id, would_refuse=would)
                found = self._found(reservation_id, verb)  # others may have resolved what we remember
                continue
            raised, writes = requests.raising(found, more, writer=verb.writer, enforce=would is None)
            failed = self.caller.write(requests.transaction(self.table, writes), verb)
            if failed is None:
                self._known.keep(raised)
                return Reserved(reservation_id, would_refuse=would)
            if failed.reasons[0].failed:
                self._known.drop(reservation_id)
                if failed.first is None:
                    raise rules.unknown(reservation_id)
                found = found_of(failed.first)
                if found.writer == verb.writer:
                    return Reserved(reservation_id, would_refuse=would)
                continue
            rows = [row_of(reason.item) for reason in failed.reasons[1:] if reason.failed and reason.item is not None]
            growing = {hold.account: hold for hold in more}
            holds, standings = [growing[row.account] for row in rows], [row.standing() for row in rows]
            refused = _refusal(holds, standings)
            if refused is not None and (enforce or rules.overflow(holds, standings) is not None):
                return refused
            would = refused
            self._pause(attempt, verb)
        raise self._contended()

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """Write calls that a slice has paid for. See `runrails.stores.draws.SupportsDraws.draw`."""
        drawer = Drawer(
            self.table, self.caller, self._known, self._found, self._resolve, self._time, self._retention.keep_s
        )
        return drawer.draw(slice_id, calls, close=close)

    def rates(self) -> RateLimiter:
        """A rate limiter in the same table. See `runrails.rates.SupportsRates`."""
        from runrails_aws.dynamodb.rates import DynamoDBRates

        return DynamoDBRates(self.table, self.caller, self._time)

    def examine(self) -> Iterator[tuple[str, str, str, str]]:
        """Findings for `runrails doctor`: what, ``ok``, ``note`` or ``problem``, detail and fix. Writes nothing."""
        faults = tables.faults_of(self.caller)
        for what, fix in faults:
            yield "store table", "problem", what, fix
        if not faults:
            yield "store table", "ok", f"{self.table}: a ledger of this version", ""
        moment = self.caller.server_time.now()
        if moment is None:
            yield "store time", "problem", "Its answers tell no time.", "Without it no dead hold is ever resolved."
            return
        off_ms = max(moment.earliest_ms - system_ms(), system_ms() - moment.latest_ms, 0)
        state = "ok" if off_ms < GRACE_MS else "problem"
        fix = "" if state == "ok" else "Set this host's clock (NTP): its months begin at another moment."
        yield "store time", state, f"this host's clock is off by {off_ms / 1_000:.0f} s", fix

    def after_fork(self) -> None:
        """In a child: begin with locks and a memory of its own."""
        self.caller.after_fork()
        self._lookout = Lookout(self.caller.patience.monotonic, every_ms=LOOK_EVERY_MS)
        self._known = Known()
        self._refusals.forget()

    def close(self) -> None:
        """Let go of connections. Open holds stay and expire. Closing twice is fine."""
        self.caller.close()

    def _found(self, reservation_id: str, verb: Verb) -> Found:
        if not _can_be_id(reservation_id):
            raise rules.unknown(reservation_id)
        known = self._known.get(reservation_id)
        if known is not None:
            return known
        item = self._read(items.reservation_key(reservation_id), verb)
        if item is None:
            raise rules.unknown(reservation_id)
        return found_of(item)

    def _read(self, key: Item, verb: Verb) -> Item | None:
        return cast("Item | None", self.caller.read(requests.get(self.table, key), verb).get("Item"))

    def _pause(self, attempt: int, verb: Verb) -> None:
        """Let others go first, or give up at the verb's deadline."""
        if self.caller.is_over(verb):
            raise self._contended()
        self.caller.patience.sleep(self.caller.patience.pause_s(attempt))

    def _contended(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"The ledger in table {self.table} changed faster than it could be decided on; nothing was written.",
            next_step="Try again with the same id. If it stays so, see whether two programs give one scope two limits.",
            table=self.table,
        )


def _refusal(holds: Sequence[Hold], standings: Sequence[rules.Standing]) -> Refused | None:
    """The refusal that accounts give which have failed; the others had room."""
    return rules.overflow(holds, standings) or rules.refusal(holds, standings)


def _can_be_id(reservation_id: object) -> bool:
    return isinstance(reservation_id, str) and reservation_id.isascii() and 0 < len(reservation_id) <= 128


_stores: WeakSet[DynamoDBStore] = WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
