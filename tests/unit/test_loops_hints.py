"""Hints are given for what has just counted, once; a row of them that nothing comes of leads to a block and a stop."""

from __future__ import annotations

import pytest

from runrails.calls import Block, Finding, Proceed, Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector

NOTHING = ToolOutcome(ok=True, result="no result")
FINE = ToolOutcome(ok=True, result="The review is positive.")


def ask(detector: LoopDetector, text: str, outcome: ToolOutcome = NOTHING, *, can_block: bool = True) -> str:
    """One attempt: what was said of it."""
    call = ToolCall(name="classify", args={"text": text})
    verdict = detector.before_tool(call, can_block=can_block)
    if not isinstance(verdict, Proceed):
        return "block" if isinstance(verdict, Block) else "stop"
    found = detector.after_tool(call, outcome, can_block=can_block)
    return found.level if isinstance(found, Finding) else "-"


@pytest.mark.parametrize("can_block", [True, False])
def test_a_look_up_of_something_new_gets_no_hint_for_what_others_did(can_block: bool) -> None:
    """After four items that were tried again in vain, fifty more are each looked up once: nothing to tell."""
    detector = LoopDetector()
    for item in range(4):
        assert ["-", "-", "hint"] == [ask(detector, f"review {item}", can_block=can_block) for _ in range(3)]
    assert ["-"] * 50 == [ask(detector, f"review {item}", can_block=can_block) for item in range(100, 150)]
    assert "-" == ask(detector, "review 200", FINE, can_block=can_block)


def test_another_call_after_each_hint_is_blocked_and_stopped() -> None:
    """Five in a row, each tried in vain until the hint came: the same failure ten times, whatever the input."""
    detector = LoopDetector()
    hints = attempts = 0
    said: list[str] = []
    while not said or said[-1] != "stop":
        said.append(ask(detector, f"review {hints}"))
        hints += said[-1] == "hint"
        attempts += 1
        assert attempts <= 200
    assert ["block", "stop"] == said[-2:]
    assert (5, 15) == (hints, attempts - 2)


def test_a_success_between_lets_a_job_go_on_for_ever() -> None:
    """Items that are tried three times in vain are work, as long as others succeed."""
    detector = LoopDetector()
    for item in range(100):
        said = [ask(detector, f"review {item}") for _ in range(3)]
        assert ["-", "-", "hint"] == said
        assert "-" == ask(detector, f"good review {item}", ToolOutcome(ok=True, result=f"{item} is fine"))


def test_a_stop_of_the_same_failure_is_told_with_the_result_that_counted() -> None:
    """Where nothing can be blocked the tenth result calls for the stop, and nothing starts after it."""
    detector = LoopDetector()
    said = [ask(detector, f"review {item // 3}", can_block=False) for item in range(16)]
    assert (["hint"] * 4, "stop", "stop") == ([said[i] for i in (2, 5, 8, 11)], said[14], said[15])
    assert isinstance(detector.before_model(can_block=False), Stop)
