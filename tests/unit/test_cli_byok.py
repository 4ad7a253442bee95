"""`runrails byok`: from a first master key to a rotated one; a key is never read from, or shown on, a command line."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from rr_vault import CANARY, leaks
from runrails.cli.shell import run
from runrails.credentials.opening import open_vault
from runrails.credentials.records import CredentialId
from runrails.secretvalue import Secret

OTHER = "sk-" + CANARY[::-1]


class Typed(io.TextIOWrapper):
    """What is piped into a command."""

    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A directory with a vault and one master key, both named by the environment."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("RUNRAILS_VAULT", f"sqlite:///{tmp_path}/v.db")
    assert 0 == run(["byok", "init", str(tmp_path / "k1.key"), "--json"])
    name, _, value = json.loads(capsys.readouterr().out)["setting"].partition("=")
    monkeypatch.setenv(name, value)
    return tmp_path


def byok(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str, typed: str = ""
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; the canary is in neither."""
    monkeypatch.setattr(sys, "stdin", Typed(typed))
    code = run(["byok", *args])
    out, err = capsys.readouterr()
    assert [] == leaks(out + err, CANARY, OTHER)
    return code, out, err


class Cli(Protocol):
    """Calls the command line."""

    def __call__(self, *args: str, typed: str = "") -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        ...


@pytest.fixture
def cli(where: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line with something on its standard input."""

    def call(*args: str, typed: str = "") -> tuple[int, str, str]:
        return byok(monkeypatch, capsys, *args, typed=typed)

    return call


def stored(which: CredentialId | None = None) -> str:
    """The key as the vault opens it."""
    vault = open_vault()
    key = vault.get(which or CredentialId("user:local", "openai")).secret.reveal()
    vault.close()
    return key


def test_a_first_key_from_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every error names the next command, until a key is stored."""
    monkeypatch.setenv("COLUMNS", "200")
    code, _, err = byok(monkeypatch, capsys, "add", "openai", typed=CANARY)
    assert (2, True) == (code, "runrails byok init" in err)
    code, out, _ = byok(monkeypatch, capsys, "init")
    line = next(line.strip() for line in out.splitlines() if "RUNRAILS_MASTER_KEYS=" in line)
    name, _, value = line.removeprefix("export ").partition("=")
    monkeypatch.setenv(name, value)
    path = Path(value.removeprefix("k1:file:"))

    assert (0, 0o600, 45) == (code, path.stat().st_mode & 0o777, path.stat().st_size)
    assert 0o700 == path.parent.stat().st_mode & 0o777
    code, out, _ = byok(monkeypatch, capsys, "add", "openai", typed=CANARY + "\n")
    assert (0, "The openai key default of user:local is stored.\n") == (code, out)
    assert CANARY == stored()


def test_a_master_key_is_never_overwritten(where: Path, cli: Cli) -> None:
    """Nor made where there is no directory; a malformed name makes none."""
    before = (where / "k1.key").read_bytes()
    code, _, err = cli("init", str(where / "k1.key"))
    assert (2, True) == (code, "never overwritten" in err)
    assert before == (where / "k1.key").read_bytes()
    assert 2 == cli("init", str(where / "no" / "such" / "k2.key"))[0]
    assert 2 == cli("init", str(where / "k2.key"), "--name", "kms")[0]
    assert not (where / "k2.key").exists()


def test_a_second_master_key_says_how_to_change_over(where: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """First everywhere last, then first; `rewrap`, and the old one may go."""
    cli("add", "openai", typed=CANARY)
    old = os.environ["RUNRAILS_MASTER_KEYS"]
    code, out, _ = cli("init", str(where / "k2.key"), "--name", "k2")
    assert (0, True) == (code, "runrails byok rewrap" in out)
    assert f'"$RUNRAILS_MASTER_KEYS",k2:file:{where}/k2.key' in out
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", f"{old},k2:file:{where}/k2.key")
    assert (0, "0 sealed anew, 1 were already.\n") == cli("rewrap")[:2]
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", f"k2:file:{where}/k2.key,{old}")
    assert (0, "1 sealed anew, 0 were already.\n") == cli("rewrap")[:2]
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", f"k2:file:{where}/k2.key")
    assert CANARY == stored()
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", old)
    code, out, _ = cli("rewrap", "--json")
    assert (1, [{"owner": "user:local", "provider": "openai", "label": "default", "reason": "unknown_key"}]) == (
        code, json.loads(out)["unreadable"]
    )  # fmt: skip
    code, out, _ = cli("list", "--open")
    assert (1, True, True) == (code, "unknown_key" in out, "RUNRAILS_MASTER_KEYS" in out)
    code, out, _ = cli("list", "--open", "--json")
    assert (1, False, "unknown_key") == (code, json.loads(out)[0]["opens"], json.loads(out)[0]["reason"])


def test_keys_come_and_go(cli: Cli) -> None:
    """Add, list, rotate, suspend, resume, remove; each says what it did, as JSON if that is asked for."""
    code, out, _ = cli(
        "add", "openai", "--owner", "org:acme", "--label", "work", "--base-url", "https://gw.example/v1", "--region",
        "eu-west-1", "--json", typed=f"  {CANARY}\r\n",
    )  # fmt: skip
    added = json.loads(out)
    assert (0, "org:acme", "openai", "work", "unverified", 1, "tXy0", "https://gw.example/v1", "eu-west-1") == (
        code, added["owner"], added["provider"], added["label"], added["status"], added["version"], added["hint"],
        added["base_url"], added["region"],
    )  # fmt: skip
    acme = CredentialId("org:acme", "openai", "work")
    assert CANARY == stored(acme)
    which = ("openai", "--owner", "org:acme", "--label", "work")
    for args in (("list", "--json"), ("list", "--owner", "org:acme", "--json")):
        assert [added] == json.loads(cli(*args)[1])
    assert [] == json.loads(cli("list", "--owner", "user:acme", "--json")[1])
    assert (0, "The openai key work of org:acme is replaced.\n") == cli("rotate", *which, typed=OTHER)[:2]
    assert OTHER == stored(acme)
    assert (0, "suspended") == (cli("suspend", *which)[0], json.loads(cli("list", "--json")[1])[0]["status"])
    assert 0 == cli("list", "--open")[0]
    assert (0, "unverified") == (cli("resume", *which)[0], json.loads(cli("list", "--json")[1])[0]["status"])
    assert (0, "The openai key work of org:acme is removed.\n") == cli("remove", *which)[:2]
    assert (0, "No keys. `runrails byok add PROVIDER` stores one.\n") == cli("list")[:2]


def test_what_is_not_there_is_an_answer(cli: Cli) -> None:
    """Exit 1, with the command that adds it; as JSON on stdout if that is asked for."""
    for command in ("remove", "rotate", "suspend", "resume"):
        code, _, err = cli(command, "openai", typed=CANARY)
        assert (1, True) == (code, "byok add openai" in err)
        code, out, err = cli(command, "openai", "--json", typed=CANARY)
        assert (1, "credential_not_found", "") == (code, json.loads(out)["error"], err)


def test_a_key_is_added_once(cli: Cli) -> None:
    """Exit 2, with the command that replaces it, before the key is asked for."""
    cli("add", "openai", typed=CANARY)
    code, _, err = cli("add", "openai", typed=OTHER)
    assert (2, True, CANARY) == (code, "byok rotate" in err, stored())
    code, _, err = cli("add", "openai", "--json", typed=OTHER)
    assert (2, "credential_exists") == (code, json.loads(err)["error"])


@pytest.mark.parametrize(
    "args",
    [
        ("add", "openai", CANARY), ("add", CANARY), ("add", "openai", "--key", CANARY),
        ("add", "openai", f"--key={CANARY}"),
        ("add", "openai", "--owner", CANARY), ("add", "openai", "--label", f"{CANARY}!"), ("rotate", "openai", CANARY),
        ("add", "openai", "--base-url", f"https://{CANARY}@h/"), ("add", "openai", "--region", CANARY),
        ("add", "openai", "x", CANARY), ("list", "--owner", CANARY), ("rewrap", "--owner", CANARY), ("add",),
        ("add", "openai", "--owner", "alice"), ("add", "openai", "--owner", "user:"), ("list", "--owner", "acme"),
    ],
    ids=range(16),
)  # fmt: skip
def test_a_key_in_the_wrong_place_is_refused_and_not_shown(cli: Cli, args: tuple[str, ...]) -> None:
    """Exit 2, nothing is stored, and what was written there is not repeated."""
    code, _, err = cli(*args, typed=OTHER)
    assert (2, True) == (code, bool(err))
    assert [] == json.loads(cli("list", "--json")[1])


@pytest.mark.parametrize("typed", ["", "  \n", "x" * 16_385], ids=["nothing", "blanks", "too much"])
def test_what_is_no_key_is_refused(cli: Cli, typed: str) -> None:
    """Exit 2 and a sentence, not a traceback."""
    code, _, err = cli("add", "openai", typed=typed)
    assert (2, False) == (code, "Traceback" in err)
    assert ("no key on standard input" in err) == (typed.strip() == "")
    assert 0 == cli("add", "openai", typed="x" * 16_384)[0]


def test_listing_and_removing_need_no_master_key(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody can open any more can still be seen and cleared away."""
    cli("add", "openai", typed=CANARY)
    monkeypatch.delenv("RUNRAILS_MASTER_KEYS")
    assert 2 == cli("list", "--open")[0]
    assert 1 == len(json.loads(cli("list", "--json")[1]))
    assert 0 == cli("suspend", "openai")[0]
    assert 0 == cli("remove", "openai")[0]


def test_a_wrong_master_key_is_explained(cli: Cli, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`list --open` tells the operator what a caller is not told."""
    cli("add", "openai", typed=CANARY)
    (where / "k1.key").unlink()
    cli("init", str(where / "k1.key"))
    code, _, err = cli("rotate", "openai", typed=OTHER)
    assert (2, False, True) == (code, "wrong_key" in err, "list --open" in err)
    code, out, _ = cli("list", "--open")
    assert (1, True) == (code, "wrong_key" in out)


def test_a_terminal_asks_without_showing(where: Path) -> None:
    """A key that is typed is not echoed."""
    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "runrails.cli", "byok", "add", "openai"],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while b"not shown" not in shown:
        shown += os.read(controller, 1_024)
    os.write(controller, CANARY.encode() + b"\n")
    try:
        while more := os.read(controller, 1_024):
            shown += more
    except OSError:  # how Linux says that the other side has ended
        pass
    os.close(controller)
    assert 0 == child.wait(timeout=30)
    assert [] == leaks(shown.decode(), CANARY)
    assert CANARY == stored()


def test_the_table_fits_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty columns; damaged records are named as such."""
    cli("add", "openai", typed=CANARY)
    vault = open_vault()
    which = CredentialId("user:local", "openai", "broken")
    vault.add(which, Secret(OTHER))
    vault._documents.put(which.address, b"noise", expected=1)
    vault.close()
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli("list")
    assert (0, True, True) == (code, "damaged" in out, "tXy0" in out)
    assert max(len(line) for line in out.splitlines()) <= 80
