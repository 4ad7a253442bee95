"""
Tokens that are over before their time.

A revocation is a document under the token's id that expires when the token does. Every process looks each id up again
after at most five seconds, so that is how long a revoked token may live on anywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.documents import Address
from runrails.forks import renew_after_fork
from runrails.identity.jwt.strict import LEEWAY_S, LIFETIME_S_MAX
from runrails.ids import check_id

if TYPE_CHECKING:
    from runrails.documents import DocumentStore

__all__ = ["CACHE_MS_MAX", "KIND", "Revocations"]

KIND = "revoked"
_OWNER = "jwt"
CACHE_MS_MAX = 5_000
_REMEMBERED_MAX = 10_000


class Revocations:
    """
    Which tokens are revoked, for one process.

    Args:
        documents: Where they are kept, for all processes.
        clock: Wall clock in milliseconds since the epoch, for when a revocation may be forgotten.
        cache_ms: So long an answer "not revoked" is believed; at most 5,000.
        monotonic: The other clock that this is timed by: one that is set back does not keep a revoked token alive, nor
            does one that stood still while the machine slept.
    """

    def __init__(
        self, documents: DocumentStore, *, clock: Clock = system_ms, cache_ms: int = CACHE_MS_MAX,
        monotonic: Clock = monotonic_ms,
    ) -> None:  # fmt: skip
        if not 0 <= cache_ms <= CACHE_MS_MAX:
            raise ValueError(f"A revocation must be seen within {CACHE_MS_MAX:,} ms.")
        self._documents = documents
        self._clock = clock
        self._monotonic = monotonic
        self._cache_ms = cache_ms
        self._lock = Lock()
        self._asked_ms: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """By token: the moment of both clocks before the store said that it is not revoked."""
        self._changes = 0
        renew_after_fork(self)

    def add(self, jti: str, *, expires_ms: int) -> None:
        """
        Revoke a token. Again is nothing new.

        Raises:
            StoreUnavailable: It may not be revoked; try again.
        """
        address = Address(KIND, _OWNER, check_id(jti, what="A token's id"))
        # Nothing is written over: what is there says the same.
        self._documents.put(address, b"{}", expected=0, expires_ms=expires_ms)
        with self._lock:
            self._changes += 1
            self._asked_ms.pop(jti, None)

    def revoke(self, jti: str) -> None:
        """
        Revoke a token for as long as any token of that id can still be taken, by the slowest clock.

        Raises:
            ValueError: It is no id.
            StoreUnavailable: It may not be revoked; try again.
        """
        self.add(jti, expires_ms=self._clock() + (LIFETIME_S_MAX + 4 * LEEWAY_S) * 1_000)

    def is_known_good(self, jti: str) -> bool:
        """Whether the store has just said that a token is not revoked. Asks nobody."""
        with self._lock:
            return self._is_young(self._asked_ms.get(jti), (self._clock(), self._monotonic()))

    def has(self, jti: str) -> bool:
        """
        Whether a token is revoked.

        Raises:
            StoreUnavailable: Nobody knows, so the token must not be taken.
        """
        now = self._clock(), self._monotonic()
        with self._lock:
            asked, changes = self._asked_ms.get(jti), self._changes
        if self._is_young(asked, now):
            return False
        if self._documents.get(Address(KIND, _OWNER, jti)) is not None:
            return True
        with self._lock:
            if changes != self._changes:  # revoked here, while we asked
                return False
            # The time before asking: what was written while we asked counts from then.
            self._asked_ms[jti] = now
            self._asked_ms.move_to_end(jti)
            while len(self._asked_ms) > _REMEMBERED_MAX:
                self._asked_ms.popitem(last=False)
        return False

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock."""
        self._lock = Lock()
        self._asked_ms = OrderedDict()

    def _is_young(self, asked: tuple[int, int] | None, now: tuple[int, int]) -> bool:
        return asked is not None and 0 <= now[0] - asked[0] < self._cache_ms and now[1] - asked[1] < self._cache_ms
