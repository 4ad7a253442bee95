"""Threads, payers, tags and nested runs at random: reports, groups, balances and usage are what was charged."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from rr_core import Bench
from runrails import Attribution, Limits
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.ledger import FullStore, Store
from runrails.periods import month_of
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.usage import Usage

MONTH_ENDS_MS = 1_796_083_200_000
"""Midnight of 1 December 2026, UTC."""
THREADS = 4
CALLS = 40
INPUT_PUSD, OUTPUT_PUSD = 10_000_000, 30_000_000
"""Of the model `tokens`: $10 and $30 a million."""
USERS = ("alice", "bob", "carol", "d.o_ra-9", None)
KEYS = ("k1", "k2", None, None)
ORGS = ("acme", "umbrella", None)
TAGS = ({"team": "ads"}, {"team": "search", "env": "prod"}, {"env": "test", "ü".encode().hex(): "語 é -_"}, None)
STORES: dict[str, Callable[[ManualClock, Path], Store]] = {
    "memory": lambda clock, _: MemoryStore(clock=clock),
    "sqlite": lambda clock, path: SQLiteStore(path / "books.db", clock=clock, synchronous="NORMAL"),
}
Said = dict[str, object]


def said_by(chance: random.Random) -> Said:
    """What one place says, field by field."""
    said = {
        "user": chance.choice(USERS), "key": chance.choice(KEYS), "org": chance.choice(ORGS),
        "tags": chance.choice(TAGS),
    }  # fmt: skip
    return {name: value for name, value in said.items() if value is not None}


class Payer:
    """Independent bookkeeping of whose a call is: plain dictionaries, the newer word over the older one."""

    def __init__(self, ids: dict[str, str], tags: dict[str, str]) -> None:
        self.ids = ids
        self.tags = tags

    def over(self, said: Said) -> Payer:
        ids = {name: str(said[name]) for name in ("user", "key", "org") if name in said}
        tags = said.get("tags", {})
        assert isinstance(tags, dict)
        return Payer({**self.ids, **ids}, {**self.tags, **tags})

    def groups(self) -> dict[str, str]:
        """Name of each group it is in."""
        return self.ids | {f"tag:{name}": value for name, value in self.tags.items()}


class Books:
    """What every call should have come to, written down by the test itself. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.accounts: Counter[tuple[str, str]] = Counter()
        self.by_run: dict[str, dict[str, dict[str | None, list[int]]]] = defaultdict(dict)
        self.all: dict[str, dict[str | None, list[int]]] = {}
        self.calls: Counter[str] = Counter()

    def add(self, payer: Payer, runs: list[str], month: str, usage: Usage) -> None:
        """One call of these runs, the innermost first."""
        cost = usage.input_tokens * INPUT_PUSD + usage.output_tokens * OUTPUT_PUSD
        with self._lock:
            for kind, name in payer.ids.items():
                self.accounts[f"{kind}:{name}", month] += cost
            for run in runs:
                self.accounts[f"run:{run}", "-"] += cost
                self._sum(self.by_run[run], payer, usage, cost)
                self.calls[run] += 1
            self._sum(self.all, payer, usage, cost)

    def _sum(self, sums: dict[str, dict[str | None, list[int]]], payer: Payer, usage: Usage, cost: int) -> None:
        groups = payer.groups()
        for dimension in DIMENSIONS:
            row = sums.setdefault(dimension, {}).setdefault(groups.get(dimension), [0, 0, 0, 0])
            for at, amount in enumerate((1, usage.input_tokens, usage.output_tokens, cost)):
                row[at] += amount


DIMENSIONS = ("user", "key", "org", *sorted({f"tag:{name}" for tags in TAGS if tags for name in tags}))


class Worker:
    """One thread's random calls: in runs and blocks, nested or not, some settled elsewhere, some given back."""

    def __init__(self, bench: Bench, books: Books, shared: Run, guards: Payer, seed: int) -> None:
        self.bench = bench
        self.books = books
        self.shared = shared
        self.guards = guards
        self.chance = random.Random(seed)
        self.left: list[tuple[Run, object, Payer, list[str], str, Usage]] = []

    def __call__(self) -> None:
        for _ in range(4):
            self._block(depth=0, runs=[(self.shared, self.guards)], around={})
        self._settle_some(len(self.left))

    def _block(self, *, depth: int, runs: list[tuple[Run, Payer]], around: Said) -> None:
        """Say something, open a run, or both; then call models and go deeper."""
        chance, guard = self.chance, self.bench.guard
        with ExitStack() as stack:
            if chance.random() < 0.5:
                said = said_by(chance)
                stack.enter_context(guard.attribute(**said))  # type: ignore[arg-type]
                around = _merged(around, said)
            if chance.random() < 0.5:
                said = said_by(chance)
                inside = runs[-1] if len(runs) > 1 else None
                payer = (self.guards if inside is None else inside[1].over({})).over(said)
                run = stack.enter_context(guard.run(**said))  # type: ignore[arg-type]
                own = payer.over(around)
                runs = [*runs, (run, own)]
            for _ in range(chance.randrange(CALLS // 8)):
                self._call(runs, around)
            if depth < 3:
                for _ in range(chance.randrange(3)):
                    self._block(depth=depth + 1, runs=runs, around=around)
            self._settle_some(chance.randrange(3))

    def _call(self, runs: list[tuple[Run, Payer]], around: Said) -> None:
        chance = self.chance
        at = chance.randrange(len(runs))
        run, payer = runs[at]
        own = said_by(chance) if chance.random() < 0.3 else None
        payer = payer.over(around) if own is None else payer.over(around).over(own)
        call = ModelCall(
            model="tokens", prompt=Prompt(texts=("hello there",), messages=1), max_tokens=50, agent=chance.choice("ab"),
            by=None if own is None else Attribution(**own),  # type: ignore[arg-type]
        )  # fmt: skip
        # The shared run is nobody's child; the others are each the child of the one before.
        ids = [self.shared.id] if at == 0 else [run.id for run, _ in reversed(runs[1 : at + 1])]
        permit = run.before_model(call)
        month = month_of(permit.started_ms)
        usage = Usage(input_tokens=chance.randrange(1, 12), output_tokens=chance.randrange(50))
        if chance.random() < 0.1:
            run.withdraw(permit)
        elif chance.random() < 0.3:
            self.left.append((run, permit, payer, ids, month, usage))
        else:
            run.after_model(permit, ModelResult(end="completed", usage=usage))
            self.books.add(payer, ids, month, usage)

    def _settle_some(self, count: int) -> None:
        for _ in range(min(count, len(self.left))):
            run, permit, payer, ids, month, usage = self.left.pop(self.chance.randrange(len(self.left)))
            with self.bench.guard.attribute(user="nobody-pays", org="nobody-pays"):
                run.after_model(permit, ModelResult(end="completed", usage=usage))  # type: ignore[arg-type]
            self.books.add(payer, ids, month, usage)


def _merged(older: Said, newer: Said) -> Said:
    tags = [said["tags"] for said in (older, newer) if isinstance(said.get("tags"), dict)]
    merged = {**older, **newer}
    if tags:
        merged["tags"] = {name: value for each in tags for name, value in each.items()}  # type: ignore[attr-defined]
    return merged


def rows(found: object) -> dict[str | None, list[int]]:
    return {
        row.name: [row.calls, row.input_tokens, row.output_tokens, row.cost_pusd]
        for row in found  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("engine", STORES)
@pytest.mark.parametrize("seed", range(6))
def test_every_book_is_what_was_charged(engine: str, seed: int, tmp_path: Path) -> None:
    """Whoever pays, under whatever interleaving, and over the end of a month."""
    limits = Limits(run=None, steps=None, month="1000", key_month="1000", org_month="1000")
    clock = ManualClock(MONTH_ENDS_MS - 30_000)
    store = STORES[engine](clock, tmp_path)
    bench = Bench(limits, store=store, org="default-org")
    bench.clock = clock
    bench.guard.clock = clock
    books, errors = Books(), list[BaseException]()
    guards = Payer({"user": "alice", "org": "default-org"}, {})
    shared = bench.guard.run("shared")

    def work(number: int) -> None:
        try:
            Worker(bench, books, shared, guards, 1_000 * seed + number)()
        except BaseException as exc:  # it is raised below
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    clock.advance(60_000)  # into December, in the middle of it all; no hold expires
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    bench.guard.flush()

    assert isinstance(store, FullStore)
    found = {
        (balance.account.scope, balance.account.period): balance.spent for balance in store.balances() if balance.spent
    }
    assert {key: amount for key, amount in books.accounts.items() if amount} == found
    assert [] == [balance.account for balance in store.balances() if balance.held]
    for dimension in DIMENSIONS:
        assert books.all.get(dimension, {}) == rows(bench.guard.usage(dimension)), dimension
        expected = books.by_run[shared.id].get(dimension, {})
        if expected:
            assert expected == rows(shared.report().by(dimension)), dimension
    for run, count in books.calls.items():
        kept = store.run(run) if run != shared.id else None
        if kept is not None:
            groups = kept.report["groups"]
            assert isinstance(groups, dict)
            settled = sum(row["calls"] for row in groups["user"])
            assert settled <= count  # what settles after a run has ended is in the ledger alone
    bench.guard.close()
