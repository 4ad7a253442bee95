"""From an identity that AWS has named to a principal: the grant, and whether it is still the same user or role."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from runrails.documents import Address
from runrails.identity.errors import Unauthenticated
from runrails.identity.principal import Principal
from runrails_aws.identity.arns import caller_of, check_grant_arn, unique_id_of
from runrails_aws.identity.grants import Grants

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.documents import DocumentStore
    from runrails_aws.identity.answer import CallerIdentity
    from runrails_aws.identity.grants import Grant

__all__ = ["SEEN_KIND", "Roster"]

SEEN_KIND = "aws-identity"
"""Documents that keep which unique id came first under a name."""


class Roster:
    """
    Who may come in. Safe in many threads.

    Args:
        grants: Whom each identity is here.
        documents: Where it is remembered which unique id a name had when it was seen first.
    """

    def __init__(self, grants: Grants | Iterable[Grant], documents: DocumentStore) -> None:
        self._grants = grants if isinstance(grants, Grants) else Grants(grants)
        self._documents = documents

    def admit(
        self, identity: CallerIdentity, *, partition: str | None = None, expires_ms: int | None = None
    ) -> Principal:
        """
        The principal an identity is here.

        Args:
            identity: What AWS has said.
            partition: The partition it must be of; None: any.
            expires_ms: Until when this is proof.

        Raises:
            Unauthenticated: It is none; `reason` is for the operator.
            StoreUnavailable: Nobody knows whether it is the same user or role as before.
        """
        caller = caller_of(identity.arn)
        if caller is None:
            raise Unauthenticated("aws_kind_not_taken")
        unique_id = unique_id_of(caller, identity.user_id)
        if unique_id is None or identity.account != caller.account:
            raise Unauthenticated("aws_answer_inconsistent")
        if partition not in (None, caller.partition):
            raise Unauthenticated("aws_partition_wrong")
        grant = self._grants.of(caller.arn)
        if grant is None:
            raise Unauthenticated("aws_not_granted")
        if not self._is_the_same(grant, caller.account, unique_id):
            raise Unauthenticated("aws_id_changed")
        return Principal(
            user=grant.user, org=grant.org, scopes=frozenset(grant.scopes), method="aws", session_id=unique_id,
            expires_ms=expires_ms,
        )  # fmt: skip

    def forget(self, arn: str) -> bool:
        """
        Forget which unique id a name had, so that the next one is taken: the operator has made it anew.

        Raises:
            ValueError: It is not the ARN of a user or role.
            StoreUnavailable: The documents cannot be reached.
        """
        address = _seen(check_grant_arn(arn).split(":")[4], arn)
        document = self._documents.get(address)
        return document is not None and self._documents.delete(address, expected=document.version)

    def _is_the_same(self, grant: Grant, account: str, unique_id: str) -> bool:
        """Whether no other user or role has had this name before: one made anew inherits nothing."""
        if grant.unique_id is not None:
            return grant.unique_id == unique_id
        address = _seen(account, grant.arn)
        mine = f"{unique_id} {grant.arn}".encode()
        document = (
            self._documents.get(address)
            or self._documents.put(address, mine, expected=0)
            or self._documents.get(address)  # somebody else was first
        )
        return document is not None and document.data == mine


def _seen(account: str, arn: str) -> Address:
    # Colons and slashes are no part of a document's name.
    return Address(SEEN_KIND, account, sha256(arn.encode()).hexdigest())
