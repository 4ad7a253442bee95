"""
Reserve and settle over four scopes on DynamoDB Local, next to a bare UpdateItem of the same client in the same run.

Usage: .ci/dynamodb python tests/benchmarks/bench_dynamodb.py [--json]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rr_bench import Row, main, percentile

from rr_dynamo import ENDPOINT, REASON, new_client, new_table, open_dynamodb
from runrails.ids import call_id, run_id
from runrails.ledger import Account, CallFacts, Hold, Reservation, ResultFacts
from runrails.usage import Usage

CENT = 10**10
CALLS = 400
WARM_UP = 100
RUN = run_id("alice")
SCOPES = (
    Account(f"run:{RUN}", "-"), Account("user:alice", "2026-11"), Account("key:k1", "2026-11"),
    Account("org:o", "2026-11"),
)  # fmt: skip
FACTS = CallFacts(user="alice", run=RUN, key="k1", org="o", provider="openai", model="gpt-4o-mini")
RESULT = ResultFacts(usage=Usage(input_tokens=1_200, output_tokens=300), duration_ms=900)


def measure() -> list[Row]:
    """Each on its turn, so that a noisy moment meets all."""
    if not ENDPOINT:
        raise SystemExit(REASON)
    client, table = new_client(), new_table()
    store = open_dynamodb(None, table=table, client=lambda: client)
    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object], number: int) -> None:
        began = time.perf_counter()
        work()
        if number >= WARM_UP:
            times.setdefault(name, []).append(time.perf_counter() - began)

    def bare() -> None:
        client.update_item(
            TableName=table, Key={"pk": {"S": "bare"}, "sk": {"S": "0"}}, UpdateExpression="ADD held :a",
            ExpressionAttributeValues={":a": {"N": str(CENT)}},
        )  # fmt: skip

    for number in range(CALLS + WARM_UP):
        for count in (4, 1):
            name = call_id("alice", RUN)
            holds = tuple(Hold(account, CENT, 10**18) for account in SCOPES[:count])
            timed("bare", bare, number)
            timed(f"reserve {count}", lambda n=name, h=holds: store.reserve(Reservation(n, h, facts=FACTS)), number)  # type: ignore[misc]
            timed(f"settle {count}", lambda n=name: store.settle(n, CENT // 2, result=RESULT), number)  # type: ignore[misc]
    middle = {name: percentile(sorted(seconds), 50) for name, seconds in times.items()}
    late = {name: percentile(sorted(seconds), 99) for name, seconds in times.items()}
    rows = [Row("DynamoDB Local: bare UpdateItem", middle["bare"] * 1e3, "ms")]
    for name, gate in (("reserve 4", 2.5), ("settle 4", None), ("reserve 1", 2.5), ("settle 1", None)):
        verb, count = name.split()
        title = f"DynamoDB Local: {verb}, {count} scope{'s' if count != '1' else ''}"
        rows.append(Row(title, middle[name] * 1e3, "ms", middle[name] / middle["bare"], "bare UpdateItem", gate))
    rows.append(
        Row("DynamoDB Local: reserve 4, the slowest hundredth", late["reserve 4"] * 1e3, "ms",
            late["reserve 4"] / late["bare"], "bare's slowest hundredth")
    )  # fmt: skip
    return rows


if __name__ == "__main__":
    raise SystemExit(main(measure))
