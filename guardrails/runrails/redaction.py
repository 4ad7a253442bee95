"""
Secrets out of log lines: a processor for structlog, the last before the renderer, and a filter for `logging`.

What is under a name like `api_key` is masked whatever it is; in everything else, what has the form of a secret is:
messages, nested values, bytes, keys of dictionaries, pairs of a name and a value, exceptions with their causes and
tracebacks, and whatever an object shows of itself. It is a net and no licence: nothing of ours logs a secret on
purpose, and what is encoded once more (base64 or gzip of a key, a key in pieces) has no form to know it by and is not
caught.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping, Sequence
    from logging import LogRecord
    from types import TracebackType

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

__all__ = ["MASK", "RedactingFilter", "redact", "redact_processor", "redact_text"]

MASK = "[redacted]"
_DEPTH_MAX = 8
_VALUES_MAX = 2_000
"""Of one event. What lies deeper or comes after is left out."""
_NAMES_MAX = 1_024

_LEFT_OUT = "[left out]"
_TEXT_CHARS_MIN = 8
"""No shape is shorter, and no pair worth hiding."""
_TEXT_CHARS_MAX = 65_536
"""Of one text; what is behind it is left out. Every pattern below takes time in proportion to it."""

_SHAPES = re.compile(
    r"""
    -----BEGIN\ [A-Z ]{0,32}PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]{0,32}PRIVATE\ KEY-----|\Z)  # PEM
    | (?<![A-Za-z0-9])(?:
        eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){0,3}    # JWT, JWE
        | rr_(?:live|test)_[A-Za-z0-9_]{8,}                                  # our own
        | sk-[A-Za-z0-9_-]{12,}                                              # OpenAI, Anthropic
        | (?:whsec|sk_live|sk_test|rk_live|rk_test)_[A-Za-z0-9+/=_-]{12,}    # webhooks, Stripe
        | (?:gh[opsur]|github_pat|glpat|hf|gsk|xai|pplx)[_-][A-Za-z0-9_-]{16,}  # GitHub, GitLab, models
        | xox[abeoprs]-[A-Za-z0-9-]{10,}                                     # Slack
        | hooks\.slack\.com/[A-Za-z]+/[A-Za-z0-9/]+                          # its webhooks
        | AIza[A-Za-z0-9_-]{30,}                                             # Google
        | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])                 # AWS
        | ABSK[A-Za-z0-9+/=]{20,}                                            # Bedrock
        | (?i:bearer|basic)\s{1,8}(?!-----)[A-Za-z0-9._~+/=-]{8,}             # headers
      )
    | (?<=://)[^\s/?\#@"']{1,256}(?=@)                                       # user and password of a URL
    """,
    re.VERBOSE | re.DOTALL,
)
_NAMED = (
    r"(?:api[_-]?keys?|secrets?|secret[_-]?(?:access[_-]?)?key|passwords?|passwd|passphrase|"
    r"(?:private|master|signing)[_-]?key|token|pepper|credentials?|authorization|cookie|signature)"
)
"""How the name of a secret ends. Several tokens are a number, as in `input_tokens`; several of the others are none."""
_NAME = re.compile(_NAMED + r"\Z", re.IGNORECASE)
_PAIR = re.compile(
    r"(?P<name>" + _NAMED + r")(?P<between>\\?[\"']?\s{0,4}(?:=|:|=>)\s{0,4})"
    r"(?P<value>(?:b|u|r)?\\?\"(?:[^\"\\]|\\.)*\"?|(?:b|u|r)?'(?:[^'\\]|\\.)*'?|[^\s,;&)}\]\"']+)",
    re.IGNORECASE,
)
"""A name and its value inside a text, as in `password='…'`, `"api_key": "…"` and `?token=…`."""
_HEADER = re.compile(
    r"(?P<head>(?:(?P<cookie>cookie)|authorization)\s{0,4}[=:](?![ \t]{0,4}(?:none|null|true|false)\b)[ \t]{0,4})"
    r"(?(cookie)[^\r\n\"'\\]+|[a-z][a-z0-9_-]{0,31}[ \t]{1,4}[^\s,;&)}\]\"'\\]+)",
    re.IGNORECASE,
)
"""Headers of more than one word: a scheme and what it is for, and cookies one after the other."""
_COUNTED = frozenset({"token", "credential", "credentials", "signature", "secrets"})
_COUNT_DIGITS_MAX = 7
_PAIR_CHARS_MIN = 8
_RECORD = frozenset({
    "args", "asctime", "created", "exc_info", "exc_text", "filename", "funcName", "levelname", "levelno", "lineno",
    "message", "module", "msecs", "msg", "name", "pathname", "process", "processName", "relativeCreated", "stack_info",
    "taskName", "thread", "threadName",
})  # fmt: skip
"""What every record has; all else is a field that somebody has added."""
_PLAIN = frozenset({bool, int, float, type(None)})
_HASHABLE = _PLAIN | {str, bytes}


def redact_processor(logger: object, method_name: str, event_dict: MutableMapping[str, object]) -> dict[str, object]:
    """
    Mask an event of structlog. Put it last before the renderer.

    An exception that is still to be rendered is rendered here, as `exception`: what a renderer makes of it later would
    not be looked at any more.
    """
    del logger, method_name
    told = dict(event_dict)
    info = _exc_info_of(told.pop("exc_info", None))
    if info is not None:
        told["exception"] = _traceback(info)
    return cast("dict[str, object]", redact(told))


class RedactingFilter:
    """
    Masks the records of Python's own `logging`: ``for handler in logging.getLogger().handlers: handler.addFilter(…)``.

    It belongs on handlers, since a filter of a logger does not see what the loggers below it write. A record is changed
    for good: handlers after it get it masked as well, with the error as text. It lets every record pass.
    """

    def filter(self, record: LogRecord) -> bool:
        """Mask message, extra fields, error and stack of a record. Never raises."""
        try:
            _mask_record(record)
        except Exception:  # noqa: BLE001 -- what cannot be masked is not shown
            record.msg, record.args, record.exc_info, record.exc_text = "[not shown]", (), None, None
            record.stack_info = None
        return True


def _mask_record(record: LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 -- `logging` itself would print the arguments as they are
        message = f"{record.msg!r} {record.args!r}"
    record.msg, record.args = redact_text(message), ()
    info = _exc_info_of(record.exc_info)
    shown = record.exc_text or (_traceback(info) if info is not None else None)
    record.exc_info, record.exc_text = None, None if shown is None else redact_text(shown)
    record.stack_info = None if record.stack_info is None else redact_text(record.stack_info)
    extra = {name: value for name, value in vars(record).items() if name not in _RECORD}
    vars(record).update(cast("dict[str, object]", redact(extra)))
    if "message" in vars(record):  # as a formatter before has left it
        record.message = record.msg


def redact(value: object) -> object:
    """
    A value without what looks like a secret. Containers are copied, what is neither text, number nor container becomes
    the text that it shows of itself. It never raises.
    """
    return _Walk().walk(value, 0)


def redact_text(text: str) -> str:
    """A text without what looks like a secret."""
    if len(text) < _TEXT_CHARS_MIN:
        return text
    if len(text) > _TEXT_CHARS_MAX:
        # At a blank, so that no secret is cut into a half that cannot be known.
        text = f"{text[:_TEXT_CHARS_MAX].rpartition(' ')[0]} {_LEFT_OUT}"
    masked = _SHAPES.sub(MASK, text)
    if "=" in masked or ":" in masked:
        masked = _PAIR.sub(_mask_pair, _HEADER.sub(rf"\g<head>{MASK}", masked))
    return masked


def _mask_pair(found: re.Match[str]) -> str:
    value = found["value"]
    if _is_count(found["name"], value) or value.lower() in {"none", "null", "true", "false"}:
        return found[0]
    if f"{value}{found.string[found.end() : found.end() + 1]}" == MASK:
        return found[0]
    return f"{found['name']}{found['between']}{MASK}"


def _is_count(name: str, value: str) -> bool:
    """Whether it says how many there are: a number that is a secret is longer, or has another name."""
    return value.isdigit() and len(value) <= _COUNT_DIGITS_MAX and name.lower() in _COUNTED


class _Walk:
    """One event. It counts, so that no event is endless, and remembers where it stands, so that none is a circle."""

    __slots__ = ("_above", "_left")

    def __init__(self) -> None:
        self._left = _VALUES_MAX
        self._above: set[int] = set()

    def walk(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is str:
            return redact_text(cast("str", value))
        if kind is bytes or kind is bytearray:
            return _redact_bytes(bytes(cast("bytes", value)))
        self._left -= 1
        if self._left < 0 or depth >= _DEPTH_MAX or id(value) in self._above:
            return _LEFT_OUT
        self._above.add(id(value))
        try:
            return self._inside(value, depth + 1)
        except Exception:  # noqa: BLE001 -- a value that cannot be shown must not end the program that logs it
            return "[not shown]"
        finally:
            self._above.discard(id(value))

    def _inside(self, value: object, depth: int) -> object:
        if isinstance(value, dict):
            return self._mapping(cast("Mapping[object, object]", value), depth)
        if isinstance(value, list | tuple | set | frozenset):
            found = self._each(cast("Iterable[object]", value), depth)
            if isinstance(value, list):
                return found
            return tuple(found) if isinstance(value, tuple) else _as_set(found)
        if isinstance(value, BaseException):
            return redact_text(_exception_text(value))
        if isinstance(value, str):
            return redact_text(str.__str__(value))
        return redact_text(repr(value))

    def _each(self, values: Iterable[object], depth: int) -> list[object]:
        if isinstance(values, list | tuple) and _is_hidden_pair(cast("Sequence[object]", values)):
            return [self.walk(cast("Sequence[object]", values)[0], depth), MASK]
        found: list[object] = []
        for each in values:
            self._left -= 1
            if self._left < 0:
                found.append(_LEFT_OUT)
                break
            found.append(self.walk(each, depth))
        return found

    def _mapping(self, values: Mapping[object, object], depth: int) -> dict[object, object]:
        masked: dict[object, object] = {}
        for name, value in values.items():
            self._left -= 1
            if self._left < 0:
                masked[_LEFT_OUT] = True
                break
            key = self._key(name, depth)
            while key in masked:
                key = f"{key}+"
            masked[key] = MASK if _hides(name) and value not in (None, True, False, "") else self.walk(value, depth)
        return masked

    def _key(self, name: object, depth: int) -> object:
        return _hashable(self.walk(name, depth))


def _hashable(value: object) -> object:
    return value if type(value) in _HASHABLE else repr(value)


def _is_hidden_pair(values: Sequence[object]) -> bool:
    """Whether these are a name and its secret, as HTTP libraries keep headers."""
    if len(values) != 2 or not isinstance(values[1], str | bytes) or len(values[1]) < _PAIR_CHARS_MIN:
        return False
    return _hides(values[0])


def _hides(name: object) -> bool:
    """Whether what stands under this name is a secret, by its name alone."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        return False
    known = _names.get(text)
    if known is None:
        known = _NAME.search(text[-64:]) is not None
        if len(_names) < _NAMES_MAX:
            _names[text] = known
    return known


_names: dict[str, bool] = {}


def _as_set(values: Iterable[object]) -> object:
    # A masked member may not be hashable any more, and the order of a set is nobody's.
    return {_hashable(each) for each in values}


def _redact_bytes(value: bytes) -> bytes:
    text = value.decode("latin-1")
    masked = redact_text(text)
    return value if masked == text else masked.encode("latin-1")


def _exception_text(error: BaseException) -> str:
    from traceback import format_exception_only

    return "".join(format_exception_only(error)).strip()


def _exc_info_of(given: object) -> ExcInfo | None:
    import sys

    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if isinstance(given, tuple) and len(cast("tuple[object, ...]", given)) == 3:
        return cast("ExcInfo", given) if isinstance(given[1], BaseException) else None
    if given:
        found = sys.exc_info()
        return None if found[0] is None else cast("ExcInfo", found)
    return None


def _traceback(info: ExcInfo) -> str:
    from traceback import format_exception

    try:
        return "".join(format_exception(*info)).rstrip()
    except Exception:  # noqa: BLE001 -- an exception whose text cannot be made
        return info[0].__name__
