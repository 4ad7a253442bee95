"""A server with a certificate of a made-up authority, that answers as a test says, byte by byte."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket
from threading import Thread
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from runrails.egress import Policy

HOST = "keys.example.com"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject: str, key: Any, issuer: str, issuer_key: Any, *, is_authority: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if is_authority:
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        made = made.add_extension(usage, critical=True)
    else:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
    return made.sign(issuer_key, hashes.SHA256())


class Server:
    """
    Answers every connection by what `answer` does with it: it is given the TLS socket after the request was read.

    It keeps the requests, the names that were asked for by TLS, and the number of connections.
    """

    def __init__(self, directory: Path, answer: Callable[[Any], None], *, host: str = HOST) -> None:
        root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("a made-up authority", root, "a made-up authority", root, is_authority=True)
        leaf = _certificate(host, key, "a made-up authority", root, is_authority=False)
        (directory / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / "server.pem").write_bytes(leaf.public_bytes(Encoding.PEM) + private)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "server.pem")
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self._authority = directory / "ca.pem"
        self._answer = answer
        self.requests: list[bytes] = []
        self.names: list[str | None] = []
        self.connections = 0
        self._listening = create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def context(self) -> ssl.SSLContext:
        """What trusts this server's authority, and verifies."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._authority)
        return context

    def url(self, path: str = "/jwks.json", host: str = HOST) -> str:
        """Its address by name."""
        return f"https://{host}:{self.port}{path}"

    def policy(self, **changes: Any) -> Policy:
        """What lets this server be asked although it is on this machine."""
        return Policy(**{"allow_hosts": (HOST,), "ports": {self.port}, "networks": ("127.0.0.0/8",), **changes})

    def resolver(self, host: str, port: int, /) -> Sequence[str]:
        """Every name is this machine."""
        del host, port
        return ["127.0.0.1"]

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listening.shutdown(SHUT_RDWR)  # wakes the thread that waits for a connection
        self._listening.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            Thread(target=self._one, args=(plain,), daemon=True).start()

    def _one(self, plain: socket) -> None:
        plain.settimeout(10)
        with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as secured:
            data = b""
            while b"\r\n\r\n" not in data and (part := secured.recv(65_536)):
                data += part
            self.requests.append(data)
            self._answer(secured)


def says(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Callable[[Any], None]:
    """An answer as it should be: status, headers, length and body, and a proper end."""

    def answer(secured: Any) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}", "", ""]
        secured.sendall("\r\n".join(lines).encode() + body)
        with suppress(OSError):
            secured.unwrap()

    return answer


def writes(*parts: bytes, ends: bool = True) -> Callable[[Any], None]:
    """These very bytes; then the end that TLS has, or a connection that is cut."""

    def answer(secured: Any) -> None:
        for part in parts:
            secured.sendall(part)
        if ends:
            with suppress(OSError):
                secured.unwrap()

    return answer
