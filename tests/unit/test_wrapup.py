"""Money kept back for a last turn: held from the first call on, used for one call after a stop, given back."""

from __future__ import annotations

import threading

import pytest

from rr_core import CENT, START_MS, Bench, cent_call, done, model_step, opened, tool_step, used_up
from runrails import BudgetExceeded, GuardrailStopped, Limits, LoopDetected
from runrails.calls import ModelCall, Prompt
from runrails.errors import BudgetBusy
from runrails.money import usd
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore, ManualClock
from runrails.testing.stores import Fault
from runrails.wrapup import INPUT_TOKENS_MAX, INPUT_TOKENS_MIN

WRAP = Limits(run="0.10", loops=None, wrap_up=True)


def test_the_last_cent_is_kept_for_the_last_turn() -> None:
    """Nine calls of work and one of wrapping up are ten cents, and not one more can start."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    assert 9 == used_up(run)
    assert (9 * CENT, CENT) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))

    with last.turn() as room:
        assert INPUT_TOKENS_MIN <= room <= INPUT_TOKENS_MAX
        permit = run.before_model(cent_call())
        with pytest.raises(GuardrailStopped):
            run.before_model(cent_call())
        run.after_model(permit, done())
    with pytest.raises(GuardrailStopped):
        run.before_model(cent_call())
    assert (10 * CENT, 0) == (bench.spent(f"run:{run.id}", "-"), bench.held(f"run:{run.id}", "-"))
    assert (10, 10) == (run.report().model_calls, run.report().steps)
    assert 1 == bench.names().count("run_wrapped_up")


def test_there_is_one_last_turn() -> None:
    """Even if the first one made no call."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    used_up(run)
    with last.turn() as room:
        assert room
    with last.turn() as room:
        assert 0 == room
        with pytest.raises(GuardrailStopped):
            run.before_model(cent_call())
    assert 0 == bench.held(f"run:{run.id}", "-")


def test_there_is_none_before_a_stop_and_no_tool_in_it() -> None:
    """Nor does a thread beside it get through."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    model_step(run, cent_call())
    with last.turn() as room:
        assert 0 == room
    used_up(run)
    refused: list[BaseException] = []

    def beside() -> None:
        try:
            run.before_model(cent_call())
        except GuardrailStopped as stop:
            refused.append(stop)

    with last.turn():
        with pytest.raises(GuardrailStopped):
            tool_step(run)
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
        run.after_model(run.before_model(cent_call()), done())
    assert 1 == len(refused)


def test_a_loop_leaves_the_turn_its_money() -> None:
    """After the detector's stop the call is paid as any other."""
    bench = Bench(Limits(run="1.00", wrap_up=True))
    run, last = opened(bench)
    with pytest.raises(GuardrailStopped):
        for _ in range(9):
            model_step(run, cent_call())
            tool_step(run)
    spent = bench.spent(f"run:{run.id}", "-")
    with last.turn() as room:
        assert room
        run.after_model(run.before_model(cent_call()), done())
    assert spent + CENT == bench.spent(f"run:{run.id}", "-")


@pytest.mark.parametrize(
    "limits",
    [
        Limits(run="0.10", loops=None, steps=3, wrap_up=True),
        Limits(run="0.10", loops=None, model_calls=3, wrap_up=True),
        Limits(run="0.10", loops=None, tokens=5_000, wrap_up=True),
    ],
    ids=["steps", "model calls", "tokens"],
)
def test_a_limit_on_calls_or_tokens_leaves_no_room(limits: Limits) -> None:
    """It would be passed."""
    bench = Bench(limits)
    run, last = opened(bench)
    with pytest.raises(GuardrailStopped):
        for _ in range(99):
            model_step(run, cent_call(), done(1_000, 1_000))
    with last.turn() as room:
        assert 0 == room


def test_other_runs_cannot_take_what_is_kept_back() -> None:
    """It is held in the month as well; they are told so as of any hold."""
    bench = Bench(Limits(run="0.50", month="0.10", loops=None, wrap_up=True, hold_wait_ms=0))
    run, last = opened(bench)
    model_step(run, cent_call())
    other = bench.guard.run(limits=Limits(run="0.50", month="0.10", loops=None, hold_wait_ms=0))
    with pytest.raises(BudgetBusy):
        for _ in range(99):
            model_step(other, cent_call())
    with pytest.raises(BudgetExceeded):
        model_step(run, cent_call())
    with last.turn() as room:
        assert room
        run.after_model(run.before_model(cent_call()), done())
    assert (10 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_nothing_is_kept_where_nobody_can_take_the_turn_or_nobody_asked() -> None:
    """Ten calls of work."""
    for bench, expecting in ((Bench(WRAP), False), (Bench(Limits(run="0.10", loops=None)), True)):
        run = bench.guard.run()
        if expecting:
            run.expect_last_turn()
        assert 10 == used_up(run)


def test_nothing_is_kept_of_a_budget_that_it_would_eat_up() -> None:
    """A last turn of $3.20 is more than half of $4."""
    bench = Bench(Limits(run="4.00", loops=None, wrap_up=True))
    run, last = opened(bench)
    dear = ModelCall(model="dear", prompt=Prompt(texts=("hi",), messages=1), max_tokens=100)
    model_step(run, dear)
    assert 0 == bench.held(f"run:{run.id}", "-")
    with pytest.raises(BudgetExceeded):
        model_step(run, dear)
    with last.turn() as room:
        assert 0 == room


def test_closing_the_run_gives_it_back_and_so_does_its_owners_death() -> None:
    """Nothing was sent for it, so nothing is charged."""
    bench = Bench(WRAP)
    run, _ = opened(bench)
    model_step(run, cent_call())
    run.close()
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))

    run, _ = opened(bench)
    model_step(run, cent_call())
    assert CENT == bench.held("user:alice")
    bench.clock.advance(200_000)
    bench.store.expire()
    assert (2 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_observing_keeps_nothing_back() -> None:
    """It would look like a refusal."""
    bench = Bench(WRAP, mode="observe")
    run, last = opened(bench)
    model_step(run, cent_call())
    assert 0 == bench.held("user:alice")
    with last.turn() as room:
        assert 0 == room


@pytest.mark.parametrize("fate", ["request_lost", "response_lost"])
def test_a_store_that_is_away_when_money_is_kept_back_refuses_no_call_for_that(fate: Fault) -> None:
    """The run has no last turn, and says so; what the store may hold all the same is released in time."""
    clock = ManualClock(START_MS)
    store = FlakyStore(MemoryStore(clock=clock), [fate], verbs={"reserve"})
    bench = Bench(WRAP, store=store)
    run, last = opened(bench)
    model_step(run, cent_call())
    assert 1 == bench.names().count("wrap_up_unfunded")
    with last.turn() as room:
        assert 0 == room
    clock.advance(200_000)
    store.expire()
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_model_without_a_price_keeps_nothing_back() -> None:
    """What is refused is the call of it, if there is one."""
    bench = Bench(WRAP)
    run, last = opened(bench)
    last.call = ModelCall(model="nobody has priced this", max_tokens=10)
    assert 10 == used_up(run)
    assert 1 == bench.names().count("wrap_up_unfunded")


def test_more_money_than_a_turn_can_use_is_not_kept() -> None:
    """Five percent of $100 would be $5; the longest prompt and answer at these prices are 18 cents."""
    bench = Bench(Limits(run="100.00", loops=None, wrap_up=True))
    run, _ = opened(bench)
    model_step(run, ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1), max_tokens=100))
    kept = bench.held(f"run:{run.id}", "-")
    assert usd("0.00001") * INPUT_TOKENS_MAX + usd("0.00003") * 512 == kept


def test_a_person_raises_the_limit_while_the_run_goes_on() -> None:
    """From another thread; what is kept back stays, the detector forgets nothing, and the run has more to spend."""
    bench = Bench(Limits(run="0.10", wrap_up=True))
    run, last = opened(bench)
    for _ in range(2):
        model_step(run, cent_call())
        tool_step(run)
    person = threading.Thread(target=lambda: run.resume(limits=Limits(run="1.00", wrap_up=True)))
    person.start()
    person.join()
    assert CENT == bench.held(f"run:{run.id}", "-")

    with pytest.raises(LoopDetected):
        for _ in range(9):
            model_step(run, cent_call())
            tool_step(run)
    assert run.report().tool_calls == 5
    with last.turn() as room:
        assert room
