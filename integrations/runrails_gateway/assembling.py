"""The answer that a stream of server-sent events comes to, as far as it is needed to know it again. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["assembled"]

Body = Mapping[str, object]
_DATA = re.compile(rb"^data:(.{0,10}\{.*)", re.MULTILINE)
"""The data of each event that is an object; most lines are empty, or say that the stream is over."""
_LAST = (b"response.completed", b"response.incomplete", b"response.failed")
_HEAD_BYTES = 200
"""How far into an event its type is looked for."""


def assembled(operation: str, sse: bytes) -> Body | None:
    """The body that the answer would have had in one piece, or what of it is there; None if there is nothing."""
    read = _READERS.get(operation)
    return None if read is None else read(sse)


def _chat(sse: bytes) -> Body | None:
    """Of several choices, the first."""
    text: list[str] = []
    calls: dict[object, dict[str, object]] = {}
    begun = False
    for chunk in _events(sse):
        for choice in _maps(chunk.get("choices")):
            if choice.get("index", 0) != 0:
                continue
            begun = True
            delta = _map(choice.get("delta"))
            said = delta.get("content")
            if type(said) is str:
                text.append(said)
            if "tool_calls" not in delta:  # nearly always
                continue
            for part in _maps(delta["tool_calls"]):
                # Some servers number no calls, but send each in one piece.
                place = part.get("index", part.get("id"))
                _add_call(calls.setdefault(place, {}), part)
    if not begun:
        return None
    return {"choices": [{"message": {"content": "".join(text), "tool_calls": list(calls.values())}}]}


def _add_call(call: dict[str, object], part: Body) -> None:
    for key in ("id", "type"):
        if part.get(key):
            call.setdefault(key, part[key])
    for kind in ("function", "custom"):
        told = _map(part.get(kind))
        if told:
            known = cast("dict[str, object]", call.setdefault(kind, {}))
            for key, value in told.items():
                if isinstance(value, str):
                    known[key] = str(known.get(key, "")) + value


def _message(sse: bytes) -> Body | None:
    blocks: dict[object, dict[str, object]] = {}
    said: dict[object, list[str]] = {}
    begun = False
    for event in _events(sse):
        kind, index = event.get("type"), event.get("index")
        if kind == "message_start":
            begun = True
        elif kind == "content_block_start":
            blocks[index] = dict(_map(event.get("content_block")))
            said[index] = []
        elif kind == "content_block_delta" and index in blocks:
            delta = _map(event.get("delta"))
            piece = delta.get("text", delta.get("partial_json"))
            if isinstance(piece, str):
                said[index].append(piece)
    if not begun:
        return None
    for index, block in blocks.items():
        _complete(block, "".join(said[index]))
    return {"content": list(blocks.values())}


def _complete(block: dict[str, object], said: str) -> None:
    if block.get("type") == "text":
        block["text"] = f"{block.get('text') or ''}{said}"
    elif block.get("type") == "tool_use" and said:
        try:
            block["input"] = json.loads(said)
        except (ValueError, RecursionError):
            block["input"] = said


def _response(sse: bytes) -> Body | None:
    """The last event has all of it."""
    for line in reversed(sse.splitlines()):
        head = line[:_HEAD_BYTES]
        if line.startswith(b"data:") and any(kind in head for kind in _LAST):
            response = _map(_decoded(line[5:]).get("response"))
            return response or None
    return None


def _events(sse: bytes) -> list[Body]:
    told = _DATA.findall(sse if b"\r" not in sse else b"\n".join(sse.splitlines()))
    try:
        return _maps(json.loads(b"[%b]" % b",".join(told)))  # at once: half the time
    except (ValueError, RecursionError):
        return [_decoded(data) for data in told]


def _decoded(data: bytes) -> Body:
    try:
        return _map(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _map(value: object) -> Body:
    return cast("Body", value) if type(value) is dict else {}  # All of this was decoded here.


def _maps(value: object) -> list[Body]:
    if type(value) is not list:
        return []
    items = cast("list[object]", value)
    return [cast("Body", item) if type(item) is dict else {} for item in items]


_READERS: Mapping[str, Callable[[bytes], Body | None]] = {
    "chat.complete": _chat, "messages.create": _message, "responses.create": _response,
}  # fmt: skip
