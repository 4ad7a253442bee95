"""
One user's month among 100,000 records of a ledger on DynamoDB Local: asked for by key, next to reading the whole table.

How long a scan takes there says nothing of DynamoDB, since each of its pages takes DynamoDB Local seconds: how many
pages there would be is worked out, by the sizes that are billed. Takes some minutes, most of them to write the records.

Usage: .ci/dynamodb python tests/benchmarks/bench_usage.py [--json]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rr_bench import Row, main

from rr_dynamo import ENDPOINT, REASON, REGION, FaultyClient, new_table, open_dynamodb
from runrails.clocks import system_ms
from runrails.ids import call_id, run_id
from runrails.ledger import Account, CallFacts, Hold, Reservation, ResultFacts
from runrails.periods import month_of
from runrails.stores.draws import Drawn
from runrails.usage import Usage
from runrails_aws.dynamodb.drawing import call_item
from runrails_aws.dynamodb.units import item_bytes
from runrails_aws.dynamodb.wire import Item

CENT = 10**10
RECORDS = 100_000
USERS = 100
CALLS_A_RUN = 20
PAGE_BYTES = 1 << 20
GATE = 0.2
"""A hundredth of the records must not take a fifth of the requests that all of them take."""


def records(now_ms: int) -> Iterator[Item]:
    """Items of settled calls, a hundred users', twenty calls a run."""
    result = ResultFacts(usage=Usage(input_tokens=1_200, output_tokens=300), model="gpt-4o-mini", duration_ms=900)
    for number in range(RECORDS // CALLS_A_RUN):
        user = f"user-{number % USERS}"
        run = run_id(user)
        holds = tuple(Hold(Account(scope, "-"), CENT) for scope in (f"run:{run}", f"user:{user}", "key:k1", "org:o"))
        for step in range(CALLS_A_RUN):
            facts = CallFacts(
                user=user, run=run, step=step, key="k1", org="o", provider="openai", model="gpt-4o-mini",
                endpoint="/v1/chat/completions", price_card="d" * 64, input_bound_tokens=34,
            )  # fmt: skip
            call = Drawn(
                Reservation(call_id(user, run), holds, facts=facts), "settled", CENT, CENT // 2, now_ms, now_ms,
                result=result,
            )  # fmt: skip
            yield call_item(call, number * CALLS_A_RUN + step, "w" * 32)


def patient_client() -> Any:
    """A client that waits for a busy server."""
    from boto3.session import Session
    from botocore.config import Config

    session = Session(aws_access_key_id="local", aws_secret_access_key="local")
    config = Config(read_timeout=60, max_pool_connections=8)
    return session.client("dynamodb", region_name=REGION, endpoint_url=ENDPOINT, config=config)


def fill(table: str) -> int:
    """Write them, 25 at a time; how many bytes they are."""
    client = patient_client()

    def put(group: list[Item]) -> None:
        left: object = {table: [{"PutRequest": {"Item": item}} for item in group]}
        while left:
            left = client.batch_write_item(RequestItems=left).get("UnprocessedItems")

    with ThreadPoolExecutor(8) as pool:
        items = list(records(system_ms()))
        list(pool.map(put, [items[start : start + 25] for start in range(0, len(items), 25)]))
    return sum(map(item_bytes, items))


def measure() -> list[Row]:
    """Each asked five times; the quickest counts."""
    if not ENDPOINT:
        raise SystemExit(REASON)
    table = new_table()
    pages = -(-fill(table) // PAGE_BYTES)
    client = FaultyClient(lambda operation, count: "ok")
    store = open_dynamodb(None, table=table, client=lambda: client)
    month = month_of(system_ms())
    run = next(iter(store.usage(user="user-7", period=month))).facts.run
    rows = [Row(f"DynamoDB: pages of a table of {RECORDS:,} records", pages, "requests")]
    for title, query, expected in (
        ("a user's month", {"user": "user-7", "period": month}, RECORDS // USERS), ("a run", {"run": run}, CALLS_A_RUN),
    ):  # fmt: skip
        quickest = float("inf")
        for _ in range(5):
            client.sent.clear()
            began = time.perf_counter()
            count = sum(1 for _ in store.usage(**query))
            quickest = min(quickest, time.perf_counter() - began)
            assert expected == count, (title, count)
        asked, yardstick = len(client.sent), "pages of the table"
        rows += [
            Row(f"DynamoDB Local: {title}, {expected:,} records", asked, "requests", asked / pages, yardstick, GATE),
            Row(f"DynamoDB Local: {title}, {expected:,} records", quickest * 1e3, "ms"),
        ]
    return rows


if __name__ == "__main__":
    raise SystemExit(main(measure))
