"""
What every benchmark here shares: a row, ways to time, a table and an exit code.

A benchmark is a script with ``measure() -> list[Row]`` that ends in ``raise SystemExit(main(measure))``. Absolute times
are reported and never gate, since machines differ; only a row's `ratio` to a yardstick of the same run gates.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

__all__ = ["Row", "added_by", "best", "failed", "main", "percentile", "samples"]

_C = TypeVar("_C")
WARM_UP = 150
"""Calls before those that count, where there are many."""


class Row(NamedTuple):
    """One measured number."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    """`value` over the yardstick's value, measured in the same run."""
    yardstick: str = ""
    """What the ratio is to; empty for a row that stands alone."""
    gate: float | None = None
    """The ratio that must not be exceeded; None for a row that is only reported."""

    aim: float | None = None
    """What the value should be at most, wherever it is measured quietly. Reported, and never gates."""

    @property
    def passed(self) -> bool:
        """Whether the row keeps its gate; rows without a gate always do."""
        return self.gate is None or (self.ratio is not None and self.ratio <= self.gate)

    @property
    def aimed(self) -> str:
        """The aim, and whether it is held here; empty without one."""
        if self.aim is None:
            return ""
        return f"aim {self.aim:g} {self.unit}: {'held' if self.value <= self.aim else 'missed'}"


def best(work: Callable[[], object], *, calls: int, rounds: int = 5) -> float:
    """Seconds per call: the quickest of `rounds` rounds in which `work()` makes `calls` calls. The collector is off."""
    quickest = float("inf")
    for _ in range(rounds):
        gc.collect()
        gc.disable()
        try:
            began = time.perf_counter()
            work()
            quickest = min(quickest, time.perf_counter() - began)
        finally:
            gc.enable()
    return quickest / calls


def samples(work: Callable[[], object], *, calls: int) -> list[float]:
    """Seconds of each of `calls` calls of `work`, sorted."""
    times: list[float] = []
    for _ in range(calls):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)


def percentile(ordered: list[float], percent: float) -> float:
    """The value below which `percent` of a sorted list lie; the median for 50."""
    if percent == 50:
        return statistics.median(ordered)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def failed(rows: list[Row]) -> list[Row]:
    """The rows that do not keep their gate."""
    return [row for row in rows if not row.passed]


def added_by(bare: _C, guarded: _C, work: Callable[[_C], None], calls: int) -> tuple[float, float]:
    """Medians, in seconds, of the bare call and of what the guarded one took longer than the bare one beside it."""
    plain: list[float] = []
    added: list[float] = []
    warm_up = min(WARM_UP, calls // 4)
    for number in range(warm_up + calls):
        first, second = (bare, guarded) if number % 2 else (guarded, bare)
        began = time.perf_counter()
        work(first)
        between = time.perf_counter()
        work(second)
        took = (between - began, time.perf_counter() - between)
        if number >= warm_up:
            own, ours = took if first is bare else took[::-1]
            plain.append(own)
            added.append(ours - own)
    return percentile(sorted(plain), 50), percentile(sorted(added), 50)


def main(measure: Callable[[], list[Row]], argv: list[str] | None = None) -> int:
    """Measure, print a table (or JSON with ``--json``), and return 1 if a gate failed, else 0."""
    rows = measure()
    machine = (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()} {platform.system()}"
    )
    if "--json" in (sys.argv[1:] if argv is None else argv):
        listed = [{**row._asdict(), "passed": row.passed} for row in rows]
        print(json.dumps({"date": datetime.now(UTC).date().isoformat(), "machine": machine, "rows": listed}, indent=2))
    else:
        print(f"{datetime.now(UTC).date().isoformat()}  {machine}")
        for row in rows:
            ratio = "" if row.ratio is None else f"{row.ratio:8.2f}x"
            gate = "" if row.gate is None else f"<= {row.gate:g}x {'ok' if row.passed else 'FAILED'}"
            line = f"{row.name:<52} {row.value:>12,.2f} {row.unit:<8} {ratio:<10} {gate:<16} {row.yardstick:<14} "
            print(f"{line}{row.aimed}".rstrip())
    return 1 if failed(rows) else 0
