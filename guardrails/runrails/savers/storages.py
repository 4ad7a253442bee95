"""Where stored answers are: in memory, or in a file that outlives the process. Both are bounded."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FileStorage", "MemoryStorage"]

_BUSY_S = 0.1
"""How long an answer is waited for that another process is writing; then the provider is asked."""
_PER_ENTRY_BYTES = 200
"""What keeping an entry takes beside its body, about."""


class _Kept(NamedTuple):
    body: bytes
    expires_ms: int


class MemoryStorage:
    """Answers in this process."""

    def __init__(self, *, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self.lock = threading.Lock()
        _all.add(self)

    def get(self, key: str, *, now_ms: int) -> bytes | None:
        """What is kept under the key and has not expired."""
        with self.lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            if kept.expires_ms <= now_ms:
                self._forget(key)
                return None
            self._kept.move_to_end(key)
            return kept.body

    def put(self, key: str, body: bytes, *, now_ms: int, ttl_ms: int) -> None:
        """Keep it; what was used longest ago makes room for it."""
        with self.lock:
            self._forget(key)
            self._kept[key] = _Kept(body, now_ms + ttl_ms)
            self._bytes += len(body) + _PER_ENTRY_BYTES
            while len(self._kept) > self._entries_max or self._bytes > self._bytes_max:
                self._forget(next(iter(self._kept)))

    def delete(self, key: str) -> None:
        """Forget it."""
        with self.lock:
            self._forget(key)

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self._kept.clear()
            self._bytes = 0

    def _forget(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept.body) + _PER_ENTRY_BYTES


class FileStorage:
    """
    Answers in an SQLite file, for any number of processes.

    Each use opens it anew: that takes a fraction of a millisecond, and leaves nothing open over a fork.

    Raises:
        OSError: The file cannot be made.
        ValueError: It is a ledger.
    """

    def __init__(self, path: str, *, entries_max: int, bytes_max: int) -> None:
        # Where the program works later must not matter.
        self._path = os.path.abspath(path)  # noqa: PTH100 -- SQLite takes a str
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._make()
        self._refuse_ledger()

    def get(self, key: str, *, now_ms: int) -> bytes | None:
        """What is kept under the key and has not expired."""
        with closing(self._open()) as file, file:
            row: tuple[bytes] | None = file.execute(
                "SELECT body FROM runrails_answers WHERE key = ? AND expires_ms > ?", (key, now_ms)
            ).fetchone()
            if row is None:
                return None
            file.execute(f"UPDATE runrails_answers SET used = {_NEXT} WHERE key = ?", (key,))  # noqa: S608 -- ours
            return bytes(row[0])

    def put(self, key: str, body: bytes, *, now_ms: int, ttl_ms: int) -> None:
        """Keep it; what was used longest ago makes room for it."""
        with closing(self._open()) as file, file:
            file.execute("DELETE FROM runrails_answers WHERE expires_ms <= ?", (now_ms,))
            file.execute(
                f"INSERT OR REPLACE INTO runrails_answers VALUES (?, ?, ?, {_NEXT})",  # noqa: S608 -- ours
                (key, body, now_ms + ttl_ms),
            )
            # Counted from the newest use on, what is beyond one of the bounds goes.
            file.execute(
                "DELETE FROM runrails_answers WHERE key IN (SELECT key FROM (SELECT key, "
                "row_number() OVER newest AS place, sum(length(body) + ?) OVER newest AS bytes FROM runrails_answers "
                "WINDOW newest AS (ORDER BY used DESC)) WHERE place > ? OR bytes > ?)",
                (_PER_ENTRY_BYTES, self._entries_max, self._bytes_max),
            )

    def delete(self, key: str) -> None:
        """Forget it."""
        with closing(self._open()) as file, file:
            file.execute("DELETE FROM runrails_answers WHERE key = ?", (key,))

    def clear(self) -> None:
        """Forget everything."""
        with closing(self._open()) as file, file:
            file.execute("DELETE FROM runrails_answers")

    def _make(self) -> None:
        """SQLite would make a file that others can read, not only the first time: somebody may remove it meanwhile."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))

    def _refuse_ledger(self) -> None:
        """What is written here does not wait for the disk; beside a ledger that would put its books at risk."""
        import sqlite3

        with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as file, suppress(sqlite3.Error):
            if file.execute("SELECT 1 FROM sqlite_master WHERE name = 'reservation'").fetchone() is not None:
                raise ValueError("ResponseCache(path=…) must be a file of its own; this one is a ledger.")

    def _open(self) -> sqlite3.Connection:
        import sqlite3

        self._make()
        file = sqlite3.connect(self._path, timeout=_BUSY_S)
        try:
            # Nothing is lost that could not be asked for again, so the disk is not waited for.
            file.execute("PRAGMA synchronous = OFF")
            file.execute("PRAGMA secure_delete = ON")
            file.execute(
                "CREATE TABLE IF NOT EXISTS runrails_answers "
                "(key TEXT PRIMARY KEY, body BLOB NOT NULL, expires_ms INTEGER NOT NULL, used INTEGER NOT NULL)"
            )
        except BaseException:
            file.close()
            raise
        return file


_NEXT = "(SELECT coalesce(max(used), 0) + 1 FROM runrails_answers)"
_all: WeakSet[MemoryStorage] = WeakSet()


def _after_fork() -> None:
    """Another thread of the parent may have had a lock just then; in a forked child it never gives it back."""
    for storage in _all:
        storage.lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
