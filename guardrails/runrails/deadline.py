"""
Ends what hangs. Limits are checked where a step starts; something that never comes back starts none, so it is left
alone: a thread is abandoned, a task is cancelled. The run is stopped first, so nothing in there can start any more.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Generic, TypeVar

from runrails.current import stay
from runrails.errors import GuardrailStopped

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable, Iterator
    from contextvars import Context

    from runrails.current import Stay
    from runrails.run import Run

__all__ = ["Abandoned", "call_in_thread", "call_in_time", "end", "seconds_left", "wait_in_time"]

GRACE_S = 1.0
"""How long a cancelled task may take to end before it is left alone."""
_T = TypeVar("_T")


class Abandoned(Exception):
    """The time was up. Private: it tells the supervisor what became of the call."""

    def __init__(self, stop: GuardrailStopped, *, still_running: bool) -> None:
        super().__init__(str(stop))
        self.stop = stop
        self.still_running = still_running


class _Work(Generic[_T]):
    """A call in a thread of its own, which keeps no interpreter from ending."""

    def __init__(self, run: Run, function: Callable[[], _T], context: Context) -> None:
        self._function = function
        self._context = context
        self._results: list[_T] = []
        self._errors: list[BaseException] = []
        self._stays: tuple[Stay, ...] = ()
        self.when_done: Callable[[], object] | None = None
        self.thread = threading.Thread(target=self._do, name=f"runrails-{run.id}", daemon=True)

    def result(self) -> _T:
        """What came of it, once it is done."""
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def start(self) -> None:
        """Begin, in sight of every stay that this is part of."""
        self._stays = tuple(_stays(self._context.get(stay)))
        for one in self._stays:
            one.threads.add(self.thread)
        try:
            self.thread.start()
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        for one in self._stays:
            one.threads.discard(self.thread)

    def _do(self) -> None:
        try:
            self._results.append(self._context.run(self._function))
        except BaseException as exc:  # noqa: BLE001 -- raised again where the caller waits
            self._errors.append(exc)
        self._leave()
        if self.when_done is not None:
            with suppress(RuntimeError):  # the loop that waited has been closed
                self.when_done()


def seconds_left(run: Run) -> float | None:
    """How long the run and those it is part of may still take; None without a limit, and where nothing is enforced."""
    soonest = None if run.guard.mode == "observe" else run.tally.soonest(run.guard.monotonic())
    return None if soonest is None else max(0.0, soonest[0] / 1_000)


def _left_by_its_caller() -> GuardrailStopped:
    """Why nothing may start any more in a call that its caller has cancelled or closed."""
    return GuardrailStopped(
        "This call was cancelled or closed by its caller, and this part of it went on.",
        next_step="Let it end when it is cancelled.",
    )


def call_in_time(run: Run, function: Callable[[], _T], context: Context) -> _T:
    """Call a function; with a limit on the run's time in a thread that is abandoned when the time is up."""
    left = seconds_left(run)
    if left is None:
        return context.run(function)
    here, work = run.entry.stay, _Work(run, function, context)
    work.start()
    try:
        work.thread.join(left)
    except BaseException:  # an interrupt, which only the main thread hears
        run.leave_alone(_left_by_its_caller(), here)
        raise
    if work.thread.is_alive():
        raise Abandoned(run.time_is_up(here), still_running=True)
    return work.result()


async def call_in_thread(run: Run, function: Callable[[], _T]) -> _T:
    """As `call_in_time`, on an event loop, always in a thread."""
    import asyncio

    loop = asyncio.get_running_loop()
    done: Future[None] = loop.create_future()
    here, work = run.entry.stay, _Work(run, function, copy_context())
    work.when_done = lambda: loop.call_soon_threadsafe(_set, done)
    work.start()
    try:
        await asyncio.wait({done}, timeout=seconds_left(run))
    except asyncio.CancelledError:
        run.leave_alone(_left_by_its_caller(), here)
        raise
    if not done.done():
        raise Abandoned(run.time_is_up(here), still_running=True)
    return work.result()


async def wait_in_time(run: Run, awaitable: Awaitable[_T]) -> _T:
    """Await something; with a limit on the run's time in a task that is cancelled when the time is up."""
    left = seconds_left(run)
    if left is None:
        return await awaitable
    import asyncio

    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=left)
    except asyncio.CancelledError:
        await end(run, task)
        raise
    if task.done():
        return task.result()
    stop = run.time_is_up(run.entry.stay)
    await end(run, task)
    raise Abandoned(stop, still_running=not task.done())


async def end(run: Run, task: Future[_T]) -> None:
    """Cancel a task. What does not end in the time that it is given to clean up may start nothing more."""
    import asyncio

    task.cancel()
    # Nobody will ask what becomes of it.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({task}, timeout=GRACE_S)
    finally:
        if not task.done() or run.entry.busy:
            run.leave_alone(run.stopped or _left_by_its_caller(), run.entry.stay)


def _stays(here: Stay | None) -> Iterator[Stay]:
    while here is not None:
        yield here
        here = here.outer


def _set(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
