"""What every wire has in common: reading loose JSON, writing server-sent events, the face of a dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from runrails.testing.provider.reply import Reply
    from runrails.testing.provider.values import Error, Json, ProviderRequest, Wire

__all__ = [
    "BadRequest",
    "Dialect",
    "Part",
    "Received",
    "as_int",
    "as_list",
    "as_map",
    "as_text",
    "compact",
    "content_text",
    "sse",
]


class BadRequest(ValueError):
    """The request lacks something the real provider insists on."""


class Received(NamedTuple):
    """A request as HTTP brought it."""

    path: str
    number: int
    headers: Mapping[str, str]
    body: Mapping[str, Json]
    model: str | None
    """The model, if the path names it."""
    stream: bool
    """Whether the path asks for a stream."""


class Part(NamedTuple):
    """One write of a stream."""

    data: bytes
    content: bool = False
    """Whether it carries a piece of the answer (and so costs output tokens)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one wire reads requests and writes answers."""

    wire: Wire
    stream_type: str
    """Content type of a stream."""
    parse: Callable[[Received], ProviderRequest]
    """Raises `BadRequest`."""
    whole: Callable[[ProviderRequest, Reply], bytes]
    parts: Callable[[ProviderRequest, Reply], Iterable[Part]]
    error: Callable[[Error, int], tuple[Mapping[str, str], bytes]]
    """Headers and body of an error answer; the number is the request's."""
    error_part: Callable[[Error], Part]
    """An error said inside a stream that has begun."""
    reply_headers: Callable[[Reply], Mapping[str, str]] = lambda _reply: {}


def compact(value: Json) -> bytes:
    """JSON without spaces, lone surrogates escaped."""
    return json.dumps(value, separators=(",", ":")).encode()


def sse(value: Json, *, event: str | None = None, content: bool = False) -> Part:
    """One server-sent event."""
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return Part(name + b"data: " + compact(value) + b"\n\n", content)


def as_map(value: Json) -> Mapping[str, Json]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Json) -> Sequence[Json]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def as_text(value: Json) -> str:
    """The value if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def as_int(value: Json) -> int | None:
    """The value if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def content_text(content: Json) -> str:
    """All text of a message's content, whether it is one text or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(as_text(as_map(part).get("text")) for part in as_list(content))
