"""What a store on DynamoDB can be asked beside its verbs; everything is checked here, and found in the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.stores import checks, rules
from runrails_aws.dynamodb.deliveries import Deliveries
from runrails_aws.dynamodb.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runrails.deliveries import Delivered, Delivery
    from runrails.ledger import Account, Balance, Correction, RunRecord, UsageRecord, WarningMark
    from runrails.stores.records import Extra, LedgerRecord, Summed
    from runrails_aws.dynamodb.archive import Archive

__all__ = ["Shelf"]


class Shelf:
    """Balances, limits, warnings, usage, runs, and the whole ledger record by record."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._records = Records(archive)
        self._deliveries = Deliveries(archive.table, archive.caller, archive.now_ms)

    def balance(self, account: Account) -> Balance:
        """The account as it stands; zeroes if it has never been used."""
        checks.check_account(account)
        return self._archive.balance(account)

    def balances(self, *, scope: str | None = None, period: str | None = None) -> Iterator[Balance]:
        """Every account, newest period first, then by scope and unit. Without a scope it reads the whole table."""
        return self._archive.balances(scope, period)

    def set_limit(self, scope: str, limit: int | None, *, unit: str = rules.MONEY) -> None:
        """Set or remove (None) the operator's limit of a scope in every period."""
        checks.check_limit_key(scope, unit)
        if limit is not None:
            checks.check_amount(limit, what=f"The limit of {scope}")
        self._archive.set_limit(scope, limit, unit)

    def limits(self) -> Iterator[tuple[str, str, int]]:
        """(scope, unit, limit) for every limit an operator has set, in order of scope and unit."""
        return self._archive.limits()

    def claim_warning(self, account: Account, mark: WarningMark, *, window_ms: int = 21_600_000) -> bool:
        """True for exactly one caller per account, mark and window: that caller sends."""
        checks.check_account(account)
        checks.check_warning(mark, window_ms)
        return self._archive.claim_warning(account, mark, window_ms)

    def usage(
        self, *, user: str | None = None, period: str | None = None, run: str | None = None
    ) -> Iterator[UsageRecord]:
        """Records of calls, oldest first; `period` is a month like ``2026-11`` in UTC. Reads the whole table."""
        return self._archive.usage(user, period, run)

    def usage_since(self, first_ms: int) -> Iterator[UsageRecord]:
        """
        Calls that were reserved at that moment (milliseconds since the epoch) or later, oldest first.

        Reads the whole table, of which only these come over the network. Keys tell calls of a user or of a run by time,
        those of all users they do not: that would take an index of the month's accounts, sparse and of keys alone, and
        then a query for each user and place; an index of all calls by time would be a unit more for every call.
        """
        return self._archive.usage_since(first_ms)

    def open_calls(self, count_max: int) -> list[UsageRecord]:
        """Calls in flight, oldest first: a read for each part of the index of open holds, and one for 100 calls."""
        checks.check_count(count_max, what="count_max")
        return self._archive.open_calls(count_max)

    def corrections(self, *, reservation_id: str | None = None) -> Iterator[Correction]:
        """The audit trail of corrections, oldest first."""
        return self._archive.corrections(reservation_id)

    def fix_zone(self, scope: str, zone: str) -> str:
        """The scope's zone: the one given at its first use."""
        checks.check_zone_of(scope, zone)
        return self._archive.fix_zone(scope, zone)

    def keep_price_card(self, fingerprint: str, text: str) -> None:
        """Keep a price card's text."""
        checks.check_price_card(fingerprint, text)
        self._archive.keep_price_card(fingerprint, text)

    def price_card(self, fingerprint: str) -> str | None:
        """The card's text; None if it was never kept."""
        return self._archive.price_card(fingerprint)

    def save_run(self, record: RunRecord) -> None:
        """Keep a run's record; saving the same id again replaces it."""
        self._archive.save_run(record)

    def runs(self, *, user: str | None = None, count_max: int = 100) -> Iterator[RunRecord]:
        """Runs that ended last come first."""
        checks.check_count(count_max, what="count_max")
        return self._archive.runs(user, count_max)

    def run(self, run_id: str) -> RunRecord | None:
        """One run, or None."""
        return self._archive.run(run_id)

    def note_delivery(self, sender: str, what: Delivered) -> None:
        """Add up what became of notifications. See `runrails.deliveries.SupportsDeliveries`."""
        self._deliveries.note(sender, what)

    def deliveries(self) -> Iterator[Delivery]:
        """Every sender's account, by name."""
        return self._deliveries.all()

    def sums(self) -> Iterator[Summed]:
        """
        Every account with what its records add up to. See `runrails.stores.records.SupportsSums`.

        There is no one moment of a whole table: it is read again, up to five times, while accounts change meanwhile.
        """
        return self._records.sums()

    def records(self) -> Iterator[LedgerRecord]:
        """Every reservation, oldest first. Reads the whole table."""
        return self._records.read()

    def extras(self) -> Iterator[Extra]:
        """Everything else that is kept for good. Reads the whole table."""
        return self._records.extras()

    def put_records(self, records: Sequence[LedgerRecord]) -> int:
        """
        Add records of another store. See `runrails.stores.records.SupportsRecords.put_records`.

        None is written before all are known to fit; then some ninety at a time are, with their accounts. What was
        interrupted goes on when it is put again.
        """
        return self._records.put(records)

    def put_extras(self, extras: Sequence[Extra]) -> None:
        """Keep them; again is nothing new."""
        self._records.put_extras(extras)
