"""OpenAI responses, plain and streamed (platform.openai.com, API reference, "Responses")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.testing.provider.openai_chat import openai_error
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

__all__ = ["DIALECT"]


def _parse(received: Received) -> ProviderRequest:
    body = received.body
    model = as_text(body.get("model")) or received.model
    if not model:
        raise BadRequest("you must provide a model parameter")
    return ProviderRequest(
        wire="openai_responses",
        path=received.path,
        number=received.number,
        model=model,
        messages=tuple(_messages(body)),
        tools=tuple(compact(tool).decode() for tool in as_list(body.get("tools"))),
        max_tokens=as_int(body.get("max_output_tokens")),
        stream=body.get("stream") is True,
        headers=received.headers,
        body=body,
    )


def _messages(body: Mapping[str, Json]) -> Iterator[ProviderMessage]:
    if instructions := as_text(body.get("instructions")):
        yield ProviderMessage(role="system", text=instructions)
    asked = body.get("input")
    if isinstance(asked, str):
        yield ProviderMessage(role="user", text=asked)
        return
    for item in map(as_map, as_list(asked)):
        call_id = as_text(item.get("call_id")) or None
        match item.get("type"):
            case "function_call":
                use = ToolUse(as_text(item.get("name")), as_text(item.get("arguments")), call_id)
                yield ProviderMessage(role="assistant", tool_uses=(use,))
            case "function_call_output":
                yield ProviderMessage(role="tool", text=content_text(item.get("output")), tool_call_id=call_id)
            case _:
                yield ProviderMessage(role=as_text(item.get("role")), text=content_text(item.get("content")))


def _usage(usage: Usage) -> dict[str, Json]:
    # This wire knows one kind of cache write; both of ours add up in it.
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": written},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _response(reply: Reply, request: ProviderRequest, *, status: str, output: list[Json]) -> dict[str, Json]:
    done = status != "in_progress"
    reported = reply.wire_usage if reply.wire_usage is not None else _usage(reply.usage)
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": CREATED_S,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": as_text(request.body.get("instructions")) or None,
        "max_output_tokens": request.max_tokens,
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": list(as_list(request.body.get("tools"))),
        "top_p": 1.0,
        "truncation": "disabled",
        "metadata": {},
        "usage": reported if done and reply.report != "none" else None,
    }


def _status(reply: Reply) -> str:
    return "incomplete" if reply.finish == "length" else "completed"


def _text_part(text: str) -> dict[str, Json]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message_item(reply: Reply, *, status: str, content: list[Json]) -> dict[str, Json]:
    return {"type": "message", "id": f"msg_{reply.id}", "status": status, "role": "assistant", "content": content}


def _call_item(use: ToolUse, *, status: str, arguments: str) -> dict[str, Json]:
    return {
        "type": "function_call",
        "id": f"fc_{use.id}",
        "call_id": use.id,
        "name": use.name,
        "arguments": arguments,
        "status": status,
    }


def _output(reply: Reply) -> list[Json]:
    output: list[Json] = []
    if reply.text or not reply.tool_uses:
        output.append(_message_item(reply, status=_status(reply), content=[_text_part(reply.text)]))
    output.extend(_call_item(use, status="completed", arguments=use.args_json) for use in reply.tool_uses)
    return output


def _whole(request: ProviderRequest, reply: Reply) -> bytes:
    return compact(_response(reply, request, status=_status(reply), output=_output(reply)))


def _parts(request: ProviderRequest, reply: Reply) -> Iterator[Part]:
    for number, (kind, fields, content) in enumerate(_events(request, reply)):
        yield sse({"type": kind, "sequence_number": number, **fields}, event=kind, content=content)


_Event = tuple[str, dict[str, Json], bool]


def _events(request: ProviderRequest, reply: Reply) -> Iterator[_Event]:
    begun = _response(reply, request, status="in_progress", output=[])
    yield "response.created", {"response": begun}, False
    yield "response.in_progress", {"response": begun}, False
    place = 0
    if reply.text or not reply.tool_uses:
        yield from _text_events(reply)
        place = 1
    for use in reply.tool_uses:
        yield from _call_events(reply, use, place)
        place += 1
    status = _status(reply)
    yield f"response.{status}", {"response": _response(reply, request, status=status, output=_output(reply))}, False


def _text_events(reply: Reply) -> Iterator[_Event]:
    here: dict[str, Json] = {"item_id": f"msg_{reply.id}", "output_index": 0, "content_index": 0}
    begun = _message_item(reply, status="in_progress", content=[])
    yield "response.output_item.added", {"output_index": 0, "item": begun}, False
    yield "response.content_part.added", {**here, "part": _text_part("")}, False
    for piece in reply.pieces():
        yield "response.output_text.delta", {**here, "delta": piece, "logprobs": []}, True
    yield "response.output_text.done", {**here, "text": reply.text, "logprobs": []}, False
    yield "response.content_part.done", {**here, "part": _text_part(reply.text)}, False
    item = _message_item(reply, status=_status(reply), content=[_text_part(reply.text)])
    yield "response.output_item.done", {"output_index": 0, "item": item}, False


def _call_events(reply: Reply, use: ToolUse, place: int) -> Iterator[_Event]:
    here: dict[str, Json] = {"item_id": f"fc_{use.id}", "output_index": place}
    begun = _call_item(use, status="in_progress", arguments="")
    yield "response.output_item.added", {"output_index": place, "item": begun}, False
    for piece in reply.argument_pieces(use):
        yield "response.function_call_arguments.delta", {**here, "delta": piece}, True
    done: dict[str, Json] = {**here, "name": use.name, "arguments": use.args_json}
    yield "response.function_call_arguments.done", done, False
    item = _call_item(use, status="completed", arguments=use.args_json)
    yield "response.output_item.done", {"output_index": place, "item": item}, False


def _error_part(error: Error) -> Part:
    body: dict[str, Json] = {"type": "error", "sequence_number": 0, "code": error.code, "message": error.message}
    return sse({**body, "param": None}, event="error")


DIALECT = Dialect(
    wire="openai_responses",
    stream_type="text/event-stream; charset=utf-8",
    parse=_parse,
    whole=_whole,
    parts=_parts,
    error=openai_error,
    error_part=_error_part,
    reply_headers=lambda reply: {"x-request-id": f"req_{reply.id}"},
)
