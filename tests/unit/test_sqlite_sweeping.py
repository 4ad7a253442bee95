"""When what has expired leaves the file of documents: at the first write, at every 16th, and after a second."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from runrails.documents import Address
from runrails.documents.sqlite import SQLiteDocuments
from runrails.testing import ManualClock

NOW_MS = 1_700_000_000_000


def _leave_old(path: Path) -> None:
    """Another process, whose clock is behind, has written what is over by now."""
    earlier = SQLiteDocuments(path, clock=ManualClock(NOW_MS - 5_000))
    known = earlier.get(Address("old", "alice", "x"))
    earlier.put(
        Address("old", "alice", "x"), b"1", expected=0 if known is None else known.version, expires_ms=NOW_MS - 10
    )
    earlier.close()


def _is_there(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("SELECT 1 FROM document WHERE kind = 'old'").fetchall())


def _write(documents: SQLiteDocuments, name: int) -> None:
    assert documents.put(Address("new", "alice", f"n{name}"), b"1", expected=0) is not None


def test_the_first_write_sweeps(tmp_path: Path) -> None:
    """What an earlier process has left is gone at once."""
    path = tmp_path / "v.db"
    _leave_old(path)
    with closing(SQLiteDocuments(path, clock=ManualClock(NOW_MS))) as documents:
        assert _is_there(path)
        _write(documents, 0)
        assert not _is_there(path)


def test_every_sixteenth_write_sweeps(tmp_path: Path) -> None:
    """Though no time passes; the fifteen before do not pay for it."""
    path = tmp_path / "v.db"
    with closing(SQLiteDocuments(path, clock=ManualClock(NOW_MS))) as documents:
        _write(documents, 0)
        _leave_old(path)
        for count in range(1, 16):
            _write(documents, count)
            assert _is_there(path)
        _write(documents, 16)
        assert not _is_there(path)


def test_after_a_second_the_next_write_sweeps(tmp_path: Path) -> None:
    """To the millisecond."""
    path, clock = tmp_path / "v.db", ManualClock(NOW_MS)
    with closing(SQLiteDocuments(path, clock=clock)) as documents:
        _write(documents, 0)
        _leave_old(path)
        clock.advance(999)
        _write(documents, 1)
        assert _is_there(path)
        clock.advance(1)
        _write(documents, 2)
        assert not _is_there(path)
