"""A run that a budget or a loop has stopped ends with an answer: one tool-less turn, from money kept back for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

import rr_history
import rr_lc
from rr_lc import MODES, Recorder, ScriptedChatModel, Starts, Text, ToolCalls, ToolUse
from runrails import Guard, Limits
from runrails.ledger import Account
from runrails.money import usd
from runrails.pricing.spec import Price
from runrails_langchain import GuardrailMiddleware

STORY = {"story": Price(call="3.20", output_tokens_max=4_096, context_tokens_max=128_000)}
"""The founding story's flat price."""
ANSWER = "Two of the three reviews are good."
ASKED: Any = {"messages": [HumanMessage("Classify the reviews.")]}


class Agent:
    """A model that looks one thing after another up and never finishes, until it is told to."""

    def __init__(self, model_name: str, *, last: object = None, same: bool = False) -> None:
        self.prompts: list[Sequence[BaseMessage]] = []
        self.tool_calls = 0

        def script(messages: Sequence[BaseMessage]) -> Any:
            self.prompts.append(messages)
            if len(messages) == 1 and "had to end" in messages[0].text:
                return last or Text(ANSWER)
            if len(self.prompts) > rr_lc.CALLS_MAX:
                return Text("I could not do it.")
            return ToolCalls([ToolUse("look", {"what": "a" if same else str(len(self.prompts))})])

        @tool
        def look(what: str) -> str:
            """Look something up."""
            self.tool_calls += 1
            return "no result" if same else f"found {what}"

        self.tools = [look]
        self.model = ScriptedChatModel(script, model_name=model_name, max_tokens=1_000)

    def agent(self, guard: Guard, **options: Any) -> Any:
        """With the middleware."""
        return create_agent(self.model, self.tools, middleware=[GuardrailMiddleware(guard)], **options)


def run_through(mode: str, agent: Any) -> None:
    """To its end."""
    rr_lc.drive(mode, agent, ASKED, {"recursion_limit": 200, "configurable": {"thread_id": "one"}})


@pytest.mark.parametrize("mode", MODES)
def test_ten_dollars_at_three_twenty_a_call_are_three_calls_the_answer_included(mode: str) -> None:
    """The loop detector is off; $9.60 are spent, and the user has an answer and the reason."""
    guard = rr_lc.make_guard(Limits(run="10.00", loops=None, steps=None, wrap_up=True), prices=STORY)
    story = Agent("story")
    agent = story.agent(guard, checkpointer=InMemorySaver())
    run_through(mode, agent)

    assert 3 == len(story.prompts)
    messages = agent.get_state({"configurable": {"thread_id": "one"}}).values["messages"]
    last = messages[-1]
    assert last.text.startswith(ANSWER)
    assert "budget_exceeded" == last.response_metadata["runrails_stop_reason"]
    assert last.response_metadata["runrails_wrapped_up"]
    assert [] == rr_history.problems(messages)
    assert usd("9.60") == sum(row.cost_pusd for row in guard.usage(by="run"))
    assert "found 2" in story.prompts[-1][0].text


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "astream"])
def test_a_loop_ends_with_an_answer_as_well(mode: str) -> None:
    """The model is told what came of its attempts, each once."""
    guard = rr_lc.make_guard(Limits(run="5.00", wrap_up=True))
    loop = Agent("fake-flat", same=True)
    agent = loop.agent(guard, checkpointer=InMemorySaver())
    run_through(mode, agent)

    last = agent.get_state({"configurable": {"thread_id": "one"}}).values["messages"][-1]
    assert last.text.startswith(ANSWER)
    assert "loop_detected" == last.response_metadata["runrails_stop_reason"]
    assert loop.tool_calls <= 5
    assert 1 == loop.prompts[-1][0].text.count("no result (")


def test_what_was_kept_back_is_given_back() -> None:
    """By a run that needs no last turn; nobody holds anything afterwards, and nothing is charged for it."""
    guard = rr_lc.make_guard(Limits(run="5.00", month="20.00", wrap_up=True))
    sure = Agent("fake-flat")
    held: list[int] = []
    month = Account(f"user:{guard.user}", guard_month(guard))

    def script(_: Sequence[BaseMessage]) -> Any:
        held.append(guard.store.balance(month).held)
        return Text("Done.")

    sure.model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)
    sure.agent(guard).invoke(ASKED)

    balance = guard.store.balance(month)
    assert usd("0.01") < held[0]
    assert (0, usd("0.01")) == (balance.held, balance.spent)
    assert 1 == sum(row.calls for row in guard.usage(by="run"))


def guard_month(guard: Guard) -> str:
    """The period that calls are charged to now."""
    from runrails.periods import month_of

    return month_of(guard.clock())


def test_without_wrap_up_the_whole_budget_is_for_the_work() -> None:
    """Three calls of work, and an explanation that nobody paid for."""
    guard = rr_lc.make_guard(Limits(run="10.00", loops=None, steps=None), prices=STORY)
    story = Agent("story")
    result = story.agent(guard).invoke(ASKED)

    assert 3 == len(story.prompts)
    assert not any("had to end" in prompt[0].text for prompt in story.prompts)
    assert not result["messages"][-1].response_metadata["runrails_wrapped_up"]


def test_a_budget_too_small_for_a_last_turn_keeps_nothing_back() -> None:
    """$4 buy one call of work at $3.20, not one of wrapping up."""
    guard = rr_lc.make_guard(Limits(run="4.00", loops=None, steps=None, wrap_up=True), prices=STORY)
    story = Agent("story")
    result = story.agent(guard).invoke(ASKED)

    assert 1 == len(story.prompts)
    assert not result["messages"][-1].response_metadata["runrails_wrapped_up"]


@pytest.mark.parametrize(
    "last", [ToolCalls([ToolUse("look", {"what": "more"})]), Text(""), OSError("the provider is down")], ids=type
)
def test_whatever_the_last_turn_comes_to_the_agent_ends_and_nothing_more_starts(last: object) -> None:
    """A tool that is asked for is not called; an empty answer and an error leave the explanation."""
    events = Recorder()
    guard = rr_lc.make_guard(Limits(run="10.00", loops=None, steps=None, wrap_up=True), prices=STORY, sinks=[events])
    story = Agent("story", last=last)
    result = story.agent(guard).invoke(ASKED)

    assert 3 == len(story.prompts)
    assert 2 == story.tool_calls
    end = result["messages"][-1]
    assert [] == end.tool_calls
    assert not end.response_metadata["runrails_wrapped_up"]
    assert "run ended here" in end.text
    assert (isinstance(last, OSError)) == ("wrap_up_failed" in events.names())


@pytest.mark.parametrize(
    "limits", [Limits(steps=4, loops=None, wrap_up=True), Limits(model_calls=2, loops=None, wrap_up=True)], ids=str
)
def test_a_limit_on_calls_leaves_no_room_for_one_more(limits: Limits) -> None:
    """A number that its owner wrote is not passed."""
    guard = rr_lc.make_guard(limits)
    busy = Agent("fake-flat")
    result = busy.agent(guard).invoke(ASKED)

    assert 2 == len(busy.prompts)
    assert not result["messages"][-1].response_metadata["runrails_wrapped_up"]


def test_after_a_raised_limit_the_run_goes_on_and_can_end_with_an_answer_again() -> None:
    """Money is kept back anew."""
    guard = rr_lc.make_guard(Limits(run="10.00", loops=None, steps=None, wrap_up=True), prices=STORY)
    story = Agent("story")
    supervisor = guard.supervise(story.agent(guard, checkpointer=InMemorySaver()))
    config = {"configurable": {"thread_id": "one"}}
    outcome = supervisor.invoke(ASKED, config)
    assert ("budget_exceeded", 3) == (outcome.stop_reason, len(story.prompts))

    outcome = supervisor.resume(outcome, limits=Limits(run="20.00", loops=None, steps=None, wrap_up=True))
    assert ("budget_exceeded", 6) == (outcome.stop_reason, len(story.prompts))
    assert outcome.answer is not None
    assert outcome.answer.startswith(ANSWER)


@pytest.mark.parametrize("how", ["model", "function"])
@pytest.mark.parametrize("mode", ["invoke", "batch", "stream", "ainvoke", "abatch", "astream"])
def test_a_supervisor_that_is_told_whom_to_ask_ends_with_an_answer(mode: str, how: str) -> None:
    """An agent without the middleware; the saved conversation is whole, the outcome has the answer."""
    guard = rr_lc.make_guard(Limits(run="10.00", loops=None, steps=None, wrap_up=True), prices=STORY)
    story = Agent("story")
    agent = create_agent(story.model, story.tools, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "one"}}

    def ask(prompt: str) -> str:
        return story.model.bind(max_tokens=512).invoke([HumanMessage(prompt)]).text

    supervisor = guard.supervise(agent, wrap_up=story.model if how == "model" else ask)
    outcome = _outcome(mode, supervisor, config)

    assert 3 == len(story.prompts)
    assert outcome.wrapped_up
    assert outcome.answer.startswith(ANSWER)
    assert "budget_exceeded" == outcome.stop_reason
    if how == "model":
        assert "found 2" in story.prompts[-1][0].text
    assert usd("9.60") == outcome.report.cost_pusd
    assert [] == rr_history.problems(agent.get_state(config).values["messages"])


def _outcome(mode: str, supervisor: Any, config: Any) -> Any:
    if mode == "invoke":
        return supervisor.invoke(ASKED, config)
    if mode == "batch":
        return supervisor.batch([ASKED], config)[0]
    if mode == "stream":
        stream = supervisor.stream(ASKED, config)
        for _ in stream:
            pass
        return stream.outcome
    return asyncio.run(_aoutcome(mode, supervisor, config))


async def _aoutcome(mode: str, supervisor: Any, config: Any) -> Any:
    if mode == "ainvoke":
        return await supervisor.ainvoke(ASKED, config)
    if mode == "abatch":
        return (await supervisor.abatch([ASKED], config))[0]
    stream = supervisor.astream(ASKED, config)
    async for _ in stream:
        pass
    return stream.outcome


def test_the_answer_of_an_agent_inside_a_tool_is_left_to_the_outer_one() -> None:
    """There is one last turn, and it speaks to the user."""
    guard = rr_lc.make_guard(Limits(run="0.30", loops=None, steps=None, wrap_up=True))
    starts, outer = Starts(), Agent("fake-flat")
    inner = create_agent(
        rr_lc.stubborn(starts, ("classify", "a")), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)]
    )

    @tool
    def look(what: str) -> str:
        """Ask the specialist."""
        return inner.invoke({"messages": [HumanMessage(what)]}, {"recursion_limit": 200})["messages"][-1].text

    outer.tools = [look]
    result = outer.agent(guard).invoke(ASKED, {"recursion_limit": 200})
    end = result["messages"][-1]
    assert isinstance(end, AIMessage)
    assert end.text.startswith(ANSWER)
    assert [] == rr_history.problems(result["messages"])
