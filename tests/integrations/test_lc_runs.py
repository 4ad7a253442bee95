"""Which calls belong to which run: root chains, shared runs, boundaries, and every call counted once."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

import rr_lc
import runrails_langchain
from rr_lc import Starts
from runrails import BudgetExceeded, ConfigError, GuardrailStopped, Limits, Price, current_run
from runrails.calls import ToolCall
from runrails.errors import PriceUnknown
from runrails.guard import Guard
from runrails.ledger import Account
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailCallbackHandler, attach

CENT = 10**10


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def flat(script: Any = "fine", **fields: Any) -> ScriptedChatModel:
    """A model at one cent a call."""
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=50, **fields)


def user_spent(guard: Guard) -> int:
    """What the guard's user has spent this month."""
    from runrails.periods import month_of

    return guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock()))).spent


def with_callbacks(*handlers: Any) -> Any:
    """A config."""
    return {"callbacks": list(handlers)}


# A bare handler.


def test_each_root_chain_is_a_run_that_ends_with_it() -> None:
    """One handler serves many calls; their runs have reports of their own."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    chain = RunnableLambda(lambda x: x) | flat()
    chain.batch(["a", "b", "c"], with_callbacks(handler))

    assert [CENT] * 3 == [run.report().cost_pusd for run in handler.runs]
    for run in handler.runs:
        with pytest.raises(ConfigError, match="has ended"):
            run.before_tool(ToolCall(name="t"))


def test_the_run_of_a_chain_that_fails_ends_too() -> None:
    """The user's error passes through unchanged."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)

    def boom(_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        (flat() | RunnableLambda(boom)).invoke("x", with_callbacks(handler))

    assert [(CENT, None)] == [(run.report().cost_pusd, run.stopped) for run in handler.runs]


def test_calls_without_a_chain_share_a_run_per_thread_id() -> None:
    """A model on its own has no root chain; its calls would otherwise each have a budget of their own."""
    guard = rr_lc.make_guard(Limits(run="0.03"))
    handler = GuardrailCallbackHandler(guard)
    model = flat()
    for _ in range(3):
        model.invoke("x", {**with_callbacks(handler), "metadata": {"thread_id": "one"}})
    with pytest.raises(BudgetExceeded):
        model.invoke("x", {**with_callbacks(handler), "metadata": {"thread_id": "one"}})
    model.invoke("x", {**with_callbacks(handler), "metadata": {"thread_id": "two"}})
    model.invoke("x", with_callbacks(GuardrailCallbackHandler(guard)))

    assert 5 == model.calls
    assert [3 * CENT, CENT, CENT] == [run.report().cost_pusd for run in handler.runs]
    handler.close()
    assert handler.last_run is handler.runs[-1]


def test_a_handler_on_the_model_alone_guards_the_agent_around_it() -> None:
    """It sees no chain, only model calls; that is enough to stop."""
    starts = Starts()
    guard = rr_lc.make_guard(Limits(run="0.04", loops=None))
    handler = GuardrailCallbackHandler(guard)
    model = rr_lc.stubborn(starts, *rr_lc.ONE)
    model.callbacks = [handler]
    agent = rr_lc.create_agent(model, [rr_lc.fails_softly(starts)])
    with pytest.raises(BudgetExceeded):
        agent.invoke(rr_lc.question(rr_lc.agent_plain))

    assert (4, 1) == (starts.models, len(handler.runs))


def test_a_handler_below_the_root_opens_a_run_for_what_it_sees() -> None:
    """`with_config(callbacks=…)` on a part of a chain guards that part."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    part = (RunnableLambda(lambda x: x) | flat()).with_config(callbacks=[handler])
    (RunnableLambda(lambda x: x) | part).invoke("x")

    assert [CENT] == [run.report().cost_pusd for run in handler.runs]


# Counted once.


def test_the_same_handler_twice_counts_once() -> None:
    """`with_config` and `config` on a model fire every event twice, with the same id."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    model = flat()
    model.with_config(callbacks=[handler]).invoke("x", with_callbacks(handler))

    assert (1, CENT) == (model.calls, user_spent(guard))


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_two_handlers_of_one_guard_and_the_boundary_count_once(mode: str, remote: bool) -> None:
    """Whatever is attached, a call is reserved and settled once, and a tool is one step."""
    guard = rr_lc.make_guard()
    guard.store.remote = remote

    def script(messages: Any) -> Any:
        return rr_lc.Text("done") if len(messages) > 1 else rr_lc.ToolCalls([rr_lc.ToolUse("classify", {"text": "a"})])

    starts = Starts()
    agent = rr_lc.create_agent(flat(script), [rr_lc.fails_softly(starts)])
    config = with_callbacks(GuardrailCallbackHandler(guard), GuardrailCallbackHandler(guard))
    rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain), config)
    assert 2 * CENT == user_spent(guard)

    with guard.run() as run:
        rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain), config)
    assert (2, 1, 2 * CENT) == (run.report().model_calls, run.report().tool_calls, run.report().cost_pusd)
    assert 4 * CENT == user_spent(guard)


# Boundaries.


def test_inside_a_boundary_a_handler_joins_its_run() -> None:
    """No run of its own is opened for the root chain."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    with guard.run() as run:
        (RunnableLambda(lambda x: x) | flat()).invoke("x", with_callbacks(handler))

    assert () == handler.runs
    assert CENT == run.report().cost_pusd


@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_a_handler_of_another_guard_is_a_mistake(mode: str) -> None:
    """The same call would be paid twice; nothing is started."""
    mine, other = rr_lc.make_guard(), rr_lc.make_guard()
    for executor in (flat(), RunnableLambda(lambda x: x) | flat()):
        model = executor if isinstance(executor, ScriptedChatModel) else executor.steps[-1]
        with mine.run(), pytest.raises(ConfigError, match="another"):
            rr_lc.drive(mode, executor, "x", with_callbacks(GuardrailCallbackHandler(other)))
        assert 0 == model.calls
    assert (0, 0) == (user_spent(mine), user_spent(other))


def test_a_boundary_left_by_an_error_guards_nothing_afterwards() -> None:
    """The context is restored whatever happens inside."""
    guard = rr_lc.make_guard()
    model = flat()
    with pytest.raises(KeyError), guard.run():
        model.invoke("x")
        raise KeyError("mine")
    model.invoke("x")

    assert (2, CENT) == (model.calls, user_spent(guard))
    assert current_run() is None


def test_nested_runs_draw_on_their_parent() -> None:
    """The inner run's calls count in both; its own limit stops it alone."""
    guard = rr_lc.make_guard(Limits(run="0.05"))
    model = flat()
    with guard.run() as outer:
        model.invoke("x")
        with pytest.raises(BudgetExceeded), guard.run(limits=Limits(run="0.02")) as inner:
            for _ in range(9):
                model.invoke("x")
        model.invoke("x")

    assert (2 * CENT, 4 * CENT) == (inner.report().cost_pusd, outer.report().cost_pusd)
    assert (4, None) == (model.calls, outer.stopped)


def test_a_run_opened_inside_a_chain_is_the_one_that_counts() -> None:
    """The chain's handler is inherited, but the innermost boundary decides."""
    guard = rr_lc.make_guard(Limits(run="1.00"))
    handler = GuardrailCallbackHandler(guard)
    model = flat()
    inner: list[Any] = []

    def work(text: str) -> Any:
        with guard.run(limits=Limits(run="0.02")) as run:
            inner.append(run)
            return [model.invoke(text) for _ in range(9)]

    with pytest.raises(BudgetExceeded):
        RunnableLambda(work).invoke("x", with_callbacks(handler))

    assert (2, 2 * CENT) == (model.calls, inner[0].report().cost_pusd)


def test_a_bound_function_is_guarded_in_a_thread_pool() -> None:
    """Plain pool threads lose the context; `guard.bind` carries it."""
    guard = rr_lc.make_guard(Limits(run="0.05"))
    model = flat()
    stops: list[BaseException] = []
    lock = threading.Lock()

    def work(_: int) -> None:
        try:
            model.invoke("x")
        except BaseException as exc:
            with lock:
                stops.append(exc)
            raise

    with pytest.raises(BudgetExceeded), guard.run() as run, ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(guard.bind(work), n) for n in range(20)]:
            future.result()

    assert (5, 5 * CENT) == (model.calls, run.report().cost_pusd)
    assert 15 == len(stops)


async def test_concurrent_runs_are_isolated() -> None:
    """In one event loop each task is guarded by its own run, and one that stops leaves the others alone."""
    guard = rr_lc.make_guard()
    model = flat()

    async def work(calls: int, budget: str) -> Any:
        run = guard.run(limits=Limits(run=budget))
        with contextlib.suppress(BudgetExceeded):
            async with run:
                for _ in range(calls):
                    await model.ainvoke("x")
                    await asyncio.sleep(0)
        return run.report().cost_pusd, run.stop_reason

    assert [(3 * CENT, None), (2 * CENT, "budget_exceeded"), (4 * CENT, None)] == list(
        await asyncio.gather(work(3, "0.05"), work(9, "0.02"), work(4, "0.05"))
    )


async def test_a_stop_in_a_task_group_comes_out_as_one_public_error() -> None:
    """The exception group is unwrapped at the boundary."""
    guard = rr_lc.make_guard(Limits(run="0.02"))
    model = flat()
    with pytest.raises(BudgetExceeded):
        async with guard.run(), asyncio.TaskGroup() as group:
            for _ in range(2):
                await model.ainvoke("x")
            group.create_task(model.ainvoke("x"))

    assert 2 == model.calls


def test_batch_with_return_exceptions_hides_nothing_inside_a_boundary() -> None:
    """LangChain would return the stop as an item; the trip comes through all the same."""
    guard = rr_lc.make_guard(Limits(run="0.02"))
    model = flat()
    with pytest.raises(BudgetExceeded), guard.run():
        model.batch(["x"] * 9, return_exceptions=True, config={"max_concurrency": 1})
    assert 2 == model.calls

    handler = GuardrailCallbackHandler(guard)
    chain = RunnableLambda(lambda x: [model.invoke(x) for _ in range(9)])
    results = chain.batch(["x", "y"], with_callbacks(handler), return_exceptions=True)
    assert [True, True] == [isinstance(result, BudgetExceeded) for result in results]
    assert ["budget_exceeded"] * 2 == [run.stop_reason for run in handler.runs]


def test_a_refusal_is_raised_as_itself() -> None:
    """It stops nothing: the run goes on with a model whose price is known."""
    guard = rr_lc.make_guard()
    known, unknown = flat(), ScriptedChatModel("fine", model_name="nobody-priced-me", max_tokens=5)
    with guard.run() as run:
        with pytest.raises(PriceUnknown):
            unknown.invoke("x")
        known.invoke("x")

    assert (0, 1, 1, None) == (unknown.calls, known.calls, run.report().refusals, run.stopped)


@pytest.mark.parametrize("owned", [True, False])
def test_a_stopped_agent_keeps_a_history_that_can_go_on(owned: bool) -> None:
    """The stop comes at the model boundary, where no tool call waits for its result."""
    starts = Starts()
    guard = rr_lc.make_guard(Limits(run="0.02", loops=None))
    agent = rr_lc.create_agent(
        rr_lc.stubborn(starts, *rr_lc.THREE), [rr_lc.fails_softly(starts)], checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "t"}}
    with pytest.raises(GuardrailStopped), guard.run() if owned else contextlib.nullcontext():
        agent.invoke(
            rr_lc.question(rr_lc.agent_plain),
            config if owned else {**config, **with_callbacks(GuardrailCallbackHandler(guard))},
        )
    messages = agent.get_state(config).values["messages"]

    assert ["human", "ai", "tool", "tool", "tool", "ai", "tool", "tool", "tool"] == [m.type for m in messages]


def test_sub_agents_in_tools_are_guarded_without_passing_anything_on() -> None:
    """Inside a boundary and with one callback at the top alike."""
    guard = rr_lc.make_guard(Limits(run="0.06", loops=None))
    inner = flat()

    @tool
    def research(topic: str) -> str:
        """Ask a sub-agent."""
        return str(inner.invoke([HumanMessage(topic)]).content)

    def outer(messages: Any) -> Any:
        return rr_lc.ToolCalls([rr_lc.ToolUse("research", {"topic": f"t{len(messages)}"})])

    for config in (None, with_callbacks(GuardrailCallbackHandler(guard))):
        agent = rr_lc.create_agent(flat(outer), [research])
        before = inner.calls
        with pytest.raises(BudgetExceeded), contextlib.nullcontext() if config else guard.run():
            agent.invoke(rr_lc.question(rr_lc.agent_plain), config)
        assert 3 == inner.calls - before


class Router(BaseChatModel):
    """A model that asks another model."""

    inner: ScriptedChatModel

    @property
    def _llm_type(self) -> str:
        return "router"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "fake", "ls_model_name": "router", "ls_model_type": "chat", "ls_max_tokens": 50}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.inner.invoke(messages))])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=await self.inner.ainvoke(messages))])


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_a_stop_inside_a_model_keeps_its_type(mode: str, owned: bool) -> None:
    """LangChain's `agenerate` would make an AttributeError of an exception that is no Exception."""
    guard = rr_lc.make_guard(Limits(run="0.02"), prices={"fake-flat": Price(call="0.01"), "router": "0"})
    handler = GuardrailCallbackHandler(guard)
    model = Router(inner=flat(callbacks=None if owned else [handler]))
    with pytest.raises(BudgetExceeded), guard.run() if owned else contextlib.nullcontext():
        for _ in range(9):
            rr_lc.drive(mode, model, "x", None if owned else with_callbacks(handler))

    assert 2 == model.inner.calls


async def test_what_outlives_its_chain_has_a_run_of_its_own() -> None:
    """A task left in the background by a chain that has ended is guarded, not refused."""
    guard = rr_lc.make_guard()
    handler = GuardrailCallbackHandler(guard)
    model = flat()
    tasks: list[asyncio.Task[Any]] = []
    release = asyncio.Event()

    async def later(text: str) -> Any:
        await release.wait()
        return await model.ainvoke(text)

    async def work(text: str) -> str:
        tasks.append(asyncio.create_task(RunnableLambda(later).ainvoke(text)))
        await asyncio.sleep(0.01)
        return text

    await RunnableLambda(work).ainvoke("x", with_callbacks(handler))
    release.set()
    await asyncio.gather(*tasks)

    assert (1, [0, CENT]) == (model.calls, sorted(run.report().cost_pusd for run in handler.runs))


def test_a_handler_needs_no_langchain_until_it_is_used() -> None:
    """Importing the package loads nothing; without langchain-core the error says what to install."""
    code = """
import sys
import runrails_langchain
assert "langchain_core" not in sys.modules
sys.modules["langchain_core"] = None
try:
    runrails_langchain.GuardrailCallbackHandler
except ImportError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert 'pip install "runrails[langchain]"' in done.stdout
    with pytest.raises(AttributeError):
        _ = runrails_langchain.nothing  # type: ignore[attr-defined]


def test_closing_the_guard_ends_and_keeps_the_runs_of_plain_calls() -> None:
    """Nobody has to close a handler for its calls to be found by `runrails runs`."""
    guard = rr_lc.make_guard()
    flat().invoke("hello", {"callbacks": [GuardrailCallbackHandler(guard)]})
    assert [] == list(guard.store.runs())  # type: ignore[attr-defined]

    guard.close()

    (record,) = guard.store.runs()  # type: ignore[attr-defined]
    assert 1 == record.report["model_calls"]
