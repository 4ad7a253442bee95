"""What a finished call is charged: a function of its price card, its bound and what was reported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, assert_never

from runrails import bounds
from runrails.ledger import AMOUNT_MAX
from runrails.money import apply_bp_up
from runrails.pricing.cards import PriceCard, cost_pusd
from runrails.usage import Usage
from runrails.values import named

if TYPE_CHECKING:
    from runrails.calls import ModelResult, Permit

__all__ = ["Settlement", "came_pusd", "settle"]


_PLAIN_BP = 10_000


class Settlement(NamedTuple):
    """The charge for one call."""

    actual_pusd: int
    unresolved: bool
    """The amount is a stand-in; a later settle may correct it exactly."""
    usage: Usage | None
    """What was reported, or what the stand-in was computed from."""
    price_card: str = ""
    """Fingerprint of the card it was computed with."""


def settle(card: PriceCard, permit: Permit, result: ModelResult) -> Settlement:
    """
    The charge for a call that ended.

    Reported usage is charged exactly. Missing usage is charged at the hold, never at 0. A cut stream is charged for
    its input and what had arrived, and for no less than it had reported; if hidden reasoning may have been written,
    for the whole hold. An unknown outcome (a timeout after sending) is charged at the hold. A definite failure and a
    cache hit cost nothing. Earlier attempts whose outcome is unknown come on top, each at the most it can have cost.

    What another tier than the standard one has served is charged at that tier's prices. Where nobody has published
    them it is charged at the most that such a tier costs, and stays unresolved. A cut stream that did not say which
    tier served it was served in the one that was asked for.
    """
    tier = result.tier
    if tier is None and result.end == "completed" and result.usage is not None and not result.unknown_attempts:
        return named(Settlement, (cost_pusd(card, result.usage), False, result.usage, card.fingerprint))
    tier_card = None if tier is None else card.tier(tier.name)
    if tier is None and result.end == "cut" and permit.call.service_tier is not None:
        tier_card = card.tier(permit.call.service_tier)  # Nobody may have come to hear which one served it.
    settlement = _last_attempt(tier_card or card, permit, result)._replace(price_card=(tier_card or card).fingerprint)
    if tier is not None and (tier_card is None or settlement.usage is None) and tier.factor_bp > _PLAIN_BP:
        amount = apply_bp_up(settlement.actual_pusd, tier.factor_bp)
        settlement = settlement._replace(actual_pusd=amount, unresolved=settlement.unresolved or amount > 0)
    if not result.unknown_attempts:
        return settlement
    lost = permit.attempt_pusd * result.unknown_attempts
    return settlement._replace(actual_pusd=settlement.actual_pusd + lost, unresolved=True)


def _last_attempt(card: PriceCard, permit: Permit, result: ModelResult) -> Settlement:
    if result.end == "cached" or result.end == "failed":
        return Settlement(0, unresolved=False, usage=result.usage)
    if result.usage is not None:
        return Settlement(cost_pusd(card, result.usage), unresolved=False, usage=result.usage)
    floor = 0 if result.floor_usage is None else cost_pusd(card, result.floor_usage)
    hold = Settlement(max(permit.attempt_pusd, result.held_pusd, floor), unresolved=True, usage=None)
    if result.end == "completed" or result.end == "unknown":
        return hold
    if result.end == "cut":
        if result.reasoning:
            return hold
        settlement = _cut(card, permit, result)
        if settlement.actual_pusd < floor:
            return settlement._replace(actual_pusd=floor, usage=result.floor_usage)
        return settlement
    assert_never(result.end)


def _cut(card: PriceCard, permit: Permit, result: ModelResult) -> Settlement:
    # The hold may have been made with the prices of another tier, without a cap, or the answer may have passed it.
    loose = result.tier is not None or result.held_pusd or permit.uncapped
    most = AMOUNT_MAX if loose else permit.attempt_pusd
    output_tokens = bounds.text_tokens_bound(result.output_text)
    amount, usage = came_pusd(card, permit, output_tokens, result.floor_usage or result.input_usage)
    return Settlement(min(amount, most), unresolved=True, usage=usage)


def came_pusd(card: PriceCard, permit: Permit, output_tokens: int, reported: Usage | None) -> tuple[int, Usage]:
    """
    What a call costs that came so far, whatever it holds, and of which usage.

    Args:
        card: The prices.
        permit: The call.
        output_tokens: What came of its answer.
        reported: What was reported of its input; its output counts are not looked at.

    Raises:
        BoundUnknown: Nothing was, and the input cannot be bounded.
    """
    if reported is not None:
        usage = replace(
            reported, output_tokens=output_tokens, reasoning_tokens=0, output_audio_tokens=0, output_image_tokens=0
        )
        return cost_pusd(card, usage), usage
    input_tokens = permit.input_tokens
    if input_tokens is None:
        input_tokens = bounds.input_tokens_bound(
            permit.call.prompt, provider=card.provider, model=card.model, context_tokens_max=card.context_tokens_max
        )
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    amount = bounds.call_bound_pusd(
        card,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_write=permit.call.cache_write,
    )
    return amount, usage
