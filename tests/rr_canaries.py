"""
Canaries: secrets that must appear nowhere, and a lookout that reads everything a program can tell.

The lookout hears the records of every logger at DEBUG, what is printed, errors with their whole chains and the local
variables of our frames, objects in every form that Python shows them in, files, and what child processes are given.
What it looks for are 12 characters in a row of a secret part, as they stand and as base64, base32, hexadecimal,
percent-encoded, escaped or backwards. Compressed, encrypted or in pieces it would not know them. Of bytes that are
escaped or percent-encoded it takes 36 characters: in 12 are three bytes, or two, which drawn bytes share by chance.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import logging
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from rich.pretty import pretty_repr

from rr_jwt import ED, drawn, pem
from runrails.cli.root import COMMANDS
from runrails.cli.shell import run
from runrails.errors import RunrailsError

SIZE = 12
"""So many characters of a secret are a leak."""
LONG_SIZE = 36
"""So many where one byte is up to six characters."""
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def letters(name: str, count: int) -> str:
    """Letters and digits that look drawn and are the same in every run."""
    stream = b"".join(sha256(f"canary {name} {block}".encode()).digest() for block in range(count // 32 + 1))
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in stream[:count])


class Canary(NamedTuple):
    """A secret."""

    name: str
    text: str
    parts: tuple[str | bytes, ...]
    """What of it is secret: a prefix that all of its kind have is not, nor is a public id."""

    def __repr__(self) -> str:
        return f"Canary({self.name!r})"


def _canary(name: str, form: str = "{}", count: int = 44) -> Canary:
    drawn_part = letters(name, count)
    return Canary(name, form.format(drawn_part), (drawn_part,))


def _key(name: str) -> Canary:
    text = base64.urlsafe_b64encode(drawn(name)).decode()
    return Canary(name, text, (text, drawn(name)))


_WEBHOOK = base64.b64encode(drawn("webhook canary")).decode()

OPENAI = _canary("OpenAI key", "sk-proj-{}", 48)
ORG_KEY = _canary("organisation's key", "sk-svcacct-{}", 48)
HOUSE = _canary("platform's key", "sk-proj-{}", 48)
ROTATED = _canary("key after a rotation", "sk-proj-{}", 48)
ANTHROPIC = _canary("Anthropic key", "sk-ant-api03-{}-AA", 80)
OTHERS = tuple(
    _canary(name, form, count)
    for name, form, count in (
        ("Google key", "AIza{}", 35), ("Mistral key", "{}", 32), ("Groq key", "gsk_{}", 52), ("xAI key", "xai-{}", 80),
        ("Perplexity key", "pplx-{}", 48), ("Hugging Face token", "hf_{}", 34), ("Cohere key", "{}", 40),
        ("Azure key", "{}", 32), ("Bedrock API key", "ABSK{}", 120), ("Together key", "tgp_v1_{}", 43),
    )
)  # fmt: skip
AWS_SECRET = _canary("AWS secret key", count=40)
AWS_TOKEN = _canary("AWS session token", "FwoGZXIvYXdz{}==", 300)
AWS_KEYS = Canary(
    "AWS keys of the vault", f"ASIACANARY2345678XYZ:{AWS_SECRET.text}:{AWS_TOKEN.text}",
    (*AWS_SECRET.parts, *AWS_TOKEN.parts),
)  # fmt: skip
LEGACY = Canary("older platform's key", f"sk-{letters('legacy', 48)}", (letters("legacy", 48)[9:],))
PEPPER, OLD_PEPPER = _key("pepper"), _key("pepper before")
MASTER, OTHER_MASTER = _key("master key"), _key("another master key")
JWT_SECRET = _key("HS256 key")
JWT_PEM = Canary("EdDSA key", pem(ED).decode(), (drawn("ed1"), "".join(pem(ED).decode().split("\n")[1:-2])[22:]))
WEBHOOK = Canary("webhook's secret", f"whsec_{_WEBHOOK}", (_WEBHOOK, drawn("webhook canary")))
SLACK = _canary("Slack webhook's path", "T0CANARY1/B0CANARY2/{}", 32)
PASSWORD = _canary("password of a URL", count=32)
PROMPT = _canary("prompt", "My diary says: {}.", 40)
TOOL_ARGUMENT = _canary("tool argument", count=40)
TOOL_OUTPUT = _canary("tool output", count=40)
ANSWER = _canary("model's answer", count=40)

SECRETS: tuple[Canary, ...] = (
    OPENAI, ORG_KEY, HOUSE, ROTATED, ANTHROPIC, *OTHERS, AWS_SECRET, AWS_TOKEN, LEGACY, PEPPER, OLD_PEPPER, MASTER,
    OTHER_MASTER, JWT_SECRET, JWT_PEM, WEBHOOK, SLACK, PASSWORD,
)  # fmt: skip
"""Those that are there from the start. API keys, tokens, proofs and data keys are learned when they are made."""
CONTENT: tuple[Canary, ...] = (PROMPT, TOOL_ARGUMENT, TOOL_OUTPUT, ANSWER)
"""What users and models say. The SDKs' requests, answers and errors are made of it; nothing of ours may tell it."""
_THEIRS = re.compile(
    r"log (openai|anthropic|httpx?2?|httpcore|langchain|langsmith|asyncio)\b"
    r"|object (?!runrails)|error [A-Za-z]+: local variables"
)
"""Where content is whoever's who asked to see it: the SDKs' logs and objects, and arguments of functions."""


def forms_of(part: str | bytes) -> Iterator[tuple[str, str]]:
    """A secret part as it may appear, and what that is called."""
    held = part.encode() if isinstance(part, str) else part
    plain = held.decode("latin-1")
    yield "plain", plain
    yield "backwards", plain[::-1]
    yield "hexadecimal", held.hex()
    yield "hexadecimal", held.hex().upper()
    yield "percent-encoded", quote(held, safe="")
    yield "escaped", repr(held)[2:-1]
    yield "escaped", json.dumps(plain)[1:-1]
    for shift in range(3):  # in the middle of something else it is encoded from another place on
        whole = held[shift:]
        # What stands at the end depends on what comes after.
        yield "base64", base64.b64encode(whole).decode().rstrip("=")[:-1]
        yield "base64", base64.urlsafe_b64encode(whole).decode().rstrip("=")[:-1]
    yield "base32", base64.b32encode(held).decode().rstrip("=")


@lru_cache(maxsize=256)
def _pieces(name: str, part: str | bytes) -> dict[str, str]:
    """Every piece of a secret in every form, and what it is a piece of."""
    found: dict[str, str] = {}
    for form, text in forms_of(part):
        long = isinstance(part, bytes) and form in {"escaped", "percent-encoded"}
        for piece in _windows(text, LONG_SIZE if long else SIZE):
            found.setdefault(piece, f"{name}, {form}")
    return found


def _windows(text: str, size: int) -> set[str]:
    return {text[at : at + size] for at in range(len(text) - size + 1)}


class Told(NamedTuple):
    """Something that was heard."""

    where: str
    text: str


class _Ear(logging.Handler):
    """Hears records as any handler might show them: message, arguments, extra fields, error."""

    def __init__(self, told: list[Told]) -> None:
        super().__init__(logging.NOTSET)
        self._told = told
        self._plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] == "moto":
            return  # It stands in for AWS, which is sent what it must know.
        shown = [record.getMessage(), repr(record.args)]
        shown += [f"{name}={value!r}" for name, value in vars(record).items() if name not in self._plain]
        if record.exc_info and record.exc_info[1] is not None:
            shown += ["".join(traceback.format_exception(record.exc_info[1]))]
        shown += [record.exc_text or "", record.stack_info or ""]
        self._told.append(Told(f"log {record.name} {record.levelname}", "\n".join(shown)))


_listening: list[Lookout] = []


def _hear_children(event: str, args: tuple[object, ...]) -> None:
    """An audit hook stays for as long as the process; without a lookout it does nothing."""
    if _listening and event in {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}:
        given = [
            # What it inherits is not ours to take away; what is added is.
            {name: value for name, value in each.items() if os.environ.get(name) != value}
            if isinstance(each, dict)
            else each
            for each in args
        ]
        _listening[-1].hear(f"child process ({event})", repr(given))


class Lookout:
    """Hears everything while it is open. Thread-safe enough: appending to a list is."""

    hooked = False

    def __init__(self, *directories: Path, secrets: Iterable[Canary] = SECRETS) -> None:
        self.told: list[Told] = []
        self._directories = directories
        self._index: dict[str, str] = {}
        self._kept: set[Path] = set()
        self._levels: dict[logging.Logger, tuple[int, bool]] = {}
        self._ear = _Ear(self.told)
        self._environment = dict(os.environ)
        self._content: dict[str, str] = {}
        for canary in secrets:
            self.learn(canary.name, *canary.parts)
        for canary in CONTENT:
            for part in canary.parts:
                self._content |= _pieces(canary.name, part)

    def learn(self, name: str, *parts: str | bytes) -> None:
        """Look out for this as well, also in what was heard before."""
        for part in parts:
            assert len(part) >= SIZE, name
            self._index |= _pieces(name, part)

    def __enter__(self) -> Lookout:
        if not Lookout.hooked:
            sys.addaudithook(_hear_children)
            Lookout.hooked = True
        _listening.append(self)
        root = logging.getLogger()
        loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
        for logger in [root, *loggers]:
            self._levels[logger] = (logger.level, logger.disabled)
            logger.setLevel(logging.DEBUG if logger is root else logging.NOTSET)
            logger.disabled = False
            if logger is root or not logger.propagate:
                logger.addHandler(self._ear)
        return self

    def __exit__(self, *_: object) -> None:
        for logger, (level, disabled) in self._levels.items():
            logger.removeHandler(self._ear)
            logger.setLevel(level)
            logger.disabled = disabled
        _listening.remove(self)

    def hear(self, where: str, text: str) -> None:
        """Something that was told."""
        self.told.append(Told(where, text))

    def keeps(self, *paths: Path) -> None:
        """These files are where secrets are meant to be."""
        self._kept.update(path.resolve() for path in paths)

    def fails(self, act: Callable[[], object], *kinds: type[BaseException], frames: bool = True) -> BaseException:
        """Do what must fail with one of these errors (by default one of ours), and look at all there is of it."""
        expected = kinds or (RunrailsError,)
        try:
            got = act()
        except expected as error:
            self.raised(error, frames=frames)
            return error
        raise AssertionError(f"did not fail, but gave a {type(got).__name__}")

    def raised(self, error: BaseException, *, frames: bool = True) -> None:
        """All that can be shown of an error, of its causes and of what it came up in."""
        seen: set[int] = set()
        waiting = [error]
        while waiting:
            each = waiting.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            where = f"error {type(each).__name__}"
            self.hear(where, f"{each!r} {each} {each.args!r} {vars(each)!r} {getattr(each, '__notes__', '')}")
            self.hear(f"{where}: traceback", "".join(traceback.format_exception(each)))
            self.show(each)
            if frames:
                for text in _locals(each.__traceback__):
                    self.hear(f"{where}: local variables", text)
            group = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            waiting += [other for other in (each.__cause__, each.__context__, *group) if other is not None]

    def show(self, *objects: object) -> None:
        """Objects in all the forms that Python, and those who log or store them, show them in."""
        for each in objects:
            where = f"object {type(each).__module__}.{type(each).__name__}"
            for form, shown in _shown(each):
                self.hear(f"{where}: {form}", shown)

    def found(self) -> list[str]:
        """Where something was told that must not be, and what; never the secret itself."""
        self._look_around()
        leaks: dict[str, None] = {}
        for where, text in self.told:
            windows = _windows(text, SIZE)
            if "\\" in text or "%" in text:
                windows |= _windows(text, LONG_SIZE)
            leaks |= dict.fromkeys(f"{where}: {self._index[each]}" for each in windows & self._index.keys())
            if not _THEIRS.match(where):
                leaks |= dict.fromkeys(f"{where}: {self._content[each]}" for each in windows & self._content.keys())
        return sorted(leaks)

    def _look_around(self) -> None:
        # What tests put there has such names.
        known = self._environment.items()
        changed = [each for each in os.environ.items() - known if not each[0].startswith(("RR_", "AWS_"))]
        self.hear("environment", repr(changed))
        self.hear("command line", repr(sys.argv))
        for directory in self._directories:
            for path in directory.rglob("*"):
                self.hear("file's name", str(path.relative_to(directory)))
                if path.is_file() and path.resolve() not in self._kept:
                    self.hear(f"file {path.name}", path.read_bytes().decode("latin-1"))


def _locals(trace: TracebackType | None) -> Iterator[str]:
    """The local variables of our frames, as Rich and error trackers show them."""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if module.startswith("runrails") and not module.startswith("runrails.testing"):
            for name, value in trace.tb_frame.f_locals.items():
                yield f"{module}: {name}={pretty_repr(value, max_depth=5)} {value!r}"
        trace = trace.tb_next


def _shown(value: Any) -> Iterator[tuple[str, str]]:
    forms: dict[str, Callable[[], object]] = {
        "repr": lambda: repr(value), "str": lambda: str(value), "format": lambda: f"{value}",
        "vars": lambda: repr(vars(value)), "rich": lambda: pretty_repr(value, max_depth=6),
        "fields": lambda: repr(dataclasses.asdict(value)) if dataclasses.is_dataclass(value) else "",
        "tuple": lambda: repr(tuple(value)) if isinstance(value, tuple) else "",
        "as_dict": lambda: json.dumps(value.as_dict(), default=repr) if hasattr(value, "as_dict") else "",
        "json": lambda: json.dumps(value, default=vars), "copy": lambda: repr(copy.copy(value)),
        "deep copy": lambda: repr(copy.deepcopy(value)),
        "pickle": lambda: pickle.dumps(value, 0).decode("latin-1"),
        "pickle 5": lambda: pickle.dumps(value, 5).decode("latin-1"),
    }  # fmt: skip
    for form, make in forms.items():
        try:
            yield form, str(make())
        except Exception as error:  # it refuses to be shown in this form; how is told as well
            yield f"{form} refused", f"{error!r} {error}"


class Typed(io.TextIOWrapper):
    """What is piped into a command."""

    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


class Result(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


class Shell:
    """The command line of this process. What commands print is heard."""

    def __init__(self, lookout: Lookout, capture: pytest.CaptureFixture[str]) -> None:
        self._lookout = lookout
        self._capture = capture

    def __call__(self, *args: str, typed: str = "", shows: bool = False) -> Result:
        """Run a command; one that `shows` prints a new secret on stdout, once, as is its work."""
        before, sys.stdin = sys.stdin, Typed(typed)
        self.drain("before")
        try:
            code = run(args)
        finally:
            sys.stdin = before
        out, err = self._capture.readouterr()
        where = f"runrails {args[0] if args[0] in COMMANDS else '…'}"
        self._lookout.hear(f"{where}: stderr", err)
        if not shows:
            self._lookout.hear(f"{where}: stdout", out)
        return Result(code, out, err)

    def drain(self, when: str) -> None:
        """Hear what was printed otherwise."""
        out, err = self._capture.readouterr()
        self._lookout.hear(f"printed {when}", out + err)
