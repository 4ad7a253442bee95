"""One request and its answer, as ASGI has them: read within limits, answered once, and told of when it is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, Protocol

from runrails_gateway.errors import BadRequest, TooLarge, TooSlow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.types import Receive, Scope, Send

    from runrails.calls import ModelResult
    from runrails.identity.principal import Principal
    from runrails_gateway.config import Limited
    from runrails_gateway.dialects import Dialect, Told
    from runrails_gateway.sparing import Spared
    from runrails_gateway.ticket import Ticket

__all__ = ["Ending", "Exchange", "Headers", "Left", "Watcher", "check_headers", "header_of", "read_body", "the_header"]

Headers = list[tuple[bytes, bytes]]
Ending = Literal["answered", "refused", "failed", "left"]
"""How a request ended: with an answer, by us before anything was sent, by its upstream, or its caller was gone."""


class Left(Exception):
    """The caller has gone before the request was complete."""


class Watcher(Protocol):
    """Hears of requests. It must be quick: the event loop waits for it."""

    def began(self, exchange: Exchange) -> None:
        """
        A request has come; its credential is not looked at yet. Context variables that are set here are seen by all
        that is done for the request once it is let in and complete, and by nothing else.
        """
        ...

    def ended(self, exchange: Exchange) -> None:
        """It is over. No prompt, answer or credential is in it."""
        ...


class Exchange:
    """What is known of one request. For one event loop; `send` is called by one task at a time."""

    __slots__ = (
        "_send", "begun", "bytes_out", "complete", "dialect", "ending", "error", "gone", "headers", "id", "left",
        "model", "principal", "request_bytes", "resent", "result", "run_id", "spared", "started_ms", "status", "stream",
        "ticket", "told", "upstream",
    )  # fmt: skip

    def __init__(self, scope: Scope, send: Send, dialect: Dialect, *, request_id: str, started_ms: int) -> None:
        self._send = send
        self.headers: Headers = scope["headers"]
        self.dialect = dialect
        self.id = request_id
        self.started_ms = started_ms
        """Of the monotonic clock."""
        self.principal: Principal | None = None
        self.model = ""
        self.stream = False
        self.upstream = ""
        self.run_id: str | None = None
        self.request_bytes = 0
        self.resent = 0
        """How often the client says that it has sent it before."""
        self.spared: Spared | None = None
        """What was done so that it costs less; None if nothing is ever done."""
        self.bytes_out = 0
        self.ticket: Ticket | None = None
        """The newest permit of this request, and what it cost."""
        self.result: ModelResult | None = None
        """What came of the call."""
        self.error: Exception | None = None
        """What went wrong."""
        self.told: Told | None = None
        """What its caller was told of that."""
        self.ending: Ending = "failed"
        self.status = 0
        self.begun = False
        """Whether the answer has."""
        self.complete = False
        """Whether all of it is out."""
        self.gone = False
        """Whether nobody is there any more to answer to."""
        self.left: Callable[[], None] | None = None
        """Called once nobody is."""

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin the answer."""
        self.begun = True
        self.status = status
        await self._pass({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def body(self, data: bytes, *, more: bool) -> None:
        """A piece of it."""
        self.bytes_out += len(data)
        self.complete = not more
        if self.gone:
            return
        try:  # as in `_pass`, which would be one more coroutine for every piece
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except OSError:
            self.leave()

    async def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], data: bytes) -> None:
        """All of it."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(data))])
        await self.body(data, more=False)

    async def _pass(self, message: dict[str, object]) -> None:
        if self.gone:
            return
        try:
            await self._send(message)
        except OSError:  # how servers say that the caller has hung up
            self.leave()

    def leave(self) -> None:
        """The caller has gone."""
        if not self.gone:
            self.gone = True
            if self.left is not None:
                self.left()


def header_of(headers: Headers, name: bytes) -> str | None:
    """The header of that name, in lower case, if there is exactly one."""
    found = [value for key, value in headers if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def the_header(headers: Headers, name: bytes) -> str | None:
    """The same; raises BadRequest if there are several: another reader may take the other one."""
    if sum(key == name for key, _ in headers) > 1:
        raise BadRequest("header_repeated", "A header that may be there once is there several times.")
    return header_of(headers, name)


def check_headers(headers: Headers, limited: Limited) -> None:
    """
    Look at a request's headers before anybody is asked who sends it.

    Raises:
        BadRequest: They are too many, or say two things about where the body ends.
        TooLarge: They announce a larger body than is taken.
    """
    size, length, chunked = 0, None, False
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 18:
                raise BadRequest("content_length_malformed", "The request says in two ways how long its body is.")
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise BadRequest("content_encoding", "The request's body is packed.", next_step="Send it as it is.")
    if size > limited.headers_bytes_max:
        raise BadRequest("headers_too_large", "The request's headers are too large.", next_step="Send fewer.")
    if chunked and length is not None:
        raise BadRequest("content_length_malformed", "The request says in two ways how long its body is.")
    if length is not None and length > limited.body_bytes_max:
        raise TooLarge(limited.body_bytes_max)


async def read_body(receive: Receive, limited: Limited) -> bytes:
    """
    A request's body.

    Raises:
        TooLarge, TooSlow: It is more than is taken, or does not come in time.
        Left: The caller has gone.
    """
    try:
        async with asyncio.timeout(limited.body_ms_max / 1_000):
            return await _read(receive, limited.body_bytes_max)
    except TimeoutError:
        raise TooSlow from None


async def _read(receive: Receive, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    left = bytes_max
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Left
        piece: bytes = message.get("body", b"")
        left -= len(piece)
        if left < 0:
            raise TooLarge(bytes_max)
        pieces.append(piece)
        if not message.get("more_body", False):
            return piece if len(pieces) == 1 else b"".join(pieces)
