"""
`runrails watch`: the runs that are at work now, of any process on the store.

All of it is read from the books that every call is in anyway, so nobody who is watched does anything for it. What is
not there is not known: the steps that call no model, and a run that has not called one for longer than the window.
"""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from runrails.balances import balances_of
from runrails.cli.ledger_commands import StoreUrl, open_ledger
from runrails.cli.output import AsJson, print_json, stderr, stdout, when
from runrails.clocks import system_ms
from runrails.errors import ConfigError
from runrails.ledger import RUN_PERIOD, Account
from runrails.money import format_usd
from runrails.plainfields import usd_text
from runrails.recent import SupportsOpenCalls, usage_since
from runrails.showing.terminal import Sheet, lines_table
from runrails.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from runrails.ledger import Balance, FullStore, UsageRecord

__all__ = ["Running", "Seen", "look", "running", "watch"]

RECORDS_MAX = 20_000
"""Most calls of the window that are read at once; beyond, the answer says that it is not whole."""
OPEN_MAX = 1_000
"""The same where the store tells of calls in flight only."""
RUNS_MAX = 50
"""Most runs that are shown."""
ENDED_MAX = 1_000
"""So many of the newest ended runs are known as such."""
PAUSE_S = 2
PAUSE_REMOTE_S = 10
"""Somebody pays for each question to a shared store."""
WINDOW_MAX_S = 86_400
ID_SHOWN_CHARS = 12
_COLUMNS = ("run", "user", "model", "calls", "open", "spent", "last call")
_NUMBERS = (3, 4)


class Running(NamedTuple):
    """One run at work."""

    run: str
    user: str
    model: str
    """Of its newest call."""
    calls: int
    """In the window."""
    in_flight: int
    held_pusd: int
    """By calls in flight."""
    first_ms: int
    """Its first call in the window."""
    last_ms: int
    """When it was last heard of: its newest call began or ended."""


class Seen(NamedTuple):
    """One look at the store."""

    at_ms: int
    runs: list[tuple[Running, Balance]]
    """The ones with calls in flight first, then those heard of last. With the run's own account."""
    more: int
    """How many runs are left out."""
    whole: bool
    """False if there were too many calls to read them all."""
    only_open: bool
    """Whether the store tells only of runs with a call in flight."""


def watch(
    once: Annotated[bool, typer.Option("--once", help="Show them once and leave.")] = False,
    every: Annotated[
        int | None, typer.Option("--every", min=1, max=3_600, help="Seconds between looks: 2, of a shared store 10.")
    ] = None,
    window: Annotated[
        int,
        typer.Option("--window", min=1, max=WINDOW_MAX_S, help="A run is at work if it called within so many seconds."),
    ] = 300,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Show the runs at work in any process on the store, as they go.

    Ctrl-C ends it. Where nobody sees a table move (a pipe, a file) it is shown once; with --json a line for each look.
    """
    with open_ledger(store) as ledger:
        if isinstance(ledger, MemoryStore):
            raise ConfigError(
                "A store in memory is seen by its own process only, so there is nothing to watch.",
                next_step="Point --store or RUNRAILS_STORE to a file or a table, and run the programs on it.",
            )
        out = stdout()
        if once or not (as_json or out.is_terminal):
            _show_once(look(ledger, system_ms(), window_ms=window * 1_000), as_json=as_json)
            return
        pause_s = every or (PAUSE_REMOTE_S if ledger.remote else PAUSE_S)

        def again() -> Seen:
            return look(ledger, system_ms(), window_ms=window * 1_000)

        try:
            if as_json:
                _follow(again, lambda: time.sleep(pause_s))
            else:
                _live(out, again, lambda: time.sleep(pause_s))
        except KeyboardInterrupt:
            return  # which is how one leaves


def look(ledger: FullStore, now_ms: int, *, window_ms: int) -> Seen:
    """Who is at work. Reads only."""
    only_open = isinstance(ledger, SupportsOpenCalls)
    if isinstance(ledger, SupportsOpenCalls):
        records = ledger.open_calls(OPEN_MAX + 1)
        whole, records = len(records) <= OPEN_MAX, records[:OPEN_MAX]
    else:
        records = list(islice(usage_since(ledger, now_ms - window_ms, now_ms), RECORDS_MAX + 1))
        whole, records = len(records) <= RECORDS_MAX, records[:RECORDS_MAX]
    ended = {record.id for record in ledger.runs(count_max=ENDED_MAX)}
    found = running(records, ended)
    shown = found[:RUNS_MAX]
    accounts = [Account(f"run:{each.run}", RUN_PERIOD) for each in shown]
    balances = {balance.account: balance for balance in balances_of(ledger, accounts)}
    pairs = [(each, balances[account]) for each, account in zip(shown, accounts, strict=True)]
    return Seen(now_ms, pairs, len(found) - len(shown), whole, only_open)


def running(records: Iterable[UsageRecord], ended: set[str]) -> list[Running]:
    """The runs that made these calls and have not ended. Those with calls in flight first, then the latest."""
    runs: dict[str, Running] = {}
    for record in records:
        name = record.facts.run
        if not name or name in ended:
            continue
        open_pusd = record.estimated_pusd if record.state == "held" else 0
        is_open = int(record.state == "held")
        heard_ms = max(record.at_ms, record.settled_at_ms or 0)
        before = runs.get(name)
        if before is None:
            runs[name] = Running(
                name, record.facts.user, record.facts.model, 1, is_open, open_pusd, record.at_ms, heard_ms
            )
        else:
            runs[name] = Running(
                name, record.facts.user, record.facts.model, before.calls + 1, before.in_flight + is_open,
                before.held_pusd + open_pusd, before.first_ms, max(before.last_ms, heard_ms),
            )  # fmt: skip
    return sorted(runs.values(), key=lambda each: (each.in_flight == 0, -each.last_ms, each.run))


def _follow(again: Callable[[], Seen], pause: Callable[[], None]) -> None:
    while True:
        print(json.dumps(_fields(again())), flush=True)
        pause()


def _live(console: Console, again: Callable[[], Seen], pause: Callable[[], None]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def shown() -> Group:
        seen = again()
        foot = f"{when(seen.at_ms)} UTC. Ctrl-C ends this."
        return Group(_table(seen), *(Text(line) for line in (*_notes(seen), foot)))

    with Live(shown(), console=console, auto_refresh=False, transient=False) as live:
        while True:
            pause()
            live.update(shown(), refresh=True)


def _show_once(seen: Seen, *, as_json: bool) -> None:
    if as_json:
        print_json(_fields(seen))
        return
    if seen.runs:
        stdout().print(_table(seen))
    else:
        stdout().print("No run is at work.")
    for note in _notes(seen):
        stderr().print(note)


def _table(seen: Seen) -> Sheet:
    title = f"{len(seen.runs) + seen.more:,} runs at work" if len(seen.runs) != 1 else "1 run at work"
    return lines_table(title, _COLUMNS, [_row(*pair, seen.at_ms) for pair in seen.runs], right=_NUMBERS)


def _row(run: Running, balance: Balance, now_ms: int) -> tuple[str, ...]:
    limit = "" if balance.limit is None else f" of {format_usd(balance.limit)}"
    held = f", {format_usd(run.held_pusd)} held" if run.held_pusd else ""
    return (
        run.run[:ID_SHOWN_CHARS], run.user, run.model, f"{run.calls:,}", f"{run.in_flight:,}" if run.in_flight else "",
        f"{format_usd(balance.spent)}{limit}{held}", f"{max(0, now_ms - run.last_ms) // 1_000:,} s ago",
    )  # fmt: skip


def _notes(seen: Seen) -> list[str]:
    notes = [f"and {seen.more:,} more"] if seen.more else []
    if seen.only_open:
        notes.append("Of this store only runs with a call in flight are seen.")
    if not seen.whole and not seen.only_open:
        notes.append(f"There are more than {RECORDS_MAX:,} calls in the window: choose a shorter one with --window.")
    return notes


def _fields(seen: Seen) -> dict[str, object]:
    return {
        "at_ms": seen.at_ms,
        "runs": [
            {
                **run._asdict(),
                "spent_pusd": balance.spent,
                "limit_pusd": balance.limit,
                "spent_usd": usd_text(balance.spent),
                "status": balance.status,
            }
            for run, balance in seen.runs
        ],
        "more": seen.more,
        "whole": seen.whole,
        "only_open": seen.only_open,
    }
