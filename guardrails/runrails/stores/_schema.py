"""
The tables of a SQLite ledger, and how a file becomes one.

A file is a ledger if its application id says so. A fresh (or empty) file is made one; any other database is left
alone. `user_version` is the schema's version: a file written by a newer runrails is refused, an older one is migrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import ConfigError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "prepare"]

SCHEMA_VERSION = 4
"""
1: the first. 2: the facts of a call may have tags, and its usage pictures and searches, which programs that know only
version 1 cannot read; there is a table of price cards.
3: amounts may be corrected by a provider's bill, with a table that says by which; what is known of a call's end may
have more parts. 4: tables of rate limits, and of what became of notifications.
"""
APPLICATION_ID = 0x72_72_6C_67
"""The letters "rrlg" in the file's header."""

# The fingerprint is the SHA-256 of the card's text, so a line of the ledger can be worked out again and proven.
_PRICE_CARD = "CREATE TABLE price_card (fingerprint TEXT PRIMARY KEY, card TEXT NOT NULL) WITHOUT ROWID"

# Only ever added to.
_CORRECTIONS = (
    """
    CREATE TABLE correction (
        seq INTEGER PRIMARY KEY,
        reservation_id TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        source TEXT NOT NULL,
        state_before TEXT NOT NULL,
        before_pusd INTEGER NOT NULL CHECK (typeof(before_pusd) = 'integer'),
        after_pusd INTEGER NOT NULL CHECK (typeof(after_pusd) = 'integer')
    )
    """,
    "CREATE INDEX correction_of ON correction (reservation_id)",
)

# In few words: with the others they still fit into the file's first page. `full_ns` is the later of the two times: from
# then on the row is as good as none and may go.
_RATE = (
    "CREATE TABLE IF NOT EXISTS rate (scope TEXT PRIMARY KEY, requests_ns INTEGER NOT NULL, "
    "tokens_ns INTEGER NOT NULL, full_ns INTEGER NOT NULL) WITHOUT ROWID"
)
_DELIVERY = (
    "CREATE TABLE IF NOT EXISTS delivery (sender TEXT PRIMARY KEY, sent INTEGER, failed INTEGER, dropped INTEGER, "
    "sent_ms INTEGER, last_error TEXT, error_ms INTEGER) WITHOUT ROWID"
)
_MOMENTARY = (_RATE, "CREATE INDEX IF NOT EXISTS rate_full ON rate (full_ns)", _DELIVERY)

# Amounts are checked to be integers because SQLite turns a sum past 2^63 into a float without a word.
_TABLES = (
    """
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
    )
    """,
    """
    CREATE TABLE operator_limit (
        scope TEXT NOT NULL,
        unit TEXT NOT NULL,
        amount INTEGER NOT NULL CHECK (typeof(amount) = 'integer' AND amount >= 0),
        PRIMARY KEY (scope, unit)
    ) WITHOUT ROWID
    """,
    # One row is the reservation, the record that makes its verbs repeatable, and the usage record of its call.
    # `holds` is JSON [[account id, amount], ...], where it was raised with the first amount behind it;
    # `charges` is JSON [amount, ...] in the same order, or NULL if each is actual_pusd.
    # `stand_in` is 1 while its owner's amount is a stand-in, 2 once a bill has corrected it.
    # `seq` is at_ms * 2^20 and counts on within a millisecond: rows lie in order of time, and a month is a range of
    # rows. It spares the hot path an index.
    """
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
    )
    """,
    "CREATE INDEX reservation_open ON reservation (expires_ms, id) WHERE state = 'held'",
    "CREATE INDEX reservation_run ON reservation (run) WHERE run IS NOT NULL",
    """
    CREATE TABLE warning (
        scope TEXT NOT NULL,
        period TEXT NOT NULL,
        unit TEXT NOT NULL,
        mark TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (scope, period, unit, mark)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE zone (scope TEXT PRIMARY KEY, zone TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE run (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        user TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        mode TEXT NOT NULL,
        stop_reason TEXT,
        report TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX run_ended ON run (ended_ms, id)",
    _PRICE_CARD,
    *_CORRECTIONS,
    *_MOMENTARY,
)
_STEPS: tuple[tuple[str, ...], ...] = ((_PRICE_CARD,), _CORRECTIONS, _MOMENTARY)
"""What makes a ledger of version 1 one of version 2, and so on."""


def prepare(connection: sqlite3.Connection, path: str, *, synchronous: str) -> None:
    """
    Make an open database a ledger, or see that it is one, and set how this connection uses it.

    Raises:
        ConfigError: It is another program's database, was written by a newer runrails, or lies where WAL cannot work.
        sqlite3.Error: It cannot be read or written; nothing was changed.
    """
    if _version(connection, path) != SCHEMA_VERSION:
        _write(connection, path)
    mode = _number(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise ConfigError(
            f"The ledger file {path} lies where SQLite cannot share it between processes (journal mode {mode}).",
            next_step="Put it on a local disk, not on a network drive: RUNRAILS_STORE=sqlite:////path/to/ledger.db.",
            path=path,
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")


def _write(connection: sqlite3.Connection, path: str) -> None:
    """Make an empty database a ledger, or bring one of an older version up to date; all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)  # Another process may have done it meanwhile.
        for statement in _TABLES if version == 0 else [text for step in _STEPS[version - 1 :] for text in step]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection, path: str) -> int:
    """The version of a ledger; 0 if the database is empty. Raises ConfigError for any other, or a newer ledger."""
    application = _number(connection, "PRAGMA application_id")
    version = int(_number(connection, "PRAGMA user_version"))
    if application == APPLICATION_ID:
        if 1 <= version <= SCHEMA_VERSION:
            return version
        raise ConfigError(
            f"The ledger file {path} has schema version {version}; this runrails knows version {SCHEMA_VERSION}.",
            next_step="Upgrade runrails to the version that wrote it, or choose another file with RUNRAILS_STORE.",
            path=path,
            schema_version=version,
            schema_version_known=SCHEMA_VERSION,
        )
    if application == 0 and version == 0 and _number(connection, "SELECT count(*) FROM sqlite_master") == 0:
        return 0
    raise ConfigError(
        f"The file {path} is a database of another program. It was not changed.",
        next_step="Choose another file for the ledger: RUNRAILS_STORE=sqlite:////path/to/ledger.db.",
        path=path,
    )


def _number(connection: sqlite3.Connection, statement: str) -> int | str:
    row: tuple[int | str] = connection.execute(statement).fetchone()
    return row[0]
