"""What the tests of tokens share: keys, tokens that are made by hand, and an engine that counts its calls."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from runrails.documents import Address, Document
from runrails.documents.memory import MemoryDocuments
from runrails.identity.jwt import Key, KeySet, Tokens
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

ISSUER, AUDIENCE = "https://auth.example.com", "ai-platform"
NOW_S = 1_795_000_000
NOW_MS = NOW_S * 1_000
GONE: Any = type("Gone", (), {"__repr__": lambda self: "gone"})()
"""Instead of a value: the member is not there."""


def drawn(name: str) -> bytes:
    """32 bytes that look random and are the same in every run."""
    return hashlib.sha256(b"runrails tests: " + name.encode()).digest()


SECRETS = {"hs1": drawn("hs1"), "hs2": drawn("hs2")}
ED = ed25519.Ed25519PrivateKey.from_private_bytes(drawn("ed1"))
EC = ec.derive_private_key(int.from_bytes(drawn("ec1")), ec.SECP256R1())


def pem(private: Any) -> bytes:
    """A private key as a file has it."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(private: Any) -> bytes:
    """Its public half."""
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def shared_keys() -> KeySet:
    """Two secrets for HS256, of which `hs1` signs."""
    return KeySet.shared({kid: Secret(secret) for kid, secret in SECRETS.items()})


def public_keys() -> KeySet:
    """One key for EdDSA, which signs, and one for ES256."""
    keys = [Key("ed1", "EdDSA", ED.public_key(), ED), Key("ec1", "ES256", EC.public_key(), EC)]
    return KeySet(keys, signing="ed1")


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, but for what is changed."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "worker-7",
        "iat": NOW_S - 10,
        "exp": NOW_S + 890,
        "jti": "0123456789abcdef",
        "type": "service",
        "scopes": ["ai:complete"],
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not GONE}


def header(**changes: Any) -> dict[str, Any]:
    """The header of a good token of `hs1`, but for what is changed."""
    good = {"alg": "HS256", "kid": "hs1", "typ": "JWT"}
    return {name: value for name, value in {**good, **changes}.items() if value is not GONE}


def encoded(value: Any) -> bytes:
    """A value as JSON, or bytes and text as they are."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))).encode()


def signature(signed: bytes, by: str) -> bytes:
    """Signed with the key of that id, whatever the header says."""
    if by in SECRETS:
        return hmac.digest(SECRETS[by], signed, "sha256")
    if by == "ed1":
        return ED.sign(signed)
    r, s = decode_dss_signature(EC.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def token(head: Any = None, body: Any = None, *, by: str | None = None, signed_by: Any = None) -> str:
    """A token of these parts, well signed unless `signed_by` says how it is signed."""
    head = header() if head is None else head
    named = head.get("kid") if isinstance(head, dict) else None
    by = by or (named if isinstance(named, str) and named in {*SECRETS, "ed1", "ec1"} else "hs1")
    signed = f"{b64(encoded(head))}.{b64(encoded(claims() if body is None else body))}"
    made = signature(signed.encode(), by) if signed_by is None else signed_by(signed.encode())
    return f"{signed}.{b64(made)}"


class CountingDocuments:
    """An engine in memory that counts what is asked of it."""

    def __init__(self, clock: Any) -> None:
        self._inner = MemoryDocuments(clock=clock)
        self.reads = self.writes = 0

    def get(self, address: Address) -> Document | None:
        self.reads += 1
        return self._inner.get(address)

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        self.writes += 1
        return self._inner.put(address, data, expected=expected, expires_ms=expires_ms)

    def delete(self, address: Address, *, expected: int) -> bool:
        self.writes += 1
        return self._inner.delete(address, expected=expected)

    def find(self, kind: str, owner: str | None = None) -> Any:
        self.reads += 1
        return self._inner.find(kind, owner)

    def close(self) -> None:
        self._inner.close()


class Desk:
    """A verifier with its clock and its engine."""

    def __init__(self, keys: Any = None, *, cache_ms: int = 5_000, documents: Any = None) -> None:
        self.clock = ManualClock(NOW_MS)
        self.documents = CountingDocuments(self.clock) if documents is None else documents
        self.tokens = Tokens(
            shared_keys() if keys is None else keys, ISSUER, AUDIENCE,
            documents=self.documents, clock=self.clock, cache_ms=cache_ms, monotonic=self.clock,
        )  # fmt: skip
