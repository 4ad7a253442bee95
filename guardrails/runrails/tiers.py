"""Service tiers, speeds and places: what makes a request dearer than its model's plain price, and how it was served."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runrails.calls import ServedTier

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["premium", "premium_tier", "served_tier"]


def premium(body: Mapping[str, object]) -> str | None:
    """What makes a request dearer than the model's plain price, by a factor that no price card has."""
    tier, speed, place = body.get("service_tier"), body.get("speed"), body.get("inference_geo")
    if tier is None and speed is None and place is None:
        return None
    if tier not in _PLAIN_TIERS:
        return "a premium service tier (priority or fast)"
    if speed not in _PLAIN_SPEEDS:
        return "a premium speed"
    return None if place in _PLAIN_PLACES else "a surcharged place of inference"


def premium_tier(body: Mapping[str, object]) -> str | None:
    """The dearer tier that a request to OpenAI names: its price, if there is one, is then held for."""
    tier = body.get("service_tier")
    return tier if isinstance(tier, str) and tier not in _PLAIN_TIERS else None


def served_tier(told: Mapping[str, object]) -> ServedTier | None:
    """
    How an answer was served, by what it says itself; None if the model's standard price applies.

    A request that names no tier gets its project's default, which may be a premium one.

    Args:
        told: The part of the answer that names tier, speed and place: OpenAI's answer itself, Anthropic's usage.
    """
    tier, speed, place = told.get("service_tier"), told.get("speed"), told.get("inference_geo")
    if tier is None and speed is None and place is None:
        return None
    if tier in _PLAIN_SERVED and speed in _PLAIN_SPEEDS and place in _PLAIN_PLACES:
        return None
    names: list[str] = []
    factor = 10_000
    for word, plain, most in (
        (tier, _PLAIN_SERVED, TIER_FACTOR_BP_MAX), (speed, _PLAIN_SPEEDS, SPEED_FACTOR_BP_MAX),
        (place, _PLAIN_PLACES, PLACE_FACTOR_BP_MAX),
    ):  # fmt: skip
        if word not in plain:
            names.append(word if isinstance(word, str) and _NAME.fullmatch(word) else "unknown")
            factor = factor * (10_000 if word in _NO_DEARER else most) // 10_000
    return ServedTier("-".join(names), factor)


TIER_FACTOR_BP_MAX = 30_000
"""OpenAI's priority and fast tiers cost 1.75 to 2.5 times the plain price."""
SPEED_FACTOR_BP_MAX = 60_000
"""Anthropic's fast mode costs 2 to 6 times the plain price."""
PLACE_FACTOR_BP_MAX = 11_000
"""Anthropic's inference in one country costs 1.1 times the plain price."""
_NAME = re.compile(r"[a-z0-9_]{1,32}")
_PLAIN_TIERS = (None, "auto", "default", "flex", "standard", "standard_only")
_PLAIN_SERVED = (None, "", "auto", "default", "standard", "standard_only", "on_demand")
"""Groq calls its plain tier `on_demand`."""
_NO_DEARER = ("flex", "batch", "scale")
"""Half the price, or prepaid; without a price of their own they are charged as the standard tier."""
_PLAIN_SPEEDS = (None, "standard")
_PLAIN_PLACES = (None, "", "global", "not_available")
