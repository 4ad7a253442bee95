"""
How many requests and tokens a minute the calls of a run may use: taken before the money, at the most a call can use,
and given back as far as it did not. Only runs whose limits name rates have a meter of this kind.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from runrails import bounds
from runrails.admission import OUTPUT_UNKNOWN_TOKENS
from runrails.errors import ConfigError, RateLimited, RunrailsError, StoreUnavailable
from runrails.meter import Meter
from runrails.rates.limiter import COST_MAX, Ask, Cost, Granted, Limited, RateLimiter, SupportsRates

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.accounts import Accounts
    from runrails.attribution import Attribution
    from runrails.calls import ModelCall, ModelResult, Permit
    from runrails.guard import Guard
    from runrails.ledger import Refused
    from runrails.settlement import Settlement

__all__ = ["PacedMeter"]


class PacedMeter(Meter):
    """A meter that takes every call from the rates of its user, key and organisation as well."""

    paces = True

    def __init__(
        self, accounts: Accounts, *, run_id: str, lock: threading.RLock, gate: Callable[[], None],
        outer: Meter | None = None,
    ) -> None:  # fmt: skip
        super().__init__(accounts, run_id=run_id, lock=lock, gate=gate, outer=outer)
        self._limiter = _limiter_of(accounts.guard)
        self._paced: dict[str, tuple[Granted, Cost]] = {}
        """By permit: what was taken."""

    def admit(self, call: ModelCall, step: int) -> tuple[Permit, Refused | None]:
        """
        See `Meter.admit`.

        Raises:
            RateLimited: Too much this minute, and it would take longer than `Limits(hold_wait_ms=…)` to come back.
        """
        paced = self._pace(call)
        try:
            permit, refused = super().admit(call, step)
        except BaseException:
            self._return(paced)
            raise
        if paced is not None:
            self._paced[permit.id] = paced
        return permit, refused

    def give_back(self, permit: Permit) -> None:
        """See `Meter.give_back`; its request and tokens too."""
        try:
            super().give_back(permit)
        finally:
            self._return(self._paced.pop(permit.id, None))

    def settle(self, permit: Permit, result: ModelResult, *, duration_ms: int) -> Settlement | None:
        """See `Meter.settle`; the tokens that the call did not use go back."""
        paced = self._paced.pop(permit.id, None)
        used: int | None = None
        try:
            settlement = super().settle(permit, result, duration_ms=duration_ms)
            if settlement is not None and settlement.usage is not None:
                used = settlement.usage.input_tokens + settlement.usage.output_tokens
            return settlement
        finally:
            if paced is not None and result.end == "cached":
                self._return(paced)
            elif paced is not None and (used is not None or result.end == "failed"):
                granted, cost = paced
                self._return((granted, Cost(0, max(0, cost.tokens - (used or 0)))))

    def _pace(self, call: ModelCall) -> tuple[Granted, Cost] | None:
        """Take it, waiting for a moment. None if no rate holds, or nothing is sent."""
        asks = self._asks(call)
        if not asks or (call.economy is not None and call.economy.stored):
            return None
        cost = Cost(1, self._tokens(call) if any(ask.rates.tokens_per_minute for ask in asks) else 0)
        started_ms = self._guard.monotonic()
        while True:
            try:
                answer = self._limiter.take(asks, cost)
            except StoreUnavailable as error:
                if self._guard.on_store_error != "allow" and not self._observe:
                    raise
                self._guard.emit("rates_bypassed", "error", run=self._run_id, reason=error.what)
                return None
            if isinstance(answer, Granted):
                return answer, cost
            waited_ms = self._guard.monotonic() - started_ms
            limited = _refusal(answer, waited_ms)
            if self._observe:
                self._guard.emit("call_would_refuse", "warning", run=self._run_id, **limited.as_dict())
                return None
            if not self._wait_for(answer, started_ms, waited_ms):
                raise limited

    def _wait_for(self, answer: Limited, started_ms: int, waited_ms: int) -> bool:
        """Wait as long as the limiter says, unless that is too long, or would block an event loop."""
        wait_ms = answer.retry_after_ms
        if wait_ms is None or waited_ms + wait_ms > self._limits.hold_wait_ms:
            return False
        until_ms = self._guard.monotonic() + wait_ms
        while self._guard.monotonic() < until_ms:
            if not self.wait(started_ms):
                return False
        return True

    def _asks(self, call: ModelCall) -> list[Ask]:
        try:
            by: Attribution = self._accounts.payer(call)
        except RunrailsError:
            return []  # The meter meets it as well, and tells.
        own, usual = self._limits, self._guard.limits
        rows = (
            ("user", by.user, own.rates or usual.rates),
            ("key", by.key, own.key_rates or usual.key_rates),
            ("org", by.org, own.org_rates or usual.org_rates),
        )
        return [Ask(f"{kind}:{name}", rates) for kind, name, rates in rows if name and rates is not None]

    def _tokens(self, call: ModelCall) -> int:
        """The most tokens the call can use; where nothing caps its answer, what every chat model would write."""
        try:
            card = self._card(call, call.model, self._guard.clock())
            inputs = bounds.input_tokens_bound(
                call.prompt, provider=card.provider, model=card.model, context_tokens_max=card.context_tokens_max
            )
            outputs = bounds.output_tokens_bound(call, card, inputs)
        except RunrailsError:
            return 0  # As above: it will not start.
        outputs = OUTPUT_UNKNOWN_TOKENS if outputs is None else outputs
        return min(COST_MAX, inputs + call.n * outputs)

    def _return(self, paced: tuple[Granted, Cost] | None) -> None:
        if paced is None:
            return
        try:
            self._limiter.give_back(*paced)
        except Exception as error:  # noqa: BLE001 -- what is not given back, time brings; the answer is the user's
            self._guard.emit("rates_not_returned", run=self._run_id, error=type(error).__name__)


class _Pacer:
    """A guard's limiter, which ends with the guard."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter

    def close(self) -> None:
        self.limiter.close()


_lock = threading.Lock()


def _limiter_of(guard: Guard) -> RateLimiter:
    with _lock:
        known = guard.adapters.get(_Pacer)
        if isinstance(known, _Pacer):
            return known.limiter
        if not isinstance(guard.store, SupportsRates):
            raise ConfigError(
                f"{type(guard.store).__name__} has no rate limiter beside its ledger.",
                next_step="Leave the rates out of Limits, or use a store that has one: SQLite or memory.",
            )
        pacer = _Pacer(guard.store.rates())
        guard.adapters[_Pacer] = pacer
        guard.before_close.add(pacer)
        return pacer.limiter


def _refusal(answer: Limited, waited_ms: int) -> RateLimited:
    return RateLimited(
        scope=answer.scope, unit=answer.unit, limit=answer.limit, needed=answer.needed,
        retry_after_ms=answer.retry_after_ms, waited_ms=waited_ms,
    )  # fmt: skip
