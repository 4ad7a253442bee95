"""The scripted chat model, and the plain model that needs no framework."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runrails.ids import check_id
from runrails.pricing.spec import Price
from runrails.testing.model import FakeModel, FakeProviderError
from runrails.testing.provider import Delay, Error, HangUp, Stall, Text, ToolCalls, ToolUse, until_morning
from runrails.usage import Usage
from runrails.usage_wire import from_langchain

messages = pytest.importorskip("langchain_core.messages")
callbacks = pytest.importorskip("langchain_core.callbacks")
caches = pytest.importorskip("langchain_core.caches")

from runrails.testing.langchain import ScriptedChatModel  # noqa: E402 -- langchain-core is optional

PLAIN = Usage(input_tokens=1000, output_tokens=500)
RICH = Usage(
    input_tokens=4321,
    cache_read_tokens=1000,
    cache_write_5m_tokens=200,
    cache_write_1h_tokens=30,
    output_tokens=777,
    reasoning_tokens=70,
)
CALLS = (ToolUse("weather", {"city": "Bern"}), ToolUse("weather", {"city": "Rom"}))


def weather(city: str) -> str:
    """The weather."""
    return city


def added(chunks):
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


class Recorder(callbacks.BaseCallbackHandler):
    """Keeps what LangChain reports."""

    def __init__(self):
        self.started = []
        self.ended = []
        self.failed = []

    def on_chat_model_start(self, serialized, messages, *, metadata=None, **kwargs):
        self.started.append((metadata["ls_provider"], metadata["ls_model_name"]))

    def on_llm_end(self, response, **kwargs):
        self.ended.append(response.generations[0][0].message.usage_metadata)

    def on_llm_error(self, error, **kwargs):
        self.failed.append(type(error))


# Failures first


def test_used_up_script_fails_loudly():
    """A list hands out each answer once; the next call is an error and costs nothing."""
    model = ScriptedChatModel(["one"])
    model.invoke("x")
    with pytest.raises(FakeProviderError, match="script_ended"):
        model.invoke("x")
    assert (model.calls, len(model.bill)) == (2, 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_errors_are_raised_and_free(streamed):
    """Scripted errors and exceptions come out of every mode; nothing is billed."""
    seen = Recorder()
    model = ScriptedChatModel([Error(429, code="slow_down"), KeyError("mine")], callbacks=[seen])
    call = (lambda: list(model.stream("x"))) if streamed else (lambda: model.invoke("x"))
    with pytest.raises(FakeProviderError) as caught:
        call()
    with pytest.raises(KeyError):
        call()
    assert (caught.value.status_code, caught.value.code) == (429, "slow_down")
    assert (seen.failed, len(model.bill)) == ([FakeProviderError, KeyError], 0)


def test_billed_error_is_on_the_bill():
    """An error may cost money, if the script says so."""
    model = ScriptedChatModel(Error(500, usage=PLAIN))
    with pytest.raises(FakeProviderError):
        model.invoke("x")
    assert [(call.end, call.usage) for call in model.bill] == [("errored", PLAIN)]


def test_hang_up_in_a_stream_bills_the_pieces():
    """A connection lost after two of four pieces is billed for half."""
    model = ScriptedChatModel(HangUp(Text("abcd", chunks=4, usage=PLAIN), after_chunks=2))
    got = []
    with pytest.raises(ConnectionError):
        for chunk in model.stream("x"):
            got.append(chunk.content)  # noqa: PERF401 -- what came before the error counts
    assert (got, [(call.end, call.usage.output_tokens) for call in model.bill]) == (["a", "b"], [("errored", 250)])


def test_reader_who_leaves_is_billed_for_the_pieces():
    """A stream that is closed early ends as cut."""
    model = ScriptedChatModel(Text("abcd", chunks=4, usage=PLAIN))
    stream = model.stream("x")
    next(stream)
    stream.close()
    assert [(call.end, call.usage.output_tokens) for call in model.bill] == [("cut", 125)]


async def test_async_reader_who_leaves_is_billed_for_the_pieces():
    """The same for an asynchronous stream."""
    model = ScriptedChatModel(Text("abcd", chunks=4, usage=PLAIN))
    stream = model.astream("x")
    await anext(stream)
    await stream.aclose()
    assert [(call.end, call.usage.output_tokens) for call in model.bill] == [("cut", 125)]


# Answers


@pytest.mark.parametrize("usage", [PLAIN, RICH])
def test_usage_comes_back_as_it_was_billed(usage):
    """usage_metadata is what LangChain's own models would show for the usage, whole and streamed."""
    model = ScriptedChatModel(Text("one two", usage=usage))
    assert from_langchain(model.invoke("x").usage_metadata) == usage
    assert from_langchain(added(model.stream("x")).usage_metadata) == usage
    assert [call.usage for call in model.bill] == [usage, usage]


@pytest.mark.parametrize("cap", [{}, {"max_tokens": 100}])
def test_missing_usage_is_billed_all_the_same(cap):
    """A model that reports nothing still costs money."""
    model = ScriptedChatModel(Text("one", usage=PLAIN, report="none"))
    assert model.invoke("x", **cap).usage_metadata is None
    assert added(model.stream("x", **cap)).usage_metadata is None
    assert {call.usage.output_tokens for call in model.bill} == {cap.get("max_tokens", 500)}


def test_caps_shorten_the_answer_unless_ignored():
    """A cap of the model or of the call holds, unless the script breaks that promise."""
    long = "word " * 100
    model = ScriptedChatModel([Text(long), Text(long), Text(long, ignores_max_tokens=True)], max_tokens=10)
    outputs = [model.invoke("x"), model.bind(max_tokens=5).invoke("x"), model.invoke("x")]
    assert [message.usage_metadata["output_tokens"] for message in outputs] == [10, 5, 125]
    assert outputs[0].response_metadata["finish_reason"] == "length"


def test_parallel_tool_calls_whole_and_streamed():
    """Several tool calls of one answer, each with an id of its own, in every mode."""
    model = ScriptedChatModel([ToolCalls(CALLS), ToolCalls(CALLS)]).bind_tools([weather])
    whole, streamed = model.invoke("x"), added(model.stream("x"))
    assert [call["args"] for call in whole.tool_calls] == [{"city": "Bern"}, {"city": "Rom"}]
    assert [call["args"] for call in streamed.tool_calls] == [{"city": "Bern"}, {"city": "Rom"}]
    assert len({call["id"] for call in whole.tool_calls + streamed.tool_calls}) == 4


def test_malformed_arguments_are_an_invalid_tool_call():
    """Arguments that are no JSON come out as LangChain's real models give them."""
    message = ScriptedChatModel(ToolCalls([ToolUse("weather", "{oops")])).invoke("x")
    assert (message.tool_calls, [call["args"] for call in message.invalid_tool_calls]) == ([], ["{oops"])


def test_ready_messages_are_given_as_they_are():
    """An AIMessage keeps every field; its usage is what is billed."""
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    ready = messages.AIMessage(content="hi", usage_metadata=usage, response_metadata={"own": 1})
    model = ScriptedChatModel([ready, ready])
    first, streamed = model.invoke("x"), added(model.stream("x"))
    assert (first.content, first.response_metadata, first.usage_metadata) == ("hi", {"own": 1}, usage)
    assert first is not ready
    assert (streamed.content, streamed.usage_metadata["input_tokens"]) == ("hi", 3)
    assert [call.usage for call in model.bill] == [Usage(input_tokens=3, output_tokens=4)] * 2


def test_scripts_may_be_functions_texts_or_repeat():
    """A function sees the messages; one answer is for ever; a list can begin again."""
    assert ScriptedChatModel(lambda asked: asked[-1].content.upper()).invoke("hello").content == "HELLO"
    assert [ScriptedChatModel("same").invoke("x").content for _ in range(2)] == ["same", "same"]
    turns = ScriptedChatModel(["a", "b"], repeat=True)
    assert [turns.invoke("x").content for _ in range(5)] == ["a", "b", "a", "b", "a"]


def test_provider_scripts_drive_an_agent_to_the_morning():
    """A story of the fake provider runs here too: n empty results, then the last answer."""
    langgraph = pytest.importorskip("langchain.agents")
    runs = []

    def classify(text: str) -> str:
        """Classify a review."""
        runs.append(text)
        return ""

    model = ScriptedChatModel(by_request=until_morning("classify", {"text": "bonjour"}, n=7))
    final = langgraph.create_agent(model, [classify]).invoke({"messages": [("user", "go")]})["messages"][-1]
    assert (len(runs), model.calls) == (7, 8)
    assert final.content.startswith("Good morning")
    assert len({call.text for batch in model.received[-1:] for call in batch if call.type == "ai"}) == 7


# What LangChain sees


async def test_names_and_usage_reach_the_callbacks_in_every_mode():
    """invoke, ainvoke, stream, astream, batch: one start and one end each, with provider and model name."""
    seen = Recorder()
    model = ScriptedChatModel("one two", model_name="fake-reasoner", callbacks=[seen])
    model.invoke("x")
    list(model.stream("x"))
    model.batch(["x", "y"])
    await model.ainvoke("x")
    async for _ in model.astream("x"):
        pass
    await model.abatch(["x", "y"])
    assert seen.started == [("fake", "fake-reasoner")] * 8
    assert [usage["output_tokens"] for usage in seen.ended] == [2] * 8
    assert (model.calls, seen.failed) == (8, [])


def test_cache_hits_never_reach_the_model():
    """LangChain's own cache answers the second time; the bill has one line."""
    model = ScriptedChatModel(["once"], cache=caches.InMemoryCache())
    assert [model.invoke("x").content for _ in range(3)] == ["once"] * 3
    assert (model.calls, len(model.bill)) == (1, 1)


def test_copies_share_counters():
    """bind_tools, with_config and copies count on the same model."""
    model = ScriptedChatModel("x")
    model.bind_tools([weather]).invoke("x")
    model.model_copy().invoke("x")
    model.with_config(tags=["t"]).invoke("x")
    assert (model.calls, len(model.received), len(model.bill)) == (3, 3, 3)


def test_delays_use_the_injected_sleep():
    """No test has to wait for a scripted delay."""
    slept = []
    ScriptedChatModel(Delay(20_000, Text("x")), sleep=slept.append).invoke("x")
    assert slept == [20.0]


async def test_async_calls_run_at_once_and_leave_the_loop_free():
    """Sixty-four asynchronous calls wait together."""
    asleep = []
    release = asyncio.Event()

    async def wait(seconds: float) -> None:
        asleep.append(seconds)
        if len(asleep) == 64:
            release.set()
        await release.wait()

    model = ScriptedChatModel(Delay(20, Text("x")), asleep=wait)
    await asyncio.gather(*(model.ainvoke("x") for _ in range(64)))
    assert (model.calls, model.concurrency_max, asleep) == (64, 64, [0.02] * 64)


def test_threads_get_each_answer_once():
    """A list is handed out exactly once, whatever the number of threads."""
    model = ScriptedChatModel([str(number) for number in range(200)])
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: model.invoke("x").content, range(200)))
    assert sorted(map(int, texts)) == list(range(200))
    assert (model.calls, len(model.bill)) == (200, 200)


def test_stalled_call_waits_for_its_event():
    """A stalled call goes on when the test says so."""
    released = threading.Event()
    model = ScriptedChatModel(Stall(released, Text("x")))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(model.invoke, "x")
        assert (answer.done(), len(model.bill)) == (False, 0)
        released.set()
        assert answer.result(timeout=10).content == "x"


@pytest.mark.parametrize(
    ("how", "total"),
    [
        ({}, 1000 * 3_000_000 + 500 * 15_000_000),
        ({"model_name": "fake-flat"}, 10**10),
        ({"model_name": "other", "price": Price(call="3.20")}, 3_200 * 10**9),
        ({"model_name": "no-card"}, 1000 * 3_000_000 + 500 * 15_000_000),
    ],
)
def test_every_model_carries_a_written_price(how, total):
    """The bill and the price card agree, to the picodollar."""
    model = ScriptedChatModel(Text("x", usage=PLAIN), **how)
    model.invoke("x")
    assert list(model.prices) == [how.get("model_name", "fake-model")]
    assert model.bill.total_pusd() == total
    assert check_id(model.model_name, what="model") == model.model_name


# The plain model


def test_plain_model_answers_bills_and_counts():
    """The core's tests need no framework: text, usage, cap and bill."""
    model = FakeModel([Text("long " * 100), Text("y", usage=PLAIN, report="none"), Error(500)])
    call = model.model_call("hello", max_tokens=10)
    first = model("hello", max_tokens=call.max_tokens)
    second = model("hello")
    with pytest.raises(FakeProviderError):
        model("hello")
    assert (first.finish, first.result.usage.output_tokens, call.prompt.texts) == ("length", 10, ("hello",))
    assert (second.result.end, second.result.usage) == ("completed", None)
    assert (model.calls, len(model.bill), model.bill.calls[1].usage) == (3, 2, PLAIN)


async def test_plain_model_is_asynchronous_too():
    """Delays are awaited, hang-ups are connection errors and are billed."""
    slept = []

    async def asleep(seconds: float) -> None:
        slept.append(seconds)

    model = FakeModel([Delay(5, Text("x")), HangUp(Text("y", usage=PLAIN))], asleep=asleep)
    assert (await model.acall("hello")).text == "x"
    with pytest.raises(ConnectionError):
        await model.acall("hello")
    assert (slept, [call.end for call in model.bill]) == ([0.005], ["completed", "errored"])
