"""The connection to one client: what the engine does to it, in HTTP/1.1."""

from __future__ import annotations

import os
import socket
import struct
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from runrails.testing.provider.engine import Waited

__all__ = ["HttpLine"]

POLL_S = 0.01
"""How often a waiting line looks whether its client has left."""


class HttpLine:
    """An `engine.Line` over a socket; every write goes out at once. `ended`: the connection is to be closed."""

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self.ended = False
        self._socket = connection
        self._closing = closing

    def wait(self, what: int | threading.Event) -> Waited:
        """Wait for milliseconds or for an event."""
        ends = time.monotonic() + what / 1000 if isinstance(what, int) else None
        while not self._closing.is_set():
            left_s = POLL_S if ends is None else min(ends - time.monotonic(), 2 * POLL_S)
            if left_s <= 0:
                return "done"
            if isinstance(what, int):
                self._closing.wait(left_s)
            elif what.wait(left_s):
                return "done"
            # Closing cuts the connections too, and must not pass for a client that left.
            if self.gone() and not self._closing.is_set():
                return "gone"
        return "closing"

    def gone(self) -> bool:
        """Whether the client has closed its end."""
        try:
            self._socket.settimeout(0)
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(None)

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a complete answer."""
        self._socket.sendall(_head(status, {**headers, "content-length": str(len(body))}) + body)

    def half(self, headers: Mapping[str, str], body: bytes) -> None:
        """Send the headers of a complete answer and half of its body, then hang up."""
        self._socket.sendall(_head(200, {**headers, "content-length": str(len(body))}) + body[: len(body) // 2])
        self.hang_up()

    def open_stream(self, headers: Mapping[str, str]) -> None:
        """Send the headers of a stream."""
        self._socket.sendall(_head(200, {**headers, "transfer-encoding": "chunked", "cache-control": "no-cache"}))

    def piece(self, data: bytes) -> bool:
        """Send a piece of a stream; False if the client is not there any more."""
        try:
            self._socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        except OSError:
            return False
        return True

    def close_stream(self) -> None:
        """End a stream properly."""
        self._socket.sendall(b"0\r\n\r\n")

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the connection without another word."""
        self.ended = True
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self._socket.detach())  # Now: the streams over the socket would put it off.


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Scripted"  # vendors have numbers of their own, such as Anthropic's 529
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
