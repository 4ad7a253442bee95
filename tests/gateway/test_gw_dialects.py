"""Requests of both vendors' HTTP, read from decoded JSON: what they may cost, what is refused, what is sent on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.request import Request, urlopen

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_dialects import (
    BAD_NAMES,
    BODIES,
    CALLED,
    CANARY,
    CLAUDE_TOOL,
    FULL,
    MALFORMED,
    ODD,
    TOOL,
    UNBOUNDED,
    places,
    with_part,
)
from runrails import Guard, Limits
from runrails.clients.plan import Plan, capped
from runrails.errors import BoundUnknown, PriceUnknown, RunrailsError
from runrails.identity.operations import OPERATIONS
from runrails.keyroutes import KeyPlace
from runrails.stores.memory import MemoryStore
from runrails.testing.prices import PRICES
from runrails.testing.provider import FakeProvider, Text
from runrails.usage import Usage
from runrails_anthropic.requests import AnthropicDialect
from runrails_gateway.dialects import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Dialect,
    named_model,
    tell,
    with_changes,
)
from runrails_gateway.errors import BadRequest
from runrails_gateway.jsonin import read_json
from runrails_openai.requests import OpenAIDialect

DIALECTS: dict[str, Dialect] = {
    "chat": CHAT, "responses": RESPONSES, "embeddings": EMBEDDINGS, "messages": MESSAGES, "count_tokens": COUNT_TOKENS,
}  # fmt: skip


def plan_of(dialect: str, body: Mapping[str, object] | None = None, **changes: Any) -> Plan:
    """The plan of a request that costs money."""
    plan = DIALECTS[dialect].read({**(BODIES[dialect] if body is None else body), **changes}).plan
    assert plan is not None
    return plan


# What every dialect has.


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_is_an_operation_that_spends_or_not(name):
    """Its operation is in the table, and what spends there has a plan here."""
    dialect = DIALECTS[name]
    ask = dialect.read(BODIES[name], user_agent="curl/8")
    assert (dialect.operation, BODIES[name]["model"], False, "curl/8", None) == (
        ask.operation, ask.model, ask.stream, ask.user_agent, ask.previous_id,
    )  # fmt: skip
    assert OPERATIONS[dialect.operation].spends == (ask.plan is not None)
    assert dialect.path.startswith("/")
    assert ("anthropic" if "messages" in dialect.path else "openai") == dialect.name


@pytest.mark.parametrize("name", DIALECTS)
def test_nothing_of_a_request_is_in_what_is_printed_of_it(name):
    """A request in a log line or a traceback shows no prompt."""
    body = {**BODIES[name], "input": CANARY, "messages": [{"role": "user", "content": CANARY}]}
    assert CANARY not in repr(DIALECTS[name].read(body))


@pytest.mark.parametrize("name", ["chat", "responses", "embeddings", "messages"])
def test_upstream_and_client_are_in_the_call(name):
    """Whose prices, where the key goes, which region, how many attempts and what the client calls itself."""
    place = KeyPlace("openai", "https://example.test/v1")
    ask = DIALECTS[name].read(
        BODIES[name], provider="azure", place=place, region="eu-west-1", user_agent="curl/8", retries=2
    )
    assert ask.plan is not None
    call = ask.plan.call
    assert ("azure", place, "eu-west-1", "curl/8", 2, DIALECTS[name].path) == (
        call.provider, call.place, call.region, call.user_agent, call.retries, call.endpoint,
    )  # fmt: skip
    assert ("embedding" if name == "embeddings" else "completion") == call.request_type
    assert (name != "embeddings") == call.can_cap


# Names of models.

GOOD_NAMES = [
    "gpt-4o", "gpt-4o-2024-08-06", "o3", "claude-3-5-sonnet@20240620", "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "us.anthropic.claude-sonnet-4-20250514-v1:0", "ft:gpt-4o-mini-2024-07-18:my-org::abc123",
    "meta-llama/Llama-3.3-70B-Instruct-Turbo", "accounts/fireworks/models/llama-v3p1-8b", "@cf/meta/llama-3-8b",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-7-sonnet-20250219-v1:0",
    "openai/gpt-4o:online", "my_deployment", "text-embedding-3-small", "a" * 256,
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_of_all_providers_are_taken(name):
    """Fine-tuned models, ARNs, names with owners and versions: as providers write them."""
    assert name == named_model({"model": name})


@pytest.mark.parametrize("case", BAD_NAMES)
def test_what_can_be_no_models_name_is_refused_and_not_repeated(case):
    """A name that leads somewhere else in a URL, or has signs that hide, is a 400 that says nothing of it."""
    for name, dialect in DIALECTS.items():
        with pytest.raises(BadRequest) as refused:
            dialect.read({**BODIES[name], "model": BAD_NAMES[case]})
        told = tell(refused.value, request_id="r")
        assert (400, "model") == (told.status, told.param)
        assert told.code in ("invalid_model", "missing_model")
        assert len(told.message) < 200
        shown = str(BAD_NAMES[case])
        assert len(shown) < 6 or shown not in told.message


# Malformed requests.


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests_are_refused_by_member(case):
    """A 400 that names the member, and no request whose size or cap two servers would read differently."""
    dialect, changes, param = MALFORMED[case]
    with pytest.raises(BadRequest) as refused:
        DIALECTS[dialect].read({**BODIES[dialect], **changes})
    told = tell(refused.value, request_id="r")
    assert (400, param) == (told.status, told.param)
    assert told.code in ("invalid_type", "invalid_value", "unsupported_parameter", "missing_max_tokens")
    assert told.code in json.loads(DIALECTS[dialect].refusal(told))["error"].values()


@pytest.mark.parametrize(
    "spelling",
    ["Max_Tokens", "MAX_TOKENS", "max_to\u212aens", "max_token\u017f", "N", "Model", "\u017ftream", "TOOLS", "Speed"],
)  # fmt: skip
def test_another_spelling_of_a_member_that_costs_is_refused(spelling):
    """Some servers know no case: of `max_tokens` and `MAX_TOKENS` they would obey the one that we did not read."""
    for name, dialect in DIALECTS.items():
        with pytest.raises(BadRequest, match="another spelling") as refused:
            dialect.read({**BODIES[name], spelling: 99_999})
        assert ("ambiguous_member", 400) == (refused.value.reason, tell(refused.value, request_id="r").status)


def test_other_names_may_be_written_as_servers_like():
    """Members that we do not read pass on in any letters."""
    plan = plan_of("chat", **{"chatTemplateKwargs": {"x": 1}, "top_K": 5, "größe": 1, "": 1})
    assert plan.call.prompt.unbounded is None


def test_null_is_left_out():
    """Clients write null for what they leave out."""
    nothing = dict.fromkeys(("stream", "max_tokens", "max_completion_tokens", "n", "tools", "stream_options"))
    assert plan_of("chat").call == plan_of("chat", **nothing).call
    nothing = dict.fromkeys(("stream", "max_output_tokens", "background", "conversation", "previous_response_id"))
    assert plan_of("responses").call == plan_of("responses", **nothing).call
    assert plan_of("responses").call == plan_of("responses", background=False, stream=False).call


# What nobody can bound.


@pytest.fixture
def guard():
    """A guard with a budget."""
    made = Guard(Limits(run="1.00"), user="alice", store=MemoryStore(), prices=PRICES, sinks=[])
    yield made
    made.close()


@pytest.mark.parametrize("case", UNBOUNDED)
def test_what_cannot_be_bounded_is_a_400_with_a_code_and_holds_nothing(case, guard):
    """Hosted tools, unknown content, searches, other models: refused before anything is sent, in the dialect."""
    dialect, changes = UNBOUNDED[case]
    run = guard.run()
    with pytest.raises(BoundUnknown) as refused:
        run.before_model(plan_of(dialect, **changes).call)
    told = tell(refused.value, request_id="r")
    assert (400, "bound_unknown", "false") == (told.status, told.code, dict(told.headers)["x-should-retry"])
    assert CANARY not in DIALECTS[dialect].refusal(told).decode()
    report = run.report()
    assert (0, 0, None) == (report.cost_pusd, report.model_calls, run.stopped)


def test_a_tier_without_a_price_is_refused_and_one_with_a_price_is_held_for(guard):
    """`service_tier` is read as the guarded client reads it: a premium tier has its own price, or none."""
    plan = plan_of("chat", service_tier="priority")
    assert ("priority", None) == (plan.call.service_tier, plan.call.prompt.unbounded)
    with pytest.raises(PriceUnknown) as refused:
        guard.run().before_model(plan.call)
    assert (400, "model_unpriced") == (
        tell(refused.value, request_id="r").status, tell(refused.value, request_id="r").code,
    )  # fmt: skip
    for tier in ("auto", "default", "flex", None):
        assert None is plan_of("chat", service_tier=tier).call.service_tier
    assert "priority" == plan_of("responses", service_tier="priority").call.service_tier


def test_an_earlier_response_is_named_and_bounded_by_the_models_context():
    """The id that a request goes on from is told; what it brings along is bounded by the model's context alone."""
    ask = RESPONSES.read({**BODIES["responses"], "previous_response_id": "resp_68a1b2"})
    assert ask.plan is not None
    assert ("resp_68a1b2", "previous_response_id") == (ask.previous_id, ask.plan.call.prompt.stored)


# As the guarded clients read them.

SAME: dict[str, tuple[str, dict[str, object]]] = {
    "chat": ("chat", {}),
    "chat_cap": ("chat", {"max_tokens": 50}),
    "chat_newer_cap": ("chat", {"max_completion_tokens": 50}),
    "chat_n": ("chat", {"n": 3}),
    "chat_stream": ("chat", {"stream": True}),
    "chat_stream_with_usage": ("chat", {"stream": True, "stream_options": {"include_usage": True}}),
    "chat_stream_options": ("chat", {"stream": True, "stream_options": {"include_obfuscation": False}}),
    "chat_tools": ("chat", {"tools": [TOOL], "tool_choice": "required", "messages": CALLED}),
    "chat_schema": ("chat", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    "chat_reasoning": ("chat", {"reasoning_effort": "high"}),
    "chat_tier": ("chat", {"service_tier": "priority"}),
    "chat_flex": ("chat", {"service_tier": "flex"}),
    "chat_odd_tier": ("chat", {"service_tier": 5}),
    "chat_picture": (
        "chat",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}]}
            ]
        },
    ),
    "chat_search": ("chat", {"web_search_options": {}}),
    "responses": ("responses", {}),
    "responses_items": ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}),
    "responses_stream": ("responses", {"stream": True, "max_output_tokens": 40}),
    "responses_stored": ("responses", {"previous_response_id": "resp_1", "instructions": "be brief"}),
    "responses_tools": ("responses", {"tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]}),
    "responses_tier": ("responses", {"service_tier": "priority"}),
    "embeddings": ("embeddings", {}),
    "embeddings_tokens": ("embeddings", {"input": [[1, 2, 3], [4]]}),
    "messages": ("messages", {}),
    "messages_stream": ("messages", {"stream": True}),
    "messages_system": ("messages", {"system": [{"type": "text", "text": "be brief"}]}),
    "messages_cached": ("messages", {"tools": [CLAUDE_TOOL]}),
    "messages_thinking": ("messages", {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 2_048}),
}


@pytest.mark.parametrize("case", SAME)
def test_a_request_is_read_as_the_guarded_client_reads_it(case):
    """The same body makes the same call, the same cap and the same changes as in the SDK's adapter."""
    dialect, changes = SAME[case]
    body = {**BODIES[dialect], **changes}
    expected = planned_by_an_sdk(dialect, body)
    plan = DIALECTS[dialect].read(body, provider=expected.call.provider, user_agent=expected.call.user_agent).plan
    assert plan is not None
    assert expected.call == replace(plan.call, retries=expected.call.retries)
    assert (expected.changes, expected.cap_name) == (plan.changes, plan.cap_name)
    assert type(expected.stream) is type(plan.stream)


def planned_by_an_sdk(dialect: str, body: dict[str, Any]) -> Plan:
    """What the adapter of the SDK makes of it."""
    if dialect == "messages":
        with anthropic.Anthropic(api_key="k") as client:
            options = anthropic._models.FinalRequestOptions.construct(method="post", url="/v1/messages", json_data=body)
            plan = AnthropicDialect(on_bedrock=False).plan(client, options)
    else:
        with openai.OpenAI(api_key="k") as other:
            url = DIALECTS[dialect].path
            asked = openai._models.FinalRequestOptions.construct(method="post", url=url, json_data=body)
            plan = OpenAIDialect(other).plan(other, asked)
    assert plan is not None
    return plan


def test_on_bedrock_the_answers_name_of_the_model_is_not_the_one_with_the_price():
    """Claude on Bedrock calls itself as Anthropic does; the price is that of the name in the request."""
    answer = {"model": "claude-x", "usage": {"input_tokens": 1, "output_tokens": 1}, "content": []}
    there = MESSAGES.read(BODIES["messages"], provider="bedrock").plan
    here = MESSAGES.read(BODIES["messages"], provider="anthropic").plan
    assert there is not None
    assert here is not None
    assert (None, "claude-x") == (there.answer(answer).model, here.answer(answer).model)


# Caps.


@pytest.mark.parametrize(
    ("dialect", "provider", "given", "name"),
    [("chat", "openai", {}, "max_completion_tokens"), ("chat", "azure", {}, "max_completion_tokens"),
     ("chat", None, {}, "max_tokens"), ("chat", "mistral", {}, "max_tokens"), ("chat", "groq", {}, "max_tokens"),
     ("chat", "openai", {"max_tokens": 4_000}, "max_tokens"),
     ("chat", "openai", {"max_tokens": None}, "max_completion_tokens"),
     ("chat", None, {"max_completion_tokens": 4_000}, "max_completion_tokens"),
     ("chat", None, {"max_completion_tokens": None, "max_tokens": 4_000}, "max_tokens"),
     ("responses", "openai", {}, "max_output_tokens"),
     ("responses", None, {"max_output_tokens": 4_000}, "max_output_tokens"),
     ("messages", "anthropic", {"max_tokens": 4_000}, "max_tokens")],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_a_cap_that_shrinks_is_sent_under_the_name_that_the_server_obeys(dialect, provider, given, name):
    """Near the end of a budget the permit's cap is in the request, once, and nothing else changes."""
    body = {**BODIES[dialect], **given}
    raw = json.dumps(body, indent=1).encode()
    guard = Guard(Limits(run="0.02"), user="alice", store=MemoryStore(), prices=PRICES)
    plan = DIALECTS[dialect].read(read_json(raw), provider=provider).plan
    assert plan is not None
    permit = guard.run().before_model(plan.call)
    guard.close()
    assert permit.max_tokens is not None
    assert permit.max_tokens < 4_000
    sent = read_json(with_changes(raw, body, capped(plan, permit)))
    assert {**body, name: permit.max_tokens} == sent


# The usage of streams.

USAGE = Usage(input_tokens=11, output_tokens=7)
ASKED: dict[str, tuple[dict[str, object], bool]] = {
    "not_asked": ({}, True),
    "null": ({"stream_options": None}, True),
    "empty": ({"stream_options": {}}, True),
    "something_else": ({"stream_options": {"include_obfuscation": False}}, True),
    "refused": ({"stream_options": {"include_usage": False}}, True),
    "nulled": ({"stream_options": {"include_usage": None}}, True),
    "asked": ({"stream_options": {"include_usage": True}}, False),
    "asked_and_more": ({"stream_options": {"include_usage": True, "include_obfuscation": False}}, False),
}


@pytest.mark.parametrize("cut", [1, 7, 100_000])
@pytest.mark.parametrize("case", ASKED)
def test_usage_is_asked_for_and_hidden_exactly_from_who_did_not_ask(case, cut):
    """Every stream reports its usage to us; its caller sees the last chunk if they asked, and else all but that."""
    changes, hidden = ASKED[case]
    body = {**BODIES["chat"], "stream": True, **changes}
    raw = json.dumps(body).encode()
    plan = plan_of("chat", read_json(raw))
    sent = with_changes(raw, body, plan.changes)
    assert (sent == raw) == (not hidden)
    options: Any = read_json(sent)["stream_options"]
    assert options["include_usage"] is True
    before: Any = body.get("stream_options") or {}
    assert {**before, "include_usage": True} == options
    with FakeProvider(Text("Hello there", usage=USAGE, ignores_max_tokens=True)) as provider:
        head = {"content-type": "application/json"}
        asked = Request(f"{provider.openai_url}/chat/completions", sent, head)  # noqa: S310 -- our own server
        with urlopen(asked) as answer:  # noqa: S310 -- as above
            came = answer.read()
    assert plan.stream is not None
    shown = b"".join(plan.stream.feed(came[at : at + cut]) for at in range(0, len(came), cut)) + plan.stream.rest()
    result = plan.stream.outcome("ended")
    assert ("completed", USAGE) == (result.end, result.usage)
    events = [line[6:] for line in shown.split(b"\n") if line.startswith(b"data: ")]
    chunks = [json.loads(event) for event in events[:-1]]
    assert b"[DONE]" == events[-1]
    assert "Hello there" == "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert (0 if hidden else 1) == sum(not chunk["choices"] for chunk in chunks)
    assert (shown == came) == (not hidden)


def test_an_answer_that_is_no_stream_is_not_touched():
    """Without `stream` nothing is added, whatever the options say."""
    for changes in ({}, {"stream": False}, {"stream": None}, {"stream_options": {"include_usage": False}}):
        plan = plan_of("chat", **changes)
        assert ({}, None) == (plan.changes, plan.stream)


# The bytes that are sent on.

SENT: dict[str, tuple[bytes, dict[str, object], bytes]] = {
    "nothing": (b' { "a" : 0.10 } ', {}, b' { "a" : 0.10 } '),
    "added": (b'{"a":0.10,"b":1E5}', {"n": 5}, b'{"a":0.10,"b":1E5,"n":5}'),
    "added_to_nothing": (b"{}", {"n": 5}, b'{"n":5}'),
    "added_to_space": (b"{ \n}", {"n": 5}, b'{ \n"n":5}'),
    "added_before_space": (b'{"a":1 }\r\n\t ', {"n": 5}, b'{"a":1 ,"n":5}\r\n\t '),
    "added_two": (b'{"a":{}}', {"n": 5, "m": {"x": True}}, b'{"a":{},"n":5,"m":{"x":true}}'),
    "replaced": (b'{"a":0.10,"n":7,"b":12345678901234567890}', {"n": 5}, b'{"a":0.10,"n":5,"b":12345678901234567890}'),
    "replaced_first": (b'{ "n" : null , "b":-0}', {"n": 5}, b'{ "n" : 5 , "b":-0}'),
    "replaced_last": (b'{"b":"}{\\"n\\":1","n":{"n":7}}', {"n": 5}, b'{"b":"}{\\"n\\":1","n":5}'),
    "replaced_alone": (b'\n{"n":[1,2,{"n":3}]}', {"n": 5}, b'\n{"n":5}'),
    "replaced_an_escaped_name": (b'{"\\u006e":7,"a":1}', {"n": 5}, b'{"\\u006e":5,"a":1}'),
    "not_those_inside": (b'{"a":{"n":7},"n":8}', {"n": 5}, b'{"a":{"n":7},"n":5}'),
    "both": (b'{"n":7,"a":1.50}', {"m": 6, "n": 5}, b'{"n":5,"a":1.50,"m":6}'),
    "unicode": ('{"ä":"\U0001f600 }","n":7,"e":"\\ud83d\\ude00"}'.encode(), {"n": 5},
                '{"ä":"\U0001f600 }","n":5,"e":"\\ud83d\\ude00"}'.encode()),
    "unicode_added": ('{"ä":"}"}'.encode(), {"n": 5}, '{"ä":"}","n":5}'.encode()),
}  # fmt: skip


@pytest.mark.parametrize("case", SENT)
def test_bytes_stay_as_they_came_but_for_what_is_changed(case):
    """Numbers as they were written, members in their order, spaces and escapes: all stay."""
    raw, changes, expected = SENT[case]
    assert expected == with_changes(raw, read_json(raw), changes)


_NAMES = st.sampled_from(["a", "n", "ä", "", 'q"', "max_tokens", "}", "\\"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('a{}[]":,\\é\U0001f600 \n'), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3), max_leaves=6,
)  # fmt: skip


@given(
    st.dictionaries(_NAMES, _VALUES, max_size=6), st.dictionaries(_NAMES, _VALUES, max_size=3),
    st.sampled_from([None, 0, 2]), st.booleans(), st.sampled_from([(",", ":"), (" , ", " : "), (",\r\n", ":\t")]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_changed_bytes_mean_the_body_with_the_changes(body, changes, indent, escapes, separators):
    """Whatever the body, its spaces and its escapes: the result means body and changes, in the body's order."""
    raw = json.dumps(body, indent=indent, ensure_ascii=escapes, separators=separators).encode()
    sent = with_changes(raw, body, changes)
    expected = {**body, **changes}
    assert expected == read_json(sent)
    assert list(expected) == list(read_json(sent))


# Whatever else JSON can be.

_WORDS = st.sampled_from(
    ["text", "input_text", "tool_use", "tool_result", "image", "image_url", "input_image", "document", "message",
     "function", "function_call", "function_call_output", "reasoning", "item_reference", "custom", "bash_1", "user",
     "assistant", "tool", "priority", "base64", "data:image/png;base64,AA", "https://x.test/a", "gpt-4o", ""]
)  # fmt: skip
_MEMBERS = st.sampled_from(
    ["type", "role", "content", "text", "output", "input", "name", "id", "tool_calls", "function", "arguments",
     "source", "image_url", "url", "data", "tool_call_id", "cache_control", "audio", "encrypted_content",
     "parameters", "index"]
)  # fmt: skip
_PLAIN = st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats(allow_nan=False, allow_infinity=False)
_JUNK = st.recursive(
    _PLAIN | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_MEMBERS, inner, max_size=4), max_leaves=10,
)  # fmt: skip
_TOP = st.sampled_from(
    ["messages", "input", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens",
     "max_output_tokens", "n", "tools", "functions", "tool_choice", "thinking", "system", "instructions",
     "response_format", "text", "output_config", "output_format", "service_tier", "speed", "inference_geo", "reasoning",
     "reasoning_effort", "previous_response_id", "conversation", "prompt", "background", "context_management",
     "cache_control", "mcp_servers", "thread", "prediction", "plugins", "temperature"]
)  # fmt: skip


@pytest.fixture(scope="module")
def rich():
    """A guard whose budget pays for whatever can be bounded."""
    made = Guard(Limits(run=None, steps=None), user="alice", store=MemoryStore(), prices=PRICES, sinks=[])
    yield made
    made.close()


def carried(name: str, body: dict[str, Any], guard: Guard) -> None:
    """Read it, take a permit, write it down again; fail if what is refused is refused as a bug of ours."""
    dialect = DIALECTS[name]
    try:
        plan = dialect.read(body, provider="openai").plan
        if plan is not None:
            run = guard.run()
            permit = run.before_model(plan.call)
            run.withdraw(permit)
            raw = json.dumps(body).encode()
            sent = read_json(with_changes(raw, body, capped(plan, permit)))
            assert list(body) == list(sent)[: len(body)]
    except RunrailsError as error:
        told = tell(error, request_id="r")
        assert told.status < 500, (body, told)
        json.loads(dialect.refusal(told))


@given(st.sampled_from(list(DIALECTS)), st.dictionaries(_TOP, _JUNK | st.lists(_JUNK, max_size=4), max_size=3))
@settings(max_examples=100, deadline=None)
def test_no_json_is_our_failure(rich, name, changes):
    """Whatever JSON is sent: it is read, or refused with a status below 500, in the dialect; nobody's bug is met."""
    carried(name, {**BODIES[name], **changes}, rich)


@pytest.mark.parametrize("name", FULL)
def test_every_member_may_be_anything_and_none_of_it_is_our_failure(name, rich):
    """A full request in which each part in turn is everything that JSON can be: read or refused, never a bug."""
    carried(name, FULL[name], rich)
    everywhere = places(FULL[name])
    assert len(everywhere) > (3 if name == "embeddings" else 20)
    for path in everywhere:
        for part in ODD:
            carried(name, with_part(FULL[name], path, part), rich)
