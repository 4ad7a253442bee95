"""What `from runrails import Guard, Limits` costs over the bare interpreter, and the first price over that."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rr_bench import Row, main

ROUNDS = 15
OURS = "from runrails import Guard, Limits"
BOOK = f"{OURS}; from runrails.pricing import PriceBook; import json"
PRICED = f"{BOOK}; PriceBook().card('gpt-4o', provider='openai', now_ms=1_795_262_400_000)"
"""The price data is read when a first price is asked for, and not before."""
YARDSTICK = "import asyncio, json, decimal, dataclasses, sqlite3, threading, hashlib, uuid, logging, inspect"


def _seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return time.perf_counter() - began


def _added(rounds: list[list[float]], more: int, less: int) -> float:
    return statistics.median(each[more] - each[less] for each in rounds)


def measure() -> list[Row]:
    """Median of 15 rounds of a fresh interpreter each, so that noise hits all alike."""
    rounds = [[_seconds(code) for code in ("pass", OURS, YARDSTICK, BOOK, PRICED)] for _ in range(ROUNDS)]
    ours, yardstick, priced = _added(rounds, 1, 0), _added(rounds, 2, 0), _added(rounds, 4, 3)
    return [
        Row(
            "import Guard, Limits over the bare interpreter", ours * 1e3, "ms", ours / yardstick,
            f"ten modules of the standard library ({yardstick * 1e3:.0f} ms)", 1.5,
        ),
        Row(
            "reading the price book, at the first price", priced * 1e3, "ms", priced / yardstick,
            "the same", 0.8,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(measure))
