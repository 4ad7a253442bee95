"""LangChain, April 2026: `create_agent` may take 9,999 supersteps before anything stops it."""

from __future__ import annotations

from runrails.demo.incidents.values import Growth, Incident, Source, words

__all__ = ["RECURSION", "RECURSION_LIMIT"]

RECURSION_LIMIT = 9_999
"""What `create_agent` sets. A turn is two supersteps, one of the model and one of the tools."""
GROWTH = Growth(base_tokens=2_000, step_tokens=150, output_tokens=60, cached=True)

RECURSION = Incident(
    name="langchain-9999",
    title="LangChain: 9,999 supersteps by default",
    reported=(
        "An agent built with create_agent did not stop by itself, and its default recursion limit of 9,999 did not "
        "stop it either: 800 yuan in an afternoon."
    ),
    sources=(
        Source(
            url="https://github.com/langchain-ai/langchain/issues/36919",
            date="2026-04-21",
            says="the complaint, with the 9,999 and the 800 yuan; how the agent was built is not told",
        ),
        Source(
            url="https://github.com/langchain-ai/langchain/pull/33881",
            date="2025-11-07",
            says="the default was raised on purpose: limits on model calls are a middleware's business",
        ),
    ),
    executor="react",
    model="gpt-4.1-mini",
    provider="openai",
    growth=GROWTH,
    calls_full=(RECURSION_LIMIT + 1) // 2,
    calls_full_are="what 9,999 supersteps allow, one model call in two",
    calls_played=40,
    ours="Model, tool and sizes (2,000 tokens at first, 150 more a turn) are ours: the report names none of them.",
    tool="search_orders",
    args={"customer": "C-1077"},
    result=words(GROWTH.step_tokens, '{"results": [], "note": "no result"} '),
    thoughts=(
        "No orders were found. Let me search again.",
        "That cannot be; once more.",
        "The search came back empty, I will repeat it.",
        "Perhaps the index was being rebuilt. Again.",
    ),
    system=words(GROWTH.base_tokens, "You answer questions about orders. Always look them up. "),
    task="Which orders has customer C-1077 placed?",
    guard_lines='agent.invoke(inputs, {"callbacks": [GuardrailCallbackHandler(guard)]})',
)
"""A real LangGraph agent at the framework's defaults, with the whole history in every request."""
