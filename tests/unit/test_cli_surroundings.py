"""What the doctor looks at around runrails: versions of SDKs, halves of settings, the project's file, old holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runrails.cli.checks import check_all, check_store
from runrails.cli.surroundings import check_extras, check_halves, check_project, too_old_or_new
from runrails.ledger import Account, CallFacts, Hold, Reservation
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

NOW_MS = 1_795_262_400_000
REQUIREMENTS = (
    'openai<4,>=2; extra == "openai"', "anthropic<3,>=0.120 ; extra == 'anthropic'", "rich>=13.7",
    'uvicorn[standard]>=0.30; extra == "gateway"', 'moto>=5; extra == "dev"',
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNRAILS_PRICES", raising=False)


def test_an_sdk_of_a_version_that_cannot_work_is_a_problem() -> None:
    """With the extra that brings the right one; what is absent, fits or is a developer's tool is not told of."""
    installed = {"openai": "1.99.1", "anthropic": "0.120.0", "uvicorn": "0.29", "moto": "4", "rich": "1"}
    found = {finding.detail: finding for finding in check_extras(REQUIREMENTS, installed.get)}
    assert {
        "openai 1.99.1 is installed; the extra `openai` needs <4,>=2.",
        "uvicorn 0.29 is installed; the extra `gateway` needs >=0.30.",
    } == set(found)
    assert {"pip install 'runrails[openai]'", "pip install 'runrails[gateway]'"} == {
        each.fix for each in found.values()
    }
    assert {"problem"} == {each.state for each in found.values()}


@pytest.mark.parametrize(
    ("have", "wanted", "wrong"),
    [
        ("2.0.0", ">=2,<4", False), ("1.9.9", ">=2,<4", True), ("4.0", ">=2,<4", True), ("4.0rc1", ">=2,<4", True),
        ("3.9", ">=3.10", True), ("3.10", ">=3.10", False), ("0.2.3", "==0.2.3", False), ("0.2.4", "==0.2.3", True),
        ("1", "!=1", True), ("1", "~=1.4", False), ("1", "", False), ("2", ">1,<=2", False), ("what", ">=1", True),
    ],
)  # fmt: skip
def test_versions_are_compared_by_their_numbers(have: str, wanted: str, wrong: bool) -> None:
    """Not as text; what cannot be read is let through."""
    assert wrong == too_old_or_new(have, wanted)


def test_half_a_setting_is_a_problem() -> None:
    """It names what is missing and why it matters."""
    environment = {"RUNRAILS_VAULT": "sqlite:///v.db", "RUNRAILS_JWT_KEYS": "k", "RUNRAILS_JWT_ISSUER": "i"}
    found = list(check_halves(environment))
    assert ["problem", "problem"] == [finding.state for finding in found]
    assert "without RUNRAILS_JWT_AUDIENCE" in found[0].detail
    assert "RUNRAILS_JWT_ISSUER" not in found[0].detail
    assert "Set RUNRAILS_MASTER_KEYS" in found[1].fix
    assert all(finding.fix for finding in found)


def test_how_without_whether_is_a_note() -> None:
    """Whoever writes RUNRAILS_MODE=observe and no budget guards nothing."""
    assert ["note"] == [finding.state for finding in check_halves({"RUNRAILS_MODE": "observe"})]
    assert [] == list(check_halves({"RUNRAILS_MODE": "observe", "RUNRAILS_RUN_BUDGET": "1"}))
    assert [] == list(check_halves({"RUNRAILS_USER": "alice", "RUNRAILS_STORE": "memory:"}))


def test_the_project_s_file_is_read_as_a_guard_reads_it() -> None:
    """Fine, absent, open to others, or wrong by line and key."""
    assert [] == list(check_project())
    file = Path("runrails.toml")
    file.write_text('[limits]\nrun = "2"\n')
    file.chmod(0o644)
    assert ["ok"] == [finding.state for finding in check_project()]
    if os.name == "posix":
        file.chmod(0o666)
        assert ["ok", "note"] == [finding.state for finding in check_project()]
    file.write_text('[limits]\nrum = "2"\n')
    wrong = [finding for finding in check_all("memory:") if finding.state == "problem"]
    assert any("limits.rum" in finding.detail and finding.fix for finding in wrong)


def test_holds_whose_owner_died_are_told_of_and_left_alone(tmp_path: Path) -> None:
    """The doctor writes nothing; the next call charges them."""
    clock = ManualClock(NOW_MS)
    store = SQLiteStore(tmp_path / "ledger.db", clock=clock)
    hold = Hold(Account("user:a", "2026-11"), 5 * 10**10)
    store.reserve(Reservation("a", (hold,), ttl_ms=1_000, facts=CallFacts(user="a", run="r")))
    store.close()
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    assert "store holds" not in {finding.check for finding in check_store(url, now_ms=NOW_MS + 999)}
    for _ in range(2):
        found = [each for each in check_store(url, now_ms=NOW_MS + 1_000) if each.check == "store holds"]
        assert ["note"] == [each.state for each in found]
        assert found[0].detail.startswith("1 hold is over time ($0.05)")
