"""`runrails budget` and `runrails usage`: what they print, their JSON, and their exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, START_MS, USER, booking, facts
from runrails.cli.shell import run
from runrails.ledger import ResultFacts
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.usage import Usage


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger with one settled call of alice's."""
    monkeypatch.setenv("COLUMNS", "200")
    store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS))
    store.reserve(booking("a", CENT, USER, limit=DOLLAR, facts=facts()))
    store.settle("a", CENT // 2, result=ResultFacts(usage=Usage(input_tokens=1_200, output_tokens=7)))
    store.close()
    return f"sqlite:////{tmp_path}/ledger.db"


def test_set_show_and_remove_a_limit(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit that is set is shown as the operator's, and gone again after none."""
    assert 0 == run(["budget", "set", "user:alice", "2.50", "--store", url])
    assert "$2.50" in capsys.readouterr().out
    assert 0 == run(["budget", "show", "user:alice", "--store", url, "--json"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert ("2.50", "operator", "0.005", "active") == (
        shown["limit_usd"], shown["limit_source"], shown["spent_usd"], shown["status"]
    )  # fmt: skip
    assert 0 == run(["budget", "set", "user:alice", "none", "--store", url, "--json"])
    assert json.loads(capsys.readouterr().out)["limit"] is None
    assert 0 == run(["budget", "show", "user:alice", "--period", "2026-11", "--store", url])
    assert "code" in capsys.readouterr().out


def test_limit_below_what_is_spent_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Setting a limit that is already used up works, and says that calls are refused."""
    assert 0 == run(["budget", "set", "user:alice", "0.001", "--store", url])
    assert "calls are refused" in capsys.readouterr().out


def test_list_has_limits_of_unused_scopes(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has every account, and limits set for scopes that have spent nothing."""
    run(["budget", "set", "org:acme", "9", "--store", url])
    capsys.readouterr()
    assert 0 == run(["budget", "list", "--store", url, "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [("user:alice", "2026-11"), ("org:acme", None)] == [(row["scope"], row["period"]) for row in listed]
    assert 0 == run(["budget", "list", "--store", url])
    assert "org:acme" in capsys.readouterr().out
    assert 0 == run(["budget", "show", "org:acme", "--store", url])


@pytest.mark.parametrize("amount", ["0", "-1", "nan", "inf", "ten", "0.0000000000001", "99999999999", ""])
def test_malformed_amounts_set_nothing(url: str, amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no amount is refused with exit code 2, and no limit is set."""
    assert 2 == run(["budget", "set", "user:alice", "--store", url, "--", amount])
    capsys.readouterr()
    run(["budget", "show", "user:alice", "--store", url, "--json"])
    assert "code" == json.loads(capsys.readouterr().out)[0]["limit_source"]


def test_malformed_scopes_and_months(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A scope without its kind, and a month that is none, are bad input."""
    assert 2 == run(["budget", "show", "alice", "--store", url])
    assert 2 == run(["budget", "set", "alice", "1", "--store", url])
    assert 2 == run(["usage", "--month", "november", "--store", url])
    assert 2 == run(["usage", "--store", "postgres://x"])
    assert "november" not in capsys.readouterr().out


def test_nothing_found_is_one(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not there is exit code 1, and JSON that says so."""
    assert 1 == run(["budget", "show", "user:bob", "--store", url])
    assert 1 == run(["budget", "show", "user:alice", "--period", "2025-01", "--store", url])
    assert 1 == run(["usage", "--user", "bob", "--store", url])
    capsys.readouterr()
    assert 1 == run(["usage", "--user", "bob", "--store", url, "--json"])
    assert "usage_not_found" == json.loads(capsys.readouterr().out)["error"]


def test_usage_lists_calls_and_their_sum(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has tokens and cost of each call and the sum; the JSON has every field."""
    assert 0 == run(["usage", "--user", "alice", "--month", "2026-11", "--run", "r1", "--store", url])
    out = capsys.readouterr().out
    assert "1,200" in out
    assert "1 call, $0.005" in out
    assert 0 == run(["usage", "--store", url, "--json"])
    (record,) = json.loads(capsys.readouterr().out)
    assert ("a", CENT // 2, "0.005", "gpt-4o-mini", 1_200, "completed") == tuple(
        record[key] for key in ("id", "actual_pusd", "cost_usd", "model", "input_tokens", "end")
    )


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_tables_keep_words_and_amounts_whole(
    url: str, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is broken into pieces at any width; in 80 columns no line is longer than that."""
    monkeypatch.setenv("COLUMNS", columns)
    assert 0 == run(["usage", "--store", url])
    assert 0 == run(["budget", "list", "--store", url])
    out = capsys.readouterr().out
    for whole in (
        "2026-11-18 11:06:40",
        "alice",
        "completed",
        "1,200",
        "$0.01",
        "$0.005",
        "user:alice",
        "$0.995",
        "active",
    ):
        assert whole in out
    assert max(map(len, out.splitlines())) <= max(80, int(columns))


def test_huge_and_tiny_amounts_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables show a millionth of a dollar, and less only if that is all there is; the JSON is exact."""
    monkeypatch.setenv("COLUMNS", "80")
    url = f"sqlite:////{tmp_path}/big.db"
    store = SQLiteStore(tmp_path / "big.db", clock=ManualClock(START_MS))
    store.set_limit("user:alice", 2**63 - 1)
    store.reserve(booking("a", 2**62 + 1, USER))
    store.settle("a", 2**62)
    store.reserve(booking("b", 45, USER))
    store.close()
    assert 0 == run(["budget", "show", "user:alice", "--store", url])
    shown = capsys.readouterr().out
    for amount in ("$9,223,372.036855", "$4,611,686.018427", "$0.000000000045"):
        assert amount in shown
    assert 0 == run(["budget", "show", "user:alice", "--store", url, "--json"])
    (exact,) = json.loads(capsys.readouterr().out)
    assert (2**62, 45) == (exact["spent"], exact["held"])


@pytest.mark.parametrize("amount", ["1_0", "١", " 5", "+5", "1e3", "", "9" * 5_000])
def test_malformed_counts_set_nothing(url: str, amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit in another unit is plain digits."""
    assert 2 == run(["budget", "set", "user:alice", amount, "--unit", "tokens", "--store", url])
    capsys.readouterr()
    assert 0 == run(["budget", "set", "user:alice", "1,000", "--unit", "tokens", "--store", url, "--json"])
    assert 1_000 == json.loads(capsys.readouterr().out)["limit"]


@pytest.mark.parametrize("command", [["list"], ["show", "user:alice"]])
def test_a_malformed_period_is_not_an_empty_month(
    url: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing error is told from a month in which nothing was spent."""
    assert 2 == run(["budget", *command, "--period", "2026-13", "--store", url])
    assert "2026-11" in capsys.readouterr().err
    assert 0 == run(["budget", "list", "--period", "-", "--store", url])


def test_long_listings_are_one_json_list(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many records are one valid list, and the table says how many it leaves out but sums them all."""
    store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS), synchronous="NORMAL")
    for n in range(700):
        store.reserve(booking(f"n{n}", 1, USER, facts=facts()))
    store.close()
    run(["usage", "--store", url, "--json"])
    assert 701 == len(json.loads(capsys.readouterr().out))
    run(["usage", "--store", url])
    out = capsys.readouterr().out
    assert "the newest 200 of 701 calls" in out
    assert "701 calls, $0.005, 700 in flight" in out


@pytest.fixture
def many(url: str, tmp_path: Path) -> str:
    """Alice's call, and four of others with tags on two days."""
    clock = ManualClock(START_MS)
    store = SQLiteStore(tmp_path / "ledger.db", clock=clock)
    for n, (user, tags) in enumerate(
        [("bob", {"team": "ads"}), ("bob", {"env": "prod", "team": "search"}), ("carol", {"team": "ads"}), ("dora", {})]
    ):
        store.reserve(booking(f"m{n}", CENT, USER, facts=replace(facts(user), tags=tuple(tags.items()), org=None)))
        store.settle(f"m{n}", CENT, result=ResultFacts(usage=Usage(input_tokens=10, output_tokens=n)))
        clock.advance(86_400_000)
    store.close()
    return url


def grouped(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str | None, int]:
    """Calls by group."""
    assert 0 == run(["usage", *arguments, "--json"])
    return {row["name"]: row["calls"] for row in json.loads(capsys.readouterr().out)}


def test_usage_that_cannot_be_grouped_or_filtered_so_is_bad_input(
    many: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown dimension and a malformed tag are exit code 2, and say how to write them; nothing found is 1."""
    for wrong in (["--by", "weather"], ["--by", "tag:"], ["--by", ""]):
        assert 2 == run(["usage", *wrong, "--store", many])
        assert "tag:NAME" in capsys.readouterr().err
    for wrong in (["--tag", "team"], ["--tag", "te am=x"], ["--tag", "team="], ["--tag", "a=b", "--tag", "a=c"]):
        assert 2 == run(["usage", *wrong, "--store", many])
        assert 2 == run(["runs", *wrong, "--store", many])
        assert "tag" in capsys.readouterr().err
    assert 1 == run(["usage", "--by", "user", "--tag", "team=none", "--store", many])
    assert 1 == run(["usage", "--by", "user", "--user", "eve", "--store", many, "--json"])
    assert "usage_not_found" == json.loads(capsys.readouterr().out)["error"]


def test_usage_is_summed_by_what_it_was_for(many: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By user, organisation, model, day and tag; filters narrow what is summed."""
    store = ["--store", many]
    assert {"bob": 2, "alice": 1, "carol": 1, "dora": 1} == grouped(["--by", "user", *store], capsys)
    assert {None: 4, "acme": 1} == grouped(["--by", "org", *store], capsys)
    assert {"k1": 5} == grouped(["--by", "key", *store], capsys)
    assert {"gpt-4o-mini": 5} == grouped(["--by", "model", *store], capsys)
    assert {"2026-11-18": 2, "2026-11-19": 1, "2026-11-20": 1, "2026-11-21": 1} == grouped(
        ["--by", "day", *store], capsys
    )
    assert {"ads": 2, "search": 1, "search 語": 1, None: 1} == grouped(["--by", "tag:team", *store], capsys)
    assert {"bob": 1, "carol": 1} == grouped(["--by", "user", "--tag", "team=ads", *store], capsys)
    assert {"search": 1} == grouped(
        ["--by", "tag:team", "--tag", "env=prod", "--tag", "team=search", "--user", "bob", *store], capsys
    )


def test_the_table_of_sums_is_whole_at_any_width(
    many: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dearest first, the sum below; no amount is broken."""
    for columns in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert 0 == run(["usage", "--by", "user", "--store", many])
        out = capsys.readouterr().out
        assert out.index("bob") < out.index("carol") < out.index("alice")
        for whole in ("$0.02", "$0.005", "1,200", "5 calls, $0.045"):
            assert whole in out


def test_the_list_can_be_filtered_by_tag(many: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--by`, `--tag` narrows the calls that are listed, and the JSON has their tags."""
    assert 0 == run(["usage", "--tag", "team=search", "--store", many, "--json"])
    (record,) = json.loads(capsys.readouterr().out)
    assert ("m1", {"env": "prod", "team": "search"}) == (record["id"], record["tags"])


def test_more_groups_than_the_table_shows_are_summed(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table ends with how many more there are; the JSON has every one."""
    store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS), synchronous="NORMAL")
    for n in range(250):
        store.reserve(booking(f"n{n}", 1, USER, facts=facts(f"u{n}")))
    store.close()
    assert 0 == run(["usage", "--by", "user", "--store", url])
    out = capsys.readouterr().out
    assert "(51 more)" in out
    assert "251 calls" in out
    assert 251 == len(grouped(["--by", "user", "--store", url], capsys))
