"""Models that only look as if a key could be put into their requests: the platform's key goes out, and it pays."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI

from rr_clients import MODEL
from rr_routed import ALICE, HOUSE, Keys
from runrails.errors import CredentialError
from runrails.keyroutes import KeyPolicy
from runrails_langchain import GuardrailCallbackHandler, attach, use_keys


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
