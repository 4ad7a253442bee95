"""
The last turn of a run that was stopped: one more call of a model, paid from money kept back for it, that gives the
user an answer with what is known.

The money is a hold of its own, taken before the run's first call in every account that the run draws on; so no other
call can spend it. It is given back when the run ends, or when it turns into that last call. Only the run's calls keep
it alive: where its owner dies, or nobody goes on with the run, it is released, as nothing was sent for it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from runrails import aio, bounds
from runrails.current import given_up
from runrails.errors import BudgetBusy, BudgetExceeded, LimitReached, LoopDetected, RunrailsError, StoreUnavailable
from runrails.figures import marked_up, net_of
from runrails.ledger import RUN_PERIOD, Hold, Refused, Reservation, SupportsExtend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from runrails.calls import ModelCall, Permit
    from runrails.errors import GuardrailStopped
    from runrails.meter import Meter
    from runrails.pricing.cards import PriceCard
    from runrails.run import Run

__all__ = ["OUTPUT_TOKENS", "LastTurn", "ends_with_a_turn", "kept_back_pusd"]

SHARE_BP = 500
"""The share of a run's budget that is kept back: 5 %."""
SHARE_BP_MAX = 5_000
"""Where even the smallest last turn costs more than this share, nothing is kept back: the work comes first."""
OUTPUT_TOKENS = 512
"""The cap on the last answer."""
INPUT_TOKENS_MIN = 2_048
"""The shortest account of a run that an answer can be made of, as bounds count it: a byte is a token."""
INPUT_TOKENS_MAX = 16_384
"""More is not needed, however much the share would buy."""


def ends_with_a_turn(stop: GuardrailStopped) -> bool:
    """Whether a last turn is due: after a budget, a loop, the last tool call; limits on calls or time leave no room."""
    if isinstance(stop, LimitReached):
        return stop.fields.get("unit") == "tool calls"
    return isinstance(stop, BudgetExceeded | LoopDetected)


def kept_back_pusd(card: PriceCard, run_pusd: int | None) -> int | None:
    """
    What to keep back for a last turn on a model of these prices, in picodollars.

    Args:
        card: The prices.
        run_pusd: The run's budget, if it has one.

    Returns:
        None if the budget is too small for it.
    """
    least = _turn_pusd(card, INPUT_TOKENS_MIN)
    if run_pusd is None:
        return least
    if least * 10_000 > run_pusd * SHARE_BP_MAX:
        return None
    most = _turn_pusd(card, INPUT_TOKENS_MAX)
    return max(least, min(most, run_pusd * SHARE_BP // 10_000))


def input_room_tokens(card: PriceCard, amount_pusd: int) -> int:
    """How many tokens the last turn's prompt may have for this amount."""
    found = bounds.output_within(
        amount_pusd, lambda tokens: _turn_pusd(card, tokens), floor=INPUT_TOKENS_MIN, ceiling=INPUT_TOKENS_MAX
    )
    room = found or 0
    most = card.context_tokens_max
    return room if most is None else max(0, min(room, most - OUTPUT_TOKENS))


class LastTurn:
    """The last turn of one run. Made by `Run.expect_last_turn`, for an adapter that can take it. Thread-safe."""

    def __init__(self, run: Run, meter: Meter) -> None:
        self._run = run
        self._meter = meter
        self._tried = False
        self._kept: str | None = None
        self._renew_ms = 0
        """When the next call keeps the hold alive, on the monotonic clock."""
        self._room = 0
        self._taken = False
        self.call: ModelCall | None = None
        """A call of the model that will be asked, if it is known: money is kept back at its prices."""

    def keep(self, call: ModelCall) -> None:
        """
        Keep the money back, the first time it is asked to. What cannot be kept is no reason to refuse a call.

        Args:
            call: The run's first call, which tells the prices where nothing else does.
        """
        run = self._run
        now = run.guard.monotonic()
        if self._tried and (self._kept is None or now < self._renew_ms):
            return
        with run.latch.lock:
            first, self._tried = not self._tried, True
            lapsing = self._kept if not first and now >= self._renew_ms else None
            self._renew_ms = now + run.limits.hold_ttl_ms // 3
        if lapsing is not None and not self._renewed(lapsing):
            self.give_back()
            first = True
        if first:
            self._keep_for(self.call or call)

    def give_back(self) -> None:
        """Give the money back. Doing it again changes nothing; what the store does not hear of is released in time."""
        with self._run.latch.lock:
            kept, self._kept, self._room = self._kept, None, 0
        if kept is not None:
            self._meter.keep_back({})
            with suppress(RunrailsError):
                self._run.guard.store.release(kept)

    def again(self) -> None:
        """The run goes on: another turn may end it, and money is kept back for that at its next call, if none is."""
        self._taken = False
        self._tried = self._kept is not None

    @contextmanager
    def turn(self) -> Generator[int]:
        """
        In here one model call may start although the run was stopped; nothing else may. Gives the room for its prompt.

        The room is in tokens, as bounds count them; 0 if no turn is due, no money is kept, or it was taken before.
        """
        with self._turn() as room:
            try:
                yield room
            finally:
                if room:
                    self.give_back()

    @asynccontextmanager
    async def aturn(self) -> AsyncGenerator[int]:
        """As `turn`; a remote store does not keep the event loop waiting."""
        guard = self._run.guard
        with self._turn() as room:
            try:
                yield room
            finally:
                if room and self._kept is not None and guard.store.remote:
                    await aio.off_loop(guard, self.give_back)
                elif room:
                    self.give_back()

    def claimed(self) -> bool:
        """Whether the asking code may start the last call. True once: who asked must start it, or nobody does."""
        ticket = _ticket.get()
        if ticket is None or ticket.of is not self:
            return False
        with self._run.latch.lock:
            left, ticket.left = ticket.left, 0
            return left == 1 and self._kept is not None and given_up() is None

    def admit(self, call: ModelCall) -> Permit:
        """
        Leave to start the last call, which was `claimed`: what was kept back becomes its hold. Counted like any other.

        Raises:
            GuardrailStopped, CallRefused: There is no room for it after all.
        """
        self.give_back()
        run, permit = self._run, None
        with run.latch.lock:
            step = run.tally.begin_model(now_ms=run.guard.monotonic())
        try:
            permit, _ = self._meter.admit(call, step)
            run.guard.housekeeper.opened(permit.id, run.limits.hold_ttl_ms)
            run.guard.emit("run_wrapped_up", "info", run=run.id, model=call.model, held_pusd=permit.bound_pusd)
            with run.latch.lock:
                run.tally.admitted()
        except BaseException:
            if permit is not None:
                run.guard.housekeeper.ended(permit.id)
                self._meter.give_back(permit)
            with run.latch.lock:
                run.tally.undo_model()
            raise
        return permit

    @contextmanager
    def _turn(self) -> Generator[int]:
        room = self._due()
        if not room:
            yield 0
            return
        token = _ticket.set(_Ticket(self))
        try:
            yield room
        finally:
            _ticket.reset(token)
            if self._run.stopped is None:  # resumed meanwhile
                self._tried = self._taken = False

    def _due(self) -> int:
        run, stop = self._run, self._run.stopped
        with run.latch.lock:
            if stop is None or self._taken or given_up() is not None or not ends_with_a_turn(stop):
                return 0
            if self._room == 0 or not self._may_count():
                return 0
            self._taken = True
            return self._room

    def _may_count(self) -> bool:
        """Whether every limit on steps, calls and time, here and in the runs around, has room for one call more."""
        tally = self._run.tally
        try:
            tally.begin_model(now_ms=self._run.guard.monotonic())
        except (LimitReached, BudgetBusy):
            return False
        tally.undo_model()
        return True

    def _renewed(self, kept: str) -> bool:
        """Whether the hold is still ours, for another while."""
        store = self._run.guard.store
        try:
            return isinstance(store, SupportsExtend) and store.extend(kept, ttl_ms=self._run.limits.hold_ttl_ms)
        except StoreUnavailable:
            return True  # Nobody knows; the next call asks again.
        except RunrailsError:
            return False

    def _keep_for(self, call: ModelCall) -> None:
        run = self._run
        guard = run.guard
        # Whose key it would go out on is chosen for calls that are admitted, which the last turn is not.
        if guard.mode == "observe" or not run.limits.wrap_up or guard.credentials is not None:
            return
        try:
            now_ms = guard.clock()
            card = guard.prices.card(call.model, provider=call.provider, now_ms=now_ms, region=call.region)
            markup_bp = 0 if run.accounts.own.byok else guard.markup_bp
            run_pusd = run.limits.run_pusd
            amount = kept_back_pusd(card, None if run_pusd is None else net_of(run_pusd, markup_bp))
            if amount is not None:
                self._keep(marked_up(amount, markup_bp), now_ms, input_room_tokens(card, amount))
        except Exception as exc:  # noqa: BLE001 -- see `keep`
            reason = exc.what if isinstance(exc, RunrailsError) else type(exc).__name__
            guard.emit("wrap_up_unfunded", "info", run=run.id, reason=reason)

    def _keep(self, amount: int, now_ms: int, room: int) -> None:
        run, guard = self._run, self._run.guard
        pairs = run.accounts.of(run.accounts.own, now_ms).pairs
        reservation_id, ttl_ms = guard.new_id(), run.limits.hold_ttl_ms
        holds = tuple([Hold(account, amount, limit) for account, limit in pairs])
        run.entry.before_close.append(self.give_back)
        # Before the store is asked: even if its answer does not come, it may hold it.
        self._kept = reservation_id
        self._meter.keep_back({account: amount for account, _ in pairs})
        answer = guard.store.reserve(Reservation(reservation_id, holds, ttl_ms, None, "release"))
        if isinstance(answer, Refused):
            self._kept = None
            self._meter.keep_back({})
            whose = "run" if answer.account.period == RUN_PERIOD else "month"
            guard.emit("wrap_up_unfunded", "info", run=run.id, reason=f"The budget of the {whose} has no room for it.")
            return
        self._room = room


class _Ticket:
    __slots__ = ("left", "of")

    def __init__(self, of: LastTurn) -> None:
        self.of = of
        self.left = 1


_ticket: ContextVar[_Ticket | None] = ContextVar("runrails_last_turn", default=None)


def _turn_pusd(card: PriceCard, input_tokens: int) -> int:
    return bounds.call_bound_pusd(card, input_tokens=input_tokens, output_tokens=OUTPUT_TOKENS)
