"""The real LangChain integrations of three vendors against the fake provider: what is settled is what was billed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_aws import ChatBedrockConverse
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAIEmbeddings
from openai import DefaultHttpxClient

import rr_lc
from runrails import BudgetExceeded, Limits, LoopDetected, Price
from runrails.errors import PriceUnknown
from runrails.guard import Guard
from runrails.ledger import RUN_PERIOD, Account
from runrails.pricing import PriceSpec
from runrails.run import Run
from runrails.testing.provider import Error, FakeProvider, HangUp, Script, Stall, Text, never_gives_up
from runrails.usage import Usage
from runrails_langchain import attach

CENTS: Mapping[str, PriceSpec] = {
    "gpt-4o": Price(input="2.50", output="10", cache_read="1.25"),
    "claude-test": Price(input="3", output="15", cache_read="0.3", cache_write="3.75", cache_write_1h="6"),
    "anthropic.claude-test-v1:0": Price(input="3", output="15", cache_read="0.3", cache_write="3.75"),
}
LONG = "x" * 8_000
"""A prompt whose bound is above what the script bills."""
PLAIN = Usage(input_tokens=1000, output_tokens=40)
CACHED = Usage(input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, output_tokens=77)
READ = Usage(input_tokens=4321, cache_read_tokens=1000, output_tokens=77, reasoning_tokens=70)


@pytest.fixture(autouse=True)
def _attached(monkeypatch: pytest.MonkeyPatch) -> None:
    attach()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")


def provider(script: Script, **options: Any) -> FakeProvider:
    """A provider that bills at our prices."""
    from runrails.testing.provider.bill import price_function

    return FakeProvider(script, price_pusd=price_function(CENTS), **options)


@pytest.fixture
def guard() -> Iterator[Guard]:
    with rr_lc.make_guard(prices=CENTS) as made:
        yield made


_opened: list[Any] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """SDK clients keep sockets open until they are closed."""
    yield
    while _opened:
        _opened.pop().close()


def http_client() -> DefaultHttpxClient:
    """An HTTP client that ignores the environment's proxies."""
    client = DefaultHttpxClient(trust_env=False)
    _opened.append(client)
    return client


def openai_model(fake: FakeProvider, **options: Any) -> ChatOpenAI:
    """ChatOpenAI with a base_url, as behind any proxy."""
    options = {"max_tokens": 100, "max_retries": 0, **options}
    return ChatOpenAI(
        model="gpt-4o", base_url=fake.openai_url, api_key="none", http_client=http_client(),
        **options,
    )  # fmt: skip


def anthropic_model(fake: FakeProvider, **options: Any) -> ChatAnthropic:
    """ChatAnthropic."""
    named: dict[str, Any] = {"model": "claude-test", "base_url": fake.anthropic_url, "api_key": "none"}
    model = ChatAnthropic(**named, max_tokens=100, max_retries=0, **options)
    _opened.append(model._client)
    return model


def bedrock_model(fake: FakeProvider, **options: Any) -> ChatBedrockConverse:
    """ChatBedrockConverse."""
    client = boto3.Session(region_name="us-east-1").client("bedrock-runtime", endpoint_url=fake.bedrock_url)
    _opened.append(client)
    return ChatBedrockConverse(
        model="anthropic.claude-test-v1:0", client=client, bedrock_client=client, max_tokens=100, **options
    )


def balance(guard: Guard, run: Run) -> tuple[int, int]:
    """What the run has spent and holds."""
    found = guard.store.balance(Account(f"run:{run.id}", RUN_PERIOD))
    return found.spent, found.held


MODELS = pytest.mark.parametrize("make", [openai_model, anthropic_model, bedrock_model])
SYNC = ("invoke", "stream", "batch")


@MODELS
@pytest.mark.parametrize("usage", [PLAIN, CACHED, READ], ids=["plain", "cached", "read"])
def test_what_is_settled_is_what_was_billed(make: Any, usage: Usage, guard: Guard) -> None:
    """Cached and reasoning tokens included, whatever the vendor's way of counting them."""
    if make is not openai_model and usage is READ:
        usage = Usage(input_tokens=4321, cache_read_tokens=1000, output_tokens=77)
    if make is openai_model and usage is CACHED:
        usage = Usage(input_tokens=4321, cache_read_tokens=1000, output_tokens=77)
    with provider(Text("fine", usage=usage)) as fake:
        model: BaseChatModel = make(fake)
        with guard.run() as run:
            model.invoke(LONG)

        assert (fake.bill.total_pusd(), 0) == balance(guard, run)
        assert (usage.input_tokens, usage.output_tokens) == (run.report().input_tokens, run.report().output_tokens)


@MODELS
def test_streams_that_tell_their_usage_are_settled_exactly(make: Any, guard: Guard) -> None:
    """For OpenAI behind a base_url only with `stream_usage=True`."""
    with provider(Text("one two three", usage=PLAIN)) as fake:
        model: BaseChatModel = make(fake, stream_usage=True) if make is openai_model else make(fake)
        with guard.run() as run:
            assert "one two three" == "".join(str(chunk.text) for chunk in model.stream(LONG))

        assert (fake.bill.total_pusd(), 0) == balance(guard, run)


@pytest.mark.parametrize("mode", ["stream", "astream", "astream_events"])
def test_an_openai_stream_behind_a_base_url_settles_at_the_hold(mode: str, guard: Guard) -> None:
    """LangChain asks for usage only from OpenAI itself; elsewhere none is reported, and none is never zero."""
    with provider(Text("one two three", usage=PLAIN)) as fake:
        with guard.run() as run:
            rr_lc.drive(mode, openai_model(fake), LONG)
        spent, held = balance(guard, run)

        assert (0, spent) == (held, run.report().unresolved_pusd)
        assert spent > fake.bill.total_pusd()


@pytest.mark.parametrize("mode", ["stream", "astream"])
def test_an_old_anthropic_stream_settles_at_the_hold(mode: str, guard: Guard) -> None:
    """Its usage says 0 input tokens, which no prompt has."""
    with provider(Text("one two three", usage=PLAIN, report="old")) as fake:
        with guard.run() as run:
            rr_lc.drive(mode, anthropic_model(fake), LONG)
        spent, held = balance(guard, run)

        assert (0, spent) == (held, run.report().unresolved_pusd)
        assert spent > fake.bill.total_pusd()


@pytest.mark.parametrize("make", [openai_model, anthropic_model])
def test_a_stream_left_early_pays_for_what_came(make: Any, guard: Guard) -> None:
    """At least what the provider bills, at most the hold; nothing stays held."""
    gate = threading.Event()
    with provider(Stall(gate, Text("one two three four five six seven eight"), after_chunks=2)) as fake:
        with guard.run() as run:
            stream = make(fake).stream("hello there")
            next(chunk for chunk in stream if chunk.text)
            bound = balance(guard, run)[1]
            stream.close()
        gate.set()
        spent, held = balance(guard, run)

        assert (0, "cut") == (held, run.report().rows[0].end)
        assert 0 < spent < bound


@MODELS
@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_definite_error_is_free(make: Any, status: int, guard: Guard) -> None:
    """Every SDK's error says its status in its own way."""
    with provider(Error(status)) as fake:
        with guard.run() as run, pytest.raises(Exception, match=r".") as caught:
            make(fake).invoke("hello")

        assert not isinstance(caught.value, AssertionError)
        assert ((0, 0), "failed") == (balance(guard, run), run.report().rows[0].end)


@pytest.mark.parametrize("make", [openai_model, anthropic_model])
def test_a_lost_connection_is_charged_at_the_hold(make: Any, guard: Guard) -> None:
    """The provider has billed what nobody received."""
    with provider(HangUp(Text("lost", usage=PLAIN))) as fake:
        with guard.run() as run, pytest.raises(Exception, match=r"[Cc]onnect"):
            make(fake).invoke(LONG)
        spent, held = balance(guard, run)

        assert (0, "unknown") == (held, run.report().rows[0].end)
        assert spent >= fake.bill.total_pusd() > 0


def test_no_connection_is_free(guard: Guard) -> None:
    """Where nobody listens nothing was sent."""
    with provider(Text("x")) as fake:
        pass
    with guard.run() as run, pytest.raises(Exception, match=r"[Cc]onnect"):
        openai_model(fake).invoke("hello")

    assert ((0, 0), "failed") == (balance(guard, run), run.report().rows[0].end)


def test_retries_inside_the_sdk_are_one_call(guard: Guard) -> None:
    """Two errors and an answer: three requests, one reservation, settled once."""
    with provider([Error(500), Error(500), Text("fine", usage=PLAIN)]) as fake:
        with guard.run() as run:
            openai_model(fake, max_retries=2).invoke(LONG)

        assert ((fake.bill.total_pusd(), 0), 1) == (balance(guard, run), run.report().model_calls)


def test_a_deployment_is_priced_by_the_model_that_is_named(guard: Guard) -> None:
    """Azure's deployment name decides no price; with `model=` it is known, without it the call is refused."""
    with provider(Text("fine", usage=PLAIN), served_as={"gpt-4o": "gpt-4o-2024-08-06"}) as fake:

        def azure(**named: Any) -> AzureChatOpenAI:
            return AzureChatOpenAI(
                azure_deployment="my-deploy", azure_endpoint=fake.url, api_key="none", api_version="2024-06-01",
                max_tokens=100, http_client=http_client(), **named,
            )  # fmt: skip

        with guard.run() as run, pytest.raises(PriceUnknown, match="my-deploy"):
            azure().invoke(LONG)
        assert ((0, 0), 0) == (balance(guard, run), len(fake.bill))
        with guard.run() as run:
            azure(model="gpt-4o").invoke(LONG)
        assert 0 < balance(guard, run)[0]


def test_a_budget_stops_a_real_agent_at_the_model_boundary() -> None:
    """What the guard counts is what the provider bills, to the picodollar."""
    with provider(never_gives_up("classify", {"text": "a"}, usage=Usage(input_tokens=300, output_tokens=20))) as fake:
        guard = rr_lc.make_guard(Limits(run="0.005", loops=None), prices=CENTS)

        @tool
        def classify(text: str) -> str:
            """Classify a review."""
            return "no result"

        agent = rr_lc.create_agent(openai_model(fake), [classify])
        with pytest.raises(BudgetExceeded), guard.run() as run:
            agent.invoke({"messages": [HumanMessage("Classify it.")]})

        assert (fake.bill.total_pusd(), 0) == balance(guard, run)
        assert fake.bill.total_pusd() <= 5 * 10**9


@MODELS
def test_the_founding_story_ends_after_five_failures(make: Any, guard: Guard) -> None:
    """Over the real SDKs, in other words each time."""
    executed = 0
    with provider(never_gives_up("classify", {"text": "a"})) as fake:

        @tool
        def classify(text: str) -> str:
            """Classify a review."""
            nonlocal executed
            executed += 1
            return "no result"

        agent = rr_lc.create_agent(make(fake), [classify])
        with pytest.raises(LoopDetected), guard.run() as run:
            agent.invoke({"messages": [HumanMessage("Classify it.")]})

        assert (5, 5) == (executed, len(fake.bill))
        assert (fake.bill.total_pusd(), 0) == balance(guard, run)


def test_embeddings_have_no_events(guard: Guard) -> None:
    """LangChain tells callbacks nothing of them: they pass unseen, which the documentation says."""
    with provider(Text("x")) as fake, guard.run() as run:
        OpenAIEmbeddings(
            model="text-embedding-3-small", base_url=fake.openai_url, api_key="none", check_embedding_ctx_length=False,
            http_client=http_client(),
        ).embed_query("hello")  # fmt: skip
        assert 1 == len(fake.bill)

    assert 0 == run.report().model_calls
