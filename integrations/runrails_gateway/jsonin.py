"""
JSON from outside, read strictly: what two readers could understand differently is refused.

A budget is decided by what we read, and the money is spent on what the provider reads. So a member that is named twice,
half a surrogate pair, NaN, or a number that no computer word holds are not repaired and not passed on. Nothing of a
request is ever in an error.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn, cast

from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import LiteralString

__all__ = ["DEPTH_MAX", "DIGITS_MAX", "after_space", "has_half_pair", "is_deep", "read_json", "scan"]

DEPTH_MAX = 64
"""Objects and lists within each other; real requests have some ten."""
DIGITS_MAX = 40
"""Digits of a whole number: 128 bits, of either sign."""
_FLOAT_CHARS_MAX = 400
"""Characters of another number; the longest that Python writes are much shorter."""
_BOM = b"\xef\xbb\xbf"
_DENSE_BYTES, _DENSE_COMMAS = 4_096, 512
"""How much of a body is looked at, and how many commas in it make it one of numbers: tokens to embed."""
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG = b"0" * (DIGITS_MAX + 1)
_SURROGATE_SIGN = re.compile(rb"\\u[dD]")
_SURROGATE = re.compile(rb"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F]))")
"""An escaped backslash, an escaped pair, or (the group) an escaped half of one."""
_SPACES = frozenset(" \t\n\r")
_INFINITE = (float("inf"), float("-inf"))


class _Refused(ValueError):
    """Stops the decoder. Says why in our words, and holds nothing of the text."""

    def __init__(self, reason: LiteralString, what: LiteralString) -> None:
        super().__init__(reason)
        self.reason: LiteralString = reason
        self.what: LiteralString = what


def read_json(raw: bytes, *, depth_max: int = DEPTH_MAX) -> dict[str, object]:
    """
    Decode a request's body.

    Args:
        raw: The body, of a size that was limited before.
        depth_max: How many objects and lists may be within each other.

    Raises:
        BadRequest: It is not one JSON object in UTF-8 that every reader understands alike.
    """
    # Telling each number's length costs more than everything else of a list of numbers.
    dense = raw.count(b",", 0, _DENSE_BYTES) > _DENSE_COMMAS and _LONG not in raw.translate(_DIGITS)
    found = _decoded(raw, _decode_dense if dense else _decode)
    if isinstance(found, _Refused):
        # Not inside an `except`: the decoder's own error has the whole text, and would hang on ours as its context.
        raise _bad(found.reason, found.what)
    if has_half_pair(raw):
        raise _bad("lone_surrogate", "A string in the request's body has half of a surrogate pair.")
    # Those in texts are counted as well, so there may be fewer, but never more.
    if raw.count(b"{") + raw.count(b"[") > depth_max and is_deep(found, depth_max):
        raise _bad(*_TOO_DEEP)
    return found


def has_half_pair(raw: bytes) -> bool:
    """Whether JSON has half a surrogate pair: it can only be written as an escape, as raw it is no UTF-8."""
    return _SURROGATE_SIGN.search(raw) is not None and any(half[1] for half in _SURROGATE.finditer(raw))


def _decoded(raw: bytes, decode: Callable[[str], object]) -> dict[str, object] | _Refused:
    try:
        found: object = decode(raw.decode())
    except _Refused as exc:
        refused = _Refused(exc.reason, exc.what)  # a fresh one, without the decoder's frames
    except UnicodeDecodeError:
        refused = _Refused("not_utf8", "The request's body is not UTF-8.")
    except RecursionError:
        refused = _Refused(*_TOO_DEEP)
    except ValueError:
        bom = raw.startswith(_BOM)
        refused = _Refused("byte_order_mark", "The request's body begins with a byte order mark.") if bom else _Refused(
            "invalid_json", "The request's body is not valid JSON."
        )  # fmt: skip
    else:
        if type(found) is dict:
            return cast("dict[str, object]", found)
        refused = _Refused("not_an_object", "The request's body is no JSON object.")
    return refused


_TOO_DEEP: tuple[LiteralString, LiteralString] = ("too_deep", "The request's body is nested too deeply.")


def _bad(reason: LiteralString, what: LiteralString) -> BadRequest:
    return BadRequest(reason, what, next_step="Send one JSON object (RFC 8259) in UTF-8, each member once.")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Refused("duplicate_member", "An object in the request's body has a member twice.")
    return made


def _whole(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise _Refused("number_too_large", "A number in the request's body is too large.")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits) if len(digits) <= _FLOAT_CHARS_MAX else _INFINITE[0]
    if number in _INFINITE:
        raise _Refused("number_too_large", "A number in the request's body is too large.")
    return number


def _constant(name: str) -> NoReturn:
    del name
    raise _Refused("not_a_number", "The request's body has NaN or Infinity, which JSON does not know.")


def is_deep(value: object, depth_max: int) -> bool:
    """Whether more objects and lists than that are within each other; the value is one."""
    level: list[object] = [value]
    for _ in range(depth_max):
        inner: list[object] = []
        for whole in level:
            parts = cast("dict[str, object]", whole).values() if type(whole) is dict else cast("list[object]", whole)
            for part in parts:
                if type(part) is dict or type(part) is list:
                    inner.append(part)  # noqa: PERF401 # pyright: ignore[reportUnknownArgumentType] -- a comprehension or a cast is one call more
        if not inner:
            return False
        level = inner
    return True


_strict = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_constant)
_decode: Callable[[str], object] = _strict.decode
scan = cast("Callable[[str, int], tuple[object, int]]", vars(_strict)["scan_once"])
"""
The value that begins at a place, and where it ends. Raises ValueError or StopIteration where there is none, and does
not look for what `read_json` looks for afterwards.
"""
_space = re.compile(r"[ \t\n\r]*").match


def after_space(text: str, at: int) -> int:
    """The first place from there on that is no space."""
    if text[at : at + 1] not in _SPACES:  # nearly always; also behind the end
        return at
    found = _space(text, at)
    return at if found is None else found.end()


_decode_dense: Callable[[str], object] = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_real, parse_constant=_constant
).decode
