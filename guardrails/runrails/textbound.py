"""
The most tokens that a text can be, whatever the tokenizer: its bytes, less what is known to take fewer.

No byte-pair tokenizer makes more tokens than its text has bytes. Three things are known to take fewer in every
tokenizer that could be measured offline (o200k, cl100k, Llama 3, Qwen 3, DeepSeek, Tekken and the published one of
Claude); nothing else is discounted, however usual it is, so that rare letter pairs, identifiers and numbers keep their
full bytes:

- 5,000 usual words: tokenizers split text between letters and what is none, so a whole word is a piece of its own,
  and its tokens after each possible character were counted. The space before a word stays a token of its own, which
  leaves room for tokenizers that nobody could measure.
- Letters of which each pair is a token (`abcdeilmnoprstuy`): two neighbours never stay single, so a run of them takes
  at most two tokens for three letters and one more.
- 536 characters of Cyrillic, Japanese, Chinese and Korean that are one token each, alone and next to each other; they
  are charged a quarter more, as among others their bytes may be joined otherwise. Scripts where natural text would be
  left with less room than half as much again are not discounted (Greek, Arabic, Hebrew, the Indian scripts, Thai).

Some tokenizers normalise the text first (NFC, NFKC: one character of three bytes can become 18), so it is the largest
bound of the text as it is and of those forms.

`text_tokens.txt` holds the words of one, two and three tokens, a line each, and then the characters.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SHORT_CHARS", "bytes_bound", "text_bound"]

SHORT_CHARS = 256
"""Up to so many characters a prompt's bytes are taken as they are: a closer look would not pay."""
_DATA = __file__.removesuffix("textbound.py") + "text_tokens.txt"


class _Known(NamedTuple):
    """What is in the data file."""

    words: dict[bytes, int]
    """By word: how many thirds of a token it takes fewer than its bytes, beyond what its pairs of letters save."""
    single: frozenset[str]
    """Characters that are one token each."""


_known: list[_Known] = []


def text_bound(texts: tuple[str, ...]) -> int:
    """The most tokens that these texts can be, whatever the tokenizer and wherever they are joined or parted."""
    chars = sum(map(len, texts))
    if chars <= SHORT_CHARS:
        return sum(map(bytes_bound, texts))
    # A provider may join what stands side by side, so what a text begins or ends with is no whole word: an apostrophe
    # belongs to its word, and no accent melts into one.
    return _long(f"'{_GLUE.join(texts)}'") - len(texts) - 1


def bytes_bound(text: str) -> int:
    """The largest of its UTF-8 bytes and those after NFC and NFKC; lone surrogates count like any character."""
    if text.isascii():
        return len(text)
    return max(len(form.encode("utf-8", "surrogatepass")) for form in _forms(text))


def _long(text: str) -> int:
    known = _known[0] if _known else _read()
    if text.isascii():
        return len(text) - _saved_in_words(text.encode(), known.words)
    return max(_wide(form, known) for form in _forms(text))


def _forms(text: str) -> tuple[str, ...]:
    import unicodedata

    if unicodedata.is_normalized("NFKC", text):
        return (text,)
    # Mostly a wide comma is all there is to it, and the text is its own NFC.
    return tuple({text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text)})


def _wide(text: str, known: _Known) -> int:
    data = text.encode("utf-8", "surrogatepass")
    single = "".join(filter(known.single.__contains__, text))
    saved = len(single.encode()) - len(single) - -(-len(single) // 4)
    return len(data) - saved - _saved_in_words(data, known.words)


def _saved_in_words(data: bytes, words: dict[bytes, int]) -> int:
    more = sum(filter(None, map(words.get, data.translate(_WORDS).split())))
    return (_thirds_in_pairs(data) + more) // 3


def _thirds_in_pairs(data: bytes) -> int:
    letters = data.translate(_PAIRED)
    return letters.count(b"a") - letters.count(b" a") - letters.startswith(b"a")


def _read() -> _Known:
    with open(_DATA, encoding="utf-8") as file:  # noqa: PTH123 -- pathlib takes as long to load as this package
        *lines, characters = file.read().splitlines()
    words: dict[bytes, int] = {}
    for tokens, line in enumerate(lines, 1):
        for word in line.encode().split():
            more = 3 * (len(word) - tokens) - _thirds_in_pairs(word)
            if more > 0:
                words[word] = more
    _known.append(_Known(words, frozenset(characters)))
    return _known[0]


_GLUE = "'"
_PART_OF_A_WORD = ord("0")
"""What stands for it once digits are gone: no word has it."""


def _class_of(code: int) -> int:
    if code >= 128 or chr(code) == _GLUE:
        return _PART_OF_A_WORD
    return code if chr(code).isalpha() else ord(" ")


_WORDS = bytes(map(_class_of, range(256)))
"""Leaves words. What is not ASCII belongs to the word it touches, and so does an apostrophe, as some tokenizers do."""
_PAIRED = bytes(ord("a") if chr(code) in "abcdeilmnoprstuy" else ord(" ") for code in range(256))
"""Leaves runs of letters of which each pair is a token."""
