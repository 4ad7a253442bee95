"""Which calls may go to a cheaper model."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from runrails.savers.routing import Downgrade

FREE = ((0, 100),)


def test_a_named_kind_always_goes_to_the_cheaper_model() -> None:
    """Other kinds, and calls of none, do not; case counts."""
    rule = Downgrade(to="small", kinds=("classify", "title"))
    asked = ["classify", "title", "Classify", "", None]

    assert ["small", "small", None, None, None] == [rule.model_for("big", kind=kind, spent=FREE) for kind in asked]


@pytest.mark.parametrize(("spent", "expected"), [(79, None), (80, "small"), (81, "small"), (1_000, "small")])
def test_from_a_share_of_the_budget_on_calls_go_there(spent: int, expected: str | None) -> None:
    """The share itself is reached, exactly."""
    rule = Downgrade(to="small", above="0.80")

    assert expected == rule.model_for("big", kind=None, spent=((spent, 100),))


def test_the_share_is_exact() -> None:
    """A third is a third, to the last picodollar."""
    rule = Downgrade(to="small", above=Fraction(1, 3))
    third = 10**18 // 3

    assert rule.model_for("big", kind=None, spent=((third, 10**18),)) is None
    assert "small" == rule.model_for("big", kind=None, spent=((third + 1, 10**18),))


def test_the_share_of_any_run_around_counts_and_no_budget_has_none() -> None:
    """A child run may have a budget of its own; without any budget nothing is ever above a share of it."""
    rule = Downgrade(to="small", above=Decimal("0.5"))

    assert "small" == rule.model_for("big", kind=None, spent=((0, 100), (50, 100)))
    assert rule.model_for("big", kind=None, spent=((10**9, None),)) is None


def test_only_models_that_have_a_cheaper_one_are_changed() -> None:
    """A mapping names them; one model for all does not replace itself."""
    named = Downgrade(to={"big": "small"}, kinds=("x",))
    one = Downgrade(to="small", kinds=("x",))

    assert ["small", None] == [named.model_for(model, kind="x", spent=FREE) for model in ("big", "other")]
    assert ["small", None] == [one.model_for(model, kind="x", spent=FREE) for model in ("other", "small")]


def test_a_rule_keeps_nothing_of_its_callers() -> None:
    """It is a value: what the caller does with their mapping later changes nothing, and it can be hashed."""
    models = {"big": "small"}
    rule = Downgrade(to=models, kinds=("x",))
    models["big"] = "dear"

    assert "small" == rule.model_for("big", kind="x", spent=FREE)
    assert hash(rule) == hash(Downgrade(to={"big": "small"}, kinds=("x",)))
    assert rule == Downgrade(to={"big": "small"}, kinds=("x",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": "small"}, {"to": "", "above": "0.5"}, {"to": {}, "above": "0.5"}, {"to": {"big": ""}, "above": "0.5"},
        {"to": "small", "above": 0.5}, {"to": "small", "above": "0"}, {"to": "small", "above": "1.01"},
        {"to": "small", "above": "NaN"}, {"to": "small", "above": "much"}, {"to": "small", "above": "-0.5"},
        {"to": "small", "above": Decimal("Infinity")}, {"to": "small", "above": True}, {"to": 3, "above": "0.5"},
        {"to": {"big": 3}, "above": "0.5"}, {"to": "small", "kinds": "classify"}, {"to": "small", "kinds": (3,)},
        {"to": "small", "above": "1e-999999999"}, {"to": "small", "above": "1" * 50},
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """The message names the setting."""
    with pytest.raises((TypeError, ValueError), match="Downgrade"):
        Downgrade(**wrong)
