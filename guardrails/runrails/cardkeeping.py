"""Keeps the rates behind the fingerprints in the ledger, once a card and guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.ledger import Store, SupportsPriceCards

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.pricing.cards import PriceCard

__all__ = ["CardKeeper"]

_KEPT_MAX = 4_096


class CardKeeper:
    """
    Knows which price cards the store has been given. Thread-safe: giving it one twice does no harm.

    Args:
        store: Where the ledger is; one that keeps no cards is given none.
    """

    def __init__(self, store: Store) -> None:
        self._store = store if isinstance(store, SupportsPriceCards) else None
        self.kept: set[str] = set()
        """Fingerprints of the cards that it was given."""

    def is_new(self, card: PriceCard) -> bool:
        """Whether the card has not been met before."""
        return card.fingerprint not in self.kept

    def keeping(self, card: PriceCard) -> Callable[[], None]:
        """The write that keeps a new card; from now on it is no new one."""
        if len(self.kept) >= _KEPT_MAX:
            self.kept.clear()
        self.kept.add(card.fingerprint)
        store, fingerprint, text = self._store, card.fingerprint, card.text()

        def write() -> None:
            if store is not None:
                store.keep_price_card(fingerprint, text)

        return write
