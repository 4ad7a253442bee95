"""Streams of LangChain that come to more than was held for: the hold grows; a token is never where a run stops."""

from __future__ import annotations

from typing import Any

import pytest

import rr_lc
from runrails import BudgetExceeded, Guard, Limits
from runrails.ledger import RUN_PERIOD, Account
from runrails.run import Run
from runrails.testing import ScriptedChatModel
from runrails.testing.provider import Text, ToolCalls, ToolUse
from runrails.usage import Usage
from runrails_langchain import GuardrailCallbackHandler

LONG = "0123456789" * 400
ANSWER = Text(LONG, usage=Usage(input_tokens=20, output_tokens=len(LONG)), ignores_max_tokens=True, chunks=100)
CAP = 100


def held(guard: Guard, run: Run) -> int:
    """What the run holds."""
    return guard.store.balance(Account(f"run:{run.id}", RUN_PERIOD)).held


def holds_of(guard: Guard, run: Run, stream: Any) -> list[int]:
    """What is held after each chunk."""
    return [held(guard, run) for _ in stream]


def model_of(answer: Any, **options: Any) -> ScriptedChatModel:
    """A model that streams."""
    return ScriptedChatModel(answer, **options)


def test_hold_grows_with_an_answer_that_ignores_the_cap() -> None:
    """What was reported replaces it at the end, without an overrun."""
    recorder = rr_lc.Recorder()
    guard = rr_lc.make_guard(sinks=[recorder])
    with guard.run() as run:
        holds = holds_of(guard, run, model_of(ANSWER, max_tokens=CAP).stream("hello"))
        assert holds[0] < max(holds)
    assert (0, 1) == (held(guard, run), len(run.report().rows))
    assert ("hold_raised" in recorder.names(), "bound_violated" in recorder.names()) == (True, False)


async def test_hold_grows_on_an_event_loop_and_for_two_handlers() -> None:
    """Two handlers of one guard hear every token, which counts once."""
    guard = rr_lc.make_guard()
    model = model_of(Text("0123456789" * 79, chunks=79, ignores_max_tokens=True), max_tokens=CAP)
    handlers = [GuardrailCallbackHandler(guard), GuardrailCallbackHandler(guard)]
    async with guard.run() as run:
        holds = [held(guard, run) async for _ in model.astream("hello", {"callbacks": handlers})]
    assert 1 == len(set(holds[:-1]))
    model = model_of(ANSWER, max_tokens=CAP)
    async with guard.run() as run:
        holds = [held(guard, run) async for _ in model.astream("hello", {"callbacks": handlers})]
    assert holds[0] < max(holds)


def test_tool_calls_count_as_well() -> None:
    """The arguments of a tool call come in pieces without a text."""
    guard = rr_lc.make_guard()
    call = ToolCalls([ToolUse("weather", {"city": LONG})], ignores_max_tokens=True)
    with guard.run() as run:
        holds = holds_of(guard, run, model_of(call, max_tokens=CAP).stream("hello"))
    assert holds[0] < max(holds)


def test_answer_is_not_broken_off_for_lack_of_money() -> None:
    """A callback can close nothing: the answer comes whole, is recorded in full, and the next call is refused."""
    recorder = rr_lc.Recorder()
    guard = rr_lc.make_guard(Limits(run="0.01"), sinks=[recorder])
    model = model_of(ANSWER, max_tokens=CAP)
    with pytest.raises(BudgetExceeded), guard.run() as run:
        text = "".join(str(chunk.content) for chunk in model.stream("hello"))
        assert (LONG, None) == (text, run.stop_reason)
        assert model.bill.total_pusd() == run.report().cost_pusd > 10**10
        model.invoke("hello")
    assert (1, 0, "budget_exceeded") == (model.calls, held(guard, run), run.stop_reason)
    assert "bound_violated" in recorder.names()


def test_cut_stream_that_has_passed_its_hold_is_charged_for_what_came() -> None:
    """The hold is no bound of what came any more."""
    guard = rr_lc.make_guard(Limits(run="0.01"))
    model = model_of(ANSWER, max_tokens=CAP)
    with guard.run() as run:
        stream: Any = model.stream("hello")
        for _, _ in zip(range(60), stream, strict=False):
            pass
        stream.close()
    assert (True, 0) == (model.bill.total_pusd() <= run.report().cost_pusd, held(guard, run))
    assert 10**10 < run.report().cost_pusd
