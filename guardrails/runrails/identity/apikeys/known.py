"""Credentials that were checked a moment ago, and what came of it: bounded, and for seconds only."""

from __future__ import annotations

import os
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails.identity.principal import Principal

__all__ = ["Known"]

_DIGEST_BYTES = 32


class Known:
    """
    A cache whose key is a keyed hash of the whole credential, never a part of it. Safe in many threads.

    Args:
        count_max: So many that were proven, and so many that were not; beyond, the oldest is forgotten.
        for_ms: How long an answer counts, from before the store was asked.
    """

    def __init__(self, *, count_max: int, for_ms: int) -> None:
        self._count_max = count_max
        self._for_ms = for_ms
        self._secret = os.urandom(_DIGEST_BYTES)
        self._proven: dict[bytes, tuple[int, Principal]] = {}
        self._refused: dict[bytes, int] = {}
        self._lock = Lock()

    def digest(self, text: str) -> bytes:
        """What a credential is known by in this process."""
        return blake2b(text.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=_DIGEST_BYTES).digest()

    def proven(self, digest: bytes, now_ms: int) -> Principal | None:
        """Whom a credential proved, if that is known."""
        known = self._proven.get(digest)
        return known[1] if known is not None and now_ms < known[0] else None

    def is_refused(self, digest: bytes, now_ms: int) -> bool:
        """Whether a credential is known to prove nobody."""
        until_ms = self._refused.get(digest)
        return until_ms is not None and now_ms < until_ms

    def add_proven(self, digest: bytes, principal: Principal, asked_ms: int) -> None:
        """Keep whom a credential proved when the store was asked at that time."""
        with self._lock:
            self._proven.pop(digest, None)  # so that the oldest stands first
            if len(self._proven) >= self._count_max:
                del self._proven[next(iter(self._proven))]
            self._proven[digest] = (asked_ms + self._for_ms, principal)

    def add_refused(self, digest: bytes, asked_ms: int) -> None:
        """Keep that a credential proved nobody then."""
        with self._lock:
            self._refused.pop(digest, None)
            if len(self._refused) >= self._count_max:
                del self._refused[next(iter(self._refused))]
            self._refused[digest] = asked_ms + self._for_ms

    def forget(self, key_id: str) -> None:
        """Forget what was proven with the key of that id: it has just been changed here."""
        with self._lock:
            for digest in [each for each, (_, principal) in self._proven.items() if principal.key_id == key_id]:
                del self._proven[digest]

    def sizes(self) -> tuple[int, int]:
        """How many that were proven and were not are kept."""
        return len(self._proven), len(self._refused)
