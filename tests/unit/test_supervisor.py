"""Supervised functions and plain loops: a stop is an outcome, everything else passes through, what hangs is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from rr_core import CENT, Bench, cent_call, done, model_step, tool_step
from runrails import BudgetExceeded, ConfigError, GuardrailStopped, LimitReached, Limits, LoopDetected, current_run
from runrails.boundary import Trip
from runrails.errors import PriceUnknown
from runrails.run import Run
from runrails.usage import Usage


def here() -> Run:
    """The run this code is in."""
    run = current_run()
    assert run is not None
    return run


def spends(count: int) -> str:
    """Makes so many one-cent calls."""
    for _ in range(count):
        model_step(here())
    return "the answer"


async def aspends(count: int) -> str:
    """The same as a coroutine function."""
    await asyncio.sleep(0)
    return spends(count)


# Results and stops.


def test_a_result_comes_back_with_its_report() -> None:
    """Text is the answer, and the run is over afterwards."""
    bench = Bench()
    outcome = bench.guard.supervise(spends, name="job").invoke(3)

    assert ("the answer", "the answer", None, None) == (
        outcome.answer, outcome.value, outcome.stop, outcome.stop_reason,
    )  # fmt: skip
    assert (3, 3 * CENT, "job") == (outcome.report.model_calls, outcome.report.cost_pusd, outcome.report.name)
    assert None is current_run()
    with pytest.raises(ConfigError, match="has ended"):
        outcome.run.before_model(cent_call())


def test_what_is_no_text_has_no_answer() -> None:
    """The value is still there."""
    outcome = Bench().guard.supervise(lambda: {"n": 1}).invoke()
    assert (None, {"n": 1}) == (outcome.answer, outcome.value)


def test_a_stop_is_an_outcome() -> None:
    """The answer says what was done and why it ended; nothing more was paid than the limit."""
    bench = Bench(Limits(run="0.02"))
    outcome = bench.guard.supervise(spends).invoke(5)

    assert isinstance(outcome.stop, BudgetExceeded)
    assert ("budget_exceeded", None, False) == (outcome.stop_reason, outcome.value, outcome.abandoned)
    assert "2 model calls and 0 tool calls, $0.02" in (outcome.answer or "")
    assert (2 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


async def test_a_coroutine_function_is_awaited() -> None:
    """The same with ainvoke."""
    bench = Bench(Limits(run="0.02"))
    supervisor = bench.guard.supervise(aspends)

    assert "the answer" == (await supervisor.ainvoke(1)).answer
    assert "budget_exceeded" == (await supervisor.ainvoke(5)).stop_reason


async def test_a_plain_function_may_be_awaited_as_well() -> None:
    """It runs in a thread and belongs to the run there."""
    outcome = await Bench().guard.supervise(spends).ainvoke(2)
    assert ("the answer", 2) == (outcome.answer, outcome.report.model_calls)


def test_a_coroutine_function_cannot_be_invoked() -> None:
    """The message says what to write."""
    with pytest.raises(ConfigError, match="ainvoke"):
        Bench().guard.supervise(aspends).invoke(1)


@pytest.mark.parametrize("name", ["invoke", "stream"])
def test_what_cannot_be_called_is_named(name: str) -> None:
    """A number is no executor."""
    with pytest.raises(ConfigError, match="int"):
        getattr(Bench().guard.supervise(7), name)()


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_the_users_own_error_passes_through_unchanged(error: BaseException) -> None:
    """The very same object."""

    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Bench().guard.supervise(fails).invoke()
    assert error is caught.value


async def test_the_users_own_error_passes_through_unchanged_on_a_loop() -> None:
    """The very same object."""
    error = KeyError("mine")

    async def fails() -> None:
        raise error

    for limits in (None, Limits(seconds=60)):
        with pytest.raises(KeyError) as caught:
            await Bench(limits).guard.supervise(fails).ainvoke()
        assert error is caught.value


def test_a_refused_call_is_no_stop() -> None:
    """It passes through with its own type."""

    def asks() -> None:
        from dataclasses import replace

        here().before_model(replace(cent_call(), model="nobody-knows-it"))

    with pytest.raises(PriceUnknown):
        Bench().guard.supervise(asks).invoke()


def test_a_stop_that_somebody_swallowed_is_still_told() -> None:
    """The value is what the function returned."""

    def swallows() -> str:
        try:
            spends(5)
        except GuardrailStopped:
            return "I went on regardless."
        return "no"

    outcome = Bench(Limits(run="0.02")).guard.supervise(swallows).invoke()
    assert ("I went on regardless.", "budget_exceeded") == (outcome.value, outcome.stop_reason)


def test_a_trip_becomes_an_outcome_too() -> None:
    """Adapters raise it inside a boundary of ours."""

    def trips() -> None:
        run = here()
        try:
            for _ in range(9):
                tool_step(run)
        except LoopDetected as stop:
            raise Trip(stop) from None

    outcome = Bench().guard.supervise(trips).invoke()
    assert "loop_detected" == outcome.stop_reason


# Batches, streams, runs inside runs.


def test_a_batch_has_a_run_for_each_input() -> None:
    """One that is stopped does not stop the others."""
    bench = Bench(Limits(run="0.02"))
    outcomes = bench.guard.supervise(spends).batch([1, 5, 2], max_concurrency=2)

    assert [None, "budget_exceeded", None] == [outcome.stop_reason for outcome in outcomes]
    assert 3 == len({outcome.run.id for outcome in outcomes})
    assert 5 * CENT == bench.spent("user:alice")
    assert [] == bench.guard.supervise(spends).batch([])


async def test_abatch_has_a_run_for_each_input() -> None:
    """The same as tasks; a user's error comes out when all have ended."""
    bench = Bench(Limits(run="0.02"))
    outcomes = await bench.guard.supervise(aspends).abatch([1, 5, 2])
    assert [None, "budget_exceeded", None] == [outcome.stop_reason for outcome in outcomes]

    async def odd(n: int) -> int:
        await asyncio.sleep(0)
        if n == 1:
            raise KeyError(n)
        return n

    with pytest.raises(KeyError):
        await bench.guard.supervise(odd).abatch([0, 1, 2])


def test_a_stream_ends_normally_at_a_stop() -> None:
    """What came before is there, and between two chunks the consumer is outside the run."""
    bench = Bench(Limits(run="0.03"))

    def words() -> Iterator[str]:
        for word in ("a", "b", "c", "d", "e"):
            spends(1)
            yield word

    stream = bench.guard.supervise(words).stream()
    with pytest.raises(ConfigError, match="not ended"):
        _ = stream.outcome
    seen = []
    for word in stream:
        assert None is current_run()
        seen.append(word)

    assert (["a", "b", "c"], "budget_exceeded") == (seen, stream.outcome.stop_reason)
    assert 3 * CENT == bench.spent("user:alice")
    assert [] == list(stream)


def test_a_stream_that_is_left_early_is_over() -> None:
    """Its generator is closed, and the answer is what had come."""
    bench = Bench()
    closed = []

    def words() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(here().id)

    with bench.guard.supervise(words).stream() as stream:
        assert "a" == next(stream)
    assert ("a", None, [stream.run.id]) == (stream.outcome.answer, stream.outcome.stop_reason, closed)


def test_a_streams_own_error_passes_through() -> None:
    """After the chunks before it."""

    def words() -> Iterator[str]:
        yield "a"
        raise KeyError("mine")

    stream = Bench().guard.supervise(words).stream()
    assert "a" == next(stream)
    with pytest.raises(KeyError):
        next(stream)
    assert None is stream.outcome.stop


async def test_an_async_stream_ends_normally_at_a_stop() -> None:
    """As the synchronous one."""
    bench = Bench(Limits(run="0.03"))

    async def words() -> AsyncIterator[str]:
        for word in ("a", "b", "c", "d", "e"):
            await aspends(1)
            yield word

    stream = bench.guard.supervise(words).astream()
    seen = [word async for word in stream]

    assert (["a", "b", "c"], "abc", "budget_exceeded") == (seen, stream._seen.total, stream.outcome.stop_reason)
    assert None is current_run()


async def test_an_async_stream_may_be_left_early_or_fail() -> None:
    """Nothing is left running; a user's error passes through."""
    ended = []

    async def words() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with Bench().guard.supervise(words).astream() as stream:
        assert "a" == await anext(stream)
    assert ([True], "a", False) == (ended, stream.outcome.answer, stream.outcome.abandoned)

    async def fails() -> AsyncIterator[str]:
        yield "a"
        raise KeyError("mine")

    failing = Bench().guard.supervise(fails).astream()
    assert "a" == await anext(failing)
    with pytest.raises(KeyError):
        await anext(failing)


def test_inside_another_run_it_draws_on_it() -> None:
    """A child run: its outcome tells of the stop, and the outer run is stopped as well."""
    bench = Bench(Limits(run="0.03"))
    with pytest.raises(BudgetExceeded), bench.guard.run() as outer:
        model_step(outer)
        outcome = bench.guard.supervise(spends).invoke(9)
        assert "budget_exceeded" == outcome.stop_reason
        assert (2, 3) == (outcome.report.model_calls, outer.report().model_calls)
        model_step(outer)
    assert 3 * CENT == bench.spent("user:alice")


def test_parallel_branches_in_a_pool_draw_on_the_run() -> None:
    """What guard.bind takes to other threads is in the run there."""
    from concurrent.futures import ThreadPoolExecutor

    bench = Bench(Limits(run="0.10"))

    def fans_out() -> int:
        work = bench.guard.bind(spends)
        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(work, 1) for _ in range(20)]
        return sum(end.exception() is None for end in ends)

    outcome = bench.guard.supervise(fans_out).invoke()
    assert (10, "budget_exceeded") == (outcome.value, outcome.stop_reason)
    assert 10 * CENT == bench.spent("user:alice")


# Going on.


def test_a_run_goes_on_after_its_limit_is_raised() -> None:
    """The same run, with its counts; a plain function begins again."""
    bench = Bench(Limits(run="0.02"))
    supervisor = bench.guard.supervise(spends)
    stopped = supervisor.invoke(3)
    outcome = supervisor.resume(stopped, limits=Limits(run="0.10"))

    assert (stopped.run.id, "the answer", None) == (outcome.run.id, outcome.answer, outcome.stop_reason)
    assert 5 == outcome.report.model_calls


async def test_a_run_goes_on_on_a_loop_too() -> None:
    """The same with aresume."""
    supervisor = Bench(Limits(run="0.02")).guard.supervise(aspends)
    outcome = await supervisor.aresume(await supervisor.ainvoke(3), limits=Limits(run="0.10"))
    assert ("the answer", 5) == (outcome.answer, outcome.report.model_calls)


# What hangs.


def test_a_hanging_call_is_ended_by_the_seconds_limit() -> None:
    """Its thread is abandoned, the outcome says so, and nothing in it can start any more."""
    model_step(Bench().guard.run())  # What is loaded for the first call is no part of the second.
    bench = Bench(Limits(seconds=1))
    release, late = threading.Event(), []

    def hangs() -> None:
        run = here()
        model_step(run)
        release.wait(30)
        try:
            run.before_model(cent_call())
        except BaseException as exc:
            late.append(type(exc).__name__)

    outcome = bench.guard.supervise(hangs).invoke()
    assert isinstance(outcome.stop, LimitReached)
    assert ("limit_reached", True, "seconds") == (
        outcome.stop_reason, outcome.abandoned, outcome.stop.fields["setting"],
    )  # fmt: skip
    release.set()
    for _ in range(3_000):
        if late:
            break
        threading.Event().wait(0.01)
    assert ["LimitReached"] == late
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


async def test_a_hanging_task_is_cancelled_by_the_seconds_limit() -> None:
    """It is given the time to clean up."""
    ended = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    outcome = await Bench(Limits(seconds=1)).guard.supervise(hangs).ainvoke()
    assert ("limit_reached", False, [True]) == (outcome.stop_reason, outcome.abandoned, ended)


def test_a_hanging_stream_is_ended_by_the_seconds_limit() -> None:
    """What had come is the answer so far."""
    release = threading.Event()

    def words() -> Iterator[str]:
        yield "a"
        release.wait(30)
        yield "b"

    stream = Bench(Limits(seconds=1)).guard.supervise(words).stream()
    assert ["a"] == list(stream)
    release.set()
    assert ("limit_reached", True) == (stream.outcome.stop_reason, stream.outcome.abandoned)


async def test_a_hanging_async_stream_is_ended_by_the_seconds_limit() -> None:
    """The same on a loop."""

    async def words() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    stream = Bench(Limits(seconds=1)).guard.supervise(words).astream()
    assert ["a"] == [word async for word in stream]
    assert ("limit_reached", False) == (stream.outcome.stop_reason, stream.outcome.abandoned)


async def test_a_cancelled_caller_takes_the_call_with_it() -> None:
    """Cancelling the task that awaits a supervised call ends it and its run, with or without a limit."""
    for limits in (None, Limits(seconds=60)):
        bench, begun, ended = Bench(limits), asyncio.Event(), []

        async def works(begun: asyncio.Event = begun, ended: list[bool] = ended) -> None:
            permit = here().before_model(cent_call())
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                here().after_model(permit, done())
                ended.append(True)

        task = asyncio.create_task(bench.guard.supervise(works).ainvoke())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ([True], CENT, 0) == (ended, bench.spent("user:alice"), bench.held("user:alice"))


def test_observing_ends_nothing() -> None:
    """The limit on time is told, not enforced."""
    bench = Bench(Limits(seconds=1), mode="observe")

    def slow() -> str:
        bench.clock.advance(5_000)
        return spends(1)

    outcome = bench.guard.supervise(slow).invoke()
    assert ("the answer", None) == (outcome.answer, outcome.stop_reason)
    assert "seconds" in (outcome.report.would_have_stopped or "")


# Loops of one's own.


def test_a_while_loop_counts_its_rounds() -> None:
    """`run.step()` alone, or around the round; it raises the stop."""
    bench = Bench(Limits(steps=10))
    rounds = 0
    with pytest.raises(LimitReached), bench.guard.run() as run:
        while True:
            if rounds % 2:
                run.step()
            else:
                with run.step():
                    pass
            rounds += 1
    assert (10, 10, 0, 0) == (rounds, run.report().steps, run.report().model_calls, run.report().tool_calls)
    with pytest.raises(LimitReached):
        run.step()


def test_a_while_loop_stops_where_its_tool_keeps_failing() -> None:
    """The loop detector's stop comes at the next round."""
    bench = Bench()
    rounds = 0
    with pytest.raises(LoopDetected), bench.guard.run() as run:
        while rounds < 50:
            run.step()
            tool_step(run)
            rounds += 1
    assert 5 == rounds


# What a bug of ours does.


@pytest.mark.parametrize("part", ["report", "answer", "repair"])
def test_a_bug_in_an_observing_part_changes_no_result(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value, or the stop, comes out; that something broke is an event."""

    def boom(*_args: object, **_kwargs: object) -> object:
        raise RuntimeError

    owner = "runrails.run.Run.report" if part == "report" else f"runrails.executors.Plain.{part}"
    monkeypatch.setattr(owner, boom)
    bench = Bench(Limits(run="0.02"))
    supervisor = bench.guard.supervise(spends)

    assert ("the answer", "budget_exceeded") == (supervisor.invoke(1).value, supervisor.invoke(9).stop_reason)
    assert {"report_failed", "adapter_failed"} & set(bench.names())


# Permits that are asked for early.


def test_a_tentative_refusal_ends_nothing() -> None:
    """What is sent in the end may be smaller: neither a stop nor a refusal is noted, and nothing is held."""
    from dataclasses import replace

    from runrails.calls import Prompt

    bench = Bench(Limits(run="0.02"))
    run = bench.guard.run()
    long = replace(cent_call(), model="tokens", prompt=Prompt(texts=("x" * 1_000_000,), messages=1))
    with pytest.raises(BudgetExceeded):
        run.before_model(long, tentative=True)

    assert (None, 0, 0) == (run.stopped, run.report().refusals, run.report().steps)
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_revised_permit_keeps_its_hold_if_that_is_enough() -> None:
    """A smaller call keeps the reservation, a dearer model gets another; each counts once."""
    from dataclasses import replace

    from runrails.calls import Prompt

    bench = Bench(Limits(run="5"))
    run = bench.guard.run()
    asked = replace(cent_call(), model="tokens", prompt=Prompt(texts=("x" * 1_000,), messages=1))
    permit = run.before_model(asked)
    smaller = run.revise(permit, replace(asked, prompt=Prompt(texts=("x",), messages=1)))
    assert (permit.id, permit.bound_pusd) == (smaller.id, smaller.bound_pusd)

    other = run.revise(smaller, replace(asked, model="dear"))
    assert other.id != permit.id
    assert (1, other.bound_pusd) == (run.report().steps, bench.held("user:alice"))
    run.after_model(other, done())
    assert (320 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_a_withdrawn_permit_is_no_step() -> None:
    """Twice is fine."""
    bench = Bench()
    run = bench.guard.run()
    permit = run.before_model(cent_call())
    run.withdraw(permit)
    run.withdraw(permit)
    assert (0, 0, 0) == (run.report().steps, run.report().model_calls, bench.held("user:alice"))
    assert Usage(input_tokens=0, output_tokens=0).total_tokens == run.report().tokens
