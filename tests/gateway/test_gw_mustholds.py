"""What must hold of the gateway, over real sockets: one request after the end, the founding story, hostile callers."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import anthropic
import openai
import pytest

import rr_json_attacks
from rr_dialects import BAD_NAMES, CANARY
from rr_gateway import BODIES, HI, MODEL, PATIENCE_S, STREAMED, World, gateway
from rr_gateway_http import CHAT, exchange, hang_up_after, head_of, port_of, post
from rr_json_attacks import ATTACKS
from rr_keys import PEPPERS, START_MS
from runrails import Limits
from runrails.documents.memory import MemoryDocuments
from runrails.identity.apikeys import ApiKeys
from runrails.identity.authenticate import Authenticator
from runrails.pricing import Price
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails.testing.provider import Text, ToolCalls, ToolUse, founding, repeating
from runrails.usage import Usage

SMALL = Text("ok", usage=Usage(input_tokens=10, output_tokens=10), ignores_max_tokens=True)
FLAT = "fake-flat"


def ours(made: World, **options: Any) -> openai.OpenAI:
    found = openai.OpenAI(**{"base_url": made.openai_url, "api_key": made.key, **options})
    made.closing.append(found.close)
    return found


def theirs(made: World, **options: Any) -> anthropic.Anthropic:
    found = anthropic.Anthropic(**{"base_url": made.url, "api_key": made.key, **options})
    made.closing.append(found.close)
    return found


# Exactly one request after the budget is exhausted. Calls that are not streamed: see test_gw_sixteen, number 16.


def _chat_stream(made: World) -> None:
    list(ours(made).chat.completions.create(model=FLAT, messages=HI, stream=True))  # type: ignore[call-overload]


def _responses(made: World) -> None:
    ours(made).responses.create(model=FLAT, input="hi")


def _responses_stream(made: World) -> None:
    with ours(made).responses.stream(model=FLAT, input="hi") as stream:
        stream.until_done()


def _embeddings(made: World) -> None:
    ours(made).embeddings.create(model=FLAT, input="hi")


def _messages_stream(made: World) -> None:
    with theirs(made).messages.stream(model=FLAT, messages=HI, max_tokens=20) as stream:  # type: ignore[arg-type]
        stream.until_done()


def _langchain_stream(made: World) -> None:
    from langchain_openai import ChatOpenAI

    list(ChatOpenAI(model=FLAT, base_url=made.openai_url, api_key=made.key).stream("hi"))  # type: ignore[arg-type]


def _langchain_anthropic_stream(made: World) -> None:
    from langchain_anthropic import ChatAnthropic

    list(ChatAnthropic(model=FLAT, base_url=made.url, api_key=made.key, max_tokens=20).stream("hi"))  # type: ignore[call-arg, arg-type]


def _langchain_with_retries(made: World) -> None:
    """As people wrap it: six tries of their own on top, for what they take for passing."""
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=FLAT, base_url=made.openai_url, api_key=made.key, max_retries=6)  # type: ignore[arg-type]
    model.with_retry(
        retry_if_exception_type=(openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError),
        stop_after_attempt=6,
    ).invoke("hi")


WAYS: dict[str, Callable[[World], None]] = {
    each.__name__.strip("_"): each
    for each in (_chat_stream, _responses, _responses_stream, _embeddings, _messages_stream)
}
LANGCHAINS: dict[str, Callable[[World], None]] = {
    each.__name__.strip("_"): each for each in (_langchain_stream, _langchain_anthropic_stream, _langchain_with_retries)
}


@pytest.fixture(scope="module")
def used_up() -> Iterator[World]:
    """A month worth five calls, after them."""
    with gateway(SMALL, Limits(run=None, month="0.05")) as made:
        for _ in range(6):
            post(made)
        yield made


@pytest.mark.parametrize("way", WAYS)
def test_exactly_one_request_by_every_way_in(used_up: World, way: str) -> None:
    """With default retries, streamed or not, in each dialect: one request, 402, nothing sent on."""
    _refused_once(used_up, WAYS[way])


@pytest.mark.parametrize("way", LANGCHAINS)
def test_exactly_one_request_through_langchain_in_every_way(used_up: World, way: str) -> None:
    """The same with what people put around the SDKs."""
    _refused_once(used_up, LANGCHAINS[way])


def _refused_once(used_up: World, ask: Callable[[World], None]) -> None:
    before = used_up.watching.began_count
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        ask(used_up)
    assert (402, before + 1, 5) == (caught.value.status_code, used_up.watching.began_count, used_up.hits)
    used_up.settled()


async def test_exactly_one_request_of_asynchronous_clients(used_up: World) -> None:
    """The asynchronous halves have retries of their own."""
    before = used_up.watching.began_count
    async with openai.AsyncOpenAI(base_url=used_up.openai_url, api_key=used_up.key) as client:
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(model=FLAT, messages=HI)  # type: ignore[arg-type]
    async with anthropic.AsyncAnthropic(base_url=used_up.url, api_key=used_up.key) as other:
        with pytest.raises(anthropic.APIStatusError):
            await other.messages.create(model=FLAT, messages=HI, max_tokens=20)  # type: ignore[arg-type]
    assert (before + 2, 5) == (used_up.watching.began_count, used_up.hits)


SPENDERS = {
    "run": Limits(run="0.03"), "user": Limits(run=None, month="0.03"), "key": Limits(run=None, key_month="0.03"),
    "org": Limits(run=None, org_month="0.03"), "tokens": Limits(run=None, tokens=60), "steps": Limits(steps=3),
    "model_calls": Limits(model_calls=3),
}  # fmt: skip


@pytest.mark.parametrize("scope", SPENDERS)
def test_every_budget_ends_a_conversation_with_one_request(scope: str) -> None:
    """Whatever is used up, of a run that no header names: three calls, then a refusal that is final."""
    with gateway(SMALL, SPENDERS[scope]) as made:
        key = made.new_key("alice", org="acme")
        client = ours(made, api_key=key)
        messages: list[Any] = list(HI)
        with pytest.raises(openai.APIStatusError) as caught:
            for _ in range(9):
                answer = client.chat.completions.create(model=FLAT, messages=messages, max_tokens=10)
                messages += [answer.choices[0].message.model_dump(exclude_none=True), {"role": "user", "content": "go"}]
        assert "false" == caught.value.response.headers["x-should-retry"]
        assert "retry-after" not in caught.value.response.headers
        assert caught.value.status_code in {402, 403}
        assert made.watching.began_count == made.hits + 1
        assert 3 >= made.hits >= 1 if scope == "tokens" else made.hits == 3
        assert 0 == made.held


# The founding story, over the ways in that test_gw_clients does not go.

PARAMETERS: Any = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
FUNCTION: Any = {"type": "function", "name": "classify_review", "parameters": PARAMETERS, "strict": False}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "classify_review", "parameters": PARAMETERS}}
ASKED: Any = {"role": "user", "content": "Classify the review."}


SMALL_CONTEXT = Price(
    input="3.00", output="15.00", cache_read="0.30", context_tokens_max=64_000, output_tokens_max=4_096
)
"""What is not sent again may be as long as the model reads: that much is held for it, so it must fit into a run."""


def by_responses(
    made: World, *, named: bool, stream: bool, before: Iterable[dict[str, str]] = (), header: str | None = None
) -> int:
    """
    The agent over the Responses API, until it is stopped: how many calls were executed. `named` sends the last answer's
    id and the new results, instead of everything again.
    """
    client, executed = ours(made, default_headers={"x-runrails-run": header} if header else {}), 0
    items: list[Any] = [*before, ASKED]
    last: str | None = None
    with pytest.raises(openai.PermissionDeniedError) as caught:
        for _ in range(50):
            more: dict[str, Any] = {"previous_response_id": last} if named and last else {}
            if stream:
                with client.responses.stream(model=MODEL, input=items, tools=[FUNCTION], **more) as events:
                    answer: Any = events.get_final_response()
            else:
                answer = client.responses.create(model=MODEL, input=items, tools=[FUNCTION], **more)
            asked = [item for item in answer.output if item.type == "function_call"]
            executed += len(asked)
            results = [{"type": "function_call_output", "call_id": each.call_id, "output": "null"} for each in asked]
            last = answer.id
            items = (
                results
                if named
                else [*items, *[item.model_dump(exclude_none=True) for item in answer.output], *results]
            )
    assert "loop_detected" == caught.value.code
    return executed


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("named", [False, True], ids=["resent", "previous_response_id"])
def test_founding_story_over_the_responses_api(named: bool, stream: bool) -> None:
    """5 executed calls with default settings and no header, whether history is resent or named; one request after."""
    with gateway(founding(), Limits(), guard={"prices": {MODEL: SMALL_CONTEXT}}) as made:
        executed = by_responses(made, named=named, stream=stream)
        assert (5, 5, 6) == (executed, made.hits, made.watching.began_count)
        made.settled()
        assert 1 == len({row.facts.run for row in made.rows()})


@pytest.mark.parametrize("header", [None, "nightly"])
@pytest.mark.parametrize("named", [False, True], ids=["resent", "previous_response_id"])
def test_examples_in_front_hide_no_call(named: bool, header: str | None) -> None:
    """The same where the first request has answers in it that the model never gave, and with a name for the run."""
    before = [{"role": "user", "content": "An example."}, {"role": "assistant", "content": "Good."}]
    with gateway(founding(), Limits(), guard={"prices": {MODEL: SMALL_CONTEXT}}) as made:
        assert 5 == by_responses(made, named=named, stream=False, before=before, header=header)
        assert (5, 6) == (made.hits, made.watching.began_count)


def by_chat_stream(made: World) -> int:
    """The agent in a stream of OpenAI's."""
    client, executed = ours(made), 0
    messages: list[Any] = [ASKED]
    with pytest.raises(openai.PermissionDeniedError):
        for _ in range(50):
            with client.chat.completions.stream(model=MODEL, messages=messages, tools=[CHAT_TOOL]) as events:
                answer = events.get_final_completion().choices[0].message
            messages.append(answer.model_dump(exclude_none=True))
            for call in answer.tool_calls or ():
                executed += 1
                messages.append({"role": "tool", "tool_call_id": call.id, "content": "null"})
    return executed


def by_messages_stream(made: World) -> int:
    """The agent in a stream of Anthropic's."""
    client, executed = theirs(made), 0
    messages: list[Any] = [ASKED]
    tool: Any = {"name": "classify_review", "input_schema": PARAMETERS}
    with pytest.raises(anthropic.PermissionDeniedError):
        for _ in range(50):
            with client.messages.stream(model=MODEL, messages=messages, tools=[tool], max_tokens=500) as events:
                answer = events.get_final_message()
            asked = [block for block in answer.content if isinstance(block, anthropic.types.ToolUseBlock)]
            executed += len(asked)
            messages.append(
                {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]}
            )
            messages.append({"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": block.id, "content": "null"} for block in asked
            ]})  # fmt: skip
    return executed


@pytest.mark.parametrize("agent", [by_chat_stream, by_messages_stream])
def test_founding_story_in_streams(agent: Callable[[World], int]) -> None:
    """The same for agents that stream: the run is known by what its stream said."""
    with gateway(founding(), Limits()) as made:
        assert (5, 5, 6) == (agent(made), made.hits, made.watching.began_count)
        made.settled()
        assert 1 == len({row.facts.run for row in made.rows()})


def test_founding_story_with_an_agent_of_anthropics() -> None:
    """A LangChain agent over the Messages API, which knows nothing of the gateway."""
    import warnings

    from langchain.agents import create_agent
    from langchain_anthropic import ChatAnthropic
    from langchain_core.tools import tool

    calls: list[str] = []

    @tool
    def classify_review(text: str) -> str:
        """Classify a review."""
        calls.append(text)
        return "null"

    with gateway(founding(), Limits()) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ChatAnthropic(model=MODEL, base_url=made.url, api_key=made.key, max_tokens=500)  # type: ignore[call-arg, arg-type]
        with pytest.raises(anthropic.PermissionDeniedError):
            create_agent(model, [classify_review]).invoke({"messages": HI}, {"recursion_limit": 100})  # type: ignore[arg-type]
        assert (5, 5, 6) == (len(calls), made.hits, made.watching.began_count)
        made.settled()


def test_founding_story_over_two_workers() -> None:
    """Each request goes to another process with documents and ledger in common: 5 executed calls all the same."""
    store, documents = MemoryStore(), MemoryDocuments()
    with ExitStack() as stack:
        keys = ApiKeys(documents, PEPPERS)
        common = {"store": store, "documents": documents, "authenticator": Authenticator(keys)}
        workers = [stack.enter_context(gateway(founding(), Limits(), **common)) for _ in range(2)]
        key = keys.create("alice", scopes=("ai:complete",))[1].reveal()
        clients = [ours(made, api_key=key) for made in workers]
        messages: list[Any] = [ASKED]
        executed = 0
        with pytest.raises(openai.PermissionDeniedError):
            for number in range(50):
                answer = clients[number % 2].chat.completions.create(model=MODEL, messages=messages, tools=[CHAT_TOOL])
                messages.append(answer.choices[0].message.model_dump(exclude_none=True))
                for call in answer.choices[0].message.tool_calls or ():
                    executed += 1
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": "null"})
        assert (5, 6) == (executed, sum(made.watching.began_count for made in workers))


# Hang-ups: at every piece without a server in test_gw_hangup, here over sockets, in all dialects at once.

CHUNKS = 24
STREAM = Text(
    "tick " * CHUNKS, usage=Usage(input_tokens=1000, output_tokens=500), chunks=CHUNKS, chunk_delay_ms=1,
    ignores_max_tokens=True,
)  # fmt: skip


@pytest.mark.parametrize("kind", STREAMED)
def test_hang_up_at_every_event_over_a_socket(kind: str) -> None:
    """After each event of a stream of 24 pieces, some callers at once: exactly one row each, all at the full cost."""
    path, body = BODIES[kind]
    with gateway(STREAM, Limits(run=None, month="100")) as made, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda pieces: hang_up_after(made, pieces, path, **body), range(CHUNKS + 3)))
        until(lambda: len(made.watching.over) == CHUNKS + 3 and not made.held)
        made.settled()
        assert CHUNKS + 3 == len(made.rows()) == len({row.id for row in made.rows()}) == made.hits


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Hostile callers.


SOON_S = PATIENCE_S * 0.6
"""Long before anybody has lost their patience, on a machine that has other things to do."""


@pytest.fixture(scope="module")
def idle() -> Iterator[World]:
    """One gateway for callers who get nothing from it."""
    with gateway() as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections whose patience ends soon."""
    from runrails_gateway import protocol

    monkeypatch.setattr(protocol, "HEAD_S_MAX", 0.3)
    monkeypatch.setattr(protocol, "REST_S_MAX", 0.3)


@pytest.mark.parametrize(
    ("sent", "slowly", "answers"),
    [
        (b"", b"P", {b"400", b"408"}),
        (b"POST /v1/chat/completions HTTP/1.1\r\n", b"a", {b"408"}),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", b"x-a: b\r\n", {b"408"}),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ", b"a", {b"408"}),
        (b"\r\n", b"\r\n", {b"408", b""}),
    ],
    ids=["method", "name", "headers", "value", "empty lines"],
)
def test_headers_that_trickle_are_cut_off(hasty: None, sent: bytes, slowly: bytes, answers: set[bytes]) -> None:
    """Who never stops sending, and never gets done, keeps a connection for no longer than who is silent."""
    with gateway() as made:
        came, seconds = exchange(made, sent, slowly=slowly)
        assert came[9:12] in answers
        assert seconds < SOON_S
        made.untouched()
        assert 200 == post(made).status, "the others are served"


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_trickle_are_cut_off(chunked: bool) -> None:
    """408 when the time for a body is over, though bytes still come; nothing is held, nothing is sent."""
    framing = "transfer-encoding: chunked" if chunked else "content-length: 100000"
    with gateway(body_ms_max=300) as made:
        head = head_of(made, CHAT, framing)
        came, seconds = exchange(
            made, head + (b"" if chunked else b'{"model":"'), slowly=b"1\r\n{\r\n" if chunked else b"x"
        )
        assert b"408" == came[9:12]
        assert seconds < SOON_S
        made.untouched()


def test_a_hundred_megabytes_in_pieces_are_not_taken_in() -> None:
    """A body that announces no length and goes on for 100 MB: 413 at the limit, and what comes then is not kept."""
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with gateway(body_bytes_max=1_000_000) as made:
        began = time.monotonic()
        came, _ = exchange(made, head_of(made, CHAT, "transfer-encoding: chunked"), slowly=piece * 16, pause_s=0.001)
        assert b"413" == came[9:12]
        assert time.monotonic() - began < SOON_S
        made.untouched()


def test_a_hundred_megabytes_announced_are_not_waited_for(idle: World) -> None:
    """413 by the head alone, in each dialect; what nobody is known for is 401, however large."""
    for path, _ in BODIES.values():
        came, seconds = exchange(idle, head_of(idle, path, "content-length: 104857600"))
        assert (b"413", True) == (came[9:12], seconds < SOON_S)
    came, seconds = exchange(idle, head_of(idle, CHAT, "content-length: 104857600", key="nobody"))
    assert (True, True) == (came[9:12] in {b"401", b"413"}, seconds < SOON_S)
    idle.untouched()


AMBIGUOUS = {
    "two authorizations": ("authorization: Bearer rr_live_other",),
    "two of the same": ("AUTHORIZATION: Bearer {key}",),
    "a key beside it": ("x-api-key: {key}",),
    "two lengths": ("content-length: 2", "content-length: 3"),
    "length and chunks": ("content-length: 2", "transfer-encoding: chunked"),
    "chunks by another name": ("transfer-encoding: xchunked",),
    "folded": ("x-a: b", " authorization: Bearer other"),
    "a space before the colon": ("content-length : 2",),
    "negative length": ("content-length: -2",),
    "length with a sign": ("content-length: +2",),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_requests_that_two_servers_read_differently_are_refused(idle: World, what: str) -> None:
    """Two credentials, two ideas of where the body ends: 4xx or closed, in time, and nothing of it comes back."""
    body = json.dumps(BODIES["chat"][1]).encode()
    lines = [line.format(key=idle.key) for line in AMBIGUOUS[what]]
    framed = any("length" in line or "transfer" in line for line in lines)
    if not framed:
        lines.append(f"content-length: {len(body)}")
    came, seconds = exchange(idle, head_of(idle, CHAT, *lines) + body)
    assert came == b"" or came[9:10] == b"4"
    assert seconds < SOON_S
    assert idle.key.encode() not in came
    idle.untouched()


def whole_answer(line: socket.socket) -> int:
    """The status of the next answer on a connection, all of it being read."""
    answer = http.client.HTTPResponse(line)
    answer.begin()
    answer.read()
    return answer.status


@pytest.mark.parametrize("wish", ["h2c", "websocket"])
def test_wish_for_another_protocol_is_passed_over(wish: str) -> None:
    """Java's own client asks for HTTP/2 with every request, on one connection: it is answered as if it had not."""
    body = json.dumps({"model": FLAT, "messages": HI}).encode()
    more = ("connection: Upgrade, HTTP2-Settings", f"upgrade: {wish}", "http2-settings: AAMAAABk")
    with gateway(SMALL) as made, socket.create_connection(("127.0.0.1", port_of(made)), PATIENCE_S) as line:
        for count in (1, 2, 3):
            head = head_of(made, CHAT, f"content-length: {len(body)}", *more)
            line.sendall(head + body if count < 3 else head)
            if count == 3:
                line.sendall(body)
            assert 200 == whole_answer(line)
            assert count == made.hits
        made.settled()


def test_requests_in_one_piece_share_no_check() -> None:
    """Ten requests at once on one connection, where five are paid for."""
    body = json.dumps({"model": FLAT, "messages": HI}).encode()
    with gateway(SMALL, Limits(run=None, month="0.05")) as made:
        with socket.create_connection(("127.0.0.1", port_of(made)), PATIENCE_S) as line:
            line.sendall((head_of(made, CHAT, f"content-length: {len(body)}") + body) * 10)
            until(lambda: len(made.watching.over) == 10)
        assert [200] * 5 + [402] * 5 == [each.status for each in made.watching.over]
        made.settled()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"])
def test_malformed_json_over_a_socket(idle: World, path: str) -> None:
    """Depth, duplicate members, NaN, half pairs and the like: 400 in time, nothing echoed, nothing held."""
    for raw, reason in ATTACKS.values():
        answer = post(idle, path, raw=raw)
        assert (400, reason) == (answer.status, answer.code)
        assert rr_json_attacks.CANARY not in answer.raw.decode() + repr(answer.headers)
    idle.untouched()


def test_names_of_models_lead_nowhere(idle: World) -> None:
    """Traversal and worse, in a body and in the address of a model: 4xx, nothing echoed, nothing is asked upstream."""
    for name in BAD_NAMES.values():
        answer = post(idle, model=name)
        assert 400 <= answer.status < 500
        assert CANARY not in answer.raw.decode()
    for path in ("..%2f..%2fetc%2fpasswd", "../../etc/passwd", "%00", "a" * 4000, "..;/admin", "%c0%ae%c0%ae/x"):
        came, _ = exchange(idle, head_of(idle, f"/v1/models/{path}").replace(b"POST", b"GET", 1))
        assert b"404" == came[9:12] or came[9:10] == b"4"
        assert b"passwd" not in came
    idle.untouched()


# Tenants.

STEPS = (ToolCalls([ToolUse("look", {"n": 1}, id="call_same")]), Text("done"))


def one_conversation(made: World, key: str, **headers: str) -> list[str]:
    """The same conversation, letter by letter, whoever has it: the runs of its requests."""
    messages: list[Any] = list(HI)
    runs = []
    for _ in range(2):
        raw = ours(made, api_key=key).chat.completions.with_raw_response.create(
            model=MODEL, messages=messages, tools=[CHAT_TOOL], extra_headers=headers
        )
        runs.append(raw.headers["x-runrails-run"])
        messages.append(raw.parse().choices[0].message.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": "call_same", "content": "1"})
    return runs


@pytest.mark.parametrize("headers", [{}, {"X-Runrails-Run": "nightly"}], ids=["recognised", "named"])
def test_tenants_with_one_conversation_share_no_run(headers: dict[str, str]) -> None:
    """The same words, the same call ids, the same name of a run: each tenant has one run, and no two have the same."""
    with gateway(repeating(*STEPS), Limits(run="1.00")) as made:
        keys = {
            "alice": made.new_key("alice"), "bob": made.new_key("bob"),
            "alice of acme": made.new_key("alice", org="acme"), "alice of other": made.new_key("alice", org="other"),
        }  # fmt: skip
        runs = {who: one_conversation(made, key, **headers) for who, key in keys.items()}
        assert {1} == {len(set(each)) for each in runs.values()}, "each is one run"
        assert len(keys) == len({each[0] for each in runs.values()}), "and none is another's"
        made.provider.wait_idle()
        for row in made.rows():
            whose = {who for who, each in runs.items() if row.facts.run in each}
            assert {row.facts.user} == {who.partition(" ")[0] for who in whose}


def test_a_tenant_cannot_go_on_from_anothers_answer() -> None:
    """An id of another tenant's answer, or another's run by its own id, names nothing: it is a run of one's own."""
    with gateway(SMALL, Limits(run="5.00")) as made:
        bob = made.new_key("bob")
        first = ours(made).responses.with_raw_response.create(model=MODEL, input="hi")
        run, answer_id = first.headers["x-runrails-run"], first.parse().id
        for more in ({"previous_response_id": answer_id}, {"extra_headers": {"x-runrails-run": run}}):
            raw = ours(made, api_key=bob).responses.with_raw_response.create(model=MODEL, input="hi", **more)  # type: ignore[call-overload]
            assert run != raw.headers["x-runrails-run"]


def test_one_tenants_stop_is_not_anothers() -> None:
    """A loop that stops one tenant's run does not stop the same conversation's first steps of another."""
    history: list[Any] = [ASKED]
    for number in range(5):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        history += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        history += [{"role": "tool", "tool_call_id": f"call_{number}", "content": "null"}]
    with gateway(SMALL, Limits()) as made:
        bob = made.new_key("bob")
        assert (403, "loop_detected") == (post(made, messages=history).status, post(made, messages=history).code)
        assert 200 == post(made, key=bob, messages=history[:3]).status
        assert 200 == post(made, messages=[ASKED]).status, "nor another run of the same tenant"
        assert 403 == post(made, key=bob, messages=history).status
        assert 2 == made.hits


# Keys.


def test_revoked_key_is_refused_at_once_here_and_within_five_seconds_elsewhere() -> None:
    """The worker that revokes a key knows at once; one that has just let it in asks again before 5 s are over."""
    documents, clock = MemoryDocuments(), ManualClock(START_MS)

    def worker() -> ApiKeys:
        return ApiKeys(documents, PEPPERS, clock=clock, monotonic=clock)

    here, there = worker(), worker()
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(gateway(SMALL, Limits(run=None), authenticator=Authenticator(keys)))
            for keys in (here, there)
        )  # fmt: skip
        info, secret = here.create("alice", scopes=("ai:complete",))
        key = secret.reveal()
        assert [200, 200] == [post(made, key=key).status for made in (first, second)]
        here.revoke(info.id)
        assert 401 == post(first, key=key).status
        clock.advance(5_000)
        assert (401, 401) == (post(first, key=key).status, post(second, key=key).status)
        assert (1, 1) == (first.hits, second.hits)


def test_rotated_key_drops_no_request() -> None:
    """While one changes over, the old and the new secret work; after the overlap, only the new one does."""
    documents, clock = MemoryDocuments(), ManualClock(START_MS)
    keys = ApiKeys(documents, PEPPERS, clock=clock, monotonic=clock)
    with gateway(SMALL, Limits(run=None), authenticator=Authenticator(keys), guard={"clock": clock},
                 store=MemoryStore(clock=clock)) as made:  # fmt: skip
        info, old = keys.create("alice", scopes=("ai:complete",))
        assert 200 == post(made, key=old.reveal()).status
        _, new = keys.rotate(info.id, 60_000)
        clock.advance(59_000)
        assert [200, 200] == [post(made, key=key.reveal()).status for key in (old, new)]
        clock.advance(1_000)
        assert [401, 200] == [post(made, key=key.reveal()).status for key in (old, new)]


def test_bad_keys_do_not_keep_good_ones_up() -> None:
    """Many wrong keys at once: all 401, nothing is sent, and the right one is served in between."""
    stop = threading.Event()
    with gateway(SMALL, Limits(run=None, month="100")) as made, ThreadPoolExecutor(4) as pool:

        def guess(number: int) -> set[int]:
            found, tries = set(), 0
            while not stop.is_set():
                tries += 1
                found.add(post(made, key=f"{made.key[:25]}{number}{tries:030d}"[: len(made.key)]).status)
            return found

        guesses = [pool.submit(guess, number) for number in range(4)]
        try:
            assert {200} == {post(made).status for _ in range(20)}
        finally:
            stop.set()
        assert {401} == set().union(*[each.result() for each in guesses])
        assert 20 == made.hits
        made.settled()
