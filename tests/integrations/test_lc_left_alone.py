"""LangChain code that was left alone when its time was up: nothing in it is sent, counted or saved after a resume."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

import rr_history
import rr_lc
import rr_reviews
from rr_clients import HI, MODEL, World
from rr_lc import Text, ToolCalls, ToolUse
from runrails import Guard, Limits, Outcome, current_run
from runrails.boundary import Trip
from runrails.errors import GuardrailStopped
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailMiddleware
from runrails_langchain.handler import tracker_of

CENT = 10**10
WAIT_S = 30
THREAD: Any = {"configurable": {"thread_id": "one"}}
ASK: Any = {"messages": [HumanMessage("go")]}
MORE = Limits(seconds=60, run="1.00", loops=None)


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Before a test gives something a second."""
    rr_lc.load_all()


def in_own_thread(work: Callable[[], object]) -> None:
    """In a thread that has none of the caller's context."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_S)


class Late:
    """An agent whose tool hangs at its first call; released, the tool tries to call models in every way there is."""

    def __init__(self, guard: Guard, kind: str = "agent") -> None:
        self.guard = guard
        self.release = threading.Event()
        self.before_answering: Callable[[], None] = lambda: None
        self.tried: dict[str, str] = {}
        self.threads: set[threading.Thread] = set()
        self.inner_model = flat("inner")
        self.model = flat(self._script)
        layers = [GuardrailMiddleware(guard)] if kind == "middleware" else []
        if kind == "own nodes":
            made = rr_reviews.loop(self.model, rr_reviews.by_hand([self._tool()]))
            self.agent: Any = made.compile(checkpointer=InMemorySaver())
        else:
            self.agent = create_agent(self.model, [self._tool()], middleware=layers, checkpointer=InMemorySaver())

    def _script(self, messages: Sequence[BaseMessage]) -> Any:
        self.before_answering()
        if any(isinstance(message, ToolMessage) for message in messages):
            return Text("Finished.")
        return ToolCalls([ToolUse("hang", {"text": "x"})], text="On it.")

    def _tool(self) -> Any:
        sub_agent = create_agent(self.inner_model, [])

        @tool
        def hang(text: str, config: RunnableConfig) -> str:
            """Hang."""
            self.threads |= {threading.current_thread(), *_of_this_run()}
            self.release.wait(WAIT_S)
            self._try("model", lambda: self.inner_model.invoke("hi"))
            self._try("sub-agent", lambda: sub_agent.invoke(ASK))
            self._try("sub-agent on a loop", lambda: asyncio.run(sub_agent.ainvoke(ASK)))
            in_own_thread(lambda: self._try("own thread", lambda: self.inner_model.invoke("hi", config)))
            in_own_thread(lambda: self._try("chain in it", lambda: sub_agent.invoke(ASK, config)))
            return text

        return hang

    def _try(self, what: str, start: Callable[[], object]) -> None:
        try:
            start()
        except (GuardrailStopped, Trip) as stop:
            self.tried[what] = getattr(stop, "stop", stop).stop_reason
        else:
            self.tried[what] = "started"

    def let_go(self) -> None:
        """Release the tool and wait until everything that was left alone has ended."""
        self.release.set()
        for thread in self.threads:
            thread.join(WAIT_S)


def _of_this_run() -> set[threading.Thread]:
    run = current_run()
    assert run is not None
    return {thread for thread in threading.enumerate() if thread.name == f"runrails-{run.id}"}


def flat(script: Any) -> ScriptedChatModel:
    """A model at one cent a call."""
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)


def spent(guard: Guard) -> tuple[int, int]:
    """What the guard's user has spent and holds."""
    found = guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock())))
    return found.spent, found.held


def hang(mode: str, guard: Guard, agent: Any) -> Outcome:
    """Call the agent in one of the modes until it is left alone."""
    supervisor = guard.supervise(agent)
    if mode == "invoke":
        return supervisor.invoke(ASK, THREAD)
    if mode == "batch":
        return supervisor.batch([ASK], THREAD)[0]
    stream = supervisor.stream(ASK, THREAD)
    for _ in stream:
        pass
    return stream.outcome


EVERYTHING = ("model", "sub-agent", "sub-agent on a loop", "own thread", "chain in it")


@pytest.mark.parametrize("kind", ["agent", "middleware", "own nodes"])
@pytest.mark.parametrize("mode", ["invoke", "stream", "batch"])
def test_an_abandoned_tool_starts_nothing_in_a_resumed_run(mode: str, kind: str) -> None:
    """Models, sub-agents, other threads; and the conversation that went on keeps what it has."""
    with rr_lc.make_guard(Limits(seconds=1, loops=None)) as guard:
        late = Late(guard, kind)
        outcome = hang(mode, guard, late.agent)
        assert ("limit_reached", True) == (outcome.stop_reason, outcome.abandoned)

        supervisor = guard.supervise(late.agent)
        again = supervisor.resume(outcome, limits=MORE)
        assert ("Finished.", None) == (again.answer, again.stop_reason)
        saved = late.agent.get_state(THREAD).values["messages"]
        late.let_go()

        assert dict.fromkeys(EVERYTHING, "limit_reached") == late.tried
        assert (2, 0, 2, 1) == (
            late.model.calls, late.inner_model.calls, again.run.report().model_calls, again.run.report().tool_calls,
        )  # fmt: skip
        assert (2 * CENT, 0) == spent(guard)
        assert saved == late.agent.get_state(THREAD).values["messages"]
        assert [] == rr_history.problems(saved)
        assert "Finished." == supervisor.invoke({"messages": [HumanMessage("And now?")]}, THREAD).answer
        assert {} == dict(tracker_of(guard)._tools)


def test_released_while_the_resumed_call_is_in_its_model_it_disturbs_nothing() -> None:
    """Both are in the same run and conversation for a moment."""
    with rr_lc.make_guard(Limits(seconds=1, loops=None)) as guard:
        late = Late(guard, "own nodes")
        outcome = hang("invoke", guard, late.agent)
        late.before_answering = late.let_go
        again = guard.supervise(late.agent).resume(outcome, limits=MORE)

        assert ("Finished.", None, 2) == (again.answer, again.stop_reason, again.report.model_calls)
        assert dict.fromkeys(EVERYTHING, "limit_reached") == late.tried
        saved = late.agent.get_state(THREAD).values["messages"]
        assert ["human", "ai", "tool", "ai"] == [message.type for message in saved]
        assert [] == rr_history.problems(saved)


async def test_an_agent_that_ignores_its_cancellation_saves_nothing() -> None:
    """Its tool swallows the cancellation; released after the resume it ends without a trace."""
    release = asyncio.Event()
    calls = 0

    @tool
    async def hang(text: str) -> str:
        """Hang."""
        nonlocal calls
        calls += 1
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return text

    def script(messages: Sequence[BaseMessage]) -> Any:
        if any(isinstance(message, ToolMessage) for message in messages):
            return Text("Finished.")
        return ToolCalls([ToolUse("hang", {"text": "x"})], text="On it.")

    model = flat(script)
    agent = create_agent(model, [hang], checkpointer=InMemorySaver())
    with rr_lc.make_guard(Limits(seconds=1, loops=None)) as guard:
        supervisor = guard.supervise(agent)
        outcome = await supervisor.ainvoke(ASK, THREAD)
        again = await supervisor.aresume(outcome, limits=MORE)
        assert ("limit_reached", "Finished.") == (outcome.stop_reason, again.answer)
        before = (await agent.aget_state(THREAD)).values["messages"]
        release.set()
        for _ in range(50):
            await asyncio.sleep(0.002)

        assert before == (await agent.aget_state(THREAD)).values["messages"]
        assert isinstance(before[-1], AIMessage)
        assert (1, 2, (2 * CENT, 0)) == (calls, model.calls, spent(guard))


@pytest.mark.parametrize("covered", [False, True])
def test_a_wrapped_client_in_abandoned_code_sends_nothing(covered: bool) -> None:
    """Neither by a permit of its own nor under one that a layer above had asked for before the time was up."""
    with World(limits=Limits(seconds=1, loops=None)) as world:
        client, release, over, late = world.openai(), threading.Event(), threading.Event(), []
        calls = 0

        def works() -> str:
            nonlocal calls
            calls += 1
            if calls > 1:
                return "done"
            from runrails.calls import ModelCall, ModelResult, Prompt

            run = current_run()
            assert run is not None
            permit = None
            if covered:
                permit = run.before_model(
                    ModelCall(model=MODEL, prompt=Prompt(texts=("hi",), messages=1), max_tokens=9)
                )
            release.wait(WAIT_S)
            try:
                client.chat.completions.create(model=MODEL, messages=HI, max_tokens=9)
            except GuardrailStopped as stop:
                late.append(stop.stop_reason)
            if permit is not None:
                run.after_model(permit, ModelResult(end="failed"))
            over.set()
            return "late"

        supervisor = world.guard.supervise(works)
        again = supervisor.resume(supervisor.invoke(), limits=MORE)
        release.set()
        assert over.wait(WAIT_S)
        assert ("done", None, ["limit_reached"]) == (again.answer, again.stop_reason, late)
        world.untouched()


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "astream"])
def test_a_synchronous_tool_that_hangs_keeps_up_no_process(mode: str) -> None:
    """Neither LangGraph's threads nor asyncio's: it runs in one of ours, and the outcome says that it was left."""
    script = f"""
        import asyncio, threading
        from langchain.agents import create_agent
        from langchain_core.tools import tool
        from runrails import Guard, Limits
        from runrails.testing import PRICES, ScriptedChatModel, ToolCalls, ToolUse

        @tool
        def hang(text: str) -> str:
            \"\"\"Hang.\"\"\"
            threading.Event().wait()
            return text

        async def stream(supervisor):
            async with supervisor.astream(ask) as stream:
                async for _ in stream:
                    pass
            return stream.outcome

        model = ScriptedChatModel(ToolCalls([ToolUse("hang", {{"text": "x"}})]), model_name="fake-flat", max_tokens=9)
        guard = Guard(Limits(seconds=1), store="memory:", sinks=(), prices=PRICES)
        supervisor, ask = guard.supervise(create_agent(model, [hang])), {{"messages": [("user", "go")]}}
        call = dict(invoke=lambda: supervisor.invoke(ask), ainvoke=lambda: asyncio.run(supervisor.ainvoke(ask)),
                    astream=lambda: asyncio.run(stream(supervisor)))
        outcome = call["{mode}"]()
        print(outcome.stop_reason, outcome.abandoned, flush=True)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert ("limit_reached True\n", "") == (ended.stdout, ended.stderr)
