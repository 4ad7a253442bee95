"""LangChain's results and errors, made into what a model call came to. Missing usage stays missing, never zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, Generation, GenerationChunk, LLMResult

from runrails.boundary import Trip
from runrails.calls import ModelResult
from runrails.errors import RunrailsError
from runrails.tiers import served_tier
from runrails.usage_wire import UsageMalformed, from_anthropic, from_langchain, from_openai_chat
from runrails_langchain.messages import prompt_of, text_of

if TYPE_CHECKING:
    from runrails.calls import ServedTier
    from runrails.usage import Usage

__all__ = ["answers", "of_answer", "of_error"]

_NOT_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL", "ConnectionRefusedError",
     "gaierror", "EndpointConnectionError", "NoCredentialsError", "ConnectTimeoutError"}
)  # fmt: skip
"""Errors of the HTTP libraries and of botocore that come before a byte of the request has left."""
_CAUSES_MAX = 8
_TIER_WORDS = ("service_tier", "speed", "inference_geo")


def of_answer(response: LLMResult, *, tier: str | None = None) -> ModelResult:
    """
    A call that ended with an answer. LangChain's own cache marks what it gives back by a `total_cost` of 0.

    Args:
        response: The answer.
        tier: The service tier that was asked for, which counts where the answer names none.
    """
    message = _message(response)
    told = None if message is None else message.usage_metadata
    if told is not None and cast("Mapping[str, object]", told).get("total_cost", 1) == 0:
        return ModelResult(end="cached", stored_usage=_usage(response, message))
    said = None if message is None else prompt_of([message], {}).prompt.texts
    return ModelResult(
        end="completed", usage=_usage(response, message), model=_model(response, message), answer=said,
        answer_id=_id_of(message), tier=_tier(response, message, tier),
    )  # fmt: skip


def of_error(
    error: BaseException, response: LLMResult | None, *, reasoning: bool, tier: str | None = None
) -> ModelResult:
    """
    A call that ended with an error.

    `failed` needs proof that it costs nothing: a definite HTTP error, no connection, or a refusal of ours. A stream
    that has begun and was broken off, by whomever, is `cut`; unless it had already told its usage, what had arrived is
    the measure. Of anything else (a timeout, a lost connection, an unknown exception) the money may be spent.
    """
    partial = _partial(response)
    cut = isinstance(error, GeneratorExit) or type(error).__name__ == "CancelledError"
    if response is not None and partial is not None:
        finished = _finished(response, partial)
        served = _tier(response, _message(response), tier)
        if finished is not None:
            return replace(finished, tier=served)
        return ModelResult(
            end="cut",
            output_text=_output(response),
            model=_model(response, _message(response)),
            reasoning=reasoning,
            tier=served,
        )
    if isinstance(error, GeneratorExit):
        return ModelResult(end="cut", reasoning=reasoning, tier=None if tier is None else _served_as(tier))
    return ModelResult(end="failed" if not cut and _costs_nothing(error) else "unknown")


def answers(response: LLMResult) -> list[AIMessage]:
    """The messages in a result that may ask for tools."""
    return [
        generation.message
        for generations in response.generations
        for generation in generations
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage)
    ]


def _message(response: LLMResult) -> AIMessage | None:
    # With several answers each repeats the usage of all, so the first one speaks for the call.
    for generations in response.generations:
        for generation in generations:
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                return generation.message
            return None
    return None


def _id_of(message: AIMessage | None) -> str | None:
    """The provider's id of the answer. LangChain names messages itself where it has none."""
    if message is None:
        return None
    named = cast("Mapping[str, object]", message.response_metadata).get("id") or message.id
    return named if isinstance(named, str) and not named.startswith(("run-", "lc_")) else None


def _usage(response: LLMResult, message: AIMessage | None) -> Usage | None:
    usage = None
    if message is not None and message.usage_metadata is not None:
        usage = _read(from_langchain, message.usage_metadata)
    elif response.llm_output:
        usage = _wire_usage(response.llm_output)
    # No prompt has no tokens: a zero is a stream whose first event, which tells them, was not read.
    return usage if usage is not None and usage.input_tokens > 0 else None


def _wire_usage(output: Mapping[str, object]) -> Usage | None:
    told = output.get("token_usage")
    if isinstance(told, Mapping) and told:
        return _read(from_openai_chat, cast("Mapping[str, object]", told))
    told = output.get("usage")
    if isinstance(told, Mapping) and told:
        given = cast("Mapping[str, object]", told)
        return _read(from_openai_chat if "prompt_tokens" in given else from_anthropic, given)
    return None


def _read(parse: Callable[[Mapping[str, object]], Usage | None], told: object) -> Usage | None:
    try:
        return parse(cast("Mapping[str, object]", told))
    except UsageMalformed:
        return None


def _model(response: LLMResult, message: AIMessage | None) -> str | None:
    places: list[Mapping[str, object]] = []
    if message is not None:
        places.append(cast("Mapping[str, object]", message.response_metadata))
    if response.llm_output:
        places.append(cast("Mapping[str, object]", response.llm_output))
    for place in places:
        for key in ("model_name", "model"):
            name = place.get(key)
            if isinstance(name, str) and name:
                return name
    return None


def _tier(response: LLMResult, message: AIMessage | None, asked: str | None) -> ServedTier | None:
    """How the call was served, by what the answer says of it: OpenAI's itself, Anthropic's usage."""
    found: dict[str, object] = {}
    for place in (None if message is None else message.response_metadata, response.llm_output):
        told = cast("Mapping[str, object]", place or {})
        for said in (told, told.get("usage")):
            if isinstance(said, Mapping):
                known = cast("Mapping[str, object]", said)
                found.update({key: _once(known[key]) for key in _TIER_WORDS if key in known and key not in found})
    if asked is not None and found.get("service_tier") is None:
        found["service_tier"] = asked
    return served_tier(found) if found else None


def _served_as(tier: str) -> ServedTier | None:
    return served_tier({"service_tier": tier})


def _once(word: object) -> object:
    """LangChain joins what several chunks say of themselves to one text."""
    if isinstance(word, str):
        for size in range(1, len(word) // 2 + 1):
            if word == word[:size] * (len(word) // size):
                return word[:size]
    return word


def _partial(response: LLMResult | None) -> Generation | None:
    """The chunks that had arrived. An error alone leaves generations behind that hold only its metadata."""
    for generations in response.generations if response is not None else ():
        for generation in generations:
            if isinstance(generation, ChatGeneration):
                if isinstance(generation.message, AIMessageChunk):
                    return generation
            elif isinstance(generation, GenerationChunk) and generation.text:
                return generation
    return None


def _finished(response: LLMResult, partial: Generation) -> ModelResult | None:
    """A stream that had told everything before it was left: its usage is the whole truth."""
    if not isinstance(partial, ChatGeneration) or not isinstance(partial.message, AIMessageChunk):
        return None
    said = partial.message.response_metadata
    if not (said.get("finish_reason") or said.get("stop_reason") or said.get("stopReason")):
        return None
    usage = _usage(response, partial.message)
    if usage is None or usage.output_tokens == 0:
        return None
    return ModelResult(end="completed", usage=usage, model=_model(response, partial.message))


def _output(response: LLMResult) -> tuple[str, ...]:
    texts: list[str] = []
    for generations in response.generations:
        for generation in generations:
            if not isinstance(generation, ChatGeneration):
                texts.append(generation.text)
                continue
            texts.extend(text_of(generation.message.content))
            if isinstance(generation.message, AIMessageChunk):
                for chunk in generation.message.tool_call_chunks:
                    texts.extend((chunk["name"] or "", chunk["args"] or ""))
                thoughts = generation.message.additional_kwargs.get("reasoning_content")
                if isinstance(thoughts, str):
                    texts.append(thoughts)
    return tuple(texts)


def _costs_nothing(error: BaseException) -> bool:
    cause: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if cause is None:
            return False
        if isinstance(cause, RunrailsError | Trip) or _status(cause) is not None or type(cause).__name__ in _NOT_SENT:
            return True
        cause = cause.__cause__
    return False


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error answer: of openai, anthropic and httpx errors, and of botocore's and Google's."""
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        _botocore_status(response),
        getattr(error, "status", None),
        getattr(error, "code", None),
    ):
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _botocore_status(response: object) -> object:
    if not isinstance(response, Mapping):
        return None
    about = cast("Mapping[str, object]", response).get("ResponseMetadata")
    return cast("Mapping[str, object]", about).get("HTTPStatusCode") if isinstance(about, Mapping) else None
