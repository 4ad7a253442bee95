"""What was left alone when its time was up, or when its caller went away, starts nothing, even after a resume."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from rr_core import CENT, FAILED, Bench, cent_call, done, model_step
from runrails import LimitReached, Limits, Outcome, current_run
from runrails.calls import ToolCall
from runrails.cover import take_cover
from runrails.run import Run
from runrails.supervisor import Supervisor

WAIT_S = 30
MORE = Limits(seconds=60)


def here() -> Run:
    """The run this code is in."""
    run = current_run()
    assert run is not None
    return run


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """What is loaded with the first call takes no part of the second that each test has."""

    def words() -> Iterator[str]:
        model_step(here())
        yield "a"

    assert ["a"] == list(Bench(MORE).guard.supervise(words).stream())
    asyncio.run(Bench(MORE).guard.supervise(lambda: model_step(here())).ainvoke())


class Almost:
    """A monotonic clock that is well on its way to the end of the first second when it is asked again."""

    def __init__(self, bench: Bench) -> None:
        self.clock = bench.clock
        self.asked = False

    def __call__(self) -> int:
        late, self.asked = 600 if self.asked else 0, True
        return self.clock() + late


class Hanging:
    """Hangs the first time it is called, until it is released; then tries to go on in every way there is."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.release = threading.Event()
        self.over = threading.Event()
        self.calls = 0
        self.late: dict[str, str] = {}

    def __call__(self) -> str:
        """The first call makes one model call and hangs, the second one makes one and ends."""
        self.calls += 1
        first = self.calls == 1
        run = here()
        model_step(run)
        if first:
            covering = run.before_model(cent_call())
            self.release.wait(WAIT_S)
            self._go_on(run, covering)
        return "the answer"

    def stream(self) -> Iterator[str]:
        """The same with a chunk before."""
        yield "a"
        yield self()

    def _go_on(self, run: Run, covering: Any) -> None:
        self.late["cover"] = str(take_cover(self.bench.guard, cent_call()))
        run.after_model(covering, done())
        asked = ToolCall(name="t", args={})
        self._try("model", lambda: run.before_model(cent_call()))
        self._try("tool", lambda: run.before_tool(asked))
        self._try("step", run.step)
        self._try("sub-run", self._sub_run)
        self._try("bound", self.bench.guard.bind(lambda: here().before_model(cent_call())))
        inner = self.bench.guard.supervise(lambda: model_step(here())).invoke()
        self.late["supervisor"] = type(inner.stop).__name__
        for _ in range(9):  # what comes back late is no news to a run that goes on
            run.after_tool(asked, FAILED)
        run.user_message()
        self.over.set()

    def _sub_run(self) -> None:
        with self.bench.guard.run() as inner:
            inner.before_model(cent_call())

    def _try(self, what: str, start: Callable[[], object]) -> None:
        try:
            start()
        except LimitReached as stop:
            self.late[what] = f"LimitReached {stop.fields['setting']}"
        else:
            self.late[what] = "started"


EVERYTHING_REFUSED = {
    "cover": "False", "supervisor": "LimitReached",
    **dict.fromkeys(("model", "tool", "step", "sub-run", "bound"), "LimitReached seconds"),
}  # fmt: skip


def hang(mode: str, supervisor: Supervisor) -> Outcome:
    """Call it in one of the modes until it is left alone."""
    if mode == "invoke":
        return supervisor.invoke()
    if mode == "batch":
        return supervisor.batch([()])[0]
    if mode == "stream":
        stream = supervisor.stream()
        assert ["a"] == list(stream)
        return stream.outcome
    return asyncio.run(supervisor.ainvoke())


def executor(mode: str, hanging: Hanging) -> Any:
    """What is supervised in that mode."""
    if mode == "batch":
        return lambda _: hanging()
    return hanging


@pytest.mark.parametrize("mode", ["invoke", "batch", "stream", "ainvoke"])
@pytest.mark.parametrize("when", ["before the resume", "inside the resumed call", "after it"])
def test_what_was_left_alone_starts_nothing_after_a_resume(mode: str, when: str) -> None:
    """Not a model call, a tool, a step or a run of its own; the resumed call goes on and ends, and counts alone."""
    bench = Bench(Limits(seconds=1))
    bench.guard.monotonic = Almost(bench)
    hanging = Hanging(bench)
    supervisor = bench.guard.supervise(executor(mode, hanging))
    outcome = hang(mode, supervisor)
    assert ("limit_reached", True) == (outcome.stop_reason, outcome.abandoned)

    def let_go() -> None:
        hanging.release.set()
        assert hanging.over.wait(WAIT_S)

    if when == "before the resume":
        let_go()
    usual, hanging_call = Hanging.__call__, hanging.calls
    assert 1 == hanging_call
    if when == "inside the resumed call":

        def call(self: Hanging) -> str:
            model_step(here())
            let_go()
            return usual(self)

        hanging.__class__ = type("Releasing", (Hanging,), {"__call__": call})
    again = supervisor.resume(outcome, limits=MORE)
    let_go()

    assert ("the answer", None) == (again.answer, again.stop_reason)
    assert EVERYTHING_REFUSED == hanging.late
    paid = 4 if when == "inside the resumed call" else 3
    report = again.run.report()
    assert (paid, 0, paid, 0, 0) == (
        report.model_calls, report.tool_calls, report.steps, report.hints, report.blocks,
    )  # fmt: skip
    assert (paid * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


# Streams on an event loop.


async def test_a_task_that_ignores_its_cancellation_starts_nothing_after_a_resume() -> None:
    """Its run is left by the consumer, so its own end leaves nobody else's."""
    bench = Bench(Limits(seconds=1))
    go_on, over, late = asyncio.Event(), asyncio.Event(), []
    calls = 0

    async def words() -> AsyncIterator[str]:
        nonlocal calls
        calls += 1
        yield "a"
        if calls == 1:
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue
            try:
                here().before_model(cent_call())
            except LimitReached:
                late.append("refused")
            over.set()
        yield "b"

    stream = bench.guard.supervise(words).astream()
    assert ["a"] == [word async for word in stream]
    assert ("limit_reached", True) == (stream.outcome.stop_reason, stream.outcome.abandoned)

    run = stream.run
    run.resume(limits=MORE)
    async with run:
        go_on.set()
        await over.wait()
        await asyncio.sleep(0)
        assert (run, True) == (current_run(), run.owned)
        model_step(run)
    assert (["refused"], 1, CENT) == (late, run.report().model_calls, bench.spent("user:alice"))


async def test_a_stream_that_is_closed_early_is_over_even_if_its_task_is_not() -> None:
    """After a second it is left alone: the run has ended, and nothing in there can start."""
    bench, go_on, over, late = Bench(), asyncio.Event(), asyncio.Event(), []

    async def words() -> AsyncIterator[str]:
        permit = here().before_model(cent_call())
        yield "a"
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        here().after_model(permit, done())
        try:
            here().before_model(cent_call())
        except Exception as exc:
            late.append(type(exc).__name__)
        over.set()

    async with bench.guard.supervise(words).astream() as stream:
        assert "a" == await anext(stream)
    assert (True, None, "a") == (stream.outcome.abandoned, stream.outcome.stop_reason, stream.outcome.answer)
    stream.run.resume()
    go_on.set()
    await over.wait()

    assert (["GuardrailStopped"], 1) == (late, stream.run.report().model_calls)
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


async def test_a_cancellation_from_inside_a_stream_comes_out() -> None:
    """As it does from `ainvoke`; it is not an ordinary end."""

    async def words() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError

    for limits in (None, MORE):
        stream = Bench(limits).guard.supervise(words).astream()
        assert "a" == await anext(stream)
        with pytest.raises(asyncio.CancelledError):
            await anext(stream)
        assert ("a", None, False) == (stream.outcome.value, stream.outcome.stop_reason, stream.outcome.abandoned)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_stream_that_was_closed_ends_for_whoever_still_waits() -> None:
    """One task waits for a chunk, another one closes the stream."""
    stream = Bench().guard.supervise(_endless).astream()
    assert "a" == await anext(stream)
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    await stream.aclose()
    assert (None, "a") == (await waiting, stream.outcome.answer)


async def _endless() -> AsyncIterator[str]:
    yield "a"
    await asyncio.Event().wait()


async def test_a_cancelled_caller_leaves_a_function_in_a_thread_that_starts_nothing() -> None:
    """A thread cannot be cancelled, but what it would start is refused, even if somebody resumes the run."""
    bench, begun, release, over, late = Bench(), threading.Event(), threading.Event(), threading.Event(), []
    runs = []

    def hangs() -> None:
        runs.append(here())
        begun.set()
        release.wait(WAIT_S)
        try:
            here().before_model(cent_call())
        except Exception as exc:
            late.append(type(exc).__name__)
        over.set()

    task = asyncio.create_task(bench.guard.supervise(hangs).ainvoke())
    while not begun.is_set():  # noqa: ASYNC110 -- a thread tells it
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    runs[0].resume()
    release.set()
    assert over.wait(WAIT_S)
    assert (["GuardrailStopped"], 0) == (late, bench.spent("user:alice"))


def test_the_interpreter_ends_although_a_function_hangs() -> None:
    """It was left alone in a daemon thread of ours, not in one of asyncio's, and the outcome says so."""
    script = """
        import asyncio, threading
        from runrails import Guard, Limits

        guard = Guard(Limits(seconds=1), store="memory:", sinks=())
        outcome = asyncio.run(guard.supervise(lambda: threading.Event().wait()).ainvoke())
        print(outcome.stop_reason, outcome.abandoned, flush=True)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert ("limit_reached True\n", "") == (ended.stdout, ended.stderr)


# The clock.


def test_the_clock_stands_still_between_a_stop_and_a_resume() -> None:
    """A person takes a night to raise the limit; the run has its seconds all the same."""
    bench = Bench(Limits(run="0.01", seconds=60))

    def works(count: int) -> str:
        for _ in range(count):
            bench.clock.advance(10_000)
            model_step(here())
        return "done"

    supervisor = bench.guard.supervise(works)
    stopped = supervisor.invoke(2)
    assert ("budget_exceeded", 20_000) == (stopped.stop_reason, stopped.report.duration_ms)

    bench.clock.advance(8 * 3_600_000)
    outcome = supervisor.resume(stopped, limits=Limits(run="1", seconds=60))
    assert ("done", 40_000) == (outcome.answer, outcome.report.duration_ms)

    bench.clock.advance(8 * 3_600_000)
    stopped = supervisor.resume(outcome, limits=Limits(run="1", seconds=60))
    assert ("limit_reached", 60_000) == (stopped.stop_reason, stopped.report.duration_ms)


def test_the_clock_stands_still_while_a_run_is_closed_or_stopped_and_no_longer() -> None:
    """By hand: stopped first, closed later, resumed; a parent that a child's call has stopped stands still as well."""
    bench = Bench(Limits(run="0.01", seconds=100))
    with pytest.raises(Exception, match="budget"), bench.guard.run() as outer:
        with bench.guard.run() as inner:
            model_step(inner)
            bench.clock.advance(5_000)
            with pytest.raises(Exception, match="budget"):
                model_step(inner)
            bench.clock.advance(50_000)
            assert (5_000, 5_000) == (inner.report().duration_ms, outer.report().duration_ms)
        outer.check()
    bench.clock.advance(500_000)
    for run in (outer, inner):
        run.resume(limits=Limits(run="1", seconds=100))
        bench.clock.advance(1_000)
    assert (7_000, 6_000) == (outer.report().duration_ms, inner.report().duration_ms)


def test_the_time_of_the_run_around_it_ends_what_hangs_too() -> None:
    """A supervised call inside a run with a limit on its time has no more than that; both are stopped."""
    bench, release = Bench(Limits(seconds=1)), threading.Event()
    with pytest.raises(LimitReached) as caught, bench.guard.run() as outer:
        outcome = bench.guard.supervise(lambda: release.wait(WAIT_S)).invoke()
        assert ("limit_reached", True) == (outcome.stop_reason, outcome.abandoned)
        model_step(outer)
    release.set()
    assert (f"run:{outer.id}", 0) == (caught.value.fields["scope"], bench.spent("user:alice"))
