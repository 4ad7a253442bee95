"""Long listings of a SQLite ledger: read some rows at a time, so that calls need not wait, and complete even so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rr_ledger import CENT, MONTH, START_MS
from runrails.ledger import Account, CallFacts, Hold, Reservation, RunRecord
from runrails.recent import SupportsRecent, usage_since
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

MANY = 45_000
"""More rows than are looked at at once, twice."""


@pytest.fixture
def clock() -> ManualClock:
    """Stands still."""
    return ManualClock(START_MS)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SQLiteStore]:
    """A ledger in a file."""
    opened = SQLiteStore(tmp_path / "ledger.db", clock=clock, synchronous="NORMAL")
    yield opened
    opened.close()


def add_runs(store: SQLiteStore, count: int) -> None:
    """So many runs of others, written at once."""
    rows = [(f"r{place:06d}", "", f"user{place % 3}", 0, place // 2, "enforce", None, "{}") for place in range(count)]
    store._file.write(lambda connection: connection.executemany("INSERT INTO run VALUES (?,?,?,?,?,?,?,?)", rows))


def test_the_accounts_of_a_month_are_found_among_those_of_runs(store: SQLiteStore) -> None:
    """Every run has one, for ever; a month's are the same as if all were read at once, in the same order."""
    rows = [(f"run:r{place}", "-", "pusd") for place in range(MANY)]
    insert = "INSERT INTO account (scope, period, unit) VALUES (?, ?, ?)"
    scopes = ("user:b", "org:z", "user:a", "user:B")
    for part, scope in zip((0, MANY // 3, MANY - 1), scopes, strict=False):
        store.reserve(Reservation(f"c{part}", (Hold(Account(scope, MONTH), CENT), Hold(Account(scope, "-"), CENT))))
        store._file.write(lambda connection, part=part: connection.executemany(insert, rows[part : part + MANY // 3]))
    store.reserve(Reservation("last", (Hold(Account(scopes[-1], MONTH), CENT),)))
    expected = [each for each in store.balances() if each.account.period == MONTH]
    assert expected == list(store.balances(period=MONTH))
    assert sorted(scopes) == [each.account.scope for each in expected]
    assert [] == list(store.balances(period="2026-10"))


def test_runs_come_newest_first_however_many_there_are(store: SQLiteStore) -> None:
    """All of them, those of one user among many others, and no more than are asked for; none twice."""
    add_runs(store, MANY)
    names = [each.id for each in store.runs(count_max=10_000)]
    expected = sorted(range(MANY), key=lambda place: (place // 2, place), reverse=True)
    assert [f"r{place:06d}" for place in expected[:10_000]] == names
    for place, user in ((7, "rare"), (MANY - 1, "rare"), (25_000, "rare")):
        record = RunRecord(
            id=f"x{place}", name="", user=user, started_ms=0, ended_ms=place // 2, mode="enforce", stop_reason=None,
            report={},
        )  # fmt: skip
        store.save_run(record)
    assert [f"x{MANY - 1}", "x25000", "x7"] == [each.id for each in store.runs(user="rare", count_max=100)]
    assert [f"x{MANY - 1}"] == [each.id for each in store.runs(user="rare", count_max=1)]
    assert 120 == len({each.id for each in store.runs(user="user1", count_max=120)})
    assert [] == list(store.runs(user="nobody", count_max=10))


def test_a_run_is_found_by_its_id_alone(store: SQLiteStore) -> None:
    """And by no part of it."""
    add_runs(store, 3)
    found = store.run("r000001")
    assert found is not None and (found.id, found.user) == ("r000001", "user1")
    assert (None, None, None) == (store.run("r00000"), store.run(""), store.run("r000001\0"))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_newest_calls_are_found_by_time(kind: str, store: SQLiteStore, clock: ManualClock) -> None:
    """Over the end of a month too, and the same from an engine that finds by time and from one that does not."""
    ledger = store if kind == "sqlite" else MemoryStore(clock=clock)
    assert isinstance(ledger, SupportsRecent) == (kind == "sqlite")
    for place in range(40):
        facts = CallFacts(user=f"user{place % 2}", run="r1", step=place)
        ledger.reserve(Reservation(f"c{place}", (Hold(Account("user:x", MONTH), CENT),), facts=facts))
        clock.advance(86_400_000)
    for first in (0, 12, 13, 39):
        first_ms = START_MS + first * 86_400_000
        found = [each.id for each in usage_since(ledger, first_ms, clock())]
        assert [f"c{place}" for place in range(first, 40)] == found
    assert [] == list(usage_since(ledger, clock(), clock()))
