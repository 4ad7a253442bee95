"""One model call and one tool call of an agent, as the middleware stands around them; sync and async share them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from langchain_core.messages import ToolMessage

from runrails import aio
from runrails.advice import NOT_EXECUTED_NOW, budget_note, not_executed
from runrails.boundary import Trip
from runrails.calls import Block, ToolCall
from runrails.current import given_up, inside
from runrails.errors import BudgetBusy, CallRefused, ConfigError, GuardrailStopped
from runrails_langchain.attaching import attached
from runrails_langchain.drive import Blocked, ModelDrive, ToolDrive, model_drive, tool_drive
from runrails_langchain.handler import GuardrailCallbackHandler, tracker_of
from runrails_langchain.requests import Planned, plan, with_text
from runrails_langchain.saving import Models, spared
from runrails_langchain.stops import is_control_flow
from runrails_langchain.tools import outcome_of, outcome_of_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from contextvars import ContextVar

    from langchain.agents.middleware import ModelRequest
    from langchain.agents.middleware.types import ToolCallRequest

    from runrails.attribution import Attribution
    from runrails.calls import Finding, Permit
    from runrails.run import Run
    from runrails_langchain.conversations import Asked, Conversations

_P = ParamSpec("_P")
_Q = TypeVar("_Q")
_R = TypeVar("_R")

__all__ = ["ModelTurn", "ToolTurn", "arun_tool", "asked_of", "config_of", "is_direct", "run_tool"]


class ModelTurn:
    """One model call: a permit before, the callback inside, whatever is left over given back after."""

    def __init__(
        self, handler: GuardrailCallbackHandler, run: Run, request: ModelRequest[Any], by: Attribution | None,
        cheaper: Models,
    ) -> None:  # fmt: skip
        self.run = run
        self.request = request
        self._by = by
        self._cheaper = cheaper
        self._handler = handler
        self._drive = ModelDrive(run, None)
        self._planned: Planned | None = None

    @property
    def nested(self) -> bool:
        """Whether another middleware of this guard stands around this call already."""
        outer = model_drive.get()
        return outer is not None and outer.run is self.run

    def instead(self, request: ModelRequest[Any]) -> ModelTurn:
        """Another call for the same payer."""
        return ModelTurn(self._handler, self.run, request, self._by, self._cheaper)

    def begin(self) -> None:
        """Ask for the call as it is known here. Raises stops; what is refused is asked for again at the call."""
        if self._plan():
            with _not_decisive(self.run):
                permit = self.run.before_model(self._call, can_block=True, tentative=True)
                if not self._taken(permit):
                    self.run.withdraw(permit)

    async def abegin(self) -> None:
        """The same without keeping the event loop waiting."""
        if self._plan():
            with _not_decisive(self.run):
                permit = await aio.before_model(self.run, self._call, can_block=True, sends=False, tentative=True)
                if not self._taken(permit):
                    await self._off_loop(self.run.withdraw, permit)

    @contextmanager
    def inside(self) -> Generator[None]:
        """Whatever is called in here belongs to the run, and the model's call is this one."""
        drive = model_drive.get() if self.nested else self._drive
        with inside(self.run), attached(self._handler), _set(model_drive, drive):
            yield

    def end(self) -> None:
        """The call is over. LangChain does not tell the end of every call, and an inner layer may have sent none."""
        try:
            permit = self._drive.take()
            if permit is not None:
                self.run.withdraw(permit)
            tracker_of(self.run.guard).settle_open(self._drive.calls)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold expires by the ledger's rules
            _failed(self.run, "wrap_model_call", exc)

    async def aend(self) -> None:
        """The same; a remote store does not keep the event loop waiting, nor does a cancellation break it off."""
        await self._off_loop(self.end)

    async def _off_loop(self, function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        guard = self.run.guard
        if guard.store.remote:
            await aio.off_loop(guard, function, *args, **kwargs)
        else:
            function(*args, **kwargs)

    @property
    def _call(self) -> Any:
        assert self._planned is not None  # noqa: S101 -- asked only after `_plan`
        return self._planned.call

    def _plan(self) -> bool:
        if self.nested:
            return False
        try:
            note = budget_note(self.run)
            if note is not None:
                self.request = self.request.override(messages=with_text(self.request.messages, note))
            self._planned = plan(self.request, self._by)
            if self.run.guard.saves:
                self.request, self._planned = spared(self.run, self.request, self._planned, self._by, self._cheaper)
        except Exception as exc:  # noqa: BLE001 -- the callback reads what is really sent, and decides
            _failed(self.run, "wrap_model_call", exc)
            return False
        return True

    def _taken(self, permit: Permit) -> bool:
        """Whether the permit is of use: a smaller cap that the request cannot be given makes it useless."""
        planned = self._planned
        if planned is not None and permit.max_tokens is not None and permit.max_tokens != planned.call.max_tokens:
            try:
                capped = planned.capped(self.request, permit.max_tokens)
            except Exception as exc:  # noqa: BLE001 -- as above
                capped = None
                _failed(self.run, "wrap_model_call", exc)
            if capped is None:
                return False
            self.request = capped
        self._drive = ModelDrive(self.run, permit)
        return True


class ToolTurn:
    """One tool call: asked for before, told after, answered in the tool's place if it may not be executed."""

    def __init__(
        self, handler: GuardrailCallbackHandler, run: Run, asked: Mapping[str, Any], config: Mapping[str, Any], *,
        direct: bool = False,
    ) -> None:  # fmt: skip
        self.run = run
        self._direct = direct
        """Whether the result is given to the user as it is, who needs no advice for the model."""
        self._handler = handler
        self._asked = asked
        self._talks: Conversations | None = None
        self._answer: Asked | None = None
        self._drive = ToolDrive(run, self._call(config))

    @property
    def hint(self) -> str | None:
        """What the model should be told with the result."""
        finding = self._drive.finding
        return None if finding is None or self._direct else finding.for_model

    def _call(self, config: Mapping[str, Any]) -> ToolCall:
        """The call, joined with the answer of the model that asked for it."""
        name, args, call_id = self._asked["name"], self._asked["args"], self._asked["id"]
        try:
            with inside(self.run):
                spot = tracker_of(self.run.guard).locate(
                    0, getattr(config.get("callbacks"), "parent_run_id", None), config.get("metadata")
                )
            call, self._answer = spot.talks.tool_starts(spot.place, name, args, call_id)
            self._talks = spot.talks
        except ConfigError:
            raise
        except Exception as exc:  # noqa: BLE001 -- it observes for the loop detector; the call goes on
            _failed(self.run, "wrap_tool_call", exc)
            return ToolCall(name=name, args=args, id=call_id)
        return call

    @property
    def nested(self) -> bool:
        """Whether another wrapper of this guard stands around this very call already."""
        outer = tool_drive.get()
        if outer is None or outer.run is not self.run or outer.attempts:
            return False
        return outer.call.id == self._drive.call.id

    def begin(self) -> ToolMessage | None:
        """Ask for the call. What comes back is the answer in the tool's place."""
        try:
            verdict = self.run.before_tool(self._drive.call, can_block=True)
        except GuardrailStopped as stop:
            return self._instead(not_executed(stop))
        except BudgetBusy:
            return self._instead(f"{NOT_EXECUTED_NOW} Please try again a little later.")
        return self._instead(verdict.message) if isinstance(verdict, Block) else None

    @contextmanager
    def inside(self) -> Generator[None]:
        """Whatever is called in here belongs to the run, and the tool's call is this one."""
        with inside(self.run), attached(self._handler), _set(model_drive, None), _set(tool_drive, self._drive):
            yield

    def ended(self, result: _R) -> _R:
        """The tool has answered: its result, with a hint for the model where one is due."""
        try:
            drive = self._drive
            call = drive.take()
            if call is not None:  # no callback has seen it: an unknown tool, or a layer that answered for it
                drive.finding = self.run.after_tool(call, outcome_of(_own(result, call.id), call.id), can_block=True)
            self._counted()
            finding = None if self._direct else drive.finding
            return result if finding is None else _hinted(result, finding, self._asked["id"])
        except Exception as exc:  # noqa: BLE001 -- it observes; the result is the user's
            _failed(self.run, "wrap_tool_call", exc)
            return result

    def failed(self, error: BaseException) -> ToolMessage:
        """
        The tool has raised. A stop of this run, raised by what the tool called, is answered in the tool's place: the
        run ends at the model, where the conversation is consistent. Everything else goes on as it was.
        """
        if isinstance(error, Blocked):
            return self._instead(error.message)
        if isinstance(error, GuardrailStopped | Trip) and self.run.stopped is not None and given_up() is None:
            return self._instead(not_executed(self.run.stopped))
        call = self._drive.take()
        if call is not None and isinstance(error, Exception) and not is_control_flow(error):
            try:
                self.run.after_tool(call, outcome_of_error(error), can_block=True)
                self._counted()
            except Exception as exc:  # noqa: BLE001 -- as in `ended`
                _failed(self.run, "wrap_tool_call", exc)
        raise error

    def _instead(self, text: str) -> ToolMessage:
        self._counted()
        return ToolMessage(text, tool_call_id=self._asked["id"] or "", name=self._asked["name"], status="error")

    def _counted(self) -> None:
        """The message with the result, seen at the next model call, is not counted again."""
        if self._talks is not None:
            self._talks.tool_ended(self._answer, self._asked["id"], self._drive.call.agent)


def run_tool(turn: ToolTurn, request: _Q, call: Callable[[_Q], _R]) -> _R | ToolMessage:
    """Call a tool as its turn allows it."""
    if turn.nested:
        return call(request)
    instead = turn.begin()
    if instead is not None:
        return instead
    try:
        with turn.inside():
            result = call(request)
    except BaseException as exc:  # noqa: BLE001 -- it is raised again unless it is ours
        return turn.failed(exc)
    return turn.ended(result)


async def arun_tool(turn: ToolTurn, request: _Q, call: Callable[[_Q], Awaitable[_R]]) -> _R | ToolMessage:
    """As `run_tool`."""
    if turn.nested:
        return await call(request)
    instead = turn.begin()
    if instead is not None:
        return instead
    try:
        with turn.inside():
            result = await call(request)
    except BaseException as exc:  # noqa: BLE001 -- as above
        return turn.failed(exc)
    return turn.ended(result)


def asked_of(request: ToolCallRequest) -> Mapping[str, Any]:
    """What the model has asked for."""
    return cast("Mapping[str, Any]", request.tool_call)


def is_direct(request: ToolCallRequest) -> bool:
    """Whether what the tool answers is the agent's answer."""
    return bool(getattr(getattr(request, "tool", None), "return_direct", False))


def config_of(request: ToolCallRequest) -> Mapping[str, Any]:
    """The configuration that a tool call's node runs with; nothing outside a graph."""
    return cast("Mapping[str, Any]", getattr(getattr(request, "runtime", None), "config", None) or {})


@contextmanager
def _not_decisive(run: Run) -> Generator[None]:
    """A layer below may still make the call smaller or choose another model; then it is asked for as it is sent."""
    try:
        yield
    except (CallRefused, GuardrailStopped):
        if run.stopped is not None:
            raise


@contextmanager
def _set(variable: ContextVar[Any], value: object) -> Generator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _own(result: object, call_id: str | None) -> object:
    """A tool may answer with several messages and commands; one of them is its result."""
    if not isinstance(result, list):
        return result
    items = cast("list[object]", result)
    return next((one for one in items if isinstance(one, ToolMessage) and one.tool_call_id == call_id), items)


def _hinted(result: Any, finding: Finding, call_id: str | None) -> Any:
    """A copy of the result with the hint at the end of its text; what has no text stays as it is."""
    if isinstance(result, ToolMessage):
        longer = with_text([result], finding.for_model) if result.tool_call_id == call_id else [result]
        return longer[0]
    if isinstance(result, list):
        return [_hinted(item, finding, call_id) for item in cast("list[object]", result)]
    update = getattr(result, "update", None)
    messages = cast("dict[str, Any]", update).get("messages") if isinstance(update, dict) else None
    if not isinstance(messages, list):
        return result
    return replace(result, update={**cast("dict[str, Any]", update), "messages": _hinted(messages, finding, call_id)})


def _failed(run: Run, hook: str, error: Exception) -> None:
    run.guard.emit("adapter_failed", "error", run=run.id, hook=hook, error=type(error).__name__)
