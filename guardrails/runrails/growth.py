"""
A call that is still being answered: what came so far, against what it holds.

A cap that was sent is a true bound and is taken at its word until the answer contradicts it. A call without a cap holds
no more than a guess. Where what came is worth more than is held, the hold is raised in all its accounts at once; where
a budget refuses that, whoever can close the stream does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runrails import bounds
from runrails.admission import exceeded
from runrails.errors import (
    BudgetBusy,
    CallRefused,
    GuardrailStopped,
    LedgerError,
    RunrailsError,
    ScopeExhausted,
    StoreUnavailable,
)
from runrails.figures import marked_up
from runrails.ledger import AMOUNT_MAX, Refused, SupportsRaise
from runrails.pricing.cards import cost_pusd
from runrails.settlement import came_pusd

if TYPE_CHECKING:
    from runrails.calls import Permit
    from runrails.pricing.cards import PriceCard
    from runrails.run import Run
    from runrails.usage import Usage

__all__ = ["CAP_DOUBT", "Came", "Growth"]

CAP_DOUBT = 8
"""
How many tokens by their bound contradict one token of the cap. The bound counts bytes, of which no language or format
that was measured has more than 6 a token on average: with more than this the provider has ignored the cap.
"""
TOKENS_MAX = 10**9
"""An answer so long that nothing need be told of it."""


class Came(Protocol):
    """What has come of an answer."""

    @property
    def tokens(self) -> int:
        """The most tokens that its texts can be."""
        ...

    @property
    def input_usage(self) -> Usage | None:
        """What was reported of the input alone."""
        ...

    @property
    def floor_usage(self) -> Usage | None:
        """What was reported so far of the whole."""
        ...


class Growth:
    """The hold of one call while its answer comes. For one reader at a time."""

    __slots__ = ("_card", "_held_pusd", "_lost_pusd", "_permit", "_run", "held_pusd", "tokens_max", "told_max")

    def __init__(self, run: Run, permit: Permit, *, lost: int = 0) -> None:
        self._run = run
        self._permit = permit
        self._lost_pusd = permit.attempt_pusd * lost
        """Set aside for earlier attempts."""
        self._held_pusd = permit.bound_pusd - self._lost_pusd
        self._card: PriceCard | None = None
        self.held_pusd = 0
        """What this attempt must be taken to cost by now, once that is more than was held for it; else 0."""
        self.tokens_max = self.told_max = TOKENS_MAX
        """How many tokens may come, by their bound and as reported, until `grow` is to be asked."""
        if permit.priced and permit.held and permit.attempt_pusd:
            self._begin()

    def grow(self, came: Came, *, closes: bool = True) -> GuardrailStopped | CallRefused | None:
        """
        See to it that what came is held for. Calls the store.

        Args:
            came: What has come.
            closes: Whether the caller will close the stream if it cannot be held for; else the run may go on, as the
                answer may turn out to be cheaper than its bound.

        Returns:
            Why not: the stop, which has ended the run, or the refusal. None if it is held for, if observing, or if the
            store cannot do it now; then the settlement records it in full.
        """
        try:
            need = self._need(came)
            if need <= self._held_pusd:
                if need > self._permit.attempt_pusd:  # What is held for retries pays for it, and stays held.
                    self.held_pusd = max(self.held_pusd, need)
                self._watch_on(came)
                return None
            refused = self._raise(need)
        except StoreUnavailable:
            self._watch_on(came)
            return None
        except RunrailsError:  # it has been resolved, or its prices are gone: nothing to raise
            self.tokens_max = self.told_max = TOKENS_MAX
            return None
        if refused is None:
            return None
        self.held_pusd = need
        self.tokens_max = self.told_max = TOKENS_MAX
        return self._refusal(refused, need, closes=closes)

    def _begin(self) -> None:
        permit = self._permit
        if permit.max_tokens is not None and not permit.uncapped:
            self.told_max = permit.max_tokens * permit.call.n
            self.tokens_max = self.told_max * CAP_DOUBT
            return
        try:
            covered = self._covered()
        except RunrailsError:
            return
        self.told_max = covered
        self.tokens_max = covered if permit.uncapped else min(covered * CAP_DOUBT, TOKENS_MAX)

    def _need(self, came: Came) -> int:
        return marked_up(self._worth(came), self._markup_bp())

    def _worth(self, came: Came) -> int:
        card, floor = self._prices(), came.floor_usage
        told = 0 if floor is None else cost_pusd(card, floor)
        if floor is not None and floor.output_tokens > self.told_max:
            self.tokens_max = TOKENS_MAX  # Who tells as it goes need not be bounded.
            return told
        if came.tokens <= self.tokens_max:
            return told
        amount, _ = came_pusd(card, self._permit, came.tokens, floor or came.input_usage)
        return max(amount, told)

    def _watch_on(self, came: Came) -> None:
        """Nothing had to be raised, or could be: ask again after a quarter more."""
        floor = came.floor_usage
        if self.tokens_max < TOKENS_MAX:
            self.tokens_max = max(self.tokens_max, came.tokens * 5 // 4)
        if floor is not None:
            self.told_max = max(self.told_max, floor.output_tokens * 5 // 4)

    def _raise(self, need: int) -> Refused | None:
        guard, permit = self._run.guard, self._permit
        store = guard.store
        if not isinstance(store, SupportsRaise):
            raise LedgerError("The store cannot raise a hold.", next_step="It is recorded in full.")
        refused: Refused | None = None
        # In steps, as every one is a question to the ledger; near the limit just what is needed.
        for amount in (need + need // 2, need):
            total = min(amount + self._lost_pusd, AMOUNT_MAX)
            answer = store.raise_hold(permit.id, total, enforce=guard.mode == "enforce")
            if isinstance(answer, Refused):
                refused = answer
                continue
            if answer.state != "held":
                raise LedgerError("It has been resolved.", next_step="It may settle late.")
            self.held_pusd = self._held_pusd = amount
            self.told_max = self._covered()
            if self.tokens_max < TOKENS_MAX:
                self.tokens_max = self.told_max
            guard.emit("hold_raised", run=self._run.id, reservation=permit.id, held_pusd=total)
            if answer.would_refuse is not None:
                self._run.end_with(exceeded(answer.would_refuse))
            return None
        return refused

    def _refusal(self, refused: Refused, need: int, *, closes: bool) -> GuardrailStopped | CallRefused:
        account, own = refused.account, self._held_pusd + self._lost_pusd
        refused = refused._replace(held=max(0, refused.held - own), needed=need + self._lost_pusd)
        kept = self._run.kept_in(account)
        if refused.spent + kept + refused.needed <= refused.limit:  # It would fit, but for what others hold.
            return BudgetBusy(
                scope=account.scope, period=account.period, unit=account.unit, limit=refused.limit,
                spent=refused.spent, held=refused.held, needed=refused.needed, waited_ms=0,
            )  # fmt: skip
        stop = exceeded(refused)
        if not self._run.accounts.is_own(account.scope):
            return ScopeExhausted(stop)
        if closes:
            self._run.end_with(stop)
        return stop

    def _markup_bp(self) -> int:
        by = self._permit.by
        return 0 if by is not None and by.byok else self._run.guard.markup_bp

    def _prices(self) -> PriceCard:
        card, permit = self._card, self._permit
        if card is None:
            call = permit.call
            card = self._run.guard.prices.card(
                call.model, provider=call.provider, now_ms=permit.started_ms, region=call.region
            )
            if call.service_tier is not None:  # It was held at that tier's prices.
                card = card.tier(call.service_tier) or card
            self._card = card
        return card

    def _covered(self) -> int:
        """How many output tokens are paid for by what is held."""
        card, permit = self._prices(), self._permit

        def price(output_tokens: int) -> int:
            return marked_up(came_pusd(card, permit, output_tokens, None)[0], self._markup_bp())

        return bounds.output_within(self._held_pusd, price, floor=0, ceiling=TOKENS_MAX) or 0
