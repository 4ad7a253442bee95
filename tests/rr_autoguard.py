"""What the tests of guarded programs share: a provider, a folder with programs, and `runrails run` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runrails.cli.shell import run
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import FakeProvider
from runrails.testing.provider.script import ScriptFunction
from runrails.testing.provider.stories import echo

BOOTSTRAP = Path(__file__).parents[1] / "guardrails" / "runrails" / "autoguard" / "bootstrap"
PRICES = """
[prices."fake-flat"]
call = "0.01"
[prices."fake-model"]
input = "3.00"
output = "15.00"
context_tokens_max = 200000
output_tokens_max = 4096
[prices."fake-embedding"]
call = "0.01"
"""
CENT = 10**10
ASK = """
from openai import OpenAI
client = OpenAI(api_key="k", max_retries=0)
def ask(client=client):
    said = [{"role": "user", "content": "hi"}]
    return client.chat.completions.create(model="fake-flat", messages=said, max_tokens=16)
"""
"""How a program asks a model whose every call costs a cent."""


class Ran(NamedTuple):
    """What came of a program."""

    code: int
    out: str
    err: str
    summary: dict[str, Any]
    """Empty if none was written."""


class Bench:
    """A provider, a ledger, and a folder for programs, which is the working directory. `with` serves and closes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.script: ScriptFunction = echo
        """May be replaced before the first request."""
        self.provider = FakeProvider(lambda request: self.script(request))  # noqa: PLW0108 -- whatever it is by then
        self.ledger = folder / "ledger.db"
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        (folder / "runrails.toml").write_text(PRICES, encoding="utf-8")

    def __enter__(self) -> Bench:
        self.provider.start()
        self._monkeypatch.chdir(self.folder)
        for name, value in self.environment().items():
            self._monkeypatch.setenv(name, value)
        return self

    def __exit__(self, *error: object) -> None:
        self.provider.close()

    @property
    def hits(self) -> int:
        """How many requests came in."""
        return sum(self.provider.requests.values())

    def program(self, text: str, name: str = "agent.py") -> Path:
        """Write a program."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """That of a shell whose SDKs talk to the provider."""
        quiet = {"LANGSMITH_TRACING": "false", "PYTHONDONTWRITEBYTECODE": "1"}
        where = {
            "OPENAI_BASE_URL": self.provider.openai_url,
            "ANTHROPIC_BASE_URL": self.provider.anthropic_url,
            "ANTHROPIC_API_KEY": "k",
            "OPENAI_API_KEY": "k",
            "RUNRAILS_STORE": f"sqlite:///{self.ledger}",
        }
        return {**os.environ, **quiet, **where, **(more or {})}

    def start(self, *args: str) -> subprocess.Popen[str]:
        """`runrails run ARGS` as a process, not waited for."""
        return subprocess.Popen(
            [sys.executable, "-m", "runrails.cli", "run", *args], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *args: str) -> Ran:
        """`runrails run --json FILE ARGS`, in this process; the program is another one, and its output is real."""
        file = self.folder / "summary.json"
        file.unlink(missing_ok=True)
        self._capfd.readouterr()
        code = run(["run", "--json", str(file), *args])
        out, err = self._capfd.readouterr()
        return Ran(code, out, err, json.loads(file.read_text(encoding="utf-8")) if file.exists() else {})

    def guarded(self, text: str, *options: str) -> Ran:
        """A program in Python under `runrails run`."""
        return self.run(*options, "--", sys.executable, str(self.program(text)))

    def alone(self, *args: str, **env: str) -> Ran:
        """A Python that the environment alone guards, as the `.pth` file of an installation has it."""
        done = subprocess.run(
            [sys.executable, *args], env=self.environment({"PYTHONPATH": path_of(BOOTSTRAP), **env}), cwd=self.folder,
            text=True, capture_output=True, timeout=100, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr, {})

    def spent(self, scope: str, period: str = "-") -> tuple[int, int]:
        """Spent and held, by the ledger."""
        from runrails.ledger import Account

        store = SQLiteStore(self.ledger)
        try:
            balance = store.balance(Account(scope, period))
        finally:
            store.close()
        return balance.spent, balance.held


def path_of(*folders: Path) -> str:
    """A PYTHONPATH with these first."""
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, folders), *([before] if before else [])])
