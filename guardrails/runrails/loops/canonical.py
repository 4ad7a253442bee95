"""
One spelling for values that mean the same: what jitters between two equal calls of a model is folded away.

Total by design: whatever a framework hands over (recursive, huge, odd objects, lone surrogates) gets some spelling in
bounded time, and the size of a container always shows in it, so that what is cut off is not quietly called equal.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Set
from typing import cast

from runrails.loops.digest import digest64, hex64

__all__ = ["OPEN", "VOLATILE_ARGS", "VOLATILE_RESULTS", "canonical", "fold_text", "key_name", "parse_json"]

DEPTH_MAX = 32
NODES_MAX = 20_000
FOLDED_CHARS_MAX = 65_536
"""Of a longer text, the first and the last half of this are folded and the middle is compared as it is."""
JSON_CHARS_MAX = 262_144
"""Longer JSON text is compared as text."""

# Keys that change from one attempt to the next and not what is asked, spelled as by `key_name`.
VOLATILE_ARGS = frozenset((
    "attempt", "attempts", "attemptno", "attemptnumber", "retry", "retries", "retrycount", "retrynumber",
    "trynumber", "iteration", "since", "timeout", "timeoutms", "timeoutseconds", "timeouts", "idempotencykey",
    "idempotencytoken", "clienttoken", "nonce", "requestid", "traceid", "spanid", "correlationid", "messageid",
    "toolcallid", "callid", "timestamp", "timestampms", "ts", "now", "currenttime", "requestedat", "thought",
    "thoughts", "reasoning", "rationale", "justification", "explanation",
))  # fmt: skip
# Keys of a result that say when, how long or under which number it was given, not what it is.
VOLATILE_RESULTS = frozenset((
    "requestid", "xrequestid", "traceid", "spanid", "correlationid", "invocationid", "messageid", "responseid",
    "executionid", "nonce", "timestamp", "timestampms", "ts", "now", "time", "currenttime", "servertime",
    "generatedat", "fetchedat", "checkedat", "retrievedat", "requestedat", "respondedat", "receivedat", "took",
    "tookms", "duration", "durationms", "durationseconds", "elapsed", "elapsedms", "elapsedseconds", "latency",
    "latencyms", "responsetime", "responsetimems", "executiontime", "executiontimems", "processingtime",
    "processingtimems", "runtimems", "timems", "timetaken", "pid", "attempt", "attempts", "attemptno",
    "retrycount", "uptime", "uptimeseconds",
))  # fmt: skip
# A part of a container that holds one of these is about the call itself, and all of it is dropped.
_ABOUT_THE_CALL = frozenset((
    "requestid", "xrequestid", "traceid", "spanid", "correlationid", "invocationid", "messageid", "responseid",
    "executionid", "idempotencykey", "idempotencytoken", "clienttoken", "nonce", "toolcallid", "callid", "took",
    "tookms", "elapsedms", "durationms", "latencyms", "responsetimems", "executiontimems", "processingtimems",
    "timetaken",
))  # fmt: skip
_MOMENTS = frozenset(("timestamp", "timestampms", "ts"))
CLOCK_MIN = 1_000_000_000
"""Seconds since 1970 from which on a number is the time of day."""

_ZERO_WIDTH: dict[int, None] = dict.fromkeys((0x00AD, 0x180E, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF))
OPEN, _CLOSE, _NEXT, _IS = "\x1c", "\x1d", "\x1e", "\x1f"
"""Around and between the parts of a container. They are white space, so that no text has any left once it is folded."""
_decode = json.JSONDecoder().decode


def fold_text(text: str) -> str:
    """NFKC, no zero-width characters, case folded; white space is left alone."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text).translate(_ZERO_WIDTH).casefold()


def key_name(key: str) -> str:
    """`request_id`, `requestId` and `Request-ID` are one key."""
    # Four times as quick as `translate`.
    return key.casefold().replace("_", "").replace("-", "").replace(".", "").replace(" ", "")


def parse_json(value: object) -> object:
    """The value of JSON text; anything else, and text that is no JSON, as it is."""
    if type(value) is dict:
        return cast("object", value)
    if type(value) is not str and isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", "backslashreplace")
    if not isinstance(value, str) or len(value) > JSON_CHARS_MAX:
        return value
    if value[:1] not in '{["' and not value[:1].isspace():
        return value
    try:
        return cast("object", _decode(value))
    except (ValueError, RecursionError):
        return value


def canonical(value: object, *, volatile: frozenset[str] = frozenset(), keep_nulls: bool = False) -> str:
    """
    One line of text, equal for values that differ only in spelling.

    White space, case, Unicode form, key order and `1` against `1.0` do not matter; keys in `volatile` (as spelled by
    `key_name`) and, unless `keep_nulls`, keys with a null are dropped. Where nothing would be left, all keys stay, but
    for those of an inner part that is about the call itself.
    """
    try:
        return _Speller(volatile, keep_nulls=keep_nulls).spell(value, 0)
    except Exception:  # noqa: BLE001 -- a user's object may raise anything when looked at; it must not stop a run
        return f"<{type(value).__name__}>"


class _Speller:
    __slots__ = ("keep_nulls", "nodes", "volatile")

    def __init__(self, volatile: frozenset[str], *, keep_nulls: bool) -> None:
        self.volatile = volatile
        self.keep_nulls = keep_nulls
        self.nodes = 0

    def spell(self, value: object, depth: int) -> str:
        self.nodes += 1
        if type(value) is str:
            short = len(value) <= FOLDED_CHARS_MAX
            text = (value.lower() if value.isascii() else fold_text(value)) if short else _long_text(value)
            return " ".join(text.split())
        if type(value) is int:
            # An int beyond the interpreter's limit for decimal text would raise.
            return str(value) if -(10**18) < value < 10**18 else hex(value)
        if value is None or value is True or value is False:
            return str(value).lower()
        if isinstance(value, float):
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(float(value))
        return self._spell_container(value, depth)

    def _spell_container(self, value: object, depth: int) -> str:
        if type(value) is dict or isinstance(value, Mapping):
            return self._spell_mapping(cast("Mapping[object, object]", value), depth)
        if isinstance(value, list | tuple):
            items = cast("list[object] | tuple[object, ...]", value)
            return f"{OPEN}{len(items)}{_NEXT}{_NEXT.join(self._spell_items(items, depth))}{_CLOSE}"
        if isinstance(value, Set):
            members = cast("Set[object]", value)
            return f"{OPEN}{len(members)}{_NEXT}{_NEXT.join(sorted(self._spell_items(members, depth)))}{_CLOSE}"
        if isinstance(value, bytes | bytearray | memoryview):
            return self.spell(bytes(cast("bytes", value)).decode("utf-8", "backslashreplace"), depth)
        return self.spell(_text_of(value), depth)

    def _is_content(self, moment: object) -> bool:
        """Whether a moment that is asked about is one of a film or a recording, and not the time of day."""
        return (
            self.volatile is VOLATILE_ARGS and type(moment) in (int, float) and abs(cast("float", moment)) < CLOCK_MIN
        )

    def _spell_items(self, items: list[object] | tuple[object, ...] | Set[object], depth: int) -> list[str]:
        spelled: list[str] = []
        if depth < DEPTH_MAX:
            for item in items:
                if self.nodes >= NODES_MAX:
                    break
                spelled.append(self.spell(item, depth + 1))
        return spelled

    def _spell_mapping(self, mapping: Mapping[object, object], depth: int) -> str:
        if depth >= DEPTH_MAX:
            return f"{OPEN}{len(mapping)}{_CLOSE}"
        dropped = 0
        about_the_call = False
        spelled: list[str] = []
        for key, item in mapping.items():
            if self.nodes >= NODES_MAX:
                spelled.append(f"{len(mapping)}")
                break
            name = key if type(key) is str else _text_of(key)
            # Most keys are one lower-case word, which `key_name` would leave as it is.
            plain = name.isascii() and name.isalpha() and name.islower()
            short = name if plain else key_name(name)
            if short in self.volatile and not (short in _MOMENTS and self._is_content(item)):
                dropped += 1
                about_the_call = about_the_call or short in _ABOUT_THE_CALL
            elif item is None and not self.keep_nulls:
                dropped += 1
            else:
                spelled.append(f"{name if plain else fold_text(name)}{_IS}{self.spell(item, depth + 1)}")
        if dropped and not spelled and self.volatile and not (depth and about_the_call):
            return _Speller(frozenset(), keep_nulls=self.keep_nulls).spell(mapping, depth)
        spelled.sort()
        return f"{OPEN}{_NEXT.join(spelled)}{_CLOSE}"


def _long_text(text: str) -> str:
    """Both ends folded, and the middle as it is: folding takes its time."""
    half = FOLDED_CHARS_MAX // 2
    ends = f"{text[:half]}\n{text[-half:]}"
    return f"{' '.join(fold_text(ends).split())} {hex64(digest64(text[half:-half]))}"


def _text_of(value: object) -> str:
    try:
        return "".join(str(value))
    except Exception:  # noqa: BLE001 -- as in `canonical`
        return f"<{type(value).__name__}>"
