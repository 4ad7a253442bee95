"""What the loop detector costs a step (`before_tool` and `after_tool` together), and how much it remembers."""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rr_bench import Row, main, percentile

from rr_loop_corpus import Run, Step, corpus
from runrails.calls import ToolCall, ToolOutcome
from runrails.loops import LoopDetector

SEED = 20261121
PASSES = 3
STATE_STEPS = 1_000_000
STATE_BYTES_MAX = 65_536
# The targets are 25 us a step, 250 us and 2 ms in the tail; the gates are what they come to over the yardstick's 2.8, 5
# and 11 us on the machine where they were set (2 cores, CPython 3.11).
GATES = {"median": 10, 1_000: 50, 4_000: 180}
YARDSTICK = "json.dumps + blake2b of the same arguments and result"


def _steps(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    """
    Seconds of each step of the runs, and of the yardstick over the same payloads, sorted.

    Every step is the quickest of three passes: the tail is to show dear inputs, not what else the machine was doing.
    """
    passes = [_one_pass(runs) for _ in range(PASSES)]
    ours = [min(times) for times in zip(*(one for one, _ in passes), strict=True)]
    theirs = [min(times) for times in zip(*(other for _, other in passes), strict=True)]
    return sorted(ours), sorted(theirs)


def _one_pass(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    work = [
        (
            LoopDetector(tools=run.tools),
            [(_call(step), ToolOutcome(ok=step.ok, result=step.result)) for step in run.steps if step.tool],
        )
        for run in runs
    ]
    clock = time.perf_counter
    ours: list[float] = []
    theirs: list[float] = []
    for detector, steps in work:
        for call, outcome in steps:
            began = clock()
            detector.before_tool(call, can_block=True)
            detector.after_tool(call, outcome)
            ours.append(clock() - began)
    for _, steps in work:
        for call, outcome in steps:
            began = clock()
            blake2b(json.dumps([call.name, call.args, outcome.result], sort_keys=True).encode(), digest_size=8).digest()
            theirs.append(clock() - began)
    return ours, theirs


def _call(step: Step) -> ToolCall:
    return ToolCall(name=step.tool or "", args=step.args, id=step.id, batch=step.batch, agent=step.agent)


def _payloads(size: int) -> list[Run]:
    """Runs whose results have up to `size` characters: logs, prose, JSON and tracebacks."""
    rng = random.Random(size)
    steps: list[Step] = []
    for i in range(1_500):
        length = rng.randrange(size // 2, size)
        log = "".join(
            f"2026-11-21T10:{n % 60:02d}:{i % 60:02d}.{n:03d}Z worker[{n + 99}] request_id={rng.randrange(16**8):08x} "
            f"took {rng.randrange(999)} ms status=200\n"
            for n in range(length // 80)
        )
        prose = " ".join(
            rng.choice(("the", "late", "parcel", "42", "café", f"w{rng.randrange(999)}")) for _ in range(length // 5)
        )
        rows = json.dumps(
            [{"id": rng.randrange(10**6), "name": f"item {n}", "price": n * 1.5} for n in range(length // 50)]
        )
        trace = "Traceback (most recent call last):\n" + "".join(
            f'  File "/srv/app/mod_{n}.py", line {rng.randrange(900)}, in f\n    call(0x{rng.randrange(16**12):012x})\n'
            for n in range(length // 75)
        )
        text = (log, prose, rows, trace)[i % 4][:size]
        steps.append(Step("tool", {"id": i % 400, "query": f"late parcel {i % 90}"}, text, i % 4 != 3))
    return [Run("payloads", steps)]


def _state_bytes(steps: int) -> int:
    """Size of the JSON state after so many steps of distinct calls in several agents, some of them in batches."""
    detector = LoopDetector()
    for i in range(steps):
        call = ToolCall(name=f"tool_{i % 50}", args={"id": i}, id=f"c{i}", batch=i // 7, agent=f"root/{i % 60}")
        detector.before_tool(call, can_block=False)
        detector.after_tool(call, ToolOutcome(ok=i % 3 != 0, result=f"result {i} of {i * 7}"), can_block=False)
    return len(json.dumps(detector.state()))


def measure() -> list[Row]:
    """Medians and tails in microseconds, each beside the yardstick of the same payloads."""
    _steps(corpus(1)[:20])  # compiles the patterns
    ours, theirs = _steps(corpus(SEED))
    middle, yard = statistics.median(ours), statistics.median(theirs)
    rows = [
        Row("detector, median step over the corpus", middle * 1e6, "us", middle / yard,
            f"{YARDSTICK} ({yard * 1e6:.1f} us)", GATES["median"]),
    ]  # fmt: skip
    for size in (1_000, 4_000):
        ours, theirs = _steps(_payloads(size))
        tail, yard = percentile(ours, 99), percentile(theirs, 50)
        rows.append(
            Row(f"detector, p99 step, results up to {size:,} characters", tail * 1e6, "us", tail / yard,
                f"median of {YARDSTICK} ({yard * 1e6:.1f} us)", GATES[size])
        )  # fmt: skip
    size = _state_bytes(STATE_STEPS)
    rows.append(
        Row(f"serialised state after {STATE_STEPS:,} steps", size, "bytes", size / STATE_BYTES_MAX, "64 KiB", 1)
    )
    return rows


if __name__ == "__main__":
    raise SystemExit(main(measure))
