"""What the documentation shows is run: Python, commands and files of README and docs/, and docstrings' examples."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import runrails
from rr_docs import PAGES, TOP, Block, anchors, blocks, prose
from rr_docs_cells import given
from runrails import Guard
from runrails.cli import main
from runrails.cli.root import build
from runrails.identity.opening import aws_of_environment
from runrails.testing import PRICES
from runrails_gateway.environment import upstreams_of_environment

BLOCKS = [block for page in PAGES for block in blocks(page)]
ALONE = {"README.md", "integrations/README.md"}
"""Pages whose Python has tests of its own."""
PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.language == "python"} - ALONE)
COMMANDS = sorted({
    line.removeprefix("$ ")
    for block in BLOCKS
    for line in block.text.splitlines()
    if (block.language == "console" and line.startswith("$ runrails "))
    or (block.language == "sh" and block.not_run is None and line.startswith("runrails "))
})  # fmt: skip
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(runrails.__path__, "runrails.") if "__main__" not in module.name
)
NOT_RUN = {
    "CONTRIBUTING.md": ["what contributors run; CI runs it all"],
    "docs/benchmarks.md": ["takes minutes; the first is a step of CI"],
    "docs/migrating.md": ["LiteLLM's own configuration"],
    "docs/start/callback.md": ["installs from a package index"],
    "docs/start/gateway.md": [
        "installs from a package index, and serves until it is ended",
        "needs the running gateway and a key of a provider",
    ],
    "docs/start/notebook.md": ["installs from a package index"],
    "integrations/runrails_gateway/README.md": [
        "installs from a package index, and serves until it is ended",
        "needs the running gateway and a key of a provider",
        "needs the running gateway, a key of a provider and the agents",
        "needs Docker",
        "needs Docker",
    ],
}
"""Every block that is only looked at, with the reason that stands above it."""
OTHERS_OPTIONS = frozenset({"--health-cmd", "--upgrade"})
"""Options of other programs that our pages name."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What the examples take for given."""
    for name in ("RUNRAILS_PRICES", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")  # to be put back
    monkeypatch.chdir(tmp_path)
    return given(tmp_path)


def run_page(page: str, names: dict[str, object]) -> None:
    """All Python of a page, in order, in one namespace."""
    for block in BLOCKS:
        if block.page == page and block.language == "python" and block.not_run is None:
            # Blank lines before it, so that a traceback names the page's own line.
            exec(compile("\n" * block.line + block.text, page, "exec"), names)  # noqa: S102 -- running it is the test


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_runs_as_written(page: str, names: dict[str, object]) -> None:
    """All blocks of a page, in order, with an agent at hand."""
    run_page(page, names)


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.language == "ipython"}))
def test_notebook_cells_run_as_written(page: str, tmp_path: Path) -> None:
    """Each block is a cell of one IPython session, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, str(TOP / "tests" / "rr_docs_cells.py"), page], cwd=tmp_path, capture_output=True, text=True,
        timeout=110, check=False,
    )  # fmt: skip
    assert 0 == ran.returncode, ran.stderr
    assert "runrails guards this kernel" in ran.stdout


def test_readmes_agent_answers(names: dict[str, object]) -> None:
    """What README shows works, and not merely without an error."""
    run_page("README.md", names)

    assert "Hello." == names["outcome"].answer  # type: ignore[attr-defined]
    assert "1 model call, 0 tool calls" in str(names["run"].report())  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["README.md", "docs/start/callback.md"])
def test_the_first_agent_of_a_reader_is_stopped(
    page: str, names: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """The program that a reader is told to save does loop, and says why it was stopped."""
    (program,) = [block for block in BLOCKS if block.page == page and "never_gives_up" in block.text]
    exec(compile(program.text, page, "exec"), {"__name__": "__main__"})  # noqa: S102 -- it stands alone, as promised
    assert "classify" in capsys.readouterr().out


def test_the_adapters_pages_python_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The adapter it shows is a whole one: its agent is hinted at, blocked and stopped, and pays for what it sent."""
    with Guard(store="memory:", prices=PRICES, sinks=()) as guard:
        names: dict[str, object] = {"guard": guard}
        run_page("integrations/README.md", names)

    assert 4 == len(names["executed"])  # type: ignore[arg-type]
    assert "classify" in capsys.readouterr().out


@cache
def command_line() -> Any:
    """All commands, read in once."""
    return build()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_read_as_written(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line takes every command shown, with its arguments and options; the files it names are there."""
    words = shlex.split(command.partition(" > ")[0], comments=True)[1:]
    monkeypatch.chdir(tmp_path)
    for word in words:
        if re.fullmatch(r"[\w-]+\.(csv|jsonl|toml)", word):
            (tmp_path / word).touch()
    found = command_line()
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words.pop(0)]
    assert not getattr(found, "commands", None) or getattr(found, "invoke_without_command", False) or "--help" in words

    found.make_context("runrails", words)  # raises what bad usage raises


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """A group is loaded and tells what is in it."""
    with pytest.raises(SystemExit) as left:
        main(["usage", "--help"])
    assert left.value.code == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS])
def test_every_block_is_of_a_kind_that_is_checked(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python and commands run above; files are read by what reads them; whatever else says why it is not run."""
    if block.not_run is not None or block.language in ("python", "ipython", "text"):
        return
    if block.language == "toml":
        check_toml(tomllib.loads(block.text), block.text, monkeypatch, tmp_path)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "console":
        assert all(line.startswith("$ runrails ") for line in block.text.splitlines()), block
    else:
        ours = all(line.startswith("runrails ") for line in block.text.splitlines())
        assert ours or (block.page == "README.md" and "python3 -m venv" in block.text), block


def check_toml(told: Mapping[str, object], text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A price file passes `runrails prices check` and a guard opens with it; upstreams are opened by the gateway, and so
    are grants.
    """
    if "upstream" in told:
        file = tmp_path / "upstreams.toml"
        file.write_text(text, encoding="utf-8")
        monkeypatch.setenv("RUNRAILS_UPSTREAMS", str(file))
        monkeypatch.setenv("OPENAI_API_KEY", "sk-never-sent-to-anybody")
        assert len(upstreams_of_environment()) >= 1
        return
    if "grant" in told:
        (tmp_path / "grants.toml").write_text(text, encoding="utf-8")
        for name, said in (("SERVER_ID", "me"), ("REGIONS", "eu-west-1"), ("GRANTS", str(tmp_path / "grants.toml"))):
            monkeypatch.setenv(f"RUNRAILS_AWS_{name}", said)
        assert aws_of_environment() is not None
        return
    file = tmp_path / "runrails.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["prices", "check", str(file)])
    assert left.value.code == 0
    monkeypatch.setenv("RUNRAILS_PRICES", str(file))
    Guard(store="memory:").close()


def test_what_is_not_run_is_listed() -> None:
    """No block is left out silently."""
    found: dict[str, list[str]] = {}
    for block in BLOCKS:
        if block.not_run is not None:
            found.setdefault(block.page, []).append(block.not_run)
    assert found == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    """Files and headings exist; the strict build checks the site's, and `sphinx -b linkcheck` other people's."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (TOP / page).parent.joinpath(path).resolve() if path else TOP / page
        there = file.exists() and file.is_relative_to(TOP)
        if there and anchor and file.suffix == ".md":
            there = anchor in anchors(file.relative_to(TOP).as_posix())
        if not there:
            missing.append(target)
    assert [] == missing


def pieces_of_code() -> list[tuple[str, str]]:
    """What stands between backticks in sentences, with its page."""
    return [
        (page, piece)
        for page in PAGES
        if page != "CONTRIBUTING.md"
        for piece in re.findall(r"`([^`\n]+)`", prose(page).replace("\n", " "))
    ]


def options_in(piece: str) -> list[str]:
    """The long options that are named."""
    return re.findall(r"(?<![\w-])--[a-z][a-z-]+", piece)


def test_options_that_are_named_exist() -> None:
    """Every `--option` in a sentence is one of ours, or of another program that is named here."""
    from rr_commands import commands

    from runrails_notebook import options

    parsers = (options._guardrails(), options._guarded())
    magics = {name for parser in parsers for action in parser._actions for name in action.option_strings}
    parameters = [each for _, command in commands() for each in command.params] + command_line().params
    known = magics | {name for each in parameters for name in (*each.opts, *each.secondary_opts)}
    named = {(page, name) for page, piece in pieces_of_code() if piece.startswith("--") for name in options_in(piece)}
    assert [] == sorted(each for each in named if each[1] not in known | OTHERS_OPTIONS | {"--help"})


def test_commands_in_sentences_exist() -> None:
    """A command that a sentence names is there, with the options it is named with."""
    wrong = []
    for page, piece in pieces_of_code():
        if re.match(r"runrails [a-z]", piece):
            words = piece.partition(" -- ")[0].split()[1:]
            found = command_line()
            while words and words[0] in getattr(found, "commands", {}):
                found = found.commands[words.pop(0)]
            own = {name for each in found.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
            unknown = [name for name in options_in(" ".join(words)) if name not in own]
            group = found is command_line() or "commands" in vars(found)
            if unknown or (group and words and words[0].isalpha()):
                wrong.append((page, piece))
    assert [] == wrong


def test_the_page_of_commands_has_all_of_them() -> None:
    """What the built page shows is made here as it is there."""
    from rr_commands import commands, pages_of_commands

    made = pages_of_commands()
    words = [" ".join(("runrails", *words)) for words, _ in commands()]
    assert [] == [each for each in words if f"`{each}`" not in made]
    assert len(words) > 30


def test_the_marker_of_a_file_stays_one() -> None:
    """What includes a part of README finds where it begins and ends."""
    text = (TOP / "README.md").read_text(encoding="utf-8")
    for name in ("numbers", "what-stops-what"):
        assert 1 == text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->"), name


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    """Every `>>>` in the core gives what it says."""
    results = doctest.testmod(importlib.import_module(name))
    assert (results.failed, name) == (0, name)
