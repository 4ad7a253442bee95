"""
Plays mutants against tests: the tests are collected once, and each mutant is played in a fork of that process.

A fork changes the code of the functions that are there, so that everybody who has imported them has the change. It runs
those tests alone that reach the changed lines, first those that have seen many mutants fall, and ends with the first
that fails. What is not of functions alone is played with the module imported anew, against all its tests.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import pytest

from rr_mutants import Edit, edits, outside_of_functions, played

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ANEW", "OPTIONS", "Changed", "Plain", "Played", "Player", "Reached", "changed_texts", "play_anew"]

OPTIONS = (
    "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "--timeout=120",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
ANEW = "anew"
"""Instead of a test: the change is not of functions alone, so that it cannot be made in a running program."""
LIMIT_S = 1_200
"""Far more than all tests of a module take."""
_LATE = (
    "openai.resources", "openai.types", "openai.types.responses", "anthropic.resources", "anthropic.types",
    "anthropic.types.beta", "rich.console", "typer.rich_utils", "botocore.session", "jwt.algorithms",
)  # fmt: skip
"""What packages import when they are used first."""
_TEST_S = 30.0
"""A test that takes longer with a change has noticed it."""
TOP = Path(__file__).resolve().parent.parent


class Changed(NamedTuple):
    """A mutant that can be played: an edit of the module's tree, or another text of it."""

    module: str
    name: str
    source: str
    """The module as it is."""
    tree: ast.Module
    """The same, to be edited."""
    edit: Edit | None
    text: str
    lines: frozenset[int]
    """Who reaches one of these may notice."""


class Played(NamedTuple):
    """What became of a mutant."""

    mutant: Changed
    killer: str | None
    """The test that failed, `time` for none that ended, None if no test saw it."""


class Reached(NamedTuple):
    """What a test does without any change."""

    seconds: float
    lines: dict[str, frozenset[int]]


def changed_texts(module: str, source: str, chosen: Mapping[str, tuple[tuple[str, str], ...]]) -> list[Changed]:
    """All mutants of a module: those by its form, and those that somebody chose. ValueError if one is gone."""
    tree = ast.parse(source)
    found = [
        Changed(module, each.name, source, tree, each.edit, "", frozenset(range(each.edit.first, each.edit.last + 1)))
        for each in edits(tree)
    ]
    for name, replacements in chosen.items():
        text = source
        for old, new in replacements:
            if old not in text:
                raise ValueError(f"{module}: {name}: this is not there any more: {old}")
            text = text.replace(old, new)
        found.append(Changed(module, f"chosen: {name}", source, tree, None, text, _lines(source, replacements)))
    return found


def _lines(source: str, replacements: Sequence[tuple[str, str]]) -> frozenset[int]:
    """Where the replaced texts stand; a test that reaches one of the lines may notice."""
    found: set[int] = set()
    for old, _ in replacements:
        at = source.find(old)
        while at >= 0:
            first = source.count("\n", 0, at) + 1
            found.update(range(first, first + old.rstrip("\n").count("\n") + 1))
            at = source.find(old, at + 1)
    return frozenset(found)


class Plain:
    """A plugin of pytest that has chosen cases be the same in each fork, and keeps none of them."""

    def pytest_configure(self) -> None:
        """Before any test is read."""
        from hypothesis import settings

        settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
        settings.load_profile("mutants")


class Telling:
    """A plugin of pytest that tells which test failed."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell."""
        if report.failed:
            self._tell(report.nodeid)


class Player:
    """A plugin of pytest that plays mutants instead of the collected tests."""

    def __init__(
        self, mutants: Sequence[Changed], tests: Mapping[str, Sequence[str]], told: Callable[[Played], None], *,
        killers: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._mutants = mutants
        self._tests = tests
        self._told = told
        self._first = killers
        self._kills: Counter[str] = Counter()
        self._alone: dict[str, bool] = {}
        self._functions: dict[str, dict[str, list[FunctionType]]] = {}
        self.trouble = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Play all."""
        items = {item.nodeid: item for item in session.items}
        for module, source in {(mutant.module, mutant.source) for mutant in self._mutants}:
            __import__(_dotted(module))
            if (TOP / module).read_text(encoding="utf-8") != source:
                self.trouble = f"{module} was changed meanwhile"
                return True
        for package in _LATE:  # else each fork would load it anew
            with suppress(ImportError):
                __import__(package)
        self._functions = _functions({str(TOP / mutant.module) for mutant in self._mutants})
        gc.collect()
        gc.freeze()
        reached = self._reached(session, list(items.values()))
        if reached is None:
            return True
        for mutant in self._mutants:
            files = tuple(self._tests[mutant.module])
            mapped = [(name, of) for name, of in reached.items() if name.startswith(files)]
            self._told(Played(mutant, self._play(session, items, mutant, mapped)))
        return True

    def _reached(self, session: pytest.Session, items: list[pytest.Item]) -> dict[str, Reached] | None:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory, "reached.json")
            watched = frozenset(str(TOP / mutant.module) for mutant in self._mutants)
            if _forked(lambda tell: _trace(session, items, watched, place), LIMIT_S * 2) is not None:
                self.trouble = "The tests did not end."
                return None
            given = json.loads(place.read_text(encoding="utf-8"))
        failing = [name for name, (_, of) in given.items() if of is None]
        if failing:  # they prove nothing, and the others do
            self.trouble = f"{len(failing)} fail without any change, as {failing[0]}"
        return {
            name: Reached(seconds, {file: frozenset(lines) for file, lines in of.items()})
            for name, (seconds, of) in given.items()
            if of is not None
        }

    def _play(
        self, session: pytest.Session, items: dict[str, pytest.Item], mutant: Changed, mapped: list[tuple[str, Reached]]
    ) -> str | None:
        try:
            code = self._code(mutant)
        except LookupError:
            return ANEW
        file = str(TOP / mutant.module)
        reaching = [name for name, of in mapped if not mutant.lines.isdisjoint(of.lines.get(file, ()))]
        times = dict(mapped)
        first = self._first.get(f"{mutant.module}:{mutant.name}")
        while reaching:
            reaching.sort(key=lambda name: (name != first, times[name].seconds / (1 + self._kills[name])))
            killer = _forked(lambda tell: _run(session, [items[name] for name in reaching], tell, code), LIMIT_S)
            if killer is None or killer == "time" or self._stands(session, items[killer]):
                if killer is not None:
                    self._kills[killer] += 1
                return killer
            reaching.remove(killer)  # it fails alone without any change, too: it proves nothing
        return None

    def _stands(self, session: pytest.Session, item: pytest.Item) -> bool:
        """Whether a test that failed passes by itself, without the change."""
        known = self._alone.get(item.nodeid)
        if known is None:
            known = _forked(lambda tell: _run(session, [item], tell, []), LIMIT_S) is None
            self._alone[item.nodeid] = known
        return known

    def _code(self, mutant: Changed) -> list[tuple[FunctionType, CodeType]]:
        """The functions to be changed, and their code after it. Raises LookupError if a change is not of functions."""
        file = str(TOP / mutant.module)
        if mutant.edit is None and outside_of_functions(mutant.tree) != outside_of_functions(ast.parse(mutant.text)):
            raise LookupError(mutant.name)
        before = _codes(compile(mutant.tree, file, "exec"))
        after = _codes(_compiled(mutant, file))
        found: list[tuple[FunctionType, CodeType]] = []
        for name, codes in after.items():
            if len(codes) != len(before.get(name, ())):
                raise LookupError(name)
            for old, new in zip(before[name], codes, strict=True):
                if _form(old) != _form(new):
                    here = [each for each in self._functions[file].get(name, ()) if _same(each.__code__, old)]
                    if not here or old.co_freevars != new.co_freevars:
                        raise LookupError(name)
                    found += [(each, new) for each in here]
        if not found:
            raise LookupError(mutant.name)
        return found


def play_anew(mutant: Changed, tests: Sequence[str]) -> str | None:
    """The same in a process that has imported nothing of this package yet. Slow, and it misses nothing."""
    file = str(TOP / mutant.module)
    code = _compiled(mutant, file)

    def play(tell: Callable[[str], None]) -> int:
        usual = SourceFileLoader.get_code

        def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
            return code if self.path == file else usual(self, fullname)

        SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]
        with tempfile.TemporaryDirectory() as directory:
            ended = pytest.main([*OPTIONS, "-x", f"--basetemp={directory}/t", *tests], plugins=[Plain(), Telling(tell)])
        if ended not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            tell("the tests could not be read")
        return int(ended)

    return _forked(play, LIMIT_S)


def _compiled(mutant: Changed, file: str) -> CodeType:
    if mutant.edit is None:
        return compile(mutant.text or "", file, "exec")
    with played(mutant.edit):
        return compile(mutant.tree, file, "exec")


def _codes(module: CodeType) -> dict[str, list[CodeType]]:
    """The code of outermost functions and methods by qualified name, in the order of the text."""
    found: defaultdict[str, list[CodeType]] = defaultdict(list)

    def look(code: CodeType) -> None:
        for each in code.co_consts:
            if isinstance(each, CodeType) and not each.co_name.startswith("<"):
                is_class = not each.co_flags & 0x1  # functions are optimised, the bodies of classes are not
                if is_class:
                    look(each)
                else:
                    found[each.co_qualname].append(each)

    look(module)
    return found


def _form(code: CodeType) -> tuple[object, ...]:
    """What a function does, wherever it stands in its file."""
    consts = tuple(_form(each) if isinstance(each, CodeType) else (type(each), repr(each)) for each in code.co_consts)
    return (
        code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
        code.co_exceptiontable,
    )  # fmt: skip


def _same(one: CodeType, other: CodeType) -> bool:
    return one.co_firstlineno == other.co_firstlineno and one.co_qualname == other.co_qualname


def _functions(files: set[str]) -> dict[str, dict[str, list[FunctionType]]]:
    found: dict[str, dict[str, list[FunctionType]]] = {file: defaultdict(list) for file in files}
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename in files:
            found[each.__code__.co_filename][each.__code__.co_qualname].append(each)
    return found


def _dotted(module: str) -> str:
    return ".".join(Path(module).with_suffix("").parts[1:]).removesuffix(".__init__")


def _forked(play: Callable[[Callable[[str], None]], object], limit_s: float) -> str | None:
    """Play in a process of its own. What it told first, `time` if it did not end, None if it told nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(play, writing)
    os.close(writing)
    told, until = b"", time.monotonic() + limit_s
    while True:
        ready = select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]
        if not ready:
            break
        read = os.read(reading, 65_536)
        told += read
        if not read or b"\n" in told:
            break
    in_time = bool(ready)
    os.close(reading)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what its tests have left behind
    if not in_time:
        return "time"
    line = told.split(b"\n")[0].decode()
    return line or (None if os.waitstatus_to_exitcode(status) == 0 else "time")


def _in_child(play: Callable[[Callable[[str], None]], object], writing: int) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        os.set_inheritable(writing, False)
        nothing = os.open(os.devnull, os.O_RDWR)
        for each in (0, 1, 2):
            os.dup2(nothing, each)
        sys.dont_write_bytecode = True
        play(lambda name: (os.write(writing, name.encode() + b"\n"), None)[1])
        code = 0
    finally:
        os._exit(code)


def _run(
    session: pytest.Session, items: Sequence[pytest.Item], tell: Callable[[str], None],
    changes: Sequence[tuple[FunctionType, CodeType]],
) -> None:  # fmt: skip
    for function, code in changes:
        function.__code__ = code
    session.config._env_timeout = _TEST_S  # type: ignore[attr-defined]  # of pytest-timeout
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            tell(item.nodeid)
            return


def _trace(session: pytest.Session, items: Sequence[pytest.Item], watched: frozenset[str], place: Path) -> None:
    """Run all and write down which lines each reaches, of one that fails none."""
    touched: set[tuple[str, int]] = set()

    def within(frame: FrameType, event: str, arg: object) -> object:
        touched.add((frame.f_code.co_filename, frame.f_lineno))
        return within

    def tracer(frame: FrameType, event: str, arg: object) -> object:
        if frame.f_code.co_filename not in watched:
            return None
        return within(frame, event, arg)

    threading.settrace(tracer)  # type: ignore[arg-type]
    sys.settrace(tracer)  # type: ignore[arg-type]
    found: dict[str, tuple[float, dict[str, list[int]] | None]] = {}
    for item, following in zip(items, [*items[1:], None], strict=True):
        touched.clear()
        began = time.perf_counter()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        by_file: defaultdict[str, list[int]] = defaultdict(list)
        for file, line in list(touched):
            by_file[file].append(line)
        found[item.nodeid] = (time.perf_counter() - began, None if session.testsfailed else dict(by_file))
        session.testsfailed = 0
    place.write_text(json.dumps(found), encoding="utf-8")
