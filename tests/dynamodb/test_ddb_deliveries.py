"""What became of notifications, kept in the table: by every process that sends, shown to whoever asks."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from rr_core import PRICES, cent_call, done
from rr_dynamo import ENDPOINT, REGION, Fate, FaultyClient, needs_server, new_table, open_dynamodb
from rr_lease import lease_of
from rr_ledger import START_MS, books
from runrails import Guard, Limits
from runrails.cli.shell import NEGATIVE, OK, run
from runrails.clocks import system_ms
from runrails.deliveries import Delivered, Delivery, SupportsDeliveries
from runrails.notify import Notifier, Webhook
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails_aws.dynamodb.calling import Patience

pytestmark = needs_server
SLACK = "slack hooks.slack.example"
NOTES = [
    (SLACK, Delivered(sent=2)),
    (SLACK, Delivered(failed=1, error="HTTP 503")),
    ("webhook ünïcode.example", Delivered(dropped=4, error="QueueFull")),
    (SLACK, Delivered(sent=1, failed=2, dropped=3, error="timeout")),
    (SLACK, Delivered(sent=1)),
    ("function " + "x" * 300, Delivered(failed=1)),
]


def test_the_books_are_those_of_every_other_engine() -> None:
    """After each note the senders' accounts are what the memory store has; the ledger itself is as it was."""
    clock = ManualClock(START_MS)
    store, other = open_dynamodb(clock), MemoryStore(clock=clock)
    before = books(store)
    assert isinstance(store, SupportsDeliveries)
    assert [] == list(store.deliveries())
    for sender, what in NOTES:
        clock.advance(1_000)
        store.note_delivery(sender, what)
        other.note_delivery(sender, what)
        assert list(other.deliveries()) == sorted(store.deliveries())
    assert before == books(store)


@pytest.mark.parametrize("fate", ["response_lost", "request_lost", "throttled"])
def test_a_note_is_counted_once_whatever_becomes_of_the_answer(fate: Fate) -> None:
    """It is tried again, and knows what it has written itself."""
    client = FaultyClient(lambda _, number: "ok" if number % 2 else fate)
    store = open_dynamodb(ManualClock(START_MS), client=lambda: client, patience=Patience(sleep=lambda _: None))
    for _ in range(3):
        store.note_delivery(SLACK, Delivered(sent=1, failed=2, error="timeout"))
    client.over = True
    assert [Delivery(SLACK, 3, 6, 0, START_MS, "timeout", START_MS)] == list(store.deliveries())


def test_many_processes_count_together() -> None:
    """Two stores on one table, four threads each: nothing is lost."""
    table = new_table()
    stores = [open_dynamodb(None, table=table) for _ in range(2)]

    def work(store: Any) -> None:
        for _ in range(5):
            store.note_delivery(SLACK, Delivered(sent=1, dropped=1, error="QueueFull"))

    threads = [threading.Thread(target=work, args=(store,)) for store in stores * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = stores[0].deliveries()
    assert (40, 0, 40) == (row.sent, row.failed, row.dropped)


def test_what_is_written_last_is_the_newest_by_whatever_clock() -> None:
    """A host whose clock is a second behind clears the alarm, and raises it again."""
    table = new_table()
    ahead, behind = (open_dynamodb(ManualClock(START_MS - lag_ms), table=table) for lag_ms in (0, 1_000))
    failing: list[bool] = []
    for store, what in (
        (ahead, Delivered(failed=1, error="timeout")), (behind, Delivered(sent=1)), (ahead, Delivered(sent=1)),
        (behind, Delivered(dropped=1)), (behind, Delivered(sent=1, failed=1)),
    ):  # fmt: skip
        store.note_delivery(SLACK, what)
        failing += [row.failing for row in store.deliveries()]
    assert [True, False, False, True, False] == failing


@pytest.mark.parametrize("lease", ["", "&lease=user"])
def test_the_doctor_shows_a_sender_that_fails(
    lease: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guard's notifier could not reach its receiver; another process is told, leased or not."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    table = new_table()
    shared: Any = open_dynamodb(None, table=table)
    store = lease_of(shared, system_ms) if lease else shared
    hook = Webhook("http://127.0.0.1:9/hook", secret="whsec_" + "QUJD" * 8, timeout_s=0.2)
    notifier = Notifier(hook, attempts_max=1, pause=lambda _: None)
    limits = Limits(run=None, month="0.01", steps=None)
    with Guard(limits, user="alice", store=store, prices=PRICES, sinks=[notifier]) as guard:
        agent = guard.run()
        agent.after_model(agent.before_model(cent_call()), done())
        guard.flush()
        notifier.flush()
    store.close()

    url = f"dynamodb://{table}?region={REGION}&endpoint={ENDPOINT}{lease}"
    assert NEGATIVE == run(["doctor", "--store", url, "--json"])
    found = {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "problem" == found["notifications"]["state"]
    assert "webhook 127.0.0.1: 0 sent, 1 failed" in found["notifications"]["detail"]
    assert "store table" in found
    open_dynamodb(None, table=table).note_delivery("webhook 127.0.0.1", Delivered(sent=1))
    run(["doctor", "--store", url, "--json"])
    found = {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "ok" == found["notifications"]["state"]
    assert OK == run(["budget", "show", "user:alice", "--store", url])
