"""
Price cards: what one model costs, compiled to integers, and the two sums made with them.

A rate is picodollars per token times the card's `denominator`, which is 1 for all but a few repeating decimals. So
every sum is exact, and rounding happens once a call, upward, only where the denominator is not 1.

A part without a rate of its own costs what its total costs: cached tokens of a model without a cache price are plain
input. It never costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runrails.money import PicoUSD, ceil_div

if TYPE_CHECKING:
    from runrails.usage import Usage

__all__ = ["CardTier", "PriceCard", "RateTable", "Rates", "Ratio", "cost_pusd", "dearest_pusd", "make_card", "ratio"]

Ratio: TypeAlias = tuple[int, int]
"""An exact rate: picodollars per token as (numerator, denominator) in lowest terms."""

RateTable: TypeAlias = Mapping[str, Ratio]
"""Rates by name: `input`, `output`, `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`, `cache_read_audio`,
`reasoning`, `output_audio`. Only `input` must be there."""


class Rates(NamedTuple):
    """Picodollars per token, times the card's denominator. Every part has a rate."""

    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    input_audio: int
    cache_read_audio: int
    output: int
    reasoning: int
    output_audio: int


class CardTier(NamedTuple):
    """Rates for a whole request whose input is larger than `above_tokens`: a cliff, not a slope."""

    above_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceCard:
    """What a model costs at one moment. Values never change; a new price is a new card."""

    provider: str
    model: str
    source: str
    """Which layer it came from: `run`, `project` or `snapshot`."""
    rates: Rates
    tiers: tuple[CardTier, ...] = ()
    """By rising `above_tokens`; the last one that the input exceeds applies to all its tokens."""
    denominator: int = 1
    call_pusd: PicoUSD = 0
    """Flat price of one call, on top of its tokens."""
    context_tokens_max: int | None = None
    """The largest input the model takes, if known."""
    output_tokens_max: int | None = None
    """The longest answer the model gives when nobody sets a cap, if known."""
    auto_cache_write: bool = False
    """Whether the provider writes its cache unasked, so that any input token may cost the price of a cache write."""
    fingerprint: str
    """SHA-256 of everything that decides the cost; ledger lines keep it."""

    @property
    def free(self) -> bool:
        """Whether someone has written that this model costs nothing."""
        return not (self.call_pusd or any(self.rates) or any(any(tier.rates) for tier in self.tiers))

    @property
    def output_free(self) -> bool:
        """Whether output costs nothing beside a price per call: then a call without a cap is bounded all the same."""
        tables = (self.rates, *(tier.rates for tier in self.tiers))
        return not any(rates.output or rates.reasoning or rates.output_audio for rates in tables)

    def as_dict(self) -> dict[str, object]:
        """The card as JSON-ready values; with these an old cost can be worked out again."""
        return {
            "provider": self.provider,
            "model": self.model,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "pusd_per_token": self.rates._asdict(),
            "denominator": self.denominator,
            "call_pusd": self.call_pusd,
            "tiers": [{"above_tokens": above, "pusd_per_token": rates._asdict()} for above, rates in self.tiers],
            "context_tokens_max": self.context_tokens_max,
            "output_tokens_max": self.output_tokens_max,
        }


def cost_pusd(card: PriceCard, usage: Usage) -> PicoUSD:
    """What the call cost: exact, and rounded up to a picodollar only where the card's denominator is not 1."""
    rates = card.rates
    if card.tiers:
        for tier in card.tiers:
            if usage.input_tokens <= tier.above_tokens:
                break
            rates = tier.rates
    read, five, hour = usage.cache_read_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens
    total = (usage.input_tokens - read - five - hour) * rates[0] + usage.output_tokens * rates[6]
    if read or five or hour:
        total += read * rates[1] + five * rates[2] + hour * rates[3]
    if usage.reasoning_tokens:
        total += usage.reasoning_tokens * (rates[7] - rates[6])
    if usage.input_audio_tokens or usage.output_audio_tokens:
        # Above, audio went at the plain rate and cached audio as cached; their own rates replace those, and what was
        # replaced twice is put back.
        both = usage.cache_read_audio_tokens
        total += usage.input_audio_tokens * (rates[4] - rates[0]) + usage.output_audio_tokens * (rates[8] - rates[6])
        total += both * (rates[5] - rates[4] - rates[1] + rates[0])
    if card.denominator != 1:
        total = ceil_div(total, card.denominator)
    return total + card.call_pusd


def dearest_pusd(
    card: PriceCard,
    *,
    input_tokens: int,
    output_tokens: int,
    cache_write: bool = False,
    input_audio: bool = True,
) -> PicoUSD:
    """
    The most that this many tokens could cost on the card.

    Every tier that the input may reach is tried, no cache hit is hoped for, and all output is taken to be of the
    dearest kind.

    Args:
        card: The prices.
        input_tokens: At most so many tokens go in.
        output_tokens: At most so many tokens come out, over all answers.
        cache_write: The request may write the provider's cache.
        input_audio: The request may contain audio.
    """
    write = cache_write or card.auto_cache_write
    dearest = _dearest_in(card.rates, input_tokens, output_tokens, write=write, audio=input_audio)
    for tier in card.tiers:
        if input_tokens > tier.above_tokens:
            amount = _dearest_in(tier.rates, input_tokens, output_tokens, write=write, audio=input_audio)
            dearest = max(dearest, amount)
    if card.denominator != 1:
        dearest = ceil_div(dearest, card.denominator)
    return dearest + card.call_pusd


def _dearest_in(rates: Rates, input_tokens: int, output_tokens: int, *, write: bool, audio: bool) -> int:
    into = max(rates.input, rates.cache_read)
    if write:
        into = max(into, rates.cache_write_5m, rates.cache_write_1h)
    if audio:
        into = max(into, rates.input_audio, rates.cache_read_audio)
    return input_tokens * into + output_tokens * max(rates.output, rates.reasoning, rates.output_audio)


def make_card(
    *,
    provider: str,
    model: str,
    source: str,
    base: RateTable,
    tiers: Mapping[int, RateTable] | None = None,
    call_pusd: PicoUSD = 0,
    context_tokens_max: int | None = None,
    output_tokens_max: int | None = None,
) -> PriceCard:
    """Compile named exact rates to a card. `base` and every tier must have an `input` rate."""
    by_start = sorted((tiers or {}).items())
    tables = [base, *(table for _, table in by_start)]
    denominator = lcm(*(down for table in tables for _, down in table.values()))
    rates = [_compile(table, denominator) for table in tables]
    card_tiers = tuple(CardTier(start, table) for (start, _), table in zip(by_start, rates[1:], strict=True))
    content = [provider, model, source, rates[0], card_tiers, denominator, call_pusd]
    return PriceCard(
        provider=provider,
        model=model,
        source=source,
        rates=rates[0],
        tiers=card_tiers,
        denominator=denominator,
        call_pusd=call_pusd,
        context_tokens_max=context_tokens_max,
        output_tokens_max=output_tokens_max,
        # Anthropic writes its cache when the request says so; the others that bill a write do it unasked.
        auto_cache_write="cache_write" in base and "claude" not in model,
        fingerprint=_fingerprint(content),
    )


def ratio(numerator: int, denominator: int) -> Ratio:
    """The ratio in lowest terms."""
    common = gcd(numerator, denominator)
    return numerator // common, denominator // common


def _compile(table: RateTable, denominator: int) -> Rates:
    def rate(*names: str) -> int:
        up, down = next(table[name] for name in names if name in table)
        return up * (denominator // down)

    # A model without an output rate gives no text (embeddings); should it report output, that is priced like input.
    return Rates(
        input=rate("input"),
        cache_read=rate("cache_read", "input"),
        cache_write_5m=rate("cache_write", "input"),
        cache_write_1h=rate("cache_write_1h", "cache_write", "input"),
        input_audio=rate("input_audio", "input"),
        cache_read_audio=rate("cache_read_audio", "input_audio", "cache_read", "input"),
        output=rate("output", "input"),
        reasoning=rate("reasoning", "output", "input"),
        output_audio=rate("output_audio", "output", "input"),
    )


def _fingerprint(content: Iterable[object]) -> str:
    import hashlib  # both here: a program that never prices a call does not pay for loading them
    import json

    text = json.dumps(list(content), separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
