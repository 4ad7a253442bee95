"""The money of one run: price card, bound, reservation before a model call; settlement after it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from runrails.admission import OUTPUT_FLOOR_TOKENS, Admission, Admitted, Bound, Claim, bound_of, exceeded
from runrails.attributing import here
from runrails.calls import ModelCall, ModelResult, Permit
from runrails.errors import (
    BoundUnknown,
    BudgetBusy,
    BudgetExceeded,
    GuardFault,
    PriceUnknown,
    ReservationMismatch,
    RunrailsError,
    ScopeExhausted,
    StoreUnavailable,
    UnknownReservation,
)
from runrails.ledger import AMOUNT_MAX, Account, CallFacts, Hold, Refused, Reservation, ResultFacts
from runrails.settlement import Settlement, settle

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from runrails.accounts import Accounts
    from runrails.attribution import Attribution
    from runrails.calls import ServedTier
    from runrails.limits import Limits
    from runrails.pricing.cards import PriceCard

__all__ = ["Meter"]

CARDS_KEPT_MAX = 256
FACT_CHARS_MAX = 512
"""Longest text about a call that goes into its usage record; the rest of a longer one is cut off."""


class Meter:
    """Thread-safe. Every store call of a run goes through here."""

    def __init__(self, accounts: Accounts, *, run_id: str, lock: threading.RLock, gate: Callable[[], None]) -> None:
        self._accounts = accounts
        self._guard = guard = accounts.guard
        self._run_id = run_id
        self._tally = accounts.tally
        self._lock = lock
        self._observe = guard.mode == "observe"
        self._prices = guard.prices
        self._told: set[tuple[str, str]] = set()
        """Models, and what has been told of them: service tiers without a price, an assumed price."""
        self._open: dict[str, Claim] = {}
        """Permits that have not been handed back."""
        self._limits = accounts.limits
        self._admission = Admission(
            guard.store, accounts.limits, room=guard.room, monotonic=guard.monotonic, observe=self._observe, gate=gate
        )

    def use(self, limits: Limits) -> None:
        """Apply limits from now on; calls in flight keep what they hold."""
        self._limits = self._admission.limits = limits
        self._accounts.limits = limits

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
        """Whether what an open permit holds is enough for `call`, of the same model and payer."""
        claim = self._open.get(permit.id)
        asked = permit.call
        if claim is None or (asked.provider, asked.model) != (call.provider, call.model):
            return False
        try:
            if claim.by != self._accounts.payer(call):
                return False
            if not permit.held:
                return True
            bound = bound_of(call, self._card(call, call.model, permit.started_ms))
        except RunrailsError:
            return False  # Asked again it is refused, with its reason.
        if permit.uncapped:
            return bound.floor_pusd <= permit.bound_pusd
        affordable = bound.cost_pusd is not None and bound.cost_pusd <= permit.attempt_pusd
        return affordable and (claim.tokens == 0 or bound.input_tokens + (bound.output_tokens or 0) <= claim.tokens)

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
            settlement = self._settlement(permit, result, claim.card)
            served = None if result.model is None else result.model[:FACT_CHARS_MAX]
            bound = None if claim.reservation is None else claim.reservation.facts
            other = "" if bound is not None and bound.price_card == settlement.price_card else settlement.price_card
            facts = ResultFacts(
                end=result.end, usage=settlement.usage, model=served, duration_ms=duration_ms, price_card=other
            )
            if permit.priced:
                missing = None if permit.held else self._missing(permit, claim)
                self._write_settlement(permit, settlement, facts, missing)
        finally:
            with self._lock:
                self._tally.settle(
                    held_tokens=claim.tokens,
                    used_tokens=_tokens_used(settlement, result, claim),
                    cost_pusd=settlement.actual_pusd,
                )
            self._admission.ended(permit.id)
        drawn = claim.drawn or self._accounts.of(permit.by or self._accounts.own, permit.started_ms)
        self._guard.housekeeper.watch(drawn.months, drawn.month_limits)
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

    # Admitting.

    def _admit(self, claim: Claim, call: ModelCall, step: int) -> tuple[Permit, Refused | None]:
        guard, accounts = self._guard, self._accounts
        claim.by = by = accounts.own if call.by is None and here.get() is None else accounts.payer(call)
        if by is not accounts.fixed:
            accounts.check(by)
        now_ms = guard.clock()
        claim.card = card = self._card(call, call.model, now_ms)
        bound = bound_of(call, card)
        can_go_uncapped = call.max_tokens is None and not call.can_cap
        claim.tokens = self._hold_tokens(bound, can_go_uncapped=can_go_uncapped)
        admitted, held = self._reserve(claim, by, call, card, bound, step, now_ms, can_go_uncapped=can_go_uncapped)
        self._open[claim.id] = claim
        permit = Permit(
            id=claim.id, call=call, bound_pusd=admitted.bound_pusd,
            max_tokens=call.max_tokens if admitted.max_tokens is None else admitted.max_tokens,
            uncapped=admitted.uncapped, started_ms=now_ms, step=step, retries=admitted.retries, held=held,
            by=by,
        )  # fmt: skip
        refused = admitted.would_refuse
        if refused is not None and not self._accounts.is_own(refused.account.scope):
            guard.emit("call_would_refuse", "warning", run=self._run_id, **ScopeExhausted(exceeded(refused)).as_dict())
            refused = None
        return permit, refused

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
            step=step, priced=priced, held=False, by=claim.by,
        )  # fmt: skip
        return permit, None

    def _reserve(
        self, claim: Claim, by: Attribution, call: ModelCall, card: PriceCard, bound: Bound, step: int, now_ms: int, *,
        can_go_uncapped: bool,
    ) -> tuple[Admitted, bool]:  # fmt: skip
        guard = self._guard
        facts = self._facts(call, by, step, provider=call.provider or card.provider, price_card=card.fingerprint)
        self._keep(card)
        if card.source == "assumed":
            self._tell_of_assumption(call, card)
        claim.drawn = drawn = self._accounts.of(by, now_ms)
        try:
            admitted = self._admission.reserve(
                claim, drawn.pairs, bound, facts, can_go_uncapped=can_go_uncapped, retries=call.retries
            )
        except BudgetExceeded as exc:
            scope = str(exc.fields["scope"])
            if self._accounts.is_own(scope):
                raise
            guard.housekeeper.refused(Account(scope, str(exc.fields["period"])))
            raise ScopeExhausted(exc) from None
        except StoreUnavailable as exc:
            if guard.on_store_error != "allow" and not self._observe:
                raise
            guard.emit("store_bypassed", "error", run=self._run_id, reason=exc.what)
            amount = bound.floor_pusd if bound.cost_pusd is None else bound.cost_pusd
            return Admitted(amount * (1 + call.retries), uncapped=False, would_refuse=None, retries=call.retries), False
        return admitted, True

    def _facts(self, call: ModelCall, by: Attribution, step: int, *, provider: str, price_card: str = "") -> CallFacts:
        return CallFacts(
            user=by.user or "", run=self._run_id, step=step, key=by.key, org=by.org, tags=by.tags,
            provider=provider[:FACT_CHARS_MAX],
            model=call.model[:FACT_CHARS_MAX], request_type=call.request_type, endpoint=call.endpoint[:FACT_CHARS_MAX],
            user_agent=call.user_agent[:FACT_CHARS_MAX], agent=call.agent[:FACT_CHARS_MAX], price_card=price_card,
        )  # fmt: skip

    def _hold_tokens(self, bound: Bound, *, can_go_uncapped: bool) -> int:
        if self._observe or (self._tally.parent is None and self._tally.limits.tokens is None):
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

    def _card(self, call: ModelCall, model: str, now_ms: int) -> PriceCard:
        """
        The card at the moment a call was admitted.

        The book never changes, so inside a run a price changes only as it was known beforehand: on a day, at an hour.
        """
        return self._prices.card(model, provider=call.provider, now_ms=now_ms, region=call.region)

    def _keep_settled(self, card: PriceCard, settlement: Settlement) -> None:
        """The same for the card a cost was made with: that of another tier or of the model that served the call."""
        if settlement.price_card == card.fingerprint:
            self._keep(card)
            return
        for each in card.service_tiers:
            if each.fingerprint == settlement.price_card:
                self._keep(each)

    def _keep(self, card: PriceCard) -> None:
        """Let the ledger keep the rates that the card's fingerprint stands for."""
        cards = self._guard.price_cards
        if cards.is_new(card):
            self._write_soon(cards.keeping(card), event="price_card_postponed", level="warning")

    def _tell_of_assumption(self, call: ModelCall, card: PriceCard) -> None:
        """Nobody has priced the model, and the guard was told to assume the dearest: say so, once a model and run."""
        if (call.model, card.source) not in self._told and len(self._told) < CARDS_KEPT_MAX:
            self._told.add((call.model, card.source))
            self._guard.emit("price_assumed", "warning", run=self._run_id, model=call.model, note=card.note)

    # Settling.

    def _settlement(self, permit: Permit, result: ModelResult, known: PriceCard | None = None) -> Settlement:
        if not permit.priced:
            return Settlement(0, unresolved=True, usage=result.usage)
        try:
            card = self._card_of(permit, result, known)
            settlement = settle(card, permit, result)
            if card is not known or settlement.price_card != card.fingerprint:
                self._keep_settled(card, settlement)
            if result.tier is not None and card.tier(result.tier.name) is None:
                self._tell_of_tier(permit.call.model, result.tier)
            if settlement.actual_pusd <= AMOUNT_MAX:
                return settlement
            reason = "The reported usage costs more than any ledger counts ($9.22 million)."
        except BoundUnknown:
            return Settlement(permit.bound_pusd, unresolved=True, usage=result.usage)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold stands in for its cost
            reason = _reason(exc)
        self._guard.emit("settlement_failed", "error", run=self._run_id, reason=reason)
        return Settlement(permit.bound_pusd, unresolved=True, usage=None)

    def _card_of(self, permit: Permit, result: ModelResult, known: PriceCard | None) -> PriceCard:
        call = permit.call
        card = known or self._card(call, call.model, permit.started_ms)
        if result.model is not None and result.model != call.model and "snapshot" in (card.source, card.over):
            # A provider may answer with a name of its own; then the card the bound was made with stands.
            with suppress(PriceUnknown):
                card = self._card(call, result.model, permit.started_ms)
        return card

    def _tell_of_tier(self, model: str, tier: ServedTier) -> None:
        """Nobody has published what the tier costs that served a call: say so, once a model and run."""
        if (model, tier.name) in self._told or len(self._told) >= CARDS_KEPT_MAX:
            return
        self._told.add((model, tier.name))
        dearer = tier.factor_bp > 10_000
        self._guard.emit(
            "tier_unpriced", "warning" if dearer else "info", run=self._run_id, model=model, service_tier=tier.name,
            factor_bp=tier.factor_bp,
        )  # fmt: skip

    def _write_settlement(
        self, permit: Permit, settlement: Settlement, facts: ResultFacts, missing: Reservation | None
    ) -> None:
        actual, unresolved = settlement.actual_pusd, settlement.unresolved
        # It may have to wait for the store, so it keeps nothing of what the call said.
        about = (permit.id, actual, facts, permit.call.model, missing)
        try:
            self._settle(*about, unresolved=unresolved)
        except BaseException as exc:
            self._not_written(exc, partial(self._settle, *about, unresolved=unresolved))
            if not isinstance(exc, Exception):
                raise

    def _settle(
        self, reservation_id: str, actual: int, facts: ResultFacts, model: str, missing: Reservation | None, *,
        unresolved: bool,
    ) -> None:  # fmt: skip
        store = self._guard.store
        if missing is not None:
            store.reserve(missing)
        settled = store.settle(reservation_id, actual, result=facts, unresolved=unresolved)
        if missing is None and settled.actual > settled.held:
            self._guard.emit(
                "bound_violated", "warning", run=self._run_id, model=model, held_pusd=settled.held,
                cost_pusd=settled.actual, overrun_pusd=settled.overrun,
            )  # fmt: skip

    def _missing(self, permit: Permit, claim: Claim) -> Reservation:
        """The very reservation whose answer never came, if there is one: it may have been taken."""
        if claim.reservation is not None:
            return claim.reservation._replace(enforce=False)
        by = permit.by or self._accounts.own
        pairs = self._accounts.of(by, permit.started_ms).pairs
        holds = tuple([Hold(account, permit.bound_pusd, limit) for account, limit in pairs])
        facts = self._facts(permit.call, by, permit.step, provider=permit.call.provider or "")
        return Reservation(permit.id, holds, self._limits.hold_ttl_ms, facts, enforce=False)

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
        except BaseException as exc:
            self._not_written(exc, write, event, level)
            if not isinstance(exc, Exception):
                raise

    def _not_written(
        self, error: BaseException, write: Callable[[], object], event: str = "settlement_postponed",
        level: Literal["warning", "error"] = "error",
    ) -> None:  # fmt: skip
        """The call has ended and its result is the user's: nothing is raised. If the write is lost the hold expires."""
        if isinstance(error, StoreUnavailable):
            if self._guard.housekeeper.postpone(write):
                self._guard.emit(event, level, run=self._run_id, reason=error.what)
        elif isinstance(error, Exception):
            self._guard.emit("settlement_failed", "error", run=self._run_id, reason=_reason(error))
        else:  # an interrupt, in the middle of it
            self._guard.housekeeper.postpone(write)


def _tokens_used(settlement: Settlement, result: ModelResult, claim: Claim) -> int:
    if result.end == "cached" or result.end == "failed":
        return 0
    # Nothing reported is not nothing used: what was set aside stands in, as the hold does for the money.
    return claim.tokens if settlement.usage is None else settlement.usage.total_tokens


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, RunrailsError) else type(error).__name__
