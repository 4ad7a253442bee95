"""Rate limits in DynamoDB, shared by several stores: one bucket, and one write a decision."""

from __future__ import annotations

import itertools
import threading
from functools import partial

from rr_dynamo import FaultyClient, needs_server, new_client, new_table, open_dynamodb
from rr_ledger import START_MS
from rr_rates import MINUTE_MS, ask, granted, limited, request
from runrails.rates import Cost, Figure, Granted, RateLimiter
from runrails.testing import ManualClock

pytestmark = needs_server


def test_two_hosts_share_one_bucket() -> None:
    """What one has taken the other has not, although it last heard otherwise."""
    clock, table = ManualClock(START_MS), new_table()
    one, other = (open_dynamodb(clock, table=table).rates() for _ in range(2))
    who = ask(requests=4, tokens=400)
    for engine in (one, other, one, other):
        granted(request(engine, who, tokens=100))
    for engine in (one, other):
        assert "requests" == limited(request(engine, who, tokens=100)).unit
    clock.advance(MINUTE_MS // 4)
    assert (Figure(4, 0, 60_000), Figure(400, 0, 60_000)) == granted(request(one, who, tokens=100))[:2]


def test_what_is_given_back_on_one_host_is_there_on_the_other() -> None:
    """A refusal is remembered for a second at most."""
    clock, table = ManualClock(START_MS), new_table()
    mono = ManualClock()
    one = open_dynamodb(clock, table=table).rates()
    from runrails_aws.dynamodb.calling import Patience

    other = open_dynamodb(clock, table=table, patience=Patience(monotonic=mono)).rates()
    who = ask(tokens=100)
    first = granted(request(one, who, tokens=100))
    limited(request(other, who, tokens=10))
    one.give_back(first, Cost(0, 50))
    limited(request(other, who, tokens=10))
    mono.advance(1_000)

    granted(request(other, who, tokens=50))
    limited(request(other, who, tokens=1))


def test_four_hosts_and_sixteen_threads() -> None:
    """At most burst and refill and 98 % of it, at hardly more than one write an attempt."""
    lock, ticks = threading.Lock(), itertools.count()
    looks_a_ms, per_minute, burst, looks = 1, 6_000, 40, 4_000

    def clock() -> int:
        with lock:
            return START_MS + next(ticks) // looks_a_ms

    table = new_table()
    clients = [FaultyClient(lambda *_: "ok") for _ in range(4)]
    engines: list[RateLimiter] = [
        open_dynamodb(clock, table=table, client=partial(lambda each: each, client)).rates() for client in clients
    ]
    counts = [[0, 0] for _ in range(16)]

    def hammer(place: int) -> None:
        who = ask(requests=per_minute, requests_burst=burst, tokens=10 * per_minute, tokens_burst=10 * burst)
        while clock() < START_MS + looks // looks_a_ms:
            counts[place][0] += 1
            counts[place][1] += isinstance(request(engines[place % 4], who, tokens=10), Granted)

    threads = [threading.Thread(target=hammer, args=(place,)) for place in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    allowed = burst + per_minute * (clock() - START_MS) / MINUTE_MS
    attempts, passed = (sum(column) for column in zip(*counts, strict=True))
    assert allowed * 0.98 <= passed <= allowed
    assert sum(client.writes() for client in clients) <= 1.05 * attempts


def test_it_works_by_the_servers_own_time() -> None:
    """Without a clock of its own: a burst, then a wait of about the time that is told."""
    engine = open_dynamodb(None).rates()
    who = ask(requests=6, requests_burst=3)
    for _ in range(3):
        granted(request(engine, who))
    wait_ms = limited(request(engine, who)).retry_after_ms

    assert wait_ms is not None and 5_000 <= wait_ms <= 10_000


def test_an_item_is_small_and_goes_by_itself() -> None:
    """One item a scope, with a time to live beyond the largest burst."""
    clock, table = ManualClock(START_MS), new_table()
    engine = open_dynamodb(clock, table=table).rates()
    for _ in range(3):
        granted(request(engine, ask(requests=10), ask("key:k1", tokens=10), tokens=1))
    items = new_client().scan(TableName=table)["Items"]

    assert ["L#key:k1", "L#user:alice"] == sorted(item["pk"]["S"] for item in items)
    for item in items:
        assert {"pk", "sk", "tr", "tt", "ttl"} == item.keys()
        assert int(item["ttl"]["N"]) >= START_MS // 1_000 + 86_400
