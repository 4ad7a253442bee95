"""hermes-agent, September 2026: the same malformed call 85 times, warned about each time."""

from __future__ import annotations

from runrails.demo.incidents.values import Growth, Incident, Source, words

__all__ = ["HERMES"]

GROWTH = Growth(base_tokens=6_000, step_tokens=120, output_tokens=90, cached=True)

HERMES = Incident(
    name="hermes-identical-calls",
    title="hermes-agent: 85 identical calls, each of them warned about",
    reported=(
        "In one of 16 measured runs the model sent the same malformed tool call 85 times in a row. Every failure came "
        "back with a warning and a running count, and changed nothing; the run ended at its limit of 90 turns."
    ),
    sources=(
        Source(
            url="https://github.com/NousResearch/hermes-agent/issues/67829",
            date="2026-09-06",
            says="a comment with the 85 calls (v0.20.4, Ornith-1.5-35B-A3B); the issue itself, of 2026-07-20, has 25 "
            "such calls in 6 minutes with kimi-k2.7-code",
        ),
        Source(
            url="https://github.com/NousResearch/hermes-agent/issues/112535",
            date="2026-09-16",
            says="the same call about 500 times: the hard stop was there, and off by default",
        ),
    ),
    executor="sdk_tools",
    model="kimi-k2.7-code",
    provider="moonshotai",
    growth=GROWTH,
    calls_full=90,
    calls_full_are="the limit of 90 turns that ended it",
    calls_played=90,
    ours=(
        "The model of the 85 calls ran on its owner's server; the price is that of kimi-k2.7-code, the model of the "
        "issue's first report. The sizes (6,000 tokens at first, 120 more a step) are ours."
    ),
    tool="tool_call",
    args={"args": "--help"},
    result=words(GROWTH.step_tokens, '{"error": "the argument \'name\' is missing"} '),
    notice="Warning: this call has failed {number} times with the same arguments; change your approach.",
    thoughts=(
        "I should not repeat this. Let me change my approach.",
        "The warning is right; now differently.",
        "I see the problem and will correct the call.",
        "This time with the right arguments.",
        "I will stop repeating myself.",
    ),
    system=words(GROWTH.base_tokens, "You are an assistant with tools behind a gateway. "),
    task="Find out what the search backend can do.",
    guard_lines="client = guard.wrap(client)   # and run.before_tool(…), run.after_tool(…) around the tools",
)
"""A loop over an SDK that asks the guard before its tools: the fifth call is answered in the tool's place."""
