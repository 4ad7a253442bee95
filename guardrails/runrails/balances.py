"""Several accounts at a time, for the price of one where the engine can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.ledger import SupportsBalances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.ledger import Account, Balance, Store

__all__ = ["balances_of"]


def balances_of(store: Store, accounts: Sequence[Account]) -> list[Balance]:
    """The accounts as they stand, in any order. Raises StoreUnavailable or LedgerError."""
    if isinstance(store, SupportsBalances):
        return store.balances_of(accounts)
    return [store.balance(account) for account in accounts]
