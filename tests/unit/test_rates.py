"""Rate limits: what HTTP answers say of them, and the memory they take."""

from __future__ import annotations

import pytest

from rr_rates import MINUTE_MS, ask, granted, limited, request
from runrails.errors import StoreUnavailable
from runrails.rates import Cost, Figure, Granted, Limited, rate_headers
from runrails.rates.headers import duration
from runrails.stores.memory import MemoryStore
from runrails.stores.rates_memory import MemoryRates
from runrails.testing import ManualClock


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"), (1, "1ms"), (999, "999ms"), (1_000, "1s"), (1_500, "1.5s"), (8_640, "8.64s"), (60_000, "1m0s"),
        (360_000, "6m0s"), (61_001, "1m1.001s"), (3_600_000, "1h0m0s"), (86_400_000, "24h0m0s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_clients_know_them(ms: int, text: str) -> None:
    """As Go writes them."""
    assert text == duration(ms)


def test_a_grant_tells_limit_remaining_and_reset() -> None:
    """By OpenAI's names; what has no limit is not named."""
    engine = MemoryRates(clock=ManualClock())
    answer = request(engine, ask(requests=60, tokens=6_000), tokens=50)

    assert {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5950",
        "x-ratelimit-reset-tokens": "500ms",
    } == rate_headers(answer)
    assert {} == rate_headers(request(engine, ask("user:free")))


@pytest.mark.parametrize(
    ("wait_ms", "headers"),
    [
        (1, {"retry-after": "1", "retry-after-ms": "1"}),
        (1_000, {"retry-after": "1", "retry-after-ms": "1000"}),
        (1_001, {"retry-after": "2", "retry-after-ms": "1001"}),
        (60_000, {"retry-after": "60", "retry-after-ms": "60000"}),
        (60_001, {"retry-after": "60", "x-should-retry": "false"}),
        (None, {"x-should-retry": "false"}),
    ],
)
def test_a_refusal_tells_when_to_come_again(wait_ms: int | None, headers: dict[str, str]) -> None:
    """Exactly and rounded up; beyond a minute SDKs are kept from sleeping through it."""
    assert headers == rate_headers(Limited("user:a", "requests", 1, 1, wait_ms, None, None))


def test_what_has_come_back_in_part_is_not_told_as_whole() -> None:
    """Half a request is none that could be made."""
    clock = ManualClock()
    engine = MemoryRates(clock=clock)
    request(engine, ask(requests=60))
    clock.advance(500)

    assert Figure(60, 59, 500) == request(engine, ask(requests=60), requests=0).requests


@pytest.mark.parametrize("per_minute", [59_999_999, 700_000_000, 10**9])
def test_the_highest_rates_are_kept_too(per_minute: int) -> None:
    """An interval is a whole number of nanoseconds: never more than the rate, and hardly less."""
    clock = ManualClock()
    engine = MemoryRates(clock=clock)
    who = ask(tokens=per_minute, tokens_burst=min(2 * per_minute, 10**9))
    granted(request(engine, who, tokens=min(2 * per_minute, 10**9)))
    clock.advance(MINUTE_MS // 2)
    limited(request(engine, who, tokens=per_minute // 2 + 1))

    granted(request(engine, who, tokens=int(per_minute // 2 * 0.98)))


def test_full_buckets_are_forgotten() -> None:
    """A hundred thousand users who come once, a thousand a minute: never many more than those are kept."""
    clock = ManualClock()
    engine = MemoryRates(clock=clock)
    most = 0
    for number in range(20_000):
        clock.advance(6)
        granted(request(engine, ask(f"user:u{number}", requests=60)))
        most = max(most, len(engine))

    assert most <= 1_024


def test_scopes_beyond_the_most_are_refused_and_those_known_go_on() -> None:
    """Every bucket is in use: a new scope must wait, with nothing taken, until one is full again."""
    clock = ManualClock()
    engine = MemoryRates(clock=clock, scopes_max=3)
    for number in range(3):
        granted(request(engine, ask(f"user:u{number}", requests=2)))
    with pytest.raises(StoreUnavailable, match="scopes_max"):
        request(engine, ask("user:u0", requests=2), ask("user:new", requests=2))
    granted(request(engine, ask("user:u0", requests=2)))
    limited(request(engine, ask("user:u0", requests=2)))

    clock.advance(MINUTE_MS)
    granted(request(engine, ask("user:new", requests=2)))
    assert 1 == len(engine)


def test_what_is_all_given_back_is_forgotten() -> None:
    """A bucket that is full again takes no memory."""
    engine = MemoryRates(clock=ManualClock())
    answer = granted(request(engine, ask(tokens=10), tokens=10))
    engine.give_back(answer, Cost(1, 10))

    assert 0 == len(engine)


def test_a_memory_store_has_one_limiter() -> None:
    """Two guards on one store share its counts."""
    store = MemoryStore(clock=ManualClock())
    granted(request(store.rates(), ask(requests=1)))

    assert Figure(1, 0, MINUTE_MS) == limited(request(store.rates(), ask(requests=1))).requests
    assert isinstance(request(store.rates(), ask("user:bob", requests=1)), Granted)
