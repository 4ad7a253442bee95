"""
Rate limiters by the real clock: sixteen threads for five seconds, and what one decision costs.

Not part of ``run.py``, since it takes its time: ``python tests/benchmarks/bench_rates.py``.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from rr_bench import Row, best, main

from runrails.rates import Ask, Cost, Granted, RateLimiter, Rates
from runrails.stores.rates_memory import MemoryRates
from runrails.stores.rates_sqlite import SQLiteRates

SECONDS = 5
PER_MINUTE, BURST = 1_200, 40
ONE = Cost(1, 100)


def hammered(engine: RateLimiter) -> tuple[int, float, int]:
    """How many requests were granted, how many the rate allows in that time, and how many attempts there were."""
    ask = Ask("user:hot", Rates(requests_per_minute=PER_MINUTE, requests_burst=BURST, tokens_per_minute=10**8))
    counts = [[0, 0] for _ in range(16)]
    began = time.monotonic()

    def hammer(count: list[int]) -> None:
        while time.monotonic() - began < SECONDS:
            count[0] += 1
            if isinstance(engine.take([ask], ONE), Granted):
                count[1] += 1
            else:
                time.sleep(0.001)

    threads = [threading.Thread(target=hammer, args=(count,)) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    allowed = BURST + PER_MINUTE * (time.monotonic() - began) / 60
    return sum(count[1] for count in counts), allowed, sum(count[0] for count in counts)


def decisions(engine: RateLimiter) -> float:
    """Seconds a decision takes that is granted, over two scopes with two limits each."""
    asks = [Ask(name, Rates(requests_per_minute=10**7, tokens_per_minute=10**9)) for name in ("user:a", "key:k")]

    def work() -> None:
        for _ in range(2_000):
            engine.take(asks, ONE)

    return best(work, calls=2_000, rounds=3)


def measure() -> list[Row]:
    """Both engines; never above what is allowed, and at least 98 % of it."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        for name, engine in (("memory", MemoryRates()), ("SQLite", SQLiteRates(Path(directory) / "rates.db"))):
            count, allowed, attempts = hammered(engine)
            what = f"what is allowed ({allowed:.1f}), {attempts:,} attempts"
            rows.append(Row(f"{name}, 16 threads, 5 s: granted", count, "calls", count / allowed, what, 1.0))
            rows.append(
                Row(f"{name}, 16 threads, 5 s: allowed", allowed, "calls", allowed / count, "granted", 1 / 0.98)
            )
            rows.append(Row(f"{name}, one decision over two scopes", decisions(engine) * 1e6, "us"))
            engine.close()
    return rows


if __name__ == "__main__":
    raise SystemExit(main(measure))
