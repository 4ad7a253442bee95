"""
One background thread a guard: keeps holds alive, sends warnings, writes what the store could not take.

It is started with the first call and off the hot path, and ends when there is nothing left to keep; `tick` does one
round and can be called by hand.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

from runrails.balances import balances_of
from runrails.errors import LedgerError, RunrailsError, StoreUnavailable, format_amount
from runrails.ledger import Account, Balance, Store, SupportsExtend, SupportsWarnings, WarningMark
from runrails.values import named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runrails.bypass import Bypass
    from runrails.clocks import Clock
    from runrails.events import Emitter

__all__ = ["Held", "Housekeeper"]

EXTEND_EVERY_MS = 40_000
EXTEND_FOR_MS_MAX = 3_600_000
"""A permit nobody hands back for this long is given up: its hold is charged when it expires, and may settle late."""
IDLE_S = 5.0
POSTPONED_MAX = 10_000
WRITERS_MAX = 8
"""Threads that ask a store behind a network at once: one after another, what waits for a slow one would expire."""
ROUND_MS_MAX = 15_000
"""Then what is held is looked at again, before more is written of what waits."""
SETTLE_S = 0.05
"""How long warnings are gathered before the balances are read, so that a burst of calls costs one read."""
READ_TOGETHER_MAX = 128
"""Accounts: a gateway has many callers, and each read by itself would take turns with its event loop."""
TOLD_MAX = 1_000


class Held(NamedTuple):
    """A hold to keep alive; times are monotonic."""

    opened_ms: int
    extended_ms: int
    ttl_ms: int


class _Postponed(NamedTuple):
    """A write that waits for the store."""

    write: Callable[[], object]
    hold: tuple[str, int] | None
    """The reservation that it ends, and how long that lives: until then it must not expire, which would charge it."""


class _Watched(NamedTuple):
    """What to look for in an account."""

    exhausted: bool
    """It has refused even the smallest call."""
    in_code: int | None
    """The limit that code gives it."""


class Housekeeper:
    """Thread-safe. Does nothing, and keeps no thread, while there is nothing to keep."""

    def __init__(
        self, store: Store, emit: Emitter, *, monotonic: Clock, idle_s: float = IDLE_S, tolerant: bool = False
    ) -> None:
        self.bypass = _bypass(store, emit) if tolerant else None
        """Where calls are written down that the ledger could not be asked about."""
        self._store = store
        self._emit = emit
        emit.bind(store)
        self._monotonic = monotonic
        self._idle_s = idle_s
        self.soon_ms = int(3_000 * idle_s)
        """Holds that live shorter than this may have to be kept alive before the thread looks again."""
        self._told: set[Account] = set()
        self._closed = False
        self.forget()
        _all.add(self)
        if self.bypass is not None and self.bypass.urgent:
            self._call_thread()

    def forget(self) -> None:
        """Start anew in a forked child: locks may be taken for ever, and what was open belongs to the parent."""
        self._lock = threading.Lock()
        self._round = threading.RLock()
        """What another thread has in its hands just now would be overlooked."""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self.open: dict[str, Held] = {}
        """Holds to keep alive, by id; who ends one takes it away. Every call adds one, by itself: see `opened`."""
        self.watched: dict[Account, _Watched] = {}
        """Accounts to look at soon."""
        self._postponed: deque[_Postponed] = deque()
        self._waiting: dict[str, Held] = {}
        """Holds that postponed writes are to end, to be kept alive until then."""
        self.left_behind: deque[Callable[[], object]] = deque()
        """Settlements that a finaliser left here: it may run while this very thread has a lock, so it takes none."""
        self.thread: threading.Thread | None = None
        """What keeps them alive, while it is needed."""

    def opened(self, reservation_id: str, ttl_ms: int) -> None:
        """A hold is open: keep it alive until `ended`."""
        now = self._monotonic()
        self.open[reservation_id] = named(Held, (now, now, ttl_ms))
        if self.thread is None or ttl_ms < self.soon_ms:
            self.attend(ttl_ms)

    def attend(self, ttl_ms: int) -> None:
        """See to a hold that was added while there was no thread, or that lives shorter than `soon_ms`."""
        if self.thread is None:
            self._start()
        if ttl_ms < self.soon_ms:
            self._wake.set()

    def ended(self, reservation_id: str) -> None:
        """A hold is no longer ours to keep alive."""
        self.open.pop(reservation_id, None)

    def watch(self, accounts: Sequence[Account], in_code: Sequence[int | None] = ()) -> None:
        """These accounts were charged: see soon whether a warning is due. `in_code` are their limits in code."""
        with self._lock:
            watched = self.watched
            for place, account in enumerate(accounts):
                if account not in watched:
                    known = in_code[place] if place < len(in_code) else None
                    watched[account] = _Watched(exhausted=False, in_code=known)
        self._call_thread()

    def refused(self, account: Account) -> None:
        """This account has no room for even the smallest call: its owner should hear of it."""
        with self._lock:
            known = self.watched.get(account)
            self.watched[account] = _Watched(exhausted=True, in_code=None if known is None else known.in_code)
        self._call_thread()

    def postpone(self, write: Callable[[], object], *, hold: tuple[str, int] | None = None) -> bool:
        """
        Repeat an (idempotent) write that the store could not take. False beyond 10,000 or after `close`: lost.

        Args:
            write: The write.
            hold: The reservation that it ends, and for how long that lives; it is kept alive until then.
        """
        with self._lock:
            kept = len(self._postponed) < POSTPONED_MAX and not self._closed
            if kept:
                if not self._postponed:
                    atexit.register(self.work_off)
                self._postponed.append(_Postponed(write, hold))
                if hold is not None:
                    now = self._monotonic()
                    self._waiting[hold[0]] = Held(now, now, hold[1])
        if kept:
            self._call_thread()
        else:
            self._emit("settlement_lost", "error", count=1, waiting=len(self._postponed))
        return kept

    def tick(self) -> None:
        """One round: holds to extend, writes that waited, warnings that are due."""
        with self._round:
            for chore in (self.settle_left_behind, self._extend, self._write_postponed, self._reconcile, self._warn):
                try:
                    chore()
                except Exception as exc:  # noqa: BLE001 -- one chore's bug must not end the others
                    self._emit("housekeeping_failed", "error", error=type(exc).__name__)

    def work_off(self) -> None:
        """As `tick`, round after round while the store takes what waits for it."""
        waiting = len(self._postponed)
        self.tick()
        while 0 < len(self._postponed) < waiting:
            waiting = len(self._postponed)
            self.tick()

    def close(self) -> None:
        """Stop the thread and do what there is left to do. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self.thread
        self._closing.set()
        self._wake.set()
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(timeout=IDLE_S)
        self.work_off()
        lost = len(self._postponed)
        kept = 0 if self.bypass is None else self.bypass.close()
        if kept:
            self._emit("settlement_kept", "warning", count=kept)
        if lost > kept:
            self._emit("settlement_lost", "error", count=lost - kept, waiting=0)
        self._emit.flush()

    # The thread.

    def _call_thread(self) -> None:
        if self.thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self.thread is not None or self._closed:
                return
            self.thread = thread = threading.Thread(target=self._loop, name="runrails-housekeeper", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # no more threads, or the interpreter is going down: `flush` still does the chores
            self.thread = None
            self._emit("housekeeping_failed", "error", error=type(exc).__name__)

    def _loop(self) -> None:
        try:
            while not self._closed:
                woken = self._wake.wait(timeout=self._pause_s())
                if woken and not self._closing.is_set():
                    self._closing.wait(SETTLE_S)
                self._wake.clear()
                if self._closed:
                    return
                self.tick()
                if not woken and self._may_rest():
                    return
        finally:
            with self._lock:
                if self.thread is threading.current_thread():
                    self.thread = None

    def _pause_s(self) -> float:
        shortest = min((hold.ttl_ms for hold in list(self.open.values())), default=EXTEND_EVERY_MS)
        return min(self._idle_s, shortest / 4_000)

    def _may_rest(self) -> bool:
        # First away, then look: who opens a hold adds it first and looks for the thread then, so one sees the other.
        with self._lock:
            me, self.thread = self.thread, None
            behind = self.bypass is not None and self.bypass.urgent
            if self.open or self._postponed or self.watched or self.left_behind or behind:
                self.thread = me
                return False
            return True

    # The chores.

    def settle_left_behind(self) -> None:
        """Settle the streams that nobody closed."""
        while self.left_behind:
            try:
                settle = self.left_behind.popleft()
            except IndexError:  # another thread has just taken it
                return
            try:
                settle()
            except Exception as exc:  # noqa: BLE001 -- called on behalf of a stream long gone, by whoever calls next
                self._emit("housekeeping_failed", "error", error=type(exc).__name__)

    def _write_postponed(self) -> None:
        until_ms = self._monotonic() + ROUND_MS_MAX

        def write() -> None:
            while self._monotonic() < until_ms and self._write_one():
                pass

        self._together(write, len(self._postponed))
        if self._postponed and self._monotonic() >= until_ms:
            self._wake.set()  # The store answers, if slowly: the next round begins at once.

    def _write_one(self) -> bool:
        """Write what has waited longest. Whether to go on with the next."""
        with self._lock:
            if not self._postponed:
                return False
            waiting = self._postponed.popleft()
            if not self._postponed:
                atexit.unregister(self.work_off)
        try:
            waiting.write()
        except StoreUnavailable:
            self._put_back(waiting)
            return False
        except Exception as exc:  # noqa: BLE001 -- one write's bug must not lose the others
            self._emit("settlement_failed", "error", reason=_reason(exc))
        except BaseException:
            self._put_back(waiting)
            raise
        if waiting.hold is not None:
            self._waiting.pop(waiting.hold[0], None)
        return True

    def _together(self, work: Callable[[], None], count: int) -> None:
        """Do work that takes its parts from a common heap: in several threads, if each part waits for a network."""
        threads: list[threading.Thread] = []
        if self._store.remote:
            with suppress(RuntimeError):  # no more threads, or the interpreter is going down: this one does it all
                for number in range(1, min(count, WRITERS_MAX)):
                    thread = threading.Thread(target=work, name=f"runrails-housekeeper-{number}", daemon=True)
                    thread.start()
                    threads.append(thread)
        try:
            work()
        finally:
            for thread in threads:
                thread.join()

    def _reconcile(self) -> None:
        if self.bypass is not None and self.bypass.behind:
            with suppress(StoreUnavailable):
                self.watch(self.bypass.catch_up())

    def _put_back(self, waiting: _Postponed) -> None:
        with self._lock:
            if not self._postponed and not self._closed:
                atexit.register(self.work_off)
            self._postponed.appendleft(waiting)

    def _extend(self) -> None:
        store = self._store
        if not isinstance(store, SupportsExtend):
            return
        now = self._monotonic()
        due = [
            (reservation_id, hold, holds)
            for holds in (self.open, self._waiting)
            for reservation_id, hold in list(holds.items())
            if now - hold.extended_ms >= min(EXTEND_EVERY_MS, hold.ttl_ms // 3)
            or now - hold.opened_ms >= EXTEND_FOR_MS_MAX
        ]
        due.reverse()
        away = threading.Event()

        def extend() -> None:
            while not away.is_set():
                try:
                    one = due.pop()
                except IndexError:
                    return
                try:
                    self._extend_one(store, *one, now)
                except (StoreUnavailable, LedgerError):
                    away.set()

        self._together(extend, len(due))

    def _extend_one(
        self, store: SupportsExtend, reservation_id: str, hold: Held, holds: dict[str, Held], now: int
    ) -> None:  # fmt: skip
        if now - hold.opened_ms >= EXTEND_FOR_MS_MAX:
            if holds.pop(reservation_id, None) is not None and holds is self.open:
                self._emit("hold_abandoned", "warning", reservation=reservation_id)
            return
        kept = store.extend(reservation_id, ttl_ms=hold.ttl_ms)
        if not kept:
            holds.pop(reservation_id, None)
        elif reservation_id in holds:
            holds[reservation_id] = hold._replace(extended_ms=now)

    def _warn(self) -> None:
        with self._lock:
            watched, self.watched = self.watched, {}
        if not isinstance(self._store, SupportsWarnings):
            return
        while watched:
            some = list(islice(watched, READ_TOGETHER_MAX))
            try:
                for balance in balances_of(self._store, some):
                    if balance.account in watched:
                        self._warn_one(self._store, balance, watched[balance.account])
                        del watched[balance.account]
            except (StoreUnavailable, LedgerError):
                with self._lock:
                    self.watched = watched | self.watched
                return
            for account in some:  # One that the store says nothing of is not asked about for ever.
                watched.pop(account, None)

    def _warn_one(self, claims: SupportsWarnings, balance: Balance, what: _Watched) -> None:
        account, limit = balance.account, balance.limit
        if limit is None:
            return
        overridden = balance.limit_source == "operator" and what.in_code not in (None, limit)
        if overridden and account not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(account)
            self._emit(
                "limit_overridden", scope=account.scope, period=account.period, unit=account.unit, limit=limit,
                limit_in_code=what.in_code,
            )  # fmt: skip
        if not (what.exhausted or balance.spent * 10_000 >= limit * balance.warn_bp):
            return
        mark: WarningMark = "limit" if what.exhausted or balance.spent >= limit else "warning"
        if claims.claim_warning(account, mark):
            self._emit(
                "budget_limit_reached" if mark == "limit" else "budget_warned", "warning",
                scope=account.scope, period=account.period, unit=account.unit, limit=limit,
                spent=balance.spent, held=balance.held,
                message=f"{account.scope} has used {format_amount(balance.spent, account.unit)} of its "
                f"{format_amount(limit, account.unit)} budget in {account.period}.",
            )  # fmt: skip


def _bypass(store: Store, emit: Emitter) -> Bypass:
    from runrails.bypass import Bypass

    return Bypass(store, emit)


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, RunrailsError) else type(error).__name__


_all: WeakSet[Housekeeper] = WeakSet()


def _at_exit() -> None:
    """What was dropped and not settled yet must be in the books before the program ends."""
    for keeper in list(_all):
        keeper.settle_left_behind()


atexit.register(_at_exit)


def _after_fork() -> None:
    for keeper in list(_all):
        keeper.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
