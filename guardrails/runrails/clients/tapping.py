"""
Reading along with a body that the caller reads: whatever of the SDK's many ways they choose, it goes through the HTTP
response's byte iterator, and its end through the response's `close`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from runrails import aio
from runrails.calls import ModelResult
from runrails.clients.coming import NOTHING, Coming
from runrails.clients.reading import inherited, subclass_of
from runrails.growth import Growth

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from runrails.clients.edge import Ticket
    from runrails.clients.plan import Leaving, StreamReader
    from runrails.errors import CallRefused, GuardrailStopped

__all__ = ["Tap", "WholeReader", "tap_response"]


class WholeReader:
    """Reads along with an answer that is no stream."""

    coming = NOTHING
    kept_back = b""
    failed = False

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Keep a piece."""
        self._pieces.append(data)
        return data

    def rest(self) -> bytes:
        """Nothing is kept back."""
        return b""

    def outcome(self, how: Leaving) -> ModelResult:
        """Decode it. Half of an answer was paid for in full."""
        if how != "ended":
            return ModelResult(end="unknown")
        try:
            return self._ticket.answer(json.loads(b"".join(self._pieces)))
        except ValueError:
            return ModelResult(end="completed")


class _Blind:
    """Takes the place of a reader that broke."""

    coming = NOTHING
    kept_back = b""
    failed = False

    def feed(self, data: bytes) -> bytes:
        """The caller sees everything."""
        return data

    def rest(self) -> bytes:
        """Nothing is kept back."""
        return b""

    def outcome(self, how: Leaving) -> ModelResult:
        """Nobody knows."""
        del how
        return ModelResult(end="unknown")


class Tap:
    """
    One body that is being read. What goes wrong in here is told of and charged at the hold; the caller's bytes pass.
    """

    __slots__ = ("__weakref__", "_growth", "_refusal", "blind", "coming", "over", "pulling", "reader", "ticket")

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.reader: StreamReader = ticket.plan.stream or WholeReader(ticket)
        self.coming: Coming[bytes] = self.reader.coming
        self._refusal: GuardrailStopped | CallRefused | None = None
        self._growth: Growth | None = None
        if self.coming is not NOTHING:
            self._growth = Growth(ticket.run, ticket.permit, lost=ticket.lost)
            self.coming.watch(self._growth)
        self.pulling = False
        """Whether the SDK is just waiting for the next piece: then whoever asked for it tells the end."""
        self.blind = False
        """Whether somebody reads the raw bytes past us."""
        self.over = False

    def rest(self) -> bytes:
        """At the end: what was kept back."""
        try:
            return self.reader.rest()
        except Exception as exc:  # noqa: BLE001 -- the bytes are the user's
            return self.broke(exc)

    def result(self, how: Leaving) -> ModelResult:
        """What the call came to."""
        self.over = True
        try:
            result = self.reader.outcome(how)
            held_pusd = 0 if self._growth is None else self._growth.held_pusd
            if held_pusd:
                result = replace(result, held_pusd=held_pusd)
            if not (self.blind and result.end == "cut"):
                return result
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's
            self.broke(exc)
        return ModelResult(end="unknown")

    def broke(self, error: Exception) -> bytes:
        """Reading along has failed: give it up, and return what the caller has not seen yet."""
        reader, self.reader = self.reader, _Blind()
        self.coming = NOTHING
        self.ticket.failed(error)
        return reader.kept_back

    def grow(self) -> bool:
        """More came than is held for: hold more. True if that is refused, so that the stream must be closed."""
        growth, coming = self._growth, self.coming
        if growth is None or self.over:
            return False
        try:
            self._refusal = growth.grow(coming)
            coming.watch(growth)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; what it cost is recorded in full
            coming.grown = False
            self.ticket.failed(exc)
        if self._refusal is None:
            return False
        self.ticket.closed(self._refusal)
        return True

    async def agrow(self) -> bool:
        """As `grow`, without blocking the event loop."""
        guard = self.ticket.edge.guard
        return await aio.off_loop(guard, self.grow) if guard.store.remote else self.grow()

    def refuse(self) -> None:
        """The stream is closed, and all that came of it was handed on: raise why."""
        if self._refusal is not None:
            raise self._refusal

    def end(self, how: Leaving) -> None:
        """Settle; later if a finaliser may be at work here."""
        if self.over:
            return
        self.over = True
        if isinstance(sys.exception(), GeneratorExit):
            self.ticket.settle_later(lambda: self.result(how))
        else:
            self.ticket.settle(self.result(how))

    async def aend(self, how: Leaving) -> None:
        """As `end`, without blocking the event loop. An async generator that is being closed cannot wait."""
        if self.over:
            return
        self.over = True
        if isinstance(sys.exception(), GeneratorExit):
            self.ticket.settle_later(lambda: self.result(how))
        else:
            await self.ticket.asettle(self.result(how))

    def drop(self) -> None:
        """The response was thrown away unread. Called by a finaliser."""
        if not self.over:
            self.over = True
            self.ticket.settle_later(lambda: self.result("left"))


class _SyncTapped:
    """What a generated subclass of a response's class has of its own."""

    runrails_tap: Tap

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The body in pieces, as the class behind this one gives them."""
        tap = self.runrails_tap
        plain = cast("Iterator[bytes]", inherited(self, "iter_bytes")(chunk_size))
        if tap.over:
            yield from plain
            return
        try:
            while True:
                tap.pulling = True
                try:
                    data = next(plain)
                except StopIteration:
                    break
                finally:
                    tap.pulling = False
                try:
                    shown = tap.reader.feed(data)
                except Exception as exc:  # noqa: BLE001 -- the bytes are the user's
                    shown = tap.broke(exc) + data
                if tap.reader.failed:
                    tap.end("lost")
                if tap.coming.grown and tap.grow():
                    self.close()
                    if shown:
                        yield shown
                    tap.refuse()
                if shown:
                    yield shown
            rest = tap.rest()
            tap.end("ended")
            if rest:
                yield rest
        except BaseException as exc:
            tap.end(_how(exc))
            raise

    def iter_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The raw bytes; what they say is not read along."""
        if not self.runrails_tap.pulling:
            self.runrails_tap.blind = True
        return cast("Iterator[bytes]", inherited(self, "iter_raw")(chunk_size))

    def close(self) -> None:
        """Close, and settle if that has not happened yet."""
        try:
            inherited(self, "close")()
        finally:
            if not self.runrails_tap.pulling:
                self.runrails_tap.end("left")

    def __del__(self) -> None:
        self.runrails_tap.drop()


class _AsyncTapped:
    """What a generated subclass of a response's class has of its own."""

    runrails_tap: Tap

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body in pieces, as the class behind this one gives them."""
        tap = self.runrails_tap
        plain = cast("AsyncIterator[bytes]", inherited(self, "aiter_bytes")(chunk_size))
        if tap.over:
            async for data in plain:
                yield data
            return
        try:
            while True:
                tap.pulling = True
                try:
                    data = await anext(plain)
                except StopAsyncIteration:
                    break
                finally:
                    tap.pulling = False
                try:
                    shown = tap.reader.feed(data)
                except Exception as exc:  # noqa: BLE001 -- the bytes are the user's
                    shown = tap.broke(exc) + data
                if tap.reader.failed:
                    await tap.aend("lost")
                if tap.coming.grown and await tap.agrow():
                    await self.aclose()
                    if shown:
                        yield shown
                    tap.refuse()
                if shown:
                    yield shown
            rest = tap.rest()
            await tap.aend("ended")
            if rest:
                yield rest
        except BaseException as exc:
            await tap.aend(_how(exc))
            raise

    def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The raw bytes; what they say is not read along."""
        if not self.runrails_tap.pulling:
            self.runrails_tap.blind = True
        return cast("AsyncIterator[bytes]", inherited(self, "aiter_raw")(chunk_size))

    async def aclose(self) -> None:
        """Close, and settle if that has not happened yet."""
        try:
            await cast("Awaitable[None]", inherited(self, "aclose")())
        finally:
            if not self.runrails_tap.pulling:
                await self.runrails_tap.aend("left")

    def __del__(self) -> None:
        self.runrails_tap.drop()


_SYNC = ("iter_bytes", "iter_raw", "close", "__del__")
_ASYNC = ("aiter_bytes", "aiter_raw", "aclose", "__del__")
_tapped: dict[tuple[type, bool], type] = {}


def tap_response(response: object, tap: Tap) -> None:
    """Let `tap` read along with a response whose body is still to be read."""
    kind = type(response)
    is_async = isinstance(getattr(response, "stream", None), AsyncIterator) or hasattr(
        getattr(response, "stream", None), "__aiter__"
    )
    made = _tapped.get((kind, is_async))
    if made is None:
        own, names = (_AsyncTapped, _ASYNC) if is_async else (_SyncTapped, _SYNC)
        made = _tapped[kind, is_async] = subclass_of(kind, own, names)
    response.__dict__["runrails_tap"] = tap
    response.__class__ = made
    tap.ticket.edge.tapped(tap)


def _how(error: BaseException) -> Leaving:
    if isinstance(error, GeneratorExit) or type(error).__name__ == "CancelledError":
        return "left"
    return "lost"
