"""What an answer's header says is left: what the call's settlement has left, or the ledger is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rr_core import CENT, PRICES, START_MS, cent_call, done, model_step
from runrails import Guard, Limits
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails_gateway.figures import remaining_pusd

LIMITS = Limits(run="0.50", month="0.20", steps=None)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteStore]:
    """In a file."""
    store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS), synchronous="NORMAL")
    yield store
    store.close()


def run_of(store: SQLiteStore | MemoryStore, limits: Limits = LIMITS) -> Run:
    """A run of alice's, with a key that nobody has limited."""
    clock = ManualClock(START_MS)
    guard = Guard(limits, user="alice", key="k1", store=store, prices=PRICES, clock=clock, monotonic=clock)
    return guard.run(id="r1")


def statements(store: SQLiteStore, run: Run) -> tuple[int | None, int]:
    """What is left after one call more, and how many statements it took to say so."""
    permit = model_step(run)
    connection = store._file._connection
    assert connection is not None
    heard: list[str] = []
    connection.set_trace_callback(heard.append)
    left = remaining_pusd(run, permit, settled=True)
    connection.set_trace_callback(None)
    return left, len(heard)


def test_the_settlement_says_what_is_left(ledger: SQLiteStore) -> None:
    """The first answer asks, and later ones need not; they say the same as whoever asks."""
    with run_of(ledger) as run:
        assert (19 * CENT, 1) == statements(ledger, run)
        assert (18 * CENT, 0) == statements(ledger, run)
        permit = model_step(run)
        assert 17 * CENT == remaining_pusd(run, permit, settled=True) == remaining_pusd(run, permit)


def test_the_tightest_budget_counts_with_an_operators_limit(ledger: SQLiteStore) -> None:
    """An operator's limit wins over code's, lower or higher, and one of an account that code does not limit counts."""
    with run_of(ledger) as run:
        statements(ledger, run)
        for scope, cents, left in (
            ("user:alice", 10, 8), ("user:alice", 90, 47), ("run:r1", 30, 26), ("key:k1", 9, 4),
        ):  # fmt: skip
            ledger.set_limit(scope, cents * CENT)
            assert (left * CENT, 0) == statements(ledger, run)


def test_what_was_written_meanwhile_counts(ledger: SQLiteStore) -> None:
    """By another call of the same process, which holds more; the ledger is asked then."""
    with run_of(ledger) as run:
        statements(ledger, run)
        permit = model_step(run)
        other = run.before_model(cent_call())
        assert 17 * CENT == remaining_pusd(run, permit, settled=True)
        run.after_model(other, done())


def test_a_ledger_in_memory_is_asked() -> None:
    """It tells nothing by itself."""
    with run_of(MemoryStore(clock=ManualClock(START_MS))) as run:
        for cents in (19, 18):
            assert cents * CENT == remaining_pusd(run, model_step(run), settled=True)


def test_nothing_is_left_to_tell_of_where_nothing_is_limited(ledger: SQLiteStore) -> None:
    """Neither the first time nor later."""
    with run_of(ledger, Limits(run=None, month=None, steps=None)) as run:
        for _ in range(3):
            assert None is remaining_pusd(run, model_step(run), settled=True)
