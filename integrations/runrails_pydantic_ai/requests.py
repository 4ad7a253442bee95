"""What Pydantic AI is about to send and what came back, made into what goes through the door."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
)

from runrails.calls import ModelCall, Prompt, ToolOutcome
from runrails.request_wire import picture
from runrails.usage import Usage
from runrails_pydantic_ai.settings import answers_of, can_cap, cap_of, tier_of, with_settings

if TYPE_CHECKING:
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import ToolDefinition
    from pydantic_ai.usage import RequestUsage

__all__ = [
    "asked_for", "given_settings", "model_call", "outcome_of", "question_of", "results_in", "texts_of", "usage_of",
]  # fmt: skip

Json = Mapping[str, object]

_UNBOUNDED = frozenset({"audio-url", "document-url", "uploaded-file", "video-url"})
_NOT_SENT = frozenset({"metadata", "timestamp"})


def model_call(
    model: Model, messages: list[ModelMessage], settings: ModelSettings | None, params: ModelRequestParameters
) -> ModelCall:
    """One request to a model, measured by Pydantic AI's own form of it, which holds all the texts that are sent."""
    given = given_settings(model, settings)
    count = _Count()
    # First what is the same in every request, so that a longer conversation begins as the shorter one did.
    for instructions in _instructions(messages, params):
        count.texts.append(instructions)
    for message in cast("list[Json]", ModelMessagesTypeAdapter.dump_python(messages, mode="json", fallback=repr)):
        count.texts.append(_json(count.pruned(message.get("parts"))))
    tools = [_tool(tool) for tool in (*params.function_tools, *params.output_tools)]
    if params.output_object is not None:
        tools.append(_json(params.output_object.json_schema))
    for hosted in params.native_tools:
        count.unbounded = f"the tool {hosted.kind}"
    prompt = Prompt(
        texts=tuple(count.texts), messages=len(messages) + 1, tools=tuple(tools), images=count.images,
        unbounded=count.unbounded, pictures=tuple(count.pictures),
    )  # fmt: skip
    return ModelCall(
        model=model.model_name, provider=_provider(model), region=_region(model), service_tier=tier_of(given),
        prompt=with_settings(prompt, given),
        max_tokens=cap_of(given), n=answers_of(given), can_cap=can_cap(given),
        cache_write=count.cache or any("cache" in key and value for key, value in given.items()),
    )  # fmt: skip


def given_settings(model: Model, settings: ModelSettings | None) -> Json:
    """The settings of a request, and below them the model's own."""
    return cast("Json", {**(model.settings or {}), **(settings or {})})


def question_of(prompt: object) -> str:
    """What the agent was asked."""
    return prompt if isinstance(prompt, str) else "" if prompt is None else repr(prompt)


def results_in(messages: list[ModelMessage]) -> Iterable[tuple[str, ToolOutcome]]:
    """The results of tool calls in the newest request."""
    last = messages[-1] if messages else None
    for part in last.parts if isinstance(last, ModelRequest) else ():
        if isinstance(part, ToolReturnPart):
            yield part.tool_call_id, ToolOutcome(ok=part.outcome == "success", result=outcome_of(part.content).result)
        elif part.part_kind == "retry-prompt" and part.tool_name is not None:
            yield part.tool_call_id, ToolOutcome(ok=False, result=part.model_response())


def outcome_of(result: object) -> ToolOutcome:
    """What a tool gave back."""
    value: object = getattr(result, "return_value", result)
    if value is None or isinstance(value, str | int | float | bool | list | tuple | dict):
        return ToolOutcome(ok=True, result=cast("object", value))
    dump: object = getattr(value, "model_dump", None)
    return ToolOutcome(ok=True, result=dump(mode="json") if callable(dump) else str(value))


def asked_for(answer: ModelResponse) -> Iterable[tuple[str, object, str]]:
    """The tool calls in an answer, those for its output included."""
    for part in answer.parts:
        if isinstance(part, ToolCallPart):
            yield part.tool_name, part.args, part.tool_call_id


def texts_of(answer: ModelResponse) -> Iterable[str]:
    """What had arrived of an answer."""
    for part in answer.parts:
        if isinstance(part, TextPart | ThinkingPart):
            yield part.content
        elif isinstance(part, ToolCallPart):
            yield part.tool_name
            yield part.args_as_json_str()


def usage_of(usage: RequestUsage) -> Usage | None:
    """What was used, if anything was reported: Pydantic AI makes zeros of nothing, and no prompt has no tokens."""
    if usage.input_tokens == 0:
        return None
    hour = _count(usage, "cache_write_1h_tokens", "ephemeral_1h_input_tokens")
    try:
        return Usage(
            input_tokens=usage.input_tokens, cache_read_tokens=usage.cache_read_tokens,
            cache_write_5m_tokens=usage.cache_write_tokens - hour, cache_write_1h_tokens=hour,
            input_audio_tokens=usage.input_audio_tokens, cache_read_audio_tokens=usage.cache_audio_read_tokens,
            output_tokens=usage.output_tokens, output_audio_tokens=_count(usage, "output_audio_tokens"),
            reasoning_tokens=_count(usage, "output_reasoning_tokens", "reasoning_tokens"),
        )  # fmt: skip
    except ValueError:  # counts that cannot be true: the call is settled at the hold
        return None


class _Count:
    """What the messages hold beside text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.images = 0
        self.pictures: list[int] = []
        self.cache = False
        self.unbounded: str | None = None

    def pruned(self, value: object) -> object:
        """The value without media, which are counted."""
        if isinstance(value, list):
            return [self.pruned(one) for one in cast("list[object]", value)]
        if not isinstance(value, Mapping):
            return value
        known = cast("Json", value)
        kind = known.get("kind")
        media = str(known.get("media_type") or "")
        if kind == "image-url" or (kind == "binary" and media.startswith("image/")):
            self.images += 1
            self.pictures.append(picture(known))
        elif kind == "binary" or kind in _UNBOUNDED:
            self.unbounded = media if kind == "binary" else str(kind)
        elif kind == "cache-point":
            self.cache = True
        else:
            return {key: self.pruned(one) for key, one in known.items() if key not in _NOT_SENT}
        return None


def _instructions(messages: list[ModelMessage], params: ModelRequestParameters) -> Iterable[str]:
    parts = params.instruction_parts
    if parts:
        yield from (part.content for part in parts)
    else:
        said = [one.instructions for one in messages if isinstance(one, ModelRequest) and one.instructions]
        yield from said[-1:]
    if params.prompted_output_instructions:
        yield params.prompted_output_instructions


def _tool(tool: ToolDefinition) -> str:
    shown = {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema,
        "returns": getattr(tool, "return_schema", None),
    }  # fmt: skip
    return _json(shown)


def _provider(model: Model) -> str | None:
    """Whose prices apply: many servers speak OpenAI's wire."""
    if model.system != "openai":
        return model.system
    return "openai" if urlsplit(model.base_url or "").hostname == "api.openai.com" else None


def _region(model: Model) -> str | None:
    """Where Bedrock is asked: prices depend on it."""
    if model.system != "bedrock":
        return None
    region: object = getattr(getattr(getattr(model, "client", None), "meta", None), "region_name", None)
    return region if isinstance(region, str) else None


def _count(usage: RequestUsage, name: str, detail: str = "") -> int:
    """A count that older versions keep among the details."""
    told: object = getattr(usage, name, 0) or usage.details.get(detail, 0)
    return told if isinstance(told, int) else 0


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)
