"""The command line's manners: exit codes, errors without tracebacks, JSON errors, pipes, help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runrails.cli.root import COMMANDS
from runrails.cli.shell import BROKEN_PIPE, BUG, INTERRUPTED, NEGATIVE, OK, USAGE, exit_code_of, run
from runrails.errors import BudgetExceeded, ConfigError, PriceUnknown, StoreUnavailable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches this machine's ledger."""
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{tmp_path / 'ledger.db'}")


def start(*args: str, **env: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(str(ROOT / name) for name in ("guardrails", "integrations"))
    return subprocess.Popen(
        [sys.executable, "-m", "runrails.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **env},
    )


def test_an_unknown_command_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, a word on stderr, nothing on stdout."""
    assert run(["dmeo"]) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "dmeo" in err


def test_an_unknown_option_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where only the one command is loaded."""
    assert run(["runs", "--nope"]) == USAGE
    assert capsys.readouterr().out == ""


def test_an_error_of_ours_is_a_panel_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happened and what to do; no traceback, and nothing on stdout."""
    monkeypatch.setenv("RUNRAILS_STORE", "carrier-pigeon://coop")
    assert run(["runs"]) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "config error" in err
    assert "Traceback" not in err


def test_with_json_an_error_is_json_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program reads the same fields that the exception has."""
    monkeypatch.setenv("RUNRAILS_STORE", "carrier-pigeon://coop")
    assert run(["runs", "--json"]) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"] == "config_error"
    assert json.loads(err)["next_step"]


def test_no_output_has_colour_when_it_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences are for people only."""
    run(["runs"])
    run(["runs", "--nope"])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` works everywhere and ends with the exit codes."""
    assert run([name, "--help"]) == OK
    assert "Exit codes" in capsys.readouterr().out


def test_the_root_s_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever types `runrails --help` finds everything."""
    assert run(["--help"]) == OK
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in out] == []


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`runrails --version`."""
    assert run(["--version"]) == OK
    out = capsys.readouterr().out
    assert out.startswith("runrails")
    assert out.count("\n") == 1


def test_a_stop_is_an_answer_and_everything_else_a_failure_to_answer() -> None:
    """1 for a negative result, 2 for what kept the command from its work."""
    stop = BudgetExceeded(scope="run:x", period="-", unit="pusd", limit=1, spent=1, held=0, needed=1)
    others = [kind("It did not work.", next_step="Mend it.") for kind in (ConfigError, StoreUnavailable, PriceUnknown)]

    assert exit_code_of(stop) == NEGATIVE
    assert [exit_code_of(error) for error in others] == [USAGE, USAGE, USAGE]


def test_ctrl_c_ends_without_a_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """130, as shells count it."""

    def interrupted(wanted: str | None) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("runrails.cli.root.build", interrupted)
    assert run(["runs"]) == INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_of_ours_is_neither_a_yes_nor_a_no(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """70, with the traceback that a report needs."""

    def broken(wanted: str | None) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("runrails.cli.root.build", broken)
    assert run(["runs"]) == BUG
    out, err = capsys.readouterr()
    assert out == ""
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("args", [["runs"], ["runs", "--json"], ["--help"]])
def test_a_reader_that_leaves_ends_the_command_in_peace(args: list[str], tmp_path: Path) -> None:
    """As in `runrails runs | true`: 141, no traceback, and not 1, which would be an answer."""
    process = start(*args, RUNRAILS_STORE=f"sqlite:///{tmp_path / 'ledger.db'}")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == BROKEN_PIPE
    assert err == ""


def test_importing_the_package_loads_neither_typer_nor_rich() -> None:
    """They are for whoever runs a command."""
    code = "import sys, runrails.cli; print(sorted({'typer', 'rich'} & set(sys.modules)))"
    paths = os.pathsep.join(str(ROOT / name) for name in ("guardrails", "integrations"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout.strip() == "[]"
