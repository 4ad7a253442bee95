"""The second labelled set: no false stop, every loop on time, hints rare."""

from __future__ import annotations

import random

import pytest

from rr_loop_field import FieldRun, healthy, judge
from rr_loop_field_loops import loops
from rr_loop_field_more import more_healthy, more_loops

SEEDS = (1, 20261121, 977)
HINTS_PERCENT_MAX = 2


def all_healthy(seed: int) -> list[FieldRun]:
    return [*healthy(seed), *more_healthy(random.Random(seed))]


def all_loops(seed: int) -> list[FieldRun]:
    return [*loops(seed), *more_loops(random.Random(seed))]


def test_the_set_is_large_enough() -> None:
    """Scores of both kinds."""
    assert len(all_healthy(1)) >= 90
    assert len(all_loops(1)) >= 110


@pytest.mark.parametrize("can_block", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_healthy_run_is_stopped_or_blocked(seed: int, *, can_block: bool) -> None:
    """Bulk jobs without a hit, silent commands, looks back, tables filled, seconds of a film, 5,000 steps."""
    stopped = {run.name: judged for run in all_healthy(seed) if (judged := judge(run, can_block=can_block)).stop_at}
    assert stopped == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_loop_is_stopped_on_time_and_not_before_it_begins(seed: int) -> None:
    """Volatile errors in many languages, volatile arguments, cycles, batches, agents, infrastructure."""
    assert [run.name for run in all_loops(seed) if not _on_time(run)] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_hints_on_healthy_steps_are_rare(seed: int) -> None:
    """At most two in a hundred."""
    runs = all_healthy(seed)
    hints = sum(len(judge(run).hints) for run in runs)
    assert 100 * hints <= HINTS_PERCENT_MAX * sum(len(run.steps) for run in runs)


def _on_time(run: FieldRun) -> bool:
    assert run.begins is not None
    assert run.due is not None
    stop_at = judge(run).stop_at
    return stop_at is not None and run.begins <= stop_at <= run.due
