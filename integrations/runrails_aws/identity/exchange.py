"""A proof for a token: AWS is asked once a login, and every call after that is checked here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from runrails.identity.principal import Principal
    from runrails.secretvalue import Secret
    from runrails_aws.identity.proof import Proof

__all__ = ["TTL_MS", "Exchange", "TokenIssuer", "Verifier"]

TTL_MS = 15 * 60_000
"""How long a token of a login is good; for so long it outlives a grant that is taken back."""
_TTL_MS_MAX = 60 * 60_000


class Verifier(Protocol):
    """Tells who has signed a proof: `AWSIdentity`."""

    def verify(self, proof: Proof | str) -> Principal:
        """Raises Unauthenticated or StoreUnavailable."""
        ...


class TokenIssuer(Protocol):
    """Makes tokens: `runrails.identity.jwt.Tokens`."""

    def issue(self, principal: Principal, ttl_ms: int) -> Secret:
        """A token for somebody, good for `ttl_ms`."""
        ...


class Exchange:
    """
    Gives a token of ours to whoever proves an AWS identity.

    Args:
        identity: Verifies the proof.
        tokens: Issues the token.
        ttl_ms: How long it is good, at most an hour.

    Raises:
        ConfigError: The time is out of range.
    """

    def __init__(self, identity: Verifier, tokens: TokenIssuer, *, ttl_ms: int = TTL_MS) -> None:
        if type(ttl_ms) is not int or not 1_000 <= ttl_ms <= _TTL_MS_MAX:
            raise ConfigError("ttl_ms is out of range.", next_step=f"Give 1,000 to {_TTL_MS_MAX:,} milliseconds.")
        self._identity = identity
        self._tokens = tokens
        self._ttl_ms = ttl_ms

    def exchange(self, proof: Proof | str) -> Secret:
        """A token for whoever has signed the proof. Raises Unauthenticated or StoreUnavailable."""
        from dataclasses import replace

        # The proof ends with its window, the token with its own time.
        principal = replace(self._identity.verify(proof), expires_ms=None)
        return self._tokens.issue(principal, self._ttl_ms)
