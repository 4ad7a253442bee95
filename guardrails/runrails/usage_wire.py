"""
Providers' usage reports, each wire form made into one canonical `Usage`.

The forms differ in whether the cached tokens are inside the input count (OpenAI, Gemini, Mistral, LangChain: yes;
Anthropic and Bedrock: no), and whether the thoughts are inside the output count (Gemini and some xAI answers: no).
Every function returns None if nothing was reported, which is not the same as zero, and raises `UsageMalformed` for
counts that are no whole numbers or do not fit together: the caller then settles at what was held, never at a guess.

Sources: the providers' API references; LangChain's `UsageMetadata` ("sum of all input token types").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from runrails.usage import Usage
from runrails.values import quick

__all__ = [
    "UsageMalformed",
    "from_anthropic",
    "from_bedrock",
    "from_gemini",
    "from_langchain",
    "from_mistral",
    "from_openai_chat",
    "from_openai_responses",
]

Wire = Mapping[str, object]
"""A decoded JSON object."""

REPORT_TOKENS_MAX = 10**9
"""More than any one call can have; at every published price it still costs less than the largest amount of a ledger."""
_DETAILS_MAX = 64
_NOTHING: Wire = {}
_checked_usage = quick(Usage)
_plain_usage = quick(Usage, checks=False)
"""For counts that were looked at here: input and output, and no parts of them."""
_COUNTS = frozenset({int, type(None)})
_BY_TTL = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
_CACHE_KEYS = frozenset({"cacheDetails", "cacheReadInputTokens", "cacheReadInputTokenCount", "cacheWriteInputTokens",
                         "cacheWriteInputTokenCount"})  # fmt: skip
"""What Bedrock says of its cache, by all its names."""


class UsageMalformed(ValueError):
    """A usage report that cannot be true. Settle at what was held."""


def from_openai_chat(usage: Wire | None) -> Usage | None:
    """
    Chat completions and embeddings of OpenAI and of the many who copied them (Azure, DeepSeek, xAI, Groq, Together).

    Raises:
        UsageMalformed: The counts are no whole numbers or do not fit together.
    """
    ordinary: object = type(usage)
    if usage is not None and ordinary is dict:
        # By far the most reports, in one go: whole numbers of tokens in and out, and no parts of them.
        entering, leaving, both = usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")
        inside, made = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
        parts: list[object] = []
        if type(inside) is dict and "cached_tokens_details" not in inside:
            parts += inside.values()  # pyright: ignore[reportUnknownArgumentType] -- a cast is one call more
            inside = None
        if type(made) is dict:
            parts += made.values()  # pyright: ignore[reportUnknownArgumentType] -- see above
            made = None
        if (
            type(entering) is int and 0 <= entering <= REPORT_TOKENS_MAX
            and type(leaving) is int and 0 <= leaving <= REPORT_TOKENS_MAX
            and type(both) is int and 0 <= both <= REPORT_TOKENS_MAX
            and inside is None and made is None and not any(parts) and _COUNTS.issuperset(map(type, parts))
            and usage.get("prompt_cache_hit_tokens") is None and usage.get("cached_tokens") is None
        ):  # fmt: skip
            return _plain_usage(input_tokens=entering, output_tokens=leaving)
    given = _mapping(usage, "usage")
    prompt, completion = _count(given, "prompt_tokens"), _count(given, "completion_tokens")
    total = _count(given, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    of_prompt, of_completion = given.get("prompt_tokens_details"), given.get("completion_tokens_details")
    if (
        of_prompt is None and of_completion is None and prompt is not None and completion is not None
        and given.get("prompt_cache_hit_tokens") is None and given.get("cached_tokens") is None
    ):  # fmt: skip
        return _plain_usage(input_tokens=prompt, output_tokens=completion)
    details = _mapping(of_prompt, "prompt_tokens_details")
    out_details = _mapping(of_completion, "completion_tokens_details")
    cached = _count(details, "cached_tokens")
    if cached is None:  # DeepSeek and Moonshot have no details
        cached = _first(_count(given, "prompt_cache_hit_tokens"), _count(given, "cached_tokens"))
    entered = _required(prompt, "prompt_tokens")
    left = _output(completion, prompt, total, "completion_tokens")
    if not (details or out_details or cached):
        return Usage(input_tokens=entered, output_tokens=left)
    written, audio, images = _parts(details, ("cache_write_tokens", "audio_tokens", "image_tokens"))
    reasoning, output_audio, output_images = _parts(out_details, ("reasoning_tokens", "audio_tokens", "image_tokens"))
    return _inclusive(
        input_tokens=entered,
        output_tokens=left,
        total=total,
        reasoning=reasoning,
        output_audio=output_audio,
        cache_read=cached,
        write_5m=written,
        audio=audio,
        cached_audio=_cached(details, "audio_tokens"),
        images=(images, _cached(details, "image_tokens"), output_images),
    )


def from_mistral(usage: Wire | None) -> Usage | None:
    """
    Mistral's chat completions: OpenAI's form, with the cached tokens also under a name of its own.

    Raises:
        UsageMalformed: The counts are no whole numbers or do not fit together.
    """
    given = _mapping(usage, "usage")
    if given.get("prompt_tokens_details") is None and given.get("num_cached_tokens") is not None:
        given = {**given, "cached_tokens": given["num_cached_tokens"]}
    return from_openai_chat(given)


def from_openai_responses(usage: Wire | None) -> Usage | None:
    """
    OpenAI's responses and realtime API; cache reads and cache writes are inside `input_tokens`.

    Raises:
        UsageMalformed: The counts are no whole numbers or do not fit together.
    """
    given = _mapping(usage, "usage")
    entered, left, total = (_count(given, key) for key in ("input_tokens", "output_tokens", "total_tokens"))
    if entered is None and left is None and total is None:
        return None
    details = _mapping(_first_of(given, "input_tokens_details", "input_token_details"), "input_tokens_details")
    out_details = _mapping(_first_of(given, "output_tokens_details", "output_token_details"), "output_tokens_details")
    cached, written, audio, images = _parts(
        details, ("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens")
    )
    reasoning, output_audio, output_images = _parts(out_details, ("reasoning_tokens", "audio_tokens", "image_tokens"))
    return _inclusive(
        input_tokens=_required(entered, "input_tokens"),
        output_tokens=_output(left, entered, total, "output_tokens"),
        total=total,
        reasoning=reasoning,
        output_audio=output_audio,
        cache_read=cached,
        write_5m=written,
        audio=audio,
        cached_audio=_cached(details, "audio_tokens"),
        images=(images, _cached(details, "image_tokens"), output_images),
    )


def from_anthropic(usage: Wire | None) -> Usage | None:
    """
    Anthropic's messages, on any platform; `input_tokens` is only what was neither read from nor written to the cache.

    Raises:
        UsageMalformed: The counts are no whole numbers, one of the two totals is missing, or the split of the cache
            writes exceeds their sum.
    """
    given = _mapping(usage, "usage")
    plain, left = _count(given, "input_tokens"), _count(given, "output_tokens")
    if plain is None and left is None:
        return None
    read, written = _parts(given, ("cache_read_input_tokens", "cache_creation_input_tokens"))
    split = given.get("cache_creation")
    writes = (written, 0)
    if split is not None:
        five, hour = _parts(_mapping(split, "cache_creation"), _BY_TTL)
        told = given.get("cache_creation_input_tokens") is not None
        writes = _writes(written if told else None, five, hour)
    details, tools = given.get("output_tokens_details"), given.get("server_tool_use")
    thinking = None if details is None else _count(_mapping(details, "output_tokens_details"), "thinking_tokens")
    searches = None if tools is None else _count(_mapping(tools, "server_tool_use"), "web_search_requests")
    return _exclusive(
        _required(plain, "input_tokens"),
        read,
        writes,
        _required(left, "output_tokens"),
        reasoning=_zero(thinking),
        web_searches=_zero(searches),
    )


def from_bedrock(usage: Wire | None) -> Usage | None:
    """
    Bedrock's Converse; `inputTokens` is only what was neither read from nor written to the cache.

    Raises:
        UsageMalformed: As for `from_anthropic`.
    """
    given = _mapping(usage, "usage")
    plain, left = _count(given, "inputTokens"), _count(given, "outputTokens")
    if plain is None and left is None:
        return None
    if plain is not None and left is not None and _CACHE_KEYS.isdisjoint(given):
        return _plain_usage(input_tokens=plain, output_tokens=left)
    by_ttl = _cache_details(given.get("cacheDetails"))
    written = _count(given, "cacheWriteInputTokens")
    if written is None:
        written = _count(given, "cacheWriteInputTokenCount")
    write_5m, write_1h = _writes(written, by_ttl.get("5m"), by_ttl.get("1h"))
    read = _first(_count(given, "cacheReadInputTokens"), _count(given, "cacheReadInputTokenCount"))
    return _exclusive(
        _required(plain, "inputTokens"), read, (write_5m, write_1h), _required(left, "outputTokens"), reasoning=0
    )


def from_gemini(usage: Wire | None) -> Usage | None:
    """
    Gemini's `usageMetadata`: thoughts come on top of the candidates, tool-use prompts on top of the prompt.

    The API leaves out counts that are zero, so a missing candidate count is worked out from the total.

    Raises:
        UsageMalformed: The counts are no whole numbers or do not fit together.
    """
    given = _camel(_mapping(usage, "usageMetadata"))
    prompt, candidates = _count(given, "promptTokenCount"), _count(given, "candidatesTokenCount")
    total = _count(given, "totalTokenCount")
    if prompt is None and candidates is None and total is None:
        return None
    thoughts, tool_use = _zero(_count(given, "thoughtsTokenCount")), _zero(_count(given, "toolUsePromptTokenCount"))
    entered = _required(prompt, "promptTokenCount") + tool_use
    written = _output(candidates, entered + thoughts, total, "candidatesTokenCount")
    cached_audio = _modality(given.get("cacheTokensDetails"), "AUDIO")
    audio = _modality(given.get("promptTokensDetails"), "AUDIO") + _modality(
        given.get("toolUsePromptTokensDetails"), "AUDIO"
    )
    return _inclusive(
        input_tokens=entered,
        output_tokens=written + thoughts,
        total=None,
        reasoning=thoughts,
        output_audio=_modality(given.get("candidatesTokensDetails"), "AUDIO"),
        cache_read=_zero(_count(given, "cachedContentTokenCount")),
        write_5m=0,
        audio=audio,
        cached_audio=cached_audio,
        images=(
            _modality(given.get("promptTokensDetails"), "IMAGE")
            + _modality(given.get("toolUsePromptTokensDetails"), "IMAGE"),
            _modality(given.get("cacheTokensDetails"), "IMAGE"),
            _modality(given.get("candidatesTokensDetails"), "IMAGE"),
        ),
    )


def from_langchain(usage: Wire | None) -> Usage | None:
    """
    LangChain's `usage_metadata`: `input_tokens` is the sum of all kinds of input.

    Where the time to live of a cache write is known LangChain reports `ephemeral_5m/1h_input_tokens` and sets
    `cache_creation` to 0, so all three are read; otherwise every cache write would be billed as plain input.

    Raises:
        UsageMalformed: The counts are no whole numbers or do not fit together.
    """
    given = _mapping(usage, "usage_metadata")
    entered, left, total = (_count(given, key) for key in ("input_tokens", "output_tokens", "total_tokens"))
    if entered is None and left is None and total is None:
        return None
    details = _mapping(given.get("input_token_details"), "input_token_details")
    out_details = _mapping(given.get("output_token_details"), "output_token_details")
    parts = (*details.values(), *out_details.values())
    if not any(parts) and _COUNTS.issuperset(map(type, parts)):  # by far the most reports: no parts
        entered = _required(entered, "input_tokens")
        return _plain_usage(input_tokens=entered, output_tokens=_output(left, entered, total, "output_tokens"))
    write_5m, write_1h = _langchain_writes(details)
    return _inclusive(
        input_tokens=_required(entered, "input_tokens"),
        output_tokens=_output(left, entered, total, "output_tokens"),
        total=total,
        reasoning=_tiered(out_details, "reasoning"),
        output_audio=_tiered(out_details, "audio"),
        cache_read=_tiered(details, "cache_read"),
        write_5m=write_5m,
        write_1h=write_1h,
        audio=_tiered(details, "audio"),
        cached_audio=0,
        images=(_tiered(details, "image"), 0, _tiered(out_details, "image")),
    )


def _cached(details: Wire, kind: str) -> int:
    if details.get("cached_tokens_details") is None:
        return 0
    return _zero(_count(_mapping(details.get("cached_tokens_details"), "cached_tokens_details"), kind))


def _inclusive(  # noqa: PLR0913 -- one report has so many counts
    *,
    input_tokens: int,
    output_tokens: int,
    total: int | None,
    reasoning: int,
    output_audio: int,
    cache_read: int,
    write_5m: int,
    audio: int,
    cached_audio: int,
    images: tuple[int, int, int] = (0, 0, 0),
    write_1h: int = 0,
) -> Usage:
    # xAI counts reasoning beside the completion, not inside it; its total gives that away.
    if reasoning and total is not None and total == input_tokens + output_tokens + reasoning:
        output_tokens += reasoning
    if cached_audio == 0 and cache_read + write_5m + write_1h <= input_tokens and audio <= input_tokens:
        # Both were reported and do not fit beside each other: so much of the audio must have come from the cache.
        cached_audio = max(0, cache_read + write_5m + write_1h + audio - input_tokens)
    image, cached_image, output_image = images
    if image and not cached_image and image <= input_tokens:  # the same for pictures
        beside = input_tokens - cache_read - write_5m - write_1h - audio + cached_audio
        cached_image = max(0, image - beside)
    try:
        return Usage(
            input_tokens=input_tokens,
            cache_read_tokens=cache_read,
            cache_write_5m_tokens=write_5m,
            cache_write_1h_tokens=write_1h,
            input_audio_tokens=audio,
            output_tokens=output_tokens,
            reasoning_tokens=reasoning,
            output_audio_tokens=output_audio,
            cache_read_audio_tokens=cached_audio,
            input_image_tokens=image,
            output_image_tokens=output_image,
            cache_read_image_tokens=cached_image,
        )
    except ValueError as exc:
        raise UsageMalformed(str(exc)) from exc


def _exclusive(
    plain: int, read: int, writes: tuple[int, int], output: int, *, reasoning: int, web_searches: int = 0
) -> Usage:
    write_5m, write_1h = writes
    try:
        return _checked_usage(
            input_tokens=plain + read + write_5m + write_1h,
            cache_read_tokens=read,
            cache_write_5m_tokens=write_5m,
            cache_write_1h_tokens=write_1h,
            output_tokens=output,
            reasoning_tokens=reasoning,
            web_searches=web_searches,
        )
    except ValueError as exc:
        raise UsageMalformed(str(exc)) from exc


def _writes(total: int | None, write_5m: int | None, write_1h: int | None) -> tuple[int, int]:
    if write_5m is None and write_1h is None:
        return _zero(total), 0
    five, hour = _zero(write_5m), _zero(write_1h)
    if total is not None and total != five + hour:
        if five + hour == 0:
            return total, 0
        raise UsageMalformed("the cache writes by time to live do not add up to their total")
    return five, hour


def _langchain_writes(details: Wire) -> tuple[int, int]:
    five = _zero(_count(details, "ephemeral_5m_input_tokens"))
    hour = _zero(_count(details, "ephemeral_1h_input_tokens"))
    generic = _tiered(details, "cache_creation")
    # Some versions report the sum beside its parts, others set it to 0; whatever it has beyond them is unsplit.
    unsplit = generic - (five + hour) if generic >= five + hour else generic
    return five + unsplit, hour


def _tiered(details: Wire, key: str) -> int:
    # With a service tier langchain-openai writes `flex_cache_read` for `cache_read`, and so on.
    return sum(_zero(_count(details, name)) for name in (key, f"flex_{key}", f"priority_{key}"))


def _cache_details(value: object) -> dict[str, int]:
    by_ttl: dict[str, int] = {}
    for item in _items(value, "cacheDetails"):
        ttl = item.get("ttl")
        if ttl != "5m" and ttl != "1h":
            raise UsageMalformed("a cache write has a time to live that has no price: only 5m and 1h are known")
        by_ttl[str(ttl)] = by_ttl.get(str(ttl), 0) + _required(_count(item, "inputTokens"), "inputTokens")
    return by_ttl


def _modality(value: object, name: str) -> int:
    return sum(_zero(_count(_camel(item), "tokenCount")) for item in _items(value, "…TokensDetails") if _is(item, name))


def _is(item: Wire, modality: str) -> bool:
    # The SDK has an enum whose text is "MediaModality.AUDIO" or "AUDIO".
    return str(item.get("modality")).rpartition(".")[2].upper() == modality


def _items(value: object, name: str) -> list[Wire]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise UsageMalformed(f"{name} is not a list")
    items = cast("list[object]", value)
    if len(items) > _DETAILS_MAX:
        raise UsageMalformed(f"{name} has more than {_DETAILS_MAX} entries")
    return [_mapping(item, name) for item in items]


def _camel(given: Wire) -> Wire:
    """The Python SDK spells its fields in snake case, the API in camel case."""
    return {_camel_key(key): value for key, value in given.items()}


def _camel_key(key: object) -> str:
    if not isinstance(key, str):
        raise UsageMalformed("a usage report has a field whose name is not text")
    head, *rest = key.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _mapping(value: object, name: str) -> Wire:
    if value is None:
        return _NOTHING
    if type(value) is not dict and not isinstance(value, Mapping):
        raise UsageMalformed(f"{name} is not an object")
    return cast("Wire", value)


def _count(given: Wire, key: str) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= REPORT_TOKENS_MAX:
        raise UsageMalformed(f"{key} is not a whole number of tokens")
    return value


def _parts(given: Wire, keys: Iterable[str]) -> list[int]:
    """As `_count` for each, where what is not reported is none."""
    counts: list[int] = []
    for key in keys:
        value = given.get(key)
        if value is None:
            value = 0
        elif type(value) is not int or not 0 <= value <= REPORT_TOKENS_MAX:
            raise UsageMalformed(f"{key} is not a whole number of tokens")
        counts.append(value)
    return counts


def _required(value: int | None, name: str) -> int:
    if value is None:
        raise UsageMalformed(f"{name} is missing although other counts were reported")
    return value


def _output(value: int | None, entered: int | None, total: int | None, name: str) -> int:
    """Output as reported; where it was left out (embeddings, empty answers) what the total leaves for it."""
    if value is not None:
        return value
    if entered is None or total is None or total < entered:
        raise UsageMalformed(f"{name} is missing although other counts were reported")
    return total - entered


def _zero(value: int | None) -> int:
    return 0 if value is None else value


def _first(*values: int | None) -> int:
    return next((value for value in values if value is not None), 0)


def _first_of(given: Wire, *keys: str) -> object:
    return next((given[key] for key in keys if given.get(key) is not None), None)
