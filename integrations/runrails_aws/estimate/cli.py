"""`runrails aws estimate`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runrails.cli.output import AsJson, print_json, stdout
from runrails.errors import ConfigError
from runrails_aws.estimate.model import ARTICLE, Plan, estimate
from runrails_aws.estimate.prices import AS_OF, PRICES, REGION

if TYPE_CHECKING:
    from rich.table import Table

    from runrails_aws.estimate.model import Estimate

__all__ = ["estimate_costs"]

_ARTICLE_REQUESTS = 1_500


class VariantName(StrEnum):
    """Where the gateway runs."""

    FARGATE = "fargate"
    LAMBDA = "lambda"


class LedgerName(StrEnum):
    """How calls are held."""

    EXACT = "exact"
    LEASED = "leased"


def estimate_costs(  # noqa: PLR0913 -- options of a command
    *,
    requests_per_day: Annotated[int, typer.Option(min=0, max=10**9, help="Requests a day.")] = _ARTICLE_REQUESTS,
    variant: Annotated[VariantName, typer.Option(help="Where the gateway runs.")] = VariantName.FARGATE,
    ledger: Annotated[LedgerName, typer.Option(help="Each call held at once, or budgets leased.")] = LedgerName.EXACT,
    budgets: Annotated[int, typer.Option(help="Budgets a call draws on: 1 or 4.")] = 4,
    tasks: Annotated[int, typer.Option(min=1, max=1_000, help="Tasks that run at any time.")] = 2,
    nat_gateways: Annotated[int, typer.Option(min=0, max=6, help="NAT gateways; one a zone survives its loss.")] = 1,
    geo_rule: Annotated[bool, typer.Option("--geo-rule", help="Let WAF shut countries out.")] = False,
    call_usd: Annotated[str, typer.Option(metavar="USD", help="What the model asks for a call, on average.")] = "0.01",
    price: Annotated[
        list[str] | None, typer.Option(metavar="NAME=USD", help="Another price, by its name in --json; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    What the gateway's own infrastructure costs a month on AWS, and the guard's share in the cost of a call.

    Example: runrails aws estimate --requests-per-day 1500 --variant lambda
    """
    if variant is VariantName.LAMBDA and ledger is LedgerName.LEASED:
        raise ConfigError(
            "A function cannot lease: Lambda stops it with the money in its hands.", next_step="Leave out --ledger."
        )
    plan = Plan(
        variant=variant.value, requests_per_day=requests_per_day, ledger=ledger.value, scopes=_scopes(budgets),
        tasks=tasks, nat_gateways=nat_gateways, geo_rule=geo_rule, call_usd=_dollars(call_usd, what="--call-usd"),
    )  # fmt: skip
    if plan.call_usd == 0:
        raise ConfigError("--call-usd must be more than 0.", next_step="Write it as 0.01.")
    made = estimate(plan, dict(map(_price, price or ())))
    if as_json:
        print_json(_as_dict(made))
        return
    stdout().print(_table(made))
    _tell(made)


def _scopes(budgets: int) -> Literal[1, 4]:
    if budgets == 1:
        return 1
    if budgets == 4:
        return 4
    raise ConfigError("--budgets must be 1 or 4.", next_step="1: a run alone; 4: run, user, key and organisation.")


def _dollars(text: str, *, what: str) -> Decimal:
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        dollars = Decimal(-1)
    if not dollars.is_finite() or not 0 <= dollars <= 10**6:
        raise ConfigError(f"{what} must be an amount of dollars.", next_step="Write it as 0.01.")
    return dollars


def _price(text: str) -> tuple[str, Decimal]:
    name, _, value = text.partition("=")
    if name not in PRICES:
        raise ConfigError("--price names a price that there is not.", next_step=f"One of: {', '.join(PRICES)}.")
    return name, _dollars(value, what=f"--price {name}")


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}"


def _table(made: Estimate) -> Table:
    from rich.table import Table

    table = Table(title=f"{made.plan.requests_per_day:,} requests a day on {made.plan.variant}, a month")
    table.add_column("service")
    table.add_column("what")
    table.add_column("fixed", justify="right")
    table.add_column("by traffic", justify="right")
    for line in made.lines:
        table.add_row(line.service, line.what, _usd(line.fixed_usd), _usd(line.variable_usd))
    table.add_section()
    table.add_row("together", "", _usd(made.fixed_usd), _usd(made.variable_usd), style="bold")
    return table


def _tell(made: Estimate) -> None:
    out = stdout()
    out.print(
        f"The guard asks ${made.guard_usd_per_call:.8f} a call: {made.guard_percent:.2f} % of a call of "
        f"${made.plan.call_usd}."
    )
    if made.plan.requests_per_day == _ARTICLE_REQUESTS:
        theirs = sum((usd for _, usd in ARTICLE), Decimal(0))
        out.print(
            f"A platform of this kind was reported to cost {_usd(theirs)} fixed at this traffic, without NAT gateway, "
            "public addresses or WAF."
        )
    out.print(f"Models ask {_usd(made.models_usd)} beside it. List prices of {REGION}, {AS_OF}, without free tiers.")


def _as_dict(made: Estimate) -> dict[str, object]:
    return {
        "variant": made.plan.variant, "requests_per_day": made.plan.requests_per_day, "ledger": made.plan.ledger,
        "fixed_usd": str(round(made.fixed_usd, 2)), "variable_usd": str(round(made.variable_usd, 2)),
        "guard_usd_per_call": str(made.guard_usd_per_call), "guard_percent": str(round(made.guard_percent, 4)),
        "models_usd": str(round(made.models_usd, 2)),
        "lines": [
            {
                "service": line.service, "what": line.what, "fixed_usd": str(round(line.fixed_usd, 2)),
                "variable_usd": str(round(line.variable_usd, 4)),
            }
            for line in made.lines
        ],
        "prices": {
            name: {"usd": str(each.usd), "unit": each.unit, "page": each.page} for name, each in PRICES.items()
        },
        "prices_as_of": AS_OF, "region": REGION,
    }  # fmt: skip
