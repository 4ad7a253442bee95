"""
What changes in a text each time it is made, without changing what it says.

Only known shapes are masked: times, UUIDs, addresses, long hexadecimals, epochs, elapsed durations, process numbers,
ports, temporary paths, attempt counters, request ids. Bare numbers never are: "7 failing" and then "3 failing" is
progress, and so are countdowns ("retry in 20 s"), line numbers and percentages.
"""

from __future__ import annotations

import re
from functools import cache

__all__ = ["mask"]

_LONG_UNITS = ("min", "mins", "minute", "minutes", "hour", "hours", "hr", "hrs")
CONTEXT_CHARS = 28
"""How far before a duration the words are looked at that make it a countdown."""


def mask(text: str) -> str:
    """`text`, which must be case folded, with known volatile shapes replaced by marks."""
    shapes = _shapes()
    if "\x1b" in text:
        text = shapes.ansi.sub("", text)
    if not shapes.digit.search(text):
        return shapes.temporary.sub(r"\1<tmp>", text) if "tmp" in text else text
    for needles, pattern, mark in shapes.labelled:
        for needle in needles:
            if needle in text:
                text = pattern.sub(mark, text)
                break
    if shapes.long_hex.search(text):
        text = shapes.lettered.sub(_mark, text)
    return shapes.numeric.sub(_mark, text)


def _mark(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "duration" and (_is_countdown(match) or not _is_elapsed(match)):
        return match[0]
    return f"<{kind}>"


def _is_countdown(match: re.Match[str]) -> bool:
    """Whole units that are still to be waited are news as they shrink; fractions and milliseconds are jitter."""
    if "." in match[0] or "ms" in match[0]:
        return False
    text, start, end = match.string, match.start(), match.end()
    shapes = _shapes()
    return bool(shapes.waiting.search(text[max(0, start - CONTEXT_CHARS) : start]) or shapes.remaining.match(text, end))


def _is_elapsed(match: re.Match[str]) -> bool:
    """Minutes and hours are noise only where the words say that they are over."""
    if not match[0].endswith(_LONG_UNITS):
        return True
    shapes = _shapes()
    before = match.string[max(0, match.start() - CONTEXT_CHARS) : match.start()]
    return bool(shapes.over.search(before) or shapes.ago.match(match.string, match.end()))


class _Shapes:
    """The compiled patterns; made at the first use, since compiling them would slow every import of the package."""

    def __init__(self) -> None:
        self.ansi = re.compile(r"\x1b\[[0-9;?]*[a-z]")
        self.digit = re.compile(r"[0-9]")
        self.waiting = re.compile(
            r"\b(?:retry|retrying|again|wait|waiting|available|resets?|ready|starts?|remaining|left|eta|due|expires?|next)"
            r"\b[^.;\n]*$",
        )
        self.remaining = re.compile(r"\W{0,2}\b(?:remaining|left|away|to go|more|until)\b")
        self.over = re.compile(r"\b(?:took|after|elapsed|lasted|spent|uptime)\W{0,3}$")
        self.ago = re.compile(r"\s+ago\b")
        self.temporary = re.compile(r"((?:/tmp|/var/tmp|/temp|\\temp)[/\\])tmp[\w.-]*")
        self.labelled: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
            (("tmp", "temp", "/var/folders"), re.compile(_TEMPORARY), r"\1<tmp>"),
            (("pid", "process", "thread", "]:"), re.compile(_PROCESS), r"\1<pid>"),
            (("port", "localhost:", "0.0.1:"), re.compile(_PORT), r"\1<port>"),
            (("attempt", "retr", "try"), re.compile(_ATTEMPT), "<attempt>"),
            (("id", "req", "trace", "span", "chatcmpl", "msg_", "evt", "resp_", "toolu"), re.compile(_REQUEST), "<id>"),
            (("took", "elapsed", "duration", "latency"), re.compile(_TOOK), r"\1<duration>"),
        )
        self.numeric = re.compile(_NUMERIC)
        self.long_hex = re.compile(r"[a-f][0-9a-f]{7}")
        self.lettered = re.compile(_LETTERED)


@cache
def _shapes() -> _Shapes:
    return _Shapes()


_TEMPORARY = (
    r"((?:/tmp|/var/tmp|/temp|\\temp|/var/folders)[/\\])"
    r"(?:tmp[\w.-]*|[\w.]+-(?=[a-z_]*[0-9])[0-9a-z_]{6,}|pytest-of-\w+/pytest-[0-9]+|[0-9a-z_]{2}/[0-9a-z_]{20,}(?:/t/[\w.-]+)?)"
)
_PROCESS = r"(\bpid\b[ \t:=#]*|\bprocess(?: id)?[ :=#]+|\bthread[- ](?:id[ :=#]+)?|\b[a-z_-]+\[(?=[0-9]+\]:))[0-9]+"
_PORT = r"(\bport[ :=]+|(?:localhost|[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}):)[0-9]{5}\b"
_COUNT = r"[0-9]+(?:\s*(?:/|of|out of)\s*[0-9]+)?"
_ATTEMPT = (
    rf"\b(?:attempts?|retry|retries|try|tries)(?: (?:no\.?|number|count))?[ \t]*[#:=(]*[ \t]*{_COUNT}"
    r"(?![0-9.]*\s?(?:ms|s|secs?|seconds?|mins?|minutes?)\b)"
    r"|\b[0-9]+(?:st|nd|rd|th) (?:attempt|retry|try)\b"
)
_REQUEST = (
    r"\b(?:x-)?(?:request|req|trace|span|correlation|invocation|ray|error|incident|event|operation|transaction|session)"
    r"[-_ ]?id\b"
    r"[\"']?\s*[:=#]*\s*[\"']?(?=[\w-]*[0-9])[\w-]+"
    r"|\b(?:req|request|trace|span|corr|evt|chatcmpl|resp|toolu|msg|txn|inv)[-_](?=[a-z-]*[0-9])[0-9a-z-]{6,}"
)
_TOOK = r"(\b(?:took|elapsed|duration|latency)(?:_?ms)?[\"']?\s*[:=]\s*)[0-9]+(?:\.[0-9]+)?"
_UUID_REST = r"[0-9a-f]{7}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-z])"
# Each branch goes on after a first character that stands in front, so that the search skips all others quickly; looking
# behind comes after that character for the same reason.
_NUMERIC = (
    r"[0-9](?<![\w.][0-9])(?:"
    r"(?P<time>[0-9]{3}[-/][0-9]{2}[-/][0-9]{2}[t ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?"
    r"(?: ?(?:z|utc|gmt|[+-][0-9]{2}:?[0-9]{2}))?"
    r"|[0-9]{7}[t_-][0-9]{6}z?(?![0-9a-z])"
    r"|[0-9]?:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?(?![0-9:]))"
    rf"|(?P<uuid>{_UUID_REST})"
    r"|(?P<address>(?<=0)x[0-9a-f]{4,})"
    r"|(?P<hex>(?=[0-9]*+[a-f])[0-9a-f]{15,}(?![0-9a-z]))"
    r"|(?P<epoch>(?<=1)[5-9][0-9]{8}(?:[0-9]{3}){0,3}(?:\.[0-9]+)?(?![0-9a-z]))"
    r"|(?P<duration>[0-9,]*+(?:\.[0-9]++\s?s|(?:\.[0-9]++)?+"
    r"(?:m[0-9]+(?:\.[0-9]+)?s|\s?(?:s|ms|msecs?|milliseconds?|μs|secs?|seconds?|mins?|minutes?|hours?|hrs?)|ns|us))"
    r"(?![0-9a-z]))"
    r")"
)
_LETTERED = rf"[a-f](?<![\w.][a-f])(?:(?P<uuid>{_UUID_REST})|(?P<hex>[0-9a-f]{{15,}}(?![0-9a-z])))"
