"""Names of AWS identities: which are taken, and the one spelling grants are looked up by. Pure."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

__all__ = ["Caller", "caller_of", "check_grant_arn", "check_unique_id", "unique_id_of"]

_ARN = r"arn:(?P<partition>aws|aws-cn|aws-us-gov)"
_ACCOUNT = r"(?P<account>[0-9]{12})"
_WORD = r"[A-Za-z0-9_+=,.@-]"
_USER = re.compile(rf"{_ARN}:iam::{_ACCOUNT}:user/(?:{_WORD}{{1,64}}/){{0,8}}{_WORD}{{1,64}}")
_ASSUMED = re.compile(
    rf"{_ARN}:sts::{_ACCOUNT}:assumed-role/(?P<role>{_WORD}{{1,64}})/(?P<session>{_WORD}{{2,64}})"
)  # fmt: skip
_ROLE = re.compile(rf"{_ARN}:iam::{_ACCOUNT}:role/{_WORD}{{1,64}}")
_UNIQUE = {"user": re.compile(r"AIDA[A-Z0-9]{12,60}"), "role": re.compile(r"AROA[A-Z0-9]{12,60}")}


class Caller(NamedTuple):
    """Who AWS says is calling."""

    arn: str
    """A user's own, or that of the role which was assumed, without the role's path and the session's name."""
    partition: str
    account: str
    kind: Literal["user", "role"]
    session: str | None
    """What whoever assumed the role called the session. It is their choice, so it decides nothing."""


def caller_of(arn: str) -> Caller | None:
    """Whom an ARN names; None if it is neither a user nor an assumed role: a root account, a federated user."""
    if found := _USER.fullmatch(arn):
        return Caller(arn, found["partition"], found["account"], "user", None)
    if found := _ASSUMED.fullmatch(arn):
        partition, account = found["partition"], found["account"]
        role = f"arn:{partition}:iam::{account}:role/{found['role']}"
        return Caller(role, partition, account, "role", found["session"])
    return None


def check_grant_arn(arn: object) -> str:
    """
    The ARN of a user or a role, as a grant names it.

    Raises:
        ValueError: It is something else. A role's path is left out, because STS leaves it out.
    """
    if isinstance(arn, str) and (_USER.fullmatch(arn) or _ROLE.fullmatch(arn)):
        return arn
    raise ValueError(
        "A grant needs the exact ARN of a user or role: arn:aws:iam::123456789012:user/path/name or "
        "arn:aws:iam::123456789012:role/name, a role without its path, and no wildcards."
    )


def check_unique_id(unique_id: object, arn: str) -> str:
    """
    The unique id that goes with an ARN: AIDA… for users, AROA… for roles.

    Raises:
        ValueError: It does not.
    """
    kind = "role" if ":role/" in arn else "user"
    if isinstance(unique_id, str) and _UNIQUE[kind].fullmatch(unique_id):
        return unique_id
    raise ValueError("A unique id is what IAM calls UserId (AIDA…) or RoleId (AROA…), and is not the name.")


def unique_id_of(caller: Caller, user_id: str) -> str | None:
    """The unique id in what AWS calls the user id, which has the session's name behind it; None: they disagree."""
    unique_id, colon, session = user_id.partition(":")
    named = session if colon else None
    return unique_id if named == caller.session and _UNIQUE[caller.kind].fullmatch(unique_id) else None
