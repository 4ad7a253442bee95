"""A summary as text for a terminal, as JSON for a program, and as the record that `runrails report` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.autoguard.summary import ROWS_KEPT_MAX
from runrails.autoguard.telling import advice
from runrails.ledger import RunRecord
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runrails.autoguard.summary import Summary
    from runrails.ledger import Balance

__all__ = ["as_dict", "as_record", "as_text"]

_SUMS = (
    "steps", "model_calls", "tool_calls", "input_tokens", "output_tokens", "cost_pusd", "unresolved_pusd",
    "overrun_pusd", "hints", "blocks", "refusals",
)  # fmt: skip
_HEADINGS = ("model", "calls", "tokens in", "tokens out", "cost")


def as_text(summary: Summary, exit_code: int | None = None) -> str:
    """Some lines; the first says how it ended."""
    return "\n".join(_lines(summary, exit_code))


def as_dict(summary: Summary, exit_code: int | None = None) -> dict[str, object]:
    """JSON-ready values; amounts in picodollars and, for people, in dollars."""
    stop = summary.stop
    return {
        "run": summary.run,
        "name": summary.plan.name,
        "user": summary.plan.user,
        "mode": "observe" if summary.plan.observe else "enforce",
        "exit_code": exit_code,
        "stopped": None if stop is None else {**stop.as_dict(), "next_step": advice(stop, summary.run)},
        "would_have_stopped": summary.would_have_stopped,
        "guarded": list(summary.modules),
        "guard_loaded": summary.seen,
        "pythons_without_runrails": list(summary.without_runrails),
        "started_ms": summary.started_ms,
        "duration_ms": summary.ended_ms - summary.started_ms,
        "processes": len(summary.reports),
        "steps": summary.count("steps"),
        "model_calls": summary.model_calls,
        "tool_calls": summary.count("tool_calls"),
        "hints": summary.count("hints"),
        "blocks": summary.count("blocks"),
        "refused": [{"code": r.code, "count": r.count, "message": r.message} for r in summary.refused],
        "cost_pusd": summary.cost_pusd,
        "cost_usd": format_usd(summary.cost_pusd),
        "limit_pusd": summary.plan.limits.run_pusd,
        "unresolved_pusd": summary.unresolved_pusd,
        "held_pusd": summary.held_pusd,
        "models": [
            {
                "model": name,
                "calls": line.calls,
                "input_tokens": line.input_tokens,
                "output_tokens": line.output_tokens,
                "cost_pusd": line.cost_pusd,
                "cost_usd": format_usd(line.cost_pusd),
            }
            for name, line in summary.models.items()
        ],
        "balances": [_balance(balance) for balance in summary.balances],
    }


def as_record(summary: Summary) -> RunRecord | None:
    """What the store keeps of the run; None if nothing was done in it. Counts are sums over its processes."""
    if not summary.reports or not (summary.model_calls or summary.count("steps")):
        return None
    report = dict(summary.reports[0])
    if len(summary.reports) > 1:
        report |= {key: summary.count(key) for key in _SUMS}
        rows = [_alone(row) for row in _joined(summary.reports, "rows")]
        report |= {"rows": rows, "findings": _joined(summary.reports, "findings")}
        report |= {"groups": {}, "cost_usd": format_usd(summary.count("cost_pusd"))}
    stop = summary.stop
    report |= {
        "started_ms": summary.started_ms,
        "duration_ms": summary.ended_ms - summary.started_ms,
        "stop_reason": None if stop is None else stop.stop_reason,
        "stop_message": None if stop is None else str(stop),
        "would_have_stopped": summary.would_have_stopped,
    }
    return RunRecord(
        id=summary.run, name=summary.plan.name, user=summary.plan.user, started_ms=summary.started_ms,
        ended_ms=summary.ended_ms, mode="observe" if summary.plan.observe else "enforce",
        stop_reason=None if stop is None else stop.stop_reason, report=report,
    )  # fmt: skip


def _joined(reports: Sequence[object], key: str) -> list[object]:
    parts = [cast("dict[str, object]", report).get(key) for report in reports]
    return [item for part in parts if isinstance(part, list) for item in cast("list[object]", part)][-ROWS_KEPT_MAX:]


def _alone(row: object) -> object:
    """A step without what its own process had spent by then: of several processes that is nobody's total."""
    if not isinstance(row, dict):
        return row
    return {name: told for name, told in cast("dict[str, object]", row).items() if name != "total_pusd"}


def _lines(summary: Summary, exit_code: int | None) -> Iterator[str]:
    yield f"runrails: {_how(summary)}; {_what(summary)}"
    if summary.stop is not None:
        yield f"  {summary.stop.what}"
        yield f"  {advice(summary.stop, summary.run)}"
    elif summary.would_have_stopped is not None:
        yield f"  would have stopped: {summary.would_have_stopped}"
    for refusal in summary.refused:
        times = "once" if refusal.count == 1 else f"{refusal.count:,} times"
        yield f"  refused {times} ({refusal.code.replace('_', ' ')}): {refusal.message}"
    yield from (f"  warning: {text}" for text in _warnings(summary))
    if summary.models:
        yield from _table(summary)
    for balance in summary.balances:
        if balance.spent or balance.held or balance.limit is not None:
            limit = "" if balance.limit is None else f" of {format_usd(balance.limit)}"
            yield f"  {balance.account.scope} in {balance.account.period}: {format_usd(balance.spent)}{limit}"
    if summary.models:
        yield f"  run {summary.run}" + ("" if exit_code is None else f", exit code {exit_code}")


def _how(summary: Summary) -> str:
    if summary.stop is not None:
        return f"stopped ({summary.stop.stop_reason.replace('_', ' ')})"
    if not summary.modules and not summary.model_calls:
        return "NOTHING WAS GUARDED"
    return "observed" if summary.plan.observe else "ended"


def _what(summary: Summary) -> str:
    limit = summary.plan.limits.run_pusd
    of = "" if limit is None else f" of {format_usd(limit)}"
    calls, tools = summary.model_calls, summary.count("tool_calls")
    words = [f"{calls:,} model call{'' if calls == 1 else 's'}", f"{tools:,} tool call{'' if tools == 1 else 's'}"]
    if summary.plan.name:
        words.insert(0, summary.plan.name)
    seconds = (summary.ended_ms - summary.started_ms) / 1_000
    return ", ".join([*words, f"{format_usd(summary.cost_pusd)}{of}", f"{seconds:.1f} s"])


def _warnings(summary: Summary) -> Iterator[str]:
    yield from summary.messages
    for python in summary.without_runrails:
        yield (
            f"runrails is not installed for {python}, so SDKs were refused there. Install it: {python} -m pip install "
            "runrails"
        )
    yield from _on_guarding(summary)
    if summary.held_calls:
        count = "1 call has" if summary.held_calls == 1 else f"{summary.held_calls:,} calls have"
        held = format_usd(summary.held_pusd)
        yield f"{count} not told an end; {held} stay held and are charged when the holds expire."
    if summary.unresolved_pusd:
        yield f"{format_usd(summary.unresolved_pusd)} of the cost stand in for calls whose usage nobody reported."


def _on_guarding(summary: Summary) -> Iterator[str]:
    if summary.model_calls or summary.refused:
        return
    if summary.modules:
        yield f"no model call was seen. In this program runrails sees those of: {', '.join(summary.modules)}."
    elif summary.seen:
        yield "the program imported no SDK that runrails can guard. What it called, if anything, was not limited."
    elif not summary.without_runrails:
        yield (
            "no Python has loaded the guard. Is the program written in Python, and was it not started with -S (or, "
            "where runrails is not installed, with -I or -E)? What it called, if anything, was not limited."
        )


def _table(summary: Summary) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for name, line in sorted(summary.models.items(), key=lambda item: -item[1].cost_pusd):
        tokens = (f"{line.input_tokens:,}", f"{line.output_tokens:,}")
        rows.append((name, f"{line.calls:,}", *tokens, format_usd(line.cost_pusd)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADINGS))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]]
        yield "  " + "  ".join(cells).rstrip()


def _balance(balance: Balance) -> dict[str, object]:
    return {
        "scope": balance.account.scope,
        "period": balance.account.period,
        "spent_pusd": balance.spent,
        "held_pusd": balance.held,
        "limit_pusd": balance.limit,
        "spent_usd": format_usd(balance.spent),
    }
