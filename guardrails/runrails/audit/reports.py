"""Usage reports in recordings: whoever wrote the file kept the provider's own form, so it is told by its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails import usage_wire
from runrails.audit.checks import Invalid, Json, mapping

if TYPE_CHECKING:
    from runrails.usage import Usage

__all__ = ["read_usage"]

_FIX = 'Keep the report as the provider gave it, for instance {"prompt_tokens": 12, "completion_tokens": 3}.'
_OPENAI_CHAT = frozenset({"prompt_tokens", "completion_tokens"})
_BEDROCK = frozenset({"inputTokens", "outputTokens"})
# The SDK spells them in snake case, the API in camel case, and a count of zero is left out.
_GEMINI = frozenset({"promptTokenCount", "prompt_token_count", "totalTokenCount", "total_token_count"})
# Anthropic, OpenAI's responses and LangChain all say `input_tokens`, but not all with the cached ones in it.
_ANTHROPIC = frozenset({"cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation"})
_LANGCHAIN = ("cache_read", "cache_creation")


def read_usage(value: object, where: str) -> Usage | None:
    """
    A provider's usage report, or None if there is none.

    Raises:
        Invalid: It is of no known form, or its counts cannot be true.
    """
    if value is None:
        return None
    report = mapping(value, where, _FIX)
    try:
        usage = _read(report)
    except usage_wire.UsageMalformed as exc:
        raise Invalid(f"{where} cannot be true: {exc}.", _FIX) from None
    if usage is None and any(count is not None for count in report.values()):
        raise Invalid(f"{where} is in no form that is known.", _FIX)
    return usage


def _read(report: Json) -> Usage | None:
    if not _OPENAI_CHAT.isdisjoint(report):
        return usage_wire.from_openai_chat(report)
    if not _BEDROCK.isdisjoint(report):
        return usage_wire.from_bedrock(report)
    if not _GEMINI.isdisjoint(report):
        return usage_wire.from_gemini(report)
    if not _ANTHROPIC.isdisjoint(report):
        return usage_wire.from_anthropic(report)
    if _is_langchain(report):
        return usage_wire.from_langchain(report)
    return usage_wire.from_openai_responses(report)


def _is_langchain(report: Json) -> bool:
    # OpenAI's realtime API has `input_token_details` too, but with other keys in it.
    details = mapping(report.get("input_token_details") or {}, "input_token_details", _FIX)
    return any(key.endswith(_LANGCHAIN) or key.startswith("ephemeral_") for key in details)
