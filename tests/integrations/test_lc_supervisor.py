"""Supervised LangChain executors: outcomes instead of stops, conversations that are whole, going on after a stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolNode

import rr_history
import rr_lc
import rr_reviews
from rr_lc import Starts, Text, ToolCalls, ToolUse
from runrails import Guard, Limits, Outcome
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware
from runrails_langchain.repair import missing_results

CENT = 10**10
SUPERVISED = ("invoke", "stream", "batch", "ainvoke", "astream", "abatch", "astream_events")
THREAD = {"configurable": {"thread_id": "one"}, "recursion_limit": 200}


def balance(guard: Guard) -> tuple[int, int]:
    """What the guard's user has spent and holds."""
    found = guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock())))
    return found.spent, found.held


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Before a test gives something a second."""
    rr_lc.load_all()


def flat(script: Any, **fields: Any) -> ScriptedChatModel:
    """A model at one cent a call."""
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=100, **fields)


def supervise(mode: str, guard: Guard, executor: Any, inputs: Any, config: Any = None) -> Outcome:
    """Run it in one of the six modes, to its outcome."""
    supervisor = guard.supervise(executor)
    if mode == "invoke":
        return supervisor.invoke(inputs, config)
    if mode == "stream":
        stream = supervisor.stream(inputs, config)
        for _ in stream:
            pass
        return stream.outcome
    if mode == "batch":
        return supervisor.batch([inputs], config)[0]
    return asyncio.run(_asupervise(mode, supervisor, inputs, config))


async def _asupervise(mode: str, supervisor: Any, inputs: Any, config: Any) -> Outcome:
    if mode == "ainvoke":
        return await supervisor.ainvoke(inputs, config)
    if mode == "abatch":
        return (await supervisor.abatch([inputs], config))[0]
    events = mode == "astream_events"
    stream = supervisor.astream_events(inputs, config, version="v2") if events else supervisor.astream(inputs, config)
    async for _ in stream:
        pass
    return stream.outcome


# The founding agent.


@pytest.mark.parametrize("mode", SUPERVISED)
@pytest.mark.parametrize("layers", ["supervisor", "supervisor+middleware", "all"])
def test_the_founding_agent_ends_normally(layers: str, mode: str) -> None:
    """With the supervisor alone, and with everything at once: the same end, and everything counts once."""
    desk = rr_reviews.Desk()
    with rr_lc.make_guard() as guard:
        model = desk.model()
        middleware = [] if layers == "supervisor" else [GuardrailMiddleware(guard)]
        agent = create_agent(model, desk.tools(), middleware=middleware)
        config: dict[str, Any] = {"recursion_limit": 200}
        if layers == "all":
            config["callbacks"] = [GuardrailCallbackHandler(guard)]
        outcome = supervise(mode, guard, agent, rr_reviews.question(), config)

        assert rr_reviews.expected_topics() == desk.topics
        assert 4 == desk.starts.executions[f"classify {rr_reviews.BAD}"]
        assert ("The reviews are classified.", None) == (outcome.answer, outcome.stop_reason)
        report = outcome.report
        assert (model.calls, sum(desk.starts.executions.values())) == (report.model_calls, report.tool_calls)
        assert (1, 1) == (report.hints, report.blocks)
        assert (model.calls * CENT, 0) == balance(guard)


@pytest.mark.parametrize("mode", SUPERVISED)
@pytest.mark.parametrize("make", rr_reviews.EXECUTORS, ids=lambda make: make.__name__)
def test_with_the_supervisor_alone_the_founding_agent_ends_normally_in_every_executor(make: Any, mode: str) -> None:
    """A hint, a block, and one model call after it: the item is recorded as unclassified, the others are done."""
    desk = rr_reviews.Desk()
    with rr_lc.make_guard() as guard:
        executor = make(desk, guard)
        text = "Classify the reviews."
        inputs = {"input": text} if make.__name__.startswith("agent_executor") else {"messages": [("user", text)]}
        outcome = supervise(mode, guard, executor, inputs, {"recursion_limit": 200})

        assert rr_reviews.expected_topics() == desk.topics
        assert ("The reviews are classified.", None) == (outcome.answer, outcome.stop_reason)
        bad = f"classify {rr_reviews.BAD}"
        assert 4 == desk.starts.executions[bad]
        after = desk.starts.order[len(desk.starts.order) - desk.starts.order[::-1].index(bad) :]
        assert ["model", "model", f"record {rr_reviews.BAD}"] == after[:3]  # the first of them asks for what is blocked
        report = outcome.report
        assert (desk.starts.models, sum(desk.starts.executions.values())) == (report.model_calls, report.tool_calls)
        assert (1, 1) == (report.hints, report.blocks)
        assert (desk.starts.models * CENT, 0) == balance(guard)


def test_tools_called_in_nodes_of_ones_own_are_stopped_where_nobody_can_see_them() -> None:
    """What a supervisor cannot wrap it stops after the fifth time; the outcome explains, the conversation is whole."""
    desk = rr_reviews.Desk()
    agent = rr_reviews.loop(desk.model(), rr_reviews.by_hand(desk.tools())).compile(checkpointer=InMemorySaver())
    with rr_lc.make_guard() as guard:
        outcome = guard.supervise(agent).invoke(rr_reviews.question(), THREAD)
        assert ("loop_detected", 5) == (outcome.stop_reason, desk.starts.executions[f"classify {rr_reviews.BAD}"])
        assert "run ended here" in (outcome.answer or "")
        assert [] == rr_history.problems(agent.get_state(THREAD).values["messages"])


@pytest.mark.parametrize("mode", SUPERVISED)
@pytest.mark.parametrize("scenario", rr_lc.SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_no_executor_raises_a_stop_and_none_goes_on(scenario: rr_lc.Scenario, mode: str) -> None:
    """Every executor of the matrix, retry layers and all: at most five executions, and an outcome that says why."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        executor = scenario(starts)
        starts.stopped = lambda: False
        outcome = supervise(mode, guard, executor, rr_lc.question(scenario), {"recursion_limit": 200})

        assert "loop_detected" == outcome.stop_reason
        assert "run ended here" in (outcome.answer or "")
        assert not starts.executions or max(starts.executions.values()) <= 5
        assert starts.models <= 7
        assert (starts.models * CENT, 0) == balance(guard)
        assert starts.models == outcome.report.model_calls


def test_the_executor_itself_stays_as_it_was() -> None:
    """What is called is a copy: unsupervised, the same agent is not guarded."""
    starts = Starts()
    agent = rr_lc.agent_plain(starts)
    guard = rr_lc.make_guard()
    guard.supervise(agent).invoke(rr_lc.question(rr_lc.agent_plain))
    before = starts.models
    agent.invoke(rr_lc.question(rr_lc.agent_plain, "Unguarded."))

    assert starts.models - before > 10
    assert (before * CENT, 0) == balance(guard)


# What is saved, and going on.


class Stoppable:
    """An agent of one tool that fails, until it is told otherwise."""

    def __init__(self, calls: int = 1, *, wait: threading.Event | None = None) -> None:
        self.starts = Starts()
        self.over = False

        @tool
        def work(text: str) -> str:
            """Work."""
            self.starts.add(f"work {text}")
            if wait is not None:
                wait.wait(30)
            return f"did {text}"

        def script(messages: Sequence[BaseMessage]) -> Any:
            self.starts.add("model")
            if self.over:
                return Text("Finished.")
            turn = self.starts.models
            return ToolCalls([ToolUse("work", {"text": f"{turn}.{n}"}) for n in range(calls)], text="On it.")

        self.model = flat(script)
        self.agent = create_agent(self.model, [work], checkpointer=InMemorySaver())

    def saved(self) -> list[BaseMessage]:
        """The conversation as the checkpointer has it."""
        return list(self.agent.get_state(THREAD).values["messages"])


ASK = {"messages": [HumanMessage("go")]}
LIMITS = {
    "money": Limits(run="0.03", loops=None), "steps": Limits(steps=4, loops=None),
    "odd_steps": Limits(steps=5, loops=None), "tools": Limits(tool_calls=2, loops=None),
}  # fmt: skip


@pytest.mark.parametrize("mode", SUPERVISED)
@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("kind", LIMITS)
def test_a_stopped_conversation_is_whole_and_goes_on_after_the_limit_is_raised(
    kind: str, calls: int, mode: str
) -> None:
    """Valid for OpenAI and Anthropic after the stop, after going on, and for the next question on the thread."""
    with rr_lc.make_guard(LIMITS[kind]) as guard:
        work = Stoppable(calls)
        stopped = supervise(mode, guard, work.agent, ASK, THREAD)
        assert stopped.stop is not None
        assert [] == rr_history.problems(work.saved())
        assert work.saved() == stopped.value["messages"]  # type: ignore[index]

        work.over = True
        before = len(work.saved())
        supervisor = guard.supervise(work.agent)
        if mode.startswith("a"):
            outcome = asyncio.run(supervisor.aresume(stopped, limits=Limits(run="1.00", loops=None)))
        else:
            outcome = supervisor.resume(stopped, limits=Limits(run="1.00", loops=None))
        assert ("Finished.", None, stopped.run.id) == (outcome.answer, outcome.stop_reason, outcome.run.id)
        assert before + 1 == len(work.saved())
        assert work.model.calls == outcome.report.model_calls

        assert "Finished." == supervisor.invoke({"messages": [HumanMessage("And now?")]}, THREAD).answer
        assert [] == rr_history.problems(work.saved())
        assert (work.model.calls * CENT, 0) == balance(guard)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_conversation_that_a_bare_callback_left_dangling_is_repaired(mode: str) -> None:
    """A tool node that the supervisor cannot wrap: the stop comes between the calls of an answer and their results."""
    starts = Starts()

    def picky(error: ValueError) -> str:
        return str(error)

    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import tools_condition

    model = rr_lc.stubborn(starts, *rr_lc.THREE)
    node = ToolNode([rr_lc.fails_softly(starts)], handle_tool_errors=picky)
    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", node)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    agent = graph.compile(checkpointer=InMemorySaver())

    with rr_lc.make_guard(Limits(tool_calls=4, loops=None)) as guard:
        outcome = supervise(mode, guard, agent, ASK, THREAD)
        saved = agent.get_state(THREAD).values["messages"]
        assert "limit_reached" == outcome.stop_reason
        assert [] == rr_history.problems(saved)
        assert any("was not executed" in message.text for message in saved if isinstance(message, ToolMessage))
        assert ("model",) == agent.get_state(THREAD).next
        assert (starts.models * CENT, 0) == balance(guard)


def test_an_agent_that_the_middleware_has_ended_is_asked_to_go_on() -> None:
    """Its conversation has an end, so going on is another question."""
    starts = Starts()
    over = False

    def script(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        return Text("Finished.") if over else ToolCalls([ToolUse("classify", {"text": "x"})], text="Again.")

    with rr_lc.make_guard(Limits(run="0.02", loops=None)) as guard:
        agent = create_agent(
            flat(script), [rr_lc.fails_softly(starts)], middleware=[GuardrailMiddleware(guard)],
            checkpointer=InMemorySaver(),
        )  # fmt: skip
        supervisor = guard.supervise(agent)
        stopped = supervisor.invoke(ASK, THREAD)
        assert "budget_exceeded" == stopped.stop_reason
        assert "run ended here" in (stopped.answer or "")

        over = True
        outcome = supervisor.resume(stopped, limits=Limits(run="1.00"))
        assert ("Finished.", None) == (outcome.answer, outcome.stop_reason)
        assert [] == rr_history.problems(agent.get_state(THREAD).values["messages"])


def test_without_a_checkpointer_going_on_is_beginning_again() -> None:
    """Nothing was saved; the run's counts stay."""
    starts = Starts()

    def script(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        return Text("Finished.") if starts.models > 3 else ToolCalls([ToolUse("classify", {"text": "x"})], text="Go.")

    with rr_lc.make_guard(Limits(run="0.03", loops=None)) as guard:
        supervisor = guard.supervise(create_agent(flat(script), [rr_lc.fails_softly(starts)]))
        stopped = supervisor.invoke(ASK)
        assert (None, "budget_exceeded") == (stopped.value, stopped.stop_reason)
        outcome = supervisor.resume(stopped, limits=Limits(run="1.00"))
        assert ("Finished.", 4) == (outcome.answer, outcome.report.model_calls)


def test_what_has_results_or_other_words_after_it_needs_none() -> None:
    """Only calls of the newest answer are looked at."""
    asks = AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": i} for i in ("a", "b")])
    done = ToolMessage("x", tool_call_id="a")

    assert ["a", "b"] == [message.tool_call_id for message in missing_results([asks], "no")]
    assert ["b"] == [message.tool_call_id for message in missing_results([HumanMessage("q"), asks, done], "no")]
    for whole in ([], [HumanMessage("q")], [asks, done, HumanMessage("q")], [AIMessage("fine")], [done]):
        assert [] == missing_results(whole, "no")


# Hanging tools.


def test_a_hanging_tool_is_ended_by_the_seconds_limit_and_the_conversation_is_whole() -> None:
    """Its thread is left alone; the thread of the conversation can be used again."""
    release = threading.Event()
    with rr_lc.make_guard(Limits(seconds=1)) as guard:
        work = Stoppable(wait=release)
        outcome = guard.supervise(work.agent).invoke(ASK, THREAD)
        assert ("limit_reached", True) == (outcome.stop_reason, outcome.abandoned)
        assert [] == rr_history.problems(work.saved())
        before = work.model.calls

        release.set()
        work.over = True
        again = guard.supervise(work.agent).invoke({"messages": [HumanMessage("Still there?")]}, THREAD)
        assert "Finished." == again.answer
        assert before + 1 == work.model.calls


async def test_a_hanging_async_tool_is_cancelled_by_the_seconds_limit() -> None:
    """The same on a loop."""

    @tool
    async def wait(text: str) -> str:
        """Wait."""
        await asyncio.Event().wait()
        return text

    saver = InMemorySaver()
    agent = create_agent(flat(ToolCalls([ToolUse("wait", {"text": "x"})], text="Go.")), [wait], checkpointer=saver)
    with rr_lc.make_guard(Limits(seconds=1)) as guard:
        outcome = await guard.supervise(agent).ainvoke(ASK, THREAD)
        assert ("limit_reached", False) == (outcome.stop_reason, outcome.abandoned)
        assert [] == rr_history.problems((await agent.aget_state(THREAD)).values["messages"])
        assert (CENT, 0) == balance(guard)


async def test_a_cancelled_caller_leaves_nothing_held() -> None:
    """Cancelled in the middle of a model call."""
    from runrails.testing.provider.values import Stall

    with rr_lc.make_guard() as guard:
        model = flat(Stall(threading.Event(), Text("late")))
        agent = create_agent(model, [])
        await rr_lc.cancel_in_flight(model, guard.supervise(agent).ainvoke(ASK))
        assert (CENT, 0) == balance(guard)


# Other executors, sub-agents, several at once.


@pytest.mark.parametrize("mode", SUPERVISED)
def test_a_chain_and_a_model_are_executors_too(mode: str) -> None:
    """The answer is the message's text; a stream's chunks add up to it."""
    with rr_lc.make_guard() as guard:
        for executor in (flat("Hello there."), RunnableLambda(lambda x: x) | flat("Hello there.")):
            outcome = supervise(mode, guard, executor, "hi")
            assert ("Hello there.", 1) == (outcome.answer, outcome.report.model_calls)
        assert (2 * CENT, 0) == balance(guard)


def test_the_answer_of_a_classic_executor_is_its_output() -> None:
    """Not the whole dictionary."""
    starts = Starts()
    node = rr_lc.fails_softly(starts)
    executor = rr_lc.executor(flat("It is done.").bind_tools([node]), [node])
    assert "It is done." == rr_lc.make_guard().supervise(executor).invoke({"input": "go"}).answer


def test_parallel_branches_draw_on_one_run() -> None:
    """RunnableParallel, and an agent in a thread pool inside a tool."""
    with rr_lc.make_guard(Limits(run="0.04")) as guard:
        model = flat("fine")
        branches = RunnableParallel({str(n): RunnableLambda(lambda x: x) | model for n in range(9)})
        outcome = guard.supervise(branches).invoke("hi")
        assert ("budget_exceeded", 4) == (outcome.stop_reason, model.calls)

    with rr_lc.make_guard(Limits(run="0.05", loops=None)) as guard:
        inner_model = flat("inner")
        inner = create_agent(inner_model, [])

        @tool
        def fan_out(text: str) -> str:
            """Ask four agents."""
            ask = guard.bind(lambda n: inner.invoke({"messages": [HumanMessage(f"{text} {n}")]}))
            with ThreadPoolExecutor(2) as pool:
                return str(len(list(pool.map(ask, range(9)))))

        agent = create_agent(flat(ToolCalls([ToolUse("fan_out", {"text": "x"})], text="Go.")), [fan_out])
        outcome = guard.supervise(agent).invoke(ASK)
        assert ("budget_exceeded", 4, 5) == (outcome.stop_reason, inner_model.calls, outcome.report.model_calls)
        assert (5 * CENT, 0) == balance(guard)


def test_a_batch_has_an_outcome_for_each_input() -> None:
    """A stop of one is no stop of the others."""
    with rr_lc.make_guard(Limits(run="0.03", loops=None)) as guard:
        starts = Starts()

        def script(messages: Sequence[BaseMessage]) -> Any:
            if "short" in messages[0].text:
                return Text("done")
            return ToolCalls([ToolUse("classify", {"text": "x"})], text="Go.")

        agent = create_agent(flat(script), [rr_lc.fails_softly(starts)])
        inputs = [{"messages": [HumanMessage(text)]} for text in ("short", "long", "short", "long")]
        reasons = [None, "budget_exceeded"] * 2
        supervisor = guard.supervise(agent)
        assert reasons == [outcome.stop_reason for outcome in supervisor.batch(inputs)]
        assert reasons == [outcome.stop_reason for outcome in asyncio.run(supervisor.abatch(inputs))]
        assert (16 * CENT, 0) == balance(guard)


def test_a_users_error_passes_through_unchanged() -> None:
    """The very exception of the tool."""
    starts = Starts()
    agent = create_agent(rr_lc.stubborn(starts, *rr_lc.ONE), [rr_lc.raises(starts)])
    for mode in SUPERVISED:
        with pytest.raises(OSError, match="the service is down"):
            supervise(mode, rr_lc.make_guard(), agent, rr_lc.question(rr_lc.agent_plain))


@pytest.mark.parametrize("part", ["tools", "answer", "repair"])
def test_a_bug_in_an_observing_part_changes_nothing(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tool calls cannot be wrapped the callback still stops; a repair that fails is an event."""

    def boom(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError

    name = {"tools": "ToolGuard.inside", "answer": "Adapter.answer", "repair": "missing_results"}[part]
    monkeypatch.setattr(f"runrails_langchain.supervise.{name}", boom)
    recorder = rr_lc.Recorder()
    guard = rr_lc.make_guard(Limits(run="0.02", loops=None), sinks=[recorder])
    supervisor = guard.supervise(create_agent(flat("fine"), [], checkpointer=InMemorySaver()))
    assert "fine" == supervisor.invoke(ASK, THREAD).value["messages"][-1].text  # type: ignore[index]

    work = Stoppable()
    assert "budget_exceeded" == guard.supervise(work.agent).invoke(ASK, THREAD).stop_reason
    assert "adapter_failed" in recorder.names()
