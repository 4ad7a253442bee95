"""The detector over recorded runs of a real agent; read where they are kept, skipped where they are not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from runrails.calls import Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "react-hotpotqa.jsonl"


def replay(messages: list[dict[str, Any]]) -> tuple[int | None, int | None]:
    """The tool result, from 1, at which a run gets its first hint and its stop by the callback alone."""
    detector = LoopDetector()
    calls: dict[str, ToolCall] = {}
    hint_at = stop_at = None
    results = answers = 0
    for message in messages:
        if message["role"] == "assistant":
            answers += 1
            for asked in message.get("tool_calls") or ():
                function = asked["function"]
                calls[asked["id"]] = ToolCall(
                    name=function["name"], args=function["arguments"], id=asked["id"], batch=answers
                )
        elif message["role"] == "tool":
            results += 1
            call = calls[message["tool_call_id"]]
            if isinstance(detector.before_tool(call, can_block=False), Stop):
                break
            outcome = ToolOutcome(ok=message.get("status") != "error", result=message["content"])
            found = detector.after_tool(call, outcome, can_block=False)
            if found is not None and found.level == "hint":
                hint_at = hint_at or results
            elif found is not None:
                stop_at = stop_at or results
    return hint_at, stop_at


@pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded runs are not here: {RECORDED}")
def test_recorded_runs_that_succeeded_are_left_alone_and_loops_get_their_hint() -> None:
    """No success is stopped, at most 2 % get a hint; each known loop gets one by its third repetition. Under 10 s."""
    runs = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    began = time.thread_time()  # what this thread worked, not what else the machine did
    verdicts = [(run, *replay(run["messages"])) for run in runs]
    seconds = time.thread_time() - began
    successes = [(hint, stop) for run, hint, stop in verdicts if run["outcome"] == "success"]
    assert [stop for _, stop in successes if stop is not None] == []
    assert 100 * sum(hint is not None for hint, _ in successes) <= 2 * len(successes)
    loops = [(run["loop_at"], hint) for run, hint, _ in verdicts if run["loop_at"] is not None]
    assert len(loops) == 20
    assert [pair for pair in loops if pair[1] is None or pair[1] > pair[0]] == []
    assert seconds < 10
