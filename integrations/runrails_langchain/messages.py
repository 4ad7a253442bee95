"""LangChain messages and tool schemas, made into the size of a prompt. What cannot be bounded is named, not guessed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from runrails.calls import Prompt
from runrails.request_wire import mode_of, picture
from runrails.tiers import premium

__all__ = ["Sized", "prompt_of", "text_of", "text_prompt"]

Block = Mapping[str, object]

_IMAGES = frozenset({"image", "image_url", "input_image"})
_TEXTS = {
    "text": ("text",), "input_text": ("text",), "output_text": ("text",), "text-plain": ("text",),
    "thinking": ("thinking", "signature"), "redacted_thinking": ("data",), "reasoning": ("reasoning", "text"),
    "reasoning_content": ("reasoning_content", "text"), "refusal": ("refusal",),
}  # fmt: skip
"""Content that is text, and under which keys."""
_WHOLE = frozenset({"tool_use", "tool_call", "function_call", "tool_result", "server_tool_use", "json", "non_standard"})
"""Content whose JSON is what is sent, or more."""
_CALLS = frozenset({"tool_use", "tool_call", "function_call"})
_NOTHING = frozenset({"cache_control", "cachePoint", "cache_point", "tool_call_chunk", "invalid_tool_call"})
_SCHEMAS = ("tools", "functions", "response_format", "output_config", "format")
_DEPTH_MAX = 8


class Sized(NamedTuple):
    """A prompt and what its parts say about the call."""

    prompt: Prompt
    cache_write: bool
    """Whether something in it asks the provider to write its cache."""


class _Count:
    __slots__ = ("cache", "images", "pictures", "texts", "unbounded")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.images = 0
        self.pictures: list[int] = []
        self.unbounded: str | None = None
        self.cache = False


def text_prompt(prompts: Sequence[str], params: Mapping[str, object], *, unbounded: str | None = None) -> Sized:
    """The prompt of a model that takes plain text."""
    texts = tuple(prompts)
    prompt = Prompt(texts=texts, messages=len(texts), tools=_schemas(params), unbounded=unbounded or premium(params))
    return Sized(prompt, cache_write=False)


def prompt_of(
    messages: Sequence[BaseMessage], params: Mapping[str, object], *, unbounded: str | None = None,
    stored: str | None = None,
) -> Sized:  # fmt: skip
    """
    The prompt of a chat model: every text, tool call and id in it, pictures counted, tool schemas as JSON.

    Args:
        messages: What is said.
        params: What is sent beside it.
        unbounded: What in there nobody can bound.
        stored: What in there the provider keeps.
    """
    count = _Count()
    texts = count.texts
    for message in messages:
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        else:
            # Some providers' content repeats the tool calls, which are counted below.
            repeated = _CALLS if isinstance(message, AIMessage) and message.tool_calls else ()
            for block in content:
                if not repeated or isinstance(block, str) or block.get("type") not in repeated:
                    _add(block, count)
        if message.name:
            texts.append(message.name)
        if isinstance(message, AIMessage):
            _add_calls(message, texts)
        elif isinstance(message, ToolMessage):
            texts.append(message.tool_call_id)
    tools = _schemas(params)
    return Sized(
        Prompt(
            texts=tuple(texts),
            messages=len(messages),
            tools=tools,
            images=count.images,
            unbounded=unbounded or count.unbounded or premium(params),
            stored=stored,
            pictures=tuple(count.pictures),
            mode=mode_of(params),
        ),
        cache_write=count.cache or "cache_control" in params or any('"cache' in tool for tool in tools),
    )


def text_of(content: object) -> list[str]:
    """Every text in a message's content; only its size is used."""
    count = _Count()
    if isinstance(content, str):
        return [content]
    for block in cast("Iterable[object]", content) if isinstance(content, list | tuple) else ():
        _add(block, count)
    return count.texts


def _add(block: object, count: _Count, depth: int = 0) -> None:
    if isinstance(block, str):
        count.texts.append(block)
        return
    if not isinstance(block, Mapping) or depth > _DEPTH_MAX:
        count.unbounded = "nested" if isinstance(block, Mapping) else type(block).__name__
        return
    known = cast("Block", block)
    kind = known.get("type")
    if kind is None and len(known) == 1:
        kind = next(iter(known))
    if "cache_control" in known or kind in ("cachePoint", "cache_point"):
        # It moves from one message to another, and is no part of what the model reads.
        count.cache = True
        known = {key: value for key, value in known.items() if key != "cache_control"}
    if not isinstance(kind, str):
        count.unbounded = "untyped"
    elif kind == "text-plain" and not isinstance(known.get("text"), str):
        _add_file(known.get("base64") or known.get("data"), count)
    elif kind in _TEXTS:
        count.texts.extend(value for key in _TEXTS[kind] if isinstance(value := known.get(key), str))
        _add_nested(known.get("summary"), count, depth)
    elif kind in _IMAGES:
        count.images += 1
        count.pictures.append(picture(known))
    elif kind == "tool_result" and isinstance(known.get("content"), list):
        count.texts.append(str(known.get("tool_use_id", "")))
        _add_nested(known["content"], count, depth)
    elif kind in _WHOLE:
        count.texts.append(_json(known))
    elif kind not in _NOTHING:
        count.unbounded = kind


def _add_file(data: object, count: _Count) -> None:
    """A text file that is sent along; one behind an address may be of any size."""
    if isinstance(data, str):
        count.texts.append(data)
    else:
        count.unbounded = "text-plain"


def _add_nested(blocks: object, count: _Count, depth: int) -> None:
    if isinstance(blocks, list):
        for block in cast("list[object]", blocks):
            text = _whole_text(block)
            if text is None:
                _add(block, count, depth + 1)
            else:
                count.texts.append(text)


def _whole_text(block: object) -> str | None:
    return _json(cast("Block", block)) if isinstance(block, Mapping) and "text" in block else None


def _add_calls(message: AIMessage, texts: list[str]) -> None:
    for call in message.tool_calls:
        texts.extend((call["name"], call["id"] or "", _json(call["args"])))
    for broken in message.invalid_tool_calls:
        texts.extend((broken["name"] or "", broken["id"] or "", broken["args"] or ""))
    extra = message.additional_kwargs
    if extra:
        thoughts = extra.get("reasoning_content")
        if isinstance(thoughts, str):
            texts.append(thoughts)
        if "function_call" in extra:
            texts.append(_json(extra["function_call"]))


def _schemas(params: Mapping[str, object]) -> tuple[str, ...]:
    found: list[str] = []
    for key in _SCHEMAS:
        value = params.get(key)
        if isinstance(value, list | tuple):
            found.extend(_json(item) for item in cast("Sequence[object]", value))
        elif value:
            found.append(_json(value))
    return tuple(found)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    schema = getattr(value, "model_json_schema", None)
    if isinstance(value, type) and callable(schema):
        return schema()
    # What JSON cannot express is measured by its repr: for the bound only the size matters.
    return repr(value)
