"""`runrails audit`: recorded runs, replayed through the loop detector and the price book."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NoReturn

import typer

from runrails.cli.output import AsJson, stderr, stdout

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rich.console import Console
    from rich.progress import Progress

    from runrails.audit import Answer, Auditor, BadInput, RunAudit
    from runrails.showing.terminal import Sheet

__all__ = ["audit"]

EXIT_STOPPED = 1
EXIT_BAD_INPUT = 2

_STDIN = "-"
_ROWS_MAX = 200
_ID_CHARS_MAX = 60


@dataclass(slots=True)
class _Totals:
    """What the summary line says."""

    runs: int = 0
    stops: int = 0
    hints: int = 0
    bad: int = 0
    tokens: int = 0
    cost_pusd: int = 0
    avoided_pusd: int = 0
    unpriced: int = 0
    """Runs with usage at an unknown price."""
    unreported: int = 0
    """Model calls without usage, in runs where others have it."""
    shown: list[RunAudit] = field(default_factory=list["RunAudit"])

    def add(self, run: RunAudit) -> None:
        self.runs += 1
        self.stops += run.verdict == "stop"
        self.hints += run.verdict == "hint"
        self.tokens += run.tokens or 0
        self.cost_pusd += run.cost_pusd or 0
        self.avoided_pusd += run.avoided_pusd or 0
        self.unpriced += run.tokens is not None and run.cost_pusd is None
        self.unreported += run.model_calls - run.reported_calls if run.tokens is not None else 0
        if run.verdict != "ok" and len(self.shown) < _ROWS_MAX:
            self.shown.append(run)


def audit(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help=f"Recorded runs, one a line. {_STDIN} is stdin.")],
    poll: Annotated[
        list[str] | None,
        typer.Option("--poll", metavar="TOOL", help="A tool that waits for something; give it again for several."),
    ] = None,
    fail_on_stop: Annotated[
        bool, typer.Option("--fail-on-stop", help="Leave with exit code 1 if a run would have been stopped.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Say where the guard would have hinted, blocked and stopped in recorded runs.

    One run a line, as JSON. Either id and messages: OpenAI chat messages, of
    which tool messages may carry "status": "error" and assistant messages
    "model" and "usage". Or id and steps: objects of kind llm or user with text,
    or of kind tool with name, args, ok and output or error, each optionally
    with batch (the same number for parallel calls of one answer), agent (a
    sub-agent's path) and t (seconds). Both may have poll_tools, names of tools
    that wait for something. Other keys are ignored.

    With --json one object a line: id, verdict (ok, hint or stop), hint_at,
    block_at, stop_at, rule, tool, tokens, cost_usd, avoided_usd. The three
    places count tool results (messages) or steps (steps) from 1; stop_at is
    where a callback alone would stop the run. Dollars are numbers with every
    digit, at today's prices. They and tokens are sums over the model calls that
    report usage: null if none does; cost_usd also if the price of one of them
    is unknown. avoided_usd is the part of it after stop_at; null without a
    stop.

    Exit codes: 0 done; 1 with --fail-on-stop if a run would have been stopped;
    2 if something could not be read, after everything else was answered.
    """
    auditor = _auditor(frozenset(poll or ()))
    totals = _Totals()
    errors = stderr()
    # Answers on the same terminal would be torn apart by a bar below them.
    try:
        with _progress(errors, wanted=not (as_json and sys.stdout.isatty())) as progress:
            for answer in _answers(files, auditor, progress):
                _tell(answer, totals, errors, as_json=as_json)
        if not as_json:
            _summarise(totals, stdout())
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # whoever reads the answers has read enough; the shell knows
    except OSError as exc:
        _give_up_writing(exc, errors)
    if totals.bad:
        raise typer.Exit(EXIT_BAD_INPUT)
    if fail_on_stop and totals.stops:
        raise typer.Exit(EXIT_STOPPED)


def _give_up_writing(error: OSError, errors: Console) -> NoReturn:
    """Reading never raises an OSError here, so it is the answers that have nowhere to go."""
    what = f"The answers could not be written: {error.strerror}. Free some space, or write them elsewhere."
    errors.print(what, soft_wrap=True, markup=False)
    # What waits in the buffer would raise once more at the interpreter's end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(EXIT_BAD_INPUT)


def _auditor(poll_tools: frozenset[str]) -> Auditor:
    from runrails import settings
    from runrails.audit import Auditor
    from runrails.clocks import system_ms
    from runrails.pricing.book import PriceBook

    prices = PriceBook.load(project_file=settings.price_file())
    return Auditor.at(system_ms(), prices=prices, poll_tools=poll_tools)


def _tell(answer: Answer, totals: _Totals, errors: Console, *, as_json: bool) -> None:
    from runrails.audit import RunAudit

    if isinstance(answer, RunAudit):
        totals.add(answer)
        if as_json:
            print(answer.as_json())
    else:
        totals.bad += 1
        _complain(answer, errors)


def _complain(bad: BadInput, errors: Console) -> None:
    from rich.text import Text

    # One line, whatever the terminal's width: people and programs look for file:line at its start.
    errors.print(Text(_printable(str(bad))), soft_wrap=True)


@contextmanager
def _progress(console: Console, *, wanted: bool) -> Generator[Progress | None]:
    """A bar on stderr while it is watched by a person; nothing of it stays."""
    if not (wanted and console.is_terminal):
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield progress


def _answers(files: list[str], auditor: Auditor, progress: Progress | None) -> Iterator[Answer]:
    from runrails.audit import audit_file

    for name in files:
        if name == _STDIN:
            yield from auditor.stream(sys.stdin.buffer, source="<stdin>")
        elif progress is None:
            yield from audit_file(name, auditor=auditor)
        else:
            yield from _watched(name, auditor, progress)


def _watched(name: str, auditor: Auditor, progress: Progress) -> Iterator[Answer]:
    from runrails.audit import audit_file

    task = progress.add_task(_printable(name), total=_size(name))

    def watch(stream: BinaryIO) -> BinaryIO:
        return progress.wrap_file(stream, task_id=task)

    yield from audit_file(name, auditor=auditor, wrap=watch)


def _size(name: str) -> int | None:
    try:
        return Path(name).stat().st_size
    except OSError:
        return None


def _summarise(totals: _Totals, console: Console) -> None:
    if totals.shown:
        console.print(_table(totals.shown))
    more = totals.stops + totals.hints - len(totals.shown)
    if more:
        console.print(f"… and {more:,} more; --json shows all.")
    console.print("; ".join(_summary(totals)) + ".")


def _summary(totals: _Totals) -> Iterator[str]:
    from runrails.money import format_usd

    fine = totals.runs - totals.stops - totals.hints
    yield f"{_count(totals.runs, 'run')}: {totals.stops:,} stopped, {totals.hints:,} hinted, {fine:,} fine"
    if totals.bad:
        yield f"{totals.bad:,} not readable"
    if totals.tokens:
        yield f"{_count(totals.tokens, 'token')}, {format_usd(totals.cost_pusd)}"
        yield f"{format_usd(totals.avoided_pusd)} avoidable"
    if totals.unpriced:
        yield f"{_count(totals.unpriced, 'run')} of unknown price not counted (write it in runrails.toml)"
    if totals.unreported:
        yield f"{_count(totals.unreported, 'model call')} without usage not counted"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _table(runs: list[RunAudit]) -> Sheet:
    """One row a run. Tokens and money have columns only if something is known about them."""
    from runrails.cli.output import make_table

    money = any(run.tokens is not None for run in runs)
    columns = {"run": False, "at": False, "rule": False, "tool": False}
    columns |= dict.fromkeys(("tokens", "cost", "avoided"), True) if money else {}
    rows = [
        [_short(str(run.id)), _places(run), run.rule or "", _short(run.tool or ""), *(_spent(run) if money else ())]
        for run in runs
    ]
    table = make_table("Where the guard would have stepped in", columns, rows)
    table.whole |= {1, 2}
    return table


def _places(run: RunAudit) -> str:
    """Where the rungs were reached: `hint 3, stop 5`. The block is where the stop is, but for runs without one."""
    block = run.block_at if run.stop_at is None else None
    rungs = {"hint": run.hint_at, "block": block, "stop": run.stop_at}
    return ", ".join(f"{rung} {place:,}" for rung, place in rungs.items() if place is not None)


def _spent(run: RunAudit) -> list[str]:
    from runrails.money import format_usd

    amounts = (run.cost_pusd, run.avoided_pusd)
    return ["-" if run.tokens is None else f"{run.tokens:,}", *("-" if x is None else format_usd(x) for x in amounts)]


def _short(text: str) -> str:
    shown = _printable(text)
    return shown if len(shown) <= _ID_CHARS_MAX else shown[: _ID_CHARS_MAX - 1] + "…"


def _printable(text: str) -> str:
    """Recordings come from anywhere: no escape sequence and no half character of theirs may reach a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
