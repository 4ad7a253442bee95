"""
Connections with limits: headers that are too many or come too slowly, and bodies that nobody waits for any more.

uvicorn's own protocol lets a caller send the head of a request for as long, and as much of it, as they like, before any
application hears of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio
    from asyncio import TimerHandle

__all__ = ["BoundedProtocol"]

HEAD_BYTES_MAX = 65_536
HEAD_S_MAX = 10.0
REST_S_MAX = 30.0
"""How long the rest of a body is taken in, and thrown away, after its request has been answered."""
_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_SLOW = b"408 Request Timeout"
_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)


class BoundedProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=BoundedProtocol)`."""

    _timer: TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    """Whether a head is being read, or waited for on a new connection."""
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the class above has it
        """A caller has connected, and is to send a head."""
        super().connection_made(transport)
        self._wait(HEAD_S_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        """A caller has gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        if self._in_head:
            self._head_bytes += len(data)
        if not self._in_body and data.find(b"pgrade", 0, HEAD_BYTES_MAX) >= 0:
            data = _without_upgrade(data)
        super().data_received(data)
        # What came behind the head in the same piece is body, and in the head no more.
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._give_up(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._in_body = True, False
        if self._timer is None:
            self._head_bytes = 0
            self._wait(HEAD_S_MAX)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._stop_waiting()
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        super().on_headers_complete()
        if self.cycle is not None:  # pyright: ignore[reportUnnecessaryComparison] -- where another protocol takes over
            self.cycle.transport = _Together(self.transport, self.loop)  # type: ignore[assignment] # all that it uses

    def on_message_complete(self) -> None:
        """A body is complete."""
        self._in_body = False
        if not self._in_head:
            self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request is answered."""
        super().on_response_complete()
        if self._in_body and self._timer is None:
            self._wait(REST_S_MAX)

    def _wait(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._give_up(_TOO_SLOW if self._in_head and self._head_bytes else b"")

    def _give_up(self, status: bytes) -> None:
        """Say why, if a request was about to come, and hang up."""
        transport = self.transport
        if transport.is_closing():
            return
        if status:
            transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        transport.close()


class _Together:
    """
    What an answer is written to: its head leaves together with what follows at once. Each write by itself wakes up the
    caller, and takes as long as reading the request does.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = b""
        """What is kept back: nothing yet, a head, or None once it is out."""

    def write(self, data: bytes) -> None:
        head = self._head
        if head is None:
            self._transport.write(data)
        elif head:
            self._head = None
            self._transport.write(head + data)
        else:
            self._head = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, None
        if head:
            self._transport.write(head)


def _without_upgrade(data: bytes) -> bytes:
    """
    The beginning of a request without a wish for another protocol, which a server may pass over. Java's own client has
    one in each request, for HTTP/2, and the parser would take the body for the other protocol's.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade", head) + end + rest
