"""What becomes of a benchmark whose gate fails."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tests/benchmarks/run.py`, with one benchmark whose attempts' ratios are those of its list."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    run, bench = importlib.import_module("run"), importlib.import_module("rr_bench")
    attempts: list[tuple[float, float]] = []

    def measure() -> list[Any]:
        one, other = attempts.pop(0)
        return [bench.Row("one", 1, "us", one, "", 2), bench.Row("other", 1, "us", other, "", 2)]

    monkeypatch.setattr(run, "BENCHMARKS", ("bench_played",))
    monkeypatch.setattr(run.importlib, "import_module", lambda _: SimpleNamespace(measure=measure))
    return SimpleNamespace(attempts=attempts, measure=run.measure)


def test_a_gate_that_is_kept_once_in_three_attempts_is_kept(runner: Any) -> None:
    """Each row by itself: two bursts of other work at two rows are no regression."""
    runner.attempts += [(1, 3), (3, 3), (3, 1.5)]
    assert [1, 1.5] == [row.ratio for row in runner.measure()]


def test_a_gate_that_fails_thrice_fails(runner: Any) -> None:
    """And no more than three attempts are made."""
    runner.attempts += [(3, 1), (4, 1), (5, 1), (1, 1)]
    assert [(5, False), (1, True)] == [(row.ratio, row.passed) for row in runner.measure()]
    assert [(1, 1)] == runner.attempts


def test_what_passes_at_once_is_measured_once(runner: Any) -> None:
    """A benchmark takes its time."""
    runner.attempts += [(1, 2), (1, 1)]
    assert [1, 2] == [row.ratio for row in runner.measure()]
    assert [(1, 1)] == runner.attempts
