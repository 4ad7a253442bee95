"""Whose money the calls of wrapped SDK clients are: one client serves many users, sync, async and streamed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from rr_clients import HI, MODEL, World, in_loop
from runrails import Limits, ScopeExhausted
from runrails.ledger import Account, SupportsUsage
from runrails.periods import month_of


def users(world: World) -> list[str]:
    """Whose the calls in the books are, in order of their names."""
    assert isinstance(world.store, SupportsUsage)
    return sorted(record.facts.user for record in world.store.usage())


def spent(world: World, user: str) -> int:
    return world.store.balance(Account(f"user:{user}", month_of(world.guard.clock()))).spent


def test_one_users_month_does_not_end_a_client_for_all() -> None:
    """The client's own run serves many: bob is refused with nothing sent, carol and the guard's own user go on."""
    with World(limits=Limits(month="0.06", run=None, steps=None)) as world:
        client = world.openai()

        def ask(user: str) -> None:
            with world.guard.attribute(user=user):
                client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)

        with pytest.raises(ScopeExhausted, match="user:bob"):
            for _ in range(50):
                ask("bob")
        sent = world.hits
        with pytest.raises(ScopeExhausted):
            ask("bob")
        assert sent == world.hits
        ask("carol")
        world.provider.wait_idle()
        client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)
        assert {"alice", "bob", "carol"} == set(users(world))
        assert spent(world, "alice") == spent(world, "carol") > 0


def test_a_stream_is_paid_by_whom_it_was_begun_for() -> None:
    """Read to its end elsewhere, a stream still belongs to whoever asked for it."""
    with World() as world:
        client = world.openai()
        with world.guard.attribute(user="bob"):
            stream = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        with world.guard.attribute(user="carol"):
            for _ in stream:
                pass
        assert ["bob"] == users(world)
        assert (world.billed, 0) == (spent(world, "bob"), spent(world, "carol"))


def test_threads_bound_inside_a_block_are_its_users() -> None:
    """`guard.bind` takes the user along; what is not bound is the guard's."""
    with World() as world, ThreadPoolExecutor(3) as pool:
        client = world.openai()

        def ask() -> None:
            client.chat.completions.create(model=MODEL, messages=HI)

        with world.guard.attribute(user="bob"):
            bound = [pool.submit(world.guard.bind(ask)), pool.submit(ask)]
        for future in bound:
            future.result()
        assert ["alice", "bob"] == users(world)


def test_tasks_of_many_users_share_a_client() -> None:
    """An asynchronous client serves ten users at once, each call whole and streamed, and nobody pays for another."""
    with World() as world:
        client = world.aopenai()

        async def serve(number: int) -> None:
            with world.guard.attribute(user=f"u{number}"):
                await client.chat.completions.create(model=MODEL, messages=HI)
                async for _ in await client.chat.completions.create(model=MODEL, messages=HI, stream=True):
                    pass

        in_loop(world, lambda: asyncio.gather(*map(serve, range(10))))
        assert sorted([f"u{n}" for n in range(10)] * 2) == users(world)
