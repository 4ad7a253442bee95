"""May this model call start? Prices it, bounds it and reserves the bound in every scope at once."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from runrails import bounds
from runrails.errors import BoundUnknown, BudgetBusy, BudgetExceeded, CallTooLarge, GuardFault, LedgerError
from runrails.ledger import AMOUNT_MAX, Account, CallFacts, Hold, Refused, Reservation, Reserved, Store
from runrails.values import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.accounts import Drawn
    from runrails.attribution import Attribution
    from runrails.calls import ModelCall
    from runrails.clocks import Clock
    from runrails.inputwatch import Predicted
    from runrails.limits import Limits
    from runrails.pricing.cards import PriceCard

__all__ = [
    "NOTHING", "OUTPUT_FLOOR_TOKENS", "OUTPUT_UNKNOWN_TOKENS", "Admission", "Admitted", "Bound", "Claim", "Line",
    "Room", "bound_of", "cap_for", "line_of", "on_event_loop",
]  # fmt: skip

OUTPUT_FLOOR_TOKENS = 1_024
"""The least output worth starting a call for: below it an answer is cut before it says anything."""
OUTPUT_UNKNOWN_TOKENS = 4_096
"""The cap put into a request that has none, for a model whose own maximum nobody knows: every chat model takes it."""
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
    floor_tokens: int = OUTPUT_FLOOR_TOKENS
    """The output of that call."""
    price: Callable[[int], int] | None = None
    """The bound for an output of so many tokens, if the adapter can put a smaller cap into the request."""


NOTHING = Bound(input_tokens=0, output_tokens=0, cost_pusd=0, floor_pusd=0, floor_tokens=0)
"""Of a call that is answered without anything being sent."""


class Admitted(NamedTuple):
    """The holds are taken."""

    bound_pusd: int
    uncapped: bool
    would_refuse: Refused | None
    retries: int = 0
    """For how many more attempts there is money; `bound_pusd` has them in it."""
    max_tokens: int | None = None
    """The cap that makes it fit; None if the request stays as it is."""


@dataclass(slots=True, eq=False, repr=False)
class Claim:
    """One call on its way through admission, and what it may hold."""

    id: str
    reservation: Reservation | None = None
    """What the store was last asked for and did not refuse: it may hold it, even if its answer never came."""
    tokens: int = 0
    """Tokens set aside in the run's tally."""
    by: Attribution | None = None
    """Whose money it is."""
    card: PriceCard | None = None
    """The prices it was bounded with."""
    drawn: Drawn | None = None
    """What it draws on."""
    inputs: Predicted | None = None
    """The bound of its input."""


class Line(NamedTuple):
    """What calls of a model cost at most where that is a straight line: at prices without a cliff or rounding."""

    call_pusd: int
    input_pusd: int
    """For each token that goes in."""
    output_pusd: int
    """For each that comes out."""


def line_of(card: PriceCard) -> Line | None:
    """The line of a card; None if it has none. Two points of it are asked for, so nothing is known here about rates."""
    if card.tiers or card.denominator != 1:
        return None
    flat = bounds.call_bound_pusd(card, input_tokens=0, output_tokens=0)
    into = bounds.call_bound_pusd(card, input_tokens=1, output_tokens=0)
    out = bounds.call_bound_pusd(card, input_tokens=0, output_tokens=1)
    return Line(flat, into - flat, out - flat)


def bound_of(
    call: ModelCall, card: PriceCard, line: Line | None = None, input_tokens: int | None = None
) -> Bound:  # fmt: skip
    """
    The most `call` can cost at the prices of `card`.

    Args:
        call: What is about to be sent.
        card: Its prices.
        line: The card's `line_of`, if the caller has it: the same bound, found sooner.
        input_tokens: The bound of the input, if the caller knows a closer one than of the prompt alone.

    Raises:
        BoundUnknown: It cannot be told, or no ledger could count it.
    """
    inputs, context_max, cap, answers = input_tokens, card.context_tokens_max, call.max_tokens, call.n
    if inputs is None:
        inputs = bounds.input_tokens_bound(
            call.prompt, provider=card.provider, model=card.model, context_tokens_max=context_max
        )
    outputs: int | None
    if (
        type(cap) is int and cap > 0 and (context_max is None or cap <= context_max)
        and type(answers) is int and answers == 1 and call.request_type != "embedding"
    ):  # fmt: skip
        outputs = cap  # By far the most calls; what follows says the same of them.
    else:
        outputs = bounds.output_tokens_bound(call, card, inputs)
    floor_tokens = OUTPUT_FLOOR_TOKENS if outputs is None or outputs > OUTPUT_FLOOR_TOKENS else outputs

    if line is not None and outputs is not None and not call.cache_write and call.service_tier is None:
        call_pusd, input_pusd, output_pusd = line
        sent = call_pusd + inputs * input_pusd
        each = answers * output_pusd
        cost: int | None = sent + outputs * each
        floor = sent + floor_tokens * each
    else:
        if outputs is not None:
            cost = _price(call, card, inputs, outputs)
        else:
            cost = _price(call, card, inputs, 0) if card.output_free else None  # a flat price per call needs no cap
        floor = cost if cost is not None and outputs == floor_tokens else _price(call, card, inputs, floor_tokens)
    if floor > AMOUNT_MAX or (cost is not None and cost > AMOUNT_MAX):
        raise BoundUnknown(
            "The most this call could cost is more than any ledger counts ($9.22 million).",
            next_step="Set a smaller max_tokens on the model.",
            model=call.model,
        )
    price = partial(_price, call, card, inputs) if call.can_cap and outputs != floor_tokens else None
    return named(Bound, (inputs, outputs, cost, floor, floor_tokens, price))


def cap_for(bound: Bound, card: PriceCard) -> int | None:
    """The cap for a request without one that changes nothing but that it is one; None if there is none."""
    tokens, window = bound.output_tokens, card.context_tokens_max
    if not tokens or window is None:
        return tokens or None
    # Some servers refuse a cap that does not fit into the window beside the prompt, of which only the bound is known.
    room = window - bound.input_tokens
    return min(tokens, room) if room >= bound.floor_tokens else None


def _price(call: ModelCall, card: PriceCard, input_tokens: int, output_tokens: int) -> int:
    return bounds.call_bound_pusd(
        card, input_tokens=input_tokens, output_tokens=output_tokens, n=call.n, cache_write=call.cache_write,
        service_tier=call.service_tier,
    )  # fmt: skip


class Room(threading.Condition):
    """Where the calls of a guard wait for money that its other calls hold."""

    waiting = 0
    """How many do; changed with the lock only."""


class Admission:
    """Reserves for the calls of one run. Thread-safe; waits for money that calls in flight hold."""

    def __init__(
        self, store: Store, limits: Limits, *, room: Room, monotonic: Clock, observe: bool,
        gate: Callable[[], None], outer: Admission | None = None,
    ) -> None:  # fmt: skip
        self._outer = outer
        """That of the run around this one."""
        self.limits = limits
        """Read anew for every call, so that they can be replaced."""
        self._store = store
        self._room = room
        self._monotonic = monotonic
        self._observe = observe
        self._gate = gate
        """Raises if nothing may start any more, so that nobody waits for what cannot be used."""
        self.kept: Mapping[Account, int] = {}
        """What the run keeps back for its last turn: held, but not to be waited for."""
        self.uncapped_open: str | None = None
        """Id of the call that holds all that was left."""

    def reserve(
        self, claim: Claim, accounts: _Pairs, bound: Bound, facts: CallFacts,
        *, can_go_uncapped: bool, retries: int = 0, first: Refused | None = None,
    ) -> Admitted:  # fmt: skip
        """
        Take the holds, waiting up to `limits.hold_wait_ms` for money that others hold.

        Every one of `retries` more attempts is held for, as far as there is room; then a smaller cap is tried, if the
        adapter can set one. `first` is what has been answered to `take` for all of that.

        Raises:
            BudgetExceeded: What is spent plus the smallest call worth making exceeds a limit.
            CallTooLarge: This call's bound does not fit, a smaller one's would.
            BudgetBusy: It would fit if calls in flight had ended.
            StoreUnavailable: The store's answer did not come. What `claim` names may be held all the same.
        """
        if self._observe:
            retries = 0  # More than enforcing would insist on; it must not look like a refusal.
        uncapped = can_go_uncapped and self.limits.uncapped != "refuse" and not self._observe
        attempt = self._attempter(claim, accounts, bound, facts, uncapped=uncapped, retries=retries, first=first)
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
        if left_ms <= 0 or on_event_loop():
            return False
        room = self._room
        with room:
            room.waiting += 1
            try:
                room.wait(timeout=min(POLL_S_MAX, left_ms / 1_000))
            finally:
                room.waiting -= 1
        self._gate()
        return True

    def ended(self, reservation_id: str) -> None:
        """A call of this run has been settled or released: let waiting ones try again."""
        # Who begins to wait just now, unseen, asks again by itself after a moment.
        if self._room.waiting or self.uncapped_open == reservation_id:
            with self._room:
                if self.uncapped_open == reservation_id:
                    self.uncapped_open = None
                self._room.notify_all()

    def take(self, claim: Claim, accounts: _Pairs, amount: int, facts: CallFacts) -> Reserved | Refused:
        """Take holds of an amount now, or none. Raises as `reserve`."""
        holds: list[Hold] = []
        for account, limit in accounts:  # a comprehension would be one more function
            holds.append(named(Hold, (account, amount, limit)))
        about = (claim.id, tuple(holds), self.limits.hold_ttl_ms, facts, "charge", not self._observe)
        reservation = named(Reservation, about)
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
        *, uncapped: bool, retries: int, first: Refused | None,
    ) -> Callable[[], Admitted | Refused]:  # fmt: skip
        def take(amount: int) -> Reserved | Refused:
            nonlocal first
            refused, first = first, None  # what has been asked already is not asked again
            return refused or self.take(claim, accounts, amount, facts)

        def attempt() -> Admitted | Refused:
            if bound.cost_pusd is not None or self._observe:
                amount = bound.floor_pusd if bound.cost_pusd is None else bound.cost_pusd
                answer = self._take_attempts(take, accounts, bound, amount, retries)
                if isinstance(answer, Admitted):
                    return answer
                if bound.price is not None and not answer.only_held:
                    return self._take_shrunk(take, accounts, bound)
                if not uncapped:
                    return answer
            elif bound.price is not None:
                return self._take_shrunk(take, accounts, bound)
            elif not uncapped:
                raise BoundUnknown(
                    "The call has no cap on its output, so the most it can cost is not known.",
                    next_step='Set max_tokens on the model, or allow such calls with Limits(uncapped="hold").',
                    model=facts.model,
                )
            return self._take_all(claim.id, take, accounts, bound)

        return attempt

    def _take_attempts(
        self, take: Callable[[int], Reserved | Refused], accounts: _Pairs, bound: Bound, amount: int, retries: int
    ) -> Admitted | Refused:
        """Hold for the call and as many retries as there is room for."""
        while True:
            # An amount that no ledger counts cannot be asked for.
            retries = min(retries, AMOUNT_MAX // amount - 1) if amount else retries
            answer = take(amount * (1 + retries))
            if isinstance(answer, Reserved):
                return Admitted(
                    amount * (1 + retries), uncapped=False, would_refuse=answer.would_refuse, retries=retries
                )
            if retries == 0:
                return answer
            tightest = self._tightest(accounts, bound)
            room = retries if tightest is None else max(0, tightest.available // amount - 1)
            retries = min(retries - 1, room)

    def _take_shrunk(
        self, take: Callable[[int], Reserved | Refused], accounts: _Pairs, bound: Bound
    ) -> Admitted | Refused:
        """Hold what is left, or less, and cap the output at what that buys; no retries."""
        price = bound.price
        if price is None:
            raise TypeError("only a bound with prices can be shrunk")
        ceiling = OUTPUT_UNKNOWN_TOKENS if bound.output_tokens is None else bound.output_tokens
        answer = self._tightest(accounts, bound)
        if answer is None:  # nothing is limited, so nothing needs a cap
            ceiling = bound.floor_tokens
        for _ in range(UNCAPPED_TRIES_MAX):
            left = AMOUNT_MAX if answer is None else answer.available
            tokens = bounds.output_within(left, price, floor=bound.floor_tokens, ceiling=ceiling)
            if tokens is None:
                break
            taken = take(price(tokens))
            if isinstance(taken, Reserved):
                cap = None if answer is None else tokens
                return Admitted(price(tokens), uncapped=cap is None, would_refuse=None, max_tokens=cap)
            answer = taken._replace(needed=bound.floor_pusd)
        if answer is None:
            raise TypeError("the smallest call costs more than any ledger counts")
        return answer

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
            if self.uncapped_open is not None:
                return answer
            self.uncapped_open = claim_id
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
                    self.uncapped_open = None

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

    def kept_in(self, account: Account) -> int:
        """What this run, and those that it is part of, keep back in an account; they end later than this call."""
        kept = 0
        around: Admission | None = self
        while around is not None:
            kept += around.kept.get(account, 0)
            around = around._outer  # noqa: SLF001 -- of this very class
        return kept

    def _give_up_if_pointless(self, refused: Refused, bound: Bound, accounts: _Pairs) -> None:
        account = refused.account
        if refused.spent + self.kept_in(account) + bound.floor_pusd > refused.limit:
            in_code = dict(accounts).get(account)
            raise exceeded(refused, None if in_code in (None, refused.limit) else _operators_hint(account.scope))
        if not refused.only_held:
            raise CallTooLarge(
                scope=account.scope, period=account.period, unit=account.unit,
                limit=refused.limit, spent=refused.spent, needed=refused.needed,
            )  # fmt: skip


def exceeded(refused: Refused, next_step: str | None = None) -> BudgetExceeded:
    """The stop that a refusal stands for."""
    account = refused.account
    return BudgetExceeded(
        scope=account.scope, period=account.period, unit=account.unit, limit=refused.limit,
        spent=refused.spent, held=refused.held, needed=refused.needed, next_step=next_step,
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


def on_event_loop() -> bool:
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
