"""
Is this run stuck? One detector a run; decisions of values only, with a memory of fixed size.

What is counted is how often a call gave the same outcome in one *era*; a call with an outcome never seen before is news
and begins another era. That one rule covers plain repetition and cycles of any few calls, and leaves polling, paging
and debugging alone as long as something new comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.calls import PROCEED, Block, Finding, Proceed, Stop, ToolCall, ToolOutcome, Verdict
from runrails.loops.counting import (
    args_seed,
    count_failure,
    count_progress,
    count_repeat,
    is_failure,
    is_polling,
    learn,
    take_news,
)
from runrails.loops.digest import digest64
from runrails.loops.explain import MARK, Level, explain
from runrails.loops.fingerprint import CallPrint, print_call
from runrails.loops.memory import CALLS_MAX, MASK64, PAIRS_MAX, SCOPES_MAX, CallMemory, PairMemory, Scope, recall
from runrails.loops.outcome import Outcome, Status, is_about_input, read_outcome
from runrails.loops.policy import LoopPolicy, ToolRule
from runrails.loops.rules import Rules, Trouble
from runrails.loops.snapshot import TOLD_MAX, Memory, Told
from runrails.loops.units import is_other_input, names
from runrails.loops.verbs import acts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.loops.batches import Batch

__all__ = ["LoopDetector"]

IN_FLIGHT_MAX = 64
_PAIR_FACTOR = 0x9E3779B97F4A7C15
_DEFAULT_POLICY = LoopPolicy()
_NO_RULE = ToolRule()
_OK, _EMPTY = Status.OK, Status.EMPTY
_TURN, _PROGRESS = 1, 2
"""What a batch counts besides its outcomes."""


class LoopDetector:
    """
    Watches the tool calls of one run, each agent of it on its own. Not thread-safe; the run's lock guards it.

    Deterministic: the same calls and outcomes give the same verdicts, in any process. Neither arguments nor results
    are kept, only fingerprints and counts; the arguments of calls in flight are the one exception.
    """

    def __init__(self, policy: LoopPolicy = _DEFAULT_POLICY, tools: Mapping[str, ToolRule] | None = None) -> None:
        self.policy = policy
        self.tools: dict[str, ToolRule] = dict(tools or {})
        self._memory = Memory()
        self.told = self._memory.told
        """Stops it has called for, by agent. Empty for nearly all runs: then no model call need be asked about."""
        self._rules = Rules(policy, self.tools, self._memory)
        self._seeds: dict[str, int] = {}
        self._latest: tuple[str | None, Scope, int] = (None, Scope(), 0)
        self._in_flight: dict[int, tuple[ToolCall, CallPrint]] = {}
        self.printed = 0
        """Fingerprint of the newest call it was asked about, as findings name it; 0 if that one has none."""

    # The four verbs.

    def before_tool(self, call: ToolCall, *, can_block: bool) -> Verdict:
        """
        Whether a tool call may start.

        Args:
            call: What is about to be executed.
            can_block: Whether the caller can give the model a message in the tool's place. If not, there is no Block,
                and a Stop comes once the last allowed result is in.

        """
        self.printed = 0
        scope, seed = self._scope(call.agent)
        told = self.told.get(seed)
        coming = told is not None and (told.final or not can_block)
        if told is not None and coming and (told.final or not self._finishes_answer(scope, seed, call)):
            return Stop(told.finding)
        printed = print_call(call, self.tools.get(call.name, _NO_RULE).loop_key)
        self.printed = printed.key
        batch = self._batch(scope, seed, call)
        if told is not None and coming:
            return self._let_finish(call, printed, batch, told.finding, seed)
        verdict = None
        if batch is not None:
            verdict = self._judge_sibling(scope, seed, call, printed, batch, can_block=can_block)
        if verdict is None:
            verdict = self._judge_attempt(scope, seed, call, printed, batch, can_block=can_block)
        if isinstance(verdict, Proceed):
            self._start(call, printed)
        return verdict

    def after_tool(self, call: ToolCall, outcome: ToolOutcome, *, can_block: bool = True) -> Finding | None:
        """
        Take in what a tool gave back.

        Returns:
            A hint for the model where one is due; with `can_block=False`, a stop where the next start will be one.

        """
        self.printed = 0
        rule = self.tools.get(call.name, _NO_RULE) if self.tools else _NO_RULE
        started = self._in_flight.pop(id(call), None)
        if started is None and isinstance(outcome.result, str) and outcome.result.startswith(MARK):
            return None  # our own message in the place of a blocked call is no result
        scope, seed = self._scope(call.agent)
        printed = print_call(call, rule.loop_key) if started is None else started[1]
        self.printed = printed.key
        read = read_outcome(outcome, rule.outcome_key)
        counted = self._count(scope, seed, call, printed, read, rule)
        if counted is None:
            return None
        memory, as_failure = counted
        if read.worded and not as_failure:  # what did not count for a rule is no reason to tell of it again
            read = read._replace(worded=False)
        if self._rules.is_quiet(scope, seed, memory, read):
            return None
        return self._judge_result(scope, seed, call, printed, memory, read, can_block)

    def before_model(self, *, agent: str = "", can_block: bool) -> Proceed | Stop:
        """Whether a model call may start. Where calls can be blocked, that comes first, and the stop after it."""
        if not self.told:
            return PROCEED
        told = self.told.get(self._seed(agent))
        return Stop(told.finding) if told is not None and (told.final or not can_block) else PROCEED

    def user_message(self, agent: str = "", *, taken_over: bool = False) -> None:
        """
        A person spoke to this agent, or with `""` to the run: what repeated before does not count any more.

        `taken_over`: it was not a person, but another agent that goes on in the place of one that has ended. What that
        one could not do still counts if it has learnt nothing.
        """
        scopes = self._memory.scopes
        if taken_over:
            left = scopes.get(self._seed(agent))
            if left is None or left.ok_era == left.epoch:
                return
        self._latest = (None, Scope(), 0)
        for seed in list(scopes) if agent == "" else [self._seed(agent)]:
            self.told.pop(seed, None)
            if seed in scopes:
                old, fresh = scopes[seed], self._new_scope()
                fresh.steps, fresh.turns, fresh.last_batch = old.steps, old.turns, old.last_batch
                scopes[seed] = fresh

    # Its memory, for another process.

    def state(self) -> dict[str, object]:
        """Everything remembered, as JSON values of at most 64 KiB. Calls in flight are not part of it."""
        return self._memory.pack()

    @classmethod
    def restore(
        cls,
        state: Mapping[str, object],
        policy: LoopPolicy = _DEFAULT_POLICY,
        tools: Mapping[str, ToolRule] | None = None,
    ) -> LoopDetector:
        """
        A detector that goes on where another one's `state` was taken.

        Raises:
            ValueError: It is no state of a detector, or one of another version.

        """
        detector = cls(policy, tools)
        detector._memory = detector._rules.memory = Memory.unpack(state)
        detector.told = detector._memory.told
        return detector

    # Judging.

    def _judge_sibling(
        self,
        scope: Scope,
        seed: int,
        call: ToolCall,
        printed: CallPrint,
        batch: Batch,
        *,
        can_block: bool,
    ) -> Verdict | None:
        """What the batch alone decides; None if the call is an attempt of its own."""
        key = printed.key ^ seed
        arrival = batch.arrive(key, call.id)
        limit = self.policy.batch_max
        if batch.equal_calls(key) > limit:
            trouble = Trouble("batch", limit, limit, max(1, scope.steps), 0)
            return self._block(call, printed, trouble) if can_block else self._stop(seed, call, printed, trouble)
        if arrival != "sibling":
            return None
        again = self._rules.repeat(scope, self._memory.calls.get(key), call.name) if batch.is_blocked(key) else None
        return PROCEED if again is None or not can_block else self._block(call, printed, again)

    def _finishes_answer(self, scope: Scope, seed: int, call: ToolCall) -> bool:
        """Whether the call belongs to the answer one of whose results called for the stop."""
        return call.id is not None and call.batch is not None and scope.last_batch == _batch_key(seed, call.batch)

    def _let_finish(
        self, call: ToolCall, printed: CallPrint, batch: Batch | None, finding: Finding, seed: int
    ) -> Verdict:
        """
        The other calls of that answer may still be made, each once: an answer is one attempt, and a conversation in
        which a call has no result is refused by providers. The stop comes at the next model call.
        """
        key = printed.key ^ seed
        again = batch is None or batch.lost or batch.arrive(key, call.id) == "retry"
        if again or (batch is not None and batch.equal_calls(key) > self.policy.batch_max):
            return Stop(finding)
        self._start(call, printed)
        return PROCEED

    def _judge_attempt(
        self,
        scope: Scope,
        seed: int,
        call: ToolCall,
        printed: CallPrint,
        batch: Batch | None,
        *,
        can_block: bool,
    ) -> Verdict:
        """The ladder: block first, and stop the next attempt that nothing new came before."""
        trouble = self._rules.next_attempt(scope, seed, call, printed)
        if trouble is None:
            return PROCEED
        if not can_block:
            # Reached only where results were told with `can_block=True`, so that no stop has been noted.
            return self._stop(seed, call, printed, trouble) if trouble.times >= trouble.threshold else PROCEED
        key = printed.key ^ seed
        memory = self._memory.calls.get(key)
        if scope.blocked or (memory is not None and memory.flags & CallMemory.BARRED):
            # The other calls of the answer in which something was blocked were not made in spite of the block.
            same_answer = batch is not None and scope.blocked_batch == scope.last_batch
            if not same_answer or (batch is not None and batch.is_blocked(key)):
                return self._stop(seed, call, printed, trouble)
        scope.blocked = 1
        scope.blocked_batch = 0 if batch is None else scope.last_batch
        if batch is not None:
            batch.block(key, call.id)
        if memory is not None:
            memory.blocked_era = scope.era
            if trouble.rule == "repeated_failure" and trouble.threshold > self.policy.block_at:
                memory.flags |= CallMemory.BARRED
        return self._block(call, printed, trouble)

    def _judge_result(
        self,
        scope: Scope,
        seed: int,
        call: ToolCall,
        printed: CallPrint,
        memory: CallMemory,
        read: Outcome,
        can_block: bool,  # noqa: FBT001 -- private, and only handed on
    ) -> Finding | None:
        standing = self._rules.standing(scope, seed, memory, call.name, read)
        for trouble in standing:
            if trouble.times >= trouble.threshold and not can_block and seed not in self.told:
                return self._tell(seed, self._find("stop", call, printed, trouble), final=False)
        for trouble in standing:
            if trouble.times == self._rules.hint_at(trouble):
                return self._find("hint", call, printed, trouble)
        return None

    def _count(
        self,
        scope: Scope,
        seed: int,
        call: ToolCall,
        printed: CallPrint,
        read: Outcome,
        rule: ToolRule,
    ) -> tuple[CallMemory, bool] | None:
        """
        Take a result into the memory; None if its batch has counted the same one already.

        Returns:
            What is known of the call, and whether it counted as one more of the same failure over different calls.

        """
        tables, policy = self._memory, self.policy
        key = printed.key ^ seed
        batch = self._batch(scope, seed, call)
        ordinal = 1 if batch is None else batch.finish(key, call.id)
        scope.steps += 1
        scope.turns += batch is None or batch.counts(_TURN, ordinal)
        pair_key = (key * _PAIR_FACTOR + read.key) & MASK64
        new, new_call = pair_key not in tables.pairs, key not in tables.calls
        pair = recall(tables.pairs, pair_key, PairMemory, PAIRS_MAX)
        memory = recall(tables.calls, key, CallMemory, CALLS_MAX)
        if not (batch is None or batch.counts(pair_key, ordinal) or new):
            return None
        if new:
            take_news(scope, read, tables.next_number())
        failed = read.status is not _OK
        if read.status is _EMPTY:
            failed = is_failure(scope, read, call.name, printed.text)
        count_repeat(scope, pair_key, pair, memory, read, poll=rule.poll, failed=failed, policy=policy)
        told = read.worded and not rule.poll and (batch is None or batch.counts(read.key, ordinal))
        # What one input lacks, another may have: a long list of ids that are not found is work, not a loop.
        told = told and not (new_call and is_about_input(read) and self._is_other_input(seed, call.name, printed))
        if told:
            count_failure(tables, scope, seed, call.name, read, threshold=policy.same_failure_at)
        if new_call and acts(call.name) and (read.status is _OK or read.status is _EMPTY):
            scope.touched = names(printed.text)
        progress = new and learn(tables, seed, read, call.name, printed.text if new_call else None)
        waiting = rule.poll or is_polling(scope)
        # One look back at what is known is no loop yet; the second one is.
        idle = not waiting and (new or pair.count > 1) and (batch is None or batch.counts(_PROGRESS, ordinal))
        if progress or idle:
            count_progress(scope, progress=progress, slow="\n" in read.text, policy=policy)
        return memory, told

    # Small parts.

    def _block(self, call: ToolCall, printed: CallPrint, trouble: Trouble) -> Block:
        finding = self._find("block", call, printed, trouble)
        return Block(finding.for_model, finding)

    def _stop(self, seed: int, call: ToolCall, printed: CallPrint, trouble: Trouble) -> Stop:
        return Stop(self._tell(seed, self._find("stop", call, printed, trouble), final=True))

    def _find(self, level: Level, call: ToolCall, printed: CallPrint, trouble: Trouble) -> Finding:
        last = self._scope(call.agent)[0].steps
        return explain(
            level=level, rule=trouble.rule, tool=call.name, agent=call.agent, count=trouble.times,
            threshold=trouble.threshold, steps=(trouble.first, last), keys=(printed.key, trouble.outcome),
        )  # fmt: skip

    def _tell(self, seed: int, finding: Finding, *, final: bool) -> Finding:
        table = self.told
        table.pop(seed, None)
        if len(table) >= TOLD_MAX:
            del table[next(iter(table))]
        table[seed] = Told(finding, final=final)
        return finding

    def _seed(self, agent: str) -> int:
        seed = self._seeds.get(agent)
        if seed is None:
            if len(self._seeds) >= SCOPES_MAX:
                self._seeds.clear()
            seed = self._seeds[agent] = digest64("agent", agent)
        return seed

    def _scope(self, agent: str) -> tuple[Scope, int]:
        latest, scope, seed = self._latest
        if agent == latest:
            return scope, seed
        seed = self._seed(agent)
        scopes = self._memory.scopes
        known = scopes.pop(seed, None)
        if known is None and len(scopes) >= SCOPES_MAX:
            del scopes[next(iter(scopes))]
        scope = scopes[seed] = known or self._new_scope()
        self._latest = agent, scope, seed
        return scope, seed

    def _new_scope(self) -> Scope:
        number = self._memory.next_number()
        return Scope(epoch=number, era=number, ok_era=number)

    def _batch(self, scope: Scope, seed: int, call: ToolCall) -> Batch | None:
        if call.batch is None:
            return None
        key = _batch_key(seed, call.batch)
        memory = self._memory
        batch = memory.batches.get(key, latest=scope.last_batch == key, agents=len(memory.scopes))
        scope.last_batch = key
        return batch

    def _is_other_input(self, seed: int, tool: str, printed: CallPrint) -> bool:
        return is_other_input(printed.text, self._memory.units, seed, args_seed(seed, tool))

    def _start(self, call: ToolCall, printed: CallPrint) -> None:
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            del self._in_flight[next(iter(self._in_flight))]
        self._in_flight[id(call)] = (call, printed)


def _batch_key(seed: int, batch: str | int) -> int:
    return digest64("batch", str(batch)) ^ seed
