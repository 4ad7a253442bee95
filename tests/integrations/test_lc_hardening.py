"""What LangChain does around a gate: hooks left out, warnings, lost calls, injected arguments, conversations."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import operator
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedState, ToolRuntime
from langgraph.types import Send

import rr_lc
from rr_lc import Starts
from runrails import BudgetBusy, BudgetExceeded, ConfigError, GuardrailStopped, Limits, LoopDetected, Price
from runrails.calls import Proceed, Stop, ToolCall, ToolOutcome
from runrails.guard import Guard
from runrails.ledger import Account
from runrails.loops import LoopDetector
from runrails.run import Run
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider.values import Delay, Text, ToolCalls, ToolUse
from runrails_langchain import GuardrailCallbackHandler, attach
from runrails_langchain.conversations import Conversations, Place
from runrails_langchain.handler import tracker_of
from runrails_langchain.messages import prompt_of

CENT = 10**10
NOWHERE = Place(None, None, "", "")
SECRET = "s3cr3t-and-nobody-elses-business"


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def flat(script: Any = "fine", **fields: Any) -> ScriptedChatModel:
    """A model at one cent a call."""
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=50, **fields)


def held(guard: Guard, run: Run) -> int:
    """What is held in a run's account."""
    return guard.store.balance(Account(f"run:{run.id}", "-")).held


class Inline(BaseCallbackHandler):
    """Somebody else's handler, such as a tracer."""

    run_inline = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("llm")

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("chat")


class Late(AsyncCallbackHandler):
    """Somebody else's asynchronous handler."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("llm")


# LangChain's managers.


@pytest.mark.parametrize("others", [[], [Inline], [Late], [Inline, Late], [Late, Inline]], ids=str)
@pytest.mark.parametrize("remote", [False, True])
async def test_text_models_are_guarded_whatever_else_listens(remote: bool, others: list[Any]) -> None:
    """LangChain leaves handlers that are not inline out as soon as one is; a gate must not be left out."""
    guard = rr_lc.make_guard(Limits(run="0.02"), prices={"text": Price(call="0.01")})
    guard.store.remote = remote
    threads: list[int] = []
    spy = guard.monotonic
    guard.monotonic = lambda: threads.append(threading.get_ident()) or spy()  # type: ignore[func-returns-value]
    model = FakeListLLM(responses=["a"] * 9, metadata={"ls_model_name": "text", "ls_max_tokens": 5})
    listeners = [kind() for kind in others]
    handler = GuardrailCallbackHandler(guard)
    for _ in range(2):
        await model.ainvoke("x", {"callbacks": [*listeners, handler]})
    threads.clear()
    with pytest.raises(BudgetExceeded):
        await model.ainvoke("x", {"callbacks": [*listeners, handler]})
    asked_in = set(threads)

    assert 2 * CENT == handler.runs[0].report().cost_pusd
    assert asked_in
    assert remote is (threading.get_ident() not in asked_in)
    if others in ([], [Late]) and remote:
        assert [["llm"] * 3] * len(others) == [listener.heard for listener in listeners]


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("remote", [False, True])
def test_a_stop_leaves_no_coroutine_unawaited(remote: bool, owned: bool) -> None:
    """Python would warn of `ahandle_event`, on the user's screen, after every asynchronous stop."""
    guard = rr_lc.make_guard(Limits(run="0.01"))
    guard.store.remote = remote
    handler, model = GuardrailCallbackHandler(guard), flat()

    async def work(text: str) -> None:
        for _ in range(3):
            await model.ainvoke(text)

    async def main() -> None:
        mine = [] if owned else [handler]
        with guard.run() if owned else contextlib.nullcontext():
            await RunnableLambda(work).ainvoke("x", {"callbacks": [Inline(), *mine, Inline(), Late()]})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(BudgetExceeded):
            asyncio.run(main())
        gc.collect()

    assert [] == [str(warning.message) for warning in caught]
    assert 1 == model.calls


@pytest.mark.parametrize("mode", rr_lc.MODES)
@pytest.mark.parametrize("owned", [False, True])
def test_a_stop_is_no_warning_in_the_log(owned: bool, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """The error says it all; LangChain would log it again as an error of the handler."""
    guard = rr_lc.make_guard(Limits(run="0.01"))
    handler = GuardrailCallbackHandler(guard)
    model = flat()
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(GuardrailStopped),
        guard.run() if owned else contextlib.nullcontext(),
    ):
        for _ in range(2):
            rr_lc.drive(mode, model, "x", None if owned else {"callbacks": [handler]})

    assert [] == [record for record in caplog.records if "callback" in record.getMessage()]


def test_errors_of_other_handlers_are_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    """Only our own stops and refusals are kept out of the log."""

    class Broken(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise GuardrailStopped("mine", next_step="none")

    class Odd(GuardrailCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise KeyError("odd")

    with pytest.raises(KeyError):
        flat().invoke("x", {"callbacks": [Broken(), Odd(rr_lc.make_guard())]})

    assert ["Broken", "Odd"] == [record.args[0] for record in caplog.records if record.args]  # type: ignore[index]


def test_a_refused_group_keeps_no_hold() -> None:
    """LangChain announces several prompts of one call together; if one may not start, none is sent."""
    for remote in (False, True):
        guard = rr_lc.make_guard(Limits(run="0.02", hold_wait_ms=0))
        guard.store.remote = remote
        handler, model = GuardrailCallbackHandler(guard), flat()
        with pytest.raises(BudgetBusy):
            asyncio.run(model.agenerate([[HumanMessage(str(n))] for n in range(4)], callbacks=[handler]))
        run = handler.runs[0]
        assert (0, 0, 0) == (model.calls, run.report().cost_pusd, held(guard, run))


# Where a run ends.


def test_a_failing_tracker_leaves_no_hook_behind() -> None:
    """Whatever goes wrong at the end of the block, what comes after it is not in a run."""
    guard = rr_lc.make_guard()
    model = flat()
    tracker = tracker_of(guard)

    def broken(run: Run) -> None:
        raise OSError(run.id)

    tracker.left = broken  # type: ignore[method-assign]
    with guard.run():
        model.invoke("x")
    del tracker.left
    model.invoke("x")

    assert (2, 1) == (model.calls, tracker_spent(guard) // CENT)


def tracker_spent(guard: Guard) -> int:
    """What the guard's user has spent this month."""
    from runrails.periods import month_of

    return guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock()))).spent


@pytest.mark.parametrize("remote", [False, True])
async def test_a_cancelled_call_without_a_chain_is_settled_soon(remote: bool) -> None:
    """LangChain tells no handler of it; the next call must not wait for an hour for its money."""
    guard = rr_lc.make_guard(Limits(run="0.05"))
    guard.store.remote = remote
    handler = GuardrailCallbackHandler(guard)
    slow, quick = flat(Delay(60_000, Text("late"))), flat()
    asking = asyncio.create_task(slow.ainvoke("x", {"callbacks": [handler]}))
    while not slow.calls:  # noqa: ASYNC110 -- a model tells nobody
        await asyncio.sleep(0.001)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    del asking
    await asyncio.sleep(0)  # this step keeps what was cancelled
    gc.collect()
    run = handler.runs[0]
    assert CENT == held(guard, run)
    await quick.ainvoke("x", {"callbacks": [handler]})

    assert (2 * CENT, CENT, 0) == (run.report().cost_pusd, run.report().unresolved_pusd, held(guard, run))


def test_a_handler_keeps_nothing_of_what_is_over() -> None:
    """One handler serves a server for years."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    starts = Starts()
    agent = rr_lc.agent_parallel(starts)
    for _ in range(3):
        with pytest.raises(LoopDetected):
            agent.invoke(rr_lc.question(rr_lc.agent_plain), {"callbacks": [handler]})
        with pytest.raises(LoopDetected), guard.run():
            agent.invoke(rr_lc.question(rr_lc.agent_plain))
        starts.order.clear()

    tables = [value for name, value in vars(tracker_of(guard)).items() if name in KEPT]
    assert [0] * len(KEPT) == [len(table) for table in tables]


KEPT = ("_enclosures", "_calls", "_tools", "_talks", "_shared", "_groups", "_lost")


# Answers with several calls.


def _turned(starts: Starts) -> ScriptedChatModel:
    """A model that asks for the same three things in another order each time."""

    def answer(_: Any) -> Any:
        starts.add("model")
        texts = "abc"[starts.models % 3 :] + "abc"[: starts.models % 3]
        return ToolCalls([ToolUse("classify", {"text": text}) for text in texts])

    return flat(answer)


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_loop_is_stopped_where_no_call_waits_for_its_result(mode: str, owned: bool) -> None:
    """One by one, the first of three calls trips; the others of its answer are still made, then comes the stop."""
    starts, guard = Starts(), rr_lc.make_guard()
    agent = rr_lc.create_agent(_turned(starts), [rr_lc.fails_softly(starts)], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}, "max_concurrency": 1}
    callbacks = {} if owned else {"callbacks": [GuardrailCallbackHandler(guard)]}
    with pytest.raises(LoopDetected), guard.run() if owned else contextlib.nullcontext():
        rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain), {**config, **callbacks})
    messages = agent.get_state(config).values["messages"]

    assert ["human", *["ai", "tool", "tool", "tool"] * 5] == [message.type for message in messages]
    assert {f"classify {text}": 5 for text in "abc"} == starts.executions
    assert 5 == starts.models


def test_a_retry_inside_the_last_answer_is_stopped() -> None:
    """The other calls of the answer are made once each; what a retry layer runs again is an attempt of its own."""
    detector = LoopDetector()
    failed = ToolOutcome(ok=True, result="no result")

    def call(answer: int, text: str) -> ToolCall:
        return ToolCall(name="classify", args={"text": text}, id=f"{answer}{text}", batch=answer)

    for answer in range(1, 6):
        for text in ("ab", "ba", "ab", "ab", "b")[answer - 1]:
            assert isinstance(detector.before_tool(call(answer, text), can_block=False), Proceed)
            detector.after_tool(call(answer, text), failed, can_block=False)

    sibling = call(5, "a")
    assert isinstance(detector.before_tool(sibling, can_block=False), Proceed)
    detector.after_tool(sibling, failed, can_block=False)
    for again in (call(5, "a"), call(5, "b"), call(6, "c")):
        assert isinstance(detector.before_tool(again, can_block=False), Stop)
    assert isinstance(detector.before_model(can_block=False), Stop)


# Arguments that LangChain injects.


def _state(starts: Starts) -> Any:
    @tool
    def lookup(q: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Look something up."""
        starts.add(f"lookup {q} {bool(state)}")
        return "no result"

    return lookup


def _runtime(starts: Starts) -> Any:
    @tool
    def lookup(q: str, runtime: ToolRuntime) -> str:
        """Look something up."""
        starts.add(f"lookup {q} {bool(runtime.tool_call_id)}")
        return "no result"

    return lookup


def _call_id(starts: Starts) -> Any:
    @tool
    def lookup(q: str, call: Annotated[str, InjectedToolCallId]) -> str:
        """Look something up."""
        starts.add(f"lookup {q} {bool(call)}")
        return "no result"

    return lookup


@pytest.mark.parametrize("alone", [False, True], ids=["agent", "tool alone"])
@pytest.mark.parametrize("make", [_state, _runtime, _call_id])
def test_injected_arguments_make_no_call_look_new(make: Callable[[Starts], Any], alone: bool) -> None:
    """State, runtime and call id differ at every call; what the model asked for does not."""
    starts, guard = Starts(), rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    node = make(starts)
    if alone:
        node.callbacks = [handler]
    agent = create_agent(rr_lc.stubborn_with(starts, ToolUse("lookup", {"q": "x"})), [node])
    with pytest.raises(LoopDetected):
        agent.invoke(rr_lc.question(rr_lc.agent_plain), None if alone else {"callbacks": [handler]})

    assert {"lookup x True": 5} == starts.executions


@pytest.mark.parametrize("injected", [{"messages": []}, object()], ids=type)
def test_a_tool_that_is_told_no_call_id_is_joined_all_the_same(injected: Any) -> None:
    """Before langchain-core 1.0 a tool's start names no call and holds what is injected; the model's words decide."""
    talks = Conversations()
    asked = [{"name": "lookup", "args": {"q": text}, "id": text, "type": "tool_call"} for text in "ab"]
    talks.answered("", [AIMessage("", tool_calls=asked)], batch="1")
    started = [talks.tool_starts(NOWHERE, "lookup", {"q": q, "state": injected}, None)[0] for q in "ab"]

    assert [ToolCall(name="lookup", args={"q": q}, id=q, batch="1") for q in "ab"] == started


def test_arguments_that_cannot_be_compared_stop_nothing() -> None:
    """An array raises where it is taken for a truth value; the tool is the user's."""

    class Array:
        def __eq__(self, other: object) -> Any:
            raise ValueError("The truth value of an array is ambiguous.")

        __hash__ = None  # type: ignore[assignment]

    talks = Conversations()
    asked: Any = [{"name": "plot", "args": {"points": [1]}, "id": "1", "type": "tool_call"}]
    talks.answered("", [AIMessage("", tool_calls=asked)], batch="1")
    args = {"points": Array()}

    assert args is talks.tool_starts(NOWHERE, "plot", args, "1")[0].args
    assert args is talks.tool_starts(NOWHERE, "plot", args, None)[0].args


@pytest.mark.parametrize(
    ("block", "texts", "unbounded"),
    [
        ({"type": "text-plain", "text": "abc"}, ("abc",), None),
        ({"type": "text-plain", "base64": "YWJj", "mime_type": "text/plain"}, ("YWJj",), None),
        ({"type": "text-plain", "url": "https://example.org/long.txt"}, (), "text-plain"),
        ({"type": "text-plain", "file_id": "f"}, (), "text-plain"),
    ],
)
def test_a_text_file_is_as_long_as_its_text(block: Any, texts: Any, unbounded: str | None) -> None:
    """One that is named by an address or an id may be of any size: it is not taken for nothing."""
    prompt = prompt_of([HumanMessage([block])], {}).prompt

    assert (texts, unbounded) == (prompt.texts, prompt.unbounded)


# Conversations side by side in one root chain.


class Items(TypedDict):
    """State of a map and reduce."""

    items: list[int]
    done: Annotated[list[int], operator.add]


def _once(starts: Starts) -> tuple[Any, ScriptedChatModel]:
    """A tool that gives everybody the same answer, and a model that asks for it once."""

    @tool
    def policy(topic: str) -> str:
        """Read the policy."""
        starts.add(f"policy {topic}")
        return "no result"

    def answer(messages: Any) -> Any:
        starts.add("model")
        time.sleep(0.002)  # So that those started together are in flight together.
        return Text("done") if messages[-1].type == "tool" else ToolCalls([ToolUse("policy", {"topic": "refunds"})])

    return policy, flat(answer)


def _by_hand(starts: Starts) -> Runnable[Any, Any]:
    """A graph that sends each item to a node that talks with the model by itself."""
    policy, model = _once(starts)

    def work(state: Any) -> Any:
        messages: list[Any] = [HumanMessage(f"Item {state['n']}")]
        while True:
            messages.append(model.invoke(messages))
            if not messages[-1].tool_calls:
                return {"done": [state["n"]]}
            messages += [policy.invoke({**call, "type": "tool_call"}) for call in messages[-1].tool_calls]

    graph = StateGraph(Items)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, lambda state: [Send("work", {"n": n}) for n in state["items"]], ["work"])
    graph.add_edge("work", END)
    return graph.compile()


def _agents(starts: Starts) -> Runnable[Any, Any]:
    """A chain that asks an agent one thing after the other."""
    policy, model = _once(starts)
    agent = create_agent(model, [policy])
    return RunnableLambda(
        lambda state: [agent.invoke({"messages": [HumanMessage(f"Item {n}")]}) for n in state["items"]]
    )


def _batch(starts: Starts) -> Runnable[Any, Any]:
    """A chain that asks an agent many things at once."""
    policy, model = _once(starts)
    agent = create_agent(model, [policy])
    return RunnableLambda(
        lambda state: agent.batch([{"messages": [HumanMessage(f"Item {n}")]} for n in state["items"]])
    )


def _executor(starts: Starts) -> Runnable[Any, Any]:
    """The same with the classic AgentExecutor."""
    policy, model = _once(starts)
    executor = rr_lc.executor(model.bind_tools([policy]), [policy])
    return RunnableLambda(lambda state: [executor.invoke({"input": f"Item {n}"}) for n in state["items"]])


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("workers", [None, 1], ids=["at once", "one by one"])
@pytest.mark.parametrize("make", [_by_hand, _agents, _batch, _executor])
def test_ten_items_may_ask_the_same_each(make: Callable[[Starts], Any], workers: int | None, owned: bool) -> None:
    """Each of them is a conversation of its own, in which the call is made once."""
    starts, guard = Starts(), rr_lc.make_guard()
    config: Any = {} if owned else {"callbacks": [GuardrailCallbackHandler(guard)]}
    with guard.run() if owned else contextlib.nullcontext():
        make(starts).invoke({"items": list(range(10)), "done": []}, {**config, "max_concurrency": workers})

    assert ({"policy refunds": 10}, 20) == (starts.executions, starts.models)


@pytest.mark.parametrize("reworded", [False, True])
def test_a_loop_round_a_model_is_no_row_of_conversations(reworded: bool) -> None:
    """What starts anew every time, in the same chain, to make the same call, is stuck."""
    starts, guard = Starts(), rr_lc.make_guard()
    node, model = rr_lc.fails_softly(starts), rr_lc.stubborn(starts, *rr_lc.ONE)

    def work(_: Any) -> None:
        for attempt in range(40):
            answer = (RunnableLambda(lambda x: x) | model).invoke(f"Attempt {attempt}" if reworded else "Go")
            node.invoke({**answer.tool_calls[0], "type": "tool_call"})

    with pytest.raises(LoopDetected):
        RunnableLambda(work).invoke("x", {"callbacks": [GuardrailCallbackHandler(guard)]})

    assert {"classify a": 5} == starts.executions


async def test_what_outlives_an_agent_in_a_chain_stays_in_the_chains_run() -> None:
    """A task left in the background by a nested agent draws on the same budget while the root chain goes on."""
    guard = rr_lc.make_guard()
    handler, model = GuardrailCallbackHandler(guard), flat()
    tasks: list[asyncio.Task[Any]] = []
    release = asyncio.Event()

    async def later(text: str) -> Any:
        await release.wait()
        return await model.ainvoke(text)

    async def node(state: Any) -> Any:
        tasks.append(asyncio.create_task(RunnableLambda(later).ainvoke("x")))
        await asyncio.sleep(0.01)
        return {"done": []}

    graph = StateGraph(Items)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    compiled = graph.compile()

    async def root(text: str) -> str:
        await compiled.ainvoke({"items": [], "done": []})
        release.set()
        await asyncio.gather(*tasks)
        return text

    await RunnableLambda(root).ainvoke("x", {"callbacks": [handler]})

    assert (1, [CENT]) == (model.calls, [run.report().cost_pusd for run in handler.runs])


# What users say stays with them.


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


@pytest.mark.parametrize("scenario", ["loop", "budget", "price", "tool error"])
def test_content_is_in_no_event_error_or_log(scenario: str, all_logs: pytest.LogCaptureFixture) -> None:
    """Neither prompts nor arguments nor results nor errors of tools."""
    recorder = rr_lc.Recorder()
    guard = rr_lc.make_guard(Limits(run="0.02") if scenario == "budget" else None, sinks=(recorder,))

    @tool
    def lookup(q: str) -> str:
        """Look something up."""
        if scenario == "tool error":
            raise OSError(f"{SECRET} {q}")
        return f"no result for {SECRET}"

    use = ToolUse("lookup", {"q": SECRET})
    model = ScriptedChatModel(
        lambda _: ToolCalls([use], text=SECRET),
        model_name="unheard-of" if scenario == "price" else "fake-flat",
        max_tokens=50,
    )
    agent = create_agent(model, [lookup], middleware=[rr_lc.forgiving()])
    caught: BaseException | None = None
    try:
        with guard.run() as run:
            agent.invoke(rr_lc.question(rr_lc.agent_plain, SECRET))
    except Exception as exc:
        caught = exc

    assert caught is not None
    seen = [str(caught), repr(caught), str(getattr(caught, "fields", "")), str(recorder.events), str(run.report())]
    seen += [record.getMessage() for record in all_logs.records if not record.name.startswith("asyncio")]
    assert [] == [text for text in seen if SECRET in text]


def test_a_mistake_is_raised_in_full() -> None:
    """What the user must mend is not kept from anybody."""
    mine, other = rr_lc.make_guard(), rr_lc.make_guard()
    with mine.run(), pytest.raises(ConfigError, match="another"):
        flat().invoke("x", {"callbacks": [GuardrailCallbackHandler(other)]})
