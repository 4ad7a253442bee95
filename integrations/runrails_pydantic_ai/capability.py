"""The capability: Pydantic AI's hooks around a run, its model requests and its tool calls, with the guard in them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from pydantic_ai import ToolReturn
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.models.wrapper import WrapperModel

from runrails.advice import not_executed
from runrails.dialogue import Dialogue, open_dialogue
from runrails.errors import ConfigError, GuardrailStopped
from runrails_pydantic_ai.models import GuardedModel
from runrails_pydantic_ai.requests import outcome_of, question_of

if TYPE_CHECKING:
    from pydantic_ai import RunContext, ToolDefinition
    from pydantic_ai.capabilities import ValidatedToolArgs, WrapRunHandler, WrapToolExecuteHandler
    from pydantic_ai.messages import ToolCallPart
    from pydantic_ai.models import Model
    from pydantic_ai.run import AgentRunResult

    from runrails.guard import Guard

__all__ = ["GuardrailCapability"]


class GuardrailCapability(AbstractCapability[Any]):
    """
    Guards an agent: `Agent(…, capabilities=[GuardrailCapability(guard)])`. One run: `agent.run(…, capabilities=[…])`.

    A call that keeps failing gets a hint in its result, then is answered in the tool's place; when the run is over, the
    next model request raises `GuardrailStopped`, where every tool call in the history has its result. A request that
    may not start raises `CallRefused`. A budget that is nearly used up lowers the request's `max_tokens`.

    Inside `with guard.run():`, a supervisor, or a tool of a guarded agent it all belongs to that run, else each run of
    the agent is a run of its own. One instance serves any number of agents, runs and event loops.

    Args:
        guard: Limits, prices and the store.

    Raises:
        ConfigError: This version of Pydantic AI is too old.
    """

    def __init__(self, guard: Guard) -> None:
        if not hasattr(AbstractCapability, "get_wrapper_model"):
            raise ConfigError(
                "This version of Pydantic AI has no get_wrapper_model hook, so its model requests would not be seen.",
                next_step='Install a version in the range of the extra: pip install "runrails[pydantic-ai]".',
            )
        self.guard = guard
        self._dialogue: Dialogue | None = None

    @classmethod
    def get_serialization_name(cls) -> str | None:
        """None: a guard cannot be written into a specification file."""
        return None

    def get_ordering(self) -> CapabilityOrdering:
        """Outermost: what other capabilities call belongs to the run, and hints stand at the end of results."""
        return CapabilityOrdering(position="outermost")

    async def for_run(self, ctx: RunContext[Any]) -> GuardrailCapability:
        """An instance for each run of the agent."""
        del ctx
        return copy.copy(self)

    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """A run of the agent is a run, or part of the one around it."""
        dialogue = self._dialogue = open_dialogue(self.guard, question_of(ctx.prompt))
        try:
            with dialogue.inside():
                return await handler()
        finally:
            await dialogue.aclose()

    def get_wrapper_model(self, model: Model) -> Model | None:
        """The model that serves a request, guarded; once is enough."""
        if self._dialogue is None or _is_guarded(model, self._dialogue):
            return None
        return GuardedModel(model, self._dialogue)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: ValidatedToolArgs,
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Execute a tool, or answer in its place. Raises no stop: the run ends at the model."""
        del ctx, tool_def
        dialogue = self._dialogue
        if dialogue is None:
            return await handler(args)
        instead = dialogue.before_tool(call.tool_name, call.args, call.tool_call_id)
        if instead is not None:
            return instead
        try:
            with dialogue.nested().inside():
                result = await handler(args)
        except GuardrailStopped:
            if dialogue.run.stopped is None:
                raise
            return not_executed(dialogue.run.stopped)
        hint = dialogue.after_tool(call.tool_call_id, lambda: outcome_of(result))
        return result if hint is None else _hinted(result, hint)


def _is_guarded(model: Model, dialogue: Dialogue) -> bool:
    """Whether the same run guards it already, as where an agent and its run both have the capability."""
    known: Model | None = model
    while isinstance(known, WrapperModel):
        if isinstance(known, GuardedModel) and known.dialogue.run is dialogue.run:
            return True
        known = known.wrapped
    return False


def _hinted(result: object, hint: str) -> object:
    """The result with a hint: in a text at its end, else in a message of its own after it."""
    if isinstance(result, str):
        return f"{result}\n\n{hint}"
    if isinstance(result, ToolReturn):
        known = cast("ToolReturn[object]", result)
        if isinstance(known.return_value, str):
            return replace(known, return_value=f"{known.return_value}\n\n{hint}")
        content = () if known.content is None else known.content
        return replace(known, content=[*((content,) if isinstance(content, str) else content), hint])
    return ToolReturn(return_value=result, content=hint)
