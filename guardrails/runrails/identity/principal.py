"""Who is calling. Pure values: whatever the credential was, what it proves is one `Principal`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from runrails.ids import check_id
from runrails.money import check_pusd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.rates import Rates

__all__ = [
    "METHODS",
    "SCOPES",
    "TIME_MS_MAX",
    "Method",
    "Principal",
    "Scope",
    "check_expiry",
    "check_month",
    "check_scopes",
]

Scope = Literal[
    "ai:complete",
    "ai:embed",
    "ai:agent",
    "admin:keys",
    "admin:credentials",
    "admin:budgets",
    "admin:usage",
    "admin:tokens",
]
"""A power. They are compared letter by letter; there is no wildcard, and none includes another."""
SCOPES: frozenset[str] = frozenset(get_args(Scope))
"""All there are."""

Method = Literal["api_key", "jwt", "aws", "local"]
"""How somebody proved who they are; `local`: by running code or commands on this machine."""
METHODS: frozenset[str] = frozenset(get_args(Method))

TIME_MS_MAX = 2**53
"""No moment is later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """
    Who is calling, what they may do, and what their credential may spend. It comes from a credential, never from a
    request's own words.

    Raises:
        ValueError: An id is malformed, a scope unknown, or a number out of range. The message never has the value.
        TypeError: Something is of another type.
    """

    user: str
    """Whose user's money it is."""
    org: str | None = None
    key_id: str | None = None
    """The public id of the API key, if there was one."""
    scopes: frozenset[str] = frozenset()
    method: Method
    session_id: str | None = None
    """Which token or AWS session it was (`jti`, unique id), for the log and for revoking it."""
    expires_ms: int | None = None
    """Since the epoch; from then on the credential is no proof any more."""
    rates: Rates | None = None
    """Requests and tokens a minute of this key."""
    month_pusd: int | None = None
    """Picodollars this key may spend in a calendar month."""

    def __post_init__(self) -> None:
        check_id(self.user, what="A principal's user")
        for what, value in (("org", self.org), ("key id", self.key_id), ("session id", self.session_id)):
            if value is not None:
                check_id(value, what=f"A principal's {what}")
        if type(self.scopes) is not frozenset:
            raise TypeError(f"A principal's scopes must be a frozenset, not {type(self.scopes).__name__}.")
        if not self.scopes <= SCOPES:
            raise ValueError("A principal has a scope that does not exist.")
        if self.method not in METHODS:
            raise ValueError(f"A principal's method must be one of {', '.join(sorted(METHODS))}.")
        check_expiry(self.expires_ms)
        check_month(self.month_pusd)


def check_expiry(expires_ms: object) -> None:
    """Check a moment from which something is over. Raises TypeError or ValueError."""
    if expires_ms is None:
        return
    if type(expires_ms) is not int:
        raise TypeError(f"A moment must be an int of milliseconds, not {type(expires_ms).__name__}.")
    if not 0 <= expires_ms < TIME_MS_MAX:
        raise ValueError("A moment must be milliseconds since the epoch, at least 0 and less than 2**53.")


def check_month(month_pusd: object) -> None:
    """Check what a key may spend in a month. Raises TypeError or ValueError."""
    if month_pusd is not None and not check_pusd(month_pusd, what="A key's monthly budget"):
        raise ValueError("A key's monthly budget must be more than $0. For no budget, write None.")


def check_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """
    The scopes, if each of them exists.

    Raises:
        ValueError: One does not. The message names those there are, never what was given.
        TypeError: It is one text, and not several.
    """
    if isinstance(scopes, str):
        raise TypeError("Scopes must be several texts, not one: write {'ai:complete'}.")
    found = frozenset(scopes)
    if not found <= SCOPES:
        raise ValueError(f"A scope does not exist. Those there are: {', '.join(sorted(SCOPES))}.")
    return found
