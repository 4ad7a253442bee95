"""What a leased store leaves to the shared one: everything that moves no money of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from runrails.errors import ConfigError
from runrails.ledger import SupportsCorrections, SupportsPriceCards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails.deliveries import Delivered, Delivery
    from runrails.ledger import Account, Correction, FullStore, RunRecord, Settled, WarningMark
    from runrails.rates import RateLimiter

__all__ = ["Records"]

_Protocol = TypeVar("_Protocol")


class Records:
    """Verbs that are answered by the shared store as they are."""

    def __init__(self, store: FullStore) -> None:
        self.shared = store
        """The store that many processes share."""
        self.remote = store.remote
        self.path: object = getattr(store, "path", None)
        """Its file, if it is one."""
        self.calls_max: object = getattr(store, "calls_max", None)
        """How many of its verbs may be under way at once, if it says so."""

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """See `runrails.ledger.SupportsCorrections.correct`."""
        return self._as(SupportsCorrections).correct(reservation_id, actual, source=source)  # type: ignore[type-abstract]

    def corrections(self, *, reservation_id: str | None = None) -> Iterator[Correction]:
        """The audit trail of corrections, oldest first."""
        return self._as(SupportsCorrections).corrections(reservation_id=reservation_id)  # type: ignore[type-abstract]

    def limits(self) -> Iterator[tuple[str, str, int]]:
        """(scope, unit, limit) for every limit an operator has set."""
        return self.shared.limits()

    def claim_warning(self, account: Account, mark: WarningMark, *, window_ms: int = 21_600_000) -> bool:
        """True for exactly one caller per account, mark and window: that caller sends."""
        return self.shared.claim_warning(account, mark, window_ms=window_ms)

    def fix_zone(self, scope: str, zone: str) -> str:
        """The scope's zone: the one given at its first use."""
        return self.shared.fix_zone(scope, zone)

    def keep_price_card(self, fingerprint: str, text: str) -> None:
        """Keep a price card's text, if the shared store keeps any."""
        if isinstance(self.shared, SupportsPriceCards):
            self.shared.keep_price_card(fingerprint, text)

    def price_card(self, fingerprint: str) -> str | None:
        """The card's text; None if it was never kept."""
        return self.shared.price_card(fingerprint) if isinstance(self.shared, SupportsPriceCards) else None

    def save_run(self, record: RunRecord) -> None:
        """Keep a run's record; saving the same id again replaces it."""
        self.shared.save_run(record)

    def runs(self, *, user: str | None = None, count_max: int = 100) -> Iterator[RunRecord]:
        """Runs that ended last come first."""
        return self.shared.runs(user=user, count_max=count_max)

    def run(self, run_id: str) -> RunRecord | None:
        """One run, or None."""
        return self.shared.run(run_id)

    def note_delivery(self, sender: str, what: Delivered) -> None:
        """Add up what became of notifications, if the shared store keeps that."""
        from runrails.deliveries import SupportsDeliveries

        if isinstance(self.shared, SupportsDeliveries):
            self.shared.note_delivery(sender, what)

    def deliveries(self) -> Iterator[Delivery]:
        """Every sender's account, by name."""
        from runrails.deliveries import SupportsDeliveries

        return self.shared.deliveries() if isinstance(self.shared, SupportsDeliveries) else iter(())

    def rates(self) -> RateLimiter:
        """The shared store's rate limiter. See `runrails.rates.SupportsRates`."""
        from runrails.rates import SupportsRates

        return self._as(SupportsRates).rates()  # type: ignore[type-abstract]

    def examine(self) -> Iterator[tuple[str, str, str, str]]:
        """What the shared store has to say to `runrails doctor`."""
        examine = getattr(self.shared, "examine", None)
        if examine is not None:
            yield from cast("Iterator[tuple[str, str, str, str]]", examine())

    def _as(self, protocol: type[_Protocol]) -> _Protocol:
        if not isinstance(self.shared, protocol):
            raise ConfigError(
                f"The shared store does not do what {protocol.__name__} asks for.",
                next_step="Lease from a store that does: SQLite, memory or DynamoDB.",
            )
        return self.shared
