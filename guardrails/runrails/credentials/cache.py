"""Opened keys, for a moment: opening one again costs a master key, which may be a network away."""

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

if TYPE_CHECKING:
    from runrails.clocks import Clock
    from runrails.credentials.records import CredentialId
    from runrails.secretvalue import Secret

__all__ = ["Opened"]


class _Entry(NamedTuple):
    id: CredentialId
    secret: Secret
    until_ms: int


class Opened:
    """
    A bounded cache. Its keys are hashes of everything that decides what an envelope opens to. Thread-safe.

    Args:
        ttl_ms: How long an entry lasts; 0 keeps nothing.
        count_max: Most entries; the one that was used longest ago goes first.
        monotonic: Milliseconds of a clock that never jumps.
    """

    def __init__(self, *, ttl_ms: int, count_max: int, monotonic: Clock) -> None:
        self._ttl_ms = ttl_ms
        self._count_max = count_max
        self._monotonic = monotonic
        self._lock = Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        _caches.add(self)

    def find(self, key: bytes) -> Secret | None:
        """What was kept under a key, if its time is not over."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._monotonic() >= entry.until_ms:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return entry.secret

    def keep(self, key: bytes, which: CredentialId, secret: Secret) -> None:
        """Keep it for a while."""
        if self._ttl_ms <= 0:  # else it would stay until the next one comes
            return
        now_ms = self._monotonic()
        with self._lock:
            self._sweep(now_ms)
            self._entries[key] = _Entry(which, secret, now_ms + self._ttl_ms)
            self._entries.move_to_end(key)
            if len(self._entries) > self._count_max:
                self._entries.popitem(last=False)

    def forget(self, which: CredentialId) -> None:
        """Forget every entry of one credential."""
        with self._lock:
            for key in [key for key, entry in self._entries.items() if entry.id == which]:
                del self._entries[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock, and keys are opened where they are used."""
        self._lock = Lock()
        self._entries = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def _sweep(self, now_ms: int) -> None:
        """What is over is not left in memory until it is asked for again."""
        for key in [key for key, entry in self._entries.items() if now_ms >= entry.until_ms]:
            del self._entries[key]


_caches: WeakSet[Opened] = WeakSet()


def _after_fork() -> None:
    for cache in list(_caches):
        cache.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
