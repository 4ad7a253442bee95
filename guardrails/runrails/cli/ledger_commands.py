"""`runrails budget` and `runrails usage`: what accounts may spend, hold and have spent, and on which calls."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli.output import AsJson, make_table, print_json, print_json_list, stderr, stdout, when
from runrails.cli.tags import Tag, tags_of
from runrails.errors import ConfigError, format_amount
from runrails.figures import figures_of
from runrails.grouping import GroupRow, Groups, check_dimension, group_usage, with_tags
from runrails.ledger import RUN_PERIOD, Balance, FullStore, UsageRecord
from runrails.money import format_usd
from runrails.plainfields import PARTS, balance_fields, call_fields, group_fields, limit_fields, read_limit, usd_text
from runrails.stores.checks import MONEY, check_limit_key

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterable, Sequence

__all__ = ["StoreUrl", "budget", "check_month", "open_ledger", "usage"]

NOT_FOUND = 1
WIDTH_MIN = 80
WIDTH_WIDE = 130
"""From so many columns on, a table has a column of its own for everything."""
NAME_SHOWN_MAX = 19
"""Longest user in the usage table: as long as a time, which it shares a column with."""
SHOWN_MAX = 200
"""Most records that the usage table shows; the sums and ``--json`` have them all."""

budget = typer.Typer(help="Show budgets, and set the limits that win over those in code.", no_args_is_help=True)

StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The store; by default RUNRAILS_STORE or the local one.")
]
Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="Whose money, for instance user:alice or org:acme.")]


@budget.command("set")
def set_budget(
    scope: Scope,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Dollars, for instance 50.00, or none to remove.")],
    unit: Annotated[str, typer.Option("--unit", help="What is limited, if it is not money.")] = MONEY,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Set the limit of a scope for every period from now on. It wins over limits in code; none removes it."""
    _check_scope(scope, unit)
    limit = None if amount.lower() == "none" else _parse(amount, unit)
    with open_ledger(store) as ledger:
        ledger.set_limit(scope, limit, unit=unit)
        over = [
            balance
            for balance in ledger.balances(scope=scope)
            if limit is not None and balance.account.unit == unit and balance.spent + balance.held >= limit
        ]
    if as_json:
        print_json({"scope": scope, "unit": unit, "limit": limit, "limit_usd": usd_text(limit, unit)})
        return
    words = "no operator's limit" if limit is None else f"a limit of {format_amount(limit, unit)}"
    stdout().print(f"{scope} has {words} in every period.")
    for balance in over:
        spent = format_amount(balance.spent + balance.held, unit)
        stdout().print(f"In {balance.account.period} it has used {spent} already: calls are refused.")


@budget.command("show")
def show_budget(
    scope: Scope,
    period: Annotated[str | None, typer.Option("--period", help="Only this month, for instance 2026-11.")] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what a scope may spend, has spent and holds, newest period first."""
    _check_scope(scope, MONEY)
    _check_period(period)
    with open_ledger(store) as ledger:
        balances = list(ledger.balances(scope=scope, period=period))
        limits = [row for row in ledger.limits() if row[0] == scope]
    if balances:
        _print_balances(scope, balances, as_json=as_json)
    elif limits and period is None:
        _print_limits(limits, as_json=as_json)
    else:
        _not_found("budget_not_found", "Nothing is limited or spent there. `runrails budget list` shows all.", as_json)


@budget.command("list")
def list_budgets(
    period: Annotated[str | None, typer.Option("--period", help="Only this month, for instance 2026-11.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Also the accounts of single runs.")] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List every account, newest period first, and the limits set for scopes that have none yet."""
    _check_period(period)
    with open_ledger(store) as ledger:
        balances = [
            balance
            for balance in ledger.balances(period=period)
            if runs or not balance.account.scope.startswith("run:")
        ]
        used = {(balance.account.scope, balance.account.unit) for balance in balances}
        unused = [row for row in ledger.limits() if row[:2] not in used]
    if as_json:
        print_json([*map(balance_fields, balances), *map(limit_fields, unused)])
        return
    if not balances and not unused:
        stdout().print("No budgets yet. One is made by the first call, or by `runrails budget set SCOPE AMOUNT`.")
        return
    if balances:
        _print_balances("Budgets", balances, as_json=False)
    if unused:
        _print_limits(unused, as_json=False)


def usage(
    context: typer.Context,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHAT", help="Sum by user, key, org, model, agent, run, day or tag:NAME."),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="Only this user's calls.")] = None,
    tag: Tag = None,
    month: Annotated[str | None, typer.Option("--month", help="Only this month (UTC), for instance 2026-11.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Only this run's calls.")] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List model calls with their tokens and costs, oldest first, and their sums; with --by only the sums."""
    if context.invoked_subcommand is not None:
        return
    check_month(month)
    tags = tags_of(tag)
    if by is not None:
        _check_dimension(by)
    with open_ledger(store) as ledger:
        records = with_tags(ledger.usage(user=user, period=month, run=run), tags)
        if by is not None:
            _print_groups(by, group_usage(records, by), as_json=as_json)
            return
        first = next(records, None)
        if first is None:
            _not_found("usage_not_found", "No call is in the books that fits.", as_json)
        elif as_json:
            print_json_list(map(call_fields, chain((first,), records)))
        else:
            _print_usage(chain((first,), records))


def _print_groups(by: str, groups: Sequence[GroupRow], *, as_json: bool) -> None:
    if not groups:
        _not_found("usage_not_found", "No call is in the books that fits.", as_json)
    elif as_json:
        print_json_list(map(group_fields, groups))
    else:
        shown, more = groups[:SHOWN_MAX], groups[SHOWN_MAX:]
        rows = [_group_row(row.name or "-", [row]) for row in shown]
        rows += [_group_row(f"({len(more):,} more)", more)] if more else []
        table = make_table("Usage", {by: False, "calls": True, "in": True, "out": True, "cost": True}, rows)
        stdout().print(table)
        calls, cost = sum(row.calls for row in groups), sum(row.cost_pusd for row in groups)
        stdout().print(f"{'1 call' if calls == 1 else f'{calls:,} calls'}, {format_usd(cost)}")
        _print_parts(groups)


def _print_parts(groups: Iterable[GroupRow]) -> None:
    """Of what the cost is made, where it is not just what providers ask."""
    provider, discount, markup, own_key, billed = (
        sum(column) for column in zip(*([getattr(row, name) for name in PARTS] for row in groups), strict=True)
    )
    if discount or markup or own_key:
        stdout().print(
            f"provider {format_usd(provider)}, discount {format_usd(discount)}, mark-up {format_usd(markup)}"
        )
        stdout().print(f"on users' own keys {format_usd(own_key)}, billed by the platform {format_usd(billed)}")


def _group_row(name: str, rows: Sequence[GroupRow]) -> tuple[str, ...]:
    return (
        name,
        f"{sum(row.calls for row in rows):,}",
        f"{sum(row.input_tokens for row in rows):,}",
        f"{sum(row.output_tokens for row in rows):,}",
        _amount(sum(row.cost_pusd for row in rows), MONEY),
    )


def _check_dimension(by: str) -> None:
    try:
        check_dimension(by)
    except ConfigError as error:
        raise typer.BadParameter(error.what, param_hint="--by") from error


def _print_usage(records: Iterable[UsageRecord]) -> None:
    """The newest calls and the sums over all; a year of them is never in the memory at once."""
    newest: deque[UsageRecord] = deque(maxlen=SHOWN_MAX)
    count = open_calls = total = 0
    sums = Groups()
    for record in records:
        newest.append(record)
        count += 1
        total += record.actual_pusd or 0
        figures = figures_of(record)
        if figures is not None:
            sums.add(
                None, 1, cost_pusd=record.actual_pusd or 0, own_key_pusd=figures.own_key_pusd,
                discount_pusd=figures.discount_pusd, markup_pusd=figures.markup_pusd,
            )  # fmt: skip
        open_calls += record.state == "held"
    title = "Usage" if count <= SHOWN_MAX else f"Usage: the newest {SHOWN_MAX} of {count:,} calls"
    headings = ("time (UTC)", "user", "run step", "model", "end", "", "in", "out", "held", "cost")
    _print_pairs(title, headings, map(_record_row, newest), numbers=(6, 7, 8, 9))
    words = "1 call" if count == 1 else f"{count:,} calls"
    stdout().print(f"{words}, {format_usd(total)}" + (f", {open_calls} in flight" if open_calls else ""))
    _print_parts(sums.rows())


@contextmanager
def open_ledger(url: str | None) -> Generator[FullStore]:
    """The store a command works on. Raises ConfigError if it cannot list what it has."""
    from runrails.stores import open_store

    store = open_store(url)
    try:
        if not isinstance(store, FullStore):
            raise ConfigError(
                "This store cannot list budgets and usage.",
                next_step="Point --store or RUNRAILS_STORE to one that can.",
            )
        yield store
    finally:
        store.close()


def _check_scope(scope: str, unit: str) -> None:
    try:
        check_limit_key(scope, unit)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def check_month(month: str | None, *, option: str = "--month") -> None:
    """Raise BadParameter unless it is a month, or none."""
    from runrails.periods import check_period

    try:
        if month is not None:
            check_period(month)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _check_period(period: str | None) -> None:
    check_month(None if period == RUN_PERIOD else period, option="--period")


def _parse(amount: str, unit: str) -> int:
    try:
        return read_limit(amount, unit)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="AMOUNT") from error


def _not_found(code: str, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"error": code, "message": what})
    else:
        stderr().print(what)
    raise typer.Exit(NOT_FOUND)


def _print_balances(title: str, balances: list[Balance], *, as_json: bool) -> None:
    if as_json:
        print_json([balance_fields(balance) for balance in balances])
        return
    headings = ("scope", "period", "limit", "set by", "spent", "held", "left", "status")
    _print_pairs(title, headings, map(_balance_row, balances), numbers=(2, 4, 5, 6))


def _print_pairs(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Container[int]
) -> None:
    """A table with a column for each heading; where there is less room, two of them above each other in one."""
    console = stdout()
    if console.width >= WIDTH_WIDE or console.width < WIDTH_MIN:
        shown = [place for place, heading in enumerate(headings) if heading]
        columns = {headings[place]: place in numbers for place in shown}
        table = make_table(title, columns, ([row[place] for place in shown] for row in rows))
    else:
        pairs = range(0, len(headings), 2)
        columns = {f"{headings[n]}\n{headings[n + 1]}".rstrip(): n in numbers for n in pairs}
        table = make_table(title, columns, ([f"{row[n]}\n{row[n + 1]}".rstrip() for n in pairs] for row in rows))
    table.whole |= {place for place, heading in enumerate(columns) if heading.startswith("time")}
    console.print(table)


def _cut(name: str) -> str:
    return name if len(name) <= NAME_SHOWN_MAX else name[: NAME_SHOWN_MAX - 1] + "…"


def _amount(amount: int, unit: str) -> str:
    """An amount for a table: dollars to a millionth, where they are not smaller than that; JSON has them exact."""
    micro = 10**6
    if unit != MONEY or 0 < abs(amount) < micro:
        return format_amount(amount, unit)
    halves, rest = divmod(abs(amount), micro)
    halves += rest * 2 > micro or (rest * 2 == micro and halves % 2)
    return format_usd(halves * micro * (-1 if amount < 0 else 1))


def _balance_row(balance: Balance) -> tuple[str, ...]:
    account = balance.account
    unlimited = balance.limit is None or balance.available is None
    return (
        account.scope,
        account.period,
        "-" if balance.limit is None else _amount(balance.limit, account.unit),
        "-" if unlimited else balance.limit_source,
        _amount(balance.spent, account.unit),
        _amount(balance.held, account.unit),
        "-" if balance.available is None else _amount(balance.available, account.unit),
        balance.status,
    )


def _print_limits(limits: Iterable[tuple[str, str, int]], *, as_json: bool) -> None:
    if as_json:
        print_json([limit_fields(limit) for limit in limits])
        return
    rows = ((scope, format_amount(amount, unit)) for scope, unit, amount in limits)
    stdout().print(make_table("Limits set, nothing spent", {"scope": False, "limit": True}, rows))


def _record_row(record: UsageRecord) -> tuple[str, ...]:
    facts, result = record.facts, record.result
    counts = None if result is None else result.usage
    return (
        when(record.at_ms),
        _cut(facts.user),
        f"{facts.run[:12]} {facts.step}",
        facts.model,
        record.state if result is None else result.end,
        "",
        "" if counts is None else f"{counts.input_tokens:,}",
        "" if counts is None else f"{counts.output_tokens:,}",
        _amount(record.estimated_pusd, MONEY),
        "" if record.actual_pusd is None else _amount(record.actual_pusd, MONEY),
    )
