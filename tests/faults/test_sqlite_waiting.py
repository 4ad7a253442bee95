"""Which writes of a ledger in SQLite wait for the disk, and what is lost of those that do not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from runrails.errors import StoreUnavailable
from runrails.ledger import Account, Hold, Reservation, Reserved
from runrails.stores.sqlite import SQLiteStore

ALICE = Account("user:alice", "2026-11")
START_MS = 1_795_000_000_000
WAITS = {2: True, 1: False}


class Watched:
    """A ledger, and of each of its writes whether the connection waits for the disk at its end."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self.waited: list[bool] = []
        self.store = SQLiteStore(path / "ledger.db", clock=self._now, synchronous=synchronous)

    def _now(self) -> int:
        """The store asks for the time while it writes."""
        connection = self.store._file._connection
        if connection is not None and connection.in_transaction:
            self.waited.append(WAITS[connection.execute("PRAGMA synchronous").fetchone()[0]])
        return START_MS

    def reserve(self, name: str, *, on_expiry: Literal["charge", "release"] = "charge") -> None:
        """A hold of 50."""
        holds = (Hold(ALICE, 50, 1_000),)
        answer = self.store.reserve(Reservation(id=name, holds=holds, ttl_ms=60_000, on_expiry=on_expiry))
        assert isinstance(answer, Reserved)

    def last(self, write: Callable[[], object]) -> bool:
        """Whether a write waits in the end."""
        self.waited.clear()
        write()
        return self.waited[-1]


def test_a_settlement_of_no_more_than_was_held_does_not_wait(tmp_path: Path) -> None:
    """Lost, it is charged at the hold. What would be charged too little without it waits, and so does what holds."""
    watched = Watched(tmp_path)
    store = watched.store
    for name in ("less", "all", "more", "gone", "stays"):
        assert watched.last(lambda name=name: watched.reserve(name))  # type: ignore[misc]
    assert watched.last(lambda: watched.reserve("free", on_expiry="release"))

    assert not watched.last(lambda: store.settle("less", 10))
    assert not watched.last(lambda: store.settle("all", 50))
    assert watched.last(lambda: store.settle("more", 51))
    assert watched.last(lambda: store.settle("free", 10))
    assert watched.last(lambda: store.release("gone"))
    assert not watched.last(lambda: store.settle("stays", 50, unresolved=True))
    assert watched.last(lambda: store.settle("stays", 20)), "its owner's later word may be less than what stands"
    assert watched.last(lambda: watched.reserve("next"))
    balance = store.balance(ALICE)
    assert (10 + 50 + 51 + 10 + 20, 50) == (balance.spent, balance.held)
    store.close()


def test_a_reservation_may_leave_the_waiting_to_its_caller(tmp_path: Path) -> None:
    """It is in the file at once, for everybody; `flush` brings it to the disk, however often."""
    watched = Watched(tmp_path)
    store = watched.store
    assert store.unflushed is not None
    token = store.unflushed.set(True)
    try:
        assert not watched.last(lambda: watched.reserve("one"))
    finally:
        store.unflushed.reset(token)
    with sqlite3.connect(store.path) as other:
        assert [(50,)] == other.execute("SELECT held FROM account").fetchall()
    other.close()
    store.flush()
    store.flush()
    assert watched.last(lambda: watched.reserve("two"))
    store.close()


def test_what_cannot_be_brought_to_the_disk_is_an_error(tmp_path: Path) -> None:
    """Whoever wanted to send something must not."""
    watched = Watched(tmp_path)
    watched.reserve("one")
    Path(f"{watched.store.path}-wal").unlink()
    with pytest.raises(StoreUnavailable, match="could not be brought to the disk"):
        watched.store.flush()
    watched.store.close()
    with pytest.raises(StoreUnavailable):
        watched.store.flush()


def test_a_ledger_that_never_waits_has_nothing_to_flush(tmp_path: Path) -> None:
    """`synchronous="NORMAL"`."""
    watched = Watched(tmp_path, synchronous="NORMAL")
    assert watched.store.unflushed is None
    assert not watched.last(lambda: watched.reserve("one"))
    assert not watched.last(lambda: watched.store.settle("one", 60))
    watched.store.close()
