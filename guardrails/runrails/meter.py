"""The money of one run: price card, bound, reservation before a model call; settlement after it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from runrails.admission import (
    NOTHING,
    Admission,
    Admitted,
    Bound,
    Claim,
    Line,
    bound_of,
    cap_for,
    exceeded,
    line_of,
)
from runrails.attributing import here
from runrails.calls import ModelCall, ModelResult, Permit
from runrails.charging import ANSWER_ID_CHARS_MAX, bound_with, discount_of, settle_with
from runrails.errors import (
    BoundUnknown,
    BudgetExceeded,
    GuardFault,
    PriceUnknown,
    RunrailsError,
    ScopeExhausted,
    StoreUnavailable,
)
from runrails.inputwatch import InputWatch
from runrails.ledger import AMOUNT_MAX, Account, CallFacts, Hold, Refused, Reservation, Reserved, ResultFacts
from runrails.pricetold import PriceTold
from runrails.settlement import Settlement, settle
from runrails.tokenroom import hold_tokens, room_for
from runrails.values import named, placed
from runrails.writing import Writes, reason_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from runrails.accounts import Accounts
    from runrails.attribution import Attribution
    from runrails.limits import Limits
    from runrails.pricing.cards import PriceCard

__all__ = ["Meter"]

_claim = placed(Claim, "id")
_permit = placed(
    Permit, "id", "call", "bound_pusd", "max_tokens", "uncapped", "as_asked", "started_ms", "step", "retries", "held",
    "by", "input_tokens",
)  # fmt: skip
_call_facts = placed(
    CallFacts, "user", "run", "step", "key", "org", "provider", "model", "request_type", "endpoint", "user_agent",
    "agent", "byok", "price_card", "tags", "input_bound_tokens",
)  # fmt: skip
_result_facts = placed(ResultFacts, "end", "usage", "model", "duration_ms", "price_card", "answer_id")
CARDS_KEPT_MAX = 256
FACT_CHARS_MAX = 512
"""Longest text about a call that goes into its usage record; the rest of a longer one is cut off."""


class Meter:
    """Thread-safe. Every store call of a run goes through here."""

    paces = False
    """Whether it takes calls from rates as well; see `PacedMeter`."""

    def __init__(
        self, accounts: Accounts, *, run_id: str, lock: threading.RLock, gate: Callable[[], None],
        outer: Meter | None = None,
    ) -> None:  # fmt: skip
        self._accounts = accounts
        self._guard = guard = accounts.guard
        self._run_id = run_id
        self._tally = accounts.tally
        self._writes = Writes(guard, run_id=run_id)
        self._lock = lock
        self._observe = guard.mode == "observe"
        self._prices = guard.prices
        self._markup_bp = guard.markup_bp
        self._told = PriceTold(guard.emit, run_id=run_id)
        self._lines: dict[str, tuple[PriceCard, Line | None]] = {}
        """By the model as calls name it: its newest card, and what bounds on that card are."""
        self._inputs = InputWatch(guard.margins, guard.emit, run_id=run_id)
        self._open: dict[str, Claim] = {}
        """Permits that have not been handed back."""
        self._limits = accounts.limits
        self._admission: Admission = Admission(
            guard.store, accounts.limits, room=guard.room, monotonic=guard.monotonic, observe=self._observe, gate=gate,
            outer=None if outer is None else outer._admission,  # noqa: SLF001 -- of this very class
        )  # fmt: skip

    def use(self, limits: Limits) -> None:
        """Apply limits from now on; calls in flight keep what they hold."""
        self._limits = self._admission.limits = limits
        self._accounts.limits = limits

    def keep_back(self, kept: Mapping[Account, int]) -> None:
        """What the run's last turn holds in these accounts: no call of the run waits for it."""
        self._admission.kept = kept

    def kept_in(self, account: Account) -> int:
        """What last turns of the run, and of those around it, hold in an account: it is given back to no call."""
        return self._admission.kept_in(account)

    def admit(self, call: ModelCall, step: int) -> tuple[Permit, Refused | None]:
        """
        Price, bound and reserve a call.

        Returns:
            The permit, and in observe mode the refusal that enforcing would have given.

        Raises:
            BudgetExceeded, LimitReached: A budget is used up; the run is over.
            CallRefused: This call may not start.
        """
        guard, accounts = self._guard, self._accounts
        claim = _claim("")
        try:
            claim.by = by = accounts.own if call.by is None and here.get() is None else accounts.payer(call)
            make_id, clock = guard.call_id, guard.clock  # Called as they are, not looked for as methods first.
            claim.id = make_id(by.user or "", self._run_id)
            if by is not accounts.fixed:
                accounts.check(by)
            now_ms = clock()
            claim.card = card = self._prices.card(call.model, provider=call.provider, now_ms=now_ms, region=call.region)
            known, fresh = self._lines.get(call.model), False
            if known is None or known[0] is not card:
                known, fresh = (card, line_of(card)), True
            claim.inputs = inputs = self._inputs.bound(call, card)
            bound = bound_of(call, card, known[1], inputs.input_tokens)
            if call.economy is not None and call.economy.stored:
                bound = NOTHING
            asked = call.max_tokens
            if self._tally.parent is not None or self._tally.limits.tokens is not None:
                claim.tokens = self._hold_tokens(bound, call)
                room = room_for(bound, call, claim.tokens)
                if room is not None:
                    asked = room
                    bound = bound_of(replace(call, max_tokens=room), card, known[1], inputs.input_tokens)
            if self._markup_bp and not by.byok:
                bound = bound_with(bound, self._markup_bp, model=call.model)
            if fresh:
                self._first_use(call, known)
            admitted, held = self._reserve(claim, by, call, card, bound, step, now_ms)
            bound_pusd, uncapped, refused, retries, shrunk = admitted
            if refused is not None and not accounts.is_own(refused.account.scope):
                stop = ScopeExhausted(exceeded(refused))
                guard.emit("call_would_refuse", "warning", run=self._run_id, **stop.as_dict())
                refused = None
            cap = asked if shrunk is None else shrunk
            if cap is None and call.can_cap and self._limits.uncapped != "hold" and not self._observe:
                cap = shrunk = None if uncapped else cap_for(bound, card)
            as_asked = asked == call.max_tokens and (shrunk is None or shrunk == bound.output_tokens)
            permit = _permit(
                claim.id, call, bound_pusd, cap, uncapped, as_asked, now_ms, step, retries, held, by,
                inputs.input_tokens,
            )  # fmt: skip
            self._open[claim.id] = claim
        except BaseException as exc:  # noqa: BLE001 -- raised again there
            self._undo(claim)
            return self._not_admitted(claim, call, step, exc)
        return permit, refused

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
            card = self._card(call, call.model, permit.started_ms)
            bound = bound_of(call, card, None, self._inputs.bound(call, card).input_tokens)
            if self._markup_bp and not self._accounts.payer(call).byok:
                bound = bound_with(bound, self._markup_bp, model=call.model)
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

    def settle(  # noqa: PLR0912, PLR0915 -- on the path of every call, as `Run.before_model`
        self, permit: Permit, result: ModelResult, *, duration_ms: int
    ) -> Settlement | None:
        """
        Charge a call that ended; None if that permit has been handed back before.

        What the store cannot take now is written later; nothing is lost.
        """
        claim = self._open.pop(permit.id, None)
        if claim is None:
            self._guard.emit("permit_repeated", "warning", run=self._run_id, reservation=permit.id)
            return None
        settlement: Settlement | None = None
        try:
            settlement = self._settlement(permit, result, claim.card)
            actual_pusd, unresolved, usage, price_card = settlement
            served = None if result.model is None else result.model[:FACT_CHARS_MAX]
            bound = None if claim.reservation is None else claim.reservation.facts
            other = "" if bound is not None and bound.price_card == price_card else price_card
            answer_id = result.answer_id
            if answer_id is not None and len(answer_id) > ANSWER_ID_CHARS_MAX:
                answer_id = None
            facts = _result_facts(result.end, usage, served, duration_ms, other, answer_id)
            if self._prices.contracted:
                facts = self._with_discount(facts, permit, result, settlement)
            if permit.priced:
                missing = None if permit.held else self._missing(permit, claim)
                try:
                    if missing is None:
                        settled = self._guard.store.settle(permit.id, actual_pusd, result=facts, unresolved=unresolved)
                        if settled.actual > settled.held:
                            self._told.overrun(permit.call.model, settled)
                    else:
                        self._settle(permit.id, settlement, facts, permit.call.model, missing)
                except BaseException as exc:
                    # It may have to wait for the store, so it keeps nothing of what the call said.
                    again = partial(self._settle, permit.id, settlement, facts, permit.call.model, missing)
                    if missing is not None:
                        self._writes.ended(permit.id, settlement, facts)
                    self._writes.failed(exc, again, hold=(permit.id, self._limits.hold_ttl_ms))
                    if not isinstance(exc, Exception):
                        raise
        finally:
            if settlement is None:  # an interrupt
                settlement = Settlement(permit.bound_pusd, unresolved=True, usage=None)
            # Nothing reported is not nothing used: what was set aside stands in, as the hold does for the money.
            actual_pusd, _, usage, _ = settlement
            end = result.end
            used = claim.tokens if usage is None else usage.input_tokens + usage.output_tokens
            if end == "cached" or end == "failed":
                used = 0
            with self._lock:
                tally = self._tally
                if tally.parent is None:
                    tally.held_tokens -= claim.tokens
                    tally.tokens += used
                    tally.cost_pusd += actual_pusd
                else:
                    tally.settle(held_tokens=claim.tokens, used_tokens=used, cost_pusd=actual_pusd)
            if self._admission.uncapped_open is not None or self._guard.room.waiting:
                self._admission.ended(permit.id)
        if claim.inputs is not None and claim.card is not None:
            self._inputs.ended(permit.call, claim.card, claim.inputs, result)
        drawn = claim.drawn or self._accounts.of(permit.by or self._accounts.own, permit.started_ms)
        keeper = self._guard.housekeeper
        for account in drawn.months:
            if account not in keeper.watched:  # One that is still listed is looked at after this.
                keeper.watch(drawn.months, drawn.month_limits)
                break
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

    def _not_admitted(
        self, claim: Claim, call: ModelCall, step: int, error: BaseException
    ) -> tuple[Permit, Refused | None]:
        """Raise why a call may not start; a bug of ours as what it is. Observing, it starts all the same."""
        if not isinstance(error, Exception):
            raise error
        reason = error
        if not isinstance(reason, RunrailsError):
            reason = GuardFault(
                f"Pricing, bounding or reserving the call failed: {type(error).__name__}.",
                next_step="The call was not started. Please report this with the traceback.",
                model=call.model,
            )
        if self._observe:
            return self._observed(claim, call, step, reason)
        if reason is error:
            raise error
        raise reason from error

    def _observed(self, claim: Claim, call: ModelCall, step: int, error: RunrailsError) -> tuple[Permit, None]:
        """Observing refuses nothing: the call starts without a hold, and what it costs is written afterwards."""
        # Where only the tier has no price, the model's own and the most that tiers cost will do.
        priced = not isinstance(error, PriceUnknown) or "service_tier" in error.fields
        if priced:
            self._guard.emit("call_would_refuse", "warning", run=self._run_id, **error.as_dict())
        else:
            self._guard.emit("price_missed", "warning", run=self._run_id, model=call.model)
        claim.reservation = None
        claim.id = claim.id or self._guard.new_id()  # Nobody knew yet whose call it is.
        self._open[claim.id] = claim
        permit = Permit(
            id=claim.id, call=call, bound_pusd=0, max_tokens=call.max_tokens, started_ms=self._guard.clock(),
            step=step, priced=priced, held=False, by=claim.by,
        )  # fmt: skip
        return permit, None

    def _reserve(
        self, claim: Claim, by: Attribution, call: ModelCall, card: PriceCard, bound: Bound, step: int, now_ms: int
    ) -> tuple[Admitted, bool]:
        guard, admission, cost, retries = self._guard, self._admission, bound.cost_pusd, call.retries
        facts = self._facts(call, by, step, bound.input_tokens, call.provider or card.provider, card.fingerprint)
        claim.drawn = drawn = self._accounts.of(by, now_ms)
        try:
            first: Refused | None = None
            if cost is not None and not self._observe:
                if retries and cost:
                    retries = min(retries, AMOUNT_MAX // cost - 1)  # What no ledger counts cannot be asked for.
                taken = admission.take(claim, drawn.pairs, cost * (1 + retries), facts)
                if isinstance(taken, Reserved):
                    return named(Admitted, (cost * (1 + retries), False, None, retries, None)), True
                first = taken
            can_go_uncapped = call.max_tokens is None and not call.can_cap
            admitted = admission.reserve(
                claim, drawn.pairs, bound, facts, can_go_uncapped=can_go_uncapped, retries=retries, first=first
            )
        except BudgetExceeded as exc:
            scope = str(exc.fields["scope"])
            if self._accounts.is_own(scope):
                raise
            guard.housekeeper.refused(Account(scope, str(exc.fields["period"])))
            raise ScopeExhausted(exc) from None
        except StoreUnavailable as exc:
            if (guard.on_store_error != "allow" or "refused" in exc.fields) and not self._observe:
                raise
            amount = (bound.floor_pusd if cost is None else cost) * (1 + call.retries)
            self._writes.bypassed(exc, claim, drawn.pairs, amount, facts, ttl_ms=self._limits.hold_ttl_ms)
            return Admitted(amount, uncapped=False, would_refuse=None, retries=call.retries), False
        return admitted, True

    def _facts(
        self, call: ModelCall, by: Attribution, step: int, input_bound: int, provider: str, price_card: str = ""
    ) -> CallFacts:
        model, endpoint, user_agent, agent = call.model, call.endpoint, call.user_agent, call.agent
        if len(provider) + len(model) + len(endpoint) + len(user_agent) + len(agent) > FACT_CHARS_MAX:
            provider, model, endpoint = provider[:FACT_CHARS_MAX], model[:FACT_CHARS_MAX], endpoint[:FACT_CHARS_MAX]
            user_agent, agent = user_agent[:FACT_CHARS_MAX], agent[:FACT_CHARS_MAX]
        facts = _call_facts(
            by.user or "", self._run_id, step, by.key, by.org, provider, model, call.request_type, endpoint, user_agent,
            agent, by.byok is True, price_card, by.tags, input_bound,
        )  # fmt: skip
        if call.credential or self._markup_bp:
            facts = replace(facts, credential=call.credential, markup_bp=self._markup_bp)
        return facts

    def _hold_tokens(self, bound: Bound, call: ModelCall) -> int:
        if self._observe or (self._tally.parent is None and self._tally.limits.tokens is None):
            return 0
        return hold_tokens(
            self._tally, bound, call, admission=self._admission, lock=self._lock, monotonic=self._guard.monotonic
        )

    def _undo(self, claim: Claim) -> None:
        """Give everything back that a call which was never sent may hold, in the run and in the store."""
        if claim.tokens:
            with self._lock:
                self._tally.settle(held_tokens=claim.tokens, used_tokens=0, cost_pusd=0)
            claim.tokens = 0
        if claim.reservation is not None:
            reservation, claim.reservation = claim.reservation, None
            self._writes.release(reservation)
        self._admission.ended(claim.id)

    # Accounts and prices.

    def _first_use(self, call: ModelCall, known: tuple[PriceCard, Line | None]) -> None:
        """The run has not met the card before: remember it, let the ledger keep it, and tell if it is a guess."""
        card, _ = known
        self._keep(card)
        if card.source == "assumed":
            self._told.assumed(call, card)
        if len(self._lines) >= CARDS_KEPT_MAX:
            self._lines = {}
        self._lines[call.model] = known

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
            self._writes.soon(cards.keeping(card), event="price_card_postponed", level="warning")

    # Settling.

    def _settlement(self, permit: Permit, result: ModelResult, known: PriceCard | None = None) -> Settlement:
        if not permit.priced:
            return Settlement(0, unresolved=True, usage=result.usage)
        try:
            card = known
            if card is None or (result.model is not None and result.model != permit.call.model):
                card = self._card_of(permit, result, known)
            if self._markup_bp and not (permit.by or self._accounts.own).byok:
                settlement = settle_with(card, permit, result, self._markup_bp)
            else:
                settlement = settle(card, permit, result)
            actual_pusd, _, _, price_card = settlement
            if card is not known or price_card != card.fingerprint:
                self._keep_settled(card, settlement)
            if result.tier is not None and card.tier(result.tier.name) is None:
                self._told.unpriced(permit.call.model, result.tier)
            if actual_pusd <= AMOUNT_MAX:
                return settlement
            reason = "The reported usage costs more than any ledger counts ($9.22 million)."
        except BoundUnknown:
            return Settlement(permit.bound_pusd, unresolved=True, usage=result.usage)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold stands in for its cost
            reason = reason_of(exc)
        self._guard.emit("settlement_failed", "error", run=self._run_id, reason=reason)
        return Settlement(permit.bound_pusd, unresolved=True, usage=None)

    def _with_discount(
        self, facts: ResultFacts, permit: Permit, result: ModelResult, settlement: Settlement
    ) -> ResultFacts:
        markup_bp = 0 if (permit.by or self._accounts.own).byok else self._markup_bp
        found = discount_of(self._prices, permit, result, settlement, markup_bp) if permit.priced else None
        if found is None:
            return facts
        discount, list_card = found
        self._keep(list_card)
        return replace(facts, discount=discount)

    def _card_of(self, permit: Permit, result: ModelResult, known: PriceCard | None) -> PriceCard:
        call = permit.call
        card = known or self._card(call, call.model, permit.started_ms)
        if result.model is not None and result.model != call.model and "snapshot" in (card.source, card.over):
            # A provider may answer with a name of its own; then the card the bound was made with stands.
            with suppress(PriceUnknown):
                card = self._card(call, result.model, permit.started_ms)
        return card

    def _settle(
        self, reservation_id: str, settlement: Settlement, facts: ResultFacts, model: str, missing: Reservation | None
    ) -> None:
        store = self._guard.store
        if missing is not None:
            store.reserve(missing)
        settled = store.settle(reservation_id, settlement.actual_pusd, result=facts, unresolved=settlement.unresolved)
        if missing is not None:
            self._writes.written(reservation_id, missing)
        elif settled.actual > settled.held:
            self._told.overrun(model, settled)

    def _missing(self, permit: Permit, claim: Claim) -> Reservation:
        """The very reservation whose answer never came, if there is one: it may have been taken."""
        if claim.reservation is not None:
            return claim.reservation._replace(enforce=False)
        by = permit.by or self._accounts.own
        pairs = self._accounts.of(by, permit.started_ms).pairs
        holds = tuple([Hold(account, permit.bound_pusd, limit) for account, limit in pairs])
        predicted = 0 if claim.inputs is None else claim.inputs.input_tokens
        facts = self._facts(permit.call, by, permit.step, predicted, permit.call.provider or "")
        return Reservation(permit.id, holds, self._limits.hold_ttl_ms, facts, enforce=False)
