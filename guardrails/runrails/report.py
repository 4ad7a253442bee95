"""What a run did: steps, tokens, cost, what was stopped and why."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runrails.grouping import GroupRow, Groups, no_such_group
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from rich.console import Group

    from runrails.attribution import Tags
    from runrails.calls import Finding

__all__ = ["Report", "Saving", "StepRow", "savings_of"]

DIMENSIONS = ("user", "key", "org", "model", "agent", "tool")
STEPS_KEPT_MAX = 1_000
FINDINGS_KEPT_MAX = 100
_MADE_PLAIN = ("findings", "rows", "tags", "groups", "savings")
_NOT_ALWAYS = ("call", "finding", "total_pusd")
_UNTOLD = ("discount_pusd", "markup_pusd")
"""What only the usage of a store knows of a group."""


class StepRow(NamedTuple):
    """One step of a run."""

    step: int
    kind: Literal["model", "tool"]
    name: str
    """The model's or the tool's name."""
    agent: str
    end: str
    """How it ended: a model call's end, or `ok`, `failed`, `blocked` for a tool."""
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    duration_ms: int
    call: str = ""
    """Fingerprint of a tool call, by which the same call is known again; empty without a loop detector."""
    finding: str = ""
    """`hint`, `block` or `stop`, where the loop detector spoke."""
    total_pusd: int | None = None
    """What the run, with its child runs, had cost by the end of the step; None in records of older versions."""


class Saving(NamedTuple):
    """What one way of saving came to in a run."""

    what: str
    """`cache`, `downgrade` or `pruning`."""
    calls: int
    """How many it made cheaper."""
    tokens: int
    """Tokens that were not used; of pruning an estimate."""
    saved_pusd: int


def savings_of(counts: Mapping[str, tuple[int, int, int]]) -> tuple[Saving, ...]:
    """The same, from what a run has counted."""
    return tuple([Saving(what, *counts[what]) for what in sorted(counts)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run at one moment; `run.report()` may be called at any time."""

    run: str
    name: str
    user: str
    mode: str
    started_ms: int
    duration_ms: int
    steps: int
    model_calls: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    unresolved_pusd: int
    """The part of the cost that is a stand-in (cut streams, timeouts, missing usage)."""
    overrun_pusd: int
    """How much providers billed above the holds."""
    limit_pusd: int | None
    """The run's own budget."""
    hints: int
    blocks: int
    refusals: int
    """Calls that were refused without stopping the run."""
    stop_reason: str | None
    stop_message: str | None
    would_have_stopped: str | None
    """Observe mode: the first reason for which enforcing would have stopped the run."""
    findings: tuple[Finding, ...]
    rows: tuple[StepRow, ...]
    """The newest steps, at most 1,000."""
    key: str | None = None
    org: str | None = None
    tags: Tags = ()
    """With user and key and organisation: whose the run is. Single calls may be somebody else's; see `by`."""
    groups: Mapping[str, tuple[GroupRow, ...]] = field(default_factory=dict[str, tuple[GroupRow, ...]])
    """What `by` answers."""
    own_key_pusd: int = 0
    """The part of the cost that was paid on keys of the users' own."""
    savings: tuple[Saving, ...] = ()
    """What stored answers, cheaper models and shorter conversations saved, as far as each call's usage was reported."""
    refused: str | None = None
    """Why the newest of the refused calls was."""

    @property
    def billed_pusd(self) -> int:
        """The part of the cost that the platform bills."""
        return self.cost_pusd - self.own_key_pusd

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def by(self, dimension: str) -> tuple[GroupRow, ...]:
        """
        All steps of the run, those of child runs included, summed by whom or what they were for, the dearest first.

        Args:
            dimension: `user`, `key`, `org`, `tag:NAME`, `model` (the one asked for) or `agent` sum model calls, `tool`
                the executed tool calls. Beyond 256 groups, what is new is summed under `(other)`.

        Raises:
            ConfigError: Reports are not grouped by that.
        """
        if dimension in self.groups:
            return self.groups[dimension]
        if dimension.startswith("tag:"):  # no call has it
            untagged = Groups()
            for row in self.groups.get("user", ()):
                untagged.add(None, row.calls, row.input_tokens, row.output_tokens, row.cost_pusd)
            return untagged.rows()
        raise no_such_group("A report", DIMENSIONS)

    def as_dict(self) -> dict[str, object]:
        """The report as JSON-ready values; amounts in picodollars and, for people, in dollars."""
        plain: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _MADE_PLAIN}
        plain["cost_usd"] = format_usd(self.cost_pusd)
        plain["billed_pusd"] = self.billed_pusd
        plain["tags"] = dict(self.tags)
        plain["groups"] = {
            dimension: [{f.name: getattr(row, f.name) for f in fields(row) if f.name not in _UNTOLD} for row in rows]
            for dimension, rows in self.groups.items()
        }
        plain["findings"] = [{f.name: getattr(item, f.name) for f in fields(item)} for item in self.findings]
        plain["rows"] = [_plain_row(row) for row in self.rows]
        plain["savings"] = [each._asdict() for each in self.savings]
        return plain

    def to_rows(self) -> list[dict[str, str | int | None]]:
        """One flat row a step, oldest first, at most the newest 1,000: for tables and files. No prompts, no results."""
        from runrails.showing.reports import report_rows

        return report_rows(self)

    def to_dataframe(self) -> Any:
        """
        The same rows as a pandas.DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        from runrails.showing.reports import report_frame

        return report_frame(self)

    def plot(self, *, dark: bool = False) -> Figure:
        """
        Cost so far by step with its limit and where the guard spoke up, tokens by step, and calls by fingerprint.

        Needs Matplotlib (`pip install 'runrails[plot]'`) but neither `pyplot` nor its global state: a notebook shows
        the figure that is returned, and `figure.savefig("run.png")` keeps it.

        Args:
            dark: Light on dark; by default dark on white, which can be read anywhere.

        Raises:
            ImportError: Matplotlib is not installed.
        """
        from runrails.showing.plots import plot_report

        return plot_report(self, dark=dark)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from runrails.showing.reports import report_html

        return report_html(self)

    def __rich__(self) -> Group:
        """For terminals, with Rich."""
        from runrails.showing.reports import report_rich

        return report_rich(self)

    def __str__(self) -> str:
        """A few lines for a terminal."""
        limit = "no run budget" if self.limit_pusd is None else f"of {format_usd(self.limit_pusd)}"
        calls = f"{_many(self.model_calls, 'model call')}, {_many(self.tool_calls, 'tool call')}"
        head = f"run {self.name or self.run}: {format_usd(self.cost_pusd)} {limit}"
        lines = [f"{head}, {calls}, {self.tokens:,} tokens, {self.duration_ms / 1000:.1f} s"]
        if self.own_key_pusd:
            lines.append(f"on your own key {format_usd(self.own_key_pusd)}, billed {format_usd(self.billed_pusd)}")
        if self.savings:
            parts = [
                f"{each.what} {format_usd(each.saved_pusd)} ({_many(each.calls, 'call')})" for each in self.savings
            ]
            lines.append(f"saved: {', '.join(parts)}")
        if self.hints or self.blocks or self.refusals:
            lines.append(f"hints {self.hints}, blocked calls {self.blocks}, refused calls {self.refusals}")
        if self.stop_message:
            lines.append(f"stopped ({self.stop_reason}): {self.stop_message}")
        elif self.would_have_stopped:
            lines.append(f"would have stopped: {self.would_have_stopped}")
        from runrails.showing.terminal import plain

        return plain("\n".join(lines))  # a run's name may be anybody's, and this is printed


def _plain_row(row: StepRow) -> dict[str, object]:
    """Without what is empty of the fields that not every step has: a thousand rows are kept in one record."""
    plain: dict[str, object] = row._asdict()
    for name in _NOT_ALWAYS:
        if not plain[name]:
            del plain[name]
    return plain


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
