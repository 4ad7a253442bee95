"""Whether a secret could be guessed. A function of its bytes."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["DISTINCT_MIN", "REST_MIN", "weakness"]

DISTINCT_MIN = 8
"""Fewer different bytes than that are no drawn key: of 32 random hexadecimal digits, one in 20 million has so few."""
REST_MIN = 16
"""What must be left of a secret without the words that people write into placeholders."""
_PLACEHOLDERS = """
access admin api app auth aws bar base battery baz bytes change changeit changeme changethis character characters
chars correct credential default demo dev development dummy encryption enough example fill foo for from gateway
generate guard hash here hmac horse insecure insert jwt key keys least length letmein live local long master minimum
must not only openssl pass passphrase password pepper placeholder please prod production put qwerty qwertyuiop rand
random real replace replaceme runrails safe sample secret secrets secure sign signing some staging staple string
strong super temp temporary test testing that the this todo token tokens unsafe use value vault very with xxx you
your
"""
_WORDS = re.compile("|".join(sorted(_PLACEHOLDERS.split(), key=len, reverse=True)))
_PLAIN = re.compile(r"[^a-z0-9]+")


def weakness(secret: bytes, *, bytes_min: int) -> str | None:
    """What is wrong with a secret, as the end of a sentence about it; None: nothing that shows."""
    if len(secret) < bytes_min:
        return f"is shorter than {bytes_min} bytes"
    if len(set(secret)) < DISTINCT_MIN:
        return "has too few different characters"
    if _period(secret) <= len(secret) // 2:
        return "repeats itself"
    if 3 * _stepping(secret) > 2 * len(secret):
        return "is a sequence that anybody would try"
    if _is_placeholder(secret):
        return "is made of words, like a placeholder"
    return None


def _period(text: bytes) -> int:
    """The length of the shortest beginning that the whole text repeats, the last time perhaps cut off."""
    # The prefix function of Knuth, Morris and Pratt: what is left of the longest border is the period.
    borders = [0] * len(text)
    length = 0
    for at in range(1, len(text)):
        while length and text[at] != text[length]:
            length = borders[length - 1]
        length += text[at] == text[length]
        borders[at] = length
    return len(text) - borders[-1]


def _stepping(text: bytes) -> int:
    """How many characters are the one before, or its neighbour."""
    return sum(abs(one - other) <= 1 for one, other in pairwise(text))


def _is_placeholder(secret: bytes) -> bool:
    try:
        text = secret.decode("ascii").lower()
    except UnicodeDecodeError:
        return False
    rest = _WORDS.sub(" ", _PLAIN.sub(" ", text))
    return len(rest.replace(" ", "")) < REST_MIN
