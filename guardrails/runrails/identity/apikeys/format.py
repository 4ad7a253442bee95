"""
How an API key is written: ``rr_live_<id 16>_<secret 43><checksum 6>``, 74 characters; the pattern `KEY` decides.

The id is public: 15 characters of base62 and a capital letter. The secret is 43 characters of base62, 256 bits. The
checksum is the CRC-32 of everything before it, in base62: whoever mistypes or guesses is refused before anything is
looked up, and a scanner of source code can tell a key from what only looks like one.

Why a capital letter: many services begin their keys with small letters and an underscore (``ghp_``), and scanners look
for that anywhere in a text. Of ids that end in any letter, one in 50,000 would read as somebody else's key.
"""

from __future__ import annotations

import re
from binascii import crc32
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from runrails.secretvalue import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ENVIRONMENTS", "KEY", "KEY_CHARS", "LEGACY_KEY", "SCANNER_REGEX", "Environment", "Parsed", "checksum", "make_key",
    "new_key_id", "parse_key", "prefix_of",
]  # fmt: skip

Environment = Literal["live", "test"]
ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)
KEY_CHARS = 74
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ID_CHARS, _SECRET_CHARS, _CHECKSUM_CHARS = 16, 43, 6
SCANNER_REGEX = r"\brr_(?:live|test)_[0-9A-Za-z]{15}[A-Z]_[0-9A-Za-z]{49}\b"
"""For scanners of source code. What it finds and whose checksum is right is a key of ours."""
KEY = re.compile(r"rr_(live|test)_([0-9A-Za-z]{15}[A-Z])_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
LEGACY_KEY = re.compile(r"sk-[0-9A-Za-z_-]{48}")
"""Keys of an older platform, whose bcrypt hashes may be taken over. Their first 12 characters are the id."""
_LEGACY_ID_CHARS = 12


class Parsed(NamedTuple):
    """A key that is written right. Whether it is anybody's is another question."""

    key_id: str
    environment: Environment | None
    """None: the text of an older key does not say."""


def parse_key(text: object, *, legacy: bool = False) -> Parsed | None:
    """
    What the text of a key says; None: it is malformed, or its checksum is wrong.

    Args:
        text: What somebody presented.
        legacy: Whether older keys (``sk-…``) are known as well.
    """
    if not isinstance(text, str):
        return None
    if len(text) == KEY_CHARS:
        found = KEY.fullmatch(text)
        if found is None or checksum(text[:-_CHECKSUM_CHARS]) != found[4]:
            return None
        return Parsed(found[2], "live" if found[1] == "live" else "test")
    if legacy and LEGACY_KEY.fullmatch(text):
        return Parsed(text[:_LEGACY_ID_CHARS], None)
    return None


def make_key(environment: Environment, key_id: str, random: Callable[[int], bytes]) -> Secret:
    """A new key with that id. `random` gives so many random bytes, as `os.urandom` does."""
    body = f"{prefix_of(environment, key_id)}_{_draw(_BASE62, _SECRET_CHARS, random)}"
    return Secret(body + checksum(body))


def new_key_id(random: Callable[[int], bytes]) -> str:
    """A new random id."""
    return _draw(_BASE62, _ID_CHARS - 1, random) + _draw(_CAPITALS, 1, random)


def prefix_of(environment: Environment, key_id: str) -> str:
    """How a key with that id begins: what may be shown of it."""
    return f"rr_{environment}_{key_id}"


def checksum(body: str) -> str:
    """The CRC-32 of what stands before the checksum, as six digits of base62."""
    rest = crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM_CHARS):
        rest, digit = divmod(rest, 62)
        digits = _BASE62[digit] + digits
    return digits


def _draw(alphabet: str, count: int, random: Callable[[int], bytes]) -> str:
    """Characters, each equally likely: bytes past the last whole multiple of the alphabet are drawn again."""
    usable = 256 - 256 % len(alphabet)
    drawn = ""
    while len(drawn) < count:
        drawn += "".join([alphabet[byte % len(alphabet)] for byte in random(count) if byte < usable])
    return drawn[:count]
