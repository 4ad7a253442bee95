"""Asynchronous wrapped clients: never block the loop, lose nothing to a cancellation, spend no cent too much."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from rr_clients import HI, MODEL, TOLD, World, in_loop, run_of
from runrails import BudgetBusy, BudgetExceeded, Limits
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore
from runrails.testing.provider import Error, Stall, Text


async def _read(stream: Any) -> None:
    async for _ in await stream:
        pass


async def _helper(client: Any) -> None:
    async with client.chat.completions.stream(model=MODEL, messages=HI) as events:
        await events.get_final_completion()


async def _message_helper(client: Any) -> None:
    async with client.messages.stream(model=MODEL, messages=HI, max_tokens=900) as stream:
        await stream.get_final_message()


async def _streaming(client: Any, **options: Any) -> None:
    async with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HI, **options) as raw:
        if options:
            async for _ in raw.iter_lines():
                pass
        else:
            await raw.json()


SURFACES: dict[str, tuple[str, Callable[[Any], Awaitable[object]]]] = {
    "chat": ("aopenai", lambda c: c.chat.completions.create(model=MODEL, messages=HI)),
    "chat, stream": ("aopenai", lambda c: _read(c.chat.completions.create(model=MODEL, messages=HI, stream=True))),
    "chat.stream": ("aopenai", _helper),
    "chat, raw": ("aopenai", lambda c: c.chat.completions.with_raw_response.create(model=MODEL, messages=HI)),
    "chat, streaming": ("aopenai", _streaming),
    "chat, streamed lines": ("aopenai", lambda c: _streaming(c, stream=True)),
    "with_options": ("aopenai", lambda c: c.with_options(timeout=9).chat.completions.create(model=MODEL, messages=HI)),
    "responses": ("aopenai", lambda c: c.responses.create(model=MODEL, input="hi")),
    "responses, stream": ("aopenai", lambda c: _read(c.responses.create(model=MODEL, input="hi", stream=True))),
    "embeddings": ("aopenai", lambda c: c.embeddings.create(model="fake-embedding", input="a")),
    "azure": ("aazure", lambda c: c.chat.completions.create(model=MODEL, messages=HI)),
    "messages": ("aanthropic", lambda c: c.messages.create(model=MODEL, messages=HI, max_tokens=900)),
    "messages, stream": (
        "aanthropic", lambda c: _read(c.messages.create(model=MODEL, messages=HI, max_tokens=900, stream=True))
    ),
    "messages.stream": ("aanthropic", _message_helper),
    "bedrock": ("abedrock", lambda c: c.messages.create(model=MODEL, messages=HI, max_tokens=900)),
    "bedrock, stream": (
        "abedrock", lambda c: _read(c.messages.create(model=MODEL, messages=HI, max_tokens=900, stream=True))
    ),
}  # fmt: skip


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("surface", SURFACES)
def test_ledger_is_the_bill(surface: str, remote: bool) -> None:
    """One call is one step, and the ledger is the bill, with a store at hand and with a remote one."""
    kind, ask = SURFACES[surface]
    with World(store=FlakyStore(MemoryStore(), remote=remote)) as world:

        async def work() -> Any:
            client = getattr(world, kind)()
            await ask(client)
            return run_of(client)

        report = in_loop(world, work).report()
        world.settled()
        assert (1, 1, 0) == (len(world.provider.bill.calls), report.model_calls, report.unresolved_pusd)
        assert world.spent > 0


@pytest.mark.parametrize("surface", SURFACES)
def test_refusal_has_its_own_type_and_sends_nothing(surface: str) -> None:
    """Above the budget every surface raises BudgetExceeded itself, and no request leaves."""
    kind, ask = SURFACES[surface]
    with World(limits=Limits(run="0.00000001")) as world:

        async def work() -> None:
            with pytest.raises(BudgetExceeded):
                await ask(getattr(world, kind)(max_retries=2))

        in_loop(world, work)
        world.untouched()


@pytest.mark.parametrize("remote", [False, True])
def test_exactly_a_hundred_of_64_tasks(remote: bool) -> None:
    """64 tasks at a cent a call against a dollar admit exactly 100 calls, and note no refusal but the last ones."""
    limits = Limits(run="1.00", steps=None, hold_wait_ms=60_000)
    with World(Text("ok"), limits=limits, store=FlakyStore(MemoryStore(), remote=remote)) as world:
        admitted = 0

        async def loop(client: Any) -> None:
            nonlocal admitted
            while True:
                try:
                    await client.chat.completions.create(model="fake-flat", messages=HI, max_tokens=10)
                except BudgetExceeded:
                    return
                admitted += 1

        async def work() -> Any:
            client = world.aopenai(max_retries=2)
            await asyncio.gather(*(loop(client) for _ in range(64)))
            return run_of(client)

        run = in_loop(world, work)
        world.settled()
        assert (100, 100, 10**12) == (admitted, len(world.provider.bill.calls), world.spent)
        assert (0, 100) == (run.report().refusals, run.report().model_calls)


def test_retries_are_one_call() -> None:
    """As without asyncio."""
    with World([Error(500, headers={"retry-after": "0.001"}), TOLD]) as world:

        async def work() -> None:
            client = world.aopenai(max_retries=2)
            await client.chat.completions.create(model=MODEL, messages=HI)
            assert 1 == run_of(client).report().model_calls

        in_loop(world, work)
        world.settled()
        assert 2 == world.hits


def test_cancelled_call_is_charged_its_bound_and_gives_back_the_hold() -> None:
    """It had been sent: the money may be spent."""
    gate = threading.Event()
    with World(Stall(gate, TOLD)) as world:

        async def work() -> None:
            client = world.aopenai()
            task = asyncio.create_task(
                client.chat.completions.create(model=MODEL, messages=HI, max_tokens=2000)  # type: ignore[arg-type]
            )
            await asyncio.to_thread(world.provider.wait_received, 1)
            held = world.held
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (held, 0, True) == (world.spent, world.held, held > 0)

        in_loop(world, work)
        gate.set()
        world.provider.wait_idle()
        assert world.billed <= world.spent


def test_waiting_for_money_leaves_the_loop_free() -> None:
    """Money that another call holds is waited for in a thread; the loop goes on, and the call is made."""
    gate = threading.Event()
    with World(Stall(gate, Text("ok")), limits=Limits(run="0.01", hold_wait_ms=60_000)) as world:

        async def work() -> None:
            client = world.aopenai()
            ask: Any = {"model": "fake-flat", "messages": HI, "max_tokens": 10}
            first = asyncio.create_task(client.chat.completions.create(**ask))
            await asyncio.to_thread(world.provider.wait_received, 1)
            second = asyncio.create_task(client.chat.completions.create(**ask))
            began = time.monotonic()
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert time.monotonic() - began < 30  # half of what a loop would stand still that waits for the money
            assert (1, False) == (world.hits, second.done())
            gate.set()
            await first
            with pytest.raises(BudgetExceeded):
                await second

        in_loop(world, work)
        world.settled()


def test_task_cancelled_while_it_waits_holds_nothing() -> None:
    """What is granted after the task is gone is given back."""
    gate = threading.Event()
    with World(Stall(gate, Text("ok")), limits=Limits(run="0.019", hold_wait_ms=60_000)) as world:

        async def work() -> Any:
            client = world.aopenai()
            ask: Any = {"model": "fake-flat", "messages": HI, "max_tokens": 10}
            first = asyncio.create_task(client.chat.completions.create(**ask))
            await asyncio.to_thread(world.provider.wait_received, 1)
            second = asyncio.create_task(client.chat.completions.create(**ask))
            await asyncio.sleep(0.05)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            gate.set()
            await first
            return run_of(client)

        run = in_loop(world, work)
        deadline = time.monotonic() + 60
        while world.held or run.tally.admitting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        world.settled()
        assert (1, 1) == (world.hits, len(world.provider.bill.calls))


def test_busy_is_raised_after_the_wait() -> None:
    """Money that stays held ends in BudgetBusy, counted as one refusal."""
    gate = threading.Event()
    with World(Stall(gate, Text("ok")), limits=Limits(run="0.019", hold_wait_ms=50)) as world:

        async def work() -> None:
            client = world.aopenai()
            ask: Any = {"model": "fake-flat", "messages": HI, "max_tokens": 10}
            first = asyncio.create_task(client.chat.completions.create(**ask))
            await asyncio.to_thread(world.provider.wait_received, 1)
            with pytest.raises((BudgetBusy, BudgetExceeded)):
                await client.chat.completions.create(**ask)
            assert 1 == world.hits
            gate.set()
            await first

        in_loop(world, work)
        world.settled()


def test_slow_remote_store_does_not_block_the_loop() -> None:
    """While the store of another machine answers, other tasks go on."""

    asked: list[threading.Event] = []
    free: list[bool] = []

    def answered_by_the_loop() -> None:
        """The store answers once another task of the loop has said so, which it cannot while it is blocked."""
        asked.append(answer := threading.Event())
        free.append(answer.wait(30))

    class Slow(MemoryStore):
        remote = True

        def reserve(self, reservation: Any) -> Any:
            answered_by_the_loop()
            return super().reserve(reservation)

        def settle(self, *args: Any, **kwargs: Any) -> Any:
            answered_by_the_loop()
            return super().settle(*args, **kwargs)

    with World(store=Slow()) as world:

        async def work() -> None:
            client = world.aopenai()
            task = asyncio.create_task(client.chat.completions.create(model=MODEL, messages=HI))  # type: ignore[arg-type]
            while not task.done():
                await asyncio.sleep(0.01)
                for answer in asked:
                    answer.set()
            await task

        in_loop(world, work)
        world.settled()
    assert [True, True] == free


def test_client_works_in_one_loop_after_another() -> None:
    """The guard is bound to no event loop."""
    with World() as world:
        made: list[openai.AsyncOpenAI] = []

        async def work() -> None:
            client = openai.AsyncOpenAI(base_url=world.provider.openai_url, api_key="k")
            made.append(world.guard.wrap(client))
            await client.chat.completions.create(model=MODEL, messages=HI)
            await client.close()

        for _ in range(2):
            asyncio.run(work())
        world.settled()
        assert 2 == len(world.provider.bill.calls)
