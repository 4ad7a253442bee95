"""
The form `messages`: a conversation as OpenAI's chat completions know it.

Every assistant message is one model call; the calls it asks for are one parallel batch. Tool messages answer them by
`tool_call_id`; messages of the older role `function` answer a `function_call`, which has no id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runrails.audit.checks import Invalid, Json, entries, kind_of, mapping, optional_text, required_text
from runrails.audit.recording import ModelAnswered, Step, ToolRan, UserSpoke
from runrails.audit.reports import read_usage
from runrails.calls import ToolCall, ToolOutcome
from runrails.toolwire import chat_call, function_call, result_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["steps_of_messages"]

_MESSAGE_FIX = 'Write OpenAI chat messages: {"role": …, "content": …}.'
_CALL_FIX = 'Write {"id": …, "type": "function", "function": {"name": …, "arguments": "{…}"}}.'
_ANSWER_FIX = 'Give the tool message the "tool_call_id" of an earlier call that has no answer yet.'
_STATUS_FIX = 'Write "status": "error" for a failed call, or leave it out.'
_FUNCTION: Final = ""
"""Where the call of the older form waits for its answer; real ids are never empty."""


def steps_of_messages(record: Json) -> Iterator[Step]:
    """
    The steps of a conversation, tool results numbered from 1.

    Raises:
        Invalid: A message is not of that form, or a tool message answers no call.
    """
    waiting: dict[str, ToolCall] = {}
    results = 0
    for place, value in enumerate(entries(record.get("messages"), "messages", _MESSAGE_FIX)):
        where = f"messages[{place}]"
        message = mapping(value, where, _MESSAGE_FIX)
        role = required_text(message.get("role"), f"{where}.role", _MESSAGE_FIX)
        _check_content(message, where)
        if role == "user":
            yield UserSpoke(agent="")
        elif role == "assistant":
            yield _answer(message, where)
            waiting.update(_calls(message, where, batch=place))
        elif role in {"tool", "function"}:
            results += 1
            yield ToolRan(results, _answered(message, where, role, waiting), _outcome(message, where))
        elif role not in {"system", "developer"}:
            raise Invalid(f"{where}.role is none that is known.", "Use system, developer, user, assistant or tool.")


def _answer(message: Json, where: str) -> ModelAnswered:
    model = optional_text(message.get("model"), f"{where}.model", "Write the model's name, or leave it out.")
    return ModelAnswered(agent="", model=model, usage=read_usage(message.get("usage"), f"{where}.usage"))


def _calls(message: Json, where: str, *, batch: int) -> dict[str, ToolCall]:
    asked = entries(message.get("tool_calls"), f"{where}.tool_calls", _CALL_FIX)
    shared = batch if len(asked) > 1 else None
    calls: dict[str, ToolCall] = {}
    for place, value in enumerate(asked):
        here = f"{where}.tool_calls[{place}]"
        call = _call(mapping(value, here, _CALL_FIX), here, batch=shared)
        if call.id is None or call.id in calls:
            raise Invalid(f"{here} has the id of another call of the same message.", "Give every call its own id.")
        calls[call.id] = call
    legacy = message.get("function_call")
    if legacy is not None:
        here = f"{where}.function_call"
        calls[_FUNCTION] = _function(mapping(legacy, here, _CALL_FIX), here, call_id=None, batch=None)
    return calls


def _call(value: Json, where: str, *, batch: int | None) -> ToolCall:
    required_text(value.get("id"), f"{where}.id", _CALL_FIX)
    custom = value.get("custom")
    if value.get("type") == "custom" and custom is not None:
        given = mapping(custom, f"{where}.custom", _CALL_FIX)
        required_text(given.get("name"), f"{where}.custom.name", _CALL_FIX)
    else:
        _check_function(mapping(value.get("function"), f"{where}.function", _CALL_FIX), f"{where}.function")
    return _known(chat_call(value), batch=batch)


def _function(value: Json, where: str, *, call_id: str | None, batch: int | None) -> ToolCall:
    _check_function(value, where)
    return _known(function_call(value, call_id), batch=batch)


def _check_function(value: Json, where: str) -> None:
    args = value.get("arguments")
    # Some recorders store the arguments decoded.
    if args is not None and kind_of(args) not in {"text", "an object"}:
        raise Invalid(f"{where}.arguments must be the JSON text of an object, not {kind_of(args)}.", _CALL_FIX)
    required_text(value.get("name"), f"{where}.name", _CALL_FIX)


def _known(call: ToolCall | None, *, batch: int | None) -> ToolCall:
    if call is None:
        raise TypeError("a call that was checked is one")
    return call if batch is None else replace(call, batch=batch)


def _answered(message: Json, where: str, role: str, waiting: dict[str, ToolCall]) -> ToolCall:
    """The call that the message answers; nothing may answer it twice."""
    key = _FUNCTION
    if role == "tool":
        key = required_text(message.get("tool_call_id"), f"{where}.tool_call_id", _ANSWER_FIX)
    call = waiting.pop(key, None)
    if call is None:
        raise Invalid(f"{where} answers no tool call that is waiting for an answer.", _ANSWER_FIX)
    return call


def _outcome(message: Json, where: str) -> ToolOutcome:
    status = optional_text(message.get("status"), f"{where}.status", _STATUS_FIX)
    if status not in {None, "error", "success"}:
        raise Invalid(f'{where}.status must be "error" or "success".', _STATUS_FIX)
    return ToolOutcome(ok=status != "error", result=result_of(message.get("content")))


def _check_content(message: Json, where: str) -> None:
    content = message.get("content")
    if content is not None and kind_of(content) not in {"text", "a list"}:
        raise Invalid(f"{where}.content must be text, a list of parts or null, not {kind_of(content)}.", _MESSAGE_FIX)
