"""What a run, a user, a key and an organisation may use. Safe by itself: `Limits()` stops a runaway agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from runrails.errors import ConfigError
from runrails.loops.policy import LoopPolicy
from runrails.money import usd

if TYPE_CHECKING:
    from runrails.rates.limiter import Rates
    from runrails.savers.pruning import Pruning
    from runrails.savers.routing import Downgrade

__all__ = ["Limits", "check_limits"]

Dollars = str | int | Decimal
HOLD_TTL_MS_MAX = 86_400_000
"""The longest life of a hold that a store takes: 24 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    Numbers that must not be passed. None means no limit of that kind.

    Money is given in dollars as text, int or Decimal (`"2.00"`); a float raises a TypeError, since 0.1 is not a tenth.

    Raises:
        TypeError: Money given as a float, or a count that is not an int.
        ValueError: A limit is zero, negative, not a number or too large.
    """

    run: Dollars | None = "1.00"
    """Dollars one run may cost, its child runs included."""
    month: Dollars | None = None
    """Dollars the user may spend in a calendar month, over all runs and processes on the store."""
    key_month: Dollars | None = None
    """Dollars one API key may spend in a calendar month."""
    org_month: Dollars | None = None
    """Dollars the organisation may spend in a calendar month."""
    byok_month: Dollars | None = None
    """
    Dollars the user may spend in a calendar month on keys that are not the platform's. Such calls count against the run
    and against this, and against none of the three months above, which are the platform's money.
    """
    tokens: int | None = None
    """Input and output tokens of one run."""
    steps: int | None = 200
    """Model calls and tool calls of one run together."""
    model_calls: int | None = None
    """Model calls of one run."""
    tool_calls: int | None = None
    """Tool calls of one run."""
    seconds: int | None = None
    """Wall-clock time of one run; checked whenever a step is about to start."""
    loops: LoopPolicy | None = field(default_factory=LoopPolicy)
    """When a repeated call is hinted at, blocked and stopped; None switches the loop detector off."""
    uncapped: Literal["hold", "cap", "refuse"] = "hold"
    """
    What to do with a call that has no `max_tokens`. `hold` holds for its model's own maximum and leaves the request as
    it is; where that does not fit or is not known, it is given a cap that does, or, if it cannot be given one, all that
    is left is held for it (one such call at a time, an overrun is recorded in full). `cap` also puts the maximum that
    is held for into the request, wherever it can be given one, so that an answer cannot be longer than our table of
    models says. `refuse` does so too, and refuses a call that cannot be given one and does not fit (no overrun is
    possible). A cap has its price: some providers count it, not what is used, against their rate limits.
    """
    wrap_up: bool = False
    """
    Keep a share of the run's budget back, so that a run which a budget or a loop has stopped ends with an answer: one
    more call of the model, without tools, and the only one that starts after a stop. Only where an adapter can make it:
    `GuardrailMiddleware`, and a supervisor that is told whom to ask. Not where a guard chooses keys.
    """
    hold_wait_ms: int = 5_000
    """How long a call waits for money that other calls hold, or for its rates. Never waits on an event loop."""
    hold_ttl_ms: int = 120_000
    """How long a hold lives when its owner dies."""
    downgrade: Downgrade | None = None
    """Which calls go to a cheaper model; see `Downgrade`."""
    rates: Rates | None = None
    """
    Requests and tokens a minute of the user, over all runs and processes on the store: `Rates(requests_per_minute=60)`.
    What comes back within `hold_wait_ms` is waited for; otherwise the call is refused with `RateLimited`.
    """
    key_rates: Rates | None = None
    """The same for one API key."""
    org_rates: Rates | None = None
    """The same for the organisation."""
    pruning: Pruning | None = None
    """From how many messages on the oldest ones are not sent any more; see `Pruning`."""

    run_pusd: int | None = field(init=False, repr=False, compare=False)
    month_pusd: int | None = field(init=False, repr=False, compare=False)
    key_month_pusd: int | None = field(init=False, repr=False, compare=False)
    org_month_pusd: int | None = field(init=False, repr=False, compare=False)
    byok_month_pusd: int | None = field(init=False, repr=False, compare=False)
    saves: bool = field(init=False, repr=False, compare=False)
    """Whether any call may be made cheaper."""
    paced: bool = field(init=False, repr=False, compare=False)
    """Whether any rate is limited."""

    def __post_init__(self) -> None:
        for name in ("run", "month", "key_month", "org_month", "byok_month"):
            object.__setattr__(self, f"{name}_pusd", _money(name, getattr(self, name)))
        for name in ("tokens", "steps", "model_calls", "tool_calls", "seconds"):
            _count(name, getattr(self, name))
        if self.loops is not None and not isinstance(self.loops, LoopPolicy):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers without types exist
            raise TypeError(f"Limits(loops=…) must be a LoopPolicy or None, not {type(self.loops).__name__}.")
        _hold_ttl(self.hold_ttl_ms)
        object.__setattr__(self, "saves", self.downgrade is not None or self.pruning is not None)
        rates = (self.rates, self.key_rates, self.org_rates)
        object.__setattr__(self, "paced", any(each is not None for each in rates))
        if self.paced:
            _rates(*rates)
        if self.saves:
            _savers(self.downgrade, self.pruning)
        if self.uncapped not in ("hold", "cap", "refuse"):
            raise ValueError(f'Limits(uncapped=…) must be "hold", "cap" or "refuse", not {self.uncapped!r}.')
        if type(self.wrap_up) is not bool:
            raise TypeError(f"Limits(wrap_up=…) must be True or False, not {type(self.wrap_up).__name__}.")
        if type(self.hold_wait_ms) is not int or self.hold_wait_ms < 0:
            raise ValueError("Limits(hold_wait_ms=…) must be 0 or a positive number of milliseconds.")


def check_limits(limits: object) -> Limits:
    """Return `limits` if it is a `Limits`. Raises ConfigError."""
    if isinstance(limits, Limits):
        return limits
    raise ConfigError(
        f"limits must be a Limits, not {type(limits).__name__}.", next_step='Write limits=Limits(run="2.00").'
    )


def _money(name: str, value: Dollars | None) -> int | None:
    if value is None:
        return None
    amount = usd(value, what=f"Limits({name}=…)")
    if amount <= 0:
        raise ValueError(f"Limits({name}=…) must be more than $0. For no limit, write None.")
    return amount


def _hold_ttl(value: object) -> None:
    if type(value) is not int:
        raise TypeError(f"Limits(hold_ttl_ms=…) must be a whole number (an int), not {type(value).__name__}.")
    if not 1 <= value <= HOLD_TTL_MS_MAX:
        raise ValueError(f"Limits(hold_ttl_ms=…) must be 1 to {HOLD_TTL_MS_MAX:,} milliseconds (24 hours).")


def _savers(downgrade: object, pruning: object) -> None:
    from runrails.savers.pruning import Pruning
    from runrails.savers.routing import Downgrade

    for name, value, kind in (("downgrade", downgrade, Downgrade), ("pruning", pruning, Pruning)):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"Limits({name}=…) must be a {kind.__name__} or None, not {type(value).__name__}.")


def _rates(*given: object) -> None:
    from runrails.rates.limiter import Rates

    for name, value in zip(("rates", "key_rates", "org_rates"), given, strict=True):
        if value is not None and not isinstance(value, Rates):
            raise TypeError(f"Limits({name}=…) must be a Rates or None, not {type(value).__name__}.")


def _count(name: str, value: object) -> None:
    if value is None:
        return
    if type(value) is not int:
        raise TypeError(f"Limits({name}=…) must be a whole number (an int), not {type(value).__name__}.")
    if not 0 < value < 2**63:
        raise ValueError(f"Limits({name}=…) must be at least 1. For no limit, write None.")
