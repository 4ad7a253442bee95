"""Chat completions of OpenAI as Converse, and back. Pure."""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, cast

from runrails_gateway.bedrock.parts import Turns, image, list_of, map_of, numbers, only, spoken, stops, text_of
from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from runrails_gateway.bedrock.parts import Body, Json

__all__ = ["FINISHED", "chat_answer", "chat_request", "chat_usage"]

_KNOWN = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
     "stop", "tools", "tool_choice"}
)  # fmt: skip
_INDIFFERENT: dict[str, tuple[object, ...]] = {
    "n": (1,), "user": (), "metadata": (), "store": (False,), "parallel_tool_calls": (True,), "logprobs": (False,),
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "safety_identifier": (),
    "prompt_cache_key": (), "response_format": ({"type": "text"},), "service_tier": ("auto", "default"),
}  # fmt: skip
"""Members that may be left out on the way, with these values; without any, whatever they are."""
FINISHED = {
    "end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length",
    "model_context_window_exceeded": "length", "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}  # fmt: skip


def chat_request(body: Body) -> Json:
    """
    The body of Converse for a chat completion.

    Raises:
        BadRequest: It asks for what Converse has not, or is malformed.
    """
    only(body, _KNOWN, _INDIFFERENT)
    turns = Turns()
    system: list[Json] = []
    for message in list_of(body.get("messages")):
        _add(message, turns, system)
    made: Json = {"messages": turns.messages}
    if system:
        made["system"] = system
    config = numbers(body, {"temperature": "temperature", "top_p": "topP"})
    newer = body.get("max_completion_tokens") is not None
    config |= numbers(body, {"max_completion_tokens" if newer else "max_tokens": "maxTokens"})
    ending = stops(body.get("stop"), "stop")
    if ending:
        config["stopSequences"] = ending
    if config:
        made["inferenceConfig"] = config
    tools = _tools(body)
    if tools:
        made["toolConfig"] = tools
    return made


def _add(message: Body, turns: Turns, system: list[Json]) -> None:
    match message.get("role"):
        case "system" | "developer":
            system += _content(message.get("content"), pictures=False)
        case "user":
            turns.add("user", _content(message.get("content"), pictures=True))
        case "assistant":
            turns.add("assistant", _content(message.get("content"), pictures=False) + _calls(message))
        case "tool":
            result = _content(message.get("content"), pictures=True) or [{"text": "(empty)"}]
            told = {"toolUseId": text_of(message.get("tool_call_id"), "messages"), "content": result}
            turns.add("user", [{"toolResult": told}])
        case _:
            raise BadRequest("invalid_role", "A message has a role that does not exist.", param="messages")


def _content(content: object, *, pictures: bool) -> list[Json]:
    if content is None:
        return []
    if isinstance(content, str):
        return spoken(content)
    made: list[Json] = []
    for part in list_of(content):
        kind = part.get("type")
        if kind in {"text", "refusal"}:
            made += spoken(text_of(part.get(str(kind)), "messages"))
        elif kind == "image_url" and pictures:
            made.append(_picture(text_of(map_of(part.get("image_url")).get("url"), "messages")))
        else:
            raise BadRequest("unsupported_content", "A message has content that Bedrock is not sent.", param="messages")
    return made


def _picture(url: str) -> Json:
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise BadRequest(
            "unsupported_content", "Bedrock fetches no pictures.", param="messages",
            next_step="Send the picture itself, as a data: URL.",
        )  # fmt: skip
    return image(head.removeprefix("data:").removesuffix(";base64"), data, "messages")


def _calls(message: Body) -> list[Json]:
    made: list[Json] = []
    for call in list_of(message.get("tool_calls")):
        function = map_of(call.get("function"))
        made.append(
            {
                "toolUse": {
                    "toolUseId": text_of(call.get("id"), "messages"),
                    "name": text_of(function.get("name"), "messages"),
                    "input": _arguments(function.get("arguments")),
                }
            }
        )
    return made


def _arguments(given: object) -> object:
    text = text_of(given, "messages")
    try:
        found: object = json.loads(text, parse_constant=_finite, parse_float=_finite) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadRequest("invalid_arguments", "The arguments of a tool call are no JSON object.", param="messages")
    return cast("object", found)


def _finite(text: str) -> float:
    """A number that JSON has, and not only Python. Raises ValueError."""
    number = float(text)
    if not isfinite(number):
        raise ValueError("no number of JSON's")
    return number


def _tools(body: Body) -> Json:
    choice = body.get("tool_choice")
    specs: list[Json] = []
    for tool in list_of(body.get("tools")):
        if tool.get("type") != "function":
            raise BadRequest("unsupported_tool", "Models on Bedrock take tools of type function.", param="tools")
        function = map_of(tool.get("function"))
        spec: Json = {"name": text_of(function.get("name"), "tools")}
        if function.get("description"):
            spec["description"] = text_of(function["description"], "tools")
        spec["inputSchema"] = {"json": function.get("parameters") or {"type": "object", "properties": {}}}
        specs.append({"toolSpec": spec})
    if not specs:
        return {}
    if choice == "none":
        # Converse has no such word; without the tools it would not understand the calls that were made before.
        raise BadRequest("unsupported_parameter", "Converse cannot forbid tools.", param="tool_choice")
    made: Json = {"tools": specs}
    if choice == "required":
        made["toolChoice"] = {"any": {}}
    elif choice is not None and choice != "auto":
        name = map_of(map_of(choice).get("function")).get("name")
        made["toolChoice"] = {"tool": {"name": text_of(name, "tool_choice")}}
    return made


def chat_usage(told: Body) -> Json:
    """Converse's report as OpenAI has it: what the cache read and was written is inside the prompt."""
    read, written = _count(told, "cacheReadInputTokens"), _count(told, "cacheWriteInputTokens")
    entered, left = _count(told, "inputTokens") + read + written, _count(told, "outputTokens")
    details: Json = {"cached_tokens": read}
    if written:
        details["cache_write_tokens"] = written
    return {
        "prompt_tokens": entered, "completion_tokens": left, "total_tokens": entered + left,
        "prompt_tokens_details": details,
    }  # fmt: skip


def chat_answer(told: Body, *, model: str, answer_id: str, created_s: int) -> Json:
    """A chat completion of Converse's answer."""
    texts: list[str] = []
    calls: list[Json] = []
    for part in list_of(map_of(map_of(told.get("output")).get("message")).get("content")):
        if isinstance(part.get("text"), str):
            texts.append(cast("str", part["text"]))
        use = map_of(part.get("toolUse"))
        if use:
            arguments = json.dumps(use.get("input"), ensure_ascii=False, separators=(",", ":"))
            calls.append(
                {"id": use.get("toolUseId"), "type": "function",
                 "function": {"name": use.get("name"), "arguments": arguments}}
            )  # fmt: skip
    message: Json = {"role": "assistant", "content": "".join(texts) or None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    finished = FINISHED.get(str(told.get("stopReason")), "stop")
    made: Json = {
        "id": answer_id, "object": "chat.completion", "created": created_s, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finished}],
    }  # fmt: skip
    usage = map_of(told.get("usage"))
    if usage:
        made["usage"] = chat_usage(usage)
    return made


def _count(told: Body, name: str) -> int:
    found = told.get(name)
    return found if type(found) is int else 0
