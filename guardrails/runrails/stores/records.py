"""
Everything a ledger keeps, record by record: to check its balances by, and to carry it into another engine.

Rates and the accounts of senders are not among it: they are of the moment and of the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from runrails.errors import LedgerError, ReservationMismatch
from runrails.ledger import Account, Correction, RunRecord, State, WarningMark
from runrails.stores import rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runrails.ledger import CallFacts, Refused, ResultFacts

__all__ = [
    "RECORDS_MAX",
    "CodeLimit",
    "Difference",
    "Extra",
    "Held",
    "LedgerRecord",
    "OperatorLimit",
    "PriceCardText",
    "ScopeZone",
    "Summed",
    "SupportsRecords", "SupportsSums",
    "WarningSent",
    "differences",
    "disagreement",
    "unreadable",
]  # fmt: skip

RECORDS_MAX = 200
"""Most records that are put at once."""


class Held(NamedTuple):
    """One account's part of a reservation."""

    account: Account
    amount: int
    """What it holds, or held in the end."""
    asked: int
    """What it was made with: less, if it was raised."""
    charge: int
    """What the account was charged; 0 while it is held."""


class LedgerRecord(NamedTuple):
    """A reservation with all that is kept of it."""

    id: str
    state: State
    at_ms: int
    expires_ms: int
    resolved_ms: int | None
    on_expiry: Literal["charge", "release"]
    holds: tuple[Held, ...]
    actual: int
    stand_in: bool
    corrected: bool
    would_refuse: Refused | None
    facts: CallFacts | None
    result: ResultFacts | None


class CodeLimit(NamedTuple):
    """The limit that code gave an account last."""

    account: Account
    limit: int


class OperatorLimit(NamedTuple):
    """The limit that an operator has set for a scope."""

    scope: str
    unit: str
    limit: int


class WarningSent(NamedTuple):
    """When a warning was claimed."""

    account: Account
    mark: WarningMark
    at_ms: int


class ScopeZone(NamedTuple):
    """In which time zone a scope's months begin."""

    scope: str
    zone: str


class PriceCardText(NamedTuple):
    """The rates that a fingerprint stands for."""

    fingerprint: str
    text: str


Extra = CodeLimit | OperatorLimit | WarningSent | ScopeZone | PriceCardText | Correction | RunRecord


class Summed(NamedTuple):
    """An account at one moment: what its balance says, and what the records add up to."""

    account: Account
    spent: int
    held: int
    spent_by_records: int
    held_by_records: int
    left: tuple[int, int] | None = None
    """What is left as an engine keeps it, and by its limit and amounts; None where it is worked out each time."""
    shortened: bool = False
    """Whether records of it may have been deleted by age: then what is left of them may add up to less."""

    @property
    def unproven(self) -> int:
        """How much of what is spent no record is left of, where records are deleted by age."""
        return max(0, self.spent - self.spent_by_records) if self.shortened else 0


@runtime_checkable
class SupportsSums(Protocol):
    """A store whose balances can be checked by its own records."""

    def sums(self) -> Iterator[Summed]:
        """Every account with what its records add up to, all at one moment of the books."""
        ...


@runtime_checkable
class SupportsRecords(SupportsSums, Protocol):
    """A store that can be read in full, and filled with the records of another one."""

    def records(self) -> Iterator[LedgerRecord]:
        """Every reservation, oldest first."""
        ...

    def extras(self) -> Iterator[Extra]:
        """Everything else that is kept for good."""
        ...

    def put_records(self, records: Sequence[LedgerRecord]) -> int:
        """
        Add records of another store, with their amounts, as they are. All of them or none; how many are new.

        One that is here already, just the same, is left alone.

        Raises:
            ReservationMismatch: One is here with other content.
            LedgerError: An account could not count the sum.
        """
        ...

    def put_extras(self, extras: Sequence[Extra]) -> None:
        """Keep them; again is nothing new. At most `RECORDS_MAX` at once."""
        ...


class Difference(NamedTuple):
    """An account whose balance is not what its records add up to."""

    account: Account
    what: Literal["spent", "held", "left"]
    balance: int
    records: int
    """What it should be."""


def differences(sums: Iterator[Summed]) -> tuple[int, list[Difference]]:
    """How many accounts there are, and what is wrong with them."""
    count, found = 0, list[Difference]()
    for one in sums:
        count += 1
        if one.spent - one.unproven != one.spent_by_records:
            found.append(Difference(one.account, "spent", one.spent, one.spent_by_records))
        if one.held != one.held_by_records:
            found.append(Difference(one.account, "held", one.held, one.held_by_records))
        if one.left is not None and one.left[0] != one.left[1]:
            found.append(Difference(one.account, "left", *one.left))
    return count, found


def disagreement(known: LedgerRecord) -> ReservationMismatch:
    """The error for a record that is there with other content."""
    return ReservationMismatch(
        "A reservation is in both ledgers with other content; nothing of this batch was written.",
        next_step="Migrate into an empty ledger, or into one that this very ledger was migrated into before.",
        reservation_id=known.id,
    )


def unreadable(reservation_id: str) -> LedgerError:
    """The error for a record that is damaged, or of an account that is gone."""
    return LedgerError(
        "A reservation's record is damaged and cannot be read, or its account is gone.",
        next_step="Restore the ledger from a backup.",
        reservation_id=reservation_id,
    )


def change_of(record: LedgerRecord) -> rules.Change | None:
    """What became of it, as the rules say it; None while it is held."""
    if record.state == "held":
        return None
    charges = tuple([hold.charge for hold in record.holds])
    return rules.Change(record.state, charges, record.actual, record.stand_in, record.corrected)
