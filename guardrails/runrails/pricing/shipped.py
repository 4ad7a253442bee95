"""
What the data that came with the package says of a model: our pinned patches first, then the snapshot.

A name whose price the data does not decide is refused with the reason; what looks like a model's price and is
another's (a deployment, a fine-tune, a voice, a geography) is worse than none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runrails.errors import ConfigError
from runrails.pricing.cards import PriceCard, Rates, UseRates, make_card
from runrails.pricing.names import (
    LOCAL_RUNTIMES,
    ModelName,
    NameRefused,
    bedrock_key,
    bedrock_place,
    has_geography,
    in_commercial_region,
    in_plain_region,
    looks_like_bedrock,
    needs_confirmation,
)
from runrails.pricing.patches import Patches, read_patches
from runrails.pricing.snapshot import CardSchedule, Snapshot, SnapshotDamaged, Window, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Shipped", "shipped"]

_AUDIO_MODEL = r"(^|[-/])(audio|realtime)(-|$)"
_read: list[Shipped] = []


def shipped() -> Shipped:
    """
    The data that came with the package, read once a process.

    Raises:
        ConfigError: The installation is damaged.
    """
    if not _read:
        try:
            _read.append(Shipped(read_snapshot(), read_patches()))
        except SnapshotDamaged as exc:
            raise ConfigError(
                f"The price data that ships with runrails is damaged: {exc}.",
                next_step="Reinstall runrails, or run `runrails prices refresh` with genai-prices installed.",
            ) from exc
    return _read[0]


class Shipped:
    """The snapshot with the patches over it."""

    def __init__(self, snapshot: Snapshot, patches: Patches | None = None) -> None:
        self.snapshot = snapshot
        self._patches = patches
        self._dearest: dict[str | None, PriceCard] = {}

    def provider_of(self, name: ModelName) -> str | None:
        """Whose model it is: as the name or the caller says, else by how it looks."""
        if name.provider is not None:
            return name.provider
        return "aws" if looks_like_bedrock(name.model) else self.snapshot.guess_provider(name.model)

    def find(self, name: ModelName, region: str | None, *, patched: bool = True) -> CardSchedule:
        """
        The prices of a model over time.

        Args:
            name: The model.
            region: The cloud region it is called in, if known.
            patched: False asks the snapshot alone, to see what a patch has changed.

        Raises:
            NameRefused: The data does not decide it.
        """
        provider = self.provider_of(name)
        if provider is None:
            raise NameRefused("the name does not tell whose model it is, and no price of that name is written down.")
        if provider in LOCAL_RUNTIMES:
            raise NameRefused("it runs on a machine of yours, and what that costs only you know.")
        patches = self._patches if patched else None
        if provider != "aws":
            found = self._snapshot_price(provider, name.model, checked=name.model)
            return found if patches is None else patches.with_tiers(provider, found)
        return self._on_bedrock(name.model, region, patches)

    def limits(self, name: ModelName) -> PriceCard | None:
        """A card of the model to ask for its token limits, whatever it costs where it is called."""
        provider = self.provider_of(name)
        if provider is None or provider not in self.snapshot.provider_ids():
            return None
        schedule = self.snapshot.find(provider, name.model)
        return None if schedule is None else schedule.windows[-1].card

    def dearest(self, provider: str | None) -> PriceCard:
        """
        A card that no card of the provider exceeds in any rate, at any time and in any tier.

        None, or a provider of which the data has no price for a token: of all there are.
        """
        known = provider if provider in self.snapshot.provider_ids() else None
        card = self._dearest.get(known)
        if card is None:
            card = _envelope(self._all_cards(known), known) or self.dearest(None)
            self._dearest[known] = card
        return card

    def _on_bedrock(self, model: str, region: str | None, patches: Patches | None) -> CardSchedule:
        place = bedrock_place(model, region)
        key = bedrock_key(place.name)
        limits = self.limits(ModelName("aws", place.name)) or self.limits(
            ModelName("aws", place.name.partition(".")[2])
        )

        def pinned(name: str) -> CardSchedule | None:
            return None if patches is None else patches.find("aws", name, limits)

        found = self._bedrock_patch(place.name, place.region, pinned)
        if found is not None:
            return found
        if needs_confirmation(place.name) and not self.snapshot.regional(key):
            where = place.name.partition(".")[0]
            raise NameRefused(f"Bedrock's price for the geography {where!r} is not confirmed by two sources.")
        found = self._snapshot_price("aws", place.name, checked=key)
        if not has_geography(place.name) and self._dearer_than_global(found):
            raise NameRefused(
                "it has one price in a region and another as a global profile; use the id of the profile."
            )
        return found if patches is None else patches.with_tiers("aws", found)

    def _bedrock_patch(
        self, name: str, region: str | None, pinned: Callable[[str], CardSchedule | None]
    ) -> CardSchedule | None:
        key = bedrock_key(name)
        if has_geography(name) or region is None:
            return pinned(key)
        here = pinned(f"{region}/{key}")
        if here is not None:
            return here
        anywhere = pinned(key)
        if not (in_plain_region(region) or (anywhere is not None and in_commercial_region(region))):
            raise NameRefused(f"Bedrock's price in the region {region[:32]!r} is not in the data.")
        return anywhere

    def _snapshot_price(self, provider: str, model: str, *, checked: str) -> CardSchedule:
        snapshot = self.snapshot
        if provider not in snapshot.provider_ids():
            raise NameRefused("no price is known for anything of this provider.")
        if provider == "azure" and "/" in model:
            raise NameRefused("the price of an Azure data zone is not in the data.")
        schedule = snapshot.find(provider, model)
        if schedule is None:
            raise NameRefused(f"the price data has no such model of {provider}.")
        if provider == "azure" and not snapshot.named_in_full(schedule, model):
            raise NameRefused("it looks like a deployment's name, and those do not tell which model is behind them.")
        if re.search(_AUDIO_MODEL, model) and not _prices_audio(schedule):
            raise NameRefused("its price for audio, many times that of text, is not in the data.")
        if model.startswith("ft:") and not schedule.model.startswith("ft:"):
            raise NameRefused("a fine-tuned model has a price of its own, and only that of its base model is known.")
        dispute = snapshot.dispute(provider, checked)
        if dispute is None:
            return schedule
        # The last window that applies wins, so from that day on there is no price.
        windows = (*schedule.windows, Window(None, first_ms=dispute.since_ms))
        return schedule._replace(windows=windows, why=f"published sources disagree about it: {dispute.why}.")

    def _dearer_than_global(self, schedule: CardSchedule) -> bool:
        bare = schedule.model.removeprefix("regional.")
        if bare == schedule.model:
            return False
        other = self.snapshot.schedule("aws", f"global.{bare}")
        return other is not None and _rates(other) != _rates(schedule)

    def _all_cards(self, provider: str | None) -> Iterator[PriceCard]:
        providers = self.snapshot.provider_ids() if provider is None else (provider,)
        for owner in providers:
            for model in self.snapshot.model_ids(owner):
                schedule = self.snapshot.schedule(owner, model)
                for window in () if schedule is None else schedule.windows:
                    if window.card is not None:
                        yield window.card
                        yield from window.card.service_tiers
        if provider in (None, "aws") and self._patches is not None:
            for name in self._patches.names("aws"):
                pinned = self._patches.find("aws", name, None)
                if pinned is not None and pinned.windows[0].card is not None:
                    yield pinned.windows[0].card
                    yield from pinned.windows[0].card.service_tiers


def _prices_audio(schedule: CardSchedule) -> bool:
    cards = [window.card for window in schedule.windows if window.card is not None]
    return any(card.rates.input_audio != card.rates.input for card in cards)


def _rates(schedule: CardSchedule) -> list[tuple[object, ...]]:
    return [(card.rates[:6], card.tiers) for card in (window.card for window in schedule.windows) if card is not None]


def _envelope(cards: Iterable[PriceCard], provider: str | None) -> PriceCard | None:
    """The largest of every rate, rounded up to whole picodollars; None if there is no card."""
    most = [0] * len(Rates._fields)
    call, uses = 0, [0] * len(UseRates._fields)
    for card in cards:
        for table in (card.rates, *(tier.rates for tier in card.tiers)):
            most = [max(known, -(-rate // card.denominator)) for known, rate in zip(most, table, strict=True)]
        call = max(call, card.call_pusd)
        uses = [max(known, rate or 0) for known, rate in zip(uses, card.uses, strict=True)]
    if not any(most):
        return None
    rates = Rates(*most)
    cached = {"cache_write": rates.cache_write_5m, "cache_write_1h": rates.cache_write_1h}
    named = {name: rate for name, rate in rates._asdict().items() if not name.startswith("cache_write")} | cached
    return make_card(
        provider=provider or "",
        model="",
        source="assumed",
        base={name: (rate, 1) for name, rate in named.items()},
        call_pusd=call,
        uses=UseRates(*uses),
        note=f"the dearest of every rate of {provider or 'all providers'} in the data",
    )
