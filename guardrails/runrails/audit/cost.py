"""What the model calls of a recorded run used and cost, and what a stop would have saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runrails.audit.recording import ModelAnswered, Step
from runrails.errors import PriceUnknown
from runrails.pricing.cards import PriceCard, cost_pusd

if TYPE_CHECKING:
    from runrails.money import PicoUSD
    from runrails.pricing.book import PriceBook

__all__ = ["Spent", "add_up", "card_finder"]

_CARDS_MAX = 1_024

FindCard = Callable[[str | None], PriceCard | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """
    Tokens and money of the model calls that reported usage. A call that reported nothing is not counted; it was not
    free, but nobody knows what it cost.
    """

    model_calls: int
    """All of them."""
    reported_calls: int
    """Those that reported usage."""
    tokens: int | None
    """Input and output; None if no call reported any."""
    cost_pusd: PicoUSD | None
    """None if no call reported usage, or if the price of one that did is unknown."""
    avoided_pusd: PicoUSD | None
    """The part of it after the stop; None without a stop, or if nothing is known about the calls after it."""


def card_finder(prices: PriceBook, *, now_ms: int) -> FindCard:
    """A function that finds a model's card, or None where nobody wrote down its price."""
    cards: dict[str, PriceCard | None] = {}

    def find(model: str | None) -> PriceCard | None:
        if model is None:
            return None
        if model not in cards:
            if len(cards) >= _CARDS_MAX:
                cards.clear()
            try:
                cards[model] = prices.card(model, now_ms=now_ms)
            except PriceUnknown:
                cards[model] = None
        return cards[model]

    return find


def add_up(steps: Sequence[Step], find_card: FindCard, *, steps_before_stop: int | None) -> Spent:
    """
    Tokens and money of a recorded run.

    Args:
        steps: The whole recording.
        find_card: Finds the price of a model.
        steps_before_stop: How many of the steps a guarded run would have made; None if it would not have stopped.
    """
    calls = [step for step in steps if isinstance(step, ModelAnswered)]
    tokens = [step.usage.total_tokens for step in calls if step.usage is not None]
    avoided = None if steps_before_stop is None else _cost(steps[steps_before_stop:], find_card, nothing=0)
    cost = _cost(calls, find_card, nothing=None)
    return Spent(
        model_calls=len(calls),
        reported_calls=len(tokens),
        tokens=sum(tokens) if tokens else None,
        cost_pusd=cost,
        avoided_pusd=avoided,
    )


def _cost(steps: Sequence[Step], find_card: FindCard, *, nothing: PicoUSD | None) -> PicoUSD | None:
    """The sum over the calls that reported usage; `nothing` if there is no call at all, None if it cannot be told."""
    calls = [step for step in steps if isinstance(step, ModelAnswered)]
    if not calls:
        return nothing
    total: int | None = None
    for call in calls:
        if call.usage is None:
            continue
        card = find_card(call.model)
        if card is None:
            return None
        total = (total or 0) + cost_pusd(card, call.usage)
    return total
