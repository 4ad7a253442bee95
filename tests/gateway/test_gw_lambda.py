"""The gateway as a function on Lambda: events as AWS has them, answers as it wants them, and nothing left undone."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from rr_gateway import BODIES, HI, MODEL, STREAMED, TOLD, Timers, World, world
from rr_sdk_http import http_of
from runrails import ConfigError, Limits
from runrails.documents.memory import MemoryDocuments
from runrails.testing.provider import Stall, Text, founding
from runrails.usage import Usage
from runrails_aws.identity import Grant, LambdaIdentity
from runrails_gateway.aws_lambda import MARGIN_MS, Adapter, check_shared
from runrails_gateway.errors import BadRequest
from runrails_gateway.eventdoor import EventDoor
from runrails_gateway.lambda_events import ANSWER_BYTES_MAX, EventUnknown, answered, asked

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/nightly"
SESSION = {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/nightly/job-1", "userId": f"AROA{'B' * 17}:job-1"}


def url_event(path: str = "/v1/models", body: object = None, *, method: str = "POST", **headers: str) -> dict[str, Any]:
    """
    A request of a function URL. All members are there that AWS's guide to them has ("Invoking Lambda function URLs"),
    with values of ours.
    """
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "cookies": ["a=1", "b=2"],
        "headers": {
            "x-amzn-tls-version": "TLSv1.3", "x-amzn-trace-id": "Root=1-5e6722a7-cc56xmpl46db7ae02d4",
            "x-forwarded-proto": "https", "x-forwarded-port": "443", "x-forwarded-for": "203.0.113.7",
            "host": "abcdef.lambda-url.eu-west-1.on.aws", "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        "requestContext": {
            "accountId": "anonymous", "apiId": "abcdef", "authentication": None, "authorizer": None,
            "domainName": "abcdef.lambda-url.eu-west-1.on.aws", "domainPrefix": "abcdef",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7",
                     "userAgent": "agent"},
            "requestId": "e1506fd5-9e7b-434f-bd42-4f8fa224b599", "routeKey": "$default", "stage": "$default",
            "time": "22/Nov/2026:13:00:00 +0000", "timeEpoch": 1795352400000,
        },
        "pathParameters": None, "queryStringParameters": None, "stageVariables": None,
        "body": body if body is None or isinstance(body, str) else json.dumps(body), "isBase64Encoded": False,
    }  # fmt: skip


def of_role(event: dict[str, Any], **iam: object) -> dict[str, Any]:
    """The same, let in by IAM."""
    found = {"accessKey": "ASIA", "accountId": ACCOUNT, "callerId": SESSION["userId"], "cognitoIdentity": None,
             "principalOrgId": "o-abcdefghij", **SESSION, **iam}  # fmt: skip
    return {**event, "requestContext": {**event["requestContext"], "authorizer": {"iam": found}}}


class Invoked:
    """One invocation of a function."""

    def __init__(self, left_ms: int = 60_000) -> None:
        self.left_ms = left_ms

    def get_remaining_time_in_millis(self) -> int:
        return self.left_ms


def said(answer: Mapping[str, Any]) -> Any:
    """An answer's body."""
    return json.loads(answer["body"])


@contextmanager
def function(*given: Any, **options: Any) -> Iterator[tuple[World, Callable[..., dict[str, Any]]]]:
    """A function in front of a fake provider, and how it is called with a request of its world's key."""
    with world(*given, **options) as made:
        adapter = Adapter(made.config)

        def call(path: str, body: object, *, left_ms: int = 60_000, **headers: str) -> dict[str, Any]:
            event = url_event(path, body, **{"authorization": f"Bearer {made.key}", **headers})
            return adapter(event, Invoked(left_ms))

        yield made, call


# Events.


def test_a_request_of_a_function_url() -> None:
    """Method, path, query, headers and body as they were sent; the client's address as AWS saw it."""
    event = url_event("/v1/models/a%2Fb", '{"a":"\u00e9"}', X_Runrails_Run="night")
    event["rawQueryString"] = "a=1&a=2&b=%20"
    found = asked(event)
    assert ("POST", "/v1/models/a/b", b"a=1&a=2&b=%20") == (found.method, found.path, found.query)
    assert ('{"a":"é"}'.encode(), "203.0.113.7") == (found.body, found.client)
    assert (b"x-runrails-run", b"night") in found.headers
    assert found.scope()["headers"] == found.headers


def test_a_request_of_an_http_api_is_without_its_stage() -> None:
    """A stage's name stands before the path, unless it is the default one."""
    event = url_event("/prod/v1/models", method="GET")
    event["requestContext"]["stage"] = "prod"
    assert ("GET", "/v1/models", b"") == asked(event)[:3]
    event["rawPath"] = "/production/v1/models"
    assert "/production/v1/models" == asked(event).path
    assert "/$default/x" == asked(url_event("/$default/x")).path


def test_bodies_in_base64() -> None:
    """As AWS sends what it takes for binary; what only says so is malformed, and no other body."""
    event = {**url_event("/", base64.b64encode(b"\x00\xff").decode()), "isBase64Encoded": True}
    assert b"\x00\xff" == asked(event).body
    for wrong in ("no base64!", "YQ", "\u00e9"):
        with pytest.raises(BadRequest):
            asked({**event, "body": wrong})
    assert b"" == asked(url_event("/", None)).body
    assert b"\xed\xa0\x80" == asked(url_event("/", "\ud800")).body, "whose JSON the gateway then refuses"


REST: dict[str, Any] = {
    "version": "1.0", "resource": "/{proxy+}", "path": "/v1/models", "httpMethod": "GET", "headers": {},
    "multiValueHeaders": {}, "requestContext": {"stage": "prod", "httpMethod": "GET", "identity": {}}, "body": None,
}  # fmt: skip
BALANCER: dict[str, Any] = {
    "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:…"}}, "httpMethod": "GET",
    "path": "/v1/models", "queryStringParameters": {}, "headers": {}, "body": "", "isBase64Encoded": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [{}, {"key1": "value1"}, REST, BALANCER, {**url_event(), "version": "1.0"}, {**url_event(), "rawPath": None},
     {**url_event(), "requestContext": "x"}, {**url_event(), "body": 5}],
    ids=["empty", "console's test", "REST API", "load balancer", "1.0", "no path", "no context", "no text"],
)  # fmt: skip
def test_other_events_are_told_what_they_should_be(event: dict[str, Any]) -> None:
    """A function that is wired to something else says so, and does nothing."""
    with pytest.raises(EventUnknown):
        asked(event)
    with world() as made:
        answer = Adapter(made.config)(event, Invoked())
        assert (500, "event_unknown") == (answer["statusCode"], said(answer)["error"]["code"])
        made.untouched()


# Answers.


def test_answers_have_one_header_of_each_name() -> None:
    """Payload format 2.0 has no lists of values."""
    found = answered(200, [(b"X-A", b"1"), (b"x-a", b"2"), (b"x-b", b"\xe9")], b"ok")
    assert found == {
        "statusCode": 200, "headers": {"x-a": "1, 2", "x-b": "é"}, "isBase64Encoded": False, "body": "ok"
    }  # fmt: skip


def test_answers_that_are_no_text_or_too_long_as_one() -> None:
    """Base64 where it must be or is shorter; and what Lambda would throw away is none."""
    assert {"isBase64Encoded": True, "body": "AP8="}.items() <= (answered(200, [], b"\x00\xff") or {}).items()
    room = ANSWER_BYTES_MAX - 100
    assert False is (answered(200, [], b"a" * room) or {})["isBase64Encoded"]
    quotes = answered(200, [], b'"' * (ANSWER_BYTES_MAX // 2 + 100)) or {}
    assert (True, b'"' * 9) == (quotes["isBase64Encoded"], base64.b64decode(quotes["body"])[:9])
    assert answered(200, [], b"a" * ANSWER_BYTES_MAX) is None
    assert answered(200, [], b"\xff" * ANSWER_BYTES_MAX) is None


# The function.


@pytest.mark.parametrize("kind", BODIES)
def test_a_call_is_settled_when_the_function_answers(kind: str) -> None:
    """In every dialect: Lambda stops the process then, so nothing is held, and nothing goes on."""
    threads = set(threading.enumerate())
    with function() as (made, call):
        path, body = BODIES[kind]
        answer = call(path, body)
        assert (200, False) == (answer["statusCode"], answer["isBase64Encoded"])
        assert (made.billed, 0, 1) == (made.spent, made.held, made.hits)
        assert answer["headers"]["x-runrails-run"] == made.rows()[-1].facts.run
        assert 1 == made.watching.began_count == len(made.watching.over)
        # The provider's own, and the one that keeps holds alive; none of an event loop's.
        begun = set(threading.enumerate()) - threads
        assert (set(), True) == ({each.name for each in begun if "asyncio" in each.name}, len(begun) <= 4)


@pytest.mark.parametrize("kind", STREAMED)
def test_a_stream_comes_whole(kind: str) -> None:
    """Its events are all there, in the one answer that the function gives."""
    with function() as (made, call):
        path, body = BODIES[kind]
        answer = call(path, {**body, "stream": True})
        assert "text/event-stream" in answer["headers"]["content-type"]
        assert answer["body"].count("data:") > 3
        assert (made.billed, 0) == (made.spent, made.held)


def test_an_sdk_through_events() -> None:
    """A real client: its request as an event, its answer's types, and one request once the budget is used up."""
    library = http_of(openai)
    with function(TOLD, Limits(run=None, month="0.05")) as (made, call):
        events: list[str] = []

        def handle(request: Any) -> Any:
            events.append(request.url.path)
            answer = call(urlsplit(str(request.url)).path, request.content.decode())
            return library.Response(answer["statusCode"], headers=answer["headers"], text=answer["body"])

        http = openai.DefaultHttpxClient(transport=library.MockTransport(handle))
        with openai.OpenAI(api_key=made.key, base_url="https://fn.example/v1", http_client=http) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                for _ in range(20):
                    found = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000)  # type: ignore[arg-type]
                    assert found.usage is not None
                    assert 777 == found.usage.completion_tokens
            before = len(events)
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000)  # type: ignore[arg-type]
        assert (402, "budget_exhausted", before + 1) == (refused.value.status_code, refused.value.code, len(events))
        assert (made.billed, 0) == (made.spent, made.held)


def test_a_conversation_is_known_in_every_sandbox() -> None:
    """Each request may come to a process of its own: they share documents, and the founding story ends as ever."""
    documents = MemoryDocuments()
    with world(founding(), Limits(), documents=documents) as made:
        messages: list[Any] = [{"role": "user", "content": "Classify the review."}]
        runs, executed = set(), 0
        for _ in range(20):
            body = {"model": MODEL, "messages": messages, "max_tokens": 500}
            event = url_event("/v1/chat/completions", body, authorization=f"Bearer {made.key}")
            answer = Adapter(made.config)(event, Invoked())
            runs.add(answer["headers"]["x-runrails-run"])
            if answer["statusCode"] != 200:
                break
            message = said(answer)["choices"][0]["message"]
            messages.append(message)
            for call in message.get("tool_calls") or ():
                executed += 1
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": "null"})
        assert (403, "loop_detected", 5, 1) == (
            answer["statusCode"], said(answer)["error"]["code"], executed, len(runs)
        )  # fmt: skip


def test_a_provider_that_takes_longer_than_the_function_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told in time, and the call is settled: a function that runs out of time is killed."""
    timers = Timers(monkeypatch)
    with function(Stall(threading.Event(), Text("late")), drain_ms_max=1) as (made, call):

        def run_out() -> None:
            made.provider.wait_received(1)
            timers.end(54_321)

        waiting = threading.Thread(target=run_out)
        waiting.start()
        answer = call("/v1/chat/completions", BODIES["chat"][1], left_ms=MARGIN_MS + 54_321)
        waiting.join()
        assert (504, "upstream_timeout") == (answer["statusCode"], said(answer)["error"]["code"])
        assert (1, 0, True) == (made.hits, made.held, made.spent > 0)


def test_a_function_without_time_sends_nothing() -> None:
    """What is left would not do to settle in."""
    with function() as (made, call):
        answer = call("/v1/chat/completions", BODIES["chat"][1], left_ms=MARGIN_MS)
        assert (503, "function_timeout", "false") == (
            answer["statusCode"], said(answer)["error"]["code"], answer["headers"]["x-should-retry"]
        )  # fmt: skip
        made.untouched()


def test_an_answer_that_lambda_would_throw_away() -> None:
    """A plain word instead of the platform's own error, and the books are right."""
    text = Text("é" * 3_100_000, usage=Usage(input_tokens=10, output_tokens=10), ignores_max_tokens=True)
    with function(text) as (made, call):
        answer = call("/v1/chat/completions", BODIES["chat"][1])
        assert (502, "answer_too_large") == (answer["statusCode"], said(answer)["error"]["code"])
        assert (made.billed, 0) == (made.spent, made.held)


def test_what_is_refused_is_refused_here_too() -> None:
    """Nobody known, two credentials in one header, bad JSON, unknown addresses: as the server has it."""
    with function() as (made, call):
        path, body = BODIES["chat"]
        two = f"Bearer {made.key}, Bearer {made.key}"
        for headers, sent, where, status in (
            ({"authorization": "Bearer rr_live_x"}, body, path, 401), ({"authorization": two}, body, path, 401),
            ({"x_api_key": made.key}, body, path, 401), ({}, "{", path, 400), ({}, "\ud800", path, 400),
            ({}, body, "/v1/else", 404), ({"content_encoding": "gzip"}, body, path, 400),
        ):  # fmt: skip
            assert status == call(where, sent, **headers)["statusCode"]
        made.untouched()


# Behind IAM.


@pytest.fixture
def behind_iam() -> Iterator[tuple[World, Adapter]]:
    """A function that believes its events."""
    grants = [Grant(arn=ROLE, user="nightly", org="acme", scopes=frozenset({"ai:complete"}))]
    with world() as made:
        yield made, Adapter(made.config, EventDoor(LambdaIdentity("http", grants, MemoryDocuments())))


def test_whom_the_event_names_pays(behind_iam: tuple[World, Adapter]) -> None:
    """The signature in the request's own header is AWS's to read; the money is the granted user's."""
    made, adapter = behind_iam
    event = url_event(*BODIES["chat"], authorization="AWS4-HMAC-SHA256 Credential=…", x_api_key=made.key)
    assert 200 == adapter(of_role(event), Invoked())["statusCode"]
    assert (0, made.billed) == (made.spent, made.store.balance(made.account("user:nightly")).spent)


def test_nobody_comes_in_by_a_header(behind_iam: tuple[World, Adapter]) -> None:
    """Not with a key, not with what an event stood for before, and not as somebody who is not granted."""
    made, adapter = behind_iam
    path, body = BODIES["chat"]
    mine = url_event(path, body, authorization=f"Bearer {made.key}")
    assert 200 == adapter(of_role(url_event(path, body)), Invoked())["statusCode"]
    forged = url_event(path, body, authorization=f"Bearer runrails-aws-event.{'0' * 64}")
    spoofed = url_event(path, body, x_amzn_request_context=json.dumps(of_role(url_event())["requestContext"]))
    mallory = of_role(mine, userArn=f"arn:aws:sts::{ACCOUNT}:assumed-role/mallory/job-1")
    anew = of_role(mine, userId=f"AROA{'C' * 17}:job-1")
    hits = made.hits
    for event in (mine, forged, spoofed, mallory, anew, of_role(mine, userArn=None)):
        assert 401 == adapter(event, Invoked())["statusCode"]
    assert hits == made.hits


# Where its books are.


@pytest.mark.parametrize(
    ("setting", "url", "hint"),
    [
        ("RUNRAILS_STORE", "", "dynamodb://TABLE"),
        ("RUNRAILS_STORE", "sqlite:////tmp/ledger.db", "dynamodb://TABLE"),
        ("RUNRAILS_STORE", "memory:", "dynamodb://TABLE"),
        ("RUNRAILS_VAULT", "sqlite:////tmp/vault.db", "dynamodb://TABLE"),
        ("RUNRAILS_STORE", "dynamodb://t?region=eu-west-1&lease=user", "Leave the lease out"),
    ],
)
def test_books_that_lambda_would_throw_away(monkeypatch: pytest.MonkeyPatch, setting: str, url: str, hint: str) -> None:
    """A file there lasts as long as the process; money leased to a process is gone with it."""
    monkeypatch.setenv("RUNRAILS_STORE", "dynamodb://t?region=eu-west-1")
    check_shared()
    monkeypatch.setenv(setting, url)
    with pytest.raises(ConfigError) as refused:
        check_shared()
    assert (True, True) == (hint in refused.value.next_step, setting in f"{refused.value.what}")
