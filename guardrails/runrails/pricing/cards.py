"""
Price cards: what one model costs, compiled to integers, and the two sums made with them.

A rate is picodollars per token times the card's `denominator`, which is 1 for all but a few repeating decimals. So
every sum is exact, and rounding happens once a call, upward, only where the denominator is not 1.

A part without a rate of its own costs what its total costs: cached tokens of a model without a cache price are plain
input. It never costs nothing.

A provider's service tiers are cards beside the standard one: ``card.tier("priority") -> PriceCard | None``, where None
means that nobody has published what the tier costs. Names: `batch`, `flex`, `priority`, `fast`, `scale`; `auto`,
`default`, `standard`, `on_demand` and no name at all are the standard card. A request that leaves the tier open is
bounded with ``dearest_pusd(card, …, service_tier="auto")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runrails.errors import PriceUnknown
from runrails.money import PicoUSD, ceil_div

if TYPE_CHECKING:
    from runrails.usage import Usage

__all__ = [
    "CardTier",
    "PriceCard",
    "RateTable",
    "Rates",
    "Ratio",
    "UseRates",
    "canonical_tier",
    "card_from_text",
    "cost_pusd",
    "dearest_pusd",
    "fingerprint_of",
    "make_card",
    "ratio",
    "tier_unknown",
]

Ratio: TypeAlias = tuple[int, int]
"""An exact rate: picodollars per token as (numerator, denominator) in lowest terms."""

RateTable: TypeAlias = Mapping[str, Ratio]
"""Rates by name: `input`, `output`, `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`, `cache_read_audio`,
`reasoning`, `output_audio`, `input_image`, `cache_read_image`, `output_image`. Only `input` must be there."""

_STANDARD_TIERS = frozenset({"", "auto", "default", "on_demand", "standard", "standard_only"})
_OPEN = "auto"
_NEVER_CHOSEN = "batch"
"""A tier that is never picked for a request that leaves the tier open: it has an interface of its own."""


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
    input_image: int
    cache_read_image: int
    output_image: int


class UseRates(NamedTuple):
    """Picodollars for each use of a tool that the provider runs itself; None where nobody has published a price."""

    web_search: int | None = None
    file_search: int | None = None
    social_search: int | None = None
    code_execution: int | None = None


_NO_USES = UseRates()


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
    """Which layer it came from: `run`, `contract`, `project`, `patch`, `snapshot`, or `assumed` (the dearest known)."""
    over: str = ""
    """The layer that a contract's percentage was taken of; empty for any other price."""
    note: str = ""
    """Where a patched or assumed price is from, for people."""
    service_tier: str = ""
    """The provider's service tier that it is the price of; empty for the standard one."""
    service_tiers: tuple[PriceCard, ...] = ()
    """The same model's cards in the tiers whose price is known; ask with `tier`."""
    rates: Rates
    tiers: tuple[CardTier, ...] = ()
    """By rising `above_tokens`; the last one that the input exceeds applies to all its tokens."""
    denominator: int = 1
    call_pusd: PicoUSD = 0
    """Flat price of one call, on top of its tokens."""
    uses: UseRates = _NO_USES
    """Tools that the provider runs and bills by the use."""
    prices_images: bool = False
    """Whether a picture, read or made, has a rate of its own. Output whose parts nobody told is then taken for one."""
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
        return not any(any((rates.output, rates.reasoning, rates.output_audio, rates.output_image)) for rates in tables)

    def tier(self, name: str | None) -> PriceCard | None:
        """
        The card of a service tier of the provider, as the request or the answer names it.

        None: nobody has published its price, and it is not guessed from the standard one.
        """
        wanted = canonical_tier(name)
        # What is free for everybody, and what was assumed to be the dearest there is, are so in every tier.
        if wanted == self.service_tier or self.free or self.source == "assumed":
            return self
        return next((card for card in self.service_tiers if card.service_tier == wanted), None)

    def text(self) -> str:
        """
        Everything that decides the cost, as one line of JSON; `card_from_text` reads it back.

        The fingerprint is its SHA-256, so whoever keeps the line can prove that it is the one a ledger line names.
        """
        return _text(
            self.provider, self.model, self.source, self.rates, self.tiers, self.denominator, self.call_pusd,
            self.uses, self.service_tier,
        )  # fmt: skip

    def as_dict(self) -> dict[str, object]:
        """The card as JSON-ready values; with these an old cost can be worked out again."""
        return {
            "provider": self.provider,
            "model": self.model,
            "source": self.source,
            "over": self.over or None,
            "note": self.note or None,
            "fingerprint": self.fingerprint,
            "service_tier": self.service_tier or "standard",
            "pusd_per_token": self.rates._asdict(),
            "denominator": self.denominator,
            "call_pusd": self.call_pusd,
            "tiers": [{"above_tokens": above, "pusd_per_token": rates._asdict()} for above, rates in self.tiers],
            "pusd_per_use": {name: rate for name, rate in self.uses._asdict().items() if rate is not None},
            "service_tiers": [card.service_tier for card in self.service_tiers],
            "context_tokens_max": self.context_tokens_max,
            "output_tokens_max": self.output_tokens_max,
        }


def cost_pusd(card: PriceCard, usage: Usage) -> PicoUSD:
    """
    What the call cost: exact, and rounded up to a picodollar only where the card's denominator is not 1.

    Raises:
        PriceUnknown: The provider ran a tool that has no price on the card.
    """
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
    if card.prices_images:
        total += _image_part(rates, usage)
    if card.denominator != 1:
        total = ceil_div(total, card.denominator)
    if usage.web_searches or usage.code_executions:
        total += _uses_part(card, usage)
    return total + card.call_pusd


def _image_part(rates: Rates, usage: Usage) -> int:
    """What pictures cost beyond what `cost_pusd` has counted for them as text."""
    both, made = usage.cache_read_image_tokens, usage.output_image_tokens
    if not made:
        # Nobody said what the answer was made of: its dearest kind, or a picture would pass for text.
        made = usage.plain_output_tokens if rates.output_image > rates.output else 0
    total = usage.input_image_tokens * (rates.input_image - rates.input) + made * (rates.output_image - rates.output)
    return total + both * (rates.cache_read_image - rates.input_image - rates.cache_read + rates.input)


def _uses_part(card: PriceCard, usage: Usage) -> PicoUSD:
    total = 0
    for name, count in (("web_search", usage.web_searches), ("code_execution", usage.code_executions)):
        rate: int | None = getattr(card.uses, name)
        if count and rate is None and not card.free:
            raise PriceUnknown(
                f"The provider ran its tool {name} for {card.model!r}, and what that costs nobody has published.",
                next_step=f'Write the model\'s price down with {name} = "…" in dollars per use.',
                model=card.model,
                provider=card.provider or None,
            )
        total += count * (rate or 0)
    return total


def dearest_pusd(
    card: PriceCard,
    *,
    input_tokens: int,
    output_tokens: int,
    cache_write: bool = False,
    input_audio: bool = True,
    input_images: bool = True,
    service_tier: str | None = None,
) -> PicoUSD:
    """
    The most that this many tokens could cost on the card.

    Every long-context tier that the input may reach is tried, no cache hit is hoped for, and all output is taken to be
    of the dearest kind. Tools that the provider runs come on top: `card.uses` has their rates.

    Args:
        card: The prices.
        input_tokens: At most so many tokens go in.
        output_tokens: At most so many tokens come out, over all answers.
        cache_write: The request may write the provider's cache.
        input_audio: The request may contain audio.
        input_images: The request may contain pictures.
        service_tier: As the request says; None for the card as it is, `auto` for the dearest the provider may choose.

    Raises:
        PriceUnknown: The tier that was asked for has no price.
    """
    if service_tier is not None:
        return _dearest_in_tier(
            card, service_tier, input_tokens=input_tokens, output_tokens=output_tokens, cache_write=cache_write,
            input_audio=input_audio, input_images=input_images,
        )  # fmt: skip
    write = cache_write or card.auto_cache_write
    images = input_images if card.prices_images else None
    dearest = _dearest_in(card.rates, input_tokens, output_tokens, write=write, audio=input_audio, images=images)
    for tier in card.tiers:
        if input_tokens > tier.above_tokens:
            amount = _dearest_in(tier.rates, input_tokens, output_tokens, write=write, audio=input_audio, images=images)
            dearest = max(dearest, amount)
    if card.denominator != 1:
        dearest = ceil_div(dearest, card.denominator)
    return dearest + card.call_pusd


def _dearest_in_tier(
    card: PriceCard, service_tier: str, *, input_tokens: int, output_tokens: int, cache_write: bool, input_audio: bool,
    input_images: bool,
) -> PicoUSD:  # fmt: skip
    if service_tier.strip().lower() == _OPEN:
        cards = [card, *(other for other in card.service_tiers if _may_be_chosen(other.service_tier))]
    else:
        found = card.tier(service_tier)
        if found is None:
            raise tier_unknown(card, service_tier)
        cards = [found]
    return max(
        dearest_pusd(
            each, input_tokens=input_tokens, output_tokens=output_tokens, cache_write=cache_write,
            input_audio=input_audio, input_images=input_images,
        )
        for each in cards
    )  # fmt: skip


def _may_be_chosen(tier: str) -> bool:
    return tier != _NEVER_CHOSEN and "=" not in tier  # a named route or search type is chosen by the caller alone


def canonical_tier(name: str | None) -> str:
    """A service tier's name as cards have it: lower case, and empty for the standard one however it is called."""
    plain = "" if name is None else name.strip().lower()
    return "" if plain in _STANDARD_TIERS else plain


def tier_unknown(card: PriceCard, tier: str) -> PriceUnknown:
    """The refusal of a service tier that has no price."""
    key = f"{card.provider}:{card.model}" if card.provider else card.model
    return PriceUnknown(
        f"The price of {card.model!r} in the service tier {tier[:40]!r} is unknown: nobody has published it.",
        next_step=f'Leave the tier out of the request, or write it down in runrails.toml: [prices."{key}".tiers.'
        f'{canonical_tier(tier)[:40] or "standard"}] input = "2.50", output = "10.00".',
        model=card.model,
        provider=card.provider or None,
        service_tier=tier[:40],
    )


def _dearest_in(
    rates: Rates, input_tokens: int, output_tokens: int, *, write: bool, audio: bool, images: bool | None
) -> int:
    into = max(rates[0], rates[1])
    if write:
        into = max(into, rates[2], rates[3])
    if audio:
        into = max(into, rates[4], rates[5])
    out = max(rates[6], rates[7], rates[8])
    if images is not None:  # pictures have rates of their own
        out = max(out, rates[11])
        if images:
            into = max(into, rates[9], rates[10])
    return input_tokens * into + output_tokens * out


def make_card(  # noqa: PLR0913 -- keyword-only parts of one value
    *,
    provider: str,
    model: str,
    source: str,
    base: RateTable,
    tiers: Mapping[int, RateTable] | None = None,
    call_pusd: PicoUSD = 0,
    uses: UseRates = _NO_USES,
    context_tokens_max: int | None = None,
    output_tokens_max: int | None = None,
    service_tier: str = "",
    service_tiers: tuple[PriceCard, ...] = (),
    note: str = "",
) -> PriceCard:
    """Compile named exact rates to a card. `base` and every tier must have an `input` rate."""
    by_start = sorted((tiers or {}).items())
    tables = [base, *(table for _, table in by_start)]
    denominator = lcm(*(down for table in tables for _, down in table.values()))
    rates = [_compile(table, denominator) for table in tables]
    card_tiers = tuple(CardTier(start, table) for (start, _), table in zip(by_start, rates[1:], strict=True))
    content = _text(provider, model, source, rates[0], card_tiers, denominator, call_pusd, uses, service_tier)
    return PriceCard(
        provider=provider,
        model=model,
        source=source,
        note=note,
        service_tier=service_tier,
        service_tiers=service_tiers,
        rates=rates[0],
        tiers=card_tiers,
        denominator=denominator,
        call_pusd=call_pusd,
        uses=uses,
        prices_images=_prices_images(rates),
        context_tokens_max=context_tokens_max,
        output_tokens_max=output_tokens_max,
        # Anthropic writes its cache when the request says so; the others that bill a write do it unasked.
        auto_cache_write="cache_write" in base and "claude" not in model,
        fingerprint=fingerprint_of(content),
    )


def ratio(numerator: int, denominator: int) -> Ratio:
    """The ratio in lowest terms."""
    common = gcd(numerator, denominator)
    return numerator // common, denominator // common


def fingerprint_of(text: str) -> str:
    """The fingerprint of a card that has this text."""
    import hashlib  # here: a program that never prices a call does not pay for loading it

    return hashlib.sha256(text.encode()).hexdigest()


def card_from_text(text: str) -> PriceCard:
    """
    The card that `PriceCard.text` wrote, as far as it decides the cost of a usage: without limits and other tiers.

    Raises:
        ValueError: It is not such a text.
    """
    import json

    try:
        provider, model, source, rates, tiers, denominator, call_pusd, *more = json.loads(text)
        uses, service_tier = more or ((), "")
        base = _read_rates(rates)
        cliffs = tuple(CardTier(int(above), _read_rates(table)) for above, table in tiers)
        return PriceCard(
            provider=provider, model=model, source=source, rates=base, tiers=cliffs, denominator=denominator,
            call_pusd=call_pusd, uses=UseRates(*uses), service_tier=service_tier,
            prices_images=_prices_images([base, *(tier.rates for tier in cliffs)]), fingerprint=fingerprint_of(text),
        )  # fmt: skip
    except (TypeError, ValueError, KeyError, RecursionError) as exc:
        raise ValueError("this is not the text of a price card.") from exc


def _read_rates(values: list[int]) -> Rates:
    if any(type(value) is not int for value in values):
        raise ValueError("a rate is not a whole number.")
    if len(values) == _TEXT_RATES:  # pictures cost what text costs
        values = [*values, values[0], values[1], values[6]]
    return Rates(*values)


_TEXT_RATES = 9


def _text(  # noqa: PLR0913, PLR0917 -- all that decides a cost, in the order in which it is written
    provider: str, model: str, source: str, rates: Rates, tiers: Iterable[CardTier], denominator: int, call_pusd: int,
    uses: UseRates, service_tier: str,
) -> str:  # fmt: skip
    import json

    content: list[object] = [
        provider, model, source, _written_rates(rates), [(above, _written_rates(table)) for above, table in tiers],
        denominator, call_pusd,
    ]  # fmt: skip
    # What is not there is not written, so that a card keeps its fingerprint when cards learn to say more.
    if service_tier or any(rate is not None for rate in uses):
        content += [uses, service_tier]
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True)


def _written_rates(rates: Rates) -> tuple[int, ...]:
    return rates if _prices_images((rates,)) else rates[:_TEXT_RATES]


def _prices_images(tables: Iterable[Rates]) -> bool:
    return any((r.input_image, r.cache_read_image, r.output_image) != (r.input, r.cache_read, r.output) for r in tables)


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
        output=rate("output", "output_image", "input"),
        reasoning=rate("reasoning", "output", "output_image", "input"),
        output_audio=rate("output_audio", "output", "output_image", "input"),
        input_image=rate("input_image", "input"),
        cache_read_image=rate("cache_read_image", "cache_read", "input"),
        output_image=rate("output_image", "output", "input"),
    )
