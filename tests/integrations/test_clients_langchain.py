"""A wrapped client under a LangChain model that a callback guards: one call is counted once, and none is missed."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from rr_clients import HI, MODEL, TOLD, World, run_of
from runrails import BudgetExceeded, Limits
from runrails.errors import PriceUnknown
from runrails.testing.provider import Text
from runrails_langchain import GuardrailCallbackHandler, attach


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def over(client: openai.OpenAI, **options: Any) -> ChatOpenAI:
    """A LangChain model that sends through a client of ours."""
    return ChatOpenAI(
        model=MODEL, api_key="k", max_tokens=900, client=client.chat.completions, root_client=client, **options
    )  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize("stream", [False, True])
def test_callback_and_wrapped_client_count_once(stream: bool) -> None:
    """Inside `with guard.run():` the callback's permit covers the client's request; the bill is the ledger."""
    with World() as world:
        model = over(world.openai(), stream_usage=True)
        with world.guard.run() as run:
            if stream:
                list(model.stream("hi"))
            else:
                model.invoke("hi")
        world.settled()
        assert (1, 1) == (run.report().model_calls, len(world.provider.bill.calls))


def test_handler_in_the_config_counts_once() -> None:
    """A handler that opens a run of its own covers the client as well."""
    with World() as world:
        client = world.openai()
        handler = GuardrailCallbackHandler(world.guard)
        over(client).invoke("hi", {"callbacks": [handler]})
        world.settled()
        assert handler.last_run is not None
        assert (1, None) == (handler.last_run.report().model_calls, client.runrails_edge._shared)  # type: ignore[attr-defined]
        handler.close()


def test_async_model_counts_once() -> None:
    """The same under ainvoke, with parallel calls of one loop."""
    with World() as world:

        async def work() -> int:
            client = world.aopenai()
            model = ChatOpenAI(
                model=MODEL,
                api_key="k",
                max_tokens=900,
                async_client=client.chat.completions,
                root_async_client=client,
            )  # type: ignore[call-arg,arg-type]
            async with world.guard.run() as run:
                await asyncio.gather(*(model.ainvoke("hi") for _ in range(5)))
            await world.aclose()
            return run.report().model_calls

        assert 5 == asyncio.run(work())
        world.settled()
        assert 5 == len(world.provider.bill.calls)


def test_batch_counts_each_once() -> None:
    """Threads that copied one context do not take each other's permits."""
    with World() as world:
        model = over(world.openai())
        with world.guard.run() as run:
            model.batch([[HumanMessage("hi")]] * 8)
        world.settled()
        assert (8, 8) == (run.report().model_calls, len(world.provider.bill.calls))


def test_model_without_a_callback_is_guarded_by_its_client() -> None:
    """Nobody above guards it, so the client does."""
    with World() as world:
        client = world.openai()
        over(client).invoke("hi")
        world.settled()
        assert 1 == run_of(client).report().model_calls


def test_calls_beside_a_model_are_not_covered_by_it() -> None:
    """A raw call of the same model, and embeddings, while a guarded model streams, are calls of their own."""
    with World(Text("one two three")) as world:
        client = world.openai()
        model = over(client, stream_usage=True)
        with world.guard.run() as run:
            for number, _ in enumerate(model.stream("hi")):
                if number == 0:
                    client.chat.completions.create(model=MODEL, messages=HI, max_tokens=9)
                    client.embeddings.create(model="fake-embedding", input="a")
            client.chat.completions.create(model=MODEL, messages=HI, max_tokens=9)
        world.settled()
        assert (4, 4) == (run.report().model_calls, len(world.provider.bill.calls))


def test_another_guards_client_pays_for_itself() -> None:
    """A cover is one guard's; the client of another one inside that run is an error, not a free ride."""
    with World(TOLD) as world, World(TOLD) as other:
        model = over(other.openai())
        with pytest.raises(Exception, match="one guard"):
            with world.guard.run():
                model.invoke("hi")
        other.untouched()


def test_stop_of_the_callback_is_the_only_one() -> None:
    """The model's call is refused above the client; nothing is sent, nothing counted twice."""
    with World(limits=Limits(run="0.00000001")) as world:
        model = over(world.openai())
        with pytest.raises(BudgetExceeded):
            with world.guard.run():
                model.invoke("hi")
        world.untouched()


def test_a_call_in_the_body_of_a_streams_loop_is_a_call_of_its_own() -> None:
    """The consumer of a stream runs in the context of the call; its permit must not pay for what is called there."""
    with World() as world:
        client = world.openai()
        model = ChatOpenAI(
            model=MODEL, api_key="k", base_url=world.provider.openai_url, max_tokens=900, stream_usage=True
        )  # type: ignore[call-arg,arg-type]
        with world.guard.run() as run:
            asked = False
            for _ in model.stream("hi"):
                if not asked:
                    asked = True
                    client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)  # type: ignore[arg-type]
        world.settled()
        assert (2, 2) == (run.report().model_calls, len(world.provider.bill.calls))


def test_a_premium_tier_is_refused_under_langchain_too() -> None:
    """It costs a multiple of the plain price, which this model's card does not tell."""
    with World() as world, world.guard.run():
        model = ChatOpenAI(
            model=MODEL, api_key="k", base_url=world.provider.openai_url, max_tokens=900, service_tier="priority"
        )  # type: ignore[call-arg,arg-type]
        with pytest.raises(PriceUnknown, match="priority"):
            model.invoke("hi")
