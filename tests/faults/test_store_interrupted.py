"""Ctrl-C in the middle of a verb: no lock stays taken, no money is lost or made, and the next verb works."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, KINDS, START_MS, TOKENS, amounts, booking, open_kind
from rr_struck import struck
from runrails.ledger import FullStore, Reserved
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock

HELD = 7 * CENT


def prepared(kind: str, path: Path) -> tuple[FullStore, ManualClock]:
    """A store in which one call has ended and two are in flight, one of them in other units too."""
    clock = ManualClock(START_MS)
    store = open_kind(kind, path, clock, busy_timeout_ms=50)
    for name in ("done", "a"):
        store.reserve(booking(name, HELD, *FOUR, limit=DOLLAR))
    store.reserve(booking("b", 3, *FOUR, TOKENS, limit=DOLLAR, ttl_ms=600_000))
    store.settle("done", CENT)
    return store, clock


VERBS: dict[str, Callable[[FullStore], object]] = {
    "reserve": lambda store: store.reserve(booking("new", CENT, *FOUR, limit=DOLLAR)),
    "reserve with another limit": lambda store: store.reserve(booking("new", CENT, *FOUR, limit=2 * DOLLAR)),
    "settle": lambda store: store.settle("a", 2 * CENT),
    "settle above the hold": lambda store: store.settle("a", 2 * HELD),
    "settle other units": lambda store: store.settle("b", 2, units={"tokens": 5}),
    "release": lambda store: store.release("a"),
    "raise": lambda store: store.raise_hold("a", 2 * HELD),
    "limit": lambda store: store.set_limit("user:alice", 5 * DOLLAR),
}


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("kind", ["memory", "sqlite-normal"])
def test_ctrl_c_anywhere_leaves_whole_books(kind: str, name: str, tmp_path: Path) -> None:
    """Struck wherever Python looks for signals, a verb has happened or not; repeated, it does what it always does."""
    verb = VERBS[name]
    whole, _ = prepared(kind, tmp_path)
    before = list(whole.balances())
    verb(whole)
    after = list(whole.balances())
    whole.close()
    for nth in range(1, 10_000):
        directory = tmp_path / str(nth)
        directory.mkdir()
        store, _ = prepared(kind, directory)
        hit = struck(partial(verb, store), nth)
        if not hit:
            store.close()
            return
        found = list(store.balances())
        # Which account is made or gets its limit first is no matter of money.
        assert [(b.account, b.spent, b.held) for b in found] in [
            [(b.account, b.spent, b.held) for b in books] for books in (before, after)
        ], nth
        verb(store)
        assert after == list(store.balances()), nth
        store.close()
    raise AssertionError("the verb never ended")


def test_ctrl_c_while_expiring_forgets_no_deadline(tmp_path: Path) -> None:
    """A hold whose expiry was interrupted expires at the next sweep."""
    for nth in range(1, 10_000):
        store, clock = prepared("memory", tmp_path)
        clock.advance(3_600_000)
        hit = struck(store.expire, nth)
        store.expire()
        assert [(HELD + 3 + CENT, 0)] * 4 == [amounts(store, account) for account in FOUR], nth
        if not hit:
            return
    raise AssertionError("the sweep never ended")


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_works_on_after_many_ctrl_c(kind: str, tmp_path: Path) -> None:
    """Calls struck one after another in the same store leave it exact and in working order."""
    store, _ = prepared(kind, tmp_path)
    for nth in range(1, 100):
        name = f"c{nth}"
        struck(partial(store.reserve, booking(name, CENT, *FOUR, limit=100 * DOLLAR)), nth)
        assert isinstance(store.reserve(booking(name, CENT, *FOUR, limit=100 * DOLLAR)), Reserved)
        struck(partial(store.settle, name, 1), nth)
        assert 1 == store.settle(name, 1).actual
    ended = len(range(1, 100))
    assert [(CENT + ended, HELD + 3)] * 4 == [amounts(store, account) for account in FOUR]
    store.close()


def test_dropped_records_survive_ctrl_c(tmp_path: Path) -> None:
    """Struck while an old record is dropped, a bounded store neither forgets an open hold nor trips over a gone one."""
    del tmp_path
    for nth in range(1, 200):
        store = MemoryStore(clock=ManualClock(START_MS), records_max=2)
        for n in range(6):
            store.reserve(booking(f"c{n}", CENT, *FOUR, limit=DOLLAR))
        for n in range(5):
            struck(partial(store.settle, f"c{n}", 1), nth)
        store.release("c5")
        spent, held = amounts(store, FOUR[0])
        assert (0, 0) == (held % CENT, spent - (6 - 1 - held // CENT)), nth
        assert isinstance(store.reserve(booking("last", CENT, *FOUR, limit=DOLLAR)), Reserved)
