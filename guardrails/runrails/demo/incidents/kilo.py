"""Kilo Code, September 2026: one blocked tool call, asked for again for most of a day."""

from __future__ import annotations

from runrails.demo.incidents.values import Growth, Incident, Source, words

__all__ = ["KILO"]

GROWTH = Growth(base_tokens=21_000, step_tokens=267, output_tokens=1_095, cached=True)

KILO = Incident(
    name="kilo-blocked-call",
    title="Kilo Code: a blocked tool call, 3,673 paid steps",
    reported=(
        "In one session every tool call was blocked by a permission hook, and each block was answered with another "
        "paid step that carried the whole history: 3,673 steps in 14.7 hours, 1.877 billion tokens read from the "
        "cache, $626.34."
    ),
    sources=(
        Source(
            url="https://github.com/Kilo-Org/kilocode/issues/13772",
            date="2026-09-04",
            says="the numbers above; Kilo Code 7.5.9, moonshotai/kimi-k3, no cap on steps, errors or cost in a turn",
        ),
    ),
    executor="sdk",
    model="kimi-k3",
    provider="moonshotai",
    growth=GROWTH,
    calls_full=3_673,
    calls_full_are="the steps that were reported",
    calls_played=40,
    ours=(
        "The even growth (21,000 tokens at first, 267 more a step) and 1,095 output tokens a step are ours, chosen so "
        "that the reported tokens and dollars come out at kimi-k3's price."
    ),
    tool="run_command",
    args={"command": "npm test"},
    result=words(GROWTH.step_tokens, "Blocked: a hook of this project does not allow this command. "),
    thoughts=(
        "The command was blocked. I will try it again.",
        "Blocked once more; perhaps the hook lets it pass now.",
        "I still need the tests, so I run them again.",
        "Another attempt at the tests.",
    ),
    system=words(GROWTH.base_tokens, "You are a coding agent. Run the tests before you finish. "),
    task="Please make the tests pass.",
    guard_lines="client = guard.wrap(client)",
)
"""A loop over an SDK: the wrapped client sees no tools, so the default budget of $1 is what ends it."""
