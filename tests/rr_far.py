"""A store across a network, as the tests need one: it notes every verb that is called where an event loop runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore

T = TypeVar("T")


class FarStore(FlakyStore):
    """Works like the store behind it. What was called on a thread with a running event loop is in `on_loop`."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__(MemoryStore() if store is None else store, remote=True)
        self.on_loop: list[str] = []
        self.threads: set[str] = set()

    def _call(self, verb: str, work: Callable[[], T]) -> T:
        self.threads.add(threading.current_thread().name)
        if asyncio._get_running_loop() is not None:
            self.on_loop.append(verb)
        return super()._call(verb, work)

    def called(self, verb: str) -> int:
        """How often a verb was called."""
        return sum(name == verb for name, _ in self.log)
