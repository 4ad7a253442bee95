"""Models on Bedrock through the gateway: real clients, errors, hang-ups, and a ledger that is the bill."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from rr_fake_provider import TWO_CALLS, WEATHER
from rr_gateway import BODIES, HI, MODEL, TOLD, USAGE, Caller, World, asked, changed, drained, running
from rr_gateway_bedrock import bedrock_gateway, bedrock_world, credentials
from runrails import Limits
from runrails.clients.sse import SseReader
from runrails.credentials import KeyRing, Vault
from runrails.credentials.router import Router
from runrails.documents.memory import MemoryDocuments
from runrails.errors import ConfigError
from runrails.keyroutes import KeyPolicy
from runrails.pricing.book import PriceBook
from runrails.pricing.cards import cost_pusd
from runrails.secretvalue import Secret
from runrails.testing.provider import Error, HangUp, Stall, Text, ToolCalls, founding
from runrails.testing.provider.eventstream import frame
from runrails.usage import Usage
from runrails_gateway.bedrock.sending import BedrockSender
from runrails_gateway.bedrock.streams import Thoughtful
from runrails_gateway.config import BEDROCK_MODELS, Upstream, matches
from runrails_gateway.environment import upstreams_of_environment
from runrails_gateway.upstream.sending import NoAnswer

DIALECTS = ("chat", "messages")
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
CLAUDES: Any = [{"name": "weather", "input_schema": WEATHER}]
CALLS = ToolCalls(TWO_CALLS, usage=USAGE, ignores_max_tokens=True)
CACHED = Usage(
    input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, cache_write_1h_tokens=30, output_tokens=777
)
CHUNKS = 24
LONG = Text("tick " * CHUNKS, usage=Usage(input_tokens=1000, output_tokens=500), chunks=CHUNKS, ignores_max_tokens=True)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials(monkeypatch)


@pytest.fixture(scope="module")
def gw() -> Iterator[World]:
    """One gateway for tests that change nothing about it."""
    with pytest.MonkeyPatch.context() as patch:
        credentials(patch)
        with bedrock_gateway(TOLD) as made:
            yield made


def client(made: World, **options: Any) -> openai.OpenAI:
    found = openai.OpenAI(**{"base_url": made.openai_url, "api_key": made.key, **options})
    made.closing.append(found.close)
    return found


def claude(made: World, **options: Any) -> anthropic.Anthropic:
    found = anthropic.Anthropic(**{"base_url": made.url, "api_key": made.key, **options})
    made.closing.append(found.close)
    return found


async def told(made: World, caller: Caller) -> Caller:
    """Ask a gateway that runs for this request alone."""
    async with running(made.config) as app:
        await app(caller.scope, caller.receive, caller.send)
        await drained(app)
    return caller


# Real clients.


def test_openai_chat(gw: World) -> None:
    """A chat completion is Converse to the other side, and charged what Bedrock bills."""
    answer = client(gw).chat.completions.create(
        model=MODEL, messages=[{"role": "system", "content": "Be brief."}, *HI], max_tokens=2000
    )
    assert ("Hello there, my friend.", "stop", MODEL) == (
        answer.choices[0].message.content, answer.choices[0].finish_reason, answer.model
    )  # fmt: skip
    assert answer.usage is not None
    assert (4321, 777) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    request = gw.provider.received[-1]
    assert ("bedrock", "/model/fake-model/converse", 2000) == (request.wire, request.path, request.max_tokens)
    gw.settled()


def test_openai_stream_hides_what_was_not_asked_for(gw: World) -> None:
    """The usage that Converse always tells reaches those alone who want it."""
    ours = client(gw)
    stream = ours.chat.completions.create(model=MODEL, messages=HI, max_tokens=2000, stream=True)
    chunks = list(stream)
    assert "Hello there, my friend." == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert {None} == {chunk.usage for chunk in chunks}
    stream = ours.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=2000, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1].usage
    assert last is not None
    assert (4321, 777) == (last.prompt_tokens, last.completion_tokens)
    assert last.prompt_tokens_details is not None
    assert 1000 == last.prompt_tokens_details.cached_tokens
    assert gw.provider.received[-1].path.endswith("/converse-stream")
    gw.settled()


async def test_asynchronous_clients(gw: World) -> None:
    """Both of them, whole and streamed."""
    async with openai.AsyncOpenAI(base_url=gw.openai_url, api_key=gw.key) as ours:
        answer = await ours.chat.completions.create(model=MODEL, messages=HI, max_tokens=2000)
        assert "Hello there, my friend." == answer.choices[0].message.content
        stream = await ours.chat.completions.create(model=MODEL, messages=HI, max_tokens=2000, stream=True)
        assert "Hello there, my friend." == "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    async with anthropic.AsyncAnthropic(base_url=gw.url, api_key=gw.key) as theirs:
        message = await theirs.messages.create(model=MODEL, messages=HI, max_tokens=2000)
        assert (4321, 777) == (message.usage.input_tokens + 1000, message.usage.output_tokens)
        async with theirs.messages.stream(model=MODEL, messages=HI, max_tokens=2000) as events:
            assert "Hello there, my friend." == await events.get_final_text()
    gw.settled()


def test_anthropic_messages() -> None:
    """Whole and streamed, with what the cache read and was written, for five minutes and for an hour."""
    with bedrock_gateway(Text("Rain.", usage=CACHED, ignores_max_tokens=True)) as made:
        theirs = claude(made)
        system: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
        answer = theirs.messages.create(model=MODEL, messages=HI, max_tokens=2000, system=system)
        with theirs.messages.stream(model=MODEL, messages=HI, max_tokens=2000, system=system) as stream:
            streamed = stream.get_final_message()
        for message in (answer, streamed):
            assert ["Rain."] == [block.text for block in message.content if block.type == "text"]
            usage = message.usage
            assert (3091, 777, 1000, 230) == (
                usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens,
                usage.cache_creation_input_tokens,
            )  # fmt: skip
        assert (answer._request_id or "").startswith("req_")
        assert {"type": "default", "ttl": "1h"} == made.provider.received[0].body["system"][1]["cachePoint"]
        made.settled()


def test_anthropics_beta_namespace_is_served(gw: World) -> None:
    """Its query and header go no further: Converse knows neither."""
    answer = claude(gw).beta.messages.create(model=MODEL, messages=HI, max_tokens=2000, betas=["context-1m-2025-08-07"])
    assert "end_turn" == answer.stop_reason
    assert "context-1m" not in repr(gw.provider.received[-1].headers)
    gw.settled()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_tools(stream: bool) -> None:
    """Calls come with their names, ids and arguments; their results go back, and the conversation is known again."""
    with bedrock_gateway([CALLS, TOLD, CALLS, TOLD]) as made:
        wanted = [(call.name, call.args) for call in TWO_CALLS]
        ours = client(made)
        if stream:
            with ours.chat.completions.stream(model=MODEL, messages=HI, tools=TOOLS, max_tokens=2000) as events:
                said = events.get_final_completion().choices[0].message
        else:
            said = (
                ours.chat.completions.create(model=MODEL, messages=HI, tools=TOOLS, max_tokens=2000).choices[0].message
            )
        calls: Any = said.tool_calls or []
        assert wanted == [(call.function.name, json.loads(call.function.arguments)) for call in calls]
        told_back: Any = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls]
        again: Any = [*HI, said.model_dump(exclude_none=True), *told_back]
        ours.chat.completions.create(model=MODEL, messages=again, tools=TOOLS, max_tokens=2000)
        theirs = claude(made)
        if stream:
            with theirs.messages.stream(model=MODEL, messages=HI, tools=CLAUDES, max_tokens=2000) as heard:
                message = heard.get_final_message()
        else:
            message = theirs.messages.create(model=MODEL, messages=HI, tools=CLAUDES, max_tokens=2000)
        uses = [block for block in message.content if block.type == "tool_use"]
        assert wanted == [(use.name, use.input) for use in uses]
        results: Any = [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"} for use in uses]
        theirs.messages.create(
            model=MODEL, max_tokens=2000, tools=CLAUDES,
            messages=[*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}],
        )  # fmt: skip
        for number in (1, 3):
            sent = made.provider.received[number]
            assert [use.id for m in sent.messages for use in m.tool_uses] == [
                m.tool_call_id for m in sent.messages if m.role == "tool"
            ]
        rows = made.rows()
        assert (rows[0].facts.run, rows[2].facts.run) == (rows[1].facts.run, rows[3].facts.run)
        made.settled()


@pytest.mark.parametrize("kind", DIALECTS)
def test_founding_story(kind: str) -> None:
    """An agent that would not give up: 5 executed calls with default settings, one request after the stop."""
    with bedrock_gateway(founding(), Limits()) as made:
        executed = 0
        messages: list[Any] = [{"role": "user", "content": "Classify the review."}]
        tool = {"name": "classify_review", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}
        with pytest.raises((openai.PermissionDeniedError, anthropic.PermissionDeniedError)):
            for _ in range(50):
                if kind == "chat":
                    said = client(made).chat.completions.create(
                        model=MODEL, messages=messages, tools=[{"type": "function", "function": tool}]
                    ).choices[0].message  # fmt: skip
                    asked_for = [call.id for call in said.tool_calls or ()]
                    messages += [said.model_dump(exclude_none=True), *(
                        {"role": "tool", "tool_call_id": each, "content": "null"} for each in asked_for
                    )]  # fmt: skip
                else:
                    answer = claude(made).messages.create(
                        model=MODEL, messages=messages, max_tokens=500,
                        tools=[{"name": tool["name"], "input_schema": tool["parameters"]}],
                    )  # fmt: skip
                    asked_for = [block.id for block in answer.content if block.type == "tool_use"]
                    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": each, "content": "null"} for each in asked_for
                    ]}]  # fmt: skip
                executed += len(asked_for)
        assert (5, 5, 6) == (executed, made.hits, made.watching.began_count)
        made.settled()


@pytest.mark.parametrize("kind", DIALECTS)
def test_shrunk_to_what_the_budget_can_pay(kind: str) -> None:
    """The cap that is put into a request is in what goes to Bedrock."""
    with bedrock_gateway(
        Text("x", usage=Usage(input_tokens=10, output_tokens=10)), Limits(run=None, month="0.02")
    ) as made:
        if kind == "chat":
            raw: Any = client(made).chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=2000)
        else:
            raw = claude(made).messages.with_raw_response.create(model=MODEL, messages=HI, max_tokens=2000)
        cap = made.provider.received[-1].max_tokens
        assert cap is not None
        assert (cap, True) == (int(raw.headers["x-runrails-max-tokens"]), cap < 2000)
        made.settled()


@pytest.mark.parametrize("kind", DIALECTS)
def test_exactly_one_request_after_the_budget_is_exhausted(kind: str) -> None:
    """402 with the SDKs' own retries, and nothing reaches Bedrock."""
    with bedrock_gateway(TOLD, Limits(run=None, month="0.0000001")) as made:
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
            if kind == "chat":
                client(made).chat.completions.create(model=MODEL, messages=HI, max_tokens=20)
            else:
                claude(made).messages.create(model=MODEL, messages=HI, max_tokens=20)
        assert (402, 1) == (caught.value.status_code, made.watching.began_count)
        made.untouched()


async def test_many_at_once_on_a_small_budget() -> None:
    """In both dialects, streamed and not: no more reach Bedrock than can be paid for."""
    with bedrock_world(TOLD, Limits(run=None, month="0.1")) as made:
        async with running(made.config) as app:
            callers = [asked(made, DIALECTS[n % 2], stream=n % 3 == 0) for n in range(40)]
            await asyncio.gather(*(app(each.scope, each.receive, each.send) for each in callers))
            await drained(app)
        assert {200, 402} == {each.status for each in callers}
        assert made.hits == [each.status for each in callers].count(200)
        assert made.spent <= 10**11
        made.settled()


@pytest.mark.parametrize("kind", DIALECTS)
async def test_a_stream_that_is_worth_more_than_can_be_paid_is_broken_off(kind: str) -> None:
    """A model that does not obey its cap: an event says why it ends, and Bedrock's connection is closed."""
    # Slowly, as what is on its way when it is broken off is billed by nobody but this provider.
    endless = Text("word " * 5000, chunks=5000, chunk_delay_ms=1, ignores_max_tokens=True)
    with bedrock_world(endless, Limits(run=None, month="0.02")) as made:
        caller = await told(made, asked(made, kind, stream=True, max_tokens=20))
        made.provider.wait_idle()
        assert (200, True, 0) == (caller.status, caller.complete, made.held)
        assert b"budget_exhausted" in caller.body.splitlines()[-2]
        assert (["cut"], True) == ([row.result.end for row in made.rows()], made.billed <= made.spent)
        assert caller.body.count(b"word") < 5000


# What is refused here.


@pytest.mark.parametrize(
    ("path", "body"),
    [BODIES["responses"], BODIES["embeddings"], ("/v1/messages/count_tokens", {"model": MODEL, "messages": HI})],
    ids=["responses", "embeddings", "count_tokens"],
)
async def test_other_operations_are_refused_by_name(path: str, body: dict[str, Any]) -> None:
    """400 that says what to use instead."""
    with bedrock_world() as made:
        caller = await told(made, Caller(path, body, {"authorization": f"Bearer {made.key}"}))
        assert (400, "unsupported_operation") == (caller.status, caller.json()["error"]["code"])
        assert "/v1/chat/completions" in caller.json()["error"]["message"]
        made.untouched()


@pytest.mark.parametrize(
    ("kind", "more"),
    [("chat", {"n": 2}), ("chat", {"seed": 1}), ("chat", {"service_tier": "priority"}),
     ("chat", {"messages": [{"role": "assistant", "tool_calls": [
         {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":NaN}'}}]}]}),
     ("chat", {"messages": [{"role": "assistant", "tool_calls": [
         {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1e999}'}}]}]}),
     ("messages", {"container": "x"}), ("messages", {"tool_choice": {"type": "none"}, "tools": CLAUDES})],
    ids=["answers", "seed", "tier", "nan", "infinite", "container", "no tools"],
)  # fmt: skip
async def test_what_converse_has_not_is_refused_before_anything_is_held(kind: str, more: dict[str, Any]) -> None:
    """400 in the dialect; nothing is sent, spent or held."""
    with bedrock_world() as made:
        caller = await told(made, asked(made, kind, **more))
        assert 400 == caller.status
        assert caller.json()["error"]["type"] == "invalid_request_error"
        made.untouched()


async def test_models_that_are_not_named_there_are_not_found() -> None:
    """``*`` is what Bedrock's names begin with; ARNs and others have to be named."""
    with bedrock_world(upstream={"models": ("*",)}) as made:
        for model in ("gpt-4o", "fake-model", "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/x"):
            caller = await told(made, asked(made, model=model))
            assert (404, "model_not_found") == (caller.status, caller.json()["error"]["code"])
        made.untouched()


async def test_users_own_keys() -> None:
    """Nobody can bring one to Bedrock: a policy that asks for them is refused, one that prefers them pays itself."""
    with bedrock_world() as made:
        vault = Vault(MemoryDocuments(), KeyRing("k1", {"k1": Secret(os.urandom(32))}))
        made.guard.credentials = Router(vault, KeyPolicy(byok="require"), fresh_ms=0)
        caller = await told(made, asked(made))
        assert 4 == caller.status // 100
        made.untouched()
        made.guard.credentials = Router(vault, KeyPolicy(byok="prefer"), fresh_ms=0)
        caller = await told(made, asked(made))
        assert (200, [False]) == (caller.status, [row.facts.byok for row in made.rows()])
        made.settled()


# What Bedrock refuses.

ACCOUNT = "123456789012"
OWN = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/gateway/i-1 is not authorized on {ACCOUNT}"
ERRORS: dict[str, tuple[Error, int, str]] = {
    "throttled": (Error(429, message=OWN), 429, "upstream_rate_limited"),
    "not ready": (Error(429, code="ModelNotReadyException"), 429, "upstream_rate_limited"),
    "quota": (Error(400, code="ServiceQuotaExceededException"), 429, "upstream_rate_limited"),
    "malformed": (Error(400, message=f"bad. {OWN}"), 400, "invalid_request"),
    "too long": (Error(400, message="Input is too long for requested model."), 400, "context_length_exceeded"),
    "no access": (Error(403, message=OWN), 502, "upstream_key_refused"),
    "expired": (Error(403, code="ExpiredTokenException"), 502, "upstream_key_refused"),
    "signature": (Error(400, code="IncompleteSignatureException"), 502, "upstream_key_refused"),
    "no such model": (Error(404, message=OWN), 404, "model_not_found"),
    "slow model": (Error(408), 504, "upstream_timeout"),
    "model error": (Error(424), 500, "upstream_failed"),
    "internal": (Error(500), 500, "upstream_failed"),
    "down": (Error(503), 503, "upstream_unavailable"),
    "namespaced": (Error(400, code="com.amazon.coral.service#ThrottlingException"), 429, "upstream_rate_limited"),
    "unknown": (Error(418, code="Teapot"), 500, "upstream_failed"),
}


@pytest.mark.parametrize("kind", DIALECTS)
async def test_errors_of_aws(kind: str) -> None:
    """In the caller's dialect, with the status its SDK expects, without the account; and they cost nothing."""
    with bedrock_world() as made:
        async with running(made.config) as app:
            for name, (error, status, code) in ERRORS.items():
                made.provider.use(error)
                caller = asked(made, kind, stream=name in ("throttled", "malformed", "no access"))
                await app(caller.scope, caller.receive, caller.send)
                said = caller.json()
                assert (name, status, code) == (name, caller.status, said["error"]["code"])
                assert ("type" in said) is (kind == "messages"), name
                assert ("retry-after" in caller.headers) is (status == 429 and name != "quota"), name
                assert ACCOUNT not in caller.body.decode() + repr(caller.headers), name
        assert (len(ERRORS), 0, 0) == (made.hits, made.spent, made.held)
        assert ["failed"] * len(ERRORS) == [row.result.end for row in made.rows()]


@pytest.mark.parametrize("kind", DIALECTS)
def test_sdks_raise_what_callers_expect(kind: str) -> None:
    """By the status that AWS's is told as."""
    sdk: Any = openai if kind == "chat" else anthropic
    wanted = {429: sdk.RateLimitError, 400: sdk.BadRequestError, 403: sdk.InternalServerError, 404: sdk.NotFoundError}
    with bedrock_gateway() as made:
        ours, theirs = client(made, max_retries=0), claude(made, max_retries=0)
        for status, error in wanted.items():
            made.provider.use(Error(status))
            with pytest.raises(error):
                if kind == "chat":
                    ours.chat.completions.create(model=MODEL, messages=HI, max_tokens=20)
                else:
                    theirs.messages.create(model=MODEL, messages=HI, max_tokens=20)
        assert (4, 0, 0) == (made.hits, made.spent, made.held)


async def test_throttled_requests_are_sent_once_more() -> None:
    """When AWS says, within one reservation, where an attempt more is paid for."""
    with bedrock_world([Error(429, headers={"retry-after": "0"}), TOLD], upstream={"retries": 1}) as made:
        caller = await told(made, asked(made))
        assert (200, 2, 1) == (caller.status, made.hits, len(made.rows()))
        made.settled()
    with bedrock_world(Error(429, headers={"retry-after": "3600"}), upstream={"retries": 1}) as made:
        caller = await told(made, asked(made))
        assert (429, 1, "60", "false") == (
            caller.status, made.hits, caller.headers["retry-after"], caller.headers["x-should-retry"]
        )  # fmt: skip
        assert (0, 0) == (made.spent, made.held)


async def test_unreachable() -> None:
    """Nobody is there: 502, and it costs nothing."""
    with bedrock_world() as made:
        gone = replace(made.config.upstreams[0], base_url="http://127.0.0.1:9")
        made.config = changed(made.config, upstreams=(gone,))
        caller = await told(made, asked(made))
        assert (502, "upstream_unreachable") == (caller.status, caller.json()["error"]["code"])
        made.untouched()


# Streams that do not end as they should.


@pytest.mark.parametrize("kind", DIALECTS)
@pytest.mark.parametrize("pieces", [0, 5, CHUNKS])
async def test_an_exception_in_a_stream(kind: str, pieces: int) -> None:
    """What had come is handed on, then an event says what happened; it is settled as what had come."""
    with bedrock_world(HangUp(LONG, after_chunks=pieces, error=Error(429, message=OWN))) as made:
        caller = await told(made, asked(made, kind, stream=True))
        made.provider.wait_idle()
        assert (200, True, pieces) == (caller.status, caller.complete, caller.body.count(b"tick"))
        assert b"upstream_rate_limited" in caller.body.splitlines()[-2]
        assert ["failed"] == [each.ending for each in made.watching.over]
        assert (ACCOUNT.encode() in caller.body, b"[DONE]" in caller.body) == (False, False)
        assert ["cut"] == [row.result.end for row in made.rows()]
        assert (True, 0) == (made.spent > 0, made.held)


@pytest.mark.parametrize("kind", DIALECTS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_connection_that_breaks(kind: str, reset: bool) -> None:
    """The caller is told by an event, and nothing looks as if it were complete."""
    with bedrock_world(HangUp(LONG, after_chunks=5, reset=reset)) as made:
        caller = await told(made, asked(made, kind, stream=True))
        made.provider.wait_idle()
        assert (200, True) == (caller.status, caller.complete)
        assert b"upstream_failed" in caller.pieces[-1]
        assert ["failed"] == [each.ending for each in made.watching.over]
        assert (b"[DONE]" in caller.body, b"message_stop" in caller.body) == (False, False)
        assert ["cut"] == [row.result.end for row in made.rows()]
        assert made.spent > 0


@pytest.mark.parametrize("kind", DIALECTS)
async def test_a_stream_that_breaks_off_is_not_charged_for_its_input_alone(kind: str) -> None:
    """The zero that Anthropic's first event has in place of a report is none."""
    with bedrock_world(HangUp(LONG, after_chunks=5)) as made:
        await told(made, asked(made, kind, stream=True, messages=[{"role": "user", "content": "word " * 2_000}]))
        row = made.rows()[0]
        assert "cut" == row.result.end
        assert made.spent > 3_000_000 * 2_000, "$3 a million tokens, of which each word is one at least"


async def test_a_report_is_missing() -> None:
    """It is settled at what was held, in both dialects, streamed or not."""
    for kind in DIALECTS:
        for stream in (False, True):
            with bedrock_world(replace(TOLD, report="none")) as made:
                caller = await told(made, asked(made, kind, stream=stream))
                assert (200, 0) == (caller.status, made.held)
                made.provider.wait_idle()
                assert made.billed <= made.spent


@pytest.mark.parametrize("kind", DIALECTS)
async def test_hang_up_at_every_event(kind: str) -> None:
    """The stream is read on without its caller, and settled at what it really cost: one row for each."""
    with bedrock_world(LONG) as made:
        async with running(made.config) as app:
            for piece in range(CHUNKS + 6):
                caller = asked(made, kind, stream=True)
                caller.on_piece = lambda number, at=piece, of=caller: of.hang_up() if number >= at else None
                if piece == 0:
                    caller.hang_up()
                await app(caller.scope, caller.receive, caller.send)
                await drained(app)
        made.settled()
        assert ["completed"] * (CHUNKS + 6) == [row.result.end for row in made.rows()]


@pytest.mark.parametrize("kind", DIALECTS)
async def test_settled_before_the_last_event_is_handed_out(kind: str) -> None:
    """Whoever has read to the end finds the ledger complete, though Bedrock's connection may still be open."""
    with bedrock_world(LONG) as made:
        async with running(made.config) as app:
            caller = asked(made, kind, stream=True)
            spent: list[int] = []

            def note(_: int) -> None:
                if any(sign in caller.pieces[-1] for sign in (b"[DONE]", b"message_stop")):
                    spent.append(made.spent)

            caller.on_piece = note
            await app(caller.scope, caller.receive, caller.send)
        assert [made.billed] == spent


async def test_pieces_are_handed_on_as_they_come() -> None:
    """Nothing is gathered: a stream that stands still has shown what came before."""
    go = threading.Event()
    with bedrock_world(Stall(go, LONG, after_chunks=3)) as made:
        async with running(made.config) as app:
            caller = asked(made, stream=True)

            def look(_: int) -> None:
                if caller.body.count(b"tick") == 3:
                    go.set()

            caller.on_piece = look
            await app(caller.scope, caller.receive, caller.send)
        assert (CHUNKS, True) == (caller.body.count(b"tick"), go.is_set())
        made.settled()


@pytest.mark.parametrize("pieces", [1, 7, 20])
def test_real_clients_hang_up(pieces: int) -> None:
    """Over a socket: the SDK closes its stream early, and the row has all that Bedrock billed."""
    with bedrock_gateway(replace(LONG, chunk_delay_ms=2)) as made:
        with openai.OpenAI(base_url=made.openai_url, api_key=made.key, max_retries=0) as ours:
            stream = ours.chat.completions.create(model=MODEL, messages=HI, stream=True, max_tokens=2000)
            for _, _chunk in zip(range(pieces), stream, strict=False):
                pass
            stream.close()
        made.provider.wait_idle()
        for _ in range(2_000):
            if not made.held and made.rows():
                break
            threading.Event().wait(0.005)
        made.settled()
        assert 1 == len(made.rows())


# Prices.


@pytest.mark.parametrize(
    ("model", "region"),
    [("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us-east-1"), ("amazon.nova-lite-v1:0", "us-east-1"),
     ("meta.llama3-8b-instruct-v1:0", "sa-east-1"), ("apac.amazon.nova-lite-v1:0", "ap-southeast-2")],
)  # fmt: skip
@pytest.mark.parametrize("kind", DIALECTS)
async def test_prices_are_the_regions(model: str, region: str, kind: str) -> None:
    """As they are shipped, for inference profiles and for models of a region, streamed and not."""
    told_usage = Text("Rain.", usage=Usage(input_tokens=1000, output_tokens=500), ignores_max_tokens=True)
    with bedrock_world(told_usage, guard={"prices": None}, upstream={"region": region}) as made:
        card = PriceBook.load().card(model, provider="bedrock", region=region, now_ms=made.guard.clock())
        for stream in (False, True):
            caller = await told(made, asked(made, kind, stream=stream, model=model))
            assert 200 == caller.status
        assert 2 * cost_pusd(card, told_usage.usage or Usage()) == made.spent
        assert {f"/model/{model.replace(':', '%3A')}/converse"} == {
            each.path.removesuffix("-stream") for each in made.provider.received
        }


async def test_a_model_without_a_price_in_its_region_is_refused() -> None:
    """A region's price is no other's."""
    with bedrock_world(guard={"prices": None}, upstream={"region": "eu-west-1"}) as made:
        caller = await told(made, asked(made, model="anthropic.claude-3-haiku-20240307-v1:0"))
        assert (400, "model_unpriced") == (caller.status, caller.json()["error"]["code"])
        made.untouched()


# Reading what comes.


class Script:
    """What sends nothing and answers with these pieces."""

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        self._pieces = list(pieces)
        self.status = status
        self.headers: dict[str, str] = {}
        self.closed = 0

    async def send(self, *_: object) -> Script:
        return self

    async def piece(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def whole(self, bytes_max: int) -> bytes:
        del bytes_max
        return b"".join(self._pieces)

    def close(self) -> None:
        self.closed += 1


def event(kind: str, payload: bytes) -> bytes:
    return frame({":event-type": kind, ":message-type": "event"}, payload)


STOPPED = event("messageStop", b'{"stopReason":"end_turn"}')
SAID = event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"hi"}}')


async def heard(made: World, kind: str, *pieces: bytes, stream: bool = True) -> bytes:
    script = Script(*pieces)
    sender = BedrockSender(script, made.guard)
    path, body = BODIES[kind]
    path = path.removeprefix("/v1") if kind == "chat" else path
    answer = await sender.send(made.config.upstreams[0], path, {}, json.dumps({**body, "stream": stream}).encode())
    try:
        return await answer.whole(10_000)
    finally:
        answer.close()
        assert script.closed


@pytest.mark.parametrize("kind", DIALECTS)
@pytest.mark.parametrize(
    "pieces",
    [(), (SAID,), (SAID[:-1] + b"x",), (SAID, b"\0" * 32), (event("messageStart", b"[]"),), (event("x", b"{"),),
     (SAID, STOPPED[:20]), (event("contentBlockDelta", b'{"contentBlockIndex":[],"delta":{"text":"hi"}}'), SAID)],
    ids=["nothing", "cut", "checksum", "zeros", "list", "half", "half frame", "odd"],
)  # fmt: skip
async def test_a_stream_that_is_none_is_lost(kind: str, pieces: tuple[bytes, ...]) -> None:
    """And never looks complete."""
    with bedrock_world() as made:
        with pytest.raises(NoAnswer):
            await heard(made, kind, *pieces)


@pytest.mark.parametrize("kind", DIALECTS)
async def test_a_stream_without_metadata_ends_without_a_report(kind: str) -> None:
    """Its model had come to an end; what follows metadata is not looked at."""
    with bedrock_world() as made:
        last = b"[DONE]" if kind == "chat" else b"message_stop"
        assert last in await heard(made, kind, SAID, STOPPED)
        full = SAID + STOPPED + event("metadata", b'{"usage":{"inputTokens":1,"outputTokens":2}}')
        for size in (1, 7, 10_000):
            cut = [full[at : at + size] for at in range(0, len(full), size)]
            assert last in (await heard(made, kind, *cut, b"rubbish" * 10)).splitlines()[-2]


CLAUDE = "anthropic.claude-sonnet-4-v1:0"
INTERLEAVED = "interleaved-thinking-2025-05-14"


@pytest.mark.parametrize(
    ("header", "model", "betas"),
    [
        (f"claude-code-20250219,{INTERLEAVED} , made-up, {INTERLEAVED}", CLAUDE, [INTERLEAVED]),
        ("claude-code-20250219", CLAUDE, None),
        (None, CLAUDE, None),
        (INTERLEAVED, "amazon.nova-pro-v1:0", None),
    ],
    ids=["known", "unknown", "none", "another maker's"],
)  # fmt: skip
async def test_betas_that_bedrock_takes_go_on(header: str | None, model: str, betas: list[str] | None) -> None:
    """In the request, where Converse has them; it would refuse all of it for one that it does not know."""
    sent: list[Any] = []

    class Noting(Script):
        async def send(self, *given: object) -> Script:
            sent.append(given)
            return self

    path, body = BODIES["messages"]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asks = {**body, "model": model, "max_tokens": 2000, "top_k": 5, "thinking": thinking}
    given = {} if header is None else {"anthropic-beta": header}
    with bedrock_world() as made:
        sender = BedrockSender(Noting(b"{}"), made.guard)
        (await sender.send(made.config.upstreams[0], path, given, json.dumps(asks).encode())).close()
    ((_, _, headers, data),) = sent
    more = json.loads(data)["additionalModelRequestFields"]
    assert (betas, 5, 1024) == (more.get("anthropic_beta"), more["top_k"], more["thinking"]["budget_tokens"])
    assert "anthropic-beta" not in {name.lower() for name in headers}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"[" * 100_000, b'{"usage":{"cacheDetails":[{"ttl":[]}]}}'])
async def test_an_answer_that_is_none_is_lost(raw: bytes) -> None:
    """Whatever it is."""
    with bedrock_world() as made:
        with pytest.raises(NoAnswer):
            await heard(made, "messages", raw, stream=False)


@pytest.mark.parametrize("kind", DIALECTS)
async def test_half_a_sign_is_handed_on(kind: str) -> None:
    """JSON can say what UTF-8 cannot; a model that is cut off may."""
    odd = event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"\\ud83d"}}')
    with bedrock_world() as made:
        assert b"\\ud83d" in await heard(made, kind, odd, STOPPED)


async def test_thoughts_are_told_to_who_reads_along() -> None:
    """A chat completion does not show them; a stream that breaks off is charged as if there were more of them."""
    thought = event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"hm"}}}')
    with bedrock_world() as made:
        said = await heard(made, "chat", thought, thought, SAID, STOPPED)
        for hides in (True, False):
            reader = SseReader(Thoughtful(reasoning=False, hides=hides), whole_lines=True)
            shown = b"".join(reader.feed(said[at : at + 11]) for at in range(0, len(said), 11)) + reader.rest()
            assert (False, False, True, True) == (
                b"hm" in shown, b"runrails" in shown, b'"hi"' in shown, b"[DONE]" in shown
            )  # fmt: skip
        part = SseReader(Thoughtful(reasoning=False, hides=True), whole_lines=True)
        part.feed(said[: said.index(b"data: [DONE]")])
        assert ("cut", True) == (part.outcome("lost").end, part.outcome("lost").reasoning)
        plain = SseReader(Thoughtful(reasoning=False, hides=True), whole_lines=True)
        plain.feed(await heard(made, "chat", SAID, STOPPED))
        assert not plain.outcome("lost").reasoning


# How an upstream is named.


def test_an_upstream_follows_from_its_region() -> None:
    """Where it is, what it serves and whose prices apply."""
    found = Upstream(name="b", dialect="bedrock", region="eu-west-1")
    assert ("https://bedrock-runtime.eu-west-1.amazonaws.com", "bedrock", None, BEDROCK_MODELS) == (
        found.base_url, found.provider, found.place, found.models
    )  # fmt: skip
    assert Upstream(name="b", dialect="bedrock", region="cn-north-1").base_url.endswith(".amazonaws.com.cn")
    for model in ("anthropic.claude-x", "us.anthropic.x", "eu.amazon.x", "apac.x", "meta.x", "us-gov.anthropic.x"):
        assert matches(found.models, model)
    for model in ("gpt-4o", "claude-sonnet-4-5", "arn:aws:bedrock:us-east-1:1:imported-model/x"):
        assert not matches(found.models, model)
    named = Upstream(name="b", dialect="bedrock", region="eu-west-1", models=("*", "mine"))
    assert (*BEDROCK_MODELS, "mine") == named.models


@pytest.mark.parametrize("region", [None, "", "Ireland", "us-east-1.evil.com", "us-east-1/x", 5])
def test_an_upstream_needs_its_region(region: Any) -> None:
    """Requests are signed for it, and prices are of it."""
    with pytest.raises(ConfigError, match="region"):
        Upstream(name="b", dialect="bedrock", region=region)


def test_upstreams_are_named_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And only there: credentials for AWS alone make none."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "RUNRAILS_UPSTREAMS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(ConfigError):
        upstreams_of_environment()
    (tmp_path / "up.toml").write_text('[[upstream]]\nname = "b"\ndialect = "bedrock"\nregion = "eu-west-1"\n')
    monkeypatch.setenv("RUNRAILS_UPSTREAMS", str(tmp_path / "up.toml"))
    assert (Upstream(name="b", dialect="bedrock", region="eu-west-1"),) == upstreams_of_environment()


def test_another_region_is_not_asked_instead(gw: World) -> None:
    """Its prices may be others than those that were held."""
    one, same, other = (
        Upstream(name=name, dialect="bedrock", region=region)
        for name, region in (("a", "us-east-1"), ("b", "us-east-1"), ("c", "eu-west-1"))
    )
    config = changed(gw.config, upstreams=(one, other, same))
    assert (one, same) == config.serving("amazon.nova-lite-v1:0", ("openai", "bedrock"))
