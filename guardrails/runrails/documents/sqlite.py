"""Documents in one SQLite file, shared by the threads and processes of one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from runrails.clocks import Clock, system_ms
from runrails.documents import Address, Document, check_address, check_find, check_version, check_write
from runrails.stores._sqlite_file import SharedFile
from runrails.stores._sqlite_schema import Schema

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterator

__all__ = ["SCHEMA", "SQLiteDocuments"]

_PAGE = 256
_SWEPT_MAX = 64
"""Most expired documents that one write takes away, so that none takes long."""
_SWEEP_EVERY = 16
_SWEEP_EVERY_MS = 1_000
"""Not every write looks for them: that would double what a write takes."""
_Row = tuple[str, str, str, bytes, int, int | None]
_COLUMNS = "kind, owner, name, data, version, expires_ms"
_LIVE = "(expires_ms IS NULL OR expires_ms > ?)"
# What has expired is as good as not there.
_ADD = (
    "INSERT INTO document (kind, owner, name, data, version, expires_ms) VALUES (?, ?, ?, ?, 1, ?) "
    "ON CONFLICT (kind, owner, name) DO UPDATE SET data = excluded.data, version = 1, expires_ms = excluded.expires_ms "
    "WHERE document.expires_ms <= ?"
)
_CHANGE = (
    "UPDATE document SET data = ?, version = version + 1, expires_ms = ? "  # noqa: S608 -- texts of this module alone
    f"WHERE kind = ? AND owner = ? AND name = ? AND version = ? AND {_LIVE}"
)
_SWEEP = (
    "DELETE FROM document WHERE (kind, owner, name) IN (SELECT kind, owner, name FROM document "
    "WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?)"
)

# Two conditions on types, because SQLite keeps what it is given, whatever the column says.
_TABLE = """
    CREATE TABLE document (
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        data BLOB NOT NULL CHECK (typeof(data) = 'blob'),
        version INTEGER NOT NULL CHECK (typeof(version) = 'integer' AND version > 0),
        expires_ms INTEGER,
        PRIMARY KEY (kind, owner, name)
    ) WITHOUT ROWID
    """

SCHEMA = Schema(
    noun="vault",
    setting="RUNRAILS_VAULT",
    application_id=0x72_72_64_63,  # the letters "rrdc"
    version=1,
    tables=(_TABLE, "CREATE INDEX document_expiry ON document (expires_ms) WHERE expires_ms IS NOT NULL"),
    # What was removed is not left in the file's free pages, where an old master key would still open it.
    settings=("PRAGMA secure_delete = ON",),
)


class SQLiteDocuments:
    """
    An engine of documents for one machine. Threads and processes may share it; a fork may inherit it.

    Args:
        path: The file, which no ledger is; made with mode 0600 if it does not exist. Its directory must exist.
        clock: Wall clock in milliseconds since the epoch, for documents that expire.
        synchronous: ``FULL`` has every answer on the disk; with ``NORMAL`` a power failure (not a crash) may lose the
            last moments, and with them for instance that a token was revoked.
        busy_timeout_ms: How long a verb waits for other threads and processes.

    Raises:
        ConfigError: The path cannot be a vault: no directory, no permission, another program's or a damaged file.
        StoreUnavailable: The disk is full, or somebody holds the file for longer than the timeout.
    """

    remote = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = system_ms,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout_ms: int = 5_000,
    ) -> None:
        self._clock = clock
        self._sweep_in = 0
        self._swept_ms = 0
        # Who reads has a connection apart, and waits neither for the disk nor for who writes in another process: what
        # is read decides whether somebody comes in, and may be asked for by an event loop.
        self._file, self._reads = [
            SharedFile(path, synchronous=synchronous, busy_timeout_ms=busy_timeout_ms, schema=SCHEMA) for _ in range(2)
        ]

    @property
    def path(self) -> str:
        """The file, absolute."""
        return self._file.path

    def get(self, address: Address) -> Document | None:
        """The document at an address. See `runrails.documents.DocumentStore.get`."""
        check_address(address)
        return self._reads.read(lambda connection: _get(connection, address, self._clock()))

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        """Write if nobody else has. See `runrails.documents.DocumentStore.put`."""
        check_write(address, data, expected, expires_ms)
        written = Document(address, data, expected + 1, expires_ms)

        def step(connection: sqlite3.Connection) -> int:
            now_ms = self._clock()
            if expected == 0:
                return connection.execute(_ADD, (*address, data, expires_ms, now_ms)).rowcount
            return connection.execute(_CHANGE, (data, expires_ms, *address, expected, now_ms)).rowcount

        self._sweep_sometimes()
        return written if self._file.at_once(step) == 1 else None

    def delete(self, address: Address, *, expected: int) -> bool:
        """Remove if nobody else has changed it. See `runrails.documents.DocumentStore.delete`."""
        check_address(address)
        check_version(expected)
        return self._file.write(lambda connection: _delete(connection, address, expected, self._clock()))

    def find(self, kind: str, owner: str | None = None) -> Iterator[Document]:
        """
        All of a kind, or of one owner. See `runrails.documents.DocumentStore.find`.

        They are read page by page: what changes meanwhile is found as it was or as it is.
        """
        check_find(kind, owner)
        return self._find(kind, owner)

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        self._reads.close()
        self._file.close()

    def _sweep_sometimes(self) -> None:
        now_ms = self._clock()
        self._sweep_in -= 1
        if self._sweep_in <= 0 or abs(now_ms - self._swept_ms) >= _SWEEP_EVERY_MS:
            self._sweep_in, self._swept_ms = _SWEEP_EVERY, now_ms
            self._file.at_once(lambda connection: connection.execute(_SWEEP, (now_ms, _SWEPT_MAX)).rowcount)

    def _find(self, kind: str, owner: str | None) -> Iterator[Document]:
        after = ("", "")
        while True:
            page = self._page(kind, owner, after)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].address[1:]

    def _page(self, kind: str, owner: str | None, after: tuple[str, str]) -> list[Document]:
        where, values = "kind = ? AND (owner, name) > (?, ?)", [kind, *after]
        if owner is not None:
            where, values = "kind = ? AND owner = ? AND name > ?", [kind, owner, after[1]]

        def step(connection: sqlite3.Connection) -> list[Document]:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM document WHERE {where} AND {_LIVE} ORDER BY owner, name LIMIT ?",  # noqa: S608 -- as above
                (*values, self._clock(), _PAGE),
            ).fetchall()
            return [_document(row) for row in cast("list[_Row]", found)]

        return self._reads.read(step)


def _get(connection: sqlite3.Connection, address: Address, now_ms: int) -> Document | None:
    row = cast(
        "_Row | None",
        connection.execute(
            f"SELECT {_COLUMNS} FROM document WHERE kind = ? AND owner = ? AND name = ? AND {_LIVE}",  # noqa: S608 -- as above
            (*address, now_ms),
        ).fetchone(),
    )
    return None if row is None else _document(row)


def _version(connection: sqlite3.Connection, address: Address, now_ms: int) -> int:
    """The version that stands there; 0 if nothing does."""
    row = cast(
        "tuple[int] | None",
        connection.execute(
            f"SELECT version FROM document WHERE kind = ? AND owner = ? AND name = ? AND {_LIVE}",  # noqa: S608 -- as above
            (*address, now_ms),
        ).fetchone(),
    )
    return 0 if row is None else row[0]


def _delete(connection: sqlite3.Connection, address: Address, expected: int, now_ms: int) -> bool:
    if expected == 0 or _version(connection, address, now_ms) != expected:
        return False
    connection.execute("DELETE FROM document WHERE kind = ? AND owner = ? AND name = ?", address)
    return True


def _document(row: _Row) -> Document:
    kind, owner, name, data, version, expires_ms = row
    return Document(Address(kind, owner, name), data, version, expires_ms)
