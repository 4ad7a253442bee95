"""The loop detector in a run: asks it, keeps and tells what it finds, and never lets a bug of its own through."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from runrails.calls import Stop
from runrails.errors import LoopDetected
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.calls import Finding
    from runrails.events import Outbox
    from runrails.journal import Journal
    from runrails.loops import LoopDetector, LoopPolicy, ToolRule

__all__ = ["LoopWatch"]

_T = TypeVar("_T")


class LoopWatch:
    """Mutable; the run's lock guards it."""

    def __init__(
        self, scope: str, tools: Mapping[str, ToolRule], *, journal: Journal, outbox: Outbox, observing: bool
    ) -> None:
        self.detector: LoopDetector | None = None
        self._scope = scope
        self._tools = tools
        self._journal = journal
        self._outbox = outbox
        self._observing = observing
        self._told: dict[str, tuple[str, str, str, int]] = {}

    def start(self, policy: LoopPolicy | None) -> None:
        """Begin with a clean slate; None switches the detector off."""
        if policy is None:
            self.detector = None
            return
        from runrails.loops import LoopDetector

        self.detector = LoopDetector(policy, self._tools)

    def ask(self, question: Callable[[LoopDetector], _T]) -> _T | None:
        """Ask the detector. It observes: a bug of its own must not change a user's result."""
        if self.detector is None:
            return None
        try:
            return question(self.detector)
        except Exception as exc:  # noqa: BLE001 -- reported as an event, see above
            self._outbox.add("detector_failed", "error", error=type(exc).__name__)
            return None

    @property
    def printed(self) -> int:
        """Fingerprint of the tool call that the detector was asked about last; 0 without one, or if it is broken."""
        printed: int = getattr(self.detector, "printed", 0)
        return printed

    def before_model(self, agent: str, *, can_block: bool) -> Finding | None:
        """Why no model call may start; None if one may. As `ask`."""
        detector = self.detector
        if detector is None:
            return None
        try:
            if not detector.told:
                return None
            verdict = detector.before_model(agent=agent, can_block=can_block)
        except Exception as exc:  # noqa: BLE001 -- reported as an event, see above
            self._outbox.add("detector_failed", "error", error=type(exc).__name__)
            return None
        return verdict.finding if isinstance(verdict, Stop) else None

    def record(self, finding: Finding) -> None:
        """Keep a finding and tell of it, once: a stop is seen after the tool and again at the next start."""
        about = (finding.rule, finding.call_fingerprint, finding.outcome_fingerprint, finding.count)
        if self._observing and finding.level != "hint":
            about = (*about[:3], 0)  # Nothing is stopped, so the same finding would come at every step.
        if self._told.get(finding.level) == about:
            return
        self._told[finding.level] = about
        self._journal.finding(finding, here=self._observing or finding.level != "block")
        self._outbox.add(
            {"hint": "loop_hinted", "block": "loop_blocked", "stop": "loop_stopped"}[finding.level],
            "info" if finding.level == "hint" else "warning", rule=finding.rule, tool=finding.tool,
            agent=finding.agent, count=finding.count, call_fingerprint=finding.call_fingerprint,
            enforced=not self._observing,
        )  # fmt: skip

    def stop(self, finding: Finding) -> LoopDetected:
        """The stop that a finding calls for, with what the loop has cost."""
        self.record(finding)
        spent, tokens = self._journal.spent_since(finding.last_step - finding.first_step)
        each = format_usd(spent // max(1, finding.count))
        return LoopDetected(
            f"{finding.what_happened} It has cost {format_usd(spent)} and {tokens:,} tokens; each further attempt "
            f"would cost about {each}.",
            next_step=f"If this is meant: {finding.how_to_allow}",
            scope=self._scope, rule=finding.rule, tool=finding.tool, agent=finding.agent, count=finding.count,
            threshold=finding.threshold, first_step=finding.first_step, last_step=finding.last_step,
            call_fingerprint=finding.call_fingerprint, spent_pusd=spent, tokens=tokens,
        )  # fmt: skip
