"""Identifiers: one ASCII grammar for everything that names money, checked in one place."""

from __future__ import annotations

import os
import re
import time

ID_LENGTH_MAX = 128
_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]{0,127}")


def check_id(value: object, *, what: str) -> str:
    """
    Return `value` if it is a well-formed identifier.

    The grammar is ASCII on purpose: two names that look alike (NFC and NFD, full-width letters) must not be two
    budgets, and two names that differ must not be one. Letters, digits and ``. _ @ + = -`` are allowed, at most 128
    of them, the first a letter or digit.

    Raises:
        ValueError: The value is not a string of that form; the message names `what` and the grammar, never the value.
    """
    if isinstance(value, str) and _GRAMMAR.fullmatch(value):
        return value
    raise ValueError(
        f"{what} must be 1 to {ID_LENGTH_MAX} ASCII letters, digits or one of . _ @ + = - "
        f"and start with a letter or digit. Map other names to such an id first, for instance by a hash."
    )


def new_id() -> str:
    """A fresh random id of 32 hexadecimal digits. Safe in many threads, forked processes and cloned machines."""
    try:
        drawn = _drawn.pop()
    except IndexError:
        drawn = _draw()
    # The moment tells two machines apart that were cloned with the same digits in store.
    return f"{drawn}{time.time_ns() & 0xFFFF_FFFF:08x}"


_DRAWN_MAX = 64
_DIGITS = 24
_drawn: list[str] = []
"""
Random digits in store. Asking the system gives the interpreter's lock away for a moment; where another thread waits for
it, that costs a call as much as all its arithmetic.
"""


def _draw() -> str:
    digits = os.urandom(_DRAWN_MAX * _DIGITS // 2).hex()
    first, *others = [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]
    _drawn.extend(others)
    return first


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_drawn.clear)
