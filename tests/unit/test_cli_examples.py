"""Every command's help has an example that the command line itself can read, and exit codes are told right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runrails.autoguard.plan import STOP_CODE
from runrails.cli import shell
from runrails.cli.examples import EXAMPLES, example_of
from runrails.cli.output import EXIT_CODES
from runrails.cli.root import COMMANDS, build

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
ROOT: Any = build()
CODES = {"OK", "NEGATIVE", "USAGE", "BUG", "INTERRUPTED", "BROKEN_PIPE"}


def leaves(command: Any, name: str = "") -> Iterator[str]:
    """Names of all commands that can be called."""
    inner = getattr(command, "commands", {})
    if name and (not inner or command.invoke_without_command):
        yield name
    for word, child in inner.items():
        yield from leaves(child, f"{name} {word}".lstrip())


OWN = [name for name in leaves(ROOT) if name.split()[0] in COMMANDS]


def test_every_command_has_an_example_and_there_are_no_others() -> None:
    """A new command comes with its line; one that went away takes it along."""
    assert sorted(EXAMPLES) == sorted(OWN)


@pytest.mark.parametrize("name", OWN)
def test_the_example_is_in_the_help_and_can_be_read(name: str) -> None:
    """The parser takes it: no unknown option, no missing argument, no wrong value."""
    example = example_of(name)
    assert example is not None
    words = shlex.split(example)[1:]
    command: Any = ROOT
    context = None
    while getattr(command, "commands", None) and words and words[0] in command.commands:
        word = words.pop(0)
        command = command.commands[word]
        settings = command.context_settings
        context = command.context_class(command, info_name=word, parent=context, **settings)
    assert example in command.help
    command.parse_args(context, words)  # raises the errors of bad usage


def test_the_exit_codes_in_help_are_those_of_the_code() -> None:
    """One table in the help, one in the documentation, and the numbers of the code."""
    told = {int(number) for number in re.findall(r"(?:^|[:;] )(\d+) ", EXIT_CODES)}
    assert {getattr(shell, name) for name in CODES} == told
    assert f"or {STOP_CODE} if it was stopped" in ROOT.epilog


def test_the_documentation_has_the_same_exit_codes() -> None:
    """The table of docs/cli.md has each of them once, and that of a stopped program."""
    text = DOCS.read_text(encoding="utf-8").partition("## Exit codes")[2].partition("\n## ")[0]
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert sorted({getattr(shell, name) for name in CODES} | {STOP_CODE}) == rows


def test_no_colour_is_what_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """FORCE_COLOR colours a pipe, NO_COLOR does not let it, and `--no-color` may stand anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("RUNRAILS_STORE", "carrier-pigeon://coop")
    monkeypatch.delenv("NO_COLOR", raising=False)
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    shell.run(["runs"])
    assert colour.search(capsys.readouterr().err)
    monkeypatch.setenv("NO_COLOR", "")  # so that what the option sets is taken back
    for args in (["--no-color", "runs"], ["runs", "--no-color"]):
        monkeypatch.setenv("NO_COLOR", "")
        assert shell.USAGE == shell.run(args)
        assert not colour.search(capsys.readouterr().err)


def test_no_colour_belongs_to_the_program_behind_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program is given is not taken from it."""
    monkeypatch.setenv("NO_COLOR", "")
    words = ["run", "--", "tool", "--no-color"]
    assert words == shell.without_colours(words)


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_shells_can_complete(kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`runrails --install-completion` has what it installs answered."""
    monkeypatch.setenv("_RUNRAILS_COMPLETE", f"complete_{kind}")
    monkeypatch.setenv("COMP_WORDS", "runrails budget s")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "runrails budget s")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    shell.run([])
    out = capsys.readouterr().out
    assert "set" in out
    assert "show" in out
    assert "list" not in out.split()
