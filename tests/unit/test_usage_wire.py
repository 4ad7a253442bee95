"""Providers' usage reports become one canonical form, or are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from runrails.usage import Usage
from runrails.usage_wire import (
    UsageMalformed,
    from_anthropic,
    from_bedrock,
    from_gemini,
    from_langchain,
    from_mistral,
    from_openai_chat,
    from_openai_responses,
)

Normaliser = Callable[[Mapping[str, object] | None], Usage | None]

SHAPES: dict[str, tuple[Normaliser, str, str]] = {
    "openai_chat": (from_openai_chat, "prompt_tokens", "completion_tokens"),
    "openai_responses": (from_openai_responses, "input_tokens", "output_tokens"),
    "anthropic": (from_anthropic, "input_tokens", "output_tokens"),
    "bedrock": (from_bedrock, "inputTokens", "outputTokens"),
    "gemini": (from_gemini, "promptTokenCount", "candidatesTokenCount"),
    "mistral": (from_mistral, "prompt_tokens", "completion_tokens"),
    "langchain": (from_langchain, "input_tokens", "output_tokens"),
}
BAD_COUNTS = [1.5, 2.0, float("nan"), float("inf"), -1, True, False, "7", 10**9 + 1, [], {}]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bad", BAD_COUNTS, ids=repr)
def test_a_count_that_is_no_whole_number_is_malformed(shape: str, bad: object) -> None:
    """On either side, in every shape."""
    normalise, into, out = SHAPES[shape]
    for given in ({into: bad, out: 1}, {into: 1, out: bad}):
        with pytest.raises(UsageMalformed):
            normalise(given)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_reported_is_none_and_not_zero(shape: str) -> None:
    """Missing, empty and all-null reports are None; reported zeroes are zeroes."""
    normalise, into, out = SHAPES[shape]
    assert [None, None, None] == [normalise(None), normalise({}), normalise({into: None, out: None})]
    assert Usage() == normalise({into: 0, out: 0})


@pytest.mark.parametrize("shape", SHAPES)
def test_half_a_report_is_malformed(shape: str) -> None:
    """One total without the other is neither zero nor nothing."""
    normalise, into, out = SHAPES[shape]
    for given in ({into: 5}, {out: 5}):
        with pytest.raises(UsageMalformed, match="missing"):
            normalise(given)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_report_that_is_no_object_is_malformed(shape: str) -> None:
    """A list or a text is not a report."""
    for bad in ([], "usage", 3):
        with pytest.raises(UsageMalformed, match="not an object"):
            SHAPES[shape][0](bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("normalise", "given"),
    [
        (
            from_openai_chat,
            {"prompt_tokens": 50, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 51}},
        ),
        (
            from_openai_chat,
            {"prompt_tokens": 5, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2}},
        ),
        (from_openai_chat, {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": [1]}),
        (
            from_openai_responses,
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            },
        ),
        (
            from_anthropic,
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_5m_input_tokens": 6},
            },
        ),
        (from_bedrock, {"inputTokens": 5, "outputTokens": 1, "cacheDetails": [{"ttl": "2h", "inputTokens": 3}]}),
        (
            from_bedrock,
            {
                "inputTokens": 5,
                "outputTokens": 1,
                "cacheWriteInputTokens": 4,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 3}],
            },
        ),
        (from_bedrock, {"inputTokens": 5, "outputTokens": 1, "cacheDetails": [{"ttl": "1h", "inputTokens": 0}] * 65}),
        (from_gemini, {"promptTokenCount": 5, "candidatesTokenCount": 1, "cachedContentTokenCount": 6}),
        (from_gemini, {"promptTokenCount": 9, "totalTokenCount": 5}),
        (
            from_langchain,
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "input_token_details": {"cache_read": 4, "ephemeral_1h_input_tokens": 2},
            },
        ),
        (from_langchain, {"input_tokens": 5, "output_tokens": 1, "output_token_details": {"reasoning": 2}}),
    ],
)
def test_parts_that_do_not_fit_are_malformed(normalise: Normaliser, given: dict[str, object]) -> None:
    """Contradictions are refused, never repaired."""
    with pytest.raises(UsageMalformed):
        normalise(given)


@pytest.mark.parametrize(
    ("normalise", "given", "expected"),
    [
        (
            from_openai_chat,
            {
                "prompt_tokens": 1_000,
                "completion_tokens": 200,
                "total_tokens": 1_200,
                "prompt_tokens_details": {"cached_tokens": 600, "audio_tokens": 50},
                "completion_tokens_details": {
                    "reasoning_tokens": 128,
                    "audio_tokens": 8,
                    "accepted_prediction_tokens": 3,
                },
            },
            Usage(
                input_tokens=1_000,
                cache_read_tokens=600,
                input_audio_tokens=50,
                output_tokens=200,
                reasoning_tokens=128,
                output_audio_tokens=8,
            ),
        ),
        (from_openai_chat, {"prompt_tokens": 8, "total_tokens": 8}, Usage(input_tokens=8)),
        (
            from_openai_chat,
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
            },
            Usage(input_tokens=100, cache_read_tokens=64, output_tokens=5),
        ),
        (
            from_openai_chat,
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(input_tokens=10, output_tokens=25, reasoning_tokens=20),
        ),
        (
            from_openai_chat,
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 50},
            },
            Usage(
                input_tokens=100,
                cache_read_tokens=80,
                input_audio_tokens=50,
                cache_read_audio_tokens=30,
                output_tokens=5,
            ),
        ),
        (
            from_openai_responses,
            {
                "input_tokens": 1_000,
                "output_tokens": 300,
                "total_tokens": 1_300,
                "input_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 100},
                "output_tokens_details": {"reasoning_tokens": 250},
            },
            Usage(
                input_tokens=1_000,
                cache_read_tokens=500,
                cache_write_5m_tokens=100,
                output_tokens=300,
                reasoning_tokens=250,
            ),
        ),
        (
            from_anthropic,
            {
                "input_tokens": 50,
                "cache_read_input_tokens": 20_000,
                "cache_creation_input_tokens": 3_000,
                "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 2_000},
                "output_tokens": 400,
                "output_tokens_details": {"thinking_tokens": 90},
                "service_tier": "standard",
            },
            Usage(
                input_tokens=23_050,
                cache_read_tokens=20_000,
                cache_write_5m_tokens=1_000,
                cache_write_1h_tokens=2_000,
                output_tokens=400,
                reasoning_tokens=90,
            ),
        ),
        (
            from_anthropic,
            {
                "input_tokens": 50,
                "cache_read_input_tokens": None,
                "cache_creation_input_tokens": 7,
                "cache_creation": None,
                "output_tokens": 4,
            },
            Usage(input_tokens=57, cache_write_5m_tokens=7, output_tokens=4),
        ),
        (
            from_bedrock,
            {
                "inputTokens": 50,
                "outputTokens": 4,
                "totalTokens": 154,
                "cacheReadInputTokens": 60,
                "cacheWriteInputTokens": 40,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 10}],
            },
            Usage(
                input_tokens=150,
                cache_read_tokens=60,
                cache_write_5m_tokens=10,
                cache_write_1h_tokens=30,
                output_tokens=4,
            ),
        ),
        (
            from_bedrock,
            {"inputTokens": 50, "outputTokens": 4, "cacheWriteInputTokens": 40},
            Usage(input_tokens=90, cache_write_5m_tokens=40, output_tokens=4),
        ),
        (
            from_gemini,
            {
                "promptTokenCount": 100,
                "candidatesTokenCount": 20,
                "thoughtsTokenCount": 300,
                "toolUsePromptTokenCount": 40,
                "cachedContentTokenCount": 60,
                "totalTokenCount": 460,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 90},
                    {"modality": "AUDIO", "tokenCount": 10},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}, {"modality": "TEXT", "tokenCount": 54}],
            },
            Usage(
                input_tokens=140,
                cache_read_tokens=60,
                input_audio_tokens=10,
                cache_read_audio_tokens=6,
                output_tokens=320,
                reasoning_tokens=300,
            ),
        ),
        (
            from_gemini,
            {"promptTokenCount": 100, "thoughtsTokenCount": 30, "totalTokenCount": 130},
            Usage(input_tokens=100, output_tokens=30, reasoning_tokens=30),
        ),
        (
            from_gemini,
            {
                "prompt_token_count": 10,
                "candidates_token_count": 2,
                "thoughts_token_count": None,
                "prompt_tokens_details": [{"modality": "MediaModality.AUDIO", "token_count": 3}],
            },
            Usage(input_tokens=10, input_audio_tokens=3, output_tokens=2),
        ),
        (
            from_mistral,
            {"prompt_tokens": 10, "completion_tokens": 2, "num_cached_tokens": 4},
            Usage(input_tokens=10, cache_read_tokens=4, output_tokens=2),
        ),
        (
            from_langchain,
            {
                "input_tokens": 350,
                "output_tokens": 240,
                "total_tokens": 590,
                "input_token_details": {"audio": 10, "cache_creation": 200, "cache_read": 100},
                "output_token_details": {"audio": 10, "reasoning": 200},
            },
            Usage(
                input_tokens=350,
                cache_read_tokens=100,
                cache_write_5m_tokens=200,
                input_audio_tokens=10,
                output_tokens=240,
                reasoning_tokens=200,
                output_audio_tokens=10,
            ),
        ),
        (
            from_langchain,
            {
                "input_tokens": 100,
                "output_tokens": 5,
                "total_tokens": 105,
                "input_token_details": {"flex_cache_read": 60, "flex": 40},
            },
            Usage(input_tokens=100, cache_read_tokens=60, output_tokens=5),
        ),
    ],
)
def test_every_shape(normalise: Normaliser, given: dict[str, object], expected: Usage) -> None:
    """What is inside which count differs from vendor to vendor; the canonical form does not."""
    assert expected == normalise(given)


@pytest.mark.parametrize(
    ("details", "five", "hour"),
    [
        ({"cache_creation": 0, "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 20_000}, 0, 20_000),
        ({"cache_creation": 0, "ephemeral_5m_input_tokens": 700, "ephemeral_1h_input_tokens": 20_000}, 700, 20_000),
        (
            {"cache_creation": 20_700, "ephemeral_5m_input_tokens": 700, "ephemeral_1h_input_tokens": 20_000},
            700,
            20_000,
        ),
        (
            {"cache_creation": 20_800, "ephemeral_5m_input_tokens": 700, "ephemeral_1h_input_tokens": 20_000},
            800,
            20_000,
        ),
        ({"cache_creation": 100, "ephemeral_5m_input_tokens": 700}, 800, 0),
        ({"cache_creation": None, "ephemeral_5m_input_tokens": None, "ephemeral_1h_input_tokens": 4}, 0, 4),
        ({"cache_creation": 300}, 300, 0),
    ],
)
def test_langchain_ttl_trap(details: dict[str, object], five: int, hour: int) -> None:
    """LangChain hides a cache write behind `cache_creation: 0` when it knows the time to live; nothing may get lost."""
    expected = Usage(input_tokens=50_000, cache_write_5m_tokens=five, cache_write_1h_tokens=hour, output_tokens=1)
    assert expected == from_langchain({"input_tokens": 50_000, "output_tokens": 1, "input_token_details": details})


def test_langchain_anthropic_itself_is_read_right() -> None:
    """The real converter of langchain-anthropic, fed a one-hour write, gives the same usage as the raw report."""
    module = pytest.importorskip("langchain_anthropic.chat_models")
    types = pytest.importorskip("anthropic.types")
    raw = {
        "input_tokens": 50,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 2_700,
        "cache_creation": {"ephemeral_5m_input_tokens": 700, "ephemeral_1h_input_tokens": 2_000},
        "output_tokens": 400,
    }
    assert from_anthropic(raw) == from_langchain(module._create_usage_metadata(types.Usage(**raw)))


def test_a_malformed_report_is_not_quoted() -> None:
    """Reports come from a network; their content stays out of errors."""
    with pytest.raises(UsageMalformed) as caught:
        from_openai_chat({"prompt_tokens": "hunter2", "completion_tokens": 1})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("normalise", "given"),
    [
        (from_gemini, {1: 2, "promptTokenCount": 3, "candidatesTokenCount": 4}),
        (from_gemini, {"promptTokenCount": 3, "promptTokensDetails": [{"modality": "AUDIO", None: 1}]}),
        (from_bedrock, {"inputTokens": 1, "outputTokens": 1, "cacheDetails": [{"ttl": [], "inputTokens": 1}]}),
        (from_bedrock, {"inputTokens": 1, "outputTokens": 1, "cacheDetails": [{"ttl": {}, "inputTokens": 1}]}),
    ],
)
def test_hostile_shapes_are_malformed(normalise: Normaliser, given: dict[str, object]) -> None:
    """Keys that are not text and values that cannot be compared are a malformed report, never another error."""
    with pytest.raises(UsageMalformed):
        normalise(given)
