"""`runrails report RUN --html FILE`: one file with everything, made by another process than the run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rr_core import FAILED, Bench, model_step, tool_step
from runrails import Limits, LoopDetected
from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.stores.sqlite import SQLiteStore


@pytest.fixture
def kept(tmp_path: Path) -> tuple[str, str]:
    """A ledger's URL and the id of a run that a loop has stopped."""
    path = tmp_path / "ledger.db"
    bench = Bench(Limits(run="0.50"), store=SQLiteStore(path))
    with pytest.raises(LoopDetected), bench.guard.run("nightly <b>") as guarded:
        while True:
            model_step(guarded)
            tool_step(guarded, FAILED)
    bench.store.close()
    return f"sqlite:///{path}", guarded.id


def test_a_run_that_is_not_there_writes_no_file(
    kept: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, and an old file stays as it is."""
    file = tmp_path / "run.html"
    file.write_text("old")
    assert NEGATIVE == run(["report", "nobody", "--html", str(file), "--store", kept[0]])
    assert "old" == file.read_text()
    assert "No run has this id" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_an_error(
    kept: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, with the reason and without a traceback."""
    assert USAGE == run(["report", kept[1], "--html", str(tmp_path / "no" / "run.html"), "--store", kept[0]])
    assert "cannot be written" in capsys.readouterr().err


def test_the_file_has_everything_and_needs_nothing(
    kept: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plots with the marks of the ladder, the findings, every step; its name is told on stderr, nothing on stdout."""
    file = tmp_path / "run.html"
    assert OK == run(["report", kept[1], "--html", str(file), "--store", kept[0]])
    out, err = capsys.readouterr()
    assert ("", f"Wrote {file}.\n") == (out, err)
    html = file.read_text(encoding="utf-8")
    for wanted in (
        "Run nightly &lt;b&gt;", "rr-curve", "rr-mark-hint", "rr-mark-stop", "limit $0.50", "What the loop detector",
        "All ", "UTC. Written by runrails.",
    ):  # fmt: skip
        assert wanted in html, wanted
    for forbidden in ("<script", "http://", "https://", "nightly <b>"):
        assert forbidden not in html, forbidden


def test_json_may_be_asked_for_as_well(
    kept: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps in it have fingerprints and the cost so far."""
    file = tmp_path / "run.html"
    assert OK == run(["report", kept[1], "--html", str(file), "--json", "--store", kept[0]])
    told = json.loads(capsys.readouterr().out)
    assert file.exists()
    calls = [row for row in told["rows"] if row["kind"] == "tool"]
    assert 1 == len({row["call"] for row in calls})
    assert told["cost_pusd"] == told["rows"][-1]["total_pusd"]


@pytest.mark.parametrize(
    "command",
    [["runs"], ["report", "ID"], ["doctor"], ["budget", "list", "--runs"], ["usage"], ["prices", "show", "gpt-4o"]],
)
def test_narrow_terminals_break_no_words(
    command: list[str], kept: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 40 columns a row takes more lines; no line is longer, and words stay whole."""
    monkeypatch.setenv("COLUMNS", "40")
    words = [kept[1] if word == "ID" else word for word in command]
    run(words if words[0] == "prices" else [*words, "--store", kept[0]])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    for word in {"runs": ["nightly"], "report": ["classify", "failed"], "budget": ["run:id-1"]}.get(command[0], []):
        assert word in out, word
