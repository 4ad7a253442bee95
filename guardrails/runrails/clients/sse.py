"""Server-sent events, read along with: cheap for the many that say nothing about usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runrails.calls import ModelResult
from runrails.usage_wire import UsageMalformed

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.clients.plan import Leaving
    from runrails.usage import Usage

__all__ = ["EventReader", "SseReader", "read_usage"]

KEPT_BYTES_MAX = 262_144
"""Events beyond this are boiled down to their texts, so that a long answer is not kept whole."""


class EventReader(Protocol):
    """What a wire's events mean."""

    signs: tuple[bytes, ...]
    """What stands in every event that tells something; most pieces have none of it, and are only kept."""
    hides: bool
    """Whether it may hide events from the caller."""
    usage: Usage | None
    """What was reported, once it is complete."""
    input_usage: Usage | None
    """What was reported of the input alone."""
    model: str | None
    ended: bool
    """Whether the last event has come."""
    failed: bool
    """Whether the provider said that something went wrong."""
    reasoning: bool
    """Whether the model may have written what the stream does not show."""

    def telling(self, data: bytes) -> bool | None:
        """True: it told something, and the caller may see it; False: the caller must not; None: it holds content."""
        ...

    def text(self, data: bytes) -> str:
        """The text in an event that holds content."""
        ...


class SseReader:
    """Reads along with a stream of server-sent events whose data are one line each, as all providers send them."""

    def __init__(self, events: EventReader) -> None:
        self._events = events
        self._signs = events.signs
        self._tail = b""
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._texts: list[str] = []

    def feed(self, data: bytes) -> bytes:
        """Read a piece; a line that is not complete waits for the next one."""
        if not self._tail and data.endswith(b"\n"):
            for sign in self._signs:
                if sign in data:
                    break
            else:
                self._keep(data)
                return data
        whole = self._tail + data if self._tail else data
        lines = whole.split(b"\n")
        self._tail = lines.pop()
        hidden = False
        for place, line in enumerate(lines):
            if line.startswith(b"data:") and self.event(line) is False:
                lines[place] = b""
                hidden = True
        if not self._events.hides:
            return data
        if hidden:
            return b"\n".join([*lines, b""])
        return whole[: len(whole) - len(self._tail)] if self._tail else whole

    def event(self, line: bytes) -> bool:
        """Read one event; False if the caller must not see it."""
        told = self._events.telling(line)
        if told is not None:
            return told
        self._keep(line)
        return True

    def rest(self) -> bytes:
        """A last line without an end."""
        tail, self._tail = self._tail, b""
        if tail.startswith(b"data:") and not self.event(tail):
            return b""
        return tail if self._events.hides else b""

    def outcome(self, how: Leaving) -> ModelResult:
        """What the stream came to; what it has told is the truth, however it was left."""
        events = self._events
        if events.usage is not None:
            return ModelResult(end="completed", usage=events.usage, model=events.model)
        if events.ended:
            return ModelResult(end="completed", model=events.model)
        if how != "left" or events.failed:
            return ModelResult(end="unknown", model=events.model)
        self._boil_down()
        return ModelResult(
            end="cut", output_text=tuple(self._texts), model=events.model, reasoning=events.reasoning,
            input_usage=events.input_usage,
        )  # fmt: skip

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > KEPT_BYTES_MAX:
            self._boil_down()

    def _boil_down(self) -> None:
        lines = b"\n".join(self._kept).split(b"\n")
        texts = [self._events.text(line) for line in lines if line.startswith(b"data:")]
        self._texts.append("".join(texts))
        self._kept.clear()
        self._kept_bytes = 0


def read_usage(read: Callable[[], Usage | None]) -> Usage | None:
    """A usage report, or None for one that cannot be true: the call is then settled at the hold."""
    try:
        return read()
    except UsageMalformed:
        return None
