"""In what shape a stop is raised: no layer above swallows it, and at a tool the conversation stays whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast

from runrails.boundary import Trip
from runrails.current import given_up
from runrails.errors import FieldValue, GuardrailStopped, RunrailsError

if TYPE_CHECKING:
    from runrails.run import Run

__all__ = ["answered", "answered_for", "is_control_flow", "public_stop", "stop_for"]

_E = TypeVar("_E", bound=RunrailsError)
_kinds: dict[tuple[type[RunrailsError], type[Exception] | None], type[RunrailsError]] = {}


def stop_for(run: Run, stop: GuardrailStopped, *, in_tool: bool = False) -> BaseException:
    """
    What to raise: inside a boundary of ours the private trip, outside it the public stop.

    What was left alone has no boundary any more, but nobody waits for it either: the quicker it ends the better.

    Args:
        run: The run that has stopped.
        stop: Why.
        in_tool: Whether it is raised inside a tool that nobody answers for. Then the public stop leaves that tool, is
            answered in its place (see `answered`), and the trip comes at the model.
    """
    if not in_tool:
        run.entry.answered = None
    if given_up() is not None or (run.owned and not in_tool):
        return Trip(stop)
    return public_stop(stop)


def answered_for(run: Run, stop: GuardrailStopped, message: str) -> GuardrailStopped:
    """As `answered`; if it is raised nowhere else until then, the end of the run's `with` block does."""
    run.entry.answered = stop
    return answered(stop, message)


def answered(error: _E, message: str) -> _E:
    """
    The same error, of a class that is also what LangGraph's tool nodes answer for: the model's call gets a result.

    A conversation in which a call has none is refused by OpenAI and by Anthropic. Nothing starts before the next call
    of the model, where a stop is raised again; who calls tools without a tool node gets the error itself.

    Args:
        error: A stop or a refusal.
        message: What the result says.
    """
    kind = _kind(type(error), _invocation_error())
    again = kind.__new__(kind)
    RunrailsError.__init__(again, error.what, next_step=error.next_step, **error.fields)
    vars(again).update(message=message, tool_name="", tool_kwargs={}, source=None, filtered_errors=None)
    return cast("_E", again)


def public_stop(stop: GuardrailStopped) -> GuardrailStopped:
    """
    The same stop, of a class that is also what the layers above let through.

    LangGraph's nodes do not retry a RuntimeError, and its tool nodes and LangChain's retry and fallback middleware
    re-raise a `GraphBubbleUp`, their class for control flow. It stays the public class: same text, same fields.
    """
    kind = _kind(type(stop), _bubble())
    again = kind.__new__(kind)
    RunrailsError.__init__(again, stop.what, next_step=stop.next_step, **stop.fields)
    return cast("GuardrailStopped", again)


def is_control_flow(error: BaseException) -> bool:
    """Whether it is no failure but LangGraph's way to interrupt a graph, or a stop."""
    bubble = _bubble()
    return isinstance(error, GuardrailStopped) or (bubble is not None and isinstance(error, bubble))


def _kind(base: type[RunrailsError], also: type[Exception] | None) -> type[RunrailsError]:
    if issubclass(base, RuntimeError):
        base = cast("type[RunrailsError]", base.__mro__[1])
    kind = _kinds.get((base, also))
    if kind is None:
        bases = (base, RuntimeError) if also is None else (base, also, RuntimeError)
        body = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
        kind = type(base.__name__, bases, {**body, "__reduce__": _reduce, "again": _again})
        _kinds[base, also] = kind
    return kind


def _bubble() -> type[Exception] | None:
    """LangGraph's control-flow class. Where LangGraph has not been loaded none of its layers can be above us."""
    return _loaded("langgraph.errors", "GraphBubbleUp")


def _invocation_error() -> type[Exception] | None:
    """What tool nodes take for the model's own mistake, and answer with its message."""
    return _loaded("langgraph.prebuilt.tool_node", "ToolInvocationError")


def _loaded(module: str, name: str) -> type[Exception] | None:
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _again(error: RunrailsError) -> RunrailsError:
    message = getattr(error, "message", None)
    return RunrailsError.again(error) if message is None else answered(error, message)


def _reduce(error: RunrailsError) -> tuple[Any, ...]:
    # The class was made here and now, so it is made again where the error is read.
    message = getattr(error, "message", None)
    return _rebuild, (type(error).__mro__[1], error.what, error.next_step, error.fields, message)


def _rebuild(
    base: type[RunrailsError], what: str, next_step: str, fields: dict[str, FieldValue], message: str | None
) -> RunrailsError:
    kind = _kind(base, None)
    error = kind.__new__(kind)
    RunrailsError.__init__(error, what, next_step=next_step, **fields)
    if message is not None:
        return answered(error, message)
    return public_stop(error) if isinstance(error, GuardrailStopped) else error
