"""`runrails ledger`: check the books by their own records, resolve what was left behind, carry them elsewhere."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated, cast

import typer

from runrails.cli.ledger_commands import StoreUrl  # noqa: TC001 -- Typer reads the annotations when it runs
from runrails.cli.output import AsJson, make_table, print_json, stderr, stdout
from runrails.cli.shell import NEGATIVE
from runrails.errors import ConfigError, format_amount
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.events import Event
    from runrails.ledger import Store
    from runrails.stores.records import Difference, Summed

__all__ = ["ledger"]

SHOWN_MAX = 40
TELL_EVERY = 10_000
AT_ONCE = 500
"""Holds that are resolved in one step, so that others need not wait long."""

ledger = typer.Typer(help="Verify, tidy and migrate the ledger itself.", no_args_is_help=True)


@ledger.command("verify")
def verify(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """
    Add up every record, and compare with the balance of every account. Writes nothing.

    Where a DynamoDB ledger deletes records by age, an account that is older than what is kept can have spent more than
    its records add up to: by how much is told, and is no difference. Open holds, and records that add up to more than
    was spent, are wrong at any age; a record that was deleted too early, in such an account, cannot be told.

    Exit codes: 0 all balances are what the records say; 1 some are not, each is named; 2 the store failed.
    """
    from runrails.stores import open_store
    from runrails.stores.records import SupportsSums, differences

    with closing(open_store(store)) as found:
        opened = _behind_leases(found)
        if not isinstance(opened, SupportsSums):
            raise ConfigError(
                f"{type(opened).__name__} cannot add up its records.",
                next_step="Verify a ledger of SQLite, or of an engine that implements SupportsSums.",
            )
        summed = list(opened.sums())
    accounts, wrong = differences(iter(summed))
    shortened = [each for each in summed if each.unproven]
    if as_json:
        deleted = [{**each.account._asdict(), "without_record": each.unproven} for each in shortened]
        listed = [_fields(each) for each in wrong]
        print_json({"ok": not wrong, "accounts": accounts, "differences": listed, "deleted_by_age": deleted})
    elif wrong:
        _show(wrong)
    else:
        stdout().print(f"{accounts - len(shortened):,} accounts: every balance is what the records add up to.")
    if shortened and not as_json:
        _show_shortened(shortened)
    if wrong:
        raise typer.Exit(NEGATIVE)


@ledger.command("reclaim")
def reclaim(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """
    Resolve the holds of calls whose owners died, as the next reservations would do little by little.

    They are charged at the hold and marked unresolved, or given back if they were made so; a late settlement, or a
    provider's bill (`runrails usage reconcile`), corrects them exactly. Calls in flight are left alone. What dead
    processes let through on this machine while the ledger was away (`on_store_error="allow"`) is written as well.
    """
    from runrails.bypass import Bypass
    from runrails.events import Emitter
    from runrails.stores import open_store

    count, written = 0, list[int]()
    with closing(open_store(store)) as opened:
        emit = Emitter([lambda event: written.append(_count_of(event))])
        Bypass(opened, emit).catch_up()
        while resolved := len(opened.expire(count_max=AT_ONCE).ids):
            count += resolved
    if as_json:
        print_json({"resolved": count, "bypassed": sum(written)})
        return
    stdout().print(f"{count:,} holds were overdue and are resolved." if count else "No hold is overdue.")
    if sum(written):
        stdout().print(f"{sum(written):,} calls that were let through while it was away are written.")


def _count_of(event: Event) -> int:
    return cast("int", event.fields["count"]) if event.name == "runrails.bypassed_reconciled" else 0


@ledger.command("migrate")
def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store that is read, for instance a sqlite: URL.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The store that is filled: an empty one.")],
    as_json: AsJson = False,
) -> None:
    """
    Copy a ledger into another engine, and prove that every account stands the same in both.

    Stop the programs that use it first: a call in flight refuses. Run it again if it was interrupted; what is there is
    not copied twice, and a target that has something else is refused before anything is written. Rate limits and the
    accounts of notifications are not copied: they are of the moment and of the machine.
    """
    from runrails.stores import open_store, same_books
    from runrails.stores.migrating import check_migratable
    from runrails.stores.migrating import migrate as carry

    def tell(count: int) -> None:
        if count % TELL_EVERY == 0:
            stderr().print(f"{count:,} records …")

    with ExitStack() as stack:
        opened = [stack.enter_context(closing(open_store(url))) for url in (source, target)]
        ours, theirs = (check_migratable(_behind_leases(each)) for each in opened)
        if same_books(ours, theirs):
            raise ConfigError("FROM and TO are the same ledger.", next_step="Name another store to copy it into.")
        done = carry(ours, theirs, tell=tell)
    if as_json:
        print_json(done._asdict())
        return
    stdout().print(
        f"{done.records:,} records ({done.new:,} of them new) and {done.accounts:,} accounts: both ledgers say the "
        f"same, {format_usd(done.spent_pusd)} spent by all users."
    )
    stdout().print("Now point RUNRAILS_STORE, or Guard(store=…), to the new one.")


def _behind_leases(store: Store) -> Store:
    """The store that keeps the records: in leased mode it is the one that slices are taken from."""
    from runrails.stores.leased import LeasedStore

    return store.shared if isinstance(store, LeasedStore) else store


def _fields(found: Difference) -> dict[str, object]:
    return {**found.account._asdict(), "what": found.what, "balance": found.balance, "records": found.records}


def _show_shortened(shortened: Sequence[Summed]) -> None:
    columns = {"scope": False, "period": False, "spent": True, "without a record": True}
    rows = [
        (
            each.account.scope,
            each.account.period,
            format_amount(each.spent, each.account.unit),
            format_amount(each.unproven, each.account.unit),
        )
        for each in shortened[:SHOWN_MAX]
    ]
    more = len(shortened) - SHOWN_MAX
    rows += [(f"({more:,} more)", "", "", "")] if more > 0 else []
    stdout().print(make_table("Spent on calls whose records may have been deleted by age: not proven", columns, rows))


def _show(wrong: Sequence[Difference]) -> None:
    columns = {"scope": False, "period": False, "what": False, "balance": True, "records": True}
    rows = [
        (
            each.account.scope,
            each.account.period,
            each.what,
            format_amount(each.balance, each.account.unit),
            format_amount(each.records, each.account.unit),
        )
        for each in wrong
    ]
    stdout().print(make_table("Balances that are not what the records add up to", columns, rows))
    stdout().print("Nothing was changed. Keep a copy of the ledger as it is, and please report this.")
