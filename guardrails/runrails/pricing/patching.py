"""
Makes `patches.json`: what litellm's price table knows of Bedrock's geographies and regions and of service tiers, and
genai-prices does not.

A row is taken only if it can be believed: the snapshot knows the model, and the row is neither cheaper than the
snapshot's plain price nor more than twice as dear. What is left out stays refused.
"""

from __future__ import annotations

import json
import re
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from runrails.pricing.names import bedrock_key, has_geography, looks_like_bedrock, needs_confirmation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runrails.pricing.cards import PriceCard
    from runrails.pricing.snapshot import CardSchedule, Prices, Snapshot

__all__ = ["EMPTY_PATCHES", "render_patches"]

FORMAT = 1
EMPTY_PATCHES: Mapping[str, object] = {"source": {}, "prices": {}, "tiers": {}}

_RATE = re.compile(
    r"(?P<name>input_cost_per_token|output_cost_per_token|cache_read_input_token_cost|cache_creation_input_token_cost)"
    r"(?P<hour>_above_1hr)?(?:_above_(?P<above>[0-9]+)k_tokens)?(?:_(?P<tier>priority|flex|batches))?"
)
_NAMES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
}
_TIERS = {"priority": "priority", "flex": "flex", "batches": "batch"}
_TIERED_PROVIDERS = {"bedrock": "aws", "bedrock_converse": "aws", "azure": "azure", "gemini": "google"}
_CHAT_MODES = frozenset({"chat", "completion", "responses", "embedding"})
_REGION_KEY = re.compile(r"bedrock/(?P<region>[a-z]{2}(?:-gov)?-[a-z]+-[0-9])/(?P<model>[^/]+)")
_PRICE_STEP = Decimal("0.000001")
"""Dollars per million tokens that make one picodollar a token."""
_DEARER_MAX = 2
_REGIONAL = "regional."
_IN_REGION_NOTE = (
    "an id without a geography runs in one region: the regional price of genai-prices {ours}, not the global one, "
    "which litellm {version} has for it"
)
_CLAUDE_NOTE = " (Anthropic's pricing page: regional endpoints cost 10 % more)"

_Table: TypeAlias = "dict[str, dict[int, str]]"
"""Rate's name -> start of a long-context tier (0 for the base) -> dollars per million tokens."""


class _Row(NamedTuple):
    key: str
    tables: dict[str, _Table]
    """Service tier -> rates; "" is the standard one."""


def render_patches(table: Mapping[str, object], version: str, snapshot: Snapshot) -> bytes:
    """
    The text of `patches.json`.

    Args:
        table: litellm's `model_prices_and_context_window` data.
        version: Version of litellm it came with.
        snapshot: The data it is laid over.
    """
    prices: dict[str, list[object]] = {}
    for name, row in _regional_rows(table):
        entry = _regional_entry(name, row, version, snapshot)
        if entry is not None:
            prices[name] = entry
    prices |= _in_region_entries(table, version, snapshot)
    lines = [f'"{name}":{_dump(entry)}' for name, entry in sorted(prices.items())]
    tiers = _tier_entries(table, version, snapshot)
    blocks = [
        f'"{provider}":{{\n' + ",\n".join(f'"{model}":{_dump(rows)}' for model, rows in sorted(models.items())) + "\n}"
        for provider, models in sorted(tiers.items())
    ]
    source = {"package": "litellm", "version": version, "license": "MIT"}
    head = f'{{"format":{FORMAT},"source":{_dump(source)},"prices":{{"aws":{{\n'
    return (head + ",\n".join(lines) + '\n}},"tiers":{\n' + ",\n".join(blocks) + "\n}}\n").encode()


def _regional_rows(table: Mapping[str, object]) -> Iterator[tuple[str, _Row]]:
    """Bedrock's rows for one geography or region, by the name we keep them under."""
    for key in sorted(table):
        entry = cast("Mapping[str, object]", table[key])
        if entry.get("litellm_provider") not in ("bedrock", "bedrock_converse") or entry.get("mode") not in _CHAT_MODES:
            continue
        in_region = _REGION_KEY.fullmatch(key)
        if in_region is not None:
            yield f"{in_region['region']}/{bedrock_key(in_region['model'].lower())}", _row(key, entry)
        elif "/" not in key and needs_confirmation(key.lower()):
            yield bedrock_key(key.lower()), _row(key, entry)


def _regional_entry(name: str, row: _Row, version: str, snapshot: Snapshot) -> list[object] | None:
    model = name.rpartition("/")[2]
    if model == name and snapshot.regional(name):
        return None  # both sources agree, so the snapshot's price is right
    found = snapshot.find("aws", model) or snapshot.find("aws", model.partition(".")[2])
    plain = _card(found)
    own = _prices(row.tables.get("", {}))
    if plain is None or own is None or not _believable(own, plain):
        return None
    scaled = _with_cache(own, plain)
    tiers = [
        [_TIERS[tier], _with_cache(prices, plain)]
        for tier, rates in sorted(row.tables.items())
        if tier and (prices := _prices(rates)) is not None and ("input" in prices and "output" in prices)
    ]
    note = f"litellm {version}: {row.key}"
    if scaled != own:
        note += "; cache rates in the proportion of the plain price"
    return [scaled, tiers, note]


def _in_region_entries(table: Mapping[str, object], version: str, snapshot: Snapshot) -> dict[str, list[object]]:
    """Ids without a geography, of models that cost more in a region than as a global profile."""
    entries: dict[str, list[object]] = {}
    for model_id in snapshot.model_ids("aws"):
        bare = model_id.removeprefix(_REGIONAL)
        regional, world = snapshot.schedule("aws", model_id), snapshot.schedule("aws", f"global.{bare}")
        if bare == model_id or world is None or regional is None or len(regional.windows) != 1:
            continue
        prices = snapshot.raw_prices("aws", model_id)
        if not isinstance(prices, dict) or not _dearer(regional, world):
            continue
        note = _IN_REGION_NOTE.format(ours=snapshot.version, version=version)
        for name in _plain_ids(table):
            # The data's id names the model with or without its version; litellm's is what a request says.
            if snapshot.find("aws", name) == regional:
                entries[bedrock_key(name)] = [prices, [], note + (_CLAUDE_NOTE if "claude" in name else "")]
    return entries


def _plain_ids(table: Mapping[str, object]) -> Iterator[str]:
    """Bedrock's ids with neither a geography nor a region."""
    for key in sorted(table):
        name = key.lower()
        provider = _TIERED_PROVIDERS.get(str(cast("Mapping[str, object]", table[key]).get("litellm_provider")))
        if provider == "aws" and looks_like_bedrock(name) and not has_geography(name) and "/" not in name:
            yield name


def _tier_entries(
    table: Mapping[str, object], version: str, snapshot: Snapshot
) -> dict[str, dict[str, list[list[object]]]]:
    found: dict[tuple[str, str, str], list[list[object]]] = {}
    for key in sorted(table):
        entry = cast("Mapping[str, object]", table[key])
        provider = _TIERED_PROVIDERS.get(str(entry.get("litellm_provider")))
        model = _model_in(key, provider)
        if provider is None or model is None or entry.get("mode") not in _CHAT_MODES:
            continue
        schedule = snapshot.find(provider, model)
        plain = _card(schedule)
        row = _row(key, entry)
        standard = _prices(row.tables.get("", {}))
        if schedule is None or plain is None or standard is None or not _same(standard, plain):
            continue
        known = {card.service_tier for card in plain.service_tiers}
        for tier, rates in row.tables.items():
            prices = _prices(rates)
            if not tier or prices is None or "output" not in prices or _TIERS[tier] in known:
                continue
            if plain.tiers and not isinstance(prices["input"], list):
                continue  # what it costs beyond the cliff is not said
            beside = {name: standard[name] for name in ("input", "output")}
            rows = found.setdefault((provider, schedule.model, _TIERS[tier]), [])
            rows.append([_TIERS[tier], beside, _with_cache(prices, plain), f"litellm {version}: {key}"])
    by_provider: dict[str, dict[str, list[list[object]]]] = {}
    for (provider, model, _), rows in found.items():
        # One id can stand for several names; they have to agree.
        if all(other[1:3] == rows[0][1:3] for other in rows):
            by_provider.setdefault(provider, {}).setdefault(model, []).append(rows[0])
    return by_provider


def _model_in(key: str, provider: str | None) -> str | None:
    """The model a row is of; None for a region, a data zone or a commitment."""
    parts = key.lower().split("/")
    if provider == "aws":
        return None if len(parts) > 1 or needs_confirmation(parts[0]) else parts[0]
    return parts[1] if len(parts) == 2 else None


def _row(key: str, entry: Mapping[str, object]) -> _Row:
    tables: dict[str, _Table] = {}
    for field, value in entry.items():
        rate = _RATE.fullmatch(field)
        if rate is None or not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            continue
        name = _NAMES[rate["name"]] + ("_1h" if rate["hour"] else "")
        above = int(rate["above"] or 0) * 1_000
        # The table has binary floats of short decimals; ten significant digits bring the decimal back.
        per_mtok = Decimal(f"{value:.10g}") * 1_000_000
        tables.setdefault(rate["tier"] or "", {}).setdefault(name, {})[above] = _plain(per_mtok)
    return _Row(key, tables)


def _prices(rates: _Table) -> Prices | None:
    """The rates in the form of the data files; None if there is no price for input."""
    if 0 not in rates.get("input", {}):
        return None
    prices: Prices = {}
    for name, by_start in sorted(rates.items()):
        if 0 not in by_start:
            return None
        steps: list[list[int | str]] = [[start, price] for start, price in sorted(by_start.items()) if start]
        prices[name] = [by_start[0], *steps] if steps else by_start[0]
    return prices


def _with_cache(prices: Prices, plain: PriceCard) -> Prices:
    """With cache rates in the proportion of the plain price, where the row says none."""
    if isinstance(prices["input"], list):
        return prices
    rates, own = plain.rates, Decimal(str(prices["input"]))
    added: Prices = {}
    cached = (rates.cache_read, rates.cache_write_5m, rates.cache_write_1h)
    for name, rate in zip(("cache_read", "cache_write", "cache_write_1h"), cached, strict=True):
        if name not in prices and rate != rates.input:
            scaled = (own * rate / rates.input).quantize(_PRICE_STEP, rounding=ROUND_UP)
            added[name] = _plain(scaled)
    return {**prices, **added}


def _believable(own: Prices, plain: PriceCard) -> bool:
    scale = Decimal(1_000_000) / plain.denominator / 10**12
    for name, rate in (("input", plain.rates.input), ("output", plain.rates.output)):
        base = rate * scale
        if name in own and not base <= _first(own, name) <= base * _DEARER_MAX:
            return False
    return "output" in own or plain.output_tokens_max == 0


def _same(own: Prices, plain: PriceCard) -> bool:
    scale = Decimal(1_000_000) / plain.denominator / 10**12
    pairs = (("input", plain.rates.input), ("output", plain.rates.output))
    return all(name in own and _first(own, name) == rate * scale for name, rate in pairs)


def _dearer(schedule: CardSchedule, other: CardSchedule) -> bool:
    one, two = _card(schedule), _card(other)
    return one is not None and two is not None and one.rates.input * two.denominator > two.rates.input * one.denominator


def _card(schedule: CardSchedule | None) -> PriceCard | None:
    return None if schedule is None else schedule.windows[-1].card


def _first(prices: Prices, name: str) -> Decimal:
    rate = prices[name]
    return Decimal(str(rate if isinstance(rate, str) else rate[0]))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, sort_keys=True)
