"""The fake provider against real boto3, langchain-aws and the anthropic SDK's Bedrock client."""

from __future__ import annotations

import threading
import zlib

import pytest

from rr_fake_provider import PLAIN, TWO_CALLS, WEATHER, price
from runrails.testing.provider import Error, FakeProvider, HangUp, Stall, Text, ToolCalls
from runrails.testing.provider.eventstream import frame
from runrails.usage import Usage
from runrails.usage_wire import from_anthropic, from_bedrock, from_langchain

boto3 = pytest.importorskip("boto3")
botocore_config = pytest.importorskip("botocore.config")
botocore_errors = pytest.importorskip("botocore.exceptions")

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ASK = [{"role": "user", "content": [{"text": "Say something."}]}]
TOOLS = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": WEATHER}}}]}
CACHED = Usage(
    input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, cache_write_1h_tokens=30, output_tokens=777
)


@pytest.fixture
def provider():
    with FakeProvider(Text("ok"), price_pusd=price) as running:
        yield running


@pytest.fixture
def client(provider):
    made = boto3.Session(aws_access_key_id="none", aws_secret_access_key="none", region_name="us-east-1").client(
        "bedrock-runtime",
        endpoint_url=provider.bedrock_url,
        config=botocore_config.Config(retries={"total_max_attempts": 3, "mode": "standard"}, read_timeout=5),
    )
    yield made
    made.close()


def converse(client, **how):
    return client.converse(**{"modelId": MODEL, "messages": ASK, **how})


def streamed(client, **how):
    return client.converse_stream(**{"modelId": MODEL, "messages": ASK, **how})["stream"]


def ends(provider):
    return [call.end for call in provider.bill]


def _read(stream):
    """Everything that comes; boto3 leaves a stream that breaks open."""
    try:
        return list(stream)
    finally:
        stream.close()


def test_frames_carry_their_checksums():
    """A frame is prelude, headers, payload and two checksums."""
    data = frame({":event-type": "x"}, b"{}")
    assert len(data) == int.from_bytes(data[:4], "big")
    assert zlib.crc32(data[:8]) == int.from_bytes(data[8:12], "big")
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "big")


@pytest.mark.parametrize(
    ("status", "kind", "attempts"), [(400, "ValidationException", 1), (403, "AccessDeniedException", 1)]
)
def test_errors_have_their_aws_names_and_cost_nothing(provider, client, status, kind, attempts):
    """The SDK raises the modelled exception."""
    provider.use(Error(status))
    with pytest.raises(getattr(client.exceptions, kind)):
        converse(client)
    assert (sum(provider.requests.values()), ends(provider)) == (attempts, [])


def test_error_then_answer_is_retried_below_the_call(provider, client):
    """botocore retries a throttled call by itself; one line is billed."""
    provider.use([Error(429), Text("there", usage=PLAIN)])
    answer = converse(client)
    assert answer["output"]["message"]["content"] == [{"text": "there"}]
    assert (sum(provider.requests.values()), ends(provider)) == (2, ["completed"])


def test_usage_leaves_the_cache_out_of_the_input(provider, client):
    """inputTokens and totalTokens exclude the cache; the normaliser finds what was billed."""
    provider.use(Text("well", usage=CACHED))
    usage = converse(client)["usage"]
    assert (usage["inputTokens"], usage["totalTokens"]) == (4321 - 1230, 4321 - 1230 + 777)
    assert from_bedrock(usage) == CACHED
    assert [(call.model, call.usage) for call in provider.bill] == [(MODEL, CACHED)]


def test_tools_and_their_results(provider, client):
    """Parallel tool calls go out as blocks, and the results come in as messages of the role tool."""
    provider.use([ToolCalls(TWO_CALLS, text="see"), Text("done")])
    first = converse(client, toolConfig=TOOLS)
    calls = [block["toolUse"] for block in first["output"]["message"]["content"] if "toolUse" in block]
    results = [
        {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": "sun"}, {"json": {"t": 1}}]}}
        for call in calls
    ]
    converse(
        client,
        system=[{"text": "be kind"}],
        messages=[*ASK, first["output"]["message"], {"role": "user", "content": results}],
    )
    assert (first["stopReason"], [call["input"]["city"] for call in calls]) == ("tool_use", ["Bern", "Rom"])
    seen = provider.received[1]
    assert [message.role for message in seen.messages] == ["system", "user", "assistant", "tool", "tool"]
    assert seen.last.text == 'sun{"t": 1}'


def test_cap_is_honoured(provider, client):
    """maxTokens caps what is billed."""
    provider.use(Text("word " * 100, usage=PLAIN))
    answer = converse(client, inferenceConfig={"maxTokens": 50})
    assert (answer["stopReason"], answer["usage"]["outputTokens"]) == ("max_tokens", 50)


def test_stream_in_real_frames(provider, client):
    """botocore checks every checksum; text, stop reason and usage arrive."""
    provider.use(Text("one two three", usage=CACHED))
    events = _read(streamed(client))
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert (text, events[-2]["messageStop"]["stopReason"]) == ("one two three", "end_turn")
    assert from_bedrock(events[-1]["metadata"]["usage"]) == CACHED
    assert ends(provider) == ["completed"]


def test_streamed_tool_calls(provider, client):
    """Tool calls come as a start and pieces of their input."""
    provider.use(ToolCalls(TWO_CALLS))
    pieces = {}
    for event in streamed(client, toolConfig=TOOLS):
        if "contentBlockDelta" in event:
            delta = event["contentBlockDelta"]
            index = delta["contentBlockIndex"]
            pieces[index] = pieces.get(index, "") + delta["delta"]["toolUse"]["input"]
    assert pieces == {0: '{"city":"Bern"}', 1: '{"city":"Rom"}'}


def test_error_inside_a_stream(provider, client):
    """An exception frame becomes an EventStreamError, and the pieces before it are billed."""
    provider.use(HangUp(Text("abcd", chunks=4, usage=PLAIN), after_chunks=1, error=Error(429)))
    with pytest.raises(botocore_errors.EventStreamError, match="throttlingException"):
        _read(streamed(client))
    assert [(line.end, line.usage.output_tokens) for line in provider.bill] == [("errored", 125)]


def test_broken_stream_bills_what_was_generated(provider, client):
    """A connection that breaks inside a stream is billed for the pieces sent."""
    provider.use(HangUp(Text("abcd", chunks=4, usage=PLAIN), after_chunks=2))
    # boto3 lets urllib3's own error through here.
    with pytest.raises(Exception, match="ended prematurely"):
        _read(streamed(client))
    assert [(line.end, line.usage.output_tokens) for line in provider.bill] == [("errored", 250)]


def test_reader_who_leaves_is_billed_for_the_pieces_sent(provider, client):
    """A stream closed by its reader ends as cut."""
    provider.use(Stall(threading.Event(), Text("abcd", chunks=4, usage=PLAIN), after_chunks=2))
    stream = streamed(client)
    seen = 0
    for event in stream:
        seen += "contentBlockDelta" in event
        if seen == 2:
            break
    stream.close()
    provider.wait_idle()
    assert [(line.end, line.usage.output_tokens) for line in provider.bill] == [("cut", 250)]


def test_chat_bedrock_converse(provider, client):
    """ChatBedrockConverse adds the cache to the input but passes the total through."""
    langchain_aws = pytest.importorskip("langchain_aws")
    provider.use([Text("a", usage=CACHED), Text("b c", usage=CACHED)])
    model = langchain_aws.ChatBedrockConverse(model=MODEL, client=client, bedrock_client=client)
    whole = model.invoke("hello")
    streamed_usage = [chunk.usage_metadata for chunk in model.stream("hello") if chunk.usage_metadata]
    assert from_langchain(whole.usage_metadata) == CACHED
    assert whole.usage_metadata["total_tokens"] != CACHED.total_tokens
    assert streamed_usage[-1]["input_tokens"] == CACHED.input_tokens
    assert ends(provider) == ["completed", "completed"]


def test_invoke_model_reports_usage_in_headers(provider, client):
    """InvokeModel answers in Anthropic's shape, with token counts in the headers."""
    provider.use(Text("well", usage=PLAIN))
    body = b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":1000,"messages":[{"role":"user","content":"hi"}]}'
    answer = client.invoke_model(modelId=MODEL, body=body)
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert b'"text":"well"' in answer["body"].read()
    assert (headers["x-amzn-bedrock-input-token-count"], headers["x-amzn-bedrock-output-token-count"]) == (
        "1000",
        "500",
    )
    assert [call.model for call in provider.bill] == [MODEL]


def test_anthropic_bedrock_client_whole_and_streamed(provider):
    """The anthropic SDK's Bedrock client speaks InvokeModel, streams included."""
    anthropic = pytest.importorskip("anthropic")
    provider.use([Text("one", usage=CACHED), Text("two words", usage=CACHED)])
    with anthropic.AnthropicBedrock(
        base_url=provider.bedrock_url, aws_access_key="none", aws_secret_key="none", aws_region="us-east-1"
    ) as client:
        whole = client.messages.create(model=MODEL, max_tokens=1000, messages=[{"role": "user", "content": "hi"}])
        with client.messages.stream(
            model=MODEL, max_tokens=1000, messages=[{"role": "user", "content": "hi"}]
        ) as stream:
            text = stream.get_final_text()
    assert (whole.content[0].text, text) == ("one", "two words")
    assert from_anthropic(whole.usage.model_dump()) == CACHED
    assert [(call.model, call.wire) for call in provider.bill] == [(MODEL, "bedrock_invoke")] * 2
