"""
Many callers at once on a budget that pays for few of them, through `runrails serve` with several workers.

    python tests/gateway_storm.py
    python tests/gateway_storm.py --kills 3
    .ci/dynamodb python tests/gateway_storm.py --engine dynamodb

Every call costs a cent, and there is money for 137. The budget is that of one run, which all requests name, or of a
calendar month of the key. With `--kills` workers are ended by signal 9 while requests are under way; their holds are
then expired by a clock that runs ahead. What must hold:

- no more calls reach the provider than there is money for;
- the ledger is the provider's count times the price, to the picodollar; with kills each call that reached the provider
  is in it, by what it cost or by its hold, and it is still within the budget;
- nothing is held in the end, and whoever was refused was told so by a 402 that no SDK tries again. As long as money is
  held that may yet come back (with kills two minutes, until the holds of the dead expire) some are told 429 instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from rr_serve import Home, Served
from runrails.clocks import system_ms
from runrails.ledger import FullStore
from runrails.stores import open_store
from runrails.testing.provider import Delay, FakeProvider, Text

CENT = 10**10
CALLS = 137
LATER_MS = 3_600_000
"""Longer than any hold lives that nobody keeps alive."""
_LENGTH = re.compile(rb"content-length: (\d+)")
_RUN = "storm"


class Storm(NamedTuple):
    """What came of one."""

    answers: Counter[str]
    """By status; `lost` are those whose connection broke."""
    sent_again: int
    """Refusals that an SDK would have tried again."""
    upstream: int
    spent: int
    rows: int
    seconds: float
    killed: int
    events: Counter[str]
    """What the gateway warned of."""
    ends: Counter[str]
    """How the calls in the ledger ended."""

    def faults(self, calls: int) -> list[str]:
        """What must hold and does not."""
        found: list[str] = []
        if self.upstream > calls:
            found.append(f"{self.upstream} calls reached the provider, {calls} were paid for")
        if self.spent > calls * CENT:
            found.append(f"{self.spent} is more than the budget")
        if self.killed == 0 and self.spent != self.upstream * CENT:
            found.append(f"the ledger says {self.spent}, the provider {self.upstream * CENT}")
        if self.spent < self.upstream * CENT:
            found.append(f"the ledger says {self.spent}, which is less than the provider's {self.upstream * CENT}")
        if self.spent != self.rows * CENT:
            found.append(f"{self.rows} rows do not add up to {self.spent}")
        refusals = set(self.answers) - {"200"}
        if self.killed == 0 and self.answers["200"] != self.upstream:
            found.append(f"{self.upstream} calls were sent, {self.answers['200']} were answered")
        if refusals == {"402"} and self.upstream != calls:
            found.append(f"only {self.upstream} of {calls} calls were made")
        if refusals - {"402", "429", "503"} - ({"lost"} if self.killed else set()):
            found.append("some were neither answered nor refused")
        if self.sent_again:
            found.append(f"{self.sent_again} refusals would be sent again")
        return found


async def caller(port: int, sent: bytes, work: list[None], told: Counter[str], again: list[None]) -> None:
    """Ask until nothing is left to ask, over one connection; a new one where it breaks."""
    while work:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        try:
            while work:
                work.pop()
                told["lost"] += 1
                writer.write(sent)
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                if length is not None:
                    await reader.readexactly(int(length[1]))
                status = head[9:12].decode()
                told["lost"] -= 1
                told[status] += 1
                if status == "402" and b"x-should-retry: false" not in head:
                    again.append(None)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def killer(served: Served, kills: int, done: Counter[str], total: int) -> int:
    """Kill workers while there is something to lose. How many there were."""
    killed = 0
    rng = random.Random(total)
    began = time.monotonic()
    while killed < kills and sum(done.values()) < total and time.monotonic() - began < 60:
        await asyncio.sleep(0.02)
        workers = served.workers()
        if done["200"] >= (killed + 1) * 10 and workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed += 1
    return killed


async def blow(
    served: Served, key: str, *, requests: int, connections: int, kills: int
) -> tuple[Counter[str], int, int]:
    """All requests over so many connections."""
    body = json.dumps(
        {"model": "fake-flat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    ).encode()
    run = f"x-runrails-run: {_RUN}\r\n"
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n{run}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    work: list[None] = [None] * requests
    told: Counter[str] = Counter()
    again: list[None] = []
    killing = asyncio.create_task(killer(served, kills, told, requests))
    sent = head.encode() + body
    await asyncio.gather(*[caller(served.port, sent, work, told, again) for _ in range(connections)])
    return +told, len(again), await killing


def books(url: str, ahead_ms: int) -> tuple[int, int, int]:
    """
    What the ledger says: spent, held, and how many calls it charges.

    What was never sent is charged nothing, whether its hold was given back in time or, by a store that could not
    keep up, after it had expired.
    """
    store: Any = open_store(url, clock=lambda: system_ms() + ahead_ms)
    assert isinstance(store, FullStore)
    try:
        while store.expire().ids:
            pass
        balances = [each for each in store.balances() if each.account.scope.startswith("user:")]
        return (
            sum(each.spent for each in balances),
            sum(each.held for each in store.balances()),
            sum(bool(row.actual_pusd) for row in store.usage()),
        )
    finally:
        store.close()


def ends_of(url: str) -> Counter[str]:
    """How the calls in the ledger ended."""
    store: Any = open_store(url)
    try:
        return Counter(f"{row.state} {'' if row.result is None else row.result.end}" for row in store.usage())
    finally:
        store.close()


def storm(
    folder: Path, url: str, *, scope: str, requests: int, connections: int, workers: int, kills: int = 0,
    calls: int = CALLS, delay_ms: int = 60, **settings: str,
) -> Storm:  # fmt: skip
    """One whole storm. Raises AssertionError if anything is held in the end."""
    dollars = f"{calls // 100}.{calls % 100:02d}"
    limits = {"RUNRAILS_RUN_BUDGET": dollars if scope == "run" else "none", "RUNRAILS_STEPS": "none"}
    limits |= {"RUNRAILS_KEY_PEPPERS": "p1:env:STORM_PEPPER", "STORM_PEPPER": "vX2k-9QwLr_7TzB4mN1cYh8sUe5oPj3d"}
    with FakeProvider(Delay(delay_ms, then=Text("All is well."))) as provider:
        home = Home(folder, provider, RUNRAILS_STORE=url, **limits, **settings)
        key = home.key(*(("--month", dollars) if scope == "key" else ()))
        began = time.monotonic()
        with home.serve("--workers", str(workers), "--log", "off") as served:
            answers, again, killed = asyncio.run(
                blow(served, key, requests=requests, connections=connections, kills=kills)
            )  # fmt: skip
            served.wait_for(workers)
            served.end()
            warned = Counter(
                re.findall(r"runrails\.(\w+)", " ".join(line.get("message", "") for line in served.lines()))
            )
        seconds = time.monotonic() - began
        provider.wait_idle()
        upstream = sum(provider.requests.values())
    spent, held, rows = books(url, LATER_MS if kills else 0)
    assert held == 0, f"{held} is still held"
    return Storm(answers, again, upstream, spent, rows, seconds, killed, warned, ends_of(url))


def main() -> int:
    """Both scopes, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("sqlite", "dynamodb"), default="sqlite")
    parser.add_argument("--scope", choices=("run", "key", "both"), default="both")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=256, help="of all callers: 4 workers x 64")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="workers that are ended by signal 9")
    asked = parser.parse_args()
    failed = False
    for scope in ("run", "key") if asked.scope == "both" else (asked.scope,):
        with tempfile.TemporaryDirectory() as directory:
            url, settings = f"sqlite:///{directory}/ledger.db?synchronous=normal", {}
            if asked.engine == "dynamodb":
                url, settings = dynamodb()
            came = storm(
                Path(directory), url, scope=scope, requests=asked.requests, connections=asked.connections,
                workers=asked.workers, kills=asked.kills, **settings,
            )  # fmt: skip
        faults = came.faults(CALLS)
        failed = failed or bool(faults)
        print(
            f"{asked.engine}, budget of the {scope}: {dict(came.answers)}; {came.upstream} reached the provider, "
            f"{came.rows} in the ledger, ${came.spent / 10**12:.2f} of ${CALLS / 100:.2f}; {came.killed} killed; "
            f"{came.seconds:.1f} s; warned of {dict(came.events)}; "
            f"rows {dict(came.ends)}{''.join(f'; FAULT: {each}' for each in faults)}",
            flush=True,
        )
    return 1 if failed else 0


def dynamodb() -> tuple[str, dict[str, str]]:
    """A fresh table on DynamoDB Local, and what its clients need."""
    from rr_dynamo import ENDPOINT, REASON, REGION, new_table

    if not ENDPOINT:
        raise SystemExit(REASON)
    signed = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    os.environ |= signed
    return f"dynamodb://{new_table()}?region={REGION}&endpoint={ENDPOINT}", signed


if __name__ == "__main__":
    raise SystemExit(main())
