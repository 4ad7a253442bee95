"""
One guarded execution. Every adapter drives it with the same verbs; once stopped it stays stopped.

``before_*`` may raise a stop or a refusal, ``after_*`` never does: stops come at the start of a step, where the
conversation is consistent and no paid answer is thrown away.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from runrails import aio
from runrails.accounts import Accounts
from runrails.admission import exceeded, on_event_loop
from runrails.boundary import raise_stop
from runrails.calls import PROCEED, Block, Finding, ModelCall, ModelResult, Permit, Proceed, Stop, ToolCall, ToolOutcome
from runrails.cover import offer_cover
from runrails.current import current_run, given_up, stay
from runrails.entering import Entry
from runrails.errors import (
    BudgetBusy,
    BudgetExceeded,
    ConfigError,
    GuardrailStopped,
    LimitReached,
    RunrailsError,
)
from runrails.events import Outbox
from runrails.journal import Journal
from runrails.latch import Latch
from runrails.ledger import RUN_PERIOD, Account
from runrails.limits import Limits, check_limits
from runrails.loopwatch import LoopWatch
from runrails.meter import Meter
from runrails.report import Report
from runrails.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from runrails.attribution import Attribution
    from runrails.current import Stay
    from runrails.guard import Guard

__all__ = ["Run", "current_run"]

TOOLS_IN_FLIGHT_MAX = 1_000
"""Most tool calls whose start is remembered: cancelled ones never tell their end."""


class Run:
    """
    One guarded execution. Made by `Guard.run`; thread-safe and bound to no event loop.

    As a context manager it guards everything inside, without a callbacks argument, and raises the stop at its end.
    By hand it is driven with `before_model`, `after_model`, `before_tool`, `after_tool` and `close`.
    """

    def __init__(
        self, guard: Guard, *, name: str, run_id: str, limits: Limits, parent: Run | None, attribution: Attribution
    ) -> None:
        self.guard = guard
        self.name, self.id = name, run_id
        self.limits = limits
        self.parent = parent
        self._observing = guard.mode == "observe"
        self.owned = False
        """True inside `with guard.run():`, where a stop travels as `boundary.Trip`."""
        self._started_ms = guard.clock()
        outer, scope = parent, f"run:{run_id}"
        tally = Tally(scope, limits, started_ms=guard.monotonic(), parent=None if outer is None else outer.tally)
        self.tally: Tally = tally
        self.latch: Latch = Latch(
            scope, None if outer is None else outer.latch, tripped=lambda: tally.pause(guard.monotonic())
        )
        self._lock = self.latch.lock
        self._would_stop: str | None = None
        self._outbox = Outbox(guard.emit, run=run_id)
        self._resumes = 0
        self._closed = False
        self._journal: Journal = Journal(None if outer is None else outer._journal)  # noqa: SLF001 -- of this class
        self._loops = LoopWatch(
            scope, guard.tools, journal=self._journal, outbox=self._outbox, observing=self._observing
        )
        self._loops.start(limits.loops)
        beyond = None if outer is None else outer.accounts if outer.guard is not guard else outer.accounts.outer
        self.accounts: Accounts = Accounts(guard, attribution, limits=limits, tally=tally, outer=beyond)
        self._meter = Meter(self.accounts, run_id=run_id, lock=self._lock, gate=self._gate)
        self.adapters: dict[type[object], object] = {}
        """What adapters keep for this run, by the type of it."""
        self._tools_started: dict[int, tuple[ToolCall, int, int]] = {}
        """By the call's identity; the call is kept with it, so that no other can get the same one."""
        self.entry = Entry(self)

    # The door.

    def before_model(
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
        try:
            while True:
                with self._lock:
                    if self.tally.admitting or self.tally.parent is not None:
                        self._wait_for_steps()
                    self._gate()
                    self._loop_gate(call.agent, can_block=can_block)
                    step = self._begin(self.tally.begin_model, may_wait=may_wait)
                    resumes = self._resumes
                try:
                    permit = self._admit(call, step)
                except GuardrailStopped as stop:
                    if self.stopped is None:
                        # What an older limit refused must not stop the run that was just given a newer one.
                        if self._resumes != resumes:
                            continue
                        if not tentative:
                            self._note_stop(stop)
                    raise
                except RunrailsError as error:
                    if not (tentative or (may_wait and isinstance(error, BudgetBusy))):
                        self._note_refusal(error)
                    raise
                if not sends:
                    offer_cover(self, permit)
                return permit
        finally:
            if self._outbox.waiting:
                self._outbox.send()

    def after_model(self, permit: Permit, result: ModelResult) -> None:
        """Settle what the call cost. Never raises a stop; what the store cannot take now is written later."""
        duration_ms = max(0, self.guard.clock() - permit.started_ms)
        self.guard.housekeeper.ended(permit.id)
        settlement = self._meter.settle(permit, result, duration_ms=duration_ms)
        if settlement is None:
            return
        with self._lock:
            self._journal.model(permit, result, settlement, duration_ms)

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
            self._journal.tool(call, outcome, step=step, duration_ms=now - started)
            self._journal.tool_ended()
            finding = self._loops.ask(lambda d: d.after_tool(call, outcome, can_block=can_block))
            if finding is not None:
                self._loops.record(finding)
        if self._outbox.waiting:
            self._outbox.send()
        return None if self._observing else finding

    def user_message(self, agent: str = "") -> None:
        """A person spoke: what repeated before does not count any more."""
        if given_up() is not None:
            return
        with self._lock:
            self._loops.ask(lambda d: d.user_message(agent))
        if self._outbox.waiting:
            self._outbox.send()

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

    # Its state.

    @property
    def attribution(self) -> Attribution:
        """Whose the run is; a single call may be somebody else's."""
        return self.accounts.own

    @property
    def stopped(self) -> GuardrailStopped | None:
        """The stop that ended this run or a run it is part of; None while it may go on."""
        return self.latch.stop

    @property
    def stop_reason(self) -> str | None:
        """Short machine-readable reason of the stop, or None."""
        stop = self.stopped
        return None if stop is None else stop.stop_reason

    def is_open(self, permit_id: str) -> bool:
        """Whether a permit of this run has not been handed back yet."""
        return self._meter.is_open(permit_id)

    def check(self) -> None:
        """Raise the stop again if the run is stopped."""
        stop = self.stopped
        if stop is not None and not self._observing:
            raise stop.again()

    def time_is_up(self, here: Stay | None) -> GuardrailStopped:
        """
        Stop the run from outside: its seconds, or those of a run it is part of, are over while something still hangs.

        What hangs in the stay `here` is left alone: it may start nothing more, even if the run is resumed and entered
        anew. Where somebody has done that already, nothing is done to the run, which may have gone on since.
        """
        with self._lock:
            before = None if here is None else given_up(here)
            if before is not None:
                return before
            stop: GuardrailStopped = self.tally.late(self.guard.monotonic())
            if here is self.entry.stay:
                self._note_stop(stop)
                stop = self.stopped or stop
            self.leave_alone(stop, here)
        self._outbox.send()
        return stop

    def leave_alone(self, stop: GuardrailStopped, here: Stay | None) -> None:
        """What still runs in the stay `here` may start nothing more."""
        if here is not None and not self._observing:
            here.given_up = stop

    def resume(self, *, limits: Limits | None = None) -> None:
        """
        Let a stopped run go on, usually with a higher limit; one that has ended is open again.

        It is the only way to unlatch a run. A run it is part of stays stopped until that one is resumed as well.
        """
        if limits is not None:
            check_limits(limits)
        with self._lock:
            if limits is not None:
                self.limits = self.tally.limits = limits
                self._meter.use(limits)
            self._resumes += 1
            self.latch.own = None
            self._closed = False
            self.tally.go_on(self.guard.monotonic())
            self._loops.start(self.limits.loops)
        self.guard.emit("run_resumed", run=self.id)

    def report(self) -> Report:
        """What the run did so far."""
        self._catch_up()
        with self._lock:
            stop, tally, journal, whose = self.stopped, self.tally, self._journal, self.attribution
            return Report(
                run=self.id, name=self.name, user=whose.user or "", mode=self.guard.mode, started_ms=self._started_ms,
                duration_ms=tally.elapsed_ms(self.guard.monotonic()), steps=tally.steps, model_calls=tally.model_calls,
                tool_calls=tally.tool_calls, input_tokens=journal.input_tokens, output_tokens=journal.output_tokens,
                cost_pusd=tally.cost_pusd, unresolved_pusd=journal.unresolved_pusd, overrun_pusd=journal.overrun_pusd,
                limit_pusd=self.limits.run_pusd, hints=journal.hints, blocks=journal.blocks, refusals=journal.refusals,
                stop_reason=self.stop_reason, stop_message=None if stop is None else str(stop),
                would_have_stopped=self._would_stop, findings=tuple(journal.findings), rows=tuple(journal.rows),
                key=whose.key, org=whose.org, tags=whose.tags, groups=journal.groups(),
            )  # fmt: skip

    def close(self) -> None:
        """End the run and keep its record in the store, if the store keeps runs. Closing twice is fine."""
        self._catch_up()
        self.entry.finish()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.tally.pause(self.guard.monotonic())
        # What is still in flight may settle late; nobody may hold money for ever in a run that is over.
        for reservation_id in self._meter.open_ids():
            self.guard.housekeeper.ended(reservation_id)
        self.guard.archive(self)

    # As a context manager.

    def __enter__(self) -> Self:
        with self._lock:
            self._check_enterable()
            self.owned = True
        self.entry.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entry.leave()
        self.close()
        raise_stop(error)

    async def __aenter__(self) -> Self:
        if self.entry.postponed:
            await aio.off_loop(self.guard, self.entry.prepare)
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entry.leave()
        if self.guard.store.remote:
            await aio.off_loop(self.guard, self.close)
        else:
            self.close()
        raise_stop(error)

    # Inside.

    def _gate(self) -> None:
        """Raise if nothing may start here: the run, or one it is part of, is over."""
        if self._observing:
            return
        stop = self.latch.stop
        if stop is None and stay.get() is not None:
            stop = given_up()
        if stop is not None:
            raise self.latch.refusal(stop)
        run: Run | None = self
        while run is not None:
            if run._closed:  # noqa: SLF001 -- of this very class
                raise _ended(run)
            run = run.parent

    def _catch_up(self) -> None:
        """Settle the streams that were dropped; with a remote store only where that may wait."""
        keeper = self.guard.housekeeper
        if keeper.left_behind and not (self.guard.store.remote and on_event_loop()):
            keeper.settle_left_behind()

    def _check_enterable(self) -> None:
        if self.owned:
            raise ConfigError(
                f"Run {self.id} is entered already.",
                next_step="Open a run inside it with guard.run(), or take it to other threads with guard.bind(…).",
            )
        if self._closed:
            raise _ended(self)

    def _admit(self, call: ModelCall, step: int) -> Permit:
        permit: Permit | None = None
        try:
            permit, would_refuse = self._meter.admit(call, step)
            if permit.priced:
                self.guard.housekeeper.opened(permit.id, self.limits.hold_ttl_ms)
            if would_refuse is not None:
                self._note_stop(exceeded(would_refuse))
            if self._outbox.waiting:
                self._outbox.send()  # Before the permit is out: an interrupt in a sink must not lose it with its hold.
            with self._lock:
                self._gate()  # It may have been stopped or ended while the ledger answered.
                self.tally.admitted()
        except BaseException:
            if permit is not None:
                self.guard.housekeeper.ended(permit.id)
                self._meter.give_back(permit)
            with self._lock:
                self.tally.undo_model()
            raise
        return permit

    def _before_tool(self, call: ToolCall, *, can_block: bool) -> Proceed | Block:
        self._gate()
        verdict = self._loops.ask(lambda d: d.before_tool(call, can_block=can_block)) or PROCEED
        if isinstance(verdict, Stop):
            self._latch(self._loops.stop(verdict.finding))
            verdict = PROCEED
        elif isinstance(verdict, Block):
            self._loops.record(verdict.finding)
            if not self._observing:
                self._journal.tool(call, None, step=self.tally.steps, duration_ms=0)
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

    def _note_stop(self, stop: GuardrailStopped) -> None:
        if self._observing:
            if self._would_stop is None:
                self._would_stop = str(stop)
                self._outbox.add("run_would_stop", "warning", **stop.as_dict())
            return
        if self.latch.trip(stop):
            self._outbox.add("run_stopped", "warning", **stop.as_dict())
        if isinstance(stop, BudgetExceeded) and stop.fields["period"] != RUN_PERIOD:
            self.guard.housekeeper.refused(Account(str(stop.fields["scope"]), str(stop.fields["period"])))

    def _note_refusal(self, error: RunrailsError) -> None:
        with self._lock:
            self._journal.refusals += 1
        self._outbox.add("call_refused", "warning", **error.as_dict())


def _ended(run: Run) -> ConfigError:
    return ConfigError(
        f"Run {run.id} has ended; nothing can start in it.",
        next_step="Open another one with guard.run(), or let it go on with run.resume(limits=…).",
    )
