"""In what shape a stop is raised from a hook, so that no layer above swallows it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from runrails.boundary import Trip
from runrails.current import given_up
from runrails.errors import FieldValue, GuardrailStopped, RunrailsError

if TYPE_CHECKING:
    from runrails.run import Run

__all__ = ["is_control_flow", "public_stop", "stop_for"]

_kinds: dict[tuple[type[GuardrailStopped], type[Exception] | None], type[GuardrailStopped]] = {}


def stop_for(run: Run, stop: GuardrailStopped) -> BaseException:
    """
    What to raise: inside a boundary of ours the private trip, outside it the public stop.

    What was left alone has no boundary any more, but nobody waits for it either: the quicker it ends the better.
    """
    return Trip(stop) if run.owned or given_up() is not None else public_stop(stop)


def public_stop(stop: GuardrailStopped) -> GuardrailStopped:
    """
    The same stop, of a class that is also what the layers above let through.

    LangGraph's nodes do not retry a RuntimeError, and its tool nodes and LangChain's retry and fallback middleware
    re-raise a `GraphBubbleUp`, their class for control flow. It stays the public class: same text, same fields.
    """
    kind = _kind(type(stop))
    again = kind.__new__(kind)
    RunrailsError.__init__(again, stop.what, next_step=stop.next_step, **stop.fields)
    return again


def is_control_flow(error: BaseException) -> bool:
    """Whether it is no failure but LangGraph's way to interrupt a graph, or a stop."""
    bubble = _bubble()
    return isinstance(error, GuardrailStopped) or (bubble is not None and isinstance(error, bubble))


def _kind(base: type[GuardrailStopped]) -> type[GuardrailStopped]:
    if issubclass(base, RuntimeError):
        return base
    bubble = _bubble()
    kind = _kinds.get((base, bubble))
    if kind is None:
        bases = (base, RuntimeError) if bubble is None else (base, bubble, RuntimeError)
        body = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
        kind = type(base.__name__, bases, {**body, "__reduce__": _reduce})
        _kinds[base, bubble] = kind
    return kind


def _bubble() -> type[Exception] | None:
    """LangGraph's control-flow class. Where LangGraph has not been loaded none of its layers can be above us."""
    found = getattr(sys.modules.get("langgraph.errors"), "GraphBubbleUp", None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _reduce(stop: GuardrailStopped) -> tuple[Any, ...]:
    # The class was made here and now, so it is made again where the error is read.
    return _rebuild, (type(stop).__mro__[1], stop.what, stop.next_step, stop.fields)


def _rebuild(
    base: type[GuardrailStopped], what: str, next_step: str, fields: dict[str, FieldValue]
) -> GuardrailStopped:
    kind = _kind(base)
    stop = kind.__new__(kind)
    RunrailsError.__init__(stop, what, next_step=next_step, **fields)
    return stop
