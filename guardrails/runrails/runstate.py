"""
What a run is apart from its steps: what it keeps, how it is entered and left, stopped, resumed, reported and closed.

`Run` adds the verbs that steps begin and end with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast
from weakref import ref

from runrails import aio
from runrails.accounts import Accounts
from runrails.admission import on_event_loop
from runrails.boundary import raise_stop
from runrails.current import given_up, stay
from runrails.entering import Entry
from runrails.errors import BudgetExceeded, ConfigError, GuardrailStopped, RunrailsError
from runrails.events import Outbox
from runrails.journal import Journal
from runrails.latch import Latch
from runrails.ledger import RUN_PERIOD, Account
from runrails.limits import Limits, check_limits
from runrails.loopwatch import LoopWatch
from runrails.meter import Meter
from runrails.money import format_usd
from runrails.report import Report, savings_of
from runrails.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Group

    from runrails.attribution import Attribution
    from runrails.calls import ToolCall
    from runrails.current import Stay
    from runrails.guard import Guard
    from runrails.run import Run
    from runrails.wrapup import LastTurn

__all__ = ["RunState"]


def _meter_of(limits: Limits, guard: Guard) -> type[Meter]:
    paced = limits.paced or guard.limits.paced
    if guard.credentials is not None:
        from runrails.routed import RoutedMeter, RoutedPacedMeter

        return RoutedPacedMeter if paced else RoutedMeter
    if not paced:
        return Meter
    from runrails.pacing import PacedMeter

    return PacedMeter


class RunState:
    """The state of a `Run`."""

    def __init__(
        self, guard: Guard, *, name: str, run_id: str, limits: Limits, parent: Run | None, attribution: Attribution
    ) -> None:
        self.guard = guard
        self.name, self.id = name, run_id
        self.limits: Limits = limits
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
        around = None if outer is None else outer._meter  # noqa: SLF001 -- of this class
        meter, gate = _meter_of(limits, guard), self._gate_of_parts()
        self._meter: Meter = meter(self.accounts, run_id=run_id, lock=self._lock, gate=gate, outer=around)
        self.adapters: dict[type[object], object] = {}
        """What adapters keep for this run, by the type of it."""
        self._tools_started: dict[int, tuple[ToolCall, int, int]] = {}
        """By the call's identity; the call is kept with it, so that no other can get the same one."""
        self.entry = Entry(cast("Run", self))
        self.last_turn: LastTurn | None = None
        """Once an adapter has said that it can take one; see `expect_last_turn`."""

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

    @property
    def barren(self) -> bool:
        """Whether it was stopped, or its calls refused, before any of them could start."""
        return self.tally.steps == 0 and (self.stopped is not None or self._journal.refusals > 0)

    def is_open(self, permit_id: str) -> bool:
        """Whether a permit of this run has not been handed back yet."""
        return self._meter.is_open(permit_id)

    def kept_in(self, account: Account) -> int:
        """What is kept back in an account for last turns, here and in the runs around."""
        return self._meter.kept_in(account)

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

    def end_with(self, stop: GuardrailStopped) -> None:
        """Stop the run for what came to light while a call was in flight; observing only notes it."""
        self._note_stop(stop)
        self._outbox.send()

    def leave_alone(self, stop: GuardrailStopped, here: Stay | None) -> None:
        """What still runs in the stay `here` may start nothing more."""
        if here is not None and not self._observing:
            here.given_up = stop

    def resume(self, *, limits: Limits | None = None) -> None:
        """
        Let a stopped run go on, usually with a higher limit; one that has ended is open again.

        It is the only way to unlatch a run. A run it is part of stays stopped until that one is resumed as well. While
        the run goes on, a person may so raise its limits from any thread; the loop detector then keeps what it knows.
        """
        if limits is not None:
            check_limits(limits)
            if limits.paced and not self._meter.paces:
                raise ConfigError(
                    "A run that began without rates cannot be given any.", next_step="Give them to the guard's Limits."
                )
        with self._lock:
            goes_on = self.latch.own is None and not self._closed
            same = limits is None or limits.loops == self.limits.loops
            if limits is not None:
                self.limits = self.tally.limits = limits
                self.guard.saves = self.guard.saves or limits.saves
                self._meter.use(limits)
            self._resumes += 1
            self.latch.own = None
            self._closed = False
            self.tally.go_on(self.guard.monotonic())
            if not (goes_on and same):
                self._loops.start(self.limits.loops)
            if self.last_turn is not None:
                self.last_turn.again()
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
                own_key_pusd=journal.own_key_pusd(), savings=savings_of(tally.savings), refused=journal.refused,
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
        self.guard.archive(cast("Run", self))

    # For people.

    def __repr__(self) -> str:
        limit = "" if self.limits.run_pusd is None else f" of {format_usd(self.limits.run_pusd)}"
        end = f", {self.stop_reason}" if self.stopped is not None else ", ended" if self._closed else ""
        name = f" {self.name!r}" if self.name else ""
        return f"<Run {self.id}{name}: {format_usd(self.tally.cost_pusd)}{limit}, {self.tally.steps:,} steps{end}>"

    def __str__(self) -> str:
        """The report's lines."""
        return str(self.report())

    def _repr_html_(self) -> str:
        """For notebooks: the report so far."""
        from runrails.showing.reports import report_html

        return report_html(self.report())

    def __rich__(self) -> Group:
        """For terminals, with Rich: the report so far."""
        return self.report().__rich__()

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
        raise_stop(error, self.entry.unsaid)

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
        raise_stop(error, self.entry.unsaid)

    # Inside.

    def _gate(self) -> None:
        """Raise if nothing may start here: the run, or one it is part of, is over."""
        latch = self.latch
        if latch.own is None and latch.elsewhere is None and self.parent is None and not self._closed:
            here = stay.get()
            if here is None or (here.given_up is None and here.outer is None):
                return  # By far the most calls; what follows says the same of all others.
        if self._observing:
            return
        stop = latch.stop
        if stop is None and stay.get() is not None:
            stop = given_up()
        if stop is not None:
            raise self.latch.refusal(stop)
        run: RunState | None = self
        while run is not None:
            if run._closed:  # noqa: SLF001 -- of this very class
                raise _ended(run)
            run = run.parent

    def _gate_of_parts(self) -> Callable[[], None]:
        """The gate for the run's parts, none of which holds it: see `Entry`. Whoever waits there has it."""
        known = ref(self)

        def gate() -> None:
            run = known()
            if run is not None:
                run._gate()  # noqa: SLF001 -- of this very class

        return gate

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
        from runrails.redaction import redact_text

        with self._lock:
            self._journal.refusals += 1
            self._journal.refused = redact_text(str(error))  # It may name a model, which may be anything.
        self._outbox.add("call_refused", "warning", **error.as_dict())


def _ended(run: RunState) -> ConfigError:
    return ConfigError(
        f"Run {run.id} has ended; nothing can start in it.",
        next_step="Open another one with guard.run(), or let it go on with run.resume(limits=…).",
    )
