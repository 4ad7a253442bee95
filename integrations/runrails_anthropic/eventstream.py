"""Claude's events inside Bedrock's event stream: frames of JSON, each with one event in base64."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from runrails.clients.sse import EventReader, SseReader

if TYPE_CHECKING:
    from runrails.calls import ModelResult
    from runrails.clients.plan import Leaving

__all__ = ["BedrockReader"]

_EVENT = re.compile(rb'"bytes"\s*:\s*"([A-Za-z0-9+/=]*)"')
_FAILED = re.compile(rb":exception-type")


class BedrockReader:
    """Reads along without taking the frames apart: quotes cannot occur inside base64."""

    kept_back = b""

    def __init__(self, events: EventReader) -> None:
        self._events = events
        self._sse = SseReader(events)
        self.coming = self._sse.coming
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Read the events that are complete; the caller sees everything."""
        whole = self._tail + data
        end = 0
        for found in _EVENT.finditer(whole):
            end = found.end()
            self._sse.event(b"data:" + base64.b64decode(found[1]))
        if _FAILED.search(whole, end):
            self._events.failed = True
        self._tail = whole[end:]
        return data

    @property
    def failed(self) -> bool:
        """Whether an event, or a frame, said that the provider gave up."""
        return self._events.failed

    def rest(self) -> bytes:
        """Nothing is kept back."""
        return b""

    def outcome(self, how: Leaving) -> ModelResult:
        """What the stream came to."""
        return self._sse.outcome(how)
