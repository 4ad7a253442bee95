"""Supervised streams: chunks as they come, an ordinary end at a stop, and the outcome afterwards."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar, cast

from runrails.deadline import Abandoned, call_in_time, end, seconds_left
from runrails.errors import ConfigError, GuardrailStopped

if TYPE_CHECKING:
    from asyncio import Queue, Task
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from runrails.outcome import Given, Outcome
    from runrails.run import Run

__all__ = ["AsyncSupervisedStream", "Chunks", "SupervisedStream"]

_T = TypeVar("_T")
RECENT_MAX = 8
"""Chunks among which the answer is looked for: an agent's last ones may be about nodes that say nothing."""
_END = object()
_Finish: TypeAlias = "Callable[[Run, Given, Chunks, GuardrailStopped | None, bool], _T]"


class Chunks:
    """
    What a stream has given so far: added up, where chunks add up (text, message chunks), else the newest ones.

    Each sum is of two about equally long ones, so that a long stream costs little more than a short one a chunk.
    """

    __slots__ = ("_sums", "recent")

    def __init__(self) -> None:
        self._sums: list[tuple[int, object]] = []
        """Sums of neighbours and how many chunks are in each, fewer and fewer; at most one for each power of two."""
        self.recent: deque[object] = deque(maxlen=RECENT_MAX)

    def add(self, chunk: object) -> None:
        """Take in one more."""
        self.recent.append(chunk)
        sums = self._sums
        if sums and not _alike(sums[-1][1], chunk):
            sums.clear()
        sums.append((1, chunk))
        while len(sums) > 1 and sums[-1][0] >= sums[-2][0]:
            self._join()

    @property
    def total(self) -> object:
        """The sum of all, or of those since the last one that did not add up; None before the first."""
        while len(self._sums) > 1:
            self._join()
        return self._sums[0][1] if self._sums else None

    def _join(self) -> None:
        (count, newer), sums = self._sums.pop(), self._sums
        earlier, older = sums.pop()
        try:
            sums.append((earlier + count, older + newer))  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue] -- tried
        except Exception:  # noqa: BLE001 -- whatever a chunk's own `+` raises
            sums[:] = [(count, newer)]


def _alike(sum_so_far: object, chunk: object) -> bool:
    return type(sum_so_far) is type(chunk) and not isinstance(chunk, list | tuple | int | float)


class SupervisedStream:
    """
    An iterator over the chunks of a supervised call.

    The run is entered in a context of the stream's own: what the consumer does between two chunks is not part of it. A
    stream that is left early should be closed (`with` or `close`).
    """

    def __init__(
        self, run: Run, function: Callable[..., object], given: Given,
        finish: _Finish[Outcome],
    ) -> None:  # fmt: skip
        self.run = run
        self._given = given
        self._finish = finish
        self._context = copy_context()
        self._function = function
        self._chunks: Iterator[object] | None = None
        self._seen = Chunks()
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        """
        What came of the call.

        Raises:
            ConfigError: The stream has not ended yet.
        """
        if self._outcome is None:
            raise _not_yet()
        return self._outcome

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        if self._outcome is not None:
            raise StopIteration
        if self._chunks is None:
            self._context.run(self.run.__enter__)
            self._chunks = iter(())
            self._take(lambda: setattr(self, "_chunks", iter(cast("Iterator[object]", self._call()))))
        chunk = self._take(lambda: next(cast("Iterator[object]", self._chunks), _END))
        if chunk is _END:
            self._end(None)
            raise StopIteration
        self._seen.add(chunk)
        return chunk

    def close(self) -> None:
        """End it now; what has come so far is the outcome's value."""
        if self._outcome is None and self._chunks is not None:
            close = getattr(self._chunks, "close", None)
            try:
                if callable(close):
                    self._context.run(close)
            except BaseException as exc:  # noqa: BLE001 -- what is no stop is raised again in there
                self._end(exc)
                return
            self._end(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A finaliser may run while this very thread has a store's lock, so it only leaves word.
        with suppress(Exception):
            if self._outcome is None and self._chunks is not None:
                self.run.guard.housekeeper.left_behind.append(self._close_quietly)

    def _close_quietly(self) -> None:
        with suppress(Exception):
            self.close()

    def _call(self) -> object:
        return self._function(*self._given.args, **self._given.kwargs)

    def _take(self, function: Callable[[], object]) -> object:
        try:
            return call_in_time(self.run, function, self._context)
        except BaseException as exc:  # noqa: BLE001 -- what is no stop is raised again in there
            self._end(exc)
            raise StopIteration from None

    def _end(self, error: BaseException | None) -> None:
        """Leave the run. Raises what is not a stop."""
        stop, abandoned = None, False
        if isinstance(error, Abandoned):
            stop, abandoned, error = error.stop, error.still_running, None
        kind = None if error is None else type(error)
        try:
            if abandoned:  # its thread is still in the context
                self.run.__exit__(kind, error, None)
            else:
                self._context.run(self.run.__exit__, kind, error, None)
        except GuardrailStopped as exc:
            stop, error = exc, None
        if isinstance(error, GuardrailStopped):
            stop, error = error, None
        self._outcome = self._finish(self.run, self._given, self._seen, stop, abandoned)
        if error is not None:
            raise error


class AsyncSupervisedStream:
    """
    The same on an event loop. The call runs in a task of its own, one chunk ahead of the consumer at most.

    A stream that is left early should be closed (`async with` or `aclose`). Then, as when the time is up, its task is
    cancelled and given a second to clean up; if it goes on all the same it is left alone, can start nothing more, and
    the outcome says `abandoned`. A cancellation that comes from the executor itself is the consumer's to hear of.
    """

    def __init__(
        self, run: Run, function: Callable[..., object], given: Given,
        finish: _Finish[Awaitable[Outcome]],
    ) -> None:  # fmt: skip
        self.run = run
        self._function = function
        self._given = given
        self._finish = finish
        self._context = copy_context()
        self._task: Task[None] | None = None
        self._queue: Queue[object] | None = None
        self._seen = Chunks()
        self._ending = False
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        """
        What came of the call.

        Raises:
            ConfigError: The stream has not ended yet.
        """
        if self._outcome is None:
            raise _not_yet()
        return self._outcome

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        import asyncio

        if self._ending:
            raise StopAsyncIteration
        if self._task is None or self._queue is None:
            # The run is entered in a context of the stream's own, where the task runs too.
            await asyncio.create_task(self.run.__aenter__(), context=self._context)
            self._queue = asyncio.Queue(maxsize=1)
            self._task = asyncio.create_task(self._pump(self._queue), context=self._context)
        if self._queue.empty() and not self._task.done():
            getter = asyncio.ensure_future(self._queue.get())
            try:
                await asyncio.wait({getter, self._task}, timeout=seconds_left(self.run), return_when="FIRST_COMPLETED")
            except asyncio.CancelledError:
                getter.cancel()
                await self.aclose()
                raise
            if getter.done():
                return self._came(getter.result())
            getter.cancel()
        if not self._queue.empty():
            return self._came(self._queue.get_nowait())
        await self._end(self._task, None if self._task.done() else self.run.time_is_up(self.run.entry.stay))
        raise StopAsyncIteration

    def _came(self, chunk: object) -> object:
        self._seen.add(chunk)
        return chunk

    async def aclose(self) -> None:
        """End it now; what has come so far is the outcome's value."""
        if self._task is not None:
            await self._end(self._task, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _pump(self, queue: Queue[object]) -> None:
        chunks = cast("AsyncIterator[object]", self._function(*self._given.args, **self._given.kwargs))
        try:
            async for chunk in chunks:
                await queue.put(chunk)
        finally:
            close = getattr(chunks, "aclose", None)
            if callable(close):
                await cast("Callable[[], Awaitable[None]]", close)()

    async def _end(self, task: Task[None], stop: GuardrailStopped | None) -> None:
        """Leave the run. Raises what is not a stop."""
        if self._ending:
            return
        self._ending = True
        ended_by_itself = task.done()
        try:
            if not ended_by_itself:
                await end(self.run, task)
        finally:
            left_alone = not task.done()
            error = None if left_alone else _error_of(task, ended_by_itself=ended_by_itself)
            try:
                await self._leave(error, left_alone=left_alone)
            except GuardrailStopped as exc:
                stop, error = stop or exc, None
            if isinstance(error, GuardrailStopped):
                stop, error = stop or error, None
            self._outcome = await self._finish(self.run, self._given, self._seen, stop, left_alone)
        if error is not None and stop is None:
            raise error

    async def _leave(self, error: BaseException | None, *, left_alone: bool) -> None:
        import asyncio

        leaving = self.run.__aexit__(None if error is None else type(error), error, None)
        if left_alone:  # its task is still in the context
            await leaving
        else:
            await asyncio.create_task(leaving, context=self._context)


def _error_of(task: Task[None], *, ended_by_itself: bool) -> BaseException | None:
    """What a task has raised; not that we have cancelled it."""
    if not task.cancelled():
        return task.exception()
    from asyncio import CancelledError

    return CancelledError("the executor was cancelled from within") if ended_by_itself else None


def _not_yet() -> ConfigError:
    return ConfigError("The stream has not ended yet.", next_step="Read it to its end, or close it, first.")
