"""Is a saved conversation one that OpenAI and Anthropic accept? Their rules, written down as a check."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage


def problems(messages: Sequence[BaseMessage]) -> list[str]:
    """What OpenAI or Anthropic would reject; nothing if the conversation can go on."""
    return [*_openai(messages), *_anthropic(messages)]


def _openai(messages: Sequence[BaseMessage]) -> list[str]:
    """Every tool call is answered directly after its answer, each once; no tool message stands anywhere else."""
    found: list[str] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id in waiting:
                waiting.remove(message.tool_call_id)
            else:
                found.append(f"openai: message {place} answers no open tool call")
            continue
        if waiting:
            found.append(f"openai: message {place} comes before the answers to {waiting}")
            waiting = []
        if isinstance(message, AIMessage):
            waiting = [call["id"] or "" for call in message.tool_calls]
            if len(set(waiting)) != len(waiting) or "" in waiting:
                found.append(f"openai: message {place} has tool calls without ids of their own")
    if waiting:
        found.append(f"openai: the conversation ends before the answers to {waiting}")
    return found


def _anthropic(messages: Sequence[BaseMessage]) -> list[str]:
    """Turns of user and assistant, beginning with the user; results in the turn after their calls; no empty text."""
    found: list[str] = []
    turns: list[tuple[str, list[BaseMessage]]] = []
    for place, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            if place:
                found.append(f"anthropic: a system message at {place}")
            continue
        if not message.content and not (isinstance(message, AIMessage) and message.tool_calls):
            found.append(f"anthropic: message {place} is empty")
        role = "assistant" if isinstance(message, AIMessage) else "user"
        if turns and turns[-1][0] == role:
            turns[-1][1].append(message)
        else:
            turns.append((role, [message]))
    if turns and turns[0][0] != "user":
        found.append("anthropic: the first turn is not the user's")
    for number, (role, said) in enumerate(turns):
        if role == "assistant":
            asked = {call["id"] for message in said if isinstance(message, AIMessage) for call in message.tool_calls}
            after = turns[number + 1][1] if number + 1 < len(turns) else []
            given = {message.tool_call_id for message in after if isinstance(message, ToolMessage)}
            if asked != given:
                found.append(f"anthropic: turn {number} asks for {asked} and is given {given}")
        else:
            kinds = [isinstance(message, HumanMessage) for message in said]
            if kinds != sorted(kinds):
                found.append(f"anthropic: in turn {number} results come after other content")
    return found
