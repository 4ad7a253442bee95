"""OpenAI embeddings, and the lists of models of OpenAI and Anthropic."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import TYPE_CHECKING

from runrails.testing.provider.openai_chat import openai_error, openai_error_body
from runrails.testing.provider.reply import CREATED_S, Reply
from runrails.testing.provider.values import Json, ProviderMessage, ProviderRequest
from runrails.testing.provider.wire import (
    BadRequest,
    Dialect,
    Part,
    Received,
    as_int,
    as_list,
    as_text,
    compact,
    sse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DIALECT", "model_card", "models_page"]

DIMENSIONS = 8
DIMENSIONS_MAX = 4096


def _parse(received: Received) -> ProviderRequest:
    model = as_text(received.body.get("model")) or received.model
    if not model:
        raise BadRequest("you must provide a model parameter")
    inputs = _inputs(received.body.get("input"))
    if not inputs:
        raise BadRequest("input must not be empty")
    return ProviderRequest(
        wire="openai_embeddings",
        path=received.path,
        number=received.number,
        model=model,
        messages=tuple(ProviderMessage(role="user", text=text) for text in inputs),
        headers=received.headers,
        body=received.body,
    )


def _inputs(value: Json) -> list[str]:
    """One text, many texts, one list of token numbers or many of them: each becomes a text."""
    if isinstance(value, str):
        return [value]
    values = as_list(value)
    if values and all(isinstance(item, int) for item in values):
        return [_tokens_text(values)]
    return [item if isinstance(item, str) else _tokens_text(as_list(item)) for item in values]


def _tokens_text(tokens: Sequence[Json]) -> str:
    return " ".join(f"{token:06d}" for token in map(as_int, tokens) if token is not None)


def _whole(request: ProviderRequest, reply: Reply) -> bytes:
    size = min(as_int(request.body.get("dimensions")) or DIMENSIONS, DIMENSIONS_MAX)
    packed = request.body.get("encoding_format") == "base64"
    data: list[Json] = []
    for index, message in enumerate(request.messages):
        vector = _vector(message.text, size)
        shown: Json = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    body: dict[str, Json] = {"object": "list", "data": data, "model": reply.model}
    if reply.report != "none":
        tokens = reply.usage.input_tokens
        body["usage"] = reply.wire_usage or {"prompt_tokens": tokens, "total_tokens": tokens}
    return compact(body)


def _vector(text: str, size: int) -> list[float]:
    """A vector of the text's hash: equal texts are equal, others are not near."""
    seed = text.encode("utf-8", "surrogatepass")
    digest = b"".join(hashlib.sha256(seed + bytes([block])).digest() for block in range((size + 31) // 32))
    return [(byte - 128) / 128 for byte in digest[:size]]


def _no_stream(request: ProviderRequest, reply: Reply) -> Iterable[Part]:
    return [Part(_whole(request, reply))]


DIALECT = Dialect(
    wire="openai_embeddings",
    stream_type="application/json",
    parse=_parse,
    whole=_whole,
    parts=_no_stream,
    error=openai_error,
    error_part=lambda error: sse(openai_error_body(error)),
)


def models_page(names: Iterable[str], *, anthropic: bool) -> bytes:
    """`GET /v1/models` in the shape of either vendor."""
    data: list[Json] = [_card(name, anthropic=anthropic) for name in sorted(names)]
    if anthropic:
        return compact({"data": data, "has_more": False, "first_id": None, "last_id": None})
    return compact({"object": "list", "data": data})


def model_card(name: str, *, anthropic: bool) -> bytes:
    """`GET /v1/models/NAME` in the shape of either vendor."""
    return compact(_card(name, anthropic=anthropic))


def _card(name: str, *, anthropic: bool) -> Json:
    if anthropic:
        return {"type": "model", "id": name, "display_name": name, "created_at": "2025-11-21T00:00:00Z"}
    return {"object": "model", "id": name, "created": CREATED_S, "owned_by": "runrails-testing"}
