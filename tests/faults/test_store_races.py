"""Threads and processes really race for one ledger, and processes are really killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rr_dynamo import ENDPOINT
from rr_ledger import CENT, DOLLAR, FOUR, MONTH, START_MS, TTL_MS, USER, amounts, booking, facts, open_kind
from runrails.ledger import Account, Expired, FullStore, Reserved
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

ENGINES = ("memory", "sqlite-normal", *(["dynamodb"] if ENDPOINT else []))
ORG = Account("org:acme", MONTH)


def together(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in many threads that start at the same moment; the first error is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def one(n: int) -> None:
        try:
            barrier.wait()
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def program(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process running `text`, with the stores and this suite's helpers imported."""
    head = (
        "import sys, os, threading\n"
        "from rr_ledger import *\n"
        "from runrails.ledger import *\n"
        "from runrails.stores.sqlite import SQLiteStore\n"
        "from runrails.testing import ManualClock\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + text, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ENGINES)
def test_sixty_four_threads_are_exact(kind: str, tmp_path: Path) -> None:
    """64 threads with one-cent calls get exactly one hundred into a dollar, in all four accounts at once."""
    store = open_kind(kind, tmp_path, ManualClock(START_MS), busy_timeout_ms=60_000)
    admitted: list[str] = []

    def work(n: int) -> None:
        for k in range(4):
            name = f"t{n}-{k}"
            if isinstance(store.reserve(booking(name, CENT, *FOUR, limit=DOLLAR)), Reserved):
                admitted.append(name)
                store.settle(name, CENT)

    together(64, work)
    assert 100 == len(admitted)
    assert [(DOLLAR, 0)] * 4 == [amounts(store, account) for account in FOUR]
    store.close()


def test_eight_processes_of_eight_threads_are_exact(tmp_path: Path) -> None:
    """8 processes × 8 threads on one file, made by whoever is first: exactly one hundred cents of a dollar."""
    path = tmp_path / "shared.db"
    text = """
store = SQLiteStore(sys.argv[1], synchronous="NORMAL", busy_timeout_ms=60_000)
won = []
def work(n):
    for k in range(4):
        name = f"p{os.getpid()}-{n}-{k}"
        if isinstance(store.reserve(booking(name, CENT, *FOUR, limit=DOLLAR)), Reserved):
            store.settle(name, CENT)
            won.append(name)
sys.stdin.read(1)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(won)); store.close()
"""
    processes = [program(text, str(path)) for _ in range(8)]
    admitted = [int(process.communicate("x")[0]) for process in _all_started(processes)]
    assert [0] * 8 == [process.returncode for process in processes]
    assert 100 == sum(admitted)
    with_store = SQLiteStore(path)
    assert [(DOLLAR, 0)] * 4 == [amounts(with_store, account) for account in FOUR]
    with_store.close()


def _all_started(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    return processes


STEPS = {
    "before the reserve": ("", (0, 0)),
    "after the reserve": ("reserve", (CENT, 0)),
    "after the settle": ("reserve settle", (7, 0)),
    "inside the reserve": ("cut-reserve", (0, 0)),
    "inside the settle": ("reserve cut-settle", (CENT, 0)),
}


@pytest.mark.parametrize("step", STEPS)
def test_kill_nine_between_steps_loses_nothing(tmp_path: Path, step: str) -> None:
    """
    A process killed at any point leaves the books right: what it did not finish is not there at all, an open hold is
    charged when its time is over, and a settled call stays settled.
    """
    path = tmp_path / "ledger.db"
    verbs, expected = STEPS[step]
    text = """
class Clock:
    cut = False
    def __call__(self):
        if self.cut: os.kill(os.getpid(), 9)   # the clock is read inside the step, before anything of it is kept
        return START_MS
clock = Clock()
store = SQLiteStore(sys.argv[1], clock=clock, synchronous="NORMAL")
for verb in sys.argv[2].split():
    clock.cut = verb.startswith("cut")
    if verb.endswith("reserve"): store.reserve(booking("a", CENT, *FOUR, facts=facts(), ttl_ms=TTL_MS))
    else: store.settle("a", 7)
os.kill(os.getpid(), 9)
"""
    process = program(text, str(path), verbs)
    process.communicate()
    assert -signal.SIGKILL == process.returncode
    clock = ManualClock(START_MS + TTL_MS)
    store = SQLiteStore(path, clock=clock)
    assert store.expire() == Expired(("a",) if expected == (CENT, 0) else ())
    assert [expected] * 4 == [amounts(store, account) for account in FOUR]
    store.close()


def test_kill_nine_inside_a_write_rolls_back(tmp_path: Path) -> None:
    """Killed after the accounts were written and before the end of the step, nothing of the step is there."""
    path = tmp_path / "ledger.db"
    text = """
store = SQLiteStore(sys.argv[1], clock=ManualClock(START_MS), synchronous="FULL")
store.reserve(booking("first", CENT, *FOUR))
def cut(statement):
    if statement.startswith("INSERT INTO reservation") or statement == "COMMIT": os.kill(os.getpid(), 9)
store._file._connection.set_trace_callback(cut)
store.reserve(booking("a", CENT, *FOUR))
"""
    process = program(text, str(path))
    process.communicate()
    assert -signal.SIGKILL == process.returncode
    store = SQLiteStore(path, clock=ManualClock(START_MS))
    assert [(0, CENT)] * 4 == [amounts(store, account) for account in FOUR]
    assert Reserved("a") == store.reserve(booking("a", CENT, *FOUR))
    store.close()


@pytest.mark.parametrize("kind", ENGINES)
def test_racing_reclaimers_resolve_each_hold_once(kind: str, tmp_path: Path) -> None:
    """Two (here eight) reclaimers share the dead holds between them: each is named by exactly one."""
    clock = ManualClock(START_MS)
    store = open_kind(kind, tmp_path, clock, busy_timeout_ms=60_000)
    for n in range(50):
        store.reserve(booking(f"d{n}", CENT, ttl_ms=TTL_MS))
    clock.advance(TTL_MS)
    named: list[str] = []

    def reclaim(_: int) -> None:
        while ids := store.expire(count_max=3).ids:
            named.extend(ids)

    together(8, reclaim)
    assert sorted(f"d{n}" for n in range(50)) == sorted(named)
    assert (50 * CENT, 0) == amounts(store)
    store.close()


@pytest.mark.parametrize("kind", ENGINES)
def test_settle_racing_expiry_leaves_the_true_cost(kind: str, tmp_path: Path) -> None:
    """Whoever is first, the owner or the reclaimer, the books end at what the call cost."""
    clock = ManualClock(START_MS)
    store = open_kind(kind, tmp_path, clock, busy_timeout_ms=60_000)
    for n in range(40):
        store.reserve(booking(f"c{n}", CENT, on_expiry="release" if n % 2 else "charge", ttl_ms=TTL_MS))
    clock.advance(TTL_MS)

    def race(k: int) -> None:
        if k % 2:
            while store.expire(count_max=1).ids:
                pass
        else:
            for n in range(40):
                store.settle(f"c{n}", 7)

    together(4, race)
    assert (40 * 7, 0) == amounts(store)
    assert {"settled", "late"} >= {record.state for record in store.usage()}
    store.close()


@pytest.mark.parametrize("kind", ENGINES)
def test_one_of_many_callers_sends_the_warning(kind: str, tmp_path: Path) -> None:
    """64 threads claim a warning at once: one gets it."""
    store = open_kind(kind, tmp_path, ManualClock(START_MS), busy_timeout_ms=60_000)
    won: list[bool] = []
    together(64, lambda _: won.append(store.claim_warning(USER, "warning")))
    assert 1 == won.count(True)
    store.close()


@pytest.mark.parametrize("kind", ENGINES)
def test_the_same_id_from_many_threads_is_one_call(kind: str, tmp_path: Path) -> None:
    """A reservation repeated by 16 threads at once is taken once and settled once."""
    store = open_kind(kind, tmp_path, ManualClock(START_MS), busy_timeout_ms=60_000)
    answers: list[tuple[bool, bool]] = []

    def work(_: int) -> None:
        reserved = store.reserve(booking("a", CENT, *FOUR, facts=facts()))
        assert isinstance(reserved, Reserved)
        answers.append((reserved.replayed, store.settle("a", 7).replayed))

    together(16, work)
    assert (15, 15) == (sum(first for first, _ in answers), sum(second for _, second in answers))
    assert [(7, 0)] * 4 == [amounts(store, account) for account in FOUR]
    store.close()


def test_a_fork_gets_a_connection_of_its_own(tmp_path: Path) -> None:
    """A store made before a fork works on both sides of it, also while other threads use it, and loses nothing."""
    path = tmp_path / "ledger.db"
    text = """
store = SQLiteStore(sys.argv[1], clock=ManualClock(START_MS), synchronous="NORMAL", busy_timeout_ms=60_000)
stop = threading.Event()
def busy():
    n = 0
    while not stop.is_set():
        store.reserve(booking(f"t{n}", 1)); store.settle(f"t{n}", 1); n += 1
    print("threads", n, flush=True)
thread = threading.Thread(target=busy); thread.start()
children = []
for n in range(5):
    pid = os.fork()
    if pid == 0:
        try:
            for k in range(20):
                store.reserve(booking(f"f{n}-{k}", 1)); store.settle(f"f{n}-{k}", 1)
            store.close()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True); os._exit(1)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
stop.set(); thread.join()
print("codes", codes, flush=True)
store.close()
"""
    process = program(text, str(path))
    said = process.communicate()[0]
    assert 0 == process.returncode, said
    counts = dict(line.split(" ", 1) for line in said.splitlines())
    assert str([0] * 5) == counts["codes"]
    store = SQLiteStore(path)
    assert (int(counts["threads"]) + 100, 0) == amounts(store)
    store.close()


@pytest.mark.parametrize("fault", ["request_lost", "response_lost"])
@pytest.mark.parametrize("kind", ENGINES)
def test_a_repeated_verb_after_a_lost_message_counts_once(kind: str, fault: str, tmp_path: Path) -> None:
    """Whether the request or the answer was lost, repeating the verb with its id leaves one call in the books."""
    from runrails.errors import StoreUnavailable
    from runrails.testing import FlakyStore

    inner = open_kind(kind, tmp_path, ManualClock(START_MS))
    store: FullStore = FlakyStore(inner, [fault, "ok", fault, "ok"])  # type: ignore[list-item]
    with pytest.raises(StoreUnavailable):
        store.reserve(booking("a", CENT, *FOUR, limit=CENT))
    replayed = fault == "response_lost"
    assert Reserved("a", replayed=replayed) == store.reserve(booking("a", CENT, *FOUR, limit=CENT))
    with pytest.raises(StoreUnavailable):
        store.settle("a", 7)
    assert replayed == store.settle("a", 7).replayed
    assert [(7, 0)] * 4 == [amounts(inner, account) for account in FOUR]
    inner.close()


def test_a_full_memory_store_forgets_ended_calls_only(tmp_path: Path) -> None:
    """Beyond records_max the oldest ended records go; open holds, and every balance, stay."""
    from runrails.errors import UnknownReservation
    from runrails.stores.memory import MemoryStore

    store = MemoryStore(clock=ManualClock(START_MS), records_max=10)
    store.reserve(booking("open", 5, facts=facts()))
    for n in range(11):
        store.reserve(booking(f"c{n}", CENT, facts=facts()))
        store.settle(f"c{n}", 1)
    assert ["open", *(f"c{n}" for n in range(1, 11))] == [record.id for record in store.usage()]
    assert (11, 5) == amounts(store)
    with pytest.raises(UnknownReservation):
        store.settle("c0", 1)
    assert 5 == store.settle("open", 5).actual
