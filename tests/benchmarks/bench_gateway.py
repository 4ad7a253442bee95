"""
The gateway beside a pass-through that does nothing and, if there is one, LiteLLM's proxy: CPU time, latency, memory.

    python tests/benchmarks/bench_gateway.py
    python tests/benchmarks/bench_gateway.py --litellm /path/to/venv/bin/litellm --requests 2000
    python tests/benchmarks/bench_gateway.py --soak 200000

The yardstick is the pass-through (Starlette, aiohttp, uvicorn with uvloop) in the same run. CPU time is what the
kernel counted for the gateway's process while it answered, divided by the answers: it does not depend on what else the
machine does, as times on the wall do. The gateway is `runrails serve` as a user starts it: API keys, SQLite (the disk
is waited for before a call is sent), budgets of a run and a month, the loop detector. LiteLLM's proxy is without a
database, so without keys, budgets or spend logs: its best case. Behind what has an aim stands whether it is held here;
what fails is only a ratio to the pass-through.

The extra `runrails[tokens]` is hidden from the gateway if it is installed: its tables are 64 MB of memory for each
process, which belong to whoever wants exact counts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rr_bench import Row, main, percentile
from rr_wire_load import Load, conversation, load, request

HERE = Path(__file__).parent
REQUESTS = 600
REQUESTS_TOGETHER = 300
"""Where it is one benchmark of many."""
HISTORIES = {"small": 0, "2 kB": 2_000, "26 kB": 26_000, "113 kB": 113_000}
FLOOR_MORE = 4
"""So much more for the pass-through, whose few milliseconds the kernel's clock would hardly see."""
TURNS = 20
"""Most requests of one conversation; the first is read whole, the others by what is new."""
TURN_BYTES = 920
"""What each of them has more than the one before it."""
SIDE_BY_SIDE = 30
"""Conversations at a time."""
AIMS = {"small": 0.8, "2 kB": 0.8, "26 kB": 1.5, "113 kB": 3.0, "stream": 1.2}
"""Milliseconds of CPU time a request."""
ADDED_MS, READY_MS, MEMORY_MB, GROWN_MB = 2.0, 1_500.0, 90.0, 5.0
"""What else the project wants: added to the median of one caller, until ready, memory, and its growth."""
GATES = {
    "small": 12, "quick small": 10, "2 kB": 16, "26 kB": 18, "113 kB": 16, "stream": 10, "quick stream": 8,
}  # fmt: skip
"""
How many times the pass-through's CPU time. Measured were 7.6, 6.9 and 8.5 for the first three, 9 and 8 for long
histories, 5.6 and 4.6 for streams, and up to a half more on a machine that was busy tenfold, whose caches are cold.
"""
KEY = "sk-bench-0123456789abcdefghijkl"
TICK = os.sysconf("SC_CLK_TCK")


class Served(NamedTuple):
    """A process under measurement."""

    pid: int
    port: int
    key: str
    ready_s: float

    def cpu_s(self) -> float:
        """What the kernel has counted so far, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss_mb(self) -> float:
        """What is in memory now."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1_024 if found else 0.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, probe: str, *, key: str = KEY, **env: str) -> Generator[Served]:
    """A server, from when it answers `probe` on."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, env={**os.environ, **env}, cwd=HERE, stdout=said, stderr=said)
        try:
            while not answers(port, probe):
                if child.poll() is not None or time.perf_counter() - began > 120:
                    said.seek(0)
                    raise RuntimeError(f"{command[0]} did not start:\n{said.read().decode()[-2_000:]}")
                time.sleep(0.01)
            yield Served(child.pid, port, key, time.perf_counter() - began)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


def answers(port: int, probe: str) -> bool:
    if not probe:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{probe}", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def provider() -> Generator[int]:
    port = free_port()
    with process([sys.executable, "rr_wire_load.py", str(port)], port, ""):
        yield port


@contextmanager
def floor(upstream: int) -> Generator[Served]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "rr_gateway_floor:app", "--port", str(port), "--no-access-log",
               "--log-level", "critical"]  # fmt: skip
    with process(command, port, "/", FLOOR_UPSTREAM=f"http://127.0.0.1:{upstream}/v1") as served:
        yield served


@contextmanager
def ours(upstream: int, *, synchronous: str = "full") -> Generator[Served]:
    """`runrails serve` of `runrails[gateway]` alone, with a key that was made beforehand."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "quicktok.py").write_text("raise ImportError('hidden')\n")
        upstreams = Path(directory, "upstreams.toml")
        upstreams.write_text(
            f'[[upstream]]\nname = "openai"\ndialect = "openai"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
            'provider = "openai"\nkey = "env:BENCH_KEY"\n'
        )
        env = {
            "PYTHONPATH": os.pathsep.join(filter(None, (directory, os.environ.get("PYTHONPATH")))),
            "RUNRAILS_STORE": f"sqlite:///{directory}/ledger.db?synchronous={synchronous}",
            "RUNRAILS_UPSTREAMS": str(upstreams), "BENCH_KEY": KEY,
            "RUNRAILS_RUN_BUDGET": "1000", "RUNRAILS_MONTH_BUDGET": "100000",
            "RUNRAILS_KEY_PEPPERS": "p1:env:BENCH_PEPPER", "BENCH_PEPPER": "vX2k-9QwLr_7TzB4mN1cYh8sUe5oPj3d",
        }  # fmt: skip
        program = str(Path(sys.executable).with_name("runrails"))
        made = subprocess.run(
            [program, "keys", "create", "bench", "--json"], env={**os.environ, **env}, check=True, capture_output=True
        )
        port = free_port()
        with process(
            [program, "serve", "--port", str(port)], port, "/healthz", key=json.loads(made.stdout)["key"], **env
        ) as served:
            yield served


@contextmanager
def litellm(program: str, upstream: int) -> Generator[Served]:
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "config.yaml")
        config.write_text(
            "model_list:\n- model_name: gpt-4o-mini\n  litellm_params:\n    model: openai/gpt-4o-mini\n"
            f"    api_base: http://127.0.0.1:{upstream}/v1\n    api_key: {KEY}\n"
        )
        port = free_port()
        command = [program, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
        with process(
            command, port, "/health/liveliness", LITELLM_MASTER_KEY=KEY, LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_LOG="ERROR",
        ) as served:  # fmt: skip
            yield served


class Measured(NamedTuple):
    """A round."""

    cpu_ms: float
    load: Load


def measure_one(served: Served, bodies: list[bytes], connections: int) -> Measured:
    requests = [request(body, key=served.key) for body in bodies]
    before = served.cpu_s()
    done = load(served.port, requests, connections=connections)
    if done.refused:
        raise RuntimeError(f"{len(done.refused)} of {done.requests} requests failed: {done.refused[0].decode()[:300]}")
    return Measured((served.cpu_s() - before) / done.requests * 1_000, done)


def best_of(rounds: int, measure: Callable[[], Measured]) -> Measured:
    return min((measure() for _ in range(rounds)), key=lambda each: each.cpu_ms)


def bodies_of(history: int, count: int, salt: str) -> list[bytes]:
    """Conversations side by side, turn by turn, as callers send them; on average they have that much history."""
    if not history:
        return [body for n in range(count) for body in conversation(0, 1, name=f"{salt}{n}")]
    turns = min(TURNS, 1 + 2 * history // TURN_BYTES)
    first = max(1, history - turns * TURN_BYTES // 2)
    talks = [conversation(first, turns, name=f"{salt}{n}") for n in range(max(1, count // turns))]
    together = [talks[at : at + SIDE_BY_SIDE] for at in range(0, len(talks), SIDE_BY_SIDE)]
    return [body for some in together for turn in zip(*some, strict=True) for body in turn]


def streamed(bodies: list[bytes]) -> list[bytes]:
    return [body[:-1] + b', "stream": true}' for body in bodies]


def rows_of(ground: Served, served: Served, quick: Served, other: Served | None, count: int) -> Iterator[Row]:
    """Every size of history, and streams, at 16 connections."""
    for name, history in HISTORIES.items():
        many = count if history < 10_000 else max(TURNS, count // 4)
        base = best_of(2, lambda h=history, m=many: measure_one(ground, bodies_of(h, m * FLOOR_MORE, "f"), 16))  # type: ignore[misc]
        rounds = iter(range(9))
        guarded = best_of(
            2, lambda h=history, m=many, r=rounds: measure_one(served, bodies_of(h, m, f"g{next(r)}x"), 16)  # type: ignore[misc]
        )  # fmt: skip
        ratio = guarded.cpu_ms / base.cpu_ms
        yield Row(
            f"gateway, {name} of history, CPU", guarded.cpu_ms, "ms", ratio, "pass-through", GATES[name], AIMS[name]
        )  # fmt: skip
        yield Row(f"pass-through, {name} of history, CPU", base.cpu_ms, "ms")
        if name == "small":
            yield quick_row(base, quick, lambda r: bodies_of(0, count, f"n{r}x"), name)
            yield from late_rows(ground, served, count)
            if other is not None:
                theirs = best_of(2, lambda m=many: measure_one(other, bodies_of(0, m, "o"), 16))  # type: ignore[misc]
                yield Row("LiteLLM, small, CPU", theirs.cpu_ms, "ms", theirs.cpu_ms / guarded.cpu_ms, "gateway")
    yield from stream_rows(ground, served, quick, other, count)


def quick_row(base: Measured, quick: Served, bodies: Callable[[int], list[bytes]], name: str) -> Row:
    """The same where no write waits for the disk (`?synchronous=normal`): whoever sleeps finds cold caches."""
    found = min((measure_one(quick, bodies(n), 16) for n in range(2)), key=lambda each: each.cpu_ms)
    ratio = found.cpu_ms / base.cpu_ms
    return Row(
        f"gateway without fsync, {name}, CPU", found.cpu_ms, "ms", ratio, "pass-through", GATES[f"quick {name}"],
        AIMS[name],
    )  # fmt: skip


def stream_rows(ground: Served, served: Served, quick: Served, other: Served | None, count: int) -> Iterator[Row]:
    bodies = streamed(bodies_of(0, count, ""))
    base = best_of(2, lambda: measure_one(ground, bodies * FLOOR_MORE, 16))
    guarded = best_of(2, lambda: measure_one(served, bodies, 16))
    ratio = guarded.cpu_ms / base.cpu_ms
    yield Row(
        "gateway, stream of 24 events, CPU", guarded.cpu_ms, "ms", ratio, "pass-through", GATES["stream"],
        AIMS["stream"],
    )  # fmt: skip
    yield Row("pass-through, stream of 24 events, CPU", base.cpu_ms, "ms")
    yield quick_row(base, quick, lambda _: bodies, "stream")
    if other is not None:
        theirs = best_of(2, lambda: measure_one(other, bodies, 16))
        yield Row("LiteLLM, stream of 24 events, CPU", theirs.cpu_ms, "ms", theirs.cpu_ms / guarded.cpu_ms, "gateway")


def latency_rows(upstream: int, ground: Served, served: Served, count: int) -> Iterator[Row]:
    """One caller at a time: what is added to an answer."""
    bodies = bodies_of(0, count, "")
    direct = Served(os.getpid(), upstream, KEY, 0)
    medians: dict[str, float] = {}
    late: dict[str, float] = {}
    for name, one in (("direct", direct), ("pass-through", ground), ("gateway", served)):
        done = load(one.port, [request(body, key=one.key) for body in bodies], connections=1)
        medians[name], late[name] = (percentile(done.latencies_s, part) * 1e3 for part in (50, 99))
    for name, aim in (("pass-through", None), ("gateway", ADDED_MS)):
        yield Row(f"{name}, added to p50 at one connection", medians[name] - medians["direct"], "ms", aim=aim)
    yield Row(
        "gateway, p99 at one connection", late["gateway"], "ms", late["gateway"] / late["pass-through"], "pass-through"
    )


def late_rows(ground: Served, served: Served, count: int) -> Iterator[Row]:
    """
    What the slowest of a hundred waits, at 16 connections.

    No gate: times on the wall are the machine's. Where the provider answers at once, callers who never pause wait for
    fifteen others' CPU time, and for the disk.
    """
    for name, bodies in (("at once", bodies_of(0, count, "l")), ("after 20 ms", paused(bodies_of(0, count, "w")))):
        first, own = (
            min(percentile(measure_one(each, bodies, 16).load.latencies_s, 99) for _ in range(3))
            for each in (ground, served)
        )  # fmt: skip
        yield Row(f"gateway, p99, answered {name}", own * 1e3, "ms", own / first, "pass-through")


def paused(bodies: list[bytes]) -> list[bytes]:
    """The same to a provider that takes its time."""
    return [body[:-1] + b', "user": "pause"}' for body in bodies]


def soak_rows(served: Served, count: int) -> Iterator[Row]:
    bodies = bodies_of(0, 1_000, "soak")
    measure_one(served, bodies * 5, 16)
    before, done = served.rss_mb(), 0
    while done < count:
        measure_one(served, bodies, 16)
        done += len(bodies)
        print(f"\r{done:,} of {count:,} requests, {served.rss_mb():.1f} MB", end="", file=sys.stderr, flush=True)
    yield Row(f"gateway, memory grown over {count:,} requests", served.rss_mb() - before, "MB", aim=GROWN_MB)


def measure(count: int = REQUESTS_TOGETHER, proxy: str | None = None, soak: int = 0) -> list[Row]:
    """All rows."""
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        ground = stack.enter_context(floor(upstream))
        served = stack.enter_context(ours(upstream))
        quick = stack.enter_context(ours(upstream, synchronous="normal"))
        other = None if proxy is None else stack.enter_context(litellm(proxy, upstream))
        fresh = served.rss_mb()
        for each in (ground, served, quick, *([other] if other else ())):
            measure_one(each, bodies_of(0, 100, ""), 4)
        rows = [*rows_of(ground, served, quick, other, count), *latency_rows(upstream, ground, served, count)]
        rows.append(Row("gateway, ready after", served.ready_s * 1e3, "ms", aim=READY_MS))
        rows.append(Row("gateway, memory when ready", fresh, "MB", aim=MEMORY_MB))
        rows.append(Row("gateway, memory afterwards", served.rss_mb(), "MB"))
        if other is not None:
            rows.append(Row("LiteLLM, ready after", other.ready_s * 1e3, "ms"))
            rows.append(Row("LiteLLM, memory afterwards", other.rss_mb(), "MB"))
        rows += soak_rows(served, soak) if soak else ()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each kind")
    parser.add_argument("--litellm", metavar="PROGRAM", help="a LiteLLM proxy, in an environment of its own")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="so many requests more, watching the memory")
    asked, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    raise SystemExit(main(lambda: measure(asked.requests, asked.litellm, asked.soak)))
