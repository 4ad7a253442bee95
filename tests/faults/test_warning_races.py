"""Who sends a warning, when many threads of many processes cross a limit at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rr_ledger import START_MS
from runrails.stores.sqlite import SQLiteStore

WINDOW_MS = 6 * 3_600_000
PROCESSES = 4

WORKER = """
import os, sys, threading
from runrails import Guard, Limits, Price
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.notify import Notifier
from runrails.stores.sqlite import SQLiteStore
from runrails.usage import Usage

path, now_ms, threads_count, heard = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
out = os.open(heard, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
store = SQLiteStore(path, clock=lambda: now_ms, synchronous="NORMAL", busy_timeout_ms=30_000)
guard = Guard(
    Limits(run=None, month="0.75", steps=None), user="alice", store=store, prices={"cent": Price(call="0.01")},
    sinks=[Notifier(lambda event: os.write(out, f"{event.name} {os.getpid()}\\n".encode()))], clock=lambda: now_ms,
)
run = guard.run()
call = ModelCall(model="cent", prompt=Prompt(texts=("hi",), messages=1), max_tokens=10)
done = ModelResult(end="completed", usage=Usage(input_tokens=1, output_tokens=1))

def spend():
    run.after_model(run.before_model(call), done)

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=spend) for _ in range(threads_count)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
guard.close()
"""


def crossed(directory: Path, now_ms: int, threads: int) -> list[str]:
    """Let four processes spend a cent in each of their threads; what has been sent so far."""
    heard = directory / "heard"
    arguments = [str(directory / "ledger.db"), str(now_ms), str(threads), str(heard)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout and "ready\n" == worker.stdout.readline()
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=90)
        assert 0 == worker.returncode
    return [line.split()[0] for line in heard.read_text().splitlines()]


def test_one_warning_in_the_window_and_another_after_it(tmp_path: Path) -> None:
    """64 threads in 4 processes go past 80 %: one notice. Later in the window none, after it one more."""
    SQLiteStore(tmp_path / "ledger.db").close()

    assert ["runrails.budget_warned"] == crossed(tmp_path, START_MS, 16)
    assert ["runrails.budget_warned"] == crossed(tmp_path, START_MS + WINDOW_MS - 1, 1)
    assert ["runrails.budget_warned"] * 2 == crossed(tmp_path, START_MS + WINDOW_MS, 1)
    store = SQLiteStore(tmp_path / "ledger.db")
    (row,) = store.deliveries()
    store.close()
    assert (2, 0, 0) == row[1:4]
