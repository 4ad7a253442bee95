"""How many requests and tokens a minute: the words, the decision and its headers. Engines are in `runrails.stores`."""

from __future__ import annotations

from runrails.rates.gcra import FULL, Times, credited, decide
from runrails.rates.headers import rate_headers
from runrails.rates.limiter import Ask, Cost, Figure, Granted, Limited, RateLimiter, Rates, SupportsRates, Taken

__all__ = [
    "FULL",
    "Ask",
    "Cost",
    "Figure",
    "Granted",
    "Limited",
    "RateLimiter",
    "Rates",
    "SupportsRates",
    "Taken",
    "Times",
    "credited",
    "decide",
    "rate_headers",
]
