"""A credential that is good once, for a token that is good for a quarter of an hour."""

from __future__ import annotations

from dataclasses import replace

from runrails.identity.errors import Forbidden
from runrails_gateway.admin.errors import NotSetUp
from runrails_gateway.admin.models import TokenShown
from runrails_gateway.admin.routing import CallerOf, Endpoint

__all__ = ["TOKENS", "TTL_MS"]

TTL_MS = 15 * 60_000
"""For so long a token outlives a grant that is taken back."""


def exchange_token(caller: CallerOf) -> TokenShown:
    """A token for whoever proves an AWS identity, with which they then call models. API keys and tokens get none: what
    they may spend, and that they are taken back, is no token's to know."""
    if caller.principal.method != "aws":
        raise Forbidden(caller.operation)
    tokens = caller.desk.services.tokens
    if tokens is None:
        raise NotSetUp("This gateway makes no tokens.", next_step="Give it keys to sign them with: RUNRAILS_JWT_KEYS.")
    # The proof ends with its window, the token with its own time.
    principal = replace(caller.principal, expires_ms=None)
    secret = tokens.issue(principal, TTL_MS)
    return TokenShown(
        token=secret.reveal(), expires_s=TTL_MS // 1_000, user=principal.user, org=principal.org,
        scopes=sorted(principal.scopes),
    )  # fmt: skip


TOKENS = (Endpoint("POST", "/tokens", "tokens.exchange", exchange_token, 201, (409,)),)
