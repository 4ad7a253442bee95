"""What lies between a provider's price and what a call's owner pays: the mark-up, and the price without a contract."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from runrails.errors import BoundUnknown, PriceUnknown
from runrails.figures import marked_up, net_of
from runrails.ledger import AMOUNT_MAX, Discount
from runrails.pricing.cards import cost_pusd
from runrails.settlement import Settlement, settle

if TYPE_CHECKING:
    from runrails.admission import Bound
    from runrails.calls import ModelResult, Permit
    from runrails.pricing.book import PriceBook
    from runrails.pricing.cards import PriceCard

__all__ = ["ANSWER_ID_CHARS_MAX", "bound_with", "discount_of", "settle_with"]

ANSWER_ID_CHARS_MAX = 256
"""
Longest id of an answer that goes into its usage record; no provider's is half as long. A longer one is left out, as a
part of an id would be another one.
"""


def bound_with(bound: Bound, markup_bp: int, *, model: str) -> Bound:
    """
    The bound of what a call's owner may have to pay: never less than what settling it will charge.

    Raises:
        BoundUnknown: No ledger could count it.
    """
    price = bound.price

    def shrunk(output_tokens: int) -> int:
        return 0 if price is None else marked_up(price(output_tokens), markup_bp)

    cost = None if bound.cost_pusd is None else marked_up(bound.cost_pusd, markup_bp)
    floor = marked_up(bound.floor_pusd, markup_bp)
    if max(floor, cost or 0) > AMOUNT_MAX:
        raise BoundUnknown(
            "The most this call could cost is more than any ledger counts ($9.22 million).",
            next_step="Set a smaller max_tokens on the model.",
            model=model,
        )
    return bound._replace(cost_pusd=cost, floor_pusd=floor, price=None if price is None else shrunk)


def settle_with(card: PriceCard, permit: Permit, result: ModelResult, markup_bp: int) -> Settlement:
    """As `settle`, with the mark-up on top, rounded up once. Of a hold, which has it, it is taken off before that."""
    attempt = net_of(permit.attempt_pusd, markup_bp)
    if result.held_pusd:
        result = replace(result, held_pusd=net_of(result.held_pusd, markup_bp))
    net = settle(card, replace(permit, bound_pusd=attempt * (1 + permit.retries)), result)
    return net._replace(actual_pusd=marked_up(net.actual_pusd, markup_bp))


def discount_of(
    prices: PriceBook, permit: Permit, result: ModelResult, settlement: Settlement, markup_bp: int
) -> tuple[Discount, PriceCard] | None:
    """
    What a contract took off a call that was charged by its rates, and the card without it.

    None if there is nothing to compare with: no contract is about the model, nobody else has a price, or the charge is
    a stand-in.
    """
    usage, call = settlement.usage, permit.call
    if usage is None or settlement.unresolved or result.end != "completed":
        return None
    for model in (result.model, call.model):
        if not model:
            continue
        asked: _Asked = {"provider": call.provider, "now_ms": permit.started_ms, "region": call.region}
        try:
            card = prices.card(model, **asked)
            listed = _same_tier(prices.list_card(card, model, **asked), card, settlement.price_card)
            if listed is None:
                continue
            net_pusd = net_of(settlement.actual_pusd, markup_bp)
            return Discount(cost_pusd(listed, usage) - net_pusd, listed.fingerprint), listed
        except PriceUnknown:
            continue
    return None


class _Asked(TypedDict):
    provider: str | None
    now_ms: int
    region: str | None


def _same_tier(listed: PriceCard | None, agreed: PriceCard, charged_by: str) -> PriceCard | None:
    """Of the card without a contract, what stands for the one that was charged by; None if that was another card."""
    if listed is None or charged_by == agreed.fingerprint:
        return listed
    place = next((n for n, each in enumerate(agreed.service_tiers) if each.fingerprint == charged_by), None)
    return None if place is None else listed.service_tiers[place]
