"""`runrails audit` as people and programs call it: what it prints where, and how it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rr_audit import USAGE, line, rounds, text_of, tool, user
from runrails.cli.shell import run

LOOP = line(id="loop", messages=[user(), *rounds(8, model="gpt-4o", usage=USAGE)])
FINE = line(id="fine", steps=[tool()])
HINTED = line(id="hinted", steps=[tool() for _ in range(3)])


@pytest.fixture(autouse=True)
def _no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("RUNRAILS_PRICES", raising=False)


def write(path: Path, *lines: str) -> str:
    """A file of these lines; returns its name."""
    path.write_bytes(text_of(lines))
    return str(path)


def test_json_prints_one_object_a_line_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get an answer for every run, in order, on stdout alone."""
    name = write(tmp_path / "runs.jsonl", FINE, HINTED, LOOP)
    assert run(["audit", name, "--json"]) == 0
    shown = capsys.readouterr()
    answers = [json.loads(text) for text in shown.out.splitlines()]
    assert [(answer["id"], answer["verdict"]) for answer in answers] == [
        ("fine", "ok"),
        ("hinted", "hint"),
        ("loop", "stop"),
    ]
    # 8 calls of 10 tokens at $2.50 and 5 at $10.00 per million; 3 of them after the stop.
    assert (answers[2]["tokens"], answers[2]["cost_usd"], answers[2]["avoided_usd"]) == (120, 0.0006, 0.000225)
    assert shown.err == ""


def test_a_person_gets_a_table_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table names the runs where the guard would have stepped in; the summary counts all."""
    name = write(tmp_path / "runs.jsonl", FINE, HINTED, LOOP)
    assert run(["audit", name]) == 0
    shown = capsys.readouterr().out
    rows = [text.replace("│", " ").split() for text in shown.splitlines()]
    assert [row[0] for row in rows if "search" in row] == ["hinted", "loop"]
    assert "hint 3, stop 5" in shown
    assert "3 runs: 1 stopped, 1 hinted, 1 fine; 120 tokens, $0.0006; $0.000225 avoidable." in " ".join(shown.split())


def test_fail_on_stop_leaves_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stop fails a CI job only if it is asked to; a hint never does."""
    looping, hinted = write(tmp_path / "loop.jsonl", LOOP), write(tmp_path / "hint.jsonl", HINTED)
    assert run(["audit", looping, "--fail-on-stop"]) == 1
    assert run(["audit", hinted, "--fail-on-stop"]) == 0
    assert run(["audit", looping]) == 0
    assert run(["audit", hinted, looping, "--fail-on-stop", "--json"]) == 1
    capsys.readouterr()


def test_bad_input_leaves_with_2_after_every_good_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good lines of all files are answered; stderr names file and line of the bad ones, even with --fail-on-stop."""
    first = write(tmp_path / "a.jsonl", "{oops", LOOP)
    missing = str(tmp_path / "missing.jsonl")
    last = write(tmp_path / "b.jsonl", FINE, "", '{"id": 3}')
    assert run(["audit", first, missing, last, "--json", "--fail-on-stop"]) == 2
    shown = capsys.readouterr()
    assert [json.loads(text)["id"] for text in shown.out.splitlines()] == ["loop", "fine"]
    complaints = shown.err.splitlines()
    assert [text.partition(": ")[0] for text in complaints] == [f"{first}:1", missing, f"{last}:3"]
    assert run(["audit", first]) == 2
    assert "1 run: 1 stopped, 0 hinted, 0 fine; 1 not readable" in " ".join(capsys.readouterr().out.split())


def test_poll_may_be_given_several_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tools named with --poll may wait."""
    name = write(tmp_path / "runs.jsonl", line(steps=[tool("status", ok=True, output="pending") for _ in range(8)]))
    assert run(["audit", name, "--fail-on-stop"]) == 1
    assert run(["audit", name, "--fail-on-stop", "--poll", "x", "--poll", "status"]) == 0
    capsys.readouterr()


def test_no_file_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file there is nothing to do."""
    assert run(["audit"]) == 2
    assert "FILE" in capsys.readouterr().err


def test_a_recording_cannot_speak_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences, markup and half characters in ids and tool names are shown, not obeyed."""
    name = write(tmp_path / "runs.jsonl", line(id="\x1b[2J\ud800", steps=[tool("[red]\x07") for _ in range(5)]))
    assert run(["audit", name]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2J\\ud800" in shown
    assert "[red]\\x07" in shown


def test_a_long_table_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More rows than anybody reads are counted instead."""
    lines = [line(id=place, steps=[tool() for _ in range(3)]) for place in range(203)]
    assert run(["audit", write(tmp_path / "runs.jsonl", *lines)]) == 0
    assert "… and 3 more; --json shows all." in capsys.readouterr().out


def test_stdin_and_the_projects_price_file(tmp_path: Path) -> None:
    """A dash reads standard input, and prices in ./runrails.toml apply."""
    (tmp_path / "runrails.toml").write_text('[prices.house-model]\ninput = "1"\noutput = "2"\n')
    message = {"role": "assistant", "content": "hi", "model": "house-model", "usage": USAGE}
    given = text_of([line(messages=[message]), "bad"])
    done = subprocess.run(
        [sys.executable, "-m", "runrails.cli", "audit", "-", "--json"],
        input=given, capture_output=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["cost_usd"] == 0.00002
    assert done.stderr.startswith(b"<stdin>:2: Not valid JSON")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_is_told_and_is_no_bug(tmp_path: Path, options: list[str]) -> None:
    """Exit code 2, one line, no traceback."""
    name = write(tmp_path / "runs.jsonl", LOOP)
    command = [sys.executable, "-m", "runrails.cli", "audit", name, *options]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=env, check=False)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "The answers could not be written: No space left on device. Free some space, or write them elsewhere."
    ]


def test_a_packed_file_is_one_complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not one for every line that its bytes happen to have."""
    name = tmp_path / "runs.jsonl.gz"
    name.write_bytes(b"\x1f\x8b\x08" + b"\n\xff" * 50)
    assert run(["audit", str(name), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [f"{name}:1: This is a gzip file. Unpack it first."]
