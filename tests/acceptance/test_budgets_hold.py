"""Many threads and processes on one budget: not a picodollar over, not a call lost, and the provider's bill agrees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from rr_core import CENT
from rr_worker import spend
from runrails import Guard, Limits
from runrails.clocks import system_ms
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import PRICES, FakeProvider
from runrails.testing.provider import Delay, Stall, Text

WORKER = Path(__file__).parent.parent / "rr_worker.py"
MODEL_20_MS = Delay(20, Text("ok"))


def _month() -> Account:
    return Account("user:alice", month_of(system_ms()))


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_sixty_four_threads_admit_exactly_one_hundred_calls(engine: str, tmp_path: Path) -> None:
    """A cent a call against a dollar with a 20 ms model: 100 calls, and the ledger equals the bill."""
    store = MemoryStore() if engine == "memory" else SQLiteStore(tmp_path / "ledger.db")
    limits = Limits(run="1.00", steps=None, hold_wait_ms=30_000)
    with FakeProvider(MODEL_20_MS) as provider, Guard(limits, user="alice", store=store, prices=PRICES) as guard:
        run = guard.run()
        tally: Counter[str] = Counter()
        threads = [threading.Thread(target=spend, args=(run, provider.openai_url, tally)) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        balance = store.balance(Account(f"run:{run.id}", "-"))
        billed = provider.bill.total_pusd()
    store.close()

    assert (100, 100 * CENT, 0) == (tally["admitted"], balance.spent, balance.held)
    assert billed == balance.spent == run.report().cost_pusd


def test_eight_processes_of_eight_threads_share_one_file(tmp_path: Path) -> None:
    """Eight processes on one SQLite ledger: 100 calls in all, and the ledger equals the bill."""
    path = tmp_path / "ledger.db"
    with FakeProvider(MODEL_20_MS) as provider:
        command = [sys.executable, str(WORKER), provider.openai_url, f"sqlite:///{path}", "8"]
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert "ready\n" == worker.stdout.readline()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        tallies = [json.loads(worker.communicate(timeout=100)[0]) for worker in workers]
        admitted = [tally.get("admitted", 0) for tally in tallies]
        billed = provider.bill.total_pusd()
    store = SQLiteStore(path)
    balance = store.balance(_month())
    store.close()

    assert [0] * 8 == [worker.returncode for worker in workers]
    assert (100, 100 * CENT, 0) == (sum(admitted), balance.spent, balance.held)
    assert billed == balance.spent
    assert sum(count > 0 for count in admitted) >= 4, "the processes did not really race"


def test_a_process_killed_in_the_middle_of_a_call_loses_nothing(tmp_path: Path) -> None:
    """`kill -9` while the provider works: the hold stays, expires charged, and the totals agree with the bill."""
    path = tmp_path / "ledger.db"
    stall = threading.Event()
    with FakeProvider(Stall(stall, Text("too late"))) as provider:
        command = [sys.executable, str(WORKER), provider.openai_url, f"sqlite:///{path}", "3"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            provider.wait_received(3, timeout_s=30)
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        stall.set()
        provider.wait_idle()
        billed = provider.bill.total_pusd()
    before = SQLiteStore(path)
    assert (0, 3 * CENT) == (before.balance(_month()).spent, before.balance(_month()).held)
    assert () == before.expire().ids
    before.close()
    later = SQLiteStore(path, clock=lambda: system_ms() + 200_000)
    assert len(later.expire().ids) == 3
    balance = later.balance(_month())
    later.close()

    assert (billed, 0) == (balance.spent, balance.held)
    assert billed == 3 * CENT
