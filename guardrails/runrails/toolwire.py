"""Tool calls and what became of them, as the providers' wires write them. Lenient: what is none is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from runrails.calls import ToolCall

__all__ = ["Asked", "chat_asked", "chat_call", "function_asked", "function_call", "result_of"]

_Body = Mapping[str, object]
Asked = tuple[str, str, object]
"""A call's id ("" without one), name and arguments; these are JSON text, or decoded as some recorders store them."""


def chat_call(value: _Body) -> ToolCall | None:
    """One of a chat message's `tool_calls`; None if it is none that is known."""
    asked = chat_asked(value)
    return None if asked is None else ToolCall(name=asked[1], args=asked[2], id=asked[0] or None)


def function_call(value: _Body, call_id: str | None) -> ToolCall | None:
    """A function's name and arguments."""
    asked = function_asked(value, "")
    return None if asked is None else ToolCall(name=asked[1], args=asked[2], id=call_id)


def chat_asked(value: _Body) -> Asked | None:
    """As `chat_call`."""
    call_id = value.get("id")
    id_ = call_id if isinstance(call_id, str) else ""
    custom = value.get("custom")
    if value.get("type") == "custom" and isinstance(custom, Mapping):
        # Tools of OpenAI's type `custom` take free text instead of JSON.
        given = cast("_Body", custom)
        return _named(id_, given.get("name"), given.get("input"))
    function = value.get("function")
    if type(function) is dict or isinstance(function, Mapping):
        return function_asked(cast("_Body", function), id_)
    return None


def function_asked(value: _Body, call_id: str) -> Asked | None:
    """As `function_call`. One of a group of tools has the group's name before its own."""
    name, group = value.get("name"), value.get("namespace")
    if isinstance(group, str) and isinstance(name, str) and name:
        name = f"{group}.{name}"
    return _named(call_id, name, value.get("arguments"))


def result_of(content: object) -> object:
    """A result's text if it is text in one or several parts; otherwise, with pictures in it, the parts themselves."""
    if not isinstance(content, list):
        return content
    parts = cast("list[object]", content)
    texts = [text for part in parts if (text := _text_of(part)) is not None]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def _named(call_id: str, name: object, args: object) -> Asked | None:
    return (call_id, name, args) if isinstance(name, str) and name else None


def _text_of(part: object) -> str | None:
    text = cast("_Body", part).get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None
