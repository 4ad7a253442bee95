"""
A gateway and DynamoDB Local under steady load and steady trouble, for half an hour.

    .ci/dynamodb python tests/gateway_soak.py --minutes 30
    .ci/dynamodb python tests/gateway_soak.py --minutes 1 --rate 10

Requests come at a steady rate, whatever becomes of those before them: conversations of six turns, some of them to a
model whose provider fails. Between the gateway and the table stands a proxy that loses requests, loses answers and
throttles. What must hold in the end:

- the ledger is the provider's bill to the picodollar: nothing lost, nothing doubled;
- nothing is held, four requests of five are answered, and each kind of trouble came;
- from the third minute on, memory has grown by less than 5 MB;
- the last third's p99 is within 1.5 times of the first third's (a minute alone is at the mercy of what else runs).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import aiohttp
from aiohttp import web

from gateway_storm import books, dynamodb
from rr_serve import Home, Served
from runrails.testing.provider import Delay, Error, FakeProvider, Text

CENT = 10**10
GROWTH_BYTES_MAX = 5 * 2**20
P99_RATIO_MAX = 1.5
ANSWERED_SHARE_MIN = 0.8
"""One request in twenty goes to a provider that fails, and some meet trouble; were more refused, nothing was tried."""
SETTLED_MINUTE = 2
"""Minutes before this one fill caches and pools."""
TURNS = 6
_FATES = (("request_lost", 0.01), ("response_lost", 0.01), ("throttled", 0.02))
_THROTTLED = json.dumps({"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slow down"})


class Minute(NamedTuple):
    """What a minute was like."""

    answers: Counter[str]
    times_ms: list[float]
    memory_bytes: int

    @property
    def p99_ms(self) -> float:
        return percentile(self.times_ms, 0.99)

    def row(self, number: int) -> str:
        told = ", ".join(f"{status} {count}" for status, count in sorted(self.answers.items()))
        p50 = percentile(self.times_ms, 0.5)
        return f"{number:>6}  {told:<28} {p50:>7.1f} {self.p99_ms:>8.1f} {self.memory_bytes / 2**20:>8.1f}"


def percentile(times: list[float], share: float) -> float:
    """The time within which this share of requests was answered."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] if times else 0.0


class Trouble:
    """A proxy before DynamoDB Local, in a thread of its own."""

    def __init__(self, target: str, seed: int) -> None:
        self.target = target
        self.fates: Counter[str] = Counter()
        self.over = False
        self.url = ""
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._session: Any = None

    def _fate(self) -> str:
        drawn = self._rng.random()
        for fate, share in () if self.over else _FATES:
            drawn -= share
            if drawn < 0:
                return fate
        return "ok"

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body, fate = await request.read(), self._fate()
        self.fates[fate] += 1
        if fate == "throttled":
            return web.Response(status=400, text=_THROTTLED, content_type="application/x-amz-json-1.0")
        if fate == "request_lost":
            return self._cut(request)
        headers = {name: text for name, text in request.headers.items() if name.lower() != "host"}
        async with self._session.post(self.target, data=body, headers=headers) as answer:
            told, status = await answer.read(), answer.status
        if fate == "response_lost":
            return self._cut(request)
        kept = {name: text for name, text in answer.headers.items() if name.lower() in {"x-amz-crc32", "date"}}
        return web.Response(status=status, body=told, headers=kept, content_type="application/x-amz-json-1.0")

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        """Nobody hears of what is answered after this."""
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    @contextmanager
    def __call__(self) -> Iterator[Trouble]:
        ready = threading.Event()

        async def end() -> None:
            await self._session.close()
            self._loop.stop()

        async def serve() -> None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
            app = web.Application(client_max_size=2**24)
            app.router.add_post("/", self._pass)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.create_task(serve())
            self._loop.run_forever()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(30)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(end(), self._loop)
            thread.join(10)


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4_096


async def converse(session: Any, url: str, key: str, told: Counter[str], times: list[float], number: int) -> None:
    """A conversation; a turn that is refused is asked again in the next one."""
    messages: list[dict[str, str]] = []
    for turn in range(TURNS):
        model = "fake-broken" if (number * TURNS + turn) % 20 == 0 else "fake-flat"
        asked = [*messages, {"role": "user", "content": f"Question {number}.{turn}"}]
        began = time.monotonic()
        try:
            async with session.post(
                f"{url}/v1/chat/completions", json={"model": model, "messages": asked, "max_tokens": 16},
                headers={"x-api-key": key},
            ) as answer:  # fmt: skip
                body = await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            told[type(error).__name__] += 1
            continue
        told[str(answer.status)] += 1
        if answer.status == 200:
            times.append(1_000 * (time.monotonic() - began))
            messages = [*asked, body["choices"][0]["message"]]
        await asyncio.sleep(0.2)


async def load(served: Served, key: str, *, minutes: int, rate: float) -> list[Minute]:
    """Conversations at a steady rate, and what each minute was like."""
    found: list[Minute] = []
    running: set[asyncio.Task[None]] = set()
    number = 0
    print("minute  answers                       p50 ms   p99 ms   MB", flush=True)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
    ) as session:
        for minute in range(minutes):
            told: Counter[str] = Counter()
            times: list[float] = []
            ends = time.monotonic() + 60
            while time.monotonic() < ends:
                task = asyncio.create_task(converse(session, served.url, key, told, times, number))
                running.add(task)
                task.add_done_callback(running.discard)
                number += 1
                await asyncio.sleep(TURNS / rate)
            found.append(Minute(told, times, memory_bytes(served.process.pid)))
            print(found[-1].row(minute + 1), flush=True)
        await asyncio.gather(*running)
    return found


def faults_of(minutes: list[Minute]) -> Iterator[str]:
    """What must hold of time and memory, and does not."""
    settled = minutes[SETTLED_MINUTE:]
    third = max(1, len(settled) // 3)
    if settled:
        growth = settled[-1].memory_bytes - settled[0].memory_bytes
        print(f"memory grew by {growth / 2**20:.1f} MB from minute {SETTLED_MINUTE + 1} on")
        if growth >= GROWTH_BYTES_MAX:
            yield "memory grows"
        first, last = (percentile([each for minute in part for each in minute.times_ms], 0.99)
                       for part in (settled[:third], settled[-third:]))  # fmt: skip
        print(f"p99 {first:.1f} ms in the first third, {last:.1f} ms in the last: {last / first:.2f} times")
        if last > P99_RATIO_MAX * first:
            yield "it becomes slower"


def main() -> int:
    """One soak, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    url, signed = dynamodb()
    endpoint = url.rpartition("endpoint=")[2]
    script = {"fake-flat": Delay(50, then=Text("All is well.")), "fake-broken": Error(500, message="no")}
    limits = {"RUNRAILS_RUN_BUDGET": "none", "RUNRAILS_STEPS": "none", "RUNRAILS_MONTH_BUDGET": "1000000"}
    limits |= {"RUNRAILS_KEY_PEPPERS": "p1:env:SOAK_PEPPER", "SOAK_PEPPER": "vX2k-9QwLr_7TzB4mN1cYh8sUe5oPj3d"}
    with (
        tempfile.TemporaryDirectory() as directory,
        FakeProvider(script) as provider,
        Trouble(endpoint, asked.seed)() as trouble,
    ):
        troubled = url.replace(endpoint, trouble.url)
        home = Home(Path(directory), provider, RUNRAILS_STORE=troubled, **limits, **signed)
        (home.folder / "prices.toml").write_text(
            '[prices."fake-flat"]\ncall = "0.01"\n[prices."fake-broken"]\ncall = "0.01"\n'
        )
        key = home.key()
        with home.serve("--log", "off") as served:
            minutes = asyncio.run(load(served, key, minutes=asked.minutes, rate=asked.rate))
            trouble.over = True
        provider.wait_idle()
        billed = provider.bill.total_pusd()
        found = list(faults_of(minutes))
    spent, held, rows = books(url, 0)
    answered = sum(minute.answers["200"] for minute in minutes)
    print(f"{answered} answered; {dict(trouble.fates)}")
    print(f"billed {billed}, in the ledger {spent} in {rows} rows, held {held}")
    if spent != billed:
        found.append(f"the ledger differs from the bill by {spent - billed} picodollars")
    asked_for = sum(sum(minute.answers.values()) for minute in minutes)
    if answered < ANSWERED_SHARE_MIN * max(1, asked_for):
        found.append(f"only {answered} of {asked_for} requests were answered")
    if not all(trouble.fates[fate] for fate, _ in _FATES):
        found.append("some trouble never came")
    if held:
        found.append("money is held")
    print("\n".join(f"FAULT: {each}" for each in found) or "all holds")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
