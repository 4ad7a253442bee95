"""OpenAI chat completions, plain and streamed (platform.openai.com, API reference, "Chat")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.testing.provider.bill import generated
from runrails.testing.provider.reply import CREATED_S, Reply
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

__all__ = ["DIALECT", "openai_error", "openai_error_body"]

_FINISH = {"stop": "stop", "length": "length", "tools": "tool_calls"}
_DONE = Part(b"data: [DONE]\n\n")
_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_exceeded",
}


def _parse(received: Received) -> ProviderRequest:
    body = received.body
    model = as_text(body.get("model")) or received.model
    if not model:
        raise BadRequest("you must provide a model parameter")
    if not as_list(body.get("messages")):
        raise BadRequest("messages must be a list with at least one message")
    cap = as_int(body.get("max_completion_tokens"))
    return ProviderRequest(
        wire="openai_chat",
        path=received.path,
        number=received.number,
        model=model,
        messages=tuple(_message(as_map(message)) for message in as_list(body["messages"])),
        tools=tuple(compact(tool).decode() for tool in as_list(body.get("tools"))),
        max_tokens=cap if cap is not None else as_int(body.get("max_tokens")),
        n=as_int(body.get("n")) or 1,
        stream=body.get("stream") is True,
        headers=received.headers,
        body=body,
    )


def _message(message: Mapping[str, Json]) -> ProviderMessage:
    uses: list[ToolUse] = []
    for call in map(as_map, as_list(message.get("tool_calls"))):
        function = as_map(call.get("function"))
        uses.append(ToolUse(as_text(function.get("name")), as_text(function.get("arguments")), as_text(call.get("id"))))
    return ProviderMessage(
        role=as_text(message.get("role")),
        text=content_text(message.get("content")),
        tool_uses=tuple(uses),
        tool_call_id=as_text(message.get("tool_call_id")) or None,
    )


def _usage(usage: Usage) -> dict[str, Json]:
    # The cached part lies inside prompt_tokens here, unlike on the Anthropic wires.
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            # This wire knows one kind of cache write; both of ours add up in it.
            "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _reported(reply: Reply) -> Mapping[str, Json] | None:
    if reply.report == "none":
        return None
    return reply.wire_usage if reply.wire_usage is not None else _usage(reply.usage)


def _whole(request: ProviderRequest, reply: Reply) -> bytes:
    del request
    message: dict[str, Json] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool_uses:
        message["tool_calls"] = [_tool_call(use, use.args_json) for use in reply.tool_uses]
    choices: list[Json] = [
        {"index": index, "message": message, "finish_reason": _FINISH[reply.finish], "logprobs": None}
        for index in range(reply.n)
    ]
    body: dict[str, Json] = {**_head(reply, "chat.completion"), "choices": choices}
    usage = _reported(reply)
    if usage is not None:
        body["usage"] = usage
    return compact(body)


def _tool_call(use: ToolUse, arguments: str) -> dict[str, Json]:
    return {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": arguments}}


def _head(reply: Reply, kind: str) -> dict[str, Json]:
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": kind,
        "created": CREATED_S,
        "model": reply.model,
        "system_fingerprint": "fp_fake",
    }


def _parts(request: ProviderRequest, reply: Reply) -> Iterator[Part]:
    """
    Usage comes only if `stream_options.include_usage` asked for it: then as null in every chunk, and in one last chunk
    that has no choices.
    """
    asked = as_map(request.body.get("stream_options")).get("include_usage") is True and reply.report != "none"
    head: dict[str, Json] = _head(reply, "chat.completion.chunk")
    null: dict[str, Json] = {"usage": None} if asked else {}
    running = asked and reply.report == "running"
    sent, total = 0, reply.n * sum(content for _, content in _deltas(reply))
    for index in range(reply.n):
        for delta, content in _deltas(reply):
            sent += content
            if running:
                null = {"usage": _usage(generated(reply.usage, sent, total))}
            yield sse({**head, "choices": [_choice(index, delta, None)], **null}, content=content)
        yield sse({**head, "choices": [_choice(index, {}, _FINISH[reply.finish])], **null})
    if asked:
        yield sse({**head, "choices": [], "usage": _reported(reply)})
    yield _DONE


def _choice(index: int, delta: Mapping[str, Json], finish: str | None) -> dict[str, Json]:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}


def _deltas(reply: Reply) -> Iterator[tuple[dict[str, Json], bool]]:
    yield {"role": "assistant", "content": "" if not reply.tool_uses else None, "refusal": None}, False
    for piece in reply.pieces():
        yield {"content": piece}, True
    for place, use in enumerate(reply.tool_uses):
        yield {"tool_calls": [{"index": place, **_tool_call(use, "")}]}, False
        for piece in reply.argument_pieces(use):
            yield {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}, True


def openai_error_body(error: Error) -> dict[str, Json]:
    """The `error` object of every OpenAI endpoint."""
    kind = _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}


def openai_error(error: Error, number: int) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of an error answer."""
    return {"x-request-id": f"req_{number:06d}"}, compact(openai_error_body(error))


def _error_part(error: Error) -> Part:
    return sse(openai_error_body(error))


DIALECT = Dialect(
    wire="openai_chat",
    stream_type="text/event-stream; charset=utf-8",
    parse=_parse,
    whole=_whole,
    parts=_parts,
    error=openai_error,
    error_part=_error_part,
    reply_headers=lambda reply: {"x-request-id": f"req_{reply.id}"},
)
