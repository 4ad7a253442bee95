"""Holds a bill that knows only days and models against what the ledger has for them. Compares; never writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.billing.amounts import ZERO, added
from runrails.errors import ConfigError
from runrails.figures import figures_of
from runrails.money import to_decimal
from runrails.periods import day_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from runrails.billing.export import BillLine
    from runrails.ledger import UsageRecord

__all__ = ["DIMENSIONS", "Compared", "compare", "parse_dimensions"]

DIMENSIONS = ("day", "model")


class Compared(NamedTuple):
    """One group of both books."""

    group: tuple[str, ...]
    ours: Decimal
    """What the ledger says that the provider gets."""
    billed: Decimal
    calls: int

    @property
    def difference(self) -> Decimal:
        """Positive if more was billed."""
        return added(self.billed, self.ours.copy_negate())


def parse_dimensions(by: str) -> tuple[str, ...]:
    """
    `day`, `model` or both, from text like `day,model`.

    Raises:
        ConfigError: It names something else, or one of them twice.
    """
    names = tuple(name.strip() for name in by.split(","))
    if not set(names) <= set(DIMENSIONS) or len(set(names)) != len(names):
        raise ConfigError("A bill is compared by day, model or day,model.", next_step="Write --by day,model.")
    return names


def compare(lines: Iterable[BillLine], records: Iterable[UsageRecord], by: tuple[str, ...]) -> list[Compared]:
    """
    Both books by the same groups, in order.

    A model is called what the provider says that served the call, else what was asked for; of a line like
    `gpt-4o-2024-08-06, input` it is what stands before the comma. Days are of UTC.

    Raises:
        ConfigError: A line has a day that is none.
    """
    billed: dict[tuple[str, ...], Decimal] = {}
    ours: dict[tuple[str, ...], int] = {}
    calls: dict[tuple[str, ...], int] = {}
    for line in lines:
        parts = {"model": line.model.split(",")[0].strip().lower()}
        if "day" in by:
            parts["day"] = _day(line)
        group = tuple(parts[name] for name in by)
        billed[group] = added(billed.get(group, ZERO), line.dollars)
    for record in records:
        figures = figures_of(record)
        if figures is None or record.state == "released":
            continue
        served = None if record.result is None else record.result.model
        parts = {"model": (served or record.facts.model).lower(), "day": day_of(record.at_ms)}
        group = tuple(parts[name] for name in by)
        ours[group] = ours.get(group, 0) + figures.net_pusd
        calls[group] = calls.get(group, 0) + 1
    return [
        Compared(group, to_decimal(ours.get(group, 0)), billed.get(group, ZERO), calls.get(group, 0))
        for group in sorted(billed.keys() | ours.keys())
    ]


def _day(line: BillLine) -> str:
    from datetime import UTC, datetime

    text = line.time
    try:
        if text.isascii() and text.isdigit() and len(text) in (10, 13):  # Unix seconds or milliseconds
            return day_of(int(text.ljust(13, "0")))
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"Line {line.number} of the bill has no day like 2026-11-21 or 2026-11-21T14:30:00Z.",
            next_step="Name the column that has it: --time-column HEADER.",
            line=line.number,
        ) from None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date().isoformat()
