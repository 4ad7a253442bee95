"""For every class of error: its status, what sort it is, what of it may be said, and whether to come again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails import errors
from runrails.credentials.errors import (
    CredentialChanged,
    CredentialExists,
    CredentialNotFound,
    CredentialSuspended,
    CredentialUnreadable,
)
from runrails.egress import EgressFailed
from runrails.egress_rules import EgressRefused
from runrails.identity.errors import AuthBusy, AuthError, Forbidden, Unauthenticated, UnknownKey
from runrails_gateway.errors import BadRequest, ModelNotFound, NotServed, TooLarge, TooSlow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails_gateway.dialects.told import Kind

__all__ = ["FAILURES", "INTERNAL", "RULES", "Rule"]


class Rule(NamedTuple):
    """How one class of error is told."""

    status: int
    kind: Kind
    code: str = ""
    """Empty: the class's own."""
    what: str = ""
    """Said in place of the error's own words, which are for whoever runs the guard. Empty: those are said."""
    hint: str = ""
    """Said in place of the error's next step. Empty: that is said."""
    hidden: str = ""
    """Said in place of `what` where amounts are hidden."""
    shows: tuple[str, ...] = ()
    """The fields that callers may have."""
    money: bool = False
    """Whether the amounts of a budget are among them."""
    again: Literal["", "never", "soon"] = ""
    """Whether SDKs are told not to send it again by themselves, or when; empty: they do as they always do."""


_OPERATOR = "Ask the operator of this gateway."
_SCOPED = ("scope", "period")
_FAILED = "The gateway failed; the call was not started."
_REPORT = "The operator's log says more, under this request's id."
_TOO_MUCH = "Set a smaller max_tokens, send a shorter prompt, or ask an operator to raise the limit."
_OTHER_RUN = "Begin a new conversation, or ask an operator to raise the limit."

INTERNAL = Rule(500, "internal", "internal_error", "The gateway failed.", _REPORT, again="never")
"""For whatever is not listed: nothing of it is told."""

_USED_UP = Rule(
    402, "budget", "budget_exhausted", hint=_OTHER_RUN, hidden="The budget of {scope} is used up.", shows=_SCOPED,
    money=True, again="never",
)  # fmt: skip

RULES: Mapping[type, Rule] = {
    errors.RunrailsError: INTERNAL,
    errors.ConfigError: INTERNAL,
    errors.LedgerError: INTERNAL,
    errors.UnknownReservation: INTERNAL,
    errors.ReservationMismatch: INTERNAL,
    errors.GuardFault: Rule(500, "internal", "", _FAILED, _REPORT, again="never"),
    # The run is over.
    errors.GuardrailStopped: Rule(403, "stopped", hint="Begin a new conversation.", shows=("scope",), again="never"),
    errors.BudgetExceeded: _USED_UP,
    errors.LoopDetected: Rule(
        403, "stopped", "loop_detected",
        hint="This conversation is over. Begin a new one, and let the model do something else with what the tool says.",
        hidden="The tool {tool} gave the same outcome {count} times, with nothing new between.",
        shows=("scope", "rule", "tool", "count", "threshold"), again="never",
    ),
    errors.LimitReached: Rule(
        403, "stopped", "limit_reached", hint=_OTHER_RUN, shows=("scope", "unit", "limit", "used"), again="never"
    ),
    # This call may not start.
    errors.CallRefused: Rule(403, "permission", hint=_OPERATOR, again="never"),
    errors.ScopeExhausted: _USED_UP,
    errors.CallTooLarge: Rule(
        402, "budget", "call_too_large", hint=_TOO_MUCH, hidden="This call could cost more than {scope} has left.",
        shows=_SCOPED, money=True, again="never",
    ),
    errors.BudgetBusy: Rule(
        429, "rate_limit", "budget_busy", hidden="Calls in flight hold what is left of the budget of {scope}.",
        shows=_SCOPED, money=True,
    ),
    errors.PriceUnknown: Rule(
        400, "invalid_request", "model_unpriced", "Nobody has written down what that model costs, so it is not called.",
        "Use another model, or ask the operator of this gateway to price it.", again="never",
    ),
    errors.BoundUnknown: Rule(400, "invalid_request", shows=("content", "endpoint"), again="never"),
    errors.CredentialError: Rule(403, "permission", hint=_OPERATOR, shows=("credential", "provider"), again="never"),
    CredentialSuspended: Rule(403, "permission", shows=("owner", "provider", "label"), again="never"),
    CredentialUnreadable: Rule(503, "unavailable", hint=_OPERATOR, again="never"),
    CredentialNotFound: Rule(404, "not_found", shows=("owner", "provider", "label"), again="never"),
    CredentialExists: Rule(409, "conflict", shows=("owner", "provider", "label"), again="never"),
    CredentialChanged: Rule(409, "conflict", shows=("owner", "provider", "label"), again="never"),
    errors.RateLimited: Rule(
        429, "rate_limit", "rate_limit_exceeded", shows=("scope", "unit", "limit", "needed", "retry_after_ms")
    ),
    errors.StoreUnavailable: Rule(
        503, "unavailable", "", "The ledger cannot be reached, so no call is started.", "Try again later.",
        again="never",
    ),
    # Who it is, and what they may do.
    AuthError: Rule(403, "permission", hint=_OPERATOR, again="never"),
    Unauthenticated: Rule(401, "authentication", "invalid_api_key", again="never"),
    Forbidden: Rule(403, "permission", shows=("operation", "missing"), again="never"),
    AuthBusy: Rule(503, "unavailable", again="soon"),
    UnknownKey: Rule(404, "not_found", again="never"),
    # The request itself.
    BadRequest: Rule(400, "invalid_request", again="never"),
    TooLarge: Rule(413, "too_large", shows=("bytes_max",), again="never"),
    TooSlow: Rule(408, "timed_out"),
    NotServed: Rule(404, "not_found", again="never"),
    ModelNotFound: Rule(404, "not_found", again="never"),
    EgressRefused: Rule(400, "invalid_request", again="never"),
    EgressFailed: Rule(502, "upstream", "", "A host outside gave no usable answer.", "Try again later."),
}  # fmt: skip

FAILURES: Mapping[str, Rule] = {
    "unreachable": Rule(502, "upstream", "upstream_unreachable", shows=("attempts",)),
    "timed_out": Rule(504, "timed_out", "upstream_timeout", shows=("attempts",)),
    "failed": Rule(502, "upstream", "upstream_failed", shows=("attempts", "upstream_status")),
    "limited": Rule(429, "rate_limit", "upstream_rate_limited", shows=("attempts", "upstream_status")),
    "key_refused": Rule(502, "upstream", "upstream_key_refused", again="never"),
    "garbled": Rule(502, "upstream", "upstream_garbled", again="never"),
    "resting": Rule(503, "unavailable", "upstream_resting"),
}
"""How each failure of an upstream is told."""
