"""Secrets that one machine makes for itself, beside the vault's file."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runrails.credentials.opening import open_vault, open_wrapper
from runrails.errors import ConfigError
from runrails.identity.apikeys.opening import peppers_of_environment
from runrails.machinesecrets import make_secret, setting_of

PEPPER, MASTER = "RUNRAILS_KEY_PEPPERS", "RUNRAILS_MASTER_KEYS"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting names a secret."""
    for name in (PEPPER, MASTER, "RUNRAILS_VAULT", "RUNRAILS_STORE"):
        monkeypatch.delenv(name, raising=False)


def vault_url(directory: Path) -> str:
    return f"sqlite:///{directory}/v.db"


@pytest.mark.parametrize("kind", ["pepper", "master-key"])
def test_nothing_is_made_by_looking(kind: str, tmp_path: Path) -> None:
    """Where there is no secret, none is found, and both rooms say which setting is missing."""
    url = vault_url(tmp_path)
    assert setting_of(kind, url) is None  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=PEPPER):
        peppers_of_environment(url)
    with pytest.raises(ConfigError, match="No master key"):
        open_wrapper(vault=url)
    assert [] == list(tmp_path.iterdir())


def test_what_was_made_is_found_by_whoever_opens_the_same_vault(tmp_path: Path) -> None:
    """Keys and credentials alike, and by nobody else's."""
    url = vault_url(tmp_path)
    made = {kind: make_secret(kind, url) for kind in ("pepper", "master-key")}
    assert made == {kind: setting_of(kind, url) for kind in ("pepper", "master-key")}
    assert ("local", "local") == (peppers_of_environment(url).active, open_wrapper(vault=url).active)
    open_vault(url).close()
    assert setting_of("pepper", f"sqlite:///{tmp_path}/other.db") is None


def test_a_setting_wins_over_what_the_machine_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is wrong: nothing falls back to another secret unasked."""
    url = vault_url(tmp_path)
    make_secret("pepper", url)
    make_secret("master-key", url)
    monkeypatch.setenv(PEPPER, "p1:env:RR_MISSING")
    monkeypatch.setenv(MASTER, "k1:env:RR_MISSING")
    for opened in (lambda: peppers_of_environment(url), lambda: open_wrapper(vault=url)):
        with pytest.raises(ConfigError, match="RR_MISSING"):
            opened()


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    """Sixteen at once make one file, which only its owner may read; the two kinds are two secrets."""
    url = vault_url(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        assert 1 == len(set(pool.map(lambda _: make_secret("pepper", url), range(16))))
    make_secret("master-key", url)
    files = sorted(tmp_path.iterdir())
    assert ["v.master-key", "v.pepper"] == [file.name for file in files]
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in files}
    assert 2 == len({file.read_bytes() for file in files})


def test_a_shared_vault_has_no_secrets_of_one_machine(tmp_path: Path) -> None:
    """Nor has one whose path could not be written into a setting."""
    for url in ("dynamodb://books?region=eu-west-1", "memory:"):
        assert setting_of("pepper", url) is None
        with pytest.raises(ConfigError, match="share"):
            make_secret("pepper", url)
    with pytest.raises(ConfigError, match="comma"):
        make_secret("pepper", f"sqlite:///{tmp_path}/a,b.db")
    with pytest.raises(ConfigError, match="cannot be written"):
        make_secret("pepper", f"sqlite:///{tmp_path}/missing/v.db")
    assert [] == list(tmp_path.iterdir())
