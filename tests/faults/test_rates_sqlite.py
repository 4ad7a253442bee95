"""Rate limits in a SQLite file: one decision for all processes, hardly more than a write an attempt, bounded rows."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rr_ledger import CENT, START_MS, amounts, booking
from rr_rates import ask, granted, request
from runrails.errors import ConfigError, StoreUnavailable
from runrails.rates import Granted
from runrails.stores.rates_sqlite import SQLiteRates
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

WORKER = """
import sys, threading
from runrails.rates import Ask, Cost, Granted, Rates
from runrails.stores.rates_sqlite import SQLiteRates
engine = SQLiteRates(sys.argv[1], clock=lambda: 1_795_000_000_000, busy_timeout_ms=60_000)
ask = Ask("user:alice", Rates(requests_per_minute=100, tokens_per_minute=1_000))
found = []
def hammer():
    for _ in range(30):
        found.append(isinstance(engine.take([ask], Cost(1, 7)), Granted))
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=hammer) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(found))
"""


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM rate").fetchone()
    connection.close()
    return int(count)


def test_processes_share_one_bucket(tmp_path: Path) -> None:
    """Four processes with four threads each, at one moment: a hundred requests in all, not one more or less."""
    path = tmp_path / "ledger.db"
    SQLiteRates(path).close()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout and "ready\n" == worker.stdout.readline()
    counts = [int(worker.communicate("go\n", timeout=100)[0]) for worker in workers]

    assert 100 == sum(counts)


def test_an_attempt_costs_hardly_more_than_one_write(tmp_path: Path) -> None:
    """Over many users, granted or not, with tokens given back counted apart: 1.05 statements that write at most."""
    clock = ManualClock(START_MS)
    engine = SQLiteRates(tmp_path / "rates.db", clock=clock)
    request(engine, ask(requests=1))
    statements: list[str] = []
    connection = engine._file._connection
    assert connection is not None
    connection.set_trace_callback(statements.append)
    attempts = 1_000
    for number in range(attempts):
        clock.advance(50)
        request(engine, ask(f"user:u{number % 400}", requests=2, tokens=100), tokens=10)
    connection.set_trace_callback(None)
    writes = sum(text.startswith(("INSERT", "UPDATE", "DELETE")) for text in statements)

    assert 0.8 * attempts <= writes <= 1.05 * attempts
    engine.close()


def test_rows_of_full_buckets_are_dropped(tmp_path: Path) -> None:
    """Ten thousand users who come once leave a few rows behind, and what is in use is kept."""
    path, clock = tmp_path / "rates.db", ManualClock(START_MS)
    engine = SQLiteRates(path, clock=clock)
    heavy = ask("user:heavy", requests=1, requests_burst=60)
    granted(request(engine, heavy, requests=60))
    for number in range(2_000):
        clock.advance(100)
        granted(request(engine, ask(f"user:u{number}", requests=60)))

    assert rows(path) < 150
    assert 3 == sum(isinstance(request(engine, heavy), Granted) for _ in range(60))
    engine.close()


def test_it_may_live_in_the_ledgers_file(tmp_path: Path) -> None:
    """Both work on one file at once, and closing one leaves the other open."""
    path = tmp_path / "ledger.db"
    clock = ManualClock(START_MS)
    with_ledger = SQLiteStore(path, clock=clock)
    engine = with_ledger.rates()
    granted(request(engine, ask(requests=5)))
    with_ledger.reserve(booking("a", CENT))
    engine.close()
    engine.close()
    with_ledger.settle("a", CENT)

    assert (CENT, 0) == amounts(with_ledger)
    with pytest.raises(StoreUnavailable):
        request(engine, ask(requests=5))
    with_ledger.close()


def test_a_locked_file_refuses_with_nothing_taken(tmp_path: Path) -> None:
    """Somebody holds the file: the limiter says so, and has taken nothing when the file is free again."""
    path = tmp_path / "rates.db"
    engine = SQLiteRates(path, clock=ManualClock(START_MS), busy_timeout_ms=50)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        request(engine, ask(requests=1))
    holder.execute("ROLLBACK")
    holder.close()

    granted(request(engine, ask(requests=1)))
    engine.close()


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    """As the ledger itself would."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE rate (mine TEXT)")
    connection.close()
    with pytest.raises(ConfigError):
        SQLiteRates(path)


@pytest.mark.parametrize("path", ["", ":memory:", "file:x.db"])
def test_what_is_no_file_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a ledger, and nothing is made that happens to have that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="needs a file"):
        SQLiteRates(path)
    with pytest.raises(ConfigError, match="FULL or NORMAL"):
        SQLiteRates("x.db", synchronous="OFF")  # type: ignore[arg-type]
    assert [] == list(tmp_path.iterdir())
