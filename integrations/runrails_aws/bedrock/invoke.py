"""
What bounds a request to InvokeModel, whose body has the form of the model's maker.

Source: Bedrock user guide, "Inference request parameters and response fields for foundation models". A body of text and
settings with a field that is not documented for its model is refused, and so is a chat with a second cap or prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

from runrails.calls import Prompt
from runrails.errors import BoundUnknown
from runrails.request_wire import WireCall, anthropic_messages, may_reason, openai_chat
from runrails_aws.bedrock.converse import converse, list_of, map_of, measured

__all__ = ["Invocation", "invocation", "maker_of", "with_cap"]

Body = Mapping[str, object]


class Invocation(NamedTuple):
    """A request to InvokeModel."""

    wire: WireCall
    cap: tuple[str, ...]
    """Where the cap on output tokens stands in the body; empty if there is none."""
    embedding: bool = False
    wants_hour: bool = False
    """Whether a part of it asks to be cached for an hour."""


class _Text(NamedTuple):
    """Bodies that hold nothing but text and settings."""

    models: str
    fields: frozenset[str]
    cap: tuple[str, ...] = ()
    templated: bool = False
    """Whether the maker wraps it in a prompt of its own."""


_SAMPLING = frozenset({"temperature", "top_p", "top_k", "stop"})
_TEXTS = (
    _Text(
        r"amazon\.titan-text-", frozenset({"inputText", "textGenerationConfig"}),
        ("textGenerationConfig", "maxTokenCount"),
    ),
    _Text(r"amazon\.titan-embed-(g1-)?text-", frozenset({"inputText", "dimensions", "normalize", "embeddingTypes"})),
    _Text(
        r"cohere\.embed-", frozenset({"texts", "input_type", "truncate", "embedding_types", "output_dimension"}),
    ),
    _Text(
        r"cohere\.command-r",
        frozenset(
            {"message", "chat_history", "documents", "search_queries_only", "preamble", "max_tokens", "temperature",
             "p", "k", "prompt_truncation", "frequency_penalty", "presence_penalty", "seed", "return_prompt", "tools",
             "tool_results", "stop_sequences", "raw_prompting"}
        ),
        ("max_tokens",), templated=True,
    ),
    _Text(r"meta\.llama", frozenset({"prompt", "max_gen_len", "temperature", "top_p"}), ("max_gen_len",)),
    _Text(r"(mistral|deepseek)\.", _SAMPLING | {"prompt", "max_tokens"}, ("max_tokens",)),
)  # fmt: skip
_CHATS = r"(ai21\.jamba|deepseek|google\.gemma|minimax|mistral|moonshotai|nvidia|openai|qwen|writer|zai)[.-]"
"""Makers whose models take OpenAI's chat form."""
_CHAT_CAPS = frozenset({"max_completion_tokens", "max_tokens"})
_NOVA = r"amazon\.nova-(2-)?(micro|lite|pro|premier)-"
_GEOGRAPHY = r"[a-z]{2,6}(-gov)?\.(?=[a-z0-9]+\.)"


def invocation(body: Body, *, model: str) -> Invocation:
    """
    A request's body, read as its model reads it.

    Raises:
        BoundUnknown: Nobody here knows this form, or how the model would read it.
    """
    name = maker_of(model)
    if "anthropic_version" in body and "messages" in body and not _is_of_others(name):
        wire = anthropic_messages({**body, "model": model})
        return Invocation(wire, ("max_tokens",), wants_hour='"ttl":"1h"' in measured(body))
    if re.match(_NOVA, name) and "messages" in body:
        config = map_of(body.get("inferenceConfig"))
        cap = next((key for key in ("maxTokens", "max_new_tokens", "max_tokens") if key in config), "maxTokens")
        return Invocation(converse(body, model=model), ("inferenceConfig", cap))
    for text in _TEXTS:
        if re.match(text.models, name) and set(body) <= text.fields:
            return _plain(body, text, model)
    if re.match(_CHATS, name) and "messages" in body:
        longer = "max_completion_tokens" in body or (name.startswith("openai.") and "max_tokens" not in body)
        cap = "max_completion_tokens" if longer else "max_tokens"
        wire = openai_chat({**body, "model": model})
        twice = body.keys() >= _CHAT_CAPS
        if twice or "prompt" in body:
            what = "two caps on the output" if twice else "a prompt beside the messages"
            wire = wire._replace(prompt=replace(wire.prompt, unbounded=what))
        return Invocation(wire, (cap,))
    raise BoundUnknown(
        "The body of this InvokeModel request has a form whose cost cannot be told beforehand.",
        next_step="Use Converse, which has one form for all models, or a client that is not guarded.",
        model=model[:120],
    )


def _is_of_others(name: str) -> bool:
    """Whether a name is that of a model which reads another form than Anthropic's."""
    return any(re.match(form, name) for form in (_CHATS, _NOVA, *(text.models for text in _TEXTS)))


def maker_of(model: str) -> str:
    """The maker and the name inside a model id, an inference profile's or an ARN: `meta.llama3-8b-instruct-v1:0`."""
    return re.sub(_GEOGRAPHY, "", model.lower().rpartition("/")[2], count=1)


def with_cap(body: Body, path: tuple[str, ...], tokens: int) -> Body:
    """The body with another cap on the output."""
    if len(path) == 1:
        return {**body, path[0]: tokens}
    return {**body, path[0]: with_cap(map_of(body.get(path[0])), path[1:], tokens)}


def _plain(body: Body, text: _Text, model: str) -> Invocation:
    place = map_of(body.get(text.cap[0])) if len(text.cap) > 1 else body
    cap = place.get(text.cap[-1]) if text.cap else None
    pieces = sum(len(list_of(body.get(name))) for name in ("chat_history", "documents", "texts", "tool_results"))
    prompt = Prompt(
        texts=(measured(body),),
        messages=1 + pieces,
        # What stands around a prompt that the maker wraps is allowed for as it is for tools.
        tools=tuple(measured(tool) for tool in (list_of(body.get("tools")) or ("",))) if text.templated else (),
    )
    wire = WireCall(
        model=model, prompt=prompt, max_tokens=cast("int | None", cap), n=1, cache_write=False,
        reasoning=may_reason(model),
    )  # fmt: skip
    return Invocation(wire, text.cap, embedding=not text.cap)
