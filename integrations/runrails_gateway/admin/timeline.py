"""A run as a line of steps: from its report, and from its calls in the books. Functions of values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from runrails.plainfields import usd_text
from runrails_gateway.admin.models import FindingTold, Saved, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runrails.ledger import UsageRecord

__all__ = ["findings_of", "items", "number", "savings_of", "text", "timeline"]

Fields = "Mapping[str, object]"


class _Row(NamedTuple):
    """A step of a report."""

    step: int
    kind: Literal["model", "tool"]
    fields: Mapping[str, object]


def timeline(report: Mapping[str, object], calls: Sequence[UsageRecord]) -> list[Step]:
    """
    The steps of a run in order, as far as they are known.

    Model calls are told by the books, which have those of every process; how they ended, and the calls of tools, by
    the report. One that is in the report alone was answered without a provider, or its record is gone.
    """
    rows = [_row(each) for each in items(report, "rows")]
    of_models = {row.step: row for row in rows if row.kind == "model"}
    looped = _looped(rows, items(report, "findings"))
    known = {call.facts.step for call in calls}
    steps = [_call_step(call, of_models.get(call.facts.step)) for call in calls]
    steps += [
        _row_step(row, in_loop=row.step in looped) for row in rows if row.kind == "tool" or row.step not in known
    ]  # fmt: skip
    steps.sort(key=lambda step: (step.step, step.at_ms or 0))
    return steps


def findings_of(report: Mapping[str, object]) -> list[FindingTold]:
    """Why the loop detector spoke."""
    names = ("level", "rule", "tool", "agent", "what_happened", "how_to_allow")
    counts = ("count", "threshold", "first_step", "last_step")
    return [
        FindingTold.model_validate({name: text(each, name) for name in names} | {n: number(each, n) for n in counts})
        for each in items(report, "findings")
    ]


def savings_of(report: Mapping[str, object]) -> list[Saved]:
    """What cheaper ways came to."""
    return [
        Saved(
            what=text(each, "what"),
            calls=number(each, "calls"),
            saved_usd=usd_text(number(each, "saved_pusd")) or "",
        )
        for each in items(report, "savings")
    ]


def number(fields: Mapping[str, object], name: str) -> int:
    """A whole number of a report; 0 if it has none."""
    value = fields.get(name)
    return value if type(value) is int else 0


def text(fields: Mapping[str, object], name: str) -> str:
    """A text of a report; empty if it has none."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def items(fields: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """A list of a report."""
    value = fields.get(name)
    if not isinstance(value, list):
        return []
    found = cast("list[object]", value)
    return [cast("Mapping[str, object]", each) for each in found if isinstance(each, dict)]


def _row(fields: Mapping[str, object]) -> _Row:
    return _Row(number(fields, "step"), "tool" if fields.get("kind") == "tool" else "model", fields)


def _looped(rows: Iterable[_Row], findings: Iterable[Mapping[str, object]]) -> set[int]:
    """The steps that findings are about: they count the results of an agent's tools, from 1."""
    by_agent: dict[str, list[_Row]] = {}
    for row in rows:
        if row.kind == "tool":
            by_agent.setdefault(text(row.fields, "agent"), []).append(row)
    found: set[int] = set()
    for finding in findings:
        results = by_agent.get(text(finding, "agent"), [])
        first, last, tool = number(finding, "first_step"), number(finding, "last_step"), text(finding, "tool")
        found |= {row.step for row in results[max(0, first - 1) : last] if text(row.fields, "name") == tool}
    return found


def _call_step(call: UsageRecord, row: _Row | None) -> Step:
    result = call.result
    used = None if result is None else result.usage
    end = text(row.fields, "end") if row is not None else call.state if result is None else result.end
    cost = call.actual_pusd or 0
    return Step(
        step=call.facts.step, kind="model", name=call.facts.model, agent=call.facts.agent, end=end, at_ms=call.at_ms,
        duration_ms=None if result is None else result.duration_ms,
        input_tokens=0 if used is None else used.input_tokens, output_tokens=0 if used is None else used.output_tokens,
        cost_pusd=cost, cost_usd=usd_text(cost) or "", call=call.id, provider=call.facts.provider,
    )  # fmt: skip


def _row_step(row: _Row, *, in_loop: bool) -> Step:
    fields, cost = row.fields, number(row.fields, "cost_pusd")
    return Step(
        step=row.step, kind=row.kind, name=text(fields, "name"), agent=text(fields, "agent"), end=text(fields, "end"),
        at_ms=None, duration_ms=number(fields, "duration_ms"), input_tokens=number(fields, "input_tokens"),
        output_tokens=number(fields, "output_tokens"), cost_pusd=cost, cost_usd=usd_text(cost) or "", in_loop=in_loop,
    )  # fmt: skip
