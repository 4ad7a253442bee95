"""What a report's plots show, as numbers: the same for those drawn here and for Matplotlib's. Pure."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from runrails.report import Report, StepRow

__all__ = ["CALLS_SHOWN_MAX", "CallCount", "Mark", "Series", "series_of"]

CALLS_SHOWN_MAX = 10
"""Most different calls that are shown."""
PRINT_CHARS = 6
"""How much of a fingerprint is shown."""


class Mark(NamedTuple):
    """Where something spoke up."""

    place: int
    """Of the step, in the series."""
    level: str
    """`hint`, `block` or `stop`."""
    label: str


class CallCount(NamedTuple):
    """How often one tool was called with the same arguments."""

    label: str
    """The tool, and the beginning of the fingerprint where it has one."""
    ok: int
    failed: int
    blocked: int

    @property
    def total(self) -> int:
        """All attempts."""
        return self.ok + self.failed + self.blocked


class Series(NamedTuple):
    """One number a step in each list, oldest first."""

    steps: list[int]
    """Numbers of the steps; a blocked attempt has the number of the step before it."""
    total_pusd: list[int]
    """What the run had cost by then."""
    before_pusd: int
    """What it had cost before the first step shown."""
    input_tokens: list[int]
    output_tokens: list[int]
    marks: list[Mark]
    calls: list[CallCount]
    """The most frequent first."""
    calls_left_out: int
    """How many different calls are not among them."""


def series_of(report: Report) -> Series:
    """The report's steps as numbers."""
    rows = report.rows
    before, totals = _totals(report)
    calls = _calls(rows)
    return Series(
        [row.step for row in rows], totals, before, [row.input_tokens for row in rows],
        [row.output_tokens for row in rows], _marks(report), calls[:CALLS_SHOWN_MAX],
        max(0, len(calls) - CALLS_SHOWN_MAX),
    )  # fmt: skip


def _totals(report: Report) -> tuple[int, list[int]]:
    """The cost before the first step, and after each. Older records do not tell what child runs cost, and when."""
    rows = report.rows
    told = [row.total_pusd for row in rows if row.total_pusd is not None]
    if rows and len(told) == len(rows):
        return told[0] - rows[0].cost_pusd, list(accumulate(told, max))
    before = max(0, report.cost_pusd - sum(row.cost_pusd for row in rows))
    return before, [before + so_far for so_far in accumulate(row.cost_pusd for row in rows)]


def _marks(report: Report) -> list[Mark]:
    marks = [Mark(place, row.finding, row.finding) for place, row in enumerate(report.rows) if row.finding]
    last = len(report.rows) - 1
    if report.stop_reason and last >= 0:
        marks = [mark for mark in marks if mark.level != "stop" or mark.place != last]
        marks.append(Mark(last, "stop", report.stop_reason.replace("_", " ")))
    return marks


def _calls(rows: tuple[StepRow, ...]) -> list[CallCount]:
    counts: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row.kind == "tool":
            sums = counts.setdefault((row.name, row.call), [0, 0, 0])
            sums[2 if row.end == "blocked" else 0 if row.end == "ok" else 1] += 1
    made = [CallCount(f"{name} {call[:PRINT_CHARS]}" if call else name, *sums) for (name, call), sums in counts.items()]
    made.sort(key=lambda each: -each.total)
    return made
