"""What SQLite does in one statement, where it took several: the answers are the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from runrails.documents import Address
from runrails.documents.sqlite import SQLiteDocuments
from runrails.ledger import Account, Hold, Reservation, Reserved, SupportsBalances
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

START_MS = 1_700_000_000_000
ALICE, RUN, NOBODY = Account("user:alice", "2026-11"), Account("run:r1", "-"), Account("user:nobody", "2026-11")


def _store(path: Path) -> SQLiteStore:
    return SQLiteStore(path / "ledger.db", clock=ManualClock(START_MS))


def _reserve(store: SQLiteStore, reservation_id: str, *holds: Hold) -> None:
    answer = store.reserve(Reservation(id=reservation_id, holds=holds, ttl_ms=60_000))
    assert isinstance(answer, Reserved)


def test_balances_of_several_accounts_are_those_of_each(tmp_path: Path) -> None:
    """Known accounts, one of an operator's limit, and one that was never used."""
    store = _store(tmp_path)
    assert isinstance(store, SupportsBalances)
    _reserve(store, "a", Hold(ALICE, 30, 100), Hold(RUN, 30, None))
    store.set_limit("user:alice", 70)

    for asked in ((ALICE, RUN), (ALICE, RUN, NOBODY), (NOBODY,), ()):
        told = {balance.account: balance for balance in store.balances_of(asked)}
        assert {account: store.balance(account) for account in asked} == told
    store.close()


def test_balances_of_many_accounts_are_those_of_each(tmp_path: Path) -> None:
    """More than a statement takes, one of them asked for twice, and some that this process has never used."""
    store = _store(tmp_path)
    runs = [Account(f"run:r{number}", "-") for number in range(40)]
    for number, run in enumerate(runs):
        _reserve(store, f"a{number}", Hold(run, number, 100), Hold(ALICE, number, None))
    store.close()
    store = _store(tmp_path)
    for number, run in enumerate(runs[:35]):
        _reserve(store, f"b{number}", Hold(run, 1, 100))

    asked = [*runs, runs[0], NOBODY]
    told = store.balances_of(asked)
    assert {account: store.balance(account) for account in asked} == {balance.account: balance for balance in told}
    assert len(set(asked)) == len(told)
    store.close()


def test_new_accounts_beside_old_ones_hold_and_are_limited(tmp_path: Path) -> None:
    """A new account is written with what it holds, its limit in code and its operator's; an old one's limit changes."""
    store = _store(tmp_path)
    store.set_limit("run:r1", 500)

    _reserve(store, "a", Hold(ALICE, 30, 100))
    _reserve(store, "b", Hold(ALICE, 5, 90), Hold(RUN, 7, 80))

    alice, run = store.balance(ALICE), store.balance(RUN)
    assert (35, 90, "code") == (alice.held, alice.limit, alice.limit_source)
    assert (7, 500, "operator") == (run.held, run.limit, run.limit_source)
    store.settle("b", 6)
    assert (6, 0) == (store.balance(RUN).spent, store.balance(RUN).held)
    store.close()


def test_expired_documents_are_taken_away_by_later_writes(tmp_path: Path) -> None:
    """Not each write looks for them, but they do not stay."""
    clock = ManualClock(START_MS)
    documents = SQLiteDocuments(tmp_path / "documents.db", clock=clock)
    for count in range(20):
        documents.put(Address("note", "alice", f"old{count}"), b"", expected=0, expires_ms=START_MS + 10)
    clock.advance(5_000)

    assert documents.put(Address("note", "alice", "new"), b"", expected=0) is not None

    documents.close()
    with sqlite3.connect(tmp_path / "documents.db") as connection:
        assert [("new",)] == connection.execute("SELECT name FROM document").fetchall()
    connection.close()
