"""Conversations as they go over the wire of OpenAI and Anthropic, as far as pruning needs to understand them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from runrails.savers.pruning import Item, Pruning, marker, prune

__all__ = ["Shorter", "shorter"]

Body = Mapping[str, object]
_KEYS = {"/chat/completions": "messages", "/v1/messages": "messages", "/responses": "input"}
"""Under which name a request to each endpoint holds its conversation."""
_INSTRUCTIONS = frozenset({"system", "developer"})
_CALLS = frozenset({"function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call",
                    "apply_patch_call"})  # fmt: skip
_RESULTS = frozenset({f"{kind}_output" for kind in _CALLS})


class Shorter(NamedTuple):
    """A request's conversation without its oldest part."""

    key: str
    """What the request calls it."""
    messages: list[object]
    left_out: int


def shorter(endpoint: str, body: Body, pruning: Pruning) -> Shorter | None:
    """What is to be sent of a request's conversation; None if all of it, or if it is not understood."""
    key = _KEYS.get(endpoint)
    messages = None if key is None else body.get(key)
    if key is None or not isinstance(messages, list):
        return None
    messages = cast("list[object]", messages)
    if len(messages) <= pruning.after_messages or body.get("previous_response_id") or body.get("conversation"):
        return None
    read = {"/chat/completions": _chat, "/v1/messages": _anthropic, "/responses": _response}[endpoint]
    items: list[Item] = []
    for message in messages:
        item = read(cast("Body", message)) if isinstance(message, Mapping) else None
        if item is None:
            return None
        items.append(item)
    pruned = prune(_whole_answers(items), pruning)
    if pruned is None:
        return None
    note = {"role": "user", "content": marker(pruned.left_out)}
    return Shorter(key, [*(messages[at] for at in pruned.head), note, *messages[pruned.tail :]], pruned.left_out)


def _whole_answers(items: list[Item]) -> list[Item]:
    """
    The items, each tied to the next as far as an answer with reasoning goes: OpenAI refuses a call or a message whose
    reasoning is missing, also where something else of the answer stands between them.
    """
    tied = False
    found: list[Item] = []
    for item, following in zip(items, [*items[1:], None], strict=True):
        said = following is not None and following.kind == "other" and not following.gives
        tied = item.tied or (tied and item.kind == "other" and not item.gives and said)
        found.append(item._replace(tied=tied) if tied else item)
    return found


def _chat(message: Body) -> Item | None:
    role = message.get("role")
    if role in _INSTRUCTIONS:
        return Item("system")
    if role == "user":
        return Item("user")
    if role == "assistant":
        asks = [_id(call.get("id")) for call in _maps(message.get("tool_calls"))]
        old = message.get("function_call")
        if isinstance(old, Mapping):  # the form before tool calls, in which a name does for an id
            asks.append(_id(cast("Body", old).get("name")))
        return Item("other", asks=tuple(asks))
    if role == "tool":
        return Item("other", gives=(_id(message.get("tool_call_id")),))
    if role == "function":
        return Item("other", gives=(_id(message.get("name")),))
    return None


def _anthropic(message: Body) -> Item | None:
    role, blocks = message.get("role"), _maps(message.get("content"))
    if role == "assistant":
        return Item("other", asks=tuple([_id(each.get("id")) for each in blocks if each.get("type") == "tool_use"]))
    if role == "user":
        gives = [_id(each.get("tool_use_id")) for each in blocks if each.get("type") == "tool_result"]
        return Item("other" if gives else "user", gives=tuple(gives))
    return Item("system") if role in _INSTRUCTIONS else None


def _response(item: Body) -> Item | None:
    kind, role = item.get("type", "message"), item.get("role")
    if kind == "message":
        return Item("system" if role in _INSTRUCTIONS else "user" if role == "user" else "other")
    if kind == "reasoning":
        return Item("other", tied=True)
    if kind in _CALLS:
        return Item("other", asks=(_id(item.get("call_id")),))
    if kind in _RESULTS:
        return Item("other", gives=(_id(item.get("call_id")),))
    return None


def _maps(value: object) -> list[Body]:
    if not isinstance(value, list):
        return []
    return [cast("Body", each) for each in cast("list[object]", value) if isinstance(each, Mapping)]


def _id(value: object) -> str:
    return value if isinstance(value, str) else ""
