"""Blocks that do not end in the order they began, or not where they began: nobody pays for what comes after them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from rr_core import Bench, model_step
from runrails import Attribution
from runrails.attributing import Ambient, Attributing


def within(ambient: Ambient, **said: str) -> Attributing:
    return Attributing(ambient, Attribution(**said))  # type: ignore[arg-type]


def user(ambient: Ambient) -> str | None:
    by = ambient.get()
    return None if by is None else by.user


def steps(ambient: Ambient, **said: str) -> Iterator[str | None]:
    """A generator with a block around its steps."""
    with within(ambient, **said):
        while True:
            yield user(ambient)


@pytest.mark.parametrize("first", [0, 1])
def test_generators_that_overlap_leave_nothing_behind(first: int) -> None:
    """Two that are read in turns, and closed in any order: each block ends when its own generator does."""
    ambient = Ambient()
    both = [steps(ambient, user="bob", org="acme"), steps(ambient, user="carol")]
    assert ["bob", "carol"] == [next(one) for one in both]
    both[first].close()  # type: ignore[attr-defined]
    left = ambient.get()
    assert left == (Attribution(user="carol") if first == 0 else Attribution(user="bob", org="acme"))
    both[1 - first].close()  # type: ignore[attr-defined]
    assert ambient.get() is None


def test_blocks_around_an_ended_one_go_on() -> None:
    """The outer word stays the outer word when a block between it and the inner one has ended."""
    ambient = Ambient()
    with within(ambient, user="alice", org="acme"):
        between = steps(ambient, user="bob", key="k1")
        next(between)
        with within(ambient, key="k2"):
            assert Attribution(user="bob", org="acme", key="k2") == ambient.get()
            between.close()  # type: ignore[attr-defined]
            assert Attribution(user="alice", org="acme", key="k2") == ambient.get()
        assert Attribution(user="alice", org="acme") == ambient.get()
    assert ambient.get() is None


async def test_an_asynchronous_generator_left_early_pays_for_nothing_more() -> None:
    """`break` out of it: the event loop ends it in a task of its own, and its block must end here too."""
    bench = Bench()
    run = bench.guard.run()

    async def stream() -> AsyncIterator[int]:
        with bench.guard.attribute(user="bob"):
            for number in range(9):
                model_step(run)
                yield number

    async for _ in stream():
        break
    gc.collect()
    for _ in range(3):
        await asyncio.sleep(0)
    model_step(run)
    assert (10**10, 10**10) == (bench.spent("user:bob"), bench.spent("user:alice"))


def test_an_end_elsewhere_does_not_end_the_same_block_here() -> None:
    """A block that several entered: where it is not known which of them ends, those that are inside stay inside."""
    ambient = Ambient()
    block = within(ambient, user="bob")
    elsewhere, stray = contextvars.copy_context(), contextvars.copy_context()
    with block:
        elsewhere.run(block.__enter__)
        stray.run(block.__exit__, None, None, None)
        assert "bob" == user(ambient)
        assert "bob" == elsewhere.run(user, ambient)
        elsewhere.run(block.__exit__, None, None, None)
        assert ("bob", None) == (user(ambient), elsewhere.run(user, ambient))
    assert user(ambient) is None


def test_what_began_inside_a_block_stays_its_users_after_it() -> None:
    """A task or a bound thread that a block has started goes on for whom it was started, as before."""
    ambient = Ambient()
    with within(ambient, user="bob"):
        begun = contextvars.copy_context()
    assert ("bob", None) == (begun.run(user, ambient), user(ambient))
