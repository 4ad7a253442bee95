"""
What may be done, and by whom. What is not in the table may not be done by anybody.

An operation needs one scope, and touches something that has an owner. Its *reach* says whose: `own`, the caller's and
nobody else's, or `any`, what an administrator may touch. An administrator who belongs to an organisation reaches only
what belongs to it; one without an organisation is the platform's and reaches everything.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.identity.errors import Forbidden
from runrails.identity.principal import check_scopes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runrails.identity.principal import Principal, Scope

__all__ = ["OPERATIONS", "Operation", "Reach", "authorise", "authorise_grant", "authorise_limit", "authorise_new"]

Reach = Literal["own", "any"]


class Operation(NamedTuple):
    """One row of the table."""

    scope: Scope | None
    """The scope it needs; None: whoever is known may do it."""
    reach: Reach
    """Whose things it may touch."""
    spends: bool = False
    """Whether it is a call of a model, which needs a budget."""


def _administration(noun: str, scope: Scope, verbs: str) -> dict[str, Operation]:
    return {f"{noun}.{verb}": Operation(scope, "any") for verb in verbs.split()}


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "chat.complete": Operation("ai:complete", "own", spends=True),
        "responses.create": Operation("ai:complete", "own", spends=True),
        "messages.create": Operation("ai:complete", "own", spends=True),
        "messages.count_tokens": Operation("ai:complete", "own"),
        "embeddings.create": Operation("ai:embed", "own", spends=True),
        "agents.run": Operation("ai:agent", "own", spends=True),
        "models.list": Operation(None, "own"),
        "usage.own": Operation(None, "own"),
        "budgets.own": Operation(None, "own"),
        "runs.own": Operation(None, "own"),
        "tokens.exchange": Operation(None, "own"),
        **_administration("keys", "admin:keys", "create adopt list show suspend resume revoke rotate"),
        **_administration("credentials", "admin:credentials", "add list validate suspend resume rotate remove rewrap"),
        **_administration("budgets", "admin:budgets", "show list set"),
        **_administration("usage", "admin:usage", "show list"),
        **_administration("runs", "admin:usage", "show list"),
        **_administration("tokens", "admin:tokens", "issue revoke"),
    }
)
"""Every operation of every entry point, by name."""


def authorise(
    principal: Principal, operation: str, *, owner: str | None = None, owner_org: str | None = None
) -> Operation:
    """
    See that somebody may do something to somebody's thing. Decides from its arguments alone.

    Args:
        principal: Who asks.
        operation: What for, a name in `OPERATIONS`.
        owner: Whose thing it touches, as a scope: `user:alice`, `org:acme` or `platform`. It is asked for before the
            thing is looked up, so that nobody learns what others have. None: nobody's in particular, as in a list of
            all, which is the platform's alone unless the operation reaches the caller's own.
        owner_org: The organisation of an owner that is a user, as the record says; never a request's own words.

    Raises:
        Forbidden: Not listed, the scope is missing, or the thing is out of reach.
    """
    rule = OPERATIONS.get(operation)
    if rule is None:
        raise Forbidden("what is not in the table of operations")
    if rule.scope is not None and rule.scope not in principal.scopes:
        raise Forbidden(operation, missing=rule.scope)
    if not _reaches(principal, rule.reach, owner, owner_org):
        raise Forbidden(operation)
    return rule


def authorise_grant(principal: Principal, operation: str, scopes: Iterable[str]) -> None:
    """
    See that nobody hands out a power that they have not: the scopes of a key or token whose secret somebody is given,
    because it is new or its key was rotated, are among the caller's own.

    Raises:
        Forbidden: The first of those that are missing, by name.
        ValueError: A scope does not exist.
    """
    missing = sorted(check_scopes(scopes) - principal.scopes)
    if missing:
        raise Forbidden(operation, missing=missing[0])


def authorise_limit(
    principal: Principal, operation: str, *, scope: str, limit: int | None, org_limit: int | None
) -> None:  # fmt: skip
    """
    See that somebody may set a limit that is within reach. Decides from its arguments alone.

    What an organisation may spend is between it and the platform: its administrators may lower that, and share out
    among its users and keys what it is, but raise it or take it away they may not, even if they have lowered it
    themselves. Limits on users' own keys are none of the platform's money.

    Args:
        principal: Who asks.
        operation: What for, a name in `OPERATIONS`.
        scope: Whose limit.
        limit: The new one; None takes an operator's limit away.
        org_limit: The limit that the caller's organisation has now; None if it has none.

    Raises:
        Forbidden: It would allow more than the organisation has.
    """
    if principal.org is None or scope.startswith("byok:"):
        return
    if limit is None:
        if scope == f"org:{principal.org}":
            raise Forbidden(operation, raises=True)
    elif org_limit is not None and limit > org_limit:
        raise Forbidden(operation, raises=True)


def authorise_new(
    principal: Principal, operation: str, *, scopes: Iterable[str], user: str, org: str | None, user_org: str | None
) -> None:
    """
    See that somebody may make a credential, a key or a token, for a user. Decides from its arguments alone.

    Whoever belongs to an organisation makes none that belongs to another or to none: one without an organisation
    reaches what everybody has.

    Args:
        principal: Who asks.
        operation: What for, a name in `OPERATIONS`.
        scopes: What the credential may do.
        user: Whom it is for.
        org: Which organisation it belongs to.
        user_org: The organisation of that user, as records say; never a request's own words.

    Raises:
        Forbidden: The user is out of reach, so is the organisation, or a scope is not the caller's own.
        ValueError: A scope does not exist.
    """
    authorise(principal, operation, owner=f"user:{user}", owner_org=user_org)
    if principal.org not in (None, org):
        raise Forbidden(operation)
    authorise_grant(principal, operation, scopes)


def _reaches(principal: Principal, reach: Reach, owner: str | None, owner_org: str | None) -> bool:
    own = f"user:{principal.user}"
    if reach == "own":
        return owner is None or owner == own
    if principal.org is None:
        return True
    if owner is None:
        return False
    return owner == f"org:{principal.org}" or (owner.startswith("user:") and owner_org == principal.org)
