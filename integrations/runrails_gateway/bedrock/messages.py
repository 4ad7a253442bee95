"""Messages of Anthropic as Converse, and back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails_gateway.bedrock.parts import Turns, image, list_of, map_of, numbers, only, spoken, stops, text_of
from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from runrails_gateway.bedrock.parts import Body, Json

__all__ = ["STOPPED", "messages_answer", "messages_request", "messages_usage"]

_KNOWN = frozenset(
    {"model", "messages", "stream", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "system", "tools",
     "tool_choice", "thinking"}
)  # fmt: skip
_INDIFFERENT: dict[str, tuple[object, ...]] = {"metadata": (), "service_tier": ("auto", "standard_only")}
STOPPED = {
    "end_turn": "end_turn", "stop_sequence": "stop_sequence", "tool_use": "tool_use", "max_tokens": "max_tokens",
    "model_context_window_exceeded": "model_context_window_exceeded", "guardrail_intervened": "refusal",
    "content_filtered": "refusal",
}  # fmt: skip


def messages_request(body: Body) -> Json:
    """
    The body of Converse for a message.

    Raises:
        BadRequest: It asks for what Converse has not, or is malformed.
    """
    only(body, _KNOWN, _INDIFFERENT)
    turns = Turns()
    for message in list_of(body.get("messages")):
        role = message.get("role")
        if role not in {"user", "assistant"}:
            raise BadRequest("invalid_role", "A message has a role that does not exist.", param="messages")
        turns.add(str(role), _content(message.get("content")))
    made: Json = {"messages": turns.messages}
    system = _content(body.get("system"))
    if system:
        made["system"] = system
    config = numbers(body, {"max_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"})
    ending = stops(body.get("stop_sequences"), "stop_sequences")
    if ending:
        config["stopSequences"] = ending
    made["inferenceConfig"] = config
    more = numbers(body, {"top_k": "top_k"})
    if body.get("thinking") is not None:
        more["thinking"] = dict(map_of(body["thinking"]))
    if more:
        made["additionalModelRequestFields"] = more
    tools = _tools(body)
    if tools:
        made["toolConfig"] = tools
    return made


def _content(content: object) -> list[Json]:
    if content is None:
        return []
    if isinstance(content, str):
        return spoken(content)
    made: list[Json] = []
    for part in list_of(content):
        made += _part(part)
        made += _cached(part)
    return made


def _cached(part: Body) -> list[Json]:
    """The point up to which a request is kept, where Anthropic marks what stands before it."""
    asked = map_of(part.get("cache_control"))
    if not asked:
        return []
    point: Json = {"type": "default"}
    if asked.get("ttl") in {"5m", "1h"}:
        point["ttl"] = asked["ttl"]
    return [{"cachePoint": point}]


def _part(part: Body) -> list[Json]:
    match part.get("type"):
        case "text":
            return spoken(text_of(part.get("text"), "messages"))
        case "image":
            source = map_of(part.get("source"))
            if source.get("type") != "base64":
                raise BadRequest("unsupported_content", "Bedrock fetches no pictures.", param="messages")
            kind, data = text_of(source.get("media_type"), "messages"), text_of(source.get("data"), "messages")
            return [image(kind, data, "messages")]
        case "tool_use":
            use = {"toolUseId": text_of(part.get("id"), "messages"), "name": text_of(part.get("name"), "messages")}
            return [{"toolUse": {**use, "input": dict(map_of(part.get("input")))}}]
        case "tool_result":
            result = _content(part.get("content")) or [{"text": "(empty)"}]
            told: Json = {"toolUseId": text_of(part.get("tool_use_id"), "messages"), "content": result}
            if part.get("is_error"):
                told["status"] = "error"
            return [{"toolResult": told}]
        case "thinking":
            thought = {"text": text_of(part.get("thinking"), "messages")}
            signed = {"signature": part["signature"]} if isinstance(part.get("signature"), str) else {}
            return [{"reasoningContent": {"reasoningText": {**thought, **signed}}}]
        case "redacted_thinking":
            return [{"reasoningContent": {"redactedContent": text_of(part.get("data"), "messages")}}]
        case _:
            raise BadRequest("unsupported_content", "A message has content that Bedrock is not sent.", param="messages")


def _tools(body: Body) -> Json:
    specs: list[Json] = []
    for tool in list_of(body.get("tools")):
        if tool.get("type") not in {None, "custom"}:
            raise BadRequest("unsupported_tool", "Models on Bedrock take tools of the client's own.", param="tools")
        spec: Json = {"name": text_of(tool.get("name"), "tools")}
        if tool.get("description"):
            spec["description"] = text_of(tool["description"], "tools")
        spec["inputSchema"] = {"json": dict(map_of(tool.get("input_schema")))}
        specs.append({"toolSpec": spec})
        specs += _cached(tool)
    if not specs:
        return {}
    made: Json = {"tools": specs}
    choice = map_of(body.get("tool_choice"))
    match choice.get("type"):
        case None | "auto":
            pass
        case "any":
            made["toolChoice"] = {"any": {}}
        case "tool":
            made["toolChoice"] = {"tool": {"name": text_of(choice.get("name"), "tool_choice")}}
        case _:
            raise BadRequest("unsupported_parameter", "Converse cannot forbid tools.", param="tool_choice")
    return made


def messages_usage(told: Body) -> Json:
    """Converse's report as Anthropic has it: what the cache read and was written is beside the input."""
    usage: Json = {
        "input_tokens": _count(told, "inputTokens"), "output_tokens": _count(told, "outputTokens"),
        "cache_read_input_tokens": _count(told, "cacheReadInputTokens"),
        "cache_creation_input_tokens": _count(told, "cacheWriteInputTokens"),
    }  # fmt: skip
    written = {each.get("ttl"): _count(each, "inputTokens") for each in list_of(told.get("cacheDetails"))}
    if written:  # what is kept for an hour is dearer
        usage["cache_creation"] = {
            f"ephemeral_{ttl}_input_tokens": written.get(ttl, 0) for ttl in ("5m", "1h")
        }  # fmt: skip
    return usage


def messages_answer(told: Body, *, model: str, answer_id: str) -> Json:
    """A message of Converse's answer."""
    content: list[Json] = []
    for part in list_of(map_of(map_of(told.get("output")).get("message")).get("content")):
        content += _answered(part)
    made: Json = {
        "id": answer_id, "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": STOPPED.get(str(told.get("stopReason")), "end_turn"), "stop_sequence": None,
    }  # fmt: skip
    usage = map_of(told.get("usage"))
    if usage:
        made["usage"] = messages_usage(usage)
    return made


def _answered(part: Body) -> list[Json]:
    if isinstance(part.get("text"), str):
        return [{"type": "text", "text": part["text"]}]
    use = map_of(part.get("toolUse"))
    if use:
        return [{"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name"), "input": use.get("input")}]
    thought = map_of(part.get("reasoningContent"))
    reasoned = map_of(thought.get("reasoningText"))
    if reasoned:
        return [{"type": "thinking", "thinking": reasoned.get("text"), "signature": reasoned.get("signature") or ""}]
    if isinstance(thought.get("redactedContent"), str):
        return [{"type": "redacted_thinking", "data": thought["redactedContent"]}]
    return []


def _count(told: Body, name: str) -> int:
    found = told.get(name)
    return found if type(found) is int else 0
