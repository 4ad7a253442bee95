"""
Calls that were let through while the ledger was out of reach, on disk until they are in it.

A guard that allows them (`on_store_error="allow"`, or one that observes) writes such a call down before it starts and
again when it has ended, each time through to the disk. So a process that is killed loses none of them: the next guard
on the same ledger finds the file and writes what is in it. Ids were made before, so nothing is counted twice. A file
that somebody still writes to is locked, which the operating system ends with its process.

A file has ids, amounts, scopes and the facts that usage records have; no prompt, and nothing that a model said.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast
from weakref import WeakSet

from runrails.errors import LedgerError, UnknownReservation
from runrails.ids import new_id
from runrails.ledger import RUN_PERIOD, Account, CallFacts, Hold, Reservation, ResultFacts, Store
from runrails.stores import books_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runrails.events import Emitter
    from runrails.settlement import Settlement

__all__ = ["SUFFIX", "Bypass", "Left", "Pending", "directory", "left_in"]

SUFFIX = ".calls"
CALLS_MAX = 100_000
"""Most calls of a file; those beyond are kept in memory only."""
_VERSION = 1


class Pending(NamedTuple):
    """A call that is not in the ledger yet."""

    reservation: Reservation
    actual: int
    unresolved: bool
    result: ResultFacts | None

    @property
    def bound(self) -> int:
        """What it was held for, or would have been."""
        return self.reservation.holds[0].amount


class Left(NamedTuple):
    """A file as it was found."""

    path: str
    books: str
    """Which ledger it belongs to."""
    calls: tuple[Pending, ...]
    damaged: int
    """Lines that cannot be read, but for the last, which a crash may have cut."""
    alive: bool
    """Whether the process that writes it still runs."""


def directory() -> str:
    """Where such files are: `RUNRAILS_JOURNAL`, else `bypassed` in the user's data directory."""
    named = os.environ.get("RUNRAILS_JOURNAL")
    if named:
        return named
    from platformdirs import user_data_dir

    return os.path.join(user_data_dir("runrails", appauthor=False), "bypassed")  # noqa: PTH118 -- pathlib costs 3 ms


class Bypass:
    """The file of one guard; it is made with the first such call. Thread-safe."""

    behind: list[str]
    """Files of others; those whose owners live are looked at again."""
    urgent: bool
    """Whether one of them may be waiting for the ledger."""

    def __init__(self, store: Store, emit: Emitter) -> None:
        # Of a leased store the shared one: it alone knows what other processes have written.
        self._store = cast("Store", getattr(store, "shared", store))
        self._emit = emit
        self._books = books_of(store)
        self.forget()
        self.behind = self._left_behind()
        self.urgent = bool(self.behind)
        _all.add(self)

    def forget(self) -> None:
        """Start anew in a forked child: the file is the parent's."""
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path = ""
        self._open: set[str] = set()
        self.behind = []
        self.urgent = False

    def let_go(self) -> None:
        """In a forked child: end its share of the parent's lock, then forget."""
        if self._file is not None:
            os.close(self._file)
        self.forget()

    def begun(self, reservation: Reservation) -> None:
        """A call is about to start that the ledger does not know."""
        if self._books is None:
            return  # such a ledger ends with the process
        facts = reservation.facts
        line: dict[str, object] = {
            "id": reservation.id, "ttl": reservation.ttl_ms,
            "holds": [[*hold.account, hold.amount] for hold in reservation.holds],
        }  # fmt: skip
        if facts is not None:
            from runrails.stores._codec import facts_text

            line |= {"user": facts.user, "run": facts.run, "facts": facts_text(facts)}
        with self._lock:
            error = f"more than {CALLS_MAX}" if len(self._open) >= CALLS_MAX else self._write(line)
            if error is None:
                self._open.add(reservation.id)
        self._tell(error)

    def ended(self, reservation_id: str, settlement: Settlement, result: ResultFacts) -> None:
        """It has ended, and the ledger still cannot be told."""
        from runrails.stores._codec import result_text

        actual, unresolved = settlement.actual_pusd, settlement.unresolved
        line = {"id": reservation_id, "actual": actual, "unresolved": unresolved, "result": result_text(result)}
        with self._lock:
            error = self._write(line) if reservation_id in self._open else None
        self._tell(error)

    def written(self, reservation_id: str) -> None:
        """The ledger has it now, or need not have it."""
        if not self._open:
            return
        with self._lock:
            if reservation_id not in self._open:
                return
            self._open.discard(reservation_id)
            if self._open:
                self._write({"id": reservation_id, "written": True}, durable=False)
            else:
                self._remove()

    def close(self) -> int:
        """Let others have the file; how many calls are left in it."""
        with self._lock:
            left = len(self._open)
            if self._file is not None:
                os.close(self._file)
                self._file = None
            self._open = set()
        return left

    def catch_up(self) -> list[Account]:
        """
        Write what dead processes have left behind; the months that it was counted in.

        Raises:
            StoreUnavailable: The ledger is still away.
        """
        charged: dict[Account, None] = {}
        self.behind = [path for path in self.behind if not self._take_over(path, charged)]
        self.urgent = False
        return [account for account in charged if account.period != RUN_PERIOD]

    def _left_behind(self) -> list[str]:
        where = directory() if self._books is not None else ""
        if self._books is None or not os.path.isdir(where):  # noqa: PTH112 -- pathlib costs 3 ms to load
            return []
        own = _stem(self._books)
        return [path for path in _files(where) if os.path.basename(path).startswith(own)]  # noqa: PTH119 -- as above

    def _take_over(self, path: str, charged: dict[Account, None]) -> bool:
        """Whether nothing is left to do: not so while its owner lives, or another process is at it."""
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            if not _lock(file):
                return False
            if os.fstat(file).st_nlink:
                left = _read(file, path, alive=False)
                self._write_all(left)
                charged.update((hold.account, None) for call in left.calls for hold in call.reservation.holds)
        finally:
            os.close(file)
        return True

    def _write_all(self, left: Left) -> None:
        damaged = left.damaged
        for call in left.calls:
            try:
                self._reconcile(call)
            except (ValueError, TypeError, OverflowError):  # well formed, but nothing that a ledger takes
                damaged += 1
        if damaged:
            os.rename(left.path, f"{left.path}.damaged")  # noqa: PTH104 -- pathlib costs 3 ms to load
        else:
            os.unlink(left.path)  # noqa: PTH108 -- as above
        if left.calls or damaged:
            total = sum(call.actual for call in left.calls)
            self._emit(
                "bypassed_reconciled", "warning", count=len(left.calls), cost_pusd=total, damaged=damaged
            )  # fmt: skip

    def _reconcile(self, call: Pending) -> None:
        store, name = self._store, call.reservation.id
        try:
            with suppress(LedgerError):  # it may be there with what it was really asked for
                store.reserve(call.reservation)
            store.settle(name, call.actual, result=call.result, unresolved=call.unresolved)
        except UnknownReservation as exc:
            self._emit("settlement_lost", "error", count=1, waiting=0, reason=exc.what)
        except LedgerError:
            return  # it was settled with another amount, by its owner: that is the better one

    def _write(self, line: Mapping[str, object], *, durable: bool = True) -> str | None:
        """Why it could not be written; None if it is."""
        try:
            if self._file is None:
                self._make()
            file = cast("int", self._file)
            _append(file, line)
            if durable:
                os.fsync(file)
        except OSError as exc:
            return exc.strerror or type(exc).__name__
        return None

    def _tell(self, error: str | None) -> None:
        """With the lock let go: who listens may come back."""
        if error is not None:
            self._emit("bypass_not_kept", "error", reason=error)

    def _make(self) -> None:
        where, books = directory(), cast("str", self._books)
        os.makedirs(where, mode=0o700, exist_ok=True)  # noqa: PTH103 -- pathlib gives parents the default mode too
        path = os.path.join(where, f"{_stem(books)}-{new_id()}{SUFFIX}")  # noqa: PTH118 -- pathlib costs 3 ms
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        if not _lock(file):
            os.close(file)
            raise OSError(0, "another process took the file")
        self._file, self._path = file, path
        _append(file, {"runrails": _VERSION, "books": books})
        _sync_directory(where)

    def _remove(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 -- pathlib costs 3 ms to load
            os.close(self._file)
            self._file = None


def left_in(where: str) -> Iterator[Left]:
    """Every file in a directory that has calls in it, or lines that cannot be read."""
    for path in _files(where) if os.path.isdir(where) else ():  # noqa: PTH112 -- pathlib costs 3 ms to load
        with suppress(OSError):  # it has just been removed
            file = os.open(path, os.O_RDWR)
            try:
                left = _read(file, path, alive=not _lock(file))
            finally:
                os.close(file)
            if left.calls or left.damaged:
                yield left


def _files(where: str) -> list[str]:
    with os.scandir(where) as entries:
        return sorted(entry.path for entry in entries if entry.name.endswith(SUFFIX) and entry.is_file())


def _stem(books: str) -> str:
    from hashlib import sha256

    return sha256(books.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _append(file: int, line: Mapping[str, object]) -> None:
    # One write a line: what a crash cuts is the last one, of a call that has not begun. What a full disk has cut ends
    # where the next one begins.
    text = b"\n" + json.dumps(line, separators=(",", ":")).encode() + b"\n"
    if os.write(file, text) < len(text):
        raise OSError(0, "the disk is full")


def _lock(file: int) -> bool:
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:  # Windows
        return _lock_on_windows(file)
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except OSError:
        return False
    return True


def _lock_on_windows(file: int) -> bool:
    from importlib import import_module

    locking = import_module("msvcrt")
    try:
        # A byte far behind the end, so that others can read the lines.
        os.lseek(file, 1 << 40, os.SEEK_SET)
        locking.locking(file, locking.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def _sync_directory(where: str) -> None:
    """Let the file's name be on the disk as well; Windows has no such thing."""
    with suppress(OSError):
        handle = os.open(where, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(file: int, path: str, *, alive: bool) -> Left:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), "rb") as opened:
        lines = opened.read().split(b"\n")
    books, calls, damaged = "", dict[str, Pending](), 0
    for place, line in enumerate(lines):
        try:
            told = cast("dict[str, object]", json.loads(line)) if line else {}
            if "books" in told:
                books = str(told["books"])
            elif told:
                _take_in(calls, told)
        except (KeyError, TypeError, ValueError, IndexError, RecursionError):
            damaged += place < len(lines) - 1
    return Left(path, books, tuple(calls.values()), damaged, alive)


def _take_in(calls: dict[str, Pending], told: Mapping[str, object]) -> None:
    from runrails.stores._codec import facts_from_text, result_from_text

    name = cast("str", told["id"])
    if "holds" in told:
        written = cast("list[tuple[str, str, str, int]]", told["holds"])
        # No limit: what the code of a dead process said of it may be out of date.
        holds = tuple([Hold(Account(scope, period, unit), _int(amount)) for scope, period, unit, amount in written])
        facts: CallFacts | None = None
        if "facts" in told:
            facts = facts_from_text(str(told["user"]), str(told["run"]), str(told["facts"]))
        reservation = Reservation(name, holds, cast("int", told["ttl"]), facts, enforce=False)
        calls[name] = Pending(reservation, holds[0].amount, unresolved=True, result=None)
    elif told.get("written") is True:
        calls.pop(name, None)
    else:
        actual, unresolved = _int(told["actual"]), told["unresolved"] is True
        calls[name] = calls[name]._replace(
            actual=actual, unresolved=unresolved, result=result_from_text(str(told["result"]))
        )


def _int(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("An amount in a journal is a whole number of picodollars.")
    return value


_all: WeakSet[Bypass] = WeakSet()


def _after_fork() -> None:
    for one in list(_all):
        one.let_go()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
