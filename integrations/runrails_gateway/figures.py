"""What the headers of an answer say of its call: which run, what it cost, what is left."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from runrails.balances import balances_of
from runrails.ledger import RUN_PERIOD, SupportsBalances
from runrails.money import PUSD_PER_USD
from runrails.stores.rules import effective_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runrails.calls import Permit
    from runrails.guard import Guard
    from runrails.ledger import Account, Store
    from runrails.run import Run
    from runrails_gateway.config import GatewayConfig
    from runrails_gateway.exchange import Exchange
    from runrails_gateway.upstream.headers import Pairs

    _Left = tuple[Account, int | None, int | None, int, int]
    """An account, its limit from code, that of an operator, what is spent and held."""

__all__ = ["about_call", "about_request", "dollars", "remaining_pusd"]

_UNLIMITED_MS = 5_000
_UNLIMITED_MAX = 10_000


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
    if exchange.spared is not None:
        pairs += exchange.spared.headers
    if permit.max_tokens is not None and permit.max_tokens != permit.call.max_tokens:
        pairs.append((b"x-runrails-max-tokens", b"%d" % permit.max_tokens))
    if config.hide_amounts:
        return pairs
    if ticket.settlement is not None:
        pairs.append((b"x-runrails-cost-usd", dollars(ticket.settlement.actual_pusd)))
    left = remaining_pusd(ticket.run, permit, settled=ticket.settlement is not None)
    if left is not None:
        pairs.append((b"x-runrails-budget-remaining", dollars(max(0, left))))
    return pairs


def remaining_pusd(run: Run, permit: Permit, *, settled: bool = False) -> int | None:
    """
    What is left in the tightest budget of a call; None if it has none, or asking would wait for a network.

    Args:
        run: The call's.
        permit: The call.
        settled: It has just been settled, so that the store may know without being asked anew.
    """
    guard = run.guard
    store = guard.store
    if store.remote:
        return None
    drawn = run.accounts.of(permit.by or run.attribution, permit.started_ms)
    now_ms, unlimited = guard.monotonic(), _unlimited_of(guard)
    if settled and unlimited.left_by is not None:
        told = unlimited.left_by(permit.id)
        if told is not None:
            amounts = {each[0]: each for each in told}
            if amounts.keys() >= dict(drawn.pairs).keys():
                return _tightest(drawn.pairs, amounts)
    left: int | None = None
    codes = {
        account: in_code
        for account, in_code in drawn.pairs
        if in_code is not None or not unlimited.has(account, now_ms)
    }
    for balance in unlimited.ask(tuple(codes)):
        in_code = codes[balance.account]
        limit = balance.limit if balance.limit_source == "operator" or in_code is None else in_code
        if limit is None:
            unlimited.note(balance.account, now_ms)
        else:
            own = limit - balance.spent - balance.held
            left = own if left is None else min(left, own)
    return left


def _tightest(pairs: Iterable[tuple[Account, int | None]], amounts: Mapping[Account, _Left]) -> int | None:
    """The same of accounts whose amounts are known."""
    left: int | None = None
    for account, in_code in pairs:
        _, code, operator, spent, held = amounts[account]
        limit = effective_limit(operator=operator, code=in_code, code_before=code)
        if limit is not None:
            own = limit - spent - held
            left = own if left is None else min(left, own)
    return left


@runtime_checkable
class _TellsLeft(Protocol):
    """A store that knows what its newest settlement has left, as SQLite's."""

    def left_by(self, reservation_id: str) -> tuple[_Left, ...] | None:
        """Every account of a reservation as its settlement has left it, and nobody since; None: ask."""
        ...


class _Unlimited:
    """
    Accounts that nobody has limited, and until when they need not be asked about again: an operator may limit one. What
    a header says is no decision; those ask the ledger every time.
    """

    def __init__(self, store: Store) -> None:
        self._until_ms: dict[Account, int] = {}

        self.left_by = store.left_by if isinstance(store, _TellsLeft) else None
        self.ask = store.balances_of if isinstance(store, SupportsBalances) else partial(balances_of, store)
        """Accounts as they stand."""

    def has(self, account: Account, now_ms: int) -> bool:
        return self._until_ms.get(account, 0) > now_ms

    def note(self, account: Account, now_ms: int) -> None:
        if account.period != RUN_PERIOD:  # Runs are many, and each is asked about a few times only.
            if len(self._until_ms) >= _UNLIMITED_MAX:
                self._until_ms.clear()
            self._until_ms[account] = now_ms + _UNLIMITED_MS


def _unlimited_of(guard: Guard) -> _Unlimited:
    found = guard.adapters.get(_Unlimited)
    if not isinstance(found, _Unlimited):
        found = guard.adapters[_Unlimited] = _Unlimited(guard.store)
    return found


def dollars(amount_pusd: int) -> bytes:
    """An amount that is not negative, as a plain decimal number."""
    whole, part = divmod(amount_pusd, PUSD_PER_USD)
    return (f"{whole}.{part:012d}".rstrip("0") if part else str(whole)).encode()
