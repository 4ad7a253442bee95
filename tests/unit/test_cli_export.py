"""`runrails usage export`: what is in the file, exactly; what a spreadsheet must not run; and files that are whole."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import stat
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, START_MS, USER, booking, facts
from runrails.cli.exporting import COLUMNS, row_of, safe_cell
from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.errors import ConfigError
from runrails.ledger import Discount, ResultFacts
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.usage import Usage

EVIL = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", " =cmd|' /C calc'!A0", "'=1")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A ledger with a call in each state, one of them under a contract, and texts that are formulas."""
    store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS))
    for number, name in enumerate(("a", "b", "c", "d")):
        told = replace(
            facts(user="bob" if name == "d" else "alice", run=f"r{number}"), byok=False, user_agent=EVIL[number]
        )
        store.reserve(booking(name, CENT, USER, limit=DOLLAR, facts=told))
    usage = Usage(input_tokens=1_200, cache_read_tokens=200, output_tokens=7)
    store.settle("a", 1, result=ResultFacts(usage=usage, answer_id="chatcmpl-1", discount=Discount(3, "card-2")))
    store.settle("b", CENT + 1, unresolved=True)
    store.release("c")
    store.close()
    return f"sqlite:////{tmp_path}/ledger.db"


def rows_of(text: str) -> list[dict[str, str]]:
    """The lines of CSV by their headers."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_every_call_and_exact_amounts(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Dollars are those of the picodollars, to the last digit; what nobody knows is empty."""
    assert OK == run(["usage", "export", "--store", url])
    rows = rows_of(capsys.readouterr().out)
    assert ["a", "b", "c", "d"] == [row["id"] for row in rows]
    assert list(COLUMNS) == list(rows[0])
    assert "0.000000000001" == rows[0]["actual_usd"]
    assert ("2026-11-18T11:06:40.000Z", str(START_MS), "1200", "200", "") == tuple(
        rows[0][name] for name in ("at", "at_ms", "input_tokens", "cache_read_tokens", "answer_model")
    )
    for row in rows:
        for name in COLUMNS:
            if name.endswith("_usd") and row[name]:
                assert Decimal(row[name.replace("_usd", "_pusd")]) == Decimal(row[name]) * 10**12
    assert ("held", "", "") == (rows[3]["state"], rows[3]["actual_pusd"], rows[3]["actual_usd"])
    assert ("4", "3", "1") == (rows[0]["provider_pusd"], rows[0]["discount_pusd"], rows[0]["billed_pusd"])


def test_jsonl_has_the_same(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Texts as they are, numbers as numbers, tags as an object; by user, month, run and tag."""
    assert OK == run(["usage", "export", "--format", "jsonl", "--store", url, "--user", "alice", "--month", "2026-11"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["a", "b", "c"] == [row["id"] for row in rows]
    assert [set(COLUMNS)] * 3 == [set(row) for row in rows]
    assert (CENT + 1, "0.010000000001", None) == (rows[1]["actual_pusd"], rows[1]["actual_usd"], rows[1]["end"])
    assert ({"env": "prod", "team": "search 語"}, EVIL[0]) == (rows[0]["tags"], rows[0]["user_agent"])
    assert OK == run(["usage", "export", "--run", "r3", "--tag", "env=prod", "--store", url, "--format", "jsonl"])
    assert "d" == json.loads(capsys.readouterr().out)["id"]


@pytest.mark.parametrize("text", EVIL)
def test_no_cell_begins_a_formula(text: str) -> None:
    """Of what anybody may have sent; and it can be taken back, since nothing else begins with an apostrophe."""
    assert f"'{text}" == safe_cell(text)
    assert text == safe_cell(text)[1:]


def test_other_cells_stay_as_they_are() -> None:
    """Words, our own negative numbers, and truth."""
    assert ["a=b", "-5", "true", "", '{"a":"=1"}'] == [safe_cell(each) for each in ("a=b", -5, True, None, {"a": "=1"})]


def test_every_text_of_a_record_is_made_safe() -> None:
    """No column that holds a text goes around it."""
    store = MemoryStore(clock=ManualClock(START_MS))
    told = replace(facts(), provider="=p", model="=m", endpoint="=e", agent="=a", request_type="=r", price_card="=c")
    store.reserve(booking("a", CENT, facts=told))
    store.settle("a", 1, result=ResultFacts(end="=end", model="=am", answer_id="=id"))
    (record,) = store.usage()
    cells = [safe_cell(value) for value in row_of(record).values()]
    assert 9 == sum(cell.startswith("'=") for cell in cells)
    assert not [cell for cell in cells if cell.startswith("=")]


def test_a_file_is_whole_private_and_never_replaced_unasked(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how much is in it; a second export to the same name needs to be asked for."""
    out = tmp_path / "calls.csv"
    command = ["usage", "export", "--store", url, "--out", str(out)]
    assert OK == run([*command, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (4, str(CENT + 2), "0.010000000002") == (told["records"], str(told["actual_pusd"]), told["actual_usd"])
    assert hashlib.sha256(out.read_bytes()).hexdigest() == told["sha256"]
    assert 0o600 == stat.S_IMODE(out.stat().st_mode)
    before = out.read_bytes()
    assert USAGE == run(command)
    assert before == out.read_bytes()
    assert OK == run([*command, "--overwrite", "--user", "bob"])
    assert 1 == len(rows_of(out.read_text("utf-8")))
    assert "1 calls, $0.00, are in" in capsys.readouterr().out
    assert [out.name, "ledger.db"] == sorted(each.name for each in tmp_path.iterdir() if "-" not in each.name)


def test_nothing_that_fits_writes_nothing(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and no file; bad input is 2."""
    out = tmp_path / "none.csv"
    assert NEGATIVE == run(["usage", "export", "--user", "zoe", "--store", url, "--out", str(out)])
    assert USAGE == run(["usage", "export", "--month", "november", "--store", url])
    assert USAGE == run(["usage", "export", "--json", "--store", url])
    assert USAGE == run(["usage", "export", "--format", "xlsx", "--store", url])
    assert USAGE == run(["usage", "export", "--store", url, "--out", str(tmp_path / "no" / "such.csv")])
    assert not out.exists()
    assert "" == capsys.readouterr().out


def test_a_store_that_fails_midway_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there under the name is whole: half an export must not look like a quiet month."""
    from runrails.cli import exporting

    store = MemoryStore(clock=ManualClock(START_MS))
    store.reserve(booking("a", CENT, facts=facts()))
    (record,) = store.usage()

    def broken(row: object) -> dict[str, object]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "row_of", broken)
    with pytest.raises(ConfigError, match="No space left"), exporting._whole_file(tmp_path / "x.csv") as file:
        exporting._write([record], "csv", file, lambda count: count)
    assert [] == list(tmp_path.iterdir())
