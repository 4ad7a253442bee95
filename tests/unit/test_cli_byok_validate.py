"""`runrails byok validate`: what it asks, notes, prints and returns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rr_keycheck import Provider
from rr_routed import ALICE
from runrails.cli import keychecks
from runrails.cli.shell import run as shell
from runrails.credentials import CredentialId, Vault
from runrails.credentials.opening import open_vault
from runrails.credentials.validation import Validator
from runrails.secretvalue import Secret

OPENAI, ANTHROPIC = CredentialId("user:alice", "openai"), CredentialId("org:acme", "anthropic", "work")


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    """A real server behind TLS."""
    served = Provider(tmp_path)
    yield served
    served.close()


@pytest.fixture
def vault(tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """A vault in a file, with two keys whose address is that server."""
    monkeypatch.setenv("MASTER", os.urandom(32).hex())
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", "k1:env:MASTER")
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{tmp_path / 'ledger.db'}")

    def validator(hosts: list[str]) -> Validator:
        made = Validator(
            allow_hosts=hosts, resolver=provider.resolver, networks=("127.0.0.0/8",), context=provider.context
        )
        made._policy = made._policy._replace(ports=(provider.port,))
        return made

    monkeypatch.setattr(keychecks, "_validator", validator)
    opened = open_vault()
    for key in (OPENAI, ANTHROPIC):
        opened.add(key, Secret(ALICE), base_url=f"https://models.example.com:{provider.port}")
    yield opened
    opened.close()


def rows(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and what the command prints."""
    capsys.readouterr()
    code = shell(["byok", "validate", "--json", *args])
    return code, json.loads(capsys.readouterr().out)


def test_good_keys_are_noted_and_it_succeeds(
    vault: Vault, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts come from the option or from the environment."""
    code, told = rows(capsys, "--allow-host", "models.example.com")
    assert (0, ["valid", "valid"]) == (code, [row["noted"] for row in told])
    assert ["valid", "valid"] == [info.status for info in vault.list()]
    monkeypatch.setenv("RUNRAILS_KEY_HOSTS", "other.example.com, models.example.com")
    assert 0 == rows(capsys)[0]


def test_a_refused_key_is_noted_and_it_fails(
    vault: Vault, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1; the others are not asked about."""
    provider.status = 401
    code, told = rows(capsys, "openai", "--owner", "user:alice", "--allow-host", "models.example.com")
    assert (1, [("openai", "invalid", "refused", "invalid")]) == (
        code, [(row["provider"], row["now"], row["answer"], row["noted"]) for row in told]
    )  # fmt: skip
    assert ["unverified", "invalid"] == [info.status for info in vault.list()]


def test_what_says_nothing_changes_nothing(
    vault: Vault, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    """A good key stays good in an outage, and that is a success; one of which nothing is known is none."""
    vault.mark(OPENAI, "valid")
    provider.status = 500
    assert 0 == rows(capsys, "openai", "--allow-host", "models.example.com")[0]
    assert 1 == rows(capsys, "--label", "work", "--allow-host", "models.example.com")[0]
    assert ["unverified", "valid"] == [info.status for info in vault.list()]


def test_a_host_nobody_allowed_is_not_asked(
    vault: Vault, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and fails."""
    code, told = rows(capsys)
    assert (1, {"address_not_allowed"}) == (code, {row["answer"] for row in told})
    assert [] == provider.asked


def test_keys_that_cannot_be_opened_are_named(
    vault: Vault, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another master key, or suspended: by their codes, and nobody is asked."""
    vault.mark(ANTHROPIC, "suspended")
    monkeypatch.setenv("OTHER", os.urandom(32).hex())
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", "k2:env:OTHER")
    code, told = rows(capsys)
    assert (1, ["credential_suspended", "credential_unreadable"]) == (code, [row["answer"] for row in told])


def test_it_prints_a_table_and_no_key(vault: Vault, capsys: pytest.CaptureFixture[str]) -> None:
    """For people; and with no keys at all it says how to get one."""
    assert 0 == shell(["byok", "validate", "--allow-host", "models.example.com"])
    said = capsys.readouterr()
    assert "org:acme" in said.out
    assert not any(ALICE[n : n + 12] in said.out + said.err for n in range(len(ALICE) - 11))
    assert 0 == shell(["byok", "validate", "mistral"])
    assert "byok add" in capsys.readouterr().out
    assert 2 == shell(["byok", "validate", "--owner", "alice"])
