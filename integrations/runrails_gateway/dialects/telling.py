"""
Every error, as HTTP tells it: status, words and headers.

What real SDKs do decides: they send again after 408, 409, 429 and 5xx, whatever the body says, and sleep for as long as
`retry-after` tells them. So a budget that is used up is 402, never says when to come again, and asks not to be tried
again; so does everything else that would be refused again at once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runrails.errors import BudgetBusy, CallTooLarge, RateLimited, RunrailsError
from runrails.periods import check_period, day_of, month_start_ms, next_month
from runrails.rates.headers import duration, retry_headers
from runrails_gateway.dialects.rules import FAILURES, INTERNAL, RULES, Rule
from runrails_gateway.dialects.told import Told
from runrails_gateway.errors import BadRequest, UpstreamError
from runrails_gateway.figures import dollars

if TYPE_CHECKING:
    from runrails_gateway.dialects.told import Scalar

__all__ = ["Told", "rule_of", "tell"]

_AMOUNTS = ("limit", "spent", "held", "needed", "available")
_MESSAGE_CHARS_MAX = 1_000
_SENDABLE = re.compile(r"[\x21-\x7e]{1,200}")
BUSY_RETRY_MS = 1_000
"""When to come again for money that calls in flight hold: they have been waited for already."""
_AUTH_RETRY_MS = 2_000


def tell(
    error: BaseException, *, request_id: str, hide_amounts: bool = False, run_id: str | None = None, zone: str = "UTC"
) -> Told:
    """
    What a caller is told.

    Args:
        error: Whatever was raised. Of what is not ours, nothing is told.
        request_id: Of this request, for the operator's log.
        hide_amounts: Whether budgets' amounts are left out.
        run_id: The run that the request belongs to, if that is known.
        zone: The time zone of the budgets' months.
    """
    rule = rule_of(error)
    fields = _fields(error, rule, hide_amounts=hide_amounts) if isinstance(error, RunrailsError) else {}
    reset = _reset(error, zone)
    if reset is not None:
        fields["resets_at"] = reset
    param = error.param if isinstance(error, BadRequest) else None
    code = _code(error, rule)
    headers = {**_headers(error, rule), **_facts(rule, code, fields, run_id)}
    return Told(
        status=rule.status, kind=rule.kind, code=code, param=param, fields=fields, headers=tuple(headers.items()),
        message=_message(error, rule, fields, hides=hide_amounts), request_id=request_id,
    )  # fmt: skip


def rule_of(error: BaseException) -> Rule:
    """How an error is told: the rule of its class, or of the nearest one above that has a rule."""
    if isinstance(error, UpstreamError):
        return FAILURES[error.failure]
    if isinstance(error, BadRequest) and "allow" in error.fields:
        return Rule(405, "invalid_request", again="never")
    for kind in type(error).__mro__:
        rule = RULES.get(kind)
        if rule is not None:
            return rule
    return INTERNAL


def _code(error: BaseException, rule: Rule) -> str:
    if isinstance(error, BadRequest):
        return error.reason
    return rule.code or (error.code if isinstance(error, RunrailsError) else "internal_error")


# Words.


def _message(error: BaseException, rule: Rule, fields: dict[str, Scalar], *, hides: bool) -> str:
    if not isinstance(error, RunrailsError):
        return f"{rule.what} {rule.hint}"
    what = rule.what or error.what
    if hides and rule.hidden:
        what = rule.hidden.format_map(_Named(fields))
    hint = rule.hint or error.next_step
    if "resets_at" in fields:
        hint = f"It begins anew at {fields['resets_at']}; an operator can raise it."
    return _plain(f"{what} {hint}", _MESSAGE_CHARS_MAX)


class _Named(dict[str, "Scalar"]):
    """The fields that a sentence names; one that is missing does not keep the sentence from being said."""

    def __missing__(self, name: str) -> str:
        return f"the {name}"


def _fields(error: RunrailsError, rule: Rule, *, hide_amounts: bool) -> dict[str, Scalar]:
    """The facts that callers may have: those that are listed, and amounts in dollars."""
    given, told = error.fields, dict[str, "Scalar"]()
    for name in rule.shows:
        value = given.get(name)
        if value is not None:
            told[name] = value if not isinstance(value, str) else _plain(value)
    if not rule.money or hide_amounts:
        return told
    in_dollars = given.get("unit") == "pusd"
    for name in _AMOUNTS:
        value = given.get(name)
        if type(value) is int:
            shown = "remaining" if name == "available" else name
            told[f"{shown}_usd" if in_dollars else shown] = dollars(max(0, value)).decode() if in_dollars else value
    return told


def _plain(text: str, chars_max: int = 200) -> str:
    """A name or a sentence, in a form that no log and no terminal takes for anything else."""
    text = text if len(text) <= chars_max else f"{text[:chars_max]}…"
    return text if text.isprintable() else ascii(text)[1:-1]


def _reset(error: BaseException, zone: str) -> str | None:
    """When the month's budget begins anew."""
    period = error.fields.get("period") if isinstance(error, RunrailsError) else None
    if not isinstance(period, str) or isinstance(error, BudgetBusy | CallTooLarge):
        return None
    try:
        at_ms = month_start_ms(next_month(check_period(period)), zone)
    except ValueError:
        return None  # a run's, which never begins anew
    seconds = at_ms // 1_000 % 86_400
    return f"{day_of(at_ms)}T{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"


# Headers.


def _headers(error: BaseException, rule: Rule) -> dict[str, str]:
    """What clients act on."""
    headers = {"www-authenticate": "Bearer"} if rule.status == 401 else {}
    if isinstance(error, RateLimited):
        return _rate_headers(error)
    if isinstance(error, UpstreamError):
        return _upstream_headers(error, rule)
    if isinstance(error, BudgetBusy):
        return retry_headers(BUSY_RETRY_MS)
    if rule.again == "soon":
        return retry_headers(_AUTH_RETRY_MS)
    if rule.again == "never":
        headers["x-should-retry"] = "false"
    allow = error.fields.get("allow") if isinstance(error, BadRequest) else None
    if isinstance(allow, str):
        headers["allow"] = allow
    return headers


def _rate_headers(error: RateLimited) -> dict[str, str]:
    headers = retry_headers(error.retry_after_ms)
    unit = error.fields.get("unit")
    if unit in ("requests", "tokens"):
        headers[f"x-ratelimit-limit-{unit}"] = str(error.fields.get("limit"))
        headers[f"x-ratelimit-remaining-{unit}"] = "0"
        if error.retry_after_ms is not None:
            headers[f"x-ratelimit-reset-{unit}"] = duration(error.retry_after_ms)
    return headers


def _upstream_headers(error: UpstreamError, rule: Rule) -> dict[str, str]:
    headers = {} if error.retry_after_ms is None else retry_headers(error.retry_after_ms)
    # What was tried again here already would be tried a multiple of that by the client.
    if rule.again == "never" or error.attempts > 1:
        headers["x-should-retry"] = "false"
    return headers


def _facts(rule: Rule, code: str, fields: dict[str, Scalar], run_id: str | None) -> dict[str, str]:
    """What programs read without decoding a body."""
    found: dict[str, object] = {"x-runrails-run": run_id}
    if rule.kind in ("budget", "stopped"):
        found["x-runrails-stop-reason"] = code
    if rule.money or rule.kind == "stopped":
        found["x-runrails-scope"] = fields.get("scope")
        found["x-runrails-budget-remaining"] = fields.get("remaining_usd", fields.get("remaining"))
        found["x-runrails-budget-reset"] = fields.get("resets_at")
    texts = {name: str(value) for name, value in found.items() if value is not None}
    return {name: text for name, text in texts.items() if _SENDABLE.fullmatch(text)}
