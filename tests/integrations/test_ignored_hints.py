"""A scripted model that would ignore fifty hints in a row is stopped all the same, whoever gives the hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, ToolMessage

import rr_lc
from rr_lc import Starts, Text, ToolCalls, ToolUse
from runrails import Guard, Limits
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailMiddleware

HINTS = 50
TURNS = 6 * HINTS
"""After so many it gives up, so that a test that finds no stop ends by itself."""
LAYERS = ("middleware", "supervisor", "supervisor+middleware")


def deaf(starts: Starts, *, moves: bool) -> ScriptedChatModel:
    """
    A model that takes no hint, and would ignore far more than fifty.

    It asks for the very same call each time; or, if it `moves`, for another one after each hint, so that every single
    call stays below what is blocked.
    """

    def answer(messages: Sequence[BaseMessage]) -> Any:
        starts.add("model")
        hints = sum("Suggestion" in message.text for message in messages if isinstance(message, ToolMessage))
        if starts.models > TURNS:
            return Text("I have ignored them all.")
        return ToolCalls([ToolUse("classify", {"text": f"review {hints if moves else 0}"})], text="Again.")

    return ScriptedChatModel(answer, model_name="fake-flat", max_tokens=100)


def drive(layer: str, mode: str, guard: Guard, model: ScriptedChatModel, starts: Starts) -> None:
    """Run the agent to its end."""
    ours = [GuardrailMiddleware(guard)] if "middleware" in layer else []
    agent: Any = rr_lc.create_agent(model, [rr_lc.fails_softly(starts)], middleware=ours)
    if "supervisor" in layer:
        agent = guard.supervise(agent)
    rr_lc.drive(mode, agent, rr_lc.question(rr_lc.agent_plain), {"recursion_limit": 2_000})


@pytest.mark.parametrize("mode", rr_lc.MODES)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_same_call_again_and_again_gets_one_hint_and_one_block(layer: str, mode: str) -> None:
    """Four executions, one model call after the block, and the end."""
    starts, recorder = Starts(), rr_lc.Recorder()
    with rr_lc.make_guard(Limits(run="100"), sinks=[recorder]) as guard:
        drive(layer, mode, guard, deaf(starts, moves=False), starts)
        (run,) = guard.store.runs()  # type: ignore[attr-defined]

    assert {"classify review 0": 4} == dict(starts.executions)
    assert (6, "loop_detected") == (starts.models, run.stop_reason)
    assert (1, 1) == (run.report["hints"], run.report["blocks"])


@pytest.mark.parametrize("mode", ["invoke", "astream"])
@pytest.mark.parametrize("layer", LAYERS)
def test_another_call_after_each_hint_comes_to_an_end_too(layer: str, mode: str) -> None:
    """Each is made until the hint comes, and none brings anything: after five of them the tool is blocked."""
    starts = Starts()
    with rr_lc.make_guard(Limits(run="100")) as guard:
        drive(layer, mode, guard, deaf(starts, moves=True), starts)
        (run,) = guard.store.runs()  # type: ignore[attr-defined]

    assert "loop_detected" == run.stop_reason
    assert {f"classify review {n}": 3 for n in range(5)} == starts.executions
    assert (5, 1) == (run.report["hints"], run.report["blocks"])


def test_the_model_would_go_on_by_itself() -> None:
    """What is stopped above would not have stopped."""
    for moves in (False, True):
        starts = Starts()
        agent = rr_lc.create_agent(deaf(starts, moves=moves), [rr_lc.fails_softly(starts)])
        agent.invoke(rr_lc.question(rr_lc.agent_plain), {"recursion_limit": 2_000})
        assert starts.models > TURNS
