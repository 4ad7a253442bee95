"""The parts of guarding a program as it is: waiting for imports, patience after a stop, word between processes."""

from __future__ import annotations

import importlib
import importlib.resources
import sys
from pathlib import Path

import pytest

from runrails import BudgetExceeded, ConfigError, GuardrailStopped, Limits, LoopDetected, PriceUnknown
from runrails.autoguard.folder import Folder
from runrails.autoguard.imports import ImportWatcher
from runrails.autoguard.patience import REFUSED_MAX, Patience
from runrails.autoguard.stops import stop_from, word_of
from runrails.autoguard.telling import advice, told, uncaught
from runrails.autoguard.variables import LIMITS, is_wanted
from runrails.boundary import Trip
from runrails.errors import GuardFault, LimitReached
from runrails.guard import Guard
from runrails.stores import absolute_url, same_books
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

ROOT = Path(__file__).parents[2]
STOP = BudgetExceeded(scope="run:r1", period="-", unit="pusd", limit=2, spent=2, held=0, needed=1)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that can be imported, with a file in it."""
    home = tmp_path / "rr_watched_sdk"
    home.mkdir()
    (home / "__init__.py").write_text("MADE = 1\n", encoding="utf-8")
    (home / "data.txt").write_text("there", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in [name for name in sys.modules if name.startswith(home.name)]:
        monkeypatch.delitem(sys.modules, name)
    return home.name


def test_what_is_watched_is_told_of_once_it_has_been_executed(package: str) -> None:
    """After its own code, before the import statement ends; looking for it is not importing it."""
    heard: list[tuple[str, object]] = []
    ImportWatcher([package], lambda name: heard.append((name, getattr(sys.modules[name], "MADE", None)))).install()

    assert importlib.util.find_spec(package) is not None
    assert [] == heard
    module = importlib.import_module(package)
    importlib.import_module(package)

    assert [(package, 1)] == heard
    assert "there" == importlib.resources.files(package).joinpath("data.txt").read_text()
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    del sys.modules[package]


def test_what_was_imported_before_is_told_of_at_once(package: str) -> None:
    """The order does not matter."""
    importlib.import_module(package)
    heard: list[str] = []
    ImportWatcher([package, "not_imported"], heard.append).install()

    assert [package] == heard
    del sys.modules[package]


def test_what_cannot_be_guarded_is_not_imported(package: str) -> None:
    """The error leaves the import statement each time, and nothing stays behind to be used."""

    def refuse(name: str) -> None:
        raise ConfigError(f"{name} is too old.", next_step="Upgrade.")

    ImportWatcher([package], refuse).install()
    for _ in range(2):
        with pytest.raises(ConfigError):
            importlib.import_module(package)
        assert package not in sys.modules


@pytest.mark.parametrize(("attempts", "ms", "trips"), [(25, 30_000, False), (26, 29_999, False), (26, 30_000, True)])
def test_patience_ends_after_many_attempts_and_some_time(attempts: int, ms: int, trips: bool) -> None:
    """A long list that fails at once may be worked off, and a slow one too."""
    clock = ManualClock(start_ms=5)
    patience = Patience(30_000, clock)
    for _ in range(attempts - 1):
        assert isinstance(patience.refuse(STOP), BudgetExceeded)
    clock.advance(ms)
    last = patience.refuse(STOP)

    assert 25 == REFUSED_MAX
    assert trips is isinstance(last, Trip)
    assert trips is not isinstance(last, Exception)


def test_a_run_asks_for_what_to_raise_after_its_stop() -> None:
    """The first stop is raised as ever; what comes after it is the latch's to say, for child runs too."""
    with Guard(Limits(steps=1), store="memory:", sinks=[]) as guard:
        run = guard.run()
        run.latch.refuse = Trip
        run.step()
        with pytest.raises(LimitReached):
            run.step()
        with pytest.raises(Trip):
            run.step()


def test_a_stop_in_another_process_is_a_stop_here() -> None:
    """As long as there is none of its own, a run asks elsewhere."""
    with Guard(Limits(), store="memory:", sinks=[]) as guard:
        run = guard.run()
        found: list[GuardrailStopped] = []
        run.latch.elsewhere = lambda: found[0] if found else None
        run.step()
        found.append(STOP)
        with pytest.raises(BudgetExceeded):
            run.step()
        assert "budget_exceeded" == run.stop_reason
        assert 1 == run.report().steps


def test_word_is_left_and_read(tmp_path: Path) -> None:
    """Of the first stop, of what was patched and of what was done; a folder that cannot be made harms nobody."""
    folder = Folder(str(tmp_path / "new"))
    assert (None, False, [], []) == (folder.stopped(), folder.was_seen(), folder.modules(), list(folder.reports()))
    folder.started()
    folder.guarded("openai")
    folder.guarded("langchain_core.tracers.context")
    folder.opened("r2")
    folder.opened("r2")
    folder.report("1", {"a": 1})
    folder.report("1", {"a": 2})
    folder.stop(word_of(STOP))
    folder.stop(word_of(LoopDetected("Later.", next_step="-")))

    again = stop_from(folder.stopped())
    assert isinstance(again, BudgetExceeded)
    assert STOP.as_dict() == again.as_dict()
    assert (["langchain_core", "openai"], ["r2"], [{"a": 2}]) == (
        folder.modules(), folder.runs(), list(folder.reports())
    )  # fmt: skip
    assert folder.was_seen()
    assert 0o700 == (tmp_path / "new").stat().st_mode & 0o777
    folder.remove()
    assert not (tmp_path / "new").exists()

    nowhere = Folder("/dev/null/nowhere")
    nowhere.started()
    nowhere.report("1", {})
    assert (False, None) == (nowhere.was_seen(), nowhere.stopped())


def test_a_process_that_outlives_its_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """The folder is gone by then, and nobody would remove it again."""
    folder = Folder(str(tmp_path / "new"))
    folder.started()
    folder.remove()
    folder.report("1", {"a": 1})

    assert not (tmp_path / "new").exists()


def test_word_that_is_damaged_is_no_word(tmp_path: Path) -> None:
    """Half a file, another form, nothing at all."""
    folder = Folder(str(tmp_path))
    for text in ("{", "[]", ""):
        (tmp_path / "stop.json").write_text(text, encoding="utf-8")
        assert folder.stopped() is None
    assert stop_from(None) is None
    assert isinstance(stop_from({}), GuardrailStopped)


def test_what_of_an_exception_is_ours() -> None:
    """Stops, refusals and wrong settings; not bugs of ours, nor a group that holds something else too."""
    refusal = PriceUnknown("No price.", next_step="-")
    assert STOP is uncaught(STOP)
    assert refusal is uncaught(refusal)
    assert STOP is uncaught(Trip(STOP))
    assert STOP is uncaught(BaseExceptionGroup("tasks", [ExceptionGroup("inner", [STOP]), Trip(STOP)]))
    assert uncaught(ExceptionGroup("tasks", [STOP, ValueError("mine")])) is None
    assert uncaught(GuardFault("Bug.", next_step="Report it.")) is None
    assert uncaught(ValueError()) is None
    assert uncaught(None) is None


def month_of(scope: str) -> BudgetExceeded:
    """The stop of a month that is used up."""
    return BudgetExceeded(scope=scope, period="2026-11", unit="pusd", limit=2, spent=2, held=0, needed=1)


@pytest.mark.parametrize(
    ("stop", "option"),
    [
        (STOP, "--run (RUNRAILS_RUN_BUDGET)"),
        (month_of("user:a"), "--month"),
        (month_of("org:a"), "--org-month"),
        (LimitReached(scope="run:r1", unit="steps", limit=2, used=2, setting="steps"), "--steps (RUNRAILS_STEPS)"),
        (LoopDetected("Again.", next_step="-", scope="run:r1", tool="wait"), "--poll wait"),
    ],
)  # fmt: skip
def test_the_advice_is_for_whoever_starts_the_program(stop: GuardrailStopped, option: str) -> None:
    """It names options, not code; for a run of the program's own guard it stays as it is."""
    assert option in advice(stop, "r1")
    assert option in told(stop, None, run_id="r1")
    if stop.fields["scope"] == "run:r1" and stop.code != "loop_detected":
        assert stop.next_step == advice(stop, "another")


def test_a_url_that_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in another directory opens the same file."""
    monkeypatch.chdir(tmp_path)
    assert f"sqlite:///{tmp_path}/x.db?synchronous=normal" == absolute_url("sqlite:///x.db?synchronous=normal")
    assert "sqlite:////a/b.db" == absolute_url("sqlite:////a/b.db")
    monkeypatch.setenv("RUNRAILS_STORE", "sqlite:///y.db")
    assert f"sqlite:///{tmp_path}/y.db" == absolute_url()
    with pytest.raises(ConfigError):
        absolute_url("sqlite:x")


def test_whether_two_stores_are_the_same_books(tmp_path: Path) -> None:
    """Two connections to one file are; two memories are not."""
    one, two, other = SQLiteStore(tmp_path / "a.db"), SQLiteStore(tmp_path / "a.db"), SQLiteStore(tmp_path / "b.db")
    memory = MemoryStore()
    assert same_books(one, two)
    assert same_books(memory, memory)
    assert not same_books(one, other)
    assert not same_books(memory, MemoryStore())
    assert not same_books(one, memory)
    for store in (one, two, other):
        store.close()


def test_every_limit_alone_wakes_the_line_of_the_installation() -> None:
    """What is written down is held, a limit on steps as well as one in dollars."""
    # An installation has it beside its packages.
    line = (ROOT / "guardrails/runrails/autoguard/startup.pth").read_text(encoding="utf-8")

    assert [] == [name for name in LIMITS if f'"{name}"' not in line]
    assert all(is_wanted({name: "7"}) for name in LIMITS)
