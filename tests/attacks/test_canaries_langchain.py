"""Canaries through LangChain's models and agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

import rr_canaries as birds
from rr_canaries import Canary, Lookout
from rr_canaries_routed import ASKED, ROUTES, Call, Routed, check_call, check_not_made
from rr_clients import MODEL
from runrails.errors import RunrailsError
from runrails.testing.provider.values import ToolCalls, ToolUse
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, attach, use_keys


def _langchain(world: Routed, *, kind: Any = ChatOpenAI, url: str = "openai_url", stream: bool = False) -> object:
    attach()
    model = kind(
        model=MODEL, api_key=birds.HOUSE.text, base_url=getattr(world.provider, url), max_tokens=900, max_retries=0
    )
    use_keys(world.guard, model)
    world.out.hear("model", repr(model))
    handler = GuardrailCallbackHandler(world.guard)
    config: Any = {"callbacks": [handler], "metadata": {"runrails_user": "alice"}}
    try:
        if stream:
            return [each.id for each in model.stream(birds.PROMPT.text, config)]
        return model.invoke(birds.PROMPT.text, config).id
    finally:
        world.out.show(handler)
        handler.close()


CALLS: dict[str, tuple[Call, Canary]] = {
    "openai": (_langchain, birds.OPENAI),
    "stream": (lambda world: _langchain(world, stream=True), birds.OPENAI),
    "anthropic": (lambda world: _langchain(world, kind=ChatAnthropic, url="anthropic_url"), birds.ANTHROPIC),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [200, 401, 429, 500, 0])
def test_calls_on_a_users_key(lookout: Lookout, tmp_path: Path, call: str, status: int) -> None:
    """Answered, refused with the key in the error, or hung up on (0)."""
    check_call(lookout, tmp_path, *CALLS[call], status)


@pytest.mark.parametrize("route", ROUTES)
def test_calls_that_are_not_made(lookout: Lookout, tmp_path: Path, route: str) -> None:
    """Nobody's key may pay, or it cannot be sent."""
    check_not_made(lookout, tmp_path, _langchain, route)


def test_an_agent_that_loops(lookout: Lookout, tmp_path: Path) -> None:
    """The whole way through LangChain: prompt, answer, tool arguments and outputs."""

    @tool
    def search(query: str) -> str:
        """Search."""
        raise ValueError(f"{birds.TOOL_OUTPUT.text} {len(query)}")

    with Routed(lookout, tmp_path) as world:
        world.own("user:alice", birds.OPENAI.text)
        arguments = json.dumps({"query": birds.TOOL_ARGUMENT.text})
        world.says = ToolCalls([ToolUse(name="search", args=arguments)], text=birds.ANSWER.text)
        made: Any = ChatOpenAI
        model = made(
            model=MODEL, api_key=birds.HOUSE.text, base_url=world.provider.openai_url, max_tokens=90, max_retries=0
        )
        middleware = GuardrailMiddleware(world.guard)
        agent: Any = create_agent(use_keys(world.guard, model), [search], middleware=[middleware])
        try:
            agent.invoke({"messages": ASKED}, {"recursion_limit": 50})
        except Exception as error:
            # The tool's own error is the user's, with what the user's tool says.
            if isinstance(error, RunrailsError):
                lookout.raised(error, frames=False)
        assert birds.OPENAI.text in world.seen
        world.shown()
        lookout.show(middleware)
