"""The fake provider against the real anthropic SDK and langchain-anthropic."""

from __future__ import annotations

import threading

import pytest

from rr_fake_provider import FULL, PLAIN, TWO_CALLS, WEATHER, price
from runrails.testing.provider import Error, FakeProvider, HangUp, Stall, Text, ToolCalls, ToolUse
from runrails.usage import Usage
from runrails.usage_wire import from_anthropic, from_langchain

anthropic = pytest.importorskip("anthropic")

ASK = [{"role": "user", "content": "Say something."}]
TOOLS = [{"name": "weather", "description": "the weather", "input_schema": WEATHER}]
MESSAGES = "/v1/messages"
# Thinking is part of the output on this wire; the SDK has no count of it in a stream's parts.
CACHED = Usage(
    input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, cache_write_1h_tokens=30, output_tokens=777
)


@pytest.fixture
def provider():
    with FakeProvider(Text("ok"), price_pusd=price) as running:
        yield running


@pytest.fixture
def client(provider):
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="sk-none") as made:
        yield made


def ask(client, **how):
    return client.messages.create(**{"model": "claude-test", "max_tokens": 1000, "messages": ASK, **how})


def ends(provider):
    return [call.end for call in provider.bill]


def test_missing_max_tokens_is_a_400_and_free(provider, client):
    """Anthropic insists on max_tokens."""
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.post("/v1/messages", cast_to=object, body={"model": "claude-test", "messages": ASK})
    assert (provider.requests, ends(provider)) == ({MESSAGES: 1}, [])


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (400, "BadRequestError", 1),
        (402, "PaymentRequiredError", 1),
        (429, "RateLimitError", 3),
        (529, "OverloadedError", 3),
    ],
)
def test_errors_are_retried_by_the_sdk_and_cost_nothing(provider, client, status, kind, attempts):
    """The SDK retries what it always retries and raises its own types; none of it is billed."""
    provider.use(Error(status, headers={"retry-after-ms": "1"}))
    with pytest.raises(getattr(anthropic, kind, anthropic.APIStatusError)) as caught:
        ask(client)
    assert caught.value.status_code == status
    assert (provider.requests, ends(provider)) == ({MESSAGES: attempts}, [])


def test_usage_leaves_the_cache_out_of_the_input(provider, client):
    """input_tokens excludes the cache parts; the normaliser finds what was billed."""
    provider.use(Text("well", usage=CACHED))
    answer = ask(client)
    assert (answer.content[0].text, answer.usage.input_tokens) == ("well", 4321 - 1230)
    assert from_anthropic(answer.usage.model_dump()) == CACHED
    assert [call.usage for call in provider.bill] == [CACHED]


def test_tools_and_their_results(provider, client):
    """Parallel tool calls go out as blocks, and the results come in as messages of the role tool."""
    provider.use([ToolCalls(TWO_CALLS, text="see"), Text("done")])
    first = ask(client, tools=TOOLS)
    calls = [block for block in first.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
    ask(
        client,
        system="be kind",
        messages=[*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}],
    )
    assert (first.stop_reason, [call.input["city"] for call in calls]) == ("tool_use", ["Bern", "Rom"])
    seen = provider.received[1]
    assert [message.role for message in seen.messages] == ["system", "user", "assistant", "tool", "tool"]
    assert [message.tool_call_id for message in seen.messages[3:]] == [call.id for call in calls]
    assert seen.messages[2].tool_uses[0] == ToolUse("weather", {"city": "Bern"}, calls[0].id)


def test_cap_is_honoured(provider, client):
    """max_tokens caps what is billed, and the stop reason says so."""
    provider.use(Text("word " * 100, usage=PLAIN))
    answer = ask(client, max_tokens=50)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 50)


def test_stream_reports_input_at_the_start(provider, client):
    """message_start carries the input, message_delta the whole, cumulatively."""
    provider.use(Text("one two three", usage=CACHED))
    events = list(ask(client, stream=True))
    start, delta = events[0], events[-2]
    assert (start.type, start.message.usage.input_tokens, start.message.usage.output_tokens) == (
        "message_start",
        4321 - 1230,
        1,
    )
    assert (delta.type, delta.usage.input_tokens, delta.usage.output_tokens) == ("message_delta", 4321 - 1230, 777)
    assert start.message.usage.cache_creation.ephemeral_1h_input_tokens == 30


def test_old_stream_form_reports_output_only_at_the_end(provider, client):
    """Older servers and proxies send output tokens alone in message_delta."""
    provider.use(Text("one two", usage=CACHED, report="old"))
    delta = list(ask(client, stream=True))[-2]
    assert (delta.usage.input_tokens, delta.usage.output_tokens) == (None, 777)
    assert [call.usage for call in provider.bill] == [CACHED]


def test_stream_helper_assembles_tools(provider, client):
    """The SDK's own helper puts text and tool calls together."""
    provider.use(ToolCalls(TWO_CALLS, text="let me see"))
    with client.messages.stream(model="claude-test", max_tokens=1000, messages=ASK, tools=TOOLS) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert final.content[2].input == {"city": "Rom"}


@pytest.mark.parametrize("after", [0, 2])
def test_broken_stream_bills_what_was_generated(provider, client, after):
    """A provider that breaks off bills the input and the pieces sent; the client knows the input by then."""
    provider.use(HangUp(Text("abcd", chunks=4, usage=PLAIN), after_chunks=after))
    seen = []
    # The SDK lets the transport's own error through here, whichever transport it stands on.
    with pytest.raises(Exception, match="peer closed connection"):
        for event in ask(client, stream=True):
            seen.append(event.type)  # noqa: PERF401 -- what came before the error counts
    assert (seen[0], seen.count("content_block_delta")) == ("message_start", after)
    assert [(line.end, line.usage.output_tokens) for line in provider.bill] == [("errored", 125 * after)]


def test_reader_who_leaves_is_billed_for_the_pieces_sent(provider, client):
    """A stream closed by its reader ends as cut."""
    provider.use(Stall(threading.Event(), Text("abcd", chunks=4, usage=PLAIN), after_chunks=1))
    with ask(client, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
    provider.wait_idle()
    assert [(line.end, line.usage.output_tokens) for line in provider.bill] == [("cut", 125)]


def test_error_inside_a_stream(provider, client):
    """An error event in the stream becomes the SDK's error."""
    provider.use(HangUp(Text("abcd", chunks=4), after_chunks=1, error=Error(529, message="overloaded")))
    with pytest.raises(anthropic.APIStatusError, match="overloaded"):
        list(ask(client, stream=True))
    assert ends(provider) == ["errored"]


def test_counting_tokens_is_free(provider, client):
    """count_tokens answers without a script and is never billed."""
    provider.use([])
    counted = client.messages.count_tokens(model="claude-test", messages=ASK)
    assert (counted.input_tokens > 0, ends(provider), provider.requests) == (True, [], {f"{MESSAGES}/count_tokens": 1})


def test_models(provider, client):
    """The list of models comes in Anthropic's shape."""
    provider.use({"claude-test": Text("x")})
    assert [model.id for model in client.models.list()] == ["claude-test"]
    assert client.models.retrieve("claude-test").type == "model"


async def test_async_whole_and_streamed(provider):
    """The asynchronous client works too."""
    provider.use([Text("one"), Text("two words")])
    async with anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="x") as client:
        whole = await ask(client)
        async with client.messages.stream(model="claude-test", max_tokens=10, messages=ASK) as stream:
            text = "".join([piece async for piece in stream.text_stream])
    assert (whole.content[0].text, text, ends(provider)) == ("one", "two words", ["completed"] * 2)


def test_chat_anthropic_whole_and_streamed(provider):
    """ChatAnthropic adds the cache parts to the input; the old stream form makes it lose the input."""
    langchain_anthropic = pytest.importorskip("langchain_anthropic")
    provider.use([Text("a", usage=CACHED), Text("b c", usage=CACHED), Text("d", usage=PLAIN, report="old")])
    model = langchain_anthropic.ChatAnthropic(
        model_name="claude-test", api_key="x", base_url=provider.anthropic_url, max_tokens=1000
    )
    try:
        whole = model.invoke("hello")
        streamed = _added(model.stream("hello"))
        old = _added(model.stream("hello"))
    finally:
        model._client.close()
    assert from_langchain(whole.usage_metadata) == CACHED
    assert streamed.usage_metadata["input_tokens"] == CACHED.input_tokens
    assert (old.usage_metadata["input_tokens"], old.usage_metadata["output_tokens"]) == (0, 500)
    assert ends(provider) == ["completed"] * 3


def _added(chunks):
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


def test_reasoning_is_told_apart(provider, client):
    """Thinking tokens are a part of the output and are reported as such."""
    provider.use(Text("well", usage=FULL))
    answer = ask(client)
    assert (answer.usage.output_tokens, answer.usage.output_tokens_details.thinking_tokens) == (777, 70)
