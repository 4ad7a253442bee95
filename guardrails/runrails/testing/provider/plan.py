"""A scripted answer taken apart: what to wait for, what to say, where to break off."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from runrails.testing.provider.values import Delay, Error, HangUp, Stall, Text, ToolCalls

if TYPE_CHECKING:
    from runrails.testing.provider.values import Answer

__all__ = ["Plan", "take_apart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is said, and what happens on the way."""

    waits: tuple[int | threading.Event, ...]
    """Before anything is said, in order: milliseconds, or an event."""
    said: Text | ToolCalls | Error
    pauses: dict[int, threading.Event] = field(default_factory=dict[int, threading.Event])
    """Inside a stream: the event to wait for after so many pieces."""
    hang_up: HangUp | None = None


def take_apart(answer: Answer) -> Plan:
    """Unwrap an answer down to what is said."""
    waits: list[int | threading.Event] = []
    pauses: dict[int, threading.Event] = {}
    hang_up: HangUp | None = None
    while True:
        match answer:
            case Text() | ToolCalls() | Error():
                return Plan(waits=tuple(waits), said=answer, pauses=pauses, hang_up=hang_up)
            case Delay():
                waits.append(answer.ms)
            case Stall():
                if answer.after_chunks is None:
                    waits.append(answer.until)
                else:
                    pauses[answer.after_chunks] = answer.until
            case HangUp():
                hang_up = answer
            case _:
                assert_never(answer)
        answer = answer.then
