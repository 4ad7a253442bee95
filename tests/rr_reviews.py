"""The founding agent as LangChain executors: six reviews, one of which the classifier has no answer for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolNode

import rr_lc
from rr_lc import Starts
from runrails import Guard
from runrails.loops.explain import MARK
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider.values import Answer, Text, ToolCalls, ToolUse
from runrails_langchain import guard_tools

REVIEWS = ("late", "charged twice", "pękła", "lovely", "quick support", "broke")
BAD = REVIEWS[2]


class Desk:
    """What the agent has done."""

    def __init__(self) -> None:
        self.starts = Starts()
        self.topics: dict[str, str] = {}

    def tools(self) -> list[BaseTool]:
        """Classify a review; record one that could not be classified."""

        @tool
        def classify(review: str) -> str:
            """Classify a review."""
            self.starts.add(f"classify {review}")
            if review == BAD:
                return "no result"
            self.topics[review] = "ok"
            return "topic: ok"

        @tool
        def record(review: str) -> str:
            """Record a review as unclassified."""
            self.starts.add(f"record {review}")
            self.topics[review] = "unclassified"
            return "recorded"

        return [classify, record]

    def model(self) -> ScriptedChatModel:
        """An agent that tries again for as long as a result is empty, and records what it is told to take as final."""

        def answer(messages: Sequence[BaseMessage]) -> Answer:
            self.starts.add("model")
            last = messages[-1]
            number, blocked = 0, False
            if isinstance(last, ToolMessage):
                kind, at, _ = last.tool_call_id.split("_")
                blocked = last.text.startswith(MARK)
                retry = kind == "c" and "no result" in last.text
                number = int(at) + (0 if retry or blocked else 1)
            if number == len(REVIEWS):
                return Text("The reviews are classified.")
            step = self.starts.models
            if blocked:
                return ToolCalls(
                    [ToolUse("record", {"review": REVIEWS[number]}, id=f"r_{number}_{step}")], text="Noted."
                )
            use = ToolUse("classify", {"review": REVIEWS[number]}, id=f"c_{number}_{step}")
            return ToolCalls([use], text=f"Attempt {step}.")

        return ScriptedChatModel(answer, model_name="fake-flat", max_tokens=100)


def loop(model: Any, tools: Any) -> Any:
    """A graph of one's own: a model and what executes its tools."""
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import tools_condition

    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", tools)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph


def by_hand(tools: Sequence[BaseTool]) -> Any:
    """A node that calls the tools itself."""
    by_name = {each.name: each for each in tools}

    def call(state: Any) -> dict[str, Any]:
        return {"messages": [by_name[call["name"]].invoke(call) for call in state["messages"][-1].tool_calls]}

    return call


def create_agent(desk: Desk, guard: Guard) -> Any:
    """LangChain's agent."""
    from langchain.agents import create_agent as create

    return create(desk.model(), desk.tools())


def create_react_agent(desk: Desk, guard: Guard) -> Any:
    """LangGraph's older one."""
    return rr_lc._react(desk.model(), desk.tools())


def own_graph(desk: Desk, guard: Guard) -> Any:
    """A graph with a tool node."""
    return loop(desk.model(), ToolNode(desk.tools())).compile()


def own_graph_picky(desk: Desk, guard: Guard) -> Any:
    """One whose tool node handles errors of one kind its own way."""

    def handle(error: ValueError) -> str:
        return str(error)

    return loop(desk.model(), ToolNode(desk.tools(), handle_tool_errors=handle)).compile()


def subgraph(desk: Desk, guard: Guard) -> Any:
    """An agent that is a node of a graph, in a sequence."""
    from langgraph.graph import START, MessagesState, StateGraph

    graph: Any = StateGraph(MessagesState)
    graph.add_node("agent", create_agent(desk, guard))
    graph.add_edge(START, "agent")
    return graph.compile() | RunnableLambda(lambda state: state)


def bound(desk: Desk, guard: Guard) -> Any:
    """An agent with something around it."""
    return create_agent(desk, guard).with_retry(stop_after_attempt=2).with_config({"tags": ["x"]})


def own_nodes(desk: Desk, guard: Guard) -> Any:
    """A node that calls tools itself, which are ones that ask the guard."""
    return loop(desk.model(), by_hand(guard_tools(guard, desk.tools()))).compile()


def agent_executor(desk: Desk, guard: Guard) -> Any:
    """The classic AgentExecutor."""
    tools = desk.tools()
    return rr_lc.executor(desk.model().bind_tools(tools), tools)


def agent_executor_guarded(desk: Desk, guard: Guard) -> Any:
    """One with tools that ask the guard already."""
    tools = guard_tools(guard, desk.tools())
    return rr_lc.executor(desk.model().bind_tools(tools), tools)


EXECUTORS = (
    create_agent, create_react_agent, own_graph, own_graph_picky, subgraph, bound, own_nodes, agent_executor,
    agent_executor_guarded,
)  # fmt: skip


def expected_topics() -> dict[str, str]:
    """Every review has a topic, and the bad one is recorded as unclassified."""
    return {review: "unclassified" if review == BAD else "ok" for review in REVIEWS}


def question() -> dict[str, Any]:
    """The task."""
    return {"messages": [("user", "Classify the reviews.")]}
