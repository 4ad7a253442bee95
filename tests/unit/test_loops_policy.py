"""The numbers of the loop detector are checked when they are written down."""

from __future__ import annotations

import dataclasses

import pytest

from runrails.loops import LoopPolicy, ToolRule


def test_the_default_is_the_ladder_of_the_design() -> None:
    """Hint after the 3rd, block the 5th, 10 equal calls in an answer, 24 equal polls."""
    policy = LoopPolicy()
    assert (policy.hint_at, policy.block_at, policy.failure_at, policy.same_failure_at) == (3, 5, 8, 10)
    assert (policy.no_progress_at, policy.no_progress_lines_at, policy.poll_at, policy.batch_max) == (12, 30, 24, 10)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(LoopPolicy)])
@pytest.mark.parametrize("value", [0, -1, 1_000_001])
def test_a_threshold_out_of_range_is_refused_by_name(name: str, value: int) -> None:
    """Zero and less would stop every run, and is no way to switch the detector off."""
    with pytest.raises(ValueError, match=rf"LoopPolicy\({name}=…\).*Limits\(loops=None\)"):
        LoopPolicy(**{name: value})


@pytest.mark.parametrize("value", [3.0, "3", None, True])
def test_a_threshold_that_is_no_int_is_a_type_error(value: object) -> None:
    """Booleans and floats are not counts."""
    with pytest.raises(TypeError, match=r"LoopPolicy\(hint_at=…\) must be a whole number"):
        LoopPolicy(hint_at=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["block_at", "failure_at", "same_failure_at", "no_progress_at", "poll_at"])
def test_a_hint_after_the_block_is_refused(name: str) -> None:
    """The ladder must rise; both numbers are named."""
    with pytest.raises(ValueError, match=r"hint_at=7.*above " + name):
        LoopPolicy(**{"hint_at": 7, "block_at": 9, "no_progress_lines_at": 40, name: 6})


def test_the_hint_may_come_with_the_block() -> None:
    """Equal numbers are the limit."""
    assert LoopPolicy(hint_at=5, block_at=5).hint_at == 5


def test_lines_may_not_have_less_patience_than_words() -> None:
    """Results of many lines are the ones that are read again for good reasons."""
    with pytest.raises(ValueError, match="no_progress_lines_at=11"):
        LoopPolicy(no_progress_lines_at=11)


def test_a_tool_rule_checks_its_fields() -> None:
    """A truthy poll or a key that cannot be called would be found out in the night."""
    with pytest.raises(TypeError, match="poll"):
        ToolRule(poll=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loop_key"):
        ToolRule(loop_key="id")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="outcome_key"):
        ToolRule(outcome_key=3)  # type: ignore[arg-type]
    assert ToolRule(poll=True, loop_key=repr).loop_key is repr


def test_policies_are_values() -> None:
    """Frozen, comparable and hashable."""
    assert LoopPolicy() == LoopPolicy()
    assert hash(LoopPolicy()) == hash(LoopPolicy())
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoopPolicy().hint_at = 4  # type: ignore[misc]
