"""Budgets over HTTP: what `runrails budget` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Path, Query

from runrails.accounts import OWN_KEY
from runrails.identity.errors import Forbidden, UnknownKey
from runrails.periods import month_of
from runrails.plainfields import balance_fields, limit_fields, read_limit, usd_text
from runrails.stores.checks import check_limit_key
from runrails_gateway.admin.errors import NotThere, Unfit
from runrails_gateway.admin.models import SCOPE, Account, BudgetSet, Listing
from runrails_gateway.admin.paging import Limit, Month, Offset, page_of
from runrails_gateway.admin.routing import CallerOf, Endpoint

if TYPE_CHECKING:
    from runrails.ledger import Balance

__all__ = ["BUDGETS", "account_of"]

ACCOUNTS_MAX = 10_000
"""Of one scope: a hundred years of months in several units."""
Scope = Annotated[str, Path(pattern=SCOPE, description="Whose money: user:alice, key:ID, org:acme, run:ID.")]
Period = Annotated[
    str | None, Query(pattern=r"^(-|[0-9]{4}-(0[1-9]|1[0-2]))$", description="A month as 2026-11, or - for runs.")
]


def list_budgets(
    caller: CallerOf,
    period: Month = None,
    kind: Annotated[Literal["user", "key", "org", "byok"] | None, Query()] = None,
    q: Annotated[str | None, Query(max_length=128, description="Part of a scope.")] = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Listing[Account]:
    """Accounts of a month, by default of this one, then limits of scopes without any. Runs are shown one by one."""
    if caller.org is not None:
        raise Forbidden(caller.operation)  # a list of all is the platform's; an organisation shows one by one
    services, store = caller.desk.services, caller.desk.store
    period = period or month_of(services.clock(), services.guard.zone)
    balances = [each for each in store.balances(period=period) if _fits(each.account.scope, kind, q)]
    used = {(each.account.scope, each.account.unit) for each in balances}
    unused = [each for each in store.limits() if each[:2] not in used and _fits(each[0], kind, q)]
    accounts = [*map(account_of, balances), *(Account.model_validate(limit_fields(each)) for each in unused)]
    return page_of(accounts, limit, offset)


def show_budget(
    caller: CallerOf, scope: Scope, period: Period = None, limit: Limit = 100, offset: Offset = 0
) -> Listing[Account]:
    """What a scope may spend, has spent and holds, newest period first."""
    _may(caller, scope)
    store = caller.desk.store
    balances = list(store.balances(scope=scope, period=period))
    used = {each.account.unit for each in balances}
    unused = [each for each in store.limits() if period is None and each[0] == scope and each[1] not in used]
    accounts = [*map(account_of, balances), *(Account.model_validate(limit_fields(each)) for each in unused)]
    if not accounts:
        raise NotThere("budget")
    return page_of(accounts, limit, offset)


def set_budget(caller: CallerOf, scope: Scope, ask: BudgetSet) -> Listing[Account]:
    """Set an operator's limit, for every period from now on. It wins over limits in code; null removes it. An
    organisation's administrators may lower its limit, and set its users' and keys' up to that."""
    _may(caller, scope)
    limit = None if ask.limit is None else _limit(ask.limit, ask.unit)
    store = caller.desk.store
    caller.may_allow(scope, limit, ask.unit)
    store.set_limit(scope, limit, unit=ask.unit)
    caller.told(scope=scope, unit=ask.unit, limit=limit)
    balances = [each for each in store.balances(scope=scope) if each.account.unit == ask.unit]
    accounts = [account_of(each) for each in balances[:ACCOUNTS_MAX]]
    if not accounts and limit is not None:
        accounts = [Account.model_validate(limit_fields((scope, ask.unit, limit)))]
    return page_of(accounts, 100, 0)


BUDGETS = (
    Endpoint("GET", "/budgets", "budgets.list", list_budgets, errors=(409,)),
    Endpoint("GET", "/budgets/{scope}", "budgets.show", show_budget, errors=(404, 409)),
    Endpoint("PUT", "/budgets/{scope}", "budgets.set", set_budget, errors=(404, 409)),
)


def account_of(balance: Balance) -> Account:
    """An account as it is answered."""
    unit = balance.account.unit
    more = {"held_usd": usd_text(balance.held, unit), "available_usd": usd_text(balance.available, unit)}
    return Account.model_validate(balance_fields(balance) | more)


def _may(caller: CallerOf, scope: str) -> None:
    """See that a scope is one, and in reach. Raises Unfit or Forbidden."""
    try:
        check_limit_key(scope, "pusd")
    except ValueError as error:
        raise Unfit(str(error)) from None
    kind, _, name = scope.partition(":")
    if kind in ("user", OWN_KEY):
        caller.may_user(name)
    elif kind == "key" and caller.org is not None:
        _may_key(caller, name)
    else:
        caller.may(scope)


def _may_key(caller: CallerOf, key_id: str) -> None:
    """A key that is not there, and one of others, are the same to an administrator of an organisation."""
    services = caller.desk.services
    try:
        info = None if services.api_keys is None else services.api_keys.show(key_id)
    except UnknownKey:
        info = None
    if info is None:
        raise Forbidden(caller.operation)
    caller.may(f"user:{info.user}", info.org)


def _limit(amount: str, unit: str) -> int:
    try:
        return read_limit(amount, unit, what="limit")
    except ValueError:
        raise Unfit(
            "A limit is more than 0: dollars like 12.50 for money, a whole number for other units. Null removes it."
        ) from None


def _fits(scope: str, kind: str | None, text: str | None) -> bool:
    return (kind is None or scope.startswith(f"{kind}:")) and (not text or text.lower() in scope.lower())
