"""STS over real TLS: reached as it must be, and closed whatever else answers in its place."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rr_aws import ACCOUNT, REGION, SERVER_ID, StrictSTS, answer_xml, error_xml
from runrails import ConfigError
from runrails.clocks import system_ms
from runrails.documents.memory import MemoryDocuments
from runrails.identity.errors import Unauthenticated
from runrails_aws.identity import REASONS, AWSIdentity, Grant, HTTPSTransport, Proof, sign_proof
from runrails_aws.identity.canonical import BODY, STSRequest

HOST = f"sts.{REGION}.amazonaws.com"
GRANTS = [Grant(arn=f"arn:aws:iam::{ACCOUNT}:user/alice", user="alice", scopes=frozenset({"ai:complete"}))]
GOOD = answer_xml(f"arn:aws:iam::{ACCOUNT}:user/alice", "AIDA" + "B" * 17)
LONG_MS, SHORT_MS = 60_000, 2_000

Serve = Callable[[ssl.SSLSocket, bytes], None]


class Host:
    """A server on this machine that has a certificate for `name` and serves each connection by a function."""

    def __init__(self, folder: Path, name: str) -> None:
        certificate, key = certificate_for(folder, name)
        self.serve: Serve = lambda _tls, _request: None
        self.plain = False
        self.requests: list[bytes] = []
        self.context = ssl.create_default_context(cafile=str(certificate))
        self._serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._serving.load_cert_chain(certificate, key)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connected,), daemon=True).start()

    def _talk(self, connected: socket.socket) -> None:
        connected.settimeout(10)
        try:
            with connected:
                if self.plain:
                    connected.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    return
                with self._serving.wrap_socket(connected, server_side=True) as tls:
                    request = read_request(tls)
                    self.requests.append(request)
                    self.serve(tls, request)
                    tls.unwrap()
        except OSError:
            pass  # the other side has had enough


def read_request(tls: ssl.SSLSocket) -> bytes:
    data = b""
    while not data.endswith(BODY):
        piece = tls.recv(65_536)
        if not piece:
            break
        data += piece
    return data


def certificate_for(folder: Path, host: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate, secret = folder / f"{host}.pem", folder / f"{host}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate, secret


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """STS's place."""
    made = Host(tmp_path_factory.mktemp("tls"), HOST)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _as_usual(host: Host) -> None:
    host.serve, host.plain = response(GOOD), False
    host.requests.clear()


def response(body: bytes, *, status: str = "200 OK", headers: Sequence[str] = (), length: int | None = None) -> Serve:
    """Answers so."""
    lines = [f"HTTP/1.1 {status}", "content-type: text/xml", *headers]
    if length is None or length >= 0:
        lines.append(f"content-length: {len(body) if length is None else length}")
    return lambda tls, _: tls.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def here(_host: str, _port: int, /) -> Sequence[str]:
    return ["127.0.0.1"]


def transport(host: Host, **settings: object) -> HTTPSTransport:
    given: dict[str, object] = {
        "timeout_ms": LONG_MS, "networks": ["127.0.0.0/8"], "resolver": here, "context": host.context,
        "port": host.port,
    }  # fmt: skip
    return HTTPSTransport(**(given | settings))  # type: ignore[arg-type]


def server(transport: HTTPSTransport) -> AWSIdentity:
    return AWSIdentity(SERVER_ID, GRANTS, MemoryDocuments(), regions=[REGION], transport=transport)


def proof() -> Proof:
    return sign_proof(SERVER_ID, REGION, credentials=StrictSTS(system_ms).user("alice"))


def test_sts_is_asked_over_tls_by_exactly_one_request(host: Host) -> None:
    """What arrives is the request that was signed: STS's own check of it passes, and the answer counts."""
    sts = StrictSTS(system_ms)
    key = sts.user("alice")

    def judge(tls: ssl.SSLSocket, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert (first, body) == ("POST / HTTP/1.1", BODY)
        headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
        sent = [(name, HOST if (name, value) == ("host", f"{HOST}:{host.port}") else value) for name, value in headers]
        answer = sts(STSRequest(HOST, tuple(sent)))
        response(answer.body, status=f"{answer.status} X")(tls, raw)

    host.serve = judge
    identity = server(transport(host))
    signed = sign_proof(SERVER_ID, REGION, credentials=key)
    assert "alice" == identity.verify(signed).user
    assert 1 == len(host.requests)
    with pytest.raises(Unauthenticated) as caught:
        identity.verify(sign_proof("other.example.com", REGION, credentials=key))
    assert "aws_signature_wrong" == caught.value.reason


def test_the_environment_decides_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies, endpoints and authorities that a test or an attacker puts into the environment are not asked."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        where = f"http://127.0.0.1:{trap.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, where)
            monkeypatch.setenv(name.upper(), where)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"):
            monkeypatch.setenv(name, where)
        assert "alice" == server(transport(host)).verify(proof()).user
        with pytest.raises(BlockingIOError):
            trap.accept()


def in_pieces(tls: ssl.SSLSocket, _: bytes) -> None:
    """As servers do that end the connection with the answer: the head, and later the body."""
    tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\nconnection: close\r\n\r\n")
    time.sleep(0.05)
    for at in range(0, len(GOOD), 100):
        tls.sendall(GOOD[at : at + 100])


def chunked(tls: ssl.SSLSocket, _: bytes) -> None:
    tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ntransfer-encoding: chunked\r\n\r\n")
    tls.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD))


@pytest.mark.parametrize("serve", [in_pieces, chunked, response(GOOD, headers=["connection: close"])])
def test_every_form_of_an_answer_is_read(serve: Serve, host: Host) -> None:
    """In pieces, in chunks, with the connection's end as its own."""
    host.serve = serve
    assert "alice" == server(transport(host)).verify(proof()).user


def drip(every_s: float) -> Serve:
    """A byte now and then: no pause is long, and the whole never ends."""

    def serve(tls: ssl.SSLSocket, _: bytes) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1_000:
            tls.sendall(bytes([byte]))
            time.sleep(every_s)

    return serve


def endless(tls: ssl.SSLSocket, _: bytes) -> None:
    tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(100_000):
        tls.sendall(b"1000\r\n" + b" " * 4_096 + b"\r\n")


LONG = GOOD.ljust(16 * 1024 + 1)
WRONG: dict[str, tuple[Serve, str]] = {
    "silence": (lambda tls, _: time.sleep(10), "aws_sts_slow"),
    "a byte now and then": (drip(0.05), "aws_sts_slow"),
    "half a body, then silence": (
        lambda tls, request: (response(GOOD[:50], length=len(GOOD))(tls, request), time.sleep(10))[0], "aws_sts_slow"),
    "nothing": (lambda tls, _: None, "aws_sts_unreachable"),
    "half a body": (response(GOOD[:50], length=len(GOOD)), "aws_sts_unreachable"),
    "no HTTP": (lambda tls, _: tls.sendall(b"220 mail.example.com ESMTP\r\n"), "aws_sts_unreachable"),
    "one byte too long": (response(LONG), "aws_sts_oversized"),
    "one byte too long, unannounced": (response(LONG, length=-1), "aws_sts_oversized"),
    "announced as a gibibyte": (response(b"", length=1 << 30), "aws_sts_oversized"),
    "without end": (endless, "aws_sts_oversized"),
    "too long a refusal": (response(LONG, status="403 No"), "aws_sts_oversized"),
    "a redirect to http": (
        response(GOOD, status="302 Found", headers=["location: http://127.0.0.1/"]), "aws_sts_redirected"),
    "a redirect to itself": (
        response(GOOD, status="307 Again", headers=[f"location: https://{HOST}/"]), "aws_sts_redirected"),
    "compressed": (response(GOOD, headers=["content-encoding: gzip"]), "aws_sts_unreachable"),
    "a fault": (response(error_xml("InternalFailure"), status="500 Oh"), "aws_sts_unavailable"),
    "throttled": (response(error_xml("Throttling"), status="400 No"), "aws_sts_throttled"),
    "a refusal": (response(error_xml("InvalidClientTokenId"), status="403 No"), "aws_key_unknown"),
    "two lengths": (response(GOOD, headers=["content-length: 3"]), "aws_sts_malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_close_in_time(name: str, host: Host) -> None:
    """Slow, endless, redirecting, broken: nobody comes in, one request was made, and it ends when it must."""
    host.serve, reason = WRONG[name]
    began = time.monotonic()
    with pytest.raises(Unauthenticated) as caught:
        server(transport(host, timeout_ms=SHORT_MS if reason == "aws_sts_slow" else LONG_MS)).verify(proof())
    assert (reason, True) == (caught.value.reason, reason in REASONS)
    assert time.monotonic() - began < 30
    assert 1 == len(host.requests)
    assert Unauthenticated().as_dict() == caught.value.as_dict()


def test_what_is_not_sts_is_not_told_anything(host: Host, tmp_path: Path) -> None:
    """Another host's certificate, one of no authority, no TLS at all: no byte of the request is sent."""
    other = Host(tmp_path, "sts.example.com")
    system = ssl.create_default_context()
    cases = [
        (transport(other), "aws_sts_tls"),
        (transport(host, context=system), "aws_sts_tls"),
        (transport(host, context=None), "aws_sts_tls"),
    ]
    for asked, reason in cases:
        with pytest.raises(Unauthenticated) as caught:
            server(asked).verify(proof())
        assert reason == caught.value.reason
    host.plain = True
    with pytest.raises(Unauthenticated) as caught:
        server(transport(host)).verify(proof())
    assert "aws_sts_tls" == caught.value.reason
    assert ([], []) == (host.requests, other.requests)
    other.close()


def test_who_is_not_there_is_not_waited_for(host: Host) -> None:
    """No address, a private one that nobody has vouched for, a closed port, a resolver that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    hanging = threading.Event()

    def missing(_host: str, _port: int, /) -> Sequence[str]:
        raise OSError("no such name")

    def stuck(_host: str, _port: int, /) -> Sequence[str]:
        hanging.wait(10)
        return ["127.0.0.1"]

    cases = [
        ({"resolver": missing}, "aws_sts_unreachable"),
        ({"resolver": lambda _host, _port: []}, "aws_sts_unreachable"),
        ({"networks": ()}, "aws_sts_address"),
        ({"resolver": lambda _host, _port: ["169.254.169.254"]}, "aws_sts_address"),
        ({"resolver": lambda _host, _port: ["127.0.0.1", "10.0.0.1"]}, "aws_sts_address"),
        ({"port": closed}, "aws_sts_unreachable"),
        ({"resolver": stuck, "timeout_ms": SHORT_MS}, "aws_sts_slow"),
    ]
    for settings, reason in cases:
        with pytest.raises(Unauthenticated) as caught:
            server(transport(host, **settings)).verify(proof())
        assert (settings, reason) == (settings, caught.value.reason)
    hanging.set()
    assert [] == host.requests


def test_a_transport_speaks_to_the_port_of_https() -> None:
    """And takes the least and the most time that may be given."""
    assert {443} == {HTTPSTransport(timeout_ms=timeout_ms)._port for timeout_ms in (1, 60_000)}


def test_a_transport_that_verifies_nothing_is_refused() -> None:
    """Without certificates anybody could be STS; a network that may never be asked cannot be vouched for."""
    for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        context.check_hostname = False
        with pytest.raises(ConfigError, match="verify"):
            HTTPSTransport(context=context)
        context.verify_mode = ssl.CERT_NONE
        with pytest.raises(ConfigError, match="verify"):
            HTTPSTransport(context=context)
    optional = ssl.create_default_context()
    optional.verify_mode = ssl.CERT_OPTIONAL
    with pytest.raises(ConfigError, match="verify"):
        HTTPSTransport(context=optional)
    with pytest.raises(ValueError, match="metadata"):
        HTTPSTransport(networks=["169.254.0.0/16"])
