"""What commands share to speak: consoles, JSON, tables, times. No colour where nobody sees it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from runrails.showing.terminal import lines_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runrails.errors import RunrailsError
    from runrails.showing.terminal import Sheet

__all__ = [
    "EXIT_CODES",
    "AsJson",
    "error_panel",
    "make_table",
    "print_json",
    "print_json_list",
    "stderr",
    "stdout",
    "when",
]

EXIT_CODES = (
    "Exit codes: 0 done; 1 the answer is no (not found, problems, stopped); 2 bad usage or input, or no store; "
    "70 a bug; 130 Ctrl-C; 141 broken pipe."
)
"""Epilog of every command's help."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")]
"""The `--json` option, the same everywhere."""


def stdout() -> Console:
    """For results. Names that users and providers give are no markup."""
    return Console(file=sys.stdout, highlight=False, markup=False)


def stderr() -> Console:
    """For errors and progress."""
    return Console(file=sys.stderr, highlight=False, markup=False)


def print_json(value: object) -> None:
    """One JSON value on stdout, indented; nothing is escaped that need not be."""
    print(json.dumps(value, indent=2, ensure_ascii=not _speaks_unicode()))


def print_json_list(values: Iterable[object]) -> None:
    """A JSON list like that of `print_json`, of any length: one value at a time is in the memory."""
    begin = "[\n"
    for value in values:
        text = json.dumps(value, indent=2, ensure_ascii=not _speaks_unicode())
        print(begin + "  " + text.replace("\n", "\n  "), end="")
        begin = ",\n"
    print("[]" if begin == "[\n" else "\n]")


def error_panel(error: RunrailsError) -> Panel:
    """What happened, and what to do about it."""
    body = Text.assemble(error.what, "\n", (error.next_step, "bold"))
    return Panel(body, title=error.code.replace("_", " "), title_align="left", border_style="red")


def make_table(title: str, columns: Mapping[str, bool], rows: Iterable[Iterable[str]]) -> Sheet:
    """A table; `columns` says of each heading whether it holds numbers."""
    right = [place for place, numbers in enumerate(columns.values()) if numbers]
    return lines_table(title, list(columns), map(tuple, rows), right=right)


def when(at_ms: int) -> str:
    """A moment in UTC, to the second: `2026-11-21 14:23:15`."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").replace("-", "").lower().startswith("utf8")
