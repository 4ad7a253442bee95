"""What LangChain's tools give back, made into outcomes for the loop detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from langchain_core.messages import ToolMessage

from runrails.calls import ToolOutcome

__all__ = ["outcome_of", "outcome_of_error", "tool_name"]


def tool_name(serialized: Mapping[str, object] | None, kwargs: Mapping[str, object]) -> str:
    """The tool's name, wherever this version of LangChain tells it."""
    for value in ((serialized or {}).get("name"), kwargs.get("name")):
        if isinstance(value, str) and value:
            return value
    return "unknown"


def outcome_of(output: object, call_id: str | None) -> ToolOutcome:
    """What a tool returned: a message, a LangGraph command that holds messages, or any value."""
    if isinstance(output, ToolMessage):
        return ToolOutcome(ok=output.status != "error", result=output.content)
    found = _in_command(output, call_id)
    if found is not None:
        return ToolOutcome(ok=found.status != "error", result=found.content)
    if output is None or isinstance(output, str | int | float | bool | list | tuple | dict):
        return ToolOutcome(ok=True, result=cast("object", output))
    return ToolOutcome(ok=True, result=str(output))


def outcome_of_error(error: BaseException) -> ToolOutcome:
    """A tool that raised."""
    return ToolOutcome(ok=False, result=str(error), error_type=type(error).__name__)


def _in_command(output: object, call_id: str | None) -> ToolMessage | None:
    update = getattr(output, "update", None)
    if not isinstance(update, Mapping):
        return None
    messages = cast("Mapping[str, object]", update).get("messages")
    for message in cast("list[object]", messages) if isinstance(messages, list) else ():
        if isinstance(message, ToolMessage) and (call_id is None or message.tool_call_id == call_id):
            return message
    return None
