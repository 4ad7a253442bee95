"""The words and lines of a text, as far as they tell whether anything new was said. At most 64 a text."""

from __future__ import annotations

import re

from runrails.loops.canonical import OPEN

__all__ = ["line_units", "words"]

UNITS_MAX = 64
_WORD = re.compile(r"\w+")
_ASCII_WORD = re.compile(rb"\w+")
_ASCII_NUMBER = re.compile(rb"\d+")
_ITEM = re.compile(r"[^\x1c-\x1f]+")


def words(text: str) -> list[bytes]:
    """The words of canonical arguments, and their items where they hold lists: an item ticked off is progress."""
    found = _words(text)
    if text.count(OPEN) > 1:
        found += [item.encode("utf-8", "surrogatepass") for item in _ITEM.findall(text)]
    return _folded(found)


def line_units(text: str) -> list[bytes]:
    """
    The lines of a text of many; of a single line its words, and its numbers together.

    Words alone would call "3 of 7" known after "7 of 3"; numbers are progress.
    """
    if "\n" in text:
        return _folded(text.encode("utf-8", "surrogatepass").split(b"\n"))
    data = text.encode("utf-8", "surrogatepass")
    found: list[bytes] = _ASCII_WORD.findall(data) if len(data) == len(text) else _words(text)
    if len(found) > UNITS_MAX:
        return _folded(found)
    found.append(b" ".join(_ASCII_NUMBER.findall(data)))
    return found


def _words(text: str) -> list[bytes]:
    if text.isascii():
        return _ASCII_WORD.findall(text.encode())
    return [word.encode("utf-8", "surrogatepass") for word in _WORD.findall(text)]


def _folded(units: list[bytes]) -> list[bytes]:
    """Many units are joined to few, so that whatever is new in one of them still shows."""
    size = -(-len(units) // UNITS_MAX)
    if size <= 1:
        return units
    return [b"\n".join(units[i : i + size]) for i in range(0, len(units), size)]
