"""How a stop leaves `with guard.run():`, whatever catches exceptions inside."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rr_core import Bench, cent_call, model_step
from runrails import BudgetExceeded, GuardrailStopped, Limits, current_run
from runrails.boundary import Trip
from runrails.run import Run


def _trip(run: Run) -> None:
    """What an adapter does at a start hook."""
    try:
        model_step(run)
        model_step(run)
    except GuardrailStopped as stop:
        raise Trip(stop) from None


def test_a_trip_pierces_except_exception_and_becomes_public_at_the_boundary() -> None:
    """A user's catch-all does not swallow it; what comes out is the public error."""
    bench = Bench(Limits(run="0.01"))
    swallowed = False
    with pytest.raises(BudgetExceeded):
        with bench.guard.run() as run:
            try:
                _trip(run)
            except Exception:
                swallowed = True
    assert not swallowed


async def test_a_trip_comes_out_of_a_task_group_as_one_public_error() -> None:
    """Exception groups are unwrapped at the boundary."""
    bench = Bench(Limits(run="0.01"))

    async def child(run: Run) -> None:
        _trip(run)

    with pytest.raises(BudgetExceeded):
        async with bench.guard.run() as run:
            async with asyncio.TaskGroup() as group:
                group.create_task(child(run))
                group.create_task(asyncio.sleep(0))


def test_other_errors_pass_through_unchanged() -> None:
    """The boundary changes nothing but a trip, and forgets the run either way."""
    bench = Bench()
    with pytest.raises(KeyError):
        with bench.guard.run():
            raise KeyError("mine")
    assert current_run() is None


def test_the_current_run_is_known_inside_and_forgotten_outside() -> None:
    """Nested runs restore the outer one."""
    bench = Bench()
    with bench.guard.run() as outer:
        assert current_run() is outer
        with bench.guard.run() as inner:
            assert current_run() is inner
        assert current_run() is outer
    assert current_run() is None


def test_bind_carries_the_run_into_a_thread_pool() -> None:
    """Plain pool threads do not know the run; bound functions do, many at a time."""
    bench = Bench()
    barrier = threading.Barrier(4)

    def seen(_: int) -> Run | None:
        barrier.wait(timeout=10)
        return current_run()

    with bench.guard.run() as run, ThreadPoolExecutor(4) as pool:
        bound = bench.guard.bind(seen)
        assert [run] * 4 == list(pool.map(bound, range(4)))
        assert [None] * 4 == list(pool.map(seen, range(4)))


async def test_concurrent_runs_in_one_loop_are_isolated() -> None:
    """Each task is in its own run."""
    bench = Bench()

    async def work(name: str) -> str | None:
        async with bench.guard.run(name):
            await asyncio.sleep(0)
            run = current_run()
            return None if run is None else run.name

    assert ["a", "b", "c"] == list(await asyncio.gather(*(work(name) for name in "abc")))


def test_a_stop_is_a_fresh_exception_each_time_and_survives_pickling() -> None:
    """Raised from many threads it gathers no foreign tracebacks; fields cross process borders."""
    bench = Bench(Limits(run="0.01"))
    run = bench.guard.run()
    model_step(run)
    with pytest.raises(BudgetExceeded) as one:
        run.before_model(cent_call())
    with pytest.raises(BudgetExceeded) as two:
        run.before_model(cent_call())

    assert one.value is not two.value
    copy = pickle.loads(pickle.dumps(one.value))
    assert (type(one.value), str(one.value), one.value.as_dict()) == (type(copy), str(copy), copy.as_dict())
