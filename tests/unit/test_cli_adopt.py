"""`runrails keys adopt`: keys of an older platform by their hashes, from a file or standard input, never argv."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rr_canaries import Typed
from rr_keys import PEPPER, PEPPERS
from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.documents.sqlite import SQLiteDocuments
from runrails.identity.apikeys import ApiKeys

bcrypt = pytest.importorskip("bcrypt", minversion="5", reason="the extra legacy is not installed")

Capture = pytest.CaptureFixture[str]


def key(name: str) -> str:
    """A key as the older platform made them: sk- and 48 characters."""
    return f"sk-{(name * 24)[:48]}"


def line(which: str, **fields: Any) -> str:
    """What is known of it there."""
    text = key(which)
    kept = bcrypt.hashpw(text.encode(), bcrypt.gensalt(4, prefix=b"2b")).decode()
    return json.dumps({"id": text[:12], "hash": kept, "user": "alice", **fields})


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vault of this test's own, and a pepper in the environment."""
    monkeypatch.setenv("RR_PEPPER", PEPPER.reveal())
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:env:RR_PEPPER")
    monkeypatch.setenv("RUNRAILS_VAULT", f"sqlite:///{tmp_path / 'keys.db'}")
    return tmp_path / "keys.db"


def verified(file: Path, text: str) -> tuple[str, str | None, frozenset[str]]:
    """Whom a server on that vault takes a key for."""
    with closing(SQLiteDocuments(file)) as documents, closing(ApiKeys(documents, PEPPERS, legacy=True)) as keys:
        principal = keys.verify(text)
        return principal.user, principal.org, principal.scopes


def test_keys_are_taken_over_from_a_file(file: Path, tmp_path: Path, capsys: Capture) -> None:
    """Each with the scopes of its line, or those of the option; and they let in whom they did before."""
    lines = tmp_path / "keys.jsonl"
    lines.write_text(f"{line('a7')}\n\n{line('b8', user='bob', org='acme', scopes=['ai:embed'], name='ci')}\n")
    assert OK == run(["keys", "adopt", str(lines), "--scope", "ai:agent", "--json"])
    assert {"adopted": 2, "known": 0, "refused": []} == json.loads(capsys.readouterr().out)
    assert ("alice", None, {"ai:agent"}) == verified(file, key("a7"))
    assert ("bob", "acme", {"ai:embed"}) == verified(file, key("b8"))
    assert OK == run(["keys", "adopt", str(lines)])
    assert "0 taken over, 2 were there already, 0 refused." in capsys.readouterr().out
    assert ("alice", None, {"ai:agent"}) == verified(file, key("a7"))


def test_keys_are_taken_over_from_standard_input(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Without --scope they may ask for completions."""
    monkeypatch.setattr(sys, "stdin", Typed(line("a7")))
    assert OK == run(["keys", "adopt"])
    assert ("alice", None, {"ai:complete"}) == verified(file, key("a7"))


WRONG = (
    "no JSON", "[]", "{}", json.dumps({"id": "sk-a7a7a7a7a7"[:12], "hash": "x"}), line("c9", more=1), line("c9", id=7),
    line("c9", id="sk-short"), line("c9", hash="$2a$04$" + "a" * 53), line("c9", hash="$2b$15$" + "a" * 53),
    line("c9", user="a b"), line("c9", scopes=["all"]), line("c9", scopes=7), line("c9", expires_ms=1),
    line("c9", org=7), line("c9", expires_ms="x"), line("a7", user="mallory"), "x" * 9_000, "[" * 5_000,
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_line_that_is_wrong_is_refused_and_the_others_are_not(
    file: Path, tmp_path: Path, capsys: Capture, number: int
) -> None:
    """It is named by its number, and nothing in it is shown."""
    lines = tmp_path / "keys.jsonl"
    lines.write_text(f"{line('a7')}\n{WRONG[number]}\n{line('b8')}\n")
    assert NEGATIVE == run(["keys", "adopt", str(lines), "--json"])
    told = capsys.readouterr().out
    found = json.loads(told)
    assert (2, 0, [2]) == (found["adopted"], found["known"], [each["line"] for each in found["refused"]])
    assert "$2b$0" not in told and "mallory" not in told
    assert "alice" == verified(file, key("a7"))[0]
    assert NEGATIVE == run(["keys", "adopt", str(lines)])
    assert "Line 2: " in capsys.readouterr().out


def test_a_file_that_is_not_there(capsys: Capture) -> None:
    """It is an error, and standard input is not read instead."""
    assert USAGE == run(["keys", "adopt", "/nowhere/keys.jsonl"])
    assert "cannot be read" in capsys.readouterr().err
