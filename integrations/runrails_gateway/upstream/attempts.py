"""A request's attempts: which upstream is asked, how often, on whose key, and what its error says to the caller."""

from __future__ import annotations

import asyncio
import json
import re
from copy import copy
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.clients.shelving import asking
from runrails.errors import CredentialError
from runrails.redaction import MASK, redact
from runrails_gateway.config import prices_of
from runrails_gateway.errors import UpstreamError
from runrails_gateway.upstream.headers import passed_on, with_key
from runrails_gateway.upstream.retrying import AFTER_MS_MAX, Attempt, is_upstreams_fault, pause_ms, retry_after_ms
from runrails_gateway.upstream.sending import AnswerTooLarge, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.keyroutes import Route
    from runrails_gateway.config import Upstream
    from runrails_gateway.errors import Failure
    from runrails_gateway.exchange import Exchange
    from runrails_gateway.ticket import Ticket
    from runrails_gateway.upstream.breaker import Breaker
    from runrails_gateway.upstream.headers import Pairs
    from runrails_gateway.upstream.sending import Answer, Sender

__all__ = ["Attempts", "Lines", "TheirError"]

ERROR_BYTES_MAX = 65_536
_SENDABLE = re.compile(r"[!-~]+")
"""What a header can hold; HTTP libraries quote what they cannot send in their errors."""
_QUERY = b"beta=true"
"""All that Anthropic's SDK ever asks for there."""


class Lines(NamedTuple):
    """What leads to upstreams, shared by all requests of a process."""

    senders: Mapping[str, Sender]
    """By dialect."""
    breakers: Mapping[str, Breaker]
    """By name."""
    monotonic: Callable[[], int]
    jitter: Callable[[], float]


class TheirError(NamedTuple):
    """An upstream's error as it is passed on."""

    headers: Pairs
    body: bytes


class Attempts:
    """
    Those of one request.

    Args:
        lines: What leads to upstreams.
        upstreams: Who serves the model, the one to ask first at the front.
        exchange: The request.
        query: Its query string.
    """

    def __init__(self, lines: Lines, upstreams: tuple[Upstream, ...], exchange: Exchange, query: bytes) -> None:
        self._lines = lines
        self._upstreams = upstreams
        self._exchange = exchange
        self._path = exchange.dialect.path + ("?beta=true" if query == _QUERY else "")
        self._headers = passed_on(exchange.headers, upstreams[0].dialect)
        self._route: Route | None = None
        self._secret: str | None = None
        self._retry_after_ms: int | None = None
        self.made = 0
        """How many there were."""

    @property
    def first(self) -> Upstream:
        """Who is asked first."""
        return self._upstreams[0]

    @property
    def asked(self) -> dict[str, object]:
        """Who is asked, and how: whatever of it can change an answer."""
        first = self.first
        told = {name.lower(): value for name, value in self._headers.items()}
        return {
            "upstream": first.name, "provider": first.provider, "address": first.base_url, "path": self._path,
            "region": first.region, "headers": asking({**told}),
        }  # fmt: skip

    def toward(self, upstreams: tuple[Upstream, ...]) -> Attempts | None:
        """The same request's, to others; None if there are none, or none at the same prices and on the same keys."""
        if not upstreams or prices_of(upstreams[0]) != prices_of(self.first):
            return None
        other = copy(self)
        other._upstreams = upstreams  # noqa: SLF001 -- of this very class
        return other

    def check_rest(self) -> None:
        """Raise UpstreamError if all upstreams rest, before anything is held for the call."""
        now_ms = self._lines.monotonic()
        left_ms = min(self._breaker(each).left_ms(now_ms) for each in self._upstreams)
        if left_ms:
            raise UpstreamError("resting", attempts=0, retry_after_ms=left_ms)

    async def answer(self, ticket: Ticket, body: bytes, gone: Callable[[], bool]) -> Answer:
        """
        Send it, again where that may help and is paid for, until there is an answer to pass on, good or bad.

        Raises:
            UpstreamError: There is none.
            CredentialError: The chosen key cannot be sent.
        """
        self._route = ticket.permit.route
        left = ticket.permit.retries
        while True:
            upstream = self._next()
            answer, attempt = await self._try(upstream, ticket, body)
            pause = None
            if answer is None or answer.status >= 400:
                pause = pause_ms(attempt, made=self.made, left=left, jitter=self._lines.jitter())
            if pause is None or gone():
                if answer is not None:
                    return answer
                raise self._no_answer(attempt)
            if answer is not None:
                answer.close()
            ticket.lost += attempt.unknown
            ticket.sent = False
            left -= 1
            await asyncio.sleep(pause / 1_000)

    async def free_answer(self, body: bytes, route: Route | None) -> Answer:
        """Send what costs nothing, once, on that key. Raises UpstreamError, CredentialError."""
        self._route = route
        answer, attempt = await self._try(self._next(), None, body)
        if answer is None:
            raise self._no_answer(attempt)
        return answer

    async def error_of(self, answer: Answer) -> TheirError:
        """
        What an upstream's error answer says, without what is nobody's business.

        Raises:
            UpstreamError: It is not for the caller: the platform's key was refused, a redirect, or no JSON.
        """
        status, byok = answer.status, self._route is not None and self._route.byok
        if status == 401 and not byok:
            raise UpstreamError("key_refused", status=status, attempts=self.made)
        try:
            raw = await answer.whole(ERROR_BYTES_MAX)
        except (NoAnswer, AnswerTooLarge):
            raw = b""
        body = None if status < 400 else _without_secrets(raw, self._secret)
        if body is None:
            raise UpstreamError("failed", status=status, attempts=self.made, retry_after_ms=self._retry_after_ms)
        headers: Pairs = [(b"content-type", b"application/json")]
        after_ms = self._retry_after_ms
        if after_ms is not None:
            headers.append((b"retry-after", b"%d" % -(-min(after_ms, AFTER_MS_MAX) // 1_000)))
        if self._is_in_vain(answer, raw):
            headers.append((b"x-should-retry", b"false"))
        return TheirError(headers, body)

    def _is_in_vain(self, answer: Answer, raw: bytes) -> bool:
        """Whether the SDK's own retries would only add to ours, or to what cannot be mended by them."""
        told_so = answer.headers.get("x-should-retry") == "false"
        too_long = self._retry_after_ms is not None and self._retry_after_ms > AFTER_MS_MAX
        return self.made > 1 or told_so or too_long or (answer.status == 429 and b'"insufficient_quota"' in raw)

    async def _try(self, upstream: Upstream, ticket: Ticket | None, body: bytes) -> tuple[Answer | None, Attempt]:
        lines, breaker = self._lines, self._breaker(upstream)
        headers = with_key(self._headers, upstream.dialect, self._key(upstream))
        self.made += 1
        self._exchange.upstream = upstream.name
        if ticket is not None:
            ticket.sent = True
        try:
            answer = await lines.senders[upstream.dialect].send(upstream, self._path, headers, body)
        except NoAnswer as exc:
            if ticket is not None:
                ticket.sent = exc.sent
            if not (exc.sent and exc.timed_out):  # which may be about this request alone
                breaker.failed(lines.monotonic())
            return None, Attempt(None, exc.sent, timed_out=exc.timed_out)
        status = answer.status
        if is_upstreams_fault(status):
            breaker.failed(lines.monotonic())
        else:
            breaker.succeeded()
        if status < 300:
            return answer, Attempt(status, sent=True)
        if ticket is not None:
            ticket.sent = False  # A definite error costs nothing.
        told = answer.headers
        self._retry_after_ms = retry_after_ms(told.get("retry-after"), told.get("retry-after-ms"))
        should = {"true": True, "false": False}.get(told.get("x-should-retry", ""))
        return answer, Attempt(status, sent=True, retry_after_ms=self._retry_after_ms, should_retry=should)

    def _next(self) -> Upstream:
        """Whose turn it is: after a failure the next one's, of those that do not rest. Raises UpstreamError."""
        usable = [each for each in self._upstreams if self._may_have_key(each)]
        now_ms = self._lines.monotonic()
        for step in range(len(usable)):
            upstream = usable[(self.made + step) % len(usable)]
            if self._breaker(upstream).enter(now_ms):
                return upstream
        left_ms = min((self._breaker(each).left_ms(now_ms) for each in usable), default=None)
        raise UpstreamError("resting", attempts=self.made, retry_after_ms=left_ms)

    def _may_have_key(self, upstream: Upstream) -> bool:
        """A key that somebody keeps for one address is sent to no other."""
        route = self._route
        return route is None or route.secret is None or (route.place is not None and route.place == upstream.place)

    def _key(self, upstream: Upstream) -> str | None:
        route = self._route
        secret = upstream.key if route is None or route.secret is None else route.secret
        if secret is None:
            self._secret = None
            return None
        try:
            key = secret.reveal()
        except ValueError:  # bytes that are no text
            key = ""
        if not _SENDABLE.fullmatch(key):
            name = upstream.name if route is None or route.secret is None else route.name
            raise CredentialError(
                f"The key {name} cannot be sent: a provider key is one word of plain ASCII.",
                next_step="Replace it, without the line breaks or other signs in it.", credential=name,
            )  # fmt: skip
        self._secret = key
        return key

    def _breaker(self, upstream: Upstream) -> Breaker:
        return self._lines.breakers[upstream.name]

    def _no_answer(self, attempt: Attempt) -> UpstreamError:
        failure: Failure = "timed_out" if attempt.timed_out else "failed" if attempt.sent else "unreachable"
        return UpstreamError(failure, attempts=self.made)


def _without_secrets(raw: bytes, secret: str | None) -> bytes | None:
    """An error's JSON without keys in it; its own bytes if there are none. None if it is no JSON object."""
    if secret is not None and secret.encode() in raw:
        raw = raw.replace(secret.encode(), MASK.encode())
    try:
        body: object = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    clean = redact(cast("dict[str, object]", body))
    return raw if clean == body else json.dumps(clean, separators=(",", ":")).encode()
