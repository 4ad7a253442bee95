"""What the simulated providers answer: one truth, told in each provider's own form, with that form's traps."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from rr_sim_books import Parts
from runrails.usage import Usage
from runrails.usage_wire import (
    from_anthropic,
    from_bedrock,
    from_gemini,
    from_langchain,
    from_mistral,
    from_openai_chat,
    from_openai_responses,
)

__all__ = ["NORMALISERS", "SHAPES_OF", "payloads", "writes_cache"]

Wire = dict[str, object]
Normaliser = Callable[[Mapping[str, object] | None], Usage | None]
NORMALISERS: dict[str, Normaliser] = {
    "openai chat": from_openai_chat, "openai responses": from_openai_responses, "anthropic": from_anthropic,
    "bedrock": from_bedrock, "gemini": from_gemini, "mistral": from_mistral, "langchain": from_langchain,
}  # fmt: skip
SHAPES_OF = {
    "openai": ("openai chat", "openai responses", "langchain"),
    "azure": ("openai chat", "openai responses", "langchain"),
    "anthropic": ("anthropic", "anthropic", "langchain"), "aws": ("bedrock", "bedrock", "langchain"),
    "google": ("gemini", "gemini", "langchain"), "mistral": ("mistral", "langchain"),
}  # fmt: skip
"""Of any other provider: OpenAI's chat form, which they copied, and LangChain's."""


def writes_cache(shape: str) -> bool:
    """Whether that form can report tokens written to the cache with their time to live."""
    return shape in ("anthropic", "bedrock", "langchain")


def payloads(shape: str, parts: Parts, owner: str, draw: random.Random) -> list[Mapping[str, object] | None]:
    """The usage reports of one answer, in the order in which they come; the last that is none replaces the others."""
    final = _SHAPES[shape](parts, owner, draw)
    style = draw.random()
    if shape in ("openai chat", "mistral") and style < 0.3:
        return [None, None, final]  # chunks with `usage: null`
    if shape == "gemini" and style < 0.4:
        early = parts._replace(output=parts.output // 3, reasoning=parts.reasoning // 2)
        middle = parts._replace(output=parts.output // 2)
        return [_gemini(early, owner, draw), _gemini(middle, owner, draw), final]  # cumulative
    return [final]


def _chat(parts: Parts, owner: str, draw: random.Random) -> Wire:
    total = parts.entered + parts.left
    details: Wire = {"cached_tokens": parts.read}
    if parts.image:
        details["image_tokens"] = parts.image
    if owner == "x-ai" and parts.reasoning and draw.random() < 0.7:
        # Reasoning beside the completion; the total alone tells.
        return {
            "prompt_tokens": parts.entered, "completion_tokens": parts.output, "total_tokens": total,
            "prompt_tokens_details": details, "completion_tokens_details": {"reasoning_tokens": parts.reasoning},
        }  # fmt: skip
    made: Wire = {"prompt_tokens": parts.entered, "completion_tokens": parts.left, "total_tokens": total}
    if owner in ("deepseek", "moonshotai") and not parts.reasoning and not parts.image:
        made["prompt_cache_hit_tokens" if owner == "deepseek" else "cached_tokens"] = parts.read
        return made
    if not (parts.read or parts.reasoning or parts.image) and draw.random() < 0.5:
        return {**made, "prompt_tokens_details": None} if draw.random() < 0.5 else made
    return {
        **made, "prompt_tokens_details": {**details, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": parts.reasoning, "audio_tokens": 0,
                                      "accepted_prediction_tokens": 0},
    }  # fmt: skip


def _responses(parts: Parts, owner: str, draw: random.Random) -> Wire:
    del owner, draw
    details: Wire = {"cached_tokens": parts.read, "cache_write_tokens": parts.write_5m}
    if parts.image:
        details["image_tokens"] = parts.image
    return {
        "input_tokens": parts.entered, "input_tokens_details": details, "output_tokens": parts.left,
        "output_tokens_details": {"reasoning_tokens": parts.reasoning}, "total_tokens": parts.entered + parts.left,
    }  # fmt: skip


def _mistral(parts: Parts, owner: str, draw: random.Random) -> Wire:
    del owner
    made: Wire = {
        "prompt_tokens": parts.entered, "completion_tokens": parts.left, "total_tokens": parts.entered + parts.left,
    }  # fmt: skip
    if parts.read:
        if draw.random() < 0.5:
            made["num_cached_tokens"] = parts.read
        else:
            made["prompt_tokens_details"] = {"cached_tokens": parts.read}
    return made


def _anthropic(parts: Parts, owner: str, draw: random.Random) -> Wire:
    del owner
    made: Wire = {
        "input_tokens": parts.plain + parts.image, "output_tokens": parts.left,
        "cache_read_input_tokens": parts.read, "cache_creation_input_tokens": parts.write_5m + parts.write_1h,
    }  # fmt: skip
    if parts.write_1h or draw.random() < 0.6:
        made["cache_creation"] = {
            "ephemeral_5m_input_tokens": parts.write_5m, "ephemeral_1h_input_tokens": parts.write_1h,
        }  # fmt: skip
    if draw.random() < 0.3:
        made |= {"server_tool_use": {"web_search_requests": 0}, "service_tier": "standard"}
    return made


def _bedrock(parts: Parts, owner: str, draw: random.Random) -> Wire:
    del owner
    made: Wire = {
        "inputTokens": parts.plain + parts.image, "outputTokens": parts.left,
        "totalTokens": parts.entered + parts.left,
    }  # fmt: skip
    if parts.read or draw.random() < 0.5:
        made["cacheReadInputTokens"] = parts.read
    if parts.write_5m or parts.write_1h:
        made["cacheWriteInputTokens"] = parts.write_5m + parts.write_1h
        if parts.write_1h or draw.random() < 0.5:
            made["cacheDetails"] = [
                {"ttl": ttl, "inputTokens": count}
                for ttl, count in (("5m", parts.write_5m), ("1h", parts.write_1h))
                if count
            ]
    return made


def _gemini(parts: Parts, owner: str, draw: random.Random) -> Wire:
    del owner
    used = parts.plain // 7 if draw.random() < 0.3 else 0
    given = parts.entered - used  # what tools put in comes on top of the prompt
    if parts.read > given:
        given, used = parts.entered, 0
    made: Wire = {"promptTokenCount": given, "totalTokenCount": parts.entered + parts.left}
    if parts.output or draw.random() < 0.5:  # what is zero is left out
        made["candidatesTokenCount"] = parts.output
    if parts.reasoning:
        made["thoughtsTokenCount"] = parts.reasoning
    if used:
        made["toolUsePromptTokenCount"] = used
    if parts.read:
        made["cachedContentTokenCount"] = parts.read
    if parts.image:
        made["promptTokensDetails"] = [
            {"modality": "TEXT", "tokenCount": given - parts.image}, {"modality": "IMAGE", "tokenCount": parts.image},
        ]  # fmt: skip
    return made


def _langchain(parts: Parts, owner: str, draw: random.Random) -> Wire:
    details: Wire = {}
    tiered = draw.choice(("", "", "flex_", "priority_")) if owner == "openai" else ""
    if parts.read or draw.random() < 0.5:
        details[f"{tiered}cache_read"] = parts.read
    if parts.write_5m or parts.write_1h:
        if parts.write_1h or draw.random() < 0.7:
            # The trap: with the time to live the plain key is 0.
            details |= {
                "cache_creation": 0, "ephemeral_5m_input_tokens": parts.write_5m,
                "ephemeral_1h_input_tokens": parts.write_1h,
            }  # fmt: skip
        else:
            details["cache_creation"] = parts.write_5m
    if parts.image:
        details["image"] = parts.image
    made: Wire = {
        "input_tokens": parts.entered, "output_tokens": parts.left, "total_tokens": parts.entered + parts.left,
    }  # fmt: skip
    if details:
        made["input_token_details"] = details
    if parts.reasoning:
        made["output_token_details"] = {f"{tiered}reasoning": parts.reasoning}
    return made


_SHAPES: dict[str, Callable[[Parts, str, random.Random], Wire]] = {
    "openai chat": _chat, "openai responses": _responses, "anthropic": _anthropic, "bedrock": _bedrock,
    "gemini": _gemini, "mistral": _mistral, "langchain": _langchain,
}  # fmt: skip
