"""
One guarded execution. Every adapter drives it with the same verbs; once stopped it stays stopped.

``before_*`` may raise a stop or a refusal, ``after_*`` never does: stops come at the start of a step, where the
conversation is consistent and no paid answer is thrown away.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from runrails.admission import exceeded
from runrails.calls import PROCEED, Block, Finding, ModelCall, ModelResult, Permit, Proceed, Stop, ToolCall, ToolOutcome
from runrails.cover import offer_cover
from runrails.current import current_run, given_up
from runrails.errors import BudgetBusy, GuardrailStopped, LimitReached, RateLimited, RunrailsError
from runrails.housekeeping import Held
from runrails.runstate import RunState
from runrails.values import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.settlement import Settlement
    from runrails.wrapup import LastTurn

__all__ = ["Run", "current_run"]

_BUSY = (BudgetBusy, RateLimited)
"""What may be gone in a moment."""
TOOLS_IN_FLIGHT_MAX = 1_000
"""Most tool calls whose start is remembered: cancelled ones never tell their end."""


class Run(RunState):
    """
    One guarded execution. Made by `Guard.run`; thread-safe and bound to no event loop.

    As a context manager it guards everything inside, without a callbacks argument, and raises the stop at its end.
    By hand it is driven with `before_model`, `after_model`, `before_tool`, `after_tool` and `close`.
    """

    # The door.

    def before_model(  # noqa: PLR0912, PLR0915 -- on the path of every call, where each function more costs a microsecond
        self, call: ModelCall, *, can_block: bool = False, sends: bool = False, may_wait: bool = False,
        tentative: bool = False,
    ) -> Permit:  # fmt: skip
        """
        Leave to start a model call; hand the permit back to `after_model`, whatever happens.

        Args:
            call: What is about to be sent.
            can_block: Whether the caller can also answer tool calls in the tool's place (a bare callback cannot);
                then the loop detector blocks first instead of stopping here.
            sends: Whether the caller sends the request itself; otherwise the permit covers a guarded client below it.
            may_wait: Whether the caller asks again, where it can wait, after a BudgetBusy; so that is no refusal yet.
            tentative: Whether layers below may still change the call, and ask for it then (see `revise`); so that what
                does not fit now neither ends the run nor counts as a refusal.

        Raises:
            GuardrailStopped: The run is over; it stays over.
            CallRefused: This call may not start; the run goes on.
        """
        if self.entry.postponed:
            self.entry.prepare()
        if self.last_turn is not None:
            last = self._last(self.last_turn, call, sends=sends)
            if last is not None:
                return last
        tally, keeper, monotonic = self.tally, self.guard.housekeeper, self.guard.monotonic
        try:
            while True:
                with self._lock:
                    if tally.admitting or tally.parent is not None:
                        self._wait_for_steps()
                    self._gate()
                    finding = self._loops.before_model(call.agent, can_block=can_block)
                    if finding is not None:
                        self._latch(self._loops.stop(finding))
                    now_ms = monotonic()
                    try:
                        step = tally.begin_model(now_ms=now_ms)
                    except (LimitReached, BudgetBusy):  # nothing is counted yet: it is told again, and acted upon
                        step = self._begin(tally.begin_model, may_wait=may_wait)
                    resumes = self._resumes
                permit: Permit | None = None
                try:
                    permit, would_refuse = self._meter.admit(call, step)
                    if permit.priced:
                        ttl_ms = self.limits.hold_ttl_ms
                        keeper.open[permit.id] = named(Held, (now_ms, now_ms, ttl_ms))
                        if keeper.thread is None or ttl_ms < keeper.soon_ms:
                            keeper.attend(ttl_ms)
                    if would_refuse is not None:
                        self._note_stop(exceeded(would_refuse))
                    if self._outbox.waiting:
                        self._outbox.send()  # Before the permit is out: an interrupt in a sink must not lose it.
                    with self._lock:
                        self._gate()  # It may have been stopped or ended while the ledger answered.
                        if tally.parent is None:
                            tally.admitting -= 1
                        else:
                            tally.admitted()
                except BaseException as error:
                    self._not_admitted(permit)
                    if self._goes_on(error, resumes, told=not tentative, may_wait=may_wait):
                        continue
                    raise
                if not sends:
                    offer_cover(self, permit)
                return permit
        finally:
            if self._outbox.waiting:
                self._outbox.send()

    def after_model(self, permit: Permit, result: ModelResult) -> Settlement | None:
        """
        Settle what the call cost. Never raises a stop; what the store cannot take now is written later.

        Returns:
            What it cost; None if that permit has been handed back before.
        """
        clock = self.guard.clock
        duration_ms = clock() - permit.started_ms
        if duration_ms < 0:  # noqa: PLR1730 -- `max` is looked up and called, on the path of every call
            duration_ms = 0
        self.guard.housekeeper.open.pop(permit.id, None)
        settlement = self._meter.settle(permit, result, duration_ms=duration_ms)
        if settlement is None:
            return None
        with self._lock:
            self._journal.model(permit, result, settlement, duration_ms)
        if self.guard.saves or result.stored_usage is not None:
            from runrails.thrift import ended

            ended(self, permit, result, None if settlement.unresolved else settlement.usage)
        return settlement

    def before_tool(self, call: ToolCall, *, can_block: bool = False) -> Proceed | Block:
        """
        Whether a tool call may be executed. A Block says what to give the model instead.

        Raises:
            GuardrailStopped: The run is over; it stays over.
            BudgetBusy: The last steps are taken by calls that may still be refused; the run goes on.
        """
        try:
            with self._lock:
                self._wait_for_steps()
                return self._before_tool(call, can_block=can_block)
        finally:
            if self._outbox.waiting:
                self._outbox.send()

    def after_tool(self, call: ToolCall, outcome: ToolOutcome, *, can_block: bool = False) -> Finding | None:
        """Tell what a tool gave back. Returns a hint for the model if there is one. Never raises a stop."""
        with self._lock:
            now = self.guard.monotonic()
            _, step, started = self._tools_started.pop(id(call), (call, self.tally.steps, now))
            if given_up() is not None:
                return None  # A late word of what was left alone is none of the run's, which may go on by now.
            finding = self._loops.ask(lambda d: d.after_tool(call, outcome, can_block=can_block))
            self._journal.tool(call, outcome, step=step, duration_ms=now - started, printed=self._loops.printed)
            self._journal.tool_ended()
            if finding is not None:
                self._loops.record(finding)
        if self._outbox.waiting:
            self._outbox.send()
        return None if self._observing else finding

    def user_message(self, agent: str = "", *, taken_over: bool = False) -> None:
        """A person spoke: what repeated before does not count any more. As `LoopDetector.user_message`."""
        if given_up() is not None:
            return
        with self._lock:
            self._loops.ask(lambda d: d.user_message(agent, taken_over=taken_over))
        if self._outbox.waiting:
            self._outbox.send()

    def found(self, finding: Finding) -> None:
        """
        A loop detector that is not the run's own has called for a stop: one that hears a whole conversation anew with
        every request of it.

        Raises:
            LoopDetected: The run is over, as if its own detector had said so; observing only tells of it.
            GuardrailStopped: It was over already.
        """
        try:
            with self._lock:
                self._gate()
                self._latch(self._loops.stop(finding))
        finally:
            if self._outbox.waiting:
                self._outbox.send()

    def took_over(self, *, steps: int) -> None:
        """Steps that this run has taken before, in another process: `Limits(steps=…)` counts them too."""
        with self._lock:
            self.tally.take_over(steps)

    def revise(self, permit: Permit, call: ModelCall, *, can_block: bool = False) -> Permit:
        """What a permit was asked for has become `call`: the permit for that. Raises like `before_model`."""
        if self._meter.covers(permit, call):
            permit = replace(permit, call=call)
            offer_cover(self, permit)
            return permit
        self.withdraw(permit)
        return self.before_model(call, can_block=can_block)

    def withdraw(self, permit: Permit) -> None:
        """Hand back a permit whose call was certainly not sent: it is no step, and holds nothing any more."""
        self.guard.housekeeper.ended(permit.id)
        if self.is_open(permit.id):
            self._meter.give_back(permit)
            with self._lock:
                self.tally.withdraw_model()

    def expect_last_turn(self) -> LastTurn:
        """
        What keeps money back for a last answer, for an adapter that can ask the model for one after a stop.

        It is kept from the next call on, unless `Limits(wrap_up=False)`.
        """
        from runrails.wrapup import LastTurn

        with self._lock:
            last = self.last_turn
            if last is None:
                last = self.last_turn = LastTurn(self, self._meter)
        return last

    def step(self) -> AbstractContextManager[None]:
        """A round of a loop of your own: count it as a step. `with run.step():`, or just `run.step()`; raises stops."""
        try:
            with self._lock:
                self._wait_for_steps()
                self._gate()
                self._loop_gate("", can_block=False)
                self._begin(self.tally.begin_step)
        finally:
            if self._outbox.waiting:
                self._outbox.send()
        return nullcontext()

    def _not_admitted(self, permit: Permit | None) -> None:
        """A call that was counted may not start: neither it nor its permit was anything."""
        if permit is not None:
            self.guard.housekeeper.ended(permit.id)
            self._meter.give_back(permit)
        with self._lock:
            self.tally.undo_model()

    def _goes_on(self, error: BaseException, resumes: int, *, told: bool, may_wait: bool) -> bool:
        """Act upon why a call may not start. True if it should be asked for again."""
        if isinstance(error, GuardrailStopped):
            if self.stopped is None:
                # What an older limit refused must not stop the run that was just given a newer one.
                if self._resumes != resumes:
                    return True
                if told:
                    self._note_stop(error)
        elif isinstance(error, RunrailsError) and told and not (may_wait and isinstance(error, _BUSY)):
            self._note_refusal(error)
        return False

    def _before_tool(self, call: ToolCall, *, can_block: bool) -> Proceed | Block:
        self._gate()
        verdict = self._loops.ask(lambda d: d.before_tool(call, can_block=can_block)) or PROCEED
        if isinstance(verdict, Stop):
            self._latch(self._loops.stop(verdict.finding))
            verdict = PROCEED
        elif isinstance(verdict, Block):
            self._loops.record(verdict.finding)
            if not self._observing:
                self._journal.tool(call, None, step=self.tally.steps, duration_ms=0, printed=self._loops.printed)
                return verdict
            verdict = PROCEED
        step = self._begin(self.tally.begin_tool)
        started = self._tools_started
        if len(started) >= TOOLS_IN_FLIGHT_MAX:
            del started[next(iter(started))]
        started[id(call)] = (call, step, self.guard.monotonic())
        return PROCEED if self._observing else verdict

    def _wait_for_steps(self) -> None:
        """Wait, with the lock given back meanwhile, while the last steps are taken by calls that may yet be refused."""
        started: int | None = None
        while self.tally.crowded() and not self._observing:
            started = self.guard.monotonic() if started is None else started
            self._lock.release()
            try:
                patient = self._meter.wait(started)
            finally:
                self._lock.acquire()
            if not patient:
                return

    def _last(self, last: LastTurn, call: ModelCall, *, sends: bool) -> Permit | None:
        """The permit of the last call, if it is that one; any other has money for that kept back first."""
        if not last.claimed():
            self._gate()
            last.keep(call)
            return None
        try:
            permit = last.admit(call)
        finally:
            if self._outbox.waiting:
                self._outbox.send()
        if not sends:
            offer_cover(self, permit)
        return permit

    def _begin(self, count: Callable[..., int], *, may_wait: bool = False) -> int:
        """Count a step. A limit that is reached stops the run; observing notes it and counts on."""
        now_ms = self.guard.monotonic()
        try:
            return count(now_ms=now_ms)
        except LimitReached as exc:
            stop = exc
        except BudgetBusy as busy:
            if not self._observing:
                if not may_wait:
                    self._note_refusal(busy)
                raise
            return count(now_ms=now_ms, enforce=False)
        self._latch(stop)
        return count(now_ms=now_ms, enforce=False)

    def _loop_gate(self, agent: str, *, can_block: bool) -> None:
        finding = self._loops.before_model(agent, can_block=can_block)
        if finding is not None:
            self._latch(self._loops.stop(finding))

    def _latch(self, stop: GuardrailStopped) -> None:
        """Stop the run and raise, or in observe mode note that it would have been stopped."""
        self._note_stop(stop)
        if not self._observing:
            raise stop.again()
