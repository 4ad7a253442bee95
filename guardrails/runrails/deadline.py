"""
Ends what hangs. Limits are checked where a step starts; something that never comes back starts none, so it is left
alone: a thread is abandoned, a task is cancelled. The run is stopped first, so nothing in there can start any more.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from runrails.errors import GuardrailStopped
    from runrails.run import Run

__all__ = ["Abandoned", "call_in_time", "seconds_left", "wait_in_time"]

GRACE_S = 1.0
"""How long a cancelled task may take to end before it is left alone."""
_T = TypeVar("_T")


class Abandoned(Exception):
    """The time was up. Private: it tells the supervisor what became of the call."""

    def __init__(self, stop: GuardrailStopped, *, still_running: bool) -> None:
        super().__init__(str(stop))
        self.stop = stop
        self.still_running = still_running


def seconds_left(run: Run) -> float | None:
    """How long the run may still take; None without a limit, and where nothing is enforced."""
    limit = run.limits.seconds
    if limit is None or run.guard.mode == "observe":
        return None
    return max(0.0, limit - (run.guard.monotonic() - run.tally.started_ms) / 1_000)


def call_in_time(run: Run, function: Callable[[], _T], context: Context) -> _T:
    """Call a function; with a limit on the run's time in a thread that is abandoned when the time is up."""
    left = seconds_left(run)
    if left is None:
        return context.run(function)
    results: list[_T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(context.run(function))
        except BaseException as exc:  # noqa: BLE001 -- raised again where the caller waits
            errors.append(exc)

    thread = threading.Thread(target=work, name=f"runrails-{run.id}", daemon=True)
    thread.start()
    thread.join(left)
    if thread.is_alive():
        raise Abandoned(run.time_is_up(run.limits.seconds or 0), still_running=True)
    if errors:
        raise errors[0]
    return results[0]


async def wait_in_time(run: Run, coroutine: Coroutine[object, object, _T]) -> _T:
    """Await a coroutine; with a limit on the run's time in a task that is cancelled when the time is up."""
    left = seconds_left(run)
    if left is None:
        return await coroutine
    import asyncio

    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait({task}, timeout=left)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE_S)
        raise
    if task.done():
        return task.result()
    stop = run.time_is_up(run.limits.seconds or 0)
    task.cancel()
    # Nobody will ask what becomes of it.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({task}, timeout=GRACE_S)
    raise Abandoned(stop, still_running=not task.done())
