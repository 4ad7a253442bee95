"""What the fake models cost: a written price card each, to be handed to `Guard(prices=PRICES)`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from runrails.pricing.spec import Price

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRICES"]

PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "fake-model": Price(
            input="3.00",
            output="15.00",
            cache_read="0.30",
            cache_write="3.75",
            cache_write_1h="6.00",
            context_tokens_max=200_000,
            output_tokens_max=4_096,
        ),
        # A cent a call, whatever it says: budgets that are to be exact need no tokens.
        "fake-flat": Price(call="0.01"),
        # Three dollars twenty a call: the founding article's figure.
        "fake-founding": Price(call="3.20"),
        "fake-reasoner": Price(
            input="1.25", output="10.00", cache_read="0.125", context_tokens_max=400_000, output_tokens_max=128_000
        ),
        "fake-embedding": Price(input="0.02", output="0", context_tokens_max=8_192),
    }
)
"""Dollars per million tokens, or per call. `fake-flat` is a cent a call, `fake-founding` $3.20."""
