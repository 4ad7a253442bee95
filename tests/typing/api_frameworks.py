"""The faces of the adapters for the OpenAI Agents SDK and Pydantic AI, as type checkers see them."""

from __future__ import annotations

from typing import Any, assert_type

from agents import Agent, RunConfig, RunResult, RunResultStreaming
from pydantic_ai import Agent as PydanticAgent

from runrails import Guard
from runrails_openai_agents import GuardrailRunner, guard_agent, guard_config
from runrails_pydantic_ai import GuardrailCapability

guard = Guard(store="memory:")


async def agents_sdk(agent: Agent[int]) -> None:
    """The runner takes what `agents.Runner` takes."""
    runner = GuardrailRunner(guard)
    assert_type(await runner.run(agent, "hi", context=1, max_turns=3), RunResult)
    assert_type(runner.run_sync(agent, "hi"), RunResult)
    assert_type(runner.run_streamed(agent, "hi"), RunResultStreaming)
    assert_type(guard_agent(guard, agent), Agent[int])
    assert_type(guard_config(guard), RunConfig)


def pydantic_ai(deps: type[int]) -> None:
    """The capability fits agents with dependencies of any type."""
    capability = GuardrailCapability(guard)
    assert_type(capability, GuardrailCapability)
    agent: PydanticAgent[int, Any] = PydanticAgent("test", deps_type=deps, capabilities=[capability])
    agent.run_sync("hi", deps=1, capabilities=[capability])
