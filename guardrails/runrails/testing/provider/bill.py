"""The provider's own books: what it would send an invoice for. Never fed by the code under test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from runrails.usage import Usage

if TYPE_CHECKING:
    from runrails.pricing.book import PriceBook
    from runrails.pricing.spec import PriceSpec
    from runrails.testing.provider.values import Wire

__all__ = ["Bill", "BilledCall", "BilledEnd", "PriceFunction", "generated", "price_function"]

PriceFunction = Callable[[str, Usage], int]
"""Picodollars for a model's name and a usage."""

BilledEnd = Literal["completed", "cut", "errored"]
"""`cut`: the client left before the answer was out; `errored`: the provider broke off or answered with an error."""


PRICED_AT_MS = 1_795_000_000_000
"""When the shipped prices are looked up: the moment at which `ManualClock` starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledCall:
    """One line of the bill."""

    number: int
    """Number of the request, as in `ProviderRequest.number`."""
    wire: Wire
    model: str
    """The model that was asked for."""
    served_model: str
    """The model that the answer names."""
    usage: Usage
    end: BilledEnd


def generated(usage: Usage, sent: int, total: int) -> Usage:
    """
    What had been used when `sent` of `total` pieces of a stream were out. Rounded up: the provider is never short.

    All of the input counts, and hidden reasoning too, since it comes before the first piece.
    """
    shown = usage.output_tokens - usage.reasoning_tokens
    output = usage.reasoning_tokens + (shown * sent + total - 1) // total if total else usage.output_tokens
    audio = min(usage.output_audio_tokens, output - usage.reasoning_tokens)
    return replace(usage, output_tokens=output, output_audio_tokens=audio)


def price_function(prices: Mapping[str, PriceSpec] | None = None) -> PriceFunction:
    """
    Price by written cards, over the shipped price data as of November 2026.

    Args:
        prices: The cards; None: `runrails.testing.PRICES`.
    """
    books: list[PriceBook] = []

    def price_pusd(model: str, usage: Usage) -> int:
        from runrails.pricing.cards import cost_pusd

        if not books:
            books.append(_book(prices))
        return cost_pusd(books[0].card(model, now_ms=PRICED_AT_MS), usage)

    return price_pusd


def _book(prices: Mapping[str, PriceSpec] | None) -> PriceBook:
    from runrails.pricing.book import PriceBook
    from runrails.testing.prices import PRICES

    return PriceBook.load(overrides=PRICES if prices is None else prices)


class Bill:
    """Every call that costs money, in the order in which it was billed. Safe to read and write from any thread."""

    def __init__(self, price_pusd: PriceFunction | None = None) -> None:
        self._price = price_pusd or price_function()
        self._calls: list[BilledCall] = []
        self._lock = threading.Lock()

    def add(self, call: BilledCall) -> None:
        """Write a line."""
        with self._lock:
            self._calls.append(call)

    @property
    def calls(self) -> tuple[BilledCall, ...]:
        """The lines so far."""
        with self._lock:
            return tuple(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[BilledCall]:
        return iter(self.calls)

    def total_pusd(self, price: PriceFunction | Mapping[str, Callable[[Usage], int]] | None = None) -> int:
        """
        The sum in picodollars, by this price or by the one the provider was made with.

        Raises:
            KeyError: `price` is a mapping and lacks a model.
        """
        cost = self._price if price is None else _as_function(price)
        return sum(cost(call.model, call.usage) for call in self.calls)

    def total_tokens(self) -> tuple[int, int]:
        """(input, output) tokens of all calls."""
        calls = self.calls
        return sum(call.usage.input_tokens for call in calls), sum(call.usage.output_tokens for call in calls)


def _as_function(price: PriceFunction | Mapping[str, Callable[[Usage], int]]) -> PriceFunction:
    if callable(price):
        return price
    return lambda model, usage: price[model](usage)
