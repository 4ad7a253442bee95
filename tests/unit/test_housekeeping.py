"""The background chores: warnings, holds kept alive, writes that waited for the store."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rr_core import CENT, MONTH, START_MS, Bench, cent_call, done, model_step
from runrails import BudgetExceeded, Limits, StoreUnavailable
from runrails.errors import ReservationMismatch
from runrails.events import Emitter, Event
from runrails.housekeeping import EXTEND_FOR_MS_MAX, POSTPONED_MAX, Housekeeper
from runrails.ledger import Account, Balance, Hold, Reservation
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore, ManualClock
from runrails.testing.stores import Fault


def test_the_warning_comes_once_at_eighty_percent() -> None:
    """Seven of ten cents: silence. Eight: one warning, and no second one within six hours."""
    bench = Bench(Limits(run=None, month="0.10", steps=None))
    run = bench.guard.run()
    for _ in range(7):
        model_step(run)
    bench.guard.flush()
    assert "budget_warned" not in bench.names()

    model_step(run)
    bench.guard.flush()
    model_step(run)
    bench.guard.flush()

    assert 1 == bench.names().count("budget_warned")
    (event,) = [e for e in bench.events if e.name == "runrails.budget_warned"]
    assert ("user:alice", 8 * CENT, 10 * CENT) == (
        event.fields["scope"], event.fields["spent"], event.fields["limit"],
    )  # fmt: skip


def test_two_guards_on_one_store_send_one_warning() -> None:
    """The claim is the store's, so processes agree on who sends."""
    store = MemoryStore(clock=ManualClock(1_795_000_000_000))
    benches = [Bench(Limits(run=None, month="0.10", steps=None), store=store) for _ in range(2)]
    run = benches[0].guard.run()
    for _ in range(9):
        model_step(run)
    for bench in benches:
        bench.guard.housekeeper.watch((Account("user:alice", MONTH),))
        bench.guard.flush()

    assert 1 == sum(bench.names().count("budget_warned") for bench in benches)


def test_reaching_the_limit_has_a_mark_of_its_own() -> None:
    """The owner hears again when nothing more can start."""
    bench = Bench(Limits(run=None, month="0.02", steps=None))
    run = bench.guard.run()
    model_step(run)
    model_step(run)
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())
    bench.guard.flush()

    assert "budget_limit_reached" in bench.names()


def test_a_hold_is_kept_alive_while_its_call_is_in_flight() -> None:
    """A call of ten minutes settles as if it had taken one second."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    permit = run.before_model(cent_call())
    for _ in range(15):
        bench.clock.advance(40_000)
        bench.guard.flush()
    run.after_model(permit, done())

    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_hold_whose_owner_died_is_charged() -> None:
    """Nobody extends it; the store charges it at the hold by its own clock."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    run.before_model(cent_call())
    bench.clock.advance(120_000 + 60_000)

    assert 1 == len(bench.store.expire().ids)
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_settlement_the_store_could_not_take_is_written_later() -> None:
    """The store is down when the answer comes; the next round writes it once."""
    clock = ManualClock(1_795_000_000_000)
    inner = MemoryStore(clock=clock)
    store = FlakyStore(inner, ["request_lost"], verbs={"settle"})
    bench = Bench(Limits(run="1.00"), store=store)
    run = bench.guard.run()
    model_step(run)
    bench.guard.flush()
    bench.guard.flush()

    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert "settlement_postponed" in bench.names()


def test_a_settlement_whose_answer_was_lost_is_not_charged_twice() -> None:
    """The write happened, the answer did not arrive: repeating it changes nothing."""
    store = FlakyStore(MemoryStore(clock=ManualClock(1_795_000_000_000)), ["response_lost"], verbs={"settle"})
    bench = Bench(Limits(run="1.00"), store=store)
    model_step(bench.guard.run())
    bench.guard.flush()

    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_store_out_of_reach_refuses_by_default() -> None:
    """Fail closed: no call starts that the ledger does not know of."""
    store = FlakyStore(MemoryStore(clock=ManualClock(1_795_000_000_000)), ["request_lost"], verbs={"reserve"})
    bench = Bench(store=store)
    run = bench.guard.run()
    with pytest.raises(StoreUnavailable):
        run.before_model(cent_call())

    assert (0, None) == (run.report().steps, run.stop_reason)


def test_failing_open_is_a_named_option_and_is_reconciled() -> None:
    """With `on_store_error="allow"` the call starts, an event says so, and the cost reaches the books afterwards."""
    store = FlakyStore(MemoryStore(clock=ManualClock(1_795_000_000_000)), ["request_lost"], verbs={"reserve"})
    bench = Bench(store=store, on_store_error="allow")
    model_step(bench.guard.run())

    assert "store_bypassed" in bench.names()
    assert CENT == bench.spent("user:alice")


def test_one_write_that_fails_does_not_lose_the_others() -> None:
    """A bug or a refusal in one postponed write is an event; the next ones are written."""
    bench = Bench()
    written: list[int] = []

    def broken() -> None:
        raise RuntimeError("a bug")

    bench.guard.housekeeper.postpone(broken)
    bench.guard.housekeeper.postpone(lambda: written.append(1))
    bench.guard.flush()

    assert [1] == written
    assert "settlement_failed" in bench.names()


def test_an_interrupt_in_a_postponed_write_loses_none() -> None:
    """Ctrl-C in the middle of a flush: every write is done by the next one."""
    bench = Bench()
    written: list[str] = []
    interrupts = [KeyboardInterrupt()]

    def first() -> None:
        if interrupts:
            raise interrupts.pop()
        written.append("first")

    bench.guard.housekeeper.postpone(first)
    bench.guard.housekeeper.postpone(lambda: written.append("second"))
    with pytest.raises(KeyboardInterrupt):
        bench.guard.flush()
    bench.guard.flush()

    assert ["first", "second"] == written


def test_writes_beyond_the_most_that_wait_are_told() -> None:
    """Nothing is dropped in silence: at the limit it waits, above it an event says what is lost."""
    bench = Bench()
    for _ in range(POSTPONED_MAX):
        bench.guard.housekeeper.postpone(lambda: None)
    assert "settlement_lost" not in bench.names()
    bench.guard.housekeeper.postpone(lambda: None)
    assert "settlement_lost" in bench.names()
    bench.guard.close()


def test_a_settlement_after_the_guard_is_closed_says_what_becomes_of_it() -> None:
    """Nobody will write it any more; the hold expires charged, and an event says so."""
    store = FlakyStore(MemoryStore(clock=ManualClock(START_MS)), ["request_lost"], verbs={"settle"})
    bench = Bench(store=store)
    run = bench.guard.run()
    permit = run.before_model(cent_call())
    bench.guard.close()
    run.after_model(permit, done())
    assert "settlement_lost" in bench.names()


def test_a_permit_that_is_never_handed_back_does_not_hold_for_ever() -> None:
    """After an hour it is no longer kept alive and the store charges it."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    run.before_model(cent_call())
    for _ in range(EXTEND_FOR_MS_MAX // 40_000 + 10):
        bench.clock.advance(40_000)
        bench.guard.flush()
    bench.store.expire()

    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_run_that_ends_lets_go_of_its_open_holds() -> None:
    """What is in flight may still settle; what is not expires by the ledger's clock."""
    bench = Bench(Limits(run="1.00"))
    with bench.guard.run() as run:
        late = run.before_model(cent_call())
        run.before_model(cent_call())
    for _ in range(4):
        bench.clock.advance(40_000)
        bench.guard.flush()
    bench.store.expire()
    run.after_model(late, done())

    assert (2 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_hold_that_is_no_longer_open_is_not_asked_for_again() -> None:
    """The store said so once."""
    store = FlakyStore(MemoryStore(clock=ManualClock(START_MS)))
    bench = Bench(store=store)
    permit = bench.guard.run().before_model(cent_call())
    store.inner.release(permit.id)
    for _ in range(5):
        bench.clock.advance(40_000)
        bench.guard.flush()

    assert 1 == [verb for verb, _ in store.log].count("extend")


def test_accounts_may_be_charged_while_warnings_are_sent() -> None:
    """A sink that makes further calls does not break the round, and its accounts are looked at in the next."""
    bench = Bench(Limits(run=None, month="0.02", steps=None))
    keeper = bench.guard.housekeeper

    def sink(event: Event) -> None:
        for number in range(100):
            keeper.watch((Account(f"user:u{number}", MONTH),))

    run = bench.guard.run()
    model_step(run)
    model_step(run)
    bench.guard.emit.sinks = (*bench.guard.emit.sinks, sink)
    bench.guard.flush()
    bench.guard.flush()
    assert "budget_limit_reached" in bench.names()


def test_a_warning_the_store_could_not_claim_is_tried_again() -> None:
    """The limit's mark is set once only, so it must survive a store that is away."""
    store = FlakyStore(MemoryStore(clock=ManualClock(START_MS)), ["request_lost"], verbs={"claim_warning"})
    bench = Bench(Limits(run=None, month="0.01", steps=None), store=store)
    run = bench.guard.run()
    model_step(run)
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())
    bench.guard.flush()
    assert "budget_limit_reached" not in bench.names()
    bench.guard.flush()
    assert "budget_limit_reached" in bench.names()


class Counting(SQLiteStore):
    """Counts how often it was asked for balances."""

    asked = 0

    def balance(self, account: Account) -> Balance:
        self.asked += 1
        return super().balance(account)

    def balances_of(self, accounts: Sequence[Account]) -> list[Balance]:
        self.asked += 1
        return super().balances_of(accounts)


def test_many_callers_months_are_one_read(tmp_path: Path) -> None:
    """And each that has come to its limit is told of."""
    store = Counting(tmp_path / "ledger.db", clock=ManualClock(START_MS))
    bench = Bench(Limits(steps=None), store=store)
    months = [Account(f"user:u{number}", MONTH) for number in range(50)]
    for number, month in enumerate(months):
        store.reserve(Reservation(id=f"r{number}", holds=(Hold(month, 10, 10),)))
        store.settle(f"r{number}", 10 if number % 2 else 1)
    store.asked = 0
    bench.guard.housekeeper.watch(months)
    bench.guard.flush()
    assert 1 == store.asked
    assert 25 == bench.names().count("budget_limit_reached")
    store.close()


class Silent(Counting):
    """Says nothing of some accounts, and something of one that nobody has asked about."""

    def balances_of(self, accounts: Sequence[Account]) -> list[Balance]:
        return super().balances_of([*accounts[1:], Account("user:nobody", MONTH)])


def test_a_store_that_leaves_accounts_out_is_asked_once(tmp_path: Path) -> None:
    """And those that it tells of are looked at."""
    store = Silent(tmp_path / "ledger.db", clock=ManualClock(START_MS))
    bench = Bench(Limits(steps=None), store=store)
    months = [Account(f"user:u{number}", MONTH) for number in range(3)]
    for number, month in enumerate(months):
        store.reserve(Reservation(id=f"r{number}", holds=(Hold(month, 10, 10),)))
        store.settle(f"r{number}", 10)
    bench.guard.housekeeper.watch(months)
    bench.guard.flush()
    assert ["user:u1", "user:u2"] == [event.fields["scope"] for event in bench.events]
    assert {} == bench.guard.housekeeper.watched
    store.close()


def test_a_guard_with_nothing_to_do_keeps_no_thread() -> None:
    """One guard a user must not mean one thread a user for ever; the next call starts it again."""
    keeper = Housekeeper(MemoryStore(), Emitter(()), monotonic=ManualClock(0), idle_s=0.01)
    keeper.opened("a", 1_000)
    first = keeper.thread
    assert first is not None
    keeper.ended("a")
    first.join(timeout=20)
    assert not first.is_alive()

    keeper.opened("b", 1_000)
    second = keeper.thread
    assert second is not None
    assert second.is_alive()
    keeper.close()
    assert not second.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stack of 64 TiB may be refused in another way")
def test_a_machine_that_cannot_start_a_thread_still_guards() -> None:
    """No background thread: the call starts, is settled, and `flush` does the chores."""
    bench = Bench(Limits(run="1.00"))
    before = threading.stack_size(2**46)
    try:
        model_step(bench.guard.run())
    finally:
        threading.stack_size(before)
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_keep_its_parents_holds_alive() -> None:
    """If the parent dies, its holds must expire whatever its children do."""
    bench = Bench()
    permit = bench.guard.run().before_model(cent_call())
    child = os.fork()
    if child == 0:
        keeper = bench.guard.housekeeper
        bench.clock.advance(50_000)
        keeper.tick()
        keeper.opened("mine", 1_000)
        thread = keeper.thread
        alive = thread is not None and thread.is_alive()
        os._exit(0 if permit.id not in keeper.open and alive else 1)
    _, status = os.waitpid(child, 0)
    assert 0 == os.waitstatus_to_exitcode(status)
    assert permit.id in bench.guard.housekeeper.open


def test_guards_without_calls_start_no_thread() -> None:
    """Making guards and runs is cheap."""
    before = set(threading.enumerate())  # Of those, some of other tests may just be ending.
    for _ in range(20):
        Bench().guard.run().close()
    assert set() == set(threading.enumerate()) - before


class SlowStore(FlakyStore):
    """A store behind a network that needs its time for every release; `arriving` are requests that it has not had."""

    def __init__(
        self, clock: ManualClock, plan: list[Fault], *, release_ms: int = 0, together: int = 1, **options: Any
    ):
        super().__init__(MemoryStore(clock=clock), plan, **options)
        self.arriving: list[Reservation] = []
        self.charged: list[str] = []
        self._barrier = threading.Barrier(together, self._take_time, timeout=10)
        self._clock, self._release_ms = clock, release_ms

    def reserve(self, reservation: Reservation) -> Any:
        try:
            return super().reserve(reservation)
        except StoreUnavailable:
            self.arriving.append(reservation)
            raise

    def release(self, reservation_id: str) -> Any:
        answer = super().release(reservation_id)
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:  # they come one by one
            self._take_time()
        return answer

    def _take_time(self) -> None:
        self._clock.advance(self._release_ms)
        self.charged += self.inner.expire().ids  # as other processes do


def refused(bench: Bench, count: int) -> None:
    """Calls that the store takes, and whose callers never hear of it. Only `flush` does the chores from then on."""
    bench.guard.housekeeper.thread = threading.current_thread()
    run = bench.guard.run()
    for _ in range(count):
        with pytest.raises(StoreUnavailable):
            run.before_model(cent_call())


def test_releases_do_not_wait_in_line_behind_slow_ones() -> None:
    """Eight that take two seconds each, of holds that live for ten: four at once are through before any is charged."""
    clock = ManualClock(START_MS)
    plan: list[Fault] = ["response_lost", "request_lost"] * 8
    store = SlowStore(clock, plan, verbs={"reserve", "release"}, remote=True, release_ms=2_000, together=4)
    bench = Bench(Limits(run="1.00", hold_ttl_ms=10_000), store=store, clock=clock)
    refused(bench, 8)
    assert 8 * CENT == bench.held("user:alice")
    bench.guard.flush()

    assert [] == store.charged
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert "settle" not in [verb for verb, _ in store.log]


def test_a_hold_that_is_to_be_released_does_not_expire_meanwhile() -> None:
    """The store takes no release for five minutes: nothing is charged for a call that was never sent."""
    clock = ManualClock(START_MS)
    plan: list[Fault] = ["response_lost", *["request_lost"] * 9]
    store = FlakyStore(MemoryStore(clock=clock), plan, verbs={"reserve", "release"})
    bench = Bench(Limits(run="1.00"), store=store, clock=clock)
    refused(bench, 1)
    for _ in range(8):
        clock.advance(40_000)
        bench.guard.flush()
        assert () == store.inner.expire().ids
        assert (0, CENT) == (bench.spent("user:alice"), bench.held("user:alice"))
    bench.guard.flush()
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_request_that_arrives_after_it_was_given_up_holds_nothing() -> None:
    """Its answer was waited for in vain, and what is not there cannot be released: so its id is taken for nothing."""
    clock = ManualClock(START_MS)
    store = SlowStore(clock, ["request_lost"], verbs={"reserve"}, remote=True)
    bench = Bench(Limits(run="1.00"), store=store, clock=clock)
    refused(bench, 1)
    (late,) = store.arriving
    with pytest.raises(ReservationMismatch):
        store.inner.reserve(late)
    clock.advance(300_000)
    assert () == store.inner.expire().ids
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_one_that_arrives_while_it_is_given_up_is_released() -> None:
    """Between looking for it and taking its id."""
    clock = ManualClock(START_MS)

    class Arriving(SlowStore):
        def reserve(self, reservation: Reservation) -> Any:
            for late in self.arriving[:1]:
                self.inner.reserve(late)
            return super().reserve(reservation)

    store = Arriving(clock, ["request_lost"], verbs={"reserve"}, remote=True)
    bench = Bench(Limits(run="1.00"), store=store, clock=clock)
    refused(bench, 1)
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert ["reserve", "release", "reserve", "release"] == [
        verb for verb, _ in store.log if verb in ("reserve", "release")
    ]


def test_calls_in_flight_are_kept_alive_while_much_is_written() -> None:
    """Thirty writes of six seconds each: what is held is looked at between them."""
    clock = ManualClock(START_MS)
    plan: list[Fault] = ["ok", *["response_lost", "request_lost"] * 30]
    store = SlowStore(clock, plan, verbs={"reserve", "release"}, release_ms=6_000)
    bench = Bench(Limits(run="1.00"), store=store, clock=clock)
    bench.guard.housekeeper.thread = threading.current_thread()
    run = bench.guard.run()
    permit = run.before_model(cent_call())
    refused(bench, 30)
    rounds = 0
    while bench.held("user:alice") > CENT and rounds < 30:
        bench.guard.flush()
        rounds += 1
        assert () == store.inner.expire().ids
    run.after_model(permit, done())
    assert 5 <= rounds < 30
    assert [] == store.charged
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
