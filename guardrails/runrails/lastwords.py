"""How a supervised run that was stopped gets its last answer: the executor's stop is caught, and the model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from runrails.boundary import Trip
from runrails.deadline import call_in_thread
from runrails.digest import digest
from runrails.errors import GuardrailStopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from runrails.calls import ModelCall
    from runrails.digest import Said
    from runrails.run import Run

__all__ = ["LastWords", "PlainSpeaker", "Speaker"]


class Speaker(Protocol):
    """Who is asked for the last answer."""

    def about(self) -> ModelCall | None:
        """A call of it, as far as it is known beforehand: money is kept back at its model's prices."""
        ...

    def listen(self, run: Run) -> None:
        """The run begins: from now on its conversation is needed."""
        ...

    def said(self, run: Run) -> Sequence[Said] | None:
        """The conversation so far; empty where that is the speaker's own business, None if there is none to go by."""
        ...

    def say(self, prompt: str) -> str:
        """Answer a prompt with one call of a model."""
        ...

    async def asay(self, prompt: str, run: Run) -> str:
        """As `say`, on an event loop."""
        ...


class PlainSpeaker:
    """A function of the user's own, sync or async. It knows the conversation itself."""

    def __init__(self, speak: Callable[[str], object]) -> None:
        self._speak = speak

    def about(self) -> ModelCall | None:
        """Not known; the run's first call tells the model."""
        return None

    def listen(self, run: Run) -> None:
        """There is nothing to hear."""

    def said(self, run: Run) -> Sequence[Said] | None:  # noqa: ARG002 -- the protocol's
        """Not seen."""
        return ()

    def say(self, prompt: str) -> str:
        """Call it."""
        return str(self._speak(prompt))

    async def asay(self, prompt: str, run: Run) -> str:
        """Call it, and await what it gives."""
        from inspect import isawaitable, iscoroutinefunction

        speak: object = self._speak
        if iscoroutinefunction(speak) or iscoroutinefunction(getattr(speak, "__call__", None)):  # noqa: B004
            said = self._speak(prompt)
        else:  # it would keep the event loop waiting
            said = await call_in_thread(run, lambda: self._speak(prompt))
        return str(await cast("Awaitable[object]", said) if isawaitable(said) else said)


class LastWords:
    """The last answer of one supervised run. Kept with the run, so that whoever makes the outcome finds it."""

    def __init__(self, run: Run, speaker: Speaker) -> None:
        self._run = run
        self._speaker = speaker
        self.text: str | None = None
        """What the model has said."""
        run.adapters[LastWords] = self
        self._turn = run.expect_last_turn()
        self._turn.call = speaker.about()
        speaker.listen(run)

    def after(self, function: Callable[..., object]) -> Callable[..., object]:
        """The function, with a last turn where a stop leaves it."""

        def work(*args: object, **kwargs: object) -> object:
            try:
                return function(*args, **kwargs)
            except (GuardrailStopped, Trip):
                self._ask()
                raise

        return work

    def after_awaiting(self, function: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        """As `after`."""

        async def work(*args: object, **kwargs: object) -> object:
            try:
                return await function(*args, **kwargs)
            except (GuardrailStopped, Trip):
                await self._aask()
                raise

        return work

    def after_chunks(self, function: Callable[..., object]) -> Callable[..., object]:
        """As `after`, for a function that gives chunks."""

        def work(*args: object, **kwargs: object) -> Iterator[object]:
            try:
                yield from cast("Iterator[object]", function(*args, **kwargs))
            except (GuardrailStopped, Trip):
                self._ask()
                raise

        return work

    def after_async_chunks(self, function: Callable[..., object]) -> Callable[..., object]:
        """As `after_chunks`, on an event loop."""

        async def work(*args: object, **kwargs: object) -> AsyncIterator[object]:
            try:
                async for chunk in cast("AsyncIterator[object]", function(*args, **kwargs)):
                    yield chunk
            except (GuardrailStopped, Trip):
                await self._aask()
                raise

        return work

    def _ask(self) -> None:
        with self._turn.turn() as room:
            prompt = self._prompt(room)
            if prompt is not None:
                try:
                    self.text = self._speaker.say(prompt).strip() or None
                except (Exception, Trip) as exc:  # noqa: BLE001 -- the stop itself is the outcome then
                    self._failed(exc)

    async def _aask(self) -> None:
        async with self._turn.aturn() as room:
            prompt = self._prompt(room)
            if prompt is not None:
                try:
                    self.text = (await self._speaker.asay(prompt, self._run)).strip() or None
                except (Exception, Trip) as exc:  # noqa: BLE001 -- as above
                    self._failed(exc)

    def _prompt(self, room: int) -> str | None:
        stop = self._run.stopped
        said = None if stop is None or not room else self._speaker.said(self._run)
        return None if stop is None or said is None else digest(said, stop.what, room)

    def _failed(self, error: BaseException) -> None:
        self._run.guard.emit("wrap_up_failed", "warning", run=self._run.id, error=type(error).__name__)
