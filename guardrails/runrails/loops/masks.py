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
CLOCK_CHARS_MAX = 12
"""Of `01:30:00.500`, which may be a position; anything longer has a date."""
PART_CHARS = 16
ULID_CHARS = 26
_HEX_BYTES = bytes(byte if byte == 45 else 102 if chr(byte) in "0123456789abcdef" else 32 for byte in range(256))
"""What leaves the hexadecimals of a text as `f`, and its dashes."""
_UUID, _LONG_HEX = b"ffffffff-ffff-ffff-ffff-ffffffffffff", b"f" * 16
CONTEXT_CHARS = 28
"""How far before a duration the words are looked at that make it a countdown."""


def mask(text: str) -> str:
    """`text`, which must be case folded, with known volatile shapes replaced by marks."""
    shapes = _shapes()
    if "\x1b" in text:
        text = shapes.ansi.sub("", text)
    if not shapes.digit.search(text) and "nonce" not in text:
        return shapes.temporary.sub(r"\1<tmp>", text) if "tmp" in text else text
    text = _mask_labelled(text, shapes)
    if _has_hex(text):
        text = shapes.lettered.sub(_mark, text)
    return shapes.numeric.sub(_mark, text)


def _has_hex(text: str) -> bool:
    """Much quicker than a pattern, which would stop at every word."""
    shape = text.encode("utf-8", "surrogatepass").translate(_HEX_BYTES)
    return _LONG_HEX in shape or _UUID in shape


def _mask_labelled(text: str, shapes: _Shapes) -> str:
    """
    What a label announces. Most texts have none: to look for the labels first is much quicker than the patterns, and to
    look for a sign that a pattern needs besides quicker still.
    """
    if ("/" in text or "\\" in text) and ("tmp" in text or "temp" in text or "/var/folders" in text):
        text = shapes.temporaries.sub(r"\1<tmp>", text)
    if "]" in text and "]:" in text:
        text = shapes.numbered.sub(r"\1<pid>", text)
    elif "pid" in text or "pgid" in text or "process" in text or "thread" in text:
        text = shapes.process.sub(r"\1<pid>", text)
    if _announces_port(text):
        text = shapes.port.sub(r"\1<port>", text)
    if "try" in text or "attempt" in text or "tries" in text:
        text = shapes.attempt.sub("<attempt>", text)
    if " times" in text:
        text = shapes.repeated.sub(r"\1<count>", text)
    if "nonce" in text:
        text = shapes.nonce.sub(r"\1<id>", text)
    if "chunk id: " in text:
        text = shapes.chunk.sub("<id>", text)
    if "@" in text:
        text = shapes.object.sub("@<address>", text)
    if "01" in text and len(text) >= ULID_CHARS:
        text = shapes.ulid.sub("<id>", text)
    if ("id" in text or "-" in text or "_" in text) and shapes.announced.search(text):
        text = shapes.request.sub("<id>", text)
    if (":" in text or "=" in text) and (
        "took" in text or "elapsed" in text or "duration" in text or "latency" in text
    ):  # fmt: skip
        text = shapes.took.sub(r"\1<duration>", text)
    return text


def _announces_port(text: str) -> bool:
    if ":" in text:
        return "port" in text or "localhost:" in text or "0.0.1:" in text
    return "port " in text or "port=" in text


def _mark(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "duration" and (_is_countdown(match) or not _is_elapsed(match) or _is_part(match)):
        return match[0]
    if kind == "time" and len(match[0]) <= CLOCK_CHARS_MAX and _is_part(match):
        return match[0]
    if kind == "epoch" and _is_amount(match):
        return match[0]
    return f"<{kind}>"


def _is_countdown(match: re.Match[str]) -> bool:
    """Whole units that are still to be waited are news as they shrink; fractions and milliseconds are jitter."""
    if "." in match[0] or "ms" in match[0]:
        return False
    text, start, end = match.string, match.start(), match.end()
    shapes = _shapes()
    return bool(shapes.waiting.search(text[max(0, start - CONTEXT_CHARS) : start]) or shapes.remaining.match(text, end))


def _is_part(match: re.Match[str]) -> bool:
    """Whether it is so much of something, as in `10s of 600s` or `00:10:00/01:30:00`."""
    shapes = _shapes()
    text, start = match.string, match.start()
    if shapes.whole.match(text, match.end()):
        return True
    before = text[max(0, start - PART_CHARS) : start]
    return ("/" in before or "of" in before) and shapes.part.search(before) is not None


def _is_amount(match: re.Match[str]) -> bool:
    """Whether the words around a number that could be an epoch say that it counts something."""
    shapes = _shapes()
    text, start = match.string, match.start()
    before = text[max(0, start - CONTEXT_CHARS) : start]
    return bool(shapes.counted.match(text, match.end()) or shapes.counting.search(before))


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
        self.whole = re.compile(r"\s*(?:/|\bof\b|\bout of\b)\s*[0-9]")
        self.part = re.compile(r"[0-9]\s*[a-z]{0,7}\s*(?:/|\bof|\bout of)\s*$")
        self.counted = re.compile(
            r"\s*(?:/\s*[0-9]|(?:of|bytes?|[kmgt]?i?b|rows?|records?|items?|tokens?|lines?|usd|eur|cents?)\b)",
        )
        self.counting = re.compile(
            r"(?:bytes|size|offset|count|rows|records|total|position|processed|downloaded|amount|balance|price|cents|"
            r"phone|number|page|sum|[$€£])[\"']?[\s:=]*$",
        )
        self.temporary = re.compile(r"((?:/tmp|/var/tmp|/temp|\\temp)[/\\])tmp[\w.-]*")
        self.temporaries = re.compile(_TEMPORARY)
        self.process = re.compile(rf"({_PROCESS})[0-9]+")
        self.numbered = re.compile(rf"({_PROCESS}|\b[a-z_-]{{1,40}}\[(?=[0-9]{{1,9}}\]:))[0-9]+")
        self.port = re.compile(_PORT)
        self.attempt = re.compile(_ATTEMPT)
        self.repeated = re.compile(_REPEATED)
        self.request = re.compile(_REQUEST)
        self.announced = re.compile(_ANNOUNCED)
        self.nonce = re.compile(_NONCE)
        self.chunk = re.compile(r"(?<=\bchunk id: )[0-9a-f]{6}\b")  # in front of each output of a shell of Codex
        self.object = re.compile(r"(?<=[a-z0-9_$])@(?=[0-9a-f]*[0-9])[0-9a-f]{5,8}(?![\w.])")
        self.ulid = re.compile(_ULID)
        self.took = re.compile(rf"({_TOOK})[0-9]+(?:\.[0-9]+)?")
        self.numeric = re.compile(_NUMERIC)
        self.lettered = re.compile(_LETTERED)


@cache
def _shapes() -> _Shapes:
    return _Shapes()


_TEMPORARY = (
    r"((?:/tmp|/var/tmp|/temp|\\temp|/var/folders)[/\\])"
    r"(?:tmp[\w.-]*|[\w.]+-(?=[a-z_]*[0-9])[0-9a-z_]{6,}|pytest-of-\w+/pytest-[0-9]+|[0-9a-z_]{2}/[0-9a-z_]{20,}(?:/t/[\w.-]+)?)"
)


def _beginning(*forms: tuple[str, str]) -> str:
    """
    Words where a word begins, each with what follows it. They are sorted by their first two letters, and whether a word
    begins there comes after those, so that the search skips all other text quickly.
    """
    behind: dict[str, list[str]] = {}
    for words, rest in forms:
        known = words.split()
        for head in dict.fromkeys(word[:2] for word in known):
            ends = "|".join(word[2:] for word in known if word[:2] == head)
            behind.setdefault(head, []).append(f"(?:{ends}){rest}")
    seconds: dict[str, list[str]] = {}
    for head, forms_of in behind.items():
        seconds.setdefault(head[0], []).append(rf"{head[1]}(?<=\b{head})(?:{'|'.join(forms_of)})")
    return "|".join(f"{first}(?:{'|'.join(more)})" for first, more in seconds.items())


_PROCESS = _beginning(("pid pgid", r"\b[ \t:=#]*"), ("process", "(?: id)?[ :=#]+"), ("thread", "[- ](?:id[ :=#]+)?"))
_PORT = (
    r"([pl0-9](?:ort(?<=\bport)[ :=]+"
    r"|(?:ocalhost(?<=localhost)|(?<=[0-9])[0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}):))[0-9]{5}\b"
)
_COUNT = r"[0-9]+(?:\s*(?:/|of|out of)\s*[0-9]+)?"
_ATTEMPT = (
    r"[art0-9](?:"
    r"(?:ttempt(?<=\battempt)s?|etry(?<=\bretry)|etries(?<=\bretries)|ry(?<=\btry)|ries(?<=\btries))"
    rf"(?: (?:no\.?|number|count))?[ \t]*[#:=(]*[ \t]*{_COUNT}"
    r"(?![0-9.]*\s?(?:ms|s|secs?|seconds?|mins?|minutes?)\b)"
    r"|(?<=\b[0-9])[0-9]*(?:st|nd|rd|th) (?:attempt|retry|try)\b)"
)
# How often the very thing was done: harnesses put it into the answer, so that it is another one each time.
_REPEATED = (
    r"(\b(?:failed|repeated|retried|tried|attempted|rejected|blocked|refused) (?:(?:already|now|again) )?)"
    r"[0-9]+(?= times\b)"
)


_NAMED = "request req trace span correlation invocation ray error incident operation session"
_IS = r"[\"']?\s*[:=#]*\s*[\"']?"
_RANDOM = r"(?=[a-z-]{0,40}[0-9])(?=[0-9-]{0,40}[a-z])[0-9a-z-]{6,}"
_REQUEST = _beginning(
    (f"x-{_NAMED.replace(' ', ' x-')} {_NAMED}", rf"[-_ ]?id\b{_IS}(?=[\w-]*[0-9])[\w-]+"),
    ("req request trace span corr chatcmpl resp toolu", r"[-_](?=[a-z-]{0,40}[0-9])[0-9a-z-]{6,}"),
    # Events, transactions, messages and invoices may be numbered; only what looks random is noise.
    ("event transaction", f"[-_ ]?id{_IS}{_RANDOM}"),
    ("evt msg txn inv", f"[-_]{_RANDOM}"),
)
# How the names of `_REQUEST` end, in front of what follows them there.
_ANNOUNCED = (
    r"[-_i](?:d(?:(?<=(?:an|ay|ce|eq|nt|on|or|st)id)|(?<=(?:an|ay|ce|eq|nt|on|or|st)[-_ ]id))"
    r"|(?<=(?:ace|esp|est|evt|inv|mpl|msg|olu|orr|pan|req|txn)[-_]))"
)
_NONCE = r"(\bnonce[\"']?\s?[:=]\s?[\"']?)(?![\"'<])[^\s\"'<>;,&]{8,}"
_ULID = r"01(?<!\w01)(?=[a-z]{0,23}[0-9])[0-9a-hjkmnp-tv-z]{24}\b"
_TOOK = _beginning(("took elapsed duration latency", r"(?:_?ms)?[\"']?\s*[:=]\s*"))
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
    r"|(?P<duration>[0-9,]{0,24}+(?:\.[0-9]++\s?s|(?:\.[0-9]++)?+"
    r"(?:m[0-9]+(?:\.[0-9]+)?s|\s?(?:s|ms|msecs?|milliseconds?|μs|secs?|seconds?|mins?|minutes?|hours?|hrs?)|ns|us))"
    r"(?![0-9a-z]))"
    r")"
)
_LETTERED = rf"[a-f](?<![\w.][a-f])(?:(?P<uuid>{_UUID_REST})|(?P<hex>[0-9a-f]{{15,}}(?![0-9a-z])))"
