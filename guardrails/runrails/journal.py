"""What a run remembers of its steps, bounded, for its report. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from runrails.report import FINDINGS_KEPT_MAX, STEPS_KEPT_MAX, StepRow

if TYPE_CHECKING:
    from runrails.calls import Finding, ModelResult, Permit, ToolCall, ToolOutcome
    from runrails.settlement import Settlement

__all__ = ["Journal"]


class Journal:
    """Mutable; the run's lock guards it."""

    def __init__(self) -> None:
        self.rows: deque[StepRow] = deque(maxlen=STEPS_KEPT_MAX)
        self.findings: deque[Finding] = deque(maxlen=FINDINGS_KEPT_MAX)
        self.input_tokens = 0
        self.output_tokens = 0
        self.unresolved_pusd = 0
        self.overrun_pusd = 0
        self.hints = 0
        self.blocks = 0
        self.refusals = 0
        self._spent = (0, 0)
        """Picodollars and tokens so far."""
        self._before_last = (0, 0)
        """The same before the newest model call."""
        self._spent_before: deque[tuple[int, int]] = deque(maxlen=STEPS_KEPT_MAX)

    def model(self, permit: Permit, result: ModelResult, settlement: Settlement, duration_ms: int) -> None:
        """A model call of this run ended."""
        usage = settlement.usage
        tokens_in, tokens_out = (usage.input_tokens, usage.output_tokens) if usage else (0, 0)
        self.count(permit, settlement)
        self.rows.append(
            StepRow(
                step=permit.step, kind="model", name=result.model or permit.call.model, agent=permit.call.agent,
                end=result.end, input_tokens=tokens_in, output_tokens=tokens_out, cost_pusd=settlement.actual_pusd,
                duration_ms=duration_ms,
            )
        )  # fmt: skip

    def count(self, permit: Permit, settlement: Settlement) -> None:
        """A model call of this run or of a child run ended: the sums."""
        usage = settlement.usage
        tokens = 0 if usage is None else usage.total_tokens
        self._before_last = self._spent
        self._spent = (self._spent[0] + settlement.actual_pusd, self._spent[1] + tokens)
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
        if settlement.unresolved:
            self.unresolved_pusd += settlement.actual_pusd
        if permit.held:
            self.overrun_pusd += max(0, settlement.actual_pusd - permit.bound_pusd)

    def tool(self, call: ToolCall, outcome: ToolOutcome | None, *, step: int, duration_ms: int) -> None:
        """A tool call ended, or was blocked (no outcome)."""
        end = "blocked" if outcome is None else "ok" if outcome.ok else "failed"
        self.rows.append(
            StepRow(
                step=step, kind="tool", name=call.name, agent=call.agent, end=end, input_tokens=0, output_tokens=0,
                cost_pusd=0, duration_ms=duration_ms,
            )
        )  # fmt: skip

    def finding(self, finding: Finding) -> None:
        """The loop detector spoke."""
        self.findings.append(finding)
        if finding.level == "hint":
            self.hints += 1
        elif finding.level == "block":
            self.blocks += 1

    def tool_ended(self) -> None:
        """Remember what had been spent before the model call that asked for this tool call."""
        self._spent_before.append(self._before_last)

    def spent_since(self, results_back: int) -> tuple[int, int]:
        """Picodollars and tokens spent since the model call that led to the tool result that many results ago."""
        if not self._spent_before:
            return self._spent
        then = self._spent_before[max(0, len(self._spent_before) - 1 - results_back)]
        return self._spent[0] - then[0], self._spent[1] - then[1]
