"""
The other bookkeeper of the simulation: what a call costs, in Decimal, from genai-prices' data and the written rules.

It shares nothing with the code it checks: no card, no integer rates, no name resolution. What runrails pins over that
data (Bedrock's regions, service tiers) it reads from the same published table, `patches.json`, in its own way.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Context, Decimal
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple, cast

from genai_prices import data as genai_data
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

__all__ = [
    "Ask", "Parts", "Rates", "Terms", "agreed", "catalogue", "charged", "context_window", "cost_pusd", "published",
    "theirs", "tiers_of",
]  # fmt: skip

EXACT = Context(prec=60)
PER_MTOK = Decimal(10**6)
"""Dollars per million tokens are so many picodollars per token."""
PER_DOLLAR = Decimal(10**12)
KNOWN = {
    "input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cache_read", "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h", "output_reasoning_mtok": "reasoning", "input_image_mtok": "input_image",
    "cache_image_read_mtok": "cache_read_image", "requests_kcount": "kcalls",
}  # fmt: skip
UNUSED = {
    "input_audio_mtok", "output_audio_mtok", "cache_audio_read_mtok", "web_searches_kcount", "storage_searches_kcount",
}  # fmt: skip
"""Rates of what no simulated call uses. A model with any other rate is not simulated."""
FOR_TIER = ("processing", "service_tier", "speed")

Steps = tuple[tuple[int, Decimal], ...]
"""A rate: from more than so many input tokens on, dollars; the first is from -1 on."""
Rates = dict[str, Steps]


class Parts(NamedTuple):
    """What the simulated provider has really done. The parts do not overlap; their sum is the whole call."""

    plain: int
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    image: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def entered(self) -> int:
        """All input."""
        return self.plain + self.read + self.write_5m + self.write_1h + self.image

    @property
    def left(self) -> int:
        """All output."""
        return self.output + self.reasoning


@dataclass(frozen=True)
class Ask:
    """A model as a simulated agent asks for it, and where its price is written."""

    name: str
    provider: str | None
    owner: str = ""
    """Whose model it is in the price data."""
    model: str = ""
    """Its id there."""
    region: str | None = None
    written: Rates | None = None
    """The price a person has written, above the published one."""
    written_tiers: dict[str, Rates] = field(default_factory=dict)
    layer: str = "published"
    """`run`, `project` or `published`."""
    pinned: str = ""
    """Its row among the pinned prices."""
    source: str = ""
    """Whose published prices it has, if not its owner's: Azure bills OpenAI's models as OpenAI does."""

    @property
    def data(self) -> tuple[str, str]:
        """Where its prices are in the price data."""
        return self.source or self.owner, self.model


class Terms(NamedTuple):
    """One agreed percentage or price, as a person would read the contract."""

    model: str | None
    owner: str | None
    percent: Decimal | None
    rates: Rates | None
    first: date | None
    last: date | None


@cache
def _pinned() -> dict[str, dict[str, dict[str, list[list[object]]]]]:
    text = files("runrails.pricing").joinpath("patches.json").read_text(encoding="utf-8")
    return cast("dict[str, dict[str, dict[str, list[list[object]]]]]", json.loads(text))


@cache
def _models() -> dict[tuple[str, str], tuple[Provider, ModelInfo]]:
    return {(owner.id, model.id): (owner, model) for owner in genai_data.providers for model in owner.models}


def pinned_name(name: str, region: str | None = None) -> str:
    """The row of the pinned table that a Bedrock id has, or nothing."""
    bare = re.sub(r"(:\d+)(:[0-9a-z]+)?$", "", name)
    rows = _pinned()["prices"]["aws"]
    for key in ((f"{region}/{bare}",) if region else ()) + (bare,):
        if key in rows:
            return key
    return ""


def _when(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1_000, tz=UTC)


def simple(model: ModelInfo) -> bool:
    """Whether every rate of a model is one that the simulation knows."""
    tables = [model.prices] if isinstance(model.prices, ModelPrice) else [each.prices for each in model.prices]
    tables += [variant.prices for variant in model.price_variants or ()]
    return all({key for key, value in table.__dict__.items() if value is not None} <= KNOWN.keys() | UNUSED
               for table in tables)  # fmt: skip


def _steps(value: Decimal | TieredPrices) -> Steps:
    if isinstance(value, TieredPrices):
        return ((-1, value.base), *((tier.start, tier.price) for tier in value.tiers))
    return ((-1, value),)


@lru_cache(maxsize=4_096)
def _neutral(owner: str, model: str, key: str, value: str, minute: int) -> Rates:
    """The published rates at a moment; kept by the minute, within which no price changes."""
    info = _models()[owner, model][1]
    table = info.get_prices(_when(minute * 60_000), {key: value} if key else None)
    return {KNOWN[name]: _steps(price) for name, price in table.__dict__.items() if price is not None and name in KNOWN}


def _read(row: object) -> Rates:
    prices = cast("dict[str, object]", row)
    made: Rates = {}
    for name, value in prices.items():
        if isinstance(value, str):
            made[name] = ((-1, Decimal(value)),)
        else:
            first, *more = cast("list[object]", value)
            made[name] = ((-1, Decimal(str(first))), *(
                (int(cast("list[int]", step)[0]), Decimal(str(cast("list[object]", step)[1]))) for step in more
            ))  # fmt: skip
    return made


def _variants(ask: Ask, at_ms: int) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    if ask.source:
        return found  # what OpenAI asks for a tier of its own is not what Azure does
    info = _models()[ask.data][1]
    for variant in info.price_variants or ():
        if variant.constraint is None or variant.constraint.active(_when(at_ms)):
            ((key, value),) = variant.when.items()
            if key in FOR_TIER:
                found[value] = (key, value)
    return found


def tiers_of(ask: Ask, at_ms: int) -> list[str]:
    """The service tiers whose price somebody has published or written down, beside the standard one."""
    if ask.written is not None:
        return list(ask.written_tiers)
    if ask.pinned:
        row = _pinned()["prices"]["aws"][ask.pinned]
        return [str(cast("list[object]", tier)[0]) for tier in row[1]]
    own = [name for name in _variants(ask, at_ms) if name != "default"]
    return own + [name for name in _pinned_tiers(ask, at_ms) if name not in own]


def _pinned_tiers(ask: Ask, at_ms: int) -> dict[str, Rates]:
    rows = _pinned()["tiers"].get(ask.owner, {}).get(ask.model, [])
    standard = _plain(ask, at_ms)
    made: dict[str, Rates] = {}
    for name, beside, prices, _ in rows:
        published = _read(beside)
        if all(standard[key][0] == published[key][0] for key in ("input", "output")) and "output" in standard:
            made[str(name)] = _read(prices)
    return made


def _plain(ask: Ask, at_ms: int) -> Rates:
    return _neutral(*ask.data, "", "", at_ms // 60_000)


def published(ask: Ask, at_ms: int, tier: str = "") -> Rates:
    """The rates without a contract: those that a person wrote, or those that are published."""
    if ask.written is not None:
        return ask.written_tiers[tier] if tier else ask.written
    if ask.pinned:
        rates, tiers, *_ = _pinned()["prices"]["aws"][ask.pinned]
        named = {str(cast("list[object]", each)[0]): _read(cast("list[object]", each)[1]) for each in tiers}
        return _read(rates) if not tier else {**_read(rates), **named[tier]}
    if not tier:
        return _plain(ask, at_ms)
    variant = _variants(ask, at_ms).get(tier)
    if variant is not None:
        return _neutral(*ask.data, *variant, at_ms // 60_000)
    return _pinned_tiers(ask, at_ms)[tier]


def agreed(terms: list[Terms], ask: Ask, at_ms: int) -> Terms | None:
    """The term that applies to a call: of the model, else of the provider, else of everything; valid on that day."""
    if ask.layer == "run":
        return None
    day = _when(at_ms).date()
    for closeness in (0, 1, 2):
        for term in terms:
            about = 0 if term.model is not None else 1 if term.owner is not None else 2
            if about != closeness or (term.first and day < term.first) or (term.last and day > term.last):
                continue
            if term.owner not in (None, ask.owner) or term.model not in (None, ask.model):
                continue
            return term
    return None


def _rate(rates: Rates, entered: int, *names: str) -> Decimal:
    for name in names:
        if name in rates:
            applicable = Decimal(0)
            for start, price in rates[name]:
                if entered > start:
                    applicable = price
            return applicable
    return Decimal(0)


def cost_pusd(rates: Rates, parts: Parts, factor: Decimal = Decimal(1)) -> int:
    """
    Picodollars, rounded up to a whole one once.

    A part without a rate of its own costs what its total costs; output without any rate costs what input costs.
    """
    entered = parts.entered
    plain = _rate(rates, entered, "input")
    out = _rate(rates, entered, "output", "input")
    total = (
        parts.plain * plain
        + parts.read * _rate(rates, entered, "cache_read", "input")
        + parts.write_5m * _rate(rates, entered, "cache_write", "input")
        + parts.write_1h * _rate(rates, entered, "cache_write_1h", "cache_write", "input")
        + parts.image * _rate(rates, entered, "input_image", "input")
        + parts.output * out
        + parts.reasoning * _rate(rates, entered, "reasoning", "output", "input")
    )
    flat = _rate(rates, entered, "call") + _rate(rates, entered, "kcalls") / 1_000
    exact = EXACT.multiply(EXACT.multiply(total, PER_MTOK), factor)
    return _up(exact) + _up(EXACT.multiply(EXACT.multiply(flat, PER_DOLLAR), factor))


def charged(net_pusd: int, markup_bp: int) -> int:
    """With the mark-up, rounded up once."""
    return _up(EXACT.divide(Decimal(net_pusd) * (10_000 + markup_bp), Decimal(10_000)))


def _up(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_CEILING))


def catalogue() -> list[Ask]:
    """Every model of the price data that a simulated call can be made to."""
    asks: list[Ask] = []
    for (owner, model), (_, info) in _models().items():
        if simple(info) and not model.startswith(f"{owner}/"):  # such a name is that of the model behind the slash
            pinned = pinned_name(model.lower()) if owner == "aws" else ""
            asks.append(Ask(model, owner, owner, model, pinned=pinned))
    for key in _pinned()["prices"]["aws"]:
        region, slash, model = key.rpartition("/")
        asks.append(Ask(model, "bedrock", "aws", key, region=region if slash else None, pinned=key))
    return asks


def context_window(ask: Ask) -> int | None:
    """The largest input, as the price data has it."""
    if ask.written is not None:
        return None
    pair = _models().get(ask.data)
    if pair is not None:
        return pair[1].context_window
    name = ask.pinned.rpartition("/")[2]
    return _window_of(name)


@cache
def _window_of(name: str) -> int | None:
    owner = next(owner for owner in genai_data.providers if owner.id == "aws")
    found = [owner.find_model(each) for each in (name, name.partition(".")[2])]
    return min((each.context_window for each in found if each and each.context_window), default=None)


def theirs(ask: Ask, parts: Parts, at_ms: int) -> Decimal | None:
    """What genai-prices' own calculator says of a standard call in picodollars; None where nothing is published."""
    from genai_prices import Usage

    pair = _models().get(ask.data)
    mixed = parts.image and parts.entered > parts.plain + parts.image  # it wants to be told which images were cached
    if pair is None or ask.pinned or ask.written is not None or mixed:
        return None
    owner, info = pair
    usage = Usage(
        input_tokens=parts.entered, cache_read_tokens=parts.read, cache_write_tokens=parts.write_5m + parts.write_1h,
        cache_write_5m_tokens=parts.write_5m, cache_write_1h_tokens=parts.write_1h, output_tokens=parts.left,
        output_reasoning_tokens=parts.reasoning, input_image_tokens=parts.image,
    )  # fmt: skip
    price = info.calc_price(usage, owner, genai_request_timestamp=_when(at_ms)).total_price
    return EXACT.multiply(price, PER_DOLLAR)
