"""Which rule a call or its outcome breaks, and at which number. Reads the memory, writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.loops.counting import args_seed, is_polling, is_recent
from runrails.loops.digest import digest64
from runrails.loops.memory import CallMemory, Scope
from runrails.loops.policy import LoopPolicy, ToolRule
from runrails.loops.units import combination, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.calls import ToolCall
    from runrails.loops.fingerprint import CallPrint
    from runrails.loops.outcome import Outcome
    from runrails.loops.snapshot import Memory

__all__ = ["Rules", "Trouble"]

_NO_RULE = ToolRule()


class Trouble(NamedTuple):
    """A rule that is broken, or about to be by the next attempt."""

    rule: str
    times: int
    threshold: int
    first: int
    """Tool result where it began."""
    outcome: int
    """Fingerprint of the outcome; 0 if the rule is about no single one."""


class Rules:
    """The policy, applied to what is remembered."""

    __slots__ = ("memory", "policy", "quiet", "quiet_failures", "quiet_streak", "tools")

    def __init__(self, policy: LoopPolicy, tools: Mapping[str, ToolRule], memory: Memory) -> None:
        self.policy = policy
        self.tools = tools
        self.memory = memory
        self.quiet = min(policy.hint_at, policy.failure_at - max(1, policy.block_at - policy.hint_at))
        """Below this many repeats no rule about them has anything to say."""
        early = max(1, policy.block_at - policy.hint_at)
        self.quiet_failures = policy.same_failure_at - early
        self.quiet_streak = policy.no_progress_at - early

    def next_attempt(self, scope: Scope, seed: int, call: ToolCall, printed: CallPrint) -> Trouble | None:
        """The rule that one more attempt of this call breaks."""
        trouble = self.repeat(scope, self.memory.calls.get(printed.key ^ seed), call.name)
        if trouble is not None:
            return trouble
        if scope.stuck_failure:
            trouble = self._same_failure(scope, seed, call.name)
            if trouble is not None:
                return trouble
        if scope.points >= self.policy.points_max and self._all_known(seed, call.name, printed):
            return self._no_progress(scope)
        return None

    def _all_known(self, seed: int, tool: str, printed: CallPrint) -> bool:
        units = self.memory.units
        return units.knows(words(printed.text), seed) and units.knows(combination(printed.text), args_seed(seed, tool))

    def repeat(self, scope: Scope, memory: CallMemory | None, tool: str) -> Trouble | None:
        """The repetition rule that one more attempt of this call breaks."""
        if memory is None:
            return None
        rule, limit = self._repeat_limit(scope, memory, tool)
        count = memory.count if memory.era == scope.era else 0
        if count + 1 >= limit:
            return Trouble(rule, count, limit, memory.first, memory.outcome)
        limit = self._failure_limit(memory, tool)
        if memory.epoch == scope.epoch and memory.total + 1 >= limit and is_recent(scope, memory.turn):
            return Trouble("repeated_failure", memory.total, limit, memory.total_first, memory.outcome)
        return None

    def standing(self, scope: Scope, seed: int, memory: CallMemory, tool: str, read: Outcome) -> list[Trouble]:
        """Where the result just taken in stands under each rule that it touches."""
        rule, limit = self._repeat_limit(scope, memory, tool)
        found = [Trouble(rule, memory.count, limit, memory.first, read.key)]
        if memory.total > memory.count:
            limit = self._failure_limit(memory, tool)
            found.append(Trouble("repeated_failure", memory.total, limit, memory.total_first, read.key))
        failure = self.memory.failures.get(read.key ^ seed) if read.worded else None
        if failure is not None and failure.count > max(memory.count, memory.total):
            found.append(Trouble("same_failure", failure.count, self.policy.same_failure_at, failure.first, read.key))
        if scope.streak:
            found.append(self._no_progress(scope))
        return found

    def is_quiet(self, scope: Scope, seed: int, memory: CallMemory, read: Outcome) -> bool:
        """Whether no rule has anything to say yet, which is so for nearly every result."""
        if memory.count >= self.quiet or memory.total >= self.quiet or scope.streak >= max(1, self.quiet_streak):
            return False
        failure = self.memory.failures.get(read.key ^ seed) if read.worded else None
        return failure is None or failure.count < self.quiet_failures

    def hint_at(self, trouble: Trouble) -> int:
        """Repeats are hinted at early; slower rules as long before their end as `hint_at` is before `block_at`."""
        if trouble.threshold == self.policy.block_at and trouble.rule.startswith("repeated"):
            return self.policy.hint_at
        return max(1, trouble.threshold - max(1, self.policy.block_at - self.policy.hint_at))

    def _repeat_limit(self, scope: Scope, memory: CallMemory, tool: str) -> tuple[str, int]:
        """The rule and threshold for repeats of a call with nothing new between."""
        policy = self.policy
        if self._polls(memory, tool):
            return "poll", max(policy.poll_at, policy.block_at)
        if memory.flags & CallMemory.FAILED:
            return "repeated_failure", policy.block_at
        if is_polling(scope):
            return "repeated_result", max(policy.poll_at, policy.block_at)
        return "repeated_result", policy.block_at

    def _failure_limit(self, memory: CallMemory, tool: str) -> int:
        """The threshold for a failure that comes back in spite of news."""
        policy = self.policy
        least = max(policy.failure_at, policy.block_at)
        if self._polls(memory, tool):
            return max(policy.poll_at, least)
        # A lookup that has nothing to say may be looked up again and again between other work, for good reasons.
        return 2 * least if memory.flags & CallMemory.BARE else least

    def _polls(self, memory: CallMemory, tool: str) -> bool:
        """A declared poll has its allowance until it names a state that will not change any more."""
        return self.tools.get(tool, _NO_RULE).poll and not memory.flags & CallMemory.TERMINAL

    def _same_failure(self, scope: Scope, seed: int, tool: str) -> Trouble | None:
        """Tools that did not give that failure may be tried, unless they have all been through long ago."""
        failure = self.memory.failures.get(scope.stuck_failure)
        threshold = self.policy.same_failure_at
        if failure is None or failure.ok_era != scope.ok_era:
            return None
        if failure.count < 2 * threshold and digest64("tool", tool) not in failure.tools():
            return None
        return Trouble("same_failure", failure.count, threshold, failure.first, scope.stuck_failure ^ seed)

    def _no_progress(self, scope: Scope) -> Trouble:
        threshold = -(-self.policy.points_max * scope.streak // scope.points)
        return Trouble("no_progress", scope.streak, threshold, scope.streak_first, 0)
