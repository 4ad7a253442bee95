"""Our reading of usage reports against that of genai-prices, over random well-formed and broken payloads."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest

from runrails.usage import Usage
from runrails.usage_wire import (
    UsageMalformed,
    from_anthropic,
    from_bedrock,
    from_gemini,
    from_mistral,
    from_openai_chat,
    from_openai_responses,
)

genai = pytest.importorskip("genai_prices", reason="the oracle is genai-prices")
Report = dict[str, object]


def _some(rng: random.Random, most: int) -> int:
    return rng.choice([0, most, rng.randrange(most + 1)])


def _openai_chat(rng: random.Random) -> Report:
    prompt, completion = rng.randrange(10**6), rng.randrange(10**5)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": _some(rng, prompt)},
        "completion_tokens_details": {"reasoning_tokens": _some(rng, completion)},
    }


def _mistral(rng: random.Random) -> Report:
    return {key: value for key, value in _openai_chat(rng).items() if not key.endswith("details")}


def _responses(rng: random.Random) -> Report:
    into, out = rng.randrange(10**6), rng.randrange(10**5)
    read = _some(rng, into)
    return {
        "input_tokens": into,
        "output_tokens": out,
        "total_tokens": into + out,
        "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": _some(rng, into - read)},
        "output_tokens_details": {"reasoning_tokens": _some(rng, out)},
    }


def _anthropic(rng: random.Random) -> Report:
    five, hour, out = rng.randrange(10**4), rng.randrange(10**4), rng.randrange(10**5)
    return {
        "input_tokens": rng.randrange(10**5),
        "cache_read_input_tokens": rng.randrange(10**5),
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "output_tokens": out,
    }


def _bedrock(rng: random.Random) -> Report:
    keys = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    return {key: rng.randrange(10**5) for key in keys}


def _gemini(rng: random.Random) -> Report:
    prompt = rng.randrange(10**6)
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": rng.randrange(10**4),
        "thoughtsTokenCount": rng.randrange(10**4),
        "toolUsePromptTokenCount": rng.randrange(10**4),
        "cachedContentTokenCount": _some(rng, prompt),
    }


SHAPES: dict[
    str, tuple[Callable[[Mapping[str, object]], Usage | None], Callable[[random.Random], Report], str, str]
] = {
    "openai": (from_openai_chat, _openai_chat, "chat", "gpt-4o"),
    "openai responses": (from_openai_responses, _responses, "responses", "gpt-4o"),
    "anthropic": (from_anthropic, _anthropic, "default", "claude-opus-5-5"),
    "aws": (from_bedrock, _bedrock, "default", ""),
    "google": (from_gemini, _gemini, "default", "gemini-2.5-pro"),
    "mistral": (from_mistral, _mistral, "default", "mistral-large-4"),
}


def _theirs(shape: str, report: Report) -> Usage:
    _, _, flavor, model = SHAPES[shape]
    body = {"model": model, "modelVersion": model, "usage": report, "usageMetadata": report}
    if not model:
        del body["model"], body["modelVersion"]
    usage = genai.extract_usage(body, provider_id=shape.split(maxsplit=1)[0], api_flavor=flavor).usage
    hour = usage.reported_value("cache_write_1h_tokens")
    return Usage(
        input_tokens=usage.reported_value("input_tokens"),
        cache_read_tokens=usage.reported_value("cache_read_tokens"),
        cache_write_5m_tokens=usage.reported_value("cache_write_tokens") - hour,
        cache_write_1h_tokens=hour,
        output_tokens=usage.reported_value("output_tokens"),
        reasoning_tokens=usage.reported_value("output_reasoning_tokens"),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_well_formed_reports_are_read_alike(shape: str) -> None:
    """Forty random reports of every shape give the same canonical usage."""
    normalise, make, _, _ = SHAPES[shape]
    rng = random.Random(shape)
    for _ in range(40):
        report = make(rng)
        assert _theirs(shape, report) == normalise(report), report


@pytest.mark.parametrize("shape", SHAPES)
def test_a_broken_count_never_becomes_a_usage(shape: str) -> None:
    """Whichever count is broken in whichever way."""
    normalise, make, _, _ = SHAPES[shape]
    rng = random.Random(shape)
    for bad in (-1, 1.5, True, "12", float("nan"), 10**10):
        report = make(rng)
        for key, value in report.items():
            if isinstance(value, int):
                with pytest.raises(UsageMalformed):
                    normalise({**report, key: bad})
