"""An audit takes the rules of tools that a guard takes."""

from __future__ import annotations

import json

from rr_audit import NOW_MS, asks, auditor
from runrails.audit import Auditor, RunAudit
from runrails.loops import ToolRule

EXCUSES = [
    message
    for place in range(1, 15)
    for message in (
        asks(place, name="classify", args=json.dumps({"review": "R3", "reason": "again " * place})),
        {"role": "tool", "tool_call_id": f"call_{place}", "content": "no result"},
    )
]
"""One call, with another reason each time."""


def judged(judge: Auditor) -> RunAudit:
    [answer] = judge.lines([json.dumps({"id": "r1", "messages": EXCUSES})], source="runs")
    assert isinstance(answer, RunAudit)
    return answer


def test_a_loop_key_tells_which_calls_are_the_same() -> None:
    """Without it each reason makes another call, which is stopped much later, by what they have in common."""
    rule = ToolRule(loop_key=lambda args: args["review"])  # type: ignore[index]

    assert 5 == judged(Auditor.at(NOW_MS, tools={"classify": rule})).stop_at
    assert 5 < (judged(auditor()).stop_at or 99)


def test_a_poll_that_is_named_goes_before_the_tool_s_rule() -> None:
    """`--poll` and `poll_tools` in a recording say it of one tool in particular."""
    rules = {"classify": ToolRule(loop_key=lambda _: "same")}

    assert judged(Auditor.at(NOW_MS, tools=rules, poll_tools=["classify"])) == judged(auditor("classify"))


def test_an_auditor_keeps_rules_of_its_own() -> None:
    """Whatever becomes of the mapping it was given."""
    rules: dict[str, ToolRule] = {}
    judge = Auditor.at(NOW_MS, tools=rules)
    rules["classify"] = ToolRule(loop_key=lambda _: "same")

    assert {} == judge.tools
