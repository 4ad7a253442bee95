"""What a leased store shows: the shared books, with this process's slices counted as what was done with them."""

from __future__ import annotations

from heapq import merge
from typing import TYPE_CHECKING, NamedTuple

from runrails.ledger import Account, Balance, Refused
from runrails.stores._codec import month_bounds
from runrails.stores._refusals import Refusals
from runrails.stores.checks import EXPIRED_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Lock

    from runrails.clocks import Clock
    from runrails.ledger import FullStore, UsageRecord
    from runrails.stores._lease_books import Books, Key
    from runrails.stores._lease_moves import Moves

__all__ = ["Views"]

LOOKS_MAX = 4
"""How often the books are looked at again because something moved meanwhile, before moves are asked to wait."""
PAUSE_S = 1.0
"""How long is waited for moves that have begun."""


class _View(NamedTuple):
    """An account as it was once worked out, and what calls of this process had come to by then."""

    at_ms: int
    balance: Balance
    spent: int
    open: int
    dropped: int
    """Groups that had been forgotten by then: what they had spent counts no more."""


class Views:
    """Thread-safe. Remembers for `stale_ms`; what it remembers is only shown, or refuses: it never admits."""

    def __init__(
        self, shared: FullStore, books: Books, lock: Lock, moves: Moves, *, monotonic: Clock, stale_ms: int
    ) -> None:
        self._shared = shared
        self._books = books
        self._lock = lock
        self._moves = moves
        self._monotonic = monotonic
        self._stale_ms = stale_ms
        self._views: dict[Account, _View] = {}
        self._refusals = Refusals(monotonic, stale_ms)

    def forget(self) -> None:
        """Something was changed in the shared store."""
        self._views.clear()
        self._refusals.forget()

    def refused(self, limit: int | None, answer: Refused) -> None:
        """The shared store has refused a call under that limit from code."""
        self._refusals.note(limit, answer)

    def refusal(self, key: Key, amount: int) -> Refused | None:
        """The refusal that a call would get, if it is known from a moment ago."""
        return self._refusals.of((account, limit, amount) for account, limit in key)

    def balance(self, account: Account) -> Balance:
        """The account as it stands."""
        mono_ms = self._monotonic()
        view = self._views.get(account)
        if view is not None and mono_ms - view.at_ms < self._stale_ms:
            with self._lock:
                spent, open_ = self._books.own(account)
                dropped = self._books.dropped
            if dropped == view.dropped:
                return _with(view.balance, spent - view.spent, open_ - view.open)
        for _ in range(LOOKS_MAX):
            count = self._moves.count
            shown = self._shared.balance(account)
            found = self._seen(mono_ms, shown, count)
            if found is not None:
                return found
        with self._moves.paused(PAUSE_S) as still:
            shown = self._shared.balance(account)
            found = self._seen(mono_ms, shown, self._moves.count) if still else None
        # The store hangs. The shared books show too little as spent and more as held: nobody is stopped by that.
        return found or shown

    def _seen(self, mono_ms: int, shown: Balance, count: int) -> Balance | None:
        """What the shared store has shown, with this process's share; None if something moved since `count` moves."""
        with self._lock:
            if self._moves.under_way or self._moves.count != count:
                return None
            more_spent, more_held = self._books.view(shown.account)
            spent, open_ = self._books.own(shown.account)
            dropped = self._books.dropped
        found = _with(shown, more_spent, more_held)
        if self._stale_ms:
            if len(self._views) >= EXPIRED_MAX:
                self._views.clear()
            self._views[shown.account] = _View(mono_ms, found, spent, open_, dropped)
        return found

    def balances(self, scope: str | None, period: str | None) -> Iterator[Balance]:
        """Every account, newest period first, then by scope and unit."""
        for _ in range(LOOKS_MAX):
            count = self._moves.count
            shown = list(self._shared.balances(scope=scope, period=period))
            with self._lock:
                if not self._moves.under_way and self._moves.count == count:
                    return iter([_with(one, *self._books.view(one.account)) for one in shown])
        with self._moves.paused(PAUSE_S) as still:
            shown = list(self._shared.balances(scope=scope, period=period))
            if not still:
                return iter(shown)
            with self._lock:
                return iter([_with(one, *self._books.view(one.account)) for one in shown])

    def usage(self, user: str | None, period: str | None, run: str | None) -> Iterator[UsageRecord]:
        """Records of calls, oldest first, those that are only known here among them."""
        first_ms, end_ms = month_bounds(period)
        with self._lock:
            records = [call.usage() for call in self._books.calls.values()]
        own = [
            record for record in records
            if record is not None and first_ms <= record.at_ms < end_ms
            and user in (None, record.facts.user) and run in (None, record.facts.run)
        ]  # fmt: skip
        own.sort(key=lambda record: record.at_ms)
        # What is written while the list is made would be in it twice.
        ids = {record.id for record in own}
        shared = (record for record in self._shared.usage(user=user, period=period, run=run) if record.id not in ids)
        return merge(shared, own, key=lambda record: record.at_ms)


def _with(balance: Balance, spent: int, held: int) -> Balance:
    if not spent and not held:
        return balance
    return Balance(
        account=balance.account, limit=balance.limit, spent=max(0, balance.spent + spent),
        held=max(0, balance.held + held), limit_source=balance.limit_source, warn_bp=balance.warn_bp,
    )  # fmt: skip
