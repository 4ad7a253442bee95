"""The money of one run: price card, bound, reservation before a model call; settlement after it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.admission import OUTPUT_FLOOR_TOKENS, Admission, Admitted, Bound, Claim, bound_of
from runrails.calls import ModelCall, ModelResult, Permit
from runrails.errors import (
    BoundUnknown,
    BudgetBusy,
    GuardFault,
    PriceUnknown,
    ReservationMismatch,
    RunrailsError,
    StoreUnavailable,
    UnknownReservation,
)
from runrails.ledger import AMOUNT_MAX, RUN_PERIOD, Account, CallFacts, Hold, Refused, Reservation, ResultFacts
from runrails.periods import month_of
from runrails.settlement import Settlement, settle

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from runrails.guard import Guard
    from runrails.limits import Limits
    from runrails.pricing.cards import PriceCard
    from runrails.tally import Tally

__all__ = ["Meter"]

CARDS_KEPT_MAX = 256
FACT_CHARS_MAX = 512
"""Longest text about a call that goes into its usage record; the rest of a longer one is cut off."""
_Pairs = tuple[tuple[Account, int | None], ...]


class _Accounts(NamedTuple):
    """Every account a call draws on, and for which month and limits that was worked out."""

    month: str
    run_limits: tuple[int | None, ...]
    pairs: _Pairs
    """With the limit that code gives each."""
    months: tuple[Account, ...]
    """Those with a calendar, which are watched for warnings."""
    month_limits: tuple[int | None, ...]


class Meter:
    """Thread-safe. Every store call of a run goes through here."""

    def __init__(
        self, guard: Guard, *, limits: Limits, run_id: str, tally: Tally, lock: threading.RLock,
        gate: Callable[[], None],
    ) -> None:  # fmt: skip
        self._guard = guard
        self._run_id = run_id
        self._tally = tally
        self._lock = lock
        self._observe = guard.mode == "observe"
        self._cards: dict[tuple[str | None, str], PriceCard] = {}
        self._open: dict[str, Claim] = {}
        """Permits that have not been handed back."""
        self._limits = limits
        self._accounts = _Accounts("", (), (), (), ())
        self._admission = Admission(
            guard.store, limits, room=guard.room, monotonic=guard.monotonic, observe=self._observe, gate=gate
        )

    def use(self, limits: Limits) -> None:
        """Apply limits from now on; calls in flight keep what they hold."""
        self._limits = self._admission.limits = limits
        self._accounts = _Accounts("", (), (), (), ())

    def admit(self, call: ModelCall, step: int) -> tuple[Permit, Refused | None]:
        """
        Price, bound and reserve a call.

        Returns:
            The permit, and in observe mode the refusal that enforcing would have given.

        Raises:
            BudgetExceeded, LimitReached: A budget is used up; the run is over.
            CallRefused: This call may not start.
        """
        claim = Claim(self._guard.new_id())
        try:
            try:
                return self._admit(claim, call, step)
            except BaseException:
                self._undo(claim)
                raise
        except RunrailsError as exc:
            if not self._observe:
                raise
            return self._observed(claim, call, step, exc)
        except Exception as exc:
            fault = GuardFault(
                f"Pricing, bounding or reserving the call failed: {type(exc).__name__}.",
                next_step="The call was not started. Please report this with the traceback.",
                model=call.model,
            )
            if self._observe:
                return self._observed(claim, call, step, fault)
            raise fault from exc

    def covers(self, permit: Permit, call: ModelCall) -> bool:
        """Whether what an open permit holds is enough for `call`, of the same model."""
        claim = self._open.get(permit.id)
        asked = permit.call
        if claim is None or (asked.provider, asked.model) != (call.provider, call.model):
            return False
        if not permit.held:
            return True
        try:
            bound = bound_of(call, self._card(call.provider, call.model, permit.started_ms))
        except RunrailsError:
            return False  # Asked again it is refused, with its reason.
        if permit.uncapped:
            return bound.floor_pusd <= permit.bound_pusd
        if bound.cost_pusd is None or bound.cost_pusd > permit.attempt_pusd:
            return False
        return claim.tokens == 0 or bound.input_tokens + (bound.output_tokens or 0) <= claim.tokens

    def give_back(self, permit: Permit) -> None:
        """Release the holds of a permit whose call was never sent."""
        claim = self._open.pop(permit.id, None)
        if claim is not None:
            self._undo(claim)

    def settle(self, permit: Permit, result: ModelResult, *, duration_ms: int) -> Settlement | None:
        """
        Charge a call that ended; None if that permit has been handed back before.

        What the store cannot take now is written later; nothing is lost.
        """
        claim = self._open.pop(permit.id, None)
        if claim is None:
            self._guard.emit("permit_repeated", "warning", run=self._run_id, reservation=permit.id)
            return None
        settlement = Settlement(permit.bound_pusd, unresolved=True, usage=None)
        try:
            settlement = self._settlement(permit, result)
            served = None if result.model is None else result.model[:FACT_CHARS_MAX]
            facts = ResultFacts(end=result.end, usage=settlement.usage, model=served, duration_ms=duration_ms)
            self._write_soon(self._writing(permit, claim, settlement, facts))
        finally:
            with self._lock:
                self._tally.settle(
                    held_tokens=claim.tokens,
                    used_tokens=_tokens_used(settlement, result, claim),
                    cost_pusd=settlement.actual_pusd,
                )
            self._admission.ended(permit.id)
        return settlement

    def wait(self, started_ms: int) -> bool:
        """Wait a moment for other calls of the run. False once that has taken `hold_wait_ms`, or on an event loop."""
        return self._admission.wait(started_ms)

    def is_open(self, permit_id: str) -> bool:
        """Whether that permit has not been handed back."""
        return permit_id in self._open

    def open_ids(self) -> list[str]:
        """Ids of the permits that have not been handed back."""
        return list(self._open)

    def watched(self, started_ms: int) -> tuple[tuple[Account, ...], tuple[int | None, ...]]:
        """The accounts with a calendar that a call of that time draws on, and their limits in code."""
        accounts = self._accounts_at(started_ms)
        return accounts.months, accounts.month_limits

    # Admitting.

    def _admit(self, claim: Claim, call: ModelCall, step: int) -> tuple[Permit, Refused | None]:
        guard = self._guard
        now_ms = guard.clock()
        card = self._card(call.provider, call.model, now_ms)
        bound = bound_of(call, card)
        can_go_uncapped = call.max_tokens is None and not call.can_cap
        claim.tokens = self._hold_tokens(bound, can_go_uncapped=can_go_uncapped)
        admitted, held = self._reserve(claim, call, card, bound, step, now_ms, can_go_uncapped=can_go_uncapped)
        self._open[claim.id] = claim
        permit = Permit(
            id=claim.id, call=call, bound_pusd=admitted.bound_pusd,
            max_tokens=call.max_tokens if admitted.max_tokens is None else admitted.max_tokens,
            uncapped=admitted.uncapped, started_ms=now_ms, step=step, retries=admitted.retries, held=held,
        )  # fmt: skip
        return permit, admitted.would_refuse

    def _observed(self, claim: Claim, call: ModelCall, step: int, error: RunrailsError) -> tuple[Permit, None]:
        """Observing refuses nothing: the call starts without a hold, and what it costs is written afterwards."""
        priced = not isinstance(error, PriceUnknown)
        if priced:
            self._guard.emit("call_would_refuse", "warning", run=self._run_id, **error.as_dict())
        else:
            self._guard.emit("price_missed", "warning", run=self._run_id, model=call.model)
        claim.reservation = None
        self._open[claim.id] = claim
        permit = Permit(
            id=claim.id, call=call, bound_pusd=0, max_tokens=call.max_tokens, started_ms=self._guard.clock(),
            step=step, priced=priced, held=False,
        )  # fmt: skip
        return permit, None

    def _reserve(
        self, claim: Claim, call: ModelCall, card: PriceCard, bound: Bound, step: int, now_ms: int, *,
        can_go_uncapped: bool,
    ) -> tuple[Admitted, bool]:  # fmt: skip
        guard = self._guard
        facts = self._facts(call, step, provider=call.provider or card.provider, price_card=card.fingerprint)
        try:
            admitted = self._admission.reserve(
                claim, self._accounts_at(now_ms).pairs, bound, facts, can_go_uncapped=can_go_uncapped,
                retries=call.retries,
            )  # fmt: skip
        except StoreUnavailable as exc:
            if guard.on_store_error != "allow" and not self._observe:
                raise
            guard.emit("store_bypassed", "error", run=self._run_id, reason=exc.what)
            amount = bound.floor_pusd if bound.cost_pusd is None else bound.cost_pusd
            return Admitted(amount * (1 + call.retries), uncapped=False, would_refuse=None, retries=call.retries), False
        return admitted, True

    def _facts(self, call: ModelCall, step: int, *, provider: str, price_card: str = "") -> CallFacts:
        guard = self._guard
        return CallFacts(
            user=guard.user, run=self._run_id, step=step, key=guard.key, org=guard.org,
            provider=provider[:FACT_CHARS_MAX],
            model=call.model[:FACT_CHARS_MAX], request_type=call.request_type, endpoint=call.endpoint[:FACT_CHARS_MAX],
            user_agent=call.user_agent[:FACT_CHARS_MAX], agent=call.agent[:FACT_CHARS_MAX], price_card=price_card,
        )  # fmt: skip

    def _hold_tokens(self, bound: Bound, *, can_go_uncapped: bool) -> int:
        if self._observe:
            return 0
        uncapped = can_go_uncapped and self._limits.uncapped == "hold"
        started: int | None = None
        while True:
            waited = 0 if started is None else self._guard.monotonic() - started
            try:
                with self._lock:
                    return self._tally.hold_tokens(
                        input_tokens=bound.input_tokens, output_tokens=bound.output_tokens,
                        floor_tokens=OUTPUT_FLOOR_TOKENS, uncapped=uncapped, waited_ms=waited,
                    )  # fmt: skip
            except BudgetBusy:
                if started is None:
                    started = self._guard.monotonic()
                if not self._admission.wait(started):
                    raise

    def _undo(self, claim: Claim) -> None:
        """Give everything back that a call which was never sent may hold, in the run and in the store."""
        if claim.tokens:
            with self._lock:
                self._tally.settle(held_tokens=claim.tokens, used_tokens=0, cost_pusd=0)
            claim.tokens = 0
        if claim.reservation is not None:
            store, reservation_id = self._guard.store, claim.id
            claim.reservation = None

            def release() -> None:
                try:
                    store.release(reservation_id)
                except UnknownReservation:
                    return  # It holds nothing: the request to reserve never arrived.
                except ReservationMismatch:
                    store.settle(reservation_id, 0)  # It expired, charged, while the store was away.

            self._write_soon(release, event="release_postponed", level="warning")
        self._admission.ended(claim.id)

    # Accounts and prices.

    def _accounts_at(self, now_ms: int) -> _Accounts:
        month = month_of(now_ms, self._guard.zone)
        run_limits = self._run_limits()
        accounts = self._accounts
        if accounts.month != month or accounts.run_limits != run_limits:
            self._accounts = accounts = self._make_accounts(month, run_limits)
        return accounts

    def _run_limits(self) -> tuple[int | None, ...]:
        if self._tally.parent is None:
            return (self._tally.limits.run_pusd,)
        return tuple([tally.limits.run_pusd for tally in self._tally.chain()])

    def _make_accounts(self, month: str, run_limits: tuple[int | None, ...]) -> _Accounts:
        guard, own, usual = self._guard, self._limits, self._guard.limits
        scopes = [tally.scope for tally in self._tally.chain()]
        runs = [(Account(scope, RUN_PERIOD), limit) for scope, limit in zip(scopes, run_limits, strict=True)]
        # A run's own limits are about the run; months they do not name stay as the guard has them.
        rows = [("user", guard.user, own.month_pusd, usual.month_pusd)]
        if guard.key is not None:
            rows.append(("key", guard.key, own.key_month_pusd, usual.key_month_pusd))
        if guard.org is not None:
            rows.append(("org", guard.org, own.org_month_pusd, usual.org_month_pusd))
        months = [(Account(f"{kind}:{name}", month), b if a is None else a) for kind, name, a, b in rows]
        return _Accounts(
            month, run_limits, (*runs, *months), tuple([a for a, _ in months]), tuple([limit for _, limit in months])
        )

    def _card(self, provider: str | None, model: str, now_ms: int) -> PriceCard:
        """The card, pinned at its first use: a price does not change inside a run."""
        card = self._cards.get((provider, model))
        if card is None:
            card = self._guard.prices.card(model, provider=provider, now_ms=now_ms)
            if len(self._cards) < CARDS_KEPT_MAX:
                self._cards[provider, model] = card
        return card

    # Settling.

    def _settlement(self, permit: Permit, result: ModelResult) -> Settlement:
        if not permit.priced:
            return Settlement(0, unresolved=True, usage=result.usage)
        try:
            settlement = settle(self._card_of(permit, result), permit, result)
            if settlement.actual_pusd <= AMOUNT_MAX:
                return settlement
            reason = "The reported usage costs more than any ledger counts ($9.22 million)."
        except BoundUnknown:
            return Settlement(permit.bound_pusd, unresolved=True, usage=result.usage)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold stands in for its cost
            reason = _reason(exc)
        self._guard.emit("settlement_failed", "error", run=self._run_id, reason=reason)
        return Settlement(permit.bound_pusd, unresolved=True, usage=None)

    def _card_of(self, permit: Permit, result: ModelResult) -> PriceCard:
        call = permit.call
        card = self._card(call.provider, call.model, permit.started_ms)
        if result.model is not None and result.model != call.model and card.source == "snapshot":
            # A provider may answer with a name of its own; then the card the bound was made with stands.
            with suppress(PriceUnknown):
                card = self._card(call.provider, result.model, permit.started_ms)
        return card

    def _writing(
        self, permit: Permit, claim: Claim, settlement: Settlement, facts: ResultFacts
    ) -> Callable[[], object]:
        """The write of a settlement. It may wait for the store, so it keeps nothing of what the call said."""
        store, emit, run_id, reservation_id = self._guard.store, self._guard.emit, self._run_id, permit.id
        actual, unresolved, model, held = settlement.actual_pusd, settlement.unresolved, permit.call.model, permit.held
        missing: Reservation | None = None
        if not permit.priced:
            return lambda: None
        if not held:
            # The very reservation whose answer never came, if there is one: it may have been taken.
            missing = (claim.reservation or self._missing(permit))._replace(enforce=False)

        def write() -> None:
            if missing is not None:
                store.reserve(missing)
            settled = store.settle(reservation_id, actual, result=facts, unresolved=unresolved)
            if held and settled.actual > settled.held:
                emit(
                    "bound_violated", "warning", run=run_id, model=model, held_pusd=settled.held,
                    cost_pusd=settled.actual, overrun_pusd=settled.overrun,
                )  # fmt: skip

        return write

    def _missing(self, permit: Permit) -> Reservation:
        pairs = self._accounts_at(permit.started_ms).pairs
        holds = tuple([Hold(account, permit.bound_pusd, limit) for account, limit in pairs])
        facts = self._facts(permit.call, permit.step, provider=permit.call.provider or "")
        return Reservation(permit.id, holds, self._limits.hold_ttl_ms, facts)

    def _write_soon(
        self,
        write: Callable[[], object],
        *,
        event: str = "settlement_postponed",
        level: Literal["warning", "error"] = "error",
    ) -> None:
        """Write now, or in the background once the store is back."""
        try:
            write()
        except StoreUnavailable as exc:
            if self._guard.housekeeper.postpone(write):
                self._guard.emit(event, level, run=self._run_id, reason=exc.what)
        except Exception as exc:  # noqa: BLE001 -- the call has ended; its result is the user's, and the hold expires
            self._guard.emit("settlement_failed", "error", run=self._run_id, reason=_reason(exc))
        except BaseException:
            self._guard.housekeeper.postpone(write)
            raise


def _tokens_used(settlement: Settlement, result: ModelResult, claim: Claim) -> int:
    if result.end == "cached" or result.end == "failed":
        return 0
    # Nothing reported is not nothing used: what was set aside stands in, as the hold does for the money.
    return claim.tokens if settlement.usage is None else settlement.usage.total_tokens


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, RunrailsError) else type(error).__name__
