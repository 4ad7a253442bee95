"""
Why something was stopped or refused, for people: as a panel in a notebook and as text in a terminal.

Shown is what the error's `as_dict` has and what the report counts; neither holds a prompt, an argument or a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import GuardrailStopped, RunrailsError, format_amount
from runrails.money import format_usd
from runrails.showing.html import Tone, bar, escape, fragment, panel, table
from runrails.showing.terminal import grid, plain

if TYPE_CHECKING:
    from rich.panel import Panel

    from runrails.report import Report

__all__ = ["stop_facts", "stop_panel", "stop_rich", "stop_text", "stop_title"]

_TITLES = {
    "budget_exceeded": "Stopped: the budget is used up",
    "loop_detected": "Stopped: the same call keeps giving the same outcome",
    "limit_reached": "Stopped: a limit of this run is reached",
    "budget_busy": "Not started: calls in flight hold the budget",
    "call_too_large": "Not started: this call could cost more than is left",
    "scope_exhausted": "Not started: the budget it would be paid from is used up",
    "price_unknown": "Not started: nobody has written down what this model costs",
    "bound_unknown": "Not started: the most this call can cost cannot be told",
    "credential_error": "Not started: no usable provider key",
    "rate_limited": "Not started: too much this minute",
    "guard_fault": "Not started: a part of runrails failed",
    "store_unavailable": "Not started: the ledger could not be reached",
}


def stop_title(stop: RunrailsError) -> str:
    """What happened, in some words."""
    how = "Stopped" if isinstance(stop, GuardrailStopped) else "Not started"
    return _TITLES.get(stop.code) or f"{how}: {stop.code.replace('_', ' ')}"


def stop_facts(stop: RunrailsError, report: Report | None = None) -> list[tuple[str, str]]:
    """Whose scope, how much, of which limit; and what the run has done so far. Labels and texts."""
    return [*_of_stop(stop), *([] if report is None else _of_report(report))]


def stop_panel(stop: RunrailsError, report: Report | None = None) -> str:
    """
    The stop as HTML that fits any notebook.

    Args:
        stop: A `GuardrailStopped` or a `CallRefused`.
        report: The run's, if what it has done and spent is to be shown as well.
    """
    parts = [f"<p>{escape(stop.what)}</p>", _gauge(stop)]
    if facts := stop_facts(stop, report):
        parts.append(table(("", ""), facts))
    parts.append(f"<p><b>What you can do:</b> {escape(stop.next_step)}</p>")
    return fragment(panel(stop_title(stop), "".join(parts), tone=_tone(stop)))


def stop_text(stop: RunrailsError, report: Report | None = None) -> str:
    """The stop as plain lines."""
    facts = stop_facts(stop, report)
    width = max((len(label) for label, _ in facts), default=0)
    lines = [stop_title(stop), "", stop.what]
    lines += [f"  {label.ljust(width)}  {text}" for label, text in facts]
    return plain("\n".join([*lines, f"What you can do: {stop.next_step}"]))


def stop_rich(stop: RunrailsError, report: Report | None = None) -> Panel:
    """The stop for Rich's consoles."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    advice = Text.assemble(("What you can do: ", "bold"), plain(stop.next_step))
    body = Group(Text(plain(stop.what)), grid(stop_facts(stop, report)), advice)
    style = "red" if _tone(stop) is Tone.STOP else "yellow"
    return Panel(body, title=Text(stop_title(stop), style="bold"), title_align="left", border_style=style)


def _tone(stop: RunrailsError) -> Tone:
    return Tone.STOP if isinstance(stop, GuardrailStopped) else Tone.WARN


def _number(stop: RunrailsError, name: str) -> int | None:
    value = stop.fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(stop: RunrailsError, name: str) -> str:
    value = stop.fields.get(name)
    return value if isinstance(value, str) else ""


def _gauge(stop: RunrailsError) -> str:
    """How much of the limit was used, where the stop tells of one."""
    unit, limit = _text(stop, "unit") or "pusd", _number(stop, "limit")
    used = _number(stop, "spent")
    if used is None:
        used = _number(stop, "used")
    if used is None or limit is None:
        return ""
    text = f"{format_amount(used, unit)} of {format_amount(limit, unit)}"
    return bar(_text(stop, "scope") or "used", used, limit, text=text, tone=_tone(stop))


def _of_stop(stop: RunrailsError) -> list[tuple[str, str]]:
    unit = _text(stop, "unit") or "pusd"
    facts: list[tuple[str, str]] = []
    if scope := _text(stop, "scope"):
        period = _text(stop, "period")
        facts.append(("whose", scope if period in ("", "-") else f"{scope} in {period}"))
    for name, label in (
        ("limit", "limit"),
        ("spent", "spent"),
        ("used", "used"),
        ("held", "held"),
        ("needed", "needed"),
    ):
        if (amount := _number(stop, name)) is not None:
            facts.append((label, format_amount(amount, unit)))
    if tool := _text(stop, "tool"):
        facts.append(("tool", tool))
    if agent := _text(stop, "agent"):
        facts.append(("agent", agent))
    if rule := _text(stop, "rule"):
        count, threshold = _number(stop, "count"), _number(stop, "threshold")
        seen = "" if count is None or threshold is None else f", seen {count:,} times, threshold {threshold:,}"
        facts.append(("rule", rule.replace("_", " ") + seen))
    if (spent := _number(stop, "spent_pusd")) is not None:
        facts.append(("cost of the loop", format_usd(spent)))
    if setting := _text(stop, "setting"):
        facts.append(("setting", f"Limits({setting}=…)"))
    return facts


def _of_report(report: Report) -> list[tuple[str, str]]:
    limit = "" if report.limit_pusd is None else f" of {format_usd(report.limit_pusd)}"
    return [
        ("run", report.name or report.run),
        ("run's cost", format_usd(report.cost_pusd) + limit),
        ("run's steps", f"{report.steps:,}: {report.model_calls:,} model, {report.tool_calls:,} tool"),
        ("run's tokens", f"{report.input_tokens:,} in, {report.output_tokens:,} out"),
        ("run's time", f"{report.duration_ms / 1000:.1f} s"),
    ]
