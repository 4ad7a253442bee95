"""Every error over HTTP: its status, its words in both dialects, its headers, and what real SDKs make of them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any, get_args

import anthropic
import openai
import pytest
from anthropic.types.shared import ErrorType

import runrails.credentials.errors as stored
from rr_sdk_http import http_of
from runrails import errors
from runrails.egress import EgressFailed
from runrails.egress_rules import EgressRefused
from runrails.errors import RunrailsError
from runrails.identity.errors import AuthBusy, AuthError, Forbidden, Unauthenticated, UnknownKey
from runrails_gateway.dialects import CHAT, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES, Dialect, Told, tell
from runrails_gateway.dialects.rules import FAILURES, RULES
from runrails_gateway.errors import (
    BadRequest,
    Failure,
    ModelNotFound,
    NotServed,
    TooLarge,
    TooSlow,
    UpstreamError,
)

SECRET = "/home/op/canary-7c1f.db"
MONTH: Any = {"scope": "user:alice", "period": "2026-11", "unit": "pusd"}
HELD: Any = {"limit": 7_777_000_000_000, "spent": 6_666_000_000_000, "needed": 5_555_000_000_000}
AMOUNTS = ("7.777", "6.666", "5.555", "4.444", "7777", "6666", "5555", "4444", "1.111", "1111")
OWNER: Any = {"owner": "user:alice", "provider": "openai", "label": "default"}


def exceeded(**changes: Any) -> errors.BudgetExceeded:
    """A month that is used up."""
    return errors.BudgetExceeded(**{**MONTH, **HELD, "held": 1_111_000_000_000, **changes})


def limited(retry_after_ms: int | None = 1_500, unit: str = "requests") -> errors.RateLimited:
    """A rate that is used up for the moment."""
    return errors.RateLimited(scope="key:k1", unit=unit, limit=60, needed=1, retry_after_ms=retry_after_ms)


def looped() -> errors.LoopDetected:
    """A loop, as the watch over loops tells it."""
    return errors.LoopDetected(
        "Tool search failed 5 times in a row. It has cost $4.444 and 900 tokens; each further would cost $1.111.",
        next_step="If this is meant: ToolRule(poll=True).", scope="run:r1", rule="repeated_failure", tool="search",
        agent="", count=5, threshold=5, first_step=1, last_step=5, call_fingerprint="c0ffee",
        spent_pusd=4_444_000_000_000, tokens=900,
    )  # fmt: skip


def plain(kind: type[RunrailsError], what: str = f"Failed at {SECRET}.", **fields: Any) -> RunrailsError:
    """An error of a class that takes words."""
    return kind(what, next_step="Look at it.", **fields)


Case = tuple[Callable[[], BaseException], int, str, str]
"""The error, its status, its code, and `x-should-retry` (empty: not said)."""
CASES: dict[str, Case] = {
    "BudgetExceeded": (exceeded, 402, "budget_exhausted", "false"),
    "ScopeExhausted": (lambda: errors.ScopeExhausted(exceeded()), 402, "budget_exhausted", "false"),
    "CallTooLarge": (lambda: errors.CallTooLarge(**MONTH, **HELD), 402, "call_too_large", "false"),
    "BudgetBusy": (
        lambda: errors.BudgetBusy(**MONTH, **HELD, held=1_111_000_000_000, waited_ms=5), 429, "budget_busy", "",
    ),
    "LoopDetected": (looped, 403, "loop_detected", "false"),
    "LimitReached": (
        lambda: errors.LimitReached(scope="run:r1", unit="steps", limit=200, used=200, setting="steps"),
        403, "limit_reached", "false",
    ),
    "GuardrailStopped": (lambda: plain(errors.GuardrailStopped, "It has ended."), 403, "guardrail_stopped", "false"),
    "CallRefused": (lambda: plain(errors.CallRefused, "It may not."), 403, "call_refused", "false"),
    "PriceUnknown": (lambda: plain(errors.PriceUnknown, model=SECRET), 400, "model_unpriced", "false"),
    "BoundUnknown": (
        lambda: plain(errors.BoundUnknown, "Nobody can tell.", content="input_file"), 400, "bound_unknown", "false",
    ),
    "CredentialError": (
        lambda: plain(errors.CredentialError, "No key.", provider="openai"), 403, "credential_error", "false",
    ),
    "CredentialUnreadable": (
        lambda: stored.CredentialUnreadable("kms_denied"), 503, "credential_unreadable", "false",
    ),
    "CredentialNotFound": (lambda: stored.CredentialNotFound(**OWNER), 404, "credential_not_found", "false"),
    "CredentialExists": (lambda: stored.CredentialExists(**OWNER), 409, "credential_exists", "false"),
    "CredentialChanged": (lambda: stored.CredentialChanged(**OWNER), 409, "credential_changed", "false"),
    "CredentialSuspended": (lambda: stored.CredentialSuspended(**OWNER), 403, "credential_suspended", "false"),
    "RateLimited": (limited, 429, "rate_limit_exceeded", ""),
    "RateLimited_for_long": (lambda: limited(3_600_000), 429, "rate_limit_exceeded", "false"),
    "RateLimited_for_ever": (lambda: limited(None, "tokens"), 429, "rate_limit_exceeded", "false"),
    "GuardFault": (lambda: plain(errors.GuardFault), 500, "guard_fault", "false"),
    "StoreUnavailable": (lambda: plain(errors.StoreUnavailable, table=SECRET), 503, "store_unavailable", "false"),
    "ConfigError": (lambda: plain(errors.ConfigError), 500, "internal_error", "false"),
    "LedgerError": (lambda: plain(errors.LedgerError), 500, "internal_error", "false"),
    "UnknownReservation": (lambda: plain(errors.UnknownReservation), 500, "internal_error", "false"),
    "ReservationMismatch": (lambda: plain(errors.ReservationMismatch), 500, "internal_error", "false"),
    "RunrailsError": (lambda: plain(RunrailsError), 500, "internal_error", "false"),
    "AuthError": (lambda: plain(AuthError, "Not let in."), 403, "auth_error", "false"),
    "Unauthenticated": (lambda: Unauthenticated("expired"), 401, "invalid_api_key", "false"),
    "Forbidden": (lambda: Forbidden("chat.complete", missing="ai:complete"), 403, "forbidden", "false"),
    "AuthBusy": (AuthBusy, 503, "auth_busy", ""),
    "UnknownKey": (UnknownKey, 404, "unknown_key", "false"),
    "EgressRefused": (lambda: EgressRefused("scheme", "Not https."), 400, "egress_refused", "false"),
    "EgressFailed": (lambda: EgressFailed("timed_out", host=SECRET), 502, "egress_failed", ""),
    "BadRequest": (lambda: BadRequest("too_deep", "Too deep.", param="messages"), 400, "too_deep", "false"),
    "TooLarge": (lambda: TooLarge(10_000_000), 413, "request_too_large", "false"),
    "TooSlow": (TooSlow, 408, "request_timeout", ""),
    "NotServed": (NotServed, 404, "unknown_url", "false"),
    "NotServed_by_method": (lambda: NotServed(methods="POST"), 405, "method_not_allowed", "false"),
    "ModelNotFound": (ModelNotFound, 404, "model_not_found", "false"),
    "UpstreamError": (lambda: UpstreamError("failed", status=500), 502, "upstream_failed", ""),
    "UpstreamError_tried_again": (
        lambda: UpstreamError("failed", status=500, attempts=3), 502, "upstream_failed", "false",
    ),
    "UpstreamError_unreachable": (lambda: UpstreamError("unreachable"), 502, "upstream_unreachable", ""),
    "UpstreamError_timed_out": (lambda: UpstreamError("timed_out"), 504, "upstream_timeout", ""),
    "UpstreamError_limited": (
        lambda: UpstreamError("limited", status=429, retry_after_ms=2_000), 429, "upstream_rate_limited", "",
    ),
    "UpstreamError_key": (lambda: UpstreamError("key_refused", status=401), 502, "upstream_key_refused", "false"),
    "UpstreamError_garbled": (lambda: UpstreamError("garbled"), 502, "upstream_garbled", "false"),
    "UpstreamError_resting": (lambda: UpstreamError("resting", retry_after_ms=9_000), 503, "upstream_resting", ""),
    "ValueError": (lambda: ValueError(SECRET), 500, "internal_error", "false"),
    "KeyError": (lambda: KeyError(SECRET), 500, "internal_error", "false"),
}  # fmt: skip
DIALECTS: dict[str, Dialect] = {
    "chat": CHAT, "responses": RESPONSES, "embeddings": EMBEDDINGS, "messages": MESSAGES, "count_tokens": COUNT_TOKENS,
}  # fmt: skip


def told_of(case: str, **options: Any) -> Told:
    """What a case comes to."""
    return tell(CASES[case][0](), request_id="req_1", **options)


def everything(told: Told) -> str:
    """All that a caller can see of it, in any dialect."""
    shown = [dialect.refusal(told) + dialect.event(told) for dialect in DIALECTS.values()]
    return b"".join(shown).decode() + repr(told.headers)


# Every class.


def subclasses(kind: type) -> set[type]:
    """All of them, those of the core and the gateway; the admin API tells its own itself."""
    found = {kind}
    for each in kind.__subclasses__():
        found |= subclasses(each)
    ours = {each for each in found if each.__module__.partition(".")[0] in ("runrails", "runrails_gateway")}
    return {each for each in ours if not each.__module__.startswith("runrails_gateway.admin")}


def test_every_class_of_error_has_a_rule_and_a_case():
    """No class of ours falls back on another's status by accident."""
    named = {kind.__name__ for kind in subclasses(RunrailsError)}
    assert set() == named - {name.partition("_")[0] for name in CASES}
    assert {"UpstreamError"} == named - {kind.__name__ for kind in RULES}
    assert set(get_args(Failure)) == set(FAILURES)


@pytest.mark.parametrize("case", CASES)
def test_status_code_and_retry(case):
    """Each error has its status and code, and SDKs are told not to try again where that would be in vain."""
    _, status, code, retry = CASES[case]
    told = told_of(case)
    assert (status, code, retry) == (told.status, told.code, dict(told.headers).get("x-should-retry", ""))


@pytest.mark.parametrize("case", CASES)
def test_no_class_tells_what_is_the_operators(case):
    """Paths, tables, hosts and whatever a stranger's exception says are told to nobody."""
    assert SECRET not in everything(told_of(case))
    assert "canary" not in everything(told_of(case))


@pytest.mark.parametrize("case", CASES)
def test_only_those_that_may_come_again_soon_say_when(case):
    """`retry-after` is at most a minute, and stands in no answer that a client cannot mend by waiting."""
    headers = dict(told_of(case).headers)
    if "retry-after" in headers:
        assert told_of(case).status in (429, 503)
        assert 1 <= int(headers["retry-after"]) <= 60
    assert not (CASES[case][1] == 402 and "retry-after" in headers)


@pytest.mark.parametrize("case", CASES)
def test_errors_cross_processes(case):
    """A worker's error is told alike by another process, and by a fresh copy."""
    error = CASES[case][0]()
    assert tell(error, request_id="r") == tell(pickle.loads(pickle.dumps(error)), request_id="r")
    if isinstance(error, RunrailsError):
        assert tell(error, request_id="r") == tell(error.again(), request_id="r")


def test_a_class_that_nobody_knows_is_told_as_the_nearest_one_that_is_known():
    """A new refusal of a new adapter is a refusal; its fields stay with us."""

    class Fresh(errors.CallRefused):
        code = "fresh"

    told = tell(Fresh("It may not.", next_step="x", secret=SECRET), request_id="r")
    assert (403, "fresh", {}) == (told.status, told.code, dict(told.fields))
    assert SECRET not in everything(told)


# Words.


def test_budget_says_whose_how_much_and_when_it_begins_anew():
    """The facts are fields, in dollars and as text, and headers for programs."""
    told = told_of("BudgetExceeded", run_id="run-1")
    assert {
        "scope": "user:alice", "period": "2026-11", "limit_usd": "7.777", "spent_usd": "6.666", "held_usd": "1.111",
        "needed_usd": "5.555", "remaining_usd": "0", "resets_at": "2026-12-01T00:00:00Z",
    } == dict(told.fields)  # fmt: skip
    assert {
        "x-should-retry": "false", "x-runrails-run": "run-1", "x-runrails-stop-reason": "budget_exhausted",
        "x-runrails-scope": "user:alice", "x-runrails-budget-remaining": "0",
        "x-runrails-budget-reset": "2026-12-01T00:00:00Z",
    } == dict(told.headers)  # fmt: skip
    assert "user:alice in 2026-11 is used up: $6.666 spent" in told.message
    assert "Limits(" not in told.message


@pytest.mark.parametrize("case", ["BudgetExceeded", "ScopeExhausted", "CallTooLarge", "BudgetBusy", "LoopDetected"])
def test_amounts_can_be_hidden(case):
    """With `hide_amounts` no amount is in words, fields or headers; whose budget it is still is."""
    shown, hidden = told_of(case), told_of(case, hide_amounts=True)
    assert any(amount in everything(shown) for amount in AMOUNTS)
    assert [] == [amount for amount in AMOUNTS if amount in everything(hidden)]
    assert (shown.status, shown.code, shown.fields["scope"]) == (hidden.status, hidden.code, hidden.fields["scope"])
    assert hidden.message
    assert "{" not in hidden.message


def test_remaining_is_what_is_left():
    """What is left but does not suffice is said."""
    told = tell(exceeded(spent=0, held=500_000_000_000, limit=2_000_000_000_000), request_id="r")
    assert ("1.5", "1.5") == (told.fields["remaining_usd"], dict(told.headers)["x-runrails-budget-remaining"])


def test_other_units_than_money_are_plain_numbers():
    """A budget of tokens is told in tokens."""
    told = tell(exceeded(unit="tokens", limit=100, spent=90, held=0, needed=20), request_id="r")
    assert (100, 90, 10) == (told.fields["limit"], told.fields["spent"], told.fields["remaining"])
    assert "10" == dict(told.headers)["x-runrails-budget-remaining"]


@pytest.mark.parametrize(
    ("period", "zone", "resets_at"),
    [("2026-11", "UTC", "2026-12-01T00:00:00Z"), ("2026-12", "UTC", "2027-01-01T00:00:00Z"),
     ("2026-11", "Europe/Berlin", "2026-11-30T23:00:00Z"), ("2026-11", "Asia/Kathmandu", "2026-11-30T18:15:00Z"),
     ("-", "UTC", None)],
)  # fmt: skip
def test_reset_is_the_next_months_beginning_in_the_budgets_zone(period, zone, resets_at):
    """A month's budget begins anew where its zone says; a run's never does."""
    told = tell(exceeded(period=period, scope="run:r1" if period == "-" else "user:alice"), request_id="r", zone=zone)
    assert resets_at == told.fields.get("resets_at")
    assert resets_at == dict(told.headers).get("x-runrails-budget-reset")


def test_rates_have_openais_headers():
    """Names and forms are OpenAI's; `retry-after` is rounded up, and the exact time is there too."""
    assert {
        "retry-after": "2", "retry-after-ms": "1500", "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1.5s",
    } == dict(told_of("RateLimited").headers)  # fmt: skip
    assert {
        "retry-after": "60", "x-should-retry": "false", "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h0m0s",
    } == dict(told_of("RateLimited_for_long").headers)  # fmt: skip
    assert {
        "x-should-retry": "false", "x-ratelimit-limit-tokens": "60", "x-ratelimit-remaining-tokens": "0"
    } == dict(told_of("RateLimited_for_ever").headers)  # fmt: skip


def test_a_loop_names_tool_rule_and_count():
    """Which tool, which rule, how often: as fields."""
    told = told_of("LoopDetected", run_id="r1")
    assert {"scope": "run:r1", "rule": "repeated_failure", "tool": "search", "count": 5, "threshold": 5} == told.fields
    assert ("loop_detected", "run:r1") == tuple(
        dict(told.headers)[name] for name in ("x-runrails-stop-reason", "x-runrails-scope")
    )


@pytest.mark.parametrize(
    "evil", ["a\r\nset-cookie: x=1", "\x1b[31mred", "ü" * 10, "x" * 100_000, "\u202eevil", "", " "]
)
@pytest.mark.parametrize("hides", [True, False])
def test_names_from_outside_are_harmless(evil, hides):
    """A tool's name with line breaks, escapes or a hundred thousand characters cannot become a header or fill a log."""
    error = looped()
    error.fields.update(tool=evil, scope=evil, rule=evil)
    error.what = f"Tool {evil} failed."
    told = tell(error, request_id="r", run_id=evil, hide_amounts=hides)
    for name, value in told.headers:
        assert value.isascii()
        assert value.isprintable()
        assert name == name.lower()
    assert "set-cookie: x=1\r" not in everything(told)
    assert len(everything(told)) < 25_000
    assert "\x1b" not in told.message
    assert "\r\nset" not in told.message


@pytest.mark.parametrize("dialect", DIALECTS)
def test_bodies_are_json_in_the_callers_dialect(dialect):
    """OpenAI's and Anthropic's shapes, with the request's id; no field of ours takes a member of theirs."""
    for case in CASES:
        told = told_of(case)
        body = json.loads(DIALECTS[dialect].refusal(told))
        error = body["error"]
        assert (told.message, told.code) == (error["message"], error["code"])
        assert isinstance(error["type"], str)
        if DIALECTS[dialect].name == "anthropic":
            assert ("error", "req_1") == (body["type"], body["request_id"])
        else:
            assert ("req_1", told.param) == (error["request_id"], error["param"])
        for name, value in told.fields.items():
            assert value == error[name]


# What real SDKs make of them.

OPENAIS, ANTHROPICS = http_of(openai), http_of(anthropic)
"""What each SDK sends with."""


def openai_client(answer: Callable[[Any], Any], seen: list[Any], **options: Any) -> openai.OpenAI:
    """A client that is answered from here, by the HTTP library that it stands on."""

    def handle(request: Any) -> Any:
        seen.append(request)
        return answer(OPENAIS)

    http = openai.DefaultHttpxClient(transport=OPENAIS.MockTransport(handle))
    return openai.OpenAI(api_key="k", base_url="http://gateway.test/v1", http_client=http, **options)


def anthropic_client(answer: Callable[[Any], Any], seen: list[Any], **options: Any) -> anthropic.Anthropic:
    """As `openai_client`."""

    def handle(request: Any) -> Any:
        seen.append(request)
        return answer(ANTHROPICS)

    http = anthropic.DefaultHttpxClient(transport=ANTHROPICS.MockTransport(handle))
    return anthropic.Anthropic(api_key="k", base_url="http://gateway.test", http_client=http, **options)


def answer_of(http: Any, told: Told, dialect: Dialect) -> Any:
    """A refusal as the gateway sends it."""
    headers = {"content-type": "application/json", "x-request-id": "req_1", "request-id": "req_1", **dict(told.headers)}
    return http.Response(told.status, headers=headers, content=dialect.refusal(told))


HI: Any = [{"role": "user", "content": "hi"}]
OPENAI_CLASSES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError, 401: openai.AuthenticationError, 402: openai.APIStatusError,
    403: openai.PermissionDeniedError, 404: openai.NotFoundError, 405: openai.APIStatusError,
    408: openai.APIStatusError, 409: openai.ConflictError, 413: openai.APIStatusError, 429: openai.RateLimitError,
    500: openai.InternalServerError, 502: openai.InternalServerError, 503: openai.InternalServerError,
    504: openai.InternalServerError,
}  # fmt: skip
OPENAI_TYPES = {
    400: "invalid_request_error", 401: "invalid_request_error", 402: "insufficient_quota", 404: "invalid_request_error",
    500: "server_error", 502: "server_error", 503: "server_error", 504: "server_error",
}  # fmt: skip
ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 405: "invalid_request_error", 408: "timeout_error", 409: "conflict_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "overloaded_error",
    504: "timeout_error",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_openai_raises_its_own_class_with_code_and_type(case):
    """openai raises the class of the status, with `.code`, `.type`, `.param`, `.request_id` and the fields."""
    told, seen = told_of(case), list[Any]()
    with openai_client(lambda http: answer_of(http, told, CHAT), seen, max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as raised:
            client.chat.completions.create(model="m", messages=HI)
    error = raised.value
    assert OPENAI_CLASSES[told.status] is type(error)
    assert (told.code, told.param, "req_1") == (error.code, error.param, error.request_id)
    assert OPENAI_TYPES.get(told.status, error.type) == error.type
    body: Any = error.body
    assert told.message == body["message"]
    assert {**body, **told.fields} == body


@pytest.mark.parametrize("case", CASES)
def test_anthropic_raises_its_own_class_with_its_type(case):
    """anthropic raises the class of the status, with the type that its API has for it."""
    told, seen = told_of(case), list[Any]()
    with anthropic_client(lambda http: answer_of(http, told, MESSAGES), seen, max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError) as raised:
            client.messages.create(model="m", messages=HI, max_tokens=5)
    error = raised.value
    assert told.status == error.status_code
    body: Any = error.body
    assert (ANTHROPIC_TYPES[told.status], told.message) == (body["error"]["type"], body["error"]["message"])
    assert ANTHROPIC_TYPES[told.status] == error.type
    assert error.type in get_args(ErrorType) or 413 == told.status
    assert "req_1" == error.request_id
    if told.status == 402:
        assert "PaymentRequiredError" == type(error).__name__


ONCE = [case for case, (_, status, _, retry) in CASES.items() if retry == "false" or status in (400, 401, 402, 403)]


@pytest.mark.parametrize("case", ONCE)
def test_sdks_with_their_default_retries_make_exactly_one_request(case):
    """Where trying again is in vain, openai and anthropic make one request, whatever the status."""
    told = told_of(case)
    ours, theirs = list[Any](), list[Any]()
    with openai_client(lambda http: answer_of(http, told, CHAT), ours) as client:
        with pytest.raises(openai.APIStatusError):
            client.chat.completions.create(model="m", messages=HI)
    with anthropic_client(lambda http: answer_of(http, told, MESSAGES), theirs) as other:
        with pytest.raises(anthropic.APIStatusError):
            other.messages.create(model="m", messages=HI, max_tokens=5)
    assert (1, 1) == (len(ours), len(theirs))


# In a stream that has begun.

CHUNK = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"delta":{"content":"hi"},"finish_reason":null}]}\n'
)
CREATED = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"i","output_index":0,'
    b'"content_index":0,"delta":"hi","logprobs":[],"sequence_number":1}\n'
)
DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    b'"text":"hi"}}\n'
)


def stream_of(http: Any, *pieces: bytes) -> Any:
    """A stream as it comes over the wire, in the same pieces."""
    return http.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))


@pytest.mark.parametrize("blank", [b"", b"\n"], ids=["after-a-line", "after-an-event"])
@pytest.mark.parametrize("case", ["BudgetExceeded", "LoopDetected", "UpstreamError", "StoreUnavailable", "KeyError"])
def test_openai_raises_an_event_in_a_chat_stream(case, blank):
    """What came before is handed out; then an APIError with code, type and fields."""
    told, seen = told_of(case), list[Any]()
    with openai_client(lambda http: stream_of(http, CHUNK + blank, CHAT.event(told)), seen) as client:
        stream = client.chat.completions.create(model="m", messages=HI, stream=True)
        assert "hi" == next(stream).choices[0].delta.content
        with pytest.raises(openai.APIError) as raised:
            next(stream)
    assert (told.code, told.message, 1) == (raised.value.code, raised.value.message, len(seen))
    body: Any = raised.value.body
    assert "req_1" == body["request_id"]
    assert {**body, **told.fields} == body


@pytest.mark.parametrize("blank", [b"", b"\n"], ids=["after-a-line", "after-an-event"])
@pytest.mark.parametrize("case", ["BudgetExceeded", "LoopDetected", "UpstreamError"])
def test_openai_raises_an_event_in_a_stream_of_a_response(case, blank):
    """The Responses API's own error event is raised too, not handed out as one event among others."""
    told, seen = told_of(case), list[Any]()
    with openai_client(lambda http: stream_of(http, CREATED + blank, RESPONSES.event(told)), seen) as client:
        stream = client.responses.create(model="m", input="hi", stream=True)
        assert "response.output_text.delta" == next(stream).type
        with pytest.raises(openai.APIError) as raised:
            next(stream)
    assert (told.code, told.message, 1) == (raised.value.code, raised.value.message, len(seen))
    data = json.loads(RESPONSES.event(told).partition(b"data: ")[2])
    assert ("error", told.code, told.message, 0) == tuple(
        data[name] for name in ("type", "code", "message", "sequence_number")
    )


@pytest.mark.parametrize("blank", [b"", b"\n"], ids=["after-a-line", "after-an-event"])
@pytest.mark.parametrize("case", ["BudgetExceeded", "LoopDetected", "UpstreamError", "StoreUnavailable", "KeyError"])
def test_anthropic_raises_an_event_in_a_stream(case, blank):
    """What came before is handed out; then an APIStatusError with Anthropic's type."""
    told, seen = told_of(case), list[Any]()
    with anthropic_client(lambda http: stream_of(http, DELTA + blank, MESSAGES.event(told)), seen) as client:
        stream = client.messages.create(model="m", messages=HI, max_tokens=5, stream=True)
        assert "content_block_delta" == next(stream).type
        with pytest.raises(anthropic.APIStatusError) as raised:
            next(stream)
    body: Any = raised.value.body
    assert (ANTHROPIC_TYPES[told.status], told.message, "req_1") == (
        body["error"]["type"], body["error"]["message"], body["request_id"],
    )  # fmt: skip
    assert 1 == len(seen)


async def test_asynchronous_clients_raise_the_events_too():
    """The asynchronous halves of both SDKs read the same events."""
    told = told_of("BudgetExceeded")

    async def pieces(*given: bytes):
        for piece in given:
            yield piece

    def served(http: Any, *given: bytes) -> Any:
        head = {"content-type": "text/event-stream"}
        return http.MockTransport(lambda request: http.Response(200, headers=head, content=pieces(*given)))

    http = openai.DefaultAsyncHttpxClient(transport=served(OPENAIS, CHUNK + b"\n", CHAT.event(told)))
    async with openai.AsyncOpenAI(api_key="k", base_url="http://gateway.test/v1", http_client=http) as client:
        with pytest.raises(openai.APIError) as raised:
            async for _ in await client.chat.completions.create(model="m", messages=HI, stream=True):
                pass
        assert "budget_exhausted" == raised.value.code
    other = anthropic.DefaultAsyncHttpxClient(transport=served(ANTHROPICS, DELTA + b"\n", MESSAGES.event(told)))
    async with anthropic.AsyncAnthropic(api_key="k", base_url="http://gateway.test", http_client=other) as theirs:
        with pytest.raises(anthropic.APIStatusError) as failed:
            async for _ in await theirs.messages.create(model="m", messages=HI, max_tokens=5, stream=True):
                pass
        body: Any = failed.value.body
        assert "billing_error" == body["error"]["type"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_events_are_whole_and_one(dialect):
    """An event begins on a line of its own, has one line of data, and ends with an empty one; no `[DONE]` follows."""
    for case in CASES:
        event = DIALECTS[dialect].event(told_of(case))
        assert event.startswith(b"\n")
        assert event.endswith(b"}\n\n")
        assert 1 == event.count(b"\n\n")
        assert 1 == event.count(b"data: ")
        assert b"[DONE]" not in event
        assert b"\r" not in event


TORN = {
    "chat": (CHAT, CHUNK, {"model": "m", "messages": HI, "stream": True, "stream_options": {"include_usage": True}}),
    "chat_hiding": (CHAT, CHUNK, {"model": "m", "messages": HI, "stream": True}),
    "responses": (RESPONSES, CREATED, {"model": "m", "input": "hi", "stream": True}),
    "messages": (MESSAGES, DELTA, {"model": "m", "messages": HI, "max_tokens": 5, "stream": True}),
}


@pytest.mark.parametrize("case", TORN)
def test_an_error_can_follow_wherever_a_stream_breaks_off(case):
    """Cut at any byte: what was handed on ends with a whole line, never with a name alone; the SDK raises our error."""
    dialect, event, body = TORN[case]
    told = told_of("UpstreamError")
    whole = event + b"\n" + event + b"\n"
    for cut in range(len(event), len(whole)):
        plan = dialect.read(body).plan
        assert plan is not None
        assert plan.stream is not None
        reader = plan.stream
        shown = [piece for at in range(0, cut, 50) if (piece := reader.feed(whole[at : min(at + 50, cut)]))]
        handed = b"".join(shown)
        lines = whole[: whole.rindex(b"\n", 0, cut) + 1]
        assert lines.startswith(handed)
        assert lines[len(handed) :].startswith(b"event:") or lines == handed
        assert whole[:cut] == handed + reader.rest()
        if cut % 13:
            continue
        served = [*shown, dialect.event(told)]
        if dialect is MESSAGES:
            with anthropic_client(lambda http, served=served: stream_of(http, *served), []) as client:
                with pytest.raises(anthropic.APIStatusError, match="The provider failed"):
                    list(client.messages.create(model="m", messages=HI, max_tokens=5, stream=True))
            continue
        with (
            openai_client(lambda http, served=served: stream_of(http, *served), []) as other,
            pytest.raises(openai.APIError) as got,
        ):
            list(
                other.responses.create(model="m", input="hi", stream=True)
                if dialect is RESPONSES
                else other.chat.completions.create(model="m", messages=HI, stream=True)
            )
        assert "upstream_failed" == got.value.code
