"""
Makes the price data: `snapshot.json` from an installed genai-prices, `crosscheck.json` from litellm's price table.

Neither package is needed to run runrails. The output depends on nothing but its input, so that a refresh shows as a
readable difference, one model a line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.pricing.names import bedrock_key, needs_confirmation
from runrails.pricing.snapshot import CALL_KEY, Clause, Prices, Rate, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from decimal import Decimal

    from genai_prices import types as genai

__all__ = [
    "EMPTY_CROSSCHECK",
    "Change",
    "PricesUnavailable",
    "changes",
    "installed_snapshot",
    "litellm_prices",
    "litellm_table",
    "render_crosscheck",
    "render_snapshot",
    "write_checked",
]

FORMAT = 2

_KEYS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "cache_audio_read_mtok": "cache_read_audio",
    "output_audio_mtok": "output_audio",
    "output_reasoning_mtok": "reasoning",
    "input_image_mtok": "input_image",
    "cache_image_read_mtok": "cache_read_image",
    "output_image_mtok": "output_image",
}
_COUNTED = {
    "requests_kcount": CALL_KEY,
    "web_searches_kcount": "web_search",
    "storage_searches_kcount": "file_search",
    "social_searches_kcount": "social_search",
    "code_executions_kcount": "code_execution",
}
"""Billed by the piece, beside the tokens; published by the thousand."""
_TIER_KEYS = frozenset({"processing", "service_tier", "speed"})
"""Conditions whose value is the name of a service tier; of others the name and the value are."""

_LITELLM_PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "cerebras": "cerebras",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "groq": "groq",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "perplexity": "perplexity",
    "together_ai": "together",
    "vertex_ai-anthropic_models": "google",
    "vertex_ai-language-models": "google",
    "xai": "x-ai",
    "zai": "zai",
}
_CHAT_MODES = frozenset({"chat", "completion", "responses"})
_COMPARED = frozenset({"aws", "azure", "mistral"})
"""Where a name alone was seen to be priced wrongly, so that a disagreement of the two sources refuses."""

_STATED_DISPUTES: dict[str, dict[str, list[str]]] = {
    "deepseek": {
        "deepseek-chat": ["the name was retired and points to another model", "2026-07-24"],
        "deepseek-reasoner": ["the name was retired and points to another model", "2026-07-24"],
    },
    "mistral": {
        "mistral-large-latest": ["the name has moved on to a newer model than the one its price is of", ""],
        "mistral-medium": ["the name has moved on to a newer model than the one its price is of", ""],
    },
}
"""Known by reading, with the day from which they hold."""


EMPTY_CROSSCHECK: Mapping[str, object] = {
    "output_tokens_max": {},
    "context_tokens_max": {},
    "regional": [],
    "disputed": {},
}
"""Stands in for the cross-check while a new one is made."""


class PricesUnavailable(Exception):
    """genai-prices is not installed."""


class Change(NamedTuple):
    """A difference between two snapshots."""

    model: str
    before: str | None
    after: str | None
    to_zero: bool
    """Whether something that had a price would now be free."""


def installed_snapshot() -> tuple[str, bytes]:
    """
    Version and rendered data of the genai-prices that is installed.

    Raises:
        PricesUnavailable: It is not.
    """
    try:
        from importlib.metadata import version

        from genai_prices.data import providers
    except ImportError as exc:
        raise PricesUnavailable("genai-prices is not installed; `pip install runrails[prices]` brings it.") from exc
    installed = version("genai-prices")
    return installed, render_snapshot(providers, installed)


def render_snapshot(providers: Iterable[genai.Provider], version: str) -> bytes:
    """The text of `snapshot.json`."""
    source = {"package": "genai-prices", "version": version, "license": "MIT"}
    head = f'{{"format":{FORMAT},"source":{_dump(source)},"providers":[\n'
    body = ",\n".join("".join(_provider_lines(provider)) for provider in providers)
    return f"{head}{body}\n]}}\n".encode()


def render_crosscheck(table: Mapping[str, object], version: str, snapshot: Snapshot) -> bytes:
    """
    The text of `crosscheck.json`.

    Args:
        table: litellm's `model_prices_and_context_window` data.
        version: Version of litellm it came with.
        snapshot: The data it is compared with.
    """
    longest: dict[str, dict[str, int]] = {}
    widest: dict[str, dict[str, int]] = {}
    disputed = {provider: dict(names) for provider, names in _STATED_DISPUTES.items()}
    regional: set[str] = set()
    for row in _litellm_rows(table):
        found = snapshot.find(row.provider, row.model)
        if found is None:
            continue
        # One id can stand for several dated names; only the largest of their limits bounds them all.
        _keep_max(longest, found.provider, found.model, row.output_max)
        _keep_max(widest, found.provider, found.model, row.input_max)
        if row.provider not in _COMPARED or row.prices is None:
            continue
        name = bedrock_key(row.model) if row.provider == "aws" else row.model
        ours = _only_prices(snapshot, found.provider, found.model)
        if ours is None:
            continue
        if ours != row.prices:
            disputed.setdefault(row.provider, {}).setdefault(name, [f"{_pair(ours)} or {_pair(row.prices)}", ""])
        elif row.provider == "aws" and needs_confirmation(name):
            regional.add(name)
    data = {
        "format": FORMAT,
        "source": {"package": "litellm", "version": version, "license": "MIT"},
        "output_tokens_max": longest,
        "context_tokens_max": widest,
        "regional": sorted(regional - disputed.get("aws", {}).keys()),
        "disputed": disputed,
    }
    return (json.dumps(data, indent=0, sort_keys=True, ensure_ascii=True) + "\n").encode()


def litellm_table(content: bytes) -> dict[str, object]:
    """
    litellm's price table from its JSON.

    Raises:
        ValueError: It is none.
    """
    table: object = json.loads(content)
    if not isinstance(table, dict):
        raise ValueError("this is not litellm's price table")  # noqa: TRY004 -- bad input, not a wrong argument
    return cast("dict[str, object]", table)


def litellm_prices(table: Mapping[str, object]) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Provider, model, and dollars per million tokens in and out, of every row that can be compared."""
    for row in _litellm_rows(table):
        if row.prices is not None:
            yield row.provider, row.model, row.prices


def write_checked(file: str | Path, content: bytes) -> None:
    """Write a data file and its checksum beside it, the checksum last."""
    import hashlib

    path = Path(file)
    path.write_bytes(content)
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    path.with_suffix(".sha256").write_text(line, encoding="ascii")


def changes(before: bytes, after: bytes) -> list[Change]:
    """What differs between two rendered snapshots, by model."""
    old, new = _models(before), _models(after)
    return [
        Change(key, old.get(key), new.get(key), _priced(old.get(key)) and key in new and not _priced(new[key]))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


class _Row(NamedTuple):
    provider: str
    model: str
    output_max: int | None
    input_max: int | None
    prices: tuple[str, str] | None
    """Dollars per million tokens in and out."""


def _litellm_rows(table: Mapping[str, object]) -> Iterator[_Row]:
    for key in sorted(table):
        entry = cast("Mapping[str, object]", table[key])
        provider = _LITELLM_PROVIDERS.get(str(entry.get("litellm_provider")))
        if provider is None or entry.get("mode") not in _CHAT_MODES:
            continue
        parts = key.lower().split("/")
        if provider == "aws" and len(parts) > 1:
            continue  # a price for one region, which the name in a call does not carry
        if provider == "azure" and len(parts) > 2:
            continue  # a data zone
        model = key.lower() if provider == "aws" else key.lower().removeprefix(f"{parts[0]}/")
        yield _Row(provider, model, _tokens(entry, "output"), _tokens(entry, "input"), _litellm_prices(entry))


def _tokens(entry: Mapping[str, object], side: str) -> int | None:
    value = entry.get(f"max_{side}_tokens")
    return value if type(value) is int and value > 0 else None


def _litellm_prices(entry: Mapping[str, object]) -> tuple[str, str] | None:
    from decimal import Decimal

    rates = [entry.get(f"{side}_cost_per_token") for side in ("input", "output")]
    if not all(isinstance(rate, int | float) and rate > 0 for rate in rates):
        return None
    # The table has binary floats of short decimals; ten significant digits bring the decimal back.
    low, high = (_plain(Decimal(f"{rate:.10g}") * 1_000_000) for rate in rates)
    return low, high


def _only_prices(snapshot: Snapshot, provider: str, model: str) -> tuple[str, str] | None:
    """None also where genai-prices has a history: it then knows more than the other table, which has none."""
    from decimal import Decimal

    schedule = snapshot.schedule(provider, model)
    card = schedule.windows[0].card if schedule is not None and len(schedule.windows) == 1 else None
    if card is None:
        return None
    scale = Decimal(1_000_000) / card.denominator / 10**12
    return _plain(card.rates.input * scale), _plain(card.rates.output * scale)


def _pair(prices: tuple[str, str]) -> str:
    return f"${prices[0]} in and ${prices[1]} out per million tokens"


def _keep_max(into: dict[str, dict[str, int]], provider: str, model: str, value: int | None) -> None:
    if value is not None:
        models = into.setdefault(provider, {})
        models[model] = max(value, models.get(model, 0))


def _provider_lines(provider: genai.Provider) -> Iterator[str]:
    head: dict[str, object] = {"id": provider.id}
    if provider.model_match is not None:
        head["model_match"] = _clause(provider.model_match)
    if provider.provider_match is not None:
        head["provider_match"] = _clause(provider.provider_match)
    if provider.fallback_model_providers:
        head["fallback"] = list(provider.fallback_model_providers)
    yield _dump(head)[:-1] + ',"models":[\n'
    yield ",\n".join(
        _dump([model.id, _clause(model.match), _prices(model.prices), model.context_window, *_variants(model)])
        for model in provider.models
    )
    yield "\n]}"


def _variants(model: genai.ModelInfo) -> list[list[list[object]]]:
    """The service tiers of the model as a list in a list, or nothing."""
    rows: list[list[object]] = []
    for variant in model.price_variants or ():
        if len(variant.when) != 1:
            raise ValueError("a price that depends on two conditions at once has no place in the format")
        ((key, value),) = variant.when.items()
        tier = value if key in _TIER_KEYS else f"{key}={value}"
        if tier != "default":
            rows.append([tier, _when(variant.constraint), _price_table(variant.prices)])
    return [rows] if rows else []


def _clause(clause: genai.MatchLogic) -> Clause:
    from genai_prices import types as genai

    if isinstance(clause, genai.ClauseOr):
        return ["or", *map(_clause, clause.or_)]
    if isinstance(clause, genai.ClauseAnd):
        return ["and", *map(_clause, clause.and_)]
    if isinstance(clause, genai.ClauseRegex):
        return "~" + clause.regex  # used as it is; everything else is matched in lower case
    return _leaf(clause).lower()


def _leaf(
    clause: genai.ClauseEquals | genai.ClauseStartsWith | genai.ClauseEndsWith | genai.ClauseContains,
) -> str:
    from genai_prices import types as genai

    match clause:
        case genai.ClauseEquals():
            return "=" + clause.equals
        case genai.ClauseStartsWith():
            return "^" + clause.starts_with
        case genai.ClauseEndsWith():
            return "$" + clause.ends_with
        case genai.ClauseContains():
            return "*" + clause.contains


def _prices(prices: genai.ModelPrice | list[genai.ConditionalPrice]) -> Prices | list[list[object]]:
    if not isinstance(prices, list):
        return _price_table(prices)
    return [[_when(price.constraint), _price_table(price.prices)] for price in prices]


def _when(constraint: genai.StartDateConstraint | genai.TimeOfDateConstraint | None) -> str | None:
    from datetime import UTC

    from genai_prices import types as genai

    if constraint is None:
        return None
    if isinstance(constraint, genai.StartDateConstraint):
        return constraint.start_date.isoformat()
    times = (constraint.start_time, constraint.end_time)
    if any(moment.tzinfo not in {None, UTC} or moment.second or moment.microsecond for moment in times):
        raise ValueError("a time of day that is not a whole minute in UTC has no place in the format")
    return "-".join(f"{moment:%H:%M}" for moment in times)


def _price_table(prices: genai.ModelPrice) -> Prices:
    given = cast("dict[str, object]", vars(prices))
    table: Prices = {}
    for key, value in given.items():
        if value is None or key.startswith("_"):
            continue
        if key in _COUNTED:
            table[_COUNTED[key]] = _plain(cast("Decimal", value) / 1_000)
        else:
            name = _KEYS.get(key, key.removesuffix("_mtok"))
            table[name] = _rate(value)
    return table


def _rate(value: object) -> Rate:
    from genai_prices import types as genai

    if isinstance(value, genai.TieredPrices):
        steps: list[list[int | str]] = [[tier.start, _plain(tier.price)] for tier in value.tiers]
        return [_plain(value.base), *steps]
    return _plain(cast("Decimal", value))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def _models(content: bytes) -> dict[str, str]:
    data = cast("Mapping[str, list[Mapping[str, object]]]", json.loads(content))
    found: dict[str, str] = {}
    for provider in data["providers"]:
        for model_id, *rest in cast("list[tuple[str, object]]", provider["models"]):
            found[f"{provider['id']}:{model_id}"] = _dump(rest)
    return found


def _priced(line: str | None) -> bool:
    if line is None:
        return False
    prices = cast("list[object]", json.loads(line))[1]
    dated = isinstance(prices, list)
    latest = cast("list[tuple[object, Prices]]", prices)[-1][1] if dated else cast("Prices", prices)
    return any(_positive(rate) for rate in latest.values())


def _positive(rate: Rate) -> bool:
    first = rate if isinstance(rate, str) else rate[0]
    return bool(str(first).strip("0."))
