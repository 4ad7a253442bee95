"""Rate limiting in a SQLite file, which may be the ledger's: shared by the threads and processes of one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from runrails.clocks import Clock, system_ms
from runrails.rates.gcra import FULL, Times, credited, decide
from runrails.rates.limiter import check_asks, check_unused
from runrails.stores._sqlite_file import SharedFile

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Sequence

    from runrails.rates.limiter import Ask, Cost, Granted, Limited

__all__ = ["SQLiteRates"]

_SWEEP_EVERY = 32
"""One sweep for so many new scopes, so that it hardly adds to the writes."""
_SWEPT_MAX = 128


class SQLiteRates:
    """
    An engine of rate limiting for one machine. Threads and processes may share it; a fork may inherit it.

    Args:
        path: The file; a ledger's may be named. Made with mode 0600 if it does not exist.
        clock: Wall clock in milliseconds since the epoch: it must be one for all processes, and outlive a restart.
        synchronous: ``NORMAL`` may forget the last moments after a power failure; ``FULL`` is some four times slower.
        busy_timeout_ms: How long a verb waits for other threads and processes.

    Raises:
        ConfigError: The path cannot be a ledger: no directory, no permission, another program's or a damaged file.
        StoreUnavailable: The disk is full, or somebody holds the file for longer than the timeout.
    """

    remote = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = system_ms,
        synchronous: Literal["FULL", "NORMAL"] = "NORMAL",
        busy_timeout_ms: int = 5_000,
    ) -> None:
        self._clock = clock
        self._added = 0
        self._file = SharedFile(path, synchronous=synchronous, busy_timeout_ms=busy_timeout_ms)

    @property
    def path(self) -> str:
        """The file, absolute."""
        return self._file.path

    def take(self, asks: Sequence[Ask], cost: Cost) -> Granted | Limited:
        """Take from every scope or from none. See `runrails.rates.RateLimiter.take`."""
        check_asks(asks, cost)
        return self._file.write(lambda connection: self._take(connection, asks, cost))

    def _take(self, connection: sqlite3.Connection, asks: Sequence[Ask], cost: Cost) -> Granted | Limited:
        # The clock is read while nobody else can write: decisions come in the order of their times.
        now_ms = self._clock()
        known = _read(connection, [ask.scope for ask in asks])
        decision, new = decide(asks, [known.get(ask.scope, FULL) for ask in asks], cost, now_ms)
        if new is not None:
            _write(connection, {ask.scope: time for ask, time in zip(asks, new, strict=True)})
            added = sum(ask.scope not in known for ask in asks)
            before, self._added = self._added, self._added + added
            if before // _SWEEP_EVERY != self._added // _SWEEP_EVERY:
                _sweep(connection, now_ms)
        return decision

    def give_back(self, granted: Granted, unused: Cost) -> None:
        """Give back what was not used. See `runrails.rates.RateLimiter.give_back`."""
        check_unused(unused)
        if not granted.taken or unused == (0, 0):
            return

        def step(connection: sqlite3.Connection) -> None:
            now_ms = self._clock()
            known = _read(connection, [taken.scope for taken in granted.taken])
            new = {
                taken.scope: credited(known[taken.scope], taken, unused, now_ms)
                for taken in granted.taken
                if taken.scope in known
            }
            if changed := {scope: time for scope, time in new.items() if time != known[scope]}:
                _write(connection, changed)

        self._file.write(step)

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        self._file.close()


def _read(connection: sqlite3.Connection, scopes: Sequence[str]) -> dict[str, Times]:
    marks = ",".join("?" * len(scopes))
    found = cast(
        "list[tuple[str, int, int]]",
        connection.execute(
            f"SELECT scope, requests_ns, tokens_ns FROM rate WHERE scope IN ({marks})",  # noqa: S608 -- only question marks go in
            scopes,
        ).fetchall(),
    )
    return {scope: Times(requests_ns, tokens_ns) for scope, requests_ns, tokens_ns in found}


def _write(connection: sqlite3.Connection, times: dict[str, Times]) -> None:
    marks = ",".join(["(?, ?, ?, ?)"] * len(times))
    connection.execute(
        f"INSERT INTO rate (scope, requests_ns, tokens_ns, full_ns) VALUES {marks} "  # noqa: S608 -- only question marks go in
        "ON CONFLICT (scope) DO UPDATE SET requests_ns = excluded.requests_ns, tokens_ns = excluded.tokens_ns, "
        "full_ns = excluded.full_ns",
        [part for scope, time in times.items() for part in (scope, *time, max(time))],
    )


def _sweep(connection: sqlite3.Connection, now_ms: int) -> None:
    """Drop some scopes whose buckets are full, which changes no decision."""
    connection.execute(
        "DELETE FROM rate WHERE scope IN (SELECT scope FROM rate WHERE full_ns <= ? LIMIT ?)",
        (now_ms * 1_000_000, _SWEPT_MAX),
    )
