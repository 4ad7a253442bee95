"""Counts and time of a run, and the loop ladder at the door."""

from __future__ import annotations

import threading

import pytest

from rr_core import CENT, FAILED, OK, Bench, cent_call, done, model_step, tool_step
from runrails import ConfigError, LimitReached, Limits, LoopDetected
from runrails.calls import Block, ModelCall, Proceed, Prompt, ToolCall


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_steps_stop_at_the_limit_and_not_before(steps: int) -> None:
    """`limit` steps are done; the next start raises and names the setting."""
    bench = Bench(Limits(steps=steps))
    run = bench.guard.run()
    for number in range(steps):
        tool_step(run, OK, args={"page": number})

    with pytest.raises(LimitReached) as caught:
        run.before_model(cent_call())
    assert ("steps", steps) == (caught.value.fields["setting"], caught.value.fields["limit"])
    assert 0 == bench.spent("user:alice")


def test_model_calls_and_tool_calls_have_limits_of_their_own() -> None:
    """One does not use up the other."""
    bench = Bench(Limits(model_calls=1, tool_calls=1))
    run = bench.guard.run()
    model_step(run)
    tool_step(run, OK)

    with pytest.raises(LimitReached, match="tool calls"):
        run.before_tool(ToolCall(name="t", args={}))


def test_wall_time_stops_at_the_next_start() -> None:
    """The clock of the run is checked whenever a step is about to start."""
    bench = Bench(Limits(seconds=10))
    run = bench.guard.run()
    bench.clock.advance(9_999)
    model_step(run)
    bench.clock.advance(1)

    with pytest.raises(LimitReached, match="seconds"):
        run.before_model(cent_call())


def test_tokens_are_held_before_they_are_used() -> None:
    """Two calls in flight cannot both use the last tokens."""
    bench = Bench(Limits(tokens=250, hold_wait_ms=0))
    run = bench.guard.run()
    call = ModelCall(model="free", prompt=Prompt(texts=("x" * 50,), messages=0), max_tokens=100)
    first = run.before_model(call)
    with pytest.raises(Exception, match="tokens") as caught:
        run.before_model(call)
    assert "budget_busy" == caught.value.code  # type: ignore[attr-defined]

    run.after_model(first, done(input_tokens=20, output_tokens=30))
    run.after_model(run.before_model(call), done(input_tokens=20, output_tokens=100))
    with pytest.raises(LimitReached, match="tokens"):
        run.before_model(call)
    assert 170 == run.report().tokens


def test_a_child_run_draws_on_its_parent() -> None:
    """Steps, money and stops of a nested run count in the run around it."""
    bench = Bench(Limits(run="0.02", steps=None))
    with pytest.raises(Exception, match="used up"):
        with bench.guard.run("outer") as outer:
            with bench.guard.run("inner") as inner:
                model_step(inner)
                model_step(inner)
                inner.before_model(cent_call())

    assert 2 * CENT == outer.report().cost_pusd == bench.spent("user:alice")
    assert 2 == outer.report().model_calls
    assert outer.stopped is not None


def test_parallel_children_cannot_pass_the_parents_step_limit() -> None:
    """Siblings in threads share the parent's count."""
    bench = Bench(Limits(run=None, steps=20))
    admitted: list[int] = []

    def work(child_name: str) -> None:
        with bench.guard.run(child_name) as child:
            for _ in range(10):
                try:
                    model_step(child)
                except LimitReached:
                    return
                admitted.append(1)

    with bench.guard.run("outer"):
        threads = [threading.Thread(target=bench.guard.bind(work), args=(f"c{i}",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 20 == len(admitted)


def test_a_run_of_another_guard_inside_is_an_error() -> None:
    """Two guards around the same calls would pay twice."""
    one, other = Bench(), Bench()
    with one.guard.run():
        with pytest.raises(ConfigError, match="inside a run of another"):
            other.guard.run()


def test_a_closed_run_starts_nothing() -> None:
    """After close every start is a configuration error, and the books are unchanged."""
    bench = Bench()
    run = bench.guard.run()
    run.close()
    run.close()
    with pytest.raises(ConfigError, match="has ended"):
        run.before_model(cent_call())
    assert 0 == bench.held("user:alice")


def test_a_bare_callback_stops_after_the_fifth_identical_failure() -> None:
    """It can neither hint nor block: five executions, then the next start raises."""
    bench = Bench()
    run = bench.guard.run()
    for _ in range(5):
        model_step(run)
        tool_step(run)

    with pytest.raises(LoopDetected) as caught:
        run.before_model(cent_call())
    assert ("classify", 5) == (caught.value.fields["tool"], caught.value.fields["count"])
    assert 5 * CENT == bench.spent("user:alice")


def test_four_failures_and_a_success_are_a_legal_retry() -> None:
    """The ladder does not stop what recovers."""
    bench = Bench()
    run = bench.guard.run()
    for _ in range(4):
        tool_step(run)
    tool_step(run, OK)
    model_step(run)

    assert run.stopped is None


def test_with_blocking_the_ladder_hints_blocks_and_stops() -> None:
    """Hint after the 3rd, the 5th is not executed, the next attempt ends the run."""
    bench = Bench()
    run = bench.guard.run()
    said: list[str] = []
    executed = 0
    with pytest.raises(LoopDetected):
        for _ in range(10):
            call = ToolCall(name="classify", args={"text": "x"})
            verdict = run.before_tool(call, can_block=True)
            if isinstance(verdict, Block):
                said.append("block")
                continue
            executed += 1
            finding = run.after_tool(call, FAILED, can_block=True)
            said.append("-" if finding is None else finding.level)

    assert (4, ["-", "-", "hint"]) == (executed, said[:3])
    assert "block" == said[4]
    assert 5 == len(said)


def test_observe_mode_decides_and_stops_nothing() -> None:
    """Ten times over budget and far into a loop, everything starts and the report says what would have happened."""
    bench = Bench(Limits(run="0.01", steps=3), mode="observe")
    run = bench.guard.run()
    for _ in range(10):
        model_step(run)
        tool_step(run)

    report = run.report()
    assert (10, 10, None) == (report.model_calls, report.tool_calls, report.stop_reason)
    assert report.would_have_stopped is not None
    assert 10 * CENT == bench.spent("user:alice")
    assert 1 == bench.names().count("run_would_stop")


def test_observe_mode_records_an_unknown_price_as_unpriced() -> None:
    """Nothing is refused; the event names the model."""
    bench = Bench(mode="observe")
    run = bench.guard.run()
    model_step(run, ModelCall(model="no-such-model"))

    assert (1, 0) == (run.report().model_calls, run.report().cost_pusd)
    assert "price_missed" in bench.names()


def test_a_broken_detector_changes_nothing_for_the_user() -> None:
    """A bug in a part that observes is an event, not an exception."""
    bench = Bench()
    run = bench.guard.run()
    run._loops.detector = object()  # type: ignore[assignment]
    for _ in range(9):
        model_step(run)
        tool_step(run)

    assert "detector_failed" in bench.names()
    assert isinstance(run.before_tool(ToolCall(name="t")), Proceed)


def test_a_broken_sink_changes_nothing_for_the_user() -> None:
    """Deliveries that fail are counted."""
    bench = Bench(Limits(run="0.01"))

    def broken(_: object) -> None:
        raise RuntimeError("sink")

    bench.guard.emit.sinks = (broken,)
    model_step(bench.guard.run())
    bench.guard.run().close()

    assert bench.guard.emit.failures >= 1
