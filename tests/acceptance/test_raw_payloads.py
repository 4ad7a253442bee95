"""Raw usage reports as providers send them, with the traps they set, through the door to the picodollar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from runrails import Guard, Limits
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.errors import PriceUnknown
from runrails.ledger import Account
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails.usage import Usage
from runrails.usage_wire import from_anthropic, from_bedrock, from_gemini, from_langchain, from_openai_chat

Report = Mapping[str, object] | None
Normaliser = Callable[[Report], Usage | None]
USER = Account("user:alice", "2026-11")


def _guard(store: MemoryStore, clock: ManualClock) -> Guard:
    return Guard(
        Limits(run=None, steps=None), user="alice", store=store, clock=clock, monotonic=clock, sinks=[],
    )  # fmt: skip


def _booked(model: str, provider: str, normalise: Normaliser, reports: Sequence[Report], served: str | None) -> int:
    """What the ledger has for one answer, whose last report that is none replaces those before it."""
    clock = ManualClock(1_795_262_400_000)  # 2026-11-21 12:00 UTC
    store = MemoryStore(clock=clock)
    guard = _guard(store, clock)
    run = guard.run()
    permit = run.before_model(
        ModelCall(model=model, provider=provider, prompt=Prompt(texts=("hi" * 9_000,), messages=1), max_tokens=4_000,
                  cache_write=True)
    )  # fmt: skip
    usage = None
    for report in reports:
        usage = normalise(report) or usage
    run.after_model(permit, ModelResult(end="completed", usage=usage, model=served))
    assert 0 == store.balance(USER).held
    spent = store.balance(USER).spent
    assert spent <= permit.bound_pusd
    guard.close()
    return spent


CASES: dict[str, tuple[str, str, Normaliser, list[Report], str | None, int]] = {
    # Per token in picodollars, Sonnet 4.5: 3,000,000 in, 15,000,000 out, 300,000 read, 3,750,000 and 6,000,000 written.
    "anthropic, both times to live": (
        "claude-sonnet-4-5", "anthropic", from_anthropic,
        [{"input_tokens": 10, "cache_read_input_tokens": 1_000, "cache_creation_input_tokens": 300,
          "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}, "output_tokens": 7}],
        "claude-sonnet-4-5-20250929",
        10 * 3_000_000 + 1_000 * 300_000 + 100 * 3_750_000 + 200 * 6_000_000 + 7 * 15_000_000,
    ),
    "langchain sets cache_creation to 0 beside the times to live": (
        "claude-sonnet-4-5", "anthropic", from_langchain,
        [{"input_tokens": 1_310, "output_tokens": 7, "total_tokens": 1_317, "input_token_details": {
            "cache_read": 1_000, "cache_creation": 0, "ephemeral_5m_input_tokens": 100,
            "ephemeral_1h_input_tokens": 200}}],
        None, 10 * 3_000_000 + 1_000 * 300_000 + 100 * 3_750_000 + 200 * 6_000_000 + 7 * 15_000_000,
    ),
    "bedrock says no model, and the input without the cache": (
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock", from_bedrock,
        [{"inputTokens": 10, "outputTokens": 7, "totalTokens": 1_317, "cacheReadInputTokens": 1_000,
          "cacheWriteInputTokens": 300,
          "cacheDetails": [{"ttl": "5m", "inputTokens": 100}, {"ttl": "1h", "inputTokens": 200}]}],
        None, 10 * 3_300_000 + 1_000 * 330_000 + 100 * 4_125_000 + 200 * 6_600_000 + 7 * 16_500_000,
    ),
    "gemini's chunks are cumulative, thoughts are beside the answer": (
        "gemini-2.5-pro", "google", from_gemini,
        [{"promptTokenCount": 1_000, "totalTokenCount": 1_000},
         {"promptTokenCount": 1_000, "candidatesTokenCount": 40, "thoughtsTokenCount": 90, "totalTokenCount": 1_130},
         {"promptTokenCount": 1_000, "candidatesTokenCount": 90, "thoughtsTokenCount": 90, "totalTokenCount": 1_180}],
        None, 1_000 * 1_250_000 + 180 * 10_000_000,
    ),
    "chunks without usage come before the one that has it": (
        "gpt-4o", "openai", from_openai_chat,
        [None, None, {"prompt_tokens": 1_000, "completion_tokens": 20, "total_tokens": 1_020,
                      "prompt_tokens_details": {"cached_tokens": 400}}, None],
        "gpt-4o-2024-08-06", 600 * 2_500_000 + 400 * 1_250_000 + 20 * 10_000_000,
    ),
    "azure answers with the model behind the deployment": (
        "gpt-4o", "azure", from_openai_chat,
        [{"prompt_tokens": 1_000, "completion_tokens": 20, "total_tokens": 1_020}],
        "gpt-4o-2024-08-06", 1_000 * 2_500_000 + 20 * 10_000_000,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_report_is_charged_as_it_was_meant(case: str) -> None:
    """Worked out by hand from the published rates."""
    model, provider, normalise, reports, served, due = CASES[case]
    assert due == _booked(model, provider, normalise, reports, served)


def test_a_deployments_name_is_no_price() -> None:
    """Azure's own names tell nothing of the model, even where they look like one's."""
    for name in ("our-chat", "gpt-4o-prod", "chat-gpt-4o"):
        with pytest.raises(PriceUnknown, match=name):
            _booked(name, "azure", from_openai_chat, [{"prompt_tokens": 1, "completion_tokens": 1}], None)
