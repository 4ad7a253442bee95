"""
Simulated calls through the real door, and the ledger against an independent recomputation in Decimal.

    python tests/simulate_calls.py --calls 1000000 --seed 1

Every call is reserved and settled by a guard (memory, and for a part SQLite) from a provider's raw usage report, with
text of 40 languages and formats, prices that change with the date, long-context cliffs, service tiers, regions,
contracts, a project file, prices of a run, mark-up and keys of the users' own. Exit code 0: every amount is the one
that the other bookkeeper (`rr_sim_books`) has, no call cost more than was held for it, and the balances add up.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import rr_sim_books as books
from rr_bound_texts import texts
from rr_sim_books import Ask, Parts, Terms
from rr_sim_wire import NORMALISERS, SHAPES_OF, payloads, writes_cache
from runrails import Guard, Limits, Price
from runrails.calls import ModelCall, ModelResult, Permit, Prompt
from runrails.errors import PriceUnknown
from runrails.events import Event
from runrails.figures import figures_of
from runrails.ledger import Account, Store, SupportsPriceCards, SupportsUsage
from runrails.pricing import Term
from runrails.pricing.cards import PriceCard, card_from_text
from runrails.recompute import recompute
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.tiers import served_tier

__all__ = ["Outcome", "simulate"]

FIRST_MS, LAST_MS = 1_748_736_000_000, 1_830_000_000_000
"""June 2025 to the end of 2027."""
SHARD = 20_000
SHOWN = 12
TOOL = (
    '{"name":"find_order","description":"Look up one order by its number.","parameters":{"type":"object","properties":'
    '{"number":{"type":"string"}},"required":["number"]}}'
)
PROJECT = """
[prices."azure:our-chat"]
input = "2.40"
output = "9.60"
cache_read = "1.20"
tiers.priority = { input = "4.80", output = "19.20" }
[prices]
"ollama:llama-of-ours" = "0"
[aliases]
helper = "azure:gpt-4o-mini"
"arn:aws:bedrock:sa-east-1:1:application-inference-profile/a1" = "bedrock/sa-east-1/meta.llama3-70b-instruct-v1:0"
"""
CONTRACT = (
    Term(percent="-3.5", valid_from="2025-09-01", valid_to="2026-06-30"),
    Term(provider="openai", percent="-12", valid_from="2025-08-01", valid_to="2026-12-31"),
    Term(provider="anthropic", percent="4.25"),
    Term(provider="aws", percent="-7.125", valid_from="2026-01-01"),
    Term(model="openai:gpt-4o", price=Price(input="2.10", output="8.40", cache_read="1.05"), valid_from="2026-02-01"),
)


class Way(NamedTuple):
    """How a guard of the simulation is set up."""

    markup_bp: int = 0
    byok: bool = False
    contract: bool = False
    own_prices: bool = False


WAYS = {
    "plain": Way(), "markup": Way(markup_bp=200), "byok": Way(byok=True, markup_bp=200), "contract": Way(contract=True),
    "contract+markup": Way(contract=True, markup_bp=35), "own prices": Way(own_prices=True),
}  # fmt: skip


def _flat(**dollars: str) -> books.Rates:
    return {name: ((-1, Decimal(value)),) for name, value in dollars.items()}


TERMS = [
    Terms(None, None, Decimal("-3.5"), None, date(2025, 9, 1), date(2026, 6, 30)),
    Terms(None, "openai", Decimal(-12), None, date(2025, 8, 1), date(2026, 12, 31)),
    Terms(None, "anthropic", Decimal("4.25"), None, None, None),
    Terms(None, "aws", Decimal("-7.125"), None, date(2026, 1, 1), None),
    Terms("gpt-4o", "openai", None, _flat(input="2.10", output="8.40", cache_read="1.05"), date(2026, 2, 1), None),
]
OWN_PRICES = {
    "openai:gpt-4o-mini": Price(
        input="0.14", output="0.57", cache_read="0.07", cache_write="0.175", cache_write_1h="0.28", reasoning="0.61",
        call="0.0001", tiers={"flex": Price(input="0.07", output="0.285")},
    ),
    "flat-agent": Price(call="3.20"), "thirds": Price(input="0.1000001", output="0.0000001", call="0.00000001"),
    "local": "0",
}  # fmt: skip
OWN_ASKS = [
    Ask("gpt-4o-mini", "openai", "openai", "gpt-4o-mini", written=_flat(
        input="0.14", output="0.57", cache_read="0.07", cache_write="0.175", cache_write_1h="0.28", reasoning="0.61",
        call="0.0001"), written_tiers={"flex": _flat(input="0.07", output="0.285")}, layer="run"),
    Ask("flat-agent", None, "openai", "flat", written=_flat(call="3.20"), layer="run"),
    Ask("thirds", None, "mistral", "thirds", written=_flat(input="0.1000001", output="0.0000001", call="0.00000001"),
        layer="run"),
    Ask("local", None, "vllm", "local", written={}, layer="run"),
]  # fmt: skip
PROJECT_ASKS = [
    Ask("our-chat", "azure", "azure", "our-chat", written=_flat(input="2.40", output="9.60", cache_read="1.20"),
        written_tiers={"priority": _flat(input="4.80", output="19.20")}, layer="project"),
    Ask("llama-of-ours", "ollama", "ollama", "ours", written={}, layer="project"),
    Ask("helper", "azure", "azure", "gpt-4o-mini", source="openai"),
    Ask("arn:aws:bedrock:sa-east-1:1:application-inference-profile/a1", "bedrock", "aws", "a1",
        pinned="sa-east-1/meta.llama3-70b-instruct-v1"),
]  # fmt: skip


class Piece(NamedTuple):
    """A text, and how many tokens it is to each tokenizer."""

    kind: str
    text: str
    counts: dict[str, int]


class Due(NamedTuple):
    """What the other bookkeeper has for a call."""

    net_pusd: int
    actual_pusd: int
    way: str
    what: str


@dataclass
class Outcome:
    """What came of the simulation."""

    calls: int = 0
    total_pusd: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    findings: list[str] = field(default_factory=list[str])
    ratios: array[float] = field(default_factory=lambda: array("f"))
    wholes: array[float] = field(default_factory=lambda: array("f"))
    bounded: array[float] = field(default_factory=lambda: array("f"))
    """Those of `ratios` where nobody can count: the model's tokenizer is not published."""
    models: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    kinds: set[str] = field(default_factory=set[str])
    refused: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def found(self, kind: str, text: str) -> None:
        """Note a difference."""
        self.counts[f"! {kind}"] += 1
        if len(self.findings) < 200:
            self.findings.append(f"{kind}: {text}")


def _pieces(draw: random.Random, each: int) -> list[Piece]:
    counters = _tokenizers()
    made: list[Piece] = []
    for kind, text in texts(draw.randrange(10**9)).items():
        for _ in range(each):
            size = int(20 * 1.9 ** draw.uniform(0, 7.5))
            start = draw.randrange(max(1, len(text) - size))
            part = text[start : start + size]
            counts = {name: count(part) for name, count in counters.items()}
            made.append(Piece(kind, part, {**counts, "any": max(counts.values())}))
    return made


def _tokenizers() -> dict[str, object]:
    names = ("o200k_base", "cl100k_base", "llama3", "qwen3")
    try:
        import quicktok
    except ImportError:
        # Words and what is between them, a token for each started four bytes: never more than there are bytes.
        return dict.fromkeys(names, lambda text: sum((len(word.encode()) + 3) // 4 for word in text.split(" ")))
    return {name: quicktok.get_encoding(name).count for name in names}


def tokenizer_of(ask: Ask) -> str:
    """Which of them the simulated model has; `any` is the one with the most tokens for each text."""
    name = f"{ask.model} {ask.name} {ask.pinned}".lower()
    if ask.owner in ("openai", "azure"):
        if any(mark in name for mark in ("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4-mini")):
            return "o200k_base"
        return "cl100k_base" if "gpt-4" in name or "gpt-3" in name or "embedding" in name else "any"
    if "llama-3" in name or "llama3" in name:
        return "llama3"
    return "qwen3" if "qwen3" in name or "qwen-3" in name else "any"


class _World:
    """One store with its guards, and what should be in its books."""

    def __init__(self, store: Store, clock: ManualClock, kept: dict[str, Guard], outcome: Outcome, file: Path) -> None:
        self.store, self.clock = store, clock
        self.due: dict[str, Due] = {}
        self.turns: dict[str, tuple[int, bool]] = {}
        """By call of a conversation: which one it is, and whether its tokens can be counted."""
        self.out = outcome
        self.guards = {name: self._guard(name, way, kept, file) for name, way in WAYS.items()}

    def _guard(self, name: str, way: Way, kept: dict[str, Guard], file: Path) -> Guard:
        guard = Guard(
            Limits(run=None, steps=None, loops=None), user=f"u-{name.replace(' ', '-').replace('+', '-')}", org="acme",
            store=self.store, clock=self.clock, monotonic=self.clock, sinks=[self._hear],
            prices=OWN_PRICES if way.own_prices else None, price_file=file if way.contract or way.own_prices else None,
            contract=CONTRACT if way.contract else (), markup_bp=way.markup_bp, byok=way.byok,
        )  # fmt: skip
        known = kept.setdefault(name, guard)
        guard.prices = known.prices  # the book never changes: its cards need not be made again
        return guard

    def _hear(self, event: Event) -> None:
        name = event.name.removeprefix("runrails.")
        if name in ("bound_violated", "settlement_failed", "input_underestimated", "settlement_postponed"):
            self.out.found(name, str(event.fields))
        self.out.counts[f"event {name}"] += 1

    def check(self) -> None:
        """The books against what is due, call by call and account by account."""
        store, out = self.store, self.out
        if not isinstance(store, SupportsUsage):
            raise TypeError("a store of the simulation keeps usage")
        seen = 0
        sums: Counter[Account] = Counter()
        for record in store.usage():
            due = self.due.get(record.id)
            seen += 1
            if due is None or record.actual_pusd is None:
                out.found("open", record.id)
                continue
            if record.actual_pusd != due.actual_pusd:
                out.found("amount", f"{due.what}: booked {record.actual_pusd}, due {due.actual_pusd}")
            if record.estimated_pusd < record.actual_pusd:
                out.found("bound", f"{due.what}: held {record.estimated_pusd}, cost {record.actual_pusd}")
            figures, way = figures_of(record), WAYS[due.way]
            billed = 0 if way.byok else due.actual_pusd
            if figures is None or (figures.net_pusd, figures.charged_pusd) != (due.net_pusd, billed):
                out.found("figures", f"{due.what}: {figures}, due {due.net_pusd} and {billed}")
            if seen % 20 == 0:
                verdict = recompute(record, self._kept_card).verdict
                out.counts[f"worked out again: {verdict}"] += 1
                if verdict not in ("equal", "stand_in"):
                    out.found("recomputed", f"{due.what}: {verdict}")
            month = datetime.fromtimestamp(record.at_ms / 1_000, tz=UTC).strftime("%Y-%m")
            months = (f"byok:{record.facts.user}",) if way.byok else (f"user:{record.facts.user}", "org:acme")
            for account in (*(Account(scope, month) for scope in months), Account(f"run:{record.facts.run}", "-")):
                sums[account] += due.actual_pusd
            out.total_pusd += record.actual_pusd
            turn, counted = self.turns.get(record.id, (-1, True))
            usage = None if record.result is None else record.result.usage
            if turn >= 0 and usage is not None and usage.input_tokens:
                ratio = record.facts.input_bound_tokens / usage.input_tokens
                (out.ratios if turn else out.wholes).append(ratio)
                if turn and not counted:
                    out.bounded.append(ratio)
        if seen != len(self.due):
            out.found("lines", f"{seen} lines in the books for {len(self.due)} calls")
        for account, total in sums.items():
            balance = store.balance(account)
            if (balance.spent, balance.held) != (total, 0):
                out.found("balance", f"{account}: {balance.spent} spent, {balance.held} held, {total} due")

    def _kept_card(self, fingerprint: str) -> PriceCard | None:
        text = self.store.price_card(fingerprint) if isinstance(self.store, SupportsPriceCards) else None
        return None if text is None else card_from_text(text)


class _Agent:
    """One conversation: its model, its texts, and the provider at the other end."""

    def __init__(self, world: _World, way: str, ask: Ask, pieces: Sequence[Piece], draw: random.Random) -> None:
        self.world, self.way, self.ask, self.draw = world, way, ask, draw
        self.pieces = pieces
        self.tokenizer = tokenizer_of(ask)
        self.shape = draw.choice(SHAPES_OF.get(ask.owner, ("openai chat", "openai chat", "langchain")))
        self.said: list[Piece] = []
        self.loops = draw.random() < 0.2
        """A long conversation with a system prompt of some size, as agents have."""
        if self.loops:
            while sum(piece.counts["any"] for piece in self.said) < 1_200:
                self.said.append(draw.choice(pieces))
        self.tools = draw.randrange(6) if draw.random() < 0.25 else 0
        self.images = draw.randrange(1, 3) if draw.random() < 0.03 and self.shape != "mistral" else 0
        self.cache = writes_cache(self.shape) and draw.random() < 0.5
        self.before = 0

    def turn(self, run: Run, number: int) -> bool:
        """One call; False if it was refused."""
        draw, world = self.draw, self.world
        embeds = self._embeds()
        if embeds:  # an embedding continues no conversation
            self.said = []
        self.said += [draw.choice(self.pieces) for _ in range(draw.randrange(1, 4))]
        world.out.kinds.update(piece.kind for piece in self.said[-3:])
        asked, served = self._tier(world.clock())
        answers = draw.choice((1, 1, 1, 1, 1, 1, 2, 3)) if self.shape == "openai chat" else 1
        call = ModelCall(
            model=self.ask.name, provider=self.ask.provider, region=self.ask.region, service_tier=asked,
            prompt=Prompt(texts=tuple(piece.text for piece in self.said), messages=len(self.said),
                          tools=(TOOL,) * self.tools, images=self.images, pictures=tuple(range(self.images))),
            max_tokens=draw.choice((16, 300, 1_024, 4_096)), n=answers, can_cap=draw.random() < 0.5,
            cache_write=self.cache, retries=2 if draw.random() < 0.05 else 0,
            request_type="embedding" if embeds else "completion",
        )  # fmt: skip
        try:
            permit = run.before_model(call)
        except PriceUnknown:
            world.out.refused.add((self.ask.owner, self.ask.model))
            return False
        self._answer(run, permit, number, served)
        return True

    def _window(self, at_ms: int) -> int | None:
        """The largest input of the model; a larger one the provider refuses, free of charge."""
        card = self.world.guards[self.way].prices.card(
            self.ask.name, provider=self.ask.provider, now_ms=at_ms, region=self.ask.region
        )
        known = [each for each in (card.context_tokens_max, books.context_window(self.ask)) if each is not None]
        return min(known, default=None)

    def _embeds(self) -> bool:
        """A model whose output has no published price gives none."""
        return self.ask.written is None and "output" not in books.published(self.ask, self.world.clock())

    def _tier(self, at_ms: int) -> tuple[str | None, str]:
        draw = self.draw
        term = books.agreed(TERMS, self.ask, at_ms) if WAYS[self.way].contract else None
        if draw.random() < 0.75 or (term is not None and term.rates is not None):
            return None, ""  # a price that was agreed without tiers has none
        known = [tier for tier in books.tiers_of(self.ask, at_ms) if tier not in ("default", "standard")]
        if not known or draw.random() < 0.1:
            return draw.choice((None, "default", "auto")), ""
        if draw.random() < 0.3:
            open_to = [tier for tier in known if tier != "batch"]
            return "auto", draw.choice(["", *open_to])
        asked = draw.choice(known)
        return asked, asked

    def _answer(self, run: Run, permit: Permit, number: int, tier: str) -> None:
        draw, world = self.draw, self.world
        at_ms = permit.started_ms
        said = self._truth(permit)
        parts, answer = said
        window = self._window(at_ms)
        style = draw.random()
        told = served_tier({"service_tier": tier}) if tier else None
        lost = permit.attempt_pusd
        what = f"{self.way} {self.shape} {self.ask.owner}:{self.ask.model} {tier} at {at_ms} {parts}"
        if style < 0.015 or (window is not None and parts.entered > window):
            self._book(run, permit, ModelResult(end="failed"), 0, 0, f"failed {what}")
        elif style < 0.02:
            self._book(run, permit, ModelResult(end="cached"), 0, 0, f"cached {what}")
        elif style < 0.03 and not tier and answer is not None and answer.text.isascii():
            # Cut in the middle: what was reported of the input, and the bytes of what had come, within the hold.
            came = parts._replace(output=len(answer.text), reasoning=0)
            usage = NORMALISERS[self.shape](payloads(self.shape, parts, self.ask.owner, draw)[-1])
            result = ModelResult(end="cut", output_text=(answer.text,), input_usage=usage)
            net = min(self._price(came, at_ms, ""), self._net(permit.attempt_pusd))
            self._book(run, permit, result, net, self._charged(net), f"cut {what}")
        elif style < 0.03:
            end = draw.choice(("unknown", "completed"))
            self._book(run, permit, ModelResult(end=end), self._net(lost), lost, f"no usage {what}")
        else:
            usage = None
            for report in payloads(self.shape, parts, self.ask.owner, draw):
                usage = NORMALISERS[self.shape](report) or usage
            # Some answers name the model, as it was asked for or by a name that nobody has priced.
            named = draw.choice((None, None, self.ask.name, "nobody-has-priced-1"))
            result = ModelResult(
                end="completed", usage=usage, tier=told, answer=(answer.text,) if answer else None, model=named
            )
            net = self._price(parts, at_ms, tier)
            charged = self._charged(net)
            self._book(run, permit, result, net, charged, what)
            if self.loops and permit.call.request_type != "embedding":
                world.turns[permit.id] = (number, self.tokenizer != "any")
            if answer is not None:
                self.said.append(answer)
            self.before = parts.entered
            self._own_check(parts, at_ms, tier, net)

    def _charged(self, net: int) -> int:
        way = WAYS[self.way]
        return net if way.byok or not way.markup_bp else books.charged(net, way.markup_bp)

    def _net(self, held: int) -> int:
        markup = 0 if WAYS[self.way].byok else WAYS[self.way].markup_bp
        return held * 10_000 // (10_000 + markup)

    def _own_check(self, parts: Parts, at_ms: int, tier: str, net: int) -> None:
        """The bookkeeper is itself held against genai-prices' calculator, now and then."""
        if tier or self.way not in ("plain", "markup", "byok") or self.draw.random() > 0.03:
            return
        exact = books.theirs(self.ask, parts, at_ms)
        if exact is not None:
            self.world.out.counts["held against genai-prices' calculator"] += 1
            priced = "output" in books.published(self.ask, at_ms)
            if priced and not 0 <= net - exact < 2:
                self.world.out.found("oracle", f"{self.ask.owner}:{self.ask.model} {parts}: {net} is not {exact}")

    def _price(self, parts: Parts, at_ms: int, tier: str) -> int:
        term = books.agreed(TERMS, self.ask, at_ms) if WAYS[self.way].contract else None
        if term is not None and term.rates is not None:
            return books.cost_pusd(term.rates, parts)
        factor = Decimal(1) if term is None or term.percent is None else 1 + term.percent / 100
        return books.cost_pusd(books.published(self.ask, at_ms, tier), parts, factor)

    def _truth(self, permit: Permit) -> tuple[Parts, Piece | None]:
        draw, tokens = self.draw, self.tokenizer
        entered = 3 + sum(piece.counts[tokens] + 4 for piece in self.said) + self.tools * 45
        image = self.images * 258
        read = write_5m = write_1h = 0
        if self.before and draw.random() < 0.6:
            read = draw.randrange(min(self.before, entered) + 1)
        if self.cache:
            write_5m = draw.randrange(entered - read + 1)
            write_1h = draw.randrange(entered - read - write_5m + 1)
        elif self.shape == "openai responses" and "cache_write" in books.published(self.ask, permit.started_ms):
            write_5m = draw.randrange(entered - read + 1)
        window = self._window(permit.started_ms)
        cap = min(permit.max_tokens or 16, window or 10**9)
        if permit.call.request_type == "embedding":
            return Parts(entered, 0, 0, 0, image), None
        wanted = [piece for piece in (draw.choice(self.pieces) for _ in range(4)) if piece.counts["any"] + 1 <= cap]
        answer = wanted[0] if wanted and permit.call.n == 1 else None
        output = answer.counts["any"] + 1 if answer else draw.randrange(1, cap * permit.call.n + 1)
        reasoning = 0
        if self.shape in ("openai chat", "openai responses", "gemini", "langchain") and draw.random() < 0.3:
            reasoning = draw.randrange(cap * permit.call.n - output + 1)
        parts = Parts(entered - read - write_5m - write_1h, read, write_5m, write_1h, image, output, reasoning)
        return parts, answer

    def _book(self, run: Run, permit: Permit, result: ModelResult, net: int, actual: int, what: str) -> None:
        world = self.world
        world.due[permit.id] = Due(net, actual, self.way, what)
        run.after_model(permit, result)
        world.out.calls += 1
        world.out.models.add((self.ask.owner, self.ask.model))
        names = [self.shape, self.way, self.ask.layer, f"end {result.end}"]
        names += ["pinned"] if self.ask.pinned else []
        names += [f"tier {result.tier.name}"] if result.tier else []
        world.out.counts.update(names)


def _asks(way: Way, published: dict[str, list[Ask]], draw: random.Random) -> Ask:
    if way.own_prices and draw.random() < 0.6:
        return draw.choice(OWN_ASKS + PROJECT_ASKS)
    if way.contract and draw.random() < 0.2:
        return draw.choice(PROJECT_ASKS)
    owners = ("openai",) * 5 + ("anthropic",) * 3 + ("aws",) * 3 + ("google",) * 3 + ("azure",) * 2 + ("mistral",) * 2
    owner = draw.choice((*owners, *published)) if draw.random() < 0.9 else "openrouter"
    ask = draw.choice(published[owner])
    if way.own_prices:  # a price of one's own goes before the published one
        return next((own for own in OWN_ASKS if (own.owner, own.name) == (ask.owner, ask.name)), ask)
    return ask


def simulate(calls: int, seed: int, *, show: bool = False, sqlite_every: int = 12) -> Outcome:
    """Make so many calls; the same seed makes the same ones."""
    draw = random.Random(seed)
    outcome = Outcome()
    published: dict[str, list[Ask]] = {}
    for ask in books.catalogue():
        published.setdefault(ask.owner, []).append(ask)
    pieces = _pieces(draw, 10 if calls < 100_000 else 60)
    kept: dict[str, Guard] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prices.toml"
        file.write_text(PROJECT, encoding="utf-8")
        for number, size in enumerate(_shards(calls)):
            clock = ManualClock(draw.randrange(FIRST_MS, FIRST_MS + 86_400_000 * 30))
            on_file = number % sqlite_every == sqlite_every - 1 or (number == 1 and calls <= SHARD)
            store: Store = (
                SQLiteStore(Path(folder) / f"{number}.db", clock=clock, synchronous="NORMAL")
                if on_file
                else MemoryStore(clock=clock)
            )
            world = _World(store, clock, kept, outcome, file)
            _play(world, size, published, pieces, draw)
            world.check()
            outcome.counts["on SQLite" if on_file else "in memory"] += size
            for guard in world.guards.values():
                guard.close()
            store.close()
            if show:
                _bar(outcome.calls, calls, time.monotonic() - began, len(outcome.findings))
    return outcome


def _shards(calls: int) -> Iterator[int]:
    size = SHARD if calls > SHARD else max(1, calls // 4 * 3)
    while calls > 0:
        yield min(size, calls)
        calls -= size


def _play(world: _World, calls: int, published: dict[str, list[Ask]], pieces: list[Piece], draw: random.Random) -> None:
    end = world.out.calls + calls
    step_ms = (LAST_MS - FIRST_MS) // max(1, calls)
    while world.out.calls < end:
        way = draw.choice(list(WAYS))
        own = draw.sample(pieces, 40)
        agent = _Agent(world, way, _asks(WAYS[way], published, draw), own, draw)
        with world.guards[way].run() as run:
            for number in range(min(24 if agent.loops else draw.randrange(1, 6), end - world.out.calls)):
                world.clock.advance(draw.randrange(2 * step_ms))
                if not agent.turn(run, number):
                    break


def _bar(done: int, of: int, seconds: float, findings: int) -> None:
    filled = 40 * done // of
    left = seconds / done * (of - done)
    bar = f"[{'#' * filled}{'.' * (40 - filled)}] {done:,}/{of:,}"
    sys.stderr.write(f"\r{bar}  {seconds:.0f} s, {left:.0f} s left, {findings} findings ")
    sys.stderr.flush()


def _at(values: array[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def _spread(values: array[float]) -> str:
    return f"p50 {_at(values, 0.5):.3f}, p95 {_at(values, 0.95):.2f}"


def table(outcome: Outcome, seconds: float) -> str:
    """The summary, for people."""
    rows = {
        "calls": f"{outcome.calls:,} in {seconds:.0f} s",
        "models": f"{len(outcome.models):,} of {len({owner for owner, _ in outcome.models})} providers",
        "refused models (no price at that time)": f"{len(outcome.refused):,}",
        "languages and formats": str(len(outcome.kinds)),
        "in the ledger": f"${Decimal(outcome.total_pusd).scaleb(-12):,}",
        "agents: input bound / actual, first call": _spread(outcome.wholes),
        "agents: input bound / actual, later calls": _spread(outcome.ratios),
        "the same, tokenizers that nobody knows": _spread(outcome.bounded),
        **{name: f"{count:,}" for name, count in sorted(outcome.counts.items())},
    }
    return "\n".join(f"{name:<44} {value:>34}" for name, value in rows.items())


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Simulated calls against an independent recomputation.")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    began = time.monotonic()
    outcome = simulate(given.calls, given.seed, show=sys.stderr.isatty() or given.calls > SHARD)
    print(f"\n{table(outcome, time.monotonic() - began)}")
    for finding in outcome.findings[:SHOWN]:
        print(finding)
    print("FAILED" if outcome.findings else "The ledger is exact, and nothing cost more than was held for it.")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
