"""Every error that the gateway can answer a call of a model with, gathered from its code."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import runrails_gateway
from runrails.errors import RunrailsError
from runrails_gateway.dialects.rules import FAILURES, RULES, Rule
from runrails_gateway.dialects.wording import _ANTHROPIC, _OPENAI
from runrails_gateway.errors import BadRequest, ModelNotFound, NotServed, TooLarge, TooSlow

_WORD = re.compile(r"[a-z]+(_[a-z]+)*")
GATEWAY = Path(runrails_gateway.__file__).parent
_OWN_STATUS = {
    "request_too_large": RULES[TooLarge], "request_timeout": RULES[TooSlow], "unknown_url": RULES[NotServed],
    "model_not_found": RULES[ModelNotFound],
    "method_not_allowed": Rule(405, "invalid_request", again="never"),
}  # fmt: skip
"""Bad requests that are not 400."""


class Told(NamedTuple):
    """What a caller sees of an error, whatever its words are."""

    status: int
    openai: str
    anthropic: str
    again: str


def told(rule: Rule, *, again: str = "") -> Told:
    again = again or {"never": "no", "soon": "soon", "": "as SDKs do"}[rule.again]
    return Told(rule.status, _OPENAI[rule.kind], _ANTHROPIC[rule.kind], again)


def every_error() -> dict[str, Told]:
    """By their codes."""
    found: dict[str, Told] = {}
    for kind in _classes():
        rule = next(RULES[each] for each in kind.__mro__ if each in RULES)
        if issubclass(kind, BadRequest):
            continue
        code = rule.code or kind.code
        again = "after `Retry-After`" if rule.status == 429 else ""
        _add(found, code, told(rule, again=again))
    for rule in FAILURES.values():
        again = "after `Retry-After`, if there is one" if rule.again == "" and rule.status in (429, 503) else ""
        _add(found, rule.code, told(rule, again=again))
    for code in bad_requests():
        _add(found, code, told(_OWN_STATUS.get(code, RULES[BadRequest])))
    return found


def _add(found: dict[str, Told], code: str, row: Told) -> None:
    assert found.setdefault(code, row) == row, f"{code} is told in two ways"


def _classes() -> Iterator[type[RunrailsError]]:
    """Those of every module that has a class with a rule of its own."""
    for name in sorted({kind.__module__ for kind in RULES}):
        for kind in vars(sys.modules[name]).values():
            if isinstance(kind, type) and issubclass(kind, RunrailsError) and kind.__module__ == name:
                yield kind


def bad_requests() -> set[str]:
    """The codes of all bad requests, as they are written where those are raised: a word, then a sentence."""
    found: set[str] = set()
    for path in sorted(GATEWAY.rglob("*.py")):
        if path.parent.name == "admin":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found |= set(_reasons(node, path == GATEWAY / "errors.py"))
            elif isinstance(node, ast.Tuple) and path.name == "jsonin.py":
                found |= set(_worded(node.elts))
    return found


def _reasons(call: ast.Call, may_be_above: bool) -> Iterator[str]:
    own = isinstance(call.func, ast.Name) and call.func.id in ("BadRequest", "_bad", "_Refused")
    above = may_be_above and isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
    if own or above:
        yield from _worded(call.args)
        yield from (
            word.value.value
            for word in call.keywords
            if word.arg == "reason" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
        )


def _worded(given: Sequence[ast.expr]) -> Iterator[str]:
    words = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if len(words) > 1 and _WORD.fullmatch(words[0]) and " " in words[1]:
        yield words[0]
