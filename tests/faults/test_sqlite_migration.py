"""A ledger that an older version wrote: it opens, is brought up to date, and goes on as it was."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, START_MS, USER, booking, books, facts
from runrails.errors import ConfigError, StoreUnavailable
from runrails.ledger import CallFacts, ResultFacts
from runrails.stores._schema import APPLICATION_ID, SCHEMA_VERSION
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.usage import Usage

# A file of version 1 as it was written: a settled call, one in flight, an operator's limit, a zone, a warning, a run.
VERSION_1 = r"""
CREATE TABLE account (
        id INTEGER PRIMARY KEY,
        scope TEXT NOT NULL,
        period TEXT NOT NULL,
        unit TEXT NOT NULL,
        code_limit INTEGER CHECK (code_limit IS NULL OR (typeof(code_limit) = 'integer' AND code_limit >= 0)),
        operator_limit INTEGER
            CHECK (operator_limit IS NULL OR (typeof(operator_limit) = 'integer' AND operator_limit >= 0)),
        spent INTEGER NOT NULL DEFAULT 0 CHECK (typeof(spent) = 'integer' AND spent >= 0),
        held INTEGER NOT NULL DEFAULT 0 CHECK (typeof(held) = 'integer' AND held >= 0),
        UNIQUE (scope, period, unit)
    );
INSERT INTO "account" VALUES(1,'run:r1','-','pusd',1000000000000,NULL,5000000000,10000000000);
INSERT INTO "account" VALUES(2,'user:alice','2026-11','pusd',1000000000000,10000000000000,5000000000,10000000000);
INSERT INTO "account" VALUES(3,'key:k1','2026-11','pusd',1000000000000,NULL,5000000000,10000000000);
INSERT INTO "account" VALUES(4,'org:acme','2026-11','pusd',1000000000000,NULL,5000000000,10000000000);
CREATE TABLE operator_limit (
        scope TEXT NOT NULL,
        unit TEXT NOT NULL,
        amount INTEGER NOT NULL CHECK (typeof(amount) = 'integer' AND amount >= 0),
        PRIMARY KEY (scope, unit)
    ) WITHOUT ROWID;
INSERT INTO "operator_limit" VALUES('user:alice','pusd',10000000000000);
CREATE TABLE reservation (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'released', 'unresolved', 'late')),
        at_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        resolved_ms INTEGER,
        on_expiry TEXT NOT NULL,
        holds TEXT NOT NULL,
        charges TEXT,
        estimated_pusd INTEGER NOT NULL CHECK (typeof(estimated_pusd) = 'integer'),
        actual_pusd INTEGER CHECK (actual_pusd IS NULL OR typeof(actual_pusd) = 'integer'),
        stand_in INTEGER NOT NULL DEFAULT 0,
        would_refuse TEXT,
        user TEXT,
        run TEXT,
        facts TEXT,
        result TEXT
    );
INSERT INTO "reservation" VALUES(1882193920000000000,'done','settled',1795000000000,1795000120000,1795000000000,
    'charge','[[1,10000000000],[2,10000000000],[3,10000000000],[4,10000000000]]',NULL,10000000000,5000000000,0,NULL,
    'alice','r1',
    '{"step":1,"key":"k1","org":"acme","provider":"openai","model":"gpt-4o-mini","request_type":"agent","endpoint":"/v1/chat/completions","user_agent":"lab/1.0 \udc80 \u00fcn\u00efcode","agent":"root/sub","byok":true,"price_card":"card-1"}',
    '["completed","gpt-4o-mini-2024",900,{"input_tokens":1200,"output_tokens":7}]');
INSERT INTO "reservation" VALUES(1882193920000000001,'open','held',1795000000000,1795000120000,NULL,'charge',
    '[[1,10000000000],[2,10000000000],[3,10000000000],[4,10000000000]]',NULL,10000000000,NULL,0,NULL,'bob','r2',
    '{"step":1,"key":"k1","org":"acme","provider":"openai","model":"gpt-4o-mini","request_type":"agent","endpoint":"/v1/chat/completions","user_agent":"lab/1.0 \udc80 \u00fcn\u00efcode","agent":"root/sub","byok":true,"price_card":"card-1"}',
    NULL);
CREATE TABLE run (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        user TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        mode TEXT NOT NULL,
        stop_reason TEXT,
        report TEXT NOT NULL
    ) WITHOUT ROWID;
INSERT INTO "run" VALUES('r1','nightly','alice',1795000000000,1795000000005,'enforce',NULL,'{"steps":1,"user":"alice"}');
CREATE TABLE warning (
        scope TEXT NOT NULL,
        period TEXT NOT NULL,
        unit TEXT NOT NULL,
        mark TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (scope, period, unit, mark)
    ) WITHOUT ROWID;
INSERT INTO "warning" VALUES('user:alice','2026-11','pusd','warning',1795000000000);
CREATE TABLE zone (scope TEXT PRIMARY KEY, zone TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "zone" VALUES('user:alice','Europe/Berlin');
CREATE INDEX reservation_open ON reservation (expires_ms, id) WHERE state = 'held';
CREATE INDEX reservation_run ON reservation (run) WHERE run IS NOT NULL;
CREATE INDEX run_ended ON run (ended_ms, id);
"""  # noqa: E501 -- as it was written
OLD_FACTS = replace(facts(), tags=())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    found = tmp_path / "ledger.db"
    connection = sqlite3.connect(found)
    connection.executescript(VERSION_1)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return found


def opened(path: Path) -> SQLiteStore:
    return SQLiteStore(path, clock=ManualClock(START_MS), synchronous="NORMAL")


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: tuple[int] = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return found[0]


def test_everything_in_it_is_still_there(path: Path) -> None:
    """Balances, limits, records, zones, warnings and runs of version 1 read as they were written."""
    store = opened(path)
    done, in_flight = store.usage()
    assert ("done", "settled", CENT // 2, OLD_FACTS) == (done.id, done.state, done.actual_pusd, done.facts)
    usage = Usage(input_tokens=1_200, output_tokens=7)
    assert ResultFacts(usage=usage, model="gpt-4o-mini-2024", duration_ms=900) == done.result
    assert ("open", "held", replace(OLD_FACTS, user="bob", run="r2")) == (
        in_flight.id, in_flight.state, in_flight.facts
    )  # fmt: skip
    balance = store.balance(USER)
    assert (10 * DOLLAR, "operator", CENT // 2, CENT) == (
        balance.limit, balance.limit_source, balance.spent, balance.held
    )  # fmt: skip
    assert "Europe/Berlin" == store.fix_zone("user:alice", "UTC")
    assert not store.claim_warning(USER, "warning")
    assert ["nightly"] == [run.name for run in store.runs()]
    store.close()
    assert SCHEMA_VERSION == version(path)


def test_it_has_the_tables_of_a_fresh_one(path: Path, tmp_path: Path) -> None:
    """Brought up to date, it differs from a fresh ledger in nothing but its content."""
    opened(path).close()
    opened(tmp_path / "fresh.db").close()
    found: list[dict[str, str]] = []
    for each in (path, tmp_path / "fresh.db"):
        connection = sqlite3.connect(each)
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        found.append({name: " ".join(sql.split()) for name, sql in rows})
        connection.close()
    assert found[1] == found[0]


def test_it_goes_on_where_it_was(path: Path) -> None:
    """A hold of version 1 is repeated, settled and joined by calls with tags; opened again all of it is there."""
    store = opened(path)
    before = books(store)
    again = booking("open", CENT, *FOUR, facts=replace(OLD_FACTS, user="bob", run="r2"))
    assert store.reserve(again).replayed  # type: ignore[union-attr]
    assert before == books(store)
    store.settle("open", 1)
    store.reserve(booking("new", CENT, *FOUR, facts=facts()))
    store.close()
    store = opened(path)
    assert [(), (), facts().tags] == [record.facts.tags for record in store.usage()]
    assert (CENT // 2 + 1, CENT) == (store.balance(USER).spent, store.balance(USER).held)
    store.close()


def test_many_open_it_at_once(path: Path) -> None:
    """Whoever comes first brings it up to date; nobody fails, and nothing is done twice."""
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(opened, [path] * 8))
    assert {tuple(record.id for record in store.usage()) for store in stores} == {("done", "open")}
    for store in stores:
        store.close()
    assert SCHEMA_VERSION == version(path)


def test_a_process_that_has_it_open_goes_on(path: Path) -> None:
    """Bringing it up to date takes nothing from whoever has the file open."""
    older = sqlite3.connect(path, isolation_level=None)
    assert older.execute("SELECT count(*) FROM reservation").fetchone() == (2,)
    opened(path).close()
    older.execute("UPDATE account SET spent = spent + 1 WHERE scope = 'user:alice'")
    older.close()
    store = opened(path)
    assert CENT // 2 + 1 == store.balance(USER).spent
    store.close()


def test_it_is_brought_up_to_date_or_left_alone(path: Path) -> None:
    """While somebody writes, it cannot be opened, and stays of its version; afterwards it can."""
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises((ConfigError, StoreUnavailable)):
        SQLiteStore(path, clock=ManualClock(START_MS), busy_timeout_ms=50).balance(USER)
    writer.execute("ROLLBACK")
    writer.close()
    assert 1 == version(path)
    opened(path).close()
    assert SCHEMA_VERSION == version(path)


def test_facts_of_a_later_version_are_read_as_far_as_they_are_known(path: Path) -> None:
    """A fact that this version does not know is left out; the rest of the record is there."""
    connection = sqlite3.connect(path)
    connection.execute(
        """UPDATE reservation SET facts = '{"step":3,"mood":"fine","tags":{"team":"ads"}}' WHERE id = 'done'"""
    )
    connection.commit()
    connection.close()
    store = opened(path)
    assert CallFacts(user="alice", run="r1", step=3, tags=(("team", "ads"),)) == next(store.usage()).facts
    store.close()
