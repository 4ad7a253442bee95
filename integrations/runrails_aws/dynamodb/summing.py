"""
The table's accounts beside what its records add up to.

Nobody can look at a whole table at one moment, so while others write, a sound account may seem to be off: what is off
by the same in two looks is wrong, what was right in one is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.errors import StoreUnavailable
from runrails.ledger import AMOUNT_MAX, Account
from runrails.stores.records import Summed
from runrails_aws.dynamodb.items import found_of, row_of
from runrails_aws.dynamodb.retention import may_lack_records
from runrails_aws.dynamodb.wire import integer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails_aws.dynamodb.archive import Archive
    from runrails_aws.dynamodb.items import Row
    from runrails_aws.dynamodb.wire import Item

__all__ = ["sums"]

LOOKS_MAX = 5


class _Kept(NamedTuple):
    row: Row
    avail: int
    room: int


class _Added(NamedTuple):
    """What records come to in one account."""

    spent: int = 0
    held: int = 0


def sums(archive: Archive) -> Iterator[Summed]:
    """
    Every account with what its records add up to; looked at again as long as any of them changes meanwhile.

    Raises:
        StoreUnavailable: Some changed each time, and never were what the records said.
    """
    right: dict[Account, Summed] = {}
    wrong: dict[Account, Summed] = {}
    seen: dict[Account, set[tuple[int, ...]]] = {}
    restless: list[Summed] = []
    for _ in range(LOOKS_MAX):
        summed = _look(archive)
        for one in summed:
            off = _off(one)
            if not any(off):
                right[one.account] = one
            elif off in seen.setdefault(one.account, set()):
                wrong[one.account] = one
            else:
                seen[one.account].add(off)
        restless = [one for one in summed if one.account not in right and one.account not in wrong]
        if not restless:
            return iter([right.get(one.account) or wrong[one.account] for one in summed])
    raise StoreUnavailable(
        f"{len(restless)} accounts changed each time that they were added up, {restless[0].account.scope} among them.",
        next_step="Verify the ledger when fewer calls are made.",
        scope=restless[0].account.scope,
    )


def _look(archive: Archive) -> list[Summed]:
    """One look: accounts after records, so that what was written between the two is off."""
    added: dict[Account, _Added] = {}
    for item in archive.scan("R#"):
        _add(added, item)
    limits = {(scope, unit): limit for scope, unit, limit in archive.limits()}
    horizon_s = archive.retention.horizon_s(archive.now_ms())
    listed: list[Summed] = []
    for item in archive.scan("B#"):
        kept = _Kept(row_of(item), integer(item, "avail"), integer(item, "room"))
        account = kept.row.account
        if kept.row.exists:
            shortened = may_lack_records(account, kept.row.made_s, horizon_s)
            operator = limits.get((account.scope, account.unit))
            listed.append(_summed(kept, added.pop(account, _Added()), operator, shortened=shortened))
    # An account that was deleted, and still is spoken of.
    listed += [Summed(account, 0, 0, *one) for account, one in added.items() if one.spent or one.held]
    return listed


def _add(added: dict[Account, _Added], item: Item) -> None:
    one = found_of(item)
    entry = one.entry
    for account, amount, charge in zip(one.accounts, entry.amounts, entry.charges, strict=True):
        spent, held = added.get(account) or (0, 0)
        added[account] = _Added(spent + charge, held + (amount if entry.state == "held" else 0))


def _summed(kept: _Kept, added: _Added, operator: int | None, *, shortened: bool) -> Summed:
    row = kept.row
    used = row.spent + row.held
    # By the operator's limit as it was set: whoever set it may have been stopped before every account had it.
    left = row._replace(operator=operator).most() - used
    pair = (kept.avail, left) if kept.avail != left else (kept.room, AMOUNT_MAX - used)
    return Summed(row.account, row.spent, row.held, added.spent, added.held, pair, shortened)


def _off(one: Summed) -> tuple[int, ...]:
    kept, left = one.left or (0, 0)
    spent = one.spent - one.spent_by_records
    return min(spent, 0) if one.shortened else spent, one.held - one.held_by_records, kept - left
