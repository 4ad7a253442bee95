"""A file of documents: private, of its own kind, shared by processes and forks, without what was removed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rr_documents import ALICE
from runrails.documents import Document
from runrails.documents.opening import documents_url, open_documents
from runrails.documents.sqlite import SCHEMA, SQLiteDocuments
from runrails.errors import ConfigError, StoreUnavailable
from runrails.stores.sqlite import SQLiteStore

WORKER = """
import sys
from runrails.documents import Address
from runrails.documents.sqlite import SQLiteDocuments
documents = SQLiteDocuments(sys.argv[1], synchronous="NORMAL", busy_timeout_ms=60_000)
address, won = Address("k", "o", "n"), 0
print("ready", flush=True)
sys.stdin.readline()
while True:
    there = documents.get(address)
    count = 0 if there is None else int(there.data)
    if count >= 400:
        break
    won += documents.put(address, str(count + 1).encode(), expected=count) is not None
print(won)
"""


def fresh(path: Path, **options: int) -> SQLiteDocuments:
    """An engine that waits only briefly."""
    return SQLiteDocuments(path, synchronous="NORMAL", **{"busy_timeout_ms": 300, **options})


def test_the_file_and_its_companions_are_private(tmp_path: Path) -> None:
    """Whatever the umask, its owner alone may read."""
    before = os.umask(0)
    try:
        documents = fresh(tmp_path / "vault.db")
        documents.put(ALICE, b"a", expected=0)
    finally:
        os.umask(before)
    assert {"vault.db": 0o600, "vault.db-wal": 0o600, "vault.db-shm": 0o600} == {
        file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()
    }
    documents.close()


def test_a_ledger_is_no_vault_and_a_vault_no_ledger(tmp_path: Path) -> None:
    """Each leaves the other's file as it is, and says which setting to change."""
    SQLiteStore(tmp_path / "ledger.db").close()
    fresh(tmp_path / "vault.db").close()
    contents = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="RUNRAILS_VAULT"):
        fresh(tmp_path / "ledger.db")
    with pytest.raises(ConfigError, match="RUNRAILS_STORE"):
        SQLiteStore(tmp_path / "vault.db")

    assert contents == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda path: path.write_bytes(b"not a database, but long enough" * 50), "not a vault"),
        (lambda path: path.mkdir(), "vault.db"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE theirs (x)").connection.close(), "another program"),
    ],
    ids=["noise", "directory", "theirs"],
)
def test_what_is_no_vault_is_refused(tmp_path: Path, break_it: Callable[[Path], object], told: str) -> None:
    """The error names the file and the setting."""
    path = tmp_path / "broken"
    break_it(path)
    with pytest.raises(ConfigError) as caught:
        fresh(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "RUNRAILS_VAULT" in str(caught.value)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file that a newer runrails has written is not touched."""
    path = tmp_path / "vault.db"
    fresh(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA.version + 1}")
    connection.close()
    with pytest.raises(ConfigError, match="schema version 2; this runrails knows version 1"):
        fresh(path)


def test_a_locked_file_is_an_error_of_ours(tmp_path: Path) -> None:
    """A lock that stays ends the verb after its time; nothing was written."""
    documents = fresh(tmp_path / "vault.db")
    other = sqlite3.connect(tmp_path / "vault.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="vault file"):
        documents.put(ALICE, b"a", expected=0)
    assert documents.get(ALICE) is None
    other.close()
    assert documents.put(ALICE, b"a", expected=0) is not None
    documents.close()


def test_what_was_removed_is_not_in_the_file(tmp_path: Path) -> None:
    """Neither free pages nor the log keep what was replaced or removed."""
    documents = fresh(tmp_path / "vault.db")
    marks = [f"CANARY-{number}-".encode() * 50 for number in range(3)]
    documents.put(ALICE, marks[0], expected=0)
    documents.put(ALICE, marks[1], expected=1)
    documents.put(ALICE._replace(name="other"), marks[2], expected=0)
    documents.delete(ALICE._replace(name="other"), expected=1)
    documents.close()
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())

    assert [False, True, False] == [mark in content for mark in marks]


def test_processes_lose_no_write(tmp_path: Path) -> None:
    """Three processes count one document up to 400: every version was written once, by one of them."""
    path = tmp_path / "vault.db"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout and "ready\n" == worker.stdout.readline()
    won = [int(worker.communicate("go\n", timeout=100)[0]) for worker in workers]
    documents = fresh(path)
    there = documents.get(ALICE._replace(kind="k", owner="o", name="n"))
    documents.close()

    assert 400 == sum(won)
    assert there is not None
    assert (b"400", 400) == (there.data, there.version)


def test_a_fork_may_go_on(tmp_path: Path) -> None:
    """Parent and child write through the engine that was open before the fork."""
    documents = fresh(tmp_path / "vault.db", busy_timeout_ms=5_000)
    documents.put(ALICE, b"before", expected=0)
    child = os.fork()
    if child == 0:
        os._exit(0 if documents.put(ALICE, b"child", expected=1) else 1)
    assert (child, 0) == os.waitpid(child, 0)
    assert Document(ALICE, b"child", 2, None) == documents.get(ALICE)
    assert documents.put(ALICE, b"parent", expected=2) is not None
    documents.close()


def test_the_vault_is_beside_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless RUNRAILS_VAULT says otherwise, or an argument."""
    monkeypatch.delenv("RUNRAILS_VAULT", raising=False)
    for store, vault in (
        (f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/a.vault.db"),
        (f"sqlite:///{tmp_path}/a.db?synchronous=normal&lease=user", f"sqlite:///{tmp_path}/a.vault.db"),
        (f"sqlite:///{tmp_path}/books", f"sqlite:///{tmp_path}/books.vault.db"),
        ("memory:", "memory:"),
        ("dynamodb://t?region=eu-west-1&lease=user", "dynamodb://t?region=eu-west-1"),
    ):
        monkeypatch.setenv("RUNRAILS_STORE", store)
        assert vault == documents_url()
    monkeypatch.delenv("RUNRAILS_STORE")
    assert documents_url().endswith("/runrails/ledger.vault.db")
    monkeypatch.setenv("RUNRAILS_VAULT", f"sqlite:///{tmp_path}/v.db")
    assert f"sqlite:///{tmp_path}/v.db" == documents_url()
    assert "memory:" == documents_url("memory:")
    open_documents().close()
    assert [tmp_path / "v.db"] == list(tmp_path.glob("v.db"))


@pytest.mark.parametrize(
    "url", ["sqlite:x.db", "sqlite:///", "memory", "memory:x", "redis://h", "x", "sqlite:///a?b=c"]
)
def test_a_malformed_url_is_refused(url: str) -> None:
    """The error says how to write one."""
    with pytest.raises(ConfigError) as caught:
        open_documents(url)
    assert caught.value.next_step
