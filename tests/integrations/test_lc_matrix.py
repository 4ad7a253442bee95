"""No executor, mode or retry layer starts anything after the trip: the founding story at default limits, every cell."""

from __future__ import annotations

import asyncio

import pytest

import rr_lc
from rr_lc import Starts
from runrails import GuardrailStopped, LoopDetected
from runrails_langchain import GuardrailCallbackHandler, attach

EXECUTIONS_MAX = 5


@pytest.mark.parametrize("cell", rr_lc.cells(), ids=rr_lc.cell_id)
def test_inside_the_boundary_nothing_starts_after_the_trip(cell: tuple[rr_lc.Scenario, str]) -> None:
    """`with guard.run():` needs no callbacks argument, and its stop always comes out as the public error."""
    attach()
    scenario, mode = cell
    starts = Starts()
    executor = scenario(starts)
    with rr_lc.make_guard() as guard:
        run = guard.run()
        starts.stopped = lambda: run.stopped is not None
        with pytest.raises(LoopDetected):
            with run:
                rr_lc.drive(mode, executor, rr_lc.question(scenario), items=2 if "batch" in mode else 1)

    assert [] == starts.late
    assert not starts.executions or EXECUTIONS_MAX == max(starts.executions.values())
    assert starts.models_after_last_tool <= (EXECUTIONS_MAX if not starts.executions else 1)
    assert "loop_detected" == run.stop_reason
    assert starts.models * 10**10 == run.report().cost_pusd


@pytest.mark.parametrize("cell", rr_lc.cells(), ids=rr_lc.cell_id)
def test_with_a_bare_handler_nothing_is_paid_after_the_trip(cell: tuple[rr_lc.Scenario, str]) -> None:
    """One callback is enough: the run is stopped, latched and closed, and the public error comes out."""
    scenario, mode = cell
    starts = Starts()
    executor = scenario(starts)
    with rr_lc.make_guard() as guard:
        handler = GuardrailCallbackHandler(guard)
        starts.stopped = lambda: rr_lc.is_stopped(handler.last_run)
        with pytest.raises(GuardrailStopped):
            rr_lc.drive(mode, executor, rr_lc.question(scenario), {"callbacks": [handler]})

        assert 1 == len(handler.runs)
        run = handler.runs[0]
    assert [] == starts.late
    assert not starts.executions or EXECUTIONS_MAX == max(starts.executions.values())
    assert starts.models_after_last_tool <= (EXECUTIONS_MAX if not starts.executions else 1)
    assert "loop_detected" == run.stop_reason
    assert starts.models * 10**10 == run.report().cost_pusd


@pytest.mark.parametrize("cell", [cell for cell in rr_lc.cells() if "batch" in cell[1]], ids=rr_lc.cell_id)
def test_in_a_batch_each_item_is_stopped_by_itself(cell: tuple[rr_lc.Scenario, str]) -> None:
    """Three at once with one bare handler: three runs, each stopped and paid as if it were alone."""
    scenario, mode = cell
    starts = Starts()
    executor = scenario(starts)
    with rr_lc.make_guard() as guard:
        handler = GuardrailCallbackHandler(guard)
        config = {"callbacks": [handler]}
        inputs = [rr_lc.question(scenario, f"Classify number {n}.") for n in range(3)]
        if mode == "batch":
            results = executor.batch(inputs, config, return_exceptions=True)
        else:
            results = asyncio.run(executor.abatch(inputs, config, return_exceptions=True))

        assert [True] * 3 == [isinstance(result, LoopDetected) for result in results]
        assert ["loop_detected"] * 3 == [run.stop_reason for run in handler.runs]
        assert starts.models * 10**10 == sum(run.report().cost_pusd for run in handler.runs)
    assert not starts.executions or max(starts.executions.values()) <= 3 * EXECUTIONS_MAX
    assert starts.models <= 3 * EXECUTIONS_MAX


@pytest.mark.parametrize("scenario", rr_lc.SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_without_a_guard_the_same_agent_goes_on(scenario: rr_lc.Scenario) -> None:
    """What the matrix stops would not have stopped by itself."""
    starts = Starts()
    executor = scenario(starts)

    rr_lc.drive("invoke", executor, rr_lc.question(scenario))

    assert starts.models > 2 * EXECUTIONS_MAX
