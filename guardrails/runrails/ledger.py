"""
The words and rules of the ledger, and what a store must do.

A *reservation* takes *holds* in several *scopes* at once, or none of them. It is later *settled* (the hold is replaced
by what the call did cost), *released* (with proof that nothing was sent) or *expires* (its owner died: charged at the
hold and marked unresolved, because the money may be spent). The caller makes the id, so every verb can be repeated
safely: the same id with the same content gets the first answer again; with other content it is an error and changes
nothing. The period (a calendar month) is part of the account's key, so there is no reset.

States of a reservation::

    held ──settle──> settled            terminal
    held ──release─> released           terminal
    held ──expire──> unresolved         charged at the hold (or given back with on_expiry="release")
    held ──settle(unresolved=True)──> unresolved
    unresolved ──settle──> late         terminal; corrects the charge exactly
    unresolved ──settle(unresolved=True)──> unresolved
                                        once, after an expiry: the owner's stand-in replaces the clock's
    any but held ──correct──> settled or late
                                        by the provider's bill, which stands from then on

Per account and at every moment: ``available + held + spent = limit``, and ``held`` is the sum of the open holds.

Sources: TigerBeetle's two-phase transfers (pending, posted, voided; at most one resolution) and the exact DynamoDB
expressions that the same rules need. We depart from TigerBeetle in one place, knowingly: a provider's bill may exceed
the hold, and then it is recorded in full and the next reservation is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from runrails.values import value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runrails.attribution import Tags
    from runrails.showing.terminal import Sheet
    from runrails.usage import Usage

__all__ = [
    "AMOUNT_MAX", "RUN_PERIOD", "Account", "Balance", "CallFacts", "Correction", "Discount", "Expired", "FullStore",
    "Hold", "Refused", "Reservation", "Reserved", "ResultFacts", "RunArchive", "RunRecord", "Settled", "State",
    "Store", "SupportsBalances", "SupportsCorrections", "SupportsExtend", "SupportsLimits", "SupportsPriceCards",
    "SupportsRaise", "SupportsUsage", "SupportsWarnings", "SupportsZones", "UsageRecord",
]  # fmt: skip

AMOUNT_MAX = 2**63 - 1
"""Largest amount any engine takes: $9.22 million in picodollars, and SQLite's largest integer."""
RUN_PERIOD = "-"
"""The period of scopes that have no calendar."""
SCOPES_MAX = 16
"""Most holds in one reservation."""

State = Literal["held", "settled", "released", "unresolved", "late"]
Status = Literal["active", "warning", "blocked"]
WarningMark = Literal["warning", "limit"]


class Account(NamedTuple):
    """Whose money (`user:alice`), in which period (`2026-11`, `-` for runs), counted in what (`pusd`)."""

    scope: str
    period: str
    unit: str = "pusd"


class Hold(NamedTuple):
    """One account's part of a reservation."""

    account: Account
    amount: int
    limit: int | None = None
    """
    The limit that code gives this account, in its unit. It is applied to the balance (the newest value wins) unless an
    operator has set one, which always wins. None means that the code has no opinion, not that there is no limit.
    """


@value
class CallFacts:
    """What is known of a call before it starts; becomes part of its usage record."""

    user: str
    run: str
    step: int = 0
    key: str | None = None
    org: str | None = None
    provider: str = ""
    model: str = ""
    request_type: str = "completion"
    endpoint: str = ""
    user_agent: str = ""
    agent: str = ""
    byok: bool = False
    credential: str = ""
    """Which key of the vault paid, as `user:alice/openai/default`; empty for the platform's own."""
    price_card: str = ""
    """Fingerprint of the price card the bound was made with."""
    tags: Tags = ()
    """What the call is for: names and values, in order of the names."""
    input_bound_tokens: int = 0
    """The most input tokens that it was expected to have; 0 in records of calls for which nobody told."""
    markup_bp: int = 0
    """What is charged on top of the provider's price, in basis points; nothing if the key is the user's own."""


class Discount(NamedTuple):
    """What a contract took off a call's list price."""

    pusd: int
    """Negative for a surcharge."""
    list_card: str
    """Fingerprint of the price card without the contract."""


@value
class ResultFacts:
    """What is known of a call after it ended."""

    end: str = "completed"
    usage: Usage | None = None
    model: str | None = None
    duration_ms: int = 0
    price_card: str = ""
    """Fingerprint of the price card the cost was made with, if it is another than the bound's."""
    answer_id: str | None = None
    """The provider's own id of its answer, by which its bill may name the call."""
    discount: Discount | None = None


class Reservation(NamedTuple):
    """A request to take holds in every account named, or in none."""

    id: str
    holds: tuple[Hold, ...]
    ttl_ms: int = 120_000
    facts: CallFacts | None = None
    on_expiry: Literal["charge", "release"] = "charge"
    enforce: bool = True
    """False (observe mode): take the holds whatever the limits say, and report the refusal that would have been."""


class Reserved(NamedTuple):
    """The holds are taken."""

    id: str
    state: State = "held"
    """Not `held` if this is a replay of a reservation that has since been resolved."""
    replayed: bool = False
    would_refuse: Refused | None = None
    """With `enforce=False`: the refusal that enforcing would have given."""


class Refused(NamedTuple):
    """One account has no room. Nothing was taken anywhere."""

    account: Account
    limit: int
    spent: int
    held: int
    needed: int

    @property
    def available(self) -> int:
        """What is left: limit − spent − held. Negative after an overrun."""
        return self.limit - self.spent - self.held

    @property
    def only_held(self) -> bool:
        """Whether the call would fit if every open hold were given back."""
        return self.limit - self.spent >= self.needed


class Settled(NamedTuple):
    """A reservation's resolution."""

    id: str
    state: State
    actual: int
    """What was charged, in picodollars."""
    held: int
    """What had been held."""
    replayed: bool = False

    @property
    def overrun(self) -> int:
        """How far the actual cost exceeded the hold, in picodollars; 0 if it did not."""
        return max(0, self.actual - self.held)


class Expired(NamedTuple):
    """Which reservations this very call resolved; ones that somebody else resolved are not named."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An account at one moment."""

    account: Account
    limit: int | None
    """None: nobody has set a limit; the account is only counted."""
    spent: int
    held: int
    limit_source: Literal["none", "code", "operator"] = "none"
    warn_bp: int = 8_000
    """The warning mark in basis points of the limit."""

    @property
    def available(self) -> int | None:
        """limit − spent − held; None without a limit, negative after an overrun."""
        return None if self.limit is None else self.limit - self.spent - self.held

    @property
    def status(self) -> Status:
        """Computed from the amounts, never stored: `blocked`, `warning` (80 % spent or held) or `active`."""
        if self.limit is None:
            return "active"
        if self.spent + self.held >= self.limit:
            return "blocked"
        return "warning" if (self.spent + self.held) * 10_000 >= self.limit * self.warn_bp else "active"

    def __str__(self) -> str:
        """In one line."""
        from runrails.showing.balances import balance_text

        return balance_text(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from runrails.showing.balances import balance_html

        return balance_html(self)

    def __rich__(self) -> Sheet:
        """For terminals, with Rich."""
        from runrails.showing.balances import balance_rich

        return balance_rich(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One model call in the books."""

    id: str
    state: State
    at_ms: int
    """When it was reserved, milliseconds since the epoch, UTC."""
    settled_at_ms: int | None
    estimated_pusd: int
    """The hold."""
    actual_pusd: int | None
    """None while the call is in flight."""
    facts: CallFacts
    result: ResultFacts | None
    corrected: bool = False
    """The amount is what the provider has billed; see `SupportsCorrections`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One line of the audit trail: an amount in the books gave way to a provider's bill."""

    reservation_id: str
    at_ms: int
    source: str
    """Who corrected it, by which bill."""
    state_before: State
    before_pusd: int
    after_pusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run in the books, written when it ends."""

    id: str
    name: str
    user: str
    started_ms: int
    ended_ms: int
    mode: str
    stop_reason: str | None
    report: Mapping[str, object]
    """The report as `Report.as_dict()` gives it."""


class Store(Protocol):
    """
    An engine of the ledger. Every verb is atomic, thread-safe and repeatable, and raises `StoreUnavailable` with
    nothing written if the engine cannot be reached. Time is the store's own (its injected clock), never the caller's.
    """

    remote: bool
    """True if a verb crosses a network; such a store is never called on an event loop."""

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        """Take every hold or none. Expires at most 64 overdue reservations on the way."""
        ...

    def settle(
        self,
        reservation_id: str,
        actual: int,
        *,
        units: Mapping[str, int] | None = None,
        result: ResultFacts | None = None,
        unresolved: bool = False,
    ) -> Settled:
        """
        Replace the holds by what the call really cost, in the period that reserved it. May exceed the hold.

        Args:
            reservation_id: Id given to `reserve`.
            actual: Cost in picodollars; applies to every account whose unit is `pusd`.
            units: Actual amounts of other units; a unit that was held and is not named settles at its hold.
            result: What is known of the call's end, for its usage record.
            unresolved: The amount is a stand-in (a cut stream, a timeout): a later settle corrects it exactly.

        Raises:
            UnknownReservation: No reservation with this id was ever made.
            ReservationMismatch: It was already resolved with another amount, or released.
        """
        ...

    def release(self, reservation_id: str) -> Settled:
        """Give the holds back: only with proof that nothing was sent. Raises like `settle`."""
        ...

    def expire(self, *, count_max: int = 64) -> Expired:
        """Resolve overdue reservations by the store's own clock. Returns the ones this call resolved."""
        ...

    def balance(self, account: Account) -> Balance:
        """The account as it stands; zeroes and no limit if it has never been used."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Open holds stay and expire. Closing twice is fine."""
        ...


@runtime_checkable
class SupportsExtend(Protocol):
    """A store whose holds can be kept alive while a call is in flight."""

    def extend(self, reservation_id: str, *, ttl_ms: int) -> bool:
        """Let the hold live `ttl_ms` from now. False if it is no longer open."""
        ...


@runtime_checkable
class SupportsRaise(Protocol):
    """A store whose holds can grow while a call is in flight."""

    def raise_hold(self, reservation_id: str, amount: int, *, enforce: bool = True) -> Reserved | Refused:
        """
        Let an open reservation hold `amount` picodollars in every account of money where it holds less, or in none.

        It never lowers a hold, so asking again changes nothing. The reservation stays one: it is settled, released or
        expires with what it holds by then, and made again it is still answered by what it first asked for.

        Returns:
            The refusal of an account without room for the difference (`needed`), or the reservation; with another state
            than `held` it has been resolved, and nothing was raised.

        Raises:
            UnknownReservation: No reservation with this id was ever made.
        """
        ...


@runtime_checkable
class SupportsLimits(Protocol):
    """A store in which an operator can set limits, which win over those in code."""

    def set_limit(self, scope: str, limit: int | None, *, unit: str = "pusd") -> None:
        """Set the operator's limit of a scope for every period; None removes it. May be below what is spent."""
        ...

    def limits(self) -> Iterator[tuple[str, str, int]]:
        """(scope, unit, limit) for every limit an operator has set."""
        ...

    def balances(self, *, scope: str | None = None, period: str | None = None) -> Iterator[Balance]:
        """Every account, newest period first, or those of one scope or period."""
        ...


@runtime_checkable
class SupportsBalances(Protocol):
    """A store that tells of several accounts for the price of one."""

    def balances_of(self, accounts: Sequence[Account]) -> list[Balance]:
        """The accounts as they stand at one moment, in any order."""
        ...


@runtime_checkable
class SupportsWarnings(Protocol):
    """A store in which many processes agree on who sends a warning."""

    def claim_warning(self, account: Account, mark: WarningMark, *, window_ms: int = 21_600_000) -> bool:
        """True for exactly one caller per account, mark and window (6 h): that caller sends."""
        ...


@runtime_checkable
class SupportsUsage(Protocol):
    """A store that can be asked for its records."""

    def usage(
        self, *, user: str | None = None, period: str | None = None, run: str | None = None
    ) -> Iterator[UsageRecord]:
        """Records, oldest first. `period` is a month as `2026-11` in UTC by the time of reservation."""
        ...


@runtime_checkable
class SupportsPriceCards(Protocol):
    """A store that keeps the rates behind the fingerprints of its records, so that these can be worked out again."""

    def keep_price_card(self, fingerprint: str, text: str) -> None:
        """Keep a card's text; again is nothing new. Raises ValueError unless the fingerprint is the text's SHA-256."""
        ...

    def price_card(self, fingerprint: str) -> str | None:
        """The card's text; None if it was never kept."""
        ...


@runtime_checkable
class SupportsCorrections(Protocol):
    """A store whose amounts can be put right by a provider's bill, also those that are final otherwise."""

    def correct(self, reservation_id: str, actual: int, *, source: str) -> Settled:
        """
        Replace what a call was charged by what it was billed, in the very accounts and periods that it was charged in.

        The difference may be negative: then it is given back. What was unresolved or released is `late` from now on.
        The same amount again changes nothing and is answered as a replay. After it the bill stands: settling or
        releasing the same reservation changes nothing either.

        Args:
            reservation_id: Id given to `reserve`.
            actual: What is charged instead, in picodollars; other units stay as they are.
            source: Who says so, by which bill: up to 256 printable characters, for the audit trail.

        Raises:
            UnknownReservation: No reservation with this id was ever made.
            ReservationMismatch: It is in flight.
        """
        ...

    def corrections(self, *, reservation_id: str | None = None) -> Iterator[Correction]:
        """The audit trail, oldest first, of everything or of one reservation."""
        ...


@runtime_checkable
class SupportsZones(Protocol):
    """A store that remembers in which time zone a scope's months begin."""

    def fix_zone(self, scope: str, zone: str) -> str:
        """The scope's zone: the one given, if this is the scope's first use; else the one fixed then."""
        ...


@runtime_checkable
class RunArchive(Protocol):
    """A store that keeps what became of runs."""

    def save_run(self, record: RunRecord) -> None:
        """Keep a run's record; saving the same id again replaces it."""
        ...

    def runs(self, *, user: str | None = None, count_max: int = 100) -> Iterator[RunRecord]:
        """Newest first."""
        ...

    def run(self, run_id: str) -> RunRecord | None:
        """One run, or None."""
        ...


@runtime_checkable
class FullStore(
    Store, SupportsExtend, SupportsRaise, SupportsLimits, SupportsWarnings, SupportsUsage, SupportsZones, RunArchive,
    Protocol,
):  # fmt: skip
    """A store that can do everything written here, as the embedded engines can."""
