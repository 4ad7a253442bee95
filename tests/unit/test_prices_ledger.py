"""Every line of the ledger can be worked out again: rates are kept once, prices change only as it was known before."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from rr_ledger import USER, booking
from runrails import Guard, Limits, PriceUnknown, Term
from runrails.calls import CallEnd, ModelCall, ModelResult, Prompt, ServedTier
from runrails.cli.shell import run as runrails
from runrails.errors import StoreUnavailable
from runrails.events import Event
from runrails.ledger import CallFacts, ResultFacts, SupportsPriceCards, UsageRecord
from runrails.pricing import Price, PriceBook, PriceCard
from runrails.pricing.cards import card_from_text, cost_pusd
from runrails.recompute import recompute
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.usage import Usage

BEFORE_MS = 1_793_231_940_000
"""28 October 2026, 23:59 UTC: a minute before Mistral's price fell."""
MINUTE_MS = 60_000
USED = Usage(input_tokens=1_000, output_tokens=100)
LIMITS = Limits(run="100", steps=None)


class World:
    """A guard on a store, with the clock it is told."""

    def __init__(
        self,
        store: MemoryStore | SQLiteStore | None = None,
        *,
        clock: ManualClock | None = None,
        contract: Iterable[Term] = (),
        assume: bool = False,
    ) -> None:
        self.clock = clock or ManualClock(BEFORE_MS)
        self.store = store or MemoryStore(clock=self.clock)
        self.events: list[Event] = []
        ids = itertools.count(1)
        self.guard = Guard(
            LIMITS, user="alice", store=self.store, prices={"flat": Price(call="0.01")}, contract=contract,
            assume="dearest" if assume else None, sinks=[self.events.append], clock=self.clock, monotonic=self.clock,
            make_id=lambda: f"id-{next(ids)}",
        )  # fmt: skip

    def records(self) -> list[UsageRecord]:
        return list(self.store.usage())


def step(
    run: Run, model: str, *, end: CallEnd = "completed", usage: Usage | None = USED, provider: str | None = None,
    tier: ServedTier | None = None, served: str | None = None, region: str | None = None,
) -> None:  # fmt: skip
    call = ModelCall(
        model=model, provider=provider, region=region, prompt=Prompt(texts=("hi",), messages=1), max_tokens=100
    )
    permit = run.before_model(call)
    run.after_model(permit, ModelResult(end=end, usage=usage, tier=tier, model=served))


# Prices inside a run.


def test_inside_a_run_a_price_changes_only_on_its_day() -> None:
    """It was known beforehand: the minute before midnight costs the old price, the minute after it the new one."""
    world = World()
    run = world.guard.run()
    step(run, "mistral:mistral-large-4")
    world.clock.advance(2 * MINUTE_MS)
    step(run, "mistral:mistral-large-4")
    old, new = (1_000 * 1_360_000 + 100 * 4_180_000, 1_000 * 700_000 + 100 * 2_100_000)
    assert [old, new] == [record.actual_pusd for record in world.records()]
    assert 2 == len({record.facts.price_card for record in world.records()})


def test_a_call_is_charged_at_the_price_it_was_admitted_at() -> None:
    """Although the price has changed while it ran: what was held for is what is settled."""
    world = World()
    run = world.guard.run()
    permit = run.before_model(
        ModelCall(model="mistral:mistral-large-4", prompt=Prompt(texts=("hi",), messages=1), max_tokens=100)
    )
    world.clock.advance(2 * MINUTE_MS)
    run.after_model(permit, ModelResult(end="completed", usage=USED))
    assert [1_000 * 1_360_000 + 100 * 4_180_000] == [record.actual_pusd for record in world.records()]


def test_a_region_is_priced_where_the_client_is() -> None:
    """The region of the call reaches the book."""
    world = World()
    step(world.guard.run(), "meta.llama3-70b-instruct-v1:0", provider="bedrock", region="sa-east-1")
    assert [1_000 * 4_450_000 + 100 * 5_880_000] == [record.actual_pusd for record in world.records()]


def test_a_tier_is_held_for_as_the_request_names_it() -> None:
    """An open one at the dearest the provider may choose; one without a price is refused and holds nothing."""
    world = World()
    run = world.guard.run()
    held = {
        tier: run.before_model(
            ModelCall(model="gpt-5", service_tier=tier, prompt=Prompt(texts=("hi",), messages=1), max_tokens=100)
        ).bound_pusd
        for tier in (None, "default", "auto", "priority", "flex")
    }
    assert held["auto"] == held["priority"] == 2 * held["default"] == 4 * held["flex"]
    assert held[None] == held["default"]
    with pytest.raises(PriceUnknown):
        run.before_model(ModelCall(model="gpt-5", service_tier="scale", prompt=Prompt(texts=("hi",)), max_tokens=9))
    assert sum(held.values()) == world.store.balance(USER._replace(period="2026-10")).held


def test_a_guards_contract_and_assumption_reach_its_calls() -> None:
    """A discount is charged as such; an assumed price is told of, once a model."""
    world = World(contract=[Term(provider="openai", percent="-50")], assume=True)
    run = world.guard.run()
    step(run, "gpt-4")
    for model in ("no-such-model", "no-such-model", "nor-this"):
        step(run, model, provider="openai")
    half, *assumed = [record.actual_pusd for record in world.records()]
    assert 1_000 * 15_000_000 + 100 * 30_000_000 == half
    assert half is not None
    assert all(amount is not None and amount > half for amount in assumed)
    told = [event.fields["model"] for event in world.events if event.name == "runrails.price_assumed"]
    assert ["no-such-model", "nor-this"] == told
    # Names come from outside: they must not fill the ledger with cards.
    assert 2 == len({record.facts.price_card for record in world.records()})
    with pytest.raises(PriceUnknown):
        World().guard.run().before_model(ModelCall(model="no-such-model", prompt=Prompt(texts=("hi",))))


# What the store keeps.


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | SQLiteStore:
    clock = ManualClock(BEFORE_MS)
    return MemoryStore(clock=clock) if request.param == "memory" else SQLiteStore(tmp_path / "l.db", clock=clock)


def test_a_store_keeps_the_text_of_a_card(store: MemoryStore | SQLiteStore) -> None:
    """As often as it is given, and only under its own fingerprint."""
    card = PriceBook().card("gpt-4", now_ms=BEFORE_MS)
    assert isinstance(store, SupportsPriceCards)
    assert store.price_card(card.fingerprint) is None
    for _ in range(2):
        store.keep_price_card(card.fingerprint, card.text())
    for fingerprint, text in (
        ("0" * 64, card.text()),
        (card.fingerprint, card.text() + " "),
        ("x", "é"),
        ("", "y" * 99_999),
    ):
        with pytest.raises(ValueError, match="price card"):
            store.keep_price_card(fingerprint, text)
    assert (card.text(), None) == (store.price_card(card.fingerprint), store.price_card("0" * 64))
    store.close()


def test_every_card_that_charged_a_call_is_kept(store: MemoryStore | SQLiteStore) -> None:
    """That of the bound, of the model that served, of the tier that served; each once."""
    world = World(store)
    run = world.guard.run()
    step(run, "gpt-5")
    step(run, "gpt-5", tier=ServedTier("priority", 20_000))
    step(run, "gpt-4o", served="gpt-4")
    step(run, "flat")
    for record in world.records():
        assert record.result is not None
        fingerprint = record.result.price_card or record.facts.price_card
        text = world.store.price_card(fingerprint)
        assert text is not None
        assert cost_pusd(card_from_text(text), USED) == record.actual_pusd
    named = [record.result.price_card != "" for record in world.records() if record.result is not None]
    assert [False, True, True, False] == named
    store.close()


def test_a_store_that_cannot_keep_a_card_refuses_no_call() -> None:
    """The rates are for looking back; they are written once the store is there again."""

    class Forgetful(MemoryStore):
        away = True

        def keep_price_card(self, fingerprint: str, text: str) -> None:
            if self.away:
                raise StoreUnavailable("The store is away.", next_step="Wait.")
            super().keep_price_card(fingerprint, text)

    clock = ManualClock(BEFORE_MS)
    forgetful = Forgetful(clock=clock)
    world = World(forgetful, clock=clock)
    step(world.guard.run(), "gpt-4")
    (record,) = world.records()
    assert ("settled", None) == (record.state, forgetful.price_card(record.facts.price_card))
    assert "runrails.price_card_postponed" in [event.name for event in world.events]
    forgetful.away = False
    clock.advance(10 * MINUTE_MS)
    world.guard.flush()
    assert forgetful.price_card(record.facts.price_card) is not None


def test_a_ledger_of_the_first_version_is_brought_up(tmp_path: Path) -> None:
    """Its lines stay, and from then on it keeps price cards."""
    path = tmp_path / "old.db"
    SQLiteStore(path, clock=ManualClock(BEFORE_MS)).close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE price_card")
    connection.execute("DROP TABLE correction")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    world = World(SQLiteStore(path, clock=ManualClock(BEFORE_MS)))
    step(world.guard.run(), "gpt-4")
    (record,) = world.records()
    assert world.store.price_card(record.facts.price_card) is not None
    world.store.close()


# Working lines out again.


def _record(**changes: object) -> UsageRecord:
    card = PriceBook().card("gpt-4", now_ms=BEFORE_MS)
    given: dict[str, object] = {
        "id": "a", "state": "settled", "at_ms": BEFORE_MS, "settled_at_ms": BEFORE_MS, "estimated_pusd": 10**12,
        "actual_pusd": cost_pusd(card, USED), "result": ResultFacts(usage=USED),
        "facts": CallFacts(user="alice", run="r", model="gpt-4", price_card=card.fingerprint),
    }  # fmt: skip
    return UsageRecord(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "equal"),
        ({"actual_pusd": 36_000_000_001}, "differs"),
        ({"actual_pusd": 0}, "differs"),
        ({"state": "late"}, "equal"),
        ({"state": "unresolved"}, "stand_in"),
        ({"state": "held", "actual_pusd": None}, "open"),
        ({"state": "released", "actual_pusd": 0, "result": None}, "equal"),
        ({"state": "released", "actual_pusd": 1, "result": None}, "differs"),
        ({"result": ResultFacts(usage=None)}, "stand_in"),
        ({"result": None}, "stand_in"),
        ({"result": ResultFacts(end="failed"), "actual_pusd": 0}, "equal"),
        ({"result": ResultFacts(end="cached", usage=USED), "actual_pusd": 0}, "equal"),
        ({"result": ResultFacts(end="cached", usage=USED), "actual_pusd": 5}, "differs"),
        ({"result": ResultFacts(end="failed"), "state": "unresolved"}, "stand_in"),
        ({"result": ResultFacts(usage=USED, price_card="another")}, "unkept"),
        ({"result": ResultFacts(usage=Usage(web_searches=1))}, "unkept"),
    ],
)
def test_a_line_is_worked_out_by_its_state(changes: dict[str, object], verdict: str) -> None:
    """Only what was charged by rates can be; everything else says why not."""
    cards: dict[str, PriceCard] = {}
    card = PriceBook().card("gpt-4", now_ms=BEFORE_MS)
    cards[card.fingerprint] = card
    assert verdict == recompute(_record(**changes), cards.get).verdict


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger with calls of many kinds, all of them charged rightly."""
    monkeypatch.chdir(tmp_path)
    clock = ManualClock(BEFORE_MS)
    world = World(
        SQLiteStore(tmp_path / "l.db", clock=clock), clock=clock,
        contract=[Term(model="gpt-4", percent="-12.5", valid_to="2026-10-28")], assume=True,
    )  # fmt: skip
    run = world.guard.run()
    for _ in range(2):
        for model in ("gpt-4", "claude-opus-5-5", "mistral:mistral-large-4", "flat", "us.amazon.nova-pro-v1:0"):
            step(run, model)
        step(run, "gpt-5", tier=ServedTier("flex", 5_000))
        step(run, "gpt-4o", served="gpt-4o-2024-08-06")
        step(run, "gpt-4", end="failed", usage=None)
        step(run, "gpt-4", end="unknown", usage=None)
        step(run, "nobody-knows-it", provider="openai")
        clock.advance(2 * MINUTE_MS)
    world.store.close()
    return f"sqlite:////{tmp_path}/l.db"


def _verify(url: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, object]]:
    code = runrails(["prices", "verify", "--store", url, "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_every_line_is_as_recorded(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Over contracts, tiers, served models, dates, failures and assumed prices; none is without its rates."""
    code, told = _verify(url, capsys)
    assert (0, 20, 18, 0, 2, 0, 2, []) == (
        code, *(told[key] for key in ("lines", "equal", "differs", "stand_in", "unkept", "assumed", "differences"))
    )  # fmt: skip
    code, told = _verify(url, capsys, "--since", "2026-10-29")
    assert (0, 10) == (code, told["lines"])


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("UPDATE reservation SET actual_pusd = actual_pusd + 1 WHERE seq = (SELECT min(seq) FROM reservation)", 1),
        ("UPDATE reservation SET result = replace(result, '100', '101') WHERE state = 'settled'", 18 - 2 - 2),
        ("UPDATE price_card SET card = replace(card, '4000000', '4000001')", 0),
    ],
)
def test_a_changed_line_is_found_out(url: str, capsys: pytest.CaptureFixture[str], change: str, differs: int) -> None:
    """In its amount or its usage; changed rates are no longer those of the fingerprint, and today's stand in."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.execute(change)
    connection.commit()
    connection.close()
    code, told = _verify(url, capsys)
    assert (differs, int(differs > 0)) == (told["differs"], code)
    differences = told["differences"]
    assert isinstance(differences, list)
    if differs:
        assert {"id", "recorded_pusd", "recomputed_pusd", "price_card", "model"} <= differences[0].keys()
        assert 1 == runrails(["prices", "verify", "--store", url])
        assert "Charges that differ" in capsys.readouterr().out


def test_lines_without_kept_rates_use_todays_if_they_are_the_same(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As for lines of before rates were kept; what a contract made of them is beyond recall, and fails."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.execute("DELETE FROM price_card")
    connection.commit()
    connection.close()
    code, told = _verify(url, capsys)
    assert (1, 0) == (code, told["differs"])
    assert 1 == runrails(["prices", "verify", "--store", url])
    assert "could not be verified" in capsys.readouterr().err
    code, _ = _verify(url, capsys, "--allow-unkept")
    assert 0 == code
    equal, unkept = told["equal"], told["unkept"]
    assert isinstance(equal, int)
    assert isinstance(unkept, int)
    assert 0 < unkept < equal


def test_a_store_without_usage_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty one is in order; a moment that is none is bad input."""
    assert 0 == runrails(["prices", "verify", "--store", "memory:"])
    assert "0 lines" in capsys.readouterr().out
    assert 2 == runrails(["prices", "verify", "--store", "memory:", "--since", "yesterday"])


def test_records_with_another_card_keep_it(store: MemoryStore | SQLiteStore) -> None:
    """The fingerprint of the card that a cost was made with is part of the record."""
    store.reserve(booking("a", 5, USER, facts=CallFacts(user="alice", run="r", price_card="one")))
    store.settle("a", 5, result=ResultFacts(usage=USED, price_card="two"))
    (record,) = store.usage()
    assert ("one", "two") == (record.facts.price_card, record.result and record.result.price_card)
    store.close()
