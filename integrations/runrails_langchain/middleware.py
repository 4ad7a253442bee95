"""The middleware for LangChain's `create_agent`: hints, blocks, and ends an agent where its conversation is whole."""

# ruff: noqa: ARG002 -- LangChain prescribes the signatures of the hooks

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, ParamSpec, TypeVar, cast

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.agents.middleware.types import ExtendedModelResponse, ModelResponse, PrivateStateAttr
from langchain_core.messages import AIMessage
from langgraph.config import get_config
from langgraph.types import Command

from runrails import aio
from runrails.advice import explain_end, report_of
from runrails.boundary import Trip
from runrails.errors import ConfigError, GuardrailStopped
from runrails_langchain.attaching import attach
from runrails_langchain.handler import GuardrailCallbackHandler, tracker_of
from runrails_langchain.invocations import invocations_of
from runrails_langchain.payers import attribution_of
from runrails_langchain.stops import stop_for
from runrails_langchain.turns import ModelTurn, ToolTurn, arun_tool, asked_of, config_of, run_tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from langchain.agents.middleware.types import ModelRequest, ToolCallRequest
    from langchain_core.messages import ToolMessage
    from langgraph.runtime import Runtime

    from runrails.attribution import Attribution
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["GuardrailMiddleware", "GuardrailState"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

STOP_REASON = "runrails_stop_reason"
"""Under this name the last message's `response_metadata` says why the run ended."""


class GuardrailState(AgentState[Any]):
    """What the middleware keeps in the agent's state."""

    runrails_run: NotRequired[Annotated[str | None, PrivateStateAttr]]
    """The key of the invocation's run, where nothing around the agent has opened one."""


class GuardrailMiddleware(AgentMiddleware[GuardrailState, Any, Any]):
    """
    Guards an agent gracefully: `create_agent(model, tools, middleware=[GuardrailMiddleware(guard), ...])`.

    A call that keeps failing gets a hint in its result, then is answered in the tool's place; a run that is over ends
    at the model, with a message that explains it, in a conversation in which every tool call has its answer. From 80 %
    of a limit on the model is told what is left, in the request only. A budget that is nearly used up lowers the
    request's output cap.

    Put it first, so that it is the outermost. Further in it guards as well, but a retry layer around it repeats what it
    answers, and layers around it that call models are not seen. One instance serves any number of agents, runs, threads
    and event loops. Inside `with guard.run():`, a supervisor, or a chain with a `GuardrailCallbackHandler` of the same
    guard it belongs to that run, and nothing counts twice; else each invocation is a run of its own.

    Args:
        guard: Limits, prices and the store.
        on_stop: `end` the agent with a message, or `raise` the stop, at the model in both cases.

    Raises:
        ConfigError: `on_stop` is neither.
    """

    state_schema = GuardrailState

    def __init__(self, guard: Guard, *, on_stop: Literal["end", "raise"] = "end") -> None:
        super().__init__()
        if on_stop not in ("end", "raise"):
            raise ConfigError("on_stop must be end or raise.", next_step='Write on_stop="end".')
        attach()
        self.tools = []
        self.guard = guard
        self.on_stop = on_stop
        self._handler = GuardrailCallbackHandler(guard)
        self._tracker = tracker_of(guard)
        self._invocations = invocations_of(guard)

    # The agent.

    def before_agent(self, state: GuardrailState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Open a run, unless there is one around the agent."""
        config = get_config()
        if self._around(config) is not None:
            return {"runrails_run": None}
        return {"runrails_run": self._invocations.open(config.get("metadata"))}

    async def abefore_agent(self, state: GuardrailState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """As `before_agent`."""
        config = get_config()
        if self._around(config) is not None:
            return {"runrails_run": None}
        return {"runrails_run": await self._off_loop(self._invocations.open, config.get("metadata"))}

    def after_agent(self, state: GuardrailState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """End the run that was opened for the agent."""
        config = get_config()
        if self._around(config) is None:
            self._end(_key(state, config))
        return None

    async def aafter_agent(self, state: GuardrailState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """As `after_agent`."""
        config = get_config()
        if self._around(config) is None:
            await self._off_loop(self._end, _key(state, config))
        return None

    # The model.

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """
        Admit a model call, or end the agent in its place.

        Raises:
            GuardrailStopped: With `on_stop="raise"`.
            CallRefused: This call may not start; the run goes on.
            ConfigError: LangChain's metadata says wrongly whose call it is.
        """
        config = get_config()
        turn = ModelTurn(self._handler, self._run(request.state, config), request, _payer(config))
        try:
            turn.begin()
            with turn.inside():
                return handler(turn.request)
        except (GuardrailStopped, Trip) as stop:
            return self._stopped(turn, stop)
        finally:
            turn.end()

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """As `wrap_model_call`."""
        config = get_config()
        turn = ModelTurn(self._handler, await self._arun(request.state, config), request, _payer(config))
        try:
            await turn.abegin()
            with turn.inside():
                return await handler(turn.request)
        except (GuardrailStopped, Trip) as stop:
            return self._stopped(turn, stop)
        finally:
            await turn.aend()

    # Tools.

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Admit a tool call, or answer in the tool's place. Raises no stop: the agent ends at the model."""
        config = config_of(request)
        turn = ToolTurn(self._handler, self._run(request.state, config), asked_of(request), config)
        return run_tool(turn, request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """As `wrap_tool_call`."""
        config = config_of(request)
        turn = ToolTurn(self._handler, await self._arun(request.state, config), asked_of(request), config)
        return await arun_tool(turn, request, handler)

    # Inside.

    def _around(self, config: Mapping[str, Any]) -> Run | None:
        """The run that something around the agent has opened."""
        return self._tracker.run_around(getattr(config.get("callbacks"), "parent_run_id", None))

    def _run(self, state: object, config: Mapping[str, Any]) -> Run:
        around = self._around(config)
        if around is not None:
            return around
        return self._invocations.get(_key(state, config), config.get("metadata"))

    async def _arun(self, state: object, config: Mapping[str, Any]) -> Run:
        around = self._around(config)
        if around is not None:
            return around
        return await self._off_loop(self._invocations.get, _key(state, config), config.get("metadata"))

    def _end(self, key: str) -> None:
        try:
            self._invocations.end(key)
        except Exception as exc:  # noqa: BLE001 -- the result is the user's
            self.guard.emit(
                "adapter_failed", "error", adapter="langchain", hook="after_agent", error=type(exc).__name__
            )

    async def _off_loop(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """A remote store, which a run may ask at its beginning and end, does not keep the event loop waiting."""
        if self.guard.store.remote:
            return await aio.off_loop(self.guard, function, *args, **kwargs)
        return function(*args, **kwargs)

    def _stopped(self, turn: ModelTurn, error: GuardrailStopped | Trip) -> ExtendedModelResponse[Any]:
        run = turn.run
        stop = run.stopped
        if stop is None:  # a run inside this one has stopped, and its stop is the business of who opened it
            raise error
        last = turn.request.messages[-1] if turn.request.messages else None
        told = isinstance(last, AIMessage) and STOP_REASON in last.response_metadata
        if self.on_stop == "raise" or told:  # an agent that was told to end and goes on would do so for ever
            raise stop_for(run, stop)
        message = AIMessage(explain_end(stop, report_of(run)), response_metadata={STOP_REASON: stop.stop_reason})
        return ExtendedModelResponse(ModelResponse([message]), Command(update={"jump_to": "end"}))


def _payer(config: Mapping[str, Any]) -> Attribution | None:
    return attribution_of(cast("Mapping[str, object] | None", config.get("metadata")))


def _key(state: object, config: Mapping[str, Any]) -> str:
    """The state's key; an agent that goes on where an interrupt left it may have none, then it is its thread's."""
    key = cast("Mapping[str, object]", state).get("runrails_run") if isinstance(state, dict) else None
    if isinstance(key, str):
        return key
    thread = cast("Mapping[str, object]", config.get("configurable") or {}).get("thread_id")
    return f"thread:{thread}"
