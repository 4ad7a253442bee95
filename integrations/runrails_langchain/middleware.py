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
from runrails.advice import explain_end, report_of, with_explanation
from runrails.boundary import Trip
from runrails.errors import ConfigError, GuardrailStopped
from runrails_langchain.attaching import attach
from runrails_langchain.drive import tool_drive
from runrails_langchain.handler import GuardrailCallbackHandler, tracker_of
from runrails_langchain.invocations import invocations_of
from runrails_langchain.payers import attribution_of
from runrails_langchain.saving import models_by_name
from runrails_langchain.stops import stop_for
from runrails_langchain.turns import ModelTurn, ToolTurn, arun_tool, asked_of, config_of, is_direct, run_tool
from runrails_langchain.wrapping import last_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from langchain.agents.middleware.types import ModelRequest, ToolCallRequest
    from langchain_core.language_models import BaseChatModel
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


WRAPPED_UP = "runrails_wrapped_up"
"""Under this name it says whether the model was asked for it, from money kept back for that."""


class GuardrailState(AgentState[Any]):
    """What the middleware keeps in the agent's state."""

    runrails_run: NotRequired[Annotated[str | None, PrivateStateAttr]]
    """The key of the invocation's run, where nothing around the agent has opened one."""


class GuardrailMiddleware(AgentMiddleware[GuardrailState, Any, Any]):
    """
    Guards an agent gracefully: `create_agent(model, tools, middleware=[GuardrailMiddleware(guard), ...])`.

    A call that keeps failing gets a hint in its result, then is answered in the tool's place; a run that is over ends
    at the model, with a last answer where `Limits.wrap_up` has kept money back for one, and a message that explains it,
    in a conversation in which every tool call has its answer. From 80 %
    of a limit on the model is told what is left, in the request only. A budget that is nearly used up lowers the
    request's output cap.

    Put it first, so that it is the outermost. Further in it guards as well, but a retry layer around it repeats what it
    answers, and layers around it that call models are not seen. One instance serves any number of agents, runs, threads
    and event loops. Inside `with guard.run():`, a supervisor, or a chain with a `GuardrailCallbackHandler` of the same
    guard it belongs to that run, and nothing counts twice; else each invocation is a run of its own.

    Args:
        guard: Limits, prices and the store.
        on_stop: `end` the agent with a message, or `raise` the stop, at the model in both cases.
        cheaper: The models that `Limits(downgrade=...)` may name, of the same provider as the agent's own.

    Raises:
        ConfigError: `on_stop` is neither, or one of `cheaper` is no chat model that tells its name.
    """

    state_schema = GuardrailState

    def __init__(
        self, guard: Guard, *, on_stop: Literal["end", "raise"] = "end", cheaper: Iterable[BaseChatModel] = ()
    ) -> None:
        super().__init__()
        if on_stop not in ("end", "raise"):
            raise ConfigError("on_stop must be end or raise.", next_step='Write on_stop="end".')
        attach()
        self.tools = []
        self.guard = guard
        self.on_stop = on_stop
        self._cheaper = models_by_name(cheaper)
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
        turn = ModelTurn(self._handler, self._run(request.state, config), request, _payer(config), self._cheaper)
        self._expect(turn)
        try:
            turn.begin()
            with turn.inside():
                return handler(turn.request)
        except (GuardrailStopped, Trip) as stop:
            self._raise_if_due(turn, stop)
        finally:
            turn.end()
        return _ending(turn.run, self._last_answer(turn, handler))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """As `wrap_model_call`."""
        config = get_config()
        run = await self._arun(request.state, config)
        turn = ModelTurn(self._handler, run, request, _payer(config), self._cheaper)
        self._expect(turn)
        try:
            await turn.abegin()
            with turn.inside():
                return await handler(turn.request)
        except (GuardrailStopped, Trip) as stop:
            self._raise_if_due(turn, stop)
        finally:
            await turn.aend()
        return _ending(turn.run, await self._alast_answer(turn, handler))

    # Tools.

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Admit a tool call, or answer in the tool's place. Raises no stop: the agent ends at the model."""
        config = config_of(request)
        turn = ToolTurn(
            self._handler, self._run(request.state, config), asked_of(request), config, direct=is_direct(request)
        )
        return run_tool(turn, request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """As `wrap_tool_call`."""
        config = config_of(request)
        turn = ToolTurn(
            self._handler, await self._arun(request.state, config), asked_of(request), config, direct=is_direct(request)
        )
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

    def _raise_if_due(self, turn: ModelTurn, error: GuardrailStopped | Trip) -> None:
        """Raise the stop, where it must not become the agent's end."""
        run = turn.run
        stop = run.stopped
        if stop is None:  # a run inside this one has stopped, and its stop is the business of who opened it
            raise error
        last = turn.request.messages[-1] if turn.request.messages else None
        told = isinstance(last, AIMessage) and STOP_REASON in last.response_metadata
        if self.on_stop == "raise" or told:  # an agent that was told to end and goes on would do so for ever
            raise stop_for(run, stop)
        run.entry.answered = None  # the agent's end tells of it

    # The last answer.

    def _expect(self, turn: ModelTurn) -> None:
        """Money is kept back for a last answer from the first call on, for the outermost agent's."""
        if self.on_stop == "end" and turn.run.limits.wrap_up and not _in_tool_of(turn.run):
            turn.run.expect_last_turn()

    def _last_answer(
        self, turn: ModelTurn, handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> AIMessage | None:
        """One more call of the model, if one is due and paid for; whatever goes wrong, the agent ends all the same."""
        run, last = turn.run, turn.run.last_turn
        if last is None or run.stopped is None or _in_tool_of(run):
            return None
        with last.turn() as room:
            try:
                again = self._last_turn(turn, room)
                if again is None:
                    return None
                try:
                    with again.inside():
                        return _said(handler(again.request))
                finally:
                    again.end()
            except (Exception, Trip) as exc:  # noqa: BLE001 -- see above
                self._wrap_up_failed(run, exc)
                return None

    async def _alast_answer(
        self, turn: ModelTurn, handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> AIMessage | None:
        """As `_last_answer`."""
        run, last = turn.run, turn.run.last_turn
        if last is None or run.stopped is None or _in_tool_of(run):
            return None
        async with last.aturn() as room:
            try:
                again = self._last_turn(turn, room)
                if again is None:
                    return None
                try:
                    with again.inside():
                        return _said(await handler(again.request))
                finally:
                    await again.aend()
            except (Exception, Trip) as exc:  # noqa: BLE001 -- as above
                self._wrap_up_failed(run, exc)
                return None

    def _last_turn(self, turn: ModelTurn, room: int) -> ModelTurn | None:
        stop = turn.run.stopped
        request = None if stop is None or not room else last_request(turn.request, stop.what, room)
        return None if request is None else turn.instead(request)

    def _wrap_up_failed(self, run: Run, error: BaseException) -> None:
        self.guard.emit("wrap_up_failed", "warning", run=run.id, error=type(error).__name__)


def _ending(run: Run, answer: AIMessage | None) -> ExtendedModelResponse[Any]:
    """The agent's end: the last answer, if there is one, and why the run ended."""
    stop = run.stopped
    assert stop is not None  # noqa: S101 -- only a stop leads here, and no run is unlatched but by its owner
    text = with_explanation(None if answer is None else str(answer.text).strip(), explain_end(stop, report_of(run)))
    about = {STOP_REASON: stop.stop_reason, WRAPPED_UP: answer is not None}
    message = AIMessage(text, response_metadata=about, usage_metadata=None if answer is None else answer.usage_metadata)
    return ExtendedModelResponse(ModelResponse([message]), Command(update={"jump_to": "end"}))


def _said(response: ModelResponse[Any]) -> AIMessage | None:
    """What the model has said, if it said anything; what else it asked for is not done any more."""
    found = next((one for one in reversed(response.result) if isinstance(one, AIMessage)), None)
    return found if found is not None and str(found.text).strip() else None


def _in_tool_of(run: Run) -> bool:
    """Whether it is asked inside a tool of the run's agent, to whose user nobody here speaks."""
    drive = tool_drive.get()
    return drive is not None and drive.run is run


def _payer(config: Mapping[str, Any]) -> Attribution | None:
    return attribution_of(cast("Mapping[str, object] | None", config.get("metadata")))


def _key(state: object, config: Mapping[str, Any]) -> str:
    """The state's key; an agent that goes on where an interrupt left it may have none, then it is its thread's."""
    key = cast("Mapping[str, object]", state).get("runrails_run") if isinstance(state, dict) else None
    if isinstance(key, str):
        return key
    thread = cast("Mapping[str, object]", config.get("configurable") or {}).get("thread_id")
    return f"thread:{thread}"
