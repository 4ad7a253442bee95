"""What becomes of a benchmark whose gate fails."""

from __future__ import annotations

import importlib
import json
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

    def rows_of(_: str) -> list[Any]:
        one, other = attempts.pop(0)
        return [bench.Row("one", 1, "us", one, "", 2), bench.Row("other", 1, "us", other, "", 2)]

    monkeypatch.setattr(run, "BENCHMARKS", ("bench_played",))
    monkeypatch.setattr(run, "rows_of", rows_of)
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


def test_a_benchmark_that_breaks_is_no_benchmark_that_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its rows come from a process of its own; one without an answer ends the run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "HERE", tmp_path)
    row = {
        "name": "n",
        "value": 1.5,
        "unit": "us",
        "ratio": 3,
        "yardstick": "y",
        "gate": 2,
        "aim": None,
        "passed": False,
    }
    (tmp_path / "good.py").write_text(f"print({json.dumps({'rows': [row]})!r})\nraise SystemExit(1)\n")
    (tmp_path / "broken.py").write_text("raise SystemExit(3)\n")
    assert [("n", 1.5, 3, False)] == [(each.name, each.value, each.ratio, each.passed) for each in run.rows_of("good")]
    with pytest.raises(SystemExit, match="broken ended with 3"):
        run.rows_of("broken")
