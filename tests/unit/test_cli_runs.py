"""`runrails runs` and `runrails report`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.ledger import RunRecord
from runrails.report import Report, Saving, StepRow
from runrails.stores.sqlite import SQLiteStore

NOON_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC


def step(number: int) -> StepRow:
    is_model = number % 2 == 1
    return StepRow(
        step=number, kind="model" if is_model else "tool", name="gpt-4" if is_model else "classify_review", agent="",
        end="completed" if is_model else "ok", input_tokens=3_500 if is_model else 0,
        output_tokens=500 if is_model else 0, cost_pusd=135_000_000_000 if is_model else 0, duration_ms=7,
    )  # fmt: skip


def record(run_id: str, *, name: str, user: str, ended_ms: int, stopped: bool) -> RunRecord:
    report = Report(
        run=run_id, name=name, user=user, mode="enforce", started_ms=ended_ms - 4_000, duration_ms=4_000, steps=10,
        model_calls=5, tool_calls=5, input_tokens=17_500, output_tokens=2_500, cost_pusd=675_000_000_000,
        unresolved_pusd=0, overrun_pusd=0, limit_pusd=10**12, hints=1, blocks=0, refusals=0,
        stop_reason="loop_detected" if stopped else None,
        stop_message="classify_review gave the same result 5 times." if stopped else None,
        would_have_stopped=None, findings=(), rows=tuple(step(number) for number in range(1, 11)),
        savings=(Saving("cache", 2, 1_000, 30_000_000_000),),
    )  # fmt: skip
    return RunRecord(
        id=run_id, name=name, user=user, started_ms=report.started_ms, ended_ms=ended_ms, mode="enforce",
        stop_reason=report.stop_reason, report=report.as_dict(),
    )  # fmt: skip


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A ledger with three runs of two users."""
    store = SQLiteStore(tmp_path / "ledger.db")
    store.save_run(record("aaaa1111", name="nightly", user="alice", ended_ms=NOON_MS, stopped=True))
    store.save_run(record("aaaa2222", name="", user="bob", ended_ms=NOON_MS + 1, stopped=False))
    store.save_run(record("bbbb3333", name="weekly", user="alice", ended_ms=NOON_MS + 2, stopped=False))
    store.close()
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def test_a_run_that_is_not_there_is_a_negative_result(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 and a word on stderr; with --json an object on stdout."""
    assert run(["report", "cccc", "--store", url]) == NEGATIVE
    out, err = capsys.readouterr()
    assert out == ""
    assert "No run has this id" in err
    assert run(["report", "cccc", "--store", url, "--json"]) == NEGATIVE
    assert json.loads(capsys.readouterr().out)["error"] == "run_not_found"


def test_a_beginning_that_two_runs_share_is_not_guessed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, and how many there are."""
    assert run(["report", "aaaa", "--store", url]) == NEGATIVE
    assert "2 runs begin like this" in capsys.readouterr().err


def test_a_report_without_a_run_is_bad_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2."""
    assert run(["report", "--store", url]) == USAGE
    assert capsys.readouterr().out == ""


def test_an_empty_ledger_has_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence for a person, an empty list for a program; no failure."""
    store = ["--store", f"sqlite:///{tmp_path / 'new.db'}"]
    assert run(["runs", *store]) == OK
    assert "No runs yet" in capsys.readouterr().out
    assert run(["runs", *store, "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == []


def test_runs_are_listed_newest_first(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With their costs and ends, as JSON."""
    assert run(["runs", "--store", url, "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert [item["run"] for item in found] == ["bbbb3333", "aaaa2222", "aaaa1111"]
    assert [item["stop_reason"] for item in found] == [None, None, "loop_detected"]
    assert [item["cost_pusd"] for item in found] == [675_000_000_000] * 3


def test_runs_can_be_narrowed_to_a_user_and_a_count(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--user` and `--count`."""
    assert run(["runs", "--store", url, "--user", "alice", "--count", "1", "--json"]) == OK
    assert [item["run"] for item in json.loads(capsys.readouterr().out)] == ["bbbb3333"]


def test_the_table_of_runs_fits_80_columns(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids, moments, users, costs and ends for a person."""
    assert run(["runs", "--store", url]) == OK
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for word in ("aaaa1111", "nightly", "alice", "$0.675", "loop_detected"):
        assert word in out


def test_the_report_tells_what_stopped_the_run(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A beginning of the id is enough if only one run has it."""
    assert run(["report", "aaaa1", "--store", url, "--steps", "2"]) == OK
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for words in (
        "classify_review gave the same result 5 times.",
        "$0.675 of $1.00",
        "$0.03 (2 calls)",
        "newest 2 of 10 steps",
    ):
        assert words in out


def test_the_report_as_json_is_the_report(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same fields as `run.report().as_dict()`."""
    assert run(["report", "bbbb3333", "--store", url, "--json"]) == OK
    expected = record("bbbb3333", name="weekly", user="alice", ended_ms=NOON_MS + 2, stopped=False).report
    assert json.loads(json.dumps(expected)) == json.loads(capsys.readouterr().out)


def test_runs_can_be_narrowed_to_a_tag(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--tag` finds runs opened with it, however many newer ones have none; the report names whose the run was."""
    store = SQLiteStore(tmp_path / "ledger.db")
    tagged = record("cccc4444", name="", user="bob", ended_ms=NOON_MS - 1, stopped=False)
    whose = {"tags": {"team": "ads", "env": "prod"}, "org": "acme", "key": None}
    store.save_run(replace(tagged, report={**tagged.report, **whose}))
    store.close()
    for tags, found in (
        (["team=ads"], ["cccc4444"]), (["team=ads", "env=prod"], ["cccc4444"]), (["team=search"], []),
    ):  # fmt: skip
        given = [part for tag in tags for part in ("--tag", tag)]
        assert run(["runs", "--store", url, "--count", "1", "--json", *given]) == OK
        assert found == [item["run"] for item in json.loads(capsys.readouterr().out)]
    assert run(["report", "cccc", "--store", url]) == OK
    out = capsys.readouterr().out
    for words in ("acme", "team=ads, env=prod"):
        assert words in out
