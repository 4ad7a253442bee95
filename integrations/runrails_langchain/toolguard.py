"""Tools that ask the guard before they run, so that a call can be hinted at and answered in the tool's place."""

from __future__ import annotations

import copy
import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool

from runrails.current import current_run, is_of
from runrails.deadline import Abandoned, call_in_time
from runrails_langchain.drive import tool_drive
from runrails_langchain.handler import GuardrailCallbackHandler, tracker_of
from runrails_langchain.stops import stop_for
from runrails_langchain.turns import ToolTurn, arun_tool, asked_of, config_of, is_direct, run_tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["ToolGuard", "guard_tools"]

NESTED_MAX = 16
"""How deep executors inside executors are looked into."""
_CALLBACKS_AT = 3
"""The place of `callbacks` among the arguments of `BaseTool.run` after the tool's input."""


def guard_tools(guard: Guard, tools: Sequence[BaseTool]) -> list[BaseTool]:
    """
    Copies of tools, for code of your own that calls them: in a node of a graph, or in a loop.

    Inside a run of the guard a call that keeps failing gets a hint in its result, then is answered in the tool's place.
    Anywhere else they are the tools they were. Where the middleware or a supervisor already does that, nothing is done
    twice.
    """
    made = ToolGuard(guard)
    return [made.tool(tool) for tool in tools]


class ToolGuard:
    """Wraps tool calls as the middleware would, while they belong to a run of the guard."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._handler = GuardrailCallbackHandler(guard)
        self._tracker = tracker_of(guard)

    def inside(self, executor: Any, depth: int = 0) -> Any:
        """A copy of an executor whose tools ask the guard; the executor itself where there are none to be seen."""
        if depth > NESTED_MAX:
            return executor
        if isinstance(executor, BaseTool):
            return self.tool(executor)
        if isinstance(executor, RunnableBindingBase):
            return _with(executor, bound=self.inside(cast("Any", executor).bound, depth + 1))
        if isinstance(executor, RunnableSequence):
            first, *middle, last = (self.inside(step, depth + 1) for step in cast("Any", executor).steps)
            return _with(executor, first=first, middle=middle, last=last)
        if _is(executor, "AgentExecutor", "langchain_classic.agents.agent", "langchain.agents.agent"):
            return _with(executor, tools=[self.tool(tool) for tool in executor.tools])
        return self._in_langgraph(executor, depth)

    def tool(self, tool: BaseTool) -> BaseTool:
        """A copy of a tool whose every call goes through here; the tool itself does the work."""
        made = copy.copy(tool)

        def run(tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            def work() -> Any:
                return tool.run(tool_input, *args, **kwargs)

            config = _config(args, kwargs)
            owner = self._run(config)
            if owner is None:
                return work()
            turn = self._turn(owner, _asked(tool, tool_input, kwargs), config, direct=tool.return_direct)
            if turn is None:
                return _in_time(owner, work)
            return _told(turn, kwargs, run_tool(turn, owner, lambda owner: _in_time(owner, work)))

        async def arun(tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            config = _config(args, kwargs)
            owner = self._run(config)
            turn = None
            if owner is not None:
                turn = self._turn(owner, _asked(tool, tool_input, kwargs), config, direct=tool.return_direct)
            if turn is None:
                return await tool.arun(tool_input, *args, **kwargs)
            result = await arun_tool(turn, None, lambda _: tool.arun(tool_input, *args, **kwargs))
            return _told(turn, kwargs, result)

        # All ways to call a tool lead there, and a tool's class may be one that cannot be derived from.
        vars(made).update(run=run, arun=arun)
        return made

    def node_call(self, inner: Callable[..., Any] | None) -> Callable[..., Any]:
        """A tool node's wrapper around a call, outside the one it has."""

        def wrap(request: Any, execute: Callable[[Any], Any]) -> Any:
            def call(one: Any) -> Any:
                return execute(one) if inner is None else inner(one, execute)

            turn = self._turn_at(request)
            return call(request) if turn is None else run_tool(turn, request, call)

        return wrap

    def anode_call(
        self, inner: Callable[..., Awaitable[Any]] | None, sync_inner: Callable[..., Any] | None
    ) -> Callable[..., Awaitable[Any]] | None:
        """As `node_call`; None where LangGraph must go on calling a synchronous wrapper, since there is no other."""
        if inner is None and sync_inner is not None:
            return None

        async def wrap(request: Any, execute: Callable[[Any], Awaitable[Any]]) -> Any:
            async def call(one: Any) -> Any:
                return await (execute(one) if inner is None else inner(one, execute))

            turn = self._turn_at(request)
            return await call(request) if turn is None else await arun_tool(turn, request, call)

        return wrap

    # LangGraph.

    def _in_langgraph(self, executor: Any, depth: int) -> Any:
        if _is(executor, "Pregel", "langgraph.pregel"):
            nodes = {name: self._node(node, depth) for name, node in executor.nodes.items()}
            same = all(node is executor.nodes[name] for name, node in nodes.items())
            return executor if same else executor.copy({"nodes": nodes})
        if _is(executor, "ToolNode", "langgraph.prebuilt"):
            return self._tool_node(executor)
        if _is(executor, "RunnableSeq", "langgraph._internal._runnable"):
            steps = [self.inside(step, depth + 1) for step in executor.steps]
            if all(step is old for step, old in zip(steps, executor.steps, strict=True)):
                return executor
            made = copy.copy(executor)
            made.steps = steps
            return made
        return executor

    def _node(self, node: Any, depth: int) -> Any:
        bound = self.inside(node.bound, depth + 1)
        return node if bound is node.bound else node.copy({"bound": bound})

    def _tool_node(self, node: Any) -> Any:
        made = copy.copy(node)
        tools = {name: self.tool(tool) for name, tool in node.tools_by_name.items()}
        made._tools_by_name = tools  # noqa: SLF001 -- as below
        # Unknown tools too. But around a call that is wrapped LangGraph would apply a handler of its user's to errors
        # that this was not meant for.
        handled = node._handle_tool_errors  # noqa: SLF001 -- tool nodes can be wrapped when they are made, not later
        if isinstance(handled, bool) or getattr(handled, "__name__", "") == "_default_handle_tool_errors":
            inner, ainner = node._wrap_tool_call, node._awrap_tool_call  # noqa: SLF001 -- as above
            made._wrap_tool_call = self.node_call(inner)  # noqa: SLF001 -- as above
            made._awrap_tool_call = self.anode_call(ainner, inner)  # noqa: SLF001 -- as above
        for name in ("func", "afunc"):  # a copy would go on calling the original's
            if getattr(node, name) == getattr(node, f"_{name}"):
                setattr(made, name, getattr(made, f"_{name}"))
        return made

    # One call.

    def _turn_at(self, request: Any) -> ToolTurn | None:
        config = config_of(request)
        run = self._run(config)
        return None if run is None else self._turn(run, asked_of(request), config, direct=is_direct(request))

    def _turn(self, run: Run, asked: Mapping[str, Any], config: Mapping[str, Any], *, direct: bool) -> ToolTurn | None:
        return None if _is_asked_for(run, asked) else ToolTurn(self._handler, run, asked, config, direct=direct)

    def _run(self, config: Mapping[str, Any]) -> Run | None:
        run = current_run()
        if run is None:
            run = self._tracker.run_around(getattr(config.get("callbacks"), "parent_run_id", None))
        return run if run is not None and is_of(run, self._guard) else None


def _asked(tool: BaseTool, tool_input: object, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": tool.name, "args": tool_input, "id": kwargs.get("tool_call_id")}


def _config(args: tuple[object, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    callbacks = kwargs.get("callbacks", args[_CALLBACKS_AT] if len(args) > _CALLBACKS_AT else None)
    return {"callbacks": callbacks, "metadata": kwargs.get("metadata")}


def _in_time(run: Run, work: Callable[[], Any]) -> Any:
    """Where time is limited, in a thread of ours: in one of a pool's a tool that hangs would keep up its process."""
    try:
        return call_in_time(run, work, copy_context())
    except Abandoned as late:
        raise stop_for(run, late.stop) from None


def _is_asked_for(run: Run, asked: Mapping[str, Any]) -> bool:
    """Whether another wrapper around this very call has asked for it, and the tool has not begun yet."""
    outer = tool_drive.get()
    if outer is None or outer.run is not run or outer.attempts or outer.call.name != asked["name"]:
        return False
    return asked["id"] is None or asked["id"] == outer.call.id


def _told(turn: ToolTurn, kwargs: Mapping[str, Any], result: Any) -> Any:
    """What a tool's caller gets: a message where it has told the call's id, else what the message would say."""
    if isinstance(result, ToolMessage) and kwargs.get("tool_call_id") is None:
        return result.content
    if isinstance(result, str) and turn.hint is not None:
        return f"{result}\n\n{turn.hint}"
    return result


def _with(executor: Any, **parts: Any) -> Any:
    """A copy with other parts; the very same where they are the same."""
    same = all(_same(getattr(executor, name), part) for name, part in parts.items())
    return executor if same else executor.model_copy(update=parts)


def _same(old: object, new: object) -> bool:
    if not isinstance(old, list) or not isinstance(new, list):
        return old is new
    olds, news = cast("list[object]", old), cast("list[object]", new)
    return len(olds) == len(news) and all(one is other for one, other in zip(olds, news, strict=True))


def _is(executor: object, name: str, *modules: str) -> bool:
    """Whether it is of a class that one of these modules has; who has such an executor has loaded its module."""
    for module in modules:
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type) and isinstance(executor, found):
            return True
    return False
