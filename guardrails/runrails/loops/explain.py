"""
What the detector says: one text for the model, one for people.

The model's text is short and advisory, says what to deliver, and never asks for the same call again; a forbidding tone
reads as an injection and is ignored. Both hold counts and names only.
"""

from __future__ import annotations

from typing import Literal

from runrails.calls import Finding
from runrails.loops.digest import hex64

__all__ = ["MARK", "explain", "plain_name", "without_advice"]

MARK = "[runrails]"
"""How every text for the model begins."""
NAME_CHARS = 64
ADVICE_CHARS_MAX = 1_000

Level = Literal["hint", "block", "stop"]


def explain(
    *,
    level: Level,
    rule: str,
    tool: str,
    agent: str,
    count: int,
    threshold: int,
    steps: tuple[int, int],
    keys: tuple[int, int],
) -> Finding:
    """A finding with both texts. `steps`: first and last tool result; `keys`: fingerprints of call and outcome."""
    tool, agent = plain_name(tool), plain_name(agent)
    return Finding(
        level=level, rule=rule, tool=tool, agent=agent, count=count, threshold=threshold,
        first_step=steps[0], last_step=steps[1], call_fingerprint=hex64(keys[0]), outcome_fingerprint=hex64(keys[1]),
        for_model=_for_model(level, rule, tool, count),
        what_happened=_what_happened(level, rule, tool, agent, count, threshold, steps),
        how_to_allow=_how_to_allow(rule, tool, threshold),
    )  # fmt: skip


def plain_name(name: str) -> str:
    """A tool's or agent's name fit for a line of text: printable and at most 64 characters."""
    if len(name) <= NAME_CHARS and name.isascii() and name.isprintable():
        return name
    return "".join(char if char.isprintable() else "?" for char in name[:NAME_CHARS])


def without_advice(text: str) -> str:
    """A tool result without the advice of ours that an adapter put at its end."""
    at = text.rfind(f"\n{MARK}", max(0, len(text) - ADVICE_CHARS_MAX))
    return text if at < 0 else text[:at]


def _for_model(level: Level, rule: str, tool: str, count: int) -> str:
    seen = {
        "repeated_failure": f"`{tool}` has now failed or come back empty {count} times for the same input.",
        "repeated_result": f"`{tool}` has now given the same result {count} times for the same input.",
        "poll": f"`{tool}` has reported the same state {count} times.",
        "same_failure": f"`{tool}` has now answered {count} calls with the same failure, whatever the input.",
        "no_progress": f"The last {count} tool results held nothing that was not known before.",
        "batch": f"This answer holds the same call of `{tool}` more than {count} times; the first ones are enough.",
    }[rule]
    if level == "hint":
        return (
            f"{MARK} {seen} The answer is unlikely to change, so it can be taken as final. "
            "Suggestion: record this item as unresolved and go on with the next one, use a different tool or input, "
            "or write the final answer from what is known and say what is missing."
        )
    done = "The call was not executed." if level == "block" else "The run ends here."
    return (
        f"{MARK} {seen} {done} Please take the last result as final: write the final answer "
        "from what is known so far, and name this item as unresolved."
    )


def _what_happened(
    level: Level,
    rule: str,
    tool: str,
    agent: str,
    count: int,
    threshold: int,
    steps: tuple[int, int],
) -> str:
    what = {
        "repeated_failure": f"failed or came back empty {count} times in the same way for the same arguments",
        "repeated_result": f"gave the same result {count} times for the same arguments, with nothing new between",
        "poll": f"is declared as a poll and reported the same state {count} times",
        "same_failure": f"gave the same failure {count} times for different arguments",
        "no_progress": f"was the last of {count} calls that brought nothing new",
        "batch": f"was asked for more than {count} times with the same arguments in one answer of the model",
    }[rule]
    done = {"hint": "The model was told.", "block": "The call was not executed.", "stop": "The run was stopped."}[level]
    who = f" of agent {agent!r}" if agent else ""
    where = f"tool results {steps[0]} to {steps[1]}" if steps[1] > steps[0] else f"tool result {steps[1]}"
    return f"Tool {tool!r}{who} {what} ({where}; rule {rule}, threshold {threshold}). {done}"


def _how_to_allow(rule: str, tool: str, threshold: int) -> str:
    raised = threshold * 2
    if rule == "poll":
        return f"raise Limits(loops=LoopPolicy(poll_at={raised}))."
    if rule == "batch":
        return f"raise Limits(loops=LoopPolicy(batch_max={raised}))."
    if rule == "same_failure":
        return f"raise Limits(loops=LoopPolicy(same_failure_at={raised}))."
    if rule == "no_progress":
        return (
            f"raise Limits(loops=LoopPolicy(no_progress_at={raised}, no_progress_lines_at={max(60, raised)})), or say "
            f"what tells two calls apart with Guard(tools={{{tool!r}: ToolRule(loop_key=…)}})."
        )
    name = "block_at" if rule == "repeated_result" else "block_at (failure_at if other calls came between)"
    return (
        f"write Guard(tools={{{tool!r}: ToolRule(poll=True)}}), say what tells two calls or results apart with "
        f"ToolRule(loop_key=…, outcome_key=…), or raise LoopPolicy's {name}."
    )
