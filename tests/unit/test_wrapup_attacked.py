"""What tries to get more than one last call out of a run, to pass a limit with it, or to leave its money held."""

from __future__ import annotations

import threading
from contextvars import copy_context
from pathlib import Path

import pytest

from rr_core import CENT, PRICES, START_MS, Bench, cent_call, done, model_step, opened, tool_step, used_up
from runrails import BudgetExceeded, ConfigError, Guard, GuardrailStopped, Limits, LoopDetected
from runrails.calls import ModelCall, Permit, Prompt
from runrails.digest import OVERHEAD_TOKENS
from runrails.ledger import Account, Refused, Reservation, Reserved, Settled
from runrails.money import usd
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.wrapup import INPUT_TOKENS_MIN, OUTPUT_TOKENS

WRAP = Limits(run="0.10", loops=None, wrap_up=True)


class Watched(MemoryStore):
    """Tells of what it is asked, before it answers."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.before_release = lambda: None
        self.before_reserve = lambda: None
        self.broken: BaseException | None = None
        self.last_turns = 0

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        self.before_reserve()
        if reservation.facts is None:
            self.last_turns += 1
            if self.broken is not None:
                raise self.broken
        return super().reserve(reservation)

    def release(self, reservation_id: str) -> Settled:
        self.before_release()
        return super().release(reservation_id)


def watched(limits: Limits = WRAP) -> tuple[Bench, Watched]:
    """A bench on such a store."""
    clock = ManualClock(START_MS)
    store = Watched(clock)
    bench = Bench(limits, store=store)
    bench.clock = clock
    return bench, store


@pytest.mark.parametrize(
    "limits",
    [Limits(run="1.00", wrap_up=True, model_calls=5), Limits(run="1.00", wrap_up=True, steps=10)],
    ids=["model calls", "steps"],
)
def test_a_loop_on_the_very_last_step_leaves_no_room_for_one_more(limits: Limits) -> None:
    """The detector has stopped the run, but the number that its owner wrote is used up as well."""
    bench = Bench(limits)
    run, last = opened(bench)
    with pytest.raises(LoopDetected):
        for _ in range(9):
            model_step(run, cent_call())
            tool_step(run)
    before = run.report()
    with last.turn() as room:
        assert 0 == room
        with pytest.raises(GuardrailStopped):
            run.before_model(cent_call())
    after = run.report()
    assert (5, before.steps) == (after.model_calls, after.steps)
    assert 0 == bench.names().count("wrap_up_failed")
    run.close()
    assert 0 == bench.held(f"run:{run.id}", "-")


def test_a_parents_limit_on_calls_is_not_passed_by_a_childs_last_turn() -> None:
    """What a child does counts in the run it is part of."""
    bench = Bench(Limits(run="1.00", model_calls=5))
    with bench.guard.run() as outer:
        run = bench.guard.run(limits=Limits(run="1.00", wrap_up=True))
        last = run.expect_last_turn()
        with pytest.raises(LoopDetected):
            for _ in range(9):
                model_step(run, cent_call())
                tool_step(run)
        with last.turn() as room:
            assert 0 == room
        run.close()
        assert 5 == outer.report().model_calls


def test_threads_that_share_the_turn_start_one_call() -> None:
    """A layer below that asks several models at once has taken this context to its threads."""
    bench, store = watched()
    run, last = opened(bench)
    used_up(run)
    together = threading.Barrier(8)
    admitted: list[Permit] = []

    def ask() -> None:
        together.wait()
        try:
            admitted.append(run.before_model(cent_call()))
        except GuardrailStopped:
            return

    second: list[threading.Thread] = []

    def while_released() -> None:
        """In the middle of the first one's way."""
        store.before_release = lambda: None
        for thread in second:
            thread.start()
        for thread in second:
            thread.join()

    with last.turn():
        second.extend(threading.Thread(target=copy_context().run, args=(ask,)) for _ in range(8))
        store.before_release = while_released
        admitted.append(run.before_model(cent_call()))
    assert 1 == len(admitted)


def test_money_is_kept_back_once_whoever_calls_first() -> None:
    """Thirty-two threads begin at once; when the run has ended nothing is held."""
    bench, store = watched(Limits(run="10.00", loops=None, steps=None, wrap_up=True))
    run, _ = opened(bench)
    together = threading.Barrier(32)
    nested = threading.local()

    def linger() -> None:
        if not getattr(nested, "once", False):
            nested.once = True
            waits.wait(0.01)

    waits = threading.Event()
    store.before_reserve = linger

    def ask() -> None:
        together.wait()
        model_step(run, cent_call())

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == store.last_turns
    run.close()
    assert (32 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_run_that_was_closed_meanwhile_has_no_last_call() -> None:
    """Nothing starts in a run that has ended."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    used_up(run)
    with last.turn() as room:
        assert room
        run.close()
        with pytest.raises((ConfigError, GuardrailStopped)):
            run.before_model(cent_call())
    assert (9 * CENT, 0) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))


def test_what_was_left_alone_takes_no_last_turn() -> None:
    """Its outcome has been handed over, and nobody reads what it would say."""
    bench = Bench(WRAP)
    with pytest.raises(GuardrailStopped), bench.guard.run() as run:
        last = run.expect_last_turn()
        used_up(run)
        assert run.stopped is not None
        run.leave_alone(run.stopped, run.entry.stay)
        with last.turn() as room:
            assert 0 == room
            run.before_model(cent_call())
    assert 9 == run.report().model_calls


def test_a_child_is_told_to_stop_and_not_to_wait_for_what_its_parent_keeps_back() -> None:
    """Waiting would be in vain: the parent gives it back when it ends."""
    bench = Bench(Limits(run="0.10", loops=None, wrap_up=True, hold_wait_ms=0))
    with bench.guard.run() as outer:
        outer.expect_last_turn()
        model_step(outer, cent_call())
        child = bench.guard.run(limits=Limits(run="1.00", loops=None, hold_wait_ms=0))
        assert 8 == used_up(child)
        child.close()
        assert isinstance(outer.stopped, BudgetExceeded)
        assert outer.last_turn is not None
        with outer.last_turn.turn() as room:
            assert room
            outer.after_model(outer.before_model(cent_call()), done())
    assert (10 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_what_a_run_keeps_back_that_nobody_goes_on_with_is_free_again_after_the_holds_time() -> None:
    """An agent that an error has ended, or that waits for a person, must not keep the month's money from others."""
    bench = Bench(WRAP)
    for _ in range(5):
        run, _ = opened(bench)
        model_step(run, cent_call())
    assert 5 * CENT == bench.held("user:alice")
    for _ in range(6):
        bench.clock.advance(30_000)
        bench.guard.housekeeper.tick()
    bench.store.expire()
    assert (5 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_while_the_run_goes_on_it_stays_kept_back_and_what_has_lapsed_is_kept_anew() -> None:
    """Each call says that the run goes on; after a long pause the next one does."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    for _ in range(4):
        model_step(run, cent_call())
        bench.clock.advance(50_000)
        bench.store.expire()
        assert CENT == bench.held(f"run:{run.id}", "-")
    bench.clock.advance(3_000_000)
    bench.store.expire()
    assert 0 == bench.held(f"run:{run.id}", "-")
    model_step(run, cent_call())
    assert CENT == bench.held(f"run:{run.id}", "-")
    assert 4 == used_up(run)
    with last.turn() as room:
        assert room
        run.after_model(run.before_model(cent_call()), done())
    assert (10 * CENT, 0) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))


def test_a_dearer_model_than_the_one_that_money_was_kept_for_gets_no_last_turn_beyond_the_budget() -> None:
    """It is refused, nothing stays held, and there is no second try."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    used_up(run)
    dear = ModelCall(model="dear", prompt=Prompt(texts=("hi",), messages=1), max_tokens=100)
    with last.turn() as room:
        assert room
        with pytest.raises(BudgetExceeded):
            run.before_model(dear)
        with pytest.raises(GuardrailStopped):
            run.before_model(cent_call())
    assert (9 * CENT, 0) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))
    assert (9, 9) == (run.report().model_calls, run.report().steps)


def test_a_bug_in_a_store_that_shows_when_money_is_kept_back_refuses_no_call() -> None:
    """The run has no last turn, and says so."""
    bench, store = watched()
    store.broken = ZeroDivisionError("a bug")
    run, _ = opened(bench)
    model_step(run, cent_call())
    assert 1 == bench.names().count("wrap_up_unfunded")
    run.close()
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_an_interrupt_while_money_is_kept_back_leaves_nothing_held() -> None:
    """Ctrl-C."""
    bench, store = watched()
    store.broken = KeyboardInterrupt()
    run, _ = opened(bench)
    with pytest.raises(KeyboardInterrupt):
        model_step(run, cent_call())
    run.close()
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_an_interrupt_at_the_last_call_gives_its_hold_back() -> None:
    """It was not sent, so nothing is charged for it when its time has run out."""
    bench, _ = watched()
    run, last = opened(bench)
    used_up(run)

    opened_before = bench.guard.housekeeper.opened

    def opened_then_interrupted(reservation_id: str, ttl_ms: int) -> None:
        opened_before(reservation_id, ttl_ms)
        raise KeyboardInterrupt

    bench.guard.housekeeper.opened = opened_then_interrupted  # type: ignore[method-assign]  # an interrupt at this line
    with pytest.raises(KeyboardInterrupt), last.turn():
        run.before_model(cent_call())
    bench.clock.advance(200_000)
    bench.store.expire()
    assert (9 * CENT, 0) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))
    assert 9 == run.report().model_calls


@pytest.mark.parametrize("markup_bp", [0, 1, 200, 3_333, 10_000])
def test_with_a_mark_up_the_last_turn_is_paid_and_the_budget_not_passed(markup_bp: int) -> None:
    """The longest prompt that there is room for, and the longest answer, cost what was kept back."""
    clock = ManualClock(START_MS)
    guard = Guard(
        Limits(run="2.00", month="2.50", loops=None, steps=None, wrap_up=True), prices=PRICES, user="alice",
        store=MemoryStore(clock=clock), clock=clock, monotonic=clock, markup_bp=markup_bp, sinks=(),
    )  # fmt: skip
    run = guard.run()
    last = run.expect_last_turn()
    call = ModelCall(model="tokens", prompt=Prompt(texts=("x" * 3_000,), messages=1), max_tokens=1_000)
    with pytest.raises(GuardrailStopped):
        while True:
            model_step(run, call, done(3_000, 1_000))
    with last.turn() as room:
        assert room >= INPUT_TOKENS_MIN
        prompt = Prompt(texts=("x" * (room - OVERHEAD_TOKENS),), messages=1)
        permit = run.before_model(ModelCall(model="tokens", prompt=prompt, max_tokens=OUTPUT_TOKENS))
        run.after_model(permit, done(room, OUTPUT_TOKENS))
    balance = guard.store.balance(Account(f"run:{run.id}", "-"))
    assert 0 == balance.held
    assert usd("1.80") < balance.spent <= usd("2.00")


def test_thirty_two_threads_never_pass_the_budget_and_leave_the_turn_its_money() -> None:
    """Whatever the order of their calls."""
    bench = Bench(Limits(run="0.50", loops=None, steps=None, wrap_up=True))
    run, last = opened(bench)

    def work() -> None:
        with pytest.raises(GuardrailStopped):
            while True:
                model_step(run, cent_call())

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with last.turn() as room:
        assert room
        run.after_model(run.before_model(cent_call()), done())
    spent, held = bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-")
    assert 0 == held
    assert 48 * CENT <= spent <= 50 * CENT


def test_a_call_without_a_cap_holds_all_but_what_is_kept_back() -> None:
    """And one that nobody can cap cannot be the last one beyond the budget."""
    bench = Bench(Limits(run="1.00", loops=None, uncapped="hold", wrap_up=True))
    run, last = opened(bench)
    uncapped = ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1))
    permit = run.before_model(uncapped)
    assert usd("1.00") == bench.held(f"run:{run.id}", "-")
    assert permit.uncapped
    kept = usd("1.00") - permit.bound_pusd
    assert kept >= usd("0.03")
    run.after_model(permit, done(10, (usd("1.00") - kept) // usd("0.00003") - 10))
    with pytest.raises(BudgetExceeded):
        run.before_model(uncapped)
    with last.turn() as room:
        assert room
        run.after_model(
            run.before_model(ModelCall(model="tokens", prompt=Prompt(texts=("hi",)), max_tokens=512)), done()
        )
    assert 0 == bench.held(f"run:{run.id}", "-")
    assert bench.spent(f"run:{run.id}", "-") <= usd("1.00")


def test_resumed_in_the_middle_of_its_last_turn_it_can_end_with_one_again() -> None:
    """A person raises the limit while the model writes its last answer."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    used_up(run)
    with last.turn() as room:
        assert room
        permit = run.before_model(cent_call())
        run.resume(limits=Limits(run="0.20", loops=None, wrap_up=True))
        run.after_model(permit, done())
    assert 9 == used_up(run)
    with last.turn() as room:
        assert room
        run.after_model(run.before_model(cent_call()), done())
    assert (20 * CENT, 0) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))


def test_resumed_before_its_last_call_it_keeps_money_back_anew() -> None:
    """What was kept is given back with the turn, as the run goes on."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    used_up(run)
    with last.turn() as room:
        assert room
        run.resume(limits=Limits(run="0.20", loops=None, wrap_up=True))
    assert 10 == used_up(run)
    with last.turn() as room:
        assert room
        run.after_model(run.before_model(cent_call()), done())
    assert (20 * CENT, 0) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))


def test_a_call_in_a_run_that_has_ended_keeps_nothing_back() -> None:
    """It is refused, and nobody would give the money back."""
    bench = Bench(WRAP)
    run, _ = opened(bench)
    run.close()
    with pytest.raises(ConfigError):
        run.before_model(cent_call())
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_on_a_file_it_is_released_when_its_process_is_gone_and_lives_while_calls_are_made(tmp_path: Path) -> None:
    """Another process sweeps what the dead one held; nothing is charged, and the books add up."""
    clock = ManualClock(START_MS)
    bench = Bench(WRAP, store=SQLiteStore(tmp_path / "ledger.db", clock=clock))
    bench.clock = clock
    guard = Guard(
        WRAP, user="alice", store=bench.store, prices=PRICES, sinks=(), clock=clock, monotonic=clock,
    )  # fmt: skip
    run = guard.run()
    run.expect_last_turn()
    for _ in range(4):
        model_step(run, cent_call())
        clock.advance(50_000)
        bench.store.expire()
        assert CENT == bench.held("user:alice")
    other = SQLiteStore(tmp_path / "ledger.db", clock=clock)
    clock.advance(200_000)
    other.expire()
    assert (4 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert 4 == sum(row.calls for row in guard.usage(by="run"))
    run.close()
    guard.close()
