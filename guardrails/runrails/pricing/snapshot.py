"""
The price snapshot that ships with the package: generated data of genai-prices (MIT), checked against its checksum.

`snapshot.json` holds, one model a line, ``[id, match, prices, context_tokens_max, variants]`` by provider, the last one
only where there are some. A match is a clause:
``=x`` equals, ``^x`` starts with, ``$x`` ends with, ``*x`` contains, ``~x`` regular expression, or a list that begins
with ``or`` / ``and``. Prices are dollars per million tokens by name, a tiered one as ``[base, [above, price], …]``; or
a list of ``[when, prices]``, where the last that applies wins and `when` is null, a first day ``2026-08-21`` or a time
of day ``01:00-04:00``, both UTC. What is billed by the piece is in dollars each. Variants are service tiers, a list of
``[tier, when, prices]``: of those that apply the first that names a price wins, and what none names is as in the
standard tier. Before the first day of its variants a tier has no price.

`crosscheck.json` is what a second source (litellm's table, MIT) adds: the longest answer of a model, names whose price
the two sources state differently, and regional names whose price both state alike.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from runrails.pricing.cards import PriceCard, Ratio, UseRates, canonical_tier, make_card, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "CROSSCHECK_FILE",
    "SNAPSHOT_FILE",
    "CardSchedule",
    "Dispute",
    "Snapshot",
    "SnapshotDamaged",
    "Variant",
    "Window",
    "day_ms",
    "make_snapshot_card",
    "matches",
    "matches_whole",
    "prices_table",
    "read_checked",
    "read_snapshot",
]

_HERE = __file__.removesuffix("snapshot.py")  # text: pathlib takes as long to load as this whole package
SNAPSHOT_FILE = _HERE + "snapshot.json"
CROSSCHECK_FILE = _HERE + "crosscheck.json"

RATE_KEYS = frozenset(
    {
        "input",
        "output",
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "input_audio",
        "cache_read_audio",
        "reasoning",
        "output_audio",
        "input_image",
        "cache_read_image",
        "output_image",
    }
)
"""What a `Usage` counts, and so what can be priced. Any other unit in a model's prices makes the model unpriceable."""
CALL_KEY = "call"
_PIECE_KEYS = frozenset({CALL_KEY, *UseRates._fields})

_DAY_MS = 86_400_000
_MINUTE_MS = 60_000
_MTOK = 1_000_000
_PUSD_PER_USD = 10**12
_COMPACT_DATE = r"-(20[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(?=-|:|$)"

Clause: TypeAlias = "str | list[Clause]"
Rate: TypeAlias = "str | list[str | list[int | str]]"
Prices: TypeAlias = dict[str, Rate]
Row: TypeAlias = "tuple[str, Clause, object, int | None] | tuple[str, Clause, object, int | None, list[Variant]]"
"""A model: id, match, prices, context, and its service tiers if it has any."""


class Variant(NamedTuple):
    """What is other in a service tier."""

    tier: str
    when: str | None
    prices: Prices


class SnapshotDamaged(Exception):
    """The data files do not match their checksum."""


class Window(NamedTuple):
    """When a card applies: from a day on, at a time of day, or always."""

    card: PriceCard | None
    """None: the model costs nothing we can price in this window."""
    first_ms: int = 0
    day_from_ms: int = 0
    day_to_ms: int = 0
    """Equal to `day_from_ms` if the time of day does not matter."""

    def applies(self, now_ms: int) -> bool:
        """Whether the window is open at this moment."""
        if now_ms < self.first_ms:
            return False
        if self.day_from_ms == self.day_to_ms:
            return True
        moment = now_ms % _DAY_MS
        if self.day_from_ms < self.day_to_ms:
            return self.day_from_ms <= moment < self.day_to_ms
        return moment >= self.day_from_ms or moment < self.day_to_ms


class CardSchedule(NamedTuple):
    """The cards of one model over time; the last window that applies wins, else the first."""

    provider: str
    model: str
    windows: tuple[Window, ...]
    why: str | None = None
    """Why there is no price at a moment where there is none."""

    def at(self, now_ms: int) -> PriceCard | None:
        """The card that applies at this moment; None if there is no price."""
        for window in reversed(self.windows):
            if window.applies(now_ms):
                return window.card
        return self.windows[0].card


class Dispute(NamedTuple):
    """A name whose price published sources state differently."""

    why: str
    since_ms: int


class _Provider(NamedTuple):
    id: str
    model_match: Clause | None
    provider_match: Clause | None
    fallback: tuple[str, ...]
    models: list[Row]


class Snapshot:
    """Resolves names against the shipped data. Reading is done once, a model is compiled when it is first asked for."""

    def __init__(self, data: Mapping[str, object], crosscheck: Mapping[str, object]) -> None:
        self.source = cast("dict[str, str]", data["source"])
        rows = cast("list[dict[str, object]]", data["providers"])
        self._providers = {provider.id: provider for provider in map(_provider, rows)}
        self._output_max = cast("dict[str, dict[str, int]]", crosscheck["output_tokens_max"])
        self._context = cast("dict[str, dict[str, int]]", crosscheck["context_tokens_max"])
        self._regional = frozenset(cast("list[str]", crosscheck["regional"]))
        self._disputed = cast("dict[str, dict[str, list[str]]]", crosscheck["disputed"])
        self._schedules: dict[tuple[str, str], CardSchedule] = {}

    @property
    def version(self) -> str:
        """Version of genai-prices that the data was taken from."""
        return self.source["version"]

    def provider_ids(self) -> tuple[str, ...]:
        """Every provider in the data."""
        return tuple(self._providers)

    def model_ids(self, provider: str) -> list[str]:
        """Every model id of the provider."""
        return [model[0] for model in self._providers[provider].models]

    def provider_of(self, name: str) -> str | None:
        """The provider that goes by this name, or None."""
        key = name.strip().lower()
        if key in self._providers:
            return key
        for provider in self._providers.values():
            if provider.provider_match is not None and matches(provider.provider_match, key):
                return provider.id
        return None

    def guess_provider(self, model: str) -> str | None:
        """The provider whose models have names like this, or None."""
        for provider in self._providers.values():
            if provider.model_match is not None and matches(provider.model_match, model):
                return provider.id
        return None

    def find(self, provider: str, model: str) -> CardSchedule | None:
        """The model of that name, lower case, at a provider in the data; None if there is none."""
        found = self._find(provider, model)
        if found is None:
            dashed = re.sub(_COMPACT_DATE, r"-\1-\2-\3", model)
            found = self._find(provider, dashed) if dashed != model else None
        return found

    def named_in_full(self, schedule: CardSchedule, model: str) -> bool:
        """Whether the data knows this very name of the model, or its id with a date or version behind it."""
        version = r"(-(20[0-9]{2}-?[0-9]{2}-?[0-9]{2}|[0-9]{3,4}|latest|preview))*"
        if re.fullmatch(re.escape(schedule.model) + version, model):
            return True
        rows = self._providers[schedule.provider].models
        return any(row[0] == schedule.model and matches_whole(row[1], model) for row in rows)

    def dispute(self, provider: str, model: str) -> Dispute | None:
        """What the sources say of this very name, if they disagree."""
        found = self._disputed.get(provider, {}).get(model)
        return None if found is None else Dispute(found[0], day_ms(found[1]) if found[1] else 0)

    def regional(self, model: str) -> bool:
        """Whether both sources state the same price for this regional Bedrock name."""
        return model in self._regional

    def raw_prices(self, provider: str, model_id: str) -> object:
        """The model's prices as the data has them; None if there is no such model."""
        return next((row[2] for row in self._providers[provider].models if row[0] == model_id), None)

    def schedule(self, provider: str, model_id: str) -> CardSchedule | None:
        """The model with this id, compiled."""
        row = next((row for row in self._providers[provider].models if row[0] == model_id), None)
        return None if row is None else self._compiled(provider, row)

    def _find(self, provider: str, model: str) -> CardSchedule | None:
        own = self._providers[provider]
        for place in (own, *(self._providers[other] for other in own.fallback if other in self._providers)):
            for row in place.models:
                if matches(row[1], model):
                    found = self._compiled(place.id, row)
                    # What another provider asks for its service tiers says nothing of this one's.
                    return found if place is own else _without_tiers(found)
        return None

    def _compiled(self, provider: str, row: Row) -> CardSchedule:
        key = (provider, row[0])
        known = self._schedules.get(key)
        if known is None:
            contexts = [limit for limit in (row[3], self._context.get(provider, {}).get(row[0])) if limit]
            known = _schedule(
                provider,
                row[0],
                row[2],
                max(contexts, default=None),
                self._output_max.get(provider, {}).get(row[0]),
                [Variant(*variant) for variant in row[4]] if len(row) > 4 else [],
            )
            self._schedules[key] = known
        return known


def read_snapshot(snapshot: str | Path = SNAPSHOT_FILE, crosscheck: str | Path = CROSSCHECK_FILE) -> Snapshot:
    """
    Read the shipped data.

    Raises:
        SnapshotDamaged: A file is missing or does not match its checksum.
    """
    return Snapshot(read_checked(snapshot), read_checked(crosscheck))


def matches(clause: Clause, text: str) -> bool:
    """Whether the lower-case text fulfils the clause."""
    if isinstance(clause, str):
        kind, body = clause[0], clause[1:]
        match kind:
            case "=":
                return text == body
            case "^":
                return text.startswith(body)
            case "$":
                return text.endswith(body)
            case "*":
                return body in text
            case _:
                return re.search(body, text) is not None
    parts = (matches(part, text) for part in clause[1:])
    return any(parts) if clause[0] == "or" else all(parts)


def matches_whole(clause: Clause, text: str) -> bool:
    """Whether the clause names this very text (or a pattern of it), and not only a part of it."""
    if isinstance(clause, str):
        return matches(clause, text) and (clause[0] == "~" or clause[1:] == text)
    return any(matches_whole(part, text) for part in clause[1:])


def read_checked(file: str | Path) -> Mapping[str, object]:
    """
    A data file that matches the checksum beside it.

    Raises:
        SnapshotDamaged: It does not, or one of the two is missing.
    """
    import hashlib
    import json
    from pathlib import Path

    path = Path(file)
    try:
        content = path.read_bytes()
        expected = path.with_suffix(".sha256").read_text(encoding="ascii").split()[0]
    except (OSError, IndexError, ValueError) as exc:
        raise SnapshotDamaged(f"{path.name} or its checksum cannot be read") from exc
    if hashlib.sha256(content).hexdigest() != expected:
        raise SnapshotDamaged(f"{path.name} does not match its checksum")
    return cast("Mapping[str, object]", json.loads(content))


def _provider(row: dict[str, object]) -> _Provider:
    return _Provider(
        id=str(row["id"]),
        model_match=cast("Clause | None", row.get("model_match")),
        provider_match=cast("Clause | None", row.get("provider_match")),
        fallback=tuple(cast("list[str]", row.get("fallback", []))),
        models=cast("list[Row]", row["models"]),
    )


def _without_tiers(schedule: CardSchedule) -> CardSchedule:
    if not any(window.card is not None and window.card.service_tiers for window in schedule.windows):
        return schedule
    windows = [
        window if window.card is None else window._replace(card=replace(window.card, service_tiers=()))
        for window in schedule.windows
    ]
    return schedule._replace(windows=tuple(windows))


def _schedule(
    provider: str, model: str, prices: object, context_max: int | None, output_max: int | None, variants: list[Variant]
) -> CardSchedule:
    dated = cast("list[tuple[str | None, Prices]]", prices) if isinstance(prices, list) else [(None, prices)]
    tables = [(_window(when), cast("Prices", table)) for when, table in dated]
    foreign = sorted({key for _, table in tables for key in table} - RATE_KEYS - _PIECE_KEYS)
    if foreign:
        why = f"it is priced by {foreign[0].replace('_', ' ')}, which a token count does not show."
        return CardSchedule(provider, model, (Window(None),), why=why)
    windows: list[Window] = []
    days = sorted({_window(variant.when).first_ms for variant in variants})
    for window, table in tables:
        # Within a window the tiers may change on days of their own.
        for first_ms in [window.first_ms, *(day for day in days if day > window.first_ms)]:
            card = make_snapshot_card(
                provider, model, table, context_max=context_max, output_max=output_max,
                variants=[variant for variant in variants if _window(variant.when).first_ms <= first_ms],
            )  # fmt: skip
            windows.append(window._replace(card=card, first_ms=first_ms))
    return CardSchedule(provider, model, tuple(windows))


def _window(when: str | None) -> Window:
    if when is None:
        return Window(None)
    if ":" not in when:
        return Window(None, first_ms=day_ms(when))
    start, _, end = when.partition("-")
    return Window(None, day_from_ms=_clock_ms(start), day_to_ms=_clock_ms(end))


def make_snapshot_card(  # noqa: PLR0913 -- one row of the table
    provider: str,
    model: str,
    prices: Prices,
    *,
    context_max: int | None,
    output_max: int | None,
    variants: list[Variant],
    source: str = "snapshot",
    tier: str = "",
    note: str = "",
) -> PriceCard | None:
    """The card of a table of prices as the data files hold it; None if it has no price for a token."""
    starts = sorted({int(step[0]) for rate in prices.values() if isinstance(rate, list) for step in _steps(rate)})
    tables = {start: _table(prices, start) for start in (-1, *starts)}
    base = tables.pop(-1)
    if "input" not in base or not any(up for up, _ in base.values()):
        # Free tiers, and models that nobody has priced yet, look alike in the data: only a person can say which it is.
        return None
    call, *uses = (_pusd_each(prices.get(key)) for key in (CALL_KEY, *UseRates._fields))
    if "output" not in base and "output_image" not in base:
        output_max = 0
    if context_max is not None and starts and context_max <= starts[-1]:
        context_max = None  # A price for longer input than the model takes: one of the two is out of date.
    limits = {"context_max": context_max, "output_max": output_max}
    others = [
        make_snapshot_card(
            provider,
            model,
            _in_tier(prices, name, variants),
            variants=[],
            source=source,
            tier=name,
            note=note,
            **limits,
        )
        for name in dict.fromkeys(canonical_tier(variant.tier) for variant in variants)
    ]
    return make_card(
        provider=provider,
        model=model,
        source=source,
        base=base,
        tiers=tables,
        call_pusd=call or 0,
        uses=UseRates(*uses),
        context_tokens_max=context_max,
        output_tokens_max=output_max,
        service_tier=tier,
        service_tiers=tuple(card for card in others if card is not None),
        note=note,
    )


def _in_tier(prices: Prices, tier: str, variants: list[Variant]) -> Prices:
    changed: Prices = {}
    for variant in variants:
        if canonical_tier(variant.tier) == tier:
            changed = {**variant.prices, **changed}
    return {**prices, **changed}


def prices_table(prices: Prices) -> dict[str, Ratio]:
    """The rates per token of a table of prices, below any long-context tier."""
    return _table(prices, -1)


def _table(prices: Prices, start: int) -> dict[str, Ratio]:
    return {name: _pusd_per_token(_at(rate, start)) for name, rate in prices.items() if name in RATE_KEYS}


def _at(rate: Rate, start: int) -> str:
    if isinstance(rate, str):
        return rate
    applicable = [str(price) for above, price in _steps(rate) if int(above) <= start]
    return applicable[-1] if applicable else str(rate[0])


def _steps(rate: list[str | list[int | str]]) -> list[list[int | str]]:
    return [step for step in rate[1:] if isinstance(step, list)]


def _pusd_each(usd: Rate | None) -> int | None:
    return None if usd is None else int(Decimal(str(usd)) * _PUSD_PER_USD)


def _pusd_per_token(usd_per_mtok: str) -> Ratio:
    up, down = Decimal(usd_per_mtok).as_integer_ratio()
    return ratio(up * (_PUSD_PER_USD // _MTOK), down)


def day_ms(day: str) -> int:
    """
    First millisecond of a day like ``2026-08-21``, UTC.

    Raises:
        ValueError: It is none.
    """
    from datetime import date

    return (date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal()) * _DAY_MS


def _clock_ms(time_of_day: str) -> int:
    hours, _, minutes = time_of_day.partition(":")
    return (int(hours) * 60 + int(minutes)) * _MINUTE_MS
