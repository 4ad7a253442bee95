"""The words and lines of a text, as far as they tell whether anything new was said. At most 64 a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from zlib import crc32

from runrails.loops.canonical import OPEN

if TYPE_CHECKING:
    from runrails.loops.memory import Units

__all__ = ["combination", "is_other_input", "line_units", "names", "share_name", "words"]

UNITS_MAX = 64
_WORD = re.compile(r"\w+")
_WORD_BYTES = bytes(byte if chr(byte).isalnum() or byte == 95 else 32 for byte in range(128)) + b" " * 128
"""What leaves the words of ASCII text, and spaces between: to split that is much quicker than `\\w+`."""
_DIGIT_BYTES = bytes(byte if 48 <= byte <= 57 else 32 for byte in range(256))
_ITEM = re.compile(r"[^\x1c-\x1f]+")
_NUMBERED = re.compile(r"(?!(?:19|20)[0-9]{2}\Z)\w*[0-9]")
"""A word with a digit in it, which is no year."""
_LETTER = re.compile(r"[^\W\d_]")
VALUES_MAX = 16
NAME_WORDS_MAX = 2
"""Of a value that is a name; its words in another order are another one."""
PROSE_WORDS_MIN = 3


def words(text: str) -> list[bytes]:
    """The words of canonical arguments, and their items where they hold lists: an item ticked off is progress."""
    found = _words(text)
    if text.count(OPEN) > 1:
        found += [item.encode("utf-8", "surrogatepass") for item in _ITEM.findall(text)]
    return _folded(found)


def combination(text: str) -> list[bytes]:
    """
    The short values of canonical arguments together: a cell's row and column, a user and a role, a sum.

    Sentences are left out: shuffled, they ask the same.
    """
    if " " in text:
        text = "\x1e".join(
            part
            for part in text.split("\x1e")
            if part.count(" ") < NAME_WORDS_MAX or not _LETTER.search(part.rpartition("\x1f")[2])
        )
    return [text.encode("utf-8", "surrogatepass")] if text else []


def is_other_input(text: str, known: Units, seed: int, tool_seed: int) -> bool:
    """
    Whether canonical arguments ask about something else than was asked about before, and not the same in other words.

    Something else is a number, an id or a name that is new, or known ones in a new combination. A question of three
    words or more of which half are known is reworded.
    """
    reworded = False
    for value in _values(text)[:VALUES_MAX]:
        asked = _WORD.findall(value)[:UNITS_MAX]
        new = [word for word in asked if not known.knows((word.encode("utf-8", "surrogatepass"),), seed)]
        if any(_NUMBERED.match(word) for word in new) or (new and value.count(" ") < PROSE_WORDS_MIN - 1):
            return True
        if len(new) * 2 > len(asked):
            return True
        reworded = reworded or bool(new)
    return not (reworded or known.knows(combination(text), tool_seed))


def names(text: str) -> int:
    """What canonical arguments are about: the first four paths or names among their values, in 64 bits."""
    found = 0
    for value in [value for value in _values(text) if len(value) > 2 and not value.isdigit()][:4]:
        found = found << 16 | (crc32(value.encode("utf-8", "surrogatepass")) & 0xFFFE | 1)
    return found


def share_name(first: int, second: int) -> bool:
    """Whether two of what `names` gave have one in common."""
    known = {first >> shift & 0xFFFF for shift in (0, 16, 32, 48)}
    return any(name and name in known for name in (second >> shift & 0xFFFF for shift in (0, 16, 32, 48)))


def _values(text: str) -> list[str]:
    """What stands behind the keys of canonical arguments."""
    return [part.rpartition("\x1f")[2].strip("\x1c\x1d") for part in text.split("\x1e")]


def line_units(text: str) -> list[bytes]:
    """
    The lines of a text of many; of a single line its words, and its numbers together.

    Words alone would call "3 of 7" known after "7 of 3"; numbers are progress.
    """
    if "\n" in text:
        return _folded(text.encode("utf-8", "surrogatepass").split(b"\n"))
    data = text.encode("utf-8", "surrogatepass")
    found = data.translate(_WORD_BYTES).split() if len(data) == len(text) else _words(text)
    if len(found) > UNITS_MAX:
        return _folded(found)
    found.append(b" ".join(data.translate(_DIGIT_BYTES).split()))
    return found


def _words(text: str) -> list[bytes]:
    if text.isascii():
        return text.encode().translate(_WORD_BYTES).split()
    return [word.encode("utf-8", "surrogatepass") for word in _WORD.findall(text)]


def _folded(units: list[bytes]) -> list[bytes]:
    """Many units are joined to few, so that whatever is new in one of them still shows."""
    size = -(-len(units) // UNITS_MAX)
    if size <= 1:
        return units
    return [b"\n".join(units[i : i + size]) for i in range(0, len(units), size)]
