"""How answers are written to connections: a head leaves with what follows at once, and waits for nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from runrails_gateway.protocol import BoundedProtocol

REQUEST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """What was written, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.pieces.append(bytes(data))

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def is_closing(self) -> bool:
        """As asked for."""
        return self.closed

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""


async def written(app: Any, *, request: bytes = REQUEST) -> Wire:
    """What an application's answer looks like on the wire, once it and some more turns of the loop are over."""
    wire = Wire()
    config = Config(app, http=BoundedProtocol, lifespan="off", log_config=None, ws="none")
    config.load()
    protocol = BoundedProtocol(config, ServerState(), {})
    protocol.connection_made(wire)
    protocol.data_received(request)
    for _ in range(20):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return wire


async def test_a_whole_answer_is_one_piece() -> None:
    """Head and body together."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    wire = await written(app)
    assert 1 == len(wire.pieces)
    assert wire.pieces[0].startswith(b"HTTP/1.1 200 OK\r\n") and wire.pieces[0].endswith(b"\r\n\r\ndone")


async def test_the_head_of_a_stream_does_not_wait_for_its_first_event() -> None:
    """What follows later is a piece of its own."""
    first = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        asyncio.get_running_loop().call_later(0, first.set)
        await first.wait()
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    wire = await written(app)
    head, *rest = wire.pieces
    assert head.endswith(b"\r\n\r\n")
    assert [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"] == rest


async def test_a_head_leaves_before_its_connection_is_closed() -> None:
    """An application that breaks off behind it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    wire = await written(app, request=REQUEST.replace(b"host:", b"connection: close\r\nhost:"))
    assert wire.closed
    assert [b"HTTP/1.1 200 OK"] == [piece[:15] for piece in wire.pieces]


async def test_answers_on_one_connection_follow_each_other() -> None:
    """Two requests in one piece are answered one after the other, each whole."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": scope["path"][-1:].encode()})

    two = REQUEST.replace(b"POST /", b"POST /a") + REQUEST.replace(b"POST /", b"POST /b")
    wire = await written(app, request=two)
    said = b"".join(wire.pieces)
    assert [b"a", b"b"] == [part[:1] for part in said.split(b"\r\n\r\n")[1:]]
