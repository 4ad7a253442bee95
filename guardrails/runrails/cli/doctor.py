"""`runrails doctor`: is this installation fit to guard an agent, and if not, what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from runrails.cli.checks import Finding, check_all
from runrails.cli.output import AsJson, make_table, print_json, stdout
from runrails.cli.shell import NEGATIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["doctor"]

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="The store; by default RUNRAILS_STORE or the local one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Check Python and packages, the store, the price data, the adapters, the settings and the clock.

    Writes nothing to the ledger. Exit 0: all is well (notes allowed), 1: there are problems; each names its fix.
    """
    findings = check_all(store)
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"ok": problems == 0, "problems": problems, "checks": [finding._asdict() for finding in findings]})
    else:
        _show(findings, problems)
    if problems:
        raise typer.Exit(NEGATIVE)


def _show(findings: Sequence[Finding], problems: int) -> None:
    out = stdout()
    table = make_table("", {"check": False, "": False, "what was found": False}, ())
    for finding in findings:
        detail = Text(finding.detail)
        if finding.fix:
            detail.append(f"\n{finding.fix}", style="bold")
        table.add_row(finding.check, Text(finding.state, style=_STYLES[finding.state]), detail)
    out.print(table)
    out.print(
        "No problems." if not problems else f"{problems} problem{'s' if problems > 1 else ''}; each row names its fix."
    )
