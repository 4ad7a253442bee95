"""
Keys of an older platform, of which bcrypt hashes were kept: each is checked the slow way once, by two threads at most.

One such check takes a processor a third of a second, so whoever can ask for many could keep the machine busy. Here they
keep two threads of low priority busy, and whoever finds no room is told to come again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from threading import Lock, get_native_id
from typing import TYPE_CHECKING, Protocol

from runrails.errors import ConfigError
from runrails.forks import renew_after_fork
from runrails.identity.errors import AuthBusy

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["BCRYPT", "CHECKS_MAX", "WAITING_MAX", "BcryptPool", "CheckHash", "bcrypt_check"]

CHECKS_MAX = 2
"""So many at once."""
WAITING_MAX = 16
"""So many more may wait; that is a few seconds."""
WAIT_S = 30.0
BCRYPT = re.compile(r"\$2b\$(?:0[4-9]|1[0-4])\$[./0-9A-Za-z]{53}")
"""A dearer hash than cost 14 would take minutes: who wrote it wants that."""
_NICENESS = 10
_NOBODY = "$2b$12$" + "." * 21 + "O" + "." * 30 + "O"
"""A well-formed hash of nothing known, checked where there is none, so that every refusal takes as long."""


class CheckHash(Protocol):
    """Whether a password is the one a hash was made of."""

    def __call__(self, password: bytes, hashed: bytes, /) -> bool:
        """Raises ValueError for what cannot be hashed."""
        ...


class BcryptPool:
    """Checks keys against bcrypt hashes, a few at a time. Safe in many threads."""

    def __init__(self, check: CheckHash | None = None) -> None:
        self._check = bcrypt_check() if check is None else check
        self._lock = Lock()
        self._running: dict[tuple[bytes, str], Future[bool]] = {}
        """By key and hash: who asks the same at once waits for the same answer."""
        self._threads: ThreadPoolExecutor | None = None
        renew_after_fork(self)

    def proves(self, text: str, kept: str | None, digest: bytes) -> bool:
        """
        Whether a key is the one of which the bcrypt hash `kept` was kept. Always takes the same work.

        Args:
            text: The key.
            kept: The hash; None: there is none, so the answer is no.
            digest: Of the text, to tell equal questions.

        Raises:
            AuthBusy: Too many wait already.
        """
        from concurrent.futures import CancelledError

        known = kept is not None and BCRYPT.fullmatch(kept) is not None
        hashed = kept if known and kept is not None else _NOBODY
        asked = self._submit(text.encode("utf-8", "surrogatepass"), hashed, digest)
        try:
            return asked.result(WAIT_S) and known
        except (TimeoutError, CancelledError):
            raise AuthBusy("bcrypt_slow") from None

    def close(self) -> None:
        """End the threads when they are done; who waits for one that has not begun is told to come again."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def after_fork(self) -> None:
        """In a child: the threads are not there, and what they were asked is never answered."""
        self._lock = Lock()
        self._running, self._threads = {}, None

    def _submit(self, password: bytes, hashed: str, digest: bytes) -> Future[bool]:
        from concurrent.futures import ThreadPoolExecutor

        question = (digest, hashed)
        with self._lock:
            running = self._running.get(question)
            if running is not None:
                return running
            if len(self._running) >= CHECKS_MAX + WAITING_MAX:
                raise AuthBusy("bcrypt_busy")
            if self._threads is None:
                self._threads = ThreadPoolExecutor(CHECKS_MAX, "runrails-bcrypt", initializer=_step_back)
            asked = self._running[question] = self._threads.submit(self._is_same, password, hashed.encode("ascii"))
        asked.add_done_callback(lambda _: self._done(question))
        return asked

    def _is_same(self, password: bytes, hashed: bytes) -> bool:
        try:
            return self._check(password, hashed)
        except ValueError:  # longer than bcrypt's 72 bytes, which it must not cut off; its error may tell of the text
            return False

    def _done(self, question: tuple[bytes, str]) -> None:
        with self._lock:
            self._running.pop(question, None)


def bcrypt_check() -> CheckHash:
    """
    The check of the package `bcrypt`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        from bcrypt import checkpw
    except ImportError:
        raise ConfigError(
            "Older keys need the package bcrypt, which is not installed.",
            next_step="Install runrails[legacy], or leave out legacy=True.",
        ) from None
    return checkpw


def _step_back() -> None:
    """On Linux a thread has a priority of its own: calls with good keys go before these checks."""
    with suppress(AttributeError, OSError):
        thread = get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
