"""
Exact token counts for models whose tokenizer is published, if the extra `runrails[tokens]` is installed.

It is asked for nothing but what it ships with, so that no count ever needs a network. Loading it takes most of a
second, once, when a prompt of more than a few hundred characters is first counted; without it, or for any other model,
the bound of `runrails.textbound` is taken.

Source of which model has which tokenizer: OpenAI's tiktoken, and the model cards of Llama 3 and Qwen 3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, cast

from runrails.textbound import text_bound

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["counted", "encoding_of"]

_OPENAI = {
    "o200k_base": re.compile(
        r"(ft:)?((gpt-4o|chatgpt-4o|gpt-4\.1|gpt-4\.5|gpt-5(\.\d+)?)(?![\w.])|(o1|o3|o4-mini)(?![\w.]))"
    ),
    "cl100k_base": re.compile(
        r"(ft:)?(gpt-4(-(turbo|32k|vision|\d{4}).*)?|gpt-3\.5-turbo.*|gpt-35-turbo.*)(:.*)?$"
        r"|text-embedding-(3-small|3-large|ada-002)$"
    ),
}
_OPEN = {
    "llama3": re.compile(r"(^|[/.])(meta-)?llama-?3([.-][123])?(-|$)"),
    "qwen3": re.compile(r"(^|/)qwen-?3-\d+(\.\d+)?b(-|$)"),
}
_OTHERS_COUNTS = frozenset({"openrouter"})
"""Platforms that have reported counts of another tokenizer than the model's."""
_UNEVEN = 64
"""One token more for so many: a provider may render what surrounds a text otherwise."""
_KEPT_MAX = 1_024


class _Tokenizer(Protocol):
    def count(self, text: str, /) -> int: ...


_counters: dict[tuple[str, str], Callable[[tuple[str, ...]], int] | None] = {}
_missing: list[bool] = []


def encoding_of(provider: str, model: str) -> str | None:
    """The name of the tokenizer that a model is known to have; None if it is not published or not known."""
    name = model.lower()
    if provider in ("openai", "azure"):
        return next((encoding for encoding, names in _OPENAI.items() if names.match(name)), None)
    if provider in _OTHERS_COUNTS:
        return None
    return next((encoding for encoding, names in _OPEN.items() if names.search(name)), None)


def counted(texts: tuple[str, ...], provider: str, model: str) -> int | None:
    """
    How many tokens the texts are to that model, a little more for what may be rendered otherwise.

    None if nobody knows without the extra, or at all.
    """
    key = (provider, model)
    if key in _counters:
        count = _counters[key]
    else:
        count = _counter(provider, model)
        if len(_counters) < _KEPT_MAX:
            _counters[key] = count
    return None if count is None else count(texts)


def _counter(provider: str, model: str) -> Callable[[tuple[str, ...]], int] | None:
    encoding = encoding_of(provider, model)
    if encoding is None or _missing:
        return None
    try:
        from quicktok import get_encoding  # type: ignore[import-untyped]  # pyright: ignore[reportMissingImports, reportMissingTypeStubs, reportUnknownVariableType, reportUnusedIgnoreComment] -- an extra, without types

        tokenizer = cast("_Tokenizer", get_encoding(encoding))
    except Exception:  # noqa: BLE001 -- not installed, or not as it should be: the bound does without it
        _missing.append(True)
        return None
    normalises = encoding == "qwen3"

    def one(text: str) -> int:
        if normalises and not text.isascii() and _changes(text):
            return text_bound((text,))
        try:
            count = tokenizer.count(text)
            if text.startswith("{"):
                # Arguments of a call may be written anew on their way, with spaces between what they hold.
                count = max(count, tokenizer.count(text.replace(",", ", ").replace(":", ": ")))
        except (TypeError, UnicodeError):  # a lone surrogate
            return text_bound((text,))
        return count

    def count(texts: tuple[str, ...]) -> int:
        total = sum(map(one, texts))
        return total + total // _UNEVEN + 2 * len(texts)

    return count


def _changes(text: str) -> bool:
    import unicodedata

    return not unicodedata.is_normalized("NFC", text)
