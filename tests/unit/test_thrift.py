"""The savers of a run: who may set them, and whose report they are in."""

from __future__ import annotations

from typing import Any

import pytest

from runrails import Downgrade, Guard, Limits, Price, Pruning
from runrails.calls import Economy, ModelCall, ModelResult, Prompt
from runrails.events import Event
from runrails.report import Saving
from runrails.stores.memory import MemoryStore
from runrails.testing.prices import PRICES
from runrails.thrift import carried, cheaper_model
from runrails.usage import Usage

CALL = ModelCall(model="fake-model", prompt=Prompt(texts=("hi",), messages=1), max_tokens=100)
USAGE = Usage(input_tokens=1_000, output_tokens=10)
RULE = Downgrade(to="fake-reasoner", above="0.5")


def _guard(limits: Limits | None = None, events: list[Event] | None = None) -> Guard:
    return Guard(
        limits or Limits(), user="alice", store=MemoryStore(), prices=PRICES,
        sinks=[] if events is None else [events.append],
    )  # fmt: skip


def _spend(run: Any, call: ModelCall = CALL, **result: Any) -> None:
    run.after_model(run.before_model(call), ModelResult(**{"end": "completed", "usage": USAGE, **result}))


@pytest.mark.parametrize("wrong", [{"downgrade": "gpt-4o-mini"}, {"pruning": 40}, {"downgrade": Pruning()}])
def test_limits_take_savers_alone(wrong: dict[str, Any]) -> None:
    """The message names the setting and the type."""
    with pytest.raises(TypeError, match=next(iter(wrong))):
        Limits(**wrong)


def test_nothing_saves_by_default() -> None:
    """And a guard looks further only where something does, its own or a run's, from the start or later."""
    with _guard() as guard:
        assert (False, False) == (Limits().saves, guard.saves)
        with guard.run() as run:
            run.resume(limits=Limits(pruning=Pruning()))
        assert guard.saves
    with _guard() as guard, guard.run(limits=Limits(downgrade=RULE)):
        assert guard.saves


def test_a_stored_answer_holds_and_costs_nothing() -> None:
    """Even where the run has no money left for the call, or for its tokens."""
    with _guard(Limits(run="0.0032", tokens=1_200)) as guard, guard.run() as run:
        _spend(run)
        permit = run.before_model(ModelCall(model="fake-model", max_tokens=4_000, economy=Economy(stored=True)))
        run.after_model(permit, ModelResult(end="cached", stored_usage=USAGE))
        report = run.report()

    assert (0, 2) == (permit.bound_pusd, report.steps)
    assert (1_010, 1_000) == (report.tokens, report.input_tokens)
    assert (Saving("cache", 1, 1_010, report.cost_pusd),) == report.savings


def test_what_a_child_run_saves_is_in_its_parents_report() -> None:
    """As its cost is."""
    with _guard(Limits(downgrade=RULE)) as guard, guard.run() as outer:
        with guard.run() as inner:
            _spend(inner, ModelCall(model="fake-reasoner", max_tokens=9, economy=Economy(asked_model="fake-model")))
        saved = 1_000 * (3_000_000 - 1_250_000) + 10 * (15_000_000 - 10_000_000)

    assert (Saving("downgrade", 1, 0, saved),) == inner.report().savings == outer.report().savings


def test_the_share_of_the_run_around_counts_for_a_child() -> None:
    """A child draws on its parent's money, and goes by what the parent says unless it says something itself."""
    with _guard(Limits(run="0.006", downgrade=RULE)) as guard, guard.run(), guard.run() as inner:
        assert cheaper_model(inner, CALL) is None
        _spend(inner)

        assert "fake-reasoner" == cheaper_model(inner, CALL)


def test_a_call_keeps_what_a_layer_above_has_done_to_it() -> None:
    """As long as it is that call; another model is another call."""
    above = ModelCall(model="m", economy=Economy(asked_model="big"))

    assert above.economy == carried(above, ModelCall(model="m")).economy
    assert carried(above, ModelCall(model="n")).economy is None


def test_a_bug_in_reporting_changes_nothing() -> None:
    """It is an event; the call is settled."""
    events: list[Event] = []
    broken: Any = Economy(left_out_messages=1, left_out_chars=1, sent_chars="x")  # type: ignore[arg-type]
    with _guard(Limits(pruning=Pruning()), events) as guard, guard.run() as run:
        _spend(run, ModelCall(model="fake-model", max_tokens=9, economy=broken))
        assert run.report().cost_pusd > 0

    assert ["runrails.savings_failed"] == [each.name for each in events if each.level == "error"]


def _goes_to(call: ModelCall, prices: dict[str, Price]) -> tuple[str | None, list[object]]:
    events: list[Event] = []
    limits = Limits(run="100", downgrade=Downgrade(to="other", kinds=("k",)))
    guard = Guard(limits, user="alice", store=MemoryStore(), prices=prices, sinks=[events.append])
    with guard, guard.run() as run, guard.attribute(tags={"kind": "k"}):
        model = cheaper_model(run, call)
    return model, [event.fields["reason"] for event in events if event.name == "runrails.downgrade_refused"]


@pytest.mark.parametrize(
    ("other", "model"),
    [
        (Price(input="0.40", output="1.60"), None), (Price(input="0.20", output="2.10"), None),
        (Price(input="0.25", output="1.90"), "other"), (Price(input="0.20", output="2"), "other"),
        (Price(input="0.25", output="2"), None),
    ],
)  # fmt: skip
def test_a_model_that_may_turn_out_dearer_is_not_cheaper(other: Price, model: str | None) -> None:
    """A cap is seldom reached, so the bound alone proves nothing: with little output the dearer input decides."""
    call = ModelCall(model="asked", prompt=Prompt(texts=("0123456789" * 1_000,), messages=1), max_tokens=30_000)
    found = _goes_to(call, {"asked": Price(input="0.25", output="2"), "other": other})

    assert (model, [] if model else ["not_cheaper"]) == found


@pytest.mark.parametrize(("window", "model"), [(None, "other"), (20_000, "other"), (12_000, None), (9_000, None)])
def test_a_window_must_have_room_for_the_cap_too(window: int | None, model: str | None) -> None:
    """Providers refuse a request whose input and cap are more than the model's window."""
    call = ModelCall(model="asked", prompt=Prompt(texts=("0123456789" * 1_000,), messages=1), max_tokens=4_000)
    cheap = Price(input="0.1", output="0.1", context_tokens_max=window)
    found = _goes_to(call, {"asked": Price(input="1", output="1", context_tokens_max=100_000), "other": cheap})

    assert (model, [] if model else ["context"]) == found
