"""What the SDK is about to send and what came back, made into what goes through the door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from agents import FunctionTool

from runrails.calls import ModelCall, ToolOutcome
from runrails.request_wire import openai_chat, openai_responses
from runrails.usage_wire import UsageMalformed, from_openai_responses

if TYPE_CHECKING:
    from agents import AgentOutputSchemaBase, Handoff, Model, ModelSettings, Tool, Usage
    from agents.items import TResponseInputItem, TResponseOutputItem

    from runrails.calls import Prompt
    from runrails.usage import Usage as Tokens

__all__ = ["asked_for", "model_call", "question_of", "results_in", "usage_of", "with_cap"]

Json = Mapping[str, object]

_CAPS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
"""Names of the cap on output tokens; which of them counts depends on the wire."""
_NOT_SEEN = ("input", "messages", "models", "plugins", "preset", "web_search_options")
"""What would replace what is measured here, or add to it at the provider's; an empty object asks for it too."""


def model_call(
    model: Model,
    instructions: str | None,
    given: str | list[TResponseInputItem],
    settings: ModelSettings,
    tools: Iterable[Tool],
    schema: AgentOutputSchemaBase | None,
    handoffs: Iterable[Handoff[Any, Any]],
    stored: Iterable[object],
) -> ModelCall:
    """
    One call of a model.

    It is measured as the request of the responses API that it comes from; other models are sent the same texts, in
    other frames. What the provider keeps of earlier answers (`stored`) is bounded by the model's context alone.
    """
    body: dict[str, object] = {
        "model": getattr(model, "model", None), "instructions": instructions, "input": given,
        "max_output_tokens": settings.max_tokens, "reasoning": settings.reasoning,
        "tools": [*map(_tool, tools), *map(_handoff, handoffs)],
        "previous_response_id": next((one for one in stored if one), None),
    }  # fmt: skip
    if schema is not None and not schema.is_plain_text():
        body["text"] = {"type": "json_schema", "name": schema.name(), "schema": schema.json_schema()}
    extras: dict[str, object] = {}
    for extra in (settings.extra_args, settings.extra_body):
        if isinstance(extra, Mapping):
            extras |= cast("Json", extra)
    wire = openai_responses(body | extras)
    caps = [extras[name] for name in _CAPS if extras.get(name) is not None]
    return ModelCall(
        model=wire.model, prompt=_with_extras(wire.prompt, extras), n=wire.n,
        # A cap that is sent beside the settings' own is not lowered by lowering that.
        max_tokens=_largest([settings.max_tokens, *caps]), can_cap=not caps,
    )  # fmt: skip


def with_cap(settings: ModelSettings, cap: int | None) -> ModelSettings:
    """The settings with a smaller cap on the output, if there is one."""
    return settings if cap is None else replace(settings, max_tokens=cap)


def question_of(given: object) -> str:
    """What the agent was asked: the newest text of a person. A run that was interrupted still answers that."""
    given = getattr(given, "_original_input", given)
    if isinstance(given, str):
        return given
    for item in reversed(cast("list[object]", given)) if isinstance(given, list) else ():
        if isinstance(item, Mapping) and cast("Json", item).get("role") == "user":
            return repr(cast("Json", item).get("content"))
    return ""


def results_in(given: str | list[TResponseInputItem]) -> Iterable[tuple[str, ToolOutcome]]:
    """The results of tool calls at the end of the input, after the model's newest answer."""
    for item in reversed(given) if isinstance(given, list) else ():
        known = cast("Json", item)
        kind, call_id = known.get("type"), known.get("call_id")
        if not isinstance(kind, str) or not kind.endswith("_output") or not isinstance(call_id, str):
            return
        yield call_id, ToolOutcome(ok=True, result=known.get("output"))


def asked_for(output: Iterable[TResponseOutputItem]) -> Iterable[tuple[str, object, str]]:
    """The tool calls and handoffs that an answer asks for."""
    for item in output:
        call_id: object = getattr(item, "call_id", None)
        if isinstance(call_id, str):
            args: object = getattr(item, "arguments", None) or getattr(item, "input", None)
            yield str(getattr(item, "name", item.type)), args, call_id


def usage_of(usage: Usage) -> Tokens | None:
    """What was used, if anything was reported: the SDK makes zeros of nothing, and no prompt has no tokens."""
    if usage.input_tokens == 0:
        return None
    entered, left = usage.input_tokens_details, usage.output_tokens_details
    told = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_tokens_details": {
            "cached_tokens": entered.cached_tokens,
            "cache_write_tokens": getattr(entered, "cache_write_tokens", 0),
        },
        "output_tokens_details": {"reasoning_tokens": left.reasoning_tokens},
    }
    try:
        return from_openai_responses(told)
    except UsageMalformed:
        return None


def _with_extras(prompt: Prompt, extras: Json) -> Prompt:
    """The prompt, with what chat completions may have beside what the responses API has."""
    if not extras:
        return prompt
    replaced = next((name for name in _NOT_SEEN if extras.get(name) is not None), None)
    other = None if replaced is None else f"{replaced} beside what the agent sends"
    unbounded = other or prompt.unbounded or openai_chat(extras).prompt.unbounded
    return replace(prompt, unbounded=unbounded)


def _largest(caps: Iterable[object]) -> int | None:
    """The largest cap; a nonsensical one is passed on, and the bound refuses it by name."""
    given = [cap for cap in caps if cap is not None]
    odd = next((cap for cap in given if type(cap) is not int), None)
    return cast("int", odd) if odd is not None else max(cast("list[int]", given), default=None)


def _tool(tool: Tool) -> Json:
    """A tool as it is sent. Those that the provider executes have their own kind, which nobody can bound."""
    if isinstance(tool, FunctionTool):
        return {
            "type": "function", "name": tool.name, "description": tool.description,
            "parameters": tool.params_json_schema, "returns": getattr(tool, "output_json_schema", None),
            "namespace": getattr(tool, "_tool_namespace_description", None), "strict": tool.strict_json_schema,
        }  # fmt: skip
    config: object = getattr(tool, "tool_config", None)
    return cast("Json", config) if isinstance(config, Mapping) else {"type": tool.name}


def _handoff(handoff: Handoff[Any, Any]) -> Json:
    return {
        "type": "function", "name": handoff.tool_name, "description": handoff.tool_description,
        "parameters": handoff.input_json_schema, "strict": handoff.strict_json_schema,
    }  # fmt: skip
