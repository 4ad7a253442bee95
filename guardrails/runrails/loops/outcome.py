"""What a tool's answer comes to: a status class and a text in which two equal answers are equal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.loops.canonical import VOLATILE_RESULTS, canonical, fold_text, key_name, parse_json
from runrails.loops.digest import digest64
from runrails.loops.explain import without_advice
from runrails.loops.masks import mask

if TYPE_CHECKING:
    from runrails.calls import ToolOutcome

__all__ = ["Outcome", "Status", "is_about_input", "read_outcome"]

MASKED_CHARS_MAX = 65_536
"""Of a longer text, the first and the last half of this are masked and the middle is compared as it is."""
MISSING_CHARS = 200
LEAD_CHARS = 100
"""How much of a text is looked at to see whether it tells of a failure; a word further on proves nothing."""


class Status(IntEnum):
    """How a tool call ended, whatever the tool's framework says of it."""

    OK = 0
    EMPTY = 1
    """It went well and gave nothing: no text, no rows, "no result"."""
    SOFT_FAIL = 2
    """It did not raise, but its first words or its known keys say that it failed."""
    FAIL = 3
    """It raised, or its framework marked the result as an error."""


# Members of an enum are slow to look up, and these are looked up at every step.
_OK, _EMPTY, _SOFT_FAIL, _FAIL = Status


class Outcome(NamedTuple):
    """An answer, read. `text` must not outlive the step."""

    status: Status
    text: str
    """Case folded and masked, with its line ends."""
    key: int
    """Fingerprint of status and text, 64 bits."""
    bare: bool
    """There is nothing at all in it, as commands answer that have nothing to say."""
    worded: bool
    """A failure in words, which other calls may repeat word by word."""
    terminal: bool
    """It names a state that will not change any more."""


def read_outcome(outcome: ToolOutcome, outcome_key: Callable[[object], object] | None = None) -> Outcome:
    """Class, masked text and fingerprint of what a tool gave back. Total: any object gets one."""
    value = outcome.result
    value = parse_json(without_advice(value) if type(value) is str else value)
    if outcome_key is not None:
        value = _keyed(outcome_key, value)
    middle = ""
    if isinstance(value, str):
        if len(value) > MASKED_CHARS_MAX:
            half = MASKED_CHARS_MAX // 2
            middle, value = value[half:-half], f"{value[:half]}\n{value[-half:]}"
        text = mask(fold_text(value)).strip()
    else:
        text = mask(canonical(value, volatile=VOLATILE_RESULTS, keep_nulls=True))
    status, state = _classify(outcome, value, text)
    bare = status is _EMPTY and _is_bare(value, text)
    kind = "" if outcome.error_type is None else outcome.error_type
    key = digest64(_CLASS[status] + kind, " ".join(text.split()), middle)
    worded = status >= _SOFT_FAIL or (status is _EMPTY and isinstance(value, str) and not bare)
    return Outcome(status, text, key, bare, worded, state in _TERMINAL)


def is_about_input(read: Outcome) -> bool:
    """Whether a failure says that there is nothing for this input, which says nothing about another one."""
    if read.status is _EMPTY:
        return True
    patterns = _patterns()
    return bool(patterns.nothing.match(read.text) or patterns.missing.match(read.text[:MISSING_CHARS]))


def _is_bare(value: object, text: str) -> bool:
    if value is None or value == {}:
        return True
    return text in _NOTHING or (isinstance(value, str) and bool(_patterns().silent.fullmatch(text)))


def _keyed(outcome_key: Callable[[object], object], value: object) -> object:
    try:
        return outcome_key(value)
    except Exception:  # noqa: BLE001 -- an owner's function that does not fit must not change the run
        return value


def _classify(outcome: ToolOutcome, value: object, text: str) -> tuple[Status, str]:
    """Status class, and the state the answer names, if it names one."""
    state = text if len(text) <= 12 else ""
    if isinstance(value, str):
        status = _classify_text(text)
    elif isinstance(value, Mapping):
        status, state = _classify_mapping(cast("Mapping[object, object]", value))
    elif value is None or (isinstance(value, list | tuple) and not value):
        status = _EMPTY
    else:
        status = _OK
    return (status if outcome.ok else _FAIL), state


def _classify_text(text: str) -> Status:
    if text in _NOTHING:
        return _EMPTY
    patterns = _patterns()
    begins = patterns.label.match(text)
    begins_at = 0 if begins is None else begins.end()
    lead = text[begins_at : begins_at + LEAD_CHARS]
    if patterns.nothing.match(lead):
        return _EMPTY
    return _SOFT_FAIL if patterns.failed.match(lead) else _OK


def _classify_mapping(mapping: Mapping[object, object]) -> tuple[Status, str]:
    status, state, rows = _OK, "", -1
    try:
        if not mapping:
            return _EMPTY, ""
        for index, (key, value) in enumerate(mapping.items()):
            if index >= 64:  # known keys stand at the front; the rest of a big record is content
                break
            name = key_name(key) if isinstance(key, str) else ""
            if name in _STATE_KEYS and isinstance(value, str):
                state = value.strip().casefold()
            if _says_failed(name, value):
                status = _SOFT_FAIL
            elif name in _ROW_KEYS:
                rows = max(rows, _size(value))
    except Exception:  # noqa: BLE001 -- a mapping of somebody's own may raise anything
        return _OK, ""
    if status is _OK and rows == 0:
        status = _EMPTY
    return status, state


def _says_failed(name: str, value: object) -> bool:
    if name in _FLAG_KEYS:
        return value is False
    if name in _ERROR_KEYS:
        return bool(value)
    if name in _CODE_KEYS:
        return type(value) is int and 400 <= value <= 599
    return name in _STATE_KEYS and isinstance(value, str) and value.strip().casefold() in _FAILED_STATES


def _size(value: object) -> int:
    if value is None or value == 0:
        return 0
    return len(cast("list[object]", value)) if isinstance(value, list | tuple | dict | str) else 1


_CLASS = "0123"
_NOTHING = frozenset(("", "none", "null", "nil", "[]", "{}", "()", '""', "''", "n/a", "empty", "(empty)", "undefined"))
_FLAG_KEYS = frozenset(("success", "ok", "succeeded"))
_ERROR_KEYS = frozenset(("error", "errors", "iserror", "errormessage", "exception"))
_CODE_KEYS = frozenset(("statuscode", "httpstatus", "httpcode"))
_STATE_KEYS = frozenset(("status", "state", "phase"))
_ROW_KEYS = frozenset(
    (
        "result",
        "results",
        "items",
        "data",
        "matches",
        "hits",
        "documents",
        "records",
        "rows",
        "entries",
        "count",
        "total",
    ),
)
_FAILED_STATES = frozenset(("error", "failed", "failure", "fail"))
_TERMINAL = frozenset((
    "done", "completed", "complete", "finished", "succeeded", "success", "failed", "failure", "error",
    "cancelled", "canceled", "aborted", "expired", "terminated",
))  # fmt: skip


class _Patterns:
    def __init__(self) -> None:
        # What a logger writes in front: marks of masked values, and labels.
        self.label = re.compile(
            r"(?:\W*<[a-z]+>\W*|\[?(?:tool|result|output|response|observation|message|info|warn(?:ing)?|debug|log|"
            r"std(?:err|out))\]?\s*[:|\-]\s*)+"
        )
        self.silent = re.compile(r"\W*no (?:output|content|response|data)\W*|204:? no content\W*")
        # What a single input lacks. Tools, commands, tables and hosts that are missing are missing for every input.
        self.missing = re.compile(
            r"(?!.*\b(?:tool|command|function|method|module|package|table|column|host|domain|route|endpoint|server|service|"
            r"tenant|project|index|database|credentials?|token|model)\b)"
            r".*(?:not[ _-]?found|does(?: not|n't|n’t) exist|do(?: not|n't|n’t) exist|already[ _-]?exists?|"
            r"no such (?:file|key|element|record|user|customer|order|item|ticket|id|document|page|object)\b|"
            r"\b404\b|unknown (?:\w+ )?(?:id|user|customer|order|item|ticket|record)\b|"
            r"nicht gefunden|existiert nicht|no (?:se )?encontr|no existe|introuvable|pas trouv|n'existe pas|"
            r"n[ãa]o encontrad|non trovat|niet gevonden|не найден|не существует|見つかりません|未找到|不存在|找不到)",
            re.DOTALL,
        )
        self.nothing = re.compile(
            r"\W*(?:(?:there (?:is|are|were) )?(?:no|zero|0) (?:\w+ ){0,2}"
            r"(?:results?|match(?:es)?|records?|rows?|data|items?|entries|documents?|hits?|outputs?|content|answers?|"
            r"response|files?|value|classification|label)\b(?:\W*$|\W+(?:found|returned|available|matched|for|in|were)\b)"
            r"|nothing (?:found|to (?:show|report|return))|empty (?:result|response|output|list|set)\b)",
        )
        self.failed = re.compile(
            r"\W*(?:(?:an? )?(?:unexpected |internal |fatal )?(?:error|failure|exception)\b(?:\W*$|\s*[:\-–(\[\n]|"
            r" (?:while|during|in|at|when|executing|calling|occurred|code)\b)"
            r"|(?:[a-z_]+ ){0,3}(?:failed|timed out|time[- ]?out)\b(?:\W*$|\s*[:\-–(\[,.\n]|"
            r" (?:to|with|because|after|due|for|at|on)\b)"
            r"|fatal:|traceback \(most recent|[\w.]*(?:error|exception)\b\s*[:(\n]"
            r"|(?:i |we )?(?:could not|couldn't|cannot|can't|unable to|did not find|didn't find)\b"
            r"|(?:\w+ ){0,2}not found\b|no such (?:file|tool|table|column|host|key|element)\b"
            r"|(?:permission|access) denied\b|unauthori[sz]ed\b|forbidden\b|too many requests\b|rate limit(?:ed)?\b"
            r"|invalid (?:argument|input|request|parameter|json|value|tool)\b"
            r"|connection (?:refused|reset|aborted|error|timed out)\b"
            r"|(?:http(?:/[0-9.]+)?(?: error)?[ :]*)?[45][0-9]{2}:? (?:"
            r"bad|unauthori[sz]ed|payment|forbidden|not|method|request|conflict|gone|payload|unprocessable|locked|too|"
            r"internal|service|gateway|http|client|server|error)\b)",
        )


@cache
def _patterns() -> _Patterns:
    return _Patterns()
