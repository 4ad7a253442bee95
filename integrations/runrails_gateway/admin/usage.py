"""A month's calls summed over HTTP: what `runrails usage --by` does, by several things in one reading."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, NamedTuple

from fastapi import Query

from runrails.grouping import Groups, group_usage
from runrails.periods import month_of
from runrails.plainfields import group_fields, usd_text
from runrails_gateway.admin.models import Group, Usage, UsageBy
from runrails_gateway.admin.paging import Month, Only  # noqa: TC001 -- FastAPI reads the annotations
from runrails_gateway.admin.routing import CallerOf, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runrails.grouping import GroupRow
    from runrails.ledger import UsageRecord

__all__ = ["USAGE", "By", "Wanted", "dimensions", "month_now", "sum_usage", "usage_of"]

RECORDS_MAX = 1_000_000
"""Calls that one answer is made of; whoever has more in a month asks for a user's or a run's."""
_READ_AT_ONCE = 1_000
GROUPS_MAX = 1_000
By = Annotated[
    list[UsageBy] | None,
    Query(max_length=7, description="What to sum by; several times for several. By default day and model."),
]
Text = Annotated[str | None, Query(max_length=128)]


class Wanted(NamedTuple):
    """Which calls are summed, and by what."""

    month: str
    by: tuple[UsageBy, ...]
    user: str | None = None
    org: str | None = None
    key: str | None = None
    run: str | None = None
    model: str | None = None


def show_usage(
    caller: CallerOf, by: By = None, month: Month = None, user: Only = None, org: Only = None, key: Only = None,
    run: Only = None, model: Text = None,
) -> Usage:  # fmt: skip
    """Calls, tokens and money of a month (UTC), by user, key, model, day and so on."""
    if caller.org is not None and org not in (None, caller.org):
        caller.may(f"org:{org}")
    within = org if caller.org is None else caller.org
    return usage_of(caller, Wanted(month or month_now(caller), dimensions(by), user, within, key, run, model))


USAGE = (Endpoint("GET", "/usage", "usage.list", show_usage, errors=(409,)),)


def usage_of(caller: CallerOf, wanted: Wanted) -> Usage:
    """The sums, made anew or as they were a moment ago."""
    return caller.desk.kept.get(wanted, lambda: sum_usage(_records(caller, wanted), wanted))


def sum_usage(records: Iterable[UsageRecord], wanted: Wanted) -> Usage:
    """Sum records by each dimension, reading them once and never having all of them in the memory."""
    sums: dict[UsageBy, Groups] = {by: Groups(GROUPS_MAX) for by in wanted.by}
    whole, more = Groups(), iter(records)
    left = RECORDS_MAX
    while left and (some := list(islice(more, min(left, _READ_AT_ONCE)))):
        left -= len(some)
        for by, groups in sums.items():
            _add(groups, group_usage(some, by))
        for row in group_usage(some, "day"):
            _add_row(whole, None, row)
    total = next(iter(whole.rows()), None)
    return Usage(
        month=wanted.month, calls=0 if total is None else total.calls,
        input_tokens=0 if total is None else total.input_tokens,
        output_tokens=0 if total is None else total.output_tokens,
        cost_pusd=0 if total is None else total.cost_pusd,
        cost_usd=usd_text(0 if total is None else total.cost_pusd) or "",
        billed_usd=usd_text(0 if total is None else total.billed_pusd) or "",
        complete=left > 0 or next(more, None) is None,
        groups={by: _rows(by, groups) for by, groups in sums.items()},
    )  # fmt: skip


def month_now(caller: CallerOf) -> str:
    """The month that it is, in UTC, as records are kept."""
    return month_of(caller.desk.services.clock())


def dimensions(by: list[UsageBy] | None) -> tuple[UsageBy, ...]:
    """What to sum by, each once."""
    return tuple(dict.fromkeys(by or ("day", "model")))


def _records(caller: CallerOf, wanted: Wanted) -> Iterator[UsageRecord]:
    found = caller.desk.store.usage(user=wanted.user, period=wanted.month, run=wanted.run)
    return (
        record
        for record in found
        if wanted.org in (None, record.facts.org)
        and wanted.key in (None, record.facts.key)
        and wanted.model in (None, record.facts.model)
    )


def _add(groups: Groups, rows: Iterable[GroupRow]) -> None:
    for row in rows:
        _add_row(groups, row.name, row)


def _add_row(groups: Groups, name: str | None, row: GroupRow) -> None:
    groups.add(
        name, row.calls, row.input_tokens, row.output_tokens, row.cost_pusd, row.own_key_pusd, row.discount_pusd,
        row.markup_pusd,
    )  # fmt: skip


def _rows(by: UsageBy, groups: Groups) -> list[Group]:
    rows = groups.rows()
    ordered = sorted(rows, key=lambda row: row.name or "") if by == "day" else rows
    return [Group.model_validate(group_fields(row)) for row in ordered]
