"""May this model call start? Prices it, bounds it and reserves the bound in every scope at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from runrails import bounds
from runrails.errors import BoundUnknown, BudgetBusy, BudgetExceeded, CallTooLarge, GuardFault, LedgerError
from runrails.ledger import AMOUNT_MAX, Account, CallFacts, Hold, Refused, Reservation, Reserved, Store

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from runrails.calls import ModelCall
    from runrails.clocks import Clock
    from runrails.limits import Limits
    from runrails.pricing.cards import PriceCard

__all__ = ["OUTPUT_FLOOR_TOKENS", "Admission", "Admitted", "Bound", "Claim", "bound_of"]

OUTPUT_FLOOR_TOKENS = 1_024
"""The least output worth starting a call for: below it an answer is cut before it says anything."""
POLL_S_MAX = 0.05
UNCAPPED_TRIES_MAX = 8


_Pairs = tuple[tuple[Account, int | None], ...]
"""Accounts with the limit that code gives each."""


class Bound(NamedTuple):
    """The most a call can use and cost."""

    input_tokens: int
    output_tokens: int | None
    """None: nothing caps the output."""
    cost_pusd: int | None
    """None if nothing caps the output."""
    floor_pusd: int
    """The bound of the smallest call worth making with this prompt."""


class Admitted(NamedTuple):
    """The holds are taken."""

    bound_pusd: int
    uncapped: bool
    would_refuse: Refused | None


class Claim:
    """One call on its way through admission, and what it may hold."""

    __slots__ = ("id", "reservation", "tokens")

    def __init__(self, reservation_id: str) -> None:
        self.id = reservation_id
        self.reservation: Reservation | None = None
        """What the store was last asked for and did not refuse: it may hold it, even if its answer never came."""
        self.tokens = 0
        """Tokens set aside in the run's tally."""


def bound_of(call: ModelCall, card: PriceCard) -> Bound:
    """
    The most `call` can cost at the prices of `card`.

    Raises:
        BoundUnknown: It cannot be told, or no ledger could count it.
    """
    inputs = bounds.input_tokens_bound(
        call.prompt, provider=card.provider, model=card.model, context_tokens_max=card.context_tokens_max
    )
    outputs = bounds.output_tokens_bound(call, card, inputs)
    floor_tokens = OUTPUT_FLOOR_TOKENS if outputs is None else min(outputs, OUTPUT_FLOOR_TOKENS)

    def price(output_tokens: int) -> int:
        return bounds.call_bound_pusd(
            card, input_tokens=inputs, output_tokens=output_tokens, n=call.n, cache_write=call.cache_write
        )

    if outputs is not None:
        cost: int | None = price(outputs)
    else:
        cost = price(0) if card.output_free else None  # a flat price per call needs no cap
    floor = cost if cost is not None and outputs == floor_tokens else price(floor_tokens)
    if floor > AMOUNT_MAX or (cost is not None and cost > AMOUNT_MAX):
        raise BoundUnknown(
            "The most this call could cost is more than any ledger counts ($9.22 million).",
            next_step="Set a smaller max_tokens on the model.",
            model=call.model,
        )
    return Bound(inputs, outputs, cost, floor)


class Admission:
    """Reserves for the calls of one run. Thread-safe; waits for money that calls in flight hold."""

    def __init__(
        self, store: Store, limits: Limits, *, room: threading.Condition, monotonic: Clock, observe: bool,
        gate: Callable[[], None],
    ) -> None:  # fmt: skip
        self.limits = limits
        """Read anew for every call, so that they can be replaced."""
        self._store = store
        self._room = room
        self._monotonic = monotonic
        self._observe = observe
        self._gate = gate
        """Raises if nothing may start any more, so that nobody waits for what cannot be used."""
        self._uncapped_open: str | None = None
        """Id of the call that holds all that was left."""

    def reserve(
        self, claim: Claim, accounts: _Pairs, bound: Bound, facts: CallFacts,
        *, can_go_uncapped: bool,
    ) -> Admitted:  # fmt: skip
        """
        Take the holds, waiting up to `limits.hold_wait_ms` for money that others hold.

        Raises:
            BudgetExceeded: What is spent plus the smallest call worth making exceeds a limit.
            CallTooLarge: This call's bound does not fit, a smaller one's would.
            BudgetBusy: It would fit if calls in flight had ended.
            StoreUnavailable: The store's answer did not come. What `claim` names may be held all the same.
        """
        uncapped = can_go_uncapped and self.limits.uncapped == "hold" and not self._observe
        attempt = self._attempter(claim, accounts, bound, facts, uncapped=uncapped)
        answer = attempt()
        if isinstance(answer, Admitted):
            return answer
        started = self._monotonic()
        while True:
            self._give_up_if_pointless(answer, bound, accounts)
            if not self.wait(started):
                raise _busy(answer, self._monotonic() - started)
            answer = attempt()
            if isinstance(answer, Admitted):
                return answer

    def wait(self, started_ms: int) -> bool:
        """Wait a moment for a call in flight to end. False once it has been `limits.hold_wait_ms`, or on a loop."""
        self._gate()
        left_ms = self.limits.hold_wait_ms - (self._monotonic() - started_ms)
        if left_ms <= 0 or _on_event_loop():
            return False
        with self._room:
            self._room.wait(timeout=min(POLL_S_MAX, left_ms / 1_000))
        self._gate()
        return True

    def ended(self, reservation_id: str) -> None:
        """A call of this run has been settled or released: let waiting ones try again."""
        with self._room:
            if self._uncapped_open == reservation_id:
                self._uncapped_open = None
            self._room.notify_all()

    def _take(self, reservation: Reservation, claim: Claim) -> Reserved | Refused:
        claim.reservation = reservation
        try:
            answer = self._store.reserve(reservation)
        except LedgerError as exc:
            claim.reservation = None  # It is another call's.
            raise GuardFault(
                f"The ledger would not take the reservation: {exc.what}",
                next_step="The call was not started. If you pass Guard(make_id=…), it must never repeat an id.",
            ) from exc
        if isinstance(answer, Refused):
            claim.reservation = None
        elif answer.state != "held":
            claim.reservation = None
            raise GuardFault(
                "The ledger knows this call's id from a call that has ended.",
                next_step="The call was not started. If you pass Guard(make_id=…), it must never repeat an id.",
            )
        return answer

    def _attempter(
        self, claim: Claim, accounts: _Pairs, bound: Bound, facts: CallFacts,
        *, uncapped: bool,
    ) -> Callable[[], Admitted | Refused]:  # fmt: skip
        def take(amount: int) -> Reserved | Refused:
            holds = tuple([Hold(account, amount, limit) for account, limit in accounts])
            return self._take(
                Reservation(claim.id, holds, self.limits.hold_ttl_ms, facts, "charge", enforce=not self._observe), claim
            )

        def attempt() -> Admitted | Refused:
            if bound.cost_pusd is not None or self._observe:
                amount = bound.floor_pusd if bound.cost_pusd is None else bound.cost_pusd
                answer = take(amount)
                if isinstance(answer, Reserved):
                    return Admitted(amount, uncapped=False, would_refuse=answer.would_refuse)
                if not uncapped:
                    return answer
            elif not uncapped:
                raise BoundUnknown(
                    "The call has no cap on its output, so the most it can cost is not known.",
                    next_step='Set max_tokens on the model, or allow such calls with Limits(uncapped="hold").',
                    model=facts.model,
                )
            return self._take_all(claim.id, take, accounts, bound)

        return attempt

    def _take_all(
        self, claim_id: str, take: Callable[[int], Reserved | Refused],
        accounts: _Pairs, bound: Bound,
    ) -> Admitted | Refused:  # fmt: skip
        """Hold all that is left, for one call at a time: nothing tells how much an uncapped call will cost."""
        answer = self._tightest(accounts, bound)
        if answer is None:
            taken = take(bound.floor_pusd)
            return (
                Admitted(bound.floor_pusd, uncapped=True, would_refuse=None) if isinstance(taken, Reserved) else taken
            )
        with self._room:
            if self._uncapped_open is not None:
                return answer
            self._uncapped_open = claim_id
        admitted = False
        try:
            for _ in range(UNCAPPED_TRIES_MAX):
                if answer.available < bound.floor_pusd:
                    return answer
                taken = take(answer.available)
                if isinstance(taken, Reserved):
                    admitted = True
                    return Admitted(answer.available, uncapped=True, would_refuse=None)
                answer = taken._replace(needed=bound.floor_pusd)
            return answer
        finally:
            if not admitted:
                # Nobody is notified: two calls that wait for the same money would wake each other for ever.
                with self._room:
                    self._uncapped_open = None

    def _tightest(self, accounts: _Pairs, bound: Bound) -> Refused | None:
        """The account with the least left, as the refusal it would give; None if no account has a limit."""
        tightest: Refused | None = None
        for account, code_limit in accounts:
            balance = self._store.balance(account)
            limit = balance.limit if balance.limit_source == "operator" or code_limit is None else code_limit
            if limit is None:
                continue
            refusal = Refused(account, limit, balance.spent, balance.held, bound.floor_pusd)
            if tightest is None or refusal.available < tightest.available:
                tightest = refusal
        return tightest

    def _give_up_if_pointless(self, refused: Refused, bound: Bound, accounts: _Pairs) -> None:
        account = refused.account
        if refused.spent + bound.floor_pusd > refused.limit:
            in_code = dict(accounts).get(account)
            raise BudgetExceeded(
                scope=account.scope, period=account.period, unit=account.unit,
                limit=refused.limit, spent=refused.spent, held=refused.held, needed=refused.needed,
                next_step=None if in_code in (None, refused.limit) else _operators_hint(account.scope),
            )  # fmt: skip
        if not refused.only_held:
            raise CallTooLarge(
                scope=account.scope, period=account.period, unit=account.unit,
                limit=refused.limit, spent=refused.spent, needed=refused.needed,
            )  # fmt: skip


def _operators_hint(scope: str) -> str:
    return (
        f"An operator has set this limit, which wins over the code; raise it with `runrails budget set {scope} AMOUNT`."
    )


def _busy(refused: Refused, waited_ms: int) -> BudgetBusy:
    account = refused.account
    return BudgetBusy(
        scope=account.scope, period=account.period, unit=account.unit, limit=refused.limit,
        spent=refused.spent, held=refused.held, needed=refused.needed, waited_ms=waited_ms,
    )  # fmt: skip


def _on_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked. Looks without importing asyncio."""
    # Another thread may be importing asyncio just now; what is not defined yet cannot be running.
    get_running_loop = getattr(sys.modules.get("asyncio.events"), "get_running_loop", None)
    if get_running_loop is None:
        return False
    try:
        get_running_loop()
    except RuntimeError:
        return False
    return True
