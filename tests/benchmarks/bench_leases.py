"""
Leased mode next to the exact path of the same store: one hot user, four scopes, $0.01 calls, $0.50 slices.

Usage: python tests/benchmarks/bench_leases.py [STORE_URL] [--json]

Without a URL a temporary SQLite file is the shared store; DynamoDB is measured by its URL, for instance
``dynamodb://TABLE?region=eu-west-1``. Eight processes spend the same budget, first exactly and then leased, in one run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from rr_bench import Row, main, percentile

from runrails.ids import new_id
from runrails.ledger import Account, CallFacts, Hold, Refused, Reservation, ResultFacts
from runrails.stores import open_store
from runrails.stores.draws import Drawing, Drawn
from runrails.stores.leased import LeasedStore
from runrails.stores.leases import Lease
from runrails.testing import FlakyStore
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.ledger import FullStore

CENT = 10**10
LIMIT = 10**18
PROCESSES = 8
SECONDS = 4.0
CALLS = 20_000
SCOPES = (
    Account("run:r1", "-"), Account("user:hot", "2026-11"), Account("key:k1", "2026-11"), Account("org:o", "2026-11"),
)  # fmt: skip
HOLDS = tuple(Hold(account, CENT, LIMIT) for account in SCOPES)
FACTS = CallFacts(user="hot", run="r1", key="k1", org="o", provider="openai", model="gpt-4o-mini", endpoint="/v1/chat")
RESULT = ResultFacts(usage=Usage(input_tokens=1_200, output_tokens=300), duration_ms=900)
RECORDS = {"draw"}
"""The verbs that write calls; they are counted apart from those that move slices."""


class Summed(FlakyStore):
    """A store in which all calls of a slice have one record, so that slices can be measured without the records."""

    def __init__(self, store: FullStore) -> None:
        super().__init__(store)
        self._sums: dict[str, list[Drawn]] = {}

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """Kept until the slice is closed, and then the sum of them."""
        calls = [*self._sums.pop(slice_id, ()), *calls]
        if calls:
            cost = sum(call.cost for call in calls)
            calls = [calls[0]._replace(state="settled", amount=cost, actual=cost, end_ms=calls[0].at_ms)]
        if close:
            return super().draw(slice_id, calls, close=True)
        self._sums[slice_id] = calls
        return Drawing(lowered=False)


class Spent(NamedTuple):
    """What one process did."""

    calls: int
    seconds: float
    p50_s: float
    control: int
    """Round trips for slices, or for calls by themselves."""
    records: int
    """Round trips that wrote calls."""


def spend(url: str, how: str, *, seconds: float, calls_max: int = 1_000_000) -> Spent:
    """Reserve and settle for so long; what is still to be written at the end counts as well."""
    counted = (Summed if how == "summed" else FlakyStore)(open_store(url))  # type: ignore[arg-type]
    store = counted if how == "exact" else LeasedStore(counted, Lease(slice="0.50"))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < calls_max and (now := time.perf_counter()) - began < seconds:
        reservation = Reservation(new_id(), HOLDS, facts=FACTS)
        if isinstance(store.reserve(reservation), Refused):
            raise SystemExit("the budget of a benchmark is never used up")
        store.settle(reservation.id, CENT, result=RESULT)
        times.append(time.perf_counter() - now)
    store.close()
    took = time.perf_counter() - began
    verbs = Counter(verb for verb, _ in counted.log)
    records = sum(count for verb, count in verbs.items() if verb in RECORDS)
    return Spent(len(times), took, percentile(sorted(times), 50), sum(verbs.values()) - records, records)


def together(url: str, how: str) -> list[Spent]:
    """Eight processes at once: `exact`, `leased`, or leased with records `summed` up."""
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", url, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        if worker.stdout is None or worker.stdout.readline() != "ready\n":
            raise SystemExit("a worker did not start")
    for worker in workers:
        if worker.stdin is not None:
            worker.stdin.write("\n")
            worker.stdin.flush()
    found = [Spent(*json.loads(worker.communicate()[0])) for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("a worker failed")
    return found


def rate(spent: list[Spent]) -> float:
    """Calls a second of all processes together."""
    return sum(one.calls for one in spent) / max(one.seconds for one in spent)


def measure(url: str | None = None) -> list[Row]:
    """One process, and eight, on the store of that URL or on a temporary SQLite file."""
    with tempfile.TemporaryDirectory() as directory:
        place = url or f"sqlite:///{directory}/ledger.db?synchronous=normal"
        open_store(place).close()
        one = spend(place, "leased", seconds=SECONDS, calls_max=CALLS)
        alone = spend(place, "exact", seconds=SECONDS / 4)
        exact, leased, summed = [together(place, how) for how in ("exact", "leased", "summed")]
    calls = sum(each.calls for each in leased)
    control, records = sum(each.control for each in leased), sum(each.records for each in leased)
    name = "leased" if url else "leased from SQLite"
    return [
        Row(f"{name}: reserve + settle, p50", one.p50_s * 1e6, "us", one.p50_s / alone.p50_s, "the exact path", 0.5),
        Row(f"{name}: round trips for slices, a call", one.control / one.calls, ""),
        Row(f"{name}: round trips for records, a call", one.records / one.calls, ""),
        Row("exact: calls of 8 processes", rate(exact), "1/s"),
        Row(f"{name}: calls of 8 processes", rate(leased), "1/s", rate(leased) / rate(exact), "the exact path"),
        Row(f"{name}: the same without the records", rate(summed), "1/s", rate(summed) / rate(exact), "the exact path"),
        Row(f"{name}: round trips for slices, a call, 8 processes", control / calls, ""),
        Row(f"{name}: round trips for records, a call, 8 processes", records / calls, ""),
    ]


def _worker(url: str, how: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(spend(url, how, seconds=SECONDS)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _worker(sys.argv[2], sys.argv[3])
    else:
        urls = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
        raise SystemExit(main(lambda: measure(*urls)))
