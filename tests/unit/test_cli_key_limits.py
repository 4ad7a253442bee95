"""What the commands of keys say before they ask for a key, and of what they are given in the wrong place."""

from __future__ import annotations

import io
import json
import resource
import sys
from pathlib import Path

import pytest

from rr_jwt import b64, drawn
from rr_keys import PEPPER
from rr_vault import CANARY, leaks
from runrails.cli.byok import _write_new
from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.errors import ConfigError
from runrails.secretvalue import Secret

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """A vault in a file, with every setting that there is."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("RUNRAILS_VAULT", f"sqlite:///{tmp_path}/v.db")
    monkeypatch.setenv("RR_PEPPER", PEPPER.reveal())
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:env:RR_PEPPER")
    monkeypatch.setenv("RR_JWT", b64(drawn("cli")))
    monkeypatch.setenv("RUNRAILS_JWT_KEYS", "k1:HS256:env:RR_JWT")
    assert OK == run(["byok", "init", str(tmp_path / "k1.key"), "--json"])
    name, _, value = json.loads(capsys.readouterr().out)["setting"].partition("=")
    monkeypatch.setenv(name, value)
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> io.TextIOWrapper:
    """What is piped into the next command."""
    given = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", given)
    return given


def test_a_key_that_is_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Nobody types a key to be told that there is one; what was piped in is still unread."""
    typed(monkeypatch, CANARY)
    assert OK == run(["byok", "add", "openai"])
    waiting = typed(monkeypatch, CANARY)
    assert OK != run(["byok", "add", "openai"])
    assert CANARY == waiting.read()
    assert [] == leaks("".join(capsys.readouterr()), CANARY)


def test_a_key_that_is_not_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to be replaced."""
    waiting = typed(monkeypatch, CANARY)
    assert OK != run(["byok", "rotate", "openai"])
    assert CANARY == waiting.read()


def test_a_place_that_cannot_be_made_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:  # fmt: skip
    """A file stands where the directory of master keys would be."""
    (place / "file").write_text("x")
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "file"))
    assert USAGE == run(["byok", "init", "--name", "k2"])
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["list", "rewrap", "validate"])
def test_an_owner_that_is_none_is_told_first(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Before a vault is opened, or a master key is looked for."""
    monkeypatch.setenv("RUNRAILS_VAULT", "nowhere:")
    monkeypatch.delenv("RUNRAILS_MASTER_KEYS")
    assert USAGE == run(["byok", verb, "--owner", "alice"])
    err = capsys.readouterr().err
    assert "--owner user:alice" in err
    assert "nowhere" not in err and "master" not in err


def test_what_a_rule_says_to_do_next_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """An error of ours comes out as it is, also one that is a ValueError to programs."""
    typed(monkeypatch, CANARY)
    assert OK == run(["byok", "add", "openai"])
    monkeypatch.delenv("RUNRAILS_MASTER_KEYS")
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", "k1:env:GONE")
    assert USAGE == run(["byok", "rewrap"])
    assert "byok add --help" not in capsys.readouterr().err


def test_only_keys_with_that_label_are_asked_about(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """And of that provider; a check sends the key, so others' are not sent."""
    for label in ("default", "work"):
        typed(monkeypatch, CANARY)
        assert OK == run(["byok", "add", "elsewhere", "--label", label])
    capsys.readouterr()
    run(["byok", "validate", "--label", "work", "--json"])
    assert ["work"] == [row["label"] for row in json.loads(capsys.readouterr().out)]
    run(["byok", "validate", "openai", "--json"])
    assert [] == json.loads(capsys.readouterr().out)


def test_a_key_without_rates_has_none(capsys: Capture) -> None:
    """Of one with a single rate the other is none; the list says what there is."""
    made = []
    for options in ([], ["--requests-per-minute", "5"], ["--tokens-per-minute", "900"]):
        assert OK == run(["keys", "create", "alice", "--json", *options])
        made.append(json.loads(capsys.readouterr().out))
    rates = [each["rates"] for each in made]
    assert rates[0] is None
    assert (5, None) == (rates[1]["requests_per_minute"], rates[1]["tokens_per_minute"])
    assert (None, 900) == (rates[2]["requests_per_minute"], rates[2]["tokens_per_minute"])


def test_an_error_of_a_setting_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A process that may only verify makes no token, and the error says what it needs."""
    for name, value in (("ISSUER", "https://a.example"), ("AUDIENCE", "b"), ("JWKS_URL", "https://keys.example.com/")):
        monkeypatch.setenv(f"RUNRAILS_JWT_{name}", value)
    monkeypatch.delenv("RUNRAILS_JWT_KEYS")
    assert USAGE == run(["tokens", "issue", "alice"])
    err = capsys.readouterr().err
    assert "Give it a private key" in err
    assert "No token was made" not in err


@pytest.mark.parametrize(
    "command",
    [["keys", "create", "alice"], ["tokens", "revoke", "0123456789abcdef"], ["byok", "add", "openai"]],
    ids=["create", "revoke", "add"],
)
def test_a_vault_that_ends_with_the_command_is_refused(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:  # fmt: skip
    """A key that was made there works nowhere, and what was revoked there works on."""
    waiting = typed(monkeypatch, CANARY)
    assert USAGE == run([*command, "--vault", "memory:"])
    out, err = capsys.readouterr()
    assert "A vault in memory ends with this command" in err
    assert ("", CANARY) == (out, waiting.read())


def test_rates_are_told_as_they_are(capsys: Capture) -> None:
    """The one that there is, and not the other."""
    assert OK == run(["keys", "create", "alice", "--requests-per-minute", "5"])
    err = capsys.readouterr().err
    assert "at most 5 requests a minute" in err
    assert "tokens" not in err


def test_an_error_about_the_key_says_how_to_give_it(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Its own advice, and not that of a rule about owners."""
    typed(monkeypatch, "")
    assert USAGE == run(["byok", "add", "openai"])
    assert "byok add --help" not in capsys.readouterr().err


def test_half_a_master_key_is_not_left_behind(place: Path) -> None:
    """A disk that is full in the middle of it: the file is gone, and the next try is not in its way."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(ConfigError, match="cannot be made"):
            _write_new(place / "k2.key", Secret(CANARY))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (place / "k2.key").exists()


def test_a_line_that_is_not_taken_over_makes_it_fail(place: Path, capsys: Capture) -> None:
    """A script has to see it, whether it reads the JSON or not."""
    file = place / "old.csv"
    file.write_text("this is no hash\n")
    for options in ([], ["--json"]):
        assert NEGATIVE == run(["keys", "adopt", str(file), *options])
        assert "1" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["add", "rotate"])
def test_what_stands_where_nothing_belongs_is_not_shown(verb: str, capsys: Capture) -> None:
    """Also what looks like no key of anybody's: it may be one."""
    assert USAGE == run(["byok", verb, "openai", "plainword"])
    out, err = capsys.readouterr()
    assert "plainword" not in out + err
