"""`runrails usage`: calls in the books; `reconcile` and `corrections`: what providers billed; `export`: to a file."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Protocol, cast

import typer

from runrails.billing.export import Columns, Export
from runrails.cli.exporting import export
from runrails.cli.ledger_commands import StoreUrl, check_month, open_ledger, usage
from runrails.cli.output import AsJson, make_table, print_json, print_json_list, stderr, stdout, when
from runrails.errors import ConfigError, LedgerError, RunrailsError
from runrails.ledger import FullStore, SupportsCorrections, UsageRecord
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from decimal import Decimal

    from typer.models import OptionInfo

    from runrails.billing.comparing import Compared
    from runrails.billing.matching import Billed, Findings, Settling

__all__ = ["app"]

EXIT_OPEN = 1
"""Something is left open: lines without a record, records without a line, groups that differ."""
ROWS_MAX = 40
LISTED_MAX = 1_000
"""Lines of each kind in the JSON; their number is there too."""
_SOURCE_NAME_MAX = 120

app = typer.Typer(invoke_without_command=True, help=usage.__doc__)
app.callback()(usage)
app.command()(export)


class _Books(FullStore, SupportsCorrections, Protocol):
    """A store that can be put right."""


def _column(what: str) -> OptionInfo:
    return cast(
        "OptionInfo", typer.Option(metavar="HEADER", help=f"Header of the {what}; by default one of the usual names.")
    )


@app.command()
def reconcile(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="The provider's export; may be gzipped.")],
    *,
    by: Annotated[
        str | None, typer.Option("--by", metavar="WHAT", help="Only compare sums by day, model or day,model.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be corrected; write nothing.")] = False,
    period: Annotated[
        str | None, typer.Option("--period", help="Only this month (UTC), all of which the bill must have.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", help="With --period: only this provider's calls must be there.")
    ] = None,
    own_key: Annotated[
        bool, typer.Option("--own-key", help="With --period: the bill of a user's own key, not of the platform's.")
    ] = False,
    client_tag: Annotated[
        str | None, typer.Option("--client-tag", metavar="NAME", help="Match ids with the values of this tag, too.")
    ] = None,
    add_repeated: Annotated[
        bool, typer.Option("--add-repeated", help="Add up lines that are the same to the last letter, too.")
    ] = False,
    id_column: Annotated[str | None, _column("call's id")] = None,
    amount_column: Annotated[str | None, _column("dollars")] = None,
    currency_column: Annotated[str | None, _column("currency, always USD")] = None,
    model_column: Annotated[str | None, _column("model")] = None,
    time_column: Annotated[str | None, _column("day or moment")] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Settle the difference between a provider's bill and the books, call by call. Importing a bill again is harmless.

    Lines name calls by the provider's id of its answer or by our id of the call; the lines of one call are added up.
    With --by nothing is written: a bill by days and models cannot say which call differs.

    Exit codes: 0 all matched and written; 1 something is left open; 2 bad input, nothing written, or the store failed,
    which says how much is written.
    """
    check_month(period, option="--period")
    columns = Columns(
        id=id_column, amount=amount_column, currency=currency_column, model=model_column, time=time_column
    )
    if by is not None:
        _compare(file, columns, by, period=period, provider=provider, own_key=own_key, store=store, as_json=as_json)
        return
    from runrails.billing.matching import Scope, match, sum_up

    export = Export(file, columns, needs=("id", "amount"))
    with _progress(f"Reading {file.name}", file.stat().st_size, wanted=not as_json) as watch:
        bill, count = sum_up(export.lines(watch))
    scope = Scope(
        whole=period is not None, provider=provider, own_key=own_key, tag=client_tag, add_repeated=add_repeated
    )
    with open_ledger(store) as ledger:
        books = _correctable(ledger)
        if not dry_run:
            _expire(books)
        findings = match(bill, books.usage(period=period), scope)
        digest = export.digest()
        if not dry_run:
            _write(books, findings.settling, _source(file, digest), wanted=not as_json)
    facts: dict[str, object] = {
        "file": file.name, "sha256": digest, "columns": export.headers, "lines": count, "dry_run": dry_run,
        **_found_fields(findings),
    }  # fmt: skip
    if as_json:
        print_json(facts)
    else:
        _show(file.name, count, findings, dry_run=dry_run)
    if not findings.complete:
        raise typer.Exit(EXIT_OPEN)


@app.command()
def corrections(
    call: Annotated[str | None, typer.Argument(metavar="CALL", help="Only of this call, by our id.")] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what was corrected by providers' bills: when, by which file, and from what to what; oldest first."""
    with open_ledger(store) as ledger:
        lines = _correctable(ledger).corrections(reservation_id=call)
        if as_json:
            print_json_list({name: getattr(line, name) for name in line.__slots__} for line in lines)
            return
        rows = [
            [
                when(line.at_ms),
                line.reservation_id,
                format_usd(line.before_pusd),
                format_usd(line.after_pusd),
                line.source,
            ]
            for line in lines
        ]
    if not rows:
        stdout().print("Nothing was corrected.")
        return
    headings = {"when (UTC)": False, "call": False, "before": True, "billed": True, "by": False}
    stdout().print(make_table("Corrections", headings, rows))


def _compare(
    file: Path, columns: Columns, by: str, *, period: str | None, provider: str | None, own_key: bool,
    store: str | None, as_json: bool,
) -> None:  # fmt: skip
    from runrails.billing.comparing import compare, parse_dimensions

    names = parse_dimensions(by)
    export = Export(file, columns, needs=("amount", *("time" if name == "day" else name for name in names)))

    def belongs(record: UsageRecord) -> bool:
        return record.facts.byok == own_key and provider in (None, record.facts.provider)

    with (
        open_ledger(store) as ledger,
        _progress(f"Reading {file.name}", file.stat().st_size, wanted=not as_json) as watch,
    ):
        records = (record for record in ledger.usage(period=period) if belongs(record))
        rows = compare(export.lines(watch), records, names)
    different = [row for row in rows if row.difference]
    if as_json:
        print_json({"file": file.name, "by": list(names), "groups": [_group_fields(names, row) for row in rows]})
    else:
        headings = {**dict.fromkeys(names, False), "calls": True, "ours": True, "billed": True, "difference": True}
        shown = [
            [*(part or "-" for part in row.group), f"{row.calls:,}", *map(_dollars, row[1:3]), _dollars(row.difference)]
            for row in rows
        ]
        stdout().print(make_table(f"{file.name} and the books", headings, shown))
        stdout().print(f"{len(rows):,} groups, {len(different):,} differ. Nothing was written.")
    if different:
        raise typer.Exit(EXIT_OPEN)


def _group_fields(names: Sequence[str], row: Compared) -> dict[str, object]:
    amounts = {"ours_usd": row.ours, "billed_usd": row.billed, "difference_usd": row.difference}
    return {
        **dict(zip(names, row.group, strict=True)),
        "calls": row.calls,
        **{name: f"{amount:f}" for name, amount in amounts.items()},
    }


def _dollars(amount: Decimal) -> str:
    """Exact, however fine a bill is."""
    text = f"{amount.copy_abs():,f}"
    whole, _, rest = text.partition(".")
    return f"{'-' if amount < 0 else ''}${whole}.{rest.rstrip('0').ljust(2, '0')}"


def _correctable(ledger: FullStore) -> _Books:
    if not isinstance(ledger, SupportsCorrections):
        raise ConfigError("This store cannot be corrected.", next_step="Point --store to one that can.")
    return cast("_Books", ledger)


def _expire(books: _Books) -> None:
    """Calls whose owners are gone are resolved first, so that the bill can put them right."""
    while books.expire(count_max=1_000).ids:
        pass


def _source(file: Path, digest: str) -> str:
    import getpass

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        user = "unknown"
    said = f"{user[:64]}: {file.name[-_SOURCE_NAME_MAX:]} sha256:{digest[:32]}"
    return "".join(letter if letter.isprintable() else "?" for letter in said)


def _write(books: _Books, settling: Sequence[Settling], source: str, *, wanted: bool) -> None:
    with _progress("Correcting", len(settling), wanted=wanted) as watch:
        for place, each in enumerate(settling):
            try:
                books.correct(each.record.id, each.due_pusd, source=source)
            except RunrailsError as exc:
                raise LedgerError(
                    f"{place:,} of {len(settling):,} corrections are written, and then: {exc.what}",
                    next_step="Import the bill again when that is put right: what is written is not written twice.",
                    reservation_id=each.record.id,
                ) from exc
            if watch is not None:
                watch(place + 1)


@contextmanager
def _progress(what: str, total: int, *, wanted: bool) -> Generator[Callable[[int], None] | None]:
    """A bar on stderr, if somebody sees it."""
    console = stderr()
    if not (wanted and console.is_terminal):
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _found_fields(findings: Findings) -> dict[str, object]:
    def billed(rows: Sequence[tuple[str, Billed]]) -> dict[str, object]:
        listed = [
            {"id": name, "line": each.first_line, "lines": each.lines, "billed_usd": f"{each.dollars:f}"}
            for name, each in rows[:LISTED_MAX]
        ]
        return {"count": len(rows), "listed": listed}

    return {
        "agreed": findings.agreed,
        "corrected": {
            "count": len(findings.settling),
            "difference_pusd": findings.difference_pusd,
            "listed": [_settling_fields(each) for each in findings.settling[:LISTED_MAX]],
        },
        "without_record": billed(findings.unknown),
        "unclear": billed(findings.unclear),
        "in_flight": billed(findings.in_flight),
        "repeated": billed(findings.repeated),
        "without_line": {
            "count": len(findings.missing),
            "listed": [{"id": each.id, "actual_pusd": each.actual_pusd} for each in findings.missing[:LISTED_MAX]],
        },
    }


def _settling_fields(each: Settling) -> dict[str, object]:
    record = each.record
    return {
        "id": record.id,
        "answer_id": None if record.result is None else record.result.answer_id,
        "state_before": record.state,
        "before_pusd": record.actual_pusd,
        "billed_pusd": each.billed_pusd,
        "after_pusd": each.due_pusd,
        "difference_pusd": each.difference_pusd,
    }


def _show(name: str, count: int, findings: Findings, *, dry_run: bool) -> None:
    rows = [
        [
            each.record.id, each.record.facts.model, each.record.state, format_usd(each.record.actual_pusd or 0),
            format_usd(each.billed_pusd), format_usd(each.due_pusd), format_usd(each.difference_pusd),
        ]
        for each in findings.settling[:ROWS_MAX]
    ]  # fmt: skip
    more = len(findings.settling) - ROWS_MAX
    if more > 0:
        rows.append([f"… and {more:,} more", "", "", "", "", "", ""])
    if rows:
        headings = {
            "call": False, "model": False, "was": False, "before": True, "billed": True, "now": True, "difference": True
        }  # fmt: skip
        stdout().print(make_table("To be corrected" if dry_run else "Corrected", headings, rows))
    verb = "would be corrected" if dry_run else "corrected"
    stdout().print(
        f"{name}: {count:,} lines; {findings.agreed:,} calls agree, {len(findings.settling):,} {verb} by "
        f"{format_usd(findings.difference_pusd)}.",
        soft_wrap=True,
    )
    for what, lines in (
        ("of no call in the books", findings.unknown), ("of several calls at once", findings.unclear),
        ("of calls still in flight", findings.in_flight),
        ("with the same line twice (export them again, or use --add-repeated)", findings.repeated),
    ):  # fmt: skip
        if lines:
            numbers = ", ".join(str(each.first_line) for _, each in lines[:ROWS_MAX])
            text = f"Left open: {len(lines):,} {what}, on lines {numbers}{'…' if len(lines) > ROWS_MAX else ''}."
            stdout().print(text, soft_wrap=True)
    if findings.missing:
        ids = ", ".join(each.id for each in findings.missing[:ROWS_MAX])
        dots = "…" if len(findings.missing) > ROWS_MAX else ""
        stdout().print(
            f"Left open: {len(findings.missing):,} calls that the bill does not have: {ids}{dots}.", soft_wrap=True
        )
