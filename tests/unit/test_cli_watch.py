"""`runrails watch`: the runs at work, read from the books."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from rr_core import Bench, cent_call, model_step
from runrails import Limits
from runrails.cli import watch as watching
from runrails.cli.shell import OK, USAGE, run
from runrails.cli.watch import look, running
from runrails.clocks import system_ms
from runrails.ledger import Account, CallFacts, Hold, Reservation, ResultFacts, UsageRecord
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    """A ledger in which one run has ended, one is between calls, and one has a call in flight."""
    clock = ManualClock(system_ms() - 2_000)
    store = SQLiteStore(tmp_path / "ledger.db", clock=clock)
    bench = Bench(Limits(run="5.00"), store=store)
    bench.clock.advance(clock() - bench.clock())
    with bench.guard.run("ended") as ended:
        model_step(ended)
    idle, busy = bench.guard.run("idle", id="idle"), bench.guard.run("busy", id="busy")
    model_step(idle)
    model_step(busy)
    clock.advance(1_000)
    busy.before_model(cent_call())
    return store


def record(run_id: str, *, at_ms: int, held: bool = False) -> UsageRecord:
    """One call of a run."""
    return UsageRecord(
        id=f"{run_id}-{at_ms}", state="held" if held else "settled", at_ms=at_ms,
        settled_at_ms=None if held else at_ms + 5, estimated_pusd=10, actual_pusd=None if held else 7,
        facts=CallFacts(user="alice", run=run_id, model=f"m{at_ms}"), result=None if held else ResultFacts(),
    )  # fmt: skip


def test_calls_are_summed_by_run_and_ended_runs_are_left_out() -> None:
    """In flight first, then the one heard of last; the model is that of the newest call."""
    records = [record("a", at_ms=1), record("b", at_ms=2), record("a", at_ms=3, held=True), record("c", at_ms=4)]
    found = running([*records, record("ended", at_ms=9), record("", at_ms=9)], {"ended"})
    assert ["a", "c", "b"] == [each.run for each in found]
    first = found[0]
    assert ("m3", 2, 1, 10) == (first.model, first.calls, first.in_flight, first.held_pusd)
    assert (1, 6) == (first.first_ms, first.last_ms)


def test_looking_reads_and_changes_nothing(store: SQLiteStore) -> None:
    """Not even a hold that is over time is touched: whoever watches is nobody's owner."""
    late = Reservation("late", (Hold(Account("run:late", "-"), 5),), ttl_ms=1, facts=CallFacts(user="bob", run="late"))
    store.reserve(late)
    now_ms = system_ms()
    before = [*store.usage()]
    seen = look(store, now_ms, window_ms=60_000)
    assert before == [*store.usage()]
    assert {"idle", "busy", "late"} == {each.run for each, _ in seen.runs}
    assert {"run:busy": 10**10, "run:idle": 10**10, "run:late": 0} == {
        balance.account.scope: balance.spent for _, balance in seen.runs
    }


def test_only_the_window_is_looked_at(store: SQLiteStore) -> None:
    """A run that has not called for longer is not at work."""
    assert [] == look(store, system_ms() + 3_600_000, window_ms=60_000).runs


def test_a_page_is_bounded_and_says_so(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many calls are read and so many runs shown."""
    monkeypatch.setattr(watching, "RUNS_MAX", 1)
    monkeypatch.setattr(watching, "RECORDS_MAX", 4)
    seen = look(store, system_ms(), window_ms=60_000)
    assert (1, 1, True) == (len(seen.runs), seen.more, seen.whole)
    monkeypatch.setattr(watching, "RECORDS_MAX", 3)
    assert not look(store, system_ms(), window_ms=60_000).whole


@pytest.mark.parametrize("width", [40, 80])
def test_it_is_shown_once_where_nobody_sees_it_move(
    store: SQLiteStore, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pipe as with --once; also where it is narrow."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert OK == run(["watch", "--store", f"sqlite:///{store.path}"])
    out = capsys.readouterr().out
    assert "2 runs at work" in out
    assert "ended" not in out
    assert max(map(len, out.splitlines())) <= width
    assert "of $5.00" in out


def test_programs_get_json(store: SQLiteStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Once as one object."""
    assert OK == run(["watch", "--once", "--json", "--store", f"sqlite:///{store.path}"])
    told = json.loads(capsys.readouterr().out)
    assert ["busy", "idle"] == [each["run"] for each in told["runs"]]
    assert (1, 10**10, "0.01", 5 * 10**12) == tuple(
        told["runs"][0][name] for name in ("in_flight", "held_pusd", "spent_usd", "limit_pusd")
    )


def test_it_goes_on_until_it_is_interrupted(store: SQLiteStore, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each look, or a table that is drawn again."""
    pauses = iter((None, None))

    def pause() -> None:
        try:
            next(pauses)
        except StopIteration:
            raise KeyboardInterrupt from None

    def again() -> watching.Seen:
        return look(store, system_ms(), window_ms=60_000)

    with pytest.raises(KeyboardInterrupt):
        watching._follow(again, pause)
    assert 3 == len([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    pauses = iter((None,))
    with pytest.raises(KeyboardInterrupt):
        watching._live(Console(width=80), again, pause)
    assert "2 runs at work" in capsys.readouterr().out


def test_a_store_in_memory_cannot_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    """It would be this command's own, and always empty."""
    assert USAGE == run(["watch", "--store", "memory:"])
    assert "seen by its own process only" in " ".join(capsys.readouterr().err.split()).replace("│ ", "")


def test_an_empty_ledger_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence, or an empty list."""
    assert OK == run(["watch", "--once", "--store", f"sqlite:///{tmp_path / 'new.db'}"])
    assert "No run is at work" in capsys.readouterr().out
