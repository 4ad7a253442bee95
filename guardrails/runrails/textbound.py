"""
The most tokens that a text can be, whatever the tokenizer: its bytes, less what is known to take fewer.

No byte-pair tokenizer makes more tokens than its text has bytes. Some things are known to take fewer in every tokenizer
that could be measured offline (o200k, cl100k, Llama 3, Qwen 3, DeepSeek, Tekken and the published one of Claude);
nothing else is discounted, however usual it is, so that rare letter pairs, identifiers and numbers keep their full
bytes.

Measured:

- 20,000 usual words: tokenizers split text between letters and what is none, so a whole word is a piece of its own,
  and its tokens after each possible character were counted. The space before a word stays a token of its own, which
  leaves room for tokenizers that nobody could measure.
- 536 characters of Cyrillic, Japanese, Chinese and Korean that are one token each, alone and next to each other; they
  are charged a quarter more, as among others their bytes may be joined otherwise.
- Four spaces of an indented line, of which at most two tokens are left.

Following from how such tokenizers work, which join two neighbours wherever they know the pair, so that no two bytes
that are a token together both stay single. Beyond letters such a pair counts only if each of the seven has learnt it in
the first half of its vocabulary, so that a smaller one would have it, too:

- Letters of which each pair is a token (`abcdeilmnoprstuy`), and quotation marks with a colon or a comma after them:
  half a token less for each pair that has no letter of another pair in it.
- Characters of two bytes that are a token (letters with accents, the most frequent ones of Arabic): 1.5 tokens for
  each, as a pair may be kept apart where each half has joined another neighbour.
- Characters of three bytes of which the first two, common to many, are a token (Devanagari, Thai, Burmese, Georgian,
  half of Bengali and Tamil, usual characters of Chinese, Japanese and Korean): two tokens for each.

What keeps all its bytes: Gujarati, Gurmukhi, Odia, Sinhala, Khmer, Lao, Ethiopic and emoji, as at least one of the
seven has no token for the first two bytes; Armenian, Greek, Hebrew and the rarer letters of Arabic, Telugu, Kannada and
Malayalam, as one has none or has learnt it late.

Some tokenizers normalise the text first (NFC, NFKC: one character of three bytes can become 18), so it is the largest
bound of the text as it is and of those forms.

`text_tokens.txt` holds the words, a line for each number of halves of a token that they save, then the characters.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SHORT_CHARS", "bytes_bound", "long_bound", "text_bound"]

SHORT_CHARS = 256
"""Up to so many characters a prompt's bytes are taken as they are: a closer look would not pay."""
_DATA = __file__.removesuffix("textbound.py") + "text_tokens.txt"
_WHOLE, _HALF, _QUARTER = 12, 6, 3
"""A token and parts of it, as savings are counted."""
_INDENT = b"    "


class _Known(NamedTuple):
    """What is in the data file."""

    words: dict[bytes, int]
    """By word: how many halves of a token it takes fewer than its bytes, beyond what its pairs of letters save."""
    characters: dict[str, int]
    """By character that is not ASCII: how many twelfths of a token it takes fewer than its bytes."""


_known: list[_Known] = []


def text_bound(texts: tuple[str, ...]) -> int:
    """The most tokens that these texts can be, whatever the tokenizer and wherever they are joined or parted."""
    return sum(map(bytes_bound, texts)) if sum(map(len, texts)) <= SHORT_CHARS else long_bound(texts)


def long_bound(texts: tuple[str, ...]) -> int:
    """The same of texts that are worth the closer look."""
    # A provider may join what stands side by side, so what a text begins or ends with is no whole word: an apostrophe
    # belongs to its word, and no accent melts into one.
    text = f"'{_GLUE.join(texts)}'"
    known = _known[0] if _known else _read()
    if text.isascii():
        return len(text) - _saved(text.encode(), known.words) // _WHOLE - len(texts) - 1
    return max(_wide(form, known) for form in _forms(text)) - len(texts) - 1


def bytes_bound(text: str) -> int:
    """The largest of its UTF-8 bytes and those after NFC and NFKC; lone surrogates count like any character."""
    if text.isascii():
        return len(text)
    return max(len(form.encode("utf-8", "surrogatepass")) for form in _forms(text))


def _forms(text: str) -> tuple[str, ...]:
    import unicodedata

    if unicodedata.is_normalized("NFKC", text):
        return (text,)
    # Mostly a wide comma is all there is to it, and the text is its own NFC.
    return tuple({text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text)})


def _wide(text: str, known: _Known) -> int:
    data = text.encode("utf-8", "surrogatepass")
    saved = sum(filter(None, map(known.characters.get, text)))
    return len(data) - (saved + _saved(data, known.words)) // _WHOLE


def _saved(data: bytes, words: dict[bytes, int]) -> int:
    """Twelfths of a token that the bytes take fewer than they are, characters that are not ASCII left aside."""
    pairs = data.translate(_PAIRED)
    saved = _HALF * (sum(filter(None, map(words.get, data.translate(_WORDS).split()))) + pairs.count(b"aa"))
    if b"\n" in data and _INDENT in data:
        saved += 2 * _WHOLE * data.count(_INDENT)
    return saved + _HALF * pairs.count(b'":') if b'"' in data else saved


def _read() -> _Known:
    with open(_DATA, encoding="utf-8") as file:  # noqa: PTH123 -- pathlib takes as long to load as this package
        lines, _, rest = file.read().partition("\n\n")
    words: dict[bytes, int] = {}
    for line in lines.encode().splitlines():
        halves, _, these = line.partition(b" ")
        words.update(dict.fromkeys(these.split(), int(halves)))
    single, three, joined, two = rest.split("\n")[:4]
    characters = {each: _WHOLE * (len(each.encode()) - 1) - _QUARTER for each in single}
    characters.update(dict.fromkeys(three, _WHOLE))
    # Of two bytes; or of three, but joined by some tokenizers to the letter before (Vietnamese).
    characters.update(dict.fromkeys(two + joined, _HALF))
    _known.append(_Known(words, characters))
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
_PAIRS = {**dict.fromkeys("abcdeilmnoprstuy", "a"), '"': '"', ":": ":", ",": ":"}
_PAIRED = bytes(ord(_PAIRS.get(chr(code), " ")) for code in range(256))
"""Leaves runs of letters of which each pair is a token, and what else is one together."""
