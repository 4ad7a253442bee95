"""Whom an AWS identity is here, and what it may do: exact names, nothing by pattern. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runrails.errors import ConfigError
from runrails.identity.principal import check_scopes
from runrails.ids import check_id
from runrails_aws.identity.arns import check_grant_arn, check_unique_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

__all__ = ["Grant", "Grants"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """
    What one IAM user or role is here.

    Raises:
        ValueError: Something is malformed, or a scope does not exist; the message says which.
    """

    arn: str
    """``arn:aws:iam::123456789012:role/name``, without the path; of a user with it."""
    user: str
    """Whose money it spends."""
    org: str | None = None
    scopes: Set[str]
    """What it may do, at least one; see `runrails.identity.principal.SCOPES`."""
    unique_id: str | None = None
    """Its AROA… or AIDA…. Without it, the one that comes first is remembered and no other ever taken."""

    def __post_init__(self) -> None:
        check_grant_arn(self.arn)
        check_id(self.user, what="A grant's user")
        if self.org is not None:
            check_id(self.org, what="A grant's organisation")
        object.__setattr__(self, "scopes", check_scopes(self.scopes))
        if not self.scopes:
            raise ValueError("A grant without a scope would be good for nothing.")
        if self.unique_id is not None:
            check_unique_id(self.unique_id, self.arn)


class Grants:
    """
    All grants there are.

    Raises:
        ConfigError: Two are for the same ARN.
    """

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._by_arn: dict[str, Grant] = {}
        for grant in grants:
            if grant.arn in self._by_arn:
                raise ConfigError(f"There are two grants for {grant.arn}.", next_step="Leave one of them.")
            self._by_arn[grant.arn] = grant

    def of(self, arn: str) -> Grant | None:
        """The grant for exactly this ARN."""
        return self._by_arn.get(arn)

    def __len__(self) -> int:
        return len(self._by_arn)
