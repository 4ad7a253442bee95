"""Whatever a line holds, it is answered or complained about; nothing else ever comes of it."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from rr_audit import auditor
from runrails.audit import BadInput, RunAudit

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
KEYS = st.sampled_from(
    [
        "role",
        "content",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "status",
        "model",
        "usage",
        "kind",
        "text",
        "name",
        "args",
        "ok",
        "output",
        "error",
        "batch",
        "agent",
        "t",
    ]
)
WORDS = st.sampled_from(["user", "assistant", "tool", "function", "system", "llm", "error", "a", "b"])
CALLS = st.lists(
    st.fixed_dictionaries(
        {"id": WORDS, "function": st.fixed_dictionaries({"name": WORDS, "arguments": WORDS | VALUES})}
    ),
    max_size=3,
)
USAGES = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "input_tokens", "inputTokens", "input_token_details"]),
    st.integers(-1, 9) | VALUES,
)
ENTRIES = st.dictionaries(KEYS, WORDS | st.booleans() | CALLS | USAGES | VALUES) | VALUES
LINES = st.fixed_dictionaries(
    {"id": WORDS | VALUES},
    optional={"messages": st.lists(ENTRIES) | VALUES, "steps": st.lists(ENTRIES) | VALUES, "poll_tools": VALUES},
)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_any_json_is_answered_or_refused(record: dict[str, object]) -> None:
    """No decoded value makes the audit raise, and an answer is always a line of JSON."""
    _check(json.dumps(record))


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_any_bytes_are_answered_or_refused(line: bytes) -> None:
    """No bytes make the audit raise."""
    for answer in auditor().lines([line], source="f"):
        assert isinstance(answer, BadInput)


def _check(text: str) -> None:
    [answer] = auditor().lines([text], source="f")
    if isinstance(answer, RunAudit):
        assert isinstance(json.loads(answer.as_json()), dict)
    else:
        assert str(answer).startswith("f:1: ")
