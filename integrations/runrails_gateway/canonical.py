"""
Short names for the turns of a conversation, equal wherever a turn says the same. Pure.

What SDKs add, drop or respell when they send an answer back does not matter: nulls, empty texts, spaces around a text,
hidden reasoning, the spelling of arguments, and marks of what is to be cached, which move from turn to turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from marshal import dumps
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runrails.calls import ToolCall

__all__ = ["answer_digest", "call_digest", "content_digest", "remembered", "said_digest", "spelled", "text_of"]

DIGEST_BYTES = 16
REMEMBERED_MAX = 8_192
"""Parts of conversations whose digest is remembered: a conversation sends all of them again each time."""
DEPTH_MAX = 64
_TEXTS = frozenset(("text", "input_text", "output_text"))
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr).encode
_decode = json.JSONDecoder().decode
_remembered: dict[bytes, bytes] = {}
"""By a digest of what was sent, letter by letter; nothing of the content is kept."""
_Part = TypeVar("_Part")


def answer_digest(text: str, calls: Iterable[tuple[str, str, object]]) -> bytes:
    """
    An answer of the model.

    Args:
        text: What it says, all of it.
        calls: Id, name and arguments (JSON text, or decoded) of each tool call that it asks for.
    """
    return said_digest(text, [(call_id, name, spelled(args)) for call_id, name, args in calls])


def said_digest(text: str, calls: Iterable[tuple[str, str, str]]) -> bytes:
    """The same of calls whose arguments are `spelled`."""
    parts = [text.strip()]
    for call in calls:
        parts += call
    return _digest("a", parts)


def remembered(kind: bytes, part: _Part, make: Callable[[_Part], bytes]) -> bytes:
    """
    What `make` says of a part of JSON, which is much slower than to see that the very same part was there before.

    Args:
        kind: Which `make` it is, a byte.
        part: Lists, mappings, texts and numbers.
        make: Its digest.
    """
    try:
        # Of this version, equal values give equal bytes, whoever else refers to them.
        key = blake2b(kind + dumps(cast("dict[str, object]", part), 2), digest_size=DIGEST_BYTES).digest()
    except ValueError:
        return make(part)
    digest = _remembered.get(key)
    if digest is None:
        if len(_remembered) >= REMEMBERED_MAX:
            _remembered.clear()
        digest = _remembered[key] = make(part)
    return digest


def call_digest(owner: bytes, call: ToolCall, args: str) -> bytes:
    """A tool call by its id, name and `spelled` arguments; some servers give the same ids in every conversation."""
    return _digest("c", [owner.hex(), call.id or "", call.name, args])


def content_digest(kind: str, content: object, *more: str) -> bytes:
    """What somebody else than the model says: text, or a list of parts, of which a single text is the same."""
    if type(content) is str:
        if not more:  # nearly all that people say
            return _named(f"{kind}{len(content)}:{content}")
        if len(more) == 1:  # results of tools
            (first,) = more
            return _named(f"{kind}{len(first)}:{first}{len(content)}:{content}")
        return _digest(kind, (*more, content))
    parts = [*more]
    for part in cast("list[object]", content) if isinstance(content, list) else (content,):
        text = _text(part)
        if text is None:
            _spell_part(part, parts, 0)
        else:
            parts.append(text)
    return _digest(kind, parts)


def text_of(content: object) -> str:
    """The text of an answer's content, in one or several parts; what is no text is left out."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join([_text(part) or "" for part in cast("list[object]", content)])


def _text(part: object) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return None
    known = cast("Mapping[str, object]", part)
    text, kind = known.get("text"), known.get("type")
    return text if isinstance(text, str) and isinstance(kind, str | None) and kind in _TEXTS else None


def _spell_part(part: object, parts: list[str], depth: int) -> None:
    """Everything in a part but for marks of the cache. A picture may be large, so nothing is encoded."""
    if isinstance(part, str):
        parts.append(part)
    elif depth > DEPTH_MAX:
        parts.append("…")
    elif isinstance(part, Mapping):
        known = cast("Mapping[str, object]", part)
        for key, value in known.items():
            if key != "cache_control" and value is not None:
                parts.append(key)
                _spell_part(value, parts, depth + 1)
    elif isinstance(part, list):
        items = cast("list[object]", part)
        parts.append(f"[{len(items)}")
        for item in items:
            _spell_part(item, parts, depth + 1)
    else:
        parts.append(repr(part))


def spelled(args: object) -> str:
    """Arguments in one spelling, whatever the order of their keys; text that is no JSON as it is."""
    value: object = args
    if isinstance(args, str):
        try:
            value = cast("object", _decode(args)) if args.strip() else None
        except (ValueError, RecursionError):
            return args
    try:
        return _encode({} if value is None else value)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def _digest(kind: str, parts: Iterable[str]) -> bytes:
    """Every part has its length in front, so that no two lists of parts are spelled alike."""
    return _named(kind + "".join([f"{len(part)}:{part}" for part in parts]))


def _named(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
