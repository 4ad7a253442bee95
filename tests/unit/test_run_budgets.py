"""Budgets of a run: what may start, what it is charged, and what a refusal leaves behind."""

from __future__ import annotations

import pytest

from rr_core import CENT, MONTH, START_MS, Bench, cent_call, done, model_step
from runrails import BudgetBusy, BudgetExceeded, CallTooLarge, GuardrailStopped, Limits, PriceUnknown
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.errors import BoundUnknown
from runrails.ledger import SupportsLimits
from runrails.usage import Usage


def test_exactly_the_calls_that_fit_are_admitted() -> None:
    """A dollar buys one hundred one-cent calls, not 99 and not 101."""
    bench = Bench(Limits(run="1.00", steps=None))
    run = bench.guard.run()
    for _ in range(100):
        model_step(run)

    with pytest.raises(BudgetExceeded) as caught:
        run.before_model(cent_call())

    assert 100 * CENT == bench.spent("user:alice")
    assert f"run:{run.id}" == caught.value.fields["scope"]
    assert CENT == caught.value.fields["needed"]


def test_a_stopped_run_stays_stopped() -> None:
    """After the stop every start raises again, for models and tools, and nothing is written."""
    bench = Bench(Limits(run="0.01", steps=None))
    run = bench.guard.run()
    model_step(run)
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            run.before_model(cent_call())

    assert isinstance(run.stopped, GuardrailStopped)
    assert CENT == bench.spent("user:alice")
    assert 0 == bench.held("user:alice")
    assert 1 == bench.names().count("run_stopped")


def test_resume_with_a_higher_limit_unlatches() -> None:
    """Raising the limit lets the run go on from where it stood."""
    bench = Bench(Limits(run="0.01", steps=None))
    run = bench.guard.run()
    model_step(run)
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())

    run.resume(limits=Limits(run="0.03", steps=None))
    model_step(run)
    model_step(run)

    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())
    assert 3 * CENT == run.report().cost_pusd


def test_a_month_is_shared_by_runs() -> None:
    """The user's monthly budget is one account however many runs draw on it."""
    bench = Bench(Limits(run=None, month="0.03", steps=None))
    for _ in range(3):
        model_step(bench.guard.run())

    with pytest.raises(BudgetExceeded, match=f"user:alice in {MONTH}"):
        bench.guard.run().before_model(cent_call())


def test_a_new_month_needs_no_reset() -> None:
    """The period is part of the account, so December starts at zero by itself."""
    bench = Bench(Limits(run=None, month="0.01", steps=None))
    model_step(bench.guard.run())
    bench.clock.advance(20 * 86_400_000)

    model_step(bench.guard.run())

    assert CENT == bench.spent("user:alice", MONTH)
    assert CENT == bench.spent("user:alice", "2026-12")


def test_a_call_over_midnight_of_the_month_belongs_to_the_month_that_reserved_it() -> None:
    """Settled in December, charged to November."""
    bench = Bench(Limits(run=None, month="1.00", steps=None))
    bench.clock.advance(1_796_083_199_000 - START_MS)
    run = bench.guard.run()
    permit = run.before_model(cent_call())
    bench.clock.advance(5_000)
    run.after_model(permit, done())

    assert (CENT, 0) == (bench.spent("user:alice", MONTH), bench.spent("user:alice", "2026-12"))


def test_every_scope_is_charged_or_none() -> None:
    """Run, user, key and organisation move together; a refusal by one leaves the others untouched."""
    bench = Bench(Limits(run=None, month="1.00", org_month="0.02", steps=None), key="k1", org="acme")
    run = bench.guard.run()
    model_step(run)
    model_step(run)
    with pytest.raises(BudgetExceeded, match="org:acme"):
        run.before_model(cent_call())

    scopes = (f"run:{run.id}", "user:alice", "key:k1", "org:acme")
    assert [2 * CENT] * 4 == [bench.spent(s, "-" if s.startswith("run:") else MONTH) for s in scopes]
    assert [0] * 4 == [bench.held(s, "-" if s.startswith("run:") else MONTH) for s in scopes]


def test_an_operators_limit_wins_over_code() -> None:
    """`runrails budget set` lowers what code allows."""
    bench = Bench(Limits(run=None, month="50", steps=None))
    assert isinstance(bench.store, SupportsLimits)
    bench.store.set_limit("user:alice", CENT)
    model_step(bench.guard.run())

    with pytest.raises(BudgetExceeded, match="user:alice"):
        bench.guard.run().before_model(cent_call())


def test_money_held_by_a_call_in_flight_is_busy_not_used_up() -> None:
    """A call that would fit once another has ended is refused for now; the run goes on."""
    bench = Bench(Limits(run="0.01", steps=None, hold_wait_ms=0))
    run = bench.guard.run()
    permit = run.before_model(cent_call())

    with pytest.raises(BudgetBusy) as caught:
        run.before_model(cent_call())

    assert run.stopped is None
    assert CENT == caught.value.fields["held"]
    run.after_model(permit, ModelResult(end="failed"))
    model_step(run)
    assert CENT == bench.spent("user:alice")


def test_a_call_whose_cap_is_too_large_is_refused_without_stopping_the_run() -> None:
    """100,000 output tokens do not fit into a dollar at $30 a million; 1,000 do."""
    bench = Bench(Limits(run="1.00", steps=None))
    run = bench.guard.run()
    prompt = Prompt(texts=("hi",), messages=1)

    with pytest.raises(CallTooLarge):
        run.before_model(ModelCall(model="tokens", prompt=prompt, max_tokens=100_000))

    assert run.stopped is None
    assert 0 == bench.held(f"run:{run.id}", "-")
    model_step(run, ModelCall(model="tokens", prompt=prompt, max_tokens=1_000))


def test_an_unknown_price_refuses_by_name() -> None:
    """A model nobody has priced does not start, and costs no step."""
    bench = Bench()
    run = bench.guard.run()

    with pytest.raises(PriceUnknown, match="no-such-model"):
        run.before_model(ModelCall(model="no-such-model"))

    assert (0, 1) == (run.report().steps, run.report().refusals)
    model_step(run)


def test_a_price_of_zero_that_someone_wrote_is_free() -> None:
    """`"0"` in the overrides is a price; the call is counted and costs nothing."""
    bench = Bench()
    run = bench.guard.run()
    model_step(run, ModelCall(model="free", max_tokens=10))

    assert (1, 0) == (run.report().model_calls, run.report().cost_pusd)


def test_missing_usage_settles_at_the_hold() -> None:
    """A provider that reports nothing is never booked at zero."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1), max_tokens=1_000)
    permit = model_step(run, call, ModelResult(end="completed"))

    assert permit.bound_pusd == bench.spent("user:alice") == run.report().unresolved_pusd
    assert permit.bound_pusd > 0


def test_a_cut_stream_settles_to_its_input_and_what_came() -> None:
    """Less than the hold, more than nothing, and marked as a stand-in."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1), max_tokens=10_000)
    permit = model_step(run, call, ModelResult(end="cut", output_text=("half an ans",)))

    assert 0 < bench.spent("user:alice") < permit.bound_pusd
    assert bench.spent("user:alice") == run.report().unresolved_pusd


def test_a_cut_stream_with_hidden_reasoning_keeps_its_hold() -> None:
    """What was thought and not shown is billed all the same."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1), max_tokens=10_000)
    permit = model_step(run, call, ModelResult(end="cut", output_text=("half",), reasoning=True))

    assert permit.bound_pusd == bench.spent("user:alice")


@pytest.mark.parametrize("end", ["failed", "cached"])
def test_a_definite_failure_and_a_cache_hit_cost_nothing(end: str) -> None:
    """The hold is given back in full, and the call is in the books at zero."""
    bench = Bench(Limits(run="0.01"))
    run = bench.guard.run()
    model_step(run, result=ModelResult(end=end))  # type: ignore[arg-type]

    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_an_unknown_outcome_is_charged_at_the_hold() -> None:
    """A timeout after sending may have been billed."""
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    model_step(run, result=ModelResult(end="unknown"))

    assert CENT == bench.spent("user:alice")


def test_an_overrun_is_recorded_in_full_and_refuses_the_next_call() -> None:
    """A provider that ignores max_tokens bills more than was held."""
    bench = Bench(Limits(run="0.01", steps=None))
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1), max_tokens=10)
    model_step(run, call, done(input_tokens=10, output_tokens=100_000))

    cost = 10 * 10_000_000 + 100_000 * 30_000_000
    assert cost == bench.spent("user:alice") == run.report().cost_pusd
    assert "bound_violated" in bench.names()
    with pytest.raises(BudgetExceeded):
        run.before_model(call)


def test_a_call_without_a_cap_holds_all_that_is_left_one_at_a_time() -> None:
    """Nothing tells how much it will cost, so the rest of the budget waits for it."""
    bench = Bench(Limits(run="1.00", steps=None, hold_wait_ms=0))
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1))
    permit = run.before_model(call)

    assert permit.uncapped
    assert 100 * CENT == permit.bound_pusd == bench.held(f"run:{run.id}", "-")
    with pytest.raises(BudgetBusy):
        run.before_model(call)
    run.after_model(permit, done())
    run.after_model(run.before_model(call), done())
    assert 0 == bench.held(f"run:{run.id}", "-")


def test_a_call_without_a_cap_needs_room_for_a_short_answer() -> None:
    """Less than 1,024 output tokens' worth of money is no room for an answer: the run is over."""
    bench = Bench(Limits(run="0.02", steps=None))
    with pytest.raises(BudgetExceeded):
        bench.guard.run().before_model(ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1)))


def test_strict_limits_refuse_a_call_without_a_cap() -> None:
    """`uncapped="refuse"` promises zero overshoot and says what to set."""
    bench = Bench(Limits(run="1.00", uncapped="refuse"))
    with pytest.raises(BoundUnknown, match="max_tokens"):
        bench.guard.run().before_model(ModelCall(model="tokens", prompt=Prompt(texts=("hi",), messages=1)))


def test_an_unbounded_prompt_refuses() -> None:
    """A PDF of unknown size cannot be bounded; it is never taken for 0."""
    bench = Bench()
    with pytest.raises(BoundUnknown, match="pdf"):
        bench.guard.run().before_model(ModelCall(model="tokens", prompt=Prompt(unbounded="pdf"), max_tokens=10))


def test_utilisation_with_a_worst_case_of_three_times_the_price() -> None:
    """Sequential calls that hold three cents and cost one: at least 98 fit into a dollar."""
    bench = Bench(Limits(run="1.00", steps=None))
    run = bench.guard.run()
    call = ModelCall(model="tokens", prompt=Prompt(texts=("",), messages=0), max_tokens=980)
    made = 0
    with pytest.raises((BudgetExceeded, CallTooLarge)):
        while True:
            permit = run.before_model(call)
            assert permit.bound_pusd <= 3 * CENT
            run.after_model(permit, ModelResult(end="completed", usage=Usage(input_tokens=10, output_tokens=330)))
            made += 1

    assert made >= 98
    assert made * CENT == bench.spent("user:alice")
