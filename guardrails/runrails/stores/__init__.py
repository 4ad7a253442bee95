"""The engines of the ledger, and which one a URL names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, Protocol, cast

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from runrails.clocks import Clock
    from runrails.ledger import FullStore, Store

__all__ = [
    "ENTRY_POINTS", "Opener", "absolute_url", "books_of", "open_store", "parse_sqlite", "same_books", "without_lease",
]  # fmt: skip

ENTRY_POINTS = "runrails.stores"
"""Engines outside the core: the name is a URL's scheme, the value an `Opener`."""
_FORMS = "sqlite:///relative/path.db, sqlite:////absolute/path.db, memory: or dynamodb://TABLE?region=eu-west-1"


class Opener(Protocol):
    """Opens the store of a URL."""

    def __call__(self, url: str, clock: Clock | None) -> Store:
        """`clock` is believed if it is given. Raises like `open_store`."""
        ...


def open_store(url: str | None = None, *, clock: Clock | None = None) -> Store:
    """
    Open the store that a URL names.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` (both may end in ``?synchronous=normal``),
            ``memory:`` or ``dynamodb://TABLE?region=eu-west-1``. None: what ``RUNRAILS_STORE`` or the project's file
            say, else a SQLite file in the user's data directory. With ``?lease=user,key,org`` such scopes are spent in
            this process's memory, slice by slice (see `runrails.stores.leased`); ``lease_slice=0.50`` and
            ``lease_ttl_s=60`` say how.
        clock: Wall clock in milliseconds since the epoch; by default the system's, or the server's of a shared store.

    Raises:
        ConfigError: The URL names no store, or its file cannot be a ledger.
        StoreUnavailable: The file is locked or the disk is full.
    """
    if url is None:
        url = _said()
    if url is None:
        return _open_file(_default_path(), "FULL", clock)
    bare = without_lease(url)
    if bare != url:
        return _open_leased(url, bare, clock)
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon:
        return _open_memory(rest, clock)
    if scheme != "sqlite" or not colon:
        return _open_elsewhere(scheme if colon else "", url, clock)
    path, synchronous = parse_sqlite(rest)
    return _open_file(path, synchronous, clock)


def _said() -> str | None:
    """What the environment says, else the project's file."""
    from runrails.projectfile import project_settings

    return os.environ.get("RUNRAILS_STORE") or project_settings().store


def absolute_url(url: str | None = None) -> str:
    """
    The URL of the same store for a process in another directory or with another home. None: as for `open_store`.

    Raises:
        ConfigError: It names no place for a file.
    """
    if url is None:
        url = _said()
    if url is None:
        return f"sqlite:///{_default_path()}"
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite":
        return url
    path, _ = parse_sqlite(without_lease(rest))
    _, question, query = rest.partition("?")
    return f"sqlite:///{os.path.abspath(path)}{question}{query}"  # noqa: PTH100 -- pathlib costs 3 ms to load


def same_books(one: Store, other: Store) -> bool:
    """Whether what one store keeps is what the other keeps; a leased store keeps what the shared one does."""
    one, other = getattr(one, "shared", one), getattr(other, "shared", other)
    place: object = getattr(one, "place", None)
    if place is not None and type(one) is type(other):
        return place == getattr(other, "place", None)
    paths = (getattr(one, "path", None), getattr(other, "path", None))
    if one is other or type(one) is not type(other) or not all(isinstance(path, str) for path in paths):
        return one is other
    return os.path.realpath(str(paths[0])) == os.path.realpath(str(paths[1]))


def books_of(store: Store) -> str | None:
    """A name for what a store keeps, the same in every process; None if it keeps nothing beyond its own."""
    shared: object = getattr(store, "shared", store)
    place, path = (cast("object", getattr(shared, name, None)) for name in ("place", "path"))
    if isinstance(place, str):
        return place
    return f"sqlite:{os.path.realpath(path)}" if isinstance(path, str) and path != ":memory:" else None


def without_lease(url: str) -> str:
    """A store URL without what it says of leases. Raises ConfigError if that is malformed."""
    place, question, query = url.partition("?")
    if not any(option.startswith("lease") for option in query.split("&")):
        return url
    from runrails.stores.leases import parse

    others, _ = parse(query)
    return f"{place}{question if others else ''}{others}"


def _open_leased(url: str, bare: str, clock: Clock | None) -> Store:
    from runrails.clocks import system_ms
    from runrails.stores.leased import LeasedStore
    from runrails.stores.leases import parse

    shared = cast("FullStore", open_store(bare, clock=clock))
    return LeasedStore(shared, parse(url.partition("?")[2])[1], clock=clock or system_ms)


def parse_sqlite(rest: str) -> tuple[str, Literal["FULL", "NORMAL"]]:
    """Path and durability in a SQLite URL, from behind its first colon. Raises ConfigError."""
    path, _, query = rest.partition("?")
    if not path.startswith("///") or path == "///":
        raise ConfigError("A SQLite store's URL has three slashes and then its path.", next_step=f"Write {_FORMS}.")
    name, _, value = query.partition("=")
    if query and (name != "synchronous" or value.upper() not in {"FULL", "NORMAL"}):
        raise ConfigError(
            "The only option of a SQLite store's URL is synchronous.",
            next_step="Write ?synchronous=normal or ?synchronous=full, or leave it out.",
        )
    return path[3:], cast('Literal["FULL", "NORMAL"]', value.upper() or "FULL")


def _open_elsewhere(scheme: str, url: str, clock: Clock | None) -> Store:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == scheme:
            return cast("Opener", entry.load())(url, clock)
    # A URL may carry a password, so only the scheme is named.
    raise ConfigError(f"No store is called {scheme[:20]!r}.", next_step=f"Write {_FORMS}.")


def _open_memory(rest: str, clock: Clock | None) -> Store:
    from runrails.clocks import system_ms
    from runrails.stores.memory import MemoryStore

    if rest.strip("/"):
        raise ConfigError("The memory store takes no name.", next_step="Write memory: and nothing after it.")
    return MemoryStore(clock=clock or system_ms)


def _open_file(path: str, synchronous: Literal["FULL", "NORMAL"], clock: Clock | None) -> Store:
    from runrails.clocks import system_ms
    from runrails.stores.sqlite import SQLiteStore

    return SQLiteStore(path, clock=clock or system_ms, synchronous=synchronous)


def _default_path() -> str:
    from platformdirs import user_data_dir

    directory = user_data_dir("runrails", appauthor=False)
    try:
        # makedirs gives its mode to the last directory only, which is the one that is ours.
        os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103 -- pathlib gives parents the default mode too
    except OSError as error:
        raise ConfigError(
            f"The directory {directory} for the ledger cannot be made: {error.strerror}.",
            next_step="Choose another place with RUNRAILS_STORE=sqlite:////path/to/ledger.db.",
            path=directory,
        ) from error
    return os.path.join(directory, "ledger.db")  # noqa: PTH118 -- a str for SQLite
