"""A provider behind TLS for the checks of keys: it says what it is told to, and notes what it was asked."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ("api.openai.com", "api.anthropic.com", "models.example.com")
MODELS: Any = {"data": [{"id": "m"}]}


class Asked(NamedTuple):
    """One request."""

    method: str
    host: str
    path: str
    headers: Mapping[str, str]


class Provider:
    """Answers every request alike. `resolver` and `context` lead a check here."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[Asked] = []
        self.status, self.body, self.headers = 200, json.dumps(MODELS).encode(), dict[str, str]()
        certificate, key = _certificate(folder)
        self.certificate = str(certificate)
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                names = {name.lower(): value for name, value in self.headers.items()}
                provider.asked.append(Asked("GET", names["host"], self.path, names))
                self.send_response(provider.status)
                for name, value in provider.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(provider.body)))
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(certificate, key)
        self._server.socket = serving.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.context = ssl.create_default_context(cafile=str(certificate))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def resolver(self, host: str, port: int, /) -> Sequence[str]:
        """Everything is here."""
        return ["127.0.0.1"]

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(host) for host in HOSTS]
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([*names, x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, secret
