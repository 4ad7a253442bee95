"""Attacks on the one door: interrupts, lost answers, races, misuse. No money is lost, nothing starts against a stop."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import random
import sys
import threading
from collections.abc import Callable

import pytest

from rr_core import CENT, FAILED, OK, PRICES, START_MS, Bench, cent_call, done, model_step, tool_step
from runrails import (
    BudgetBusy,
    BudgetExceeded,
    CallRefused,
    ConfigError,
    Guard,
    GuardrailStopped,
    LimitReached,
    Limits,
    StoreUnavailable,
    current_run,
    entering,
)
from runrails.boundary import Trip
from runrails.calls import ModelCall, ModelResult, Permit, Prompt, ToolCall
from runrails.events import Event, log_sink
from runrails.ledger import Refused, Reservation, Reserved, RunRecord, Settled
from runrails.run import TOOLS_IN_FLIGHT_MAX, Run
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore, ManualClock
from runrails.usage import Usage

HI = Prompt(texts=("hi",), messages=1)


def _memory() -> MemoryStore:
    return MemoryStore(clock=ManualClock(START_MS))


class Trapped(MemoryStore):
    """A memory store that calls a hook after it has done its work, once per hook."""

    def __init__(self) -> None:
        super().__init__(clock=ManualClock(START_MS))
        self.after_reserve: Callable[[], object] | None = None
        self.before_settle: Callable[[], None] | None = None
        self.after_release: Callable[[], None] | None = None

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        answer = super().reserve(reservation)
        hook, self.after_reserve = self.after_reserve, None
        if hook is not None:
            hook()
        return answer

    def settle(self, *args: object, **kwargs: object) -> Settled:
        hook, self.before_settle = self.before_settle, None
        if hook is not None:
            hook()
        return super().settle(*args, **kwargs)  # type: ignore[arg-type]

    def release(self, reservation_id: str) -> Settled:
        answer = super().release(reservation_id)
        hook, self.after_release = self.after_release, None
        if hook is not None:
            hook()
        return answer

    def save_run(self, record: RunRecord) -> None:
        raise RuntimeError("a bug in the store")


def _interrupt() -> None:
    raise KeyboardInterrupt


# Money: lost, leaked or counted twice.


def test_a_hold_whose_answer_was_lost_is_given_back_at_once() -> None:
    """The store took the hold but the caller was refused: the next call finds the whole budget."""
    store = FlakyStore(_memory(), ["response_lost"], verbs={"reserve"})
    bench = Bench(Limits(run="0.01", steps=None, hold_wait_ms=0), store=store)
    run = bench.guard.run()
    with pytest.raises(StoreUnavailable):
        run.before_model(cent_call())

    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert (0, None) == (run.report().steps, run.stop_reason)
    model_step(run)
    assert CENT == bench.spent("user:alice")


def test_a_hold_whose_answer_and_release_were_lost_is_given_back_later() -> None:
    """The store stays away for the release too; the next round of the housekeeper gives the hold back."""
    store = FlakyStore(_memory(), ["response_lost", "request_lost"], verbs={"reserve", "release"})
    bench = Bench(Limits(run="0.01", hold_wait_ms=0), store=store)
    with pytest.raises(StoreUnavailable):
        bench.guard.run().before_model(cent_call())
    bench.guard.flush()

    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_hold_that_expired_before_it_could_be_given_back_is_not_charged() -> None:
    """The store stays away for so long that its clock charges the hold; nothing was sent, so it is corrected to 0."""
    clock = ManualClock(START_MS)
    store = FlakyStore(MemoryStore(clock=clock), ["response_lost", "request_lost"], verbs={"reserve", "release"})
    bench = Bench(Limits(run="0.01", hold_wait_ms=0), store=store)
    with pytest.raises(StoreUnavailable):
        bench.guard.run().before_model(cent_call())
    clock.advance(200_000)
    store.inner.expire()
    bench.guard.flush()

    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert "settlement_failed" not in bench.names()


def test_giving_back_what_was_never_taken_is_no_failure() -> None:
    """The request never arrived, so there is nothing to give back and no event claims that a settlement failed."""
    store = FlakyStore(_memory(), ["request_lost", "request_lost"], verbs={"reserve", "release"})
    bench = Bench(store=store)
    with pytest.raises(StoreUnavailable):
        bench.guard.run().before_model(cent_call())
    bench.guard.flush()

    assert "settlement_failed" not in bench.names()
    assert "settlement_postponed" not in bench.names()


@pytest.mark.parametrize("call", [cent_call(), ModelCall(model="tokens", prompt=HI, agent="a", endpoint="/v1/x")])
def test_failing_open_after_a_lost_answer_settles_the_hold_that_was_taken(call: ModelCall) -> None:
    """The very same reservation is repeated, so the call costs what it cost and nothing stays held."""
    store = FlakyStore(_memory(), ["response_lost"], verbs={"reserve"})
    bench = Bench(store=store, on_store_error="allow")
    run = bench.guard.run()
    model_step(run, call)

    assert bench.names().count("store_bypassed") == 1
    assert "settlement_failed" not in bench.names()
    assert run.report().cost_pusd == bench.spent("user:alice") > 0
    assert 0 == bench.held("user:alice")


def test_failing_open_for_a_call_that_failed_leaves_no_hold() -> None:
    """Nothing was spent; what the lost reservation took is given back."""
    store = FlakyStore(_memory(), ["response_lost"], verbs={"reserve"})
    bench = Bench(store=store, on_store_error="allow")
    model_step(bench.guard.run(), result=ModelResult(end="failed"))

    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_an_interrupt_after_the_hold_was_taken_gives_it_back() -> None:
    """Ctrl-C between the ledger's answer and the permit: no hold, no step, and the run goes on."""
    store = Trapped()
    bench = Bench(Limits(run="0.01", hold_wait_ms=0), store=store)
    run = bench.guard.run()
    store.after_reserve = _interrupt
    with pytest.raises(KeyboardInterrupt):
        run.before_model(cent_call())

    assert (0, 0, 0) == (bench.spent("user:alice"), bench.held("user:alice"), run.report().steps)
    model_step(run)


def test_an_interrupt_while_settling_is_written_later_exactly_once() -> None:
    """Ctrl-C before the ledger wrote: the cost is known and reaches the books, not the whole hold."""
    store = Trapped()
    bench = Bench(Limits(run="1.00"), store=store)
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=HI, max_tokens=1_000)
    permit = run.before_model(call)
    store.before_settle = _interrupt
    with pytest.raises(KeyboardInterrupt):
        run.after_model(permit, done())
    bench.guard.flush()
    bench.guard.flush()

    assert 10 * 10_000_000 + 5 * 30_000_000 == bench.spent("user:alice") == run.report().cost_pusd
    assert 0 == bench.held("user:alice")


def test_handing_a_permit_back_twice_counts_once() -> None:
    """Two hooks that both saw the end do not double the run's cost, tokens or rows."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    permit = model_step(run)
    run.after_model(permit, done())
    run.after_model(permit, ModelResult(end="failed"))

    report = run.report()
    assert (CENT, 15, 1) == (report.cost_pusd, report.tokens, len(report.rows))
    assert CENT == bench.spent("user:alice")
    assert 2 == bench.names().count("permit_repeated")


def test_a_cost_that_no_ledger_can_count_ends_at_the_hold_and_raises_nothing() -> None:
    """A provider that reports 10^12 tokens must not break the user's call, nor leave the hold open."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    permit = run.before_model(ModelCall(model="tokens", prompt=HI))
    assert permit.uncapped
    run.after_model(permit, done(input_tokens=10**12, output_tokens=10**12))

    assert "settlement_failed" in bench.names()
    assert (permit.bound_pusd, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_permit_refused_late_is_given_back_with_its_step() -> None:
    """The run is stopped by another thread while the ledger answers: the call does not start and costs no step."""
    store = Trapped()
    bench = Bench(Limits(run="1.00"), store=store)
    run = bench.guard.run()
    stop = LimitReached(scope=f"run:{run.id}", unit="steps", limit=1, used=1, setting="steps")
    store.after_reserve = lambda: bool(run.latch.trip(stop))
    with pytest.raises(LimitReached):
        run.before_model(cent_call())

    assert (0, 0, 0) == (run.report().steps, run.report().model_calls, bench.held("user:alice"))


def test_a_resume_in_between_never_yields_a_permit_without_its_hold() -> None:
    """Stopped and resumed while one call is being admitted: it is refused or it holds; nothing in between."""
    store = Trapped()
    bench = Bench(Limits(run="1.00"), store=store)
    run = bench.guard.run()
    stop = LimitReached(scope=f"run:{run.id}", unit="steps", limit=1, used=1, setting="steps")
    store.after_reserve = lambda: bool(run.latch.trip(stop))
    store.after_release = run.resume
    permit: Permit | None = None
    try:
        permit = run.before_model(cent_call())
    except LimitReached:
        assert 0 == bench.held("user:alice")
    assert (permit is not None) == (bench.held("user:alice") > 0)


def test_postponed_writes_keep_no_prompt() -> None:
    """Ten thousand of them may wait; they must not hold what the users wrote."""
    store = FlakyStore(_memory(), ["request_lost"] * 3, verbs={"settle"})
    bench = Bench(store=store)
    text = f"secret {id(store)}"
    before = sys.getrefcount(text)
    model_step(bench.guard.run(), ModelCall(model="cent", prompt=Prompt(texts=(text,)), max_tokens=5))

    assert "settlement_postponed" in bench.names()
    assert before == sys.getrefcount(text)


# Stops: nothing starts after the latch, and nothing latches that should not.


def test_a_waiting_call_leaves_at_once_when_the_run_stops() -> None:
    """It does not sit out its waiting time, and it does not start."""
    bench = Bench(Limits(run="0.01", steps=None, hold_wait_ms=60_000))
    run = bench.guard.run()
    run.before_model(cent_call())
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            run.before_model(cent_call())
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    run.latch.trip(LimitReached(scope=f"run:{run.id}", unit="steps", limit=1, used=1, setting="steps"))
    thread.join(timeout=20)

    assert not thread.is_alive()
    assert ["LimitReached"] == [type(exc).__name__ for exc in raised]
    assert CENT == bench.held("user:alice")


@pytest.mark.parametrize("limits", [{"steps": 2}, {"steps": None, "model_calls": 2}])
def test_a_call_that_is_still_waiting_for_money_is_no_step_yet(limits: dict[str, int | None]) -> None:
    """The limit is 2, one call is made and one waits: a third is refused, but the run is not over."""
    store = Trapped()
    bench = Bench(Limits(run="0.01", hold_wait_ms=0, **limits), store=store)  # type: ignore[arg-type]
    run = bench.guard.run()
    first = run.before_model(cent_call())
    seen: list[type[BaseException]] = []

    def third() -> None:
        with pytest.raises(BudgetBusy) as caught:
            run.before_model(cent_call())
        seen.append(caught.type)

    store.after_reserve = third
    with pytest.raises(BudgetBusy):
        run.before_model(cent_call())

    assert ([BudgetBusy], None, 1) == (seen, run.stopped, run.report().steps)
    run.after_model(first, ModelResult(end="failed"))
    model_step(run)


@pytest.mark.parametrize("start", ["model", "tool"])
def test_a_start_waits_for_the_steps_of_calls_that_are_being_admitted(start: str) -> None:
    """The last step is taken by a call whose money is not there yet: when that is refused, this one may start."""
    bench = Bench(Limits(run="0.01", steps=2, hold_wait_ms=60_000))
    run = bench.guard.run()
    first = run.before_model(cent_call())
    free = ModelCall(model="free", prompt=HI, max_tokens=5)
    outcomes: list[str] = []

    def wait_for_money() -> None:
        try:
            run.before_model(cent_call())
        except BudgetBusy:
            outcomes.append("busy")

    def begin() -> None:
        if start == "model":
            run.before_model(free)
        else:
            run.before_tool(ToolCall(name="t"))
        outcomes.append("started")

    waiting = threading.Thread(target=wait_for_money)
    waiting.start()
    while bench.guard.room.waiting == 0:  # from then on its 60 s are counted
        threading.Event().wait(0.001)
    assert 1 == run.tally.admitting
    bench.clock.advance(30_000)
    starting = threading.Thread(target=begin)
    starting.start()
    starting.join(timeout=0.2)
    assert [] == outcomes
    bench.clock.advance(31_000)
    waiting.join(timeout=20)
    starting.join(timeout=20)

    assert ["busy", "started"] == sorted(outcomes)
    assert (None, 2) == (run.stopped, run.report().steps)
    run.after_model(first, done())


def test_a_latched_stop_keeps_nothing_of_the_call() -> None:
    """No traceback, so no frames, so no prompt lives on in `run.stopped`."""
    bench = Bench(Limits(run="0.01"))
    run = bench.guard.run()
    model_step(run)
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())

    assert run.stopped is not None
    assert (None, None, None) == (run.stopped.__traceback__, run.stopped.__context__, run.stopped.__cause__)


def test_resume_while_an_uncapped_call_is_in_flight_still_allows_only_one() -> None:
    """The run is unlatched, not its one call without a cap."""
    bench = Bench(Limits(run="1.00", steps=None, hold_wait_ms=0))
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=HI)
    first = run.before_model(call)
    run.resume(limits=Limits(run="5.00", steps=None, hold_wait_ms=0))
    with pytest.raises(BudgetBusy):
        run.before_model(call)

    run.after_model(first, done())
    run.after_model(run.before_model(call), done())
    assert 0 == bench.held(f"run:{run.id}", "-")


def test_resume_of_an_ended_run_opens_it_again() -> None:
    """The way on after `with` has raised the stop: raise the limit and go on with the same money spent."""
    bench = Bench(Limits(run="0.01", steps=None))
    run = bench.guard.run()
    with pytest.raises(BudgetExceeded):
        with run:
            model_step(run)
            model_step(run)
    run.resume(limits=Limits(run="0.02", steps=None))
    with run:
        model_step(run)

    assert 2 * CENT == bench.spent("user:alice") == run.report().cost_pusd


def test_limits_of_one_run_do_not_lift_the_month() -> None:
    """A run's own limits leave the user's, the key's and the organisation's months as the guard has them."""
    bench = Bench(Limits(run=None, month="0.01", key_month="0.01", org_month="0.01"), key="k", org="o")
    run = bench.guard.run(limits=Limits(run="5.00"))
    model_step(run)
    with pytest.raises(BudgetExceeded, match="user:alice"):
        run.before_model(cent_call())


def test_a_child_of_an_ended_run_starts_nothing() -> None:
    """A thread that outlives the `with` cannot go on by opening a run of its own in it."""
    bench = Bench()
    with bench.guard.run():
        open_child = bench.guard.bind(bench.guard.run)
    with pytest.raises(ConfigError, match="has ended"):
        open_child().before_model(cent_call())
    assert 0 == bench.held("user:alice")


def test_runs_cannot_be_nested_deeper_than_the_ledger_can_count() -> None:
    """A clear error where the run is opened, not a fault at every call."""
    bench = Bench(key="k", org="o")

    def deeper(levels: int) -> int:
        with bench.guard.run() as run:
            model_step(run)
            return 1 + (deeper(levels - 1) if levels > 1 else 0)

    assert 13 == deeper(13)
    with pytest.raises(ConfigError, match="nested"):
        deeper(14)


def test_a_runs_report_counts_its_child_runs_in_every_sum() -> None:
    """Cost, tokens, stand-ins and overruns are of the same calls; the rows are each run's own."""
    bench = Bench()
    with bench.guard.run() as outer:
        with bench.guard.run() as inner:
            model_step(inner)
            model_step(inner, result=ModelResult(end="unknown"))
            over = ModelCall(model="tokens", prompt=HI, max_tokens=10)
            model_step(inner, over, done(output_tokens=10_000))

    def sums(run: Run) -> tuple[int, ...]:
        report = run.report()
        return (
            report.model_calls, report.cost_pusd, report.input_tokens, report.output_tokens, report.unresolved_pusd,
            report.overrun_pusd,
        )  # fmt: skip

    assert sums(inner) == sums(outer)
    assert all(sums(outer))
    assert (3, 0) == (len(inner.report().rows), len(outer.report().rows))


# Tokens.


def test_missing_usage_counts_the_tokens_that_were_held() -> None:
    """A provider that reports no usage cannot make a limit on tokens endless."""
    bench = Bench(Limits(tokens=500, run=None, steps=None))
    run = bench.guard.run()
    call = ModelCall(model="free", prompt=Prompt(texts=("x" * 50,)), max_tokens=100)
    with pytest.raises(LimitReached, match="tokens"):
        for _ in range(10):
            model_step(run, call, ModelResult(end="completed"))
    assert run.report().model_calls <= 3


def test_a_failed_call_gives_its_tokens_back() -> None:
    """It used none."""
    bench = Bench(Limits(tokens=250, run=None, steps=None))
    run = bench.guard.run()
    call = ModelCall(model="free", prompt=Prompt(texts=("x" * 50,)), max_tokens=100)
    for end in ("failed", "cached", "failed"):
        model_step(run, call, ModelResult(end=end))  # type: ignore[arg-type]
    assert (3, 0) == (run.report().model_calls, run.report().tokens)


def test_a_call_waits_for_tokens_that_others_hold() -> None:
    """As it does for money: it starts when the other has ended."""
    bench = Bench(Limits(tokens=250, run=None, steps=None, hold_wait_ms=60_000))
    run = bench.guard.run()
    call = ModelCall(model="free", prompt=Prompt(texts=("x" * 50,)), max_tokens=100)
    first = run.before_model(call)
    started = threading.Event()

    def wait() -> None:
        model_step(run, call)
        started.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not started.wait(0.1)
    run.after_model(first, done())
    thread.join(timeout=20)
    assert started.is_set()


def test_a_bare_call_whose_models_cap_passes_the_token_limit_may_use_what_is_left() -> None:
    """A callback cannot set `max_tokens`; a token limit below the model's own maximum must not refuse everything."""
    bench = Bench(Limits(tokens=100_000, hold_wait_ms=0))
    run = bench.guard.run()
    call = ModelCall(model="capped", prompt=HI)
    permit = run.before_model(call)
    with pytest.raises(BudgetBusy):
        run.before_model(call)
    run.after_model(permit, done())
    model_step(run, call)


# Observing.


@pytest.mark.parametrize(
    "call",
    [
        ModelCall(model="tokens", prompt=Prompt(unbounded="pdf"), max_tokens=5),
        ModelCall(model="tokens", prompt=HI, max_tokens=0),
        ModelCall(model="tokens", prompt=HI, max_tokens=10**18),
        ModelCall(model="tokens", prompt=HI),
    ],
)
def test_observing_refuses_no_call(call: ModelCall) -> None:
    """What cannot be bounded, or held, starts all the same, and what it did cost is in the books."""
    bench = Bench(Limits(run="0.01", uncapped="refuse"), mode="observe")
    run = bench.guard.run()
    model_step(run, call)

    assert 10 * 10_000_000 + 5 * 30_000_000 == bench.spent("user:alice") == run.report().cost_pusd
    assert 0 == bench.held("user:alice")


@pytest.mark.parametrize("end", ["cut", "completed", "unknown"])
def test_observing_a_call_without_a_bound_settles_something(end: str) -> None:
    """Without a bound and without usage there is only a stand-in; it raises nothing."""
    bench = Bench(mode="observe")
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=Prompt(unbounded="pdf"), max_tokens=5)
    model_step(run, call, ModelResult(end=end, output_text=("abc",)))  # type: ignore[arg-type]
    assert 0 == bench.held("user:alice")


def test_observing_with_the_store_out_of_reach_refuses_nothing() -> None:
    """Not even the opening of a run; the cost is written afterwards."""
    store = FlakyStore(_memory(), ["request_lost"] * 2, verbs={"fix_zone", "reserve"})
    bench = Bench(store=store, mode="observe")
    model_step(bench.guard.run())
    bench.guard.flush()

    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert 2 == bench.names().count("store_bypassed")


def test_failing_open_opens_runs_too() -> None:
    """With `on_store_error="allow"` a run opens while the ledger is away; by default it does not."""
    plan: list[str] = ["request_lost"]
    Bench(store=FlakyStore(_memory(), plan, verbs={"fix_zone"}), on_store_error="allow").guard.run()  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        Bench(store=FlakyStore(_memory(), plan, verbs={"fix_zone"})).guard.run()  # type: ignore[arg-type]


def test_observing_says_nothing_to_the_model() -> None:
    """Hints and blocks are recorded, not given: a tool's result is the tool's."""
    bench = Bench(mode="observe")
    run = bench.guard.run()
    for _ in range(12):
        call = ToolCall(name="classify", args={"text": "x"})
        verdict = run.before_tool(call, can_block=True)
        assert getattr(verdict, "hint", None) is None
        assert run.after_tool(call, FAILED, can_block=True) is None

    assert run.report().hints >= 1
    assert run.report().would_have_stopped is not None
    assert all(event.fields["enforced"] is False for event in bench.events if ".loop_" in event.name)
    assert len([event for event in bench.events if ".loop_" in event.name]) <= 4


def test_an_interrupt_in_a_sink_does_not_lose_the_permit() -> None:
    """Ctrl-C while an event of a call that may start is being sent: its hold and its step are given back."""
    bench = Bench(Limits(run="0.01", steps=None), mode="observe")
    run = bench.guard.run()
    model_step(run)

    def sink(_: Event) -> None:
        raise KeyboardInterrupt

    bench.guard.emit.sinks = (sink,)
    with pytest.raises(KeyboardInterrupt):
        run.before_model(cent_call())

    assert (0, 1, 1) == (bench.held("user:alice"), run.report().steps, run.report().model_calls)


def test_a_budget_too_small_from_the_start_is_not_called_used_up() -> None:
    """Nothing has been spent, and the message does not say so."""
    bench = Bench(Limits(run="0.001"))
    with pytest.raises(BudgetExceeded, match="too small for this call") as caught:
        bench.guard.run().before_model(cent_call())
    assert "used up" not in str(caught.value)


# Tools and the journal.


def test_tool_calls_that_never_end_are_forgotten() -> None:
    """Cancelled tools tell no end; what the run remembers of them is bounded and never mistaken for another."""
    bench = Bench(Limits(steps=None, loops=None))
    run = bench.guard.run()
    for number in range(TOOLS_IN_FLIGHT_MAX + 100):
        run.before_tool(ToolCall(name="t", args={"n": number}))
    assert len(run._tools_started) <= TOOLS_IN_FLIGHT_MAX

    bench.clock.advance(7_000)
    tool_step(run, OK)
    assert 0 == run.report().rows[-1].duration_ms
    assert TOOLS_IN_FLIGHT_MAX + 101 == run.report().rows[-1].step


# `with`, threads and contexts.


def test_an_ended_run_cannot_be_entered_again() -> None:
    """Entering it would guard nothing that can start; the error says to open another."""
    bench = Bench()
    run = bench.guard.run()
    with run:
        assert run.owned
    assert not run.owned
    with pytest.raises(ConfigError, match=r"guard\.run"):
        run.__enter__()
    assert current_run() is None


def test_a_run_cannot_be_entered_twice_at_a_time() -> None:
    """The inner end would close the outer block's run; threads take part with `guard.bind`."""
    bench = Bench()
    with bench.guard.run() as run:
        with pytest.raises(ConfigError, match=r"guard\.bind"):
            run.__enter__()
        assert current_run() is run
        model_step(run)


def test_leaving_in_another_context_still_ends_the_run() -> None:
    """Async generators and fixtures may be finalised by another task."""
    bench = Bench(Limits(run="0.01"))
    run = bench.guard.run()
    contextvars.copy_context().run(run.__enter__)
    trip = Trip(BudgetExceeded(scope="run:x", period="-", unit="pusd", limit=1, spent=1, held=0, needed=1))
    with pytest.raises(BudgetExceeded):
        run.__exit__(Trip, trip, None)
    with pytest.raises(ConfigError, match="has ended"):
        run.before_model(cent_call())


@pytest.fixture
def boundary() -> object:
    """A broken adapter's boundary: attaching works, leaving does not."""

    def leave() -> None:
        raise RuntimeError("broken adapter")

    def enter(run: Run) -> Callable[[], None]:
        return leave

    entering.boundaries.append(enter)
    yield
    entering.boundaries.remove(enter)


def test_a_broken_adapter_cannot_keep_a_run_open_or_hide_its_stop(boundary: object) -> None:
    """Its failure is an event; the run ends and the stop becomes public."""
    bench = Bench(Limits(run="0.01"))
    with pytest.raises(BudgetExceeded):
        with bench.guard.run() as run:
            try:
                model_step(run)
                model_step(run)
            except BudgetExceeded as stop:
                raise Trip(stop) from None
    assert current_run() is None
    assert "adapter_failed" in bench.names()
    assert "run_ended" in bench.names()


def test_an_adapter_that_cannot_attach_leaves_nothing_behind() -> None:
    """Its error is the user's to see, for nothing would be guarded; the run is not current and may be tried again."""
    bench = Bench()
    left: list[str] = []

    def good(run: Run) -> Callable[[], None]:
        return lambda: left.append(run.id)

    def broken(run: Run) -> Callable[[], None]:
        raise RuntimeError("cannot attach")

    entering.boundaries.extend([good, broken])
    try:
        run = bench.guard.run()
        with pytest.raises(RuntimeError, match="cannot attach"):
            run.__enter__()
    finally:
        entering.boundaries.remove(good)
        entering.boundaries.remove(broken)
    assert ([run.id], None, False) == (left, current_run(), run.owned)


async def test_other_errors_in_a_group_are_kept_as_the_cause() -> None:
    """A task group failed for two reasons: the stop is raised, and the other error is not lost."""
    bench = Bench(Limits(run="0.01"))

    async def trips(run: Run) -> None:
        try:
            model_step(run)
            model_step(run)
        except BudgetExceeded as stop:
            raise Trip(stop) from None

    async def fails() -> None:
        raise KeyError("mine")

    with pytest.raises(BudgetExceeded) as caught:
        async with bench.guard.run() as run:
            async with asyncio.TaskGroup() as group:
                group.create_task(trips(run))
                group.create_task(fails())
    cause = caught.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    assert ["KeyError"] == [type(exc).__name__ for exc in cause.exceptions]


def test_a_store_that_cannot_keep_the_runs_record_changes_no_result() -> None:
    """Whatever it raises is an event, not the end of the user's call."""
    bench = Bench(store=Trapped())
    with pytest.raises(KeyError):
        with bench.guard.run() as run:
            model_step(run)
            raise KeyError("mine")
    assert "run_lost" in bench.names()


def test_a_sink_may_use_the_run_from_another_thread() -> None:
    """Events are sent outside the run's lock: a sink that waits for another thread does not hang the agent."""
    bench = Bench(Limits(steps=1))
    run = bench.guard.run()
    seen: list[str] = []

    def sink(event: Event) -> None:
        def ask() -> None:
            run.report()
            seen.append(event.name.removeprefix("runrails."))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(timeout=5)

    bench.guard.emit.sinks = (sink,)
    tool_step(run)
    with pytest.raises(LimitReached):
        run.before_tool(ToolCall(name="t"))
    with pytest.raises(LimitReached):
        run.before_model(cent_call())
    assert ["run_stopped"] == seen


def test_events_of_the_loop_ladder_are_sent_outside_the_lock_too() -> None:
    """The same for hints, blocks and loop stops."""
    bench = Bench()
    run = bench.guard.run()
    seen: list[str] = []

    def sink(event: Event) -> None:
        thread = threading.Thread(target=lambda: (run.report(), seen.append(event.name)))
        thread.start()
        thread.join(timeout=2)

    bench.guard.emit.sinks = (sink,)
    for _ in range(5):
        tool_step(run)
    assert len(seen) >= 1


async def test_a_run_that_ends_on_an_event_loop_leaves_a_remote_store_to_a_thread() -> None:
    """The record of the run crosses the network off the loop."""
    threads: list[threading.Thread] = []

    class Remote(MemoryStore):
        remote = True

        def save_run(self, record: RunRecord) -> None:
            threads.append(threading.current_thread())

    bench = Bench(store=Remote(clock=ManualClock(START_MS)))
    async with bench.guard.run() as run:
        model_step(run)
    assert 1 == len(threads)
    assert threads[0] is not threading.current_thread()


def test_a_trip_survives_pickling() -> None:
    """Worker processes hand exceptions over by pickling; the stop must arrive."""
    stop = BudgetExceeded(scope="run:x", period="-", unit="pusd", limit=1, spent=1, held=0, needed=1)
    copy = pickle.loads(pickle.dumps(Trip(stop)))
    assert isinstance(copy, Trip)
    assert stop.as_dict() == copy.stop.as_dict()


def test_an_operators_limit_that_overrides_code_is_told_once() -> None:
    """Code says $50, the operator one cent: whoever reads the events learns which one counts."""
    bench = Bench(Limits(run=None, month="50"))
    bench.store.set_limit("user:alice", 10 * CENT)  # type: ignore[attr-defined]
    run = bench.guard.run()
    for _ in range(3):
        model_step(run)
        bench.guard.flush()

    (event,) = [event for event in bench.events if event.name == "runrails.limit_overridden"]
    assert ("user:alice", 10 * CENT, 5_000 * CENT) == (
        event.fields["scope"], event.fields["limit"], event.fields["limit_in_code"],
    )  # fmt: skip


@pytest.mark.parametrize("value", [None, 0, -1, 86_400_001, 1.5, True])
def test_a_holds_life_has_bounds(value: object) -> None:
    """The ledger takes one millisecond to 24 hours; anything else is refused where it is written."""
    with pytest.raises((TypeError, ValueError), match="hold_ttl_ms"):
        Limits(hold_ttl_ms=value)  # type: ignore[arg-type]


def test_a_loop_policy_must_be_one() -> None:
    """Not True, not a dict: the error names the setting."""
    with pytest.raises(TypeError, match="loops"):
        Limits(loops=True)  # type: ignore[arg-type]


async def test_bind_carries_the_run_into_coroutines() -> None:
    """A coroutine runs where it is awaited; bound, it belongs to the run, with its answer and its errors."""
    bench = Bench()

    async def seen(fail: bool = False) -> Run | None:
        await asyncio.sleep(0)
        if fail:
            raise KeyError("mine")
        return current_run()

    with bench.guard.run() as run:
        bound = bench.guard.bind(seen)
    assert await bound() is run
    with pytest.raises(KeyError):
        await bound(fail=True)
    assert current_run() is None


def test_the_hint_of_an_operators_limit_does_not_send_to_the_code() -> None:
    """Raising a number in code changes nothing where an operator has set a lower one."""
    bench = Bench(Limits(run=None, month="50"))
    bench.store.set_limit("user:alice", CENT)  # type: ignore[attr-defined]
    run = bench.guard.run()
    model_step(run)
    with pytest.raises(BudgetExceeded) as caught:
        run.before_model(cent_call())

    assert "runrails budget set user:alice" in caught.value.next_step
    assert "Limits(" not in caught.value.next_step


def test_the_default_sink_can_print_every_event(caplog: pytest.LogCaptureFixture) -> None:
    """A stop, a refusal, a loop and a lost store reach the standard logger; none fails in it."""
    store = FlakyStore(_memory(), ["request_lost"], verbs={"settle"})
    bench = Bench(Limits(run="0.02", steps=None, hold_wait_ms=0), store=store)
    bench.guard.emit.sinks = (log_sink,)
    run = bench.guard.run()
    model_step(run)
    bench.guard.flush()
    for _ in range(4):
        tool_step(run)
    held = run.before_model(cent_call())
    with pytest.raises(BudgetBusy):
        run.before_model(cent_call())
    run.after_model(held, done())
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())
    run.close()

    assert 0 == bench.guard.emit.failures
    for name in ("settlement_postponed", "call_refused", "run_stopped"):
        assert f"runrails.{name}" in caplog.text


@pytest.mark.parametrize("limits", ["2.00", 2, {"run": "2.00"}])
def test_limits_of_the_wrong_kind_are_refused_everywhere(limits: object) -> None:
    """By the guard, by a run and by resume, before anything has changed."""
    bench = Bench(Limits(run="0.01"))
    run = bench.guard.run()
    model_step(run)
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())
    for wrong in (Bench, lambda given: bench.guard.run(limits=given), lambda given: run.resume(limits=given)):
        with pytest.raises(ConfigError, match="Limits"):
            wrong(limits)
    assert "budget_exceeded" == run.stop_reason


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_books_agree_and_nothing_stays_held(seed: int) -> None:
    """Eight threads, child runs, lost requests and answers, all kinds of calls and ends, resumes: all is settled."""
    rnd = random.Random(seed)
    plan = [rnd.choices(["ok", "request_lost", "response_lost"], [8, 1, 1])[0] for _ in range(1_500)]
    inner = MemoryStore()
    verbs = {"reserve", "settle", "release", "balance", "extend"}
    events: list[Event] = []
    limits = Limits(
        run=rnd.choice(["0.05", "0.50", "5.00"]), month=rnd.choice([None, "1.00"]), steps=rnd.choice([None, 50]),
        tokens=rnd.choice([None, 20_000, 500_000]), hold_wait_ms=rnd.choice([0, 5]), loops=None,
    )  # fmt: skip
    guard = Guard(
        limits, user="alice", store=FlakyStore(inner, plan, verbs=verbs), prices=PRICES, sinks=[events.append],
        on_store_error=rnd.choice(["refuse", "allow"]), mode=rnd.choice(["enforce", "enforce", "observe"]),
    )  # fmt: skip
    with guard.run() as root:
        runs = [root, *(guard.run(limits=Limits(run="0.30", steps=None, hold_wait_ms=5)) for _ in range(2))]
    root.resume()
    calls = [
        cent_call(), ModelCall(model="tokens", prompt=HI, max_tokens=1_000), ModelCall(model="tokens", prompt=HI),
        ModelCall(model="tokens", prompt=HI, max_tokens=20_000), ModelCall(model="capped", prompt=HI),
        ModelCall(model="nobody-knows"), ModelCall(model="capped", prompt=Prompt(unbounded="pdf")),
    ]  # fmt: skip
    failures: list[BaseException] = []

    def work(number: int) -> None:
        own = random.Random(seed * 100 + number)
        for _ in range(25):
            run = own.choice(runs)
            try:
                permit = run.before_model(own.choice(calls))
            except CallRefused:
                continue
            except GuardrailStopped:
                run.resume()
                root.resume()
                continue
            usage = own.choice([None, Usage(input_tokens=own.randrange(2_000), output_tokens=own.randrange(2_000))])
            end = own.choice(["completed", "completed", "failed", "cut", "cached", "unknown"])
            run.after_model(permit, ModelResult(end=end, usage=usage, output_text=("abc",)))

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    guard.store._plan = iter(())  # type: ignore[attr-defined]
    guard.close()

    books = {balance.account.scope: balance for balance in inner.balances()}
    assert [] == failures
    assert [0] * len(books) == [balance.held for balance in books.values()]
    assert root.report().cost_pusd == books["user:alice"].spent == books[f"run:{root.id}"].spent
    assert [(0, 0)] * 3 == [(run.tally.held_tokens, run.tally.admitting) for run in runs]
    names = {event.name.removeprefix("runrails.") for event in events}
    assert not names & {"settlement_failed", "settlement_lost", "housekeeping_failed"}
