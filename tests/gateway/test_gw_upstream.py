"""What decides about upstreams: when they rest, when to ask again, which headers pass, what a configuration may be."""

from __future__ import annotations

import pytest

from runrails.errors import ConfigError
from runrails.keyroutes import KeyPlace
from runrails_gateway.config import Limited, Upstream, matches
from runrails_gateway.upstream.breaker import Breaker, BreakerPolicy
from runrails_gateway.upstream.headers import passed_back, passed_on, with_key
from runrails_gateway.upstream.retrying import Attempt, is_upstreams_fault, pause_ms, retry_after_ms

POLICY = BreakerPolicy(failures_max=3, rest_ms=1_000)


def failing(count: int, at_ms: int = 0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(count):
        breaker.failed(at_ms)
    return breaker


@pytest.mark.parametrize(("failures", "closed"), [(0, True), (2, True), (3, False), (4, False)])
def test_breaker_opens_after_that_many_failures(failures: int, closed: bool) -> None:
    """One failure less than the limit leaves it closed."""
    breaker = failing(failures)
    assert (closed, closed) == (breaker.closed, breaker.enter(999))
    assert (0 if closed else 1_000) == breaker.left_ms(0)


def test_success_between_failures_counts_anew() -> None:
    """Only failures in a row count."""
    breaker = failing(2)
    breaker.succeeded()
    breaker.failed(0)
    breaker.failed(0)
    assert breaker.closed


def test_one_request_tries_a_resting_upstream() -> None:
    """After the rest a single request is let through; the others wait for what becomes of it."""
    breaker = failing(3)
    assert not breaker.enter(999)
    assert breaker.enter(1_000)
    assert not breaker.enter(1_000)
    assert not breaker.enter(1_999)
    assert breaker.enter(2_000), "the one before never told"


def test_trial_decides() -> None:
    """A trial that fails opens it for as long again, one that succeeds closes it."""
    breaker = failing(3)
    assert breaker.enter(1_000)
    breaker.failed(1_500)
    assert (False, 1_000) == (breaker.enter(2_499), breaker.left_ms(1_500))
    assert breaker.enter(2_500)
    breaker.succeeded()
    assert (True, 0) == (breaker.enter(2_500), breaker.left_ms(2_500))


@pytest.mark.parametrize(
    ("attempt", "left", "pause"),
    [
        (Attempt(503, sent=True), 1, 250),
        (Attempt(503, sent=True), 0, None),
        (Attempt(500, sent=True), 1, 250),
        (Attempt(529, sent=True), 1, 250),
        (Attempt(400, sent=True), 1, None),
        (Attempt(401, sent=True), 1, None),
        (Attempt(402, sent=True), 1, None),
        (Attempt(404, sent=True), 1, None),
        (Attempt(501, sent=True), 1, None),
        (Attempt(429, sent=True), 1, None),
        (Attempt(429, sent=True, retry_after_ms=2_000), 1, 2_000),
        (Attempt(429, sent=True, retry_after_ms=2_001), 1, None),
        (Attempt(503, sent=True, retry_after_ms=2_001), 1, None),
        (Attempt(503, sent=True, should_retry=False), 1, None),
        (Attempt(400, sent=True, should_retry=True), 1, None),
        (Attempt(None, sent=False), 1, 250),
        (Attempt(None, sent=False, timed_out=True), 1, 250),
        (Attempt(None, sent=True), 1, 250),
        (Attempt(None, sent=True, timed_out=True), 1, None),
    ],
    ids=str,
)  # fmt: skip
def test_pause_before_another_attempt(attempt: Attempt, left: int, pause: int | None) -> None:
    """Again only where it may help soon, is paid for, and the provider has not said that it is in vain."""
    assert pause == pause_ms(attempt, made=1, left=left, jitter=1.0)


def test_pause_grows_and_ends() -> None:
    """Each pause is twice the one before, up to the longest; chance takes up to half of it."""
    attempt = Attempt(503, sent=True)
    assert [250, 500, 1_000, 2_000, 2_000] == [pause_ms(attempt, made=n, left=1, jitter=1.0) for n in range(1, 6)]
    assert 125 == pause_ms(attempt, made=1, left=1, jitter=0.0)


@pytest.mark.parametrize(
    ("attempt", "unknown"),
    [(Attempt(None, sent=True), True), (Attempt(None, sent=False), False), (Attempt(500, sent=True), False)],
    ids=str,
)
def test_only_what_was_sent_and_not_answered_is_unknown(attempt: Attempt, unknown: bool) -> None:
    """A definite error costs nothing, nor does what never left."""
    assert unknown == attempt.unknown


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "ms"),
    [
        (None, None, None), ("2", None, 2_000), ("0.5", None, 500), ("2", "50", 50), ("x", "y", None),
        ("Sat, 21 Nov 2026 10:00:00 GMT", None, None), ("-1", None, None), ("inf", None, None), ("nan", None, None),
        ("1e300", None, None), ("3600", None, 3_600_000),
    ],
)  # fmt: skip
def test_retry_after_is_read(seconds: str | None, milliseconds: str | None, ms: int | None) -> None:
    """Numbers are; dates and nonsense are as if nothing was said."""
    assert ms == retry_after_ms(seconds, milliseconds)


@pytest.mark.parametrize(
    ("status", "fault"),
    [(200, False), (400, False), (408, False), (429, False), (500, False), (502, True), (503, True), (529, True)],
)
def test_whose_fault(status: int, fault: bool) -> None:
    """What the request brought about does not have an upstream rest."""
    assert fault == is_upstreams_fault(status)


def test_only_known_headers_go_on() -> None:
    """No credential, cookie, address, account or idempotency key of a caller reaches a provider."""
    given = [
        (b"authorization", b"Bearer rr_live_x"), (b"x-api-key", b"rr_live_x"), (b"cookie", b"a=b"),
        (b"host", b"gw"), (b"x-forwarded-for", b"10.0.0.1"), (b"openai-organization", b"org"),
        (b"openai-project", b"p"), (b"idempotency-key", b"k"), (b"x-runrails-run", b"r"), (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"), (b"accept-encoding", b"gzip"), (b"content-type", b"text/plain"),
        (b"user-agent", b"me/1"), (b"anthropic-beta", b"a"), (b"anthropic-beta", b"b"), (b"accept", b"a\r\nb: c"),
    ]  # fmt: skip
    expected = {
        "Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "me/1",
        "anthropic-beta": "a, b",
    }  # fmt: skip
    assert expected == passed_on(given, "openai")
    assert expected | {"anthropic-version": "2023-06-01"} == passed_on(given, "anthropic")


def test_key_goes_where_the_dialect_wants_it() -> None:
    """And nowhere else."""
    assert {"Authorization": "Bearer k"} == with_key({}, "openai", "k")
    assert {"x-api-key": "k"} == with_key({}, "anthropic", "k")
    assert {} == with_key({}, "openai", None)


THEIRS = {
    "Content-Type": "application/json", "Set-Cookie": "a=b", "Server": "cloudflare", "Connection": "close",
    "X-Should-Retry": "true", "openai-organization": "acme", "openai-processing-ms": "12",
    "x-ratelimit-remaining-requests": "7", "anthropic-ratelimit-tokens-limit": "9", "x-request-id": "req_theirs",
    "Content-Encoding": "gzip", "Content-Length": "5", "alt-svc": "h3", "Location": "https://evil.example",
}  # fmt: skip


@pytest.mark.parametrize("byok", [False, True])
def test_only_known_headers_come_back(byok: bool) -> None:
    """The platform's rate limits are nobody's business; those of the caller's own key are theirs to know."""
    expected = [
        (b"content-type", b"application/json"), (b"openai-processing-ms", b"12"),
        *([(b"x-ratelimit-remaining-requests", b"7"), (b"anthropic-ratelimit-tokens-limit", b"9")] if byok else []),
        (b"x-runrails-upstream-request-id", b"req_theirs"),
    ]  # fmt: skip
    assert expected == passed_back(THEIRS, byok=byok)


def test_malformed_answer_headers_stay() -> None:
    """What could break the answer's own headers, or is no id."""
    assert [] == passed_back({"openai-version": "a\nb", "request-id": "x y"}, byok=True)


def upstream(**changes: object) -> Upstream:
    return Upstream(**{"name": "a", "dialect": "openai", "base_url": "https://api.openai.com/v1", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""}, {"name": "a b"}, {"dialect": "gopher"}, {"base_url": "ftp://x"}, {"base_url": "https://"},
        {"base_url": "https://u:p@x/v1"}, {"base_url": "https://x/v1?a=b"}, {"base_url": "https://x/v1#a"},
        {"base_url": "https://x\\y"}, {"base_url": "https://ä.example"}, {"base_url": "https://x/ v1"},
        {"models": "gpt-4o"}, {"models": ()}, {"models": ("a*b",)}, {"models": ("",)}, {"retries": -1},
        {"retries": 6}, {"retries": True}, {"connect_ms": 0}, {"silence_ms": 3_600_001},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_upstreams_are_refused(changes: dict[str, object]) -> None:
    """With the fix in the error, and no value in it."""
    with pytest.raises(ConfigError):
        upstream(**changes)


@pytest.mark.parametrize(
    ("changes", "provider", "place"),
    [
        ({}, "openai", KeyPlace("openai", None)),
        ({"base_url": "https://eu.api.openai.com/v1/"}, "openai", KeyPlace("openai", None)),
        ({"base_url": "https://llm.example/v1/"}, None, KeyPlace("openai", "https://llm.example/v1")),
        ({"base_url": "http://api.openai.com/v1"}, None, KeyPlace("openai", "http://api.openai.com/v1")),
        ({"provider": "azure"}, "azure", KeyPlace("openai", None)),
        (
            {"dialect": "anthropic", "base_url": "https://api.anthropic.com"}, "anthropic",
            KeyPlace("anthropic", None),
        ),
        ({"dialect": "bedrock", "region": "us-east-1"}, "bedrock", None),
    ],
    ids=str,
)  # fmt: skip
def test_whose_prices_and_keys(changes: dict[str, object], provider: str | None, place: KeyPlace | None) -> None:
    """A provider's own address is known; a key goes to no other than the one it is kept for."""
    made = upstream(**changes)
    assert (provider, place) == (made.provider, made.place)


def test_upstream_does_not_show_its_key() -> None:
    """Not even in its repr."""
    from runrails.secretvalue import Secret

    assert "sk-secret" not in repr(upstream(key=Secret("sk-secret-0123456789")))


@pytest.mark.parametrize(
    ("patterns", "model", "expected"),
    [
        (("gpt-*",), "gpt-4o", True), (("gpt-*",), "o3", False), (("o3",), "o3", True), (("o3",), "o3-mini", False),
        (("*",), "", True), (("gpt-*", "o3"), "o3", True), (("../*",), "../../etc", True), (("a",), "A", False),
    ],
)  # fmt: skip
def test_models_are_matched_by_name(patterns: tuple[str, ...], model: str, expected: bool) -> None:
    """Letter by letter, with a star at the end alone."""
    assert expected == matches(patterns, model)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "1"])
def test_limits_are_whole_numbers(value: object) -> None:
    """None of them can be switched off by accident."""
    with pytest.raises(ConfigError):
        Limited(body_bytes_max=value)  # type: ignore[arg-type]
