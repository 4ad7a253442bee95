"""Copies of agents and run configurations in which everything asks the guard; the user's own are left as they are."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agents import (
    Agent,
    FunctionTool,
    Handoff,
    Model,
    RunConfig,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrail,
    ToolInputGuardrailData,
    ToolOutputGuardrail,
    ToolOutputGuardrailData,
    ToolOutputText,
)

from runrails.calls import ToolOutcome
from runrails.dialogue import dialogue_here
from runrails.errors import ConfigError
from runrails_openai_agents.models import GuardedModel, GuardedProvider, guarded_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agents import RunContextWrapper, Tool

    from runrails.guard import Guard

__all__ = ["guard_agent", "guard_config", "is_guarded"]

_C = TypeVar("_C")
_Made = dict[int, tuple[Agent[Any], Agent[Any]]]
"""Agents and their copies, by the agent's identity."""
_MARK = "runrails_guard"


def guard_agent(guard: Guard, agent: Agent[_C]) -> Agent[_C]:
    """
    A copy of an agent, and of every agent it may hand off to, whose models and function tools ask the guard.

    `GuardrailRunner` does it for the agents it runs. By hand it is needed for an agent that becomes a tool of another,
    `guard_agent(guard, agent).as_tool(…)`, and for one that `Runner` runs inside `with guard.run():`. A model by
    name is looked up by the run's configuration: there `Runner` needs `run_config=guard_config(guard)` as well.
    Nobody tells when `Runner` begins, so that all it runs in one run counts as one conversation, for loops.

    Raises:
        ConfigError: A model is guarded by another guard; or an agent that is used as a tool has a model object of its
            own and is not guarded.
    """
    return _guarded(guard, agent, {})


def guard_config(guard: Guard, config: RunConfig | Mapping[str, Any] | None = None) -> RunConfig:
    """
    A copy of a run configuration whose models ask the guard.

    `GuardrailRunner` does it for the configuration it is given. By hand it is needed for one that is given to
    `as_tool(run_config=…)`.
    """
    known = config if isinstance(config, RunConfig) else RunConfig(**(config or {}))
    model = known.model
    if isinstance(model, Model):
        model = guarded_model(guard, model)
    provider = known.model_provider
    if not isinstance(provider, GuardedProvider):
        provider = GuardedProvider(guard, provider)
    return replace(known, model=model, model_provider=provider)


def is_guarded(guard: Guard, agent: object) -> bool:
    """Whether an agent is such a copy."""
    return getattr(agent, _MARK, None) is guard


def _guarded(guard: Guard, agent: Agent[Any], made: _Made) -> Agent[Any]:
    if is_guarded(guard, agent):
        return agent
    known = made.get(id(agent))
    if known is not None:
        return known[1]
    model = guarded_model(guard, agent.model) if isinstance(agent.model, Model) else agent.model
    copied = agent.clone(
        model=model, model_settings=agent.model_settings, tools=[_guarded_tool(guard, tool) for tool in agent.tools]
    )
    setattr(copied, _MARK, guard)
    # Agents may hand off to each other in a circle, so the copy is known before its handoffs are made.
    made[id(agent)] = agent, copied
    copied.handoffs = [
        _guarded(guard, one, made) if isinstance(one, Agent) else _guarded_handoff(guard, one, made)
        for one in agent.handoffs
    ]
    return copied


def _guarded_handoff(guard: Guard, handoff: Handoff[Any, Any], made: _Made) -> Handoff[Any, Any]:
    invoke = handoff.on_invoke_handoff

    async def on_invoke_handoff(context: RunContextWrapper[Any], given: str) -> Agent[Any]:
        return _guarded(guard, await invoke(context, given), made)

    copied = copy.copy(handoff)
    copied.on_invoke_handoff = on_invoke_handoff
    return copied


def _guarded_tool(guard: Guard, tool: Tool) -> Tool:
    if not isinstance(tool, FunctionTool):
        return tool
    _check_inner_agent(tool)
    if any(isinstance(one, _Before) for one in tool.tool_input_guardrails or ()):
        return tool
    gate = _Gate(guard)
    copied = copy.copy(tool)
    copied.tool_input_guardrails = [*(tool.tool_input_guardrails or ()), _Before(gate.before, name="runrails")]
    copied.tool_output_guardrails = [
        *(tool.tool_output_guardrails or ()),
        ToolOutputGuardrail(gate.after, name="runrails"),
    ]
    return copied


class _Before(ToolInputGuardrail[Any]):
    """Known by its class, so that a tool is guarded once."""


class _Gate:
    """Asks for the calls of one tool. It stands last, so that only what is about to be executed is asked for."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def before(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        """Let a tool be executed, or answer in its place."""
        dialogue, context = dialogue_here(self._guard), data.context
        instead = dialogue.before_tool(context.tool_name, context.tool_arguments, context.tool_call_id)
        if instead is not None:
            return ToolGuardrailFunctionOutput.reject_content(instead)
        # Each tool call is a task of its own, and what it calls is made in a copy of this context.
        dialogue.nested().enter()
        return ToolGuardrailFunctionOutput.allow()

    def after(self, data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
        """Tell what a tool gave back, and add a hint for the model where one is due."""
        inner = dialogue_here(self._guard)
        dialogue = inner.outer or inner
        output: object = data.output
        hint = dialogue.after_tool(data.context.tool_call_id, lambda: ToolOutcome(ok=True, result=_plain(output)))
        text = None if hint is None else _text(output)
        if hint is None or text is None:
            return ToolGuardrailFunctionOutput.allow()
        return ToolGuardrailFunctionOutput.reject_content(f"{text}\n\n{hint}")


def _plain(output: object) -> object:
    return output.text if isinstance(output, ToolOutputText) else output


def _text(output: object) -> str | None:
    """A result as the model will read it, if it is a text."""
    plain = _plain(output)
    return plain if isinstance(plain, str) else None


def _check_inner_agent(tool: FunctionTool) -> None:
    """An agent as a tool is called by the SDK itself. Its model, or that of one it reaches, would be called unasked."""
    seen: dict[int, Agent[Any]] = {}
    waiting = [_agent_of(tool)]
    while waiting:
        inner = waiting.pop()
        if inner is None or id(inner) in seen:
            continue
        seen[id(inner)] = inner
        if isinstance(inner.model, Model) and not isinstance(inner.model, GuardedModel):
            raise ConfigError(
                f"An agent behind the tool {tool.name} has a model of its own that is not guarded.",
                next_step="Write guard_agent(guard, agent).as_tool(…) for it.",
            )
        waiting += map(_agent_of, inner.tools)
        waiting += (one if isinstance(one, Agent) else _target(one) for one in inner.handoffs)


def _agent_of(tool: Tool) -> Agent[Any] | None:
    """The agent that is a tool, if one is; the SDK itself looks for it there."""
    return cast("Agent[Any] | None", getattr(tool, "_agent_instance", None))


def _target(handoff: Handoff[Any, Any]) -> Agent[Any] | None:
    reference = cast("Callable[[], Agent[Any] | None] | None", getattr(handoff, "_agent_ref", None))
    return None if reference is None else reference()
