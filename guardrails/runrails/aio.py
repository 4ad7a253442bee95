"""
The asynchronous edge. The core is synchronous and quick; what may wait (a remote store, money that others hold) runs in
threads of ours, a bounded number of them, and no cancellation loses what it did.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from runrails.errors import BudgetBusy

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor

    from runrails.calls import ModelCall, ModelResult, Permit
    from runrails.run import Run

__all__ = ["after_model", "before_model", "off_loop"]

THREADS_MAX = 16
"""Threads for what waits for money, and as many for what gives it back: the first must never keep up the second."""
_P = ParamSpec("_P")
_R = TypeVar("_R")

_lock = threading.Lock()
_executors: dict[str, ThreadPoolExecutor] = {}


async def before_model(
    run: Run, call: ModelCall, *, can_block: bool = False, sends: bool = True, tentative: bool = False
) -> Permit:
    """
    As `Run.before_model`, by default for a caller that sends the request itself; waits for money without blocking the
    event loop.

    If the awaiting task is cancelled, what was granted is given back.
    """
    if not run.guard.store.remote:
        try:
            return run.before_model(call, can_block=can_block, sends=sends, may_wait=True, tentative=tentative)
        except BudgetBusy:
            pass
    future = _submit("reserve", run.before_model, call, can_block=can_block, sends=sends, tentative=tentative)
    try:
        return await _result(future)
    except BaseException:
        if not future.cancel():
            future.add_done_callback(lambda done: _give_back(run, done))
        raise


async def after_model(run: Run, permit: Permit, result: ModelResult) -> None:
    """As `Run.after_model`; a cancelled task does not break it off."""
    if not run.guard.store.remote:
        run.after_model(permit, result)
        return
    await _result(_submit("settle", run.after_model, permit, result))


async def off_loop(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call something that may wait for the store; a cancelled task does not break it off."""
    return await _result(_submit("settle", function, *args, **kwargs))


def _give_back(run: Run, done: Future[Permit]) -> None:
    if not done.cancelled() and done.exception() is None:
        if run.guard.store.remote:
            _submit("settle", run.withdraw, done.result())
        else:
            run.withdraw(done.result())


async def _result(future: Future[_R]) -> _R:
    import asyncio

    wrapped = asyncio.wrap_future(future)
    # Nobody may be left to hear of an error; asyncio would complain that nobody asked.
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(wrapped)


def _submit(kind: str, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
    executor = _executors.get(kind)
    if executor is None:
        from concurrent.futures import ThreadPoolExecutor

        with _lock:
            executor = _executors.get(kind)
            if executor is None:
                executor = _executors[kind] = ThreadPoolExecutor(THREADS_MAX, f"runrails-{kind}")
    return executor.submit(function, *args, **kwargs)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 -- the parent's lock may be taken for ever, and its threads are not here
    _lock = threading.Lock()
    _executors.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
