"""The fake provider against the real openai SDK and langchain-openai."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from rr_fake_provider import FULL, PLAIN, TWO_CALLS, WEATHER, price
from runrails.testing.provider import (
    Delay,
    Error,
    FakeProvider,
    HangUp,
    ProviderRequest,
    Stall,
    Text,
    ToolCalls,
    ToolUse,
    repeating,
)
from runrails.usage import Usage
from runrails.usage_wire import from_langchain, from_openai_chat, from_openai_responses

openai = pytest.importorskip("openai")

ASK = [{"role": "user", "content": "Say something."}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
CHAT = "/v1/chat/completions"


@pytest.fixture
def provider():
    with FakeProvider(Text("ok"), price_pusd=price) as running:
        yield running


@pytest.fixture
def client(provider):
    with openai.OpenAI(base_url=provider.openai_url, api_key="sk-none") as made:
        yield made


def ends(provider):
    return [call.end for call in provider.bill]


# Chat completions


def test_unknown_path_is_a_404_and_free(provider, client):
    """What nobody serves is not found, and nothing is billed."""
    with pytest.raises(openai.NotFoundError):
        client.post("/v1/nothing", cast_to=object)
    assert ends(provider) == []


@pytest.mark.parametrize("body", [{}, {"model": "gpt-4o"}, {"model": "gpt-4o", "messages": []}])
def test_malformed_request_is_a_400_and_free(provider, client, body):
    """A request without model or messages is refused once, as the real provider does it."""
    with pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", cast_to=object, body=body)
    assert (ends(provider), provider.requests) == ([], {CHAT: 1})


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (400, "BadRequestError", 1),
        (402, "APIStatusError", 1),
        (429, "RateLimitError", 3),
        (500, "InternalServerError", 3),
    ],
)
def test_errors_are_retried_by_the_sdk_and_cost_nothing(provider, client, status, kind, attempts):
    """The SDK retries what it always retries; the provider counts every attempt and bills none."""
    provider.use(Error(status, code="scripted", headers={"retry-after-ms": "1"}))
    with pytest.raises(getattr(openai, kind)) as caught:
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (status, "scripted")
    assert (provider.requests, ends(provider)) == ({CHAT: attempts}, [])


def test_x_should_retry_false_ends_the_attempts(provider, client):
    """Scripted headers reach the SDK."""
    provider.use(Error(429, headers={"x-should-retry": "false"}))
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert provider.requests == {CHAT: 1}


def test_errors_then_an_answer_bill_one_call(provider, client):
    """Two failures and a success are three requests and one line of the bill."""
    provider.use([Error(500, headers={"retry-after-ms": "1"})] * 2 + [Text("there", usage=PLAIN)])
    answer = client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert answer.choices[0].message.content == "there"
    assert (provider.requests[CHAT], provider.bill.total_pusd()) == (3, 6_500)


def test_used_up_script_says_so(provider, client):
    """A list hands out each answer once; then a 400 names the fix."""
    provider.use([Text("only one")])
    client.chat.completions.create(model="gpt-4o", messages=ASK)
    with pytest.raises(openai.BadRequestError, match="no more answers"):
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert len(provider.bill) == 1


def test_bug_in_a_script_surfaces_in_the_test():
    """An exception in a script is a 500 for the client and is raised when the provider closes."""

    def broken(request: ProviderRequest) -> Text:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with FakeProvider(broken) as provider, openai.OpenAI(base_url=provider.openai_url, api_key="x") as own:
            with pytest.raises(openai.InternalServerError):
                own.chat.completions.create(model="gpt-4o", messages=ASK)
            assert provider.requests == {CHAT: 1}


def test_chat_reports_the_scripted_usage_exactly(provider, client):
    """Cached and reasoning tokens go out as the wire has them, and come back as what was billed."""
    provider.use(Text("well", usage=FULL))
    answer = client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert from_openai_chat(answer.usage.model_dump()) == FULL
    assert [call.usage for call in provider.bill] == [FULL]
    assert provider.bill.total_pusd() == 3 * 4321 + 7 * 777


def test_reports_can_be_missing_or_false(provider, client):
    """An answer without usage, or with a wrong one, is billed at the truth."""
    provider.use([Text("a", usage=PLAIN, report="none"), Text("b", usage=PLAIN, wire_usage={"prompt_tokens": -1})])
    silent = client.chat.completions.create(model="gpt-4o", messages=ASK)
    lying = client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert (silent.usage, lying.usage.prompt_tokens) == (None, -1)
    assert [call.usage for call in provider.bill] == [PLAIN, PLAIN]


def test_parallel_tool_calls(provider, client):
    """Several tool calls of one answer arrive together, each with an id of its own."""
    provider.use(ToolCalls(TWO_CALLS, text="let me see"))
    choice = client.chat.completions.create(model="gpt-4o", messages=ASK, tools=TOOLS).choices[0]
    assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [
        {"city": "Bern"},
        {"city": "Rom"},
    ]
    assert len({call.id for call in choice.message.tool_calls}) == 2
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "let me see")


def test_script_sees_the_request(provider, client):
    """Messages, tool calls, results, tools and the cap arrive in one form; the repr shows none of it."""
    conversation = [
        *ASK,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny-secret"},
    ]
    client.chat.completions.create(model="gpt-4o", messages=conversation, tools=TOOLS, max_tokens=9, n=2)
    seen = provider.received[0]
    assert [message.role for message in seen.messages] == ["user", "assistant", "tool"]
    assert seen.messages[1].tool_uses == (ToolUse("weather", "{}", "c1"),)
    assert (seen.last.text, seen.last.tool_call_id, seen.max_tokens, seen.n) == ("sunny-secret", "c1", 9, 2)
    assert len(seen.tools) == 1
    assert "secret" not in repr(seen)
    assert "sk-none" not in repr(seen)


def test_cap_is_honoured_and_can_be_ignored(provider, client):
    """max_tokens caps what is said and billed, unless the script breaks that promise."""
    provider.use([Text("abcdefgh" * 10, usage=PLAIN), Text("abcdefgh" * 10, usage=PLAIN, ignores_max_tokens=True)])
    capped = client.chat.completions.create(model="gpt-4o", messages=ASK, max_completion_tokens=100)
    broken = client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=100)
    assert (capped.choices[0].finish_reason, capped.usage.completion_tokens) == ("length", 100)
    assert len(capped.choices[0].message.content) == 16
    assert (broken.choices[0].finish_reason, broken.usage.completion_tokens) == ("stop", 500)


def test_several_choices_are_billed_together(provider, client):
    """n answers cost n times the output; the cap holds for each."""
    provider.use(Text("four"))
    answer = client.chat.completions.create(model="gpt-4o", messages=ASK, n=3)
    assert ([choice.index for choice in answer.choices], answer.usage.completion_tokens) == ([0, 1, 2], 3)


def test_scripts_are_routed_by_model_and_answers_may_name_another():
    """A mapping gives each model its own script; `served_as` names the dated model in the answer."""
    script = {"gpt-4o": [Text("big")], "*": repeating(Text("small"))}
    with FakeProvider(script, served_as={"gpt-4o": "gpt-4o-2024-08-06"}) as provider:
        with openai.OpenAI(base_url=provider.openai_url, api_key="x") as client:
            big = client.chat.completions.create(model="gpt-4o", messages=ASK)
            small = client.chat.completions.create(model="any", messages=ASK)
        assert (big.choices[0].message.content, big.model) == ("big", "gpt-4o-2024-08-06")
        assert (small.choices[0].message.content, small.model) == ("small", "any")
        assert [(call.model, call.served_model) for call in provider.bill] == [
            ("gpt-4o", "gpt-4o-2024-08-06"),
            ("any", "any"),
        ]


# Streams


def test_stream_without_include_usage_reports_nothing(provider, client):
    """As with the real provider: no usage unless it was asked for. It is billed all the same."""
    provider.use(Text("one two three", usage=PLAIN))
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
    assert all(chunk.usage is None for chunk in chunks)
    assert [call.usage for call in provider.bill] == [PLAIN]


def test_stream_with_include_usage_ends_with_a_chunk_without_choices(provider, client):
    """The usage comes once, in a last chunk that has no choices."""
    provider.use(Text("one two three", usage=FULL, chunks=24))
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True, stream_options=options))
    assert (chunks[-1].choices, from_openai_chat(chunks[-1].usage.model_dump())) == ([], FULL)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_streamed_tool_calls_can_be_put_together(provider, client):
    """The SDK's own helper assembles parallel tool calls from the pieces."""
    provider.use(ToolCalls(TWO_CALLS))
    with client.chat.completions.stream(model="gpt-4o", messages=ASK, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [call.function.arguments for call in message.tool_calls] == ['{"city":"Bern"}', '{"city":"Rom"}']


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_broken_stream_bills_what_was_generated(provider, client, after):
    """A provider that breaks off after n of 4 pieces bills the input, the reasoning and n quarters of the rest."""
    usage = Usage(input_tokens=100, output_tokens=90, reasoning_tokens=10)
    provider.use(HangUp(Text("abcd", chunks=4, usage=usage), after_chunks=after))
    got = []
    with pytest.raises(openai.APIConnectionError):
        for chunk in client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True):
            got.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 -- what came before the error counts
    assert "".join(got) == "abcd"[:after]
    (line,) = provider.bill
    assert (line.end, line.usage.input_tokens, line.usage.output_tokens) == ("errored", 100, 10 + 20 * after)


def test_reader_who_leaves_is_billed_for_the_pieces_sent(provider, client):
    """A stream that is closed by its reader ends as cut, with what had been generated."""
    provider.use(Stall(threading.Event(), Text("abcd", chunks=4, usage=PLAIN), after_chunks=2))
    stream = client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    seen = ""
    for chunk in stream:
        seen += chunk.choices[0].delta.content or ""
        if seen == "ab":
            break
    stream.close()
    provider.wait_idle()
    (line,) = provider.bill
    assert (line.end, line.usage) == ("cut", Usage(input_tokens=1000, output_tokens=250))


def test_error_inside_a_stream(provider, client):
    """An error after the headers is said in the stream, and the pieces before it are billed."""
    provider.use(HangUp(Text("abcd", chunks=4, usage=PLAIN), after_chunks=1, error=Error(500, message="overloaded")))
    with pytest.raises(openai.APIError, match="overloaded"):
        list(client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True))
    assert [(line.end, line.usage.output_tokens) for line in provider.bill] == [("errored", 125)]


# Connections


def test_connection_can_be_reset(provider, client):
    """What was sent is billed; the client sees an error, not an end."""
    usage = Usage(input_tokens=10, output_tokens=8)
    provider.use(HangUp(Text("abcd", chunks=4, usage=usage), after_chunks=2, reset=True))
    with pytest.raises(Exception, match=r"reset|closed|peer|Connection"):
        for _ in client.with_options(max_retries=0).chat.completions.create(model="gpt-4o", messages=ASK, stream=True):
            pass
    provider.wait_idle()
    assert [("errored", 4)] == [(call.end, call.usage.output_tokens) for call in provider.bill]


def test_usage_can_run_along(provider, client):
    """Every chunk of content tells what was used so far; the last report is the bill."""
    usage = Usage(input_tokens=10, output_tokens=8)
    provider.use(Text("abcd", chunks=4, usage=usage, report="running"))
    stream = client.chat.completions.create(
        model="gpt-4o", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    told = [chunk.usage.completion_tokens for chunk in stream if chunk.usage is not None]
    assert ([0, 2, 4, 6, 8], 8) == (told[:5], told[-1])


@pytest.mark.parametrize(("billed", "lines"), [(True, 3), (False, 0)])
def test_hang_up_before_the_headers_is_retried(provider, client, billed, lines):
    """The SDK takes it for a connection error and tries again; each attempt may have cost money."""
    provider.use(HangUp(Text("lost", usage=PLAIN), billed=billed))  # the SDK waits about 1.3 s for two retries
    with pytest.raises(openai.APIConnectionError):
        client.with_options(max_retries=2).chat.completions.create(model="gpt-4o", messages=ASK)
    assert (provider.requests[CHAT], ends(provider)) == (3, ["errored"] * lines)


def test_half_a_body_is_a_broken_answer(provider, client):
    """A plain answer that breaks off half-way is no answer, and is billed in full."""
    provider.use(HangUp(Text("lost", usage=PLAIN), after_chunks=0))
    with pytest.raises(openai.APIConnectionError):
        client.with_options(max_retries=0).chat.completions.create(model="gpt-4o", messages=ASK)
    assert [(line.end, line.usage) for line in provider.bill] == [("errored", PLAIN)]


def test_client_that_times_out_is_billed(provider, client):
    """Who stops waiting pays all the same: the provider had begun."""
    provider.use(Stall(threading.Event(), Text("late", usage=PLAIN)))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(max_retries=0, timeout=0.2).chat.completions.create(model="gpt-4o", messages=ASK)
    provider.wait_received(1)
    provider.wait_idle()
    assert [(line.end, line.usage) for line in provider.bill] == [("cut", PLAIN)]


def test_released_stall_goes_on(provider, client):
    """A stalled call waits for its test and then answers."""
    released = threading.Event()
    provider.use(Stall(released, Text("here")))
    answers = []

    def call():
        answers.append(client.chat.completions.create(model="gpt-4o", messages=ASK).choices[0].message.content)

    worker = threading.Thread(target=call)
    worker.start()
    provider.wait_received(1)
    assert ends(provider) == []
    released.set()
    worker.join()
    assert (answers, ends(provider)) == (["here"], ["completed"])


def test_closing_does_not_wait_for_stalled_handlers():
    """A provider that closes breaks off what is stalled, bills nothing for it, and leaves no thread behind."""
    before = set(threading.enumerate())  # Of those, some of other tests may just be ending.
    failures = []
    with openai.OpenAI(base_url="http://127.0.0.1:1", api_key="x", max_retries=0) as unbound:
        with FakeProvider(Stall(threading.Event())) as provider:
            client = unbound.with_options(base_url=provider.openai_url)

            def call():
                try:
                    client.chat.completions.create(model="gpt-4o", messages=ASK)
                except openai.APIConnectionError as error:
                    failures.append(error)

            workers = [threading.Thread(target=call) for _ in range(8)]
            for worker in workers:
                worker.start()
            provider.wait_received(8)
        for worker in workers:
            worker.join()
    assert (len(failures), ends(provider), provider.concurrency_max) == (8, [], 8)
    assert set(threading.enumerate()) - before == set()


async def test_64_tasks_at_once(provider):
    """Sixty-four concurrent asynchronous clients are served at once and billed one by one."""
    released = threading.Event()
    provider.use(Stall(released, Delay(1, Text("ok", usage=PLAIN))))
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="x") as client:
        calls = [asyncio.ensure_future(client.chat.completions.create(model="gpt-4o", messages=ASK)) for _ in range(64)]
        await asyncio.to_thread(provider.wait_received, 64)
        released.set()
        await asyncio.gather(*calls)
    assert (ends(provider), provider.bill.total_pusd()) == (["completed"] * 64, 64 * 6_500)
    assert provider.concurrency_max == 64


async def test_async_stream(provider):
    """The asynchronous client streams too."""
    provider.use(Text("a b c", usage=PLAIN))
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="x") as client:
        stream = await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "a b c"


# Responses, embeddings, models, Azure


def test_responses_whole(provider, client):
    """Text, tool calls and usage of the responses wire."""
    provider.use([Text("well", usage=FULL), ToolCalls(TWO_CALLS), Text("x" * 100, usage=PLAIN)])
    answer = client.responses.create(model="gpt-4o", input="hello", instructions="be kind")
    tools = client.responses.create(model="gpt-4o", input="hello")
    short = client.responses.create(model="gpt-4o", input="hello", max_output_tokens=5)
    assert (answer.output_text, from_openai_responses(answer.usage.model_dump())) == ("well", FULL)
    assert [json.loads(item.arguments)["city"] for item in tools.output] == ["Bern", "Rom"]
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert [message.text for message in provider.received[0].messages] == ["be kind", "hello"]


def test_responses_stream(provider, client):
    """The SDK's own helper assembles a streamed response; its usage comes at the end."""
    provider.use([Text("one two", usage=FULL), ToolCalls(TWO_CALLS, text="see")])
    with client.responses.stream(model="gpt-4o", input="hello") as stream:
        final = stream.get_final_response()
    with client.responses.stream(model="gpt-4o", input="hello") as stream:
        called = stream.get_final_response()
    assert (final.output_text, from_openai_responses(final.usage.model_dump())) == ("one two", FULL)
    assert [item.type for item in called.output] == ["message", "function_call", "function_call"]
    assert ends(provider) == ["completed", "completed"]


def test_responses_tool_results_reach_the_script(provider, client):
    """Function calls and their outputs are read into the common form."""
    items = [
        {"role": "user", "content": "hello"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": ""},
    ]
    client.responses.create(model="gpt-4o", input=items)
    assert [message.role for message in provider.received[0].messages] == ["user", "assistant", "tool"]
    assert provider.received[0].last.tool_call_id == "c1"


@pytest.mark.parametrize("how", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_embeddings_need_no_script(provider, client, how):
    """Embeddings use up no scripted answer; equal texts have equal vectors; only input is billed."""
    provider.use([Text("for the chat")])
    answer = client.embeddings.create(model="fake-embedding", input=["a", "b", "a"], **how)
    first, second, third = (item.embedding for item in answer.data)
    assert (len(first), first == third, first == second) == (8, True, False)
    (line,) = provider.bill
    assert (line.usage.input_tokens, line.usage.output_tokens) == (answer.usage.prompt_tokens, 0)
    assert client.chat.completions.create(model="gpt-4o", messages=ASK).choices[0].message.content == "for the chat"


def test_embeddings_can_be_scripted_by_their_model(provider, client):
    """An entry for the embedding model scripts its usage and its errors."""
    provider.use({"fake-embedding": [Text("", usage=Usage(input_tokens=12345)), Error(400)]})
    answer = client.embeddings.create(model="fake-embedding", input="a", dimensions=3)
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="fake-embedding", input="a")
    assert (answer.usage.prompt_tokens, len(answer.data[0].embedding)) == (12345, 3)


def test_models(provider, client):
    """The list holds the models the script and the requests name; asking is free."""
    provider.use({"gpt-4o": Text("x"), "*": Text("y")})
    assert [model.id for model in client.models.list()] == ["gpt-4o"]
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    assert ends(provider) == []


def test_azure_names_a_deployment_in_the_path(provider):
    """Azure's deployment is the model that was asked for."""
    with openai.AzureOpenAI(
        azure_endpoint=provider.url, azure_deployment="my-deploy", api_version="2024-10-21", api_key="x"
    ) as client:
        client.chat.completions.create(model="my-deploy", messages=ASK)
    assert [call.model for call in provider.bill] == ["my-deploy"]


# LangChain


def test_chat_openai_whole_and_streamed(provider):
    """ChatOpenAI reads usage, tool calls and streams; with a base_url it does not ask for a stream's usage."""
    langchain_openai = pytest.importorskip("langchain_openai")
    provider.use([Text("a", usage=FULL), Text("b c", usage=FULL), Text("d", usage=FULL), ToolCalls(TWO_CALLS)])
    with openai.OpenAI(base_url=provider.openai_url, api_key="x") as root:
        model = langchain_openai.ChatOpenAI(
            model="gpt-4o", api_key="x", base_url=provider.openai_url, root_client=root, client=root.chat.completions
        )
        whole = model.invoke("hello")
        silent = list(model.stream("hello"))
        told = list(model.stream("hello", stream_usage=True))
        called = model.bind_tools(TOOLS).invoke("hello")
    assert from_langchain(whole.usage_metadata) is not None
    assert whole.usage_metadata["input_tokens"] == FULL.input_tokens
    assert all(chunk.usage_metadata is None for chunk in silent)
    assert [chunk.usage_metadata["output_tokens"] for chunk in told if chunk.usage_metadata] == [777]
    assert [call["args"]["city"] for call in called.tool_calls] == ["Bern", "Rom"]
    assert ends(provider) == ["completed"] * 4
