"""
Stored answers: the same request of the same tenant is answered again without asking the provider.

The key is exact: every part of a request that can change its answer is in it, and so is whose request it is. Bodies are
what users and models have said; they are kept as they are, never logged, and in a file only its owner can read.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from runrails.clocks import system_ms
from runrails.savers.storages import FileStorage, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runrails.clocks import Clock

__all__ = ["CacheStorage", "ResponseCache", "Tenant", "key_of"]

_FORM = 1
"""Counted up when keys or bodies are made in another way, so that older ones are not found any more."""
_MARK_BYTES = 32
_NOT_ASKED = frozenset({
    "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"
})  # fmt: skip
"""What of a request's body is no part of the question."""


class Tenant(NamedTuple):
    """Whose answers these are; nobody else is given them."""

    user: str | None
    key: str | None
    org: str | None


class CacheStorage(Protocol):
    """Where answers are kept. Thread-safe. What it raises is a miss, and an event."""

    def get(self, key: str, *, now_ms: int) -> bytes | None:
        """What is kept under the key and has not expired."""
        ...

    def put(self, key: str, body: bytes, *, now_ms: int, ttl_ms: int) -> None:
        """Keep it; what was used longest ago makes room for it."""
        ...

    def delete(self, key: str) -> None:
        """Forget it."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class ResponseCache:
    """
    Stored answers for `Guard(cache=ResponseCache(...))`. Thread-safe; several guards may share one.

    Each tenant (user, key and organisation of the call) has answers of their own. Only whole answers whose usage was
    reported are kept, never streams and never errors. A hit asks no provider, costs nothing and is a step of the run.

    Args:
        path: A file that outlives the process and is shared by others; made with mode 0600, as it holds what users and
            models have said. Without it answers are kept in memory.
        storage: A place of your own in its stead.
        ttl_s: How long an answer is good for, in seconds.
        entries_max: Most answers in memory or in the file; what was used longest ago goes first.
        bytes_max: Most bytes of them together.
        body_bytes_max: Longest answer that is kept.
        clock: Milliseconds since 1970 (UTC).

    Raises:
        TypeError: A number is not an int.
        ValueError: A number is not positive, or both a path and a storage are given.
    """

    def __init__(
        self, path: str | Path | None = None, *, storage: CacheStorage | None = None, ttl_s: int = 86_400,
        entries_max: int = 1_000, bytes_max: int = 64 * 2**20, body_bytes_max: int = 2**20, clock: Clock = system_ms,
    ) -> None:  # fmt: skip
        if path is not None and storage is not None:
            raise ValueError("ResponseCache takes a path or a storage, not both.")
        for name, value in (
            ("ttl_s", ttl_s), ("entries_max", entries_max), ("bytes_max", bytes_max), ("body_bytes_max", body_bytes_max)
        ):  # fmt: skip
            _positive(name, value)
        self._storage: CacheStorage = storage or (
            MemoryStorage(entries_max=entries_max, bytes_max=bytes_max)
            if path is None
            else FileStorage(str(path), entries_max=entries_max, bytes_max=bytes_max)
        )
        self.waits = path is not None or storage is not None
        """Whether asking it may wait for a disk or a network, and so must not be done on an event loop."""
        self._ttl_ms = ttl_s * 1_000
        self._body_bytes_max = body_bytes_max
        self._clock = clock

    def get(self, key: str, failed: Callable[[str], None]) -> bytes | None:
        """The answer kept under a key. `failed` is told why one could not be read; that is a miss."""
        try:
            kept = self._storage.get(key, now_ms=self._clock())
            if kept is None:
                return None
            body = kept[_MARK_BYTES:]
            if kept[:_MARK_BYTES] == _mark(key, body):
                return body
            failed("damaged")
            self._storage.delete(key)
        except Exception as exc:  # noqa: BLE001 -- it only saves money: without it the provider is asked
            failed(type(exc).__name__)
        return None

    def put(self, key: str, body: bytes, failed: Callable[[str], None]) -> None:
        """Keep an answer, unless it is too long."""
        if not body or len(body) > self._body_bytes_max:
            return
        try:
            self._storage.put(key, _mark(key, body) + body, now_ms=self._clock(), ttl_ms=self._ttl_ms)
        except Exception as exc:  # noqa: BLE001 -- as above
            failed(type(exc).__name__)

    def drop(self, key: str, failed: Callable[[str], None]) -> None:
        """Forget an answer that turned out to be of no use."""
        try:
            self._storage.delete(key)
        except Exception as exc:  # noqa: BLE001 -- as above
            failed(type(exc).__name__)

    def clear(self) -> None:
        """Forget all answers."""
        self._storage.clear()


def key_of(tenant: Tenant, asked: Mapping[str, object], body: object) -> str | None:
    """
    The key of a request; None if it has none, as it is not plain JSON.

    Args:
        tenant: Whose request it is.
        asked: Who is asked: provider, address, path, and headers that change answers.
        body: The request's body.
    """
    question = body
    if isinstance(body, dict):
        known = cast("dict[str, object]", body)
        question = {name: value for name, value in known.items() if name not in _NOT_ASKED}
    try:
        text = json.dumps([_FORM, tenant, dict(asked), question], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return sha256(text.encode()).hexdigest()


def _mark(key: str, body: bytes) -> bytes:
    """By which a body is known to be whole, and to be the one that was kept under this key."""
    return sha256(key.encode() + body).digest()


def _positive(name: str, value: object) -> None:
    if type(value) is not int:
        raise TypeError(f"ResponseCache({name}=…) must be a whole number (an int), not {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"ResponseCache({name}=…) must be at least 1.")
