"""The same where the stop comes inside a tool: in an agent that it runs, or at a wrapped client that it calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import openai
import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver

import rr_history
import rr_lc
from rr_clients import HI, MODEL, World
from rr_lc import MODES, ScriptedChatModel, Starts, Text, ToolCalls, ToolUse
from runrails import Guard, GuardrailStopped, Limits
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, attach

THREAD: Any = {"configurable": {"thread_id": "one"}, "recursion_limit": 200}
LIMITS = {
    "money": Limits(run="0.05", loops=None),
    "steps at the model": Limits(steps=9, loops=None),
    "steps at the tool": Limits(steps=8, loops=None),
    "tool calls": Limits(tool_calls=5, loops=None),
    "loop": Limits(),
}
LAYERS = ("callback", "boundary", "middleware", "supervisor")
INNER: Any = {"configurable": {"thread_id": "inner"}, "recursion_limit": 200}
"""A thread of its own: LangGraph would have the inner agent go on the outer one's."""


class Outer:
    """An agent whose tool hands the work to somebody else, and asks again and again."""

    def __init__(self, executor: str, guard: Guard, layer: str, delegate: Callable[[str], object], uses: int) -> None:
        self.models = 0
        self.over = False

        def script(_: Any) -> Any:
            self.models += 1
            if self.over or self.models > rr_lc.CALLS_MAX:
                return Text("Here I am again.")
            return ToolCalls([ToolUse("hand_over", {"text": f"part {n}"}) for n in range(uses)], text="Again.")

        @tool
        def hand_over(text: str) -> str:
            """Hand a part of the work over."""
            return str(delegate(text))

        model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)
        tools: list[BaseTool] = [hand_over]
        ours = [GuardrailMiddleware(guard)] if layer == "middleware" else []
        self.graph: Any
        if executor == "create_agent":
            self.graph = create_agent(model, tools, middleware=ours, checkpointer=InMemorySaver())
        else:
            self.graph = rr_lc._react(model, tools)
            self.graph.checkpointer = InMemorySaver()

    @property
    def saved(self) -> list[BaseMessage]:
        """The conversation as the checkpointer has it."""
        return list(self.graph.get_state(THREAD).values["messages"])


def say(text: str, mode: str, guard: Guard, layer: str, graph: Any) -> None:
    """One question on the thread, through the layer. Where the stop is an exception, it is the user's to catch."""
    asked = {"messages": [HumanMessage(text)]}
    config = {**THREAD, "callbacks": [GuardrailCallbackHandler(guard)]} if layer == "callback" else THREAD
    target: Any = guard.supervise(graph) if layer == "supervisor" else graph
    with contextlib.suppress(GuardrailStopped), guard.run() if layer == "boundary" else contextlib.nullcontext():
        rr_lc.drive(mode, target, asked, config)


def check(outer: Outer, guard: Guard, layer: str, mode: str) -> None:
    """Stop it, then go on."""
    say("Do the work.", mode, guard, layer, outer.graph)
    assert outer.models < 15
    assert [] == rr_history.problems(outer.saved)

    outer.over = True
    say("And now?", mode, guard, layer, outer.graph)
    assert [] == rr_history.problems(outer.saved)
    assert "Here I am again." == outer.saved[-1].text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("uses", [1, 2])
def test_a_stop_in_an_agent_inside_a_tool_leaves_the_conversation_whole(
    uses: int, layer: str, kind: str, mode: str
) -> None:
    """Whole after the stop, and after the next question on the same thread, which is answered."""
    attach()
    with rr_lc.make_guard(LIMITS[kind]) as guard:
        starts = Starts()

        def delegate(text: str) -> object:
            inner: Any = create_agent(rr_lc.stubborn(starts, ("classify", text)), [rr_lc.fails_softly(starts)])
            return inner.invoke({"messages": [HumanMessage(text)]}, INNER)["messages"][-1].text

        check(Outer("create_agent", guard, layer, delegate, uses), guard, layer, mode)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "astream"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("executor", ["create_agent", "create_react_agent"])
def test_a_stop_at_a_wrapped_client_inside_a_tool_leaves_the_conversation_whole(
    executor: str, layer: str, mode: str
) -> None:
    """The client knows nothing of the framework above it, and raises the public stop there."""
    if executor == "create_react_agent" and layer == "middleware":
        layer = "callback"
    attach()
    with World(limits=Limits(run="0.10", steps=None, loops=None)) as world:
        client = world.guard.wrap(openai.OpenAI(base_url=world.provider.openai_url, api_key="k", max_retries=0))

        def delegate(_: str) -> object:
            answer: Any = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=2_000)
            return answer.choices[0].message.content

        with client:
            check(Outer(executor, world.guard, layer, delegate, 1), world.guard, layer, mode)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "astream", "abatch"])
def test_a_wrapped_client_inside_a_tool_draws_on_the_run_that_the_callback_has_opened(mode: str) -> None:
    """One budget holds both, and one report tells of both; outside of it the client has a run of its own."""
    attach()
    with World(limits=Limits(run="1.00", steps=12)) as world:
        client = world.guard.wrap(openai.OpenAI(base_url=world.provider.openai_url, api_key="k", max_retries=0))
        handler = GuardrailCallbackHandler(world.guard)

        def delegate(text: str) -> object:
            answer: Any = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
            return f"{answer.choices[0].message.content} {outer.models}"

        with client:
            outer = Outer("create_agent", world.guard, "callback", delegate, 2)
            outer.graph.checkpointer = None
            asked = {"messages": [HumanMessage("Do the work.")]}
            with contextlib.suppress(GuardrailStopped):
                rr_lc.drive(mode, outer.graph, asked, {"callbacks": [handler], "recursion_limit": 100})
            client.chat.completions.create(model=MODEL, messages=HI, max_tokens=10)

        calls = [row.calls for row in world.guard.usage(by="run")]
        assert [1, outer.models + len(world.provider.bill) - 1] == sorted(calls)
