"""What the tests of leased mode share: stores in front of others, and wrappers that count or forget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rr_ledger import Clock, open_kind
from runrails.ledger import SupportsCorrections
from runrails.stores.draws import DrawsByVerbs
from runrails.stores.leased import LeasedStore
from runrails.stores.leases import Lease
from runrails.testing import FlakyStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runrails.ledger import Correction, FullStore, Settled
    from runrails.stores.draws import Drawing, Drawn

LEASED_KINDS = ("leased-memory", "leased-sqlite", "leased-verbs")
VERBS_CANNOT = {
    "test_expired_hold_is_charged_and_unresolved": "a record written verb by verb has the time of writing",
    "test_settle_lands_in_the_month_that_reserved": "a record written verb by verb has the time of writing",
    "test_records_are_found_by_user_month_and_run": "a record written verb by verb has the time of writing",
    "test_owners_stand_in_replaces_the_clocks": "what the clock ended counts as the owner's word, verb by verb",
}
"""What the contract asks of a leased store, and one in front of a store that cannot draw does not do."""
LEASE = Lease(slice="0.50", ttl_ms=60_000)


class VerbStore(FlakyStore):
    """A store that cannot draw: what is drawn is written by its ordinary verbs."""

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool = False) -> Drawing:
        """By reserve, settle and the like."""
        return DrawsByVerbs(self).draw(slice_id, calls, close=close)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


def open_leased(kind: str, directory: Path, clock: Clock) -> FullStore:
    """A leased store of one kind that remembers nothing of the shared one, so that it can be compared with others."""
    engines = {"leased-sqlite": "sqlite-normal", "leased-dynamodb": "dynamodb"}
    shared = open_kind(engines.get(kind, "memory"), directory, clock)
    return lease_of(VerbStore(shared) if kind == "leased-verbs" else shared, clock)


def lease_of(
    shared: FullStore, clock: Clock, *, lease: Lease = LEASE, stale_ms: int = 0, monotonic: Clock | None = None,
    owns_store: bool = True,
) -> LeasedStore:  # fmt: skip
    """A leased store without a thread, by a clock of the test's own."""
    return LeasedStore(
        shared, lease, clock=clock, monotonic=monotonic or clock, background=False, stale_ms=stale_ms,
        owns_store=owns_store,
    )  # fmt: skip


class WholeFlakyStore(FlakyStore):
    """A failing store that takes corrections too."""

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """See `runrails.ledger.SupportsCorrections.correct`."""
        assert isinstance(self.inner, SupportsCorrections)
        return self.inner.correct(reservation_id, actual, source=source)

    def corrections(self, *, reservation_id: str | None = None) -> Iterator[Correction]:
        """See `runrails.ledger.SupportsCorrections.corrections`."""
        assert isinstance(self.inner, SupportsCorrections)
        return self.inner.corrections(reservation_id=reservation_id)
