"""
One SQLite file, shared by the threads of this process and by other processes.

Threads share one connection and a lock: a lock of ours hands over at once, where SQLite would let threads sleep.
A connection must not survive a fork (its file locks are not inherited, and both processes would believe they hold
them), so it is closed before one and opened anew on both sides. https://sqlite.org/howtocorrupt.html §2.6
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeVar
from weakref import WeakSet

from runrails.clocks import monotonic_ms
from runrails.errors import ConfigError, RunrailsError, StoreUnavailable
from runrails.stores import checks, rules
from runrails.stores._schema import LEDGER
from runrails.stores._sqlite_schema import Schema, prepare

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SharedFile"]

T = TypeVar("T")
_PAUSE_FIRST_S = 0.000_2
_PAUSE_MAX_S = 0.002


class _Connection(sqlite3.Connection):
    """Closed when nobody has it any more: a guard at module level never is, which Python 3.13 would warn of."""

    def __del__(self) -> None:
        self.close()


class SharedFile:
    """
    A file and this process's connection to it.

    Args:
        path: The file. Made with mode 0600 if it does not exist; its directory must exist.
        synchronous: FULL waits for the disk at every write that is to be waited for; NORMAL may lose the last writes if
            the power fails (never if only the process does).
        busy_timeout_ms: How long a verb waits for other processes and threads before it gives up.
        schema: What kind of file it is.

    Raises:
        ConfigError: The path is no file's, or `synchronous` is another word.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"],
        busy_timeout_ms: int,
        schema: Schema = LEDGER,
    ) -> None:
        name = os.fspath(path)
        if not name or name.startswith((":", "file:")):
            raise ConfigError(
                f"A SQLite {schema.noun} needs a file.",
                next_step=f"Name one, or keep it in memory: {schema.setting}=memory:.",
            )
        if synchronous not in {"FULL", "NORMAL"}:
            raise ConfigError("synchronous must be FULL or NORMAL.", next_step="Leave it out for the default.")
        checks.check_count(busy_timeout_ms, what="busy_timeout_ms", count_max=600_000)
        # A relative path must mean the same file after the process has changed its directory.
        self.path = os.path.abspath(name)  # noqa: PTH100 -- SQLite takes a str
        self._schema = schema
        self._synchronous = synchronous
        self._waiting: bool = True
        """Whether the connection waits for the disk at its next write; with NORMAL it never does."""
        self._busy_timeout_ms = busy_timeout_ms
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._log: int | None = None
        """The file that the connection writes to first, once it was flushed."""
        self.writes = 0
        """How many writes were begun here: whoever sees the same number has missed none of this process."""
        self._pid = os.getpid()
        self._closed = False
        self._forking = False
        _files.add(self)
        self.read(lambda _: None)

    def write(self, step: Callable[[sqlite3.Connection], T], *, waits: bool = True) -> T:
        """
        Run `step` alone in the whole file: all of its writes are kept, or none if it raises.

        Args:
            step: What is done.
            waits: Whether to wait until it is on the disk. If not, it is there with the next write that does wait, by
                whichever process: what is written later is never kept without what was written before.
        """
        return self._run(step, begin="BEGIN IMMEDIATE", waits=waits)

    def read(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run `step`, which only reads (and may do so twice), on one moment of the file."""
        return self._run(step, begin="BEGIN", waits=self._waiting)

    def at_once(self, step: Callable[[sqlite3.Connection], T], *, reads: bool = False) -> T:
        """Run `step`, which makes one statement (and may do so twice): it needs no transaction around it."""
        return self._run(step, begin="", waits=self._waiting if reads else True)

    def flush(self) -> None:
        """Wait until all that was written without waiting is on the disk."""
        self._run(lambda _: self._flush(), begin="", waits=self._waiting)

    def _flush(self) -> None:
        try:
            if self._log is None:
                self._log = os.open(f"{self.path}-wal", os.O_RDWR)
                _sync_directory(self.path)
            _sync(self._log)
        except OSError as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        """Let go of the file. Every later use raises `StoreUnavailable`."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _run(self, step: Callable[[sqlite3.Connection], T], *, begin: str, waits: bool) -> T:
        deadline_ms = monotonic_ms() + self._busy_timeout_ms
        if self._pid != os.getpid():
            self.forget()
        lock = self._lock
        taken: list[bool] = []
        try:
            # Taking the lock and noting that it is taken is one call: Ctrl-C strikes between calls, never inside.
            taken.extend(map(lock.acquire, (True,), (self._busy_timeout_ms / 1_000,)))
            if not taken[0]:
                raise self._busy()
            return self._run_alone(step, begin, deadline_ms, waits=waits)
        except sqlite3.Error as error:
            raise self._explained(error) from error
        finally:
            if taken and taken[0]:
                lock.release()

    def _run_alone(
        self, step: Callable[[sqlite3.Connection], T], begin: str, deadline_ms: int, *, waits: bool
    ) -> T:  # fmt: skip
        connection = self._connection or self._connect(deadline_ms)
        try:
            if connection.in_transaction:  # Ctrl-C kept the step before from being undone.
                self._roll_back(connection)
                connection = self._connection or self._connect(deadline_ms)
            if waits is not self._waiting and self._synchronous == "FULL":
                connection.execute(f"PRAGMA synchronous = {'FULL' if waits else 'NORMAL'}")
                self._waiting = waits
            if not begin:
                return _patiently(lambda: step(connection), deadline_ms)
            if begin == "BEGIN":
                # Reading begins with the first statement, so that is where another program's lock is met.
                outcome = _patiently(lambda: self._look(connection, step), deadline_ms)
            else:
                try:
                    connection.execute(begin)
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF not in _BUSY:
                        raise
                    _patiently(lambda: connection.execute(begin), deadline_ms)
                self.writes += 1
                outcome = step(connection)
            connection.execute("COMMIT")
            return outcome
        finally:
            if connection.in_transaction:
                self._roll_back(connection)

    def _look(self, connection: sqlite3.Connection, step: Callable[[sqlite3.Connection], T]) -> T:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        return step(connection)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            # A connection that cannot even give up is thrown away; the file itself rolls back when it is opened.
            self._disconnect()

    def _connect(self, deadline_ms: int) -> sqlite3.Connection:
        if self._closed:
            raise rules.closed()
        self._make_file()
        connection: sqlite3.Connection | None = None
        ready = False
        try:
            # Waiting is ours (`_patiently`): SQLite's own backs off to 100 ms and starves among busy processes.
            connection = opened = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False, factory=_Connection
            )
            _patiently(lambda: prepare(opened, self.path, self._schema, synchronous=self._synchronous), deadline_ms)
            ready = True
        except sqlite3.Error as error:
            raise self._explained(error, opening=True) from error
        finally:
            if connection is not None and not ready:
                connection.close()
        self._connection, self._waiting = opened, True
        return opened

    def _make_file(self) -> None:
        # Only a file that is not there is opened here: closing any handle of a file in use would drop SQLite's locks.
        # A link to nothing is followed, or SQLite would make the file it names with the mode of the umask.
        path = os.path.realpath(self.path)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            if os.path.isdir(self.path):  # noqa: PTH112 -- the path is a str for SQLite and stays one
                raise self._config(
                    f"{self.path} is a directory.", f"Name a file in it, for instance {self._schema.noun}.db"
                ) from None
        except FileNotFoundError as error:
            directory = os.path.dirname(path) or "."  # noqa: PTH120 -- see above
            raise self._config(f"The directory {directory} does not exist.", f"mkdir -p {directory}") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise self._config(
                f"The {self._schema.noun} file {self.path!r} cannot be made: {reason}.",
                "Give this user write permission to the directory",
            ) from error

    def _config(self, what: str, first: str) -> ConfigError:
        return ConfigError(what, next_step=f"{first}, or {self._elsewhere()}.", path=self.path)

    def _elsewhere(self) -> str:
        return f"choose another place with {self._schema.elsewhere}"

    def _disconnect(self) -> None:
        self._drop_log()  # Another connection may have another one.
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _drop_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            with contextlib.suppress(OSError):
                os.close(log)

    def before_fork(self) -> None:
        """Close the connection and keep everybody out until the fork is done."""
        if self._lock.acquire(timeout=self._busy_timeout_ms / 1_000):
            self._forking = True
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Let the verbs in again; the next one opens the file."""
        if self._forking:
            self._forking = False
            self._lock.release()

    def forget(self) -> None:
        """In a child process: start anew with a lock and a connection of its own."""
        self._drop_log()
        if self._connection is not None:
            # Closing it here would confuse the parent's locks, so it is neither used nor freed.
            _abandoned.append(self._connection)
        self._connection = None
        self._forking = False
        self._lock = Lock()
        self._pid = os.getpid()

    def _busy(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"The {self._schema.noun} file {self.path} was in use by others for {self._busy_timeout_ms} ms; "
            "nothing was written.",
            next_step="Try again with the same id; if it lasts, close the program that holds it (a viewer, a backup).",
            path=self.path,
        )

    def _unwritten(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"The {self._schema.noun} file {self.path} could not be brought to the disk: {error.strerror}.",
            next_step=f"Check the disk and the file system, or {self._elsewhere()}.",
            path=self.path,
        )

    def _explained(self, error: sqlite3.Error, *, opening: bool = False) -> RunrailsError:
        """A driver's error in our words: what happened to which file, and what to do about it."""
        # Errors of the Python layer (not of SQLite) have no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if code in _BUSY:
            return self._busy()
        what, first, ours = _EXPLANATIONS.get(code, _OTHERWISE)
        kind = ConfigError if opening and ours else StoreUnavailable
        what, first = what.format(noun=self._schema.noun), first.format(noun=self._schema.noun)
        return kind(
            f"The {self._schema.noun} file {self.path} {what} ({name}); nothing was written.",
            next_step=f"{first}, or {self._elsewhere()}.",
            path=self.path,
            sqlite_error=name,
        )


_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_WRITE_PROTECTED = (
    "cannot be opened for writing",
    "Give this user write permission to the file and its directory",
    True,
)
_DAMAGED = (
    "is damaged or is not a {noun}",
    "Restore it from a backup, or move it aside together with its -wal and -shm files to begin with an empty {noun}",
    True,
)
_OTHERWISE = ("could not be read or written", "Check the disk and the file system", False)
_EXPLANATIONS = {
    # code: (what happened, what to do, whether it is a matter of configuration when the file is opened)
    sqlite3.SQLITE_FULL: ("found no room on the disk", "Free some space", False),
    sqlite3.SQLITE_READONLY: _WRITE_PROTECTED,
    sqlite3.SQLITE_CANTOPEN: _WRITE_PROTECTED,
    sqlite3.SQLITE_PERM: _WRITE_PROTECTED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CONSTRAINT: _DAMAGED,
    sqlite3.SQLITE_ERROR: _DAMAGED,
}


def _patiently(attempt: Callable[[], T], deadline_ms: int) -> T:
    """Make an attempt until the file is free or the deadline has passed; then let SQLite's error through."""
    pause_s = _PAUSE_FIRST_S
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or monotonic_ms() >= deadline_ms:
                raise
        time.sleep(pause_s)
        pause_s = min(_PAUSE_MAX_S, pause_s * 2)


_sync = getattr(os, "fdatasync", os.fsync)
"""As SQLite does it itself."""


def _sync_directory(path: str) -> None:
    """A file that is new must be found again. Where directories cannot be flushed, nobody needs to."""
    with contextlib.suppress(OSError):
        directory = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120 -- as above
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


_files: WeakSet[SharedFile] = WeakSet()
_abandoned: list[sqlite3.Connection] = []


def _before_fork() -> None:
    for file in list(_files):
        file.before_fork()


def _after_fork_in_parent() -> None:
    for file in list(_files):
        file.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for file in list(_files):
        file.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
