"""What the fake model says: it never gives up, until the part of the story that is played is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.testing.provider import Answer, ProviderRequest, Text, ToolCalls, ToolUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.demo.incidents.values import Incident

__all__ = ["THE_END", "script_of"]

THE_END = "I give up here."


def script_of(incident: Incident) -> Callable[[ProviderRequest], Answer]:
    """A function of the request alone: where the agent stands is told by how many results it has seen."""

    def answer(request: ProviderRequest) -> Answer:
        number = 1 + sum(message.role == "tool" for message in request.messages)
        usage = incident.growth.usage(number)
        thought = incident.thoughts[(number - 1) % len(incident.thoughts)]
        if incident.executor == "fan_out":
            return Text(thought, usage=usage)
        if number >= incident.calls_played:
            return Text(THE_END, usage=usage)
        return ToolCalls([ToolUse(incident.tool, incident.args, id=f"call-{number}")], text=thought, usage=usage)

    return answer
