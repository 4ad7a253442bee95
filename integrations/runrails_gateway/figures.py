"""What the headers of an answer say of its call: which run, what it cost, what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.money import PUSD_PER_USD

if TYPE_CHECKING:
    from runrails.calls import Permit
    from runrails.run import Run
    from runrails_gateway.config import GatewayConfig
    from runrails_gateway.exchange import Exchange
    from runrails_gateway.upstream.headers import Pairs

__all__ = ["about_call", "about_request", "dollars", "remaining_pusd"]


def about_request(exchange: Exchange) -> Pairs:
    """Which request it was, under the names that the SDKs read."""
    request_id = exchange.id.encode()
    pairs = [(b"x-request-id", request_id)]
    if exchange.dialect.name == "anthropic":
        pairs.append((b"request-id", request_id))
    if exchange.run_id is not None:
        pairs.append((b"x-runrails-run", exchange.run_id.encode()))
    return pairs


def about_call(exchange: Exchange, config: GatewayConfig) -> Pairs:
    """The same for a call that was let through, and what it cost if that is known yet."""
    pairs = about_request(exchange)
    ticket = exchange.ticket
    if ticket is None:
        return pairs
    permit = ticket.permit
    if permit.max_tokens is not None and permit.max_tokens != permit.call.max_tokens:
        pairs.append((b"x-runrails-max-tokens", b"%d" % permit.max_tokens))
    if config.hide_amounts:
        return pairs
    if ticket.settlement is not None:
        pairs.append((b"x-runrails-cost-usd", dollars(ticket.settlement.actual_pusd)))
    left = remaining_pusd(ticket.run, permit)
    if left is not None:
        pairs.append((b"x-runrails-budget-remaining", dollars(max(0, left))))
    return pairs


def remaining_pusd(run: Run, permit: Permit) -> int | None:
    """What is left in the tightest budget of a call; None if it has none, or asking would wait for a network."""
    store = run.guard.store
    if store.remote:
        return None
    drawn = run.accounts.of(permit.by or run.attribution, permit.started_ms)
    left: int | None = None
    for account, in_code in drawn.pairs:
        balance = store.balance(account)
        limit = balance.limit if balance.limit_source == "operator" or in_code is None else in_code
        if limit is not None:
            own = limit - balance.spent - balance.held
            left = own if left is None else min(left, own)
    return left


def dollars(amount_pusd: int) -> bytes:
    """An amount that is not negative, as a plain decimal number."""
    whole, part = divmod(amount_pusd, PUSD_PER_USD)
    return (f"{whole}.{part:012d}".rstrip("0") if part else str(whole)).encode()
