"""The price book: whose price applies to a model, layer by layer, and a refusal where nobody wrote one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, TypeAlias

from runrails.errors import ConfigError, PriceUnknown
from runrails.pricing.cards import PriceCard, tier_unknown
from runrails.pricing.contract import Contract, ContractSchedule, Term
from runrails.pricing.names import ModelName, NameRefused, is_usable, parse_name
from runrails.pricing.shipped import Shipped, shipped
from runrails.pricing.snapshot import CardSchedule
from runrails.pricing.spec import PriceSpec, card_from_spec, check_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from runrails.pricing.project import ProjectPrices
    from runrails.pricing.snapshot import Snapshot

__all__ = ["LayerSays", "PriceBook", "shipped_snapshot"]

Assume: TypeAlias = Literal["dearest"]
_Found: TypeAlias = "CardSchedule | ContractSchedule | PriceCard"
_Key: TypeAlias = "tuple[str, str | None, str | None]"

_CACHE_MAX = 2_048
_ALIAS_STEPS_MAX = 4


def shipped_snapshot() -> Snapshot:
    """
    The data that came with the package, read once a process.

    Raises:
        ConfigError: The installation is damaged.
    """
    return shipped().snapshot


class _Asked(NamedTuple):
    """A model as it was asked for."""

    names: tuple[ModelName, ...]
    """What written prices may know it by, the closest first."""
    refusal: str | None = None
    """Why the name was not understood; then only what is written under this very name is its price."""


class LayerSays(NamedTuple):
    """What one layer says of a model; the first with a card wins."""

    layer: str
    card: PriceCard | None
    why: str
    """Why it has none."""


class _Layer:
    """Written prices, found by the name as written or by provider and model."""

    def __init__(self, source: Literal["run", "project"], prices: Mapping[str, PriceSpec]) -> None:
        self.source: Literal["run", "project"] = source
        self.written = _checked(prices)
        self._by_model: dict[str, dict[str | None, PriceSpec]] | None = None

    def card(self, name: ModelName, data: Shipped) -> PriceCard | None:
        """The price written for this model, if there is one. Raises NameRefused if it could be either of two."""
        spec = self.find(name, data.snapshot)
        if spec is None:
            return None
        return card_from_spec(
            spec, provider=name.provider or "", model=name.model, source=self.source, known=data.limits(name)
        )

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
    Finds the price card of a model. Layers, the first that has a price wins: the run's own prices, the contract with
    the provider, the project file, our pinned patches, the shipped snapshot. Where none has one the call is refused,
    unless `assume` says otherwise.

    Args:
        overrides: Prices of this run or guard, by `model` or `provider:model`.
        project: What the project file says.
        snapshot: The data to fall back on, without patches; the shipped data unless given, read when first needed.
        contract: What was agreed with providers; before what the project file says of contracts.
        assume: `dearest` prices a model that nobody has priced at the dearest of every rate of its provider (of all
            providers, if that is unknown), on a card whose source is `assumed`. Never done unasked.

    Raises:
        TypeError: An override is neither a `Price` nor text, a contract's part no `Term`.
        ValueError: An override is a text other than "0", or `assume` is no known word.
        ConfigError: A term of the contract names an alias, which is never asked for a price itself.
    """

    def __init__(
        self,
        *,
        overrides: Mapping[str, PriceSpec] | None = None,
        project: ProjectPrices | None = None,
        snapshot: Snapshot | None = None,
        contract: Iterable[Term] = (),
        assume: Assume | None = None,
    ) -> None:
        if assume not in (None, "dearest"):
            raise ValueError('assume must be "dearest" or None.')
        self._assume: Assume | None = assume
        aliases: Mapping[str, str] = project.aliases if project else {}
        self._aliases = {name.strip().lower(): to for name, to in aliases.items()}
        self._run: tuple[_Layer, ...] = (_Layer("run", overrides or {}),)
        terms = tuple(contract)
        self._contract = Contract(terms, project.contract if project else ())
        for term in (*terms, *(project.contract if project else ())):
            _refuse_alias(term, self._aliases)
        self.contracted = bool(self._contract)
        """Whether anything was agreed with providers, so that a price may have a list price beside it."""
        self._project = _Layer("project", project.prices if project else {})
        self._given = None if snapshot is None else Shipped(snapshot)
        self._schedules: dict[_Key, _Found] = {}

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, PriceSpec] | None = None,
        project_file: str | Path | None = None,
        *,
        contract: Iterable[Term] = (),
        assume: Assume | None = None,
    ) -> PriceBook:
        """
        A book with these overrides over a project file over the shipped snapshot.

        Raises:
            ConfigError: The project file, an override or a term of the contract is malformed.
        """
        from runrails.pricing.project import read_project

        project = None if project_file is None else read_project(project_file)
        try:
            return cls(overrides=overrides, project=project, contract=contract, assume=assume)
        except (TypeError, ValueError) as exc:
            raise ConfigError(
                f"A price is malformed: {exc}",
                next_step='Write prices={"provider:model": Price(input="2.50", output="10.00")}, or "0" if it is free; '
                'contract=[Term(provider="openai", percent="-10")]; assume="dearest" or nothing.',
            ) from exc

    def with_overrides(self, overrides: Mapping[str, PriceSpec]) -> PriceBook:
        """The same book with these prices over everything; its own overrides stay below them."""
        from copy import copy

        book = copy(self)
        book._lay_over(overrides)  # noqa: SLF001 -- a copy of our own
        return book

    def prepare(self) -> None:
        """Read now what is otherwise read at the first look-up. Raises ConfigError if the installation is damaged."""
        with suppress(PriceUnknown):
            self._find("no-model-has-this-name", None, None)

    def _lay_over(self, overrides: Mapping[str, PriceSpec]) -> None:
        self._run = (_Layer("run", overrides), *self._run)
        self._schedules = {}

    def card(
        self,
        model: str,
        *,
        provider: str | None = None,
        now_ms: int,
        region: str | None = None,
        tier: str | None = None,
    ) -> PriceCard:
        """
        The price card of a model at a moment.

        Args:
            model: Its name, with or without the provider: `gpt-4o`, `openai:gpt-4o`, `openai/gpt-4o`, a Bedrock ARN.
            provider: Whose model it is, if known: `openai`, `azure`, `bedrock`, …
            now_ms: Prices change on dates, and some with the time of day.
            region: The cloud region it is called in, if known: on Bedrock the price of an id without a geography
                depends on it.
            tier: The provider's service tier; the standard one unless given.

        Raises:
            PriceUnknown: No layer has a price, or the name does not decide it.
        """
        key = (model, provider, region)
        found = self._schedules.get(key)
        if found is None:
            found = self._remember(key)
        card = found if isinstance(found, PriceCard) else found.at(now_ms)
        if card is None:
            refusal = _refusal(model, found.provider or provider, _why_unpriced(found))
            card = self._assumed(model, provider, refusal)
        if tier is None:
            return card
        in_tier = card.tier(tier)
        if in_tier is None:
            raise tier_unknown(card, tier)
        return in_tier

    def list_card(
        self, agreed: PriceCard, model: str, *, provider: str | None = None, now_ms: int, region: str | None = None
    ) -> PriceCard | None:
        """What would apply in the place of a model's `agreed` card without the contract; None if nothing would."""
        key = (model, provider, region)
        found = self._schedules.get(key) or self._remember(key)
        if not isinstance(found, ContractSchedule) or found.at(now_ms) != agreed:
            return None
        below = found.below(now_ms)
        return None if below == agreed else below  # no term is valid on that day

    def names(self, provider: str | None = None) -> tuple[str, ...]:
        """
        Models that prices are written down for, as a list to choose from: the data knows more names for many of them.

        Args:
            provider: Only this provider's. None: those that are written under a bare name, in this book or its file.
        """
        data = self._data()
        found: dict[str, None] = {}
        for layer in (*self._run, self._project):
            for written in layer.written:
                owner, colon, model = written.partition(":")
                said = data.snapshot.provider_of(owner) if colon else None
                if said is None or said == provider:
                    found[written if said is None else model] = None
        if provider in data.snapshot.provider_ids():
            found |= dict.fromkeys(data.snapshot.model_ids(provider))
        return tuple(found)

    def explain(
        self, model: str, *, provider: str | None = None, now_ms: int, region: str | None = None
    ) -> tuple[LayerSays, ...]:
        """What every layer says of a model at a moment, in order; the first that has a card is the one that counts."""
        data = self._data()
        try:
            asked = self._asked(model, provider, data)
        except PriceUnknown as exc:
            return (LayerSays("names", None, str(exc.fields["reason"])),)
        run = _told("run", lambda: self._written(self._run, asked, data))
        found, why = self._below(asked, region, data)
        over = self._contract.over(asked.names[0], found, why, data)
        agreed = None if over is None else over.at(now_ms)
        if over is None or agreed is None or agreed == over.below(now_ms):
            contract = LayerSays("contract", None, "no term of it is about the model on that day.")
        else:
            contract = LayerSays("contract", agreed, "")
        project = _told("project", lambda: self._written((self._project,), asked, data))
        return (run, contract, project, *self._told_by_data(asked, region, now_ms, data))

    def _told_by_data(
        self, asked: _Asked, region: str | None, now_ms: int, data: Shipped
    ) -> tuple[LayerSays, LayerSays]:
        if asked.refusal is not None:
            return LayerSays("patch", None, asked.refusal), LayerSays("snapshot", None, asked.refusal)
        name = asked.names[0]
        patch = _told("patch", lambda: data.find(name, region).at(now_ms))
        plain = _told("snapshot", lambda: data.find(name, region, patched=False).at(now_ms))
        if patch.card is None or patch.card.source == "snapshot":
            patch = LayerSays("patch", None, "nothing is pinned for it.")
        return patch, plain

    def _remember(self, key: _Key) -> _Found:
        model, provider, region = key
        try:
            found = self._find(model, provider, region)
        except PriceUnknown as exc:
            found = self._assumed(model, provider, exc)
        if isinstance(found, CardSchedule) and len(found.windows) == 1:
            found = found.windows[0].card or found  # one price for all time
        if len(self._schedules) >= _CACHE_MAX:
            self._schedules.clear()
        self._schedules[key] = found
        return found

    def _find(self, model: str, provider: str | None, region: str | None) -> _Found:
        data = self._data()
        asked = self._asked(model, provider, data)
        name = asked.names[0]
        try:
            own = self._written(self._run, asked, data)
        except NameRefused as exc:
            return _refuse(model, name.provider or provider, str(exc))
        if own is not None:
            return own
        found, why = self._below(asked, region, data)
        priced = self._contract.over(name, found, why, data) or found
        return priced or _refuse(model, name.provider or provider, why or "nobody has written it down.")

    def _asked(self, model: str, provider: str | None, data: Shipped) -> _Asked:
        model, provider = self._unalias(model, provider)
        try:
            return _Asked((parse_name(model, provider, data.snapshot.provider_of),))
        except NameRefused as exc:
            raw = model.strip().lower()
            if not is_usable(raw):
                return _refuse(model, provider, str(exc))
            given = (raw,) if provider is None else (f"{provider.strip().lower()}:{raw}", raw)
            return _Asked(tuple(ModelName(None, name) for name in given), str(exc))

    def _below(
        self, asked: _Asked, region: str | None, data: Shipped
    ) -> tuple[CardSchedule | PriceCard | None, str | None]:
        """What the layers under the contract say, or why they refuse."""
        try:
            written = self._written((self._project,), asked, data)
            if written is not None or asked.refusal is not None:
                return written, asked.refusal
            return data.find(asked.names[0], region), None
        except NameRefused as exc:
            return None, str(exc)

    def _written(self, layers: Iterable[_Layer], asked: _Asked, data: Shipped) -> PriceCard | None:
        cards = (layer.card(name, data) for name in asked.names for layer in layers)
        return next((card for card in cards if card is not None), None)

    def _assumed(self, model: str, provider: str | None, refusal: PriceUnknown) -> PriceCard:
        """The dearest card there is in place of a refusal, if that was asked for."""
        if self._assume is None or not is_usable(model.strip().lower()):
            raise refusal
        data = self._data()
        try:
            name = self._asked(model, provider, data).names[0]
        except PriceUnknown:
            raise refusal from None  # its aliases go round in a circle
        # One card a provider, without the model's name: names come from outside, and the ledger keeps every card.
        return data.dearest(data.provider_of(name))

    def _unalias(self, model: str, provider: str | None) -> tuple[str, str | None]:
        for _ in range(_ALIAS_STEPS_MAX):
            raw = model.strip().lower()
            target = self._aliases.get(f"{provider}:{raw}".lower()) if provider else None
            target = target or self._aliases.get(raw)
            if target is None:
                return model, provider
            model, provider = target, None
        return _refuse(model, provider, "its aliases go round in a circle.")

    def _data(self) -> Shipped:
        return self._given if self._given is not None else shipped()


def _refuse_alias(term: Term, aliases: Mapping[str, str]) -> None:
    model = "" if term.model is None else term.model.strip().lower()
    owned = f"{term.provider.strip().lower()}:{model}" if term.provider else model
    target = aliases.get(owned) or aliases.get(model)
    if target is not None:
        raise ConfigError(
            f"A term of the contract is for {model[:60]!r}, which is an alias: it would never apply.",
            next_step=f"Write it for what that stands for: model = {target[:120]!r}.",
        )


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


def _told(layer: str, ask: Callable[[], PriceCard | None]) -> LayerSays:
    try:
        card = ask()
    except NameRefused as exc:
        return LayerSays(layer, None, str(exc))
    return LayerSays(layer, card, "" if card is not None else "it says nothing of the model.")


def _why_unpriced(schedule: _Found) -> str:
    why = None if isinstance(schedule, PriceCard) else schedule.why
    return why or "the price data has no price for it, and nothing is free unless somebody writes it down."


def _refuse(model: str, provider: str | None, why: str) -> NoReturn:
    raise _refusal(model, provider, why)


def _refusal(model: str, provider: str | None, why: str) -> PriceUnknown:
    shown = model if len(model) <= 120 else model[:120] + "…"
    shown = shown if shown.isprintable() else repr(shown)
    key = shown if not provider or ":" in shown.split("/")[0] else f"{provider}:{shown}"
    return PriceUnknown(
        f"The price of model {shown!r}{f' of provider {provider!r}' if provider else ''} is unknown: {why}",
        next_step="Write it down, in dollars per million tokens: in code "
        f'Guard(prices={{"{key}": Price(input="2.50", output="10.00")}}), or in runrails.toml '
        f'[prices."{key}"] input = "2.50", output = "10.00". A price per call is call = "0.05"; a model that costs '
        f'nothing is "{key}" = "0" under [prices].',
        model=shown,
        provider=provider,
        reason=why,
    )
