"""
The words of rate limiting, and what an engine of it must do.

A *scope* (``user:alice``, ``key:k1``) has *rates*: requests and tokens a minute, each with a *burst*, the most that
may come at once. A call *takes* what it costs from every scope it belongs to, or from none. Tokens are taken at the
most the call can use, and what it did not use is *given back* after it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from runrails.values import value

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ASKS_MAX", "BURST_MINUTES_MAX", "COST_MAX", "PER_MINUTE_MAX", "Ask", "Cost", "Figure", "Granted", "Limited",
    "RateLimiter", "RateUnit", "Rates", "SupportsRates", "Taken", "check_asks", "check_unused",
]  # fmt: skip

RateUnit = Literal["requests", "tokens"]
PER_MINUTE_MAX = 10**9
"""Highest rate: sixty nanoseconds a token. The interval is a whole number of them, so this is exact to 2 %."""
BURST_MINUTES_MAX = 1_440
"""Largest burst: what a day brings."""
COST_MAX = 10**9
ASKS_MAX = 8
"""Most scopes one call may draw on."""
SCOPE_CHARS_MAX = 256


@value
class Rates:
    """
    What a scope may use a minute; None means no limit of that kind.

    A burst is the most that may come at once after a pause; by default what a minute brings.

    Raises:
        TypeError: A number is not an int.
        ValueError: A number is out of range, or a burst has no rate.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_burst: int | None = None
    tokens_burst: int | None = None

    def __post_init__(self) -> None:
        _check_rate("requests", self.requests_per_minute, self.requests_burst)
        _check_rate("tokens", self.tokens_per_minute, self.tokens_burst)


class Cost(NamedTuple):
    """What a call takes, or gives back."""

    requests: int = 1
    tokens: int = 0


class Ask(NamedTuple):
    """One scope that a call draws on, and the rates that hold there now."""

    scope: str
    rates: Rates


class Figure(NamedTuple):
    """How one limit stands, as a caller may be told."""

    limit: int
    """The most that may come at once."""
    remaining: int
    """How much may come now."""
    reset_ms: int
    """How long until all of it is there again, rounded up."""


class Taken(NamedTuple):
    """What a call took from one scope, for `give_back`. Times are those of `runrails.rates.gcra`; 0: no such limit."""

    scope: str
    requests_ns: int
    tokens_ns: int
    request_ns: int
    """What one request costs there."""
    token_ns: int
    """What one token costs there."""


class Granted(NamedTuple):
    """The call may start: it has been taken from every scope. The figures are those of the scope with least left."""

    requests: Figure | None
    tokens: Figure | None
    taken: tuple[Taken, ...] = ()


class Limited(NamedTuple):
    """The call may not start now. Nothing was taken anywhere."""

    scope: str
    """Where it has to wait longest."""
    unit: RateUnit
    limit: int
    needed: int
    retry_after_ms: int | None
    """
    After this long it would be granted if nobody else came before it, rounded up. None: never, since it needs more than
    may come at once.
    """
    requests: Figure | None
    tokens: Figure | None


class RateLimiter(Protocol):
    """
    An engine of rate limiting. Thread-safe; its time is its own injected clock.

    Raises `StoreUnavailable` with nothing taken if it cannot be reached, or TypeError or ValueError for what makes no
    sense.
    """

    remote: bool
    """True if a verb crosses a network; such an engine is never asked on an event loop."""

    def take(self, asks: Sequence[Ask], cost: Cost) -> Granted | Limited:
        """
        Take what the call costs from every scope, or from none; both of a scope's limits in one decision and one write.

        The engine decides with `runrails.rates.decide`. It is not repeatable: an answer that was lost may have taken,
        and asking again takes again. That errs on the side of the limit.
        """
        ...

    def give_back(self, granted: Granted, unused: Cost) -> None:
        """
        Give back what a call took and did not use, as far as time has not brought it back already.

        Once a call, and never repeated if its answer is lost: to lose one errs on the side of the limit.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections. Closing twice is fine."""
        ...


@runtime_checkable
class SupportsRates(Protocol):
    """A store that has a rate limiter beside its ledger."""

    def rates(self) -> RateLimiter:
        """The limiter: the same counts for all who use this store. It is closed by itself, not with the store."""
        ...


def check_asks(asks: Sequence[Ask], cost: Cost) -> None:
    """
    Check what an engine is asked for.

    Raises:
        TypeError: A cost is not an int.
        ValueError: No scope or more than 8, one twice, a name that is none, or a cost out of range.
    """
    if not 1 <= len(asks) <= ASKS_MAX:
        raise ValueError(f"A call must draw on 1 to {ASKS_MAX} scopes.")
    names = {ask.scope for ask in asks}
    if len(names) != len(asks):
        raise ValueError("A call may draw on each scope only once.")
    for name in names:
        if not (type(name) is str and 1 <= len(name) <= SCOPE_CHARS_MAX and name.isascii()):
            raise ValueError(f"A scope must be ASCII text of 1 to {SCOPE_CHARS_MAX} characters.")
    check_unused(cost)


def check_unused(cost: Cost) -> None:
    """Check that both parts of a cost are ints from 0 to `COST_MAX`. Raises TypeError or ValueError."""
    for name, amount in zip(Cost._fields, cost, strict=True):
        if type(amount) is not int:
            raise TypeError(f"{name} must be an int, not {type(amount).__name__}.")
        if not 0 <= amount <= COST_MAX:
            raise ValueError(f"{name} must be at least 0 and at most {COST_MAX:,}.")


def _check_rate(what: RateUnit, per_minute: int | None, burst: int | None) -> None:
    numbers: tuple[tuple[str, object], ...] = ((f"{what}_per_minute", per_minute), (f"{what}_burst", burst))
    for name, number in numbers:
        if number is not None and type(number) is not int:
            raise TypeError(f"{name} must be a whole number (an int), not {type(number).__name__}.")
    if per_minute is None:
        if burst is not None:
            raise ValueError(f"{what}_burst needs {what}_per_minute beside it.")
        return
    if not 1 <= per_minute <= PER_MINUTE_MAX:
        raise ValueError(f"{what}_per_minute must be 1 to {PER_MINUTE_MAX:,}. For no limit, write None.")
    if burst is not None and not 1 <= burst <= per_minute * BURST_MINUTES_MAX:
        raise ValueError(f"{what}_burst must be at least 1 and at most what {BURST_MINUTES_MAX:,} minutes bring.")
