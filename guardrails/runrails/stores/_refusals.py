"""What a shared store has refused a moment ago, so that a loop of refused calls does not cost a write each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.stores.checks import EXPIRED_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.clocks import Clock
    from runrails.ledger import Account, Refused

__all__ = ["Refusals"]


class Refusals:
    """Thread-safe and bounded. Remembers for `stale_ms` (0: never); nothing is ever admitted by what it remembers."""

    def __init__(self, monotonic: Clock, stale_ms: int) -> None:
        self._monotonic = monotonic
        self._stale_ms = stale_ms
        self._known: dict[tuple[Account, int | None], tuple[int, Refused]] = {}

    def forget(self) -> None:
        """There may be more room now."""
        self._known.clear()

    def note(self, limit: int | None, answer: Refused) -> None:
        """The store has refused a call under that limit from code."""
        if self._stale_ms:
            if len(self._known) >= EXPIRED_MAX:
                self._known.clear()
            self._known[answer.account, limit] = self._monotonic(), answer

    def of(self, asked: Iterable[tuple[Account, int | None, int]]) -> Refused | None:
        """The refusal that a call would get for (account, limit from code, amount), if it is known."""
        if not self._known:
            return None
        for account, limit, amount in asked:
            known = self._known.get((account, limit))
            if known is None:
                continue
            at_ms, answer = known
            if self._monotonic() - at_ms >= self._stale_ms:
                self._known.pop((account, limit), None)
            elif amount > answer.available:
                return answer._replace(needed=amount)
        return None
