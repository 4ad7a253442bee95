"""A run's report, for people and for what they calculate with: HTML, Rich, rows, a data frame, plots."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runrails.money import format_usd
from runrails.showing.charts import charts
from runrails.showing.html import Tone, bar, escape, fragment, page, panel, paragraph, table
from runrails.showing.terminal import grid, lines_table, plain

if TYPE_CHECKING:
    from rich.console import Group

    from runrails.report import Report, StepRow

__all__ = ["ROW_NAMES", "report_frame", "report_html", "report_page", "report_parts", "report_rich", "report_rows"]

STEPS_SHOWN_MAX = 20
"""How many of the newest steps a notebook and a terminal show; a page has all that are remembered."""
_COLUMNS = ("step", "kind", "name", "end", "tokens in", "tokens out", "cost", "ms", "found")
_NUMBERS = (0, 4, 5, 6, 7)
_FEW = ("step", "kind", "name", "end", "tokens", "cost", "ms")
_FEW_NUMBERS = (0, 4, 5, 6)
"""The same for a terminal of 80 columns."""
_GROUPED = ("model", "tool", "agent", "user")
_TURN = 100
"""A bar turns yellow at 80 of these, as a balance's status does."""

ROW_NAMES = (
    "run", "step", "kind", "name", "agent", "end", "input_tokens", "output_tokens", "cost_pusd", "cost_usd",
    "total_pusd", "total_usd", "duration_ms", "call", "finding",
)  # fmt: skip
"""What each row of `report_rows` has."""

Cell = str | int | None


def report_rows(report: Report) -> list[dict[str, Cell]]:
    """One flat row a step: plain text and whole numbers, amounts in picodollars and as text in dollars."""
    made: list[dict[str, Cell]] = []
    for row in report.rows:
        total_usd = None if row.total_pusd is None else _dollars(row.total_pusd)
        cells: tuple[Cell, ...] = (
            report.run, row.step, row.kind, row.name, row.agent, row.end, row.input_tokens, row.output_tokens,
            row.cost_pusd, _dollars(row.cost_pusd), row.total_pusd, total_usd, row.duration_ms, row.call, row.finding,
        )  # fmt: skip
        made.append(dict(zip(ROW_NAMES, cells, strict=True)))
    return made


def report_frame(report: Report) -> Any:
    """The rows as a pandas data frame; raises ImportError where there is no pandas."""
    try:
        pandas: Any = import_module("pandas")
    except ImportError as error:
        raise ImportError(
            "Report.to_dataframe() needs pandas: pip install pandas. Report.to_rows() gives the same without it."
        ) from error
    return pandas.DataFrame(report_rows(report), columns=list(ROW_NAMES))


def report_html(report: Report) -> str:
    """For a notebook: how it ended, what it cost, plots, and the newest steps."""
    return fragment(*report_parts(report, steps=STEPS_SHOWN_MAX))


def report_page(report: Report, *, about: str = "") -> str:
    """A whole document with everything that is known; `about` is a last line."""
    parts = report_parts(report, steps=len(report.rows), everything=True)
    return page(f"Run {report.name or report.run}", *parts, *([paragraph(about, soft=True)] if about else []))


def report_parts(report: Report, *, steps: int, everything: bool = False) -> list[str]:
    """The pieces of it as HTML, with so many of the newest steps."""
    title, tone = _ending(report)
    said = "" if (why := _why(report)) is None else f"<p>{escape(why)}</p>"
    facts = [(label, text) for label, text in _facts(report) if everything or label not in ("run", "user", "mode")]
    parts = [panel(title, said + _budget(report) + table(("", ""), facts), tone=tone), charts(report)]
    if everything:
        parts += _groups(report)
    if report.findings and everything:
        parts.append("<h2>What the loop detector found</h2>")
        found = [(each.level, each.what_happened, each.how_to_allow) for each in report.findings]
        parts.append(table(("", "what happened", "if it is meant"), found))
    newest = report.rows[-steps:] if steps else ()
    if newest:
        if everything or len(newest) < len(report.rows):
            parts.append(f"<h2>{escape(_which_steps(report, len(newest)))}</h2>")
        parts.append(table(_COLUMNS, [_cells(row) for row in newest], right=_NUMBERS))
    return parts


def report_rich(report: Report) -> Group:
    """For a terminal: how it ended, what it cost, and the newest steps."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    title, tone = _ending(report)
    why = _why(report)
    said = [] if why is None else [Text(plain(why))]
    style = {Tone.STOP: "red", Tone.WARN: "yellow"}.get(tone, "green")
    head = Panel(
        Group(*said, grid(_facts(report))), title=Text(plain(title), style="bold"), title_align="left",
        border_style=style,
    )  # fmt: skip
    newest = report.rows[-STEPS_SHOWN_MAX:]
    if not newest:
        return Group(head)
    made = lines_table(_which_steps(report, len(newest)), _FEW, [_few(row) for row in newest], right=_FEW_NUMBERS)
    return Group(head, made)


def _ending(report: Report) -> tuple[str, Tone]:
    name = f"Run {report.name or report.run}: {format_usd(report.cost_pusd)}"
    if report.stop_reason:
        return f"{name}, stopped ({report.stop_reason.replace('_', ' ')})", Tone.STOP
    if report.would_have_stopped:
        return f"{name}, would have been stopped", Tone.WARN
    return name, Tone.OK


def _why(report: Report) -> str | None:
    return report.stop_message or report.would_have_stopped


def _budget(report: Report) -> str:
    limit, cost = report.limit_pusd, report.cost_pusd
    text = format_usd(cost) if limit is None else f"{format_usd(cost)} of {format_usd(limit)}"
    tone = Tone.PLAIN
    if limit is not None:
        tone = Tone.STOP if cost >= limit else Tone.WARN if cost * _TURN >= limit * 80 else Tone.OK
    return bar("the run's budget" if limit is not None else "no run budget", cost, limit, text=text, tone=tone)


def _facts(report: Report) -> list[tuple[str, str]]:
    limit = "" if report.limit_pusd is None else f" of {format_usd(report.limit_pusd)}"
    facts = [("run", report.run), ("user", report.user)]
    facts += [(label, text) for label, text in (("key", report.key), ("organisation", report.org)) if text]
    if report.tags:
        facts.append(("tags", ", ".join(f"{name}={value}" for name, value in report.tags)))
    facts += [
        ("mode", report.mode),
        ("cost", format_usd(report.cost_pusd) + limit),
        ("steps", f"{report.steps:,}: {report.model_calls:,} model, {report.tool_calls:,} tool"),
        ("tokens", f"{report.input_tokens:,} in, {report.output_tokens:,} out"),
        ("time", f"{report.duration_ms / 1000:.1f} s"),
    ]
    if report.unresolved_pusd:
        facts.append(("not confirmed", f"{format_usd(report.unresolved_pusd)} of the cost"))
    if report.overrun_pusd:
        facts.append(("above the holds", format_usd(report.overrun_pusd)))
    if report.own_key_pusd:
        facts.append(("on own keys", f"{format_usd(report.own_key_pusd)} of the cost"))
    for saving in report.savings:
        facts.append((f"saved by {saving.what}", f"{format_usd(saving.saved_pusd)} ({saving.calls:,} calls)"))
    if report.hints or report.blocks or report.refusals:
        facts.append(("interventions", f"hints {report.hints}, blocks {report.blocks}, refusals {report.refusals}"))
    return facts


def _groups(report: Report) -> list[str]:
    parts: list[str] = []
    for dimension in _GROUPED:
        rows = report.groups.get(dimension, ())
        if len(rows) < 2 and dimension not in ("model", "tool"):
            continue
        if rows:
            parts.append(f"<h2>By {dimension}</h2>")
        if rows and dimension == "tool":
            parts.append(table(("tool", "calls"), [(row.name or "-", f"{row.calls:,}") for row in rows], right=(1,)))
        elif rows:
            cells = [
                (row.name or "-", f"{row.calls:,}", f"{row.input_tokens:,}", f"{row.output_tokens:,}",
                 format_usd(row.cost_pusd))
                for row in rows
            ]  # fmt: skip
            parts.append(table((dimension, "calls", "tokens in", "tokens out", "cost"), cells, right=(1, 2, 3, 4)))
    return parts


def _which_steps(report: Report, count: int) -> str:
    return f"The newest {count:,} of {report.steps:,} steps" if count < report.steps else f"All {count:,} steps"


def _cells(row: StepRow) -> tuple[str, ...]:
    name = f"{row.name} ({row.agent})" if row.agent else row.name
    if row.kind == "tool":
        return (f"{row.step:,}", row.kind, name, row.end, "", "", "", f"{row.duration_ms:,}", row.finding)
    return (
        f"{row.step:,}", row.kind, name, row.end, f"{row.input_tokens:,}", f"{row.output_tokens:,}",
        format_usd(row.cost_pusd), f"{row.duration_ms:,}", row.finding,
    )  # fmt: skip


def _few(row: StepRow) -> tuple[str, ...]:
    step, kind, name, end, _, _, cost, ms, found = _cells(row)
    tokens = f"{row.input_tokens + row.output_tokens:,}" if row.kind == "model" else ""
    return step, kind, name, end if not found or end == "blocked" else f"{end}, {found}", tokens, cost, ms


def _dollars(amount: int) -> str:
    return format_usd(amount).replace("$", "").replace(",", "")
