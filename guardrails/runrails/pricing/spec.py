"""A price as a person writes it, in code or in `runrails.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Literal, TypeAlias, cast

from runrails.money import PicoUSD, usd
from runrails.pricing.cards import PriceCard, Ratio, UseRates, canonical_tier, make_card, ratio

__all__ = ["Price", "PriceSpec", "card_from_spec"]

Amount: TypeAlias = str | int | Decimal

PriceSpec: TypeAlias = "Price | str"
"""A `Price`, or the text "0" for a model that costs nothing. Nothing else means free, and nothing is free unsaid."""

_TOKENS_PER_RATE = 1_000_000
_RATE_NAMES = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "input_audio",
    "cache_read_audio",
    "reasoning",
    "output_audio",
    "input_image",
    "cache_read_image",
    "output_image",
)
_EACH_NAMES = ("call", *UseRates._fields)
_ZERO: Ratio = (0, 1)
_LIMIT_MAX = 10**12
_TIERS_MAX = 16
_TIER_CHARS_MAX = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """
    The price of one model: dollars per million tokens, and dollars per call.

    Give `input` and `output`, or `call` alone for a flat price that covers the tokens, or all three. A part without a
    price of its own costs what its total costs.

    Raises:
        TypeError: An amount is a float; write it as text.
        ValueError: An amount is malformed or negative, or `input` and `output` are not both given.
    """

    input: Amount | None = None
    """Dollars per million input tokens."""
    output: Amount | None = None
    """Dollars per million output tokens; "0" for a model that gives none, such as embeddings."""
    cache_read: Amount | None = None
    """Dollars per million input tokens that came from the provider's cache."""
    cache_write: Amount | None = None
    """Dollars per million input tokens written to the provider's cache, for five minutes where that matters."""
    cache_write_1h: Amount | None = None
    """The same for an hour."""
    input_audio: Amount | None = None
    cache_read_audio: Amount | None = None
    output_audio: Amount | None = None
    reasoning: Amount | None = None
    """Dollars per million reasoning tokens, if they differ from other output."""
    input_image: Amount | None = None
    cache_read_image: Amount | None = None
    output_image: Amount | None = None
    call: Amount | None = None
    """Dollars per call, on top of the tokens."""
    web_search: Amount | None = None
    """Dollars for each search that the provider runs itself, on top of the tokens."""
    file_search: Amount | None = None
    social_search: Amount | None = None
    code_execution: Amount | None = None
    tiers: Mapping[str, Price] | None = None
    """Its price in service tiers of the provider, by name: `{"priority": Price(…)}`. One left out has no price."""
    context_tokens_max: int | None = None
    """The largest input the model takes; taken from the snapshot if it knows the model."""
    output_tokens_max: int | None = None
    """The longest answer it gives when no cap is set; taken from the snapshot if it knows the model."""

    def __post_init__(self) -> None:
        """Refuse a price that says too little or that cannot be."""
        for name in (*_RATE_NAMES, *_EACH_NAMES):
            value: Amount | None = getattr(self, name)
            if value is not None and usd(value, what=name) < 0:
                raise ValueError(f"{name} must not be negative.")
        for name in ("context_tokens_max", "output_tokens_max"):
            tokens: object = getattr(self, name)
            # A model that takes no input would make every bound zero; one that gives no answer is an embedding.
            least = 1 if name == "context_tokens_max" else 0
            if tokens is not None and (type(tokens) is not int or not least <= tokens <= _LIMIT_MAX):
                raise ValueError(f"{name} must be a whole number of tokens from {least} to 10**12.")
        _check_tiers(self.tiers)
        if any(getattr(self, name) is not None for name in _RATE_NAMES):
            missing = [name for name in ("input", "output") if getattr(self, name) is None]
            if missing:
                raise ValueError(f'{" and ".join(missing)} is missing; write "0" if it really costs nothing.')
        elif self.call is None:
            raise ValueError("a price needs input and output (dollars per million tokens), or call (dollars per call).")

    @property
    def call_pusd(self) -> PicoUSD:
        """The flat price of a call."""
        return 0 if self.call is None else usd(self.call, what="call")

    @property
    def uses(self) -> UseRates:
        """What each use of a tool of the provider's costs."""
        written: tuple[Amount | None, ...] = tuple(getattr(self, name) for name in UseRates._fields)
        return UseRates(*(None if value is None else usd(value, what="a use") for value in written))

    def rates(self) -> dict[str, Ratio]:
        """Exact picodollars per token, by name, of everything that was written down."""
        if self.input is None:
            return {"input": _ZERO, "output": _ZERO}
        written: dict[str, Amount | None] = {name: getattr(self, name) for name in _RATE_NAMES}
        return {
            name: ratio(usd(value, what=name), _TOKENS_PER_RATE) for name, value in written.items() if value is not None
        }


PRICE_FIELDS = frozenset(field.name for field in fields(Price))


def _check_tiers(tiers: object) -> None:
    if tiers is None:
        return
    if not isinstance(tiers, Mapping) or len(cast("Mapping[object, object]", tiers)) > _TIERS_MAX:
        raise TypeError(f"tiers must be at most {_TIERS_MAX} prices by the name of their service tier.")
    seen: set[str] = set()
    for name, price in cast("Mapping[object, object]", tiers).items():
        if not isinstance(name, str) or not isinstance(price, Price) or price.tiers is not None:
            raise TypeError('tiers must be prices by the name of their service tier: {"priority": Price(…)}.')
        tier = canonical_tier(name)
        if not tier or len(tier) > _TIER_CHARS_MAX or tier in seen:
            raise ValueError(f"{name[:_TIER_CHARS_MAX]!r} is the standard tier, written twice, or no name of a tier.")
        seen.add(tier)


def card_from_spec(
    spec: PriceSpec,
    *,
    provider: str,
    model: str,
    source: Literal["run", "contract", "project"],
    known: PriceCard | None = None,
) -> PriceCard:
    """
    Compile a written price.

    Args:
        spec: The price, or the text "0".
        provider: Whose model it is, `""` if nobody said.
        model: The model's name.
        source: The layer it was written in.
        known: The snapshot's card of the same model, asked for its token limits only.
    """
    price = Price(input="0", output="0") if isinstance(spec, str) else spec
    context, output_max = price.context_tokens_max, price.output_tokens_max
    if known is not None:
        context = known.context_tokens_max if context is None else context
        output_max = known.output_tokens_max if output_max is None else output_max

    def make(part: Price, tier: str, others: tuple[PriceCard, ...]) -> PriceCard:
        return make_card(
            provider=provider, model=model, source=source, base=part.rates(), call_pusd=part.call_pusd, uses=part.uses,
            context_tokens_max=context, output_tokens_max=output_max, service_tier=tier, service_tiers=others,
        )  # fmt: skip

    tiers = [make(part, canonical_tier(name), ()) for name, part in (price.tiers or {}).items()]
    return make(price, "", tuple(tiers))


def check_spec(spec: object, *, where: str) -> PriceSpec:
    """
    Return `spec` if it is a price.

    Raises:
        TypeError: It is neither a `Price` nor text.
        ValueError: It is a text other than "0".
    """
    if isinstance(spec, Price):
        return spec
    if not isinstance(spec, str):
        raise TypeError(
            f'the price of {where} must be a Price(input="…", output="…") or the text "0", not {type(spec).__name__}.'
        )
    if spec.strip() != "0":
        raise ValueError(
            f'the price of {where} is a text other than "0". Write Price(input="…", output="…") in dollars per million '
            'tokens, or Price(call="…") for a flat price per call.'
        )
    return "0"
