"""
Everything runrails raises.

RunrailsError
├── ConfigError                 the guard is set up wrongly; nothing was started (also a ValueError)
├── GuardrailStopped            the run has ended and stays ended
│   ├── BudgetExceeded          money or another counted unit is used up
│   ├── LoopDetected            the same call keeps giving the same outcome
│   └── LimitReached            steps, tool calls, tokens or time are used up
├── CallRefused                 this one call may not start; the run goes on
│   ├── BudgetBusy              the money is there but held by calls in flight
│   ├── CallTooLarge            this call's bound does not fit; a smaller call would
│   ├── ScopeExhausted          the budget of whom this one call is for is used up; the run is somebody else's
│   ├── PriceUnknown            nobody has written down what the model costs
│   ├── BoundUnknown            the most this call can cost cannot be told
│   ├── CredentialError         no usable provider key
│   ├── RateLimited             too many requests or tokens this minute; it says when to come again
│   ├── GuardFault              a deciding part of runrails itself failed
│   └── StoreUnavailable        the ledger could not be reached; nothing was written
└── LedgerError                 the ledger was asked for something that makes no sense
    ├── UnknownReservation      no reservation with this id was ever made
    └── ReservationMismatch     the id was used before with other content

The message says what happened, whose scope, how much, the limit and what to do next. `as_dict` has the same fields.
No prompt, argument, tool output or secret is ever part of an error.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from runrails.money import format_usd

__all__ = [
    "BoundUnknown",
    "BudgetBusy",
    "BudgetExceeded",
    "CallRefused",
    "CallTooLarge",
    "ConfigError",
    "CredentialError",
    "GuardFault",
    "GuardrailStopped",
    "LedgerError",
    "LimitReached",
    "LoopDetected",
    "PriceUnknown",
    "RateLimited",
    "ReservationMismatch",
    "RunrailsError",
    "ScopeExhausted",
    "StoreUnavailable",
    "UnknownReservation",
    "format_amount",
]

FieldValue = str | int | bool | None


def format_amount(amount: int, unit: str) -> str:
    """An amount in words a person reads: ``$0.25`` for picodollars, ``1,200 tokens`` for other units."""
    return format_usd(amount) if unit == "pusd" else f"{amount:,} {unit}"


class RunrailsError(Exception):
    """
    Base of everything runrails raises.

    Args:
        what: What happened, as one or more full sentences.
        next_step: What the reader can do about it, as a full sentence.
        fields: Machine-readable facts; they appear as attributes and in `as_dict`.
    """

    code: ClassVar[str] = "runrails_error"
    http_status: ClassVar[int] = 500
    """The status a server may answer with when this error ends a request."""

    def __init__(self, what: str, *, next_step: str, **fields: FieldValue) -> None:
        # Not `super`: an adapter's class may have a framework's behind this one, which wants to be told other things.
        Exception.__init__(self, f"{what} {next_step}")
        self.what = what
        self.next_step = next_step
        self.fields: dict[str, FieldValue] = fields

    def as_dict(self) -> dict[str, FieldValue]:
        """The error as flat JSON-ready fields."""
        return {"error": self.code, "message": self.what, "next_step": self.next_step, **self.fields}

    def again(self) -> Self:
        """A fresh copy to raise: one instance raised from many threads would gather all their tracebacks."""
        error = type(self).__new__(type(self))
        RunrailsError.__init__(error, self.what, next_step=self.next_step, **self.fields)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders (multiprocessing, pytest-xdist) with every field kept."""
        return _rebuild, (type(self), self.what, self.next_step, self.fields)


def _rebuild(kind: type[RunrailsError], what: str, next_step: str, fields: dict[str, FieldValue]) -> RunrailsError:
    error = kind.__new__(kind)
    RunrailsError.__init__(error, what, next_step=next_step, **fields)
    return error


class ConfigError(RunrailsError, ValueError):
    """The guard is set up wrongly. Nothing was started."""

    code = "config_error"


class GuardrailStopped(RunrailsError):
    """The run has ended and stays ended: nothing starts after this."""

    code = "guardrail_stopped"
    http_status = 403

    @property
    def stop_reason(self) -> str:
        """Short machine-readable reason, for instance ``budget_exceeded``."""
        return self.code


class BudgetExceeded(GuardrailStopped):
    """A budget cannot pay even the smallest next call."""

    code = "budget_exceeded"
    http_status = 402

    def __init__(
        self,
        *,
        scope: str,
        period: str,
        unit: str,
        limit: int,
        spent: int,
        held: int,
        needed: int,
        next_step: str | None = None,
    ) -> None:
        available = limit - spent - held
        where = scope if period == "-" else f"{scope} in {period}"
        state = "is used up" if spent or held else "is too small for this call"
        super().__init__(
            f"The budget of {where} {state}: {format_amount(spent, unit)} spent and {format_amount(held, unit)} "
            f"held of {format_amount(limit, unit)}; the next call needs up to {format_amount(needed, unit)}.",
            next_step=next_step or _raise_limit_hint(scope),
            scope=scope,
            period=period,
            unit=unit,
            limit=limit,
            spent=spent,
            held=held,
            needed=needed,
            available=available,
        )


class LoopDetected(GuardrailStopped):
    """The same call keeps giving the same outcome with nothing new between."""

    code = "loop_detected"


class LimitReached(GuardrailStopped):
    """A count (steps, model calls, tool calls, tokens) or the wall clock of the run is used up."""

    code = "limit_reached"

    def __init__(self, *, scope: str, unit: str, limit: int, used: int, setting: str) -> None:
        super().__init__(
            f"{scope} has used {used:,} of {limit:,} {unit}.",
            next_step=f"If this run is healthy, raise Limits({setting}=…) or call run.resume(limits=…).",
            scope=scope,
            unit=unit,
            limit=limit,
            used=used,
            setting=setting,
        )


class CallRefused(RunrailsError):
    """This one call may not start. The run is not stopped."""

    code = "call_refused"
    http_status = 403


class BudgetBusy(CallRefused):
    """The money is there, but calls in flight hold it."""

    code = "budget_busy"
    http_status = 429

    def __init__(
        self, *, scope: str, period: str, unit: str, limit: int, spent: int, held: int, needed: int, waited_ms: int
    ) -> None:
        super().__init__(
            f"Calls in flight hold {format_amount(held, unit)} of the {format_amount(limit, unit)} budget of {scope} "
            f"({format_amount(spent, unit)} spent); this call needs up to {format_amount(needed, unit)}. "
            f"Waited {waited_ms} ms.",
            next_step="Try again when one of them has ended, set a smaller max_tokens, or run fewer calls in parallel.",
            scope=scope,
            period=period,
            unit=unit,
            limit=limit,
            spent=spent,
            held=held,
            needed=needed,
            waited_ms=waited_ms,
        )


class CallTooLarge(CallRefused):
    """The most this call can cost does not fit into what is left; a smaller call would."""

    code = "call_too_large"
    http_status = 402

    def __init__(self, *, scope: str, period: str, unit: str, limit: int, spent: int, needed: int) -> None:
        super().__init__(
            f"This call could cost up to {format_amount(needed, unit)}, but {scope} has only "
            f"{format_amount(limit - spent, unit)} left of {format_amount(limit, unit)}.",
            next_step="Set a smaller max_tokens on the model, send a shorter prompt, or raise the limit.",
            scope=scope,
            period=period,
            unit=unit,
            limit=limit,
            spent=spent,
            needed=needed,
        )


class ScopeExhausted(CallRefused):
    """
    The budget of the user, key or organisation that this one call is for is used up.

    The run is somebody else's, so it goes on: one user must not stop all whom it serves. A run whose own budget is
    used up ends with `BudgetExceeded`.
    """

    code = "scope_exhausted"
    http_status = 402

    def __init__(self, stop: BudgetExceeded) -> None:
        super().__init__(stop.what, next_step=f"{stop.next_step} Calls of this run for others go on.", **stop.fields)


class GuardFault(CallRefused):
    """A deciding part of runrails (price, bound, reserve) failed by a bug of its own. The call was not started."""

    code = "guard_fault"


class PriceUnknown(CallRefused):
    """Nobody has written down what this model costs."""

    code = "price_unknown"
    http_status = 400


class BoundUnknown(CallRefused):
    """The most this call can cost cannot be told, so it cannot be reserved."""

    code = "bound_unknown"
    http_status = 400


class CredentialError(CallRefused):
    """No usable provider key."""

    code = "credential_error"


class RateLimited(CallRefused):
    """A user, a key or an organisation asks for more requests or tokens a minute than it may. Nothing was taken."""

    code = "rate_limited"
    http_status = 429

    def __init__(
        self, *, scope: str, unit: str, limit: int, needed: int, retry_after_ms: int | None, waited_ms: int = 0
    ) -> None:
        if retry_after_ms is None:
            what = f"This call needs {needed:,} {unit} at once, and {scope} may never have more than {limit:,}."
            hint = "Send a smaller request, or allow larger bursts."
        else:
            what = (
                f"{scope} has used up its {unit} for the moment: at most {limit:,} at once; this call needs {needed:,}."
            )
            hint = f"Try again in {retry_after_ms:,} ms, or raise the rate."
        super().__init__(
            what, next_step=hint, scope=scope, unit=unit, limit=limit, needed=needed, retry_after_ms=retry_after_ms,
            waited_ms=waited_ms,
        )  # fmt: skip

    @property
    def retry_after_ms(self) -> int | None:
        """After this long it would be granted if nobody else came before it; None: never."""
        wait_ms = self.fields["retry_after_ms"]
        return wait_ms if isinstance(wait_ms, int) else None


class StoreUnavailable(CallRefused):
    """The ledger could not be reached. Nothing was written; try again with the same id."""

    code = "store_unavailable"
    http_status = 503


class LedgerError(RunrailsError):
    """The ledger was asked for something that makes no sense."""

    code = "ledger_error"


class UnknownReservation(LedgerError):
    """No reservation with this id was ever made."""

    code = "unknown_reservation"


class ReservationMismatch(LedgerError):
    """The id was used before with other content. Nothing was changed."""

    code = "reservation_mismatch"
    http_status = 409


def _raise_limit_hint(scope: str) -> str:
    kind = scope.partition(":")[0]
    settings = {"user": "month", "key": "key_month", "org": "org_month", "byok": "byok_month"}
    setting = settings.get(kind, "run")
    return (
        f'If that is not enough, raise Limits({setting}="…") in code or, as an operator, '
        f"`runrails budget set {scope} AMOUNT`."
        if kind != "run"
        else f'If that is not enough, raise Limits({setting}="…") or call run.resume(limits=…).'
    )
