"""Leased mode when things go wrong: outages, lost answers, lost leases, crashes, changed limits, forks; its thread."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import pytest

from rr_lease import LEASE, WholeFlakyStore
from rr_lease import lease_of as owning
from rr_ledger import CENT, DOLLAR, FOUR, KEY, MONTH, ORG, RUN, START_MS, USER, amounts, booking, facts
from runrails.errors import ReservationMismatch, StoreUnavailable
from runrails.ledger import Account, Balance, FullStore, Refused, Reserved, Settled
from runrails.stores.leased import LeasedStore
from runrails.stores.leases import Lease
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

BIG = 100 * DOLLAR
SLICE = 50 * CENT


lease_of = partial(owning, owns_store=False)


@pytest.fixture
def clock() -> ManualClock:
    """One clock for everything; `monotonic` is another where they are to differ."""
    return ManualClock(START_MS)


@pytest.fixture
def shared(clock: ManualClock) -> WholeFlakyStore:
    """The shared store, which fails as it is told, and counts."""
    return WholeFlakyStore(MemoryStore(clock=clock))


def plan(shared: WholeFlakyStore, *fates: str) -> None:
    """The fate of the next verbs."""
    shared._plan = iter(fates)  # type: ignore[arg-type]


def verbs(shared: WholeFlakyStore) -> list[str]:
    """What was asked of the shared store since the last time."""
    found = [verb for verb, _ in shared.log]
    shared.log.clear()
    return found


def spend(store: FullStore, first: int, count: int, *, cost: int = CENT, limit: int | None = BIG) -> None:
    """That many calls, one after the other."""
    for n in range(first, first + count):
        assert isinstance(store.reserve(booking(f"c{n}", CENT, *FOUR, limit=limit, facts=facts())), Reserved)
        store.settle(f"c{n}", cost)


def test_a_slice_pays_for_fifty_calls(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """One round trip takes it, one adds to it, one writes its calls; everything is in the shared books then."""
    store = lease_of(shared, clock)
    spend(store, 0, 50)
    assert ["reserve"] == verbs(shared)
    assert [(0, SLICE)] * 4 == [amounts(shared.inner, account) for account in FOUR]
    spend(store, 50, 1)
    assert ["raise_hold"] == verbs(shared)
    store.write()
    assert ["draw"] == verbs(shared)
    assert [(51 * CENT, 49 * CENT)] * 4 == [amounts(shared.inner, account) for account in FOUR]
    assert [(51 * CENT, 0)] * 4 == [amounts(store, account) for account in FOUR]
    store.close()
    assert [(51 * CENT, 0)] * 4 == [amounts(shared.inner, account) for account in FOUR]
    records = list(shared.inner.usage())
    assert [(f"c{n}", "settled", CENT, CENT) for n in range(51)] == [
        (record.id, record.state, record.estimated_pusd, record.actual_pusd) for record in records
    ]


def test_a_call_of_a_scope_that_is_not_leased_goes_by_itself(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """All or none: in one reservation of the shared store, beside the slices."""
    store = LeasedStore(shared, {"user": LEASE}, clock=clock, monotonic=clock, background=False)
    store.reserve(booking("leased", CENT, RUN, USER, limit=BIG))
    store.reserve(booking("alone", CENT, RUN, USER, KEY, limit=BIG))
    assert ["reserve", "reserve"] == verbs(shared)
    assert [(0, SLICE + CENT), (0, CENT)] == [amounts(shared.inner, account) for account in (USER, KEY)]
    assert Settled("alone", "settled", 3, CENT) == store.settle("alone", 3)
    assert (3, CENT) == amounts(store)


def test_a_crash_is_charged_for_what_was_not_reported(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """What was written is exact, the rest of the slice is charged, once it has expired; nothing is given back."""
    dead = lease_of(shared, clock)
    spend(dead, 0, 7, cost=CENT // 2)
    dead.write()
    spend(dead, 7, 5)
    del dead
    assert [(7 * CENT // 2, SLICE - 7 * CENT // 2)] * 4 == [amounts(shared.inner, account) for account in FOUR]
    clock.advance(LEASE.ttl_ms)
    other = lease_of(shared, clock)
    (lost,) = other.expire().ids
    assert lost.startswith("lease.")
    assert [(SLICE, 0)] * 4 == [amounts(other, account) for account in FOUR]
    assert 7 == sum(1 for _ in other.usage())
    other.correct(lost, 5 * CENT, source="the provider's bill")
    assert (7 * CENT // 2 + 5 * CENT, 0) == amounts(other)


def test_after_a_crash_nobody_spends_what_may_be_spent(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Held, and then charged: the others keep within what is left beside it."""
    dead = lease_of(shared, clock)
    spend(dead, 0, 1, limit=DOLLAR)
    held = amounts(shared.inner)[1]
    assert DOLLAR // 8 == held
    other = lease_of(shared, clock)
    for wait_ms in (0, LEASE.ttl_ms):
        clock.advance(wait_ms)
        n = sum(isinstance(other.reserve(booking(f"o{wait_ms}{n}", CENT, limit=DOLLAR)), Reserved) for n in range(100))
        assert (DOLLAR - held) // CENT == n or wait_ms
    assert (DOLLAR - held) // CENT * CENT == DOLLAR - held - (DOLLAR - held) % CENT
    assert amounts(shared.inner)[0] >= held


def test_a_lost_lease_is_charged_and_its_calls_are_put_right(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """It expired while its owner slept: charged in full. Awake, it tells its calls and gets the rest back."""
    monotonic = ManualClock(0)
    store = lease_of(shared, clock, monotonic=monotonic)
    spend(store, 0, 3)
    store.reserve(booking("open", CENT, *FOUR, limit=BIG))
    clock.advance(LEASE.ttl_ms)
    assert 1 == len(shared.inner.expire().ids)
    assert (SLICE, 0) == amounts(shared.inner)
    monotonic.advance(LEASE.ttl_ms)
    shared.log.clear()
    assert isinstance(store.reserve(booking("next", CENT, *FOUR, limit=BIG)), Reserved)
    assert ["draw", "reserve"] == verbs(shared)
    assert (3 * CENT, CENT + SLICE) == amounts(shared.inner)
    assert (3 * CENT, 2 * CENT) == amounts(store)
    store.settle("open", 1)
    store.settle("next", 1)
    store.close()
    assert [(3 * CENT + 2, 0)] * 4 == [amounts(shared.inner, account) for account in FOUR]


def test_nothing_is_admitted_from_a_lease_known_to_be_lost(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Its owner hears of it by what it writes; the charge gives way to what was written, exactly."""
    store = lease_of(shared, clock, monotonic=ManualClock(0))
    spend(store, 0, 3)
    clock.advance(LEASE.ttl_ms)
    shared.inner.expire()
    store.write()
    assert (SLICE, 0) == amounts(shared.inner)
    assert isinstance(store.reserve(booking("next", CENT, *FOUR, limit=BIG)), Reserved)
    assert (3 * CENT, SLICE) == amounts(shared.inner)
    store.settle("next", 1)
    store.close()
    assert (3 * CENT + 1, 0) == amounts(shared.inner)


def test_a_lost_lease_is_not_added_to(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Its owner hears of it when it needs more; what was paid out of it meanwhile is within its charge."""
    store = lease_of(shared, clock, monotonic=ManualClock(0))
    spend(store, 0, 3)
    clock.advance(LEASE.ttl_ms)
    shared.inner.expire()
    for name in ("large", "larger"):
        assert isinstance(store.reserve(booking(name, SLICE // 2, *FOUR, limit=BIG)), Reserved)
    assert (SLICE, SLICE) == amounts(shared.inner)
    shared.log.clear()
    assert isinstance(store.reserve(booking("small", CENT, *FOUR, limit=BIG)), Reserved)
    store.tick()
    assert (3 * CENT, SLICE // 2 + SLICE) == amounts(shared.inner)
    for name in ("large", "larger", "small"):
        store.settle(name, 1)
    store.close()
    assert (3 * CENT + 3, 0) == amounts(shared.inner)


def test_a_repeated_draw_lowers_its_slice_once(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Its first answer was lost: what is held still covers all that may be spent of it."""
    store = lease_of(shared, clock)
    spend(store, 0, 5)
    plan(shared, "response_lost")
    with pytest.raises(StoreUnavailable):
        store.write()
    store.write()
    assert (5 * CENT, SLICE - 5 * CENT) == amounts(shared.inner)
    store.close()
    assert (5 * CENT, 0) == amounts(shared.inner)


def test_an_outage_is_ridden_out_until_the_slice_may_have_expired(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """A slice that should be replaced still pays while it surely lives; then nothing more is admitted."""
    store = lease_of(shared, clock)
    spend(store, 0, 1)
    plan(shared, *["request_lost"] * 1_000)
    clock.advance(LEASE.ttl_ms // 2 - 1)
    spend(store, 1, 1)
    clock.advance(1)
    with pytest.raises(StoreUnavailable):
        store.reserve(booking("late", CENT, *FOUR, limit=BIG))
    assert (0, SLICE) == amounts(shared.inner)
    plan(shared)
    spend(store, 2, 1)
    store.close()
    assert (3 * CENT, 0) == amounts(shared.inner)


@pytest.mark.parametrize("fate", ["request_lost", "response_lost"])
@pytest.mark.parametrize("verb", ["reserve", "draw"])
def test_lost_requests_and_answers_cost_nothing(
    shared: WholeFlakyStore, clock: ManualClock, verb: str, fate: str
) -> None:
    """Whether the shared store did its work or not, the same is in the books in the end."""
    shared._verbs = {verb}  # type: ignore[assignment]
    store = lease_of(shared, clock)
    plan(shared, fate)
    if verb == "reserve":
        with pytest.raises(StoreUnavailable):
            store.reserve(booking("c0", CENT, *FOUR, limit=BIG))
    spend(store, 0, 5)
    store.reserve(booking("open", CENT, *FOUR, limit=BIG))
    clock.advance(LEASE.ttl_ms // 2)
    store.tick()
    clock.advance(1_000)
    store.settle("open", CENT)
    store.tick()
    store.close()
    assert [(6 * CENT, 0)] * 4 == [amounts(shared.inner, account) for account in FOUR]
    assert 5 == sum(1 for _ in shared.inner.usage())


def test_a_lowered_limit_is_seen_within_half_a_lease(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """What another process sets is met by the next slice; what is set here, by the next call."""
    store = lease_of(shared, clock)
    spend(store, 0, 1, limit=None)
    shared.inner.set_limit(USER.scope, CENT)
    for _ in range(29):
        clock.advance(1_000)
        spend(store, clock() // 1_000, 1, limit=None)
    clock.advance(1_000)
    assert isinstance(store.reserve(booking("late", CENT, *FOUR)), Refused)
    store.set_limit(USER.scope, DOLLAR)
    assert isinstance(store.reserve(booking("late", CENT, *FOUR)), Reserved)
    store.set_limit(USER.scope, CENT)
    assert isinstance(store.reserve(booking("later", CENT, *FOUR)), Refused)


def test_a_limit_that_code_changes_counts_at_once(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Calls under another limit have slices of their own, which the shared store gives by the newest."""
    store = lease_of(shared, clock)
    spend(store, 0, 5, limit=BIG)
    assert isinstance(store.reserve(booking("a", CENT, *FOUR, limit=5 * CENT)), Refused)
    assert isinstance(store.reserve(booking("a", CENT, *FOUR, limit=6 * CENT)), Reserved)


def test_an_idle_slice_goes_back(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """After two seconds without a call others have its money; a call in flight becomes an ordinary reservation."""
    store = lease_of(shared, clock)
    spend(store, 0, 8)
    store.reserve(booking("open", CENT, *FOUR, limit=BIG))
    clock.advance(1_999)
    store.tick()
    assert (0, SLICE) == amounts(shared.inner)
    clock.advance(1)
    store.tick()
    assert (8 * CENT, CENT) == amounts(shared.inner)
    assert Reserved("open", replayed=True) == store.reserve(booking("open", CENT, *FOUR))
    assert Settled("open", "settled", 1, CENT) == store.settle("open", 1)


def test_a_scope_with_little_to_do_goes_without(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """A slice that went back after fewer than four calls is not followed by another for ten seconds."""
    store = lease_of(shared, clock)
    spend(store, 0, 3)
    clock.advance(2_000)
    store.tick()
    shared.log.clear()
    spend(store, 3, 1)
    assert ["reserve", "settle"] == verbs(shared)
    clock.advance(10_000)
    spend(store, 4, 1)
    assert ["reserve"] == verbs(shared)


def test_refusals_are_remembered_for_a_second(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Calls that need no less are refused without asking; money that comes back here, or a second, ends that."""
    store = lease_of(shared, clock, stale_ms=1_000)
    spend(store, 0, 1, limit=None)
    shared.inner.set_limit(USER.scope, 2 * CENT)
    store.close = lambda: None  # type: ignore[method-assign]
    store = lease_of(shared, clock, stale_ms=1_000)
    assert isinstance(store.reserve(booking("a", CENT)), Refused)
    shared.log.clear()
    again = store.reserve(booking("b", 2 * CENT))
    assert isinstance(again, Refused)
    assert (2 * CENT, []) == (again.needed, verbs(shared))
    clock.advance(999)
    assert isinstance(store.reserve(booking("b", CENT)), Refused)
    assert [] == verbs(shared)
    clock.advance(1)
    assert isinstance(store.reserve(booking("b", CENT)), Refused)
    assert "reserve" in verbs(shared)


def test_money_that_comes_back_ends_what_is_remembered(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """A call of this process that ends makes room at once."""
    store = lease_of(shared, clock, stale_ms=1_000)
    store.reserve(booking("a", CENT, limit=CENT))
    assert isinstance(store.reserve(booking("b", CENT, limit=CENT)), Refused)
    store.release("a")
    assert isinstance(store.reserve(booking("b", CENT, limit=CENT)), Reserved)


def test_nothing_is_admitted_by_what_is_remembered(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """A refusal names what was left; a call that needs no more than that asks all the same."""
    store = lease_of(shared, clock, stale_ms=1_000)
    assert isinstance(store.reserve(booking("a", 3 * CENT, limit=2 * CENT)), Refused)
    shared.inner.reserve(booking("others", 2 * CENT))
    shared.log.clear()
    assert isinstance(store.reserve(booking("a", CENT, limit=2 * CENT)), Refused)
    assert ["reserve"] == verbs(shared)


def test_months_have_slices_of_their_own(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """Each call is counted in the period that reserved it, whenever it ends."""
    december = Account(USER.scope, "2026-12")
    store = lease_of(shared, clock)
    store.reserve(booking("november", CENT, USER, limit=BIG))
    store.reserve(booking("december", CENT, december, limit=BIG))
    store.settle("december", 2)
    store.settle("november", 1)
    store.close()
    assert [(1, 0), (2, 0)] == [amounts(shared.inner, account) for account in (USER, december)]
    assert MONTH == USER.period


def test_an_id_that_others_used_stays_charged(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """It is noticed when the call is written: the money may be spent, so it is not given back."""
    shared.inner.reserve(booking("a", 7, ORG))
    store = lease_of(shared, clock)
    store.reserve(booking("a", CENT, *FOUR, limit=BIG))
    store.settle("a", CENT)
    store.reserve(booking("b", CENT, *FOUR, limit=BIG))
    store.settle("b", 1)
    store.write()
    store.close()
    assert (CENT + 1, 0) == amounts(shared.inner)
    assert (CENT + 1, 7) == amounts(shared.inner, ORG)


def test_an_overrun_is_seen_by_all_at_once(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """A bill above the hold does not wait to be written."""
    store = lease_of(shared, clock)
    store.reserve(booking("a", CENT, *FOUR, limit=BIG))
    assert Settled("a", "settled", 3 * CENT, CENT) == store.settle("a", 3 * CENT)
    assert (3 * CENT, SLICE - CENT) == amounts(shared.inner)
    assert (3 * CENT, 0) == amounts(store)


def test_a_hold_grows_out_of_the_slice(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """While there is room no round trip is needed; beyond it the call is handed over and raised there."""
    store = lease_of(shared, clock)
    store.reserve(booking("a", CENT, *FOUR, limit=BIG))
    shared.log.clear()
    assert Reserved("a") == store.raise_hold("a", SLICE)
    assert ([], (0, SLICE)) == (verbs(shared), amounts(store))
    shared.log.clear()
    store.reserve(booking("b", CENT, *FOUR, limit=BIG))
    assert ["raise_hold"] == verbs(shared)
    assert (0, 2 * SLICE) == amounts(shared.inner)
    store.release("b")
    shared.log.clear()
    assert Reserved("a") == store.raise_hold("a", DOLLAR)
    assert ["draw", "raise_hold"] == verbs(shared) or LEASE.slice_pusd * 2 >= DOLLAR
    assert Reserved("a") == store.raise_hold("a", 2 * DOLLAR)
    assert (0, 2 * DOLLAR) == amounts(store)
    store.settle("a", CENT)
    store.close()
    assert (CENT, 0) == amounts(shared.inner)


def test_looking_costs_one_round_trip_a_second(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """The balance shown counts every call of this process at once, and others' after a second at most."""
    store = lease_of(shared, clock, stale_ms=1_000)
    spend(store, 0, 1)
    shared.log.clear()
    assert (CENT, 0) == amounts(store)
    spend(store, 1, 4)
    store.reserve(booking("open", CENT, *FOUR, limit=BIG))
    shared.inner.reserve(booking("others", 7, USER))
    assert (5 * CENT, CENT) == amounts(store)
    assert ["balance"] == verbs(shared)
    clock.advance(1_000)
    assert (5 * CENT, CENT + 7) == amounts(store)


def test_the_same_id_at_once_is_taken_once(shared: WholeFlakyStore) -> None:
    """From many threads, while the slice is being fetched."""
    store = LeasedStore(shared, LEASE, background=False)
    threads = [threading.Thread(target=lambda: store.reserve(booking("a", CENT, *FOUR, limit=BIG))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (0, CENT) == amounts(store)
    store.settle("a", 1)
    store.close()


def test_a_balance_is_right_however_much_moves(clock: ManualClock) -> None:
    """Moves that end between every two looks wait for the last look, and are done after it."""
    left = 20
    spent = threading.Event()
    started: list[threading.Thread] = []

    class Busy(MemoryStore):
        def balance(self, account: Account) -> Balance:
            shown = super().balance(account)
            thread = threading.Thread(target=one_more)
            started.append(thread)
            spent.clear()
            thread.start()
            if len(started) < 5:
                thread.join()
            else:  # What it moves has to wait for this look.
                spent.wait()
            return shown

    def one_more() -> None:
        spend(store, 100 + len(started), 1)
        spent.set()
        store.write()

    shared = Busy(clock=clock)
    store = lease_of(shared, clock)
    spend(store, 0, left)
    assert (left + 5) * CENT == sum(amounts(store))
    for thread in started:
        thread.join()
    assert 5 == len(started)
    store.close()
    assert (left + 5) * CENT == MemoryStore.balance(shared, USER).spent


def test_the_thread_fetches_writes_and_gives_back(tmp_path: Path) -> None:
    """Nobody has to call `tick`; closing leaves nothing held, and no thread."""
    shared = SQLiteStore(tmp_path / "ledger.db", synchronous="NORMAL")
    before = set(threading.enumerate())
    store = LeasedStore(shared, Lease(slice="0.20", ttl_ms=60_000, checkpoint_calls=4), owns_store=False)

    def work(first: int) -> None:
        spend(store, first, 100)

    threads = [threading.Thread(target=work, args=(1_000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 800 * CENT == sum(amounts(store))
    store.close()
    store.close()
    assert [(800 * CENT, 0)] * 4 == [amounts(shared, account) for account in FOUR]
    assert 800 == sum(1 for _ in shared.usage())
    assert "runrails-leases" not in {thread.name for thread in set(threading.enumerate()) - before}
    with pytest.raises(StoreUnavailable, match="closed"):
        store.reserve(booking("a"))
    shared.close()


def test_a_guard_needs_no_change(tmp_path: Path) -> None:
    """The store is chosen by its URL; every call is in the books when the guard is closed, and no limit is passed."""
    from runrails import BudgetExceeded, Guard, Limits
    from runrails.calls import ModelCall, ModelResult, Prompt
    from runrails.testing import PRICES
    from runrails.usage import Usage

    url = f"sqlite:///{tmp_path}/ledger.db?lease=user&lease_slice=0.05"
    call = ModelCall(model="fake-flat", prompt=Prompt(texts=("hi",), messages=1), max_tokens=16)
    done = 0
    limits = Limits(run=None, month="0.50", steps=None, hold_wait_ms=0)
    with Guard(limits, user="alice", store=url, prices=PRICES) as guard, guard.run() as run:
        with pytest.raises(BudgetExceeded):
            for done in range(1_000):  # noqa: B007
                permit = run.before_model(call)
                run.after_model(permit, ModelResult(end="completed", usage=Usage(input_tokens=2, output_tokens=16)))
        assert isinstance(guard.store, LeasedStore)
    shared = SQLiteStore(tmp_path / "ledger.db")
    (alice,) = shared.balances(scope="user:alice")
    records = list(shared.usage(user="alice"))
    shared.close()
    assert done > 10
    assert (done, 0) == (len(records), alice.held)
    assert alice.spent == sum(record.actual_pusd or 0 for record in records) <= 50 * CENT


def test_closing_leaves_calls_in_flight_to_the_shared_store(shared: WholeFlakyStore, clock: ManualClock) -> None:
    """They expire like any hold, and whoever comes next may settle them."""
    store = lease_of(shared, clock)
    store.reserve(booking("a", CENT, *FOUR, limit=BIG, facts=facts()))
    store.close()
    assert (0, CENT) == amounts(shared.inner)
    other = lease_of(shared, clock)
    assert Settled("a", "settled", 1, CENT) == other.settle("a", 1)
    with pytest.raises(ReservationMismatch):
        other.settle("a", 2)
    assert (1, 0) == amounts(shared.inner)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_no_slices(tmp_path: Path) -> None:
    """What the parent leased is the parent's; the child leases for itself, and both are in the books."""
    store = LeasedStore(SQLiteStore(tmp_path / "ledger.db", synchronous="NORMAL"), LEASE, background=False)
    spend(store, 0, 3)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            spend(store, 10, 5)
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    spend(store, 3, 1)
    store.close()
    shared = SQLiteStore(tmp_path / "ledger.db")
    assert [(9 * CENT, 0)] * 4 == [amounts(shared, account) for account in FOUR]
    shared.close()
