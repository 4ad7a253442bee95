"""What a SQLite ledger remembers of its own reservations is a hint: whoever else has changed them is heard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, KEY, ORG, RUN, START_MS, TOKENS, TTL_MS, USER, amounts, booking, books, facts
from runrails.errors import LedgerError, ReservationMismatch
from runrails.ledger import AMOUNT_MAX, Account, Hold, Refused, Reservation, Reserved, ResultFacts, Settled
from runrails.stores import sqlite
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.usage import Usage


class Two:
    """Two stores of one file, as two processes have them; the first one's accounts are known to it."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock(START_MS)
        self.one, self.other = [
            SQLiteStore(path / "ledger.db", clock=self.clock, synchronous="NORMAL") for _ in range(2)
        ]
        self.one.reserve(booking("first", CENT, *FOUR))
        self.one.settle("first", CENT)

    def close(self) -> None:
        self.one.close()
        self.other.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    """Closed in the end."""
    made = Two(tmp_path)
    yield made
    made.close()


def said(store: SQLiteStore, ask: Callable[[], object]) -> list[str]:
    """The first words of each statement that a verb takes."""
    connection = store._file._connection
    assert connection is not None
    heard: list[str] = []
    connection.set_trace_callback(heard.append)
    ask()
    connection.set_trace_callback(None)
    return [" ".join(text.split()[:2]) for text in heard]


def test_an_ordinary_call_takes_few_statements(two: Two) -> None:
    """Nothing is asked that the writes themselves prove; a new account is one more statement."""
    store, run = two.one, Account("run:new", "-")
    held = ["BEGIN IMMEDIATE", "UPDATE account", "INSERT INTO", "COMMIT"]
    settled = ["BEGIN IMMEDIATE", "UPDATE reservation", "UPDATE account", "COMMIT"]

    assert held == said(store, lambda: store.reserve(booking("a", CENT, *FOUR, facts=facts())))
    assert settled == said(store, lambda: store.settle("a", CENT, result=ResultFacts(usage=Usage(input_tokens=3))))
    with_new = said(store, lambda: store.reserve(booking("b", CENT, USER, run)))
    assert [held[0], "INSERT INTO", *held[1:]] == with_new
    assert settled == said(store, lambda: store.settle("b", 0))
    assert (2 * CENT, 0) == amounts(store, USER)


# Settling what is not as it was made.


def test_what_another_process_has_expired_is_settled_late(two: Two) -> None:
    """The clock has charged it at its hold; its owner knows better, and corrects that exactly."""
    two.one.reserve(booking("a", 5 * CENT, *FOUR))
    two.clock.advance(TTL_MS)
    assert ("a",) == two.other.expire().ids

    assert Settled("a", "late", 2 * CENT, 5 * CENT) == two.one.settle("a", 2 * CENT)
    assert [(3 * CENT, 0)] * 4 == [amounts(two.other, account) for account in FOUR]
    assert two.one.settle("a", 2 * CENT).replayed


def test_what_is_overdue_and_not_yet_expired_is_settled(two: Two) -> None:
    """As long as nobody has charged it for its owner, its owner is in time."""
    two.one.reserve(booking("a", 5 * CENT, *FOUR))
    two.clock.advance(TTL_MS)

    assert Settled("a", "settled", 2 * CENT, 5 * CENT) == two.one.settle("a", 2 * CENT)
    assert ((), (3 * CENT, 0)) == (two.other.expire().ids, amounts(two.other))


def test_what_another_process_has_raised_gives_back_all_it_holds(two: Two) -> None:
    """The hold is what it was raised to, in every account of money."""
    two.one.reserve(booking("a", 5 * CENT, *FOUR))
    assert isinstance(two.other.raise_hold("a", 9 * CENT), Reserved)
    assert (CENT, 9 * CENT) == amounts(two.one)

    assert Settled("a", "settled", 2 * CENT, 9 * CENT) == two.one.settle("a", 2 * CENT)
    assert [(3 * CENT, 0)] * 4 == [amounts(two.one, account) for account in FOUR]


def test_what_this_process_has_raised_is_settled(two: Two) -> None:
    """Also where an account counts something else, which nothing raises."""
    two.one.reserve(Reservation("a", (Hold(USER, 10), Hold(TOKENS, 70))))
    two.one.raise_hold("a", 30)

    two.one.settle("a", 20, units={"tokens": 50})
    assert ((CENT + 20, 0), (50, 0)) == (amounts(two.one), amounts(two.one, TOKENS))


def test_what_another_process_has_settled_stays(two: Two) -> None:
    """The same amount is a repetition; another one is an error, and changes nothing."""
    two.one.reserve(booking("a", 5 * CENT, *FOUR))
    two.one.reserve(booking("b", 5 * CENT, *FOUR))
    two.other.settle("a", 2 * CENT)
    two.other.release("b")
    before = books(two.one)

    assert two.one.settle("a", 2 * CENT).replayed
    for name, amount in (("a", 3 * CENT), ("b", 2 * CENT)):
        with pytest.raises(ReservationMismatch):
            two.one.settle(name, amount)
    assert before == books(two.one)


def test_what_a_bill_has_corrected_stays(two: Two) -> None:
    """Another process has settled and corrected it meanwhile."""
    two.one.reserve(booking("a", 5 * CENT, *FOUR))
    two.other.settle("a", 2 * CENT)
    two.other.correct("a", 4 * CENT, source="bill")

    assert Settled("a", "settled", 4 * CENT, 5 * CENT, replayed=True) == two.one.settle("a", 2 * CENT)
    assert (5 * CENT, 0) == amounts(two.one)


def test_a_longer_life_changes_nothing_else(two: Two) -> None:
    """A hold that was extended, here or elsewhere, is settled as any other."""
    two.one.reserve(booking("a", 5 * CENT, *FOUR))
    assert two.other.extend("a", ttl_ms=2 * TTL_MS)
    two.clock.advance(TTL_MS)

    assert Settled("a", "settled", 2 * CENT, 5 * CENT) == two.one.settle("a", 2 * CENT)
    assert (3 * CENT, 0) == amounts(two.one)


def test_arguments_that_are_none_do_not_use_up_a_reservation(two: Two) -> None:
    """An error changes nothing; then it is settled all the same."""
    two.one.reserve(Reservation("a", (Hold(USER, 10), Hold(TOKENS, 70))))
    before = books(two.one)
    with pytest.raises(TypeError):
        two.one.settle("a", 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not held"):
        two.one.settle("a", 5, units={"pages": 1})
    assert before == books(two.one)

    two.one.settle("a", 5)
    assert ((CENT + 5, 0), (70, 0)) == (amounts(two.one), amounts(two.one, TOKENS))


def test_a_sum_that_cannot_be_counted_is_refused_by_name(two: Two) -> None:
    """Nothing is charged anywhere, and the hold stays; the right amount is taken afterwards."""
    two.one.reserve(booking("a", 5, *FOUR))
    before = books(two.one)
    with pytest.raises(LedgerError, match="past the largest amount"):
        two.one.settle("a", AMOUNT_MAX)
    assert before == books(two.one)

    assert Settled("a", "settled", 3, 5) == two.one.settle("a", 3)


@pytest.mark.parametrize("first", ["parent", "child"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_and_its_parent_settle_once(two: Two, first: str) -> None:
    """Both remember the reservation; whoever comes second repeats."""
    two.one.reserve(booking("a", 5 * CENT, *FOUR))
    if first == "parent":
        two.one.settle("a", 2 * CENT)
    child = os.fork()
    if child == 0:
        code = 9
        try:
            code = int(two.one.settle("a", 2 * CENT).replayed)
        finally:
            os._exit(code)
    assert int(first == "parent") == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert two.one.settle("a", 2 * CENT).replayed
    assert [(3 * CENT, 0)] * 4 == [amounts(two.other, account) for account in FOUR]


def test_what_was_forgotten_is_settled_as_well(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for so many; the others are read."""
    monkeypatch.setattr(sqlite, "_REMEMBERED_MAX", 3)
    for count in range(8):
        two.one.reserve(booking(f"a{count}", CENT, *FOUR))
        assert len(two.one._made) <= 3
    for count in range(8):
        assert not two.one.settle(f"a{count}", CENT).replayed
    assert ({}, (9 * CENT, 0)) == (two.one._made, amounts(two.one))


# Reserving where something is out of the ordinary.


def test_a_limit_that_an_operator_lowers_elsewhere_holds_at_once(two: Two) -> None:
    """Also where code allows more; nothing is taken in any account. Raised again, the next call goes through."""
    assert isinstance(two.one.reserve(booking("a", CENT, *FOUR, limit=DOLLAR)), Reserved)
    two.other.set_limit(USER.scope, 3 * CENT)
    before = books(two.one)

    for _ in range(2):
        refused = two.one.reserve(booking("b", 2 * CENT, *FOUR, limit=DOLLAR))
        assert Refused(USER, 3 * CENT, CENT, CENT, 2 * CENT) == refused
        assert before == books(two.one)
    two.other.set_limit(USER.scope, 4 * CENT)
    assert isinstance(two.one.reserve(booking("b", 2 * CENT, *FOUR, limit=DOLLAR)), Reserved)
    assert (CENT, 3 * CENT) == amounts(two.other)


def test_a_limit_of_code_is_written_when_it_changes(two: Two) -> None:
    """The newest one wins, whoever gave it; no opinion leaves it as it is."""
    for name, limit in (("a", 20 * CENT), ("b", 30 * CENT), ("c", None), ("d", 5 * CENT)):
        two.one.reserve(booking(name, CENT, USER, limit=limit))
        two.one.release(name)
    assert 5 * CENT == two.other.balance(USER).limit
    two.other.reserve(booking("e", CENT, USER, limit=9 * CENT))
    two.one.reserve(booking("f", CENT, USER, limit=5 * CENT))
    assert 5 * CENT == two.other.balance(USER).limit

    refused = two.one.reserve(booking("g", 3 * CENT, USER))
    assert Refused(USER, 5 * CENT, CENT, 2 * CENT, 3 * CENT) == refused


def test_the_last_cent_is_taken_and_no_more(two: Two) -> None:
    """By two processes in turn."""
    taken = 0
    for count in range(12):
        store = (two.one, two.other)[count % 2]
        taken += isinstance(store.reserve(booking(f"a{count}", CENT, USER, KEY, limit=9 * CENT)), Reserved)
    assert (8, (CENT, 8 * CENT)) == (taken, amounts(two.one))


@pytest.mark.parametrize("operator", [None, 3])
def test_a_new_account_without_room_is_not_made(two: Two, operator: int | None) -> None:
    """Neither with a limit of code nor with that of an operator; what would fit is held with both limits."""
    run = Account("run:new", "-")
    two.other.set_limit(run.scope, operator)
    before = books(two.one)
    refused = two.one.reserve(booking("a", 5, USER, run, limits={run: 4}))
    assert Refused(run, operator or 4, 0, 0, 5) == refused
    assert before == books(two.one)

    assert isinstance(two.one.reserve(booking("a", 3, USER, run, limits={run: 4})), Reserved)
    balance = two.other.balance(run)
    assert (3, operator or 4, "operator" if operator else "code") == (balance.held, balance.limit, balance.limit_source)


def test_an_account_that_another_process_has_made_is_held_in_as_well(two: Two) -> None:
    """It is the same one, with what it holds already."""
    run = Account("run:new", "-")
    two.other.reserve(booking("a", 2, run, limit=9))

    two.one.reserve(booking("b", 3, USER, run, limits={run: 9}))
    assert (5, 9) == (two.one.balance(run).held, two.one.balance(run).limit)
    assert Refused(run, 9, 0, 5, 5) == two.one.reserve(booking("c", 5, USER, run, limits={run: 9}))


def test_an_id_that_is_taken_elsewhere_is_a_repetition_or_an_error(two: Two) -> None:
    """Nothing is held twice."""
    two.other.reserve(booking("a", 2, *FOUR))
    before = books(two.one)

    assert Reserved("a", replayed=True) == two.one.reserve(booking("a", 2, *FOUR))
    with pytest.raises(ReservationMismatch):
        two.one.reserve(booking("a", 3, *FOUR))
    assert before == books(two.one)
    assert not two.one.settle("a", 1).replayed
    assert Reserved("a", "settled", replayed=True) == two.one.reserve(booking("a", 2, *FOUR))


def test_what_is_overdue_is_charged_on_the_way(two: Two) -> None:
    """By whichever process reserves next, also for another account."""
    two.other.reserve(booking("a", 2, ORG))
    two.clock.advance(TTL_MS)
    two.one.reserve(booking("b", 3, USER))

    assert (CENT + 2, 0) == amounts(two.other, ORG)
    assert ((), 1) == (two.other.expire().ids, two.one.swept)


def test_what_no_integer_counts_is_refused(two: Two) -> None:
    """In an account without a limit, and with the largest one."""
    before = books(two.one)
    for limit in (None, AMOUNT_MAX):
        refused = two.one.reserve(booking("a", AMOUNT_MAX, RUN, USER, limit=limit))
        assert Refused(RUN, AMOUNT_MAX, CENT, 0, AMOUNT_MAX) == refused
    assert isinstance(two.one.reserve(booking("b", AMOUNT_MAX - CENT, RUN, USER)), Reserved)
    two.one.release("b")
    assert [b.spent for b in before[0]] == [b.spent for b in two.one.balances()]


def test_observing_takes_what_enforcing_would_refuse(two: Two) -> None:
    """And says so, each time; such a hold is settled as any other."""
    for name in ("a", "b"):
        answer = two.one.reserve(booking(name, 5 * CENT, USER, limit=2 * CENT, enforce=False))
        assert isinstance(answer, Reserved)
        assert answer.would_refuse is not None
        two.one.settle(name, CENT)
    assert (3 * CENT, 0) == amounts(two.other)


def test_after_a_refusal_calls_are_quick_again(two: Two) -> None:
    """An account without room is decided upon at length until one call of it has got through."""
    two.one.reserve(booking("a", CENT, USER, limit=5 * CENT))
    assert isinstance(two.one.reserve(booking("b", 9 * CENT, USER, KEY, limits={USER: 5 * CENT})), Refused)
    assert {USER} == two.one._odd

    statements = said(two.one, lambda: two.one.reserve(booking("c", CENT, KEY)))
    assert 4 == len(statements), "other accounts are not concerned"
    two.one.reserve(booking("d", CENT, USER))
    assert set() == two.one._odd
    assert 4 == len(said(two.one, lambda: two.one.reserve(booking("e", CENT, USER, KEY))))


# What a settlement has left.


def test_what_a_settlement_has_left_is_what_one_would_be_told(two: Two) -> None:
    """Of all its accounts, with both limits, once somebody has asked."""
    two.other.set_limit(ORG.scope, DOLLAR)
    two.one.reserve(booking("a", 5 * CENT, *FOUR, limits={USER: 7 * DOLLAR}))
    two.one.settle("a", 2 * CENT)
    assert None is two.one.left_by("a"), "nobody had asked"

    two.one.reserve(booking("b", 5 * CENT, *FOUR))
    two.one.settle("b", 3 * CENT)
    told = {left.account: left for left in two.one.left_by("b") or ()}
    assert set(FOUR) == set(told)
    for balance in two.other.balances_of(FOUR):
        _, code, operator, spent, held = told[balance.account]
        assert (balance.spent, balance.held) == (spent, held)
        assert balance.limit == (code if operator is None else operator)


@pytest.mark.parametrize(
    "then",
    [
        lambda store: store.reserve(booking("c", CENT, USER)),
        lambda store: store.reserve(booking("c", 99 * DOLLAR, USER)),
        lambda store: store.settle("open", CENT),
        lambda store: store.release("open"),
        lambda store: store.raise_hold("open", 9 * CENT),
        lambda store: store.correct("b", CENT, source="bill"),
        lambda store: store.set_limit(USER.scope, DOLLAR),
        lambda store: store.expire(),
    ],
)  # fmt: skip
def test_nothing_is_left_of_it_once_something_else_is_written(two: Two, then: Callable[[SQLiteStore], object]) -> None:
    """Whoever asks then is told to look."""
    store = two.one
    store.left_by("")
    store.set_limit(USER.scope, 90 * DOLLAR)
    store.reserve(booking("open", CENT, USER))
    store.reserve(booking("b", CENT, USER))
    store.settle("b", CENT)
    assert None is store.left_by("open")
    assert store.left_by("b")

    then(store)
    assert None is store.left_by("b")


def test_nothing_is_told_of_what_was_not_settled_the_quick_way(two: Two) -> None:
    """A reservation that was raised, one that was made elsewhere, a stand-in and its correction."""
    store = two.one
    store.left_by("")
    store.reserve(booking("raised", CENT, USER))
    store.raise_hold("raised", 2 * CENT)
    two.other.reserve(booking("elsewhere", CENT, USER))
    store.reserve(booking("stand-in", CENT, USER))

    for name in ("raised", "elsewhere"):
        store.settle(name, CENT)
        assert None is store.left_by(name)
    store.settle("stand-in", CENT, unresolved=True)
    assert store.left_by("stand-in")
    store.settle("stand-in", 2)
    assert None is store.left_by("stand-in")
