"""
Many processes spend one budget through leases by seeded schedules, while requests fail and one process is killed.

    python tests/lease_schedules.py --engine sqlite --schedules 1000
    .ci/dynamodb python tests/lease_schedules.py --engine dynamodb --schedules 300

As in `fault_schedules`, with a leased store in each of the eight processes: calls are paid out of slices, handed over,
raised, extended, released and overrun; slices are taken, added to, written, given back idle, and in every third
schedule lost, because all that is open expires in the midst of it. Some 46 of every hundred requests that write fail.
Each process notes what a call has cost before it tells its store, and that is the truth. In the end:

- overshoot: no account was ever above its limit, but for recorded overruns;
- under-recording: whatever was spent is charged, also what the killed process never wrote (but for the part of a bill
  above the hold, or above its own first word, that it was killed before it could tell);
- lost, doubled: calls of the others are in the books once, with the same amount; balances are what the records add up
  to; nothing is charged for slices but for those that the killed process had.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fault_schedules import KEY, ORG, TTL_MS, USERS, Call, Engine, Killed, _client, _whole_lines, command, insist, play
from rr_ledger import START_MS, facts
from runrails.errors import StoreUnavailable
from runrails.ledger import Account, Hold, Refused, Reservation, Reserved
from runrails.stores.leased import LeasedStore
from runrails.stores.leases import Lease
from runrails.stores.records import differences
from runrails.testing import ManualClock

CALLS = 24
KILLED_WITHIN = 25
"""Writes; every process makes more."""
SLICE = 60
LEASE = Lease(slice="0.00000000006", ttl_ms=TTL_MS, share=3, checkpoint_calls=3)
SLICES_MAX = 3
"""Of one group at once: the current one, the one fetched beforehand, and one whose answer was lost."""


def calls_of(seed: int, process: int) -> list[Call]:
    """What a process does in a schedule; decided by the seed alone."""
    rng = random.Random(f"lease/{seed}/{process}")
    limits = {ORG: 900 + seed % 100, KEY: 800, USERS[0]: 450, USERS[1]: 500}
    calls: list[Call] = []
    run = f"s{seed}p{process}"
    for number in range(CALLS):
        accounts = (Account(f"run:{run}", "-"), USERS[rng.randrange(2)], KEY, ORG)
        amount = rng.choice((0, 3, 5, 8, 12, 12, 40))
        holds = tuple(Hold(account, amount, limits.get(account, 360)) for account in accounts)
        reservation = Reservation(f"{run}c{number}", holds, 20 * TTL_MS, facts(run=run, step=number))
        end = rng.choice(("settle",) * 6 + ("release", "stand-in", "twice"))
        raised = amount + rng.choice((1, 9, 45)) if rng.random() < 0.2 else 0
        overrun = 7 if rng.random() < 0.1 else 0
        actual = amount + overrun if overrun else rng.randint(0, amount)
        calls.append(Call(reservation, raised, rng.random() < 0.15, actual, end))
    return calls


class Aging:
    """A leased store that gets older, and is looked after, between its verbs."""

    def __init__(self, shared: Any, rng: random.Random) -> None:
        self._monotonic = ManualClock(0)
        self._rng = rng
        self._store = LeasedStore(
            shared, LEASE, clock=ManualClock(START_MS), monotonic=self._monotonic, background=False, stale_ms=0
        )

    def __getattr__(self, name: str) -> Any:
        (age_ms,) = self._rng.choices((0, 300, 2_500, 31_000), (80, 15, 3, 2))
        self._monotonic.advance(age_ms)
        if self._rng.random() < 0.3:
            self._store.tick()
        return getattr(self._store, name)

    def raise_hold(self, name: str, amount: int) -> Reserved | Refused:
        """Half of the callers go on without, if the store does not answer."""
        try:
            return self.__getattr__("raise_hold")(name, amount)  # type: ignore[no-any-return]
        except StoreUnavailable:
            if self._rng.random() < 0.5:
                raise
            return Refused(ORG, 0, 0, 0, amount)

    def end(self) -> None:
        """Nothing is left to be written."""
        insist(self._store._moves.give_back_all)
        self._store.close()


def run_schedule(seed: int, *, kind: str, processes: int, directory: Path) -> dict[str, int]:
    """One schedule. Returns what was counted; raises AssertionError where the books are wrong."""
    directory.mkdir()
    engine = Engine(directory, kind=kind)
    engine.plain(START_MS).close()
    if kind == "dynamodb":
        _client("child")
    rng = random.Random(f"lease/{seed}")
    killed_at = Killed(rng.randrange(processes), rng.randrange(KILLED_WITHIN), rng.random() < 0.5)
    lost_after_s = rng.random() * 0.3 if seed % 3 == 0 else None
    children = [_fork(engine, seed, process, killed_at, directory) for process in range(processes)]
    statuses, peak = _watch(engine, children, lost_after_s)
    dead = [child for child, status in statuses.items() if os.WIFSIGNALED(status)]
    assert [signal.SIGKILL] == [os.WTERMSIG(statuses[child]) for child in dead], "not one process was killed"
    assert not [child for child in children if child not in dead and statuses[child]], "a process failed"
    counted = check(engine, seed, processes, directory, peak, killed_at.process)
    engine.drop()
    return counted | {"killed": len(dead)}


def _watch(
    engine: Engine, children: list[int], lost_after_s: float | None
) -> tuple[dict[int, int], dict[Account, int]]:  # fmt: skip
    """Until all have ended: their statuses, and how far any account was above its limit."""
    watcher, late = engine.plain(START_MS), engine.plain(START_MS + TTL_MS)
    began, peak, statuses = time.monotonic(), dict[Account, int](), dict[int, int]()
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    statuses[child] = status
        if lost_after_s is not None and time.monotonic() - began >= lost_after_s:
            late.expire()
            lost_after_s = None
        for account in (ORG, *USERS):
            balance = watcher.balance(account)
            peak[account] = max(peak.get(account, 0), balance.spent + balance.held - (balance.limit or 0))
        time.sleep(0.01)
    for store in (watcher, late):
        store.close()
    return statuses, peak


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

            rng = random.Random(f"lease/{seed}/{process}/faults")
            shared = engine.faulty(rng, killed_at if killed_at.process == process else None, count)
            store = Aging(shared, rng)
            play(store, calls_of(seed, process), note)
            store.end()
            note(["writes", *count])
        code = 0
    except BaseException:
        traceback.print_exc()
        print(f"seed {seed}, process {process}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def check(
    engine: Engine, seed: int, processes: int, directory: Path, peak: dict[Account, int], killed: int
) -> dict[str, int]:  # fmt: skip
    """Compare the books with the notes, once everything has expired that the dead process had."""
    store = engine.plain(START_MS + 100 * TTL_MS)
    while store.expire().ids:
        pass
    calls = {call.reservation.id: call for n in range(processes) for call in calls_of(seed, n)}
    records = {record.id: record for record in store.records() if not record.id.startswith("lease.")}
    counted = dict.fromkeys(("calls", "admitted", "dead_calls", "writes", "failed_writes"), 0)
    truth: dict[Account, int] = {}
    overruns = 0
    for process in range(processes):
        told: dict[str, dict[str, list[Any]]] = {}
        for line in map(json.loads, _whole_lines(directory / f"notes-{process}")):
            if line[0] == "writes":
                counted["writes"] += line[1]
                counted["failed_writes"] += line[2]
            else:
                told.setdefault(line[1], {})[line[0]] = line
        for name, said in told.items():
            cost = said["settle"][2] if "settle" in said else 0
            most = 1 if calls[name].end == "stand-in" else said["reserve"][2]
            overruns += max(0, cost - most)
            if "settled" not in said:
                cost = min(cost, most)  # More than it held, or said at first, nobody has been told.
            for hold in calls[name].reservation.holds:
                truth[hold.account] = truth.get(hold.account, 0) + cost
            if process == killed:
                counted["dead_calls"] += "reserved" in said and name not in records
            else:
                _check_told(name, said, records.get(name))
        counted["calls"] += len(told)
    counted["admitted"] = len(records)
    counted["slices"] = _check_books(store, truth, overruns, peak, killed_runs=f"run:s{seed}p{killed}")
    store.close()
    return counted


def _check_told(name: str, said: dict[str, list[Any]], record: Any) -> None:
    """What a process was told stands in the books."""
    if "refused" in said:
        assert record is None, f"{name} was refused and is in the books"
        return
    assert record is not None, f"{name} was reserved and is not in the books"
    wanted = ("released", 0) if "released" in said else (record.state, said["settled"][2])
    assert wanted == (record.state, record.actual), f"{name} is {record.state} at {record.actual}, not {wanted}"
    assert record.state in {"released", "settled", "late"}, f"{name} is {record.state}"


def _check_books(
    store: Any, truth: dict[Account, int], overruns: int, peak: dict[Account, int], *, killed_runs: str
) -> int:
    """How many slices there were."""
    accounts, wrong = differences(store.sums())
    assert not wrong, f"balances are not what the records add up to: {wrong}"
    for account, above in peak.items():
        assert above <= overruns, f"{account.scope} was {above} above its limit, with overruns of {overruns}"
    for balance in store.balances():
        spent = truth.get(balance.account, 0)
        assert 0 == balance.held, f"{balance.account.scope} still holds {balance.held}"
        assert spent <= balance.spent, f"{spent - balance.spent} of {balance.account.scope} are not in the books"
        above = balance.spent - (balance.limit or balance.spent)
        assert above <= overruns, f"{balance.account.scope} ended {above} above its limit"
    charged = slices = 0
    for record in store.records():
        slices += record.id.startswith("lease.")
        if record.id.startswith("lease.") and record.actual:
            scopes = {hold.account.scope for hold in record.holds}
            assert killed_runs in scopes, f"{record.actual} are charged for a slice of a process that lives"
            charged += record.actual
    assert charged <= SLICES_MAX * SLICE * len(USERS), f"{charged} are charged for the slices of one process"
    assert accounts
    return slices


def main(argv: list[str] | None = None, run: Callable[..., dict[str, int]] = run_schedule) -> int:
    """See `fault_schedules.command`."""

    def play_one(seed: int, kind: str, processes: int, directory: Path) -> dict[str, int]:
        return run(seed, kind=kind, processes=processes, directory=directory / "books")

    return command(argv, play_one, about=__doc__, zeroes=("overshoot", "under_recorded", "lost", "doubled"))


if __name__ == "__main__":
    raise SystemExit(main())
