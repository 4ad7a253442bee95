"""Leases on DynamoDB: one request each for a slice and for its calls, lost answers, and ids that others have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rr_dynamo import Fate, FaultyClient, needs_server, new_table, open_dynamodb
from rr_lease import lease_of
from rr_ledger import CENT, DOLLAR, FOUR, ORG, START_MS, amounts, booking, facts
from runrails.clocks import system_ms
from runrails.ledger import Reserved, ResultFacts
from runrails.stores.migrating import migrate
from runrails.testing import ManualClock

pytestmark = needs_server
SLICE = 50 * CENT


def test_a_slice_and_its_calls_are_a_request_each() -> None:
    """Fifty calls over four scopes make two transactions, and nothing is read."""
    client = FaultyClient(lambda operation, count: "ok")
    shared = open_dynamodb(ManualClock(START_MS), client=lambda: client)
    store = lease_of(shared, ManualClock(START_MS))
    for n in range(50):
        assert isinstance(store.reserve(booking(f"c{n}", CENT, *FOUR, limit=100 * DOLLAR, facts=facts())), Reserved)
        store.settle(f"c{n}", CENT)
    client.log.clear()
    store.write()
    assert ["TransactWriteItems"] == [operation for operation, _ in client.log]
    assert [(SLICE, 0)] * 4 == [amounts(shared, account) for account in FOUR]
    store.close()


@pytest.mark.parametrize("fate", ["response_lost", "request_lost", "throttled", "conflict"])
def test_every_other_request_fails(fate: Fate) -> None:
    """The same is in the books, once, with the calls in flight handed over and settled."""
    table, clock = new_table(), ManualClock(START_MS)
    client = FaultyClient(lambda operation, count: fate if count % 2 == 0 else "ok")
    store = lease_of(open_dynamodb(clock, table=table, client=lambda: client), clock)
    for n in range(6):
        store.reserve(booking(f"c{n}", CENT, *FOUR, limit=100 * DOLLAR, facts=facts()))
        if n < 4:
            store.settle(f"c{n}", n)
        if n == 2:
            store.write()
    clock.advance(2_000)
    store.tick()
    for n in (4, 5):
        store.settle(f"c{n}", n)
    store.close()
    shared = open_dynamodb(clock, table=table)
    assert [(15, 0)] * 4 == [amounts(shared, account) for account in FOUR]
    assert [(f"c{n}", "settled", n) for n in range(6)] == [
        (record.id, record.state, record.actual_pusd) for record in shared.usage()
    ]
    shared.close()


def test_an_id_that_others_have_stays_charged() -> None:
    """It is noticed when the call is written; the other calls of the same draw are written all the same."""
    table, clock = new_table(), ManualClock(START_MS)
    shared = open_dynamodb(clock, table=table)
    shared.reserve(booking("c1", 7, ORG))
    store = lease_of(open_dynamodb(clock, table=table), clock)
    for n in range(3):
        store.reserve(booking(f"c{n}", CENT, *FOUR, limit=100 * DOLLAR))
        store.settle(f"c{n}", n + 1)
    store.write()
    store.close()
    assert [(6, 0), (6, 7)] == [amounts(shared, account) for account in (FOUR[1], ORG)]
    shared.close()


def test_a_crash_is_charged_and_corrected_exactly() -> None:
    """What was not written of a slice expires with it; its owner, if it lives, puts it right."""
    table, clock, monotonic = new_table(), ManualClock(START_MS), ManualClock(0)
    store = lease_of(open_dynamodb(clock, table=table), clock, monotonic=monotonic)
    for n in range(4):
        store.reserve(booking(f"c{n}", CENT, *FOUR, limit=100 * DOLLAR, facts=facts()))
        store.settle(f"c{n}", CENT)
        if n == 1:
            store.write()
    other = open_dynamodb(clock, table=table)
    clock.advance(60_000)
    assert 1 == len(other.expire().ids)
    assert [(SLICE, 0)] * 4 == [amounts(other, account) for account in FOUR]
    store.write()
    assert [(SLICE, 0)] * 4 == [amounts(other, account) for account in FOUR]
    store.close()
    assert [(4 * CENT, 0)] * 4 == [amounts(other, account) for account in FOUR]
    other.close()


@pytest.mark.parametrize("off_ms", [-120_000, 120_000])
def test_a_call_that_is_handed_over_ends_by_the_servers_time(off_ms: int) -> None:
    """Its host's clock is minutes off: it neither ends while it is under way, nor lives for minutes more."""
    table, began_ms = new_table(), system_ms()
    store = lease_of(open_dynamodb(None, table=table), lambda: system_ms() + off_ms, owns_store=False)
    limit = 100 * DOLLAR
    store.reserve(booking("a", CENT, *FOUR, limit=limit, facts=facts(), ttl_ms=30_000, on_expiry="release"))
    store.close()

    (held,) = [record for record in open_dynamodb(None, table=table).records() if record.id == "a"]
    until_ms = system_ms()
    # The server's time is known to a second, and to how long its answers took.
    assert began_ms + 30_000 <= held.expires_ms <= until_ms + 32_000 + (until_ms - began_ms)
    assert ("held", CENT) == (held.state, held.holds[0].amount)


def test_calls_with_very_long_facts_are_written_all_the_same() -> None:
    """More than a transaction takes at once: their slice is closed with the last of them, and nothing is charged."""
    clock, letters = ManualClock(START_MS), "\U0001d518" * 4_000
    shared = open_dynamodb(clock)
    store = lease_of(shared, clock, owns_store=False)
    long = replace(facts(), user_agent=letters, agent="", endpoint="", model="m")
    for n in range(48):
        store.reserve(booking(f"c{n}", CENT, *FOUR, limit=100 * DOLLAR, facts=long))
        store.settle(f"c{n}", CENT, result=ResultFacts(model=letters))
    store.close()
    assert [(48 * CENT, 0)] * 4 == [amounts(shared, account) for account in FOUR]
    assert 48 == sum(1 for _ in shared.usage())
    other = open_dynamodb(clock)
    assert 49 == migrate(shared, other).records
