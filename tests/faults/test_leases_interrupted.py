"""Ctrl-C in the middle of a leased verb: no lock stays taken, no slice is lost, and no money is lost or made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from rr_lease import lease_of
from rr_ledger import CENT, DOLLAR, FOUR, START_MS, amounts, booking, facts
from rr_struck import ROOMS, struck
from runrails.ledger import FullStore
from runrails.stores.leased import LeasedStore
from runrails.stores.leases import Lease
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock

LEASED = (*ROOMS, "leased.py", "_lease_books.py", "_lease_moves.py", "_lease_views.py", "contextlib.py", "threading.py")
EVERY = 3
"""One chance in so many is taken: with 1 all of them are, in half a minute."""
LIMIT = 10 * DOLLAR
LEASE = Lease(slice="0.10", share=1)


def prepared() -> tuple[LeasedStore, MemoryStore, ManualClock]:
    """A store with a slice: one call is written, one has ended, one is in flight and takes nearly all that is left."""
    clock = ManualClock(START_MS)
    shared = MemoryStore(clock=clock)
    store = lease_of(shared, clock, lease=LEASE, owns_store=False)
    for name, cents in (("written", 1), ("ended", 2), ("a", 4)):
        take(store, name, cents * CENT)
        if name != "a":
            store.settle(name, CENT)
        if name == "written":
            store.write()
    return store, shared, clock


def take(store: FullStore, name: str, amount: int) -> None:
    """A call over all four accounts."""
    store.reserve(booking(name, amount, *FOUR, limit=LIMIT, facts=facts(), ttl_ms=600_000))


VERBS: dict[str, Callable[[LeasedStore], object]] = {
    "reserve": lambda store: take(store, "new", CENT),
    "reserve nearly all": lambda store: take(store, "new", 3 * CENT),
    "reserve more than is left": lambda store: take(store, "new", 5 * CENT),
    "settle": lambda store: store.settle("a", CENT),
    "settle above the hold": lambda store: store.settle("a", 5 * CENT),
    "release": lambda store: store.release("a"),
    "raise": lambda store: store.raise_hold("a", 5 * CENT),
    "raise above what is left": lambda store: store.raise_hold("a", 30 * CENT),
    "extend": lambda store: store.extend("a", ttl_ms=900_000),
    "write": lambda store: store.write(),
    "balance": lambda store: store.balance(FOUR[0]),
    "limit": lambda store: store.set_limit("user:alice", 5 * DOLLAR),
    "give back": lambda store: store._moves.give_back_all(),
}


def free(store: LeasedStore) -> bool:
    """Whether nobody would have to wait."""
    locks = [store._lock, *(group.moves for group in store._books.groups.values())]
    return not (any(lock.locked() for lock in locks) or store._moves.under_way or store._moves._pauses)


@pytest.mark.parametrize("name", VERBS)
def test_ctrl_c_anywhere_leaves_whole_books(name: str) -> None:
    """Struck wherever Python looks for signals; repeated, the verb does what it does, and the books are exact."""
    verb = VERBS[name]
    for nth in range(1 + len(name) % EVERY, 10_000, EVERY):
        store, shared, clock = prepared()
        hit = struck(partial(verb, store), nth, LEASED)
        assert free(store), nth
        verb(store)
        spent = 2 * CENT
        if name.startswith("reserve"):
            spent += store.settle("new", CENT).actual
        if name == "release":
            store.release("a")
        else:
            spent += store.settle("a", 5 * CENT if "above the hold" in name else CENT).actual
        store.close()
        clock.advance(1_000_000)
        lost = [one for one in shared.expire().ids if not one.startswith("lease.")]
        assert not lost, nth
        assert [(spent, 0)] * 4 == [amounts(shared, account) for account in FOUR], nth
        if not hit:
            return
    raise AssertionError("the verb never ended")


def test_ctrl_c_while_closing_loses_nothing() -> None:
    """Closing again goes on: no slice is left behind, to be charged."""
    for nth in range(1, 10_000, EVERY):
        store, shared, clock = prepared()
        hit = struck(store.close, nth, LEASED)
        store.close()
        assert "a" == shared.settle("a", CENT).id
        clock.advance(1_000_000)
        assert () == shared.expire().ids, nth
        assert [(3 * CENT, 0)] * 4 == [amounts(shared, account) for account in FOUR], nth
        if not hit:
            return
    raise AssertionError("the verb never ended")
