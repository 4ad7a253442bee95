"""What a provider remembers: counts, what it received, who is in flight. Every method may be called from any thread."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

from runrails.testing.provider.bill import Bill, PriceFunction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.testing.provider.values import ProviderRequest

__all__ = ["RECEIVED_MAX", "Books"]

RECEIVED_MAX = 10_000
"""How many of the newest requests are kept for tests to look at."""


class Books:
    """Counters and the bill of one provider."""

    def __init__(self, price_pusd: PriceFunction | None) -> None:
        self.bill = Bill(price_pusd)
        self.script_errors: list[Exception] = []
        self._changed = threading.Condition()
        self._paths: Counter[str] = Counter()
        self._models: set[str] = set()
        self._received: deque[ProviderRequest] = deque(maxlen=RECEIVED_MAX)
        self._numbers = 0
        self._in_flight = 0
        self._in_flight_max = 0

    def begin(self, path: str, *, counted: bool) -> int:
        """Note that a request has come in; its number if it can cost money (`counted`), else 0."""
        with self._changed:
            self._paths[path] += 1
            self._in_flight += 1
            self._in_flight_max = max(self._in_flight_max, self._in_flight)
            self._numbers += counted
            return self._numbers if counted else 0

    def received(self, request: ProviderRequest) -> None:
        """Keep a request that was understood."""
        with self._changed:
            self._received.append(request)
            self._models.add(request.model)
            self._changed.notify_all()

    def finish(self) -> None:
        """Note that a request has been answered, or has broken off."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight. False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_flight == 0, timeout_s)

    def wait_received(self, count: int, timeout_s: float) -> bool:
        """Wait until so many requests that can cost money have come in. False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._numbers >= count, timeout_s)

    @property
    def requests(self) -> Mapping[str, int]:
        """How often each path was asked for."""
        with self._changed:
            return dict(self._paths)

    @property
    def models(self) -> frozenset[str]:
        """Every model that was asked for."""
        with self._changed:
            return frozenset(self._models)

    @property
    def kept(self) -> tuple[ProviderRequest, ...]:
        """The newest requests, oldest first."""
        with self._changed:
            return tuple(self._received)

    @property
    def concurrency_max(self) -> int:
        """The most requests that were ever in flight at once."""
        return self._in_flight_max
