"""The corpus: every ordinary loop is stopped on time, no healthy run is, and exact matching fails badly on it."""

from __future__ import annotations

import random

import pytest

from rr_loop_corpus import Run, Step, corpus, held_out, play, volatile_shapes
from runrails.calls import Block, Proceed, Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector

TUNED_SEED = 1
FRESH_SEEDS = (20261121, 977, 31337)
HELD_OUT_SEEDS = (404, 808)
HINTS_PERCENT_MAX = 2


def misses(runs: list[Run]) -> list[str]:
    """Names of the loops that are not stopped between their beginning and the step that the ladder says."""
    return [
        run.name
        for run in runs
        if run.begins is not None and run.due is not None and not run.begins <= (play(run).stop_at or 10**9) <= run.due
    ]


def false_stops(runs: list[Run]) -> list[str]:
    """Names of the healthy runs that are stopped."""
    return [run.name for run in runs if not run.is_loop and play(run).stop_at is not None]


def exact_matcher(run: Run, *, results: bool) -> int | None:
    """Where a detector would stop that wants five calls in a row to be equal byte for byte, results included or not."""
    latest, count = "", 0
    for number, step in enumerate(run.steps, 1):
        seen = repr((step.tool, step.args, step.result if results else None))
        latest, count = seen, count + 1 if seen == latest else 1
        if count >= 5:
            return number
    return None


def test_the_corpus_is_large_enough() -> None:
    """A hundred of each, and no two names by accident the same family."""
    runs = corpus(TUNED_SEED)
    assert sum(run.is_loop for run in runs) >= 100
    assert sum(not run.is_loop for run in runs) >= 100


@pytest.mark.parametrize("seed", [TUNED_SEED, *FRESH_SEEDS])
def test_every_loop_is_stopped_on_time_and_no_healthy_run_is(seed: int) -> None:
    """With fresh volatile values, too."""
    runs = corpus(seed)
    assert misses(runs) == []
    assert false_stops(runs) == []


@pytest.mark.parametrize("seed", HELD_OUT_SEEDS)
def test_families_that_were_not_looked_at_hold_as_well(seed: int) -> None:
    """Several kinds of noise at once; written after the detector and not tuned on."""
    runs = held_out(seed)
    assert misses(runs) == []
    assert false_stops(runs) == []


def test_hints_on_healthy_steps_are_rare() -> None:
    """At most two in a hundred."""
    for seed in FRESH_SEEDS:
        healthy = [run for run in corpus(seed) if not run.is_loop]
        hints = sum(play(run).hints for run in healthy)
        assert hints * 100 <= HINTS_PERCENT_MAX * sum(len(run.steps) for run in healthy)


def test_exact_matching_fails_badly_on_it() -> None:
    """The figures: with results 20 of 144 loops are stopped on time, without results 85 and 32 of 110 healthy runs."""
    runs = corpus(FRESH_SEEDS[0])
    figures = {}
    for results in (True, False):
        stops = [(run, exact_matcher(run, results=results)) for run in runs]
        on_time = sum(
            run.begins is not None and at is not None and run.begins <= at <= (run.due or 0) for run, at in stops
        )
        figures[results] = (on_time, sum(at is not None and not run.is_loop for run, at in stops))
    assert sum(run.is_loop for run in runs) == 144
    assert sum(not run.is_loop for run in runs) == 110
    assert figures == {True: (20, 10), False: (85, 32)}


@pytest.mark.parametrize("seed", [TUNED_SEED, *FRESH_SEEDS])
def test_where_calls_can_be_blocked_every_loop_is_blocked_by_then(seed: int) -> None:
    """In the place of the last allowed call, or of the one after it where the rule is about more than one call."""
    for run in corpus(seed):
        if run.due is not None:
            blocked_at = play(run, can_block=True).block_at
            assert blocked_at is not None, run.name
            assert blocked_at <= run.due + 1, run.name


@pytest.mark.parametrize("can_block", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_the_891_retries_end_after_five_whatever_changes_around_them(seed: int, *, can_block: bool) -> None:
    """Timestamps, ids, durations, addresses, thoughts and argument order change; at most one model call follows."""
    rng = random.Random(seed)
    makers = rng.sample(list(volatile_shapes().values()), 4)
    detector = LoopDetector()
    executed = model_calls_after_block = 0
    blocked = False
    for attempt in range(891):
        if isinstance(detector.before_model(can_block=can_block), Stop):
            break
        model_calls_after_block += blocked
        args = [
            ("review_id", 42),
            ("text", "Sehr gut"),
            ("reasoning", f"Let me try a {attempt}th way"),
            ("attempt", attempt),
        ]
        rng.shuffle(args)
        call = ToolCall(name="classify", args=dict(args), id=f"call_{rng.random()}", batch=attempt)
        verdict = detector.before_tool(call, can_block=can_block)
        if isinstance(verdict, Stop):
            break
        if isinstance(verdict, Block):
            blocked = True
            continue
        assert isinstance(verdict, Proceed)
        executed += 1
        noise = " ".join(make(rng) for make in makers)
        detector.after_tool(
            call, ToolOutcome(ok=True, result=f"Classification failed - no result {noise}"), can_block=can_block
        )
    assert executed == (4 if can_block else 5)
    assert model_calls_after_block == (1 if can_block else 0)


def test_empty_and_ten_megabyte_results_are_stopped_alike() -> None:
    """Size is no way out."""
    for result in ("", "x" * 10_000_000, "é\n" * 5_000_000):
        run = Run("big", [Step("read", {"path": "a"}, result)] * 6, 1, 5)
        assert play(run).stop_at == 5
