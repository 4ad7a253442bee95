"""
Keys that a provider repeats in an error, taken out of it: the key is a user's own, and the error ends in whoever's log.

The SDKs put a provider's whole answer into the error that they raise. Only this very key is looked for, any 12 of its
characters in a row.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from runrails.secretvalue import Secret

__all__ = ["unsay"]

MASK = "[redacted]"
_PIECE_CHARS = 12
_CHAIN_MAX = 8
_DEPTH_MAX = 12


def unsay(error: BaseException, secret: Secret) -> None:
    """Take a key out of an error, its answer and what it came from. Never raises."""
    with suppress(Exception):
        text = secret.reveal()
        pieces = frozenset(text[at : at + _PIECE_CHARS] for at in range(len(text) - _PIECE_CHARS + 1))
        each: BaseException | None = error
        for _ in range(_CHAIN_MAX):
            if each is None:
                return
            _unsay_one(each, pieces)
            each = each.__cause__ or each.__context__


def _unsay_one(error: BaseException, pieces: frozenset[str]) -> None:
    error.args = tuple(_cleaned(each, pieces, _DEPTH_MAX) for each in cast("tuple[object, ...]", error.args))
    for name, value in vars(error).items():
        cleaned = _cleaned(value, pieces, _DEPTH_MAX)
        if cleaned is not value:
            setattr(error, name, cleaned)
    response: object = getattr(error, "response", None)
    if response is not None:
        _unsay_answer(response, pieces)


def _unsay_answer(response: object, pieces: frozenset[str]) -> None:
    """What `text`, `json()` and `headers` of an answer of the SDKs' HTTP library say."""
    content: object = getattr(response, "_content", None)
    cleaned = _cleaned(content, pieces, 1)
    if cleaned is not content:
        response._content = cleaned  # type: ignore[attr-defined] # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue] -- it has no public way
        if hasattr(response, "_text"):  # as it was decoded before
            del response._text  # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue] -- as above
    headers: MutableMapping[str, str] | None = getattr(response, "headers", None)
    for name, value in [] if headers is None else list(headers.items()):
        clean = _without(value, pieces)
        if clean is not value and headers is not None:
            headers[name] = clean


def _cleaned(value: object, pieces: frozenset[str], depth: int) -> object:
    """The same object if there is nothing to clean."""
    if isinstance(value, str):
        return _without(value, pieces)
    if isinstance(value, bytes):
        text = value.decode("latin-1")
        clean = _without(text, pieces)
        return value if clean is text else clean.encode("latin-1")
    return _cleaned_inside(value, pieces, depth - 1) if depth > 0 else value


def _cleaned_inside(value: object, pieces: frozenset[str], depth: int) -> object:
    if type(value) is dict:
        before = cast("dict[object, object]", value)
        made = {_cleaned(name, pieces, 0): _cleaned(inner, pieces, depth) for name, inner in before.items()}
        return before if _same((*made, *made.values()), (*before, *before.values())) else made
    if type(value) is list or type(value) is tuple:
        inside = cast("list[object] | tuple[object, ...]", value)
        items = [_cleaned(each, pieces, depth) for each in inside]
        if _same(items, inside):
            return inside
        return items if isinstance(inside, list) else tuple(items)
    return value


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(each is before for each, before in zip(one, other, strict=True))


def _without(text: str, pieces: frozenset[str]) -> str:
    """The same text if none of the pieces is in it."""
    told: list[str] = []
    done = at = 0
    end = len(text) - _PIECE_CHARS
    while at <= end:
        if text[at : at + _PIECE_CHARS] not in pieces:
            at += 1
            continue
        told += [text[done:at], MASK]
        while at <= end and text[at : at + _PIECE_CHARS] in pieces:
            at += 1
        done = at = at + _PIECE_CHARS - 1
    return text if not told else "".join([*told, text[done:]])
