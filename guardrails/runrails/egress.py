"""
Asking a host outside, through the rules of `runrails.egress_rules`.

The host's name is resolved once, all its addresses are looked at, and the connection goes to the one that was looked
at, under the original name for TLS and `Host`: a name that points elsewhere a moment later changes nothing. No redirect
is followed, no proxy and no credentials of the environment are used, no cookie is kept. Size and time have limits, and
the time is that of the whole request, however slowly its parts come.

The webhooks of `runrails.notify` do not go through here: their addresses are settings of the operator alone, may be
inside (a chat server in one's own network), and nothing that they answer is shown to anybody.
"""

from __future__ import annotations

import io
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from runrails.clocks import Clock, monotonic_ms
from runrails.egress_rules import HTTPS_PORTS, Target, check_addresses, check_networks, check_url
from runrails.errors import RunrailsError
from runrails.forks import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import LiteralString

    from _typeshed import WriteableBuffer

__all__ = ["Answer", "EgressFailed", "Policy", "Resolver", "fetch", "resolve", "system_resolver"]

BODY_BYTES_MAX = 262_144
TIMEOUT_MS = 5_000
_LOOKUPS_MAX = 16
"""A name server that does not answer holds a thread for longer than we wait for it; so many may be held."""
_CHUNK_BYTES = 16_384


class EgressFailed(RunrailsError):
    """A host that may be asked did not give an answer that can be used."""

    code = "egress_failed"
    http_status = 502

    def __init__(self, reason: LiteralString, *, host: str) -> None:
        super().__init__(
            f"{host} gave no usable answer: {reason.replace('_', ' ')}.",
            next_step="Check that it can be reached from here, and try again later.",
            reason=reason,
            host=host,
        )

    @property
    def reason(self) -> str:
        """What went wrong, as a word of ours."""
        return str(self.fields["reason"])


class Resolver(Protocol):
    """Finds the addresses of a host."""

    def __call__(self, host: str, port: int, /) -> Sequence[str]:
        """All of them, as text. Raises OSError if there are none or nobody answers."""
        ...


class Answer(NamedTuple):
    """What a host answered."""

    status: int
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes


class Policy(NamedTuple):
    """What may be asked, and how much of it is read."""

    allow_hosts: Collection[str] = ()
    """See `runrails.egress_rules.check_url`: none unless they are listed."""
    ports: Collection[int] = HTTPS_PORTS
    networks: Collection[str] = ()
    """Networks that are not public and that the operator vouches for, as `10.20.0.0/16`."""
    body_bytes_max: int = BODY_BYTES_MAX
    timeout_ms: int = TIMEOUT_MS
    """For the whole request, from looking up the name to the last byte."""


def system_resolver(host: str, port: int, /) -> Sequence[str]:
    """Ask this machine's resolver. It may take as long as it is set up to."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def resolve(
    target: Target,
    resolver: Resolver = system_resolver,
    *,
    networks: Collection[str] = (),
    timeout_ms: int = TIMEOUT_MS,
) -> str:
    """
    Look a target's host up once, and choose the address to connect to.

    Raises:
        EgressRefused: It has an address that is not public; see `runrails.egress_rules.check_addresses`.
        EgressFailed: Nobody knows it, or nobody answers in time.
    """
    vouched = check_networks(networks)
    return check_addresses(_look_up(target, resolver, timeout_ms), host=target.host, networks=vouched)


class _Lookups:
    """Places for name servers that take their time."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: the threads that held places are not there."""
        self.places = BoundedSemaphore(_LOOKUPS_MAX)


_lookups = renew_after_fork(_Lookups())


def _look_up(target: Target, resolver: Resolver, timeout_ms: int) -> Sequence[str]:
    """Resolvers have no time limit of their own, so another thread waits for them."""
    places = _lookups.places
    if not places.acquire(blocking=False):
        raise EgressFailed("resolver_busy", host=target.host)
    found: list[Sequence[str]] = []

    def ask() -> None:
        try:
            found.append(resolver(target.host, target.port))
        except (OSError, ValueError):  # ValueError: a name that the codec of IDNA refuses
            found.append(())
        finally:
            places.release()

    asking = Thread(target=ask, name="runrails-resolver", daemon=True)
    try:
        asking.start()
    except RuntimeError:  # no thread to be had
        places.release()
        raise EgressFailed("resolver_busy", host=target.host) from None
    asking.join(timeout_ms / 1_000)
    if not found:
        raise EgressFailed("resolver_timeout", host=target.host)
    return found[0]


def fetch(
    url: str,
    *,
    policy: Policy,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    resolver: Resolver = system_resolver,
    context: ssl.SSLContext | None = None,
    clock: Clock = monotonic_ms,
) -> Answer:
    """
    Ask a URL once.

    Args:
        url: What to ask; see `runrails.egress_rules.check_url`.
        policy: What may be asked.
        method: The request's method.
        headers: Sent besides `Host`, `Accept-Encoding` and `Connection`, which are ours.
        body: Sent as it is.
        resolver: Finds the addresses.
        context: For certificates that only an operator's own authority vouches for. It must verify them.
        clock: Monotonic, for the time limit.

    Raises:
        EgressRefused: The URL or an address of its host must not be asked. Nothing was sent.
        EgressFailed: No answer, a redirect, or one that is too large, too slow, cut off or encoded.
        ValueError: The context does not verify, or a header is malformed.
    """
    target = check_url(url, allow_hosts=policy.allow_hosts, ports=policy.ports)
    verifying = _context() if context is None else context
    if not verifying.check_hostname or verifying.verify_mode != ssl.CERT_REQUIRED:
        raise ValueError("The TLS context of a request outside must verify certificates and names.")
    deadline = _Deadline(clock, policy.timeout_ms)
    address = resolve(target, resolver, networks=policy.networks, timeout_ms=policy.timeout_ms)
    try:
        wire = _connect(target, address, verifying, deadline)
        try:
            return _exchange(wire, target, method, _headers(target, headers or {}), body, policy)
        finally:
            wire.hang_up()
    except TimeoutError:
        failure: LiteralString = "timeout"
    except ssl.SSLCertVerificationError:
        failure = "certificate"
    except ssl.SSLError:
        failure = "tls"
    except (OSError, HTTPException):
        failure = "connection"
    # Outside of the clauses: the errors of Python's libraries may quote what was sent or answered.
    raise EgressFailed(failure, host=target.host)


class _Deadline:
    """What is left of a request's time."""

    def __init__(self, clock: Clock, timeout_ms: int) -> None:
        self._clock = clock
        self._end_ms = clock() + timeout_ms

    def left_s(self) -> float:
        """Seconds. Raises TimeoutError when there are none."""
        left_ms = self._end_ms - self._clock()
        if left_ms <= 0:
            raise TimeoutError
        return left_ms / 1_000


class _Wire:
    """As much of a socket as `http.client` uses. Every step gets what is left of the time, not a time of its own."""

    def __init__(self, connected: ssl.SSLSocket, deadline: _Deadline) -> None:
        self._socket = connected
        self._deadline = deadline
        self._reader: _Reader | None = None

    @property
    def ended(self) -> bool:
        """Whether the other side has said its last."""
        return self._reader is not None and self._reader.ended

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(self._deadline.left_s())
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode  # http.client reads bytes
        self._reader = _Reader(self._socket, self._deadline)
        return io.BufferedReader(self._reader)

    def close(self) -> None:
        """http.client lets go of a connection that ends with its answer before it has read the body."""

    def hang_up(self) -> None:
        self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, connected: ssl.SSLSocket, deadline: _Deadline) -> None:
        super().__init__()
        self._socket = connected
        self._deadline = deadline
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._socket.settimeout(self._deadline.left_s())
        size = self._socket.recv_into(buffer)
        self.ended = size == 0
        return size


def _context() -> ssl.SSLContext:
    """As Python's default context, but without the file of session keys that an environment variable can ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    return context


def _connect(target: Target, address: str, context: ssl.SSLContext, deadline: _Deadline) -> _Wire:
    # A literal address: nothing is looked up again.
    plain = socket.create_connection((address, target.port), timeout=deadline.left_s())
    try:
        plain.settimeout(deadline.left_s())
        # A connection that is cut must not look like an answer's end.
        secured = context.wrap_socket(plain, server_hostname=target.host, suppress_ragged_eofs=False)
    except BaseException:
        plain.close()
        raise
    return _Wire(secured, deadline)


def _headers(target: Target, given: Mapping[str, str]) -> dict[str, str]:
    host = target.host if target.port == 443 else f"{target.host}:{target.port}"
    own = {"host": host, "accept-encoding": "identity", "connection": "close"}
    # In whatever letters somebody writes one of ours: it is there once, and as we say.
    return {**{name: value for name, value in given.items() if name.lower() not in own}, **own}


def _exchange(
    wire: _Wire, target: Target, method: str, headers: Mapping[str, str], body: bytes | None, policy: Policy
) -> Answer:
    connection = HTTPConnection(target.host, target.port)
    connection.sock = cast("socket.socket", wire)
    connection.request(method, target.path, body, headers)
    with connection.getresponse() as response:
        status = response.status
        if wire.ended:  # within the headers, which http.client takes for their end
            raise EgressFailed("cut_off", host=target.host)
        if 300 <= status < 400:
            raise EgressFailed("redirect", host=target.host)
        told = {name.lower(): value for name, value in response.getheaders()}
        if told.get("content-encoding", "identity").lower() != "identity":
            raise EgressFailed("encoded", host=target.host)
        return Answer(status, told, _read(response, target, policy.body_bytes_max))


def _read(response: HTTPResponse, target: Target, bytes_max: int) -> bytes:
    if response.length is not None and response.length > bytes_max:
        raise EgressFailed("too_large", host=target.host)
    parts: list[bytes] = []
    size = 0
    while part := response.read(_CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > bytes_max:
            raise EgressFailed("too_large", host=target.host)
    if response.length:
        raise EgressFailed("cut_off", host=target.host)
    return b"".join(parts)
