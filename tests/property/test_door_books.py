"""Whole calls through the real door, by the short ways and the general ones, against books that are kept by hand."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import ExitStack, suppress
from fractions import Fraction
from math import ceil
from random import Random
from typing import Any, NamedTuple

import pytest

from runrails import Guard, Limits, Price
from runrails.calls import ModelCall, ModelResult, Permit, Prompt
from runrails.errors import BudgetBusy, BudgetExceeded, CallTooLarge, GuardrailStopped
from runrails.ledger import Account
from runrails.money import format_usd
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails.usage import Usage

START_MS, MONTH = 1_795_000_000_000, "2026-11"
FLOOR = 1_024
ANCHORS = 8
PRICES = {
    "line": Price(input="3", output="15", cache_read="0.3", cache_write="3.75"),
    "call": Price(call="0.01"),
    "odd": Price(input="0.0000015", output="2.5000005", call="0.001"),
    "tiered": Price(input="3", output="15", tiers={"priority": Price(input="6", output="30")}),
    "short": Price(input="1", output="2", output_tokens_max=2_000),
}


class Rates(NamedTuple):
    """Picodollars."""

    into: Fraction
    out: Fraction
    call: int = 0

    def cost(self, into: int, out: int) -> int:
        """Of so many tokens."""
        return ceil(into * self.into + out * self.out + self.call)


MILLION = 10**6
RATES = {
    "line": Rates(Fraction(3 * MILLION), Fraction(15 * MILLION)),
    "call": Rates(Fraction(0), Fraction(0), 10**10),
    "odd": Rates(Fraction(3, 2), Fraction(2_500_000 * 2 + 1, 2), 10**9),
    "tiered": Rates(Fraction(3 * MILLION), Fraction(15 * MILLION)),
    "short": Rates(Fraction(MILLION), Fraction(2 * MILLION)),
}


class Asked(NamedTuple):
    """One thing that is done: a call begins; or the oldest open one ends, after which nothing else of this counts."""

    ends: str | None
    model: str
    texts: tuple[str, ...]
    tools: bool
    cap: int
    n: int
    retries: int
    can_cap: bool
    cache_write: bool
    priority: bool
    agent: str
    reported: float | None
    cached: float
    answers: bool


TALK = tuple(f"{number}" * length for number, length in enumerate((5, 60, 1, 300, 20, 7, 900, 3)))
"""What the prompts are beginnings of, so that most of them continue an earlier one."""


def drawn(rng: Random) -> Asked:
    """Something to do."""
    return Asked(
        ends=rng.choice([None, None, "completed", "completed", "completed", "failed", "cached", "unknown"]),
        model=rng.choice(sorted(RATES)), texts=TALK[: rng.randint(1, len(TALK))], tools=rng.random() < 0.2,
        cap=rng.choice([1, 100, FLOOR, rng.randint(1, 5_000)]), n=rng.choice([1, 1, 3]), retries=rng.randint(0, 2),
        can_cap=rng.random() < 0.5, cache_write=rng.random() < 0.3, priority=rng.random() < 0.5,
        agent=rng.choice(["", "a/b"]), reported=rng.choice([None, 1.0, rng.uniform(0.2, 1), rng.uniform(0.2, 1)]),
        cached=rng.random(), answers=rng.random() < 0.5,
    )  # fmt: skip


class Hand:
    """The books as they should be, kept the long way; of what was said only whole texts are compared."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        self.holds: dict[str, int] = {}
        self.known: dict[tuple[str, str], list[tuple[tuple[str, ...], bool, int, str | None, int]]] = {}

    def input_tokens(self, asked: Asked) -> int:
        """As a whole, or what is new since the call that it continues."""
        best = None
        for seen in self.known.get((asked.agent, asked.model), ()):
            if asked.texts[: len(seen[0])] == seen[0] and seen[1] == asked.tools:
                best = seen if best is None or len(seen[0]) > len(best[0]) else best
        if best is None:
            whole = text_tokens(asked.texts) + 16 * len(asked.texts) + 16
            return whole + (len(TOOL) + 60 + 600 if asked.tools else 0)
        texts, _, reported, answer, output = best
        fresh = asked.texts[len(texts) :]
        total = reported + 16 + 16 * len(fresh)
        if answer is not None and fresh[:1] == (answer,):
            total += min(text_tokens(fresh[:1]), output + 16)
            fresh = fresh[1:]
        return total + text_tokens(fresh)

    def rates(self, asked: Asked) -> Rates:
        """The dearest that may apply."""
        rates = RATES[asked.model]
        if asked.model == "tiered" and asked.priority:
            return Rates(rates.into * 2, rates.out * 2)
        if asked.model == "line":  # whose provider may write its cache unasked; asking only forces the general way
            return rates._replace(into=rates.into * 5 / 4)
        return rates

    def price(self, asked: Asked, into: int, out: int) -> int:
        """The most that an attempt can cost."""
        return self.rates(asked).cost(into, asked.n * out)

    def begin(self, asked: Asked, into: int) -> tuple[int, int, int] | None:
        """Bound, retries and cap; None if it does not fit."""
        room = self.limit - self.spent - sum(self.holds.values())
        one = self.price(asked, into, asked.cap)
        for retries in range(asked.retries, -1, -1):
            if one * (1 + retries) <= room:
                return one * (1 + retries), retries, asked.cap
        floor = min(asked.cap, FLOOR)
        if asked.can_cap and asked.cap > floor and one > self.limit - self.spent:
            rates = self.rates(asked)
            left = room - rates.call - into * rates.into
            cap = floor if left < 0 or not rates.out else int(left / (asked.n * rates.out))
            if floor <= cap and self.price(asked, into, floor) <= room:
                return self.price(asked, into, cap), 0, cap
        return None

    def remember(self, asked: Asked, usage: Usage, answer: str | None) -> None:
        """What the next call may continue."""
        if usage.input_tokens <= 0 or usage.input_tokens * 8 < sum(map(len, asked.texts)):
            return
        kept = self.known.setdefault((asked.agent, asked.model), [])
        kept[:] = [seen for seen in kept if seen[:2] != (asked.texts, asked.tools)]
        kept.insert(0, (asked.texts, asked.tools, usage.input_tokens, answer, usage.output_tokens))
        del kept[ANCHORS:]


TOOL = '{"name":"look"}'


def text_tokens(texts: tuple[str, ...]) -> int:
    """Of digits nothing is discounted."""
    return sum(len(text.encode()) for text in texts)


class Open(NamedTuple):
    """A call in flight."""

    asked: Asked
    permit: Permit
    into: int


def call_of(asked: Asked) -> ModelCall:
    """What is about to be sent."""
    tools = (TOOL,) if asked.tools else ()
    return ModelCall(
        model=asked.model, prompt=Prompt(texts=asked.texts, messages=len(asked.texts), tools=tools),
        max_tokens=asked.cap, n=asked.n, retries=asked.retries, can_cap=asked.can_cap, cache_write=asked.cache_write,
        service_tier="priority" if asked.priority and asked.model == "tiered" else None, agent=asked.agent,
        endpoint="/chat", user_agent="sdk/1",
    )  # fmt: skip


def result_of(asked: Asked, about: Open) -> tuple[ModelResult, str | None]:
    """What a call came to, and what the answer said."""
    usage = None
    if asked.ends == "completed" and asked.reported is not None:
        into = max(1, int(about.into * asked.reported))
        out = int((about.permit.max_tokens or 0) * asked.reported)
        cached = int(into * asked.cached) if about.asked.model == "line" else 0
        usage = Usage(input_tokens=into, output_tokens=out, cache_read_tokens=cached)
    following = TALK[len(about.asked.texts) :][:1] if asked.answers else ()
    end: Any = asked.ends
    return ModelResult(end=end, usage=usage, answer=following or None, answer_id="a-1"), (*following, None)[0]


def charge(about: Open, bound: int, retries: int, result: ModelResult) -> int:
    """What it costs."""
    if result.end in ("failed", "cached"):
        return 0
    usage = result.usage
    if usage is None:
        return bound // (1 + retries)
    rates = RATES[about.asked.model]
    off = usage.cache_read_tokens * rates.into * Fraction(9, 10) if about.asked.model == "line" else 0
    return ceil(usage.input_tokens * rates.into + usage.output_tokens * rates.out + rates.call - off)


class Door:
    """A guard on a memory store, and the run that is asked."""

    def __init__(self, within: ExitStack, limited: str, limit: int, *, tokens: bool, child: bool) -> None:
        dollars = format_usd(limit).removeprefix("$").replace(",", "")
        self.clock = ManualClock(START_MS)
        self.store = MemoryStore(clock=self.clock)
        numbers = itertools.count(1)
        limits = Limits(
            run=dollars if limited == "run" else None, month=dollars if limited == "month" else None, steps=None,
            tokens=10**9 if tokens else None, hold_wait_ms=0,
        )  # fmt: skip
        guard = Guard(
            limits, user="alice", store=self.store, prices=PRICES, sinks=(), clock=self.clock, monotonic=self.clock,
            make_id=lambda: f"id{next(numbers)}",
        )  # fmt: skip
        within.callback(guard.close)
        self.runs = [within.enter_context(guard.run())]
        if child:
            self.runs.append(within.enter_context(guard.run()))
        self.run = self.runs[-1]
        scopes = [run.tally.scope for run in self.runs]
        self.accounts = [Account("user:alice", MONTH), *(Account(scope, "-") for scope in scopes)]

    def books(self) -> set[tuple[int, int]]:
        """What is spent and held; the same in every account, as there is but one caller."""
        return {(found.spent, found.held) for found in map(self.store.balance, self.accounts)}


@pytest.mark.parametrize("child", [False, True], ids=["alone", "child"])
@pytest.mark.parametrize("tokens", [False, True], ids=["money", "tokens"])
@pytest.mark.parametrize("limited", ["run", "month"])
@pytest.mark.parametrize("seed", range(12))
def test_every_way_through_the_door_leads_to_the_same_books(seed: int, limited: str, tokens: bool, child: bool) -> None:
    """Permits, balances after each step, usage records and the report are those of the books by hand."""
    rng = Random(f"{seed} {limited} {tokens} {child}")
    limit = rng.choice([2 * 10**10, 3 * 10**11, 10**13])
    steps = [drawn(rng) for _ in range(30)]
    with suppress(GuardrailStopped), ExitStack() as within:  # a stopped run says so when it is left
        door = Door(within, limited, limit, tokens=tokens, child=child)
        hand = Hand(limit)
        flying: list[Open] = []
        ended: dict[str, tuple[Open, int, int, ModelResult]] = {}
        for asked in steps:
            door.clock.advance(7)
            if asked.ends is None or not flying:
                if not begin(door, hand, asked, flying):
                    break
            else:
                end(door, hand, asked, flying.pop(0), ended)
            assert {(hand.spent, sum(hand.holds.values()))} == door.books()
        check_records(door, hand, flying, ended)
        # The run may have been stopped: what is in flight is handed back all the same.
        for about in flying:
            door.run.after_model(about.permit, ModelResult(end="failed"))
        assert {(hand.spent, 0)} == door.books()
        report = door.runs[0].report()
        assert (hand.spent, len(ended) + len(flying)) == (report.cost_pusd, report.model_calls)


def begin(door: Door, hand: Hand, asked: Asked, flying: list[Open]) -> bool:
    """Ask; whether the run goes on."""
    into = hand.input_tokens(asked)
    wanted = hand.begin(asked, into)
    call = call_of(asked)
    try:
        permit = door.run.before_model(call, sends=True)
    except (BudgetBusy, CallTooLarge):
        assert wanted is None
        return True
    except BudgetExceeded:
        assert wanted is None
        assert hand.spent + hand.price(asked, into, min(asked.cap, FLOOR)) > hand.limit
        return False
    assert wanted is not None
    bound, retries, cap = wanted
    assert (bound, retries, cap, into) == (permit.bound_pusd, permit.retries, permit.max_tokens, permit.input_tokens)
    assert (call, door.clock(), False, True) == (permit.call, permit.started_ms, permit.uncapped, permit.held)
    hand.holds[permit.id] = bound
    flying.append(Open(asked, permit, into))
    return True


def end(
    door: Door, hand: Hand, asked: Asked, about: Open, ended: dict[str, tuple[Open, int, int, ModelResult]]
) -> None:
    """Hand the oldest permit back."""
    result, answer = result_of(asked, about)
    bound = hand.holds.pop(about.permit.id)
    cost = charge(about, bound, about.permit.retries, result)
    door.run.after_model(about.permit, result)
    hand.spent += cost
    ended[about.permit.id] = (about, bound, cost, result)
    if result.end == "completed" and result.usage is not None:
        hand.remember(about.asked, result.usage, answer if result.usage.output_tokens > 0 else None)


def check_records(
    door: Door, hand: Hand, flying: list[Open], ended: dict[str, tuple[Open, int, int, ModelResult]]
) -> None:
    """Every call is in the books once, with what was known of it."""
    records = {record.id: record for record in door.store.usage()}
    assert {*ended, *hand.holds} == set(records)
    for about in flying:
        record = records[about.permit.id]
        assert ("held", hand.holds[record.id], None) == (record.state, record.estimated_pusd, record.actual_pusd)
    for name, (about, bound, cost, result) in ended.items():
        record, facts, asked = records[name], records[name].facts, about.asked
        stand_in = result.usage is None and result.end in ("completed", "unknown")
        assert ("unresolved" if stand_in else "settled", bound, cost) == (
            record.state,
            record.estimated_pusd,
            record.actual_pusd,
        )
        assert ("alice", door.run.id, about.into) == (facts.user, facts.run, facts.input_bound_tokens)
        assert (asked.model, asked.agent, "/chat", "sdk/1") == (
            facts.model, facts.agent, facts.endpoint, facts.user_agent
        )  # fmt: skip
        assert record.result is not None
        told = record.result
        assert (result.end, result.usage, "a-1") == (told.end, told.usage, told.answer_id)
        assert (about.permit.started_ms, told.duration_ms) == (
            record.at_ms, (record.settled_at_ms or 0) - record.at_ms
        )  # fmt: skip
    repeated = Counter(facts.facts.step for facts in records.values())
    assert len(records) == len(repeated)
