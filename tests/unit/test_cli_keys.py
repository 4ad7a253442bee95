"""`runrails keys`: what is printed where, exit codes, and that a key is shown once."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from rr_keys import PEPPER, PEPPERS, holds_part
from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.documents.sqlite import SQLiteDocuments
from runrails.identity.apikeys import ApiKeys
from runrails.identity.apikeys.format import parse_key
from runrails.identity.errors import Unauthenticated
from runrails.rates import Rates

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vault of this test's own, and a pepper in the environment."""
    monkeypatch.setenv("RR_PEPPER", PEPPER.reveal())
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:env:RR_PEPPER")
    monkeypatch.setenv("RUNRAILS_VAULT", f"sqlite:///{tmp_path / 'keys.db'}")
    return tmp_path / "keys.db"


def is_good(file: Path, text: str) -> bool:
    """Whether a server on that vault would let a key in."""
    with closing(SQLiteDocuments(file)) as documents, closing(ApiKeys(documents, PEPPERS)) as keys:
        try:
            keys.verify(text)
        except Unauthenticated:
            return False
        return True


def created(capsys: Capture, *options: str) -> tuple[str, str]:
    """A new key's text and id."""
    assert run(["keys", "create", "alice", *options]) == OK
    text = capsys.readouterr().out.strip()
    parsed = parse_key(text)
    assert parsed is not None
    return text, parsed.key_id


def test_without_a_pepper_nothing_is_made(capsys: Capture, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """It says which setting to write; a weak or missing one is no better."""
    for setting in ("", "p1:env:RR_NONE", "p1:env:RR_WEAK", PEPPER.reveal()):
        monkeypatch.setenv("RR_WEAK", "changeme")
        monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", setting)
        assert run(["keys", "create", "alice"]) == USAGE
        out, err = capsys.readouterr()
        assert out == ""
        assert "RUNRAILS_KEY_PEPPERS" in err
        assert not holds_part(err, PEPPER.reveal())
    assert not file.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--scope", "ai:*"], ["--month", "0"], ["--month", "-1"], ["--month", "lots"], ["--expires-in", "90"],
        ["--expires-in", "0d"], ["--expires-in", "-1d"], ["--requests-per-minute", "0"], ["--tokens-per-minute", "-1"],
        ["--org", "a b"], ["--environment", "prod"], ["--name", "x" * 129],
    ],
    ids=str,
)  # fmt: skip
def test_wrong_terms_make_no_key(capsys: Capture, options: list[str]) -> None:
    """Exit code 2, a word on stderr, nothing on stdout, no key."""
    assert run(["keys", "create", "alice", *options]) == USAGE
    out, err = capsys.readouterr()
    assert (out, err == "") == ("", False)
    assert run(["keys", "list", "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("verb", ["show", "suspend", "resume", "revoke", "rotate"])
def test_a_key_that_is_not_there_is_a_negative_result(capsys: Capture, verb: str) -> None:
    """Exit 1 and a word on stderr; with --json an object on stdout."""
    assert run(["keys", verb, "nobody"]) == NEGATIVE
    out, err = capsys.readouterr()
    assert out == ""
    assert "no API key" in err
    assert run(["keys", verb, "nobody", "--json"]) == NEGATIVE
    assert json.loads(capsys.readouterr().out)["error"] == "unknown_key"


def test_a_key_is_shown_once(capsys: Capture, file: Path) -> None:
    """Alone on stdout, with a warning on stderr; no later command has any of its secret."""
    assert run(["keys", "create", "alice", "--name", "laptop", "--month", "50"]) == OK
    out, err = capsys.readouterr()
    text = out.strip()
    assert out == text + "\n"
    assert "only time" in err
    assert is_good(file, text)
    assert not holds_part(err, text[25:])
    for verb in (["list"], ["show", text[8:24]], ["show", text[:24]], ["suspend", text[8:24]], ["resume", text[8:24]]):
        for form in ([], ["--json"]):
            assert run(["keys", *verb, *form]) == OK
            told = "".join(capsys.readouterr())
            assert text[8:24] in told
            assert not holds_part(told, text[25:])
    assert not holds_part(file.read_bytes().decode("latin-1"), text[25:])


def test_terms_are_kept_and_told(capsys: Capture, file: Path) -> None:
    """All of them, in words and as JSON."""
    assert run([
        "keys", "create", "alice", "--scope", "ai:embed", "--scope", "admin:keys", "--name", "laptop", "--org", "acme",
        "--expires-in", "90d", "--month", "50.00", "--requests-per-minute", "60", "--tokens-per-minute", "1000",
        "--json",
    ]) == OK  # fmt: skip
    made = json.loads(capsys.readouterr().out)
    text = made.pop("key")
    with closing(SQLiteDocuments(file)) as documents, closing(ApiKeys(documents, PEPPERS)) as keys:
        principal = keys.verify(text)
    assert (principal.user, principal.org, principal.scopes) == ("alice", "acme", {"ai:embed", "admin:keys"})
    assert principal.rates == Rates(requests_per_minute=60, tokens_per_minute=1_000)
    assert principal.month_pusd == 50 * 10**12
    assert principal.expires_ms == made["expires_ms"]
    assert 0 <= made["created_ms"] + 90 * 86_400_000 - made["expires_ms"] < 60_000
    assert run(["keys", "show", made["id"], "--json"]) == OK
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("last_used_ms") >= made["created_ms"]
    made.pop("last_used_ms")
    assert made == shown
    assert run(["keys", "show", made["id"]]) == OK
    told = capsys.readouterr().out
    for word in ("active", "alice of acme", "laptop", "admin:keys, ai:embed", "60 requests", "1,000 tokens", "$50.00",
                 "expires", "last used"):  # fmt: skip
        assert word in told


def test_keys_of_one_user_are_listed(capsys: Capture) -> None:
    """Only theirs; and an empty list says how to make one."""
    assert run(["keys", "list"]) == OK
    assert "runrails keys create" in capsys.readouterr().out
    _, key_id = created(capsys)
    assert run(["keys", "create", "bob"]) == OK
    capsys.readouterr()
    assert run(["keys", "list", "--user", "alice", "--json"]) == OK
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == [key_id]
    assert run(["keys", "list"]) == OK
    told = capsys.readouterr().out
    assert key_id in told and "bob" in told and "never" in told


def test_a_key_goes_its_ways(capsys: Capture, file: Path) -> None:
    """Suspended, resumed, rotated, revoked; what a revoked key may not any more is exit code 2."""
    text, key_id = created(capsys)
    for verb, good in (("suspend", False), ("resume", True)):
        assert run(["keys", verb, key_id]) == OK
        assert is_good(file, text) is good
    capsys.readouterr()
    assert run(["keys", "rotate", key_id, "--overlap", "1h"]) == OK
    new = capsys.readouterr().out.strip()
    assert new[:24] == text[:24]
    assert [is_good(file, each) for each in (text, new)] == [True, True]
    assert run(["keys", "rotate", text[:24], "--overlap", "0s", "--json"]) == OK
    newest = json.loads(capsys.readouterr().out)["key"]
    assert [is_good(file, each) for each in (text, new, newest)] == [False, False, True]
    for wrong in ("", "1", "h", "1w", "-1h", "31d", "1.5h"):
        assert run(["keys", "rotate", key_id, "--overlap", wrong]) == USAGE
    assert is_good(file, newest)
    assert run(["keys", "revoke", key_id]) == OK
    assert not is_good(file, newest)
    for verb in ("suspend", "resume", "rotate"):
        assert run(["keys", verb, key_id]) == USAGE
    assert "revoked" in capsys.readouterr().err


def test_a_key_for_testing_is_none_in_earnest(capsys: Capture, file: Path) -> None:
    """It says so in its text, and a live server refuses it."""
    text, _ = created(capsys, "--environment", "test")
    assert text.startswith("rr_test_")
    assert not is_good(file, text)
