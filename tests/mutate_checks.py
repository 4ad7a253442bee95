"""
Takes each security check out of the package in turn, and sees a test fail.

    python tests/mutate_checks.py --all                        # what is not done already; DynamoDB: under .ci/dynamodb
    python tests/mutate_checks.py --modules '*/jwt/*'          # these, whatever was done before
    python tests/mutate_checks.py guardrails/runrails/egress_rules.py -- tests/attacks/test_egress_attacks.py

`rr_mutants.py` says what is taken out, `rr_mutants_table.py` which tests must notice, and which mutants are none.
Nothing here is touched. What is found out is kept by module in `.cache/mutants.json`: with --all a mutant that a test
has seen is played again when its module or that test's file has changed. A check that can go without a test failing is
printed, and the exit code is 1; 2: it could not be found out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rr_mutants_chosen import CHOSEN
from rr_mutants_player import ANEW, OPTIONS, TOP, Changed, Plain, Played, Player, changed_texts, play_anew
from rr_mutants_table import EQUIVALENT, TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATE = TOP / ".cache" / "mutants.json"


class Done(NamedTuple):
    """What is known about a module."""

    of: str
    """The module as it was."""
    killers: dict[str, list[str] | None]
    """By mutant, the test that fails and its file as it was."""
    seconds: float


class Bar:
    """How far it is, on a line of its own that is written anew; plain lines where nobody looks."""

    def __init__(self, total: int) -> None:
        self._screen = os.dup(2)  # pytest takes the usual one
        self._live = os.isatty(self._screen)
        self._total, self._count, self._began = total, 0, time.monotonic()

    def step(self, what: str) -> None:
        """One more is done."""
        self._count += 1
        seconds = time.monotonic() - self._began
        filled = 30 * self._count // self._total
        line = f"[{'#' * filled}{'.' * (30 - filled)}] {self._count:,}/{self._total:,} {seconds:.0f} s {what}"
        if self._live:
            self._write(f"\r\x1b[K{line[:118]}")
        elif self._count % 50 == 0 or self._count == self._total:
            self._write(line + "\n")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(("\r\x1b[K" if self._live else "") + text + "\n")

    def _write(self, text: str) -> None:
        os.write(self._screen, text.encode())


def fingerprint(file: str) -> str:
    """Changes with a module's text, or the file of a test."""
    path = TOP / file.partition("::")[0]
    return sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def is_seen(seen: Sequence[str] | None) -> bool:
    """Whether a test that saw a mutant is still as it was."""
    return seen is not None and fingerprint(seen[0]) == seen[1]


def known() -> dict[str, Done]:
    """What was found out before."""
    try:
        return {module: Done(*each) for module, each in json.loads(STATE.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError):
        return {}


def keep(done: Mapping[str, Done]) -> None:
    """Write down what is found out, whole or not at all; of tests that are not the table's, nothing."""
    if "--" in sys.argv:
        return
    STATE.parent.mkdir(exist_ok=True)
    part = STATE.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(done, indent=1, sort_keys=True), encoding="utf-8")
    part.replace(STATE)


def play(
    table: Mapping[str, Sequence[str]], mutants: Sequence[Changed], done: dict[str, Done], bar: Bar, *, again: bool
) -> str:
    """Play mutants in one session of their tests, some in one of their own. What went wrong, empty for nothing."""
    reading, writing = os.pipe()
    before = {f"{module}:{name}": seen[0] for module, of in done.items() for name, seen in of.killers.items() if seen}
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_session(table, mutants, before, writing))
    os.close(writing)
    by_name = {f"{each.module}:{each.name}": each for each in mutants}
    unseen: list[Changed] = []
    trouble = ""
    last = time.monotonic()
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            name, killer = json.loads(line)
            if name is None:
                trouble = str(killer)
                continue
            mutant = by_name.pop(name)
            now = time.monotonic()
            _note(done, mutant, killer, now - last)
            last = now
            if killer == ANEW or (again and killer is None):
                unseen.append(mutant)
            elif killer is None:
                _say(bar, mutant)
            bar.step(name)
    os.waitpid(child, 0)
    for mutant in unseen:
        began = time.monotonic()
        killer = play_anew(mutant, table[mutant.module])
        _note(done, mutant, killer, time.monotonic() - began)
        if killer is None:
            _say(bar, mutant)
        keep(done)
    return trouble or (f"{len(by_name)} were not played" if by_name else "")


def _say(bar: Bar, mutant: Changed) -> None:
    bar.say(f"NOT SEEN {mutant.module}:{mutant.edit.first if mutant.edit else min(mutant.lines)}: {mutant.name}")


def _note(done: dict[str, Done], mutant: Changed, killer: str | None, seconds: float) -> None:
    of = done[mutant.module]
    of.killers[mutant.name] = None if killer is None or killer == ANEW else [killer, fingerprint(killer)]
    done[mutant.module] = of._replace(seconds=of.seconds + seconds)
    keep(done)


def _session(
    table: Mapping[str, Sequence[str]], mutants: Sequence[Changed], killers: Mapping[str, str], writing: int
) -> int:
    def told(played: Played) -> None:
        line = json.dumps([f"{played.mutant.module}:{played.mutant.name}", played.killer])
        os.write(writing, line.encode() + b"\n")

    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        import tempfile

        player = Player(mutants, table, told, killers=killers)
        tests = list(dict.fromkeys(test for mutant in mutants for test in table[mutant.module]))
        with tempfile.TemporaryDirectory() as directory:
            ended = pytest.main([*OPTIONS, f"--basetemp={directory}/t", *tests], plugins=[Plain(), player])
        if player.trouble or ended not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            os.write(writing, json.dumps([None, player.trouble or f"pytest ended with {ended!r}"]).encode() + b"\n")
    except BaseException as error:
        os.write(writing, json.dumps([None, f"{type(error).__name__}: {error}"]).encode() + b"\n")
        return 1
    return 0


def _table(options: argparse.Namespace, rest: list[str]) -> dict[str, Sequence[str]]:
    if rest:
        return dict.fromkeys(options.module, rest)
    if options.module:
        return {module: TABLE[module] for module in options.module}
    patterns = options.modules or ["*"]
    chosen = {module: tests for module, tests in TABLE.items() if any(fnmatch(module, each) for each in patterns)}
    if "RUNRAILS_DDB_ENDPOINT" not in os.environ:
        chosen = {module: tests for module, tests in chosen.items() if "dynamodb" not in module}
    return dict(chosen)


def main(arguments: list[str]) -> int:
    """Play what is asked for, and say what survives."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="*", help="modules, with their tests behind -- or those of the table")
    parser.add_argument("--all", action="store_true", help="every module of the table, but for what is done")
    parser.add_argument("--modules", action="append", metavar="GLOB", help="modules of the table")
    parser.add_argument("--again", action="store_true", help="what no test saw also in a process of its own, slowly")
    parser.add_argument("--json", action="store_true", help="the sum as JSON")
    options = parser.parse_args(arguments[:split])
    if not (options.module or options.modules or options.all):
        parser.error("name modules, or --all")
    os.chdir(TOP)
    table = _table(options, arguments[split + 1 :])
    began = time.monotonic()
    done = known()
    mutants: list[Changed] = []
    for module in table:
        of, before = fingerprint(module), done.get(module)
        texts = changed_texts(module, (TOP / module).read_text(encoding="utf-8"), CHOSEN.get(module, {}))
        wanted = [each for each in texts if each.name not in EQUIVALENT.get(module, {})]
        killers = {each.name: before.killers.get(each.name) if before else None for each in wanted}
        is_same = options.all and before is not None and before.of == of
        done[module] = Done(of, killers, before.seconds if before and is_same else 0.0)
        mutants += [each for each in wanted if not (is_same and is_seen(killers[each.name]))]
    bar = Bar(len(mutants) or 1)
    trouble = play(table, mutants, done, bar, again=options.again) if mutants else ""
    return _tell(table, done, trouble, time.monotonic() - began, as_json=options.json)


def _tell(
    table: Mapping[str, Sequence[str]], done: Mapping[str, Done], trouble: str, seconds: float, *, as_json: bool
) -> int:
    alive = [f"{module}: {name}" for module in table for name, killer in done[module].killers.items() if not killer]
    count = sum(len(done[module].killers) for module in table)
    told = {
        "modules": len(table), "mutants": count, "killed": count - len(alive), "survived": alive,
        "equivalent": sum(len(EQUIVALENT.get(module, {})) for module in table),
        "seconds": round(sum(done[module].seconds for module in table)), "seconds_now": round(seconds),
        "without": [] if "RUNRAILS_DDB_ENDPOINT" in os.environ else [each for each in TABLE if "dynamodb" in each],
        "trouble": trouble,
    }  # fmt: skip
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        print(*(f"{key}: {value}" for key, value in told.items() if key != "survived"), sep="\n")
        print(*(f"NOT SEEN {each}" for each in alive), sep="\n")
    return 2 if trouble else 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
