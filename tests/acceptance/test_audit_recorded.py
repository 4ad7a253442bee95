"""512 published ReAct runs that nobody wrote for this: who was stuck is told in time, who succeeded is left alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runrails.audit import RunAudit, audit_file

# The data stands beside the repository and is no part of it.
RECORDED = Path(__file__).parents[2].parent / "shared" / "data" / "react-hotpotqa.jsonl"
HINTED_MAX = 0.02
SECONDS_MAX = 10

pytestmark = pytest.mark.skipif(not RECORDED.is_file(), reason=f"needs the recorded runs in {RECORDED}")


class Labelled(NamedTuple):
    """An answer beside what the source says about the run."""

    answer: RunAudit
    outcome: str
    loop_at: int | None


@pytest.fixture(scope="module")
def runs() -> list[Labelled]:
    """Every run of the file with its answer."""
    answers = {answer.id: answer for answer in audit_file(RECORDED) if isinstance(answer, RunAudit)}
    return [Labelled(answers[run["id"]], run["outcome"], run["loop_at"]) for run in _records()]


def _records() -> Iterator[dict[str, object]]:
    with RECORDED.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def test_every_run_is_answered(runs: list[Labelled]) -> None:
    """The file is read to its end without a complaint."""
    assert len(runs) == 512
    assert sum(run.loop_at is not None for run in runs) == 20


def test_no_success_is_stopped_and_few_are_hinted(runs: list[Labelled]) -> None:
    """A run that reached its goal was healthy: it is never stopped, and at most one in fifty gets a hint."""
    successes = [run.answer for run in runs if run.outcome == "success"]
    assert [run.id for run in successes if run.verdict == "stop"] == []
    assert len([run.id for run in successes if run.verdict == "hint"]) <= HINTED_MAX * len(successes)


def test_every_loop_is_hinted_in_time(runs: list[Labelled]) -> None:
    """Where the same call gave the same result three times in a row, the hint comes no later than the third."""
    late = [
        (run.answer.id, run.loop_at, run.answer.hint_at)
        for run in runs
        if run.loop_at is not None and (run.answer.hint_at is None or run.answer.hint_at > run.loop_at)
    ]
    assert late == []


def test_the_whole_file_is_quick() -> None:
    """The whole file takes a fraction of the ten seconds it may take."""
    began = time.thread_time()  # what this thread worked, not what else the machine did
    assert sum(1 for _ in audit_file(RECORDED)) == 512
    assert time.thread_time() - began < SECONDS_MAX
