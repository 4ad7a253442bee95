"""
Many processes spend from one ledger by seeded schedules, while its writes fail and one of them is killed.

    python tests/fault_schedules.py --engine sqlite --schedules 1000
    .ci/dynamodb python tests/fault_schedules.py --engine dynamodb --schedules 1000

In a schedule eight forked processes reserve, extend, raise, settle and release over an organisation, a key, two users
and runs of their own, against limits that many of them meet. Of every hundred requests that write, some 46 are
throttled or conflict (DynamoDB), are lost on their way, or are carried out while their answer is lost. One process is
killed by signal 9: before a request, after it, or (SQLite) inside of the step that writes. Each notes what it was told
in a file of its own. Afterwards the dead one's holds are expired and settled late, and the books must be what the notes
say:

- overshoot: no account is ever above its limit, but for recorded overruns; it is also watched while they spend;
- lost: whatever was acknowledged is in the books with the same amount, and balances are the sum of the records;
- doubled: nothing is there twice, and nothing of what was refused or released.

The same seeds, played by one process with the same faults, must give the same decisions as a memory store without.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from rr_dynamo import ENDPOINT, REASON, Fate, FaultyClient, new_table, open_dynamodb, shared_client
from rr_ledger import MONTH, START_MS, facts
from runrails.errors import StoreUnavailable
from runrails.ledger import Account, FullStore, Hold, Refused, Reservation, Reserved
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore, ManualClock

TTL_MS = 60_000
CALLS = 6
"""Guarded calls of each process."""
ORG = Account("org:acme", MONTH)
KEY = Account("key:k1", MONTH)
USERS = (Account("user:alice", MONTH), Account("user:bob", MONTH))
WRITE_FATES: tuple[tuple[Fate, int], ...] = (
    ("throttled", 12), ("conflict", 12), ("request_lost", 10), ("response_lost", 12), ("ok", 54),
)  # fmt: skip


class Killed(NamedTuple):
    """Which write of which process is its last, and whether it is carried out."""

    process: int
    write: int
    after: bool


class Call(NamedTuple):
    """One guarded call: what it holds, what it comes to, and how it ends."""

    reservation: Reservation
    raised: int
    extend: bool
    actual: int
    end: str


def calls_of(seed: int, process: int) -> list[Call]:
    """What a process does in a schedule; decided by the seed alone."""
    rng = random.Random(f"{seed}/{process}")
    limits = {ORG: 300 + seed % 100, KEY: 260, USERS[0]: 150, USERS[1]: 170}
    calls: list[Call] = []
    for number in range(CALLS):
        accounts = (Account(f"run:s{seed}p{process}", "-"), USERS[rng.randrange(2)], KEY, ORG)
        amount = rng.randint(0, 40)
        holds = tuple(Hold(account, amount, limits.get(account, 120)) for account in accounts)
        policy = rng.choice(("charge", "charge", "release"))
        name = f"s{seed}p{process}c{number}"
        reservation = Reservation(name, holds, TTL_MS, facts(run=f"s{seed}p{process}", step=number), policy)  # type: ignore[arg-type]
        overrun = rng.choice((0, 0, 0, 0, 7))
        end = rng.choice(("settle",) * 6 + ("release", "stand-in", "twice"))
        raised = amount + rng.randint(1, 9) if rng.random() < 0.2 else 0
        actual = amount + overrun if overrun else rng.randint(0, amount)
        calls.append(Call(reservation, raised, rng.random() < 0.15, actual, end))
    return calls


def play(store: Any, calls: list[Call], note: Callable[[object], None]) -> None:
    """Make the calls, and note what was asked before and what was answered after each verb."""
    for call in calls:
        name = call.reservation.id
        note(["reserve", name, call.reservation.holds[0].amount])
        answer = insist(lambda c=call: store.reserve(c.reservation))  # type: ignore[misc]
        if isinstance(answer, Refused):
            note(["refused", name])
            continue
        assert isinstance(answer, Reserved)
        note(["reserved", name])
        if call.extend:
            insist(lambda n=name: store.extend(n, ttl_ms=TTL_MS))  # type: ignore[misc]
        if call.raised:
            note(["raise", name, call.raised])
            more = insist(lambda n=name, c=call: store.raise_hold(n, c.raised))  # type: ignore[misc]
            note(["raised" if isinstance(more, Reserved) else "not raised", name, call.raised])
        if call.end == "release":
            insist(lambda n=name: store.release(n))  # type: ignore[misc]
            note(["released", name])
            continue
        note(["settle", name, call.actual])
        settle = lambda n=name, c=call, **given: insist(lambda: store.settle(n, c.actual, **given))  # type: ignore[misc]  # noqa: E731 -- three ways of one thing
        if call.end == "stand-in":
            insist(lambda n=name: store.settle(n, 1, unresolved=True))  # type: ignore[misc]
        settled = settle()
        if call.end == "twice":
            settled = settle()
        note(["settled", name, settled.actual])


def insist(verb: Callable[[], Any]) -> Any:
    """Repeat a verb with the same id while the store is away, as callers do."""
    for _ in range(200):
        try:
            return verb()
        except StoreUnavailable:
            continue
    raise AssertionError("200 attempts in a row failed")


class Engine:
    """Where a schedule's ledger is."""

    def __init__(self, directory: Path, *, kind: str) -> None:
        self.kind = kind
        self.path = directory / "ledger.db"
        self.table = new_table() if kind == "dynamodb" else ""

    def plain(self, now_ms: int) -> Any:
        """A store without faults."""
        clock = ManualClock(now_ms)
        if self.kind == "dynamodb":
            return open_dynamodb(clock, table=self.table)
        return SQLiteStore(self.path, clock=clock, synchronous="NORMAL", busy_timeout_ms=60_000)

    def faulty(self, rng: random.Random, killed_at: Killed | None, count: list[int]) -> Any:
        """A store whose writes fail; `count` is told how many there were, and how many failed."""

        def fate(_: str, number: int) -> Fate:
            if killed_at is not None and number == killed_at.write:
                return "killed_after" if killed_at.after else "killed"
            drawn: Fate = rng.choices([name for name, _ in WRITE_FATES], [share for _, share in WRITE_FATES])[0]
            count[0] += 1
            count[1] += drawn != "ok"
            return drawn

        if self.kind == "dynamodb":
            from runrails_aws.dynamodb.calling import Patience

            client = _client("parent" if os.getpid() == _PARENT else "child")
            client.fate = fate
            patience = Patience(pause_first_ms=2, pause_max_ms=20)
            return open_dynamodb(ManualClock(START_MS), table=self.table, client=lambda: client, patience=patience)
        store = SQLiteStore(self.path, clock=_Clock(killed_at), synchronous="NORMAL", busy_timeout_ms=60_000)
        return Flaky(store, _plan(fate))

    def drop(self) -> None:
        """End it."""
        if self.table:
            shared_client().delete_table(TableName=self.table)


_PARENT = os.getpid()


@lru_cache
def _client(user: str) -> FaultyClient:
    """Made once by the parent. That of the children it never uses, so that each inherits it without a connection."""
    del user
    return FaultyClient(lambda *_: "ok", reads=False)


class _Clock:
    """The store reads it inside of each step that writes; where it is told to, it ends the process there."""

    def __init__(self, killed_at: Killed | None) -> None:
        self.left = -1 if killed_at is None or killed_at.after else killed_at.write

    def __call__(self) -> int:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return START_MS


class Flaky(FlakyStore):
    """A store whose verbs fail, and end the process after one of them."""

    def _call(self, verb: str, work: Callable[[], Any]) -> Any:
        def carried_out() -> Any:
            answer = work()
            if self.log and self.log[-1][1] == "killed_after":  # type: ignore[comparison-overlap]
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return super()._call(verb, carried_out)


def _plan(fate: Callable[[str, int], Fate]) -> Iterator[Any]:
    """As `FlakyStore` wants it: throttled and conflicting requests are lost there; the clock does the other killing."""
    known = {"throttled": "request_lost", "conflict": "request_lost", "killed": "ok"}
    for number in range(1_000_000):
        drawn = fate("", number)
        yield known.get(drawn, drawn)


def run_schedule(seed: int, *, kind: str, processes: int, directory: Path) -> dict[str, int]:
    """One schedule. Returns what was counted; raises AssertionError where the books are wrong."""
    directory.mkdir()
    engine = Engine(directory, kind=kind)
    engine.plain(START_MS).close()
    if kind == "dynamodb":
        _client("child")
    rng = random.Random(seed)
    killed_at = Killed(rng.randrange(processes), rng.randrange(CALLS), rng.random() < 0.5)
    children = [_fork(engine, seed, process, killed_at, directory) for process in range(processes)]
    watcher = engine.plain(START_MS)
    peak: dict[Account, int] = {}
    statuses: dict[int, int] = {}
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    statuses[child] = status
        for account in (ORG, *USERS):
            balance = watcher.balance(account)
            peak[account] = max(peak.get(account, 0), balance.spent + balance.held - (balance.limit or 0))
        time.sleep(0.01)
    watcher.close()
    dead = [child for child, status in statuses.items() if os.WIFSIGNALED(status)]
    assert [signal.SIGKILL] == [os.WTERMSIG(statuses[child]) for child in dead], "not one process was killed"
    assert not [child for child in children if child not in dead and statuses[child]], "a process failed"
    counted = check(engine, seed, processes, directory, peak)
    engine.drop()
    return counted | {"killed": len(dead)}


def _fork(engine: Engine, seed: int, process: int, killed_at: Killed, directory: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        count = [0, 0]
        with (directory / f"notes-{process}").open("w") as file:

            def note(line: object) -> None:
                file.write(json.dumps(line) + "\n")
                file.flush()

            mine = killed_at if killed_at.process == process else None
            store = engine.faulty(random.Random(f"{seed}/{process}/faults"), mine, count)
            play(store, calls_of(seed, process), note)
            note(["writes", *count])
        code = 0
    except BaseException as error:
        print(f"seed {seed}, process {process}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def check(engine: Engine, seed: int, processes: int, directory: Path, peak: dict[Account, int]) -> dict[str, int]:
    """Compare the books with the notes, before and after the dead process's holds are resolved."""
    store: FullStore = engine.plain(START_MS + TTL_MS)
    notes = [json.loads(line) for n in range(processes) for line in _whole_lines(directory / f"notes-{n}")]
    told: dict[str, dict[str, list[Any]]] = {}
    for line in notes:
        if line[0] != "writes":
            told.setdefault(line[1], {})[line[0]] = line
    calls = {c.reservation.id: c for n in range(processes) for c in calls_of(seed, n)}
    while store.expire().ids:
        pass
    records = {record.id: record for record in store.usage()}
    assert len(records) == len(list(store.usage())), "a record is there twice"
    overruns = returned = resolved = 0
    for name, said in told.items():
        record = records.get(name)
        if "refused" in said:
            assert record is None, f"{name} was refused and is in the books"
        elif "reserved" in said:
            assert record is not None, f"{name} was reserved and is not in the books"
        if record is None:
            continue
        if "settled" in said:
            assert said["settled"][2] == record.actual_pusd, f"{name} was settled otherwise"
            assert record.state in {"settled", "late"}, f"{name} was settled and is {record.state}"
        elif "released" in said:
            assert ("released", 0) == (record.state, record.actual_pusd), f"{name} was released and is {record.state}"
        else:
            resolved += 1
            if record.state == "unresolved":
                # What was given back when its owner died may be spent by others by now.
                returned += calls[name].actual
                _settle_late(store, calls[name])
        overruns += _overrun(calls[name], record.estimated_pusd)
    _same_sums(store, calls)
    for account, above in peak.items():
        assert above <= overruns, f"{account.scope} was {above} above its limit, with overruns of {overruns}"
    for balance in store.balances():
        assert 0 == balance.held, f"{balance.account.scope} still holds {balance.held}"
        above = balance.spent - (balance.limit or balance.spent)
        assert above <= overruns + returned, f"{balance.account.scope} ended {above} above its limit"
    store.close()
    writes = [line[1:] for line in notes if line[0] == "writes"]
    return {
        "calls": len(told), "admitted": len(records), "dead_calls": resolved, "writes": sum(each[0] for each in writes),
        "failed_writes": sum(each[1] for each in writes),
    }  # fmt: skip


def _overrun(call: Call, held: int) -> int:
    """How far a call's bill may be above what it held, or above its stand-in, when others may have had the rest."""
    return max(0, call.actual - (1 if call.end == "stand-in" else held))


def _whole_lines(file: Path) -> list[str]:
    lines = file.read_text().splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def _settle_late(store: FullStore, call: Call) -> None:
    """The dead owner's stand-in tells what the call came to, and is believed to the picodollar."""
    settled = store.settle(call.reservation.id, call.actual)
    assert ("late", call.actual) == (settled.state, settled.actual), f"late, {call.reservation.id} became {settled}"


def _same_sums(store: FullStore, calls: dict[str, Call]) -> None:
    """Every account has spent what its records say, to the picodollar."""
    sums: dict[Account, int] = {}
    for record in store.usage():
        for hold in calls[record.id].reservation.holds:
            sums[hold.account] = sums.get(hold.account, 0) + (record.actual_pusd or 0)
    spent = {balance.account: balance.spent for balance in store.balances()}
    assert sums == spent, "balances are not the sum of the records"


def same_decisions(seed: int, *, kind: str, directory: Path) -> None:
    """One process, the calls of all in turn: with faults the engine decides as a memory store does without."""
    directory.mkdir()
    calls = [calls_of(seed, process) for process in range(8)]
    mixed = [call for turn in zip(*calls, strict=True) for call in turn]
    answers: list[list[object]] = [[], []]
    memory = MemoryStore(clock=ManualClock(START_MS))
    play(memory, mixed, answers[0].append)
    engine = Engine(directory, kind=kind)
    store = engine.faulty(random.Random(f"{seed}/one"), None, [0, 0])
    play(store, mixed, answers[1].append)
    assert answers[0] == answers[1], f"seed {seed}: the engines decided differently"
    plain = engine.plain(START_MS)
    assert list(memory.balances()) == list(plain.balances()), f"seed {seed}: the engines keep different books"
    plain.close()
    engine.drop()


def command(
    argv: list[str] | None, play_one: Callable[[int, str, int, Path], dict[str, int]], *, about: str | None,
    zeroes: tuple[str, ...],
) -> int:  # fmt: skip
    """
    Play schedules and print one line of JSON. Exit 0 if all held, 1 if one did not; it names its seed.

    Args:
        argv: The command line; None: the program's own.
        play_one: Plays the schedule of a seed on an engine, with so many processes, in a directory; it counts.
        about: What `--help` begins with.
        zeroes: What is 0, or `play_one` raises AssertionError.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["sqlite", "dynamodb"], default="sqlite")
    parser.add_argument("--schedules", type=int, default=10)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule")
    given = parser.parse_args(argv)
    if given.engine == "dynamodb" and not ENDPOINT:
        print(REASON, file=sys.stderr)
        return 2
    began = time.monotonic()
    top = Path(tempfile.mkdtemp(prefix="runrails-schedules-"))
    totals: dict[str, int] = {}
    try:
        for seed in range(given.seed, given.seed + given.schedules):
            (top / str(seed)).mkdir()
            try:
                counted = play_one(seed, given.engine, given.processes, top / str(seed))
            except AssertionError as error:
                traceback.print_exc()
                print(f"seed {seed}: {error}", file=sys.stderr)
                return 1
            for name, value in counted.items():
                totals[name] = totals.get(name, 0) + value
            shutil.rmtree(top / str(seed))
    finally:
        shutil.rmtree(top, ignore_errors=True)
    share = round(100 * totals["failed_writes"] / max(1, totals["writes"]), 1)
    found = {"engine": given.engine, "schedules": given.schedules, "processes": given.processes, **totals}
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps(found | {"failed_percent": share, **dict.fromkeys(zeroes, 0), "seconds": seconds}))
    return 0 if share >= 40 or given.schedules < 3 else 1


def main(argv: list[str] | None = None) -> int:
    """See `command`."""

    def play_one(seed: int, kind: str, processes: int, directory: Path) -> dict[str, int]:
        counted = run_schedule(seed, kind=kind, processes=processes, directory=directory / "faults")
        same_decisions(seed, kind=kind, directory=directory / "decisions")
        return counted

    return command(argv, play_one, about=__doc__, zeroes=("overshoot", "lost", "doubled"))


if __name__ == "__main__":
    raise SystemExit(main())
