"""The egress guard against a real TLS server: where it connects, under which name, and what it takes for an answer."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from rr_jwt import Desk, header, public_keys, token
from rr_tls import HOST, Server, says, writes
from runrails import egress
from runrails.egress import Answer, EgressFailed, Policy, fetch, resolve, system_resolver
from runrails.egress_rules import EgressRefused, check_url
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import RemoteKeys

Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers, and ends them."""
    made: list[Server] = []

    def start(answer: Callable[[Any], None], **options: Any) -> Server:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(Server(directory, answer, **options))
        return made[-1]

    yield start
    for server in made:
        server.close()


def ask(server: Server, path: str = "/jwks.json", **changes: Any) -> Answer:
    """Ask this server as one that is allowed."""
    host = changes.pop("host", HOST)
    options = {"policy": server.policy(), "resolver": server.resolver, "context": server.context, **changes}
    return fetch(server.url(path, host), **options)


def test_the_address_that_was_checked_is_asked_under_the_original_name(serve: Serve) -> None:
    """The name is resolved once; TLS, certificate and Host have the name, the connection the address."""
    server = serve(says(b'{"keys": []}', "200 OK", "Content-Type: application/json"))
    resolved: list[str] = []
    evil = dict.fromkeys(("Host", "HOST", "host", "accept-Encoding", "CONNECTION"), "evil.example.com")

    def resolver(host: str, port: int, /) -> list[str]:
        resolved.append(f"{host}:{port}")
        # Whoever would look it up again would get another answer.
        return ["127.0.0.1"] if len(resolved) == 1 else ["169.254.169.254"]

    answer = ask(server, "/a?b=c", resolver=resolver, headers={"Accept": "application/json", **evil})
    assert (200, b'{"keys": []}', "application/json") == (answer.status, answer.body, answer.headers["content-type"])
    assert [f"{HOST}:{server.port}"] == resolved
    assert [HOST] == server.names
    lines = server.requests[0].decode().split("\r\n")
    assert "GET /a?b=c HTTP/1.1" == lines[0]
    assert [f"host: {HOST}:{server.port}"] == [line for line in lines if line.lower().startswith("host:")]
    assert {"Accept: application/json", "accept-encoding: identity", "connection: close"} < set(lines)
    assert "evil" not in server.requests[0].decode()


def test_a_certificate_for_another_name_is_refused(serve: Serve) -> None:
    """It is the name that was asked for that the certificate must have."""
    server = serve(says(b"x"), host="other.example.com")
    with pytest.raises(EgressFailed) as caught:
        ask(server)
    assert ("certificate", []) == (caught.value.reason, server.requests)


def test_a_certificate_of_an_unknown_authority_is_refused(serve: Serve) -> None:
    """By default only what the system trusts is trusted."""
    server = serve(says(b"x"))
    with pytest.raises(EgressFailed) as caught:
        ask(server, context=None)
    assert ("certificate", []) == (caught.value.reason, server.requests)


def test_a_context_that_does_not_verify_is_refused(serve: Serve) -> None:
    """Whoever switches the verification off learns it before anything is sent."""
    server = serve(says(b"x"))
    nameless, blind = server.context, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname = False
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    half = server.context
    half.verify_mode = ssl.CERT_OPTIONAL
    for context in (nameless, blind, half):
        with pytest.raises(ValueError, match="must verify"):
            ask(server, context=context)
    assert 0 == server.connections


def test_without_being_vouched_for_this_machine_is_not_asked(serve: Serve) -> None:
    """The same server is out of reach by the ordinary rules, and nothing is connected."""
    server = serve(says(b"x"))
    with pytest.raises(EgressRefused) as caught:
        ask(server, policy=server.policy(networks=()))
    assert ("not_public", 0) == (caught.value.reason, server.connections)
    with pytest.raises(EgressRefused):
        ask(server, policy=server.policy(allow_hosts=()))
    with pytest.raises(EgressRefused):
        ask(server, policy=server.policy(ports={443}))
    assert 0 == server.connections


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "304 Same"]
)
def test_no_redirect_is_followed(serve: Serve, status: str) -> None:
    """Whatever it points to is not asked."""
    target = serve(says(b"inside"))
    server = serve(says(b"", status, f"Location: {target.url()}"))
    with pytest.raises(EgressFailed) as caught:
        ask(server)
    assert ("redirect", 1, 0) == (caught.value.reason, server.connections, target.connections)


def test_proxies_and_key_logs_of_the_environment_are_ignored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a proxy nor a file for session keys that somebody set is used."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    server = serve(says(b"x"))
    assert b"x" == ask(server).body
    with pytest.raises(EgressFailed):
        ask(server, context=None)
    assert not (tmp_path / "keys.log").exists()


def test_sizes_are_limited(serve: Serve) -> None:
    """A body of the limit is taken; a byte more is not, announced, unannounced or in chunks."""
    for answer in (
        says(b"x" * 101),
        says(b"", length=10**12),
        writes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 101),
        writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n"),
    ):
        server = serve(answer)
        with pytest.raises(EgressFailed) as caught:
            ask(server, policy=server.policy(body_bytes_max=100))
        assert "too_large" == caught.value.reason
    for answer in (
        says(b"x" * 100),
        writes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 100),
        writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"),
    ):
        server = serve(answer)
        assert b"x" * 100 == ask(server, policy=server.policy(body_bytes_max=100)).body


@pytest.mark.parametrize(
    "answer",
    [
        says(b"x" * 10, length=11),
        writes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nxxxx", ends=False),
        writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nxxxx"),
        writes(b"HTTP/1.1 200 OK\r\nContent-"),
        writes(b"SSH-2.0-OpenSSH\r\n"),
        writes(b""),
        writes(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"),
        writes(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n"),
        says(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip"),
    ],
)
def test_answers_that_are_none_are_refused(serve: Serve, answer: Callable[[Any], None]) -> None:
    """Cut off, encoded, endless or no HTTP: one typed error, without anything of what was answered."""
    with pytest.raises(EgressFailed) as caught:
        ask(serve(answer))
    assert caught.value.reason in {"cut_off", "connection", "tls", "encoded"}
    assert "SSH" not in f"{caught.value}" and caught.value.__context__ is None


def test_the_time_is_that_of_the_whole_request(serve: Serve) -> None:
    """A server that sends a byte just in time for each step is given up all the same, in its headers as in its body."""

    def drip(begin: bytes) -> Callable[[Any], None]:
        def answer(secured: Any) -> None:
            secured.sendall(begin)
            while True:
                secured.sendall(b"x")
                ticked.wait(0.001)

        return answer

    ticked = Event()
    for begin in (
        b"HTTP/1.1 200 OK\r\nA: ",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    ):
        ticks = count(0, 100)  # each look at the clock takes a tenth of a second
        server = serve(drip(begin))
        with pytest.raises(EgressFailed) as caught:
            ask(server, clock=lambda: next(ticks))  # noqa: B023 -- used at once
        assert "timeout" == caught.value.reason
        assert next(ticks) <= 6_000


def test_a_server_that_says_nothing_is_given_up(serve: Serve) -> None:
    """Not even the beginning of an answer comes: after the time there is an error."""
    silent = Event()
    server = serve(lambda secured: silent.wait(5))
    with pytest.raises(EgressFailed) as caught:
        ask(server, policy=server.policy(timeout_ms=200))
    assert "timeout" == caught.value.reason
    silent.set()


def test_nobody_there(serve: Serve) -> None:
    """A port where nobody listens is a failure, not a refusal."""
    server = serve(says(b"x"))
    server.close()
    with pytest.raises(EgressFailed) as caught:
        ask(server)
    assert "connection" == caught.value.reason


def test_a_resolver_that_hangs_or_fails_is_given_up() -> None:
    """Looking a name up takes no longer than it may, and what it raises is one typed error."""
    target = check_url("https://keys.example.com/", allow_hosts=("keys.example.com",))
    waiting = Event()

    def hangs(host: str, port: int, /) -> list[str]:
        waiting.wait(5)
        return ["8.8.8.8"]

    def fails(host: str, port: int, /) -> list[str]:
        raise socket.gaierror(8, "nodename nor servname provided")

    with pytest.raises(EgressFailed) as caught:
        resolve(target, hangs, timeout_ms=50)
    assert "resolver_timeout" == caught.value.reason
    waiting.set()
    with pytest.raises(EgressRefused) as refused:
        resolve(target, fails)
    assert "unresolved" == refused.value.reason
    assert "8.8.8.8" == resolve(target, lambda host, port, /: ["8.8.8.8"])


def test_lookups_that_hang_are_counted() -> None:
    """No more than sixteen threads wait for a name server; then nobody is asked until one is back."""
    target = check_url("https://keys.example.com/", allow_hosts=("keys.example.com",))
    waiting = Event()

    def hangs(host: str, port: int, /) -> list[str]:
        waiting.wait(20)
        return ["8.8.8.8"]

    for _ in range(3_000):  # until what an earlier test had asked is back
        if egress._lookups.places._value == 16:
            break
        Event().wait(0.01)
    reasons = []
    for _ in range(17):
        with pytest.raises(EgressFailed) as caught:
            resolve(target, hangs, timeout_ms=1)
        reasons.append(caught.value.reason)
    assert ["resolver_timeout"] * 16 + ["resolver_busy"] == reasons
    waiting.set()
    for _ in range(3_000):
        try:
            assert "8.8.8.8" == resolve(target, lambda host, port, /: ["8.8.8.8"])
            return
        except EgressFailed:
            Event().wait(0.01)
    raise AssertionError


def test_the_system_resolver_knows_this_machine() -> None:
    """The one that is used by default gives addresses as text, and they are looked at."""
    assert set(system_resolver("localhost", 443)) <= {"127.0.0.1", "::1"}


def published() -> bytes:
    """The keys that `rr_jwt.public_keys` signs with, as they are published."""
    return json.dumps(public_keys().public_jwks()).encode()


def test_tokens_are_verified_with_keys_from_a_server(serve: Serve) -> None:
    """The published keys come through the guard, once for any number of tokens."""
    server = serve(says(published()))
    keys = RemoteKeys(server.url(), policy=server.policy(), fetch=lambda url, /: ask(server, "/jwks.json"))
    desk = Desk(keys)
    for kid, alg in (("ed1", "EdDSA"), ("ec1", "ES256")):
        assert "worker-7" == desk.tokens.verify(token(header(alg=alg, kid=kid))).user
    assert 1 == server.connections


def test_keys_are_never_fetched_from_inside(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    """By default the guard's rules hold: a name that points to this machine gives no keys, and nothing is connected."""
    server = serve(says(published()))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", server.port))])
    told: list[str] = []
    desk = Desk(RemoteKeys(server.url(), policy=Policy(ports={server.port}), on_failure=told.append))
    with pytest.raises(Unauthenticated):
        desk.tokens.verify(token(header(alg="EdDSA", kid="ed1")))
    assert (["not_public"], 0) == (told, server.connections)
