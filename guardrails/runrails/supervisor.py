"""Runs an executor inside a boundary of ours and tells what came of it; a stop is an outcome, not an exception."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, cast

from runrails.advice import explain_end, report_of, with_explanation
from runrails.deadline import Abandoned, call_in_thread, call_in_time, wait_in_time
from runrails.errors import ConfigError, GuardrailStopped
from runrails.executors import adapt
from runrails.lastwords import LastWords
from runrails.outcome import Given, Outcome
from runrails.report import Report
from runrails.streams import AsyncSupervisedStream, Chunks, SupervisedStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from runrails.guard import Guard
    from runrails.limits import Limits
    from runrails.run import Run

__all__ = ["Supervisor"]

BATCH_THREADS_MAX = 32


class Supervisor:
    """
    Wraps an executor: `outcome = guard.supervise(agent).invoke(inputs)`. Made by `Guard.supervise`.

    Executors are LangChain runnables, LangGraph graphs, AgentExecutor, anything with `invoke`, and plain functions,
    sync or async. The arguments are handed on as they are. Everything inside belongs to one run, sub-agents and
    parallel branches too; inside another run of the guard it is a child that draws on it.

    Nothing is raised for a stop; whatever else is raised, the user's own errors and refused calls, passes through.
    With a limit on the run's time, or on that of a run around it, what hangs is left alone when it is up: a task is
    cancelled and given a second to clean up, a thread goes on, but nothing in there can start any more, not even after
    a resume. A thread of a framework's own (a synchronous tool that an AgentExecutor calls on an event loop) keeps the
    process alive until it ends; ours do not.
    Thread-safe; one supervisor serves any number of calls.
    """

    def __init__(
        self, guard: Guard, executor: object, *, name: str = "", limits: Limits | None = None, wrap_up: object = None
    ) -> None:
        self.guard = guard
        self.executor = executor
        self._name = name
        self._limits = limits
        self._adapted = adapt(guard, executor)
        self._speaker = None if wrap_up is None else self._adapted.speaker(wrap_up)
        if wrap_up is not None and self._speaker is None:
            raise ConfigError(
                f"A {type(wrap_up).__name__} cannot give a run of a {type(executor).__name__} its last answer.",
                next_step="Pass a function that answers a prompt with one guarded call of a model. For LangChain's "
                "executors a chat model will do as well.",
            )

    def invoke(self, *args: object, **kwargs: object) -> Outcome:
        """Run it to its end."""
        return self._invoke(*self._open(args, kwargs))

    async def ainvoke(self, *args: object, **kwargs: object) -> Outcome:
        """Run it to its end, on an event loop."""
        return await self._ainvoke(*self._open(args, kwargs))

    def stream(self, *args: object, **kwargs: object) -> SupervisedStream:
        """Its chunks as they come; the stream ends normally at a stop, and `.outcome` says what came of it."""
        function = self._method("stream")
        run, given = self._open(args, kwargs)
        words = self._words(run)
        return SupervisedStream(run, words.after_chunks(function) if words else function, given, self._finish)

    def astream(self, *args: object, **kwargs: object) -> AsyncSupervisedStream:
        """The same on an event loop."""
        function = self._method("astream")
        run, given = self._open(args, kwargs)
        words = self._words(run)
        return AsyncSupervisedStream(
            run, words.after_async_chunks(function) if words else function, given, self._afinish
        )

    def astream_events(self, *args: object, **kwargs: object) -> AsyncSupervisedStream:
        """Its events as they come, for executors that tell them; ends as `astream` does."""
        function = self._method("astream_events")
        run, given = self._open(args, kwargs)
        words = self._words(run)
        return AsyncSupervisedStream(
            run, words.after_async_chunks(function) if words else function, given, self._afinish
        )

    def batch(
        self, inputs: Sequence[object], *args: object, max_concurrency: int | None = None, **kwargs: object
    ) -> list[Outcome]:
        """One run for each input, in threads. An error of the user's own is raised when all have ended."""
        from concurrent.futures import ThreadPoolExecutor

        if not inputs:
            return []
        threads = min(len(inputs), max_concurrency or BATCH_THREADS_MAX)
        with ThreadPoolExecutor(threads, "runrails-batch") as pool:
            started = [
                pool.submit(copy_context().run, partial(self.invoke, one, *rest, **named))
                for one, rest, named in _items(inputs, args, kwargs)
            ]
        return [future.result() for future in started]

    async def abatch(
        self, inputs: Sequence[object], *args: object, max_concurrency: int | None = None, **kwargs: object
    ) -> list[Outcome]:
        """One run for each input, as tasks. An error of the user's own is raised when all have ended."""
        import asyncio

        room = asyncio.Semaphore(max_concurrency or max(1, len(inputs)))

        async def one_of(one: object, rest: tuple[object, ...], named: dict[str, object]) -> Outcome:
            async with room:
                return await self.ainvoke(one, *rest, **named)

        tasks = [asyncio.ensure_future(one_of(*item)) for item in _items(inputs, args, kwargs)]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return cast("list[Outcome]", results)

    def resume(self, outcome: Outcome, *, limits: Limits | None = None) -> Outcome:
        """
        Go on where a stop ended a call, in the same run and conversation, usually with a higher limit.

        A graph with a checkpointer and a `thread_id` goes on from what it saved; anything else begins again, with the
        run's counts as they are.
        """
        given = self._adapted.again(outcome.given)
        outcome.run.resume(limits=limits)
        return self._invoke(outcome.run, given)

    async def aresume(self, outcome: Outcome, *, limits: Limits | None = None) -> Outcome:
        """As `resume`, on an event loop."""
        given = await self._adapted.aagain(outcome.given)
        outcome.run.resume(limits=limits)
        return await self._ainvoke(outcome.run, given)

    # Inside.

    def _open(self, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[Run, Given]:
        given = Given(args=args, kwargs=kwargs)
        said = self._adapted.whose(given)
        if said is None:  # the block around it is looked at when the run is entered
            return self.guard.run(self._name, limits=self._limits), given
        return self.guard.run_for(said, self._name, limits=self._limits), given

    def _words(self, run: Run) -> LastWords | None:
        return None if self._speaker is None else LastWords(run, self._speaker)

    def _invoke(self, run: Run, given: Given) -> Outcome:
        function, words = self._function(), self._words(run)
        function = words.after(function) if words else function
        value: object = None
        stop: GuardrailStopped | None = None
        abandoned = False
        try:
            with run:
                value = call_in_time(run, lambda: function(*given.args, **given.kwargs), copy_context())
        except GuardrailStopped as exc:
            stop = exc
        except Abandoned as exc:
            stop, abandoned = exc.stop, exc.still_running
        return self._finish(run, given, value, stop, abandoned)

    async def _ainvoke(self, run: Run, given: Given) -> Outcome:
        value: object = None
        stop: GuardrailStopped | None = None
        abandoned = False
        try:
            async with run:
                value = await self._acall(run, given)
        except GuardrailStopped as exc:
            stop = exc
        except Abandoned as exc:
            stop, abandoned = exc.stop, exc.still_running
        return await self._afinish(run, given, value, stop, abandoned)

    def _finish(
        self,
        run: Run,
        given: Given,
        value: object,
        raised: GuardrailStopped | None,
        abandoned: bool,  # noqa: FBT001
    ) -> Outcome:
        if raised is not None:
            saved = self._observed(run, "repair", lambda: self._adapted.repair(given, raised))
            value = value if saved is None else saved
        return self._outcome(run, given, value, raised, abandoned=abandoned)

    async def _afinish(
        self,
        run: Run,
        given: Given,
        value: object,
        raised: GuardrailStopped | None,
        abandoned: bool,  # noqa: FBT001
    ) -> Outcome:
        if raised is not None:
            try:
                saved = await self._adapted.arepair(given, raised)
                value = value if saved is None else saved
            except Exception as exc:  # noqa: BLE001 -- as in `_observed`
                self._failed(run, "repair", exc)
        return self._outcome(run, given, value, raised, abandoned=abandoned)

    def _outcome(
        self, run: Run, given: Given, value: object, raised: GuardrailStopped | None, *, abandoned: bool
    ) -> Outcome:
        report = report_of(run) or _empty(run)
        words = run.adapters.get(LastWords)
        last = words.text if isinstance(words, LastWords) else None
        if raised is not None:
            answer: str | None = with_explanation(last, explain_end(raised, report))
        else:
            answer = cast("str | None", self._observed(run, "answer", lambda: self._answer(value)))
        value = value.total if isinstance(value, Chunks) else value
        # An executor may have ended by itself after a stop, as an agent with the middleware does.
        stop = raised if raised is not None else run.stopped
        if run.entry.busy:
            abandoned = True
            if stop is not None:
                run.leave_alone(stop, run.entry.stay)
        return Outcome(
            answer=answer, value=value, stop=stop, report=report, run=run, abandoned=abandoned, given=given,
            wrapped_up=last is not None,
        )  # fmt: skip

    def _answer(self, value: object) -> str | None:
        if not isinstance(value, Chunks):
            return self._adapted.answer(value)
        for chunk in (value.total, *reversed(value.recent)):
            answer = self._adapted.answer(chunk)
            if answer is not None:
                return answer
        return None

    def _observed(self, run: Run, hook: str, ask: Callable[[], object]) -> object:
        """What only tells of the result must not change it: a bug in there is an event."""
        try:
            return ask()
        except Exception as exc:  # noqa: BLE001 -- see above
            self._failed(run, hook, exc)
            return None

    def _failed(self, run: Run, hook: str, error: Exception) -> None:
        self.guard.emit("adapter_failed", "error", run=run.id, hook=hook, error=type(error).__name__)

    def _function(self) -> Callable[..., object]:
        executor = self._adapted.executor
        function: object = getattr(executor, "invoke", executor)
        if not callable(function):
            raise _cannot("call", executor)
        if _is_coroutine_function(function):
            raise ConfigError(
                "An asynchronous function is supervised with ainvoke.", next_step="Write `await supervisor.ainvoke(…)`."
            )
        return function

    async def _acall(self, run: Run, given: Given) -> object:
        from inspect import isawaitable

        executor = self._adapted.executor
        function: object = getattr(executor, "ainvoke", None) or getattr(executor, "invoke", executor)
        if not callable(function):
            raise _cannot("call", executor)
        words = self._words(run)
        if hasattr(executor, "ainvoke") or _is_coroutine_function(function):
            asynchronous = cast("Callable[..., Awaitable[object]]", function)
            asynchronous = words.after_awaiting(asynchronous) if words else asynchronous
            return await wait_in_time(run, asynchronous(*given.args, **given.kwargs))
        function = words.after(function) if words else function
        result: object = await call_in_thread(run, partial(function, *given.args, **given.kwargs))
        return await wait_in_time(run, cast("Awaitable[object]", result)) if isawaitable(result) else result

    def _method(self, name: str) -> Callable[..., object]:
        executor = self._adapted.executor
        function: object = getattr(executor, name, None)
        if callable(function):
            return function
        if callable(executor) and not hasattr(executor, "invoke"):  # a generator function
            return executor
        raise _cannot(name, executor)


def _items(
    inputs: Sequence[object], args: tuple[object, ...], kwargs: dict[str, object]
) -> Iterable[tuple[object, tuple[object, ...], dict[str, object]]]:
    """The arguments for each input. A list of configurations, as LangChain takes it, has one for each."""
    configs = args[0] if args else kwargs.get("config")
    for place, one in enumerate(inputs):
        if not isinstance(configs, list):
            yield one, args, kwargs
        elif args:
            yield one, (cast("list[object]", configs)[place], *args[1:]), kwargs
        else:
            yield one, args, {**kwargs, "config": cast("list[object]", configs)[place]}


def _empty(run: Run) -> Report:
    """In the place of a report that could not be made."""
    return Report(
        run=run.id, name=run.name, user=run.attribution.user or run.guard.user, mode=run.guard.mode,
        started_ms=0, duration_ms=0, steps=0, model_calls=0, tool_calls=0,
        input_tokens=0, output_tokens=0, cost_pusd=0, unresolved_pusd=0,
        overrun_pusd=0, limit_pusd=run.limits.run_pusd, hints=0, blocks=0, refusals=0, stop_reason=run.stop_reason,
        stop_message=None, would_have_stopped=None, findings=(), rows=(),
    )  # fmt: skip


def _is_coroutine_function(function: object) -> bool:
    from inspect import iscoroutinefunction

    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _cannot(what: str, executor: object) -> ConfigError:
    return ConfigError(
        f"A supervisor cannot {what} a {type(executor).__name__}.",
        next_step="Supervise a graph, a runnable, or a function.",
    )
