"""Two explanations: advice for the model, and for people what happened and how to allow it."""

from __future__ import annotations

import json
import re

import pytest

from runrails.calls import Finding, ToolCall, ToolOutcome
from runrails.loops import LoopDetector
from runrails.loops.explain import MARK, Level, explain, plain_name, without_advice

RULES = ("repeated_failure", "repeated_result", "same_failure", "no_progress", "poll", "batch")
LEVELS: tuple[Level, ...] = ("hint", "block", "stop")


def finding(rule: str, level: Level = "stop", tool: str = "classify", agent: str = "") -> Finding:
    return explain(
        level=level, rule=rule, tool=tool, agent=agent, count=5, threshold=5, steps=(3, 7), keys=(0xAB, 0xCD)
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("level", LEVELS)
def test_the_model_is_told_what_to_deliver_and_never_to_call_again(rule: str, level: Level) -> None:
    """Short, marked as ours, naming the deliverable."""
    text = finding(rule, level).for_model
    assert text.startswith(MARK)
    assert "final answer" in text
    assert "unresolved" in text
    assert len(text) < 500
    assert not re.search(r"\b(try|call|retry|run) (it |this |the \w+ )?again\b|\bretry\b", text)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("level", LEVELS)
def test_people_are_told_rule_count_steps_and_how_to_allow_it(rule: str, level: Level) -> None:
    """Everything needed to find it and to permit it."""
    found = finding(rule, level, agent="root/helper")
    for part in (f"rule {rule}", "threshold 5", "tool results 3 to 7", "'classify'", "root/helper"):
        assert part in found.for_human
    assert "00000000000000ab" == found.call_fingerprint
    assert re.search(r"LoopPolicy|ToolRule", found.for_human)
    if rule.startswith("repeated"):
        assert "poll=True" in found.for_human
        assert "loop_key" in found.for_human


def test_names_are_made_fit_for_a_line() -> None:
    """A model may call a tool anything."""
    assert plain_name("classify") == "classify"
    assert plain_name("x\ny\u202e\ud800" + "z" * 99) == "x?y??" + "z" * 59


def test_advice_is_cut_from_the_end_only() -> None:
    """A mark further in front is the tool's own text."""
    assert without_advice(f"no result\n\n{MARK} stop") == "no result\n"
    assert without_advice(f"a\n{MARK} b{'x' * 2_000}") == f"a\n{MARK} b{'x' * 2_000}"
    assert without_advice("plain") == "plain"


def test_nothing_of_arguments_or_results_is_in_findings_or_state() -> None:
    """Fingerprints and counts only, whichever rule speaks."""
    detector = LoopDetector()
    found: list[object] = []
    for i in range(12):
        call = ToolCall(
            name="lookup", args={"password": "hunter2-secret", "who": "alice@example.test"}, batch=i, id=f"c{i}"
        )
        found.append(detector.before_tool(call, can_block=True))
        found.append(detector.after_tool(call, ToolOutcome(ok=False, result="s3cr3t-result", error_type="KeyError")))
    everything = repr(found) + json.dumps(detector.state())
    for secret in ("hunter2", "alice", "s3cr3t", "password"):
        assert secret not in everything
