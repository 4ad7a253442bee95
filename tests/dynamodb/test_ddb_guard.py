"""Guards of several processes on one table: the whole door, from a permit to the books."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rr_core import PRICES, cent_call, done
from rr_dynamo import ENDPOINT, REGION, Fate, FaultyClient, needs_server, new_table, open_dynamodb
from rr_ledger import CENT, DOLLAR, amounts
from runrails import BudgetExceeded, Guard, Limits
from runrails.errors import StoreUnavailable
from runrails.ledger import Account
from runrails_aws.dynamodb.calling import Patience

pytestmark = needs_server

TESTS = Path(__file__).parent.parent
WORKER = """
import sys, threading
from runrails import BudgetBusy, BudgetExceeded, Guard, Limits
from rr_core import PRICES, cent_call, done
def work(guard, won):
    run = guard.run()
    try:
        for _ in range(40):
            run.after_model(run.before_model(cent_call()), done())
            won.append(1)
    except BudgetExceeded:
        pass
won = []
limits = Limits(run=None, month="1.00", steps=None, hold_wait_ms=20_000)
with Guard(limits, user="alice", store=sys.argv[1], prices=PRICES) as guard:
    print("ready", flush=True); sys.stdin.readline()
    threads = [threading.Thread(target=work, args=(guard, won)) for _ in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]
print(len(won))
"""


def environment() -> dict[str, str]:
    """What a worker needs; no server looks at its credentials."""
    return {
        "PYTHONPATH": ":".join([str(TESTS), *sys.path]), "PATH": "/usr/bin:/bin", "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }  # fmt: skip


def month_of(store: Any) -> Account:
    """Alice's account."""
    (account,) = [balance.account for balance in store.balances() if balance.account.scope == "user:alice"]
    return account


def test_four_processes_spend_exactly_one_dollar() -> None:
    """4 processes × 4 threads, each through a guard opened by URL: one hundred one-cent calls, and not one more."""
    table = new_table()
    url = f"dynamodb://{table}?region={REGION}&endpoint={ENDPOINT}"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert "ready\n" == worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    admitted = [int(worker.communicate()[0]) for worker in workers]
    assert [0] * 4 == [worker.returncode for worker in workers]
    assert 100 == sum(admitted)
    store = open_dynamodb(None, table=table)
    assert (DOLLAR, 0) == amounts(store, month_of(store))


def test_a_guarded_call_is_two_round_trips() -> None:
    """One to reserve and one to settle, also the first call of another run; all else is off the way of a call."""
    client = FaultyClient(lambda *_: "ok")
    store, limits = open_dynamodb(None, client=lambda: client), Limits(run="1.00", month="50.00")
    with Guard(limits, user="alice", key="k", org="acme", store=store, prices=PRICES) as guard:
        for number in range(4):
            with guard.run() as run:
                before = Counter(operation for operation, _ in client.log)
                run.after_model(run.before_model(cent_call()), done())
                asked = Counter(operation for operation, _ in client.log) - before
                if number:
                    assert 2 == asked["TransactWriteItems"]
                    # What the background looks at for warnings is no part of the call.
                    assert {"TransactWriteItems", "BatchGetItem"} >= set(asked)


def test_a_store_that_is_away_refuses_and_a_named_option_allows() -> None:
    """By default no call starts; with `on_store_error="allow"` it does, with an event, and is in the books later."""
    away = [False]

    def fate(operation: str, number: int) -> Fate:
        del operation, number
        return "request_lost" if away[0] else "ok"

    table = new_table()
    for allow in (False, True):
        client = FaultyClient(fate)
        store = open_dynamodb(None, table=table, client=lambda: client, patience=Patience(deadline_ms=50))  # noqa: B023
        events: list[str] = []
        with Guard(
            Limits(run="1.00", month="50.00"), user="alice", store=store, prices=PRICES,
            on_store_error="allow" if allow else "refuse", sinks=[lambda event: events.append(event.name)],  # noqa: B023
        ) as guard:  # fmt: skip
            with guard.run() as run:
                run.after_model(run.before_model(cent_call()), done())
                away[0] = True
                if allow:
                    permit = run.before_model(cent_call())
                    away[0] = False
                    run.after_model(permit, done())
                else:
                    with pytest.raises(StoreUnavailable, match="same id is safe"):
                        run.before_model(cent_call())
                    away[0] = False
            assert allow == any("store_bypassed" in name for name in events)
    books = open_dynamodb(None, table=table)
    assert (3 * CENT, 0) == amounts(books, month_of(books))


def test_a_budget_that_is_used_up_stops_the_run() -> None:
    """The limit of a month that another guard has spent is this one's too."""
    table = new_table()
    for expected in (3, 0):
        with Guard(
            Limits(run=None, month="0.03"), user="alice", store=open_dynamodb(None, table=table), prices=PRICES
        ) as guard:
            run, calls = guard.run(), 0
            try:
                while calls < 10:
                    run.after_model(run.before_model(cent_call()), done())
                    calls += 1
            except BudgetExceeded:
                pass
            assert expected == calls
