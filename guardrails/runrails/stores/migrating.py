"""A ledger carried into another engine, with its totals proven equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

from runrails.errors import ConfigError, LedgerError
from runrails.ledger import Balance, FullStore
from runrails.stores.checks import MONEY
from runrails.stores.records import RECORDS_MAX, SupportsRecords, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runrails.ledger import Account, Store

__all__ = ["Migratable", "Migrated", "check_migratable", "migrate"]

_T = TypeVar("_T")


@runtime_checkable
class Migratable(FullStore, SupportsRecords, Protocol):
    """A store with every room that is carried over."""


class Migrated(NamedTuple):
    """What a migration came to. Both ledgers say the same now, account by account."""

    records: int
    new: int
    """How many records the target did not have."""
    accounts: int
    spent_pusd: int
    """The sum over all users' accounts: each call is counted once for its user."""


def check_migratable(store: Store) -> Migratable:
    """The store, if it can be read and filled record by record. Raises ConfigError."""
    if isinstance(store, Migratable):
        return store
    raise ConfigError(
        f"{type(store).__name__} cannot be read record by record.",
        next_step="Verify and migrate ledgers of SQLite, of memory, or of an engine that implements SupportsRecords.",
    )


def migrate(source: Migratable, target: Migratable, *, tell: Callable[[int], object] | None = None) -> Migrated:
    """
    Copy everything that is kept for good, and prove that every account stands the same in both.

    It may be interrupted and run again: what is there already is left alone. Nothing is written before it is known
    that the target has nothing that the source has not, or has otherwise.

    Args:
        source: Is only read. No call may be in flight, since its owner would settle it there.
        target: Empty, or filled by an earlier migration of the same ledger.
        tell: Called now and then with the number of records that are through.

    Raises:
        LedgerError: A call is in flight, a ledger's balances are not what its records add up to, the target disagrees,
            or, after all is written, an account stands otherwise.
        StoreUnavailable: One of them cannot be reached; run it again.
    """
    for name, store in (("source", source), ("target", target)):
        _check_sums(name, store)
    records = _check_records(source, target)
    _check_limits(source, target)
    new = through = 0
    for batch in _batches(source.records()):
        new += target.put_records(batch)
        through += len(batch)
        if tell is not None:
            tell(through)
    for extras in _batches(source.extras()):
        target.put_extras(extras)
    accounts = _check_same(source, target)
    if through != records:
        raise LedgerError(
            "The source was written to during the migration; what was copied is right, but not all of it.",
            next_step="Stop the programs that use it, and migrate again: what is there is not copied twice.",
        )
    spent = sum(
        each.spent
        for each in target.balances()
        if each.account.unit == MONEY and each.account.scope.startswith("user:")
    )
    return Migrated(records, new, accounts, spent)


def _batches(kept: Iterator[_T]) -> Iterator[list[_T]]:
    batch: list[_T] = []
    for one in kept:
        batch.append(one)
        if len(batch) == RECORDS_MAX:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_sums(name: str, store: Migratable) -> None:
    summed = list(store.sums())
    _, wrong = differences(iter(summed))
    if wrong:
        raise LedgerError(
            f"{len(wrong)} balances of the {name} are not what its records add up to; nothing was written.",
            next_step=f"See which with `runrails ledger verify` on the {name}.",
            count=len(wrong),
        )
    shortened = sum(1 for each in summed if each.unproven)
    if shortened:
        raise LedgerError(
            f"{shortened} accounts of the {name} have spent what no record is left of: old ones are deleted by age.",
            next_step="Its balances cannot be proven equal elsewhere: keep using it, or begin a new ledger.",
            count=shortened,
        )


def _check_records(source: Migratable, target: Migratable) -> int:
    """How many records the source has. The target may have some of them, just the same, and no others."""
    there = {record.id: hash(record) for record in target.records()}
    count = open_ = 0
    for record in source.records():
        count += 1
        open_ += record.state == "held"
        known = there.pop(record.id, None)
        if known is not None and known != hash(record):
            raise _disagrees(f"reservation {record.id} is in it with other content", reservation_id=record.id)
    if there:
        raise _disagrees(f"it has {len(there)} reservations that the source has not", count=len(there))
    if open_:
        raise LedgerError(
            f"{open_} calls of the source are in flight, which their owners would settle there; nothing was written.",
            next_step="Stop the programs that use it; `runrails ledger reclaim` resolves what was left behind.",
            count=open_,
        )
    return count


def _check_limits(source: Migratable, target: Migratable) -> None:
    ours = {(scope, unit): limit for scope, unit, limit in source.limits()}
    for scope, unit, limit in target.limits():
        if ours.get((scope, unit)) != limit:
            raise _disagrees(f"an operator has set another limit for {scope} in it", scope=scope)


def _check_same(source: Migratable, target: Migratable) -> int:
    ours, theirs = _standing(source.balances()), _standing(target.balances())
    wrong = [account for account in ours.keys() | theirs.keys() if ours.get(account) != theirs.get(account)]
    if wrong:
        scope, period, _ = min(wrong)
        raise LedgerError(
            f"{len(wrong)} accounts stand otherwise in the target, {scope} in {period} among them.",
            next_step="Stop the programs that use either ledger, and migrate again; keep using the source until then.",
            count=len(wrong),
            scope=scope,
        )
    return len(ours)


def _standing(balances: Iterable[Balance]) -> dict[Account, Balance]:
    """By account, those that say anything."""
    return {each.account: each for each in balances if each.spent or each.held or each.limit is not None}


def _disagrees(how: str, **fields: str | int) -> LedgerError:
    return LedgerError(
        f"The target disagrees with the source: {how}; nothing was written.",
        next_step="Migrate into an empty ledger, or into one that this very ledger was migrated into before.",
        **fields,
    )
