"""Waiting for the disk on an event loop: once for all calls of a turn, and nobody is let through before."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from rr_core import CENT, Bench, cent_call, done
from runrails import Limits, aio
from runrails.errors import StoreUnavailable
from runrails.ledger import Refused, Reservation, Reserved
from runrails.stores.memory import MemoryStore

ASKED: ContextVar[bool] = ContextVar("asked", default=False)


class Disk(MemoryStore):
    """A store that tells what was on the disk when."""

    def __init__(self, *, failures: int = 0) -> None:
        super().__init__()
        self.unflushed: ContextVar[bool] | None = ASKED
        self.failures = failures
        self.told: list[str] = []

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """Tell whether it is waited for here."""
        self.told.append("unflushed" if ASKED.get() else "flushed")
        return super().reserve(reservation)

    def flush(self) -> None:
        """Fail as often as was said."""
        self.told.append("disk")
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("The disk is full.", next_step="Free some space.")


async def test_calls_of_one_turn_wait_for_the_disk_once() -> None:
    """Three calls at once, then one by itself; each has its permit after the disk has what it holds."""
    store = Disk()
    run = Bench(Limits(run=None, steps=None), store=store).guard.run()

    async def call() -> None:
        permit = await aio.before_model(run, cent_call())
        store.told.append("sent")
        await aio.after_model(run, permit, done())

    await asyncio.gather(call(), call(), call())
    assert [*["unflushed"] * 3, "disk", *["sent"] * 3] == store.told
    store.told.clear()
    await call()
    assert ["unflushed", "disk", "sent"] == store.told


async def test_a_call_whose_hold_did_not_reach_the_disk_is_asked_for_anew() -> None:
    """What it held is given back, it is no step, and the second time the store waits by itself."""
    store = Disk(failures=1)
    bench = Bench(Limits(run="1.00", steps=1), store=store)
    run = bench.guard.run()
    permit = await aio.before_model(run, cent_call())
    assert ["unflushed", "disk", "flushed"] == store.told
    assert (1, CENT) == (run.tally.steps, bench.held(f"run:{run.id}", "-"))
    await aio.after_model(run, permit, done())
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


async def test_a_call_that_is_given_up_while_it_waits_for_the_disk_holds_nothing() -> None:
    """The others of its turn go on."""
    store = Disk()
    bench = Bench(Limits(run=None, steps=None), store=store)
    run = bench.guard.run()
    left, stays = [asyncio.create_task(aio.before_model(run, cent_call())) for _ in range(2)]
    await asyncio.sleep(0)
    left.cancel()
    permit = await stays
    with pytest.raises(asyncio.CancelledError):
        await left
    assert CENT == bench.held("user:alice")
    await aio.after_model(run, permit, done())
    assert (CENT, 0, 1) == (bench.spent("user:alice"), bench.held("user:alice"), run.tally.steps)


async def test_a_store_that_need_not_be_flushed_is_not() -> None:
    """It says so with None."""
    store = Disk()
    store.unflushed = None
    run = Bench(store=store).guard.run()
    await aio.after_model(run, await aio.before_model(run, cent_call()), done())
    assert ["flushed"] == store.told


def test_without_an_event_loop_the_store_waits_by_itself() -> None:
    """As it always did."""
    store = Disk()
    run = Bench(store=store).guard.run()
    run.after_model(run.before_model(cent_call()), done())
    assert ["flushed"] == store.told
