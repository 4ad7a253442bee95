"""
What a run tells in plain words: to the model, how much is left; to whoever reads the conversation, why it ended.

Texts for a model are advisory, begin with the mark of ours, and name what to deliver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.loops.explain import MARK
from runrails.money import PUSD_PER_USD, format_usd

if TYPE_CHECKING:
    from runrails.errors import GuardrailStopped
    from runrails.report import Report
    from runrails.run import Run

__all__ = [
    "NOT_EXECUTED", "NOT_EXECUTED_NOW", "budget_note", "explain_end", "not_executed", "report_of",
    "with_explanation",
]  # fmt: skip

SOFT_LIMIT_BP = 8_000
"""From 80 % of a limit on the model is told what is left."""
CENT_PUSD = PUSD_PER_USD // 100
NOT_EXECUTED = f"{MARK} This call was not executed: the run had ended before."
NOT_EXECUTED_NOW = f"{MARK} This call was not executed: calls in flight hold the last steps of the run."


def budget_note(run: Run) -> str | None:
    """What is left of the tightest limits of a run, once 80 % of one is used; None before. The months are not in it."""
    now_ms = run.guard.monotonic()
    left: list[str] = []
    for tally in run.tally.chain():
        limits = tally.limits
        if _is_soft(tally.cost_pusd, limits.run_pusd):
            left.append(f"{_dollars((limits.run_pusd or 0) - tally.cost_pusd)} of {format_usd(limits.run_pusd or 0)}")
        for what, limit, used in (
            ("tokens", limits.tokens, tally.tokens),
            ("steps", limits.steps, tally.steps),
            ("model calls", limits.model_calls, tally.model_calls),
            ("tool calls", limits.tool_calls, tally.tool_calls),
            ("seconds", limits.seconds, tally.elapsed_ms(now_ms) // 1_000),
        ):
            if _is_soft(used, limit):
                left.append(f"{max(0, (limit or 0) - used):,} of {limit:,} {what}")
    if not left:
        return None
    return (
        f"{MARK} Little is left for this task: {'; '.join(dict.fromkeys(left))}. "
        "Suggestion: write the final answer soon from what is known, and say what is missing."
    )


def explain_end(stop: GuardrailStopped, report: Report | None) -> str:
    """The last message of a conversation that a stop has ended: what was done, why it ended, what to do next."""
    done = ""
    if report is not None:
        calls = f"{_many(report.model_calls, 'model call')} and {_many(report.tool_calls, 'tool call')}"
        done = f"Done so far: {calls}, {format_usd(report.cost_pusd)}; the results above stand. "
    return (
        f"{MARK} The run ended here, before the task was finished. {done}"
        f"Why it ended: {stop.what} What is still open was not tried again. {stop.next_step}"
    )


def with_explanation(answer: str | None, explanation: str) -> str:
    """The model's last answer, if there is one, and below it why the run ended."""
    return explanation if not answer else f"{answer}\n\n{explanation}"


def report_of(run: Run) -> Report | None:
    """A run's report. It only observes, so a bug in it is an event, and None."""
    try:
        return run.report()
    except Exception as exc:  # noqa: BLE001 -- see above
        run.guard.emit("report_failed", "error", run=run.id, error=type(exc).__name__)
        return None


def not_executed(stop: GuardrailStopped | None) -> str:
    """The result of a tool call that a stop kept from being executed."""
    reason = "" if stop is None else f" ({stop.stop_reason})"
    return f"{NOT_EXECUTED[:-1]}{reason}."


def _is_soft(used: int, limit: int | None) -> bool:
    return limit is not None and used * 10_000 >= limit * SOFT_LIMIT_BP


def _dollars(pusd: int) -> str:
    """For a model whole cents are enough, rounded down."""
    return format_usd(max(0, pusd) // CENT_PUSD * CENT_PUSD) if pusd >= CENT_PUSD else "less than $0.01"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
