"""Makes a conversation whole that a stop left in the middle: every tool call an answer asked for gets a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["missing_results"]


def missing_results(messages: Sequence[BaseMessage], text: str) -> list[ToolMessage]:
    """A result for each tool call of the newest answer that has none; nothing if something else was said since."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            return [
                ToolMessage(text, tool_call_id=call["id"] or "", name=call["name"], status="error")
                for call in message.tool_calls
                if (call["id"] or "") not in answered
            ]
        else:
            return []
    return []
