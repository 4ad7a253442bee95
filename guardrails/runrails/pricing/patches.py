"""
Prices that we pin over the snapshot, because it is silently wrong there or does not know them: `patches.json`.

Two kinds, each with a note of its source. Whole prices: of Bedrock's geographies and regions whose surcharge the
snapshot misses, by `us-gov.…`, `eu.…` or `sa-east-1/…`, and of ids without a geography. And service tiers that the
snapshot has no price of, kept together with the standard price they were published beside: where the snapshot has
another one by now, the tier is out of date and is not used.

The file is made by `runrails prices refresh --litellm FILE` and checked against its checksum when it is read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from runrails.pricing.cards import PriceCard, fingerprint_of, make_card
from runrails.pricing.snapshot import (
    CardSchedule,
    Prices,
    Variant,
    Window,
    make_snapshot_card,
    prices_table,
    read_checked,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PATCHES_FILE", "Patches", "read_patches"]

PATCHES_FILE = __file__.removesuffix("patches.py") + "patches.json"
SOURCE = "patch"

Entry: TypeAlias = "tuple[Prices, list[tuple[str, Prices]], str]"
"""Prices, service tiers, note."""
TierEntry: TypeAlias = "tuple[str, Prices, Prices, str]"
"""Service tier, the standard price it was published beside, its own prices, note."""


class Patches:
    """Looks up what is pinned. Compiled when it is first asked for."""

    def __init__(self, data: Mapping[str, object]) -> None:
        self.source = cast("dict[str, str]", data["source"])
        self._prices = cast("dict[str, dict[str, Entry]]", data["prices"])
        self._tiers = cast("dict[str, dict[str, list[TierEntry]]]", data["tiers"])

    def names(self, provider: str) -> tuple[str, ...]:
        """Every name of the provider that a whole price is pinned for."""
        return tuple(self._prices.get(provider, ()))

    def find(self, provider: str, name: str, limits: PriceCard | None) -> CardSchedule | None:
        """The price pinned for this very name, with the token limits of the model's card in the snapshot."""
        entry = self._prices.get(provider, {}).get(name)
        if entry is None:
            return None
        prices, tiers, note = entry
        card = make_snapshot_card(
            provider, name, prices,
            context_max=None if limits is None else limits.context_tokens_max,
            output_max=None if limits is None else limits.output_tokens_max,
            variants=[Variant(tier, None, own) for tier, own in tiers], source=SOURCE, note=note,
        )  # fmt: skip
        return CardSchedule(provider, name, (Window(card),))

    def with_tiers(self, provider: str, schedule: CardSchedule) -> CardSchedule:
        """The schedule with the service tiers that are pinned for its model at this provider, if there are any."""
        entries = self._tiers.get(provider, {}).get(schedule.model)
        if not entries:
            return schedule
        windows = [
            window if window.card is None else window._replace(card=_tiered(window.card, entries))
            for window in schedule.windows
        ]
        return schedule._replace(windows=tuple(windows))


def read_patches(file: str | Path = PATCHES_FILE) -> Patches:
    """
    Read the file.

    Raises:
        SnapshotDamaged: It is missing or does not match its checksum.
    """
    return Patches(read_checked(file))


class _Standard(NamedTuple):
    input: int
    output: int
    denominator: int


def _tiered(card: PriceCard, entries: list[TierEntry]) -> PriceCard:
    known = {each.service_tier for each in card.service_tiers}
    added: list[PriceCard] = []
    for tier, beside, prices, note in entries:
        standard = make_card(provider="", model="", source="", base=prices_table(beside))
        if tier in known or _standard(standard) != _standard(card):
            continue
        made = make_snapshot_card(
            card.provider, card.model, prices, context_max=card.context_tokens_max, output_max=card.output_tokens_max,
            variants=[], source=SOURCE, tier=tier, note=note,
        )  # fmt: skip
        if made is not None:
            with_uses = replace(made, uses=card.uses)
            added.append(replace(with_uses, fingerprint=fingerprint_of(with_uses.text())))
    return replace(card, service_tiers=(*card.service_tiers, *added)) if added else card


def _standard(card: PriceCard) -> _Standard:
    return _Standard(card.rates.input, card.rates.output, card.denominator)
