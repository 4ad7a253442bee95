"""Many calls at once against one budget: exactly as many are admitted as it pays for, and both ledgers agree."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rr_lc
from runrails import BudgetBusy, BudgetExceeded, GuardrailStopped, Limits
from runrails.boundary import Trip
from runrails.ledger import RUN_PERIOD, Account
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider.values import Delay, Text
from runrails_langchain import GuardrailCallbackHandler, attach

CENT = 10**10
WORKERS = 64
ADMITTED = 100
"""What $1.00 pays for at a cent a call."""


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def slow_model() -> ScriptedChatModel:
    """A cent a call, 20 ms each."""
    return ScriptedChatModel(Delay(20, Text("fine")), model_name="fake-flat", max_tokens=50)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_64_threads_are_admitted_exactly_as_often_as_the_budget_pays(store: str, tmp_path: Path) -> None:
    """A thread that finds the money held waits for it; when it is spent, every thread is stopped."""
    options = {} if store == "memory" else {"store": SQLiteStore(tmp_path / "ledger.db")}
    guard = rr_lc.make_guard(Limits(run="1.00", hold_wait_ms=60_000), **options)
    handler = GuardrailCallbackHandler(guard)
    together, first = threading.Barrier(9), itertools.count()

    def sleep(seconds: float) -> None:
        """The first nine end when they have met, however long a busy machine takes until they do."""
        together.wait(60) if next(first) < 9 else time.sleep(seconds)

    model = ScriptedChatModel(Delay(20, Text("fine")), model_name="fake-flat", max_tokens=50, sleep=sleep)
    barrier = threading.Barrier(WORKERS)

    def work(_: int) -> str:
        barrier.wait(timeout=60)
        while True:
            try:
                model.invoke("hello", {"callbacks": [handler]})
            except GuardrailStopped as stop:
                return stop.stop_reason

    with ThreadPoolExecutor(WORKERS) as pool:
        reasons = list(pool.map(work, range(WORKERS)))

    run = handler.runs[0]
    balance = guard.store.balance(Account(f"run:{run.id}", RUN_PERIOD))
    assert ["budget_exceeded"] * WORKERS == reasons
    assert (ADMITTED, 1) == (model.calls, len(handler.runs))
    assert (ADMITTED * CENT, 0) == (balance.spent, balance.held)
    assert model.bill.total_pusd() == balance.spent == run.report().cost_pusd
    assert model.concurrency_max > 8


async def test_64_tasks_are_admitted_exactly_as_often_as_the_budget_pays() -> None:
    """An event loop is never blocked: a task that finds the money held is told so at once and comes again."""
    guard = rr_lc.make_guard(Limits(run="1.00"))
    handler = GuardrailCallbackHandler(guard)
    model = slow_model()
    busy = 0

    async def work() -> str:
        nonlocal busy
        while True:
            try:
                await model.ainvoke("hello", {"callbacks": [handler]})
            except BudgetBusy:
                busy += 1
                await asyncio.sleep(0.005)
            except BudgetExceeded as stop:
                return stop.stop_reason

    reasons = await asyncio.gather(*(work() for _ in range(WORKERS)))

    run = handler.runs[0]
    balance = guard.store.balance(Account(f"run:{run.id}", RUN_PERIOD))
    assert ["budget_exceeded"] * WORKERS == reasons
    assert (ADMITTED, 1) == (model.calls, len(handler.runs))
    assert (ADMITTED * CENT, 0) == (balance.spent, balance.held)
    assert model.bill.total_pusd() == balance.spent == run.report().cost_pusd
    assert busy > 0
    assert WORKERS == model.concurrency_max


async def test_64_tasks_inside_one_boundary() -> None:
    """The trip pierces every task; the boundary makes one public error of it."""
    guard = rr_lc.make_guard(Limits(run="1.00"))
    model = slow_model()
    trips = 0

    async def work() -> None:
        nonlocal trips
        while True:
            try:
                await model.ainvoke("hello")
            except BudgetBusy:
                await asyncio.sleep(0.005)
            except Trip:
                trips += 1
                raise

    with pytest.raises(BudgetExceeded):
        async with guard.run() as run, asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())

    assert ADMITTED == model.calls
    assert ADMITTED * CENT == run.report().cost_pusd
    assert trips >= 1


async def test_many_tasks_in_runs_of_their_own() -> None:
    """Eight runs at once, each stopped by its own budget, all counted on one user."""
    guard = rr_lc.make_guard()
    model = slow_model()

    async def work(cents: int) -> int:
        run = guard.run(limits=Limits(run=f"0.{cents:02}"))
        with pytest.raises(BudgetExceeded):
            async with run:
                for _ in range(99):
                    await model.ainvoke("hello")
        return run.report().cost_pusd // CENT

    assert list(range(1, 9)) == list(await asyncio.gather(*(work(cents) for cents in range(1, 9))))
    assert 36 == model.calls


def test_a_bound_pool_of_64_threads_inside_one_boundary() -> None:
    """`guard.bind` carries the run into every thread of the pool."""
    guard = rr_lc.make_guard(Limits(run="0.50", hold_wait_ms=60_000))
    model = slow_model()

    def work(_: int) -> None:
        model.invoke("hello")

    with pytest.raises(BudgetExceeded), guard.run() as run, ThreadPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(guard.bind(work), n) for n in range(200)]:
            future.result()

    assert (50, 50 * CENT) == (model.calls, run.report().cost_pusd)
