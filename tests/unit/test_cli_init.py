"""`runrails init`, and what a project's file may say of limits and the store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runrails import ConfigError, Guard, Limits
from runrails.cli.init import template
from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.loops import LoopPolicy
from runrails.pricing.project import parse_project
from runrails.projectfile import LIMIT_KEYS, LOOP_KEYS, RATE_KEYS, parse_settings, written_limits
from runrails.rates.limiter import Rates
from runrails.stores import absolute_url, open_store


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUNRAILS_STORE", "RUNRAILS_PRICES", "RUNRAILS_USER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def uncommented() -> str:
    """The template with every setting switched on."""
    setting = re.compile(r'^# (?=\[|("[^"]+"|[a-z_-]+) = )')
    return "\n".join(setting.sub("", line) for line in template().splitlines())


def said(text: str) -> None:
    """Write the project's file."""
    Path("runrails.toml").write_text(text, encoding="utf-8")


def test_a_file_that_is_there_is_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, and nothing is written without --force."""
    said("# mine\n")
    assert NEGATIVE == run(["init"])
    assert "# mine\n" == (here / "runrails.toml").read_text()
    assert "--force" in capsys.readouterr().err
    assert OK == run(["init", "--force"])
    assert template() == (here / "runrails.toml").read_text()


def test_a_place_that_cannot_be_written_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, with the reason."""
    assert USAGE == run(["init", "--file", "nowhere/runrails.toml"])
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_written_changes_nothing(here: Path) -> None:
    """It is read, and says what is the default anyway."""
    assert OK == run(["init"])
    assert Limits() == parse_settings((here / "runrails.toml").read_bytes()).limits
    guard = Guard(store="memory:")
    assert Limits() == guard.limits
    guard.close()


def test_every_setting_in_it_is_known_and_every_known_one_is_in_it() -> None:
    """With all marks of comments taken away it is read as a whole: settings, prices, aliases and a contract."""
    text = uncommented()
    settings, prices = parse_settings(text.encode()), parse_project(text.encode())
    assert settings.limits is not None
    assert "sqlite:///ledger.db" == settings.store
    assert Rates(requests_per_minute=60, tokens_per_minute=200_000, requests_burst=60, tokens_burst=200_000) == (
        settings.limits.rates
    )
    assert (2, 1, 1) == (len(prices.prices), len(prices.aliases), len(prices.contract))
    written = set(re.findall(r"^([a-z_]+) = ", text, re.MULTILINE))
    assert {*LIMIT_KEYS, *LOOP_KEYS, *RATE_KEYS} <= written


def test_the_defaults_it_names_are_the_defaults() -> None:
    """Whoever takes a mark away at one of these changes nothing."""
    text = uncommented()
    loops = dict(re.findall(r"^([a-z_]+_at|batch_max) = ([0-9]+)", text, re.MULTILINE))
    assert {name: str(getattr(LoopPolicy(), name)) for name in loops} == loops
    usual = Limits()
    for name in ("uncapped", "wrap_up", "hold_wait_ms", "hold_ttl_ms", "run", "steps"):
        found = re.search(rf'^{name} = "?([^" ]+)"?', text, re.MULTILINE)
        assert found is not None
        assert str(getattr(usual, name)).lower() == found[1].replace("_", "" if found[1][0].isdigit() else "_")


# What the file may say.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[limits]\nrum = '2.00'", "line 2, limits.rum"),
        ("[limits]\nrun = 'lots'", "line 2, limits.run"),
        ("[limits]\nrun = '0'", "more than $0"),
        ("[limits]\nsteps = '20'", "line 2, limits.steps"),
        ("[limits]\nsteps = 1.5", "line 2, limits.steps"),
        ("[limits]\nwrap_up = 1", "limits.wrap_up"),
        ("[limits]\nuncapped = 'maybe'", "limits.uncapped"),
        ("[limits.rates]\nper_minute = 3", "limits.rates.per_minute"),
        ("[limits.rates]\nrequests_per_minute = 0", "limits.rates"),
        ("limits = 3", "must be a table"),
        ("[loops]\nenabled = 'no'", "line 2, loops.enabled"),
        ("[loops]\nhint_at = 9", "hint_at"),
        ("[loops]\nhints_at = 2", "line 2, loops.hints_at"),
        ("[store]\nurl = 3", "line 2, store.url"),
        ("[store]\npath = 'x'", "line 2, store.path"),
        ("\n[limit]\nrun = '2.00'", "line 2, limit: is nobody's table; [limits] is one"),
        ("[Loops]\nhint_at = 2", "line 1, Loops"),
        ("[stores]\nurl = 'memory:'", "stores"),
        ("[price.x]\ncall = '1'", "price"),
        ("run = '2.00'\n[loops]", "line 1, run: belongs into the table [limits]"),
    ],
)
def test_a_mistake_is_refused_by_line_and_key(text: str, told: str) -> None:
    """Whoever wrote a limit down believes that it holds; no guard is made."""
    said(text)
    with pytest.raises(ConfigError) as caught:
        Guard(store="memory:")
    assert told in str(caught.value)


def test_tables_of_other_programs_are_left_alone() -> None:
    """Only what may be meant for us is a mistake."""
    others = b"[tool.black]\nline = 3\n[team]\nrun = 9\n[agent]\nsteps = 2\n[[jobs]]\nname = 'x'\n"
    assert parse_settings(others) == parse_settings(b"")


def test_the_file_is_read_and_code_wins_over_it() -> None:
    """A guard without limits takes those of the file; with limits it takes its own, whole."""
    said('[limits]\nrun = "2.50"\nmonth = "none"\nsteps = "none"\n[limits.key_rates]\nrequests_per_minute = 5\n')
    guard = Guard(store="memory:")
    assert Limits(run="2.50", steps=None, key_rates=Rates(requests_per_minute=5)) == guard.limits
    guard.close()
    other = Guard(Limits(run="9"), store="memory:")
    assert Limits(run="9") == other.limits
    other.close()


def test_the_loop_detector_is_set_and_switched_off() -> None:
    """In its own table."""
    assert Limits(loops=LoopPolicy(hint_at=2)) == parse_settings(b"[loops]\nhint_at = 2").limits
    assert Limits(loops=None) == parse_settings(b"[loops]\nenabled = false").limits


def test_a_number_of_dollars_is_exact() -> None:
    """TOML's 0.1 is read as written, and not as the float next to it."""
    assert 10**11 == parse_settings(b"[limits]\nrun = 0.1").limits.run_pusd  # type: ignore[union-attr]


def test_the_store_is_code_s_then_the_environment_s_then_the_file_s(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a relative one lies in the working directory."""
    said('[store]\nurl = "sqlite:///theirs.db"\n')
    assert f"sqlite:///{here / 'theirs.db'}" == absolute_url()
    with_file = open_store()
    with_file.close()
    assert (here / "theirs.db").exists()
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{here / 'mine.db'}")
    assert f"sqlite:///{here / 'mine.db'}" == absolute_url()
    assert f"sqlite:///{here / 'code.db'}" == absolute_url("sqlite:///code.db")


def test_programs_that_are_run_inherit_its_limits() -> None:
    """As the variables that say the same; only what differs from the default."""
    said('[limits]\nrun = "2.50"\nsteps = "none"\nrates = { requests_per_minute = 7 }\n[loops]\nenabled = false\n')
    assert {"run": "2.50", "steps": "none", "loops": "off", "requests_per_minute": "7"} == written_limits()
    said("[prices]\nm = '0'\n")
    assert {} == written_limits()


def test_without_a_file_nothing_is_read() -> None:
    """The defaults of the code."""
    assert ({}, Limits()) == (written_limits(), Guard(store="memory:").limits)
