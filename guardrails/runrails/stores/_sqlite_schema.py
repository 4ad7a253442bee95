"""
How a SQLite file becomes one of ours, and stays one.

A file is what its application id says. A fresh (or empty) file is made one; any other database is left alone.
`user_version` is the schema's version: a file written by a newer runrails is refused, an older one is migrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.errors import ConfigError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Schema", "prepare"]


class Schema(NamedTuple):
    """One kind of file."""

    noun: str
    """What it is, in errors."""
    setting: str
    """The variable that says where it is."""
    application_id: int
    version: int
    tables: tuple[str, ...]
    """What makes an empty file one of this version."""
    steps: tuple[tuple[str, ...], ...] = ()
    """What makes a file of version 1 one of version 2, and so on."""
    settings: tuple[str, ...] = ()
    """How every connection uses it."""

    @property
    def elsewhere(self) -> str:
        """What to do if it cannot be where it is."""
        return f"{self.setting}=sqlite:////path/to/{self.noun}.db"


def prepare(connection: sqlite3.Connection, path: str, schema: Schema, *, synchronous: str) -> None:
    """
    Make an open database one of its kind, or see that it is one, and set how this connection uses it.

    Raises:
        ConfigError: It is another program's database, was written by a newer runrails, or lies where WAL cannot work.
        sqlite3.Error: It cannot be read or written; nothing was changed.
    """
    if _version(connection, path, schema) != schema.version:
        _write(connection, path, schema)
    mode = _number(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise ConfigError(
            f"The {schema.noun} file {path} lies where SQLite cannot share it between processes (journal mode {mode}).",
            next_step=f"Put it on a local disk, not on a network drive: {schema.elsewhere}.",
            path=path,
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    for setting in schema.settings:
        connection.execute(setting)


def _write(connection: sqlite3.Connection, path: str, schema: Schema) -> None:
    """Make an empty database one of its kind, or bring one of an older version up to date; all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path, schema)  # Another process may have done it meanwhile.
        for statement in schema.tables if version == 0 else [text for s in schema.steps[version - 1 :] for text in s]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.application_id}")
        connection.execute(f"PRAGMA user_version = {schema.version}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection, path: str, schema: Schema) -> int:
    """The version of a file of that kind; 0 if it is empty. Raises ConfigError for any other, or a newer one."""
    application = _number(connection, "PRAGMA application_id")
    version = int(_number(connection, "PRAGMA user_version"))
    if application == schema.application_id:
        if 1 <= version <= schema.version:
            return version
        raise ConfigError(
            f"The {schema.noun} file {path} has schema version {version}; "
            f"this runrails knows version {schema.version}.",
            next_step=f"Upgrade runrails to the version that wrote it, or choose another file with {schema.setting}.",
            path=path,
            schema_version=version,
            schema_version_known=schema.version,
        )
    if application == 0 and version == 0 and _number(connection, "SELECT count(*) FROM sqlite_master") == 0:
        return 0
    raise ConfigError(
        f"The file {path} is a database of another program. It was not changed.",
        next_step=f"Choose another file for the {schema.noun}: {schema.elsewhere}.",
        path=path,
    )


def _number(connection: sqlite3.Connection, statement: str) -> int | str:
    row: tuple[int | str] = connection.execute(statement).fetchone()
    return row[0]
