"""Anthropic messages, plain and streamed, and token counting (docs.claude.com, API reference, "Messages")."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runrails.testing.provider.reply import Reply, input_tokens
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
    sse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runrails.usage import Usage

__all__ = ["DIALECT", "anthropic_error_body", "invoke_events", "tokens_counted"]

_STOP = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def _parse(received: Received) -> ProviderRequest:
    body = received.body
    model = received.model or as_text(body.get("model"))
    if not model:
        raise BadRequest("model: Field required")
    if "max_tokens" not in body and not received.path.endswith("/count_tokens"):
        raise BadRequest("max_tokens: Field required")
    return ProviderRequest(
        wire="anthropic",
        path=received.path,
        number=received.number,
        model=model,
        messages=tuple(_messages(body)),
        tools=tuple(compact(tool).decode() for tool in as_list(body.get("tools"))),
        max_tokens=as_int(body.get("max_tokens")),
        stream=received.stream or body.get("stream") is True,
        headers=received.headers,
        body=body,
    )


def _messages(body: Mapping[str, Json]) -> Iterator[ProviderMessage]:
    if system := content_text(body.get("system")):
        yield ProviderMessage(role="system", text=system)
    for message in map(as_map, as_list(body.get("messages"))):
        content = message.get("content")
        blocks = [as_map(block) for block in as_list(content)]
        uses = tuple(_tool_use(block) for block in blocks if block.get("type") == "tool_use")
        text = content_text(content)
        results = [block for block in blocks if block.get("type") == "tool_result"]
        if text or uses or not results:
            yield ProviderMessage(role=as_text(message.get("role")), text=text, tool_uses=uses)
        for block in results:
            call_id = as_text(block.get("tool_use_id")) or None
            yield ProviderMessage(role="tool", text=content_text(block.get("content")), tool_call_id=call_id)


def _tool_use(block: Mapping[str, Json]) -> ToolUse:
    return ToolUse(as_text(block.get("name")), as_map(block.get("input")), as_text(block.get("id")))


def _usage(usage: Usage) -> dict[str, Json]:
    # input_tokens leaves the cache parts out here; whoever reads it as a total bills too little.
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    shown: dict[str, Json] = {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }
    if usage.reasoning_tokens:
        shown["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return shown


def _reported(reply: Reply) -> dict[str, Json]:
    """The `usage` member of a message, or nothing at all."""
    if reply.report == "none":
        return {}
    return {"usage": reply.wire_usage if reply.wire_usage is not None else _usage(reply.usage)}


def _message(reply: Reply, *, content: list[Json], stop: str | None) -> dict[str, Json]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    }


def _whole(request: ProviderRequest, reply: Reply) -> bytes:
    del request
    content: list[Json] = []
    if reply.text or not reply.tool_uses:
        content.append({"type": "text", "text": reply.text})
    content.extend(
        {"type": "tool_use", "id": use.id, "name": use.name, "input": _input(use)} for use in reply.tool_uses
    )
    return compact({**_message(reply, content=content, stop=_STOP[reply.finish]), **_reported(reply)})


def _input(use: ToolUse) -> Json:
    if not isinstance(use.args, str):
        return use.args
    parsed: Json = json.loads(use.args)
    return parsed


def _parts(request: ProviderRequest, reply: Reply) -> Iterator[Part]:
    for event, content in invoke_events(request, reply):
        yield sse(event, event=as_text(event.get("type")), content=content)


def invoke_events(request: ProviderRequest, reply: Reply) -> Iterator[tuple[dict[str, Json], bool]]:
    """The events of a stream and whether each carries a piece of the answer. Input is reported at the start."""
    del request
    begun = _message(reply, content=[], stop=None)
    if reply.report != "none":
        shown = {**(reply.wire_usage or _usage(reply.usage)), "output_tokens": 1}
        begun["usage"] = {name: shown[name] for name in shown if name != "output_tokens_details"}
    yield {"type": "message_start", "message": begun}, False
    place = 0
    if reply.text or not reply.tool_uses:
        yield _block_start(place, {"type": "text", "text": ""}), False
        yield {"type": "ping"}, False
        for piece in reply.pieces():
            yield _block_delta(place, {"type": "text_delta", "text": piece}), True
        yield {"type": "content_block_stop", "index": place}, False
        place = 1
    for use in reply.tool_uses:
        yield _block_start(place, {"type": "tool_use", "id": use.id, "name": use.name, "input": {}}), False
        for piece in reply.argument_pieces(use):
            yield _block_delta(place, {"type": "input_json_delta", "partial_json": piece}), True
        yield {"type": "content_block_stop", "index": place}, False
        place += 1
    yield _message_delta(reply), False
    yield {"type": "message_stop"}, False


def _block_start(index: int, block: Mapping[str, Json]) -> dict[str, Json]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _block_delta(index: int, delta: Mapping[str, Json]) -> dict[str, Json]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _message_delta(reply: Reply) -> dict[str, Json]:
    """Its usage is cumulative; the breakdown of cache writes by lifetime comes in message_start only."""
    delta: dict[str, Json] = {"stop_reason": _STOP[reply.finish], "stop_sequence": None}
    event: dict[str, Json] = {"type": "message_delta", "delta": delta}
    if reply.report == "old":
        event["usage"] = {"output_tokens": reply.usage.output_tokens}
    elif reply.report == "full":
        shown = dict(reply.wire_usage or _usage(reply.usage))
        event["usage"] = {name: shown[name] for name in shown if name not in {"cache_creation", "service_tier"}}
    return event


def tokens_counted(request: ProviderRequest) -> bytes:
    """The answer of `/v1/messages/count_tokens`. It costs nothing."""
    return compact({"input_tokens": input_tokens(request)})


def anthropic_error_body(error: Error) -> dict[str, Json]:
    """Anthropic's error object."""
    kind = error.code or _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def _error(error: Error, number: int) -> tuple[Mapping[str, str], bytes]:
    request_id = f"req_{number:06d}"
    return {"request-id": request_id}, compact({**anthropic_error_body(error), "request_id": request_id})


DIALECT = Dialect(
    wire="anthropic",
    stream_type="text/event-stream; charset=utf-8",
    parse=_parse,
    whole=_whole,
    parts=_parts,
    error=_error,
    error_part=lambda error: sse(anthropic_error_body(error), event="error"),
    reply_headers=lambda reply: {"request-id": f"req_{reply.id}"},
)
