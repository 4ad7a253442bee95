"""What tests of API keys share: a store that counts, keys with stopped clocks, and ways to look for a secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runrails.documents import Address, Document, DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.documents.sqlite import SQLiteDocuments
from runrails.errors import StoreUnavailable
from runrails.identity.apikeys import ApiKeys, Peppers
from runrails.identity.apikeys.format import Environment, checksum
from runrails.identity.apikeys.legacy import CheckHash
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

__all__ = [
    "PEPPER", "PEPPERS", "START_MS", "CountingDocuments", "holds_part", "make_keys", "open_documents_of", "resealed",
    "with_secret",
]  # fmt: skip

START_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC
PEPPER = Secret("vM3kq0hT9sJx2bYcW7nLdRf5ZgUaEoPi")
PEPPERS = Peppers("p1", {"p1": PEPPER})


class CountingDocuments:
    """An engine that counts what it is asked, and can be out of reach."""

    remote = False

    def __init__(self, inner: DocumentStore) -> None:
        self.inner = inner
        self.reads = 0
        self.writes = 0
        self.away = False
        self.kinds_away: frozenset[str] = frozenset()

    def _meet(self, kind: str) -> None:
        if self.away or kind in self.kinds_away:
            raise StoreUnavailable("The documents are out of reach.", next_step="Try again.")

    def get(self, address: Address) -> Document | None:
        self.reads += 1
        self._meet(address.kind)
        return self.inner.get(address)

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        self.writes += 1
        self._meet(address.kind)
        return self.inner.put(address, data, expected=expected, expires_ms=expires_ms)

    def delete(self, address: Address, *, expected: int) -> bool:
        self.writes += 1
        self._meet(address.kind)
        return self.inner.delete(address, expected=expected)

    def find(self, kind: str, owner: str | None = None) -> Iterator[Document]:
        self.reads += 1
        self._meet(kind)
        return self.inner.find(kind, owner)

    def close(self) -> None:
        self.inner.close()

    def everything(self) -> list[Document]:
        """All that is kept of keys but when they were used, to see that nothing changed."""
        return [each for kind in ("api-key", "api-key-of") for each in self.inner.find(kind)]


def open_documents_of(kind: str, directory: Path, clock: ManualClock) -> CountingDocuments:
    """An engine by name: memory or sqlite."""
    if kind == "memory":
        return CountingDocuments(MemoryDocuments(clock=clock))
    return CountingDocuments(SQLiteDocuments(directory / "vault.db", clock=clock, synchronous="NORMAL"))


def make_keys(
    documents: DocumentStore | None = None, *, clock: ManualClock | None = None, peppers: Peppers = PEPPERS,
    environment: Environment = "live", cache_ms: int = 5_000, cache_max: int = 100, legacy: bool = False,
    check_hash: CheckHash | None = None,
) -> ApiKeys:  # fmt: skip
    """Keys in memory whose clocks, wall and monotonic, are one that stands still."""
    clock = clock or ManualClock(START_MS)
    return ApiKeys(
        documents or MemoryDocuments(clock=clock), peppers, clock=clock, monotonic=clock, environment=environment,
        cache_ms=cache_ms, cache_max=cache_max, legacy=legacy, check_hash=check_hash,
    )  # fmt: skip


def with_secret(text: str, secret: str) -> str:
    """The same key with another secret, and the checksum that goes with it."""
    body = text[:25] + secret
    return body + checksum(body)


def resealed(text: str) -> str:
    """The same body with the checksum that goes with it."""
    return text[:-6] + checksum(text[:-6])


def holds_part(told: str, secret: str, size: int = 12) -> bool:
    """Whether any 12 characters in a row of a secret are in a text."""
    return any(secret[at : at + size] in told for at in range(len(secret) - size + 1))
