"""Identifiers: one ASCII grammar for everything that names money, checked in one place."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ID_LENGTH_MAX", "PLACES", "Told", "call_id", "check_id", "id_makers", "new_id", "place_of", "run_id", "tag_of",
    "told_by",
]  # fmt: skip

ID_LENGTH_MAX = 128
_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]{0,127}")
PLACES = "ghijklmn"
"""A run's calls all have one of these letters in their ids, so that a store can keep them together."""
_RUN = "r"
_NOW_CHARS = len("0x") + 16
_OURS = re.compile(rf"[0-9a-f]{{16}}[{PLACES}{_RUN}][0-9a-f]{{20}}")


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


class Told(NamedTuple):
    """What an id that we have made says of what it names. A hint to find it by: ids of others may look the same."""

    ns: int
    """When it was made, nanoseconds since the epoch by this host's clock."""
    place: str
    """One of `PLACES` for a call; empty for a run."""
    tag: str
    """Eight digits that ids of one user's calls and runs share. Other users may have the same ones."""


def call_id(user: str, run: str) -> str:
    """A fresh id of a call. It sorts by time, and says to which user and run the call belongs; see `Told`."""
    now = hex(time.time_ns())
    if len(now) == _NOW_CHARS:  # From 2006 on; formatting it with a width executes much more code.
        try:
            return f"{now[2:]}{_marks[user, run]}{_drawn.pop()[:12]}"
        except (IndexError, KeyError):
            pass
    return f"{time.time_ns():016x}{_mark(user, run)}{_random_digits()}"


def run_id(user: str) -> str:
    """A fresh id of a run that begins now, for this user."""
    return f"{time.time_ns():016x}{_RUN}{tag_of(user)}{_random_digits()}"


def told_by(name: str) -> Told | None:
    """What an id says; None if it is not of the form of ours."""
    if len(name) != 37 or not _OURS.fullmatch(name):
        return None
    return Told(int(name[:16], 16), name[16].strip(_RUN), name[17:25])


def tag_of(user: str) -> str:
    """What ids say of the user."""
    return f"{crc32(user.encode(errors='replace')):08x}"


def place_of(run: str) -> str:
    """The letter in the ids of a run's calls."""
    return PLACES[crc32(run.encode(errors="replace")) % len(PLACES)]


def id_makers(make_id: Callable[[], str]) -> tuple[Callable[[str, str], str], Callable[[str], str]]:
    """How ids of calls and of runs are made where somebody may have said how to make ids."""
    return (call_id, run_id) if make_id is new_id else (lambda _user, _run: make_id(), lambda _user: make_id())


_marks: dict[tuple[str, str], str] = {}
_MARKS_MAX = 1_000


def _mark(user: str, run: str) -> str:
    if len(_marks) >= _MARKS_MAX:
        _marks.clear()
    return _marks.setdefault((user, run), place_of(run) + tag_of(user))


def _random_digits() -> str:
    try:
        return _drawn.pop()[:12]
    except IndexError:
        return _draw()[:12]


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
