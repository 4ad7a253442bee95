"""A log that nobody waits for: lines are kept, and a thread writes them. Whoever reads them may be slow, or gone."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEPT_MAX", "Unblocked"]

KEPT_MAX = 10_000
"""Lines that wait: some megabytes. What is more is counted and left out."""
CLOSE_S = 2.0


class Unblocked(logging.Handler):
    """
    Hands lines to a thread. A fork gets a thread of its own, and what waited is its parent's to write.

    Args:
        write: Takes a line; it may block or fail.
        kept_max: Lines that may wait.
    """

    def __init__(self, write: Callable[[str], object], *, kept_max: int = KEPT_MAX) -> None:
        super().__init__()
        self._write = write
        self._kept_max = kept_max
        self.left_out = 0
        """Lines that nobody has seen, as too many waited."""
        self._told = 0
        self.after_fork()
        _handlers.add(self)

    def after_fork(self) -> None:
        """In a child: the parent's thread is not here."""
        self._waiting: deque[str] = deque()
        self._woken = threading.Event()
        self._written = threading.Event()
        self._written.set()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line. The lock is the handler's own; see `logging.Handler.handle`."""
        if len(self._waiting) >= self._kept_max:
            self.left_out += 1
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 -- as every handler does: a record that cannot be shown ends nothing
            self.handleError(record)
            return
        self._waiting.append(f"{line}\n")
        # In this order: a thread that has written the line already is woken once more, and says so again.
        self._written.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="runrails-log", daemon=True)
            self._thread.start()
        self._woken.set()

    def flush(self) -> None:
        """Wait until all is written, for a moment."""
        if self._thread is not None:
            self._written.wait(CLOSE_S)

    def close(self) -> None:
        """The same, for the last time."""
        self.flush()
        super().close()

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            while self._waiting:
                self._put(self._waiting.popleft())
            if self.left_out > self._told:
                self._told = self.left_out
                self._put(f'{{"untold": {self.left_out}, "code": "log_full"}}\n')
            if not self._waiting:
                self._written.set()

    def _put(self, text: str) -> None:
        try:
            self._write(text)
        except (OSError, ValueError):  # nobody reads, or the file is closed
            self.left_out += 1


_handlers: WeakSet[Unblocked] = WeakSet()


def _after_fork() -> None:
    for handler in list(_handlers):
        handler.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
