"""Models that only look as if a key could be put into their requests: the platform's key goes out, and it pays."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_anthropic import ChatAnthropic
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI

from rr_clients import MODEL
from rr_routed import ALICE, HOUSE, Keys
from runrails.credentials.router import Router
from runrails.errors import CredentialError
from runrails.keyroutes import KeyPolicy
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, attach, use_keys


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def anthropic_chat(world: Keys) -> Any:
    """A model with the platform's key."""
    made: Any = ChatAnthropic
    return made(model=MODEL, api_key=HOUSE, base_url=world.provider.anthropic_url, max_tokens=900, max_retries=0)


def openai_chat(world: Keys) -> Any:
    """A model with the platform's key."""
    made: Any = ChatOpenAI
    return made(model=MODEL, api_key=HOUSE, base_url=world.provider.openai_url, max_tokens=900, max_retries=0)


def consistent(world: Keys) -> None:
    """What went out on the platform's key is the platform's money, and the other way round."""
    byok = [key == ALICE for key in world.seen]
    assert byok == [own for _, own in world.paid()]
    assert set(world.months()) <= {"byok:alice" if own else "user:alice" for own in byok}


@pytest.mark.parametrize("layer", ["callback", "with"])
def test_a_copy_with_a_client_of_its_own_is_the_platforms(layer: str) -> None:
    """`configurable_fields` makes a model anew, and with it a client that nobody guards."""
    with Keys() as world:
        world.own("user:alice", ALICE, provider="anthropic")
        model = use_keys(world.guard, anthropic_chat(world))
        copy = model.configurable_fields(temperature=ConfigurableField(id="warmth"))
        config: Any = {"configurable": {"warmth": 0.5}}
        handler = GuardrailCallbackHandler(world.guard)
        if layer == "with":
            with world.guard.run():
                copy.invoke("hi", config)
                model.invoke("hi")
        else:
            copy.invoke("hi", {**config, "callbacks": [handler]})
            model.invoke("hi", {"callbacks": [handler]})
        handler.close()
        assert [HOUSE, ALICE] == world.seen
        consistent(world)
    with Keys(KeyPolicy(byok="require")) as world:
        world.own("user:alice", ALICE, provider="anthropic")
        copy = use_keys(world.guard, anthropic_chat(world)).configurable_fields(temperature=ConfigurableField(id="w"))
        with world.guard.run(), pytest.raises(CredentialError):
            copy.invoke("hi", {"configurable": {"w": 0.5}})
        assert [] == world.seen


def test_copies_that_share_the_client_have_its_keys() -> None:
    """`model_copy`, `bind` and `with_config` keep it."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        model = use_keys(world.guard, openai_chat(world))
        with world.guard.run():
            model.model_copy(update={"temperature": 0.5}).invoke("hi")
            model.bind(temperature=0.5).invoke("hi")
            model.with_config({"tags": ["x"]}).invoke("hi")
        assert [ALICE] * 3 == world.seen
        consistent(world)


def test_metadata_that_somebody_else_wrote_names_no_place() -> None:
    """Whoever may write the metadata of a call does not make the platform pay for what counts as the user's."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        place = ["openai", world.provider.openai_url]
        with world.guard.run():
            openai_chat(world).invoke("hi", {"metadata": {"runrails_place": place}})
        model = openai_chat(world)
        model.metadata = {"runrails_place": place}
        with world.guard.run():
            model.invoke("hi")
        stolen = openai_chat(world)
        stolen.metadata = dict(use_keys(world.guard, openai_chat(world)).metadata)
        with world.guard.run():
            stolen.invoke("hi")
        assert [HOUSE] * 3 == world.seen
        consistent(world)


def test_a_place_tells_no_password() -> None:
    """A model's metadata goes into traces: what stands in its address does not."""
    from runrails import ConfigError

    with Keys() as world:
        made: Any = ChatOpenAI
        url = world.provider.openai_url.replace("://", "://me:pass-word-of-mine@")
        model = made(model=MODEL, api_key=HOUSE, base_url=url, max_tokens=900, max_retries=0)
        with pytest.raises(ConfigError, match="ChatOpenAI or ChatAnthropic"):
            use_keys(world.guard, model)
        assert "pass-word" not in str(model.metadata)


def test_a_model_that_a_middleware_put_in_its_place_is_asked_for_anew() -> None:
    """It has the same name and another client: the key that was chosen for the first one is none of its."""
    with Keys() as world:
        world.own("user:alice", ALICE)

        @wrap_model_call  # type: ignore[arg-type]
        def other_model(request: Any, handler: Any) -> Any:
            return handler(request.override(model=openai_chat(world)))

        agent: Any = create_agent(
            use_keys(world.guard, openai_chat(world)), [],
            middleware=[GuardrailMiddleware(world.guard), other_model],
        )  # fmt: skip
        agent.invoke({"messages": [{"role": "user", "content": "hi"}]})
        assert [HOUSE] == world.seen
        assert ("", False) == world.paid()[-1]
        assert {"user:alice"} == world.months().keys()
        turned: Any = create_agent(
            openai_chat(world), [], middleware=[GuardrailMiddleware(world.guard), _keyed(world)]
        )  # fmt: skip
        turned.invoke({"messages": [{"role": "user", "content": "hi"}]})
        assert [HOUSE, ALICE] == world.seen
        assert ("user:alice/openai/default", True) == world.paid()[-1]
        assert {"user:alice", "byok:alice"} == world.months().keys()


def _keyed(world: Keys) -> Any:
    @wrap_model_call  # type: ignore[arg-type]
    def keyed(request: Any, handler: Any) -> Any:
        return handler(request.override(model=use_keys(world.guard, openai_chat(world))))

    return keyed


def test_a_refused_key_gives_way_with_the_next_call() -> None:
    """The permit of the call is above the client; so the error comes out, and the policy counts from then on."""
    import openai

    with Keys(KeyPolicy(fall_back=True)) as world:
        world.own("user:alice", ALICE)
        world.bad.add(ALICE)
        model = use_keys(world.guard, openai_chat(world))
        with world.guard.run():
            with pytest.raises(openai.AuthenticationError):
                model.invoke("hi")
            model.invoke("hi")
        assert [ALICE, HOUSE] == world.seen
        assert {"user:alice"} == world.months().keys()


async def test_many_users_side_by_side() -> None:
    """Every call goes out on the key of whoever it is made for, in tasks and in threads."""
    users = [f"user{number}" for number in range(4)]
    with Keys() as world:
        for user in users:
            world.own(f"user:{user}", f"sk-{user}-0123456789abcdefghij")
        model = use_keys(world.guard, openai_chat(world))
        handler = GuardrailCallbackHandler(world.guard)
        asked = [(user, {"callbacks": [handler], "metadata": {"runrails_user": user}}) for user in users * 3]
        await model.abatch([user for user, _ in asked], [config for _, config in asked])
        model.batch([user for user, _ in asked], [config for _, config in asked])
        handler.close()
        assert 24 == len(world.asked)
        assert {(f"sk-{user}-0123456789abcdefghij", user) for user in users} == set(world.asked)
        assert sorted(f"user:{user}/openai/default" for user in users * 6) == sorted(name for name, _ in world.paid())
        await model.root_async_client.close()


@pytest.mark.parametrize("layer", ["callback", "with"])
async def test_a_vault_over_a_network_does_not_keep_the_event_loop_waiting(layer: str) -> None:
    """A key service takes seconds when it is slow; the callback asks it in a thread, as it does a remote ledger."""
    threads: list[threading.Thread] = []

    class Far(Router):
        @property
        def remote(self) -> bool:
            return True

        def route(self, *args: Any) -> Any:
            threads.append(threading.current_thread())
            return super().route(*args)

    with Keys() as world:
        world.guard.credentials = Far(world.vault, fresh_ms=0)
        world.own("user:alice", ALICE)
        model = use_keys(world.guard, openai_chat(world))
        handler = GuardrailCallbackHandler(world.guard)
        if layer == "with":
            async with world.guard.run():
                await model.ainvoke("hi")
                assert [True async for _ in model.astream("hi", stream_usage=True)]
        else:
            await model.ainvoke("hi", {"callbacks": [handler]})
            assert [True async for _ in model.astream("hi", {"callbacks": [handler]}, stream_usage=True)]
        handler.close()
        assert [ALICE, ALICE] == world.seen
        assert [("user:alice/openai/default", True)] * 2 == world.paid()
        assert threading.main_thread() not in threads
        assert 2 == len(threads)
        await model.root_async_client.close()
