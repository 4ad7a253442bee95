"""Who sends a request: asked before anything of its body is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails import aio
from runrails_gateway.exchange import check_headers

if TYPE_CHECKING:
    from runrails.identity.principal import Principal
    from runrails_gateway.config import GatewayConfig
    from runrails_gateway.exchange import Headers

__all__ = ["caller_of"]


async def caller_of(config: GatewayConfig, headers: Headers) -> Principal:
    """
    Whom the one credential in a request's headers proves. What may wait for a network is asked off the event loop.

    Raises:
        BadRequest: The headers are malformed, or announce what is not taken.
        AuthError, StoreUnavailable: As `Authenticator.authenticate`.
    """
    check_headers(headers, config.limited)
    authenticator = config.authenticator
    if not (authenticator.waits or config.authentication_waits):
        return authenticator.authenticate(headers)
    known = authenticator.recall(headers)
    return known if known is not None else await aio.off_loop(config.guard, authenticator.authenticate, headers)
