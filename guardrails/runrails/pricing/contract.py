"""
What a tenant has agreed with a provider: rates, or a percentage on what the layers below say, between two dates.

    contract = [
        Term(provider="openai", percent="-12", valid_from="2026-07-01", valid_to="2027-06-30"),
        Term(model="anthropic:claude-opus-5-5", price=Price(input="3.20", output="16")),
    ]

The most specific term that is valid on the day applies: one of a model before one of a provider before one for
everything. A percentage is exact; what it makes of a rate is no longer a whole number of picodollars, so a call's cost
is rounded up, once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from math import gcd
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runrails.errors import ConfigError
from runrails.money import ceil_div
from runrails.pricing.cards import CardTier, PriceCard, Rates, UseRates, fingerprint_of
from runrails.pricing.names import ModelName, NameRefused, canonical_provider, parse_name
from runrails.pricing.snapshot import CardSchedule, day_ms
from runrails.pricing.spec import Amount, Price, card_from_spec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from runrails.pricing.shipped import Shipped

__all__ = ["Contract", "ContractSchedule", "Term"]

_FOREVER_MS = 2**63
_DAY_MS = 86_400_000
_PERCENT_MAX = 1_000
_PERCENT_PLACES_MAX = 6

Lower: TypeAlias = "CardSchedule | PriceCard | None"
"""What the layers below say; None if they refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """
    One term of a contract: either `price` for a model, or `percent` for a model, a provider or everything.

    Raises:
        TypeError: A part has the wrong type; an amount is a float.
        ValueError: It says too little, too much, or something that cannot be.
    """

    model: str | None = None
    """A model, with or without its provider as in ``openai:gpt-4o``; None for all of the provider's."""
    provider: str | None = None
    """None for every provider, or if the model's name says it."""
    price: Price | None = None
    percent: Amount | None = None
    """`"-12"` is 12 % off, `"3.5"` a surcharge."""
    valid_from: str | date | None = None
    """First day, UTC, as `2026-07-01`; None for always."""
    valid_to: str | date | None = None
    """Last day, itself included; None for ever."""

    def __post_init__(self) -> None:
        """Refuse a term that could be read in two ways."""
        for name in ("model", "provider"):
            said: object = getattr(self, name)
            if said is not None and (not isinstance(said, str) or not said.strip()):
                raise ValueError(f"{name} must be a name.")
        if (self.price is None) == (self.percent is None):
            raise ValueError("a term needs price or percent, and not both.")
        if self.price is not None:
            if not isinstance(self.price, Price):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers are not all typed
                raise TypeError("price must be a Price.")
            if self.model is None:
                raise ValueError("a price needs the model it is of.")
        else:
            self.factor()
        first_ms, end_ms = self.days()
        if end_ms <= first_ms:
            raise ValueError("valid_to is before valid_from.")

    def factor(self) -> tuple[int, int]:
        """What the percentage multiplies a rate by, as an exact ratio."""
        percent = _percent(self.percent)
        up, down = (1 + percent / 100).as_integer_ratio()
        return up, down

    def days(self) -> tuple[int, int]:
        """First millisecond of validity, and the first after it."""
        first_ms = 0 if self.valid_from is None else _day(self.valid_from, "valid_from")
        end_ms = _FOREVER_MS if self.valid_to is None else _day(self.valid_to, "valid_to") + _DAY_MS
        return first_ms, end_ms


class Contract:
    """The terms of a tenant, found by model and day."""

    def __init__(self, terms: Iterable[Term], lesser: Iterable[Term] = ()) -> None:
        self._groups = (tuple(terms), tuple(lesser))
        """The second is asked where the first says nothing as close."""
        for term in (*self._groups[0], *self._groups[1]):
            if not isinstance(term, Term):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers are not all typed
                raise TypeError(f"a contract is made of Term(…), not of {type(term).__name__}.")
        self._named: list[tuple[ModelName, Term]] | None = None

    def __bool__(self) -> bool:
        """Whether there is any term."""
        return any(self._groups)

    def over(self, name: ModelName, lower: Lower, why: str | None, data: Shipped) -> ContractSchedule | None:
        """
        The price of a model under the contract; None if no term is about it.

        Args:
            name: The model as it was asked for.
            lower: What the layers below say.
            why: Why they refuse, if they do.
            data: Knows providers and whose model a name is.

        Raises:
            ConfigError: A term is of a provider that nobody knows, or two say different things of one day.
        """
        if self._named is None:
            self._named = [pair for group in self._groups for pair in _named(group, data)]
        if not self._named:
            return None
        resolved = None if lower is None or isinstance(lower, PriceCard) else lower.model
        provider = data.provider_of(name)
        about = [
            (known, term)
            for known, term in self._named
            if known.provider in (None, provider) and known.model in ("", name.model, resolved)
        ]
        if not about:
            return None
        # Named more closely goes first; the exact name before the one that the snapshot takes it for.
        about.sort(key=lambda pair: _closeness(pair[0], pair[1], name.model))
        return ContractSchedule(provider or "", name.model, tuple(term for _, term in about), lower, why, data)


class ContractSchedule:
    """The prices of one model over time: the contract's where a term is valid, those of the layers below elsewhere."""

    def __init__(
        self, provider: str, model: str, terms: tuple[Term, ...], lower: Lower, why: str | None, data: Shipped
    ) -> None:
        self.provider = provider
        self.model = model
        self.why = why
        self._lower = lower
        limits = data.limits(ModelName(provider or None, model))
        self._terms = [_Valid(*term.days(), term, _fixed(term, provider, model, limits)) for term in terms]
        self._scaled: dict[tuple[int, int], PriceCard] = {}

    def at(self, now_ms: int) -> PriceCard | None:
        """The card that applies at this moment; None if there is no price."""
        lower = self.below(now_ms)
        for place, valid in enumerate(self._terms):
            if not valid.first_ms <= now_ms < valid.end_ms:
                continue
            if valid.card is not None:
                return valid.card
            if lower is None:
                return None  # a percentage of a price that nobody knows
            # Not by its fingerprint: a card that gets a service tier on some day keeps that, and its schedule is ours.
            key = (place, id(lower))
            if key not in self._scaled:
                self._scaled[key] = _scale(lower, valid.term)
            return self._scaled[key]
        return lower

    def below(self, now_ms: int) -> PriceCard | None:
        """The card of the layers below at this moment."""
        lower = self._lower
        return lower if lower is None or isinstance(lower, PriceCard) else lower.at(now_ms)


class _Valid(NamedTuple):
    first_ms: int
    end_ms: int
    term: Term
    card: PriceCard | None
    """None for a percentage."""


def _fixed(term: Term, provider: str, model: str, limits: PriceCard | None) -> PriceCard | None:
    if term.price is None:
        return None
    return card_from_spec(term.price, provider=provider, model=model, source="contract", known=limits)


def _scale(card: PriceCard, term: Term) -> PriceCard:
    """The card with every rate times the term's factor."""
    up, down = term.factor()
    tables = [card.rates, *(tier.rates for tier in card.tiers)]
    denominator = card.denominator * down
    common = gcd(denominator, *(rate * up for table in tables for rate in table))
    made = replace(
        card,
        source="contract",
        over=card.over or card.source,
        note=f"{_percent(term.percent):+f} % on the price of the {card.source} layer",
        rates=Rates(*(rate * up // common for rate in card.rates)),
        tiers=tuple(
            CardTier(tier.above_tokens, Rates(*(rate * up // common for rate in tier.rates))) for tier in card.tiers
        ),
        denominator=denominator // common,
        call_pusd=ceil_div(card.call_pusd * up, down),
        uses=UseRates(*(None if rate is None else ceil_div(rate * up, down) for rate in card.uses)),
        service_tiers=tuple(_scale(each, term) for each in card.service_tiers),
    )
    return replace(made, fingerprint=fingerprint_of(made.text()))


def _named(terms: Iterable[Term], data: Shipped) -> list[tuple[ModelName, Term]]:
    named = [(_name_of(term, data), term) for term in terms]
    for place, (name, term) in enumerate(named):
        for other_name, other in named[:place]:
            (first, end), (other_first, other_end) = term.days(), other.days()
            if name == other_name and first < other_end and other_first < end:
                raise ConfigError(
                    f"Two terms of the contract for {name.key() or 'everything'} are valid on the same day.",
                    next_step="Let valid_to of the earlier one be the day before valid_from of the later one.",
                )
    return named


def _name_of(term: Term, data: Shipped) -> ModelName:
    known = data.snapshot.provider_of
    if term.model is None:
        if term.provider is None:
            return ModelName(None, "")
        provider = canonical_provider(term.provider, known)
        if provider is None:
            raise ConfigError(
                f"The contract names a provider that nobody knows: {term.provider[:60]!r}.",
                next_step="Write it as `runrails prices show MODEL` does, for instance openai, anthropic or aws.",
            )
        return ModelName(provider, "")
    try:
        return parse_name(term.model, term.provider, known)
    except NameRefused:
        raw = term.model.strip().lower()
        return ModelName(None, raw if term.provider is None else f"{term.provider.strip().lower()}:{raw}")


def _closeness(known: ModelName, term: Term, asked: str) -> tuple[bool, bool, bool]:
    unowned = term.provider is None and ":" not in (term.model or "")
    return term.model is None, term.model is not None and known.model != asked, unowned


def _percent(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise TypeError(f'percent must be text, int or Decimal, not {type(value).__name__}; write "-12.5".')
    try:
        percent = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation as exc:
        raise ValueError('percent must be a number, for instance "-12.5".') from exc
    exponent = percent.as_tuple().exponent
    if not isinstance(exponent, int) or not -100 < percent <= _PERCENT_MAX or exponent < -_PERCENT_PLACES_MAX:
        raise ValueError(
            f"percent must be above -100 and at most {_PERCENT_MAX:,}, to {_PERCENT_PLACES_MAX} places at most; "
            'what costs nothing is written as the price "0".'
        )
    return percent


def _day(value: object, what: str) -> int:
    from datetime import date, datetime

    if isinstance(value, datetime) or not isinstance(value, str | date):
        raise TypeError(f'{what} must be a day like "2026-07-01".')
    try:
        return day_ms(value if isinstance(value, str) else value.isoformat())
    except ValueError as exc:
        raise ValueError(f'{what} must be a day like "2026-07-01".') from exc
