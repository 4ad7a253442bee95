"""The platform's mark-up, keys of the users' own, and a contract's discount: from the call to the books and reports."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from rr_core import CENT, MONTH, START_MS, cent_call, done, model_step
from runrails import ConfigError, Guard, Limits, Price
from runrails.calls import ModelCall, ModelResult, Permit, Prompt, ServedTier
from runrails.errors import BoundUnknown, BudgetExceeded
from runrails.figures import Figures, figures_of, marked_up
from runrails.ledger import Account, UsageRecord
from runrails.pricing import PriceSpec, Term
from runrails.pricing.cards import card_from_text
from runrails.recompute import recompute
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails.usage import Usage

PRICES: Mapping[str, PriceSpec] = {
    "cent": Price(call="0.01"), "odd": Price(call="0.000000000051"), "huge": Price(call="9000000"),
    "tokens": Price(input="10", output="30"),
}  # fmt: skip
USED = Usage(input_tokens=1_000, output_tokens=500)


class World:
    """A guard on a memory store."""

    def __init__(self, limits: Limits | None = None, **settings: object) -> None:
        self.clock = ManualClock(START_MS)
        self.store = MemoryStore(clock=self.clock)
        ids = itertools.count(1)
        self.events: list[str] = []
        self.guard = Guard(
            limits or Limits(), user="alice", key="k1", org="acme", store=self.store,
            clock=self.clock, monotonic=self.clock, make_id=lambda: f"id-{next(ids)}",
            sinks=[lambda event: self.events.append(event.name)],
            **({"prices": PRICES} | settings),  # type: ignore[arg-type]
        )  # fmt: skip

    def records(self) -> list[UsageRecord]:
        return list(self.store.usage())

    def figures(self) -> list[Figures | None]:
        return [figures_of(record) for record in self.records()]

    def spent(self, scope: str, period: str = MONTH) -> int:
        return self.store.balance(Account(scope, period)).spent

    def held(self, scope: str, period: str = MONTH) -> int:
        return self.store.balance(Account(scope, period)).held

    def verdicts(self) -> list[str]:
        def find(fingerprint: str) -> object:
            text = self.store.price_card(fingerprint)
            return None if text is None else card_from_text(text)

        return [recompute(record, find).verdict for record in self.records()]  # type: ignore[arg-type]


def call(model: str, **told: object) -> ModelCall:
    """A small call with a cap."""
    return ModelCall(model=model, prompt=Prompt(texts=("hi",), messages=1), **({"max_tokens": 1_000} | told))  # type: ignore[arg-type]


def test_the_markup_is_held_spent_and_told_apart() -> None:
    """Two per cent on top, rounded up once: in the hold, in every scope, in the record and in the sums."""
    world = World(markup_bp=200)
    run = world.guard.run()
    permit = run.before_model(call("odd"))
    assert (53, 53) == (permit.bound_pusd, world.held("user:alice"))
    run.after_model(permit, done())
    assert [53] * 4 == [
        world.spent("user:alice"), world.spent("key:k1"), world.spent("org:acme"), world.spent(f"run:{run.id}", "-")
    ]  # fmt: skip
    assert [Figures(51, 0, 2, 53)] == world.figures()
    report = run.report()
    assert (53, 0, 53) == (report.cost_pusd, report.own_key_pusd, report.billed_pusd)
    (row,) = world.guard.usage("user")
    assert (51, 2, 53) == (row.provider_pusd, row.markup_pusd, row.billed_pusd)
    assert ["equal"] == world.verdicts()


def test_without_one_nothing_is_new() -> None:
    """The default: the provider's price is what is held, spent and billed."""
    world = World()
    run = world.guard.run()
    model_step(run)
    assert [Figures(CENT, 0, 0, CENT)] == world.figures()
    (record,) = world.records()
    assert (False, 0, None) == (record.facts.byok, record.facts.markup_bp, record.result and record.result.discount)
    assert CENT == run.report().billed_pusd
    assert "own key" not in str(run.report())


@pytest.mark.parametrize("markup_bp", [0, 200])
def test_on_a_key_of_the_users_own_nothing_is_billed(markup_bp: int) -> None:
    """The provider's cost counts against the run and the user's month of own keys; no mark-up, no charge."""
    world = World(Limits(run="0.015"), markup_bp=markup_bp, byok=True)
    run = world.guard.run()
    model_step(run)
    assert (0, CENT) == (world.spent("user:alice"), world.spent("byok:alice"))
    assert CENT == world.spent(f"run:{run.id}", "-")
    assert [Figures(CENT, 0, 0, 0)] == world.figures()
    report = run.report()
    assert (CENT, CENT, 0) == (report.cost_pusd, report.own_key_pusd, report.billed_pusd)
    assert "on your own key $0.01, billed $0.00" in str(report)
    assert (CENT, 0) == (report.as_dict()["own_key_pusd"], report.as_dict()["billed_pusd"])
    assert ["equal"] == world.verdicts()
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())


def test_own_keys_have_a_budget_of_their_own() -> None:
    """Calls on own keys and calls on the platform's draw on different months, and each month stops its own."""
    world = World(Limits(run=None, month="0.01", byok_month="0.02"))
    with world.guard.run(byok=True) as own:
        model_step(own)
        model_step(own)
        with pytest.raises(BudgetExceeded) as caught:
            own.before_model(cent_call())
        assert "byok:alice" in str(caught.value)
        assert 'Limits(byok_month="…")' in str(caught.value)
        assert own.stopped is not None
    model_step(world.guard.run())
    with pytest.raises(BudgetExceeded, match="user:alice"):
        world.guard.run().before_model(cent_call())
    assert (CENT, 2 * CENT) == (world.spent("user:alice"), world.spent("byok:alice"))


def test_each_place_may_say_whose_key_it_is() -> None:
    """The guard, the run, the block and the call say it, the closest wins; the report has both counters."""
    world = World(markup_bp=200)
    with world.guard.run() as run:
        model_step(run)
        with world.guard.attribute(byok=True):
            model_step(run)
            model_step(run, ModelCall(model="cent", max_tokens=9, by=_said(byok=False)))
            with world.guard.attribute(user="bob"):
                model_step(run)
        model_step(run, ModelCall(model="cent", max_tokens=9, by=_said(byok=True)))
        with world.guard.run(byok=True) as child:
            model_step(child)
    dear = marked_up(CENT, 200)
    assert [False, True, False, True, True, True] == [record.facts.byok for record in world.records()]
    assert (2 * dear + 4 * CENT, 4 * CENT, 2 * dear) == (
        run.report().cost_pusd, run.report().own_key_pusd, run.report().billed_pusd
    )  # fmt: skip
    assert {"alice": 3 * CENT, "bob": CENT} == {row.name: row.own_key_pusd for row in run.report().by("user")}
    assert {"alice": 3 * CENT, "bob": CENT} == {row.name: row.own_key_pusd for row in world.guard.usage("user")}


def _said(**told: object) -> object:
    from runrails import Attribution

    return Attribution(**told)  # type: ignore[arg-type]


def test_the_run_may_say_no_where_the_guard_says_yes() -> None:
    """False is a word like True; only None is none."""
    world = World(byok=True)
    model_step(world.guard.run(byok=False))
    model_step(world.guard.run())
    assert [False, True] == [record.facts.byok for record in world.records()]


STAND_INS = [
    ModelResult(end="unknown"), ModelResult(end="completed"), ModelResult(end="cut", reasoning=True),
    ModelResult(end="completed", usage=USED, unknown_attempts=2), ModelResult(end="unknown", unknown_attempts=1),
]  # fmt: skip


@pytest.mark.parametrize("result", STAND_INS)
@pytest.mark.parametrize("model", ["odd", "tokens"])
def test_a_stand_in_has_its_markup_once(model: str, result: ModelResult) -> None:
    """What nobody knows is charged at the hold, in which the mark-up is already; never more than is held."""
    plain, marked = World(), World(markup_bp=200)
    spent: list[tuple[Permit, int]] = []
    for world in (plain, marked):
        run = world.guard.run()
        permit = run.before_model(call(model, retries=2))
        assert 2 == permit.retries
        run.after_model(permit, result)
        spent.append((permit, world.spent("user:alice")))
    (_, net), (permit, gross) = spent
    assert marked_up(net, 200) == gross <= permit.bound_pusd
    assert "runrails.bound_violated" not in marked.events


def test_cut_and_tiers_are_marked_up_after_all() -> None:
    """Cut answers, served tiers, failures and cached answers: the net amount as ever, then the mark-up."""
    for result in (
        ModelResult(end="cut", output_text=("some words",)), ModelResult(end="failed"), ModelResult(end="cached"),
        ModelResult(end="cut", output_text=("x",), floor_usage=Usage(input_tokens=900, output_tokens=800)),
        ModelResult(end="completed", usage=USED, tier=ServedTier("rush", 20_000)),
    ):  # fmt: skip
        spent: list[int] = []
        for world in (World(), World(markup_bp=333)):
            run = world.guard.run()
            run.after_model(run.before_model(call("tokens")), result)
            spent.append(world.spent("user:alice"))
        assert marked_up(spent[0], 333) == spent[1], result


def test_the_budget_covers_the_markup() -> None:
    """What is just enough for the provider is not enough; a cap is shrunk to what the rest buys with its mark-up."""
    world = World(Limits(run="0.01"), markup_bp=200)
    with pytest.raises(BudgetExceeded):
        world.guard.run().before_model(cent_call())
    world = World(Limits(run="0.1"), markup_bp=200)
    run = world.guard.run()
    permit = run.before_model(call("tokens", can_cap=True, max_tokens=100_000))
    assert permit.max_tokens is not None
    assert 1_024 < permit.max_tokens < 100_000
    assert CENT * 10 - marked_up(30_000_000, 200) < permit.bound_pusd <= CENT * 10
    most = Usage(input_tokens=10, output_tokens=permit.max_tokens)
    run.after_model(permit, ModelResult(end="completed", usage=most))
    assert world.spent(f"run:{run.id}", "-") <= permit.bound_pusd
    assert "runrails.bound_violated" not in world.events


def test_a_bound_that_no_ledger_counts_with_its_markup_is_refused() -> None:
    """$9 million fit, $9 million and a half as much again do not; nothing is held."""
    model_step(World(Limits(run="9000001")).guard.run(), call("huge"))
    world = World(Limits(run="9000001"), markup_bp=5_000)
    with pytest.raises(BoundUnknown):
        world.guard.run().before_model(call("huge"))
    assert (0, 0) == (world.spent("user:alice"), world.held("user:alice"))


def test_a_permit_is_taken_over_with_its_markup() -> None:
    """A changed call that still fits keeps its permit, a larger one gets another: holds are as for a fresh call."""
    world = World(markup_bp=200)
    run = world.guard.run()
    permit = run.before_model(call("tokens"))
    assert permit.id == run.revise(permit, call("tokens", max_tokens=900)).id
    larger = run.revise(permit, call("tokens", max_tokens=2_000))
    assert larger.id != permit.id
    assert larger.bound_pusd == world.held("user:alice") > permit.bound_pusd
    run.withdraw(larger)
    assert 0 == world.held("user:alice")


def _step(run: Run, model: str, served: str | None = None) -> None:
    run.after_model(run.before_model(call(model)), ModelResult(end="completed", usage=USED, model=served))


def test_a_contracts_discount_is_a_figure_of_its_own() -> None:
    """Provider is the list price; the discount is exact, and the mark-up is on what the provider gets."""
    world = World(prices=None, contract=[Term(provider="openai", percent="-12")], markup_bp=200)
    run = world.guard.run()
    _step(run, "gpt-4")
    net = 52_800_000_000  # (1,000 * $30 + 500 * $60) per million, less 12 %
    assert [Figures(60_000_000_000, 7_200_000_000, 1_056_000_000, marked_up(net, 200))] == world.figures()
    assert ["equal"] == world.verdicts()
    (row,) = world.guard.usage("model")
    assert (60_000_000_000, 7_200_000_000) == (row.provider_pusd, row.discount_pusd)
    assert "discount_pusd" not in run.report().as_dict()["groups"]["user"][0]  # type: ignore[index]


def test_discounts_of_served_models_surcharges_and_prices_of_our_own() -> None:
    """A surcharge is negative; the model that served counts; where nobody else has a price there is no discount."""
    terms = [
        Term(provider="openai", percent="5"), Term(model="house-model", price=Price(input="1", output="2")),
        Term(model="anthropic:claude-3-haiku", price=Price(input="0.20", output="1.00")),
    ]  # fmt: skip
    world = World(prices=None, contract=terms)
    run = world.guard.run()
    _step(run, "gpt-4")
    _step(run, "house-model")
    _step(run, "anthropic:claude-3-haiku")
    _step(run, "gpt-4-turbo", served="gpt-4")
    run.after_model(run.before_model(call("gpt-4")), ModelResult(end="unknown"))
    figures = world.figures()
    assert [60_000_000_000, 2_000_000_000, 875_000_000, 60_000_000_000] == [
        each.provider_pusd for each in figures[:4] if each is not None
    ]
    assert [-3_000_000_000, 0, 175_000_000, -3_000_000_000, 0] == [
        each.discount_pusd for each in figures if each is not None
    ]
    assert ["equal"] * 4 + ["stand_in"] == world.verdicts()


def test_the_answers_id_is_in_the_record() -> None:
    """It is kept as it came; one that is absurdly long is none."""
    world = World()
    run = world.guard.run()
    for answer_id in ("chatcmpl-1", None, "x" * 257):
        run.after_model(run.before_model(cent_call()), ModelResult(end="completed", usage=USED, answer_id=answer_id))
    assert ["chatcmpl-1", None, None] == [record.result and record.result.answer_id for record in world.records()]


def test_observing_counts_the_markup_too() -> None:
    """A run that is only watched is charged in the books as it would be."""
    world = World(Limits(run="0.001"), markup_bp=200, mode="observe")
    model_step(world.guard.run())
    assert [Figures(CENT, 0, CENT // 50, CENT // 50 * 51)] == world.figures()


@pytest.mark.parametrize(("byok", "kept"), [(False, CENT // 50 * 51), (True, CENT)])
def test_a_last_turn_has_its_markup_kept_back(byok: bool, kept: int) -> None:
    """The turn after the stop is paid with its mark-up from what was kept back; the limit holds all the same."""
    world = World(Limits(run="0.10", loops=None, wrap_up=True), markup_bp=200, byok=byok)
    run = world.guard.run()
    last = run.expect_last_turn()
    with pytest.raises(BudgetExceeded):
        while True:
            model_step(run)
    assert kept == world.held(f"run:{run.id}", "-")
    with last.turn() as room:
        assert room
        model_step(run)
    spent = world.spent(f"run:{run.id}", "-")
    assert (0, True) == (world.held(f"run:{run.id}", "-"), 9 * CENT <= spent <= 10 * CENT)
    assert [kept] == list({record.actual_pusd for record in world.records()})


@pytest.mark.parametrize("wrong", [-1, 10_001, 2.0, True, "200"])
def test_a_wrong_markup_is_refused_by_name(wrong: object) -> None:
    """The guard is not made."""
    with pytest.raises(ConfigError, match="markup_bp"):
        World(markup_bp=wrong)


@pytest.mark.parametrize("wrong", [1, "yes", 0.0, []])
def test_a_wrong_word_about_keys_is_refused_by_name(wrong: object) -> None:
    """`byok` is True or False, wherever it is said."""
    for say in (
        lambda: World(byok=wrong), lambda: World().guard.run(byok=wrong), lambda: World().guard.attribute(byok=wrong),
        lambda: _said(byok=wrong),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="byok"):
            say()


def test_the_environments_markup_gives_way_to_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RUNRAILS_MARKUP_BP` is for guards that say nothing; 0 is a word."""
    monkeypatch.setenv("RUNRAILS_MARKUP_BP", "150")
    assert (150, 0, 200) == (
        World().guard.markup_bp, World(markup_bp=0).guard.markup_bp, World(markup_bp=200).guard.markup_bp
    )  # fmt: skip
