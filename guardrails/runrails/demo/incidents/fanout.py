"""Claude Code's Workflow tool, July 2026: 98 planned agents became 1,000."""

from __future__ import annotations

from runrails.demo.incidents.values import Growth, Incident, Source, words

__all__ = ["FAN_OUT"]

GROWTH = Growth(base_tokens=8_000, step_tokens=0, output_tokens=642, cached=False)

FAN_OUT = Incident(
    name="fan-out",
    title="A parallel fan-out: 98 planned agents, 1,000 started",
    reported=(
        "A workflow planned about 98 sub-agents in 14 parallel chunks. Rate limits made them fail, what failed was "
        "started anew (the list of failures runs to number 2,760), and the hard cap of 1,000 agents ended it: "
        "8,641,786 tokens in 226 seconds, nothing usable."
    ),
    sources=(
        Source(
            url="https://github.com/anthropics/claude-code/issues/72672",
            date="2026-07-01",
            says="the numbers above",
        ),
        Source(
            url="https://github.com/anthropics/claude-code/issues/81351",
            date="2026-07-26",
            says="another: 1,000 agents, 13 million tokens; a list had arrived as text and was read by its letters",
        ),
        Source(
            url="https://github.com/laurigates/claude-plugins/issues/2670",
            date="2026-09-16",
            says="what such a thing costs: 496 sub-agents in one session, $528",
        ),
    ),
    executor="fan_out",
    model="gpt-5",
    provider="openai",
    growth=GROWTH,
    calls_full=1_000,
    calls_full_are="the agents that were started, one call each",
    calls_played=280,
    ours=(
        "One call of 8,642 tokens stands for an agent (8,641,786 / 1,000); how they split, and gpt-5's price, are "
        "ours: the report has no dollars."
    ),
    tool="fetch",
    args={"citation": "…"},
    result="rate limited",
    thoughts=("The source is rate limited. I could not check this citation.",),
    system=words(GROWTH.base_tokens, "You check one citation against its source. "),
    task="Check citation",
    guard_lines="client = guard.wrap(client)\npool.map(guard.bind(check), citations)",
)
"""Nothing repeats here, so no loop detector can help: fourteen threads, and one budget that none of them overshoots."""
