"""Rate limiting, on every engine: never above the limit, hardly below it, and exact about when to come again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rr_rates import MINUTE_MS, RATE_KINDS, ask, granted, limited, most_in_a_window, open_rates_kind, request
from runrails.rates import Ask, Cost, Figure, Granted, Limited, RateLimiter, Rates
from runrails.testing import ManualClock

Engine = Callable[[Callable[[], int]], RateLimiter]


@pytest.fixture(params=RATE_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of engine."""
    return str(request.param)


@pytest.fixture
def engine(kind: str, tmp_path: Path, clock: ManualClock) -> Iterator[RateLimiter]:
    """A fresh engine."""
    opened = open_rates_kind(kind, tmp_path, clock)
    yield opened
    opened.close()


def test_a_burst_is_granted_at_once_and_then_one_by_one(engine: RateLimiter, clock: ManualClock) -> None:
    """Sixty a minute: sixty at once, none more, and one a second from then on."""
    who = ask(requests=60)
    answers = [request(engine, who) for _ in range(61)]

    assert [Granted] * 60 + [Limited] == [type(answer) for answer in answers]
    assert 1_000 == limited(answers[-1]).retry_after_ms
    clock.advance(999)
    assert 1 == limited(request(engine, who)).retry_after_ms
    clock.advance(1)
    granted(request(engine, who))
    limited(request(engine, who))


@pytest.mark.parametrize("per_minute", [1, 7, 60, 61, 90, 1_000, 59_999])
def test_retry_after_is_exact(engine: RateLimiter, clock: ManualClock, per_minute: int) -> None:
    """One millisecond before the time it names the answer is no, at that time it is yes."""
    who = ask(requests=per_minute, requests_burst=3)
    for _ in range(3):
        granted(request(engine, who))
    wait_ms = limited(request(engine, who)).retry_after_ms or 0

    assert -(-MINUTE_MS // per_minute) == wait_ms
    clock.advance(wait_ms - 1)
    assert 1 == limited(request(engine, who)).retry_after_ms
    clock.advance(1)
    granted(request(engine, who))


@pytest.mark.parametrize("per_minute", [3, 7, 11, 59_999, 7_000_001])
def test_a_full_bucket_grants_exactly_its_burst(engine: RateLimiter, per_minute: int) -> None:
    """Rates that do not divide a minute lose nothing to rounding: the whole burst in one piece, or in pieces."""
    granted(request(engine, ask("user:a", tokens=per_minute), tokens=per_minute))
    limited(request(engine, ask("user:a", tokens=per_minute), tokens=1))
    for piece in (1, per_minute // 3, per_minute - 1 - per_minute // 3):
        granted(request(engine, ask("user:b", tokens=per_minute), tokens=piece))
    limited(request(engine, ask("user:b", tokens=per_minute), tokens=1))


def test_a_refusal_takes_nothing_of_either_limit(engine: RateLimiter) -> None:
    """Without room for its tokens a call takes no request either, however often it asks."""
    who = ask(requests=10, tokens=100)
    granted(request(engine, who, tokens=90))
    for _ in range(20):
        answer = limited(request(engine, who, tokens=11))

        assert ("tokens", 100, 11) == (answer.unit, answer.limit, answer.needed)
        assert (Figure(10, 9, 6_000), Figure(100, 10, 54_000)) == (answer.requests, answer.tokens)
    for _ in range(9):
        granted(request(engine, who))
    assert "requests" == limited(request(engine, who)).unit


def test_every_scope_or_none(engine: RateLimiter) -> None:
    """The key has room, the user has not: nothing is taken from the key."""
    user, key = ask("user:alice", requests=2), ask("key:k1", requests=5)
    for _ in range(2):
        granted(request(engine, user, key))
    for _ in range(5):
        assert "user:alice" == limited(request(engine, user, key)).scope
    for _ in range(3):
        granted(request(engine, key))
    limited(request(engine, key))


def test_the_longest_wait_is_the_one_that_is_named(engine: RateLimiter, clock: ManualClock) -> None:
    """Of several limits without room, the answer names the one that will have room last; then it is granted."""
    user, key = ask("user:alice", requests=60, requests_burst=1), ask("key:k1", tokens=60, tokens_burst=30)
    granted(request(engine, user, key, tokens=30))
    answer = limited(request(engine, user, key, tokens=10))

    assert ("key:k1", "tokens", 10_000) == (answer.scope, answer.unit, answer.retry_after_ms)
    clock.advance(10_000)
    granted(request(engine, user, key, tokens=10))


def test_more_than_a_burst_is_never_granted(engine: RateLimiter) -> None:
    """There is no time at which it would fit, and the answer says so; what fits still does."""
    who = ask(tokens=100)
    answer = limited(request(engine, who, tokens=101))

    assert (None, 100, 101) == (answer.retry_after_ms, answer.limit, answer.needed)
    granted(request(engine, who, tokens=100))


def test_the_figures_are_of_the_scope_with_least_left(engine: RateLimiter) -> None:
    """Limit, remaining and time to full, for requests and for tokens, over all scopes of the call."""
    user, key = ask("user:alice", requests=60, tokens=600), ask("key:k1", requests=30)
    answer = granted(request(engine, user, key, tokens=100))

    assert (Figure(30, 29, 2_000), Figure(600, 500, 10_000)) == (answer.requests, answer.tokens)
    assert (None, None) == granted(request(engine, ask("user:free")))[:2]


def test_unused_tokens_are_given_back(engine: RateLimiter) -> None:
    """A call that took its worst case and used a tenth leaves room as if it had asked for a tenth."""
    who = ask(tokens=100)
    first = granted(request(engine, who, tokens=100))
    engine.give_back(first, Cost(0, 90))

    assert Figure(100, 0, 60_000) == granted(request(engine, who, tokens=90)).tokens
    limited(request(engine, who, tokens=1))


def test_what_time_has_brought_back_is_not_given_back_again(engine: RateLimiter, clock: ManualClock) -> None:
    """Parking calls until the bucket is full again and then returning their tokens does not double the burst."""
    who = ask(tokens=100)
    parked = granted(request(engine, who, tokens=100))
    clock.advance(2 * MINUTE_MS)
    granted(request(engine, who, tokens=100))
    engine.give_back(parked, Cost(1, 100))

    limited(request(engine, who, tokens=1))


def test_half_of_it_brought_back_by_time_leaves_half_to_give(engine: RateLimiter, clock: ManualClock) -> None:
    """After half a minute time has brought half of it; the other half is given, not the whole."""
    who = ask(tokens=100)
    first = granted(request(engine, who, tokens=100))
    clock.advance(MINUTE_MS // 2)
    granted(request(engine, who, tokens=50))
    engine.give_back(first, Cost(0, 100))

    granted(request(engine, who, tokens=50))
    limited(request(engine, who, tokens=1))


def test_a_call_that_was_not_sent_gives_all_back(engine: RateLimiter) -> None:
    """Its request as well, in every scope."""
    user, key = ask("user:alice", requests=1, tokens=10), ask("key:k1", requests=1)
    engine.give_back(granted(request(engine, user, key, tokens=10)), Cost(1, 10))

    granted(request(engine, user, key, tokens=10))


def test_giving_back_to_a_forgotten_scope_does_nothing(engine: RateLimiter, clock: ManualClock) -> None:
    """A full bucket stays full."""
    who = ask(tokens=100)
    first = granted(request(engine, who, tokens=10))
    clock.advance(MINUTE_MS)
    for number in range(40):  # enough for engines that forget now and then
        request(engine, ask(f"user:u{number}", requests=1))
    engine.give_back(first, Cost(0, 10))

    assert Figure(100, 0, 60_000) == granted(request(engine, who, tokens=100)).tokens


@pytest.mark.parametrize("back_ms", [1, 30_000, 3_600_000, 86_400_000 * 400])
def test_a_clock_put_back_neither_grants_nor_blocks(
    engine: RateLimiter, clock: ManualClock, kind: str, back_ms: int
) -> None:
    """What was used up stays so, and after the wait that is named it goes on: a minute, and some seconds at most."""
    who = ask(requests=60, tokens=600)
    for _ in range(60):
        granted(request(engine, who, tokens=10))
    clock.advance(-back_ms)
    answer = limited(request(engine, who, tokens=10))

    # Where many hosts decide at once, a little back may be another's clock.
    believed = kind == "dynamodb" and back_ms <= 15_000
    assert 1_000 + (back_ms if believed else 0) == answer.retry_after_ms
    clock.advance(MINUTE_MS + (back_ms if believed else 0))
    assert 60 == sum(isinstance(request(engine, who, tokens=10), Granted) for _ in range(61))


def test_a_clock_that_was_ahead_for_a_while_costs_one_burst_at_most(engine: RateLimiter, clock: ManualClock) -> None:
    """An hour ahead and back again: one full bucket came early, and then the rate holds as before."""
    who = ask(requests=60)
    taken = sum(isinstance(request(engine, who), Granted) for _ in range(70))
    clock.advance(3_600_000)
    taken += sum(isinstance(request(engine, who), Granted) for _ in range(70))
    clock.advance(-3_600_000)
    taken += sum(isinstance(request(engine, who), Granted) for _ in range(70))

    assert 120 == taken
    clock.advance(1_000)
    assert 1 == sum(isinstance(request(engine, who), Granted) for _ in range(5))


def test_rates_may_change_at_any_time(engine: RateLimiter, clock: ManualClock) -> None:
    """An emptied bucket is as empty at the new rate, and fills at it."""
    granted(request(engine, ask(requests=10), requests=10))
    limited(request(engine, ask(requests=100)))
    clock.advance(600)
    granted(request(engine, ask(requests=100)))
    granted(request(engine, ask()))


@pytest.mark.parametrize(
    ("asks", "cost", "error"),
    [
        ((), Cost(), ValueError),
        ((ask(), ask()), Cost(), ValueError),
        (tuple(ask(f"user:{n}") for n in range(9)), Cost(), ValueError),
        ((ask(""),), Cost(), ValueError),
        ((ask("user:é"),), Cost(), ValueError),
        ((ask("u" * 257),), Cost(), ValueError),
        ((ask(),), Cost(-1), ValueError),
        ((ask(),), Cost(0, 10**9 + 1), ValueError),
        ((ask(),), Cost(0, 1.5), TypeError),  # type: ignore[arg-type]
        ((ask(),), Cost(True), TypeError),
    ],
)
def test_nonsense_is_refused(engine: RateLimiter, asks: tuple[Ask, ...], cost: Cost, error: type[Exception]) -> None:
    """Nothing is taken for it."""
    with pytest.raises(error):
        engine.take(asks, cost)
    with pytest.raises(error) if asks == (ask(),) else pytest.raises(ValueError):
        engine.give_back(granted(request(engine, ask(requests=1))), cost if asks == (ask(),) else Cost(-1))
    limited(request(engine, ask(requests=1)))


@pytest.mark.parametrize(
    ("given_rates", "error"),
    [
        ({"requests_per_minute": 0}, ValueError),
        ({"tokens_per_minute": 10**9 + 1}, ValueError),
        ({"requests_per_minute": 1.5}, TypeError),
        ({"requests_per_minute": True}, TypeError),
        ({"requests_burst": 5}, ValueError),
        ({"requests_per_minute": 1, "requests_burst": 0}, ValueError),
        ({"requests_per_minute": 1, "requests_burst": 1_441}, ValueError),
        ({"tokens_per_minute": 1, "tokens_burst": "9"}, TypeError),
    ],
)
def test_rates_that_make_no_sense_are_refused(given_rates: dict[str, int], error: type[Exception]) -> None:
    """At the place where they are written."""
    with pytest.raises(error):
        Rates(**given_rates)


_scopes = itertools.count()


@given(
    steps=st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 60), st.integers(0, 100)), min_size=1, max_size=40),
    per_minute=st.integers(1, 5_000),
    burst=st.integers(1, 80),
    delay=st.integers(0, 3),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_no_window_passes_the_burst_and_what_time_brings(
    engine: RateLimiter, clock: ManualClock, steps: list[tuple[int, int, int]], per_minute: int, burst: int, delay: int
) -> None:
    """Net of what calls give back later; and what a bucket of real numbers has room for is never refused."""
    burst = min(burst, per_minute * 1_440)
    who = ask(f"user:u{next(_scopes)}", tokens=per_minute, tokens_burst=burst)
    flow, level, last_ms = list[tuple[int, int]](), 0.0, clock()
    calls: list[tuple[Granted, int]] = []
    for wait_ms, tokens, back_percent in steps:
        now_ms = clock.advance(wait_ms)
        level = max(0.0, level - (now_ms - last_ms) * per_minute / MINUTE_MS)
        last_ms = now_ms
        answer = request(engine, who, tokens=tokens)
        if isinstance(answer, Limited):
            assert delay or level + tokens > burst - 0.001 * len(steps)
            continue
        calls.append((answer, tokens * back_percent // 100))
        level += tokens
        flow.append((now_ms, tokens))
        while len(calls) > delay:
            call, unused = calls.pop(0)
            engine.give_back(call, Cost(0, unused))
            level -= unused
            flow.append((now_ms, -unused))

    assert most_in_a_window(flow, per_minute, burst) <= 1e-6


def test_sixteen_threads_for_five_seconds(kind: str, tmp_path: Path) -> None:
    """As fast as they can, by a clock that each look moves a little: at most burst and refill, and 98 % of it."""
    lock, ticks = threading.Lock(), itertools.count()
    looks_a_ms, seconds, per_minute, burst = 2, 5, 1_200, 40
    granted_count = [0] * 16

    def clock() -> int:
        with lock:
            return 1_795_000_000_000 + next(ticks) // looks_a_ms

    engine = open_rates_kind(kind, tmp_path, clock)
    end = seconds * 1_000 * looks_a_ms

    def hammer(place: int) -> None:
        who = ask(requests=per_minute, requests_burst=burst)
        for _ in range(end // 16):
            granted_count[place] += isinstance(request(engine, who), Granted)

    threads = [threading.Thread(target=hammer, args=(place,)) for place in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()

    allowed = burst + per_minute * (next(ticks) / looks_a_ms) / MINUTE_MS
    assert allowed * 0.98 <= sum(granted_count) <= allowed
