"""What `runrails demo --incident` shows: the list of incidents, and the figures of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from runrails.demo.incidents.values import Incident, IncidentPlay

__all__ = ["show_incident", "show_incidents"]


def show_incidents(console: Console, incidents: Iterable[Incident]) -> None:
    """A line or two an incident: its name, what it was, where it was reported."""
    table = Table(title="Public incidents that can be played", title_justify="left", expand=True)
    table.add_column("name", no_wrap=True)
    table.add_column("what was reported", ratio=1)
    for incident in incidents:
        source = incident.sources[0]
        told = Text.assemble((incident.title, "bold"), f"\n{source.date} ", (source.url, "dim"))
        told.overflow = "fold"
        table.add_row(incident.name, told)
    console.print(table, Text("Play one: runrails demo --incident NAME", "dim"), sep="\n", highlight=False)


def show_incident(console: Console, play: IncidentPlay) -> None:
    """What was reported and where, what a user would write, how the guard ended it, and the figures."""
    incident = play.incident
    lines: list[Text] = [Text(incident.reported), Text()]
    for source in incident.sources:
        lines.append(Text.assemble((f"{source.date} ", "dim"), (source.url, "cyan"), overflow="fold"))
        lines.append(Text(f"  {source.says}", "dim"))
    console.print(Panel(Text("\n").join(lines), title=incident.title, title_align="left"), highlight=False)
    stopped = play.guarded.stopped
    told = [Text(incident.guard_lines, "cyan"), Text()]
    if stopped is None:
        told.append(Text("Not stopped.", "yellow"))
    else:
        told.append(Text.assemble((f"{stopped.exception}: ", "bold red"), stopped.message))
    console.print(
        Panel(Text("\n").join(told), title="with a guard at its defaults", title_align="left"), highlight=False
    )
    console.print(_figures(play), *_notes(play), sep="\n", highlight=False)


def _figures(play: IncidentPlay) -> Table:
    incident, free, held = play.incident, play.unguarded, play.guarded
    growth = incident.growth
    full_tokens = sum(
        growth.usage(number).input_tokens + growth.output_tokens for number in range(1, incident.calls_full + 1)
    )
    table = Table(title=f"{incident.model}, by the built-in price table", title_justify="left", expand=True)
    table.add_column("", ratio=1)
    for heading in ("full length (1)", "played (2)", "with a guard"):
        table.add_column(heading, justify="right")
    calls = (incident.calls_full, len(free.billed), len(held.billed))
    table.add_row("model calls", *(f"{count:,}" for count in calls))
    table.add_row("tool executions", "", f"{free.executed:,}", f"{held.executed:,}")
    tokens = [sum(usage.total_tokens for usage in each.billed) for each in (free, held)]
    table.add_row("tokens", f"{full_tokens:,}", *(f"{count:,}" for count in tokens), end_section=True)
    bills = (play.full_pusd, free.cost_pusd, held.cost_pusd)
    table.add_row("the provider's bill", *(format_usd(_cents(pusd)) for pusd in bills), style="bold")
    ended = "-" if held.stopped is None else held.stopped.exception
    table.add_row("ended by", "", "the script", ended)
    return table


def _cents(pusd: int) -> int:
    """To a hundredth of a cent, which is plenty to look at; `--json` has every digit."""
    return -(-pusd // 10**8) * 10**8


def _notes(play: IncidentPlay) -> list[Text]:
    incident = play.incident
    notes = [
        f"(1) {incident.calls_full_are}; the bill is computed from the same tokens a call. {incident.ours}",
        "(2) Real calls over HTTP to a fake provider on this machine; the bill is the provider's own.",
    ]
    if play.ledger_equals_bill:
        agreement = Text("With the guard, its ledger equals the provider's bill to the picodollar.", "dim")
    else:
        agreement = Text("The guard's ledger DIFFERS from the provider's bill. Please report this.", "bold red")
    return [*(Text(note, "dim") for note in notes), agreement]
