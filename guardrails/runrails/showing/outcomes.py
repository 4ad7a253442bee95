"""
What came of a supervised call, for people.

The answer is part of it: whoever shows an outcome asks for it. It is in no log, no error and no other text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.showing.html import Tone, escape, fragment, panel
from runrails.showing.reports import report_parts, report_rich
from runrails.showing.stops import stop_title
from runrails.showing.terminal import plain

if TYPE_CHECKING:
    from rich.console import Group

    from runrails.outcome import Outcome

__all__ = ["outcome_html", "outcome_rich"]

ANSWER_SHOWN_MAX = 4_000
"""Most characters of an answer that are shown; `Outcome.answer` has it all."""


def outcome_html(outcome: Outcome) -> str:
    """For a notebook: how it ended, the answer, and the run's report."""
    text, answer = _ending(outcome), _answer(outcome)
    body = "".join(f"<p>{escape(part)}</p>" for part in answer.split("\n\n") if part.strip())
    tone = Tone.OK if outcome.stop is None else Tone.STOP
    return fragment(
        panel(text, body or "<p>There is no answer in words.</p>", tone=tone), *report_parts(outcome.report, steps=0)
    )


def outcome_rich(outcome: Outcome) -> Group:
    """For a terminal."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    style = "green" if outcome.stop is None else "red"
    answer = Text(plain(_answer(outcome)) or "There is no answer in words.")
    panel = Panel(answer, title=Text(_ending(outcome), style="bold"), title_align="left", border_style=style)
    return Group(panel, report_rich(outcome.report))


def _ending(outcome: Outcome) -> str:
    if outcome.stop is None:
        return "Answered"
    more = [
        text
        for text, true in (
            ("answered in a last turn", outcome.wrapped_up),
            ("something was left behind", outcome.abandoned),
        )
        if true
    ]
    return ", ".join([stop_title(outcome.stop), *more])


def _answer(outcome: Outcome) -> str:
    answer = outcome.answer or ""
    return answer if len(answer) <= ANSWER_SHOWN_MAX else f"{answer[:ANSWER_SHOWN_MAX]}…"
