"""A call that a time limit left alone is not sent again by the SDK's own retries, before its wait or after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rr_clients import HI, MODEL, TOLD, World
from runrails import LimitReached, Limits
from runrails.testing.provider import Answer
from runrails.testing.provider.values import Error, Stall

SOON = {"retry-after-ms": "1"}
LATER = {"retry-after-ms": "1500"}
"""Longer than the second that the run has."""
LIMITS = Limits(seconds=1, run=None, steps=None)
WAIT_S = 20
MAKERS: dict[str, Callable[[World], Any]] = {
    "openai": lambda world: world.openai(max_retries=3), "anthropic": lambda world: world.anthropic(max_retries=3),
}  # fmt: skip
AMAKERS: dict[str, Callable[[World], Any]] = {
    "openai": lambda world: world.aopenai(max_retries=3), "anthropic": lambda world: world.aanthropic(max_retries=3),
}  # fmt: skip


def ask(client: Any) -> Any:
    api = client.messages if hasattr(client, "messages") else client.chat.completions
    return api.create(model=MODEL, messages=HI, max_tokens=50)


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """What SDKs load with their first call takes no part of the second that each test has."""
    with World() as world:
        for make in MAKERS.values():
            world.guard.supervise(ask).invoke(make(world))

        async def main() -> None:
            for make in AMAKERS.values():
                await ask(make(world))
            await world.aclose()

        asyncio.run(main())


def failing(release: threading.Event, *, waits: bool) -> list[Answer]:
    """An error after the time is up, or one at once with a long wait before the next attempt; then it would work."""
    return [Error(500, headers=LATER) if waits else Stall(release, Error(500, headers=SOON)), TOLD]


@pytest.mark.parametrize("waits", [False, True], ids=["in flight", "waiting to retry"])
@pytest.mark.parametrize("sdk", MAKERS)
def test_what_hangs_in_a_thread_is_not_sent_again(sdk: str, waits: bool) -> None:
    """One request, the public stop for whoever still waits in there, and nothing held; the error was free."""
    release, over = threading.Event(), threading.Event()
    seen: list[BaseException] = []
    with World(failing(release, waits=waits)) as world:
        client = MAKERS[sdk](world)

        def work() -> None:
            try:
                ask(client)
            except BaseException as exc:  # whatever it is, it is looked at below
                seen.append(exc)
            finally:
                over.set()

        outcome = world.guard.supervise(work, limits=LIMITS).invoke()
        release.set()
        assert over.wait(WAIT_S)

        assert ("limit_reached", True) == (outcome.stop_reason, outcome.abandoned)
        assert [LimitReached] == [type(exc) for exc in seen]
        assert 1 == world.hits
        world.settled()


@pytest.mark.parametrize("waits", [False, True], ids=["in flight", "waiting to retry"])
@pytest.mark.parametrize("sdk", AMAKERS)
def test_what_a_cancellation_does_not_reach_is_not_sent_again(sdk: str, waits: bool) -> None:
    """The same on an event loop, in a task that is shielded."""
    release = threading.Event()
    with World(failing(release, waits=waits)) as world:

        async def main() -> list[object]:
            client, tasks = AMAKERS[sdk](world), []

            async def work() -> None:
                tasks.append(asyncio.ensure_future(ask(client)))
                await asyncio.shield(tasks[0])

            try:
                outcome = await world.guard.supervise(work, limits=LIMITS).ainvoke()
                release.set()
                assert "limit_reached" == outcome.stop_reason
                return await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await world.aclose()

        assert [LimitReached] == [type(result) for result in asyncio.run(main())]
        assert 1 == world.hits
        world.settled()


def test_without_a_limit_it_is_sent_again() -> None:
    """What is not sent above would have been."""
    release = threading.Event()
    release.set()
    with World(failing(release, waits=False)) as world:
        ask(MAKERS["openai"](world))
        assert 2 == world.hits
        world.settled()
