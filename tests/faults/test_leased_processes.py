"""Eight processes lease from one SQLite file and spend one user's budget; some are killed. The books are exact."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from rr_ledger import CENT, DOLLAR, FOUR, amounts
from runrails.clocks import system_ms
from runrails.stores.leases import Lease
from runrails.stores.records import differences
from runrails.stores.sqlite import SQLiteStore

WORKER = Path(__file__).parents[1] / "rr_lease_worker.py"
PROCESSES = 8
KILLED = 3
LIMIT = 60 * DOLLAR
SLICE = 20 * CENT
TTL_MS = 60_000


def start(url: str, log: Path, seed: int) -> subprocess.Popen[str]:
    """A worker that waits for a line on its standard input."""
    return subprocess.Popen(
        [sys.executable, str(WORKER), url, str(log), str(seed), str(LIMIT)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def truth(log: Path) -> int:
    """What that process has really spent."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return sum(map(int, lines))


def kill_some(workers: list[subprocess.Popen[str]], logs: list[Path]) -> None:
    """Kill three of them, each in the midst of its work."""
    deadline = time.monotonic() + 60
    for n in range(KILLED):
        while (not logs[n].exists() or logs[n].stat().st_size < 500 * (n + 1)) and time.monotonic() < deadline:
            time.sleep(0.002)
        workers[n].kill()


def test_eight_processes_and_three_crashes_are_exact(tmp_path: Path) -> None:
    """
    No limit is passed, no picodollar is missing, and survivors' books are exact; a crash costs at most its slices.

    Once all were refused, less than one call's money is left.
    """
    path = tmp_path / "ledger.db"
    SQLiteStore(path).close()
    url = f"sqlite:///{path}?synchronous=normal&lease=user,key,org&lease_slice=0.20&lease_ttl_s={TTL_MS // 1_000}"
    logs = [tmp_path / f"log{n}" for n in range(PROCESSES)]
    workers = [start(url, log, seed) for seed, log in enumerate(logs)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert "ready\n" == worker.stdout.readline()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        kill_some(workers, logs)
        for worker in workers[KILLED:]:
            worker.wait(timeout=100)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert [0] * (PROCESSES - KILLED) == [worker.returncode for worker in workers[KILLED:]]
    spent = [truth(log) for log in logs]
    early = SQLiteStore(path)
    for account in FOUR:
        assert sum(spent) <= sum(amounts(early, account)) <= LIMIT
        assert LIMIT - sum(amounts(early, account)) < CENT
    early.close()
    late = SQLiteStore(path, clock=lambda: system_ms() + TTL_MS)
    outstanding = amounts(late)[1]
    while late.expire().ids:
        pass
    for account in FOUR:
        now_spent, held = amounts(late, account)
        assert 0 == held
        assert sum(spent) <= now_spent <= LIMIT
        assert now_spent - sum(spent) <= KILLED * 2 * SLICE  # the current slice, and the one fetched beforehand
    written = sum(record.actual_pusd or 0 for record in late.usage())
    assert sum(spent[KILLED:]) <= written <= sum(spent)
    assert now_spent == written + outstanding
    assert (len(FOUR), []) == differences(late.sums())
    late.close()
    assert all(spent)
    assert Lease(slice="0.20").slice_pusd == SLICE
