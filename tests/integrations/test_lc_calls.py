"""What single calls cost and what the loop detector hears of them: caches, streams, failures, sub-agents, people."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

import rr_lc
from rr_lc import Recorder, Starts
from runrails import BudgetBusy, BudgetExceeded, Limits, LoopDetected, Price
from runrails.errors import GuardFault
from runrails.guard import Guard
from runrails.ledger import RUN_PERIOD, Account
from runrails.run import Run
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider.values import Delay, Error, HangUp, Stall, Text, ToolCalls, ToolUse
from runrails.usage import Usage
from runrails_langchain import GuardrailCallbackHandler, attach

CENT = 10**10
USAGE = Usage(input_tokens=100, output_tokens=10)
COST = 100 * 3_000_000 + 10 * 15_000_000


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def model_of(script: Any, **fields: Any) -> ScriptedChatModel:
    """A model at $3 and $15 a million tokens, with a cap of 50."""
    return ScriptedChatModel(script, max_tokens=50, **fields)


def balance(guard: Guard, run: Run) -> tuple[int, int]:
    """What the run has spent and holds."""
    found = guard.store.balance(Account(f"run:{run.id}", RUN_PERIOD))
    return found.spent, found.held


# Money.


@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_reported_usage_is_charged_exactly(mode: str) -> None:
    """In every mode, streams included."""
    guard = rr_lc.make_guard()
    model = model_of(Text("fine", usage=USAGE))
    with guard.run() as run:
        rr_lc.drive(mode, model, "hello")

    assert (COST, 0) == balance(guard, run)
    assert COST == model.bill.total_pusd()


@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_missing_usage_is_charged_at_the_hold_never_at_zero(mode: str) -> None:
    """As with ChatOpenAI streams behind a base_url of one's own."""
    guard = rr_lc.make_guard()
    model = model_of(Text("fine", usage=USAGE, report="none"))
    with guard.run() as run:
        rr_lc.drive(mode, model, "hello")
    spent, held = balance(guard, run)

    assert 50 * 15_000_000 < spent
    assert (0, spent) == (held, run.report().unresolved_pusd)


def test_a_cache_hit_is_not_billed() -> None:
    """LangChain reports the paid call's usage again."""
    guard = rr_lc.make_guard()
    model = model_of(Text("fine", usage=USAGE), cache=InMemoryCache())
    with guard.run() as run:
        answers = [model.invoke("hello").content for _ in range(3)]

    assert (["fine"] * 3, 1) == (answers, model.calls)
    assert (COST, 0) == balance(guard, run)
    assert ["completed", "cached", "cached"] == [row.end for row in run.report().rows]


def test_a_stream_left_early_is_charged_for_what_came() -> None:
    """More than nothing, no more than the hold, and nothing stays held."""
    guard = rr_lc.make_guard()
    model = model_of(Text("one two three four five six seven"))
    with guard.run() as run:
        stream = model.stream("hello")
        next(stream)
        bound = balance(guard, run)[1]
        stream.close()  # type: ignore[attr-defined]  # it is a generator
    spent, held = balance(guard, run)

    assert (0, "cut") == (held, run.report().rows[0].end)
    assert model.bill.total_pusd() <= spent < bound


async def test_an_asynchronous_stream_left_early_is_charged_for_what_came() -> None:
    """The same on an event loop."""
    guard = rr_lc.make_guard()
    model = model_of(Text("one two three four five six seven"))
    async with guard.run() as run:
        stream = model.astream("hello")
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator

    assert (0, "cut") == (balance(guard, run)[1], run.report().rows[0].end)
    assert balance(guard, run)[0] >= model.bill.total_pusd()


@pytest.mark.parametrize(
    ("answer", "end", "paid"),
    [(Error(500), "failed", False), (Error(429), "failed", False), (HangUp(), "unknown", True)],
)
def test_an_error_is_free_only_with_proof(answer: Any, end: str, paid: bool) -> None:
    """A definite error answer releases the hold; a lost connection is charged at it."""
    guard = rr_lc.make_guard()
    model = model_of(answer)
    with guard.run() as run, pytest.raises(Exception, match="scripted"):
        model.invoke("hello")

    assert (end, 0, paid) == (run.report().rows[0].end, balance(guard, run)[1], balance(guard, run)[0] > 0)


def test_retries_and_fallbacks_are_calls_of_their_own() -> None:
    """Each is reserved and settled; failed ones are free."""
    guard = rr_lc.make_guard()
    model = model_of([Error(500), Error(503), Text("fine", usage=USAGE)])
    with guard.run() as run:
        model.with_retry(wait_exponential_jitter=False).invoke("hello")
    assert ["failed", "failed", "completed"] == [row.end for row in run.report().rows]

    with guard.run() as run:
        model_of(Error(500)).with_fallbacks([model_of(Text("fine", usage=USAGE))]).invoke("hello")
    assert (["failed", "completed"], (COST, 0)) == ([row.end for row in run.report().rows], balance(guard, run))


async def test_a_cancelled_call_is_settled_when_its_run_ends() -> None:
    """LangChain tells nothing of a cancelled `ainvoke`, and the money may be spent."""
    guard = rr_lc.make_guard()
    model = model_of(Stall(threading.Event()))
    handler = GuardrailCallbackHandler(guard)
    chain = RunnableLambda(lambda x: x) | model
    with guard.run() as run:
        await rr_lc.cancel_in_flight(model, model.ainvoke("hello"))
        held = balance(guard, run)[1]
    assert (held, 0) == balance(guard, run)
    assert held > 0

    await rr_lc.cancel_in_flight(model, chain.ainvoke("hello", {"callbacks": [handler]}))
    assert [(held, 0)] == [balance(guard, run) for run in handler.runs]
    assert ["unknown"] == [row.end for row in handler.runs[0].report().rows]


@pytest.mark.parametrize("owned", [True, False])
def test_prompts_announced_together_hold_nothing_when_one_is_refused(owned: bool) -> None:
    """LangChain announces all prompts of `generate` before it sends any, and then sends none."""
    guard = rr_lc.make_guard(Limits(run="0.02"), prices={"fake-flat": Price(call="0.01")})
    model = ScriptedChatModel("fine", model_name="fake-flat", max_tokens=5)
    handler = GuardrailCallbackHandler(guard)
    prompts: list[list[BaseMessage]] = [[HumanMessage("x")]] * 3
    run = guard.run(limits=Limits(run="0.02", hold_wait_ms=0))
    if owned:
        with run, pytest.raises(BudgetBusy):
            model.generate(prompts)
        assert (0, (0, 0)) == (model.calls, balance(guard, run))
    else:
        model.generate(prompts[:2], callbacks=[handler])
        assert handler.last_run is not None
        assert (2, (2 * CENT, 0)) == (model.calls, balance(guard, handler.last_run))


@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_models_of_plain_text_are_guarded(mode: str) -> None:
    """They have a gate of their own."""
    guard = rr_lc.make_guard(Limits(run="0.02"), prices={"fake_list": Price(call="0.01")})

    class Priced(FakeListLLM):
        def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
            return {"ls_provider": "fake", "ls_model_name": "fake_list", "ls_model_type": "llm", "ls_max_tokens": 9}

    model: LLM = Priced(responses=["a"])
    with pytest.raises(BudgetExceeded), guard.run() as run:
        for _ in range(3):
            rr_lc.drive(mode, model, "hello")

    assert (2 * CENT, 0) == balance(guard, run)


# A store out of process: hooks run off the event loop.


@pytest.mark.parametrize("scenario", [rr_lc.agent_plain, rr_lc.react_handles_errors, rr_lc.classic_plain])
@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_with_a_remote_store_hooks_run_off_the_event_loop(scenario: rr_lc.Scenario, mode: str) -> None:
    """`run_inline` is False then, and a run is stopped all the same."""
    guard = rr_lc.make_guard()
    guard.store.remote = True
    starts = Starts()
    handler = GuardrailCallbackHandler(guard)
    with pytest.raises(LoopDetected):
        rr_lc.drive(mode, scenario(starts), rr_lc.question(scenario), {"callbacks": [handler]})
    with pytest.raises(LoopDetected), guard.run():
        rr_lc.drive(mode, scenario(starts), rr_lc.question(scenario))

    assert not handler.run_inline
    assert starts.executions["classify a"] <= 10


# Bugs of ours.


def test_a_prompt_that_cannot_be_read_is_refused() -> None:
    """Nobody knows what it can cost, so nothing is sent."""
    args: dict[str, Any] = {}
    args["again"] = args
    message = AIMessage("x")
    message.tool_calls = [{"name": "t", "args": args, "id": "c", "type": "tool_call"}]
    guard = rr_lc.make_guard()
    model = model_of("fine")
    with guard.run() as run, pytest.raises(GuardFault):
        model.invoke([message])

    assert (0, (0, 0), None) == (model.calls, balance(guard, run), run.stopped)


def test_a_failing_end_hook_changes_nobodys_result() -> None:
    """What cannot be read is an event; the tool's result is the user's."""

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    recorder = Recorder()
    guard = rr_lc.make_guard(sinks=[recorder])

    @tool
    def odd() -> Any:
        """Give back something that has no text."""
        return Odd()

    with guard.run():
        assert isinstance(odd.invoke({}), Odd)

    assert ["adapter_failed"] == [name for name in recorder.names() if name == "adapter_failed"]


# Loops.


def history(failures: int, prefix: str = "old") -> list[BaseMessage]:
    """A conversation in which a tool has failed so many times."""
    found: list[BaseMessage] = [HumanMessage("Classify.")]
    for n in range(failures):
        call = {"name": "classify", "args": {"text": "a"}, "id": f"{prefix}-{n}", "type": "tool_call"}
        found += [AIMessage("again", tool_calls=[call]), ToolMessage("no result", tool_call_id=f"{prefix}-{n}")]
    return found


@pytest.mark.parametrize("owned", [True, False])
def test_what_a_run_begins_with_is_not_counted(owned: bool) -> None:
    """A conversation that failed often yesterday may go on today."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    agent = rr_lc.create_agent(model_of("done"), [rr_lc.fails_softly(Starts())])
    if owned:
        with guard.run() as run:
            agent.invoke({"messages": history(9)})
        assert None is run.stopped
    else:
        agent.invoke({"messages": history(9)}, {"callbacks": [handler]})
        assert None is handler.runs[0].stopped


def test_a_loop_written_by_hand_is_seen_in_its_messages() -> None:
    """Tools executed by the user's own code fire no callbacks at all."""
    guard = rr_lc.make_guard()
    model = rr_lc.stubborn(Starts(), *rr_lc.ONE)
    executed = 0
    messages: list[BaseMessage] = [HumanMessage("Classify.")]
    with pytest.raises(LoopDetected), guard.run():
        for _ in range(20):
            answer = model.invoke(messages)
            messages.append(answer)
            for call in answer.tool_calls:
                executed += 1
                messages.append(ToolMessage("no result", tool_call_id=call["id"]))

    assert (5, 5) == (executed, model.calls)


def test_ids_that_a_provider_repeats_hide_no_loop() -> None:
    """Some models number their calls anew in every answer."""
    guard = rr_lc.make_guard()
    starts = Starts()

    def script(_: Sequence[BaseMessage]) -> ToolCalls | Text:
        starts.add("model")
        use = ToolUse("no_such_tool", {"text": "a"}, id="call_0")
        return ToolCalls([use]) if starts.models < 30 else Text("done")

    agent = rr_lc.create_agent(
        ScriptedChatModel(script, model_name="fake-flat", max_tokens=5), [rr_lc.fails_softly(starts)]
    )
    with pytest.raises(LoopDetected), guard.run():
        agent.invoke(rr_lc.question(rr_lc.agent_plain))

    assert starts.models <= 6


def chatty(failures_a_turn: int) -> ScriptedChatModel:
    """A model that tries so many times in each turn and then answers."""

    def script(messages: Sequence[BaseMessage]) -> ToolCalls | Text:
        tried = 0
        for message in reversed(messages):
            if isinstance(message, HumanMessage):
                break
            tried += isinstance(message, ToolMessage)
        return ToolCalls([ToolUse("classify", {"text": "a"})]) if tried < failures_a_turn else Text("no luck")

    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=50)


@pytest.mark.parametrize("keeps_history", [True, False])
def test_a_person_who_speaks_makes_a_new_beginning(keeps_history: bool) -> None:
    """Three failures for each of six questions are no loop."""
    guard = rr_lc.make_guard()
    agent = rr_lc.create_agent(chatty(3), [rr_lc.fails_softly(Starts())])
    messages: list[BaseMessage] = []
    with guard.run() as run:
        for n in range(6):
            asked = [*(messages if keeps_history else []), HumanMessage(f"Question {n}")]
            messages = agent.invoke({"messages": asked})["messages"]

    assert (18, None) == (run.report().tool_calls, run.stopped)


def test_the_same_question_asked_again_and_again_is_a_loop() -> None:
    """A program that retries its whole agent repeats what the agent repeats."""
    starts = Starts()
    guard = rr_lc.make_guard()
    agent = rr_lc.create_agent(chatty(2), [rr_lc.fails_softly(starts)])
    with pytest.raises(LoopDetected), guard.run():
        for _ in range(20):
            agent.invoke({"messages": [HumanMessage("Classify.")]})

    assert 5 == starts.executions["classify a"]


def test_questions_asked_side_by_side_are_not_each_others_retries() -> None:
    """A batch in which every item first looks up the same thing is healthy."""
    guard = rr_lc.make_guard()
    agent = rr_lc.create_agent(chatty(1), [rr_lc.fails_softly(Starts())])
    with guard.run() as run:
        agent.batch([{"messages": [HumanMessage(f"Item {n}")]} for n in range(12)])
        agent.batch([{"messages": [HumanMessage("Sample")]}] * 4, {"max_concurrency": 4})

    assert (16, None) == (run.report().tool_calls, run.stopped)


def test_a_sub_agent_in_a_tool_is_an_agent_of_its_own() -> None:
    """Each call of it begins anew, so what all of them look up first is no loop; a loop inside one still is."""
    starts = Starts()
    lookups = rr_lc.create_agent(chatty(1), [rr_lc.fails_softly(starts)])
    loops = rr_lc.create_agent(rr_lc.stubborn(starts, *rr_lc.ONE), [rr_lc.fails_softly(starts)])

    @tool
    def research(topic: str) -> str:
        """Ask a sub-agent."""
        agent = loops if topic == "t7" else lookups
        return f"{topic}: {agent.invoke({'messages': [HumanMessage('Look it up.')]})['messages'][-1].content}"

    def outer(messages: Sequence[BaseMessage]) -> ToolCalls:
        return ToolCalls([ToolUse("research", {"topic": f"t{len(messages) // 2}"})])

    guard = rr_lc.make_guard()
    agent = rr_lc.create_agent(ScriptedChatModel(outer, model_name="fake-flat", max_tokens=50), [research])
    with pytest.raises(LoopDetected), guard.run() as run:
        agent.invoke({"messages": [HumanMessage("Research.")]})

    assert 7 + 5 == starts.executions["classify a"]
    agents = {row.agent for row in run.report().rows if row.name == "classify"}
    assert 8 == len(agents)
    assert all(name.startswith("research#") for name in agents)


def test_text_agents_whose_prompt_grows_are_not_mistaken_for_people() -> None:
    """The classic ReAct prompt is one human message that holds everything so far."""
    from langchain_classic.agents import AgentExecutor, create_react_agent
    from langchain_core.prompts import PromptTemplate

    starts = Starts()

    def script(_: Sequence[BaseMessage]) -> Text:
        starts.add("model")
        return Text("Thought: again\nAction: classify\nAction Input: a" if starts.models < 30 else "Final Answer: no")

    template = "{tools} {tool_names} {input} {agent_scratchpad}"
    node = rr_lc.fails_softly(starts)
    model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=50)
    agent = create_react_agent(model, [node], PromptTemplate.from_template(template))
    guard = rr_lc.make_guard()
    with pytest.raises(LoopDetected), guard.run():
        AgentExecutor(agent=agent, tools=[node]).invoke({"input": "Classify."})

    assert 5 == starts.executions["classify a"]


def test_a_delayed_answer_is_paid_once() -> None:
    """Time alone changes nothing."""
    guard = rr_lc.make_guard()
    model = model_of(Delay(5, Text("fine", usage=USAGE)))
    with guard.run() as run:
        model.invoke("hello")

    assert (COST, 0) == balance(guard, run)
