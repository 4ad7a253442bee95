"""Files that cannot be a ledger, disks that are full, locks that stay: a clear error, and nothing half-written."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, START_MS, USER, amounts, booking, books, facts
from runrails.errors import ConfigError, RunrailsError, StoreUnavailable
from runrails.ledger import Reserved
from runrails.stores import open_store
from runrails.stores._schema import APPLICATION_ID, SCHEMA_VERSION
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock


def fresh(path: Path, **options: int) -> SQLiteStore:
    """A store with a stopped clock that waits only briefly."""
    return SQLiteStore(path, clock=ManualClock(START_MS), synchronous="NORMAL", **{"busy_timeout_ms": 300, **options})


def refused(path: Path, kind: type[RunrailsError]) -> RunrailsError:
    """The error of opening `path`, which says what to do and is none of the driver's."""
    with pytest.raises(kind) as caught:
        fresh(path)
    assert caught.value.next_step
    assert str(path) in str(caught.value) or str(path.parent) in str(caught.value)
    return caught.value


def test_file_and_its_companions_are_private(tmp_path: Path) -> None:
    """A new ledger is readable by its owner only, whatever the umask; so are the files SQLite keeps beside it."""
    before = os.umask(0)
    try:
        store = fresh(tmp_path / "ledger.db")
        store.reserve(booking("a"))
    finally:
        os.umask(before)
    assert {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600} == {
        file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()
    }
    store.close()


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """The error says which directory to make; none is made."""
    error = refused(tmp_path / "no" / "such" / "ledger.db", ConfigError)
    assert f"mkdir -p {tmp_path / 'no' / 'such'}" in error.next_step
    assert [] == list(tmp_path.iterdir())


def test_directory_as_file_is_refused(tmp_path: Path) -> None:
    """A path that is a directory is no ledger."""
    refused(tmp_path, ConfigError)


def test_file_as_parent_is_refused(tmp_path: Path) -> None:
    """A path below a plain file cannot be made."""
    (tmp_path / "plain").write_text("x")
    refused(tmp_path / "plain" / "ledger.db", ConfigError)


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 50, random.Random(7).randbytes(8_192), b"SQLite"]
)
def test_other_files_are_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    """A file that is no database is left as it is; the error says to move it aside or restore it."""
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    assert "move it aside" in refused(path, ConfigError).next_step
    assert content == path.read_bytes()


def test_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    """A file of no bytes, as `mktemp` makes, is a fresh ledger."""
    path = tmp_path / "ledger.db"
    path.touch()
    store = fresh(path)
    assert Reserved("a") == store.reserve(booking("a"))
    store.close()


def test_another_programs_database_is_refused_and_kept(tmp_path: Path) -> None:
    """Our tables are never added to somebody else's database."""
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    content = path.read_bytes()
    assert "another program" in refused(path, ConfigError).what
    assert content == path.read_bytes()


def test_newer_schema_is_refused_and_kept(tmp_path: Path) -> None:
    """A ledger written by a newer runrails is not touched."""
    path = tmp_path / "ledger.db"
    fresh(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert APPLICATION_ID == connection.execute("PRAGMA application_id").fetchone()[0]
    connection.close()
    error = refused(path, ConfigError)
    assert (SCHEMA_VERSION + 1, SCHEMA_VERSION) == (
        error.fields["schema_version"], error.fields["schema_version_known"]
    )  # fmt: skip


def test_damage_found_later_is_an_error_of_ours(tmp_path: Path) -> None:
    """A ledger whose pages are overwritten raises StoreUnavailable from its verbs, never the driver's error."""
    path = tmp_path / "ledger.db"
    store = fresh(path)
    for n in range(200):
        store.reserve(booking(f"c{n}", 1, *FOUR, facts=facts()))
    store.close()
    content = bytearray(path.read_bytes())
    # Always the same noise: of any, one page in sixty begins like one of SQLite's.
    content[4_096:] = random.Random(8).randbytes(len(content) - 4_096)
    path.write_bytes(content)
    damaged = fresh(path)
    uses: list[Callable[[], object]] = [
        lambda: damaged.reserve(booking("new", 1, *FOUR)), lambda: damaged.settle("c3", 1),
        lambda: list(damaged.usage()), lambda: damaged.balance(USER), lambda: list(damaged.balances()),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(StoreUnavailable, match=r"damaged|could not be read"):
            use()
    damaged.close()


def _fill(store: SQLiteStore) -> tuple[list[str], StoreUnavailable]:
    """Reserve until the disk is full: the ids that got in, and the error."""
    admitted: list[str] = []
    for n in range(20_000):
        try:
            store.reserve(booking(f"c{n}", 1, *FOUR, facts=facts()))
        except StoreUnavailable as error:
            return admitted, error
        admitted.append(f"c{n}")
    raise AssertionError("the disk was never full")


def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    """When SQLite finds no room, the verb that met it wrote nothing, what was written stays, and room makes it work."""
    store = fresh(tmp_path / "ledger.db")
    connection = store._file._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 40")
    admitted, error = _fill(store)
    assert "SQLITE_FULL" == error.fields["sqlite_error"]
    assert "Free some space" in error.next_step
    assert [(0, len(admitted))] * 4 == [amounts(store, account) for account in FOUR]
    assert admitted == [record.id for record in store.usage()]
    before = books(store)
    with pytest.raises(StoreUnavailable):
        store.reserve(booking("again", 1, *FOUR, facts=facts()))
    assert before == books(store)
    connection.execute("PRAGMA max_page_count = 100000")
    assert Reserved("again") == store.reserve(booking("again", 1, *FOUR, facts=facts()))
    store.close()


def test_file_size_limit_loses_nothing(tmp_path: Path) -> None:
    """The operating system refusing to let the file grow (ulimit -f) is an error of ours, and nothing is lost."""
    text = """
import resource, signal, sys
sys.path[:0] = sys.argv[2].split(":")
from rr_ledger import *
from runrails.errors import StoreUnavailable
from runrails.stores.sqlite import SQLiteStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SQLiteStore(sys.argv[1], synchronous="NORMAL")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
admitted = 0
try:
    for n in range(20_000):
        store.reserve(booking(f"c{n}", 1, *FOUR, facts=facts(), ttl_ms=86_400_000)); admitted += 1
except StoreUnavailable as error:
    print(admitted, error.fields["sqlite_error"])
"""
    path = tmp_path / "ledger.db"
    done = subprocess.run(
        [sys.executable, "-c", text, str(path), ":".join(sys.path)], capture_output=True, text=True, check=True
    )
    admitted, name = done.stdout.split()
    assert name.startswith(("SQLITE_IOERR", "SQLITE_FULL"))
    store = fresh(path)
    assert [(0, int(admitted))] * 4 == [amounts(store, account) for account in FOUR]
    store.close()


def test_lock_held_too_long_is_given_up(tmp_path: Path) -> None:
    """A file another program keeps locked is waited for, not for ever; after that everything works."""
    path = tmp_path / "ledger.db"
    store = fresh(path, busy_timeout_ms=50)
    store.reserve(booking("a", CENT))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for use in (lambda: store.reserve(booking("b", CENT)), lambda: store.settle("a", 1), store.expire):
        with pytest.raises(StoreUnavailable, match="in use by others for 50 ms"):
            use()
    assert (0, CENT) == amounts(store)
    other.execute("ROLLBACK")
    other.close()
    assert 1 == store.settle("a", 1).actual
    store.close()


UNPRIVILEGED = """
import os, sys
sys.path[:0] = sys.argv[2].split(":")
from runrails.errors import ConfigError
from runrails.stores.sqlite import SQLiteStore
# Everything is loaded by now: the other user need not be able to read this Python.
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    SQLiteStore(sys.argv[1])
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("exists", [True, False])
def test_read_only_directory_is_refused(exists: bool) -> None:
    """Where this user may not write, opening says so and names the way out; an existing ledger is left alone."""
    import tempfile

    # Not pytest's directory: another user could not even look into it.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        if exists:
            fresh(path).close()
            path.chmod(0o444)
        Path(directory).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(path), ":".join(sys.path)],
            capture_output=True,
            text=True,
            check=False,
        )
        Path(directory).chmod(0o700)
        assert "write permission" in done.stdout, done.stderr
        assert "RUNRAILS_STORE" in done.stdout
        assert exists == path.exists()


def test_relative_path_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store opened by a relative path keeps its file when the process changes its directory."""
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///here.db")
    monkeypatch.chdir("/")
    store.reserve(booking("a"))
    assert isinstance(store, SQLiteStore)
    assert str(tmp_path / "here.db") == store.path
    store.close()
    assert (tmp_path / "here.db").exists()


def test_store_url_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RUNRAILS_STORE decides; unset or empty means a private file in the user's data directory."""
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:////{tmp_path}/env.db?synchronous=normal")
    open_store(None).close()
    assert (tmp_path / "env.db").exists()
    monkeypatch.setenv("RUNRAILS_STORE", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        open_store(None).close()
        directory = tmp_path / "data" / "runrails"
        assert 0o700 == directory.stat().st_mode & 0o777
        assert 0o600 == (directory / "ledger.db").stat().st_mode & 0o777


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb:", "dynamodb://?region=eu-west-1", "postgres://user:secret@host/db", "ledger.db", "sqlite:", "sqlite://x.db",
        "sqlite:///", "sqlite:///x.db?synchronous=off", "sqlite:///x.db?mode=ro", "memory://name", "sqlite:///:memory:",
    ],
)  # fmt: skip
def test_urls_that_name_no_store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other URL is refused with the forms that exist, without repeating a password; no file is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert "dynamodb://TABLE" in str(caught.value) or not url.startswith("dynamodb")
    assert [] == list(tmp_path.iterdir())


def test_memory_url() -> None:
    """`memory:` is a fresh store each time."""
    first, second = open_store("memory:"), open_store("memory:")
    first.reserve(booking("a", CENT, limit=DOLLAR))
    assert (CENT, 0) == (first.balance(USER).held, second.balance(USER).held)


def test_a_link_to_nothing_is_followed_privately(tmp_path: Path) -> None:
    """A link to a file that is not there yet makes that file, with the mode of a ledger whatever the umask."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "ledger.db")
    before = os.umask(0)
    try:
        store = fresh(tmp_path / "link.db")
        store.reserve(booking("a"))
    finally:
        os.umask(before)
    assert [0o600] * 3 == [file.stat().st_mode & 0o777 for file in (tmp_path / "real").iterdir()]
    store.close()


def test_a_reader_waits_for_a_lock_too(tmp_path: Path) -> None:
    """While another program has the file for itself, reading waits like writing does, and then answers."""
    path = tmp_path / "ledger.db"
    store = fresh(path, busy_timeout_ms=60_000)
    store.reserve(booking("a", CENT))
    store._file.before_fork()  # lets go of the file, so that another can have it for itself
    store._file.after_fork_in_parent()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    seen: list[tuple[int, int]] = []
    reader = threading.Thread(target=lambda: seen.append(amounts(store)))
    reader.start()
    reader.join(0.2)
    assert reader.is_alive()
    other.execute("ROLLBACK")
    other.close()
    reader.join(60)
    assert [(0, CENT)] == seen
    store.close()


@pytest.mark.parametrize(
    ("ask", "plan"),
    [
        (lambda store: list(store.usage(user="a", period="2026-11")), "SEARCH reservation USING INTEGER PRIMARY KEY"),
        (lambda store: list(store.usage(run="r1")), "SEARCH reservation USING INDEX reservation_run"),
        (lambda store: store.run("r1"), "SEARCH run USING PRIMARY KEY"),
        (lambda store: list(store.runs()), "SEARCH run USING INDEX run_ended"),
        (lambda store: list(store.balances(scope="user:alice")), "SEARCH account USING INDEX"),
        (lambda store: store.expire(), "SEARCH reservation USING INDEX reservation_open"),
    ],
)  # fmt: skip
def test_no_question_reads_the_whole_file(tmp_path: Path, ask: Callable[[SQLiteStore], object], plan: str) -> None:
    """Every question finds its rows by an index, so that a year of calls does not slow it down."""
    store = fresh(tmp_path / "ledger.db")
    connection = store._file._connection
    assert connection is not None
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    ask(store)
    connection.set_trace_callback(None)
    plans = [
        str(row[3])
        for statement in asked
        if statement.startswith("SELECT")
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert any(found.startswith(plan) for found in plans), plans
    assert not [found for found in plans if found.startswith("SCAN") and "USING INDEX" not in found]
    store.close()
