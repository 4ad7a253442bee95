"""Guards of the code's own inside the run of a whole process: each call is paid once, and both budgets hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from runrails import BudgetExceeded, ConfigError, Guard, Limits, current_run
from runrails import current as here
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.cover import offer_cover, take_cover
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.testing import PRICES

CALL = ModelCall(model="fake-flat", prompt=Prompt(texts=("hi",), messages=1), max_tokens=16)
CENT = 10**10


class Process:
    """A store, and a process that is one run of it."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        self.store = MemoryStore()
        self.outer = self.guard(limits, user="bob", **options)
        self.outer.yields = True
        self.run = self.outer.run("all")

    def guard(self, limits: Limits, **options: Any) -> Guard:
        """A guard with the same books."""
        return Guard(limits, **{"store": self.store, "prices": PRICES, "sinks": [], **options})

    def spent(self, user: str) -> int:
        """Cents in this month."""
        account = Account(f"user:{user}", month_of(self.outer.clock()))
        return self.store.balance(account).spent // CENT


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    made = Process(Limits(run="0.05", month="0.04", steps=None))
    monkeypatch.setattr(here, "default", lambda: made.run)
    yield made
    made.outer.close()


def pay(run: Run, count: int = 1) -> None:
    for _ in range(count):
        run.after_model(run.before_model(CALL), ModelResult(end="completed"))


def test_the_run_of_the_process_is_there_without_a_context(process: Process) -> None:
    """In threads, which begin without one; and what is entered by `with` goes before it."""
    found: list[Run | None] = [current_run()]
    thread = threading.Thread(target=lambda: found.append(current_run()))
    thread.start()
    thread.join()
    with process.outer.run() as inner:
        found.append(current_run())

    assert [process.run, process.run, inner] == found
    assert inner.parent is process.run


def test_a_run_of_another_guard_is_part_of_it(process: Process) -> None:
    """With all of its own guard's limits, and drawing on every account of both guards, once."""
    guard = process.guard(Limits(run="0.02", month="9"), user="alice")
    run = guard.run()
    pay(run, 2)
    with pytest.raises(BudgetExceeded) as stop:
        pay(run)

    assert f"run:{run.id}" == stop.value.fields["scope"]
    assert (2, 2, 2) == (process.spent("alice"), process.spent("bob"), process.run.report().model_calls)
    assert process.run.stopped is None
    guard.close()


def test_the_outer_month_holds_inside(process: Process) -> None:
    """What the process may spend is not passed by a guard that allows more."""
    guard = process.guard(Limits(run="9", month="9"), user="alice")
    pay(process.run)
    run = guard.run()
    pay(run, 3)
    with pytest.raises(BudgetExceeded) as stop:
        pay(run)

    assert "user:bob" == stop.value.fields["scope"]
    assert (3, 4) == (process.spent("alice"), process.spent("bob"))
    guard.close()


@pytest.mark.parametrize(("own", "allowed"), [("0.02", 2), ("9", 4), (None, 4)])
def test_of_two_limits_of_one_user_the_lower_one_holds(process: Process, own: str | None, allowed: int) -> None:
    """The same user in both guards is one account, charged once."""
    guard = process.guard(Limits(run=None, month=own), user="bob")
    run = guard.run()
    pay(run, allowed)
    with pytest.raises(BudgetExceeded):
        pay(run)

    assert allowed == process.spent("bob")
    guard.close()


def test_a_stop_of_the_process_is_a_stop_inside(process: Process) -> None:
    """Whichever run finds that the budget of all is used up."""
    guard = process.guard(Limits(run="9"), user="alice")
    run = guard.run()
    process.run.latch.trip(BudgetExceeded(scope="x", period="-", unit="pusd", limit=1, spent=1, held=0, needed=1))
    with pytest.raises(BudgetExceeded):
        pay(run)

    assert (0, 0) == (process.spent("alice"), process.spent("bob"))
    guard.close()


def test_other_books_and_other_guards_are_refused(process: Process) -> None:
    """A budget could not be held over two stores; and guards of the code's own stay apart from each other."""
    elsewhere = process.guard(Limits(), store=MemoryStore())
    one, two = process.guard(Limits()), process.guard(Limits())
    with pytest.raises(ConfigError, match="another store"):
        elsewhere.run()
    with one.run(), pytest.raises(ConfigError, match="inside a run of another"):
        two.run()
    for guard in (elsewhere, one, two):
        guard.close()


def test_a_permit_covers_a_client_of_either_guard_below(process: Process) -> None:
    """One of the process is covered by a run inside it; one of the code's own pays, and the permit above is undone."""
    guard = process.guard(Limits(run="9", month="9"), user="alice")
    run = guard.run()
    inner = run.before_model(CALL)
    assert take_cover(process.outer, CALL)
    run.after_model(inner, ModelResult(end="completed"))

    outer = process.run.before_model(CALL)
    offer_cover(process.run, outer)
    assert not take_cover(guard, CALL)
    assert not process.run.is_open(outer.id)
    pay(run)

    assert (2, 2) == (process.spent("alice"), process.spent("bob"))
    assert 2 == process.run.report().model_calls
    guard.close()


def test_zones_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each account's month is that of its own guard."""
    made = Process(Limits(run=None, month="1"), zone="Pacific/Kiritimati")
    monkeypatch.setattr(here, "default", lambda: made.run)
    guard = made.guard(Limits(run=None), user="alice", zone="Pacific/Pago_Pago")
    run = guard.run()
    pay(run)
    now_ms = guard.clock()
    months = [
        (f"user:{user}", month_of(now_ms, zone))
        for user, zone in (("alice", "Pacific/Pago_Pago"), ("bob", "Pacific/Kiritimati"))
    ]

    assert [CENT, CENT] == [made.store.balance(Account(scope, month)).spent for scope, month in months]
    guard.close()
    made.outer.close()


def test_nesting_stays_within_what_a_reservation_can_hold(process: Process) -> None:
    """The accounts of two guards leave room for fewer runs."""
    guard = process.guard(Limits(run=None, steps=None), user="alice", key="k", org="o")
    runs: list[Run] = []
    with pytest.raises(ConfigError, match="nested"):
        while True:
            run = guard.run()
            runs.append(run.__enter__())
    pay(runs[-1])
    for run in reversed(runs):
        run.__exit__(None, None, None)

    assert (1, 1) == (process.spent("alice"), process.spent("bob"))
    guard.close()
