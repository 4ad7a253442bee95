"""Reading along with one streamed answer, as it is passed on: what it cost, and whether it may go on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runrails import aio
from runrails.calls import ModelResult
from runrails.clients.coming import NOTHING
from runrails.growth import Growth

if TYPE_CHECKING:
    from runrails.clients.plan import Leaving, StreamReader
    from runrails.errors import CallRefused, GuardrailStopped
    from runrails_gateway.ticket import Ticket

__all__ = ["Passing"]

KEPT_BYTES_MAX = 1_048_576
"""Of a longer stream it is not learnt which answer its caller will send back."""


class Passing:
    """
    One stream on its way. What goes wrong in here is told of and charged at the hold; the caller's bytes pass.
    """

    __slots__ = ("_broken", "_growth", "_kept", "_kept_bytes", "_ticket", "coming", "reader", "refusal", "size")

    def __init__(self, ticket: Ticket, reader: StreamReader) -> None:
        self._ticket = ticket
        self.reader = reader
        self.coming = reader.coming
        self.refusal: GuardrailStopped | CallRefused | None = None
        """Why it may not go on: what comes is worth more than can be held for it."""
        self.size = 0
        """How many bytes have come."""
        self._broken = False
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._growth: Growth | None = None
        if self.coming is not NOTHING:
            self._growth = Growth(ticket.run, ticket.permit, lost=ticket.lost)
            self.coming.watch(self._growth)

    @property
    def over(self) -> bool:
        """Whether the last event has come, or one that says that the provider gave up."""
        return not self._broken and (self.reader.failed or bool(getattr(self.reader, "ended", False)))

    @property
    def whole(self) -> bytes | None:
        """All that came; None if that was too much to keep."""
        return None if self._kept_bytes > KEPT_BYTES_MAX else b"".join(self._kept)

    def feed(self, data: bytes) -> bytes:
        """Read a piece; what of it the caller may see."""
        size = len(data)
        self.size += size
        if self._kept_bytes <= KEPT_BYTES_MAX:
            self._kept_bytes += size
            self._kept.append(data)
            if self._kept_bytes > KEPT_BYTES_MAX:
                self._kept.clear()
        if self._broken:
            return data
        try:
            return self.reader.feed(data)
        except Exception as exc:  # noqa: BLE001 -- the bytes are the caller's
            return self._broke(exc) + data

    def rest(self) -> bytes:
        """At the end: what was kept back."""
        if self._broken:
            return b""
        try:
            return self.reader.rest()
        except Exception as exc:  # noqa: BLE001 -- the bytes are the caller's
            return self._broke(exc)

    async def may_go_on(self) -> bool:
        """Asked where more came than is held for: hold more. False if that is refused, and it must be broken off."""
        guard = self._ticket.run.guard
        refused = await aio.off_loop(guard, self._grow) if guard.store.remote else self._grow()
        return not refused

    def result(self, how: Leaving) -> ModelResult:
        """What the call came to. Never raises."""
        if self._broken:
            return ModelResult(end="unknown")
        try:
            result = self.reader.outcome(how)
        except Exception as exc:  # noqa: BLE001 -- the answer is the caller's
            self._broke(exc)
            return ModelResult(end="unknown")
        held_pusd = 0 if self._growth is None else self._growth.held_pusd
        return replace(result, held_pusd=held_pusd) if held_pusd else result

    def _grow(self) -> bool:
        growth, coming = self._growth, self.coming
        if growth is None:
            return False
        try:
            self.refusal = growth.grow(coming)
            coming.watch(growth)
        except Exception as exc:  # noqa: BLE001 -- the answer is the caller's; what it cost is recorded in full
            coming.grown = False
            self._ticket.failed(exc)
        return self.refusal is not None

    def _broke(self, error: Exception) -> bytes:
        """Reading along has failed: give it up, and return what the caller has not seen yet."""
        self._broken = True
        self.coming = NOTHING
        self._ticket.failed(error)
        return self.reader.kept_back
