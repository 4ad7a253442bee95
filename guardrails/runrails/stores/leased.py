"""
Leased mode: hot budgets are taken from the shared store in slices, and spent in this process's memory.

A slice is an ordinary reservation over all accounts of a call, so every rule of the ledger holds for it: it is taken in
all of them or in none, expires like any hold, and is charged in full if its process dies. Calls are paid out of it with
integer arithmetic under one lock, and written to the shared store afterwards, many at once (see `draws`).
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.errors import ConfigError, StoreUnavailable
from runrails.ledger import Account, Balance, Expired, Refused, Reservation, Reserved, Settled
from runrails.stores import checks, rules
from runrails.stores._codec import month_bounds
from runrails.stores._lease_books import Books, check_same_call, key_of
from runrails.stores._lease_moves import Moves
from runrails.stores._lease_records import Records
from runrails.stores._lease_views import Views
from runrails.stores.leases import KINDS, Lease, terms
from runrails.values import named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from runrails.ledger import FullStore, ResultFacts, UsageRecord
    from runrails.stores._lease_books import Call, Group, Key, Slice

__all__ = ["LeasedStore"]

_T = TypeVar("_T")
TICK_S = 0.5
ASKS_MAX = 4
"""How often a refused call is asked for again, each time after slices went back."""


class LeasedStore(Records):
    """
    A store in front of a shared one, for budgets that many calls draw on at once.

    A call whose scopes are all leased costs no round trip, but for the slices and for its record, which are written in
    the background. A call that names a scope which is not leased, counts anything but money, or finds too little left
    for a slice goes to the shared store by itself. Either way it is held in all of its accounts or in none, and no
    limit is passed.

    What is given up for that:

    * A limit that is lowered elsewhere is seen after half of a slice's time to live at the latest; what was in slices
      by then may still be spent.
    * After a crash the accounts are charged for what was left in the process's slices and had not been reported, marked
      unresolved, and the records of its last calls are missing. Never less is charged than was spent.
    * Records and what is `spent` are seen by other processes once they are written: after `checkpoint_ms`, or so many
      calls. Until then the money is `held`.
    * An id that another process has used is noticed when its call is written. What that cost stays charged.

    Args:
        store: The shared store, any engine.
        leases: A lease for each kind of scope (`user`, `key`, `org`; runs are leased along), or one for all of them.
        clock: Wall clock, for the time to live of calls and for their records. The shared store has its own.
        monotonic: For the age of slices.
        background: Keep a thread that writes calls, fetches slices before they run dry and gives idle ones back.
            Without it, `tick` does one round.
        stale_ms: How old a refusal, and the balance shown, may be; 0 asks the shared store each time. Nothing is ever
            admitted by what is remembered.
        owns_store: Closing it closes the shared store.
    """

    def __init__(
        self,
        store: FullStore,
        leases: Lease | Mapping[str, Lease],
        *,
        clock: Clock = system_ms,
        monotonic: Clock = monotonic_ms,
        background: bool = True,
        stale_ms: int = 1_000,
        records_max: int = 100_000,
        owns_store: bool = True,
    ) -> None:
        by_kind: Mapping[str, object] = dict.fromkeys(KINDS, leases) if isinstance(leases, Lease) else leases
        given = {kind: lease for kind, lease in by_kind.items() if kind in KINDS and isinstance(lease, Lease)}
        if not given or len(given) < len(by_kind):
            raise ConfigError(
                f"Leases are given by kind of scope: {', '.join(KINDS)}.",
                next_step='Write for instance LeasedStore(store, {"user": Lease(slice="0.50")}).',
            )
        super().__init__(store)
        self._leases = given
        self._clock = clock
        self._monotonic = monotonic
        self._background = background
        self._stale_ms = stale_ms
        self._records_max = checks.check_count(records_max, what="records_max", count_max=10**9)
        self._owns = owns_store
        self._closed = self._ended = False
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Start anew in a forked child: slices and calls belong to the parent, and locks may be taken for ever."""
        self._lock = threading.Lock()
        self._books = Books(records_max=self._records_max)
        self._moves = Moves(self.shared, self._books, self._lock, clock=self._clock, monotonic=self._monotonic)
        self._views = Views(
            self.shared, self._books, self._lock, self._moves, monotonic=self._monotonic, stale_ms=self._stale_ms
        )
        self._wake: SimpleQueue[None] = SimpleQueue()  # An Event's lock may stay taken after Ctrl-C.
        self._thread: threading.Thread | None = None

    # Taking holds.

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """Take every hold or none. See `runrails.ledger.Store.reserve`."""
        checks.check_head(reservation)
        key, amount = key_of(reservation)
        now_ms, mono_ms = self._clock(), self._monotonic()
        books = self._books
        reservation_id = reservation.id
        with self._lock:
            known = reservation_id in books.calls or reservation_id in books.written
            if not known:
                deadlines = books.deadlines
                if deadlines and deadlines[0][0] <= now_ms:
                    books.expire(now_ms, checks.SWEEP_MAX)
                group = books.groups.get(key)
                one = None if group is None else group.with_room(amount, mono_ms)
                if one is not None and not self._closed:
                    self._take(one, reservation, amount, now_ms, mono_ms)
                    return named(Reserved, (reservation_id, "held", False, None))
        checks.check_reservation(reservation)
        return self._again(reservation) if known else self._reserve_slowly(reservation, key, amount)

    def _take(self, one: Slice, reservation: Reservation, amount: int, now_ms: int, mono_ms: int) -> None:
        """Pay for a call. The lock is held."""
        self._books.take(one, reservation, amount, now_ms)
        group = one.group
        group.used_ms = mono_ms
        if one.room < one.low and not group.wants:
            group.wants = True
            self._wake.put(None)

    def _again(self, reservation: Reservation) -> Reserved | Refused:
        call = self._find(reservation.id)
        if call is None:
            return self._reserve_alone(reservation)
        check_same_call(call, reservation)
        return Reserved(reservation.id, call.state, replayed=True)

    def _reserve_slowly(self, reservation: Reservation, key: Key, amount: int) -> Reserved | Refused:
        if self._closed:
            raise rules.closed()
        self._keep_up()
        if reservation.enforce:
            remembered = self._views.refusal(key, amount)
            if remembered is not None:
                return remembered
        group = self._group(key)
        if group is not None and self._lease(group, reservation, amount):
            return Reserved(reservation.id)
        return self._reserve_alone(reservation)

    def _lease(self, group: Group, reservation: Reservation, amount: int) -> bool:
        """Pay for a call out of a slice, a fresh one if need be. False if there is none to be had."""
        for _ in range(ASKS_MAX):
            if self._try(group, reservation, amount):
                return True
            if self._monotonic() < group.alone_until_ms:
                return False
            try:
                renewed = self._moves.renew(group, amount)
            except StoreUnavailable:
                if self._try(group, reservation, amount, stale=True):
                    return True
                raise
            self._start()
            if not renewed:
                return False
        return False

    def _try(self, group: Group, reservation: Reservation, amount: int, *, stale: bool = False) -> bool:
        now_ms, mono_ms = self._clock(), self._monotonic()
        with self._lock:
            one = group.with_room(amount, mono_ms, stale=stale)
            if one is None or self._closed:
                return False
            if reservation.id not in self._books.calls:  # Another thread may reserve the same at this moment.
                self._take(one, reservation, amount, now_ms, mono_ms)
            return True

    def _reserve_alone(self, reservation: Reservation) -> Reserved | Refused:
        with self._lock:
            if self._closed:
                raise rules.closed()
            self._books.note(reservation.id)
        answer = self._ask(lambda: self.shared.reserve(reservation._replace(enforce=True)))
        if isinstance(answer, Refused):
            if not reservation.enforce:
                return self.shared.reserve(reservation)
            with self._lock:
                self._books.written.pop(reservation.id, None)
            limit = next(hold.limit for hold in reservation.holds if hold.account == answer.account)
            self._views.refused(limit, answer)
        else:
            self._views.forget()
        return answer

    def _ask(self, verb: Callable[[], Reserved | Refused]) -> Reserved | Refused:
        """Ask the shared store; if it refuses, give this process's slices of that account back and ask again."""
        answer = verb()
        for _ in range(ASKS_MAX):
            if not isinstance(answer, Refused) or not self._moves.give_back_all(answer.account):
                break
            self._views.forget()
            answer = verb()
        return answer

    def _group(self, key: Key) -> Group | None:
        """The group of calls with this key; None if such calls are not leased."""
        with self._lock:
            group = self._books.groups.get(key)
            if group is None:
                given = terms(self._leases, [account for account, _ in key]) if key else None
                if given is None or self._closed:
                    return None
                group = self._books.add_group(key, given)
            group.used_ms = self._monotonic()
            return group

    # Resolving them.

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
        with self._lock:
            call = self._books.calls.get(reservation_id)
            if (
                call is not None
                and call.state == "held"
                and not call.is_moving()
                and type(actual) is int
                and 0 <= actual <= call.amount
                and not units
            ):
                now_ms = self._clock()
                return call.end("unresolved" if unresolved else "settled", actual, now_ms, result, stand_in=unresolved)
        call = self._find(reservation_id)
        if call is not None:
            # More than was held, or a word on what has ended: the shared store knows what to make of it.
            rules.settlement(call.entry(), actual, units)
            self._moves.hand_over(call)
        return self._changed(
            lambda: self.shared.settle(reservation_id, actual, units=units, result=result, unresolved=unresolved)
        )

    def release(self, reservation_id: str) -> Settled:
        """Give the holds back. See `runrails.ledger.Store.release`."""
        with self._lock:
            call = self._books.calls.get(reservation_id)
            if call is not None and call.state == "held" and not call.is_moving():
                return call.end("released", 0, self._clock())
        call = self._find(reservation_id)
        if call is not None:
            self._moves.hand_over(call)
        return self._changed(lambda: self.shared.release(reservation_id))

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """Replace what a call was charged by what it was billed. See `runrails.ledger.SupportsCorrections.correct`."""
        checks.check_source(source)
        call = self._find(reservation_id)
        if call is not None:
            rules.corrected(call.entry(), actual)
            self._moves.hand_over(call)
        return self._changed(lambda: super(LeasedStore, self).correct(reservation_id, actual, source=source))

    def expire(self, *, count_max: int = checks.SWEEP_MAX) -> Expired:
        """Resolve overdue reservations, here and in the shared store. See `runrails.ledger.Store.expire`."""
        checks.check_count(count_max, what="count_max")
        with self._lock:
            ids = self._books.expire(self._clock(), count_max)
        self._keep_up()
        if len(ids) < count_max:
            more = self._changed(lambda: self.shared.expire(count_max=count_max - len(ids)))
            ids += more.ids
        return Expired(tuple(ids))

    def extend(self, reservation_id: str, *, ttl_ms: int) -> bool:
        """Let a hold live `ttl_ms` from now; never shortens it. False if it is no longer open."""
        checks.check_ttl(ttl_ms)
        call = self._find(reservation_id)
        if call is None:
            return self.shared.extend(reservation_id, ttl_ms=ttl_ms)
        with self._lock:
            if call.state != "held":
                return False
            expires_ms = self._clock() + ttl_ms
            if expires_ms > call.expires_ms:
                call.expires_ms = expires_ms
                self._books.add_deadline(expires_ms, reservation_id)
            if not call.is_moving() and not call.handed:
                return True
        # It moves, or may have moved, with its former time to live.
        self._moves.hand_over(call)
        return self.shared.extend(reservation_id, ttl_ms=ttl_ms)

    def raise_hold(self, reservation_id: str, amount: int, *, enforce: bool = True) -> Reserved | Refused:
        """Let a reservation hold more. See `runrails.ledger.SupportsRaise.raise_hold`."""
        checks.check_amount(amount, what="The amount to hold")
        call = self._find(reservation_id)
        if call is not None:
            with self._lock:
                if call.state != "held":
                    return Reserved(reservation_id, call.state, replayed=True)
                one, more = call.slice, amount - call.amount
                alone = call.is_moving() or call.handed
                if not alone and (more <= 0 or (one.room >= more and one in one.group.slices)):
                    if more > 0:
                        one.room -= more
                        one.group.open += more
                        call.amount = amount
                    return Reserved(reservation_id)
            self._moves.hand_over(call)
        self._views.forget()
        return self._ask(lambda: self.shared.raise_hold(reservation_id, amount, enforce=enforce))

    # Looking.

    def balance(self, account: Account) -> Balance:
        """The account as it stands, slices of this process counted as what was done with them."""
        checks.check_account(account)
        self._keep_up()
        return self._views.balance(account)

    def balances(self, *, scope: str | None = None, period: str | None = None) -> Iterator[Balance]:
        """Every account, newest period first, then by scope and unit."""
        self._keep_up()
        return self._views.balances(scope, period)

    def usage(
        self, *, user: str | None = None, period: str | None = None, run: str | None = None
    ) -> Iterator[UsageRecord]:
        """Records of calls, oldest first; `period` is a month like ``2026-11`` in UTC. Writes those that ended."""
        month_bounds(period)
        self._keep_up()
        self.write()
        return self._views.usage(user, period, run)

    def set_limit(self, scope: str, limit: int | None, *, unit: str = rules.MONEY) -> None:
        """Set or remove (None) the operator's limit of a scope; slices of it go back at once."""
        self._changed(lambda: self.shared.set_limit(scope, limit, unit=unit))
        with self._lock:
            accounts = [account for account in self._books.by_account if account.scope == scope]
        for account in accounts:
            self._moves.give_back_all(account)
        self._views.forget()

    # Keeping.

    def write(self) -> None:
        """Write every call that has ended. Raises StoreUnavailable with nothing lost."""
        with self._lock:
            found = [(group, one) for group in self._books.groups.values() for one in (*group.slices, *group.leaving)]
        for group, one in found:
            while one.ended:
                before = len(one.ended)
                self._moves.write(group, one)
                if len(one.ended) >= before:
                    break  # What is left could not be written, or more keeps coming.

    def tick(self) -> None:
        """One round: write calls, give back slices that are old or idle, fetch those that are about to be needed."""
        self._moves.tick()

    def close(self) -> None:
        """Give every slice back, calls in flight as open reservations, and close the shared store. Twice is fine."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if self._ended:
            return
        self._wake.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)
        try:
            self._moves.end()
        except Exception:
            self._end()
            raise
        self._end()  # not after Ctrl-C: then closing it again goes on

    def _end(self) -> None:
        self._ended = True
        if self._owns:
            self.shared.close()

    def __enter__(self) -> LeasedStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, reservation_id: str) -> Call | None:
        """The call, if it is this process's to decide on; waits for one that is being handed over."""
        while True:
            with self._lock:
                call = self._books.calls.get(reservation_id)
                if call is None or not call.is_moving():
                    if self._closed:
                        raise rules.closed()
                    if reservation_id in self._books.taken:
                        raise rules.taken(reservation_id)
                    return call
            with call.slice.group.moves:
                pass

    def _changed(self, verb: Callable[[], _T]) -> _T:
        """Do something in the shared store that makes what was remembered of it wrong."""
        try:
            return verb()
        finally:
            self._views.forget()

    def _keep_up(self) -> None:
        if not self._background:
            self._moves.tick(sweep=False)

    def _start(self) -> None:
        """Start the thread if there is none."""
        if not self._background:
            return
        # No more threads, or the interpreter is going down: calls do the moves themselves.
        with self._lock, suppress(RuntimeError):
            if self._thread is not None or self._closed:
                return
            thread = threading.Thread(target=self._loop, name="runrails-leases", daemon=True)
            thread.start()
            self._thread = thread

    def _loop(self) -> None:
        wake = self._wake
        while not self._closed:
            with suppress(Empty):
                wake.get(timeout=TICK_S)
            if self._closed:
                return
            with suppress(Exception):  # A bug in one round must not end the others.
                self._moves.tick()
            with self._lock:
                if all(group.is_idle() for group in self._books.groups.values()):
                    self._thread = None
                    return


_all: WeakSet[LeasedStore] = WeakSet()


def _at_exit() -> None:
    """A program that ends without closing its store gives its slices back all the same."""
    for store in list(_all):
        with suppress(Exception):
            store.close()


atexit.register(_at_exit)


def _after_fork() -> None:
    for store in list(_all):
        store.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
