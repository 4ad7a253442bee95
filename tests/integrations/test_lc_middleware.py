"""GuardrailMiddleware on real agents: hints, blocks, graceful ends, whole conversations, everything counted once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    ToolRetryMiddleware,
    wrap_model_call,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import BaseModel

import rr_history
import rr_lc
import rr_reviews
from rr_lc import Starts, Text, ToolCalls, ToolUse
from runrails import BudgetExceeded, ConfigError, Guard, Limits, LoopDetected, Price, PriceUnknown
from runrails.errors import GuardFault
from runrails.ledger import Account
from runrails.loops import LoopDetector
from runrails.periods import month_of
from runrails.run import Run
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider.values import Stall
from runrails_langchain import GuardrailCallbackHandler
from runrails_langchain.middleware import GuardrailMiddleware

CENT = 10**10
PLAIN_MODES = ("invoke", "stream", "batch", "ainvoke", "astream", "abatch", "astream_events")
THREAD = {"configurable": {"thread_id": "one"}}


def balance(guard: Guard) -> tuple[int, int]:
    """What the guard's user has spent and holds."""
    found = guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock())))
    return found.spent, found.held


def last_run(guard: Guard) -> Any:
    """The newest archived run."""
    return next(guard.store.runs()).report  # type: ignore[attr-defined]


def flat(script: Any, **fields: Any) -> ScriptedChatModel:
    """A model at one cent a call."""
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=100, **fields)


# The founding agent.


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_the_founding_agent_ends_normally(mode: str) -> None:
    """The bad review is recorded as unclassified, the others are done, and the failing call is executed four times."""
    desk = rr_reviews.Desk()
    with rr_lc.make_guard() as guard:
        model = desk.model()
        agent = create_agent(model, desk.tools(), middleware=[GuardrailMiddleware(guard)])
        rr_lc.drive(mode, agent, rr_reviews.question(), {"recursion_limit": 100})

        assert rr_reviews.expected_topics() == desk.topics
        assert 4 == desk.starts.executions[f"classify {rr_reviews.BAD}"]
        assert (model.calls * CENT, 0) == balance(guard)


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_callback_boundary_and_middleware_at_once_count_once(mode: str) -> None:
    """The run's counts, the ledger and the model's own bill agree."""
    desk = rr_reviews.Desk()
    with rr_lc.make_guard() as guard:
        model = desk.model()
        agent = create_agent(model, desk.tools(), middleware=[GuardrailMiddleware(guard)])
        handlers = [GuardrailCallbackHandler(guard), GuardrailCallbackHandler(guard)]
        config = {"callbacks": handlers, "recursion_limit": 100}
        with guard.run() as run:
            rr_lc.drive(mode, agent, rr_reviews.question(), config)
        report = run.report()

        assert rr_reviews.expected_topics() == desk.topics
        assert (model.calls, sum(desk.starts.executions.values())) == (report.model_calls, report.tool_calls)
        assert (model.calls * CENT, 0) == balance(guard)
        assert (1, 1) == (report.hints, report.blocks)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_with_a_callback_around_it_the_middleware_joins_its_run(mode: str) -> None:
    """One run for the root chain, not two."""
    desk = rr_reviews.Desk()
    with rr_lc.make_guard() as guard:
        handler = GuardrailCallbackHandler(guard)
        agent = create_agent(desk.model(), desk.tools(), middleware=[GuardrailMiddleware(guard)])
        rr_lc.drive(mode, agent, rr_reviews.question(), {"callbacks": [handler]})

        assert 1 == len(handler.runs)
        assert rr_reviews.expected_topics() == desk.topics
        assert 1 == handler.runs[0].report().blocks


# A model that does not listen.


def wrapped(guard: Guard, starts: Starts, kind: str) -> Any:
    """An agent of the matrix with the middleware in some place."""
    model, soft = rr_lc.stubborn(starts, *rr_lc.ONE), rr_lc.fails_softly(starts)
    ours = GuardrailMiddleware(guard)
    retry = ModelRetryMiddleware(max_retries=4, initial_delay=0, jitter=False)
    tools = ToolRetryMiddleware(max_retries=4, initial_delay=0, jitter=False)
    if kind == "plain":
        return create_agent(model, [soft], middleware=[ours])
    if kind == "parallel":
        return create_agent(rr_lc.stubborn(starts, *rr_lc.THREE), [soft], middleware=[ours])
    if kind == "unknown":
        return create_agent(rr_lc.stubborn(starts, *rr_lc.UNKNOWN), [soft], middleware=[ours])
    if kind == "retry_inside":
        return create_agent(model, [soft], middleware=[ours, retry])
    if kind == "retry_outside":
        return create_agent(model, [soft], middleware=[retry, ours])
    if kind == "fallback_inside":
        return create_agent(
            model, [soft], middleware=[ours, ModelFallbackMiddleware(rr_lc.stubborn(starts, *rr_lc.ONE))]
        )
    if kind == "fallback_outside":
        return create_agent(
            model, [soft], middleware=[ModelFallbackMiddleware(rr_lc.stubborn(starts, *rr_lc.ONE)), ours]
        )
    if kind == "tool_retry_inside":
        return create_agent(model, [rr_lc.raises(starts)], middleware=[ours, tools])
    if kind == "tool_retry_outside":
        return create_agent(model, [rr_lc.raises(starts)], middleware=[tools, ours])
    return create_agent(model, [soft], middleware=[ours, _Second(guard)])


class _Second(GuardrailMiddleware):
    """The same again, under another name."""


KINDS = (
    "plain", "parallel", "unknown", "retry_inside", "retry_outside", "fallback_inside", "fallback_outside",
    "tool_retry_inside", "tool_retry_outside", "twice",
)  # fmt: skip


@pytest.mark.parametrize("mode", PLAIN_MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_ignores_every_hint_is_stopped_gracefully(kind: str, mode: str) -> None:
    """In any order with other middleware: nothing raised, at most five executions, one model call after the block."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        rr_lc.drive(mode, wrapped(guard, starts, kind), rr_lc.question(rr_lc.agent_plain))
        report = last_run(guard)

        assert not starts.executions or max(starts.executions.values()) <= 5
        assert starts.models <= 7
        assert "loop_detected" == report["stop_reason"]
        assert starts.models == report["model_calls"]
        assert (starts.models * CENT, 0) == balance(guard)
        if kind != "parallel":
            assert starts.models_after_last_tool <= 2 or not starts.executions


def test_fifty_ignored_hints_are_not_needed() -> None:
    """A scripted model that would ignore 50 hints in a row gets one, and one block."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        agent = create_agent(
            rr_lc.stubborn(starts, *rr_lc.ONE), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)]
        )
        state = agent.invoke(rr_lc.question(rr_lc.agent_plain))

        said = [message.text for message in state["messages"] if isinstance(message, ToolMessage)]
        assert (1, 1, 1) == tuple(
            sum(word in text for text in said) for word in ("Suggestion", "was not executed. Please", "had ended")
        )
        last = state["messages"][-1]
        assert isinstance(last, AIMessage)
        assert "loop_detected" == last.response_metadata["runrails_stop_reason"]
        assert "6 model calls and 4 tool calls" in last.text


# What is saved.


@pytest.mark.parametrize("mode", ["invoke", "stream", "ainvoke", "astream"])
@pytest.mark.parametrize("kind", ["plain", "parallel", "unknown", "budget", "steps", "tools"])
def test_a_stopped_conversation_is_whole_and_goes_on(kind: str, mode: str) -> None:
    """After any stop it is valid for OpenAI and Anthropic, and the next question on the thread is answered."""
    starts = Starts()
    limits = {
        "budget": Limits(run="0.03", loops=None), "steps": Limits(steps=4, loops=None),
        "tools": Limits(tool_calls=2, loops=None),
    }.get(kind)  # fmt: skip
    calls = {"parallel": rr_lc.THREE, "unknown": rr_lc.UNKNOWN}.get(kind, rr_lc.ONE)
    over = False

    def script(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        if over:
            return Text("Here I am again.")
        return ToolCalls([ToolUse(name, {"text": text}) for name, text in calls], text="Again.")

    with rr_lc.make_guard(limits) as guard:
        agent = create_agent(
            flat(script), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)],
            checkpointer=InMemorySaver(),
        )  # fmt: skip
        rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain), THREAD)
        saved = agent.get_state(THREAD).values["messages"]
        assert [] == rr_history.problems(saved)
        assert "run ended here" in saved[-1].text

        over = True
        rr_lc.drive(mode, agent, {"messages": [("user", "And now?")]}, THREAD)
        saved = agent.get_state(THREAD).values["messages"]
        assert [] == rr_history.problems(saved)
        assert "Here I am again." == saved[-1].text


def test_a_budget_ends_the_agent_with_an_explanation_instead_of_an_error() -> None:
    """What was paid is kept, and the last message says why it ended."""
    starts = Starts()
    with rr_lc.make_guard(Limits(run="0.03", loops=None)) as guard:
        agent = create_agent(
            rr_lc.stubborn(starts, *rr_lc.ONE), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)]
        )
        state = agent.invoke(rr_lc.question(rr_lc.agent_plain))

        assert 3 == starts.models
        assert (3 * CENT, 0) == balance(guard)
        assert "budget_exceeded" == state["messages"][-1].response_metadata["runrails_stop_reason"]
        assert "runrails_run" not in state


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_on_stop_raise_raises_at_the_model(mode: str) -> None:
    """The public error, with a whole conversation behind it."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        agent = create_agent(
            rr_lc.stubborn(starts, *rr_lc.THREE), [rr_lc.fails_softly(starts)],
            middleware=[GuardrailMiddleware(guard, on_stop="raise")], checkpointer=InMemorySaver(),
        )  # fmt: skip
        with pytest.raises(LoopDetected):
            rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain), THREAD)
        assert [] == rr_history.problems(agent.get_state(THREAD).values["messages"])

        with pytest.raises(LoopDetected), guard.run():
            rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain), {"configurable": {"thread_id": "two"}})


def test_an_unknown_on_stop_is_refused() -> None:
    """The message says what is allowed."""
    with pytest.raises(ConfigError, match="end or raise"):
        GuardrailMiddleware(rr_lc.make_guard(), on_stop="quietly")  # type: ignore[arg-type]


def test_an_agent_that_only_gives_structured_answers_ends_too() -> None:
    """LangChain would call the model again and again for the structured answer that the explanation is not."""

    class Topic(BaseModel):
        """A topic."""

        topic: str

    starts = Starts()

    def script(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        return ToolCalls([ToolUse("Topic", {"wrong": starts.models})], text="A try.")

    with rr_lc.make_guard(Limits(run="0.03", loops=None)) as guard:
        agent = create_agent(
            flat(script), [], middleware=[GuardrailMiddleware(guard)], response_format=ToolStrategy(Topic)
        )
        state = agent.invoke(rr_lc.question(rr_lc.agent_plain))

    assert 3 == starts.models
    assert "run ended here" in state["messages"][-1].text


# What the model is told, and how much it may say.


def test_from_the_soft_limit_on_the_model_is_told_what_is_left_and_nobody_else() -> None:
    """At 80 % of a limit; the note is in the request and not in the state."""
    starts = Starts()

    def script(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        return ToolCalls([ToolUse("classify", {"text": str(starts.models)})], text="Next.")

    with rr_lc.make_guard(Limits(run="0.10", loops=None)) as guard:
        model = flat(script)
        agent = create_agent(model, [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)])
        state = agent.invoke(rr_lc.question(rr_lc.agent_plain))

    told = ["Little is left" in messages[-1].text for messages in model.received]
    assert [False] * 8 + [True] * 2 == told
    assert "$0.02 of $0.10" in model.received[8][-1].text
    assert not any("Little is left" in message.text for message in state["messages"])
    assert all("Little is left" not in message.text for message in model.received[9][:-1])


def test_a_permit_with_a_smaller_cap_is_put_into_the_request() -> None:
    """A model without a cap of its own is given what the budget buys."""
    caps: list[Any] = []

    @wrap_model_call
    def look(request: Any, handler: Any) -> Any:
        caps.append(request.model_settings.get("max_tokens"))
        return handler(request)

    with rr_lc.make_guard(Limits(run="0.03")) as guard:
        model = ScriptedChatModel("fine", model_name="fake-model")
        agent = create_agent(model, [], middleware=[GuardrailMiddleware(guard), look])
        agent.invoke(rr_lc.question(rr_lc.agent_plain))
        spent, held = balance(guard)

    assert 1_024 <= caps[0] < 4_096
    assert (model.bill.total_pusd(), 0) == (spent, held)


@pytest.mark.parametrize(("uncapped", "expected"), [("hold", None), ("cap", 4_096), ("refuse", 4_096)])
def test_a_request_without_a_cap_is_given_one_if_the_limits_say_so(uncapped: Any, expected: int | None) -> None:
    """The model's own maximum, where it fits."""
    caps: list[Any] = []

    @wrap_model_call
    def look(request: Any, handler: Any) -> Any:
        caps.append(request.model_settings.get("max_tokens"))
        return handler(request)

    with rr_lc.make_guard(Limits(run="1.00", uncapped=uncapped)) as guard:
        model = ScriptedChatModel("fine", model_name="fake-model")
        agent = create_agent(model, [], middleware=[GuardrailMiddleware(guard), look])
        agent.invoke(rr_lc.question(rr_lc.agent_plain))
        spent, held = balance(guard)

    assert [expected] == caps
    assert (model.bill.total_pusd(), 0) == (spent, held)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_hints_break_neither_artifacts_nor_commands_nor_blocks(mode: str) -> None:
    """The hint is put at the end of a text; everything else in a result stays as it was."""

    @tool(response_format="content_and_artifact")
    def look(text: str) -> tuple[str, dict[str, int]]:
        """Look."""
        return "no result", {"rows": 7}

    @tool
    def ask(text: str) -> Any:
        """Ask."""
        ids = {"a": "ask"}
        return Command(update={"messages": [ToolMessage("no result", tool_call_id=ids["a"], name="ask")]})

    @tool
    def show(text: str) -> list[Any]:
        """Show."""
        return [{"type": "text", "text": "no result"}]

    def script(messages: Sequence[BaseMessage]) -> Any:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        if turn == 4:
            return Text("done")
        return ToolCalls(
            [ToolUse("look", {"text": "x"}, id=f"l{turn}"), ToolUse("show", {"text": "x"}, id=f"s{turn}")], text="Go."
        )

    with rr_lc.make_guard() as guard:
        agent = create_agent(flat(script), [look, ask, show], middleware=[GuardrailMiddleware(guard)])
        asking = {"messages": [HumanMessage("go")]}
        state = agent.invoke(asking) if mode == "invoke" else asyncio.run(agent.ainvoke(asking))
    results = [message for message in state["messages"] if isinstance(message, ToolMessage)]

    assert [{"rows": 7}] * 4 == [message.artifact for message in results if message.name == "look"]
    hinted = [message for message in results if "[runrails]" in message.text]
    assert ["look", "show"] == sorted(message.name or "" for message in hinted)
    assert all(message.text.startswith("no result") and message.status == "success" for message in hinted)
    assert "no result" == results[0].text


def test_a_command_with_the_result_in_it_gets_the_hint_and_keeps_its_update() -> None:
    """Commands are copied, not changed."""
    from runrails_langchain.turns import _hinted

    class Finding:
        """Only the text matters."""

        for_model = "[runrails] enough"

    message = ToolMessage("no result", tool_call_id="a", artifact=1)
    command: Any = Command(update={"messages": [message], "count": 3}, goto="x")
    hinted = _hinted(command, Finding(), "a")  # type: ignore[arg-type]

    assert "no result" == message.content
    assert ("no result\n\n[runrails] enough", 3, "x") == (
        hinted.update["messages"][0].content, hinted.update["count"], hinted.goto,
    )  # fmt: skip
    for strange in ("text", None, Command(update=[("messages", 1)]), {"a": 1}):
        assert strange is _hinted(strange, Finding(), "a")  # type: ignore[arg-type]


# Interrupts, cancellation, errors.


def test_an_interrupt_passes_through_and_is_no_failure() -> None:
    """Six interrupts of the same call are answered, one after the other, and nothing is hinted at."""

    @tool
    def approve(text: str) -> str:
        """Ask a person."""
        return f"said {interrupt('may I?')}"

    def script(messages: Sequence[BaseMessage]) -> Any:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        return (
            Text("done") if turn == 3 else ToolCalls([ToolUse("approve", {"text": "x"}, id=f"a{turn}")], text="May I?")
        )

    with rr_lc.make_guard() as guard:
        agent = create_agent(
            flat(script), [approve], middleware=[GuardrailMiddleware(guard)], checkpointer=InMemorySaver()
        )
        state = agent.invoke({"messages": [HumanMessage("go")]}, THREAD)
        for number in range(3):
            assert "__interrupt__" in state
            state = agent.invoke(Command(resume=f"answer {number}"), THREAD)

        assert "done" == state["messages"][-1].text
        assert [] == rr_history.problems(state["messages"])
        assert (4 * CENT, 0) == balance(guard)
        assert 0 == last_run(guard)["hints"]


def test_a_person_in_the_loop_may_reject_a_call() -> None:
    """HumanInTheLoopMiddleware answers for the tool; the agent goes on in the same run."""
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
        agent.invoke({"messages": [HumanMessage("go")]}, THREAD)
        state = agent.invoke(Command(resume={"decisions": [{"type": "reject", "message": "no"}]}), THREAD)

        assert "Understood." == state["messages"][-1].text
        assert ({}, (2 * CENT, 0)) == (dict(starts.executions), balance(guard))


async def test_a_cancelled_task_settles() -> None:
    """LangChain tells nothing of it; the middleware does, and nothing stays held."""
    with rr_lc.make_guard() as guard:
        model = flat(Stall(threading.Event(), Text("late")))
        agent = create_agent(model, [], middleware=[GuardrailMiddleware(guard)])
        await rr_lc.cancel_in_flight(model, agent.ainvoke({"messages": [HumanMessage("go")]}))

        assert (CENT, 0) == balance(guard)


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_a_users_error_passes_through_unchanged(mode: str) -> None:
    """The very exception of the tool, and its result is counted as a failure."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        agent = create_agent(
            rr_lc.stubborn(starts, *rr_lc.ONE), [rr_lc.raises(starts)], middleware=[GuardrailMiddleware(guard)]
        )
        with pytest.raises(OSError, match="the service is down"):
            rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain))


class _Broken(Exception):
    """A bug of ours, made for the test."""


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("part", ["detector", "sink", "report", "after_tool", "note", "answered", "archive"])
def test_a_bug_in_an_observing_part_changes_nothing(part: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own result comes out; that something broke is an event."""

    def boom(*_args: Any, **_kwargs: Any) -> Any:
        raise _Broken

    recorder = rr_lc.Recorder()
    guard = rr_lc.make_guard(sinks=[boom, recorder] if part == "sink" else [recorder])
    broken = {
        "detector": [(LoopDetector, name) for name in ("before_tool", "after_tool", "before_model")],
        "after_tool": [(Run, "after_tool")], "report": [(Run, "report")],
        "note": [("runrails_langchain.turns", "budget_note")],
        "answered": [("runrails_langchain.conversations.Conversations", "answered")],
        "archive": [(type(guard.store), "save_run")], "sink": [],
    }[part]  # fmt: skip
    for owner, name in broken:
        if isinstance(owner, str):
            monkeypatch.setattr(f"{owner}.{name}", boom)
        else:
            monkeypatch.setattr(owner, name, boom)
    starts = Starts()

    def script(messages: Sequence[BaseMessage]) -> Any:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        return Text("done") if turn == 4 else ToolCalls([ToolUse("classify", {"text": "x"})], text="Go.")

    agent = create_agent(flat(script), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)])
    asking = {"messages": [HumanMessage("go")]}
    state = agent.invoke(asking) if mode == "invoke" else asyncio.run(agent.ainvoke(asking))

    assert "done" == state["messages"][-1].text
    assert 4 == starts.executions["classify x"]
    assert (5 * CENT, 0) == balance(guard)
    failed = {"detector_failed", "adapter_failed", "run_lost", "archive_failed"} & set(recorder.names())
    assert failed or part == "sink"


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("part", ["price", "bound", "reserve"])
def test_a_bug_in_a_deciding_part_refuses_with_its_own_type(
    part: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no exhausted budget, and the model is not called."""

    def boom(*_args: Any, **_kwargs: Any) -> Any:
        raise _Broken

    guard = rr_lc.make_guard()
    owner, name = {
        "price": (type(guard.prices), "card"), "bound": ("runrails.meter", "bound_of"),
        "reserve": (type(guard.store), "reserve"),
    }[part]  # fmt: skip
    if isinstance(owner, str):
        monkeypatch.setattr(f"{owner}.{name}", boom)
    else:
        monkeypatch.setattr(owner, name, boom)
    model = flat("fine")
    agent = create_agent(model, [], middleware=[GuardrailMiddleware(guard)])
    with pytest.raises(GuardFault) as caught:
        rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain))

    assert isinstance(caught.value.__cause__, _Broken)
    assert (0, (0, 0)) == (model.calls, balance(guard))


def test_an_unknown_price_refuses_by_name_and_stops_nothing() -> None:
    """The call is refused, the run is not over."""
    guard = rr_lc.make_guard()
    model = ScriptedChatModel("fine", model_name="nobody-knows-it", max_tokens=5)
    agent = create_agent(model, [], middleware=[GuardrailMiddleware(guard)])
    with pytest.raises(PriceUnknown, match="nobody-knows-it"):
        agent.invoke(rr_lc.question(rr_lc.agent_plain))
    assert 0 == model.calls


# Layers that change the call, sub-agents, several runs.


def test_a_layer_inside_that_shortens_the_prompt_is_not_refused_for_the_long_one() -> None:
    """What is decided on is what is sent."""

    @wrap_model_call
    def newest_only(request: Any, handler: Any) -> Any:
        return handler(request.override(messages=request.messages[-1:]))

    with rr_lc.make_guard(Limits(run="0.01")) as guard:
        model = ScriptedChatModel("fine", model_name="fake-model", max_tokens=16)
        agent = create_agent(model, [], middleware=[GuardrailMiddleware(guard), newest_only])
        long = [HumanMessage("x" * 2_000_000), AIMessage("yes"), HumanMessage("and now?")]
        state = agent.invoke({"messages": long})

        assert "fine" == state["messages"][-1].text
        assert (model.bill.total_pusd(), 0) == balance(guard)


def test_a_layer_inside_that_answers_by_itself_costs_nothing() -> None:
    """The permit that nobody used is given back, and is no step."""

    @wrap_model_call
    def cached(request: Any, handler: Any) -> Any:
        return AIMessage("from my cache")

    with rr_lc.make_guard() as guard:
        agent = create_agent(flat("fine"), [], middleware=[GuardrailMiddleware(guard), cached])
        with guard.run() as run:
            state = agent.invoke(rr_lc.question(rr_lc.agent_plain))

        assert "from my cache" == state["messages"][-1].text
        assert (0, (0, 0)) == (run.report().steps, balance(guard))


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_sub_agent_draws_on_the_run_of_the_agent_that_calls_it(mode: str) -> None:
    """Its calls are in the same run, guarded by its own middleware or by none."""
    guard = rr_lc.make_guard(Limits(run="0.06", loops=None))
    ours = GuardrailMiddleware(guard)
    starts = Starts()

    def inner_script(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        return ToolCalls([ToolUse("classify", {"text": str(starts.models)})], text="Go.")

    inner = create_agent(flat(inner_script), [rr_lc.fails_softly(starts)], middleware=[ours])

    @tool
    def delegate(text: str) -> str:
        """Ask another agent."""
        return str(inner.invoke({"messages": [HumanMessage(text)]})["messages"][-1].text)

    def script(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        return ToolCalls([ToolUse("delegate", {"text": "x"})], text="Help me.")

    agent = create_agent(flat(script), [delegate], middleware=[ours])
    asking = {"messages": [HumanMessage("go")]}
    state = agent.invoke(asking) if mode == "invoke" else asyncio.run(agent.ainvoke(asking))

    assert 6 == starts.models
    assert (6 * CENT, 0) == balance(guard)
    assert "run ended here" in state["messages"][-1].text
    assert [] == rr_history.problems(state["messages"])
    assert "budget_exceeded" == last_run(guard)["stop_reason"]


async def test_one_instance_serves_many_runs_at_once() -> None:
    """Each invocation has a budget of its own."""
    guard = rr_lc.make_guard(Limits(run="0.03", loops=None))
    starts = Starts()
    model = rr_lc.stubborn(starts, *rr_lc.ONE)
    agent = create_agent(model, [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)])
    states = await asyncio.gather(*(agent.ainvoke(rr_lc.question(rr_lc.agent_plain, f"n {n}")) for n in range(8)))

    assert 24 == starts.models
    assert (24 * CENT, 0) == balance(guard)
    assert all("run ended here" in state["messages"][-1].text for state in states)


def test_inside_a_run_of_another_guard_it_is_a_mistake() -> None:
    """The same call would be paid twice."""
    mine, other = rr_lc.make_guard(), rr_lc.make_guard()
    agent = create_agent(flat("fine"), [], middleware=[GuardrailMiddleware(mine)])
    with pytest.raises(ConfigError, match="another"), other.run():
        agent.invoke(rr_lc.question(rr_lc.agent_plain))
    assert ((0, 0), (0, 0)) == (balance(mine), balance(other))


def test_observing_changes_nothing() -> None:
    """No hint, no block, no end; what would have been is told."""
    starts = Starts()
    guard = rr_lc.make_guard(mode="observe")
    agent = create_agent(
        rr_lc.stubborn(starts, *rr_lc.ONE), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)]
    )
    state = agent.invoke(rr_lc.question(rr_lc.agent_plain))

    assert rr_lc.CALLS_MAX == starts.executions["classify a"]
    assert not any("[runrails]" in message.text for message in state["messages"])
    assert "classify" in last_run(guard)["would_have_stopped"]


def test_a_budget_stop_inside_a_boundary_ends_the_agent_and_leaves_normally() -> None:
    """The `with` raises nothing, since the agent ended; the run says that it is stopped."""
    starts = Starts()
    guard = rr_lc.make_guard(Limits(run="0.02", loops=None))
    agent = create_agent(
        rr_lc.stubborn(starts, *rr_lc.ONE), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)]
    )
    with guard.run() as run:
        agent.invoke(rr_lc.question(rr_lc.agent_plain))

    assert isinstance(run.stopped, BudgetExceeded)
    assert json.dumps(run.report().as_dict(), default=str)


# Real integrations, and a store that is far away.


def sdk_model(kind: str, fake: Any) -> tuple[Any, Any]:
    """A real integration against the fake provider, and what keeps its sockets open until it is closed."""
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI
    from openai import DefaultHttpxClient

    if kind == "anthropic":
        named: dict[str, Any] = {"model": "claude-test", "base_url": fake.anthropic_url, "api_key": "x"}
        model = ChatAnthropic(**named, max_tokens=9_000)
        return model, model._client
    cap = {"max_completion_tokens": 4_000} if kind == "openai_capped" else {}
    client = DefaultHttpxClient(trust_env=False)
    model = ChatOpenAI(
        model="gpt-4", base_url=fake.openai_url, api_key=lambda: "x", use_responses_api=kind == "responses",
        http_client=client, **cap,
    )  # fmt: skip
    return model, client


@pytest.mark.parametrize("kind", ["openai", "openai_capped", "responses", "anthropic"])
def test_a_real_integration_is_given_the_cap_that_the_budget_buys(kind: str) -> None:
    """The provider sees the smaller cap, one reservation a call is enough, and the ledger equals the bill."""
    from runrails.testing.provider import FakeProvider
    from runrails.testing.provider.bill import price_function
    from runrails.usage import Usage

    prices = {"gpt-4": Price(input="30", output="60"), "claude-test": Price(input="3", output="15")}
    usage = Usage(input_tokens=300, output_tokens=20)
    caps: list[Any] = []

    def script(request: Any) -> Any:
        caps.append(request.max_tokens)
        if request.last.role == "tool":
            return Text("done", usage=usage)
        return ToolCalls([ToolUse("classify", {"text": "a"})], text="Go.", usage=usage)

    limit = "0.11" if kind == "anthropic" else "0.15"
    bill = price_function(prices)
    with FakeProvider(script, price_pusd=bill) as fake, rr_lc.make_guard(Limits(run=limit), prices=prices) as guard:
        model, client = sdk_model(kind, fake)
        with contextlib.closing(client):
            agent = create_agent(model, [rr_lc.fails_softly(Starts())], middleware=[GuardrailMiddleware(guard)])
            state = agent.invoke({"messages": [HumanMessage("hi")]})

        assert "done" == state["messages"][-1].text
        assert all(1_024 <= cap < 4_000 or (kind == "anthropic" and cap < 9_000) for cap in caps)
        assert (fake.bill.total_pusd(), 0) == balance(guard)


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_a_store_that_is_far_away_changes_nothing(mode: str) -> None:
    """Its calls are made off the event loop."""
    desk = rr_reviews.Desk()
    with rr_lc.make_guard() as guard:
        guard.store.remote = True
        model = desk.model()
        agent = create_agent(model, desk.tools(), middleware=[GuardrailMiddleware(guard)])
        rr_lc.drive(mode, agent, rr_reviews.question(), {"recursion_limit": 100})

        assert rr_reviews.expected_topics() == desk.topics
        assert 4 == desk.starts.executions[f"classify {rr_reviews.BAD}"]
        assert (model.calls * CENT, 0) == balance(guard)


def test_without_langchain_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback needs less than the middleware."""
    import sys

    import runrails_langchain

    monkeypatch.delitem(vars(runrails_langchain), "GuardrailMiddleware", raising=False)
    monkeypatch.delitem(sys.modules, "runrails_langchain.middleware")
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    with pytest.raises(ImportError, match='pip install "langchain>=1"'):
        _ = runrails_langchain.GuardrailMiddleware
