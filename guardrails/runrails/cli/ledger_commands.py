"""`runrails budget` and `runrails usage`: what accounts may spend, hold and have spent, and on which calls."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli.output import AsJson, make_table, print_json, stderr, stdout, when
from runrails.errors import ConfigError, format_amount
from runrails.ledger import Balance, FullStore, UsageRecord
from runrails.money import format_usd, usd
from runrails.stores.checks import MONEY, check_limit_key

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = ["budget", "usage"]

NOT_FOUND = 1
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
    with _ledger(store) as ledger:
        ledger.set_limit(scope, limit, unit=unit)
        over = [
            balance
            for balance in ledger.balances(scope=scope)
            if limit is not None and balance.account.unit == unit and balance.spent + balance.held >= limit
        ]
    if as_json:
        print_json({"scope": scope, "unit": unit, "limit": limit, "limit_usd": _usd_text(limit, unit)})
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
    with _ledger(store) as ledger:
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
    with _ledger(store) as ledger:
        balances = [
            balance
            for balance in ledger.balances(period=period)
            if runs or not balance.account.scope.startswith("run:")
        ]
        used = {(balance.account.scope, balance.account.unit) for balance in balances}
        unused = [row for row in ledger.limits() if row[:2] not in used]
    if as_json:
        print_json([*map(_balance_fields, balances), *map(_limit_fields, unused)])
        return
    if not balances and not unused:
        stdout().print("No budgets yet. One is made by the first call, or by `runrails budget set SCOPE AMOUNT`.")
        return
    if balances:
        _print_balances("Budgets", balances, as_json=False)
    if unused:
        _print_limits(unused, as_json=False)


def usage(
    user: Annotated[str | None, typer.Option("--user", help="Only this user's calls.")] = None,
    month: Annotated[str | None, typer.Option("--month", help="Only this month (UTC), for instance 2026-11.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Only this run's calls.")] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List model calls with their tokens and costs, oldest first, and their sums."""
    _check_month(month)
    with _ledger(store) as ledger:
        records = list(ledger.usage(user=user, period=month, run=run))
    if not records:
        _not_found("usage_not_found", "No call is in the books that fits.", as_json)
    if as_json:
        print_json([_record_fields(record) for record in records])
        return
    columns = {
        "time (UTC)": False, "user": False, "run": False, "step": True, "model": False, "end": False, "in": True,
        "out": True, "held": True, "cost": True,
    }  # fmt: skip
    title = "Usage" if len(records) <= SHOWN_MAX else f"Usage: the newest {SHOWN_MAX} of {len(records):,} calls"
    stdout().print(make_table(title, columns, map(_record_row, records[-SHOWN_MAX:])))
    total = sum(record.actual_pusd or 0 for record in records)
    open_calls = sum(1 for record in records if record.state == "held")
    words = "1 call" if len(records) == 1 else f"{len(records):,} calls"
    stdout().print(f"{words}, {format_usd(total)}" + (f", {open_calls} in flight" if open_calls else ""))


@contextmanager
def _ledger(url: str | None) -> Generator[FullStore]:
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


def _check_month(month: str | None) -> None:
    from runrails.periods import month_start_ms

    try:
        if month is not None:
            month_start_ms(month, "UTC")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--month") from error


def _parse(amount: str, unit: str) -> int:
    try:
        limit = usd(amount, what="AMOUNT") if unit == MONEY else int(amount)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="AMOUNT") from error
    if limit <= 0:
        # Elsewhere 0 often means "no limit"; here it would block. Whoever means either can say so.
        raise typer.BadParameter(
            "A limit must be more than 0. Write none to remove it, or the least there is to block the scope: "
            + ("0.000000000001." if unit == MONEY else "1."),
            param_hint="AMOUNT",
        )
    if limit >= 2**63:
        raise typer.BadParameter("A limit must be less than 2^63.", param_hint="AMOUNT")
    return limit


def _not_found(code: str, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"error": code, "message": what})
    else:
        stderr().print(what)
    raise typer.Exit(NOT_FOUND)


def _usd_text(amount: int | None, unit: str) -> str | None:
    return None if amount is None or unit != MONEY else format_usd(amount).replace("$", "").replace(",", "")


def _balance_fields(balance: Balance) -> dict[str, object]:
    account = balance.account
    return {
        "scope": account.scope,
        "period": account.period,
        "unit": account.unit,
        "limit": balance.limit,
        "limit_source": balance.limit_source,
        "spent": balance.spent,
        "held": balance.held,
        "available": balance.available,
        "status": balance.status,
        "limit_usd": _usd_text(balance.limit, account.unit),
        "spent_usd": _usd_text(balance.spent, account.unit),
    }


def _limit_fields(limit: tuple[str, str, int]) -> dict[str, object]:
    scope, unit, amount = limit
    return {
        "scope": scope,
        "period": None,
        "unit": unit,
        "limit": amount,
        "limit_source": "operator",
        "limit_usd": _usd_text(amount, unit),
    }


def _print_balances(title: str, balances: list[Balance], *, as_json: bool) -> None:
    if as_json:
        print_json([_balance_fields(balance) for balance in balances])
        return
    columns = {
        "scope": False, "period": False, "limit": True, "set by": False, "spent": True, "held": True, "left": True,
        "status": False,
    }  # fmt: skip
    stdout().print(make_table(title, columns, map(_balance_row, balances)))


def _balance_row(balance: Balance) -> tuple[str, ...]:
    account = balance.account
    unlimited = balance.limit is None or balance.available is None
    return (
        account.scope,
        account.period,
        "-" if balance.limit is None else format_amount(balance.limit, account.unit),
        "-" if unlimited else balance.limit_source,
        format_amount(balance.spent, account.unit),
        format_amount(balance.held, account.unit),
        "-" if balance.available is None else format_amount(balance.available, account.unit),
        balance.status,
    )


def _print_limits(limits: Iterable[tuple[str, str, int]], *, as_json: bool) -> None:
    if as_json:
        print_json([_limit_fields(limit) for limit in limits])
        return
    rows = ((scope, format_amount(amount, unit)) for scope, unit, amount in limits)
    stdout().print(make_table("Limits set, nothing spent", {"scope": False, "limit": True}, rows))


def _record_fields(record: UsageRecord) -> dict[str, object]:
    facts, result = record.facts, record.result
    counts = None if result is None else result.usage
    return {
        "id": record.id,
        "state": record.state,
        "at_ms": record.at_ms,
        "settled_at_ms": record.settled_at_ms,
        "estimated_pusd": record.estimated_pusd,
        "actual_pusd": record.actual_pusd,
        "cost_usd": _usd_text(record.actual_pusd, MONEY),
        **{
            name: getattr(facts, name)
            for name in (
                "user", "run", "step", "key", "org", "provider", "model", "request_type", "endpoint", "user_agent",
                "agent", "byok",
            )
        },
        "end": None if result is None else result.end,
        "duration_ms": None if result is None else result.duration_ms,
        "input_tokens": None if counts is None else counts.input_tokens,
        "output_tokens": None if counts is None else counts.output_tokens,
    }  # fmt: skip


def _record_row(record: UsageRecord) -> tuple[str, ...]:
    facts, result = record.facts, record.result
    counts = None if result is None else result.usage
    return (
        when(record.at_ms),
        facts.user,
        facts.run[:12],
        str(facts.step),
        facts.model,
        record.state if result is None else result.end,
        "" if counts is None else f"{counts.input_tokens:,}",
        "" if counts is None else f"{counts.output_tokens:,}",
        format_usd(record.estimated_pusd),
        "" if record.actual_pusd is None else format_usd(record.actual_pusd),
    )
