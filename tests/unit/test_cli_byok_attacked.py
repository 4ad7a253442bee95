"""`runrails byok` for an operator who errs: paths with blanks, full disks, vaults that forget, keys of two lines."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rr_vault import CANARY, OTHER, everything_of, leaks, master, new_vault
from runrails.cli.shell import run
from runrails.credentials import CredentialId
from runrails.documents.sqlite import SQLiteDocuments
from runrails.secretvalue import Secret


class Typed(io.TextIOWrapper):
    """What is piped into a command."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vault and two master keys."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("RUNRAILS_VAULT", f"sqlite:///{tmp_path}/v.db")
    for name in ("k1", "k2"):
        (tmp_path / name).write_bytes(master(name).reveal_bytes())
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", f"k2:file:{tmp_path}/k2,k1:file:{tmp_path}/k1")
    return tmp_path


def test_the_printed_setting_is_one_word_for_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Mac's own directory for data has a blank in its name."""
    monkeypatch.delenv("RUNRAILS_MASTER_KEYS", raising=False)
    there = tmp_path / "Application Support $HOME 'x'"
    there.mkdir()
    setting = ""
    for name in ("k1", "k2"):
        assert 0 == run(["byok", "init", str(there / name), "--name", name])
        lines = [line for line in capsys.readouterr().out.splitlines() if "export" in line]
        command = "; ".join([*lines, 'printf %s "$RUNRAILS_MASTER_KEYS"'])
        env = {"PATH": os.environ["PATH"], "RUNRAILS_MASTER_KEYS": setting}
        setting = subprocess.run(["/bin/sh", "-c", command], env=env, capture_output=True, text=True, check=True).stdout
        monkeypatch.setenv("RUNRAILS_MASTER_KEYS", setting)
        assert f"{name}:file:{there / name}" in setting.split(",")
    words = shlex.split(lines[0])
    assert 2 == len(words)


def test_a_comma_in_the_path_is_refused_before_a_key_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The setting is a list, whose parts commas divide."""
    assert 2 == run(["byok", "init", str(tmp_path / "a,b.key")])
    assert "comma" in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_a_key(tmp_path: Path) -> None:
    """One that is there is never overwritten; half of one would be in the way for ever."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        "from runrails.cli.shell import run; sys.exit(run(['byok', 'init', sys.argv[1]]))"
    )
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "k.key")], capture_output=True, text=True, check=False, env=env
    )
    assert (2, "Traceback" in done.stderr, []) == (done.returncode, False, list(tmp_path.iterdir()))
    assert "cannot be made" in done.stderr


def test_a_vault_that_forgets_takes_no_key(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In memory it would be gone with the command, which said that it is stored."""
    del place
    monkeypatch.delenv("RUNRAILS_VAULT")
    for setting in ("RUNRAILS_VAULT", "RUNRAILS_STORE"):
        monkeypatch.setenv(setting, "memory:")
        monkeypatch.setattr(sys, "stdin", Typed(CANARY.encode()))
        assert 2 == run(["byok", "add", "openai"])
        told = capsys.readouterr()
        assert "memory" in told.err
        assert [] == leaks(told.out + told.err, CANARY)
        monkeypatch.delenv(setting)


@pytest.mark.parametrize(
    "typed", [CANARY.encode() + b"\nand more", CANARY.encode() + b" x", CANARY.encode() + b"\xff", "ké".encode() * 12]
)
def test_what_no_request_can_carry_is_refused_when_it_is_stored(
    typed: bytes, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of providers whose keys are one word; what others' are like nobody knows."""
    del place
    for provider, code in (("openai", 2), ("anthropic", 2), ("vertex", 0)):
        monkeypatch.setattr(sys, "stdin", Typed(typed))
        assert code == run(["byok", "add", provider])
        told = capsys.readouterr()
        assert [] == leaks(told.out + told.err, CANARY)
    assert 0 == run(["byok", "list", "--json"])
    assert ["vertex"] == [each["provider"] for each in json.loads(capsys.readouterr().out)]


def test_rewrap_says_what_may_still_need_the_old_key(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody with the old ring writes all the time: exit 1, by name, so that nobody gives the old key up."""
    from runrails.credentials import vault as module

    old = new_vault(SQLiteDocuments(place / "v.db"), "k1")
    which = CredentialId("user:alice", "openai")
    old.add(which, Secret(CANARY))
    write = module.Vault._write

    def beaten(self: module.Vault, *args: object, **kwargs: object) -> object:
        if self is not old:
            old.rotate(which, Secret(OTHER))
        return write(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(module.Vault, "_write", beaten)
    assert 1 == run(["byok", "rewrap"])
    assert "user:alice openai default" in capsys.readouterr().out
    assert 1 == run(["byok", "rewrap", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [{"owner": "user:alice", "provider": "openai", "label": "default"}] == told["contended"]
    old.close()


def test_no_standard_input_at_all_is_no_key(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service manager may close it."""
    del place
    monkeypatch.setattr(sys, "stdin", None)
    assert 2 == run(["byok", "add", "openai"])
    assert "no key on standard input" in capsys.readouterr().err


def test_a_terminal_of_another_encoding(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was typed is no text: a sentence says so, and Python's own error, which has it, is not its cause."""
    import getpass

    from runrails.cli import byok
    from runrails.errors import ConfigError

    class Terminal(Typed):
        def isatty(self) -> bool:
            return True

    def typed(prompt: str) -> str:
        return (CANARY.encode() + b"\xff").decode()

    del place, capsys
    monkeypatch.setattr(sys, "stdin", Terminal(b""))
    monkeypatch.setattr(getpass, "getpass", typed)
    with pytest.raises(ConfigError, match="no text") as caught:
        byok._read_key("openai")
    assert [] == leaks(everything_of(caught.value), CANARY)
    assert caught.value.__context__ is None
