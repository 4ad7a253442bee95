"""What `from runrails import Guard, Limits` costs over the bare interpreter, in fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rr_bench import Row, main

ROUNDS = 15
OURS = "from runrails import Guard, Limits"
YARDSTICK = "import asyncio, json, decimal, dataclasses, sqlite3, threading, hashlib, uuid, logging, inspect"


def _seconds(code: str) -> float:
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", code], check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure() -> list[Row]:
    """Median of 15 fresh interpreters each, alternating so that noise hits all alike."""
    bare = _seconds("pass")
    ours = _seconds(OURS) - bare
    yardstick = _seconds(YARDSTICK) - bare
    return [
        Row(
            "import Guard, Limits over the bare interpreter", ours * 1e3, "ms", ours / yardstick,
            f"ten modules of the standard library ({yardstick * 1e3:.0f} ms)", 1.5,
        )
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(measure))
