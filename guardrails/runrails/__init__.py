"""
runrails: a stop-loss for AI agents.

>>> from runrails import Guard, Limits
>>> guard = Guard(limits=Limits(run="2.00", month="50.00"), user="alice", store="memory:")

Then add `runrails_langchain.GuardrailCallbackHandler(guard)` to an agent's callbacks, or put the agent's call inside
``with guard.run():``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails.attribution import Attribution
    from runrails.errors import (
        BudgetBusy,
        BudgetExceeded,
        CallRefused,
        CallTooLarge,
        ConfigError,
        GuardrailStopped,
        LimitReached,
        LoopDetected,
        PriceUnknown,
        RateLimited,
        RunrailsError,
        ScopeExhausted,
        StoreUnavailable,
    )
    from runrails.guard import Guard
    from runrails.limits import Limits
    from runrails.loops.policy import LoopPolicy, ToolRule
    from runrails.outcome import Outcome
    from runrails.pricing import Price, Term
    from runrails.rates.limiter import Rates
    from runrails.report import Report
    from runrails.run import Run, current_run
    from runrails.savers.caching import ResponseCache
    from runrails.savers.pruning import Pruning
    from runrails.savers.routing import Downgrade
    from runrails.stores.leased import LeasedStore
    from runrails.stores.leases import Lease
    from runrails.supervisor import Supervisor

__all__ = [
    "Attribution",
    "BudgetBusy",
    "BudgetExceeded",
    "CallRefused",
    "CallTooLarge",
    "ConfigError",
    "Downgrade",
    "Guard",
    "GuardrailStopped",
    "Lease",
    "LeasedStore",
    "LimitReached",
    "Limits",
    "LoopDetected",
    "LoopPolicy",
    "Outcome",
    "Price",
    "PriceUnknown",
    "Pruning",
    "RateLimited",
    "Rates",
    "Report",
    "ResponseCache",
    "Run",
    "RunrailsError",
    "ScopeExhausted",
    "StoreUnavailable",
    "Supervisor",
    "Term",
    "ToolRule",
    "current_run",
]

_HOMES = {
    "Attribution": "runrails.attribution",
    "Downgrade": "runrails.savers.routing",
    "Guard": "runrails.guard",
    "Lease": "runrails.stores.leases",
    "LeasedStore": "runrails.stores.leased",
    "Limits": "runrails.limits",
    "LoopPolicy": "runrails.loops.policy",
    "Outcome": "runrails.outcome",
    "Price": "runrails.pricing",
    "Pruning": "runrails.savers.pruning",
    "Rates": "runrails.rates.limiter",
    "Report": "runrails.report",
    "ResponseCache": "runrails.savers.caching",
    "Run": "runrails.run",
    "Supervisor": "runrails.supervisor",
    "Term": "runrails.pricing",
    "ToolRule": "runrails.loops.policy",
    "current_run": "runrails.run",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("runrails")
    if name not in __all__:
        raise AttributeError(f"module 'runrails' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES.get(name, "runrails.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
