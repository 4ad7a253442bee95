"""Agents that are asked inside a tool: those side by side are counted apart, those one after the other together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool

import rr_lc
from rr_lc import Starts, Text, ToolCalls, ToolUse
from runrails import Guard, LoopDetected
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware

SIDES = 4
GIVES_UP = 30
Ask = Callable[[str], object]
Script = Callable[[Sequence[BaseMessage]], Any]


def question_of(messages: Sequence[BaseMessage]) -> str:
    return next(str(message.content) for message in messages if message.type == "human")


def stubborn_about_its_question(messages: Sequence[BaseMessage]) -> Any:
    """What a model says that asks for one and the same thing, whatever it is asked."""
    turn = sum(message.type == "tool" for message in messages)
    return Text("No.") if turn >= GIVES_UP else ToolCalls([ToolUse("classify", {"text": question_of(messages)})])


def model(script: Script) -> ScriptedChatModel:
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=50)


def in_step(starts: Starts) -> BaseTool:
    """
    A tool that answers when every agent has asked, or when those that are left ask no more. Before the first answer
    all of them ask, however long a busy machine takes until they do.
    """
    turn = threading.Barrier(SIDES)

    @tool
    def classify(text: str) -> str:
        """Classify a review."""
        starts.add(f"classify {text}")
        with contextlib.suppress(threading.BrokenBarrierError):
            turn.wait(60 if starts.executions[f"classify {text}"] == 1 else 2)
        return "no result"

    return classify


def graph(node: BaseTool, script: Script) -> Ask:
    agent = create_agent(model(script), [node])
    return lambda text: agent.invoke({"messages": [HumanMessage(text)]})


def chained(node: BaseTool, script: Script) -> Ask:
    """A graph inside another chain."""
    agent = RunnableLambda(lambda text: {"messages": [HumanMessage(text)]}) | create_agent(model(script), [node])
    return agent.invoke


def classic(node: BaseTool, script: Script) -> Ask:
    agent = rr_lc.executor(model(script).bind_tools([node]), [node])
    return lambda text: agent.invoke({"input": text})


def loop(node: BaseTool, script: Script) -> Ask:
    """A loop of one's own."""
    asked = model(script).bind_tools([node])

    def ask(text: str) -> object:
        said: list[BaseMessage] = [HumanMessage(text)]
        while True:
            answer = asked.invoke(said)
            if not answer.tool_calls:
                return answer
            results = [node.invoke({**call, "type": "tool_call"}) for call in answer.tool_calls]
            said += [answer, *results]

    return ask


def broken_off(node: BaseTool, script: Script) -> Ask:
    """A loop of one's own that never shows its model what its tools have answered."""
    asked = model(script).bind_tools([node])

    def ask(text: str) -> object:
        answer = asked.invoke([HumanMessage(text)])
        return [node.invoke({**call, "type": "tool_call"}) for call in answer.tool_calls]

    return ask


AGENTS = {"graph": graph, "chained": chained, "classic": classic}
KINDS = AGENTS | {"loop": loop}


def delegating(guard: Guard, ask: Ask, layer: str) -> Any:
    """An agent with a tool that asks four others at once."""

    @tool
    def delegate(text: str) -> str:
        """Ask four agents."""
        with ThreadPoolExecutor(SIDES) as pool:
            return str(list(pool.map(guard.bind(ask), [f"{text} {n}" for n in range(SIDES)])))

    def outer(messages: Sequence[BaseMessage]) -> Any:
        return Text("Done.") if messages[-1].type == "tool" else ToolCalls([ToolUse("delegate", {"text": "item"})])

    asking = ScriptedChatModel(outer, model_name="fake-flat", max_tokens=50)
    return create_agent(asking, [delegate], middleware=[GuardrailMiddleware(guard)] if layer == "middleware" else [])


@pytest.mark.parametrize("alike", [False, True], ids=["ids of their own", "the same ids"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["with", "callback", "middleware"])
def test_agents_side_by_side_in_one_tool_have_counts_of_their_own(layer: str, kind: str, alike: bool) -> None:
    """What is new to one is no news for the others: each may make its failing call five times, not twenty."""
    starts, recorder = Starts(), rr_lc.Recorder()
    with rr_lc.make_guard(sinks=[recorder]) as guard:
        node = in_step(starts)
        make = partial(KINDS[kind], node, stubborn_about_its_question)
        one = make()  # A model numbers its calls; each agent's own model numbers them alike.

        def anew(text: str) -> object:
            return make()(text)

        agent = delegating(guard, anew if alike else one, layer)
        asked = {"messages": [HumanMessage("Go.")]}
        if layer == "with":
            with pytest.raises(LoopDetected), guard.run() as run:
                agent.invoke(asked)
        elif layer == "callback":
            handler = GuardrailCallbackHandler(guard)
            with pytest.raises(LoopDetected):
                agent.invoke(asked, {"callbacks": [handler]})
            run = handler.runs[0]
        else:
            with guard.run() as run:
                agent.invoke(asked)
            assert "loop_detected" == run.stop_reason

    assert "adapter_failed" not in recorder.names()
    assert SIDES == len(starts.executions)
    assert max(starts.executions.values()) <= 5
    agents = {row.agent for row in run.report().rows if row.name == "classify"}
    assert SIDES == len(agents)
    assert all(name.startswith("delegate#") for name in agents)


@pytest.mark.parametrize("kind", [*KINDS, "broken_off"])
@pytest.mark.parametrize("reworded", [False, True])
def test_agents_asked_again_and_again_in_one_tool_are_one_loop(kind: str, reworded: bool) -> None:
    """A tool that asks until something works repeats what its agents repeat, whatever it asks them."""
    starts = Starts()

    def gives_up(messages: Sequence[BaseMessage]) -> Any:
        turn = sum(message.type == "tool" for message in messages)
        return Text("No.") if turn >= 1 else ToolCalls([ToolUse("classify", {"text": "a"})])

    ask = (KINDS | {"broken_off": broken_off})[kind](rr_lc.fails_softly(starts), gives_up)

    @tool
    def delegate(text: str) -> str:
        """Ask an agent until it knows."""
        for attempt in range(GIVES_UP):
            ask(f"Attempt {attempt}" if reworded else "Go")
        return text

    with rr_lc.make_guard() as guard, pytest.raises(LoopDetected), guard.run():
        delegate.invoke({"text": "x"})

    assert {"classify a": 5} == starts.executions


@pytest.mark.parametrize("kind", KINDS)
def test_samples_side_by_side_that_look_up_the_same_are_healthy(kind: str) -> None:
    """Twelve agents in one tool that each begin with the same look-up, which finds nothing, four at a time."""
    starts = Starts()

    def once(messages: Sequence[BaseMessage]) -> Any:
        asked = question_of(messages)
        return Text(f"Answer to {asked}.") if messages[-1].type == "tool" else ToolCalls(
            [ToolUse("classify", {"text": "policy"}), ToolUse("classify", {"text": asked})]
        )  # fmt: skip

    @tool
    def classify(text: str) -> str:
        """Classify a review."""
        starts.add(f"classify {text}")
        return "no result" if text == "policy" else f"{text} is fine"

    ask = KINDS[kind](classify, once)

    @tool
    def delegate(text: str) -> str:
        """Ask four agents."""
        with ThreadPoolExecutor(SIDES) as pool:
            list(pool.map(guard.bind(ask), [f"{text} {n}" for n in range(SIDES)]))
        return text

    with rr_lc.make_guard() as guard, guard.run() as run:
        delegate.invoke({"text": "item"})

    assert (2 * SIDES, None) == (sum(starts.executions.values()), run.stopped)


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("graph_around", [False, True])
def test_agents_one_after_the_other_that_learn_something_are_healthy(kind: str, graph_around: bool) -> None:
    """Twenty agents in one tool that each look for the same file, which is not there, and then read their own."""
    starts = Starts()

    def once(messages: Sequence[BaseMessage]) -> Any:
        asked = question_of(messages)
        turn = sum(message.type == "tool" for message in messages)
        return Text("Done.") if turn == 2 else ToolCalls([ToolUse("classify", {"text": asked if turn else "policy"})])

    @tool
    def classify(text: str) -> str:
        """Classify a review."""
        starts.add(f"classify {text}")
        return "no result" if text == "policy" else f"{text} is fine"

    ask = KINDS[kind](classify, once)

    @tool
    def delegate(text: str) -> str:
        """Ask an agent about each item."""
        for item in range(20):
            ask(f"item {item}")
        return text

    def outer(messages: Sequence[BaseMessage]) -> Any:
        return Text("Done.") if messages[-1].type == "tool" else ToolCalls([ToolUse("delegate", {"text": "x"})])

    with rr_lc.make_guard() as guard, guard.run() as run:
        if graph_around:
            create_agent(model(outer), [delegate]).invoke({"messages": [HumanMessage("Go.")]})
        else:
            delegate.invoke({"text": "x"})

    assert (40, None) == (sum(starts.executions.values()), run.stopped)
