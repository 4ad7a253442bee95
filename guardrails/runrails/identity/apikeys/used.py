"""What is written of keys in the background, never in the way of a request: when they were used last, to the minute."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, cast

from runrails.documents import Address
from runrails.forks import renew_after_fork
from runrails.identity.apikeys.records import KIND_USED

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.documents import DocumentStore

__all__ = ["EVERY_MS", "KEPT_MAX", "LastUsed"]

EVERY_MS = 60_000
_NAME = "used"
KEPT_MAX = 10_000
"""Of so many keys it is known here that they were written; of more, the store is asked."""


class LastUsed:
    """Notes the use of keys, and writes it at most once a minute each. Safe in many threads."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._noted: dict[str, int] = {}
        """By key: the last use that was written, or is about to be."""
        self._waiting: dict[str, int] = {}
        self._acts: dict[str, Callable[[], object]] = {}
        self._lock = Lock()
        self._writer: Thread | None = None
        self.failures = 0
        """How many writes were given up; each is made up for by the key's next use, of uses a minute later."""
        renew_after_fork(self)

    def note(self, key_id: str, now_ms: int) -> None:
        """The key was used. Never raises, never waits."""
        noted = self._noted.get(key_id)
        if noted is not None and _is_recent(noted, now_ms):
            return
        with self._lock:
            self._noted.pop(key_id, None)  # so that the oldest stands first
            if len(self._noted) >= KEPT_MAX:
                del self._noted[next(iter(self._noted))]
            self._noted[key_id] = self._waiting[key_id] = now_ms
            self._start()

    def later(self, key_id: str, act: Callable[[], object]) -> None:
        """Have something else written of a key, once. Never raises, never waits."""
        with self._lock:
            self._acts[key_id] = act
            self._start()

    def read_ms(self, key_id: str) -> int | None:
        """When a key was used last, by what is written."""
        document = self._documents.get(Address(KIND_USED, key_id, _NAME))
        return None if document is None else _decode(document.data)

    def flush(self) -> None:
        """Write now what waits."""
        writer = self._writer
        if writer is not None and writer.is_alive():
            writer.join()
        self._write_all()

    def after_fork(self) -> None:
        """In a child: what waits is the parent's to write, and its thread is not there."""
        self._lock = Lock()
        self._noted, self._waiting, self._acts, self._writer = {}, {}, {}, None

    def _start(self) -> None:
        if self._writer is None or not self._writer.is_alive():
            self._writer = Thread(target=self._write_all, name="runrails-key-use", daemon=True)
            with suppress(RuntimeError):  # the interpreter ends
                self._writer.start()

    def _write_all(self) -> None:
        while True:
            with self._lock:
                if self._acts:
                    act = self._acts.popitem()[1]
                elif self._waiting:
                    act = partial(self._write, *self._waiting.popitem())
                else:
                    self._writer = None
                    return
            try:
                act()
            except Exception:  # noqa: BLE001 -- this is a courtesy: whatever the store says, the request was answered
                # A store that is away lets each wait for seconds, and a process that ends would wait for all of them.
                with self._lock:
                    self.failures += 1 + len(self._waiting) + len(self._acts)
                    self._waiting.clear()
                    self._acts.clear()

    def _write(self, key_id: str, at_ms: int) -> None:
        """Unless another process has, within the minute. If one does so just now, that is as good."""
        address = Address(KIND_USED, key_id, _NAME)
        known = self._documents.get(address)
        if known is not None and _is_recent(_decode(known.data) or 0, at_ms):
            return
        version = 0 if known is None else known.version
        self._documents.put(address, json.dumps({"at_ms": at_ms}).encode("ascii"), expected=version)


def _is_recent(at_ms: int, now_ms: int) -> bool:
    # What is later than now is of a clock that was set back.
    return 0 <= now_ms - at_ms < EVERY_MS


def _decode(data: bytes) -> int | None:
    try:
        at_ms = cast("dict[str, object]", json.loads(data))["at_ms"]
    except (ValueError, TypeError, KeyError):
        return None
    return at_ms if type(at_ms) is int else None
