"""What a run remembers of its steps, bounded, for its report. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from runrails.attribution import Attribution
from runrails.grouping import GroupRow, Groups, groups_of
from runrails.report import FINDINGS_KEPT_MAX, STEPS_KEPT_MAX, StepRow
from runrails.values import named

if TYPE_CHECKING:
    from runrails.calls import Finding, ModelResult, Permit, ToolCall, ToolOutcome
    from runrails.settlement import Settlement

__all__ = ["Journal"]


NOBODY = Attribution()


class Journal:
    """Mutable; the run's lock guards it. What a child run does is counted in its parents' as well."""

    def __init__(self, parent: Journal | None = None) -> None:
        self.parent = parent
        self.rows: deque[StepRow] = deque(maxlen=STEPS_KEPT_MAX)
        self.findings: deque[Finding] = deque(maxlen=FINDINGS_KEPT_MAX)
        self.input_tokens = 0
        self.output_tokens = 0
        self.unresolved_pusd = 0
        self.overrun_pusd = 0
        self.hints = 0
        self.blocks = 0
        self.refusals = 0
        self.refused: str | None = None
        """Why the newest of them was."""
        self.spent = (0, 0)
        """Picodollars and tokens so far."""
        self.before_last = (0, 0)
        """The same before the newest model call."""
        self._spent_before: deque[tuple[int, int]] = deque(maxlen=STEPS_KEPT_MAX)
        self._payers, self._models, self._agents, self.tools = Groups(), Groups(), Groups(), Groups()
        self.calls = 0
        self.payer, self.latest = NOBODY, ("", "")
        """Payer, model and agent of the newest calls, which are summed up before they are sorted into groups."""
        self._own_key_pusd = 0
        self._sorted = (0, 0, 0, 0)
        """Calls, input tokens, output tokens and picodollars that are in groups."""

    def model(self, permit: Permit, result: ModelResult, settlement: Settlement, duration_ms: int) -> None:
        """A model call of this run ended."""
        cost_pusd, unresolved, usage, _ = settlement
        call = permit.call
        tokens_in, tokens_out = (0, 0) if usage is None else (usage.input_tokens, usage.output_tokens)
        latest = (call.model, call.agent)
        journal: Journal | None = self
        while journal is not None:
            if permit.by is not journal.payer or latest != journal.latest:
                journal.sort()
                journal.payer, journal.latest = permit.by or NOBODY, latest
            journal.calls += 1
            journal.before_last = journal.spent
            journal.spent = (journal.spent[0] + cost_pusd, journal.spent[1] + tokens_in + tokens_out)
            journal.input_tokens += tokens_in
            journal.output_tokens += tokens_out
            if unresolved:
                journal.unresolved_pusd += cost_pusd
            if permit.held and cost_pusd > permit.bound_pusd:
                journal.overrun_pusd += cost_pusd - permit.bound_pusd
            journal = journal.parent
        self.rows.append(
            named(
                StepRow,
                (permit.step, "model", result.model or call.model, call.agent, result.end, tokens_in, tokens_out,
                 cost_pusd, duration_ms, "", "", self.spent[0]),
            )
        )  # fmt: skip

    def tool(
        self, call: ToolCall, outcome: ToolOutcome | None, *, step: int, duration_ms: int, printed: int = 0
    ) -> None:
        """A tool call ended, or was blocked (no outcome). `printed`: its fingerprint, if there is one."""
        end = "blocked" if outcome is None else "ok" if outcome.ok else "failed"
        journal: Journal | None = None if outcome is None else self
        while journal is not None:
            journal.tools.add(call.name, 1)
            journal = journal.parent
        self.rows.append(
            named(
                StepRow,
                (step, "tool", call.name, call.agent, end, 0, 0, 0, duration_ms, f"{printed:016x}" if printed else "",
                 "block" if outcome is None else "", self.spent[0]),
            )
        )  # fmt: skip

    def finding(self, finding: Finding, *, here: bool) -> None:
        """The loop detector spoke. `here`: about the newest step, and not about one that is still to be told of."""
        self.findings.append(finding)
        if here and self.rows:
            self.rows[-1] = self.rows[-1]._replace(finding=finding.level)
        if finding.level == "hint":
            self.hints += 1
        elif finding.level == "block":
            self.blocks += 1

    def tool_ended(self) -> None:
        """Remember what had been spent before the model call that asked for this tool call."""
        self._spent_before.append(self.before_last)

    def groups(self) -> dict[str, tuple[GroupRow, ...]]:
        """All model calls by user, key, organisation, tag, model and agent, and all executed tool calls by tool."""
        self.sort()
        return groups_of(self._payers) | {
            "model": self._models.rows(), "agent": self._agents.rows(), "tool": self.tools.rows()
        }  # fmt: skip

    def own_key_pusd(self) -> int:
        """What was paid on keys of the callers' own."""
        self.sort()
        return self._own_key_pusd

    def sort(self) -> None:
        """Put the newest calls into their groups."""
        total = (self.calls, self.input_tokens, self.output_tokens, self.spent[0])
        new = [now - before for now, before in zip(total, self._sorted, strict=True)]
        if new[0]:
            self._sorted = total
            own_key_pusd = new[3] if self.payer.byok else 0
            self._own_key_pusd += own_key_pusd
            model, agent = self.latest
            keys = ((self._payers, self.payer), (self._models, model), (self._agents, agent or None))
            calls, tokens_in, tokens_out, cost_pusd = new
            for groups, key in keys:
                groups.add(key, calls, tokens_in, tokens_out, cost_pusd, own_key_pusd)

    def spent_since(self, results_back: int) -> tuple[int, int]:
        """Picodollars and tokens spent since the model call that led to the tool result that many results ago."""
        if not self._spent_before:
            return self.spent
        then = self._spent_before[max(0, len(self._spent_before) - 1 - results_back)]
        return self.spent[0] - then[0], self.spent[1] - then[1]
