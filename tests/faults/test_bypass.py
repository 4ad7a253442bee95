"""Calls that were let through while the ledger was away reach it once, whatever becomes of their process."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rr_core import CENT, PRICES, Bench, cent_call, done, model_step
from rr_lease import lease_of
from rr_ledger import MONTH, START_MS
from rr_outage import impatient, locked_by_another_process
from runrails import Guard, Limits
from runrails.bypass import CALLS_MAX, SUFFIX, Bypass, directory, left_in
from runrails.cli.checks import check_bypassed
from runrails.cli.shell import NEGATIVE, OK, run
from runrails.events import Event
from runrails.ledger import Account
from runrails.stores.memory import MemoryStore
from runrails.stores.records import differences
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore, ManualClock

LIMITS = Limits(run=None, month="1.00", steps=None)
ALICE = Account("user:alice", MONTH)


def opened(path: Path) -> SQLiteStore:
    """A store; see `rr_outage.impatient`."""
    return SQLiteStore(path, clock=ManualClock(START_MS), synchronous="NORMAL", busy_timeout_ms=20_000)


def tolerant(store: object, told: list[Event] | None = None) -> Guard:
    """A guard that lets calls through while the ledger is away."""
    return Guard(
        LIMITS, user="alice", store=store, prices=PRICES, on_store_error="allow", clock=ManualClock(START_MS),  # type: ignore[arg-type]
        sinks=[] if told is None else [told.append],
    )  # fmt: skip


def files() -> list[str]:
    """What is in the directory of such calls."""
    where = Path(directory())
    return sorted(path.name for path in where.iterdir()) if where.is_dir() else []


WORKER = """
import os, signal, sys
from rr_core import PRICES, START_MS, cent_call, done
from rr_outage import locked_by_another_process
from runrails import Guard, Limits
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
path, ended, open_calls, quietly = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
clock = ManualClock(START_MS)
store = SQLiteStore(path, clock=clock, synchronous="NORMAL", busy_timeout_ms=20_000)
guard = Guard(Limits(run=None, month="1.00", steps=None), user="alice", store=store, prices=PRICES,
              on_store_error="allow", clock=clock, sinks=[])
run = guard.run()
run.after_model(run.before_model(cent_call()), done())
guard.flush()
with locked_by_another_process(path, store):
    for _ in range(ended):
        run.after_model(run.before_model(cent_call()), done())
    permits = [run.before_model(cent_call()) for _ in range(open_calls)]
    print("there", flush=True)
    sys.stdin.readline()
    if quietly == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def dead_process(path: Path, *, ended: int, under_way: int, how: str = "kill") -> list[str]:
    """A process that let calls through and is no more; the files it has left."""
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path]),
    }  # fmt: skip
    command = [sys.executable, "-c", WORKER, str(path), str(ended), str(under_way), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert "there\n" == worker.stdout.readline()
        assert all(left.alive for left in left_in(directory()))
        worker.stdin.write("\n")
        worker.stdin.flush()
        worker.wait(60)
        assert (-signal.SIGKILL if how == "kill" else 0) == worker.returncode
    # Who locked the file for it ends as well, a moment later.
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")
    connection.close()
    return files()


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_killed_process_loses_no_call(tmp_path: Path, how: str) -> None:
    """Ended ones are charged what they cost, those under way what they may cost, by the next process; once."""
    path = tmp_path / "ledger.db"
    (name,) = dead_process(path, ended=3, under_way=2, how=how)
    assert name.endswith(SUFFIX)
    (left,) = left_in(directory())
    assert (5, 0, False) == (len(left.calls), left.damaged, left.alive)
    assert 0o600 == (Path(directory()) / name).stat().st_mode & 0o777

    store, told = opened(path), list[Event]()
    assert (CENT, 0) == (store.balance(ALICE).spent, store.balance(ALICE).held)
    for _ in range(2):
        guard = tolerant(store, told)
        guard.flush()
        assert (6 * CENT, 0) == (store.balance(ALICE).spent, store.balance(ALICE).held)
        guard.close()
    assert [] == files()
    (event,) = [event for event in told if event.name == "runrails.bypassed_reconciled"]
    assert (5, 5 * CENT, 0) == (event.fields["count"], event.fields["cost_pusd"], event.fields["damaged"])
    states = sorted(record.state for record in store.usage())
    assert ["settled"] * 4 + ["unresolved"] * 2 == states
    assert {("alice", 10)} == {
        (record.facts.user, record.result.usage.input_tokens)
        for record in store.usage()
        if record.state == "settled" and record.result is not None and record.result.usage is not None
    }
    assert [] == differences(store.sums())[1]
    store.close()


def test_what_it_brings_to_light_is_warned_of(tmp_path: Path) -> None:
    """A budget that such calls have used up is told by whoever writes them."""
    path = tmp_path / "ledger.db"
    dead_process(path, ended=2, under_way=0)
    store, told = opened(path), list[Event]()
    store.set_limit("user:alice", 3 * CENT)
    guard = tolerant(store, told)
    guard.flush()
    assert [("user:alice", 3 * CENT)] == [
        (event.fields["scope"], event.fields["spent"]) for event in told if event.name.endswith("limit_reached")
    ]
    guard.close()
    store.close()


def test_two_processes_that_find_it_write_it_once(tmp_path: Path) -> None:
    """Both begin while the ledger is still away, and go on when it is back; whoever is first has the file."""
    path = tmp_path / "ledger.db"
    dead_process(path, ended=2, under_way=1)
    stores = [opened(path) for _ in range(3)]
    with locked_by_another_process(path, *stores):
        guards = [tolerant(store) for store in stores]
        for guard in guards:
            guard.flush()
        assert 1 == len(files())
    for guard in guards * 200:  # a background thread of one of them may be at it
        guard.flush()
        if not files():
            break
        time.sleep(0.05)
    assert (4 * CENT, 0) == (stores[0].balance(ALICE).spent, stores[0].balance(ALICE).held)
    assert [] == files()
    for guard, store in zip(guards, stores, strict=True):
        guard.close()
        store.close()


@pytest.mark.parametrize("leased", [False, True])
def test_a_call_that_reached_the_ledger_before_the_crash_is_not_written_twice(tmp_path: Path, leased: bool) -> None:
    """The file is behind, in every way that a crash can leave it: the ledger's own amounts stay."""
    path = tmp_path / "ledger.db"
    (name,) = dead_process(path, ended=2, under_way=1)
    file = Path(directory()) / name
    kept = file.read_bytes()
    store = opened(path)
    tolerant(store).close()
    expected = (store.balance(ALICE), [(record.id, record.actual_pusd, record.state) for record in store.usage()])
    for cut in (len(kept), len(kept) - 40, len(kept) // 2):
        file.write_bytes(kept[:cut])
        books = lease_of(store, ManualClock(START_MS), owns_store=False) if leased else store
        tolerant(books).close()
        if leased:
            books.close()
        assert expected == (
            store.balance(ALICE), [(record.id, record.actual_pusd, record.state) for record in store.usage()]
        )  # fmt: skip
        assert [] == files()
    store.close()


def test_a_line_that_a_crash_has_cut_is_a_call_that_never_began(tmp_path: Path) -> None:
    """It is passed over; a line that is damaged otherwise is kept aside for somebody to look at."""
    path = tmp_path / "ledger.db"
    (name,) = dead_process(path, ended=0, under_way=3)
    file = Path(directory()) / name
    kept = file.read_bytes()
    file.write_bytes(kept[:-30])
    (left,) = left_in(directory())
    assert (2, 0) == (len(left.calls), left.damaged)
    lines = kept.split(b"\n")
    lines[4] = lines[4][:-5] + b"?????"
    file.write_bytes(b"\n".join(lines))
    (left,) = left_in(directory())
    assert 1 == left.damaged

    store, told = opened(path), list[Event]()
    guard = tolerant(store, told)
    guard.flush()
    guard.close()
    assert [f"{name}.damaged"] == files()
    assert 1 == next(event for event in told if "reconciled" in event.name).fields["damaged"]
    store.close()


def test_a_guard_that_lives_keeps_its_file_until_the_ledger_has_all(tmp_path: Path) -> None:
    """Nobody else takes it meanwhile; afterwards there is none, and calls that were never sent leave nothing."""
    path = tmp_path / "ledger.db"
    store = opened(path)
    guard = tolerant(store)
    agent = guard.run()
    model_step(agent)
    assert [] == files()
    with locked_by_another_process(path, store):
        for _ in range(2):
            model_step(agent)
        agent.withdraw(agent.before_model(cent_call()))
        (left,) = left_in(directory())
        assert (2, True) == (len(left.calls), left.alive)
        second = opened(path)
        with impatient(second):
            other = tolerant(second)
            other.flush()
            assert 1 == len(files())
            other.close()
        second.close()
    guard.flush()
    assert [] == files()
    assert (3 * CENT, 0) == (store.balance(ALICE).spent, store.balance(ALICE).held)
    guard.close()
    store.close()


def test_a_call_under_way_is_its_owners_as_long_as_that_lives(tmp_path: Path) -> None:
    """The ledger is back, the call goes on: another guard leaves it alone, and it is charged what it cost."""
    path = tmp_path / "ledger.db"
    store, second = opened(path), opened(path)
    guard = tolerant(store)
    agent = guard.run()
    with locked_by_another_process(path, store):
        permit = agent.before_model(cent_call())
    other = tolerant(second)
    other.flush()
    assert (0, 1) == (store.balance(ALICE).spent, len(files()))
    agent.after_model(permit, done())
    assert (CENT, 0) == (store.balance(ALICE).spent, len(files()))
    assert ["settled"] == [record.state for record in store.usage()]
    other.flush()
    for each, books in ((guard, store), (other, second)):
        each.close()
        books.close()


def test_a_guard_that_closes_meanwhile_leaves_them_to_the_next_one(tmp_path: Path) -> None:
    """And says so; nothing is lost."""
    path = tmp_path / "ledger.db"
    store, told = opened(path), list[Event]()
    guard = tolerant(store, told)
    agent = guard.run()
    model_step(agent)
    with locked_by_another_process(path, store):
        for _ in range(2):
            model_step(agent)
        guard.close()
    names = [event.name.removeprefix("runrails.") for event in told]
    assert (1, 0) == (names.count("settlement_kept"), names.count("settlement_lost"))
    tolerant(store).close()
    assert (3 * CENT, 0) == (store.balance(ALICE).spent, store.balance(ALICE).held)
    store.close()


def test_the_doctor_shows_them_and_reclaim_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What waits is a problem as long as nobody lives who writes it; the named command does."""
    path = tmp_path / "ledger.db"
    assert [] == list(check_bypassed())
    dead_process(path, ended=2, under_way=1)
    (finding,) = check_bypassed()
    assert ("problem", True) == (finding.state, "3 calls ($0.03)" in finding.detail)
    assert "runrails ledger reclaim" in finding.fix
    url = f"sqlite:///{path}"
    assert NEGATIVE == run(["doctor", "--store", url])
    capsys.readouterr()
    assert OK == run(["ledger", "reclaim", "--store", url, "--json"])
    assert {"resolved": 0, "bypassed": 3} == json.loads(capsys.readouterr().out)
    assert OK == run(["ledger", "reclaim", "--store", url])
    assert [] == list(check_bypassed())
    store = opened(path)
    assert (4 * CENT, 0) == (store.balance(ALICE).spent, store.balance(ALICE).held)

    guard = tolerant(store)
    open_run = guard.run()
    with locked_by_another_process(path, store):
        model_step(open_run)
        (finding,) = check_bypassed()
        assert "note" == finding.state
    guard.close()
    store.close()


def test_other_ledgers_files_are_left_alone(tmp_path: Path) -> None:
    """A guard on another file neither takes nor counts them."""
    dead_process(tmp_path / "ledger.db", ended=1, under_way=0)
    other = opened(tmp_path / "other.db")
    guard = tolerant(other)
    guard.flush()
    guard.close()
    assert 1 == len(files())
    assert [] == list(other.balances())
    other.close()


def test_a_place_that_cannot_be_written_is_told_and_the_calls_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept in memory, as an event says for each."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("RUNRAILS_JOURNAL", str(tmp_path / "file" / "below"))
    path = tmp_path / "ledger.db"
    store, told = opened(path), list[Event]()
    guard = tolerant(store, told)
    agent = guard.run()
    with locked_by_another_process(path, store):
        model_step(agent)
    guard.flush()
    assert CENT == store.balance(ALICE).spent
    assert 1 == [event.name for event in told].count("runrails.bypass_not_kept")
    guard.close()
    store.close()


def test_who_refuses_writes_nothing_and_looks_for_nothing(tmp_path: Path) -> None:
    """Without the option there is no file, no directory and no look for one; a ledger in memory has none either."""
    bench = Bench(LIMITS, store=opened(tmp_path / "ledger.db"))
    assert bench.guard.housekeeper.bypass is None
    bench.guard.close()
    plan = FlakyStore(MemoryStore(), ["ok", "request_lost"], verbs={"reserve"})
    bench = Bench(LIMITS, store=plan, on_store_error="allow")
    agent = bench.guard.run()
    for _ in range(2):
        model_step(agent)
    assert 2 * CENT == bench.spent("user:alice")
    assert not Path(directory()).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows cannot fork")
def test_a_forked_child_lets_go_of_its_parents_file(tmp_path: Path) -> None:
    """A child that lives on does not keep the file locked once its parent has gone."""
    path = tmp_path / "ledger.db"
    store = opened(path)
    guard = tolerant(store)
    agent = guard.run()
    with locked_by_another_process(path, store):
        agent.before_model(cent_call())
        (may_end, end), (lives, live) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(end)
            os.write(live, b"!")
            os.read(may_end, 1)
            os._exit(0)
        os.read(lives, 1)
        bypass = guard.housekeeper.bypass
        assert isinstance(bypass, Bypass)
        assert 1 == bypass.close()
        (left,) = left_in(directory())
        assert not left.alive
        os.close(end)
        os.waitpid(child, 0)
        for pipe in (may_end, lives, live):
            os.close(pipe)
    guard.close()
    store.close()


def test_there_is_a_most_of_calls_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it they are kept in memory, and each is an event."""
    assert CALLS_MAX == 100_000
    monkeypatch.setattr("runrails.bypass.CALLS_MAX", 2)
    path = tmp_path / "ledger.db"
    store, told = opened(path), list[Event]()
    guard = tolerant(store, told)
    agent = guard.run()
    with locked_by_another_process(path, store):
        permits = [agent.before_model(cent_call()) for _ in range(3)]
        (left,) = left_in(directory())
        assert 2 == len(left.calls)
    for permit in permits:
        agent.after_model(permit, done())
    assert 1 == [event.name for event in told].count("runrails.bypass_not_kept")
    assert 3 * CENT == store.balance(ALICE).spent
    guard.close()
    store.close()
