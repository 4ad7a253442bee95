"""After a stop the saved conversation is one that OpenAI and Anthropic accept, and the agent goes on on its thread."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import rr_history
import rr_lc
from rr_lc import MODES, Starts, Text, ToolCalls, ToolUse
from runrails import Guard, GuardrailStopped, Limits
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, attach

THREAD: Any = {"configurable": {"thread_id": "one"}, "recursion_limit": 200}
KINDS: dict[str, tuple[Limits | None, tuple[tuple[str, str], ...]]] = {
    "loop": (None, rr_lc.ONE),
    "parallel loop": (None, rr_lc.THREE),
    "identical parallel loop": (None, rr_lc.ONE * 3),
    "unknown tool": (None, rr_lc.UNKNOWN),
    "money": (Limits(run="0.03", loops=None), rr_lc.ONE),
    "money, parallel": (Limits(run="0.03", loops=None), rr_lc.THREE),
    "steps at the model": (Limits(steps=4, loops=None), rr_lc.ONE),
    "steps at the tool": (Limits(steps=5, loops=None), rr_lc.ONE),
    "steps among parallel tools": (Limits(steps=6, loops=None), rr_lc.THREE),
    "tool calls": (Limits(tool_calls=2, loops=None), rr_lc.ONE),
    "tool calls among parallel ones": (Limits(tool_calls=4, loops=None), rr_lc.THREE),
}
LAYERS = ("callback", "boundary", "middleware", "supervisor", "supervisor+middleware")
EXECUTORS = ("create_agent", "create_react_agent", "StateGraph")
CASES = [
    (executor, layer, kind)
    for executor in EXECUTORS
    for layer in LAYERS
    for kind in KINDS
    if executor == "create_agent" or "middleware" not in layer
]


class Agent:
    """An executor that saves what is said, round a model that asks for tools until it is told otherwise."""

    def __init__(self, executor: str, guard: Guard, layer: str, calls: Sequence[tuple[str, str]]) -> None:
        self.starts = Starts()
        self.over = False

        def script(_: Sequence[BaseMessage]) -> Any:
            self.starts.add("model")
            if self.over or self.starts.models > rr_lc.CALLS_MAX:
                return Text("Here I am again.")
            return ToolCalls([ToolUse(name, {"text": text}) for name, text in calls], text="Again.")

        model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)
        tools = [rr_lc.fails_softly(self.starts)]
        saver = InMemorySaver()
        self.graph: Any
        if executor == "create_agent":
            ours = [GuardrailMiddleware(guard)] if "middleware" in layer else []
            self.graph = create_agent(model, tools, middleware=ours, checkpointer=saver)
        elif executor == "create_react_agent":
            self.graph = rr_lc._react(model, tools)
            self.graph.checkpointer = saver
        else:
            self.graph = _graph(model.bind_tools(tools), tools, saver)

    @property
    def saved(self) -> list[BaseMessage]:
        """The conversation as the checkpointer has it."""
        return list(self.graph.get_state(THREAD).values["messages"])


def _graph(model: Any, tools: Sequence[Any], saver: InMemorySaver) -> Any:
    def ask(state: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def aask(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", RunnableLambda(ask, aask))
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def say(text: str, mode: str, guard: Guard, layer: str, graph: Any) -> None:
    """One question on the thread, through the layer. Where the stop is an exception, it is the user's to catch."""
    asked = {"messages": [HumanMessage(text)]}
    config = {**THREAD, "callbacks": [GuardrailCallbackHandler(guard)]} if "callback" in layer else THREAD
    target: Any = guard.supervise(graph) if "supervisor" in layer else graph
    with contextlib.suppress(GuardrailStopped), guard.run() if layer == "boundary" else contextlib.nullcontext():
        rr_lc.drive(mode, target, asked, config)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("executor", "layer", "kind"), CASES, ids=["-".join(case) for case in CASES])
def test_the_saved_conversation_is_whole_and_goes_on(executor: str, layer: str, kind: str, mode: str) -> None:
    """Whole after the stop, and after the next question on the same thread, which is answered."""
    attach()
    limits, calls = KINDS[kind]
    with rr_lc.make_guard(limits) as guard:
        agent = Agent(executor, guard, layer, calls)
        say("Classify the reviews.", mode, guard, layer, agent.graph)
        assert agent.starts.models < 10
        assert [] == rr_history.problems(agent.saved)

        agent.over = True
        say("And now?", mode, guard, layer, agent.graph)
        assert [] == rr_history.problems(agent.saved)
        assert "Here I am again." == agent.saved[-1].text
