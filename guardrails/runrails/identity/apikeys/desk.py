"""
API keys for callers from outside: each verb sees first whether they may.

`ApiKeys` is for who runs on this machine and may do anything. A gateway's routes go through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.identity.apikeys.keys import OVERLAP_MS
from runrails.identity.errors import UnknownKey
from runrails.identity.operations import authorise, authorise_grant, authorise_new
from runrails.identity.principal import check_scopes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.identity.apikeys.keys import ApiKeys
    from runrails.identity.apikeys.records import ApiKeyInfo
    from runrails.identity.principal import Principal
    from runrails.rates import Rates
    from runrails.secretvalue import Secret

__all__ = ["KeyDesk"]


class KeyDesk:
    """
    Manages keys for a principal, who comes from `Authenticator.authenticate`. Safe in many threads; it blocks.

    An administrator of an organisation has to do with its keys only: others' are as if they were not there. Whoever is
    given a secret, of a new key or of one that is rotated, must have all its scopes already. What a key may spend is
    the administrator's to say.
    """

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    def create(
        self, principal: Principal, user: str, *, scopes: Iterable[str], name: str = "", org: str | None = None,
        expires_ms: int | None = None, rates: Rates | None = None, month_pusd: int | None = None,
    ) -> tuple[ApiKeyInfo, Secret]:  # fmt: skip
        """
        Make a key. See `ApiKeys.create`.

        Raises:
            Forbidden: The caller may not make keys, not for that user or organisation, or not with these scopes. An
                administrator of an organisation makes keys for users of whom records say that they belong to it, and
                for themselves; a user's first key is the platform's to make.
            ValueError: A scope does not exist.
            ConfigError: Something is malformed, or over already.
            StoreUnavailable: The store is out of reach.
        """
        wanted = check_scopes(scopes)
        _authorise_within(principal, "keys.create")  # before anything is looked up
        user_org = self.org_of(principal, user)
        authorise_new(principal, "keys.create", scopes=wanted, user=user, org=org, user_org=user_org)
        return self._keys.create(
            user, scopes=wanted, name=name, org=org, expires_ms=expires_ms, rates=rates, month_pusd=month_pusd
        )

    def list(self, principal: Principal, user: str | None = None) -> list[ApiKeyInfo]:
        """Keys of a user, or all, as far as they are in reach. Raises Forbidden, ConfigError, StoreUnavailable."""
        _authorise_within(principal, "keys.list")
        return [info for info in self._keys.list(user) if principal.org in (None, info.org)]

    def show(self, principal: Principal, key_id: str) -> ApiKeyInfo:
        """What is known of a key. Raises Forbidden, UnknownKey, ConfigError, StoreUnavailable."""
        return self._reached(principal, "keys.show", key_id)

    def suspend(self, principal: Principal, key_id: str) -> ApiKeyInfo:
        """Take a key no more until it is resumed. Raises like `show`."""
        self._reached(principal, "keys.suspend", key_id)
        return self._keys.suspend(key_id)

    def resume(self, principal: Principal, key_id: str) -> ApiKeyInfo:
        """Take a suspended key again. Raises like `show`."""
        self._reached(principal, "keys.resume", key_id)
        return self._keys.resume(key_id)

    def revoke(self, principal: Principal, key_id: str) -> ApiKeyInfo:
        """Never take a key again. Raises like `show`."""
        self._reached(principal, "keys.revoke", key_id)
        return self._keys.revoke(key_id)

    def rotate(self, principal: Principal, key_id: str, overlap_ms: int = OVERLAP_MS) -> tuple[ApiKeyInfo, Secret]:
        """
        Give a key another secret. See `ApiKeys.rotate`.

        Raises:
            Forbidden: The caller may not rotate keys, or not one of these scopes: the new secret would have them.
            UnknownKey: There is none in reach.
            ConfigError: It is revoked, or from an older platform.
            StoreUnavailable: The store is out of reach.
        """
        authorise_grant(principal, "keys.rotate", self._reached(principal, "keys.rotate", key_id).scopes)
        return self._keys.rotate(key_id, overlap_ms)

    def org_of(self, principal: Principal, user: str) -> str | None:
        """
        The organisation of a user as records say: that of all their keys, of oneself that of one's credential.

        None: of none, of several, or nobody knows. Raises ConfigError, StoreUnavailable.
        """
        if user == principal.user or principal.org is None:  # the platform reaches everybody: nothing to look up
            return principal.org
        orgs = {info.org for info in self._keys.list(user)}
        return orgs.pop() if len(orgs) == 1 else None

    def _reached(self, principal: Principal, operation: str, key_id: str) -> ApiKeyInfo:
        """A key that the caller may do this to. One out of reach is as if it were not there."""
        _authorise_within(principal, operation)
        info = self._keys.show(key_id)
        if principal.org not in (None, info.org):
            raise UnknownKey
        return info


def _authorise_within(principal: Principal, operation: str) -> None:
    """See that somebody may do this at all, within their own organisation or for the platform. Raises Forbidden."""
    authorise(principal, operation, owner=None if principal.org is None else f"org:{principal.org}")
