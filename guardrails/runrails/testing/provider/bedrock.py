"""
Amazon Bedrock Runtime: Converse and ConverseStream for any model, InvokeModel for Anthropic's and, in one form for all,
for models that take a prompt (docs.aws.amazon.com, Bedrock API reference). Signatures are not checked.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from runrails.testing.provider import anthropic
from runrails.testing.provider.eventstream import frame
from runrails.testing.provider.values import Error, Json, ProviderMessage, ProviderRequest, ToolUse
from runrails.testing.provider.wire import (
    BadRequest,
    Dialect,
    Part,
    Received,
    as_int,
    as_list,
    as_map,
    as_text,
    compact,
    content_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runrails.testing.provider.reply import Reply
    from runrails.usage import Usage

__all__ = ["CONVERSE", "INVOKE"]

_STREAM_TYPE = "application/vnd.amazon.eventstream"
_STOP = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use"}
_NAMES = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
_LATENCY_MS = 20


def _parse(received: Received) -> ProviderRequest:
    if not received.model:
        raise BadRequest("modelId is required")
    body = received.body
    return ProviderRequest(
        wire="bedrock",
        path=received.path,
        number=received.number,
        model=received.model,
        messages=tuple(_messages(body)),
        tools=tuple(compact(tool).decode() for tool in as_list(as_map(body.get("toolConfig")).get("tools"))),
        max_tokens=as_int(as_map(body.get("inferenceConfig")).get("maxTokens")),
        stream=received.stream,
        headers=received.headers,
        body=body,
    )


def _messages(body: Mapping[str, Json]) -> Iterator[ProviderMessage]:
    if system := content_text(body.get("system")):
        yield ProviderMessage(role="system", text=system)
    for message in map(as_map, as_list(body.get("messages"))):
        blocks = [as_map(block) for block in as_list(message.get("content"))]
        uses = tuple(_tool_use(as_map(block["toolUse"])) for block in blocks if "toolUse" in block)
        results = [as_map(block["toolResult"]) for block in blocks if "toolResult" in block]
        text = content_text(message.get("content"))
        if text or uses or not results:
            yield ProviderMessage(role=as_text(message.get("role")), text=text, tool_uses=uses)
        for result in results:
            call_id = as_text(result.get("toolUseId")) or None
            yield ProviderMessage(role="tool", text=_result_text(result), tool_call_id=call_id)


def _tool_use(block: Mapping[str, Json]) -> ToolUse:
    return ToolUse(as_text(block.get("name")), as_map(block.get("input")), as_text(block.get("toolUseId")))


def _result_text(result: Mapping[str, Json]) -> str:
    blocks = [as_map(block) for block in as_list(result.get("content"))]
    return "".join(json.dumps(block["json"]) if "json" in block else as_text(block.get("text")) for block in blocks)


def _usage(usage: Usage) -> dict[str, Json]:
    # inputTokens leaves the cache parts out, and totalTokens is the sum of what is shown: never the true total.
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    plain = usage.input_tokens - usage.cache_read_tokens - written
    shown: dict[str, Json] = {
        "inputTokens": plain,
        "outputTokens": usage.output_tokens,
        "totalTokens": plain + usage.output_tokens,
    }
    if usage.cache_read_tokens or written:
        shown |= {"cacheReadInputTokens": usage.cache_read_tokens, "cacheWriteInputTokens": written}
    if written:
        ttls = {"5m": usage.cache_write_5m_tokens, "1h": usage.cache_write_1h_tokens}
        shown["cacheDetails"] = [{"ttl": ttl, "inputTokens": count} for ttl, count in ttls.items() if count]
    return shown


def _reported(reply: Reply) -> dict[str, Json]:
    if reply.report == "none":
        return {}
    return {"usage": reply.wire_usage if reply.wire_usage is not None else _usage(reply.usage)}


def _whole(request: ProviderRequest, reply: Reply) -> bytes:
    """The answer names no model: a price has to go by the one that was asked for."""
    del request
    content: list[Json] = []
    if reply.text or not reply.tool_uses:
        content.append({"text": reply.text})
    for use in reply.tool_uses:
        asked: Json = json.loads(use.args_json)
        content.append({"toolUse": {"toolUseId": use.id, "name": use.name, "input": asked}})
    return compact(
        {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _STOP[reply.finish],
            **_reported(reply),
            "metrics": {"latencyMs": _LATENCY_MS},
        }
    )


def _event(kind: str, payload: Mapping[str, Json], *, content: bool = False) -> Part:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return Part(frame(headers, compact(payload)), content)


def _parts(request: ProviderRequest, reply: Reply) -> Iterator[Part]:
    del request
    yield _event("messageStart", {"role": "assistant"})
    place = 0
    if reply.text or not reply.tool_uses:
        for piece in reply.pieces():
            yield _event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}, content=True)
        yield _event("contentBlockStop", {"contentBlockIndex": 0})
        place = 1
    for use in reply.tool_uses:
        start: dict[str, Json] = {"toolUse": {"toolUseId": use.id, "name": use.name}}
        yield _event("contentBlockStart", {"contentBlockIndex": place, "start": start})
        for piece in reply.argument_pieces(use):
            delta: dict[str, Json] = {"toolUse": {"input": piece}}
            yield _event("contentBlockDelta", {"contentBlockIndex": place, "delta": delta}, content=True)
        yield _event("contentBlockStop", {"contentBlockIndex": place})
        place += 1
    yield _event("messageStop", {"stopReason": _STOP[reply.finish]})
    yield _event("metadata", {**_reported(reply), "metrics": {"latencyMs": _LATENCY_MS}})


def _name(error: Error) -> str:
    return error.code or _NAMES.get(error.status, "InternalServerException")


def _error(error: Error, number: int) -> tuple[Mapping[str, str], bytes]:
    headers = {"x-amzn-errortype": _name(error), "x-amzn-requestid": f"{number:06d}"}
    return headers, compact({"message": error.message})


def _error_part(error: Error) -> Part:
    name = _name(error)
    headers = {
        ":exception-type": name[:1].lower() + name[1:],
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return Part(frame(headers, compact({"message": error.message})))


CONVERSE = Dialect(
    wire="bedrock",
    stream_type=_STREAM_TYPE,
    parse=_parse,
    whole=_whole,
    parts=_parts,
    error=_error,
    error_part=_error_part,
    reply_headers=lambda reply: {"x-amzn-requestid": reply.id},
)


def _invoke_parse(received: Received) -> ProviderRequest:
    if "anthropic_version" in received.body:
        return replace(anthropic.DIALECT.parse(received), wire="bedrock_invoke", stream=received.stream)
    asked = _parse(received)
    text = "".join(content_text(received.body.get(name)) for name in ("prompt", "inputText", "message", "texts"))
    return replace(
        asked,
        wire="bedrock_invoke",
        messages=asked.messages or (ProviderMessage(role="user", text=text),),
        max_tokens=_cap(received.body),
    )


def _cap(body: Mapping[str, Json]) -> int | None:
    places = (body, as_map(body.get("textGenerationConfig")), as_map(body.get("inferenceConfig")))
    names = ("max_gen_len", "max_tokens", "max_completion_tokens", "maxTokenCount", "maxTokens", "max_new_tokens")
    return next((cap for place in places for name in names if (cap := as_int(place.get(name))) is not None), None)


def _invoke_whole(request: ProviderRequest, reply: Reply) -> bytes:
    """Anthropic's message, or what Llama would answer: the forms of other makers are not imitated."""
    if "anthropic_version" in request.body:
        return anthropic.DIALECT.whole(request, reply)
    return compact({"generation": reply.text, "stop_reason": reply.finish})


def _invoke_parts(request: ProviderRequest, reply: Reply) -> Iterator[Part]:
    """The maker's own events, each as bytes inside a `chunk` event; the last one has Bedrock's metrics beside it."""
    events = anthropic.invoke_events(request, reply) if "anthropic_version" in request.body else _generated(reply)
    for event, content in events:
        shown = {**event, **_metrics(reply)} if event.get("type") == "message_stop" or "stop_reason" in event else event
        yield _event("chunk", {"bytes": base64.b64encode(compact(shown)).decode()}, content=content)


def _generated(reply: Reply) -> Iterator[tuple[dict[str, Json], bool]]:
    for piece in reply.pieces():
        yield {"generation": piece}, True
    yield {"generation": "", "stop_reason": reply.finish}, False


def _metrics(reply: Reply) -> Mapping[str, Json]:
    if reply.report == "none":
        return {}
    shown = _usage(reply.usage)
    metrics: dict[str, Json] = {
        "inputTokenCount": shown["inputTokens"],
        "outputTokenCount": shown["outputTokens"],
        "invocationLatency": _LATENCY_MS,
        "firstByteLatency": _LATENCY_MS,
    }
    if "cacheReadInputTokens" in shown:
        metrics["cacheReadInputTokenCount"] = shown["cacheReadInputTokens"]
        metrics["cacheWriteInputTokenCount"] = shown["cacheWriteInputTokens"]
    return {"amazon-bedrock-invocationMetrics": metrics}


def _invoke_headers(reply: Reply) -> Mapping[str, str]:
    """The input count leaves the cache out, as in Converse."""
    headers = {"x-amzn-requestid": reply.id}
    if reply.report == "none":
        return headers
    shown = _usage(reply.usage)
    names = {
        "input": "inputTokens",
        "output": "outputTokens",
        "cache-read-input": "cacheReadInputTokens",
        "cache-write-input": "cacheWriteInputTokens",
    }
    counts = {f"x-amzn-bedrock-{name}-token-count": str(shown[key]) for name, key in names.items() if key in shown}
    return {**headers, **counts}


INVOKE = Dialect(
    wire="bedrock_invoke",
    stream_type=_STREAM_TYPE,
    parse=_invoke_parse,
    whole=_invoke_whole,
    parts=_invoke_parts,
    error=_error,
    error_part=_error_part,
    reply_headers=_invoke_headers,
)
