"""Executor × mode × layer × failure: nothing starts after the trip, nothing is counted twice, nothing is missed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import matrix_table
import rr_matrix
from rr_matrix import Cell
from rr_matrix_play import BUDGET_CALLS, CENT, Play, close_provider, play
from runrails import GuardrailStopped, Outcome

EXECUTIONS_MAX = 5


@pytest.fixture(scope="module", autouse=True)
def _attached() -> Iterator[None]:
    from runrails_langchain import attach

    attach()
    yield
    close_provider()


@pytest.mark.parametrize("cell", rr_matrix.cells()[:: rr_matrix.SHARE], ids=str)
def test_cell(cell: Cell) -> None:
    """The stop comes in time and in the form the layer promises, and the ledger is what the model has served."""
    with Play(cell) as world:
        results = play(world)

        _nothing_starts_after_the_trip(cell, world)
        _nothing_twice_and_nothing_missed(cell, world)
        _as_the_layer_promises(cell, world, results)


@pytest.mark.parametrize("cell", rr_matrix.controls(), ids=str)
def test_without_a_guard_it_goes_on(cell: Cell) -> None:
    """What the matrix stops would not have stopped by itself."""
    with Play(cell, guarded=False) as world:
        play(world)

        assert sum(world.log.counted("model").values()) > 2 * EXECUTIONS_MAX
        assert [] == world.guard.opened


def test_the_table_in_the_documentation_is_this_matrix() -> None:
    """`python tests/matrix_table.py --write` writes it."""
    assert matrix_table.TARGET.read_text(encoding="utf-8") == matrix_table.table()


def _nothing_starts_after_the_trip(cell: Cell, world: Play) -> None:
    assert len(world.log.late) <= cell.siblings, world.log.late
    if cell.stop_reason != "loop_detected":
        return
    executions = world.log.counted("tool")
    assert not executions or max(executions.values()) <= cell.executions_max, executions
    if cell.failure == "unknown tool":  # nothing is executed
        assert max(world.log.counted("model").values()) <= EXECUTIONS_MAX + cell.blocks
    elif cell.siblings == 0:
        assert all(world.log.models_after_last_tool(item) <= cell.models_after_execution_max for item in world.items)


def _nothing_twice_and_nothing_missed(cell: Cell, world: Play) -> None:
    if cell.ends_with_the_guard:
        world.guard.close()
    spent, held = world.spent
    assert 0 == held
    # What is cancelled in flight may have been served, and is charged.
    assert spent == (2 * CENT * len(world.items) if cell.failure == "cancelled" else world.billed)
    models, tools = world.counts
    raw = cell.executor in rr_matrix.RAW
    assert models == (world.sent if raw else sum(world.log.counted("model").values()))
    if cell.sees_tools and cell.failure == "unknown tool":
        assert tools <= models  # who answers in the place of a tool that does not exist counts as one
    elif cell.sees_tools:
        assert tools - sum(world.log.counted("tool").values()) in range(cell.never_begun_max + 1)
    if cell.stop_reason == "budget_exceeded":
        stopped = [run.report().cost_pusd for run in world.guard.opened if run.stopped is not None]
        assert {BUDGET_CALLS * CENT} == set(stopped)


def _as_the_layer_promises(cell: Cell, world: Play, results: list[object]) -> None:
    if cell.failure == "cancelled":
        assert [] == results
        return
    assert {cell.stop_reason} == {run.stop_reason for run in world.guard.opened if run.stopped is not None}
    for result in results:
        if "supervisor" in cell.parts:
            assert isinstance(result, Outcome)
            assert cell.stop_reason == result.stop_reason
        elif "middleware" in cell.parts:
            assert not isinstance(result, BaseException)
        elif not cell.swallowed:
            assert isinstance(result, GuardrailStopped), result
