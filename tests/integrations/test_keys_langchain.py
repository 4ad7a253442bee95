"""LangChain's models go out on the keys that a guard chooses: callback, middleware and plain calls decide as before."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from rr_clients import MODEL
from rr_routed import ACME, ALICE, HOUSE, Keys
from runrails import ConfigError, Guard
from runrails.errors import CredentialError
from runrails.keyroutes import KeyPolicy
from runrails.stores.memory import MemoryStore
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, attach, use_keys


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def chat(world: Keys, **options: Any) -> ChatOpenAI:
    """A model with the platform's key, whose calls may go out on others."""
    return use_keys(world.guard, plain(world, **options))


def plain(world: Keys, **options: Any) -> ChatOpenAI:
    """A model with the platform's key alone."""
    made: Any = ChatOpenAI
    url = world.provider.openai_url
    return made(model=MODEL, api_key=HOUSE, base_url=url, max_tokens=900, max_retries=0, **options)


@pytest.mark.parametrize("layer", ["callback", "with", "client"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_call_is_counted_once_and_goes_out_on_the_users_key(layer: str, stream: bool) -> None:
    """Whoever counts it, the key and the record are the same."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        model = chat(world, stream_usage=True)
        handler = GuardrailCallbackHandler(world.guard)
        config: Any = {"callbacks": [handler]} if layer == "callback" else {}
        if layer == "with":
            with world.guard.run():
                list(model.stream("hi")) if stream else model.invoke("hi")
        else:
            list(model.stream("hi", config)) if stream else model.invoke("hi", config)
        handler.close()
        assert [ALICE] == world.seen
        assert [("user:alice/openai/default", True)] == world.paid()
        assert {"byok:alice"} == world.months().keys()


@pytest.mark.parametrize("layer", ["callback", "with"])
async def test_the_same_asynchronously(layer: str) -> None:
    """With `ainvoke` and `astream`."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        model = chat(world, stream_usage=True)
        handler = GuardrailCallbackHandler(world.guard)
        if layer == "with":
            async with world.guard.run():
                await model.ainvoke("hi")
                assert [True async for _ in model.astream("hi")]
        else:
            await model.ainvoke("hi", {"callbacks": [handler]})
            assert [True async for _ in model.astream("hi", {"callbacks": [handler]})]
        handler.close()
        assert [ALICE] * 2 == world.seen
        assert [("user:alice/openai/default", True)] * 2 == world.paid()
        await model.root_async_client.close()


def test_metadata_says_whose_key() -> None:
    """`runrails_user` and `runrails_org` choose the key as they choose the budget."""
    with Keys() as world:
        world.own("org:acme", ACME)
        model = chat(world)
        handler = GuardrailCallbackHandler(world.guard)
        model.invoke("hi", {"callbacks": [handler], "metadata": {"runrails_user": "bob", "runrails_org": "acme"}})
        model.invoke("hi", {"callbacks": [handler], "metadata": {"runrails_user": "bob"}})
        handler.close()
        assert [ACME, HOUSE] == world.seen
        assert {"byok:bob", "user:bob"} == world.months().keys()


def test_an_agent_with_middleware() -> None:
    """The middleware's permit is the one that counts; one record a call."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        agent: Any = create_agent(chat(world), [], middleware=[GuardrailMiddleware(world.guard)])
        agent.invoke({"messages": [{"role": "user", "content": "hi"}]})
        assert [ALICE] == world.seen
        assert [("user:alice/openai/default", True)] == world.paid()


def test_anthropics_model() -> None:
    """Its clients are made when they are first used."""
    with Keys() as world:
        world.own("user:alice", ALICE, provider="anthropic")
        made: Any = ChatAnthropic
        model = made(model=MODEL, api_key=HOUSE, base_url=world.provider.anthropic_url, max_tokens=900, max_retries=0)
        with world.guard.run():
            use_keys(world.guard, model).invoke("hi")
        assert [ALICE] == world.seen
        assert [("user:alice/anthropic/default", True)] == world.paid()


def test_a_model_without_it_keeps_the_platforms_key() -> None:
    """It is the platform's money then; and where an own key is required, it is refused."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        with world.guard.run():
            plain(world).invoke("hi")
        assert [HOUSE] == world.seen
        assert {"user:alice"} == world.months().keys()
    with Keys(KeyPolicy(byok="require")) as world:
        world.own("user:alice", ALICE)
        with world.guard.run(), pytest.raises(CredentialError, match="use_keys"):
            plain(world).invoke("hi")
        assert [] == world.seen


def test_a_refused_key_is_marked() -> None:
    """The provider's error comes out, and the next call is refused."""
    import openai

    with Keys() as world:
        world.own("user:alice", ALICE)
        world.bad.add(ALICE)
        model = chat(world)
        with world.guard.run():
            with pytest.raises(openai.AuthenticationError):
                model.invoke("hi")
            with pytest.raises(CredentialError):
                model.invoke("hi")
        assert [ALICE] == world.seen
        assert {} == world.months()


def test_models_without_a_key_of_that_kind_are_refused() -> None:
    """Azure's address names the platform's deployment; and a guard without a vault has no keys to choose."""
    with Keys() as world:
        azure: Any = AzureChatOpenAI
        model = azure(azure_endpoint=world.provider.url, api_version="2025-01-01", api_key="k", azure_deployment="d")
        with pytest.raises(ConfigError, match="ChatOpenAI or ChatAnthropic"):
            use_keys(world.guard, model)
        bare = Guard(store=MemoryStore())
        with pytest.raises(ConfigError, match="Router"):
            use_keys(bare, plain(world))
        bare.close()
