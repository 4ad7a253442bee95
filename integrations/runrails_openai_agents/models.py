"""A model and a model provider of the SDK that ask the guard first and tell it what came of it."""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from agents import Model, ModelProvider

from runrails.calls import ModelResult
from runrails.clients.reading import plain
from runrails.dialogue import dialogue_here
from runrails.errors import ConfigError
from runrails.request_wire import may_reason
from runrails.tiers import served_tier
from runrails.usage_wire import UsageMalformed, from_openai_responses
from runrails_openai_agents.requests import asked_for, model_call, results_in, usage_of, with_cap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from agents import AgentOutputSchemaBase, Handoff, ModelResponse, ModelSettings, ModelTracing, Tool
    from agents.items import TResponseInputItem, TResponseOutputItem, TResponseStreamEvent
    from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
    from openai.types.responses import ResponsePromptParam

    from runrails.dialogue import Dialogue, ModelTurn
    from runrails.guard import Guard
    from runrails.usage import Usage

__all__ = ["GuardedModel", "GuardedProvider", "guarded_model"]

_LAST = ("response.completed", "response.incomplete", "response.failed")


class GuardedModel(Model):
    """Every call of `inner`, in the dialogue that the calling code is in; see `guarded_model`."""

    def __init__(self, guard: Guard, inner: Model) -> None:
        self.guard = guard
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        # What a model has beyond the interface, the SDK asks of it by name.
        return getattr(self.__dict__["inner"], name)

    async def get_response(  # noqa: PLR0913 -- the interface's
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 -- the interface's
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: ResponsePromptParam | None,
    ) -> ModelResponse:
        """
        Call the model if the guard lets it.

        Raises:
            GuardrailStopped: The run is over.
            CallRefused: This call may not start, and nothing was sent.
        """
        dialogue = dialogue_here(self.guard)
        dialogue.heard(lambda: results_in(input))
        stored = (previous_response_id, conversation_id, prompt)
        async with dialogue.model_call(
            lambda: model_call(
                self.inner, system_instructions, input, model_settings, tools, output_schema, handoffs, stored
            )
        ) as turn:
            answer = await self.inner.get_response(
                system_instructions, input, with_cap(model_settings, turn.cap), tools, output_schema, handoffs, tracing,
                previous_response_id=previous_response_id, conversation_id=conversation_id, prompt=prompt,
            )  # fmt: skip
            turn.tell(lambda: ModelResult(end="completed", usage=usage_of(answer.usage), answer_id=answer.response_id))
        dialogue.asked(lambda: asked_for(answer.output))
        return answer

    async def stream_response(  # noqa: PLR0913 -- the interface's
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 -- the interface's
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: ResponsePromptParam | None,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """As `get_response`, in events. Chat completions are asked for their usage, unless the settings say no."""
        dialogue = dialogue_here(self.guard)
        dialogue.heard(lambda: results_in(input))
        stored = (previous_response_id, conversation_id, prompt)
        settings = model_settings if model_settings.include_usage is not None else _asking(model_settings)
        async with dialogue.model_call(
            lambda: model_call(self.inner, system_instructions, input, settings, tools, output_schema, handoffs, stored)
        ) as turn:
            events = self.inner.stream_response(
                system_instructions, input, with_cap(settings, turn.cap), tools, output_schema, handoffs, tracing,
                previous_response_id=previous_response_id, conversation_id=conversation_id, prompt=prompt,
            )  # fmt: skip
            read = _Reading(dialogue, turn, reasons=settings.reasoning is not None)
            try:
                async for event in events:
                    read.event(event)
                    yield event
            except (GeneratorExit, CancelledError):
                read.left()
                raise
            finally:
                await _closed(events)

    async def close(self) -> None:
        """Release what the model holds."""
        await self.inner.close()

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """What the model says of another attempt."""
        return self.inner.get_retry_advice(request)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        cleanup: Callable[[object], Awaitable[None]] | None = getattr(self.inner, "_cleanup_on_run_end", None)
        if cleanup is not None:
            await cleanup(owner)


class GuardedProvider(ModelProvider):
    """Guards every model that `inner` gives out."""

    def __init__(self, guard: Guard, inner: ModelProvider) -> None:
        self.guard = guard
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def get_model(self, model_name: str | None) -> Model:
        """The model of a name, guarded."""
        return guarded_model(self.guard, self.inner.get_model(model_name))

    async def aclose(self) -> None:
        """Release what the provider holds."""
        await self.inner.aclose()


def guarded_model(guard: Guard, model: Model) -> GuardedModel:
    """
    Guard a model; once is enough.

    Raises:
        ConfigError: Another guard has it.
    """
    if not isinstance(model, GuardedModel):
        return GuardedModel(guard, model)
    if model.guard is guard:
        return model
    raise ConfigError(
        "This model is guarded by another guard already: its calls would be paid twice.",
        next_step="Use the same Guard for both.",
    )


class _Reading:
    """Reads along with the events of one answer."""

    def __init__(self, dialogue: Dialogue, turn: ModelTurn, *, reasons: bool) -> None:
        self._dialogue = dialogue
        self._turn = turn
        self._reasons = reasons
        self._items: list[TResponseOutputItem] = []
        self._texts: list[str] = []
        self._over = False

    def event(self, event: TResponseStreamEvent) -> None:
        """One more event has come."""
        self._turn.began()
        self._dialogue.observed("stream", lambda: self._read(event))

    def left(self) -> None:
        """Nobody reads on."""
        if not self._over:
            model = "" if self._turn.permit is None else self._turn.permit.call.model
            self._turn.tell(
                lambda: ModelResult(
                    end="cut", output_text=tuple(self._texts), reasoning=self._reasons or may_reason(model)
                )
            )

    def _read(self, event: TResponseStreamEvent) -> None:
        delta: object = getattr(event, "delta", None)
        if isinstance(delta, str):
            self._texts.append(delta)
        elif event.type == "response.output_item.done":
            self._items.append(event.item)
        elif event.type in _LAST:
            self._over = True
            response: object = getattr(event, "response", None)
            tier = served_tier({"service_tier": getattr(response, "service_tier", None)})
            named: object = getattr(response, "id", None)
            answer_id = named if isinstance(named, str) else None
            self._turn.tell(
                lambda: ModelResult(end="completed", usage=_usage(response), tier=tier, answer_id=answer_id)
            )
            output = cast("list[TResponseOutputItem]", getattr(response, "output", None)) or self._items
            self._dialogue.asked(lambda: asked_for(output))


def _asking(settings: ModelSettings) -> ModelSettings:
    return replace(settings, include_usage=True)


def _usage(response: object) -> Usage | None:
    try:
        told = from_openai_responses(cast("Mapping[str, object]", plain(getattr(response, "usage", None))))
    except UsageMalformed:
        return None
    return told if told is not None and told.input_tokens else None


async def _closed(events: object) -> None:
    """An answer that is left must not wait for the garbage collector to let go of its connection."""
    close: Callable[[], Awaitable[None]] | None = getattr(events, "aclose", None)
    if close is not None:
        await close()
