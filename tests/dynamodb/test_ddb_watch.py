"""`runrails watch` on DynamoDB: the runs of other processes, read and nothing else."""

from __future__ import annotations

from rr_core import Bench, cent_call, model_step
from rr_dynamo import FaultyClient, needs_server, open_dynamodb
from runrails import Limits
from runrails.cli.watch import look
from runrails.clocks import system_ms

pytestmark = needs_server


def test_runs_of_other_processes_are_seen_and_nothing_is_written() -> None:
    """What is in flight, what was spent of which limit, and no run that has ended; the table is not read."""
    client = FaultyClient(lambda operation, count: "ok")
    store = open_dynamodb(None, client=lambda: client)
    bench = Bench(Limits(run="5.00"), store=store)
    bench.clock.advance(system_ms() - bench.clock())
    with bench.guard.run("ended", id="ended") as ended:
        model_step(ended)
    busy = bench.guard.run("busy", id="busy")
    model_step(busy)
    busy.before_model(cent_call())
    client.sent.clear()
    seen = look(store, system_ms(), window_ms=60_000)
    assert {operation for operation, _ in client.sent} <= {"Query", "GetItem", "BatchGetItem", "TransactGetItems"}
    assert len(client.sent) <= 24
    assert seen.only_open
    ((running, balance),) = seen.runs
    assert ("busy", 1, 1, 10**10) == (running.run, running.calls, running.in_flight, running.held_pusd)
    assert (10**10, 5 * 10**12) == (balance.spent, balance.limit)
