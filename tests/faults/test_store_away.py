"""A ledger that somebody keeps locked: calls are refused, or go on and are written later, as the guard was told."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rr_core import CENT, Bench, cent_call, done, model_step
from rr_ledger import START_MS, amounts
from rr_outage import impatient, locked_by_another_process, play
from runrails import Limits, StoreUnavailable
from runrails.stores.records import differences
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock


@contextmanager
def locked(path: Path, store: SQLiteStore) -> Iterator[None]:
    """Another program holds the file, for which the store does not wait."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with impatient(store):
            yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "ledger.db"


def opened(path: Path) -> SQLiteStore:
    """A store; see `rr_outage.impatient`."""
    return SQLiteStore(path, clock=ManualClock(START_MS), synchronous="NORMAL", busy_timeout_ms=20_000)


def seen(path: Path) -> tuple[int, int]:
    """What the user has spent and what is held, as another process reads it, which waits for none of this one's."""
    other = opened(path)
    try:
        return amounts(other)
    finally:
        other.close()


def test_by_default_a_locked_ledger_refuses_and_names_the_fix(path: Path) -> None:
    """No call starts, nothing is written, the run goes on once the file is free."""
    store = opened(path)
    bench = Bench(Limits(run=None, month="1.00", steps=None), store=store)
    run = bench.guard.run()
    model_step(run)
    with locked(path, store):
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                run.before_model(cent_call())
            assert str(path) in caught.value.what
            assert "close the program that holds it" in caught.value.next_step
    model_step(run)
    bench.guard.flush()

    assert (2 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert (2, None) == (run.report().steps, run.stop_reason)
    assert [] == differences(store.sums())[1]
    bench.guard.close()
    store.close()


def test_a_call_in_flight_while_the_ledger_is_locked_is_written_afterwards(path: Path) -> None:
    """Its answer is the user's, and its cost reaches the books once, whatever the guard was told."""
    store = opened(path)
    bench = Bench(Limits(run=None, month="1.00", steps=None), store=store)
    run = bench.guard.run()
    permit = run.before_model(cent_call())
    with locked(path, store):
        run.after_model(permit, done())
        assert "settlement_postponed" in bench.names()
        assert CENT == seen(path)[1]
    bench.guard.flush()

    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    bench.guard.close()
    store.close()


def test_failing_open_is_said_and_every_call_is_written_afterwards(path: Path) -> None:
    """Calls of several threads go on, each is an event, and afterwards the books have each of them exactly once."""
    store = opened(path)
    bench = Bench(Limits(run=None, month="0.05", steps=None), store=store, on_store_error="allow")
    run = bench.guard.run()
    model_step(run)
    with locked(path, store):
        threads = [threading.Thread(target=lambda: [model_step(run) for _ in range(3)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert CENT == seen(path)[0]
    bench.guard.flush()

    assert 12 == bench.names().count("store_bypassed")
    assert (13 * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert 13 == len({record.id for record in store.usage()}) == len(list(store.usage()))
    assert [] == differences(store.sums())[1]
    # What went past the month while nobody could look is known now, and refuses the next call.
    assert "blocked" == next(iter(store.balances(scope="user:alice"))).status
    assert "budget_limit_reached" in bench.names()
    assert "settlement_lost" not in bench.names()
    bench.guard.close()
    store.close()


def test_a_guard_that_closes_while_the_ledger_is_away_says_what_waits(path: Path) -> None:
    """It tries once more, and then an event has the number of calls that are on disk for the next guard."""
    store = opened(path)
    bench = Bench(Limits(run=None, month="1.00", steps=None), store=store, on_store_error="allow")
    run = bench.guard.run()
    model_step(run)
    with locked(path, store):
        for _ in range(2):
            model_step(run)
        bench.guard.close()

    (kept,) = [event for event in bench.events if event.name == "runrails.settlement_kept"]
    assert ("warning", 2) == (kept.level, kept.fields["count"])
    assert CENT == bench.spent("user:alice")
    store.close()


def test_what_is_nowhere_on_disk_is_lost_and_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where such calls cannot be written down, an event has the number of those that are in no books."""
    path.with_name("file").touch()
    monkeypatch.setenv("RUNRAILS_JOURNAL", str(path.with_name("file") / "below"))
    store = opened(path)
    bench = Bench(Limits(run=None, month="1.00", steps=None), store=store, on_store_error="allow")
    run = bench.guard.run()
    model_step(run)
    with locked(path, store):
        for _ in range(2):
            model_step(run)
        bench.guard.close()

    (lost,) = [event for event in bench.events if event.name == "runrails.settlement_lost"]
    assert ("error", 2) == (lost.level, lost.fields["count"])
    assert CENT == bench.spent("user:alice")
    store.close()


def test_a_ledger_that_another_process_locks_refuses_every_call(path: Path) -> None:
    """Until it lets go: none is admitted, the error names the fix, and a call in flight is written afterwards."""
    store = opened(path)
    told = play(store, lambda: locked_by_another_process(path, store), 0.4)
    assert 2 <= int(str(told["refused"]))
    assert "close the program that holds it" in str(told["told"])
