"""What the tests of the gateway's memory share: conversations in each wire's form, grown answer by answer."""

from __future__ import annotations

from typing import Any

from runrails.identity.principal import Principal
from runrails_gateway.history import AnswerMark, History, chat_history, chat_mark

Message = dict[str, Any]
ALICE = Principal(user="alice", method="local")
BOB = Principal(user="bob", method="local")
ACME = Principal(user="alice", org="acme", method="local")


def said(text: str) -> Message:
    """What a person says."""
    return {"role": "user", "content": text}


def answer(text: str | None = None, *calls: tuple[str, str, str]) -> Message:
    """What the model says, and its calls: id, name and arguments each."""
    message: Message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": args}}
            for call_id, name, args in calls
        ]
    return message


def result(call_id: str, text: str) -> Message:
    """What a tool gave back."""
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def history(messages: list[Message]) -> History:
    """A request's history."""
    return chat_history({"messages": messages})


def mark(message: Message) -> AnswerMark:
    """The mark of an answer."""
    found = chat_mark({"choices": [{"index": 0, "message": message}]})
    assert found is not None
    return found


def failing(times: int, *, args: str = '{"q": "x"}', text: str = "Error: no connection") -> list[Message]:
    """An agent that asks for the same thing again and again, and fails each time."""
    messages = [said("Find x.")]
    for number in range(times):
        messages += [answer(f"Attempt {number}.", (f"call_{number}", "search", args)), result(f"call_{number}", text)]
    return messages
