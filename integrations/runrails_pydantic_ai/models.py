"""A model of Pydantic AI that asks the guard first and tells it what came of it."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from pydantic_ai.models.wrapper import WrapperModel

from runrails.calls import ModelResult
from runrails.request_wire import may_reason
from runrails.tiers import served_tier
from runrails_pydantic_ai.requests import asked_for, given_settings, model_call, results_in, texts_of, usage_of
from runrails_pydantic_ai.settings import tier_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pydantic_ai import RunContext
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
    from pydantic_ai.settings import ModelSettings

    from runrails.calls import ServedTier
    from runrails.dialogue import Dialogue

__all__ = ["GuardedModel"]


class GuardedModel(WrapperModel):
    """Every request to `wrapped`, as part of one dialogue."""

    def __init__(self, wrapped: Model, dialogue: Dialogue) -> None:
        super().__init__(wrapped)
        self.dialogue = dialogue

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """
        Send a request if the guard lets it.

        Raises:
            GuardrailStopped: The run is over.
            CallRefused: This call may not start, and nothing was sent.
        """
        dialogue = self.dialogue
        dialogue.heard(lambda: results_in(messages))
        async with dialogue.model_call(
            lambda: model_call(self.wrapped, messages, model_settings, model_request_parameters)
        ) as turn:
            answer = await self.wrapped.request(messages, _with_cap(model_settings, turn.cap), model_request_parameters)
            turn.tell(lambda: _answered(answer, self._asked_tier(model_settings)))
        dialogue.asked(lambda: asked_for(answer))
        return answer

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """As `request`, for an answer that comes in pieces."""
        dialogue = self.dialogue
        dialogue.heard(lambda: results_in(messages))
        async with (
            dialogue.model_call(
                lambda: model_call(self.wrapped, messages, model_settings, model_request_parameters)
            ) as turn,
            self.wrapped.request_stream(
                messages, _with_cap(model_settings, turn.cap), model_request_parameters, run_context
            ) as stream,
        ):
            turn.began()
            lost = False
            try:
                yield stream
            except (GeneratorExit, CancelledError):
                raise
            except BaseException:
                lost = True
                raise
            finally:
                answer = dialogue.observed("stream", stream.get)
                if answer is not None and (_is_whole(answer) or not lost):
                    turn.tell(lambda: _streamed(answer, self._asked_tier(model_settings)))
                    dialogue.asked(lambda: asked_for(answer))

    def _asked_tier(self, settings: ModelSettings | None) -> ServedTier | None:
        tier = tier_of(given_settings(self.wrapped, settings))
        return None if tier is None else served_tier({"service_tier": tier})


def _with_cap(settings: ModelSettings | None, cap: int | None) -> ModelSettings | None:
    return settings if cap is None else cast("ModelSettings", {**(settings or {}), "max_tokens": cap})


def _answered(answer: ModelResponse, asked: ServedTier | None) -> ModelResult:
    told = answer.provider_details or {} if answer.provider_name in ("openai", "azure") else {}
    tier = asked if told.get("service_tier") is None and asked is not None else served_tier(told)
    return ModelResult(
        end="completed", usage=usage_of(answer.usage), model=answer.model_name, tier=tier,
        answer_id=answer.provider_response_id,
    )  # fmt: skip


def _streamed(answer: ModelResponse, asked: ServedTier | None) -> ModelResult:
    if _is_whole(answer):
        return _answered(answer, asked)
    return ModelResult(
        end="cut", output_text=tuple(texts_of(answer)), input_usage=usage_of(answer.usage),
        reasoning=may_reason(answer.model_name or ""), model=answer.model_name, tier=asked,
    )  # fmt: skip


def _is_whole(answer: ModelResponse) -> bool:
    """Whether its end has come. The usage may come after the reason, and the input's usage comes at the beginning."""
    return answer.finish_reason is not None and answer.usage.output_tokens > 0
