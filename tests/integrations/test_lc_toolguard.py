"""Tools that ask the guard: hints and blocks wherever they are called inside a run, and plain tools anywhere else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import BaseTool, tool

import rr_lc
from rr_lc import Starts
from runrails import LimitReached, Limits
from runrails.loops.explain import MARK
from runrails_langchain import GuardrailCallbackHandler, guard_tools
from runrails_langchain.toolguard import ToolGuard

ASK = {"text": "x"}
CALL: Any = {"name": "classify", "args": ASK, "id": "c", "type": "tool_call"}


class Counter(BaseTool):
    """A tool of a class of its own, with a state that its owner looks at."""

    name: str = "count"
    description: str = "Count."
    calls: int = 0

    def _run(self, text: str) -> str:
        self.calls += 1
        return "no result"


def ways(guarded: BaseTool) -> dict[str, Any]:
    """Every way to call a tool without a call's id."""
    return {
        "invoke": lambda: guarded.invoke(ASK), "run": lambda: guarded.run(ASK),
        "ainvoke": lambda: asyncio.run(guarded.ainvoke(ASK)), "arun": lambda: asyncio.run(guarded.arun(ASK)),
        "chain": lambda: (RunnableLambda(lambda x: x) | guarded).invoke(ASK),
        "config": lambda: guarded.with_config({"tags": ["x"]}).invoke(ASK),
    }  # fmt: skip


@pytest.mark.parametrize("way", ["invoke", "run", "ainvoke", "arun", "chain", "config"])
def test_a_call_that_keeps_failing_is_hinted_at_and_blocked(way: str) -> None:
    """The hint comes with the third result, the fifth call is answered in the tool's place, the sixth one as well."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        call = ways(guard_tools(guard, [rr_lc.fails_softly(starts)])[0])[way]
        with guard.run() as run:
            results = [call() for _ in range(6)]
            stopped = run.stopped

    assert ["no result"] * 2 == results[:2]
    assert results[2].startswith(f"no result\n\n{MARK}")
    assert "no result" == results[3]
    assert all(result.startswith(MARK) for result in results[4:])
    assert (4, 4, 1, 1) == (
        sum(starts.executions.values()), run.report().tool_calls, run.report().hints, run.report().blocks,
    )  # fmt: skip
    assert stopped is not None


def test_with_the_calls_id_the_answer_is_a_message() -> None:
    """As a tool node expects it."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        (guarded,) = guard_tools(guard, [rr_lc.fails_softly(starts)])
        with guard.run():
            results = [guarded.invoke({**CALL, "id": str(n)}) for n in range(5)]

    assert all(isinstance(result, ToolMessage) for result in results)
    assert [str(n) for n in range(5)] == [result.tool_call_id for result in results]
    assert ["success"] * 4 + ["error"] == [result.status for result in results]
    assert MARK in results[2].text


@pytest.mark.parametrize("way", ["invoke", "run", "ainvoke", "arun", "chain", "config"])
def test_outside_a_run_it_is_the_tool_it_was(way: str) -> None:
    """And so is the original inside one."""
    starts = Starts()
    original = rr_lc.fails_softly(starts)
    with rr_lc.make_guard() as guard, rr_lc.make_guard() as other:
        call = ways(guard_tools(guard, [original])[0])[way]
        assert ["no result"] * 9 == [call() for _ in range(9)]
        with other.run(limits=Limits(loops=None)):
            assert ["no result"] * 3 == [ways(original)[way]() for _ in range(3)]
    assert 12 == sum(starts.executions.values())


def test_a_tool_keeps_its_state_its_name_and_its_errors() -> None:
    """The tool itself does the work; its copy only asks."""
    mine = Counter()
    with rr_lc.make_guard() as guard:
        (guarded,) = guard_tools(guard, [mine])
        with guard.run():
            assert "no result" == guarded.invoke(ASK)
        assert (1, "count", "Count.", mine.args) == (mine.calls, guarded.name, guarded.description, guarded.args)
        assert isinstance(guarded, Counter)

        (failing,) = guard_tools(guard, [rr_lc.raises(Starts())])
        with guard.run() as run, pytest.raises(OSError, match="the service is down"):
            failing.invoke(ASK)
        assert 1 == run.report().tool_calls


def test_what_a_user_is_given_as_it_is_gets_no_hint() -> None:
    """A tool whose result is the answer."""

    @tool(return_direct=True)
    def answer(text: str) -> str:
        """Answer."""
        return "no result"

    with rr_lc.make_guard() as guard:
        (guarded,) = guard_tools(guard, [answer])
        with guard.run():
            assert ["no result"] * 4 == [guarded.invoke(ASK) for _ in range(4)]


def test_with_a_bare_callback_around_it_the_chain_goes_on() -> None:
    """The handler alone would stop after the fifth; tools that ask are answered."""
    starts = Starts()
    with rr_lc.make_guard() as guard:
        (guarded,) = guard_tools(guard, [rr_lc.fails_softly(starts)])

        def five(_: Any) -> list[str]:
            return [str(guarded.invoke(ASK)) for _ in range(5)]

        results = RunnableLambda(five).invoke({}, {"callbacks": [GuardrailCallbackHandler(guard)]})
    assert (4, True) == (sum(starts.executions.values()), results[4].startswith(MARK))


def test_observing_answers_nothing() -> None:
    """Every call is executed and nothing is added."""
    starts = Starts()
    with rr_lc.make_guard(mode="observe") as guard:
        (guarded,) = guard_tools(guard, [rr_lc.fails_softly(starts)])
        with guard.run():
            assert ["no result"] * 9 == [guarded.invoke(ASK) for _ in range(9)]


def test_what_holds_no_tools_stays_the_very_same() -> None:
    """No copies of what need not be changed."""
    looker = ToolGuard(rr_lc.make_guard())
    chain = RunnableLambda(lambda x: x) | RunnableLambda(lambda x: x)
    for executor in (
        chain,
        chain.with_config({"tags": ["x"]}),
        RunnableParallel(a=chain),
        print,
        rr_lc.stubborn(Starts()),
    ):
        assert executor is looker.inside(executor)


def test_the_time_of_a_run_ends_a_tool_that_hangs() -> None:
    """In a loop of one's own as well, without a supervisor."""
    release, starts = threading.Event(), Starts()

    @tool
    def hang(text: str) -> str:
        """Hang."""
        starts.add("hang")
        release.wait(30)
        return text

    with rr_lc.make_guard(Limits(seconds=1)) as guard:
        (guarded,) = guard_tools(guard, [hang])
        with pytest.raises(LimitReached), guard.run():
            guarded.invoke(ASK)
        release.set()
    assert ["hang"] == starts.order
