"""
Run every benchmark in a process of its own, print one table, and fail if a ratio gate fails.

Usage: python tests/benchmarks/run.py [--json]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rr_bench import Row, failed, main

HERE = Path(__file__).parent

BENCHMARKS = (
    "bench_import", "bench_stores", "bench_leases", "bench_loops", "bench_bound", "bench_langchain", "bench_middleware",
    "bench_clients", "bench_bedrock", "bench_keys", "bench_metrics", "bench_gateway",
    *(("bench_dynamodb",) if "RUNRAILS_DDB_ENDPOINT" in os.environ else ()),
)  # fmt: skip


TRIES_MAX = 3
"""A gate that fails is measured again: a burst of other work must not decide, and a real regression fails thrice."""


def measure() -> list[Row]:
    """Every benchmark's rows, one after the other."""
    rows: list[Row] = []
    for name in BENCHMARKS:
        measured: list[Row] = []
        for attempt in range(1, TRIES_MAX + 1):
            print(f"measuring {name}, attempt {attempt} …", file=sys.stderr)
            measured = with_better(measured, rows_of(name))
            if not failed(measured):
                break
        rows += measured
    return rows


def rows_of(name: str) -> list[Row]:
    """One benchmark's rows. What others have left in a process's memory makes its calls slower by a third."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--json"]
    made = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if made.returncode not in (0, 1):  # 1: a gate failed
        raise SystemExit(f"{name} ended with {made.returncode}.")
    return [Row(**{field: row[field] for field in Row._fields}) for row in json.loads(made.stdout)["rows"]]


def with_better(before: list[Row], now: list[Row]) -> list[Row]:
    """The newest rows; in the place of one that fails, the row of the same name that had passed."""
    passed = {row.name: row for row in before if row.passed}
    return [row if row.passed else passed.get(row.name, row) for row in now]


if __name__ == "__main__":
    raise SystemExit(main(measure))
