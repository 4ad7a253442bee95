"""Secrets before a server serves: one function for its start, and the doctor's rows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rr_jwt import b64, drawn
from runrails.autoguard.variables import ELSEWHERE, GATEWAYS, KNOWN, SESSION
from runrails.cli.checks import check_all, check_settings
from runrails.cli.secretchecks import check_secrets as doctors_secrets
from runrails.errors import ConfigError
from runrails.identity.startup import SETTINGS, check_secrets, examine_secrets
from runrails.machinesecrets import make_secret

ROOT = Path(__file__).parents[2]
GOOD = {name: b64(drawn(name)) for name in ("A", "B", "C")}
ALL = {
    "RUNRAILS_KEY_PEPPERS": "p1:env:RR_A", "RUNRAILS_MASTER_KEYS": "k1:env:RR_B",
    "RUNRAILS_JWT_KEYS": "t1:HS256:env:RR_C",
}  # fmt: skip


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three good secrets that no setting names yet, and a vault of the test's own."""
    for name in (*SETTINGS, "RUNRAILS_JWT_JWKS_URL", "RUNRAILS_PRICES", "RUNRAILS_USER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(f"RR_{name}", value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.delenv("RUNRAILS_VAULT", raising=False)


def rows() -> list[tuple[str, str, str]]:
    """What the doctor says of secrets."""
    return [(each.state, each.detail, each.fix) for each in doctors_secrets()]


def holds_secret(told: str) -> bool:
    return any(value[at : at + 12] in told for value in GOOD.values() for at in range(len(value) - 11))


def test_good_secrets_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """None, some and all; told are their names alone."""
    check_secrets()
    assert ["ok"] == [state for state, _, _ in rows()]
    for setting, value in ALL.items():
        monkeypatch.setenv(setting, value)
        check_secrets()
    told = rows()
    assert ["ok"] * 3 == [state for state, _, _ in told]
    for setting, name in zip(ALL, ("p1", "k1", "t1"), strict=True):
        assert any(setting in detail and name in detail for _, detail, _ in told)
    assert not holds_secret(repr(told))


@pytest.mark.parametrize("one", SETTINGS)
@pytest.mark.parametrize("other", SETTINGS)
def test_one_secret_for_two_things_is_refused(one: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no token key is among them, which nobody saw once; and twice in one setting."""
    for setting, value in ALL.items():
        monkeypatch.setenv(setting, value)
    same = re.sub("RR_.", "RR_D", ALL[other])
    monkeypatch.setenv("RR_D", b64(drawn("D")))
    monkeypatch.setenv(one, re.sub("RR_.", "RR_D", ALL[one]) + ("," + re.sub("1:", "2:", same) if one == other else ""))
    if one != other:
        monkeypatch.setenv(other, same)
    with pytest.raises(ConfigError, match="same") as caught:
        check_secrets()
    assert not holds_secret(str(caught.value))
    assert 1 == [state for state, _, _ in rows()].count("problem")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("value", ["", "short", "changeme" * 8, None, "0" * 64])
def test_a_secret_that_is_missing_or_weak_is_refused(
    setting: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting is named with what mends it; the others are told of as well."""
    for each, text in ALL.items():
        monkeypatch.setenv(each, text)
    name = ALL[setting][-4:]
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        check_secrets()
    assert caught.value.next_step
    assert 1 == [state for state, _, _ in rows()].count("problem")
    assert not holds_secret(repr(rows()))


def test_the_doctor_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among all else, and says what mends it."""
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:env:RR_MISSING_ONE")
    found = [each for each in check_all(None) if each.check == "secrets"]
    assert ["problem"] == [each.state for each in found] and "RR_MISSING_ONE" in found[0].detail and found[0].fix


def test_keys_from_two_places_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own token keys and another service's at once would let either of them in."""
    monkeypatch.setenv("RUNRAILS_JWT_JWKS_URL", "https://keys.example.com/")
    check_secrets()
    monkeypatch.setenv("RUNRAILS_JWT_KEYS", ALL["RUNRAILS_JWT_KEYS"])
    with pytest.raises(ConfigError, match="one of"):
        check_secrets()


def test_secrets_that_this_machine_made_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no setting names others they are used, so they are looked at as well."""
    make_secret("master-key")
    setting = make_secret("pepper")
    assert ["RUNRAILS_KEY_PEPPERS", "RUNRAILS_MASTER_KEYS"] == [each.setting for each in examine_secrets()]
    monkeypatch.setenv("RUNRAILS_JWT_KEYS", f"t1:HS256:{setting.partition(':')[2]}")
    with pytest.raises(ConfigError, match="same"):
        check_secrets()


def test_no_variable_that_is_read_is_called_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever unset the pepper because the doctor said so would have lost every API key."""
    read: set[str] = set()
    for root in ("guardrails", "integrations"):
        for path in (ROOT / root).rglob("*.py"):
            read |= set(re.findall(r"[\"'](RUNRAILS_[A-Z_]*[A-Z])[\"']", path.read_text()))
    read = {name for name in read if not name.startswith(GATEWAYS)} | {f"{GATEWAYS[0]}DOCS"}
    assert {f"{GATEWAYS[0]}DOCS"} == read - KNOWN - ELSEWHERE - {SESSION, "RUNRAILS_STARTED_MS"}
    for name in [name for name in os.environ if name.startswith("RUNRAILS_")]:
        monkeypatch.delenv(name)
    for name in read - KNOWN:
        monkeypatch.setenv(name, "x")
    found = {each.check: each for each in check_settings()}
    assert "settings" not in found
