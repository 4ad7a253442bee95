"""What the documentation shows is run: README's Python, README's commands, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from langchain.agents import create_agent

import runrails
from runrails import Guard
from runrails.cli import main
from runrails.testing import PRICES, ScriptedChatModel

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ADAPTERS = (Path(__file__).parents[2] / "integrations" / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ runrails (.+)$", README, flags=re.MULTILINE)
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(runrails.__path__, "runrails.") if "__main__" not in module.name
)


def test_readmes_python_runs_as_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All blocks in order, with an agent at hand; the model is a fake with a written price."""
    prices = tmp_path / "prices.toml"
    card = PRICES["fake-model"]
    prices.write_text(f'[prices."fake-model"]\ninput = "{card.input}"\noutput = "{card.output}"\n', encoding="utf-8")
    monkeypatch.setenv("RUNRAILS_PRICES", str(prices))
    model = ScriptedChatModel("Hello.", max_tokens=64)
    names: dict[str, object] = {
        "agent": create_agent(model, tools=[]), "model": model, "tools": [], "inputs": {"messages": [("user", "hi")]},
    }  # fmt: skip

    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 -- running the documentation is the test

    assert len(PYTHON) >= 3
    assert "Hello." == names["outcome"].answer  # type: ignore[attr-defined]
    assert "1 model call, 0 tool calls" in str(names["run"].report())  # type: ignore[attr-defined]


def test_the_adapters_pages_python_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The adapter it shows is a whole one: its agent is hinted at, blocked and stopped, and pays for what it sent."""
    with Guard(store="memory:", prices=PRICES, sinks=()) as guard:
        names: dict[str, object] = {"guard": guard}
        for block in re.findall(r"```python\n(.*?)```", ADAPTERS, flags=re.DOTALL):
            exec(compile(block, "integrations/README.md", "exec"), names)  # noqa: S102 -- as above

    assert 4 == len(names["executed"])  # type: ignore[arg-type]
    assert "classify" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_readmes_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command shown has help; the words that are not options lead to it."""
    words = [word for word in command.split("#", maxsplit=1)[0].split() if re.fullmatch(r"[a-z]+", word)][:2]
    words = words[:1] if words[0] not in ("budget", "prices") else words
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    """Every `>>>` in the core gives what it says."""
    results = doctest.testmod(importlib.import_module(name))
    assert (results.failed, name) == (0, name)
