"""The price book: whose price applies to a model, layer by layer, and a refusal where nobody wrote one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NoReturn

from runrails.errors import ConfigError, PriceUnknown
from runrails.pricing.cards import PriceCard
from runrails.pricing.names import (
    LOCAL_RUNTIMES,
    ModelName,
    NameRefused,
    bedrock_key,
    bedrock_name,
    has_geography,
    looks_like_bedrock,
    parse_name,
)
from runrails.pricing.snapshot import CardSchedule, Snapshot, SnapshotDamaged, Window, read_snapshot
from runrails.pricing.spec import PriceSpec, card_from_spec, check_spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runrails.pricing.project import ProjectPrices

__all__ = ["PriceBook", "shipped_snapshot"]

_CACHE_MAX = 2_048
_ALIAS_STEPS_MAX = 4
_AUDIO_MODEL = r"(^|[-/])(audio|realtime)(-|$)"
_shipped: list[Snapshot] = []


def shipped_snapshot() -> Snapshot:
    """
    The data that came with the package, read once a process.

    Raises:
        ConfigError: The installation is damaged.
    """
    if not _shipped:
        try:
            _shipped.append(read_snapshot())
        except SnapshotDamaged as exc:
            raise ConfigError(
                f"The price data that ships with runrails is damaged: {exc}.",
                next_step="Reinstall runrails, or run `runrails prices refresh` with genai-prices installed.",
            ) from exc
    return _shipped[0]


class _Layer:
    """Written prices, found by the name as written or by provider and model."""

    def __init__(self, source: Literal["run", "project"], prices: Mapping[str, PriceSpec]) -> None:
        self.source: Literal["run", "project"] = source
        self.written = _checked(prices)
        self._by_model: dict[str, dict[str | None, PriceSpec]] | None = None

    def find(self, name: ModelName, snapshot: Snapshot) -> PriceSpec | None:
        if not self.written:
            return None
        if self._by_model is None:
            self._by_model = self._index(snapshot)
        found = self._by_model.get(name.model, {})
        if name.provider in found:
            return found[name.provider]
        if name.provider is not None or not found:
            return found.get(None)
        # The caller did not say whose model it is; one entry under that name is clear enough, two are not. Nor is one
        # where everybody would take the name for another provider's: what is free at home may not be free there.
        usual = snapshot.guess_provider(name.model)
        if usual is None and len(found) == 1:
            return next(iter(found.values()))
        if usual is None or usual in found:
            return found.get(usual)
        raise NameRefused(
            f"there is a price for it at {' and at '.join(sorted(map(str, found)))}, but the name alone is one of "
            f"{usual}'s. Say the provider with the name, or write the price under the bare name."
        )

    def _index(self, snapshot: Snapshot) -> dict[str, dict[str | None, PriceSpec]]:
        index: dict[str, dict[str | None, PriceSpec]] = {}
        for written, spec in self.written.items():
            try:
                name = parse_name(written, None, snapshot.provider_of)
            except NameRefused:
                name = ModelName(None, written)
            index.setdefault(name.model, {})[name.provider] = spec
        return index


class PriceBook:
    """
    Finds the price card of a model: first the run's own prices, then the project's, then the shipped snapshot.

    Args:
        overrides: Prices of this run or guard, by `model` or `provider:model`.
        project: What the project file says.
        snapshot: The data to fall back on; the shipped one unless given, read when it is first needed.

    Raises:
        TypeError: An override is neither a `Price` nor text.
        ValueError: An override is a text other than "0".
    """

    def __init__(
        self,
        *,
        overrides: Mapping[str, PriceSpec] | None = None,
        project: ProjectPrices | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._project = project
        aliases: Mapping[str, str] = project.aliases if project else {}
        self._aliases = {name.strip().lower(): to for name, to in aliases.items()}
        self._layers: tuple[_Layer, ...] = (
            _Layer("run", overrides or {}),
            _Layer("project", project.prices if project else {}),
        )
        self._given = snapshot
        self._schedules: dict[tuple[str, str | None], CardSchedule | PriceCard] = {}

    @classmethod
    def load(
        cls, overrides: Mapping[str, PriceSpec] | None = None, project_file: str | Path | None = None
    ) -> PriceBook:
        """
        A book with these overrides over a project file over the shipped snapshot.

        Raises:
            ConfigError: The project file or an override is malformed.
        """
        from runrails.pricing.project import read_project

        project = None if project_file is None else read_project(project_file)
        try:
            return cls(overrides=overrides, project=project)
        except (TypeError, ValueError) as exc:
            raise ConfigError(
                f"A price is malformed: {exc}",
                next_step='Write prices={"provider:model": Price(input="2.50", output="10.00")}, or "0" if it is free.',
            ) from exc

    def with_overrides(self, overrides: Mapping[str, PriceSpec]) -> PriceBook:
        """The same book with these prices over everything; its own overrides stay below them."""
        book = PriceBook(project=self._project, snapshot=self._given)
        book._layers = (_Layer("run", overrides), *self._layers)
        return book

    def card(self, model: str, *, provider: str | None = None, now_ms: int) -> PriceCard:
        """
        The price card of a model at a moment.

        Args:
            model: Its name, with or without the provider: `gpt-4o`, `openai:gpt-4o`, `openai/gpt-4o`, a Bedrock ARN.
            provider: Whose model it is, if known: `openai`, `azure`, `bedrock`, …
            now_ms: Prices change on dates, and some with the time of day.

        Raises:
            PriceUnknown: No layer has a price, or the name does not decide it.
        """
        key = (model, provider)
        found = self._schedules.get(key)
        if found is None:
            found = self._find(model, provider)
            if len(self._schedules) >= _CACHE_MAX:
                self._schedules.clear()
            self._schedules[key] = found
        if isinstance(found, PriceCard):
            return found
        card = found.at(now_ms)
        if card is None:
            _refuse(model, found.provider, _why_unpriced(found))
        return card

    def _find(self, model: str, provider: str | None) -> CardSchedule | PriceCard:
        model, provider = self._unalias(model, provider)
        snapshot = self._snapshot()
        try:
            name = parse_name(model, provider, snapshot.provider_of)
        except NameRefused as exc:
            raw = model.strip().lower()
            candidates = (raw,) if provider is None else (f"{provider.strip().lower()}:{raw}", raw)
            cards = (self._written(ModelName(None, candidate), snapshot) for candidate in candidates)
            return next((card for card in cards if card is not None), None) or _refuse(model, provider, str(exc))
        try:
            return self._written(name, snapshot) or _shipped_price(name, snapshot)
        except NameRefused as exc:
            return _refuse(model, name.provider, str(exc))

    def _unalias(self, model: str, provider: str | None) -> tuple[str, str | None]:
        for _ in range(_ALIAS_STEPS_MAX):
            raw = model.strip().lower()
            target = self._aliases.get(f"{provider}:{raw}".lower()) if provider else None
            target = target or self._aliases.get(raw)
            if target is None:
                return model, provider
            model, provider = target, None
        return _refuse(model, provider, "its aliases go round in a circle.")

    def _written(self, name: ModelName, snapshot: Snapshot) -> PriceCard | None:
        for layer in self._layers:
            spec = layer.find(name, snapshot)
            if spec is not None:
                return card_from_spec(
                    spec,
                    provider=name.provider or "",
                    model=name.model,
                    source=layer.source,
                    known=_known_limits(name, snapshot),
                )
        return None

    def _snapshot(self) -> Snapshot:
        return self._given if self._given is not None else shipped_snapshot()


def _checked(prices: Mapping[str, PriceSpec]) -> dict[str, PriceSpec]:
    written: dict[str, PriceSpec] = {}
    for name, spec in prices.items():
        key = name.strip().lower()
        if not key:
            raise ValueError("a price has no model's name before it.")
        if key in written:
            raise ValueError(f"there are two prices for {key!r}; names differ by more than case and blanks.")
        written[key] = check_spec(spec, where=repr(name))
    return written


def _shipped_price(name: ModelName, snapshot: Snapshot) -> CardSchedule:
    model, provider = name.model, name.provider
    if provider is None:
        provider = "aws" if looks_like_bedrock(model) else snapshot.guess_provider(model)
    if provider is None:
        raise NameRefused("the name does not tell whose model it is, and no price of that name is written down.")
    if provider in LOCAL_RUNTIMES:
        raise NameRefused("it runs on a machine of yours, and what that costs only you know.")
    checked = model
    if provider == "aws":
        model = bedrock_name(model, regional=snapshot.regional)
        checked = bedrock_key(model)
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
    if provider == "aws" and not has_geography(model) and _dearer_than_global(schedule, snapshot):
        raise NameRefused("it has one price in a region and another as a global profile; use the id of the profile.")
    dispute = snapshot.dispute(provider, checked)
    if dispute is None:
        return schedule
    # The last window that applies wins, so from that day on there is no price.
    windows = (*schedule.windows, Window(None, first_ms=dispute.since_ms))
    return schedule._replace(windows=windows, why=f"published sources disagree about it: {dispute.why}.")


def _prices_audio(schedule: CardSchedule) -> bool:
    cards = [window.card for window in schedule.windows if window.card is not None]
    return any(card.rates.input_audio != card.rates.input for card in cards)


def _dearer_than_global(schedule: CardSchedule, snapshot: Snapshot) -> bool:
    bare = schedule.model.removeprefix("regional.")
    if bare == schedule.model:
        return False
    other = snapshot.schedule("aws", f"global.{bare}")
    return other is not None and _rates(other) != _rates(schedule)


def _rates(schedule: CardSchedule) -> list[tuple[object, ...]]:
    return [(card.rates[:6], card.tiers) for card in (window.card for window in schedule.windows) if card is not None]


def _known_limits(name: ModelName, snapshot: Snapshot) -> PriceCard | None:
    provider = name.provider or snapshot.guess_provider(name.model)
    if provider is None or provider not in snapshot.provider_ids():
        return None
    schedule = snapshot.find(provider, name.model)
    return None if schedule is None else schedule.windows[-1].card


def _why_unpriced(schedule: CardSchedule) -> str:
    return schedule.why or "the price data has no price for it, and nothing is free unless somebody writes it down."


def _refuse(model: str, provider: str | None, why: str) -> NoReturn:
    shown = model if len(model) <= 120 else model[:120] + "…"
    shown = shown if shown.isprintable() else repr(shown)
    key = shown if provider is None or ":" in shown.split("/")[0] else f"{provider}:{shown}"
    raise PriceUnknown(
        f"The price of model {shown!r}{f' of provider {provider!r}' if provider else ''} is unknown: {why}",
        next_step="Write it down, in dollars per million tokens: in code "
        f'Guard(prices={{"{key}": Price(input="2.50", output="10.00")}}), or in runrails.toml '
        f'[prices."{key}"] input = "2.50", output = "10.00". A price per call is call = "0.05"; a model that costs '
        f'nothing is "{key}" = "0" under [prices].',
        model=shown,
        provider=provider,
        reason=why,
    )
