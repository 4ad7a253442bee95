"""Server-sent events, read along with: cheap for the many that say nothing about usage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from runrails.calls import ModelResult
from runrails.clients.coming import Coming

if TYPE_CHECKING:
    from runrails.calls import ServedTier
    from runrails.clients.plan import Leaving
    from runrails.usage import Usage

__all__ = ["EventReader", "SseReader"]


_BEFORE_DATA = (b"event:", b"id:", b"retry:")
"""Lines of an event that mean nothing without its data."""


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
    floor_usage: Usage | None
    """What was reported of an answer that was not complete yet."""
    tier: ServedTier | None
    """The service tier that serves it, if an event has named another one than the standard."""
    model: str | None
    answer_id: str | None
    """The provider's id of the answer."""
    ended: bool
    """Whether the last event has come."""
    failed: bool
    """Whether the provider said that something went wrong."""
    reasoning: bool
    """Whether the model may have written what the stream does not show."""
    goes_on: bool
    """Whether the provider works on when nobody reads any more."""

    def telling(self, data: bytes) -> bool | None:
        """True: it told something, and the caller may see it; False: the caller must not; None: it holds content."""
        ...

    def text(self, data: bytes) -> str:
        """The text in an event that holds content."""
        ...


class SseReader:
    """
    Reads along with a stream of server-sent events whose data are one line each, as all providers send them.

    Args:
        events: What they mean.
        whole_lines: Whether only whole lines are handed on, and an event's name with its data, so that an event of
            ours can follow at any moment.
    """

    def __init__(self, events: EventReader, *, whole_lines: bool = False) -> None:
        self._events = events
        self._whole = whole_lines
        self._keeps_back = whole_lines or events.hides
        self._end = b"\n\n" if whole_lines else b"\n"
        self._signs = events.signs
        self._tail = b""
        self.coming: Coming[bytes] = Coming(partial(_text_of, events))
        self._keep = self.coming.keep
        self._begun = False
        self.kept_back = b""
        self.failed = False

    @property
    def ended(self) -> bool:
        """Whether the last event has come."""
        return self._events.ended

    def feed(self, data: bytes) -> bytes:
        """Read a piece; a line that is not complete waits for the next one."""
        if self._begun and not self._tail and data.endswith(self._end):
            for sign in self._signs:
                if sign in data:
                    break
            else:
                self._keep(data)
                return data
        whole = self._tail + data if self._tail else data
        lines = whole.split(b"\n")
        tail = lines.pop()
        while self._whole and lines and lines[-1].startswith(_BEFORE_DATA):
            tail = lines.pop() + b"\n" + tail
        self._tail = tail
        hidden = False
        for place, line in enumerate(lines):
            if line.startswith(b"data:") and self.event(line) is False:
                lines[place] = b""
                hidden = True
        if not self._keeps_back:
            return data
        self.kept_back = self._tail
        if hidden:
            return b"\n".join([*lines, b""])
        return whole[: len(whole) - len(self._tail)] if self._tail else whole

    def event(self, line: bytes) -> bool:
        """Read one event; False if the caller must not see it."""
        events = self._events
        self._begun = True
        told = events.telling(line)
        self.failed = events.failed
        if events.floor_usage is not None or events.input_usage is not None:
            self.coming.told(events.input_usage, events.floor_usage)
        if told is not None:
            return told
        self._keep(line)
        return True

    def rest(self) -> bytes:
        """A last line without an end."""
        tail, self._tail, self.kept_back = self._tail, b"", b""
        last = tail.rpartition(b"\n")[2]
        if last.startswith(b"data:") and not self.event(last):
            return b""
        return tail if self._keeps_back else b""

    def outcome(self, how: Leaving) -> ModelResult:
        """What the stream came to; what it has told is the truth, however it was left."""
        events = self._events
        model, tier, floor = events.model, events.tier, events.floor_usage
        if events.usage is not None:
            return ModelResult(end="completed", usage=events.usage, model=model, tier=tier, answer_id=events.answer_id)
        if events.ended:
            return ModelResult(end="completed", model=model, tier=tier, floor_usage=floor, answer_id=events.answer_id)
        # A provider that answers has begun to work: of one that was lost before that, nobody knows how far it came.
        if events.goes_on or (how != "left" and not self._begun):
            return ModelResult(end="unknown", model=model, tier=tier, floor_usage=floor)
        return ModelResult(
            end="cut", output_text=self.coming.texts(), model=model, reasoning=events.reasoning,
            input_usage=events.input_usage, floor_usage=floor, tier=tier,
            answer_id=events.answer_id,  # known now that the texts have been read
        )  # fmt: skip


def _text_of(events: EventReader, kept: list[bytes]) -> str:
    lines = b"\n".join(kept).split(b"\n")
    return "".join([events.text(line) for line in lines if line.startswith(b"data:")])
