"""`runrails prices`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runrails.cli.prices import app
from runrails.errors import ConfigError
from runrails.pricing.patches import read_patches

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", ["show", "check", "diff", "verify", "refresh"])
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


def test_the_layers_are_shown(tmp_path: Path) -> None:
    """Which one counts, and what it overrode, for people and for programs."""
    (tmp_path / "runrails.toml").write_text('[[contract]]\nprovider = "openai"\npercent = "-20"\n')
    data = json.loads(RUNNER.invoke(app, ["show", "gpt-4o", "--json"]).stdout)
    assert ("2", "contract", "snapshot") == (data["usd_per_mtok"]["input"], data["source"], data["over"])
    assert ["run", "contract", "project", "patch", "snapshot"] == [layer["layer"] for layer in data["layers"]]
    assert "2.5" == data["layers"][-1]["usd_per_mtok"]["input"]
    text = RUNNER.invoke(app, ["show", "gpt-4o"], env={"COLUMNS": "200"}).stdout
    assert "Overridden: snapshot, 2.5 in and 10 out." in text
    assert "-20 % on the price of the snapshot layer" in text


def test_a_region_and_a_tier_are_shown() -> None:
    """With the source of a pinned price; a tier that nobody has priced is exit 1."""
    there = ["show", "meta.llama3-70b-instruct-v1:0", "--provider", "bedrock", "--region", "sa-east-1", "--json"]
    data = json.loads(RUNNER.invoke(app, there).stdout)
    assert ("4.45", "patch", True) == (data["usd_per_mtok"]["input"], data["source"], "litellm" in data["note"])
    data = json.loads(RUNNER.invoke(app, ["show", "gpt-5", "--tier", "flex", "--json"]).stdout)
    assert ("flex", "0.625") == (data["service_tier"], data["usd_per_mtok"]["input"])
    assert 1 == RUNNER.invoke(app, ["show", "gpt-5", "--tier", "scale"]).exit_code
    data = json.loads(RUNNER.invoke(app, ["show", "gpt-5", "--json"]).stdout)
    assert {"flex", "priority", "batch"} <= set(data["service_tiers"])


def test_a_price_file_is_checked(tmp_path: Path) -> None:
    """In order; malformed, by line and key; terms that contradict each other; names that stand for nothing."""
    file = tmp_path / "mine.toml"
    file.write_text('[prices]\nm = "0"\n[aliases]\na = "gpt-4"\n[[contract]]\npercent = 1\n')
    result = RUNNER.invoke(app, ["check", str(file), "--json"])
    told = json.loads(result.stdout)
    assert (0, True, 1, 1, 1) == (
        result.exit_code, *(told[key] for key in ("in_order", "prices", "aliases", "terms"))
    )  # fmt: skip
    for text, line, key in (
        ('[prices.m]\ninput = "x"\noutput = "1"\n', 2, "prices.m.input"),
        ("[prices\n", 1, "[prices"),
        ("[[contract]]\npercent = 1\n[[contract]]\npercent = 2\n", None, None),
    ):
        file.write_text(text)
        result = RUNNER.invoke(app, ["check", str(file), "--json"])
        told = json.loads(result.stdout)
        assert (1, False, line, key) == (
            result.exit_code, told["in_order"], told.get("line"), told.get("key")
        )  # fmt: skip
        assert 1 == RUNNER.invoke(app, ["check", str(file)]).exit_code
    file.write_text('[aliases]\na = "gpt-9"\n')
    result = RUNNER.invoke(app, ["check", str(file), "--json"])
    assert (1, ["a"]) == (result.exit_code, json.loads(result.stdout)["unpriced_aliases"])
    assert 1 == RUNNER.invoke(app, ["check", str(tmp_path / "none.toml")]).exit_code


def test_the_sources_are_compared(tmp_path: Path) -> None:
    """With genai-prices model by model, with litellm's table price by price; a table that is none is an error."""
    pytest.importorskip("genai_prices")
    table = tmp_path / "litellm.json"
    rows = {"gpt-4": 0.00003, "gpt-4o": 0.000007, "gpt-99": 0.1}
    table.write_text(
        json.dumps(
            {
                name: {
                    "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": rate,
                    "output_cost_per_token": 2 * rate,
                }
                for name, rate in rows.items()
            }
        )
    )  # fmt: skip
    result = RUNNER.invoke(app, ["diff", "--litellm", str(table), "--json"])
    told = json.loads(result.stdout)
    assert (1, {"equal": 1, "differ": 1, "refused": 1}) == (result.exit_code, told["litellm"])
    assert [["openai:gpt-4o", "2.5 / 10", "7 / 14"]] == told["litellm_differences"]
    assert "openai:gpt-4o" in RUNNER.invoke(app, ["diff", "--litellm", str(table)], env={"COLUMNS": "120"}).stdout
    table.write_text("[]")
    assert isinstance(RUNNER.invoke(app, ["diff", "--litellm", str(table)]).exception, ConfigError)


def test_refresh_with_litellms_table_renews_cross_check_and_patches(tmp_path: Path) -> None:
    """Three data files, each with its checksum, readable again."""
    pytest.importorskip("genai_prices")
    table = tmp_path / "litellm.json"
    row = {"litellm_provider": "bedrock", "mode": "chat"}
    rows = {
        "bedrock/sa-east-1/meta.llama3-70b-instruct-v1:0": (0.00000445, 0.00000588),
        "bedrock/eu-west-1/meta.llama3-70b-instruct-v1:0": (0.0000001, 0.0000001),  # cheaper than anywhere
        "bedrock/eu-west-2/meta.llama3-70b-instruct-v1:0": (0.1, 0.1),  # absurd
        "bedrock/eu-west-3/no-such-model": (0.000001, 0.000001),
    }
    table.write_text(
        json.dumps(
            {
                name: {**row, "input_cost_per_token": low, "output_cost_per_token": high}
                for name, (low, high) in rows.items()
            }
        )
    )
    assert 0 == RUNNER.invoke(app, ["refresh", "--out", str(tmp_path), "--litellm", str(table)]).exit_code
    patches = read_patches(tmp_path / "patches.json")
    regional = [name for name in patches.names("aws") if "/" in name]
    assert ["sa-east-1/meta.llama3-70b-instruct-v1"] == regional
    assert "unknown" == patches.source["version"]
