"""
Reserve + settle on the embedded engines, over four scopes, next to the least that could do a part of it.

Usage: python tests/benchmarks/bench_stores.py [--json]
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Literal

from rr_bench import Row, main, percentile, samples

from runrails.ids import new_id
from runrails.ledger import Account, CallFacts, FullStore, Hold, Reservation, ResultFacts
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.usage import Usage

CENT = 10**10
ACTUAL = 4 * 10**9
LIMIT = 10**18
MEMORY_CALLS = 50_000
BATCH = 250
FLAT_CALLS = 100_000
SQLITE_CALLS = 1_500
SCOPES = (
    Account("run:r1", "-"), Account("user:alice", "2026-11"), Account("key:k1", "2026-11"), Account("org:o", "2026-11"),
)  # fmt: skip
HOLDS = tuple(Hold(account, CENT, LIMIT) for account in SCOPES)
FACTS = CallFacts(
    user="alice", run="r1", key="k1", org="o", provider="openai", model="gpt-4o-mini", endpoint="/v1/chat"
)
RESULT = ResultFacts(usage=Usage(input_tokens=1_200, output_tokens=300), duration_ms=900)


class Counter:
    """The yardstick: two-phase counting for one scope, in as few lines as that takes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.spent, self.held, self.lock = limit, 0, 0, Lock()
        self.open: dict[str, int] = {}

    def reserve(self, reservation_id: str, amount: int) -> bool:
        with self.lock:
            if reservation_id in self.open or self.spent + self.held + amount > self.limit:
                return False
            self.held += amount
            self.open[reservation_id] = amount
            return True

    def settle(self, reservation_id: str, actual: int) -> None:
        with self.lock:
            self.held -= self.open.pop(reservation_id)
            self.spent += actual


def measure() -> list[Row]:
    """Memory and SQLite, each with its yardstick in the same run."""
    return [*_memory(), *_sqlite("NORMAL"), *_sqlite("FULL")]


def _memory() -> list[Row]:
    # In small batches, each on both sides: inputs are fresh, as a caller's are, and a noisy moment meets both.
    counter = Counter(LIMIT)
    store = MemoryStore()
    counted: list[float] = []
    kept: list[float] = []
    for _ in range(MEMORY_CALLS // BATCH):
        ids = [new_id() for _ in range(BATCH)]
        reservations = [Reservation(i, HOLDS, facts=FACTS) for i in ids]
        counted.append(_count(counter, ids))
        kept.append(_keep(store, reservations))
    bare, full = percentile(sorted(counted), 50), percentile(sorted(kept), 50)
    early, late = _drift()
    return [
        Row("one-scope two-phase counter", bare * 1e6, "us"),
        Row("memory: reserve + settle, 4 scopes", full * 1e6, "us", full / bare, "one-scope counter", 7.0),
        Row(f"memory: the last of {FLAT_CALLS:,} calls", late * 1e6, "us", late / early, "the first tenth", 1.5),
    ]


def _count(counter: Counter, ids: list[str]) -> float:
    began = time.perf_counter()
    for i in ids:
        counter.reserve(i, CENT)
        counter.settle(i, ACTUAL)
    return (time.perf_counter() - began) / len(ids)


def _keep(store: MemoryStore, reservations: list[Reservation]) -> float:
    began = time.perf_counter()
    for reservation in reservations:
        store.reserve(reservation)
        store.settle(reservation.id, ACTUAL, result=RESULT)
    return (time.perf_counter() - began) / len(reservations)


def _drift() -> tuple[float, float]:
    """Seconds per call in the first and in the last tenth of many calls on one store."""
    store = MemoryStore()
    batches = FLAT_CALLS // BATCH
    times = [_keep(store, [Reservation(new_id(), HOLDS, facts=FACTS) for _ in range(BATCH)]) for _ in range(batches)]
    tenth = batches // 10
    return percentile(sorted(times[:tenth]), 50), percentile(sorted(times[-tenth:]), 50)


def _sqlite(synchronous: Literal["FULL", "NORMAL"]) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        store = SQLiteStore(path, synchronous=synchronous)
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            return _sqlite_rows(store, connection, synchronous)
        finally:
            connection.close()
            store.close()


def _sqlite_rows(store: FullStore, connection: sqlite3.Connection, synchronous: str) -> list[Row]:
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
    connection.execute("INSERT INTO bare VALUES (1, 0)")

    def bare() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE bare SET n = n + 1 WHERE id = 1")
        connection.execute("COMMIT")

    steps = itertools.count()

    def keep() -> None:
        reservation = Reservation(f"c{next(steps)}", HOLDS, facts=FACTS)
        store.reserve(reservation)
        store.settle(reservation.id, ACTUAL, result=RESULT)

    for work in (bare, keep):
        samples(work, calls=100)
    yardstick, kept = _interleaved(bare, keep)
    p50, yard = percentile(kept, 50), percentile(yardstick, 50)
    name = f"SQLite {synchronous}"
    return [
        Row(f"{name}: bare update, p50", yard * 1e6, "us"),
        Row(f"{name}: reserve + settle, 4 scopes, p50", p50 * 1e6, "us", p50 / yard, "bare update, same file", 12.0),
        Row(f"{name}: reserve + settle, 4 scopes, p99", percentile(kept, 99) * 1e6, "us"),
    ]


def _interleaved(first: Callable[[], object], second: Callable[[], object]) -> tuple[list[float], list[float]]:
    parts = 10
    left: list[float] = []
    right: list[float] = []
    for _ in range(parts):
        left += samples(first, calls=SQLITE_CALLS // parts)
        right += samples(second, calls=SQLITE_CALLS // parts)
    return sorted(left), sorted(right)


if __name__ == "__main__":
    raise SystemExit(main(measure))
