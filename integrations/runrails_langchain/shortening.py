"""LangChain's conversations without their oldest part."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from runrails.savers.pruning import Item, marker, prune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import AnyMessage, BaseMessage

    from runrails.savers.pruning import Pruning

__all__ = ["Shortened", "items_of", "shortened"]


class Shortened(NamedTuple):
    """What is sent of a conversation."""

    messages: list[AnyMessage]
    left_out: int


def shortened(messages: Sequence[AnyMessage], pruning: Pruning) -> Shortened | None:
    """What is to be sent of a conversation; None if all of it."""
    if len(messages) <= pruning.after_messages:
        return None
    pruned = prune(items_of(messages), pruning)
    if pruned is None:
        return None
    note = HumanMessage(marker(pruned.left_out))
    return Shortened([*(messages[at] for at in pruned.head), note, *messages[pruned.tail :]], pruned.left_out)


def items_of(messages: Sequence[BaseMessage]) -> list[Item]:
    """What pruning needs to know of each message."""
    return [_item(message) for message in messages]


def _item(message: BaseMessage) -> Item:
    if isinstance(message, SystemMessage):
        return Item("system")
    if isinstance(message, HumanMessage):
        return Item("user")
    if isinstance(message, ToolMessage):
        return Item("other", gives=(message.tool_call_id,))
    if isinstance(message, AIMessage):
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        return Item("other", asks=tuple([call["id"] or "" for call in calls]))
    return Item("other")
