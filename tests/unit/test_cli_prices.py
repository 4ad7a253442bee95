"""`runrails prices`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runrails.cli.prices import app
from runrails.errors import ConfigError

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", ["show", "check", "refresh"])
def test_every_command_has_help(command: str) -> None:
    """With `--json` among the options."""
    result = RUNNER.invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert 0 == result.exit_code
    assert "json" in result.output


def test_an_unknown_model_is_exit_1() -> None:
    """As JSON with the same fields as the error, and as text."""
    result = RUNNER.invoke(app, ["show", "gpt-9", "--json"])
    assert (1, "price_unknown", "gpt-9") == (
        result.exit_code,
        *(json.loads(result.stdout)[key] for key in ("error", "model")),
    )
    assert 1 == RUNNER.invoke(app, ["show", "gpt-9"]).exit_code


def test_a_moment_that_is_none_is_exit_2() -> None:
    """Bad input, not an unknown model."""
    assert 2 == RUNNER.invoke(app, ["show", "gpt-4", "--at", "yesterday"]).exit_code


def test_a_malformed_project_file_is_a_config_error(tmp_path: Path) -> None:
    """Which the shell around the commands turns into exit 2."""
    (tmp_path / "runrails.toml").write_text("[prices")
    assert isinstance(RUNNER.invoke(app, ["show", "gpt-4"]).exception, ConfigError)


def test_a_model_is_shown() -> None:
    """In dollars per million tokens, exactly, at the moment asked for."""
    data = json.loads(RUNNER.invoke(app, ["show", "mistral:mistral-large-4", "--at", "2026-10-20", "--json"]).stdout)
    assert ("1.36", "4.18", "snapshot") == (
        data["usd_per_mtok"]["input"],
        data["usd_per_mtok"]["output"],
        data["source"],
    )
    result = RUNNER.invoke(app, ["show", "openai:gpt-4"], env={"COLUMNS": "120"})
    assert 0 == result.exit_code
    assert "openai:gpt-4" in result.stdout


def test_the_project_file_is_used(tmp_path: Path) -> None:
    """The one in the current directory, without being asked."""
    (tmp_path / "runrails.toml").write_text('[prices."openai:gpt-4"]\ncall = "3.20"\n')
    data = json.loads(RUNNER.invoke(app, ["show", "gpt-4", "--json"]).stdout)
    assert ("project", 3_200_000_000_000) == (data["source"], data["call_pusd"])


def test_check_and_refresh(tmp_path: Path) -> None:
    """The data is in order, a refreshed copy is the same with its checksum, and a missing folder is an error."""
    pytest.importorskip("genai_prices")
    checked = RUNNER.invoke(app, ["check", "--json"])
    assert "right" == json.loads(checked.stdout)["checksum"]
    written = RUNNER.invoke(app, ["refresh", "--out", str(tmp_path), "--json"])
    assert (0, True) == (written.exit_code, json.loads(written.stdout)["written"])
    assert ["snapshot.json", "snapshot.sha256"] == sorted(path.name for path in tmp_path.iterdir())
    assert isinstance(RUNNER.invoke(app, ["refresh", "--out", str(tmp_path / "none")]).exception, ConfigError)


def test_refresh_does_not_lose_a_price_quietly(tmp_path: Path) -> None:
    """A model that had a price and has none now: nothing is written until that is allowed."""
    pytest.importorskip("genai_prices")
    RUNNER.invoke(app, ["refresh", "--out", str(tmp_path)])
    file = tmp_path / "snapshot.json"
    lines = file.read_text().splitlines(keepends=True)
    index = next(i for i, line in enumerate(lines) if line.startswith('["gemma-3",'))
    lines[index] = lines[index].replace(",{},", ',{"input":"1","output":"1"},')
    file.write_text("".join(lines))
    changed = file.read_bytes()
    refused = RUNNER.invoke(app, ["refresh", "--out", str(tmp_path), "--json"])
    assert (1, False) == (refused.exit_code, json.loads(refused.stdout)["written"])
    assert changed == file.read_bytes()
    assert 0 == RUNNER.invoke(app, ["refresh", "--out", str(tmp_path), "--allow-zero"]).exit_code
    assert changed != file.read_bytes()
