"""
The asynchronous edge. The core is synchronous and quick; what may wait (a remote store, money that others hold) runs in
threads of ours, a bounded number of them for each store, and no cancellation loses what it did.
"""

from __future__ import annotations

import os
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from runrails.cover import offer_cover
from runrails.errors import BudgetBusy, RateLimited

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextvars import ContextVar

    from runrails.calls import ModelCall, ModelResult, Permit
    from runrails.crew import Crew
    from runrails.guard import Guard
    from runrails.ledger import Store
    from runrails.run import Run
    from runrails.settlement import Settlement

__all__ = ["SupportsFlush", "after_model", "before_model", "forget", "off_loop", "waits"]

THREADS_MAX = 16
"""
Threads a store for what waits for money, and as many for what gives it back: the first must never keep up the second,
and a slow store must never keep up another one.
"""
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Unflushed(Exception):
    """What was reserved may not be on the disk."""


class SupportsFlush(Protocol):
    """A store whose `reserve` may leave it to its caller to wait for the disk, once for several."""

    unflushed: ContextVar[bool] | None
    """Where it is true, `reserve` does not wait; whoever set it calls `flush` before anything is sent. None: never."""

    def flush(self) -> None:
        """Wait for the disk. Raises StoreUnavailable."""
        ...


class _Turn(NamedTuple):
    """Who waits for the disk until a turn of their event loop is over."""

    loop: asyncio.AbstractEventLoop
    store: SupportsFlush
    waiting: list[asyncio.Future[None]]


_turns: dict[tuple[int, int], _Turn] = {}
"""By the identities of loop and store, which are in there, so that no others can have the same."""
_lock = threading.Lock()
_pools: WeakKeyDictionary[Store, dict[str, Crew]] = WeakKeyDictionary()
"""The threads of a pool end when the store is collected, or closed by its guard."""
_others: dict[str, Crew] = {}
"""Of stores that nothing can be tied to."""


async def before_model(
    run: Run, call: ModelCall, *, can_block: bool = False, sends: bool = True, tentative: bool = False
) -> Permit:
    """
    As `Run.before_model`, by default for a caller that sends the request itself; waits for money without blocking the
    event loop.

    If the awaiting task is cancelled, what was granted is given back.
    """
    if not waits(run.guard):
        try:
            return await _before_model(run, call, can_block=can_block, sends=sends, tentative=tentative)
        except (BudgetBusy, RateLimited, _Unflushed):
            pass
    # The thread has a copy of this context, where a cover would be seen by nobody.
    future = _submit(run.guard, "reserve", run.before_model, call, can_block=can_block, sends=True, tentative=tentative)
    try:
        permit = await _result(future)
    except BaseException:
        if not future.cancel():
            future.add_done_callback(lambda done: _give_back(run, done))
        raise
    if not sends:
        offer_cover(run, permit)
    return permit


async def _before_model(run: Run, call: ModelCall, *, can_block: bool, sends: bool, tentative: bool) -> Permit:
    """Ask here and now. Raises _Unflushed if the disk failed, and else as `Run.before_model`."""
    store = cast("SupportsFlush", run.guard.store)
    unflushed: ContextVar[bool] | None = getattr(store, "unflushed", None)
    if unflushed is None:
        return run.before_model(call, can_block=can_block, sends=sends, may_wait=True, tentative=tentative)
    token = unflushed.set(True)
    try:
        permit = run.before_model(call, can_block=can_block, sends=sends, may_wait=True, tentative=tentative)
    finally:
        unflushed.reset(token)
    try:
        await _flushed(store)
    except BaseException:
        run.withdraw(permit)
        raise
    return permit


async def _flushed(store: SupportsFlush) -> None:
    """Wait until what was reserved is on the disk: once for all calls of the same turn of the event loop."""
    from asyncio import get_running_loop

    loop = get_running_loop()
    key = (id(loop), id(store))
    turn = _turns.get(key)
    if turn is None:
        turn = _turns[key] = _Turn(loop, store, [])
        loop.call_soon(_flush, key)
    done = loop.create_future()
    turn.waiting.append(done)
    await done


def _flush(key: tuple[int, int]) -> None:
    _, store, waiting = _turns.pop(key)
    failed = False
    try:
        store.flush()
    except Exception:  # noqa: BLE001 -- whatever it is: what is asked for anew says so
        failed = True
    for done in waiting:
        if done.done():  # It was cancelled.
            continue
        if failed:
            done.set_exception(_Unflushed)
        else:
            done.set_result(None)


def waits(guard: Guard) -> bool:
    """Whether asking for leave may wait for a network: for the ledger's, or for that of the vault."""
    router = guard.credentials
    return guard.store.remote or (router is not None and router.remote)


async def after_model(run: Run, permit: Permit, result: ModelResult) -> Settlement | None:
    """As `Run.after_model`; a cancelled task does not break it off."""
    if not run.guard.store.remote:
        return run.after_model(permit, result)
    return await _result(_submit(run.guard, "settle", run.after_model, permit, result))


async def off_loop(guard: Guard, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call something that may wait for the guard's store; a cancelled task does not break it off."""
    return await _result(_submit(guard, "settle", function, *args, **kwargs))


def forget(store: Store) -> None:
    """End the threads of a store that is about to be closed, once they have done their work."""
    with _lock:
        try:
            pools = _pools.pop(store, None)
        except TypeError:
            return
    for pool in (pools or {}).values():
        pool.dismiss()


def _give_back(run: Run, done: Future[Permit]) -> None:
    if not done.cancelled() and done.exception() is None:
        if run.guard.store.remote:
            _submit(run.guard, "settle", run.withdraw, done.result())
        else:
            run.withdraw(done.result())


async def _result(future: Future[_R]) -> _R:
    import asyncio

    wrapped = asyncio.wrap_future(future)
    # Nobody may be left to hear of an error; asyncio would complain that nobody asked.
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(wrapped)


def _submit(guard: Guard, kind: str, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
    # In the context it was asked for: what was left alone must not get through because another thread asks for it.
    context = copy_context()
    with _lock:
        pools = _pools_of(guard.store)
        pool = pools.get(kind)
        if pool is None:
            from runrails.crew import Crew

            pool = pools[kind] = Crew(_threads_of(guard.store), f"runrails-{kind}")
        return pool.do(lambda: context.run(function, *args, **kwargs))


def _threads_of(store: Store) -> int:
    """A store that takes more calls at once says how many."""
    count: object = getattr(store, "calls_max", None)
    return count if isinstance(count, int) else THREADS_MAX


def _pools_of(store: Store) -> dict[str, Crew]:
    try:
        return _pools.setdefault(store, {})
    except TypeError:  # it has slots, or is equal to others by value
        return _others


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 -- the parent's lock may be taken for ever, and its threads are not here
    _lock = threading.Lock()
    _pools.clear()
    _others.clear()
    _turns.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
