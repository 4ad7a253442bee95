"""
One attempt at a provider, over aiohttp.

No redirect is followed, as it would take prompt and key to another host; no cookie is kept, and no proxy or credentials
of the environment are used. A body is asked for as it is, so that its bytes can be passed on untouched; one that comes
packed all the same is unpacked.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Protocol

import aiohttp
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails_gateway.config import Upstream

__all__ = ["Answer", "AnswerTooLarge", "HttpSender", "NoAnswer", "Sender"]

CONNECTIONS_MAX = 1_000
IDLE_S = 15.0
"""Connections are given up before providers do: a request on one that the other side has just closed is lost."""
LINE_BYTES_MAX = 32_768
AT_ONCE_BYTES_MAX = 1_048_576
"""A larger body is sent in parts, so that others get their turn."""
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Errors from before the first byte has left."""
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class NoAnswer(Exception):
    """
    An attempt broke off. Our own: the libraries' errors name hosts.

    Args:
        sent: Whether any of the request may have left.
        timed_out: Whether it took too long.
    """

    def __init__(self, *, sent: bool, timed_out: bool) -> None:
        super().__init__("no answer")
        self.sent = sent
        self.timed_out = timed_out


class AnswerTooLarge(Exception):
    """An answer that is no stream is larger than is kept."""


class Answer(Protocol):
    """An answer that has begun. For one reader."""

    @property
    def status(self) -> int:
        """As HTTP has it."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """In any case."""
        ...

    async def piece(self) -> bytes:
        """The next bytes of the body, as they come; none at its end. Raises NoAnswer."""
        ...

    async def whole(self, bytes_max: int) -> bytes:
        """What is left of the body. Raises NoAnswer, AnswerTooLarge."""
        ...

    def close(self) -> None:
        """Break off, if it is not over. Closing twice is fine."""
        ...


class Sender(Protocol):
    """What can send requests to upstreams of one dialect."""

    async def send(self, upstream: Upstream, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send one request, once. Raises NoAnswer."""
        ...

    async def close(self) -> None:
        """Let go of its connections."""
        ...


class HttpSender:
    """For what speaks OpenAI's or Anthropic's HTTP itself. Make it where its event loop runs."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=True,
            max_line_size=LINE_BYTES_MAX, max_field_size=LINE_BYTES_MAX,
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )  # fmt: skip
        self._timeouts: dict[str, aiohttp.ClientTimeout] = {}

    async def send(self, upstream: Upstream, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """See `Sender.send`."""
        timeout = self._timeouts.get(upstream.name) or self._timeout_of(upstream)
        data = body if len(body) < AT_ONCE_BYTES_MAX else BytesIO(body)
        try:
            response = await self._session.post(
                # As it is: what is escaped in a path may have been signed so.
                URL(upstream.base_url + path, encoded=True), data=data, headers=headers, allow_redirects=False,
                timeout=timeout,
            )  # fmt: skip
        except _NOT_SENT as exc:
            raise NoAnswer(sent=False, timed_out=isinstance(exc, TimeoutError)) from None
        except _BROKEN as exc:
            raise NoAnswer(sent=True, timed_out=isinstance(exc, TimeoutError)) from None
        return _HttpAnswer(response)

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._session.close()

    def _timeout_of(self, upstream: Upstream) -> aiohttp.ClientTimeout:
        timeout = self._timeouts[upstream.name] = aiohttp.ClientTimeout(
            total=None, sock_connect=upstream.connect_ms / 1_000, sock_read=upstream.silence_ms / 1_000
        )
        return timeout


class _HttpAnswer:
    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def piece(self) -> bytes:
        try:
            return await self._response.content.readany()
        except _BROKEN as exc:
            raise NoAnswer(sent=True, timed_out=isinstance(exc, TimeoutError)) from None

    async def whole(self, bytes_max: int) -> bytes:
        first = await self.piece()
        second = await self.piece() if first else b""
        if not second:  # by far the most come at once
            return first
        pieces, size = [first, second], len(first) + len(second)
        while size <= bytes_max:
            more = await self.piece()
            if not more:
                return b"".join(pieces)
            pieces.append(more)
            size += len(more)
        self.close()
        raise AnswerTooLarge

    def close(self) -> None:
        self._response.close()
