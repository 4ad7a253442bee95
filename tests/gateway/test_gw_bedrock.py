"""Models on Bedrock in OpenAI's and Anthropic's words: against botocore's own models and a provider that sees all."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from rr_fake_provider import PLAIN, TWO_CALLS, WEATHER, price
from rr_sdk_http import http_of
from runrails.answers.anthropic import MessageEvents
from runrails.answers.openai import ChatEvents
from runrails.answers.openai import chat_answer as read_chat
from runrails.clients.sse import SseReader
from runrails.testing.provider import Error, FakeProvider, Text, ToolCalls
from runrails.usage import Usage
from runrails.usage_wire import from_anthropic, from_openai_chat
from runrails_gateway.bedrock.asking import Failed, Frames, converse_path
from runrails_gateway.bedrock.chat import chat_answer, chat_request
from runrails_gateway.bedrock.messages import messages_answer, messages_request
from runrails_gateway.bedrock.streams import ChatStream, LateInput, MessagesStream
from runrails_gateway.errors import BadRequest

boto3 = pytest.importorskip("boto3")
openai_types = pytest.importorskip("openai.types.chat")
anthropic_types = pytest.importorskip("anthropic.types")

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
CACHED = Usage(
    input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, cache_write_1h_tokens=30, output_tokens=777
)
CHAT: dict[str, Any] = {
    "model": MODEL, "max_tokens": 2_000, "temperature": 0.5, "stop": ["END"], "user": "alice", "n": 1,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look:"}]},
        {"role": "user", "content": "And the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}},
            {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "sun"}]},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "description": "W.", "parameters": WEATHER}}],
    "tool_choice": "auto",
}  # fmt: skip
MESSAGES: dict[str, Any] = {
    "model": MODEL, "max_tokens": 2_000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "stop_sequences": ["END"], "top_k": 5, "metadata": {"user_id": "u"},
    "messages": [
        {"role": "user", "content": "Look:And the weather?"},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bern"}},
            {"type": "tool_use", "id": "c2", "name": "weather", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": "rain"},
            {"type": "tool_result", "tool_use_id": "c2", "is_error": True,
             "content": [{"type": "text", "text": "sun"}]}]},
    ],
    "tools": [{"name": "weather", "description": "W.", "input_schema": WEATHER}],
}  # fmt: skip


@pytest.fixture
def provider():
    with FakeProvider(Text("Rain in Bern."), price_pusd=price) as running:
        yield running


def post(url: str, body: object) -> bytes:
    request = urllib.request.Request(  # noqa: S310 -- the fake provider's
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- see above
        return answer.read()


def asked(provider: FakeProvider, body: object, *, stream: bool = False) -> bytes:
    return post(provider.bedrock_url + converse_path(MODEL, stream=stream), body)


def for_boto(value: Any) -> Any:
    """As boto3 wants it: bytes where the wire has base64."""
    if isinstance(value, dict):
        return {k: base64.b64decode(v) if k == "bytes" else for_boto(v) for k, v in value.items()}
    return [for_boto(each) for each in value] if isinstance(value, list) else value


def valid(body: dict[str, Any]) -> None:
    """Raise if botocore's own model of Converse would not take it."""
    from botocore.validate import ParamValidator

    client = boto3.Session(aws_access_key_id="n", aws_secret_access_key="n", region_name="us-east-1").client(
        "bedrock-runtime"
    )
    shape = client.meta.service_model.operation_model("Converse").input_shape
    report = ParamValidator().validate({"modelId": MODEL, **for_boto(body)}, shape)
    client.close()
    assert "" == report.generate_report()


@pytest.mark.parametrize(
    ("translate", "body"), [(chat_request, CHAT), (messages_request, MESSAGES)], ids=["chat", "messages"]
)
def test_a_translated_request_says_the_same(provider: FakeProvider, translate: Any, body: dict[str, Any]) -> None:
    """botocore takes it, and a provider reads the same conversation from it as from the request itself."""
    made = translate(body)
    valid(made)
    asked(provider, made)
    direct = (
        provider.openai_url + "/chat/completions"
        if translate is chat_request
        else provider.anthropic_url + "/v1/messages"
    )
    post(direct, body)
    through, straight = provider.received
    assert [(m.role, m.tool_call_id) for m in through.messages if m.role in {"assistant", "tool"}] == [
        (m.role, m.tool_call_id) for m in straight.messages if m.role in {"assistant", "tool"}
    ]
    used = [
        [(u.id, u.name, json.loads(u.args_json)) for m in each.messages for u in m.tool_uses]
        for each in (through, straight)
    ]
    assert used[0] == used[1]
    text = ["".join(m.text for m in each.messages) for each in (through, straight)]
    assert text[0] == text[1]
    assert (through.max_tokens, len(through.tools)) == (straight.max_tokens, len(straight.tools))


def test_a_picture_is_sent_as_it_is() -> None:
    """From a data URL of OpenAI's and a block of Anthropic's alike."""
    chat = {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]}]}  # fmt: skip
    messages = {"messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]}]}  # fmt: skip
    made = chat_request(chat)
    valid(made)
    assert made["messages"] == messages_request(messages)["messages"]


def says(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def calls(arguments: str) -> dict[str, Any]:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "tool_calls": [call]}]}


def test_arguments_that_are_nothing_are_an_empty_object() -> None:
    """As some models write a call without arguments."""
    (message,) = chat_request(calls(""))["messages"]
    assert {} == message["content"][0]["toolUse"]["input"]


CHAT_REFUSED: dict[str, dict[str, Any]] = {
    "several answers": {"n": 2}, "seed": {"seed": 1}, "logprobs": {"logprobs": True},
    "penalty": {"presence_penalty": 1}, "schema": {"response_format": {"type": "json_schema"}},
    "unknown": {"whatever": 1}, "no tools": {"tool_choice": "none"}, "hosted tool": {"tools": [{"type": "web_search"}]},
    "role": {"messages": [{"role": "boss", "content": "x"}]}, "audio": says(type="input_audio"),
    "far picture": says(type="image_url", image_url={"url": "http://x/y.png"}),
    "no picture": says(type="image_url", image_url={"url": "data:text/html;base64,eA=="}),
    "arguments": calls("[1]"), "broken arguments": calls("{"), "hot": {"temperature": "hot"}, "stop": {"stop": [1]},
    "nameless": {"messages": [{"role": "tool", "content": "x"}]},
}  # fmt: skip
MESSAGES_REFUSED: dict[str, dict[str, Any]] = {
    "role": {"messages": [{"role": "system", "content": "x"}]}, "file": says(type="document"),
    "far picture": says(type="image", source={"type": "url", "url": "http://x"}),
    "hosted tool": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "none": {"tool_choice": {"type": "none"}}, "unknown": {"container": "x"}, "cap": {"max_tokens": True},
    "nameless": {"tools": [{"input_schema": {}}]},
}  # fmt: skip


@pytest.mark.parametrize("name", CHAT_REFUSED)
def test_what_converse_has_not_is_refused_and_not_lost(name: str) -> None:
    """With an error that says what to leave out, and nothing of the request in it."""
    with pytest.raises(BadRequest) as caught:
        chat_request({**CHAT, **CHAT_REFUSED[name]})
    assert "whatever" not in str(caught.value)


@pytest.mark.parametrize("name", MESSAGES_REFUSED)
def test_what_converse_has_not_is_refused_of_messages_too(name: str) -> None:
    """As above."""
    with pytest.raises(BadRequest):
        messages_request({**MESSAGES, **MESSAGES_REFUSED[name]})


@pytest.mark.parametrize("usage", [PLAIN, CACHED], ids=["plain", "cached"])
@pytest.mark.parametrize("script", [Text, ToolCalls], ids=["text", "tools"])
def test_a_translated_answer_is_one_of_the_sdks_own_types(provider: FakeProvider, script: Any, usage: Usage) -> None:
    """Strictly read by the SDKs' models; the usage is the same in both."""
    provider.use(Text("Rain.", usage=usage) if script is Text else ToolCalls(TWO_CALLS, usage=usage))
    told = json.loads(asked(provider, chat_request(CHAT)))
    chat = chat_answer(told, model=MODEL, answer_id="chatcmpl-1", created_s=1)
    message = messages_answer(told, model=MODEL, answer_id="msg_1")
    one = openai_types.ChatCompletion.model_validate(chat, strict=True)
    other = anthropic_types.Message.model_validate(message)
    assert from_anthropic(message["usage"]) == usage
    assert read_chat(chat).usage.output_tokens == usage.output_tokens
    assert read_chat(chat).usage.input_tokens == usage.input_tokens
    if script is Text:
        assert ("Rain.", "stop") == (one.choices[0].message.content, one.choices[0].finish_reason)
        assert ("Rain.", "end_turn") == (other.content[0].text, other.stop_reason)
    else:
        calls = [
            (call.function.name, json.loads(call.function.arguments)) for call in one.choices[0].message.tool_calls
        ]
        assert calls == [(block.name, block.input) for block in other.content] == [(c.name, c.args) for c in TWO_CALLS]
        assert ("tool_calls", "tool_use") == (one.choices[0].finish_reason, other.stop_reason)


def retold(provider: FakeProvider, stream: Any) -> bytes:
    """A stream of Converse in other words, in as small pieces as can be."""
    frames, data = Frames(), asked(provider, chat_request(CHAT), stream=True)
    said = [stream.event(kind, told) for at in range(0, len(data), 7) for kind, told in frames.feed(data[at : at + 7])]
    return b"".join([*said, stream.end()])


@pytest.mark.parametrize("script", ["text", "tools"])
def test_a_stream_becomes_the_answer_that_is_given_whole(provider: FakeProvider, script: str) -> None:
    """Put together by the SDKs' own accumulators, with the usage and the ending."""
    from openai.lib.streaming.chat import ChatCompletionStreamState

    provider.use(Text("Rain in Bern.", usage=PLAIN) if script == "text" else ToolCalls(TWO_CALLS, usage=PLAIN))
    chat = retold(provider, ChatStream(model=MODEL, answer_id="chatcmpl-1", created_s=1))
    state = ChatCompletionStreamState()
    events = [line[6:] for line in chat.split(b"\n") if line.startswith(b"data: ")]
    assert b"[DONE]" == events.pop()
    for event in events:
        state.handle_chunk(openai_types.ChatCompletionChunk.model_validate_json(event, strict=True))
    whole = state.get_final_completion()
    said = whole.choices[0].message
    if script == "text":
        assert ("Rain in Bern.", "stop") == (said.content, whole.choices[0].finish_reason)
    else:
        assert [(c.name, c.args) for c in TWO_CALLS] == [
            (call.function.name, json.loads(call.function.arguments)) for call in said.tool_calls
        ]
    reader = SseReader(ChatEvents(reasoning=False, hides=True))
    assert b'"usage"' not in reader.feed(chat)
    assert PLAIN == reader.outcome("ended").usage
    assert PLAIN == from_openai_chat(whole.usage.model_dump())


@pytest.mark.parametrize("script", ["text", "tools"])
def test_a_message_stream_becomes_the_message(provider: FakeProvider, script: str) -> None:
    """Read by the real SDK from a server that says just that."""
    import anthropic

    sending = http_of(anthropic)
    provider.use(Text("Rain in Bern.", usage=CACHED) if script == "text" else ToolCalls(TWO_CALLS, usage=CACHED))
    data = retold(provider, MessagesStream(model=MODEL, answer_id="msg_1"))
    answer = sending.Response(200, headers={"content-type": "text/event-stream"}, content=data)
    http = sending.Client(transport=sending.MockTransport(lambda request: answer))
    client = anthropic.Anthropic(api_key="k", http_client=http)
    with client.messages.stream(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "x"}]) as stream:
        message = stream.get_final_message()
    client.close()
    if script == "text":
        assert "Rain in Bern." == message.content[0].text
    else:
        assert [(c.name, c.args) for c in TWO_CALLS] == [(block.name, block.input) for block in message.content]
    reader = SseReader(LateInput(reasoning=False, names_model=False))
    reader.feed(data)
    assert CACHED == reader.outcome("ended").usage


def test_the_input_of_a_broken_stream_is_not_zero(provider: FakeProvider) -> None:
    """A reader that took the beginning's 0 for a report would charge nothing for what was read."""
    data = retold(provider, MessagesStream(model=MODEL, answer_id="msg_1"))
    broken = data[: data.index(b"event: message_delta")]
    ours = SseReader(LateInput(reasoning=False, names_model=False))
    plain = SseReader(MessageEvents(reasoning=False, names_model=False))
    for reader in (ours, plain):
        reader.feed(broken)
    assert ("cut", None) == (ours.outcome("left").end, ours.outcome("left").input_usage)
    assert plain.outcome("left").input_usage is not None


def test_a_stream_without_a_report_has_no_usage(provider: FakeProvider) -> None:
    """It is settled at what was held, in both dialects."""
    provider.use(Text("Rain.", report="none"))
    chat, message = (
        SseReader(ChatEvents(reasoning=False, hides=True)),
        SseReader(LateInput(reasoning=False, names_model=False)),
    )
    chat.feed(retold(provider, ChatStream(model=MODEL, answer_id="c", created_s=1)))
    message.feed(retold(provider, MessagesStream(model=MODEL, answer_id="m")))
    for reader in (chat, message):
        assert ("completed", None) == (reader.outcome("ended").end, reader.outcome("ended").usage)


def test_thoughts_are_retold_to_anthropics_clients_alone() -> None:
    """With their signatures; a chat completion has no place for them."""
    events: list[tuple[str, dict[str, Any]]] = [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Yes."}}),
        ("contentBlockStop", {"contentBlockIndex": 1}),
        ("messageStop", {"stopReason": "end_turn"}),
    ]  # fmt: skip
    message, chat = MessagesStream(model=MODEL, answer_id="m"), ChatStream(model=MODEL, answer_id="c", created_s=1)
    said = b"".join(message.event(*event) for event in events)
    assert (b'"thinking_delta","thinking":"hm"' in said, b'"signature":"s"' in said) == (True, True)
    assert (2, 2) == (said.count(b"event: content_block_start"), said.count(b"event: content_block_stop"))
    assert b"hm" not in b"".join(chat.event(*event) for event in events)


def test_a_stream_that_fails_says_how_and_broken_frames_are_no_stream(provider: FakeProvider) -> None:
    """AWS's name of it, in small letters; and what has no checksum is nothing."""
    from runrails.testing.provider.eventstream import frame

    headers = {":exception-type": "throttlingException", ":message-type": "exception"}
    with pytest.raises(Failed, match="throttlingException"):
        list(Frames().feed(frame(headers, b'{"message":"slow down"}')))
    good = frame({":event-type": "messageStart", ":message-type": "event"}, b"{}")
    for bad in (good[:-1] + b"x", b"HTTP/1.1 200 OK\r\n\r\n" * 2):
        with pytest.raises(ValueError, match="frames"):
            list(Frames().feed(bad))
    with pytest.raises(ValueError, match="no JSON object"):
        list(Frames().feed(frame({":event-type": "messageStart", ":message-type": "event"}, b"[]")))


def test_an_error_has_awss_status(provider: FakeProvider) -> None:
    """So that it can be told on."""
    provider.use(Error(429))
    with pytest.raises(urllib.error.HTTPError) as caught:
        asked(provider, chat_request(CHAT))
    assert 429 == caught.value.code
    caught.value.close()


def test_a_models_name_never_leaves_its_place() -> None:
    """ARNs, slashes and dots are escaped."""
    assert "/model/arn%3Aaws%3Abedrock%3A%3A1%3Ax%2Fy/converse" == converse_path("arn:aws:bedrock::1:x/y", stream=False)
    assert "/model/..%2F..%2Fadmin%3Fx%3D1/converse-stream" == converse_path("../../admin?x=1", stream=True)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_frames_are_read_as_botocore_reads_them(provider: FakeProvider, size: int) -> None:
    """However they are cut, with headers of every type."""
    import struct
    import zlib

    from botocore.eventstream import EventStreamBuffer

    def packed(head: bytes, body: bytes) -> bytes:
        prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
        message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + body
        return message + struct.pack("!I", zlib.crc32(message))

    def named(name: str, kind: int, value: bytes) -> bytes:
        return bytes([len(name)]) + name.encode() + bytes([kind]) + value

    values = {0: b"", 1: b"", 2: b"x", 3: b"xx", 4: b"x" * 4, 5: b"x" * 8, 6: b"\0\x03abc", 8: b"x" * 8, 9: b"x" * 16}
    odd = b"".join(named(f"h{kind}", kind, value) for kind, value in values.items())
    event = named(":event-type", 7, b"\0\x04what") + named(":message-type", 7, b"\0\x05event")
    provider.use(ToolCalls(TWO_CALLS, usage=CACHED))
    data = packed(odd + event, b'{"a":1}') + asked(provider, chat_request(CHAT), stream=True)
    theirs = EventStreamBuffer()
    theirs.add_data(data)
    wanted = [(told.headers[":event-type"], json.loads(told.payload)) for told in theirs]
    frames = Frames()
    found = [each for at in range(0, len(data), size) for each in frames.feed(data[at : at + size])]
    assert wanted == found
    assert ("what", {"a": 1}) == found[0]
    for bad in (packed(named("h", 10, b""), b"{}"), packed(b"\x09h", b"{}"), packed(b"\x01h\x07\0\x09x", b"{}"),
                packed(b"\x01h\x07\0\x01\xff", b"{}"), struct.pack("!II", 2**31, 0) + b"\0" * 12):  # fmt: skip
        with pytest.raises(ValueError, match=r"frames|utf-8"):
            list(Frames().feed(bad))
