"""What a consumer may know of their own: usage, budgets, runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

from fastapi import Query

from runrails.accounts import OWN_KEY
from runrails.ledger import Account as AccountName
from runrails.ledger import Balance
from runrails.periods import month_of, month_start_ms, next_month
from runrails.plainfields import usd_text
from runrails_gateway.admin.models import (
    BudgetOwn,
    Listing,
    OwnAccount,
    RateLimits,
    RunDetail,
    RunRow,
    Usage,
    UsageBy,
)
from runrails_gateway.admin.paging import Limit, Month  # noqa: TC001 -- FastAPI reads the annotations
from runrails_gateway.admin.routing import CallerOf, Endpoint
from runrails_gateway.admin.runs import Filter, RunId, RunOffset, Search, one_run, page_of_runs
from runrails_gateway.admin.usage import By, Wanted, dimensions, month_now, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OWN"]


def own_usage(caller: CallerOf, by: By = None, month: Month = None) -> Usage:
    """The caller's calls, tokens and money of a month (UTC)."""
    # By all that there is in one reading, of which a part is told: to ask in many ways costs no more than in one.
    found = usage_of(caller, Wanted(month or month_now(caller), get_args(UsageBy), caller.principal.user))
    return found.model_copy(update={"groups": {each: found.groups[each] for each in dimensions(by)}})


def own_budget(caller: CallerOf) -> BudgetOwn:
    """What the caller may spend, has spent and has left, in every budget that a call draws on. Amounts of an
    organisation are left out: they are of others, too."""
    principal, guard = caller.principal, caller.desk.services.guard
    limits = guard.limits
    rates = principal.rates or limits.key_rates
    return BudgetOwn(
        user=principal.user, org=principal.org, key=principal.key_id, scopes=sorted(principal.scopes),
        expires_ms=principal.expires_ms, run_limit_usd=usd_text(limits.run_pusd),
        rates=None if rates is None else RateLimits.model_validate(rates, from_attributes=True),
        accounts=list(_accounts(caller)),
    )  # fmt: skip


def own_runs(
    caller: CallerOf, q: Search = None,
    stopped: Annotated[bool | None, Query(description="Only those that were stopped, or were not.")] = None,
    limit: Limit = 50, offset: RunOffset = 0,
) -> Listing[RunRow]:  # fmt: skip
    """The caller's runs, those that go on first, then the newest."""
    return page_of_runs(caller, Filter(user=caller.principal.user, q=q, stopped=stopped), limit, offset)


def own_run(caller: CallerOf, run_id: RunId) -> RunDetail:
    """One of the caller's runs: what it did, what it cost, and what stopped it."""
    return one_run(caller, run_id, user=caller.principal.user)


OWN = (
    Endpoint("GET", "/usage", "usage.own", own_usage, errors=(409,)),
    Endpoint("GET", "/budget", "budgets.own", own_budget, errors=(409,)),
    Endpoint("GET", "/runs", "runs.own", own_runs, errors=(409,)),
    Endpoint("GET", "/runs/{run_id}", "runs.own", own_run, errors=(404, 409)),
)


def _accounts(caller: CallerOf) -> Iterator[OwnAccount]:
    """The accounts, each under the limit that code gives it where none is kept yet."""
    principal, guard = caller.principal, caller.desk.services.guard
    limits = guard.limits
    month = month_of(caller.desk.services.clock(), guard.zone)
    key_month = principal.month_pusd or limits.key_month_pusd
    wanted = [(f"user:{principal.user}", limits.month_pusd, True)]
    if principal.key_id is not None:
        wanted.append((f"key:{principal.key_id}", key_month, True))
    if principal.org is not None:
        wanted.append((f"org:{principal.org}", limits.org_month_pusd, False))
    if guard.credentials is not None:
        wanted.append((f"{OWN_KEY}:{principal.user}", limits.byok_month_pusd, True))
    operators = {scope: limit for scope, unit, limit in caller.desk.store.limits() if unit == "pusd"}
    for scope, in_code, shown in wanted:
        found = guard.store.balance(AccountName(scope, month))
        limit = found.limit if found.limit is not None else operators.get(scope, in_code)
        yield _own(Balance(account=found.account, limit=limit, spent=found.spent, held=found.held), guard.zone, shown)


def _own(balance: Balance, zone: str, shown: bool) -> OwnAccount:  # noqa: FBT001 -- private
    def amount(value: int | None) -> str | None:
        return usd_text(value) if shown else None

    period = balance.account.period
    return OwnAccount(
        scope=balance.account.scope, period=period, resets_ms=month_start_ms(next_month(period), zone),
        status=balance.status, limit_usd=amount(balance.limit), spent_usd=amount(balance.spent),
        held_usd=amount(balance.held), available_usd=amount(balance.available),
    )  # fmt: skip
