"""Corrections under stress: files of version 2, many importers at once, and one that dies in the middle."""

from __future__ import annotations

import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rr_ledger import CENT, FOUR, KINDS, START_MS, amounts, booking, books, facts, open_kind
from runrails.errors import RunrailsError, StoreUnavailable
from runrails.figures import Figures, figures_of
from runrails.ledger import ResultFacts, Settled, SupportsCorrections
from runrails.stores._schema import SCHEMA_VERSION
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore, ManualClock
from runrails.testing.stores import Fault
from runrails.usage import Usage


def opened(path: Path) -> SQLiteStore:
    return SQLiteStore(path, clock=ManualClock(START_MS), synchronous="NORMAL")


def make_version_2(path: Path) -> None:
    """A file as version 2 wrote it: no table of corrections, and results of four or five parts."""
    store = opened(path)
    for name, card in (("plain", ""), ("carded", "card-2")):
        store.reserve(booking(name, 2 * CENT, *FOUR, facts=facts()))
        result = ResultFacts(usage=Usage(input_tokens=10), model="gpt-4o-2024", price_card=card)
        store.settle(name, CENT, result=result)
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE correction")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    for (text,) in connection.execute("SELECT result FROM reservation"):
        assert "answer_id" not in text
    connection.close()


def tables(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: " ".join(sql.split()) for name, sql in rows}


def test_a_file_of_version_2_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its records read as before, the figures of old ones are the provider's price, and they can be corrected."""
    path = tmp_path / "old.db"
    make_version_2(path)
    store = opened(path)
    records = list(store.usage())
    assert [("", None, None), ("card-2", None, None)] == [
        (each.result.price_card, each.result.answer_id, each.result.discount) for each in records if each.result
    ]
    # These facts say that it was a key of the user's own.
    assert [Figures(CENT, 0, 0, 0)] * 2 == [figures_of(each) for each in records]
    assert [] == list(store.corrections())
    assert 7 == store.correct("plain", 7, source="bill").actual
    store.close()
    opened(tmp_path / "fresh.db").close()
    assert tables(tmp_path / "fresh.db") == tables(path)
    connection = sqlite3.connect(path)
    assert (SCHEMA_VERSION,) == connection.execute("PRAGMA user_version").fetchone()
    connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_many_importers_at_once(tmp_path: Path, kind: str) -> None:
    """Whatever the order, accounts hold the sum of what stands, and each audit line goes on where the last one left."""
    store = open_kind(kind, tmp_path, ManualClock(START_MS))
    assert isinstance(store, SupportsCorrections)
    names = [f"c{n}" for n in range(12)]
    for name in names:
        store.reserve(booking(name, CENT, *FOUR, facts=facts()))
        store.settle(name, 5)
    draw = random.Random(7)
    work = [(name, draw.randrange(1_000)) for name in names for _ in range(8 if kind == "sqlite-full" else 30)]
    draw.shuffle(work)

    def correct(one: tuple[str, int]) -> None:
        assert isinstance(store, SupportsCorrections)
        store.correct(one[0], one[1], source="bill")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(correct, work))
    standing = {record.id: record.actual_pusd or 0 for record in store.usage()}
    assert [(sum(standing.values()), 0)] * 4 == [amounts(store, account) for account in FOUR]
    last = dict.fromkeys(names, 5)
    for line in store.corrections():
        assert last[line.reservation_id] == line.before_pusd != line.after_pusd
        last[line.reservation_id] = line.after_pusd
    assert standing == last
    store.close()


def test_a_correction_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """If its audit line cannot be written, no account is changed; done again it is done once."""
    path = tmp_path / "ledger.db"
    store = opened(path)
    store.reserve(booking("a", CENT, *FOUR, facts=facts()))
    store.settle("a", 5)
    before = books(store), list(store.corrections())

    other = sqlite3.connect(path)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON correction BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(RunrailsError):
        store.correct("a", 9, source="bill")
    other.execute("DROP TRIGGER full")
    other.close()
    assert before == (books(store), list(store.corrections()))
    store.correct("a", 9, source="bill")
    assert [(9, 0)] * 4 == [amounts(store, account) for account in FOUR]
    assert 1 == len(list(store.corrections()))
    store.close()


def test_the_file_keeps_corrections(tmp_path: Path) -> None:
    """Opened again, a ledger knows what was billed, by whom it was said, and that it stands."""
    store = opened(tmp_path / "ledger.db")
    store.reserve(booking("a", CENT, *FOUR, facts=facts()))
    store.settle("a", 5)
    store.correct("a", 7, source="bill")
    before = books(store), list(store.corrections())
    store.close()
    store = opened(tmp_path / "ledger.db")
    assert before == (books(store), list(store.corrections()))
    assert Settled("a", "settled", 7, CENT, replayed=True) == store.settle("a", 5)
    store.close()


def test_the_trail_cannot_be_told_another_type(tmp_path: Path) -> None:
    """The file itself refuses an amount that is no integer."""
    path = tmp_path / "ledger.db"
    opened(path).close()
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO correction VALUES (1, 'a', 0, 'bill', 'settled', 1.5, 2)")
    connection.close()


@pytest.mark.parametrize("fault", ["request_lost", "response_lost"])
def test_a_correction_whose_answer_never_came_is_repeated(fault: Fault) -> None:
    """It is in the books once, with one line, whatever became of the first attempt."""
    inner = MemoryStore(clock=ManualClock(START_MS))
    store = FlakyStore(inner, [fault], verbs={"correct"})
    assert isinstance(store, SupportsCorrections)
    store.reserve(booking("r1", 2 * CENT, *FOUR))
    store.settle("r1", CENT)
    with pytest.raises(StoreUnavailable):
        store.correct("r1", 3 * CENT, source="bill")

    assert Settled("r1", "settled", 3 * CENT, 2 * CENT, fault == "response_lost") == store.correct(
        "r1", 3 * CENT, source="bill"
    )
    assert [(CENT, 3 * CENT)] == [(line.before_pusd, line.after_pusd) for line in store.corrections()]
    assert [("correct", fault), ("correct", "ok")] == [each for each in store.log if each[0] == "correct"]
