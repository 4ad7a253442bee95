"""A stop that a tool node answers is not lost, and no layer makes an endless loop of it."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy

import rr_history
import rr_lc
from rr_lc import ScriptedChatModel, Text, ToolCalls, ToolUse
from runrails import Guard, GuardrailStopped, Limits
from runrails.errors import BudgetBusy, LimitReached
from runrails.ledger import Account
from runrails_langchain import GuardrailCallbackHandler
from runrails_langchain.stops import answered

ASKED: Any = {"messages": [HumanMessage("Go.")]}
LIMITS = Limits(run="1.00", tool_calls=2, loops=None, steps=None)


class Scene:
    """A model that asks for one tool after another."""

    def __init__(self, *, direct: bool = False, tool_name: str = "look") -> None:
        self.models = 0
        self.executed = 0

        def script(_: Sequence[BaseMessage]) -> Any:
            self.models += 1
            if self.models > rr_lc.CALLS_MAX:
                return Text("I could not do it.")
            return ToolCalls([ToolUse(tool_name, {"what": str(self.models)})])

        @tool(return_direct=direct)
        def look(what: str) -> str:
            """Look something up."""
            self.executed += 1
            return f"found {what}"

        self.look: BaseTool = look
        self.model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)


def graph(scene: Scene, node: Any, **options: Any) -> Any:
    """Model and tools in turn."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [scene.model.invoke(state["messages"])]})
    builder.add_node("tools", node, **options)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda s: "tools" if s["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "model")
    return builder.compile()


def within(guard: Guard, how: str) -> tuple[Any, dict[str, Any]]:
    """Around the call, and the configuration of it."""
    config: dict[str, Any] = {"recursion_limit": 200}
    if how == "with":
        return guard.run(), config
    return nullcontext(), {**config, "callbacks": [GuardrailCallbackHandler(guard)]}


def run_through(how: str, guard: Guard, agent: Any, inputs: Any = ASKED) -> None:
    """To its stop."""
    around, config = within(guard, how)
    with pytest.raises(GuardrailStopped), around:
        agent.invoke(inputs, config)


def only_run(guard: Guard) -> Any:
    """The newest run's record of stops."""
    return next(iter(guard.usage(by="run")))


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_block_raises_a_stop_that_was_only_answered(mode: str) -> None:
    """The last tools' results are the agent's answer, so no model is asked after them."""
    guard = rr_lc.make_guard(LIMITS)
    scene = Scene(direct=True)
    agent = create_agent(scene.model, [scene.look])
    results: list[Any] = []

    async def arun() -> None:
        async with guard.run():
            results.extend([await agent.ainvoke(ASKED) for _ in range(3)])

    def run() -> None:
        with guard.run():
            results.extend([agent.invoke(ASKED) for _ in range(3)])

    with pytest.raises(LimitReached):
        asyncio.run(arun()) if mode == "ainvoke" else run()
    assert 2 == scene.executed
    assert [] == rr_history.problems(results[-1]["messages"])


def test_a_block_whose_error_is_the_users_own_keeps_it() -> None:
    """As before."""
    guard = rr_lc.make_guard(LIMITS)
    scene = Scene(direct=True)
    agent = create_agent(scene.model, [scene.look])
    with pytest.raises(ZeroDivisionError), guard.run():
        for _ in range(3):
            agent.invoke(ASKED)
        raise ZeroDivisionError


def test_a_supervisor_tells_of_such_a_stop() -> None:
    """As an outcome."""
    guard = rr_lc.make_guard(LIMITS)
    scene = Scene(direct=True)
    agent = create_agent(scene.model, [scene.look])

    def thrice(inputs: Any) -> Any:
        return [agent.invoke(inputs) for _ in range(3)][-1]

    outcome = guard.supervise(RunnableLambda(thrice)).invoke(ASKED)
    assert "limit_reached" == outcome.stop_reason
    assert 2 == scene.executed


@pytest.mark.parametrize("how", ["with", "callback"])
def test_a_node_that_repeats_a_stopped_call_for_ever_ends(how: str) -> None:
    """A loop of the user's own, that takes every error for a passing one."""
    guard = rr_lc.make_guard(LIMITS)
    scene = Scene()
    tries = 0

    def node(state: Any) -> Any:
        nonlocal tries
        call = state["messages"][-1].tool_calls[0]
        for _ in range(rr_lc.CALLS_MAX):
            tries += 1
            try:
                return {"messages": [scene.look.invoke(call)]}
            except Exception:  # noqa: S112 -- as users write it
                continue
        return {"messages": [ToolMessage("gave up", tool_call_id=call["id"])]}

    run_through(how, guard, graph(scene, node))
    assert 2 == scene.executed
    if how == "with":  # where nothing swallows a stop the second time
        assert tries <= 12


@pytest.mark.parametrize("how", ["with", "callback"])
@pytest.mark.parametrize(
    "handle",
    [True, False, (ValueError,), "a text", lambda error: f"{type(error).__name__}"],
    ids=["all", "none", "some", "text", "function"],
)
def test_every_way_to_handle_a_tools_errors_ends_at_the_stop(how: str, handle: Any) -> None:
    """Nothing starts after it."""
    guard = rr_lc.make_guard(LIMITS)
    scene = Scene()
    run_through(how, guard, graph(scene, ToolNode([scene.look], handle_tool_errors=handle)))
    assert (2, 3) == (scene.executed, scene.models)


@pytest.mark.parametrize("how", ["with", "callback"])
@pytest.mark.parametrize("layer", ["policy", "middleware", "tool", "with_retry"])
def test_no_retry_layer_starts_a_tool_again_or_waits(how: str, layer: str) -> None:
    """The stop goes through, or is answered once."""
    guard = rr_lc.make_guard(LIMITS)
    scene = Scene()
    if layer == "policy":
        agent = graph(scene, ToolNode([scene.look]), retry_policy=RetryPolicy(max_attempts=5, initial_interval=30))
    elif layer == "middleware":
        retry = ToolRetryMiddleware(max_retries=5, initial_delay=30)
        agent = create_agent(scene.model, [scene.look], middleware=[retry])
    elif layer == "tool":
        scene.look.handle_tool_error = True
        agent = create_agent(scene.model, [scene.look])
    else:
        look = scene.look

        def again(what: str) -> str:
            """Look something up."""
            return str(look.invoke({"what": what}))

        agent = create_agent(scene.model, [tool("look")(again)])
    run_through(how, guard, agent)
    assert scene.executed <= 2


@pytest.mark.parametrize("how", ["with", "callback"])
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_stop_at_a_tool_inside_a_tool_answers_the_outer_call(how: str, mode: str) -> None:
    """The conversation stays whole."""
    guard = rr_lc.make_guard(Limits(run="1.00", tool_calls=5, loops=None, steps=None))
    scene = Scene(tool_name="outer")
    look = scene.look
    histories: list[Sequence[BaseMessage]] = []

    @tool
    def outer(what: str) -> str:
        """Ask another tool twice."""
        return str([look.invoke({"what": what}) for _ in range(3)])

    from langgraph.checkpoint.memory import InMemorySaver

    agent = create_agent(scene.model, [outer], checkpointer=InMemorySaver())
    around, config = within(guard, how)
    config["configurable"] = {"thread_id": "one"}
    with pytest.raises(GuardrailStopped), around:
        agent.invoke(ASKED, config) if mode == "invoke" else asyncio.run(agent.ainvoke(ASKED, config))
    histories.append(agent.get_state({"configurable": {"thread_id": "one"}}).values["messages"])
    assert [] == rr_history.problems(histories[0])


def test_an_answered_stop_can_be_copied_pickled_and_raised_again() -> None:
    """It says the same, and a tool node still finds its message."""
    stop = LimitReached(scope="run:x", unit="tool calls", limit=2, used=2, setting="tool_calls")
    first = answered(stop, "Not executed.")
    makers: list[Callable[[Any], Any]] = [
        copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e)), lambda e: answered(e, "Not executed."),
    ]  # fmt: skip
    for make in makers:
        error = make(first)
        assert isinstance(error, LimitReached)
        assert ("Not executed.", str(stop), stop.fields) == (error.message, str(error), error.fields)
    again = first.again()
    assert (str(stop), stop.fields) == (str(again), again.fields)
    assert getattr(again, "message", None)
    busy = BudgetBusy(scope="run:x", period="-", unit="pusd", limit=1, spent=1, held=1, needed=1, waited_ms=0)
    assert isinstance(answered(busy, "Later."), BudgetBusy)
    assert Account("run:x", "-").unit == "pusd"


@pytest.mark.parametrize("how", ["with", "callback"])
def test_an_answered_refusal_is_heard_by_the_model_and_the_run_goes_on(how: str) -> None:
    """Nothing is stopped, so nothing is raised."""
    guard = rr_lc.make_guard(Limits(run="1.00", loops=None, steps=None))
    scene = Scene()
    around, config = within(guard, how)
    agent = create_agent(
        ScriptedChatModel(
            [ToolCalls([ToolUse("look", {"what": "x"})]), Text("Done.")], model_name="fake-flat", max_tokens=10
        ),
        [scene.look],
    )
    with around:
        last = agent.invoke(ASKED, config)["messages"][-1]
    assert isinstance(last, AIMessage)
    assert "Done." == last.text
