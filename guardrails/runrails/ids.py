"""Identifiers: one ASCII grammar for everything that names money, checked in one place."""

from __future__ import annotations

import os
import re

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
    """A fresh random id of 32 hexadecimal digits, safe to use from forked processes and many threads."""
    return os.urandom(16).hex()
