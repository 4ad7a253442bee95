"""
Half a minute of an outage by the clock on the wall, as the suite plays it in moments.

``python tests/rr_outage.py`` has another process lock a SQLite ledger for that long;
``.ci/dynamodb python tests/rr_outage.py`` has DynamoDB throttle everything as well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rr_core import PRICES, cent_call, done
from rr_ledger import CENT
from runrails import Guard, Limits
from runrails.errors import StoreUnavailable
from runrails.stores.records import differences
from runrails.stores.sqlite import SQLiteStore

LOCKING = """
import sqlite3, sys
holder = sqlite3.connect(sys.argv[1], isolation_level=None)
holder.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
holder.execute("ROLLBACK")
"""


A_MOMENT_MS = 30


@contextmanager
def impatient(*stores: SQLiteStore) -> Iterator[None]:
    """
    They wait only a moment for others until the block ends. Before and afterwards they have the patience they were made
    with: two threads of one store wait for each other, on a busy machine for longer than a moment.
    """
    before = [store._file._busy_timeout_ms for store in stores]
    for store in stores:
        store._file._busy_timeout_ms = A_MOMENT_MS
    try:
        yield
    finally:
        for store, patience_ms in zip(stores, before, strict=True):
            store._file._busy_timeout_ms = patience_ms


@contextmanager
def locked_by_another_process(path: Path, *stores: SQLiteStore) -> Iterator[None]:
    """Another process holds the file's lock until the block ends, for which the stores do not wait."""
    command = [sys.executable, "-c", LOCKING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert "locked\n" == holder.stdout.readline()
        try:
            with impatient(*stores):
                yield
        finally:
            holder.stdin.write("\n")
            holder.stdin.flush()
            holder.wait(60)


def play(store: Any, outage: Callable[[], Any], seconds: float) -> dict[str, object]:
    """One call before, one in flight, as many as are refused meanwhile, one after; what came of it."""
    limits = Limits(run=None, month="1.00", steps=None)
    with Guard(limits, user="alice", store=store, prices=PRICES, sinks=[]) as guard:
        run = guard.run()
        run.after_model(run.before_model(cent_call()), done())
        in_flight = run.before_model(cent_call())
        guard.flush()
        refused, took_s, fix = 0, [0.0], ""
        with outage():
            began = time.monotonic()
            while time.monotonic() - began < seconds or refused < 2:
                tried = time.monotonic()
                try:
                    run.before_model(cent_call())
                except StoreUnavailable as error:
                    refused, fix = refused + 1, error.next_step
                    took_s.append(time.monotonic() - tried)
                else:
                    raise AssertionError("A call was admitted while its ledger was out of reach.")
            run.after_model(in_flight, done())
        run.after_model(run.before_model(cent_call()), done())
        guard.flush()
        run.close()
    (month,) = [balance for balance in store.balances() if balance.account.scope == "user:alice"]
    assert (3 * CENT, 0) == (month.spent, month.held)
    assert [] == differences(store.sums())[1]
    assert 3 == len(list(store.usage()))
    return {"refused": refused, "longest_s": round(max(took_s), 1), "told": fix, "admitted meanwhile": 0}


def main() -> None:
    """Both, for thirty seconds."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        store = SQLiteStore(path)
        print("SQLite locked for 30 s by another process:", play(store, lambda: locked_by_another_process(path), 30))
        store.close()
    from rr_dynamo import ENDPOINT, FaultyClient, new_table, open_dynamodb

    if ENDPOINT:
        away = [False]
        client = FaultyClient(lambda *_: "throttled" if away[0] else "ok")

        @contextmanager
        def throttled() -> Iterator[None]:
            away[0] = True
            yield
            away[0] = False

        shared = open_dynamodb(None, table=new_table(), client=lambda: client)
        print("DynamoDB throttling everything for 30 s:", play(shared, throttled, 30))


if __name__ == "__main__":
    main()
