"""Supervised streams: chunks as they come, an ordinary end at a stop, and the outcome afterwards."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar, cast

from runrails.deadline import Abandoned, call_in_time, seconds_left
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
    """What a stream has given so far: added up, where chunks add up (text, message chunks), else the newest ones."""

    __slots__ = ("recent", "total")

    def __init__(self) -> None:
        self.total: object = None
        self.recent: deque[object] = deque(maxlen=RECENT_MAX)

    def add(self, chunk: object) -> None:
        """Take in one more."""
        self.recent.append(chunk)
        summed = chunk
        if type(self.total) is type(chunk) and not isinstance(chunk, list | tuple | int | float):
            try:
                summed = self.total + chunk  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType] -- tried
            except Exception:  # noqa: BLE001 -- whatever a chunk's own `+` raises
                summed = chunk
        self.total = summed


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

    A stream that is left early should be closed (`async with` or `aclose`).
    """

    def __init__(
        self, run: Run, function: Callable[..., object], given: Given,
        finish: _Finish[Awaitable[Outcome]],
    ) -> None:  # fmt: skip
        self.run = run
        self._function = function
        self._given = given
        self._finish = finish
        self._task: Task[None] | None = None
        self._queue: Queue[object] | None = None
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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        if self._outcome is not None:
            raise StopAsyncIteration
        import asyncio

        if self._task is None or self._queue is None:
            self._queue = asyncio.Queue(maxsize=1)
            self._task = asyncio.create_task(self._pump(self._queue))
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
        await self._end(None if self._task.done() else self.run.time_is_up(self.run.limits.seconds or 0))
        raise StopAsyncIteration

    def _came(self, chunk: object) -> object:
        self._seen.add(chunk)
        return chunk

    async def aclose(self) -> None:
        """End it now; what has come so far is the outcome's value."""
        if self._outcome is None and self._task is not None:
            await self._stop_task()
            await self._end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _pump(self, queue: Queue[object]) -> None:
        async with self.run:
            chunks = cast("AsyncIterator[object]", self._function(*self._given.args, **self._given.kwargs))
            try:
                async for chunk in chunks:
                    await queue.put(chunk)
            finally:
                close = getattr(chunks, "aclose", None)
                if callable(close):
                    await cast("Callable[[], Awaitable[None]]", close)()

    async def _stop_task(self) -> None:
        import asyncio

        from runrails.deadline import GRACE_S

        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=GRACE_S)

    async def _end(self, stop: GuardrailStopped | None) -> None:
        task = self._task
        if stop is not None:
            await self._stop_task()
        assert task is not None  # noqa: S101 -- called only once it was started
        still_running = not task.done()
        error: BaseException | None = None
        if not still_running and not task.cancelled():
            error = task.exception()
        if isinstance(error, GuardrailStopped):
            stop, error = stop or error, None
        self._outcome = await self._finish(self.run, self._given, self._seen, stop, still_running)
        if error is not None and stop is None:
            raise error


def _not_yet() -> ConfigError:
    return ConfigError("The stream has not ended yet.", next_step="Read it to its end, or close it, first.")
