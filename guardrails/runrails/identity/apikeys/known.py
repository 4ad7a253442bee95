"""Credentials that were checked a moment ago, and what came of it: bounded, and for seconds only."""

from __future__ import annotations

import os
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from runrails.forks import renew_after_fork

if TYPE_CHECKING:
    from typing import LiteralString

    from runrails.identity.principal import Principal

__all__ = ["Known", "Moment"]

_DIGEST_BYTES = 32


class Moment(NamedTuple):
    """
    What both clocks say.

    The one can be set back, the other stands still while a machine sleeps or a function is frozen: what was remembered
    counts only while both find it young.
    """

    wall_ms: int
    monotonic_ms: int


class Known:
    """
    A cache whose key is a keyed hash of the whole credential, never a part of it. Safe in many threads.

    Args:
        count_max: So many that were proven, and so many that were not; beyond, the oldest is forgotten.
        for_ms: How long an answer counts, by both clocks, from before the store was asked.
    """

    def __init__(self, *, count_max: int, for_ms: int) -> None:
        self._count_max = count_max
        self._for_ms = for_ms
        self._secret = os.urandom(_DIGEST_BYTES)
        self._proven: dict[bytes, tuple[Moment, Principal]] = {}
        self._refused: dict[bytes, tuple[Moment, LiteralString]] = {}
        self._lock = Lock()
        self.changes = 0
        """How often something was forgotten: what was asked before that is not kept."""
        renew_after_fork(self)

    def digest(self, text: str) -> bytes:
        """What a credential is known by in this process."""
        return blake2b(text.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=_DIGEST_BYTES).digest()

    def proven(self, digest: bytes, now: Moment) -> Principal | None:
        """Whom a credential proved, if that is known."""
        known = self._proven.get(digest)
        return known[1] if known is not None and self._is_young(known[0], now) else None

    def refused(self, digest: bytes, now: Moment) -> LiteralString | None:
        """Why a credential proves nobody, if that is known."""
        known = self._refused.get(digest)
        return known[1] if known is not None and self._is_young(known[0], now) else None

    def add_proven(self, digest: bytes, principal: Principal, asked: Moment, *, changes: int) -> None:
        """Keep whom a credential proved when the store was asked at that moment, unless a key was changed since."""
        with self._lock:
            if changes != self.changes:
                return
            self._proven.pop(digest, None)  # so that the oldest stands first
            if len(self._proven) >= self._count_max:
                del self._proven[next(iter(self._proven))]
            self._proven[digest] = (asked, principal)

    def add_refused(self, digest: bytes, reason: LiteralString, asked: Moment) -> None:
        """Keep why a credential proved nobody then."""
        with self._lock:
            self._refused.pop(digest, None)
            if len(self._refused) >= self._count_max:
                del self._refused[next(iter(self._refused))]
            self._refused[digest] = (asked, reason)

    def forget(self, key_id: str) -> None:
        """Forget what was proven with the key of that id: it has just been changed here."""
        with self._lock:
            self.changes += 1
            for digest in [each for each, (_, principal) in self._proven.items() if principal.key_id == key_id]:
                del self._proven[digest]

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock, in the middle of a change."""
        self._lock = Lock()
        self._proven, self._refused = {}, {}

    def sizes(self) -> tuple[int, int]:
        """How many that were proven and were not are kept."""
        return len(self._proven), len(self._refused)

    def _is_young(self, asked: Moment, now: Moment) -> bool:
        return 0 <= now[0] - asked[0] < self._for_ms and now[1] - asked[1] < self._for_ms
