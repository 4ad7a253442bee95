"""Leased mode attacked: lost answers to hand-overs, closing while slices are fetched, ids that two processes use."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rr_dynamo import ENDPOINT
from rr_lease import LEASE, WholeFlakyStore
from rr_lease import lease_of as owning
from rr_ledger import CENT, DOLLAR, FOUR, START_MS, USER, amounts, booking, facts, open_kind
from runrails.errors import LedgerError, ReservationMismatch, StoreUnavailable
from runrails.ledger import FullStore, Refused, Reservation, Reserved
from runrails.stores.leases import Lease
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.stores.draws import Drawing, Drawn

BIG = 100 * DOLLAR
ONE = Lease(slice="0.50", share=1)

lease_of = partial(owning, owns_store=False)


@pytest.fixture
def clock() -> ManualClock:
    """One clock for everything."""
    return ManualClock(START_MS)


@pytest.fixture
def shared(clock: ManualClock) -> WholeFlakyStore:
    """The shared store, which fails as it is told, and counts."""
    return WholeFlakyStore(MemoryStore(clock=clock))


def plan(shared: WholeFlakyStore, *fates: str) -> None:
    """The fate of the next verbs."""
    shared._plan = iter(fates)  # type: ignore[arg-type]


def take(store: FullStore, name: str, amount: int, limit: int = BIG) -> Reserved | Refused:
    """A call over all four accounts."""
    return store.reserve(booking(name, amount, *FOUR, limit=limit, facts=facts()))


@pytest.mark.parametrize("fate", ["request_lost", "response_lost"])
def test_a_hand_over_whose_answer_was_lost_frees_nothing_twice(
    shared: WholeFlakyStore, clock: ManualClock, fate: str
) -> None:
    """What such a call did not cost may be free in the shared store already: it is not spent here as well."""
    store = lease_of(shared, clock, lease=ONE)
    assert isinstance(take(store, "c1", 25 * CENT, DOLLAR), Reserved)
    shared._verbs = {"draw"}  # type: ignore[assignment]
    plan(shared, fate)
    with pytest.raises(StoreUnavailable):
        store.raise_hold("c1", 55 * CENT)
    store.settle("c1", CENT)
    granted = sum(isinstance(take(store, f"l{n}", CENT, DOLLAR), Reserved) for n in range(48))
    store.write()
    granted += sum(isinstance(take(shared, f"o{n}", CENT, DOLLAR), Reserved) for n in range(100))
    for n in range(48):
        if f"l{n}" in store._books.calls:
            store.settle(f"l{n}", CENT)
    store.close()
    spent, held = amounts(shared.inner)
    assert spent + held <= DOLLAR
    assert spent + held == (1 + granted) * CENT


@pytest.mark.parametrize("kind", ["memory", "sqlite-normal", *(["dynamodb"] if ENDPOINT else [])])
def test_what_the_clock_ended_is_no_word_of_its_owners(kind: str, tmp_path: Path, clock: ManualClock) -> None:
    """Also of a call that the shared store had already: its owner may still say something, and later the last word."""
    inner = open_kind(kind, tmp_path, clock)
    shared = WholeFlakyStore(inner, verbs={"draw"})
    store = lease_of(shared, clock, lease=ONE)
    store.reserve(booking("c1", 25 * CENT, *FOUR, limit=DOLLAR, facts=facts(), ttl_ms=5_000))
    plan(shared, "response_lost")
    with pytest.raises(StoreUnavailable):
        store.raise_hold("c1", 55 * CENT)
    clock.advance(5_000)
    assert ("c1",) == store.expire().ids
    store.write()
    assert (25 * CENT, 0) == amounts(inner)
    assert ("unresolved", 3) == store.settle("c1", 3, unresolved=True)[1:3]
    assert ("late", 2) == store.settle("c1", 2)[1:3]
    store.close()
    assert [(2, 0)] * 4 == [amounts(inner, account) for account in FOUR]
    inner.close()


class Slow(MemoryStore):
    """A shared store whose first slice takes until it is let go."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.asked, self.go = threading.Event(), threading.Event()

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """As ever, but late."""
        if reservation.id.startswith("lease.") and not self.asked.is_set():
            self.asked.set()
            self.go.wait()
        return super().reserve(reservation)


def test_a_slice_that_comes_while_the_store_closes_goes_back(clock: ManualClock) -> None:
    """The end of a program is no crash: nothing of it may be charged later."""
    shared = Slow(clock)
    store = lease_of(shared, clock)
    told: list[str] = []

    def call() -> None:
        try:
            take(store, "c1", CENT)
        except StoreUnavailable as error:
            told.append(error.what)

    caller, closer = threading.Thread(target=call), threading.Thread(target=store.close)
    caller.start()
    shared.asked.wait()
    closer.start()
    while not store._closed:
        pass
    shared.go.set()
    caller.join()
    closer.join()
    assert ["The store is closed."] == told
    assert [(0, 0)] * 4 == [amounts(shared, account) for account in FOUR]


def test_a_group_is_not_forgotten_while_its_slice_is_fetched(clock: ManualClock) -> None:
    """However long the shared store takes: else nobody would write its calls, nor give its slice back."""
    shared = Slow(clock)
    store = lease_of(shared, clock)
    caller = threading.Thread(target=take, args=(store, "c1", CENT))
    caller.start()
    shared.asked.wait()
    clock.advance(20_000)
    store.tick()
    shared.go.set()
    caller.join()
    assert [(0, CENT)] * 4 == [amounts(store, account) for account in FOUR]
    store.settle("c1", 1)
    store.close()
    assert [(1, 0)] * 4 == [amounts(shared, account) for account in FOUR]


def test_another_process_is_not_settled_by_an_id_that_both_use(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Whoever comes second is told so, when it wants more than its slice can decide, and when that is gone."""
    for name in ("a", "b"):
        shared.inner.reserve(booking(name, 7, FOUR[3]))
    store = lease_of(shared, clock)
    for name in ("a", "b"):
        take(store, name, CENT)
    with pytest.raises(ReservationMismatch):
        store.settle("a", 2 * CENT)
    clock.advance(LEASE.ttl_ms // 2)
    store.tick()
    for verb in (lambda: store.settle("b", 2), lambda: store.release("b"), lambda: store.raise_hold("b", 2 * CENT)):
        with pytest.raises(ReservationMismatch):
            verb()
    theirs = [(record.id, record.state) for record in shared.inner.records() if len(record.id) == 1]
    assert [("a", "held"), ("b", "held")] == theirs
    store.close()
    assert (2 * CENT, 14) == amounts(shared.inner, FOUR[3])
    assert (2 * CENT, 0) == amounts(shared.inner, USER)


def test_no_call_is_listed_twice(clock: ManualClock) -> None:
    """What is handed over while the list is made is in it once; and so is what ends meanwhile."""

    class Moving(MemoryStore):
        def usage(self, **wanted: str | None) -> object:  # type: ignore[override]
            if not moved:
                moved.append(True)
                store.settle("c2", 1)
                store._moves.give_back_all()
            return super().usage(**wanted)

    moved: list[bool] = []
    store = lease_of(Moving(clock=clock), clock)
    for name in ("c1", "c2", "c3"):
        take(store, name, CENT)
    store.settle("c3", 2)
    assert ["c1", "c2", "c3"] == sorted(record.id for record in store.usage())
    store.close()


def test_what_one_account_cannot_do_keeps_no_other_waiting(clock: ManualClock) -> None:
    """Calls of others are written, and their slices given back, whatever is wrong with one of them."""

    class Damaged(MemoryStore):
        def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
            if any(call.reservation.id == "c1" for call in calls):
                raise LedgerError("An account is gone.", next_step="Report it.")
            return super().draw(slice_id, calls, close=close)

    shared = Damaged(clock=clock)
    store = lease_of(shared, clock)
    bob = USER._replace(scope="user:bob")
    for name, account in (("c1", USER), ("c2", bob)):
        store.reserve(booking(name, CENT, account, limit=BIG, facts=facts()))
        store.settle(name, CENT)
    clock.advance(LEASE.ttl_ms // 2)
    with pytest.raises(LedgerError):
        store.tick()
    assert (CENT, 0) == amounts(shared, bob)


@pytest.mark.parametrize("fate", ["request_lost", "response_lost"])
def test_closing_tries_once_more(shared: WholeFlakyStore, clock: ManualClock, fate: str) -> None:
    """A moment's outage at the end of a program costs nobody the rest of a slice."""
    store = lease_of(shared, clock)
    for name, account in (("c1", USER), ("c2", USER._replace(scope="user:bob"))):
        store.reserve(booking(name, CENT, account, limit=BIG, facts=facts()))
        store.settle(name, 1)
    plan(shared, fate)
    store.close()
    assert [(1, 0)] * 2 == [amounts(shared.inner, USER._replace(scope=f"user:{name}")) for name in ("alice", "bob")]


def test_a_balance_that_is_remembered_outlives_its_slices(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """What was spent by calls of this process is shown, also when the last of them has long been written."""
    monotonic = ManualClock(0)
    store = lease_of(shared, clock, stale_ms=1_000, monotonic=monotonic)
    take(store, "c1", CENT)
    store.settle("c1", CENT)
    monotonic.advance(2_000)
    store.tick()
    monotonic.advance(7_900)
    assert (CENT, 0) == amounts(store)
    monotonic.advance(200)
    store.tick()
    assert (CENT, 0) == amounts(store)
