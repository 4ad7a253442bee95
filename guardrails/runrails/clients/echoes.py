"""
Keys that a provider repeats, taken out of errors and of the SDKs' logs: the key is a user's own, the log whoever's.

The SDKs put a provider's whole answer into the error that they raise, and their HTTP library writes headers down at
DEBUG. Only the very key of the call is looked for, any 12 of its characters in a row.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence
    from logging import LogRecord

    from runrails.secretvalue import Secret

__all__ = ["MASK", "mask_logs", "unsay"]

MASK = "[redacted]"
_PIECE_CHARS = 12
_CHAIN_MAX = 8
_DEPTH_MAX = 12
_LIBRARIES = frozenset({"anthropic", "hpack", "httpcore", "httpcore2", "httpx", "httpx2", "openai"})
_known = [0]
"""How many loggers there were when they were looked at last."""
_masked: set[str] = set()


def unsay(error: BaseException, secret: Secret) -> None:
    """Take a key out of an error, its answer and what it came from. Never raises."""
    with suppress(Exception):
        pieces = _pieces(secret)
        chain = [error]
        for each in chain:
            _unsay_one(each, pieces)
            behind = [other for other in (each.__cause__, each.__context__) if other is not None and other not in chain]
            chain += behind[: _CHAIN_MAX - len(chain)]


def mask_logs(secret_now: Callable[[], Secret | None]) -> None:
    """
    From now on, the SDKs' logs do not repeat the key of the call that they write about.

    Args:
        secret_now: The key of the call that is made in this context.
    """
    import logging

    known = logging.root.manager.loggerDict
    if len(known) == _known[0]:
        return

    def mask(record: LogRecord) -> bool:
        with suppress(Exception):
            secret = secret_now()
            if secret is not None:
                if record.exc_info and record.exc_info[1] is not None:
                    unsay(record.exc_info[1], secret)
                text = record.getMessage()
                clean = _without(text, _pieces(secret))
                if clean is not text:
                    record.msg, record.args = clean, ()
        return True

    # A filter counts for its own logger alone, and a logger is made when its module is loaded.
    for name, logger in list(known.items()):
        if name.partition(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger) and name not in _masked:
            _masked.add(name)
            logger.addFilter(mask)
    _known[0] = len(known)


def _pieces(secret: Secret) -> frozenset[str]:
    text = secret.reveal()
    return frozenset(text[at : at + _PIECE_CHARS] for at in range(len(text) - _PIECE_CHARS + 1))


def _unsay_one(error: BaseException, pieces: frozenset[str]) -> None:
    args = _cleaned(error.args, pieces, _DEPTH_MAX)
    if args is not error.args:
        error.args = cast("tuple[object, ...]", args)
    for name, value in list(vars(error).items()):
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
    further: object = getattr(response, "next_request", None)
    url = str(getattr(further, "url", ""))
    if _without(url, pieces) is not url:
        response.next_request = None  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] -- where it redirects to, which is not followed
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
