"""The edges of the journal of bypassed calls: whose lines are written, whose files are read, which amount stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rr_ledger import MONTH, START_MS, booking
from runrails.bypass import SUFFIX, Bypass, left_in
from runrails.ledger import RUN_PERIOD, Account, ResultFacts
from runrails.settlement import Settlement
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

ALICE = Account("user:alice", MONTH)
RUN = Account("run:r1", RUN_PERIOD)
RESULT = ResultFacts(end="completed", usage=None, model=None, duration_ms=1)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files are."""
    monkeypatch.setenv("RUNRAILS_JOURNAL", str(tmp_path / "journal"))
    return tmp_path / "journal"


@pytest.fixture
def opened(tmp_path: Path, journal: Path) -> Callable[[], tuple[SQLiteStore, Bypass]]:
    """Opens one guard's half of it, as another process would."""

    def both() -> tuple[SQLiteStore, Bypass]:
        store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS), synchronous="NORMAL")
        return store, Bypass(store, lambda *_, **__: None)

    return both


def settled(pusd: int) -> Settlement:
    """What a call has cost."""
    return Settlement(pusd, False, None)


def test_only_months_are_told_of(opened: Callable[[], tuple[SQLiteStore, Bypass]]) -> None:
    """A run of a dead process has nobody whom its budget would be a warning for."""
    store, dead = opened()
    dead.begun(booking("a" * 32, 5, ALICE, RUN))
    assert 1 == dead.close()
    other, alive = opened()
    assert [ALICE] == alive.catch_up()
    assert 5 == other.balance(ALICE).spent
    other.close()
    store.close()


def test_the_owners_amount_stands(opened: Callable[[], tuple[SQLiteStore, Bypass]]) -> None:
    """A call that its owner has settled before it died is not settled again, and the others of the file are."""
    store, dead = opened()
    first, second = (booking(each * 32, 5, ALICE) for each in "ab")
    for each in (first, second):
        dead.begun(each)
        dead.ended(each.id, settled(4), RESULT)
    store.reserve(first)
    store.settle(first.id, 3, result=RESULT, unresolved=False)
    dead.close()
    other, alive = opened()
    alive.catch_up()
    assert 3 + 4 == other.balance(ALICE).spent
    other.close()
    store.close()


def test_what_is_not_in_the_file_is_not_written_to_it(
    opened: Callable[[], tuple[SQLiteStore, Bypass]], journal: Path
) -> None:  # fmt: skip
    """The ledger has most calls without it; neither their end nor their being written is a line."""
    store, mine = opened()
    mine.written("c" * 32)
    assert not journal.exists()
    mine.begun(booking("a" * 32, 5, ALICE))
    (file,) = journal.iterdir()
    before = file.read_bytes()
    mine.written("c" * 32)
    mine.ended("c" * 32, settled(4), RESULT)
    assert before == file.read_bytes()
    mine.written("a" * 32)
    assert [] == list(journal.iterdir())
    store.close()


def test_other_files_are_not_read(opened: Callable[[], tuple[SQLiteStore, Bypass]], journal: Path) -> None:
    """Neither those of other names nor directories of ours."""
    store, dead = opened()
    dead.begun(booking("a" * 32, 5, ALICE))
    dead.close()
    (file,) = journal.iterdir()
    file.with_name(f"{file.name}.damaged").write_bytes(file.read_bytes())
    file.with_name(f"{file.name.partition('-')[0]}-directory{SUFFIX}").mkdir()
    assert [str(file)] == [left.path for left in left_in(str(journal))]
    assert [str(file)] == Bypass(store, lambda *_, **__: None).behind
    store.close()


@pytest.mark.parametrize(("amount", "spent"), [(0, 0), (-1, 5), ("4", 5), (True, 5), (4.0, 5)])
def test_an_amount_is_a_whole_number(
    amount: object, spent: int, opened: Callable[[], tuple[SQLiteStore, Bypass]], journal: Path
) -> None:  # fmt: skip
    """Nothing is one; what is none leaves the call at the most that it may have cost."""
    store, dead = opened()
    dead.begun(booking("a" * 32, 5, ALICE))
    dead.ended("a" * 32, settled(4), RESULT)
    dead.close()
    (file,) = journal.iterdir()
    lines = file.read_text().split("\n")
    ended = next(place for place, line in enumerate(lines) if '"actual"' in line)
    lines[ended] = json.dumps({**json.loads(lines[ended]), "actual": amount})
    file.write_text("\n".join(lines))
    other, alive = opened()
    alive.catch_up()
    assert spent == other.balance(ALICE).spent
    other.close()
    store.close()
