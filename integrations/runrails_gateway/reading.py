"""A request's JSON as what it asks for, in the words of the upstream that it goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails_gateway.bedrock.wording import on_bedrock
from runrails_gateway.exchange import header_of

if TYPE_CHECKING:
    from runrails_gateway.config import Upstream
    from runrails_gateway.dialects import Ask
    from runrails_gateway.dialects.base import Body
    from runrails_gateway.exchange import Exchange

__all__ = ["ask_of"]


def ask_of(exchange: Exchange, body: Body, first: Upstream) -> Ask:
    """
    What a request asks for.

    Args:
        exchange: The request.
        body: Its JSON, or what is to be sent in its place.
        first: Who is asked first.

    Raises:
        BadRequest: It is malformed, or asks for what is not served there.
        BoundUnknown: Nobody can tell how much it may cost.
    """
    dialect = exchange.dialect
    ask = dialect.read(
        body, provider=first.provider, place=first.place, region=first.region, retries=first.retries,
        user_agent=header_of(exchange.headers, b"user-agent") or "",
    )  # fmt: skip
    return on_bedrock(dialect, ask) if first.dialect == "bedrock" else ask
