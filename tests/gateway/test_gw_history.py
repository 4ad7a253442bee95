"""Conversations as real SDKs send them: the answer that comes back is the one that was given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrails.calls import ToolOutcome
from runrails.testing.provider import Answer, FakeProvider, Text, ToolCalls, ToolUse
from runrails_gateway import canonical
from runrails_gateway.canonical import answer_digest, content_digest, remembered
from runrails_gateway.chain import chain, extend
from runrails_gateway.history import (
    AnswerMark,
    History,
    chat_history,
    history_of,
    mark_of,
    messages_history,
    response_mark,
    responses_history,
    stream_mark,
)

MODEL = "fake-model"
ARGS: dict[str, Any] = {"city": 'Zürich "Nord" 👋', "days": 3, "at": [1.0, None, True], "deep": {"b": 1, "a": {}}}
CALLS = ToolCalls([ToolUse("weather", ARGS), ToolUse("clock", {})], text="  Let me look.\nOne moment… ")
ONE = ToolCalls([ToolUse("weather", {"city": "Bern"})])
WORDS = Text(" It is sunny,\n\n and 21° — enjoy! ")
ANSWERS: dict[str, Answer] = {"calls": CALLS, "one": ONE, "words": WORDS}
TOOL: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}

Play = Callable[[str, bool], None]
"""Asks twice, the second time with the first answer in the conversation, given the provider's address."""


# What users' programs do.


def openai_chat(send_back: Callable[[Any], Any]) -> Play:
    def play(url: str, stream: bool) -> None:
        import openai

        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            messages: list[Any] = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
            tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": TOOL}}]
            if stream:
                with client.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as events:
                    message: Any = events.get_final_completion().choices[0].message
            else:
                message = client.chat.completions.create(model=MODEL, messages=messages, tools=tools).choices[0].message
            messages.append(send_back(message))
            called = message.tool_calls or ()
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in called]
            messages.append({"role": "user", "content": "and?"})
            client.chat.completions.create(model=MODEL, messages=messages, tools=tools)

    return play


def openai_responses(send_back: Callable[[Any], Any]) -> Play:
    def play(url: str, stream: bool) -> None:
        import openai

        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            items: list[Any] = [{"role": "user", "content": "hi"}]
            if stream:
                with client.responses.stream(model=MODEL, input=items) as events:
                    response: Any = events.get_final_response()
            else:
                response = client.responses.create(model=MODEL, input=items)
            items += [send_back(item) for item in response.output]
            called = [item for item in response.output if item.type == "function_call"]
            items += [{"type": "function_call_output", "call_id": call.call_id, "output": "fine"} for call in called]
            items.append({"role": "user", "content": "and?"})
            client.responses.create(model=MODEL, input=items)

    return play


def anthropic_messages(send_back: Callable[[Any], Any]) -> Play:
    def play(url: str, stream: bool) -> None:
        import anthropic

        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
            messages: list[Any] = [{"role": "user", "content": "hi"}]
            tools: Any = [{"name": "weather", "input_schema": TOOL}]
            if stream:
                with client.messages.stream(model=MODEL, max_tokens=999, messages=messages, tools=tools) as events:
                    message: Any = events.get_final_message()
            else:
                message = client.messages.create(model=MODEL, max_tokens=999, messages=messages, tools=tools)
            messages.append({"role": "assistant", "content": send_back(message.content)})
            results: list[Any] = [
                {"type": "tool_result", "tool_use_id": block.id, "content": "fine"}
                for block in message.content
                if block.type == "tool_use"
            ]
            messages.append({"role": "user", "content": [*results, {"type": "text", "text": "and?"}]})
            client.messages.create(model=MODEL, max_tokens=999, messages=messages, tools=tools)

    return play


def langchain(make: Callable[[str], Any]) -> Play:
    def play(url: str, stream: bool) -> None:
        from langchain_core.messages import HumanMessage, ToolMessage

        model = make(url)
        messages: list[Any] = [HumanMessage("hi")]
        if stream:
            chunks = list(model.stream(messages))
            message = chunks[0]
            for chunk in chunks[1:]:
                message += chunk
        else:
            message = model.invoke(messages)
        messages.append(message)
        messages += [ToolMessage("fine", tool_call_id=call["id"]) for call in message.tool_calls]
        messages.append(HumanMessage("and?"))
        model.invoke(messages)

    return play


def chat_openai(url: str, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key="k", max_retries=0, **options)  # type: ignore[arg-type]


def chat_responses(url: str) -> Any:
    return chat_openai(url, use_responses_api=True)


def chat_anthropic(url: str) -> Any:
    from langchain_anthropic import ChatAnthropic

    model: Any = ChatAnthropic
    made = model(model_name=MODEL, base_url=url, api_key="k", max_retries=0)
    return made.bind_tools([{"name": "weather", "input_schema": TOOL}])


def same(value: Any) -> Any:
    return value


CHAT, MESSAGES, RESPONSES = "chat.complete", "messages.create", "responses.create"
PROGRAMS: dict[str, tuple[str, str, Play]] = {
    "openai-object": (CHAT, "/v1/chat/completions", openai_chat(same)),
    "openai-dumped": (CHAT, "/v1/chat/completions", openai_chat(lambda message: message.model_dump())),
    "openai-plain": (CHAT, "/v1/chat/completions", openai_chat(lambda message: message.model_dump(exclude_none=True))),
    "langchain-openai": (CHAT, "/v1/chat/completions", langchain(chat_openai)),
    "responses-object": (RESPONSES, "/v1/responses", openai_responses(same)),
    "responses-dumped": (RESPONSES, "/v1/responses", openai_responses(lambda item: item.model_dump())),
    "langchain-responses": (RESPONSES, "/v1/responses", langchain(chat_responses)),
    "anthropic-object": (MESSAGES, "/v1/messages", anthropic_messages(same)),
    "anthropic-dumped": (
        MESSAGES, "/v1/messages", anthropic_messages(lambda blocks: [block.model_dump() for block in blocks])
    ),
    "langchain-anthropic": (MESSAGES, "/v1/messages", langchain(chat_anthropic)),
}  # fmt: skip


def given_answer(operation: str, path: str, script: Answer, body: Mapping[str, Any], *, stream: bool) -> AnswerMark:
    """The mark of the answer that a provider gives to the same first request, read from its bytes."""
    raw = json.dumps({**body, "stream": stream}).encode()
    with FakeProvider(script) as provider:
        connection = HTTPConnection(*provider.url.removeprefix("http://").split(":"))  # type: ignore[arg-type]
        connection.request("POST", path, raw, {"content-type": "application/json"})
        sent = connection.getresponse().read()
        connection.close()
    mark = stream_mark(operation, sent) if stream else mark_of(operation, json.loads(sent))
    assert mark is not None
    return mark


@pytest.mark.parametrize("answer", sorted(ANSWERS))
@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_the_answer_comes_back_as_it_was_given(program: str, answer: str) -> None:
    """Whole or streamed, with whatever the SDK adds, drops and respells, it is the same turn."""
    operation, path, play = PROGRAMS[program]
    marks: list[AnswerMark] = []
    for streams in (False, True):
        with FakeProvider(ANSWERS[answer]) as provider:
            play(provider.url, streams)
            first, second = (dict(request.body) for request in provider.received)
        history = history_of(operation, second)
        (place,) = [at for at, role in enumerate(history.roles) if role == "assistant"]
        marks.append(given_answer(operation, path, ANSWERS[answer], first, stream=streams))
        for mark in marks:
            assert mark.digest == history.digests[place]
            asked = history.turn(place).calls
            assert [(call.name, call.id) for call in mark.calls] == [(call.name, call.id) for call in asked]
            assert mark.call_ids == tuple(call.id for call in asked)
        before = history_of(operation, first)
        # The prefix of the second request is the first with its answer.
        assert extend(chain("alice", before)[-1], mark.digest) == chain("alice", history)[place + 1]
        results = [told for turn in history.turns for told in turn.results]
        assert {call_id for call_id, _ in results} == set(mark.call_ids)


THOUGHT: dict[str, Any] = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{
        "index": 0, "finish_reason": "tool_calls", "logprobs": None, "message": {
            "role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm", "annotations": [],
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{ "x": 1.50 , "y":"\\u00e9"}'}},
                {"id": "b", "type": "custom", "custom": {"name": "g", "input": "ls -la"}},
            ],
        },
    }],
}  # fmt: skip
THOUGHTFUL: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use",
    "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}, "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Hi ", "citations": None},
        {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv", "content": []},
        {"type": "text", "text": "there", "citations": None},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1.5}},
    ],
}  # fmt: skip
REASONED: dict[str, Any] = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed",
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "output": [
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "zz"},
        {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "no"},
        ]},
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"x":1}'},
        {"type": "custom_tool_call", "id": "ct", "call_id": "c2", "name": "g", "input": "ls"},
        {"type": "local_shell_call", "id": "ls", "call_id": "c3", "status": "completed", "action": {
            "type": "exec", "command": ["ls"], "env": {},
        }},
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}},
    ],
}  # fmt: skip


def dumped(model: Any) -> list[Any]:
    """What an SDK's object becomes, in the ways users write that down."""
    return [
        model.model_dump(), model.model_dump(exclude_none=True), model.to_dict(), json.loads(model.model_dump_json())
    ]  # fmt: skip


def test_reasoning_and_tools_of_the_provider_do_not_matter() -> None:
    """Some clients send them back, some do not; the SDKs' own objects are as they come from the wire."""
    from anthropic.types import Message
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

    chat_sent = dumped(ChatCompletion.model_validate(THOUGHT).choices[0].message)
    for message in chat_sent:
        given_mark = mark_of(CHAT, THOUGHT)
        assert given_mark is not None
        assert chat(message).digests == (given_mark.digest,)
    blocks = [dumped(block) for block in Message.model_validate(THOUGHTFUL).content]
    forms = [*zip(*blocks, strict=True), [block for block in THOUGHTFUL["content"] if "thinking" not in block["type"]]]
    for content in forms:
        given_mark = mark_of(MESSAGES, THOUGHTFUL)
        assert given_mark is not None
        messages = [{"role": "assistant", "content": list(content)}]
        assert messages_history({"messages": messages}).digests == (given_mark.digest,)
    items = [dumped(item) for item in Response.model_validate(REASONED).output]
    forms = [*zip(*items, strict=True), [item for item in REASONED["output"] if item["type"] != "reasoning"]]
    for output in forms:
        given_mark = mark_of(RESPONSES, REASONED)
        assert given_mark is not None
        assert given_mark.call_ids == ("c1", "c2", "c3")
        assert responses_history({"input": list(output)}).digests == (given_mark.digest,)


def test_a_part_that_was_there_before_is_not_read_again() -> None:
    """A conversation sends all of it again each time; what is remembered of it is a digest."""
    made: list[object] = []

    def make(part: object) -> bytes:
        made.append(part)
        return b"digest"

    part = {"role": "assistant", "content": ["swordfish", 1.5, None, True, {"deep": [10**30]}]}
    found = [remembered(b"x", json.loads(json.dumps(part)), make) for _ in range(3)]
    assert (found, len(made)) == ([b"digest"] * 3, 1)
    for other in ({**part, "content": []}, {**part, "x": 1}):
        assert remembered(b"x", other, make) == b"digest"
    assert remembered(b"y", part, make) == b"digest"
    assert len(made) == 4
    assert not any(b"swordfish" in key for key in canonical._remembered)
    # What is no JSON is read each time.
    assert [remembered(b"x", object(), make) for _ in range(2)] == [b"digest"] * 2
    assert len(made) == 6


# Wires.


def chat(*messages: Any) -> History:
    return chat_history({"messages": list(messages)})


def test_failures_are_read_from_each_wire() -> None:
    """OpenAI has no flag for an error, Anthropic has; a result in several texts is one text."""
    told = chat(
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "Error: x"}]},
    ).turn(1)
    assert told.results == (("a", ToolOutcome(ok=True, result="Error: x")),)
    heard = messages_history({"messages": [
        {"role": "assistant", "content": [
            {"type": "text", "text": "so"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {"x": 1}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "b", "is_error": True, "content": "boom"},
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "1"}]},
            {"type": "text", "text": "go on"},
        ]},
    ]})  # fmt: skip
    turns = heard.turns
    assert [turn.role for turn in turns] == ["assistant", "tool", "user"]
    assert [(call.id, call.name, call.args) for call in turns[0].calls] == [("a", "f", {}), ("b", "g", {"x": 1})]
    assert turns[1].results == (
        ("b", ToolOutcome(ok=False, result="boom")), ("a", ToolOutcome(ok=True, result="1"))
    )  # fmt: skip
    assert (heard.answers, heard.results) == (1, 2)
    turns = responses_history({"input": [
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "b", "name": "g", "input": "ls"},
        {"type": "function_call_output", "call_id": "a", "output": "no"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "yes"}]},
    ]}).turns  # fmt: skip
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "tool"]
    assert [(call.id, call.name, call.args) for call in turns[1].calls] == [("a", "f", "{}"), ("b", "g", "ls")]
    assert [turn.results[0] for turn in turns[2:]] == [
        ("a", ToolOutcome(ok=True, result="no")), ("b", ToolOutcome(ok=True, result="yes"))
    ]  # fmt: skip


def test_marks_of_the_cache_and_the_system_message_change_nothing() -> None:
    """Clients move the marks from turn to turn, and write the time of day into the system message."""
    plain = {"role": "user", "content": "hi"}
    marked = {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
    assert chat(plain).digests == chat(marked).digests
    one = chain("alice", chat({"role": "system", "content": "It is 9:00."}, plain))
    two = chain("alice", chat({"role": "system", "content": "It is 9:01."}, marked))
    assert one == two
    assert one[-1] == chain("alice", chat(plain))[-1]
    picture = {"type": "image_url", "image_url": {"url": "data:,x"}}
    assert chat({"role": "user", "content": [picture]}).digests != chat(plain).digests
    result = {"type": "tool_result", "tool_use_id": "a", "content": "x"}
    assert (
        messages_history({"messages": [{"role": "user", "content": [result]}]}).digests
        == messages_history(
            {"messages": [{"role": "user", "content": [{**result, "cache_control": {"type": "ephemeral"}}]}]}
        ).digests
    )


def test_what_differs_has_another_name() -> None:
    """Who speaks, what, in which order and for whom: each is part of the name."""
    bodies = [
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": "b"}, {"role": "user", "content": "a"}],
        [{"role": "user", "content": "ab"}],
        [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        [{"role": "tool", "tool_call_id": "1", "content": "a"}],
        [{"role": "tool", "tool_call_id": "2", "content": "a"}],
    ]
    names = [chain(owner, chat(*body))[-1] for owner in ("alice", "bob") for body in bodies]
    assert len(set(names)) == len(names)


def test_answers_that_nobody_keeps_have_no_id_to_go_on_from() -> None:
    """A response that is not stored cannot be named by the next request."""
    body = {"id": "resp_1", "output": [{"type": "message", "role": "assistant", "content": []}]}
    kept, gone = response_mark(body), response_mark({**body, "store": False})
    assert kept is not None
    assert gone is not None
    assert (kept.answer_id, gone.answer_id) == ("resp_1", None)
    assert kept.digest == gone.digest


BROKEN: list[dict[str, Any]] = [
    {},
    {"messages": None, "input": None},
    {"messages": "x", "input": 7},
    {"messages": [1, None, "x", {}], "input": [1, {}]},
    {"messages": [{"role": 3, "content": {"a": 1}}], "input": [{"type": 3}]},
    {"messages": [{"role": "assistant", "tool_calls": [1, {"id": 2}, {"function": {"name": 3}}], "function_call": 1}]},
    {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}, 1]}, {"role": "tool"}]},
    {"messages": [{"role": "user", "content": [{"type": "tool_result"}, 5]}], "input": [{"type": "x_output"}]},
    {"messages": [{"role": "assistant", "content": "\ud800", "tool_calls": [
        {"id": "\udfff", "function": {"name": "\ud800", "arguments": "[" * 5_000}},
    ]}]},
    {"choices": [], "content": "x", "output": 1},
    {"choices": [{}], "content": None},
    {"choices": [{"message": {}}]},
]  # fmt: skip


@pytest.mark.parametrize("operation", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_whatever_comes_is_some_history(operation: str, body: dict[str, Any]) -> None:
    """What is malformed is the provider's to refuse; reading it never fails."""
    history = history_of(operation, body)
    assert len(history.turns) == len(history.digests) == len(history)
    assert all(len(key) == 16 for key in chain("alice", history))
    mark_of(operation, body)


@pytest.mark.parametrize(
    "sse", [b"", b"data: [DONE]\n\n", b"data: {", b"event: x\n\n", b'data: {"choices": 3}\n\n', b"\xff"]
)
@pytest.mark.parametrize("operation", [CHAT, MESSAGES, RESPONSES, "embeddings.create"])
def test_a_stream_without_an_answer_has_no_mark(operation: str, sse: bytes) -> None:
    """An answer that never came is not known again."""
    assert stream_mark(operation, sse) is None


def test_a_stream_of_calls_without_numbers_is_read() -> None:
    """Some servers send each call in one piece and number none."""
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}
    mark = stream_mark(CHAT, f"data: {json.dumps(chunk)}\r\n\r\n".encode())
    assert mark is not None
    assert mark.call_ids == ("a", "b")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("broken", [False, True])
def test_lines_of_a_stream_may_end_in_three_ways(end: str, broken: bool) -> None:
    """What is no event's data is passed over, and so is an event that is damaged."""
    events = [json.dumps({"choices": [{"index": 0, "delta": {"content": said}}]}) for said in ("All ", "is ", "well")]
    told = [f"data: {events[0]}", "", ": a remark", "event: e", f"data:{events[1]}", "", f"data:  {events[2]}", ""]
    told += ['data: {"choices": [{', ""] if broken else []
    mark = stream_mark(CHAT, end.join([*told, "data: [DONE]", "", ""]).encode())
    whole = mark_of(CHAT, {"choices": [{"message": {"content": "All is well"}}]})
    assert mark is not None and whole is not None
    assert whole.digest == mark.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(args=st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_the_spelling_of_arguments_does_not_matter(args: dict[str, Any]) -> None:
    """Decoded, compact, indented, escaped or with the keys turned around: it is the same call."""
    turned = dict(reversed(list(args.items())))
    plain = json.dumps(args, ensure_ascii=False, separators=(",", ":"))
    spelled = [args, json.dumps(args), json.dumps(turned, indent=2), plain]
    assert len({answer_digest("x", [("1", "f", each)]) for each in spelled}) == 1
    assert answer_digest("x", [("1", "f", {**args, "new key": 1})]) != answer_digest("x", [("1", "f", args)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_two_lists_of_texts_are_never_spelled_alike(one: list[str], two: list[str]) -> None:
    """Whatever the texts hold, where one ends and the next begins is part of the name."""
    parts = [[{"type": "text", "text": text} for text in texts] for texts in (one, two)]
    assert (content_digest("u", parts[0]) == content_digest("u", parts[1])) == (one == two)
