"""From a URL to an engine of documents."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, cast

from runrails.errors import ConfigError
from runrails.stores import absolute_url, parse_sqlite, without_lease

if TYPE_CHECKING:
    from runrails.clocks import Clock
    from runrails.documents import DocumentStore

__all__ = ["ENTRY_POINTS", "SETTING", "Opener", "documents_url", "open_documents"]

ENTRY_POINTS = "runrails.documents"
"""Engines outside the core: the name is a URL's scheme, the value an `Opener`."""
SETTING = "RUNRAILS_VAULT"
_FORMS = "sqlite:///relative/path.db, sqlite:////absolute/path.db, memory: or dynamodb://TABLE?region=eu-west-1"


class Opener(Protocol):
    """Opens the engine of a URL."""

    def __call__(self, url: str, clock: Clock | None) -> DocumentStore:
        """`clock` is believed if it is given. Raises like `open_documents`."""
        ...


def open_documents(url: str | None = None, *, clock: Clock | None = None) -> DocumentStore:
    """
    Open the engine that a URL names. What two calls with ``memory:`` open has nothing in common.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``memory:`` or ``dynamodb://TABLE?region=…``. None:
            what ``RUNRAILS_VAULT`` says, else what belongs to the ledger: for the file ``x.db`` the file
            ``x.vault.db`` beside it, for a table the table itself.
        clock: Wall clock in milliseconds since the epoch; by default the system's, or the server's of a shared engine.

    Raises:
        ConfigError: The URL names no engine, or its file cannot be used.
        StoreUnavailable: The file is locked or the disk is full.
    """
    from runrails.clocks import system_ms

    url = documents_url(url)
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest.strip("/"):
        from runrails.documents.memory import MemoryDocuments

        return MemoryDocuments(clock=clock or system_ms)
    if scheme == "sqlite" and colon:
        from runrails.documents.sqlite import SQLiteDocuments

        path, synchronous = parse_sqlite(rest)
        return SQLiteDocuments(path, clock=clock or system_ms, synchronous=synchronous)
    return _open_elsewhere(scheme if colon else "", url, clock)


def documents_url(url: str | None = None) -> str:
    """The URL that `open_documents` opens. Raises ConfigError."""
    url = url or os.environ.get(SETTING)
    if url:
        return url
    ledger = without_lease(absolute_url())
    scheme, _, rest = ledger.partition(":")
    if scheme != "sqlite":
        return ledger
    path, _ = parse_sqlite(rest)
    return f"sqlite:///{path.removesuffix('.db')}.vault.db"


def _open_elsewhere(scheme: str, url: str, clock: Clock | None) -> DocumentStore:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == scheme:
            return cast("Opener", entry.load())(url, clock)
    # A URL may carry a password, so only the scheme is named.
    raise ConfigError(f"No vault is called {scheme[:20]!r}.", next_step=f"Write {SETTING}={_FORMS}.")
