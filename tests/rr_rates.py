"""What the tests of rate limiting share: engines of every kind, and a look at what was granted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rr_dynamo import ENDPOINT, open_dynamodb
from runrails.rates import Ask, Cost, Granted, Limited, RateLimiter, Rates
from runrails.stores.rates_memory import MemoryRates
from runrails.stores.rates_sqlite import SQLiteRates

RATE_KINDS = ("memory", "sqlite", *(("dynamodb",) if ENDPOINT else ()))
MINUTE_MS = 60_000


def open_rates_kind(kind: str, directory: Path, clock: Callable[[], int]) -> RateLimiter:
    """A fresh engine of one kind; SQLite ones in `directory`, DynamoDB ones on the server the environment names."""
    if kind == "memory":
        return MemoryRates(clock=clock)
    if kind == "dynamodb":
        engine: RateLimiter = open_dynamodb(clock).rates()
        return engine
    return SQLiteRates(directory / "rates.db", clock=clock)


def ask(scope: str = "user:alice", requests: int | None = None, tokens: int | None = None, **bursts: int) -> Ask:
    """One scope with its rates."""
    return Ask(scope, Rates(requests_per_minute=requests, tokens_per_minute=tokens, **bursts))


def request(engine: RateLimiter, *asks: Ask, tokens: int = 0, requests: int = 1) -> Granted | Limited:
    """Take one request, with as many tokens."""
    return engine.take(asks, Cost(requests, tokens))


def granted(answer: Granted | Limited) -> Granted:
    """The answer, which must be a grant."""
    assert isinstance(answer, Granted), answer
    return answer


def limited(answer: Granted | Limited) -> Limited:
    """The answer, which must be a refusal."""
    assert isinstance(answer, Limited), answer
    return answer


def most_in_a_window(taken: Sequence[tuple[int, int]], per_minute: int, burst: int) -> float:
    """
    By how much what was taken, as (moment in ms, amount), passes burst + refill in the worst of all windows.

    At most 0 if the limit was kept: a running sum that time brings down and that never falls below nothing.
    """
    level, last_ms, worst = 0.0, None, float("-inf")
    for at_ms, amount in taken:
        if last_ms is not None:
            level = max(0.0, level - (at_ms - last_ms) * per_minute / MINUTE_MS)
        level, last_ms = level + amount, at_ms
        worst = max(worst, level - burst)
    return worst
