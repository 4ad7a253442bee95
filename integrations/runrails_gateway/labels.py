"""What callers say about a request beside what it asks for, as tags of its usage record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runrails.attribution import Attribution
from runrails.errors import ConfigError
from runrails_gateway.exchange import header_of

if TYPE_CHECKING:
    from runrails.calls import ModelCall
    from runrails_gateway.exchange import Exchange

__all__ = ["KIND", "RESENT", "labelled", "note_resent"]

RESENT = "sdk_retry"
"""The tag that says how often the client's SDK had sent a request before."""
KIND = "kind"
"""The tag that names a call's kind, as `Downgrade(kinds=…)` has it."""
_COUNT, _KIND = b"x-stainless-retry-count", b"x-runrails-kind"
_DIGITS_MAX = 2


def note_resent(exchange: Exchange) -> None:
    """Note how often the client says that it has sent a request before. Nothing is decided by that."""
    for name, value in exchange.headers:
        if name == _COUNT and value != b"0" and value.isdigit() and len(value) <= _DIGITS_MAX:
            exchange.resent = int(value)


def labelled(call: ModelCall, exchange: Exchange, *, kinds: bool) -> ModelCall:
    """
    The call with its tags; the same for nearly all.

    Args:
        call: The call.
        exchange: The request.
        kinds: Whether its kind is of any use.
    """
    tags = {RESENT: str(exchange.resent)} if exchange.resent else {}
    kind = header_of(exchange.headers, _KIND) if kinds else None
    if kind:
        tags[KIND] = kind
    if not tags:
        return call
    try:
        by = Attribution(tags=tags)
    except (ConfigError, ValueError, TypeError):
        return call  # It is no tag: the call goes on without.
    return replace(call, by=by if call.by is None else by.over(call.by))
