"""Documents in this process's memory: for tests, notebooks and one-off runs."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from runrails.clocks import Clock, system_ms
from runrails.documents import Document, check_address, check_find, check_version, check_write
from runrails.forks import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails.documents import Address

__all__ = ["MemoryDocuments"]

_SWEEP_EVERY = 256


class MemoryDocuments:
    """
    An engine of documents that forgets everything when the process ends.

    Args:
        clock: Wall clock in milliseconds since the epoch, for documents that expire.
    """

    remote = False

    def __init__(self, *, clock: Clock = system_ms) -> None:
        self._clock = clock
        self._lock = Lock()
        self._documents: dict[Address, Document] = {}
        self._writes = 0
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock."""
        self._lock = Lock()

    def get(self, address: Address) -> Document | None:
        """The document at an address. See `runrails.documents.DocumentStore.get`."""
        check_address(address)
        with self._lock:
            return self._live(address)

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        """Write if nobody else has. See `runrails.documents.DocumentStore.put`."""
        check_write(address, data, expected, expires_ms)
        with self._lock:
            self._sweep()
            known = self._live(address)
            if expected != (0 if known is None else known.version):
                return None
            written = self._documents[address] = Document(address, data, expected + 1, expires_ms)
            return written

    def delete(self, address: Address, *, expected: int) -> bool:
        """Remove if nobody else has changed it. See `runrails.documents.DocumentStore.delete`."""
        check_address(address)
        check_version(expected)
        with self._lock:
            known = self._live(address)
            if known is None or known.version != expected:
                return False
            del self._documents[address]
            return True

    def find(self, kind: str, owner: str | None = None) -> Iterator[Document]:
        """All of a kind, or of one owner. See `runrails.documents.DocumentStore.find`."""
        check_find(kind, owner)
        with self._lock:
            found = [
                document for address in sorted(self._documents)
                if address.kind == kind and owner in (None, address.owner) and (document := self._live(address))
            ]  # fmt: skip
        return iter(found)

    def close(self) -> None:
        """Nothing is held."""

    def _live(self, address: Address) -> Document | None:
        known = self._documents.get(address)
        if known is None or known.expires_ms is None or self._clock() < known.expires_ms:
            return known
        return None

    def _sweep(self) -> None:
        """Forget what has expired, now and then, so that memory stays bounded."""
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._documents = {address: one for address, one in self._documents.items() if self._live(address)}
