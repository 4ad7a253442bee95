"""What a finished call is charged: a function of its price card, its bound and what was reported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, assert_never

from runrails import bounds
from runrails.pricing.cards import PriceCard, cost_pusd
from runrails.usage import Usage

if TYPE_CHECKING:
    from runrails.calls import ModelResult, Permit

__all__ = ["Settlement", "settle"]


class Settlement(NamedTuple):
    """The charge for one call."""

    actual_pusd: int
    unresolved: bool
    """The amount is a stand-in; a later settle may correct it exactly."""
    usage: Usage | None
    """What was reported, or what the stand-in was computed from."""


def settle(card: PriceCard, permit: Permit, result: ModelResult) -> Settlement:
    """
    The charge for a call that ended.

    Reported usage is charged exactly. Missing usage is charged at the hold, never at 0. A cut stream is charged for
    its input and what had arrived; if hidden reasoning may have been written, for the whole hold. An unknown outcome
    (a timeout after sending) is charged at the hold. A definite failure and a cache hit cost nothing. Earlier attempts
    whose outcome is unknown come on top, each at the most it can have cost.
    """
    settlement = _last_attempt(card, permit, result)
    if not result.unknown_attempts:
        return settlement
    lost = permit.attempt_pusd * result.unknown_attempts
    return settlement._replace(actual_pusd=settlement.actual_pusd + lost, unresolved=True)


def _last_attempt(card: PriceCard, permit: Permit, result: ModelResult) -> Settlement:
    if result.end == "cached" or result.end == "failed":
        return Settlement(0, unresolved=False, usage=result.usage)
    if result.usage is not None:
        return Settlement(cost_pusd(card, result.usage), unresolved=False, usage=result.usage)
    if result.end == "completed" or result.end == "unknown":
        return Settlement(permit.attempt_pusd, unresolved=True, usage=None)
    if result.end == "cut":
        return _cut(card, permit, result)
    assert_never(result.end)


def _cut(card: PriceCard, permit: Permit, result: ModelResult) -> Settlement:
    if result.reasoning:
        return Settlement(permit.attempt_pusd, unresolved=True, usage=None)
    output_tokens = bounds.text_tokens_bound(result.output_text)
    if result.input_usage is not None:
        usage = replace(result.input_usage, output_tokens=output_tokens, reasoning_tokens=0, output_audio_tokens=0)
        return Settlement(min(cost_pusd(card, usage), permit.attempt_pusd), unresolved=True, usage=usage)
    usage = Usage(
        input_tokens=bounds.input_tokens_bound(
            permit.call.prompt, provider=card.provider, model=card.model, context_tokens_max=card.context_tokens_max
        ),
        output_tokens=output_tokens,
    )
    amount = bounds.call_bound_pusd(
        card,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_write=permit.call.cache_write,
    )
    return Settlement(min(amount, permit.attempt_pusd), unresolved=True, usage=usage)
