"""The way of one request: what is looked at when, what is refused, what comes back, and what the ledger has of it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from rr_far import FarStore
from rr_gateway import (
    BODIES,
    HI,
    HOUSE,
    MODEL,
    STREAMED,
    TOLD,
    Caller,
    World,
    asked,
    changed,
    drained,
    gateway,
    running,
    world,
)
from rr_routed import ALICE
from runrails import Limits
from runrails.credentials import CredentialId, KeyRing, Vault
from runrails.credentials.router import Router
from runrails.documents.memory import MemoryDocuments
from runrails.errors import ConfigError
from runrails.keyroutes import KeyPolicy
from runrails.secretvalue import Secret
from runrails.testing.provider import Delay, Error, HangUp, Text
from runrails.usage import Usage
from runrails_gateway import GatewayConfig, Upstream
from runrails_gateway.exchange import Exchange

KINDS = tuple(BODIES)


async def told(made: World, caller: Caller) -> Caller:
    """Ask a gateway that runs for this request alone."""
    async with running(made.config) as app:
        await app(caller.scope, caller.receive, caller.send)
        await drained(app)
    return caller


def refused(made: World, caller: Caller, status: int, code: str | None = None) -> None:
    """With that answer, and nothing was sent, spent or held."""
    assert (status, True) == (caller.status, caller.complete)
    error = caller.json()["error"]
    if code is not None:
        assert code == error.get("code", code)
    made.untouched()


# Before the body.


class Unread(Caller):
    """A caller whose body must not be asked for."""

    async def receive(self) -> dict[str, Any]:
        raise AssertionError("the body was read")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer rr_live_nobody"}, 401),
        ({"authorization": "Basic YWxpY2U6eA=="}, 401),
        ({"content-length": "33554433"}, 413),
        ({"content-length": "-1"}, 400),
        ({"content-length": "9" * 30}, 400),
        ({"content-length": "5", "transfer-encoding": "chunked"}, 400),
        ({"content-encoding": "gzip"}, 400),
        ({"x-much": "x" * 20_000}, 400),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["chat", "messages"])
async def test_refused_before_the_body_is_read(kind: str, headers: dict[str, str], status: int) -> None:
    """Whoever is not known, or announces what is not taken, sends a body in vain."""
    with world() as made:
        path, body = BODIES[kind]
        refused(made, await told(made, Unread(path, body, headers)), status)


async def test_two_credentials_are_none() -> None:
    """A proxy in front may have looked at the other one."""
    with world() as made:
        path, body = BODIES["chat"]
        caller = Unread(path, body, {"authorization": f"Bearer {made.key}"})
        caller.scope["headers"] += [(b"x-api-key", made.key.encode())]
        refused(made, await told(made, caller), 401)


async def test_missing_scope_is_found_before_the_body_is_read() -> None:
    """403, and nothing of the request is looked at."""
    with world(scopes=("ai:embed",)) as made:
        path, body = BODIES["chat"]
        refused(made, await told(made, Unread(path, body, {"authorization": f"Bearer {made.key}"})), 403)


async def test_body_that_grows_too_large() -> None:
    """One that announces no length is read up to the limit."""
    with world(body_bytes_max=1_000) as made:
        caller = asked(made, user="x" * 2_000)
        refused(made, await told(made, caller), 413)


async def test_body_that_comes_too_slowly() -> None:
    """A caller who sends half of a body holds nothing up for ever."""
    with world(body_ms_max=30) as made:
        caller = asked(made)
        caller._waiting[0]["more_body"] = True
        assert 408 == (await told(made, caller)).status
        made.untouched()


async def test_caller_who_leaves_before_the_body_is_complete() -> None:
    """Nothing happens."""
    with world() as made:
        caller = asked(made)
        caller._waiting[0]["more_body"] = True
        caller.hang_up()
        assert 0 == (await told(made, caller)).status
        made.untouched()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"x", b"[]", b"null", b'{"model":"fake-model","model":"other"}', b'{"model":NaN}', b'{"a":"\\ud800"}',
        b"\xff\xfe{}", b'{"a":' * 1_000, b"{" + b" " * 100, b'{"model":"../../etc","messages":[]}',
        b'{"model":5,"messages":[]}', b'{"model":"fake-model","messages":"hi"}',
    ],
    ids=lambda raw: raw[:20].decode("latin-1"),
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_malformed_bodies(path: str, raw: bytes) -> None:
    """4xx in the dialect, nothing echoed, nothing sent."""
    with world() as made:
        caller = Caller(path, raw, {"authorization": f"Bearer {made.key}"})
        await told(made, caller)
        assert 400 <= caller.status < 500
        assert "error" in caller.json()
        assert b"etc" not in caller.body
        made.untouched()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods(method: str) -> None:
    """405 with what is allowed."""
    with world() as made:
        caller = asked(made)
        caller.scope["method"] = method
        await told(made, caller)
        assert (405, "POST") == (caller.status, caller.headers["allow"])
        made.untouched()


@pytest.mark.parametrize("kind", ["chat", "messages"])
async def test_errors_are_in_the_dialect(kind: str) -> None:
    """With the request's id in the header and, in Anthropic's, in the body."""
    with world() as made:
        caller = await told(made, asked(made, kind, model="nobody-serves-this?"))
        told_id = caller.headers["x-request-id"]
        if kind == "messages":
            assert ("error", told_id) == (caller.json()["type"], caller.json()["request_id"])
            assert told_id == caller.headers["request-id"]
        else:
            assert {"message", "type", "param", "code"} <= set(caller.json()["error"])


# What comes back.


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_pass_untouched(kind: str) -> None:
    """An answer's bytes are the provider's own, and the cost is in a header."""
    with world() as made:
        caller = await told(made, asked(made, kind))
        row = made.rows()[-1]
        assert (200, True) == (caller.status, caller.complete)
        assert str(len(caller.body)) == caller.headers["content-length"]
        assert row.actual_pusd == round(float(caller.headers["x-runrails-cost-usd"]) * 10**12)
        assert row.facts.run == caller.headers["x-runrails-run"]
        assert ("alice", "fake-model") == (row.facts.user, row.facts.model)
        made.settled()


async def test_remaining_budget_moves() -> None:
    """Each answer says what is left of the tightest budget."""
    with world(limits=Limits(run=None, month="1.00")) as made:
        async with running(made.config) as app:
            left: list[float] = []
            for _ in range(3):
                caller = asked(made)
                await app(caller.scope, caller.receive, caller.send)
                left.append(float(caller.headers["x-runrails-budget-remaining"]))
        cost = made.rows()[0].actual_pusd / 10**12
        assert [1 - cost, 1 - 2 * cost, 1 - 3 * cost] == pytest.approx(left)


async def test_amounts_can_be_hidden() -> None:
    """Neither cost nor what is left is told then."""
    with world(hide_amounts=True, limits=Limits(run=None, month="1.00")) as made:
        caller = await told(made, asked(made))
        assert "x-runrails-run" in caller.headers
        assert not {"x-runrails-cost-usd", "x-runrails-budget-remaining"} & set(caller.headers)


async def test_cap_is_lowered_to_what_is_left() -> None:
    """A call that does not fit is made smaller, and a header says so."""
    with world(Text("hi"), Limits(run=None, month="0.02")) as made:
        caller = await told(made, asked(made))
        sent = made.provider.received[-1].body["max_completion_tokens" if _newer(made) else "max_tokens"]
        assert (200, str(sent)) == (caller.status, caller.headers["x-runrails-max-tokens"])
        assert sent < 2000


def _newer(made: World) -> bool:
    return "max_completion_tokens" in made.provider.received[-1].body


async def test_what_fits_is_sent_as_it_came() -> None:
    """No cap is forced on a caller who set none, and no byte is changed."""
    with world(Text("hi"), Limits(run="1.00")) as made:
        raw = b'{ "model": "fake-model", "messages": [{"role":"user","content":"hi"}],  "seed": 1e3 }'
        caller = await told(made, Caller("/v1/chat/completions", raw, {"authorization": f"Bearer {made.key}"}))
        assert 200 == caller.status
        assert {"model", "messages", "seed"} == set(made.provider.received[-1].body)
        assert "x-runrails-max-tokens" not in caller.headers


async def test_upstreams_own_headers_stay_away() -> None:
    """Its cookies, rate limits and advice on retries are not the caller's."""
    theirs = {"set-cookie": "a=b", "x-should-retry": "true", "x-ratelimit-limit-requests": "9", "retry-after": "7"}
    with world(Error(429, headers=theirs)) as made:
        caller = await told(made, asked(made))
        assert (429, "7") == (caller.status, caller.headers["retry-after"])
        assert not {"set-cookie", "x-ratelimit-limit-requests", "x-should-retry", "server"} & set(caller.headers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503, 529])
async def test_upstream_errors_pass_with_status_and_body(kind: str, status: int) -> None:
    """They cost nothing, and the row says that it failed."""
    with world({MODEL: Error(status, message="no such thing")}) as made:
        caller = await told(made, asked(made, kind))
        assert (status, "no such thing") == (caller.status, caller.json()["error"]["message"])
        assert ["failed"] == [row.result.end for row in made.rows()]
        assert (0, 0) == (made.spent, made.held)
        assert 1 == made.hits


async def test_secrets_in_upstream_errors_are_taken_out() -> None:
    """The key that a provider quotes reaches nobody."""
    with world(Error(400, message=f"bad key {HOUSE} for this")) as made:
        caller = await told(made, asked(made))
        assert 400 == caller.status
        assert HOUSE.encode() not in caller.body
        assert "bad key" in caller.json()["error"]["message"]


async def test_refused_platform_key_is_not_the_callers_fault() -> None:
    """401 from upstream would read as if the gateway's own key was wrong."""
    with world(Error(401, message="Incorrect API key provided")) as made:
        caller = await told(made, asked(made))
        assert (502, "false") == (caller.status, caller.headers["x-should-retry"])
        assert b"Incorrect" not in caller.body
        assert (0, 0) == (made.spent, made.held)


async def test_redirects_are_not_followed() -> None:
    """They would take prompt and key to another host."""
    with world(Error(307, headers={"location": "http://127.0.0.1:1/v1/chat/completions"})) as made:
        caller = await told(made, asked(made))
        assert (502, 1) == (caller.status, made.hits)
        assert "location" not in caller.headers
        assert (0, 0) == (made.spent, made.held)


# Retries.


@pytest.mark.parametrize("kind", KINDS)
async def test_retried_before_the_first_byte(kind: str) -> None:
    """Inside one reservation, and only the answer is paid for."""
    with world({MODEL: [Error(503), Text("hi")]}, upstream={"retries": 1}) as made:
        caller = await told(made, asked(made, kind))
        assert (200, 2, 1) == (caller.status, made.hits, len(made.rows()))
        made.settled()


async def test_retries_end() -> None:
    """No more than were paid for; then the SDK is told not to add its own."""
    with world(Error(503), upstream={"retries": 2}) as made:
        caller = await told(made, asked(made))
        assert (503, 3, "false") == (caller.status, made.hits, caller.headers["x-should-retry"])
        assert (0, 0) == (made.spent, made.held)


async def test_retries_that_cannot_be_paid_are_not_made() -> None:
    """Near the limit they are given up before the call is made smaller."""
    with world([Error(503), TOLD], Limits(run=None, month="0.035"), upstream={"retries": 2}) as made:
        caller = await told(made, asked(made))
        assert (503, 1) == (caller.status, made.hits)


async def test_unknown_attempts_are_paid_for() -> None:
    """A connection that broke after the request was sent costs its bound, beside what the retry's answer costs."""
    with world([HangUp(TOLD), TOLD], upstream={"retries": 1}) as made:
        caller = await told(made, asked(made))
        row = made.rows()[-1]
        assert (200, 2) == (caller.status, made.hits)
        assert row.actual_pusd == TOLD_PUSD + row.estimated_pusd // 2
        assert made.billed <= made.spent


TOLD_PUSD = (3321 * 3 + 1000 * 3 // 10 + 777 * 15) * 10**6
"""What `TOLD` costs: dollars per million tokens are millionths of a dollar for one."""


async def test_unknown_outcome_is_charged_at_the_hold() -> None:
    """Nobody knows whether it was worked on."""
    with world(HangUp(TOLD)) as made:
        caller = await told(made, asked(made))
        row = made.rows()[-1]
        assert (502, "unknown", row.estimated_pusd) == (caller.status, row.result.end, row.actual_pusd)
        assert made.billed <= made.spent


@pytest.mark.parametrize("kind", KINDS)
async def test_unreachable_upstream_costs_nothing(kind: str) -> None:
    """What never left is free: 502 in the dialect."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        dialect = "anthropic" if kind == "messages" else "openai"
        with world(upstreams=(Upstream(name="gone", dialect=dialect, base_url=url, retries=0),)) as made:
            caller = await told(made, asked(made, kind))
            assert (502, ["failed"]) == (caller.status, [row.result.end for row in made.rows()])
            assert (0, 0) == (made.spent, made.held)


async def test_silent_upstream_times_out() -> None:
    """504, charged at the hold, and not tried again."""
    import threading

    from runrails.testing.provider import Stall

    with world(Stall(threading.Event()), upstream={"silence_ms": 100, "retries": 2}) as made:
        caller = await told(made, asked(made))
        assert (504, 1) == (caller.status, made.hits)
        assert ["unknown"] == [row.result.end for row in made.rows()]


async def test_failing_upstream_rests() -> None:
    """After five failures in a row it is not asked for a moment, and nothing is held for it."""
    with world(Error(503)) as made:
        async with running(made.config) as app:
            statuses = []
            for _ in range(7):
                caller = asked(made)
                await app(caller.scope, caller.receive, caller.send)
                statuses.append(caller.status)
            assert app.hot is not None
            assert ("fake-openai",) == app.hot.resting
        assert [503] * 7 == statuses
        assert (5, 5, 0, 0) == (made.hits, len(made.rows()), made.spent, made.held)


async def test_one_callers_bad_requests_let_nothing_rest() -> None:
    """A request that has the provider fail, again and again, is no reason not to ask it for others."""
    with world(Error(500)) as made:
        async with running(made.config) as app:
            for _ in range(7):
                caller = asked(made)
                await app(caller.scope, caller.receive, caller.send)
        assert 7 == made.hits


async def test_second_upstream_takes_over() -> None:
    """One with the same prices is asked where the first has failed."""
    with world(TOLD) as made, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = Upstream(name="gone", dialect="openai", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        there = made.config.upstreams[0]
        made.config = changed(made.config, upstreams=(gone, there))
        caller = await told(made, asked(made))
        assert (200, 1) == (caller.status, made.hits)
        made.settled()


# Keys of users' own.


def vault_of(made: World, *secrets: tuple[str, str], policy: KeyPolicy | None = None) -> Router:
    vault = Vault(MemoryDocuments(), KeyRing("k1", {"k1": Secret(os.urandom(32))}))
    for owner, secret in secrets:
        vault.add(CredentialId(owner, "openai"), Secret(secret), base_url=made.provider.openai_url)
    return Router(vault, policy, fresh_ms=0)


async def test_users_own_key_pays() -> None:
    """It goes into the header, and the row says so; the platform's month is not drawn on."""
    with world() as made:
        made.guard.credentials = vault_of(made, ("user:alice", ALICE))
        await told(made, asked(made))
        row = made.rows()[-1]
        assert f"Bearer {ALICE}" == made.provider.received[-1].headers["authorization"]
        assert (True, "user:alice/openai/default", 0) == (row.facts.byok, row.facts.credential, made.spent)
        made.provider.wait_idle()
        assert made.billed == made.store.balance(made.account("byok:alice")).spent


@pytest.mark.parametrize(("fall_back", "status", "hits"), [(False, 401, 1), (True, 200, 2)])
async def test_refused_key_falls_back_once_if_the_policy_says_so(fall_back: bool, status: int, hits: int) -> None:
    """It is marked, and the next one is taken, or nobody's."""

    def script(request: Any) -> Any:
        return Error(401, message="bad key") if ALICE in request.headers["authorization"] else TOLD

    with world(script) as made:
        made.guard.credentials = vault_of(made, ("user:alice", ALICE), policy=KeyPolicy(fall_back=fall_back))
        caller = await told(made, asked(made))
        assert (status, hits, hits) == (caller.status, made.hits, len(made.rows()))
        assert "failed" in [row.result.end for row in made.rows()]
        made.settled()


async def test_key_that_no_header_can_hold() -> None:
    """It is refused by name, and nothing is sent."""
    with world() as made:
        made.guard.credentials = vault_of(made, ("user:alice", "sk-with\nbreak-0123456789abcdef"))
        caller = await told(made, asked(made))
        assert (403, 0, 0, 0) == (caller.status, made.hits, made.spent, made.held)
        assert b"sk-with" not in caller.body


async def test_policy_without_a_key() -> None:
    """Who must have a key of their own and has none is told so."""
    with world() as made:
        made.guard.credentials = vault_of(made, policy=KeyPolicy(byok="require"))
        refused(made, await told(made, asked(made)), 403)


async def test_models_are_those_that_the_policy_allows() -> None:
    """And that have a price and an upstream."""
    with world(guard={"prices": {"a": "0", "b": "0"}}, upstream={"models": ("a", "b", "c")}) as made:
        made.guard.credentials = vault_of(made, policy=KeyPolicy(models=("b",)))
        caller = Caller("/v1/models", b"", {"authorization": f"Bearer {made.key}"}, method="GET")
        assert ["b"] == [model["id"] for model in (await told(made, caller)).json()["data"]]


# Others.


async def test_remote_ledger_is_never_asked_on_the_loop() -> None:
    """A store across a network must not keep up other requests."""
    store = FarStore()
    with world(store=store, authentication_waits=True) as made:
        for kind in KINDS:
            assert 200 == (await told(made, asked(made, kind))).status
        assert [] == store.on_loop
        made.settled()


async def test_ledger_out_of_reach() -> None:
    """503, nothing sent, and the SDK is told not to hammer it."""
    from runrails.stores.memory import MemoryStore
    from runrails.testing import FlakyStore

    store = FlakyStore(MemoryStore(), ["request_lost"] * 50)
    with world(store=store) as made:
        caller = await told(made, asked(made))
        assert (503, "false", 0) == (caller.status, caller.headers["x-should-retry"], made.hits)


async def test_watchers_hear_of_everything_and_break_nothing() -> None:
    """One that fails is told of; the caller gets the answer."""

    class Broken:
        def began(self, exchange: Exchange) -> None:
            raise RuntimeError

        def ended(self, exchange: Exchange) -> None:
            raise RuntimeError

    with world(watchers=(Broken(),)) as made:
        caller = await told(made, asked(made))
        seen = made.watching.over[-1]
        assert (200, 1) == (caller.status, made.watching.began_count)
        assert ("answered", 200, MODEL, "fake-openai") == (seen.ending, seen.status, seen.model, seen.upstream)
        assert seen.principal is not None
        assert "alice" == seen.principal.user
        assert 2 == made.names().count("watcher_failed")


async def test_stream_is_broken_off_where_the_budget_ends() -> None:
    """A provider that ignores the cap: what comes is worth more than can be held for, so the stream ends with why."""
    long = Text("word " * 20_000, ignores_max_tokens=True, chunks=2_000)
    with world(long, Limits(run=None, month="0.05")) as made:
        caller = await told(made, asked(made, stream=True, max_tokens=20))
        made.provider.wait_idle()
        assert (200, True) == (caller.status, caller.complete)
        assert b"budget_exhausted" in caller.pieces[-1]
        assert ["cut"] == [row.result.end for row in made.rows()]
        assert 0 == made.held


@pytest.mark.parametrize("kind", STREAMED)
async def test_provider_says_in_a_stream_that_it_failed(kind: str) -> None:
    """Its own event passes, and it is settled."""
    with world(HangUp(TOLD, after_chunks=2, error=Error(500, message="overloaded now"))) as made:
        caller = await told(made, asked(made, kind, stream=True))
        made.provider.wait_idle()
        assert b"overloaded now" in caller.body
        assert (1, 0) == (len(made.rows()), made.held)


async def test_counting_tokens_costs_nothing() -> None:
    """And needs no permit."""
    with world() as made:
        path = "/v1/messages/count_tokens"
        caller = Caller(path, {"model": MODEL, "messages": HI}, {"x-api-key": made.key})
        assert (200, []) == ((await told(made, caller)).status, made.rows())
        assert caller.json()["input_tokens"] > 0


async def test_counting_goes_out_on_the_key_that_calls_do() -> None:
    """The platform's own is not for those who must have one."""
    with world() as made:
        made.guard.credentials = vault_of(made, policy=KeyPolicy(byok="require"))
        path = "/v1/messages/count_tokens"
        refused(made, await told(made, Caller(path, {"model": MODEL, "messages": HI}, {"x-api-key": made.key})), 403)


async def test_repeated_run_header() -> None:
    """Which of two is meant, nobody can tell."""
    with world() as made:
        caller = asked(made, headers={"x-runrails-run": "a"})
        caller.scope["headers"].append((b"x-runrails-run", b"b"))
        refused(made, await told(made, caller), 400)


@pytest.mark.parametrize("host", ["evil.example", "gw/#@evil.example"])
async def test_no_answer_depends_on_the_host_header(host: str) -> None:
    """There are no redirects made from it."""
    with world() as made:
        for path in ("/v1/models/", "/v1/chat/completions/", "//evil.example/v1/models"):
            caller = await told(made, Caller(path, b"", {"host": host, "x-api-key": made.key}, method="GET"))
            assert 404 == caller.status
            assert "location" not in caller.headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200), ("/readyz", 200), ("/docs", 404), ("/openapi.json", 404), ("/v1/nothing", 404),
        ("/v1/models", 401),
    ],
)  # fmt: skip
async def test_other_addresses(path: str, status: int) -> None:
    """Docs are off unless they are asked for, and what is not there is told in JSON."""
    with world() as made:
        caller = await told(made, Caller(path, b"", {}, method="GET"))
        assert status == caller.status
        if status != 200:
            assert "error" in caller.json()


async def test_not_ready_without_the_ledger() -> None:
    """The process is healthy all the same."""
    from runrails.errors import StoreUnavailable

    class Away(FarStore):
        def balance(self, account: Any) -> Any:
            raise StoreUnavailable("gone", next_step="x")

    with world(store=Away()) as made:
        assert 503 == (await told(made, Caller("/readyz", b"", {}, method="GET"))).status
        assert 200 == (await told(made, Caller("/healthz", b"", {}, method="GET"))).status


def test_large_body_is_refused_over_a_socket() -> None:
    """100 MB of it: 413 before it is read."""
    import http.client

    with gateway() as made:
        connection = http.client.HTTPConnection("127.0.0.1", int(made.url.rpartition(":")[2]), timeout=10)
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in {"authorization": f"Bearer {made.key}", "content-length": str(100 * 2**20)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert 413 == answer.status
        assert "error" in json.loads(answer.read())
        connection.close()
        made.untouched()


HASTE_S = 1.0
"""Longer than a busy machine takes between a connection and its first bytes."""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections whose patience ends soon."""
    from runrails_gateway import protocol

    monkeypatch.setattr(protocol, "HEAD_S_MAX", HASTE_S)
    monkeypatch.setattr(protocol, "REST_S_MAX", HASTE_S)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /v1/chat/completions HT", b"HTTP/1.1 408"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ", b"HTTP/1.1 408"),
        (b"POST / HTTP/1.1\r\nx-much: " + b"x" * 70_000, b"HTTP/1.1 431"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{", b"HTTP/1.1 401"),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400"),
    ],
    ids=["nothing", "half a line", "slow header", "large header", "slow body", "no HTTP"],
)
def test_connections_that_keep_us_waiting_are_closed(hasty: None, sent: bytes, answer: bytes) -> None:
    """In time, whatever of a request they have sent."""
    with gateway() as made, socket.create_connection(("127.0.0.1", int(made.url.rpartition(":")[2])), 10) as line:
        line.sendall(sent)
        told = b""
        while piece := line.recv(65_536):
            told += piece
        assert told[: len(answer)] == answer
        assert (answer == b"") == (told == b"")
        made.untouched()


def test_connections_are_kept_alive(hasty: None) -> None:
    """Several requests on one, and one that waits longer than a head may take is not cut off."""
    import httpx

    slow = Delay(round(1_000 * HASTE_S) + 100, then=Text("Hello there.", usage=TOLD.usage, ignores_max_tokens=True))
    with gateway([slow, TOLD, TOLD]) as made, httpx.Client(timeout=20) as http:
        for _ in range(3):
            path, body = BODIES["chat"]
            answer = http.post(made.url + path, json=body, headers={"authorization": f"Bearer {made.key}"})
            assert 200 == answer.status_code
        made.settled()


# From the environment.


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "RUNRAILS_UPSTREAMS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEPPER", "vM3kq0hT9sJx2bYcW7nLdRf5ZgUaEoPi")
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:env:PEPPER")
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{tmp_path}/ledger.db")
    return monkeypatch


def test_environment_makes_a_gateway(environment: pytest.MonkeyPatch) -> None:
    """Keys of providers are enough, with SQLite and no AWS."""
    environment.setenv("OPENAI_API_KEY", "sk-a-0123456789abcdef")
    environment.setenv("ANTHROPIC_API_KEY", "sk-b-0123456789abcdef")
    environment.setenv("RUNRAILS_MONTH_BUDGET", "12.50")
    environment.setenv("RUNRAILS_GATEWAY_HIDE_AMOUNTS", "1")
    environment.setenv("OPENAI_BASE_URL", "https://evil.example/v1")
    config = GatewayConfig.from_env()
    try:
        found = [(each.name, each.base_url, each.provider) for each in config.upstreams]
        assert [
            ("openai", "https://api.openai.com/v1", "openai"), ("anthropic", "https://api.anthropic.com", "anthropic")
        ] == found  # fmt: skip
        assert ("12.50", True, False) == (config.guard.limits.month, config.hide_amounts, config.authentication_waits)
        assert "sk-a" not in repr(config)
        assert ["openai"] == [each.name for each in config.serving("gpt-4o", ("openai",))]
        assert () == config.serving("claude-x", ("openai",))
    finally:
        config.close()


def test_environment_names_upstreams(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file with a table for each, whose keys are references."""
    environment.setenv("MINE", "sk-mine-0123456789abcdef")
    (tmp_path / "up.toml").write_text(
        '[[upstream]]\nname = "local"\ndialect = "openai"\nbase_url = "http://127.0.0.1:8000/v1"\nkey = "env:MINE"\n'
        'models = ["llama-*"]\nretries = 3\n'
    )
    environment.setenv("RUNRAILS_UPSTREAMS", str(tmp_path / "up.toml"))
    config = GatewayConfig.from_env()
    config.close()
    upstream = config.upstreams[0]
    assert ("local", 3, ("llama-*",)) == (upstream.name, upstream.retries, upstream.models)
    assert upstream.key == Secret("sk-mine-0123456789abcdef")


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "a = 1", "[upstream]\nname='a'", "[[upstream]]\nname='a'",
        "[[upstream]]\nname='a'\ndialect='openai'\nbase_url='https://x'\nkey='sk-written-here-0123456789'",
        "[[upstream]]\nname='a'\ndialect='openai'\nbase_url='https://x'\nsurprise=1",
        "[[upstream]]\nname='a'\ndialect='openai'\nbase_url='https://x'\nmodels='a'",
        "[[upstream]]\nname='a'\ndialect='openai'\nbase_url='https://x'\nretries='1'",
    ],
    ids=str,
)  # fmt: skip
def test_malformed_files_are_refused(environment: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """With the fix in the error, and no key in it."""
    (tmp_path / "up.toml").write_text(text)
    environment.setenv("RUNRAILS_UPSTREAMS", str(tmp_path / "up.toml"))
    with pytest.raises(ConfigError) as caught:
        GatewayConfig.from_env()
    assert "sk-written" not in str(caught.value)


@pytest.mark.parametrize("missing", ["OPENAI_API_KEY", "RUNRAILS_KEY_PEPPERS"])
def test_missing_settings_are_named(environment: pytest.MonkeyPatch, missing: str) -> None:
    """One that is needed is told by name."""
    if missing != "OPENAI_API_KEY":
        environment.setenv("OPENAI_API_KEY", "sk-a-0123456789abcdef")
    environment.delenv(missing, raising=False)
    with pytest.raises(ConfigError, match=missing):
        GatewayConfig.from_env()


async def test_upstreams_in_other_currencies_do_not_take_over() -> None:
    """One with other prices is not asked in another's place: the money that is held is for the first."""
    with world() as made:
        first, _ = made.config.upstreams
        other = Upstream(name="other", dialect="openai", base_url=first.base_url, provider="azure")
        config = changed(made.config, upstreams=(first, other))
        assert (first,) == config.serving(MODEL, ("openai",))


def test_usage_of_every_call_is_exact() -> None:
    """Many calls at once over a socket: the ledger is the provider's bill."""
    from concurrent.futures import ThreadPoolExecutor

    import httpx

    cheap = Text("x", usage=Usage(input_tokens=10, output_tokens=10))
    with gateway(cheap) as made, httpx.Client(timeout=20) as http:

        def ask(n: int) -> int:
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": str(n)}],
                "max_tokens": 50,
                "stream": n % 2 > 0,
            }
            headers = {"authorization": f"Bearer {made.key}"}
            return http.post(f"{made.openai_url}/chat/completions", json=body, headers=headers).status_code

        with ThreadPoolExecutor(8) as pool:
            assert {200} == set(pool.map(ask, range(60)))
        made.settled()
        assert 60 == len(made.rows())


# Runs.


async def test_run_goes_on_once_its_budget_is_raised() -> None:
    """A stop does not outlive its reason: an operator raises a limit, and the same conversation goes on."""
    with world(Text("x", usage=Usage(input_tokens=10, output_tokens=10)), Limits(run=None, month="0.002")) as made:
        async with running(made.config) as app:

            async def ask() -> int:
                caller = asked(made, max_tokens=20, headers={"x-runrails-run": "nightly"})
                await app(caller.scope, caller.receive, caller.send)
                return caller.status

            while await ask() == 200:
                pass
            assert [402, 402] == [await ask(), await ask()]
            spent = made.spent
            made.store.set_limit("user:alice", 10**12)  # type: ignore[attr-defined]
            assert 200 == await ask()
        assert made.spent > spent
        made.settled()


async def test_runs_are_let_go() -> None:
    """The oldest idle ones first; what they have spent is in the ledger, and their budget goes on from there."""
    from runrails.identity.authenticate import enter
    from runrails_gateway.keeping import RunKeeper

    with world() as made:
        keeper = RunKeeper(made.guard.monotonic, made.guard.limits, kept_max=3)
        entered = enter(made.keys.verify(made.key), "chat.complete", guard=made.guard)
        busy = [keeper.take(entered, f"run-busy-{n}", "", 0) for n in range(10)]
        for n in range(30):
            await keeper.give(keeper.take(entered, f"run-{n}", "", 0))
        names = {run.id for run in keeper.open_runs()}
        assert {f"run-busy-{n}" for n in range(10)} <= names
        assert len(names) <= 14
        for kept in busy:
            await keeper.give(kept)
        assert len(keeper) <= 4
        await keeper.close()
        assert 0 == len(keeper)


async def test_idle_runs_are_let_go() -> None:
    """After a while, when others come."""
    from runrails.identity.authenticate import enter
    from runrails.testing import ManualClock
    from runrails_gateway.keeping import RunKeeper

    clock = ManualClock()
    with world() as made:
        keeper = RunKeeper(clock, made.guard.limits, idle_ms_max=1_000)
        entered = enter(made.keys.verify(made.key), "chat.complete", guard=made.guard)
        await keeper.give(keeper.take(entered, "run-a", "", 0))
        clock.advance(1_000)
        await keeper.give(keeper.take(entered, "run-b", "", 0))
        assert ["run-a", "run-b"] == [run.id for run in keeper.open_runs()]
        clock.advance(1)
        await keeper.give(keeper.take(entered, "run-b", "", 0))
        assert ["run-b"] == [run.id for run in keeper.open_runs()]


async def test_steps_from_elsewhere_count() -> None:
    """A run that another process began has what it took there behind it."""
    from runrails.identity.authenticate import enter
    from runrails_gateway.keeping import RunKeeper

    with world() as made:
        keeper = RunKeeper(made.guard.monotonic, made.guard.limits)
        entered = enter(made.keys.verify(made.key), "chat.complete", guard=made.guard)
        assert 7 == keeper.take(entered, "run-a", "", 7).run.report().steps
        assert 7 == keeper.take(entered, "run-a", "", 7).run.report().steps


async def test_two_keys_of_a_user_are_two_runs_of_one_budget() -> None:
    """Each key's own terms apply, and what the run may cost is counted once."""
    with world(limits=Limits(run="1.00")) as made:
        other = made.new_key("alice")
        async with running(made.config) as app:
            for key in (made.key, other):
                headers = {"authorization": f"Bearer {key}", "x-runrails-run": "nightly"}
                caller = asked(made, headers=headers)
                await app(caller.scope, caller.receive, caller.send)
                assert 200 == caller.status
        rows = made.rows()
        assert 1 == len({row.facts.run for row in rows})
        assert 2 == len({row.facts.key for row in rows})
