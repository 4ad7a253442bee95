"""A person in the loop: LangGraph's interrupts pass through every layer, are no failure, and are answered later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

import rr_history
import rr_lc
import rr_reviews
from rr_far import FarStore
from rr_lc import Starts, Text, ToolCalls, ToolUse
from runrails import Guard, Limits, Outcome
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, guard_tools

CENT = 10**10
MODES = ("invoke", "stream", "ainvoke", "astream", "astream_events")
THREAD: Any = {"configurable": {"thread_id": "one"}}
ONE_BY_ONE: Any = {**THREAD, "max_concurrency": 1}
ASK: Any = {"messages": [HumanMessage("go")]}
QUESTIONS = 8


def spent(guard: Guard) -> tuple[int, int]:
    """What the guard's user has spent and holds."""
    found = guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock())))
    return found.spent, found.held


def flat(script: Any) -> ScriptedChatModel:
    """A model at one cent a call."""
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)


def asking(questions: int = QUESTIONS) -> ScriptedChatModel:
    """A model that asks for the same approval again and again, then is done."""

    def script(messages: Sequence[BaseMessage]) -> Any:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        if turn == questions:
            return Text("done")
        return ToolCalls([ToolUse("approve", {"text": "x"}, id=f"a{turn}")], text="May I?")

    return flat(script)


@tool
def approve(text: str) -> str:
    """Ask a person."""
    return f"said {interrupt('may I?')}"


def asks_inside(_: Any) -> Any:
    """A tool that calls an agent which asks."""
    inner = rr_reviews.loop(asking(1), rr_reviews.by_hand([approve])).compile()

    @tool("approve")
    def delegate(text: str) -> str:
        """Ask an agent that asks a person."""
        return str(inner.invoke(ASK)["messages"][-2].text)

    return delegate


def in_agent(guard: Guard, tools: Any) -> Any:
    """LangChain's agent."""
    return create_agent(asking(), tools, checkpointer=InMemorySaver())


def in_agent_with_middleware(guard: Guard, tools: Any) -> Any:
    """With the middleware inside."""
    return create_agent(asking(), tools, middleware=[GuardrailMiddleware(guard)], checkpointer=InMemorySaver())


def in_nodes(guard: Guard, tools: Any) -> Any:
    """Nodes of one's own round tools that ask the guard."""
    return rr_reviews.loop(asking(), rr_reviews.by_hand(guard_tools(guard, tools))).compile(
        checkpointer=InMemorySaver()
    )


def drive(mode: str, guard: Guard, agent: Any, inputs: Any) -> Outcome:
    """Supervise one call in one of the modes."""
    supervisor = guard.supervise(agent)
    if mode == "invoke":
        return supervisor.invoke(inputs, THREAD)
    if mode == "stream":
        stream = supervisor.stream(inputs, THREAD)
        for _ in stream:
            pass
        return stream.outcome
    return asyncio.run(_adrive(mode, supervisor, inputs))


async def _adrive(mode: str, supervisor: Any, inputs: Any) -> Outcome:
    if mode == "ainvoke":
        return await supervisor.ainvoke(inputs, THREAD)
    events = mode == "astream_events"
    stream = supervisor.astream_events(inputs, THREAD, version="v2") if events else supervisor.astream(inputs, THREAD)
    async for _ in stream:
        pass
    return stream.outcome


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [in_agent, in_agent_with_middleware, in_nodes])
@pytest.mark.parametrize("far", [False, True])
def test_an_interrupt_is_no_stop_and_no_failure(far: bool, make: Any, mode: str) -> None:
    """Eight times the same question: no hint, no stop, no hold; the answer comes in another call on the thread."""
    store = FarStore() if far else None
    with rr_lc.make_guard(**({"store": store} if store else {})) as guard:
        agent = make(guard, [approve])
        outcome = drive(mode, guard, agent, ASK)
        for number in range(QUESTIONS):
            assert (None, False, 0, 0) == (
                outcome.stop_reason, outcome.abandoned, outcome.report.hints, outcome.report.refusals,
            )  # fmt: skip
            state = agent.get_state(THREAD)
            assert ["may I?"] == [one.value for task in state.tasks for one in task.interrupts]
            assert ((number + 1) * CENT, 0) == spent(guard)
            outcome = drive(mode, guard, agent, Command(resume=f"answer {number}"))

        assert ("done", None) == (outcome.answer, outcome.stop_reason)
        messages = agent.get_state(THREAD).values["messages"]
        assert [f"said answer {n}" for n in range(QUESTIONS)] == [
            message.text for message in messages if isinstance(message, ToolMessage)
        ]
        assert [] == rr_history.problems(messages)
        assert ((QUESTIONS + 1) * CENT, 0) == spent(guard)
        assert store is None or store.on_loop == []


@pytest.mark.parametrize("layer", ["supervisor", "callback", "boundary"])
def test_an_interrupt_in_an_agent_that_a_tool_calls_passes_through(layer: str) -> None:
    """Two boundaries of LangGraph and ours between; the question arrives, and so does its answer."""
    with rr_lc.make_guard() as guard:
        agent: Any = create_agent(asking(1), [asks_inside(None)], checkpointer=InMemorySaver())

        def call(inputs: Any) -> Any:
            if layer == "supervisor":
                return guard.supervise(agent).invoke(inputs, THREAD).value
            if layer == "callback":
                return agent.invoke(inputs, {**THREAD, "callbacks": [GuardrailCallbackHandler(guard)]})
            with guard.run():
                return agent.invoke(inputs, THREAD)

        assert "may I?" == call(ASK)["__interrupt__"][0].value
        assert (2 * CENT, 0) == spent(guard)
        state = call(Command(resume="yes"))
        assert ("done", "said yes") == (state["messages"][-1].text, state["messages"][-2].text)
        assert (4 * CENT, 0) == spent(guard)


def test_a_supervised_person_in_the_loop_may_reject_a_call() -> None:
    """HumanInTheLoopMiddleware between two layers of ours; nothing was executed, nothing failed."""
    starts = Starts()

    def script(messages: Sequence[BaseMessage]) -> Any:
        if isinstance(messages[-1], ToolMessage):
            return Text("Understood.")
        return ToolCalls([ToolUse("classify", {"text": "x"})], text="Go.")

    with rr_lc.make_guard() as guard:
        agent = create_agent(
            flat(script), [rr_lc.fails_softly(starts)],
            middleware=[GuardrailMiddleware(guard), HumanInTheLoopMiddleware(interrupt_on={"classify": True})],
            checkpointer=InMemorySaver(),
        )  # fmt: skip
        supervisor = guard.supervise(agent)
        assert "__interrupt__" in supervisor.invoke(ASK, THREAD).value  # type: ignore[operator]
        outcome = supervisor.invoke(Command(resume={"decisions": [{"type": "reject", "message": "no"}]}), THREAD)
        assert ("Understood.", None, 0) == (outcome.answer, outcome.stop_reason, outcome.report.tool_calls)
        assert ({}, (2 * CENT, 0)) == (dict(starts.executions), spent(guard))


def test_a_stop_after_an_answered_interrupt_goes_on_without_asking_again() -> None:
    """The person has answered, the budget ends the call at the model; resumed, it goes on from there."""
    with rr_lc.make_guard(Limits(steps=2, loops=None)) as guard:
        agent = in_agent(guard, [approve])
        supervisor = guard.supervise(agent)
        supervisor.invoke(ASK, THREAD)
        supervisor.invoke(Command(resume="answer 0"), THREAD)
        stopped = guard.supervise(agent, limits=Limits(steps=1)).invoke(Command(resume="answer 1"), THREAD)
        assert "limit_reached" == stopped.stop_reason
        assert [] == rr_history.problems(agent.get_state(THREAD).values["messages"])

        outcome = supervisor.resume(stopped, limits=Limits(steps=20))
        assert None is outcome.stop_reason
        assert ["may I?"] == [one.value for task in agent.get_state(THREAD).tasks for one in task.interrupts]
        for number in range(2, QUESTIONS):
            outcome = guard.supervise(agent, limits=Limits(steps=20)).invoke(Command(resume=f"answer {number}"), THREAD)
        assert ("done", []) == (outcome.answer, rr_history.problems(agent.get_state(THREAD).values["messages"]))


def test_a_question_beside_a_stop_can_be_answered_all_the_same() -> None:
    """Two calls of an answer: one asks a person, the other may not start any more; neither is lost."""
    starts = Starts()

    @tool
    def other(text: str) -> str:
        """Work."""
        starts.add("other")
        return text

    def script(messages: Sequence[BaseMessage]) -> Any:
        if isinstance(messages[-1], ToolMessage):
            return Text("Finished.")
        return ToolCalls([ToolUse("approve", {"text": "x"}), ToolUse("other", {"text": "y"})], text="Go.")

    agent: Any = create_agent(flat(script), [approve, other], checkpointer=InMemorySaver())
    with rr_lc.make_guard(Limits(tool_calls=1, loops=None)) as guard:
        supervisor = guard.supervise(agent)
        outcome = supervisor.invoke(ASK, ONE_BY_ONE)
        assert ("limit_reached", 1) == (outcome.stop_reason, outcome.report.tool_calls)
        assert "may I?" == outcome.value["__interrupt__"][0].value  # type: ignore[index]

        outcome = supervisor.invoke(Command(resume="yes"), ONE_BY_ONE)
        assert ("Finished.", None) == (outcome.answer, outcome.stop_reason)
        messages = agent.get_state(THREAD).values["messages"]
        assert [] == rr_history.problems(messages)
        said = {message.name: message.text for message in messages if isinstance(message, ToolMessage)}
        assert {"approve", "other"} == set(said)
        assert (2 * CENT, 0) == spent(guard)
