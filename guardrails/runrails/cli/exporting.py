"""`runrails usage export`: the records of calls as a file for other programs, one call a line."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from itertools import chain
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import IO, TYPE_CHECKING, Annotated

import typer

from runrails.cli.ledger_commands import StoreUrl, check_month, open_ledger
from runrails.cli.output import AsJson, print_json, stderr, stdout
from runrails.cli.shell import NEGATIVE
from runrails.cli.tags import Tag, tags_of
from runrails.errors import ConfigError
from runrails.figures import figures_of
from runrails.grouping import with_tags
from runrails.money import format_usd, to_decimal
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from runrails.ledger import UsageRecord

__all__ = ["COLUMNS", "export", "row_of", "safe_cell"]

_USAGE = tuple(field.name for field in fields(Usage))
_AMOUNTS = ("estimated", "actual", "provider", "discount", "markup", "own_key", "billed")
COLUMNS = (
    "id", "state", "at", "at_ms", "settled_at_ms", "user", "org", "key", "run", "step", "agent", "tags", "provider",
    "model", "answer_model", "request_type", "endpoint", "user_agent", "byok", "credential", "end", "answer_id",
    "duration_ms", *_USAGE, *(f"{amount}_{unit}" for amount in _AMOUNTS for unit in ("usd", "pusd")),
    "markup_bp", "price_card", "corrected",
)  # fmt: skip
"""Later versions add columns at the end."""
_FORMULA = "=+-@\t\r\n＝＋－＠'"
"""What a spreadsheet takes for a formula at the beginning of a cell, also in full width; and the apostrophe itself."""
_TELL_EVERY = 1_000

Row = dict[str, object]


class Form(StrEnum):
    """Older versions of Typer take no literals."""

    CSV = "csv"
    JSONL = "jsonl"


def export(
    form: Annotated[Form, typer.Option("--format", help="csv for spreadsheets, jsonl for programs.")] = Form.CSV,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A new file, by default standard output.")
    ] = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")] = False,
    user: Annotated[str | None, typer.Option("--user", help="Only this user's calls.")] = None,
    month: Annotated[str | None, typer.Option("--month", help="Only this month (UTC), for instance 2026-11.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Only this run's calls.")] = None,
    tag: Tag = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Write the calls in the books to a file, one a line, oldest first. Amounts are exact: as dollars and as picodollars.

    In CSV a text that a spreadsheet would take for a formula begins with an apostrophe, and so does one that begins
    with an apostrophe itself. JSON lines have every text as it is. The file is there when it is whole, or not at all;
    only its owner can read it. With --json its name, SHA-256 and sums are printed.

    Exit codes: 0 written; 1 no call fits, nothing is written; 2 bad input, a file that is there, or no store.
    """
    check_month(month)
    tags = tags_of(tag)
    if as_json and out is None:
        raise typer.BadParameter("With --json the records go to a file: name it by --out.", param_hint="--json")
    if out is not None and out.exists() and not overwrite:
        raise ConfigError(f"{out.name} is there already.", next_step="Name another file, or use --overwrite.")
    with open_ledger(store) as ledger:
        records = with_tags(ledger.usage(user=user, period=month, run=run), tags)
        first = next(records, None)
        if first is None:
            stderr().print("No call is in the books that fits. Nothing was written.")
            raise typer.Exit(NEGATIVE)
        found = chain((first,), records)
        if out is None:
            with _progress(wanted=not sys.stdout.isatty()) as tell:
                _write(found, form, sys.stdout, tell)
            return
        with _progress(wanted=True) as tell, _whole_file(out) as file:
            count, spent = _write(found, form, file, tell)
    if as_json:
        digest = _digest(out)
        print_json(
            {
                "file": str(out), "format": form.value, "sha256": digest, "records": count, "actual_pusd": spent,
                "actual_usd": f"{to_decimal(spent):f}",
            }
        )  # fmt: skip
    else:
        stdout().print(f"{count:,} calls, {format_usd(spent)}, are in {out}.", soft_wrap=True)


def row_of(record: UsageRecord) -> Row:
    """A record by columns."""
    facts, result, figures = record.facts, record.result, figures_of(record)
    counts = None if result is None else result.usage
    at = datetime.fromtimestamp(record.at_ms / 1_000, tz=UTC).isoformat(timespec="milliseconds")
    row: Row = {
        "id": record.id, "state": record.state, "at": at.replace("+00:00", "Z"), "at_ms": record.at_ms,
        "settled_at_ms": record.settled_at_ms,
        **{name: getattr(facts, name) for name in ("user", "org", "key", "run", "step", "agent")},
        "tags": dict(facts.tags),
        **{name: getattr(facts, name) for name in ("provider", "model")},
        "answer_model": None if result is None else result.model,
        **{name: getattr(facts, name) for name in ("request_type", "endpoint", "user_agent", "byok", "credential")},
        "end": None if result is None else result.end,
        "answer_id": None if result is None else result.answer_id,
        "duration_ms": None if result is None else result.duration_ms,
        **{name: None if counts is None else getattr(counts, name) for name in _USAGE},
    }  # fmt: skip
    amounts = (record.estimated_pusd, record.actual_pusd) + (
        (None,) * 5
        if figures is None
        else (figures.provider_pusd, figures.discount_pusd, figures.markup_pusd, figures.own_key_pusd,
              figures.charged_pusd)
    )  # fmt: skip
    for name, amount in zip(_AMOUNTS, amounts, strict=True):
        row[f"{name}_usd"] = None if amount is None else f"{to_decimal(amount):f}"
        row[f"{name}_pusd"] = amount
    return row | {"markup_bp": facts.markup_bp, "price_card": facts.price_card, "corrected": record.corrected}


def safe_cell(value: object) -> str:
    """A cell of CSV: a text that a spreadsheet might run begins with an apostrophe; numbers stay as they are."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else str(value)
    return f"'{text}" if text.lstrip(" \v\f\u00a0\ufeff")[:1] in _FORMULA and text else text


def _write(records: Iterable[UsageRecord], form: str, file: IO[str], tell: Callable[[int], object]) -> tuple[int, int]:
    """Write one by one; how many there were, and what they came to."""
    count = spent = 0
    for line in _lines(records, form, file):
        count += 1
        spent += line.actual_pusd or 0
        if count % _TELL_EVERY == 0:
            tell(count)
    return count, spent


def _lines(records: Iterable[UsageRecord], form: str, file: IO[str]) -> Iterator[UsageRecord]:
    if form == "jsonl":
        for record in records:
            file.write(json.dumps(row_of(record), separators=(",", ":")) + "\n")
            yield record
        return
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        row = row_of(record)
        amounts = {name for name in COLUMNS if name.endswith("_usd")}
        writer.writerow([str(row[name] or "") if name in amounts else safe_cell(row[name]) for name in COLUMNS])
        yield record


@contextmanager
def _whole_file(path: Path) -> Generator[IO[str]]:
    """A file that gets its name when all of it is written."""
    import os
    import tempfile

    name = None
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(number, "w", encoding="utf-8", errors="replace", newline="") as file:
            yield file
            file.flush()
            os.fsync(number)
        os.replace(name, path)  # noqa: PTH105 -- what mkstemp gave is a text
        name = None
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be written: {error.strerror}.", next_step="Name a file in a directory with room."
        ) from error
    finally:
        if name is not None:
            os.unlink(name)  # noqa: PTH108 -- what mkstemp gave is a text


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def _progress(*, wanted: bool) -> Generator[Callable[[int], object]]:
    """A line on stderr that counts, if somebody sees it."""
    console = stderr()
    if not (wanted and console.is_terminal):
        yield lambda count: count
        return
    with console.status("Exporting …") as status:
        yield lambda count: status.update(f"Exporting: {count:,} calls …")
