"""The newest calls of a ledger, without reading the month that they are in where the engine can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from runrails.periods import month_of, next_month

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails.ledger import SupportsUsage, UsageRecord

__all__ = ["SupportsOpenCalls", "SupportsRecent", "usage_since"]


@runtime_checkable
class SupportsRecent(Protocol):
    """A store that finds calls by time."""

    def usage_since(self, first_ms: int) -> Iterator[UsageRecord]:
        """Calls that were reserved at that moment (milliseconds since the epoch) or later, oldest first."""
        ...


@runtime_checkable
class SupportsOpenCalls(Protocol):
    """A store that finds calls in flight, and for which finding calls by time would take reading all of it."""

    def open_calls(self, count_max: int) -> list[UsageRecord]:
        """At most so many calls that are in flight, oldest first."""
        ...


def usage_since(store: SupportsUsage, first_ms: int, now_ms: int) -> Iterator[UsageRecord]:
    """Calls that were reserved from `first_ms` to about now, oldest first. Raises ValueError for no moment."""
    if isinstance(store, SupportsRecent):
        yield from store.usage_since(first_ms)
        return
    period, last = month_of(first_ms), month_of(now_ms)
    while period <= last:
        for record in store.usage(period=period):
            if record.at_ms >= first_ms:
                yield record
        period = next_month(period)
