"""`runrails ledger`: verify, reclaim and migrate, their JSON and their exit codes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, START_MS, USER, booking, facts
from runrails.cli.shell import run
from runrails.clocks import system_ms
from runrails.deliveries import Delivered
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger with a settled call and one whose owner died."""
    monkeypatch.setenv("COLUMNS", "200")
    store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS - 10**9))
    store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR, facts=facts()))
    store.settle("a", CENT // 2)
    store.reserve(booking("b", CENT, *FOUR, limit=DOLLAR, facts=facts()))
    store.close()
    return f"sqlite:////{tmp_path}/ledger.db"


def test_verify_says_that_all_is_well(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In words and as JSON."""
    assert 0 == run(["ledger", "verify", "--store", url])
    assert "4 accounts" in capsys.readouterr().out
    assert 0 == run(["ledger", "verify", "--store", url, "--json"])
    assert {"ok": True, "accounts": 4, "differences": [], "deleted_by_age": []} == json.loads(capsys.readouterr().out)


def test_a_leased_ledger_is_verified_and_migrated_as_the_one_behind_it(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The URL that programs use is the one that the commands take."""
    assert 0 == run(["ledger", "reclaim", "--store", f"{url}?lease=user"])
    assert 0 == run(["ledger", "verify", "--store", f"{url}?lease=user"])
    assert 0 == run(["ledger", "migrate", f"{url}?lease=user", f"sqlite:////{tmp_path}/other.db"])
    assert "both ledgers say the same" in capsys.readouterr().out.replace("\n", " ")


def test_verify_finds_a_balance_that_somebody_changed(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the account, what its balance says and what the records add up to, and changes nothing."""
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("UPDATE account SET spent = spent + 1 WHERE scope = 'user:alice'")
    connection.execute("UPDATE account SET held = 0 WHERE scope = 'key:k1'")
    connection.commit()
    for _ in range(2):
        assert 1 == run(["ledger", "verify", "--store", url, "--json"])
        found = json.loads(capsys.readouterr().out)
        assert not found["ok"]
        assert [("user:alice", "spent", CENT // 2 + 1, CENT // 2), ("key:k1", "held", 0, CENT)] == [
            (each["scope"], each["what"], each["balance"], each["records"]) for each in found["differences"]
        ]
    assert 1 == run(["ledger", "verify", "--store", url])
    assert "$0.005000000001" in capsys.readouterr().out
    connection.close()


@pytest.mark.parametrize(
    "harm", ["UPDATE reservation SET holds = '[[1' WHERE id = 'b'", "DELETE FROM account WHERE scope = 'user:alice'"]
)
def test_verify_does_not_believe_a_record_that_is_damaged(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    """It names the reservation, also one whose account is gone, and this is an error, not a difference."""
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute(harm)
    connection.commit()
    connection.close()

    assert 2 == run(["ledger", "verify", "--store", url, "--json"])
    assert "damaged" in "".join(capsys.readouterr())


def test_reclaim_charges_what_was_left_behind(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Once; a second time there is nothing to do."""
    assert 0 == run(["ledger", "reclaim", "--store", url, "--json"])
    assert {"resolved": 1, "bypassed": 0} == json.loads(capsys.readouterr().out)
    assert 0 == run(["ledger", "reclaim", "--store", url])
    assert "No hold is overdue" in capsys.readouterr().out
    assert 0 == run(["budget", "show", "user:alice", "--store", url, "--json"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert ("0.015", 0) == (shown["spent_usd"], shown["held"])


def test_reclaim_leaves_calls_in_flight_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their time has not run out."""
    store = SQLiteStore(tmp_path / "ledger.db")
    store.reserve(booking("a", CENT))
    assert 0 == run(["ledger", "reclaim", "--store", f"sqlite:////{tmp_path}/ledger.db"])
    assert "No hold" in capsys.readouterr().out
    assert CENT == store.balance(USER).held
    store.close()


def test_migrate_moves_and_proves(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A call in flight refuses; then it moves, a second time finds nothing new, and both verify."""
    target = f"sqlite:////{tmp_path}/new.db"
    assert 2 == run(["ledger", "migrate", url, target, "--json"])
    assert "in flight" in "".join(capsys.readouterr())
    assert 0 == run(["ledger", "reclaim", "--store", url])
    capsys.readouterr()
    for new in (2, 0):
        assert 0 == run(["ledger", "migrate", url, target, "--json"])
        assert {"records": 2, "new": new, "accounts": 4, "spent_pusd": CENT // 2 + CENT} == json.loads(
            capsys.readouterr().out
        )
    assert 0 == run(["ledger", "migrate", url, target])
    assert "$0.015 spent" in capsys.readouterr().out
    assert 0 == run(["ledger", "verify", "--store", target])


def test_migrate_refuses_the_same_ledger_and_one_that_disagrees(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written."""
    assert 2 == run(["ledger", "migrate", url, f"{url}?synchronous=normal"])
    assert "same ledger" in "".join(capsys.readouterr())
    run(["ledger", "reclaim", "--store", url])
    other = SQLiteStore(tmp_path / "other.db", clock=system_ms)
    other.reserve(booking("z", CENT))
    assert 2 == run(["ledger", "migrate", url, f"sqlite:////{tmp_path}/other.db"])
    assert ["z"] == [record.id for record in other.records()]
    other.close()


def test_the_doctor_shows_what_became_of_notifications(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that arrive are fine; a newest one that did not is a problem, if it is not of a sender long replaced."""
    clock = ManualClock(system_ms() - 8 * 86_400_000)
    store = SQLiteStore(tmp_path / "ledger.db", clock=clock)
    store.note_delivery("slack old.example.com", Delivered(failed=2, error="timeout"))
    clock.set(system_ms() - 1_000)
    store.note_delivery("webhook hooks.example.com", Delivered(sent=3))
    store.note_delivery("slack hooks.slack.com", Delivered(sent=1))
    clock.advance(1)
    store.note_delivery("slack hooks.slack.com", Delivered(failed=2, error="HTTP 404"))
    store.close()
    run(["doctor", "--store", url, "--json"])
    rows = [row for row in json.loads(capsys.readouterr().out)["checks"] if row["check"] == "notifications"]

    assert ["problem", "note", "ok"] == [row["state"] for row in rows]
    assert "slack hooks.slack.com: 1 sent, 2 failed, 0 dropped" in rows[0]["detail"]
    assert "HTTP 404" in rows[0]["detail"] and rows[0]["fix"]
