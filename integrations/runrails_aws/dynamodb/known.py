"""What a process remembers of the table, so that common verbs need one request: bounded, never believed alone."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails.ledger import Account
    from runrails_aws.dynamodb.items import Found

__all__ = ["KNOWN_MAX", "Known"]

KNOWN_MAX = 10_000


class Known:
    """Accounts that are in the table, and this process's open reservations. Every write checks that they still are."""

    def __init__(self) -> None:
        self.accounts: set[Account] = set()
        self._open: dict[str, Found] = {}
        self._lock = Lock()

    def keep(self, found: Found) -> None:
        """A reservation was made or raised."""
        with self._lock:
            if len(self.accounts) > KNOWN_MAX:
                self.accounts = set()
            self.accounts.update(found.accounts)
            self._open[found.entry.id] = found
            if len(self._open) > KNOWN_MAX:
                del self._open[next(iter(self._open))]

    def get(self, reservation_id: str) -> Found | None:
        """The reservation, if it is remembered."""
        return self._open.get(reservation_id)

    def drop(self, reservation_id: str) -> bool:
        """Forget a reservation; whether it was remembered."""
        with self._lock:
            return self._open.pop(reservation_id, None) is not None

    def forget(self, account: Account) -> None:
        """The account is not there, or not as it was thought to be."""
        with self._lock:
            self.accounts.discard(account)
