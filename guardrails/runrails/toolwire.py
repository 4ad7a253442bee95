"""Tool calls and what became of them, as the providers' wires write them. Lenient: what is none is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from runrails.calls import ToolCall

__all__ = ["chat_call", "function_call", "result_of"]

_Body = Mapping[str, object]


def chat_call(value: _Body) -> ToolCall | None:
    """One of a chat message's `tool_calls`; None if it is none that is known."""
    call_id = value.get("id")
    id_ = call_id if isinstance(call_id, str) and call_id else None
    custom = value.get("custom")
    if value.get("type") == "custom" and isinstance(custom, Mapping):
        # Tools of OpenAI's type `custom` take free text instead of JSON.
        given = cast("_Body", custom)
        return _named(given.get("name"), given.get("input"), id_)
    function = value.get("function")
    return function_call(cast("_Body", function), id_) if isinstance(function, Mapping) else None


def function_call(value: _Body, call_id: str | None) -> ToolCall | None:
    """A function's name and arguments; the arguments are JSON text, or decoded as some recorders store them."""
    return _named(value.get("name"), value.get("arguments"), call_id)


def result_of(content: object) -> object:
    """A result's text if it is text in one or several parts; otherwise, with pictures in it, the parts themselves."""
    if not isinstance(content, list):
        return content
    parts = cast("list[object]", content)
    texts = [text for part in parts if (text := _text_of(part)) is not None]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def _named(name: object, args: object, call_id: str | None) -> ToolCall | None:
    return ToolCall(name=name, args=args, id=call_id) if isinstance(name, str) and name else None


def _text_of(part: object) -> str | None:
    text = cast("_Body", part).get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None
