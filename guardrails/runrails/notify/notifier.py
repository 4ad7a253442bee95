"""Sends events in the background: a bounded queue and a thread for each sender, and a few attempts for each notice."""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakSet, ref

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.deliveries import Delivered, SupportsDeliveries
from runrails.errors import ConfigError
from runrails.events import Event, log_sink
from runrails.ids import new_id
from runrails.notify.senders import FunctionSender, Notice, Sender, SendFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tenacity import RetryCallState

__all__ = ["WARNINGS", "Notifier"]

WARNINGS = frozenset({"runrails.budget_warned", "runrails.budget_limit_reached"})
"""The events that are sent if nothing else is said."""
WAITING_MAX = 1_000
ATTEMPTS_MAX = 5
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0
EXIT_S = 5.0
"""How long the end of a program waits for what is still to be sent."""
IDLE_S = 5.0


class Notifier:
    """
    A sink for `Guard(sinks=[…])` that sends some events on, each to every sender. Thread-safe.

    Handing it an event takes microseconds and never fails. What does not get through is tried again with growing
    pauses, then given up; beyond `waiting_max` waiting ones, new ones are dropped. What became of them is counted, and
    kept in the guard's store, where `runrails doctor` finds it.

    Args:
        senders: `Webhook`, `SlackWebhook`, `runrails_aws.SNSSender`, or a function that takes an `Event`.
        events: Names of the events that are sent.
        waiting_max: Most notices that wait for one sender.
        attempts_max: Most attempts for one notice.
        pause: Waits that many seconds between attempts, or until it is told to end.
        clock: When something happened.

    Raises:
        ConfigError: No sender, or something that cannot send.
    """

    def __init__(
        self,
        *senders: Sender | Callable[[Event], object],
        events: Collection[str] = WARNINGS,
        waiting_max: int = WAITING_MAX,
        attempts_max: int = ATTEMPTS_MAX,
        pause: Callable[[float], object] | None = None,
        clock: Clock = system_ms,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        if not senders or not all(callable(each) or isinstance(each, Sender) for each in senders):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers without types exist
            raise ConfigError(
                "A Notifier needs something that sends.",
                next_step="Write Notifier(Webhook(…)), or Notifier(function) with a function that takes an event.",
            )
        if waiting_max < 1 or attempts_max < 1:
            raise ConfigError("waiting_max and attempts_max must be at least 1.", next_step="Leave them out.")
        self._events = frozenset(events)
        self._clock = clock
        self._make_id = make_id
        self._lanes = [
            _Lane(each if isinstance(each, Sender) else FunctionSender(each), waiting_max, attempts_max, pause)
            for each in senders
        ]

    def __call__(self, event: Event) -> None:
        """Take an event, if it is one of those that are sent."""
        if event.name not in self._events:
            return
        notice = Notice(self._make_id(), self._clock(), event)
        for lane in self._lanes:
            lane.add(notice)

    def bind(self, store: object) -> None:
        """Keep what becomes of notices in this store, if it can. A guard does this with its own."""
        if isinstance(store, SupportsDeliveries):
            for lane in self._lanes:
                lane.books = ref(store)

    def flush(self, timeout_s: float = EXIT_S) -> bool:
        """Wait until everything is sent or given up, so many seconds at most. Whether it is."""
        end_ms = monotonic_ms() + int(timeout_s * 1_000)
        waits = [lane.wait((end_ms - monotonic_ms()) / 1_000) for lane in self._lanes]
        return all(waits)

    def counts(self) -> dict[str, Delivered]:
        """By sender, what became of what this process has sent so far."""
        found: dict[str, Delivered] = {}
        for lane in self._lanes:
            found[lane.sender.name] = _sum(found.get(lane.sender.name, Delivered()), lane.total)
        return found


class _Lane:
    """One sender, what waits for it, and the thread that sends."""

    def __init__(
        self, sender: Sender, waiting_max: int, attempts_max: int, pause: Callable[[float], object] | None
    ) -> None:
        self.sender = sender
        self.total = Delivered()
        self.books: Callable[[], SupportsDeliveries | None] = _nowhere
        self._waiting_max = waiting_max
        self._attempts_max = attempts_max
        self._given_pause = pause
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """In a forked child: what waits is the parent's to send."""
        # Taken by itself: a Condition's own `with` is Python, in which Ctrl-C may leave the lock taken for ever.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Notice] = deque()
        self._busy = False
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._unwritten = Delivered()

    def add(self, notice: Notice) -> None:
        with self._lock:
            kept = len(self._waiting) < self._waiting_max and not self._ending.is_set()
            if kept:
                self._waiting.append(notice)
                self._changed.notify_all()
        if not kept:
            # No store is asked here: this may be a thread that must not wait.
            self._count(Delivered(dropped=1, error="QueueFull"))
        elif self._thread is None:
            self._start()

    def wait(self, timeout_s: float) -> bool:
        with self._lock:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, max(0.0, timeout_s))

    def give_up(self) -> None:
        """The program ends: nothing more is tried."""
        self._ending.set()
        with self._lock:
            lost = len(self._waiting) + self._busy
            self._waiting.clear()
        self._count(Delivered(dropped=lost, error="ProgramEnded"))
        self._write()

    def _start(self) -> None:
        lost = 0
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._loop, name="runrails-notifier", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:  # no more threads, or the interpreter is going down
                lost = len(self._waiting)
                self._waiting.clear()
        if lost:
            self._count(Delivered(dropped=lost, error="NoThread"))

    def _loop(self) -> None:
        while True:
            with self._lock:
                if not self._changed.wait_for(lambda: bool(self._waiting), IDLE_S):
                    self._thread = None
                    return
                notice = self._waiting.popleft()
                self._busy = True
            try:
                self._count(self._send(notice))
                self._write()
            except BaseException as error:  # noqa: BLE001 -- a log or a store may be broken too: the next notice is sent
                self._count(Delivered(failed=1, error=type(error).__name__))
            finally:
                with self._lock:
                    self._busy = False
                    self._changed.notify_all()

    def _send(self, notice: Notice) -> Delivered:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        attempts = Retrying(
            sleep=self._pause, stop=stop_after_attempt(self._attempts_max), wait=_pause_s,
            retry=retry_if_exception(self._may_help), reraise=True,
        )  # fmt: skip
        try:
            attempts(self.sender.send, notice)
        except BaseException as error:  # noqa: BLE001 -- a cancelled future's error, or an exit, ends no thread of ours
            reason = error.reason if isinstance(error, SendFailed) else type(error).__name__
            fields: dict[str, str | int | bool | None] = {
                "sender": self.sender.name, "error": reason, "notice": notice.id, "about": notice.event.name,
            }  # fmt: skip
            log_sink(Event("runrails.notification_failed", "error", fields))
            return Delivered(failed=1, error=reason)
        return Delivered(sent=1)

    def _may_help(self, error: BaseException) -> bool:
        if self._ending.is_set() or not isinstance(error, Exception):
            return False
        return not isinstance(error, SendFailed) or error.again

    def _pause(self, seconds: float) -> None:
        if self._given_pause is not None:
            self._given_pause(seconds)
        else:
            self._ending.wait(seconds)

    def _count(self, what: Delivered) -> None:
        with self._lock:
            self.total = _sum(self.total, what)
            self._unwritten = _sum(self._unwritten, what)

    def _write(self) -> None:
        store = self.books()
        if store is None:
            return
        with self._lock:
            what, self._unwritten = self._unwritten, Delivered()
        if what == Delivered():
            return
        try:
            store.note_delivery(self.sender.name, what)
        except Exception:  # noqa: BLE001 -- of whatever store
            with self._lock:  # with the next one, then
                self._unwritten = _sum(what, self._unwritten)


def _nowhere() -> None:
    return None


def _sum(one: Delivered, other: Delivered) -> Delivered:
    return Delivered(
        one.sent + other.sent, one.failed + other.failed, one.dropped + other.dropped, other.error or one.error
    )


def _pause_s(state: RetryCallState) -> float:
    """Growing pauses with jitter, so that many processes do not come back at once; never before they are welcome."""
    from tenacity import wait_random_exponential

    pause_s = wait_random_exponential(multiplier=PAUSE_FIRST_S, max=PAUSE_MAX_S)(state)
    error = None if state.outcome is None else state.outcome.exception()
    return max(pause_s, error.wait_s) if isinstance(error, SendFailed) else pause_s


# Of lanes, since their threads keep them: a notifier may be gone before all is sent that it was given.
_all: WeakSet[_Lane] = WeakSet()


def _at_exit() -> None:
    """Send what can be sent in a few seconds, and count the rest as dropped."""
    end_ms = monotonic_ms() + int(EXIT_S * 1_000)
    for lane in list(_all):
        if not lane.wait((end_ms - monotonic_ms()) / 1_000):
            lane.give_up()


def _after_fork() -> None:
    for lane in list(_all):
        lane.forget()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
