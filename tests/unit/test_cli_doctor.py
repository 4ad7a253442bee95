"""`runrails doctor`: every check, healthy and ill; each problem names its fix."""

from __future__ import annotations

import json
import sqlite3
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from runrails.cli.checks import (
    CLOCK_FLOOR_MS,
    Finding,
    check_adapters,
    check_all,
    check_clock,
    check_prices,
    check_settings,
    check_store,
)
from runrails.cli.shell import NEGATIVE, OK, run
from runrails.clocks import system_ms
from runrails.ledger import Account, CallFacts, Hold, Reservation
from runrails.stores.sqlite import SQLiteStore

NOW_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC


@pytest.fixture(autouse=True)
def plain_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but a store of the test's own, and no project file."""
    for name in ("RUNRAILS_USER", "RUNRAILS_PRICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{tmp_path / 'ledger.db'}")


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.state for finding in findings}


def test_a_damaged_ledger_is_a_problem(tmp_path: Path) -> None:
    """What is no ledger is left as it is, and the row says what to do."""
    file = tmp_path / "ledger.db"
    file.write_bytes(b"SQLite format 3\0" + b"\xff" * 8_192)
    before = file.read_bytes()

    found = [finding for finding in check_all(None) if finding.check.startswith("store")]

    assert [finding.state for finding in found] == ["problem"]
    assert found[0].fix
    assert before == file.read_bytes()


def test_another_program_s_database_is_a_problem(tmp_path: Path) -> None:
    """It is not made into a ledger."""
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()

    found = [finding for finding in check_all(None) if finding.check == "store"]

    assert [finding.state for finding in found] == ["problem"]
    assert "another program" in found[0].detail


def test_a_healthy_ledger_is_reachable_writable_and_unharmed(tmp_path: Path) -> None:
    """Nothing is written to it."""
    found = list(check_store(f"sqlite:///{tmp_path / 'ledger.db'}", now_ms=NOW_MS))

    assert states(found) == {"store": "ok", "store writable": "ok", "store integrity": "ok"}
    store = SQLiteStore(tmp_path / "ledger.db")
    assert list(store.balances()) == []
    store.close()


def test_a_ledger_that_others_can_read_is_noted(tmp_path: Path) -> None:
    """Usage is nobody else's business; the fix is a command."""
    store = SQLiteStore(tmp_path / "ledger.db")
    store.close()
    (tmp_path / "ledger.db").chmod(0o644)

    found = {finding.check: finding for finding in check_store(None, now_ms=NOW_MS)}

    assert found["store privacy"].state == "note"
    assert found["store privacy"].fix.startswith("chmod 600")


def test_records_from_the_future_are_a_problem(tmp_path: Path) -> None:
    """Either the clock went back, or another machine's is wrong: months would be mixed up."""
    store = SQLiteStore(tmp_path / "ledger.db", clock=lambda: NOW_MS)
    facts = CallFacts(user="alice", run="r1")
    store.reserve(Reservation("r1-1", (Hold(Account("user:alice", "2026-11"), 1),), facts=facts))
    store.close()

    on_time = states(list(check_store(None, now_ms=NOW_MS - 299_999)))
    too_early = states(list(check_store(None, now_ms=NOW_MS - 300_001)))

    assert "store clock" not in on_time
    assert too_early["store clock"] == "problem"


def test_a_memory_store_answers() -> None:
    """Stores without a file have nothing more to look at."""
    assert states(list(check_store("memory:", now_ms=NOW_MS))) == {"store": "ok"}


def test_a_clock_before_this_was_written_is_a_problem() -> None:
    """A machine that woke up in 1970."""
    assert states(list(check_clock(now_ms=CLOCK_FLOOR_MS - 1))) == {"clock": "problem"}
    assert states(list(check_clock(now_ms=CLOCK_FLOOR_MS))) == {"clock": "ok"}


def test_a_malformed_user_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row names the variable and does not repeat what is in it."""
    monkeypatch.setenv("RUNRAILS_USER", "no blanks, please")
    found = {finding.check: finding for finding in check_settings()}
    assert found["user"].state == "problem"
    assert "RUNRAILS_USER" in found["user"].fix
    assert "blanks" not in found["user"].detail


def test_a_misspelt_variable_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no effect, and its owner should know."""
    monkeypatch.setenv("RUNRAILS_STOER", "memory:")
    found = {finding.check: finding for finding in check_settings()}
    assert found["settings"].state == "note"
    assert "RUNRAILS_STOER" in found["settings"].detail


def test_the_environment_that_guards_programs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off; asked for where nothing loads it; and a wrong value is a problem that names the variable."""
    seen: list[tuple[str, str]] = []
    for budget in ("", "2.00", "plenty"):
        monkeypatch.setenv("RUNRAILS_RUN_BUDGET", budget)
        found = {finding.check: finding for finding in check_all(None)}
        row = found.get("autoguard", found.get("settings"))
        assert row is not None
        seen.append((row.state, row.detail))

    assert ["ok", "note", "problem"] == [state for state, _ in seen]
    assert "$2.00 for a run" in seen[1][1]
    assert "RUNRAILS_RUN_BUDGET (--run)" in seen[2][1]


def test_a_broken_price_file_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """The other checks go on."""
    (tmp_path / "runrails.toml").write_text('[prices]\n"m" = 3.20\n', encoding="utf-8")
    found = check_all(None)
    problems = [finding for finding in found if finding.state == "problem" and finding.check != "packages"]
    assert [finding.check for finding in problems] == ["settings"]
    assert problems[0].fix
    assert "clock" in states(found)


def test_a_fresh_price_table_is_in_order_and_an_old_one_noted() -> None:
    """Its checksum is right; its age goes by its newest price change."""
    now_ms = system_ms()
    assert states(list(check_prices(now_ms=now_ms)))["price table"] == "ok"
    assert states(list(check_prices(now_ms=now_ms + 400 * 86_400_000)))["price age"] == "note"


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("no_such_framework", "no_such_adapter:attach", "ok"),
        ("json", "no_such_adapter:attach", "problem"),
        ("json", "json:no_such_function", "problem"),
        ("json", "json:__all__", "problem"),
        ("json", "json:dumps", "ok"),
    ],
)
def test_an_adapter_must_attach_if_its_framework_is_there(name: str, value: str, state: str) -> None:
    """A missing framework is fine; a broken adapter is not."""
    found = list(check_adapters([EntryPoint(name=name, value=value, group="runrails.boundaries")]))
    assert [finding.state for finding in found] == [state]
    assert state == "ok" or found[0].fix


def test_a_doctor_s_exit_code_is_whether_there_are_problems(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON: ok, the number of problems, one object a check. (What is installed here is not this test's business.)"""
    code = run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    problems = [check["check"] for check in found["checks"] if check["state"] == "problem"]
    assert set(problems) <= {"packages"}
    assert found["problems"] == len(problems)
    assert found["ok"] is (problems == [])
    assert code == (NEGATIVE if problems else OK)
    assert {"python", "store", "price table", "clock"} <= {check["check"] for check in found["checks"]}


def test_an_ill_doctor_leaves_with_1_and_names_the_fix(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the table."""
    monkeypatch.setenv("RUNRAILS_USER", "no blanks")
    assert run(["doctor"]) == NEGATIVE
    out = capsys.readouterr().out
    assert "problem" in out
    assert "Set RUNRAILS_USER" in out
    assert max(map(len, out.splitlines())) <= 80
