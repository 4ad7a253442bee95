"""Reading along with an event stream that the caller reads. It stays botocore's own object, with the same methods."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from runrails.calls import ModelResult
from runrails.clients.reading import inherited, subclass_of
from runrails.growth import Growth

if TYPE_CHECKING:
    from runrails.clients.edge import Ticket
    from runrails.clients.plan import Leaving
    from runrails.errors import CallRefused, GuardrailStopped
    from runrails_aws.bedrock.answers import EventsReader

__all__ = ["EventTap", "tap_events"]

Event = Mapping[str, object]


class EventTap:
    """One stream that is being read. What goes wrong in here is told of and charged at the hold; the events pass."""

    __slots__ = ("__weakref__", "_broken", "_growth", "_over", "_reader", "_ticket")

    def __init__(self, ticket: Ticket, reader: EventsReader) -> None:
        self._ticket = ticket
        self._reader = reader
        self._broken = False
        self._over = False
        self._growth = Growth(ticket.run, ticket.permit, lost=ticket.lost)
        reader.coming.watch(self._growth)
        ticket.edge.tapped(self)

    def see(self, event: Event) -> GuardrailStopped | CallRefused | None:
        """
        Read an event along; settle once all is told, as few callers read beyond that.

        Returns:
            Why the stream must be closed: more came than is held for, and no more can be.
        """
        if self._broken:
            return None
        try:
            reader = self._reader
            reader.see(event)
            told = reader.told
            refusal = None
            if reader.coming.grown and not told and not self._over:
                refusal = self._growth.grow(reader.coming)
                reader.coming.watch(self._growth)
        except Exception as exc:  # noqa: BLE001 -- the event is the user's
            self._broken = True
            self._ticket.failed(exc)
            return None
        if told:
            self.end("ended")
        if refusal is not None:
            self._ticket.closed(refusal)
        return refusal

    def end(self, how: Leaving) -> None:
        """Settle; later if a finaliser may be at work here."""
        if self._over:
            return
        self._over = True
        if isinstance(sys.exception(), GeneratorExit):
            self._ticket.settle_later(lambda: self._result(how))
        else:
            self._ticket.settle(self._result(how))

    def drop(self) -> None:
        """The stream was thrown away. Called by a finaliser."""
        if not self._over:
            self._over = True
            self._ticket.settle_later(lambda: self._result("left"))

    def _result(self, how: Leaving) -> ModelResult:
        if not self._broken:
            try:
                result = self._reader.outcome(how)
                return replace(result, held_pusd=held) if (held := self._growth.held_pusd) else result
            except Exception as exc:  # noqa: BLE001 -- the answer is the user's
                self._ticket.failed(exc)
        return ModelResult(end="unknown")


class _Tapped:
    """What a generated subclass of botocore's event stream has of its own."""

    runrails_tap: EventTap

    def __iter__(self) -> Iterator[Event]:
        """The events. An iteration that is left may be taken up again, so it settles nothing."""
        tap = self.runrails_tap
        plain = cast("Iterator[Event]", inherited(self, "__iter__")())
        while True:
            try:
                event = next(plain)
            except StopIteration:
                break
            except BaseException:
                tap.end("lost")
                raise
            refusal = tap.see(event)
            if refusal is not None:
                self.close()
                yield event
                raise refusal
            yield event
        tap.end("ended")

    def close(self) -> None:
        """Close, and settle if that has not happened yet."""
        try:
            inherited(self, "close")()
        finally:
            self.runrails_tap.end("left")

    def __del__(self) -> None:
        self.runrails_tap.drop()


_NAMES = ("__iter__", "close", "__del__")
_tapped: dict[type, type] = {}


def tap_events(stream: object, tap: EventTap) -> None:
    """
    Let `tap` read along with a stream of events.

    Raises:
        TypeError: It is none.
    """
    kind = type(stream)
    made = _tapped.get(kind)
    if made is None:
        if not all(hasattr(kind, name) for name in _NAMES[:2]):
            raise TypeError("this is no stream of events")
        made = _tapped[kind] = subclass_of(kind, _Tapped, _NAMES)
    stream.__dict__["runrails_tap"] = tap
    stream.__class__ = made
