"""What is shown, as HTML and as lines of text. Functions of values; all HTML is made by `runrails.showing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.money import format_usd
from runrails.showing.html import Tone, bar, fragment, panel, paragraph, table
from runrails.showing.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from runrails.ledger import Balance
    from runrails_notebook.kernel import KernelGuard
    from runrails_notebook.meter import MeterView

__all__ = ["Picture", "cells_picture", "meter_picture", "meter_rich", "state_picture"]

COLUMNS = ("cell", "model calls", "tool calls", "tokens", "cost", "time", "ended")
ROWS_MAX = 200
"""So many cells are shown, the newest; all of them are counted."""
_RIGHT = (1, 2, 3, 4, 5)


class Picture(NamedTuple):
    """The same for those who see HTML and for those who do not."""

    html: str
    text: str

    @property
    def bundle(self) -> dict[str, str]:
        """As IPython's display takes it."""
        return {"text/html": self.html, "text/plain": self.text}


def meter_picture(view: MeterView) -> Picture:
    """The meter under a cell."""
    tone = _tone(view)
    facts = _facts(view)
    body = "".join((
        bar("this cell", view.spent_pusd, view.limit_pusd, text=_of(view.spent_pusd, view.limit_pusd), tone=tone),
        bar("kernel", view.kernel_spent_pusd, view.kernel_limit_pusd, text=_kernel(view), tone=_gauge(
            view.kernel_spent_pusd, view.kernel_limit_pusd)),
        paragraph(" · ".join(facts), soft=True),
        paragraph(view.note) if view.note else "",
    ))  # fmt: skip
    title = f"runrails · {view.title} · {view.state} · {view.seconds} s"
    lines = [f"{title} · {_of(view.spent_pusd, view.limit_pusd)} · kernel {_kernel(view)}", "  " + " · ".join(facts)]
    text = plain("\n".join([*lines, *([view.note] if view.note else [])]))
    return Picture(fragment(panel(title, body, tone=tone)), text)


def meter_rich(view: MeterView) -> RenderableType:
    """The meter in a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    style = {Tone.STOP: "red", Tone.WARN: "yellow", Tone.OK: "green", Tone.PLAIN: "cyan"}[_tone(view)]
    made.add_row(Text(plain(f"{view.title} · {view.state}"), style=style), f"{view.seconds} s")
    made.add_row("this cell", _of(view.spent_pusd, view.limit_pusd))
    made.add_row("kernel", _kernel(view))
    made.add_row("", Text(plain(" · ".join(_facts(view)))))
    if view.note:
        made.add_row("", Text(plain(view.note), style="yellow"))
    return made


def state_picture(kernel: KernelGuard, month: Balance | None, *, heard: str = "") -> Picture:
    """How the kernel stands."""
    settings = kernel.settings
    spent = kernel.spent_pusd
    limit = settings.kernel_limits.run_pusd
    stop = None if kernel.run is None else kernel.run.stopped
    state = "off" if not kernel.on else "stopped" if stop is not None else "on"
    bars = [("kernel", spent, limit, "")]
    if month is not None:
        said = settings.kernel_limits.month_pusd  # which the ledger hears of with the first call
        whole = month.limit if month.limit_source == "operator" or said is None else said
        bars.append((month.account.scope, month.spent, whole, f" in {month.account.period}"))
    steps = "no limit of steps" if settings.steps is None else f"{settings.steps:,} steps"
    money = "" if settings.cell is None else f"{format_usd(settings.cell_limits().run_pusd or 0)} and "
    facts = [
        f"each cell: {money}{steps}, loop detector {'on' if settings.loops else 'off'}",
        f"{_many(len(kernel.cells), 'cell')} called something" if kernel.cells else "nothing was called yet",
    ]
    if state == "off":
        facts.append("nothing is stopped; what guarded clients spend is still written down")
    body = "".join(
        bar(label, part, whole, text=_of(part, whole) + when, tone=_gauge(part, whole))
        for label, part, whole, when in bars
    )
    tone = {"on": Tone.OK, "off": Tone.WARN, "stopped": Tone.STOP}[state]
    title = f"runrails is {state} in this kernel" if state != "stopped" else "runrails has stopped this kernel"
    html = fragment(panel(title, body + "".join(paragraph(fact, soft=True) for fact in facts) + (
        paragraph(heard) if heard else ""), tone=tone))  # fmt: skip
    lines = [title, *(f"  {label}: {_of(part, whole)}{when}" for label, part, whole, when in bars)]
    return Picture(html, "\n".join([*lines, *(f"  {fact}" for fact in facts), *([heard] if heard else [])]))


def cells_picture(kernel: KernelGuard) -> Picture:
    """What each cell has cost, and the kernel."""
    cells = list(kernel.cells)[-ROWS_MAX:]
    rows = [cell.row() for cell in cells]
    listed = sum(cell.cost_pusd for cell in cells)
    if kernel.rest.tallies:
        rows.append(kernel.rest.row())
        listed += kernel.rest.cost_pusd
    if kernel.spent_pusd > listed:
        rows.append(("earlier cells", "", "", "", format_usd(kernel.spent_pusd - listed), "", ""))
    tally = None if kernel.run is None else kernel.run.tally
    counts = (0, 0, 0) if tally is None else (tally.model_calls, tally.tool_calls, tally.tokens)
    rows.append(("kernel", *(f"{count:,}" for count in counts), format_usd(kernel.spent_pusd), "", ""))
    return Picture(fragment(table(COLUMNS, rows, right=_RIGHT)), _columns((COLUMNS, *rows)))


def _facts(view: MeterView) -> list[str]:
    steps = f"{view.steps:,} steps" if view.steps_max is None else f"{view.steps:,} of {view.steps_max:,} steps"
    facts = [
        f"{steps} ({view.model_calls:,} model, {view.tool_calls:,} tool)",
        f"{view.input_tokens:,} tokens in, {view.output_tokens:,} out",
    ]
    if view.tool:
        facts.append(f"last tool {view.tool}")
    if view.ladder:
        facts.append(view.ladder)
    if view.refusals:
        facts.append(f"{_many(view.refusals, 'call')} refused")
    return facts


def _tone(view: MeterView) -> Tone:
    if view.stopped:
        return Tone.STOP
    if view.ladder or view.refusals:
        return Tone.WARN
    return Tone.OK if view.state == "done" else _gauge(view.spent_pusd, view.limit_pusd)


def _gauge(part: int, whole: int | None) -> Tone:
    if whole is None or part * 10 < whole * 8:
        return Tone.PLAIN
    return Tone.WARN if part < whole else Tone.STOP


def _of(part: int, whole: int | None) -> str:
    return format_usd(part) if whole is None else f"{format_usd(part)} of {format_usd(whole)}"


def _kernel(view: MeterView) -> str:
    spent, limit = view.kernel_spent_pusd, view.kernel_limit_pusd
    return _of(spent, limit) if limit is None else f"{_of(spent, limit)}, {format_usd(max(0, limit - spent))} left"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if place in _RIGHT else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
