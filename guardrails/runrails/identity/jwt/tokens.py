"""Making tokens, taking them, and taking them back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt.keyset import KeySet, verify
from runrails.identity.jwt.revocation import CACHE_MS_MAX, Revocations
from runrails.identity.jwt.strict import (
    LEEWAY_S,
    LIFETIME_S_MAX,
    TYP,
    TYPE,
    check_claims,
    encode_segment,
    read_envelope,
)
from runrails.identity.principal import Principal
from runrails.ids import check_id, new_id
from runrails.secretvalue import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.documents import DocumentStore
    from runrails.identity.jwt.keyset import Keys
    from runrails.identity.jwt.strict import Claims

__all__ = ["TTL_MS", "Tokens"]

TTL_MS = 900_000
"""A quarter of an hour: what a service asks for again without anybody noticing."""
_NAME_CHARS_MAX = 256


class Tokens:
    """
    Tokens of one issuer for one audience.

    Args:
        keys: What they are signed and verified with: a `KeySet`, or `RemoteKeys` where another service signs.
        issuer: Who makes them; a token must name it letter by letter.
        audience: Whom they are for; likewise, and alone.
        clock: Wall clock in milliseconds since the epoch.
        documents: Where revocations are kept, for all processes.
        cache_ms: So long, at most 5,000, a revocation may go unseen.
        make_id: Makes the tokens' ids.
        monotonic: What `cache_ms` is timed by.

    Raises:
        ConfigError: A name is empty, too long or not printable ASCII.
    """

    def __init__(
        self,
        keys: Keys,
        issuer: str,
        audience: str,
        *,
        documents: DocumentStore,
        clock: Clock = system_ms,
        cache_ms: int = CACHE_MS_MAX,
        make_id: Callable[[], str] = new_id,
        monotonic: Clock = monotonic_ms,
    ) -> None:
        self._keys = keys
        self._issuer = _check_name(issuer, "issuer")
        self._audience = _check_name(audience, "audience")
        self._clock = clock
        self._revocations = Revocations(documents, clock=clock, cache_ms=cache_ms, monotonic=monotonic)
        self._make_id = make_id
        self.waits = not isinstance(keys, KeySet) or bool(getattr(documents, "remote", True))
        """Whether `verify` may wait for a network: then no event loop may call it."""

    def issue(self, principal: Principal, ttl_ms: int = TTL_MS) -> Secret:
        """
        Make a token for somebody.

        Args:
            principal: Who, and what they may do. It outlives nobody: if their own credential ends, so does the token.
                Of somebody who came with a token it has that one's id, so that both are taken back at once.
            ttl_ms: How long it is good for, at most an hour; it counts whole seconds.

        Raises:
            ValueError: The time is out of range, there is no scope, or the principal has limits of an API key, which a
                token cannot carry.
            ConfigError: This process has no key to sign with.
        """
        if not isinstance(self._keys, KeySet) or self._keys.signer is None:
            raise ConfigError("This process has no key to sign tokens with.", next_step="Give it a private key.")
        claims = self._claims(principal, ttl_ms)
        header = {"alg": self._keys.signer.alg, "kid": self._keys.signer.kid, "typ": TYP}
        signed = f"{_segment(header)}.{_segment(claims)}"
        # All names have a limit, so it is never longer than what is taken.
        return Secret(f"{signed}.{encode_segment(self._keys.sign(signed.encode()))}")

    def verify(self, text: str) -> Principal:
        """
        Who somebody is who presents this token.

        Raises:
            Unauthenticated: It is none of ours, or none any more.
            StoreUnavailable: Nobody knows whether it was revoked.
        """
        claims = self._read(text)
        if self._revocations.has(claims.jti):
            raise Unauthenticated("token-revoked")
        return _principal(claims)

    def recall(self, text: str) -> Principal | None:
        """
        The same where nobody has to be asked: own keys, and a store that was asked a moment ago; else None.

        It waits for nothing, so an event loop may call it.

        Raises:
            Unauthenticated: It is none of ours, or none any more.
        """
        if not isinstance(self._keys, KeySet):
            return None
        claims = self._read(text)
        return _principal(claims) if self._revocations.is_known_good(claims.jti) else None

    def revoke(self, jti: str) -> None:
        """
        Take a token back, by its id (`Principal.session_id`). In every process it ends within five seconds.

        Raises:
            ValueError: It is no id.
            StoreUnavailable: It may still be good; try again.
        """
        self._revocations.revoke(jti)

    def _read(self, text: str) -> Claims:
        """What a token of ours says that is good by itself. Raises Unauthenticated."""
        envelope = read_envelope(text)
        verify(envelope, self._keys)
        return check_claims(envelope, issuer=self._issuer, audience=self._audience, now_ms=self._clock())

    def _claims(self, principal: Principal, ttl_ms: int) -> dict[str, object]:
        if not 1_000 <= ttl_ms <= LIFETIME_S_MAX * 1_000:
            raise ValueError(f"A token is good for 1 to {LIFETIME_S_MAX:,} seconds.")
        if not principal.scopes:
            raise ValueError("A token without a scope would be good for nothing.")
        if principal.key_id is not None or principal.rates is not None or principal.month_pusd is not None:
            raise ValueError("A token cannot carry the limits of an API key; use the key itself.")
        now_s = self._clock() // 1_000
        expires_s = now_s + ttl_ms // 1_000
        if principal.expires_ms is not None:
            # A token for somebody who came with a token must not gain the leeway of that one.
            leeway_s = LEEWAY_S if principal.method == "jwt" else 0
            expires_s = min(expires_s, principal.expires_ms // 1_000 - leeway_s)
        if expires_s <= now_s:
            raise ValueError("This principal's own credential has expired.")
        # Whoever stole a token could else have it exchanged, and keep what came of it when the first is taken back.
        came_with = principal.session_id if principal.method == "jwt" else None
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": principal.user,
            "iat": now_s,
            "exp": expires_s,
            "jti": check_id(came_with or self._make_id(), what="A token's id"),
            "type": TYPE,
            "scopes": sorted(principal.scopes),
        }
        return claims if principal.org is None else {**claims, "org": principal.org}


def _principal(claims: Claims) -> Principal:
    return Principal(
        user=claims.user,
        org=claims.org,
        scopes=claims.scopes,
        method="jwt",
        session_id=claims.jti,
        expires_ms=(claims.expires_s + LEEWAY_S) * 1_000,
    )


def _segment(value: object) -> str:
    return encode_segment(json.dumps(value, separators=(",", ":")).encode())


def _check_name(name: str, what: str) -> str:
    if not name.isascii() or not name.isprintable() or " " in name or not 0 < len(name) <= _NAME_CHARS_MAX:
        raise ConfigError(
            f"The {what} of tokens must be 1 to {_NAME_CHARS_MAX} printable ASCII characters without blanks.",
            next_step=f"Name the {what} by a URL or a short word.",
        )
    return name
