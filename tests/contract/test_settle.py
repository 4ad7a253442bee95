"""Settling, releasing, expiring: every legal transition, every illegal one, and exact corrections. On every engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, MONTH, RUN, TOKENS, TTL_MS, USER, amounts, booking, books, facts
from runrails.errors import LedgerError, ReservationMismatch, UnknownReservation
from runrails.ledger import AMOUNT_MAX, Account, Expired, FullStore, Refused, Reserved, ResultFacts, Settled
from runrails.testing import ManualClock
from runrails.usage import Usage

Verb = Callable[[FullStore], object]


def test_settle_replaces_the_hold(store: FullStore) -> None:
    """What the call cost takes the place of what it might have cost, in every account."""
    store.reserve(booking("a", 3 * CENT, *FOUR, limit=DOLLAR))
    assert Settled("a", "settled", CENT, 3 * CENT) == store.settle("a", CENT)
    assert [(CENT, 0)] * 4 == [amounts(store, account) for account in FOUR]


def test_overrun_is_recorded_and_refuses_what_comes(store: FullStore) -> None:
    """A bill above the hold is recorded in full, also past the limit; the next reservation is refused."""
    store.reserve(booking("a", CENT, limit=CENT))
    settled = store.settle("a", 3 * CENT)
    assert (3 * CENT, 2 * CENT) == (settled.actual, settled.overrun)
    balance = store.balance(USER)
    assert (3 * CENT, -2 * CENT, "blocked") == (balance.spent, balance.available, balance.status)
    refused = store.reserve(booking("b", 0))
    assert isinstance(refused, Refused)
    assert (-2 * CENT, False) == (refused.available, refused.only_held)


def test_settle_again_is_a_replay(store: FullStore) -> None:
    """The same settlement again gives the same answer and charges nothing."""
    store.reserve(booking("a", CENT, *FOUR))
    store.settle("a", 5)
    before = books(store)
    assert Settled("a", "settled", 5, CENT, replayed=True) == store.settle("a", 5)
    assert Settled("a", "settled", 5, CENT, replayed=True) == store.settle("a", 5, unresolved=True)
    assert before == books(store)


def test_release_gives_back(store: FullStore) -> None:
    """A released hold is gone from every account, and releasing again changes nothing."""
    store.reserve(booking("a", CENT, *FOUR, limit=CENT))
    assert Settled("a", "released", 0, CENT) == store.release("a")
    assert Settled("a", "released", 0, CENT, replayed=True) == store.release("a")
    assert [(0, 0)] * 4 == [amounts(store, account) for account in FOUR]
    assert isinstance(store.reserve(booking("b", CENT, *FOUR)), Reserved)


ILLEGAL: list[tuple[list[Verb], Verb]] = [
    ([lambda s: s.settle("a", 5)], lambda s: s.settle("a", 6)),
    ([lambda s: s.settle("a", 5)], lambda s: s.settle("a", 6, unresolved=True)),
    ([lambda s: s.settle("a", 5)], lambda s: s.release("a")),
    ([lambda s: s.settle("a", 0)], lambda s: s.release("a")),
    ([lambda s: s.release("a")], lambda s: s.settle("a", 0)),
    ([lambda s: s.release("a")], lambda s: s.settle("a", 0, unresolved=True)),
    ([lambda s: s.settle("a", 5, unresolved=True)], lambda s: s.settle("a", 6, unresolved=True)),
    ([lambda s: s.settle("a", 5, unresolved=True)], lambda s: s.release("a")),
    ([lambda s: s.settle("a", 5, unresolved=True), lambda s: s.settle("a", 7)], lambda s: s.settle("a", 5)),
    ([lambda s: s.settle("a", 5, unresolved=True), lambda s: s.settle("a", 7)], lambda s: s.release("a")),
]


@pytest.mark.parametrize(("first", "then"), ILLEGAL)
def test_illegal_transitions_change_nothing(store: FullStore, first: list[Verb], then: Verb) -> None:
    """A reservation is resolved once; a different resolution raises and leaves every book as it was."""
    store.reserve(booking("a", CENT, RUN, USER, facts=facts()))
    for verb in first:
        verb(store)
    before = books(store)
    with pytest.raises(ReservationMismatch):
        then(store)
    assert before == books(store)


def test_unknown_ids_raise(store: FullStore) -> None:
    """Nobody can settle or release what nobody reserved."""
    before = books(store)
    for use in (lambda: store.settle("nobody", 1), lambda: store.release("nobody")):
        with pytest.raises(UnknownReservation):
            use()
    assert store.extend("nobody", ttl_ms=5) is False
    assert before == books(store)


@pytest.mark.parametrize(
    ("actual", "error"), [(1.0, TypeError), (True, TypeError), (-1, ValueError), (AMOUNT_MAX + 1, ValueError)]
)
def test_malformed_actuals_change_nothing(store: FullStore, actual: int, error: type[Exception]) -> None:
    """Floats, bools and out-of-range costs raise; the hold stays."""
    store.reserve(booking("a", CENT))
    before = books(store)
    with pytest.raises(error):
        store.settle("a", actual)
    assert before == books(store)
    assert (0, CENT) == amounts(store)


def test_settlement_past_the_largest_amount_is_refused(store: FullStore) -> None:
    """A sum no integer can hold is never written, not even in one account of several; the hold stays."""
    store.reserve(booking("big", AMOUNT_MAX - 10, USER))
    store.settle("big", AMOUNT_MAX - 10)
    store.reserve(booking("a", 5, RUN, USER))
    before = books(store)
    with pytest.raises(LedgerError, match=r"user:alice past the largest"):
        store.settle("a", 11)
    with pytest.raises(LedgerError, match=r"user:alice past the largest"):  # it alone, though the other would be full
        store.settle("a", AMOUNT_MAX - 3)
    assert before == books(store)
    store.settle("a", 10)
    assert (AMOUNT_MAX, 0) == amounts(store)


def test_other_units_settle_by_name(store: FullStore) -> None:
    """Money is settled by the cost; a unit by its own amount, or at its hold if it is not named."""
    store.reserve(booking("a", 100, USER, TOKENS))
    store.settle("a", 60, units={"tokens": 80})
    store.reserve(booking("b", 100, USER, TOKENS))
    store.settle("b", 7)
    assert (67, 0) == amounts(store, USER)
    assert (180, 0) == amounts(store, TOKENS)
    store.settle("a", 60, units={"tokens": 80})
    before = books(store)
    with pytest.raises(ReservationMismatch):
        store.settle("a", 60, units={"tokens": 81})
    assert before == books(store)


@pytest.mark.parametrize("units", [{"pusd": 5}, {"calls": 1}, {"tokens": -1}, {"tokens": 1.5}, {"tokens": True}])
def test_malformed_units_change_nothing(store: FullStore, units: dict[str, int]) -> None:
    """A unit that was not held, money under its own name, and bad amounts raise before anything is written."""
    store.reserve(booking("a", 100, USER, TOKENS))
    before = books(store)
    with pytest.raises((TypeError, ValueError)):
        store.settle("a", 60, units=units)
    assert before == books(store)


def test_expired_hold_is_charged_and_unresolved(store: FullStore, clock: ManualClock) -> None:
    """A hold whose owner died is charged in full when its time is over, not a millisecond earlier, and once."""
    store.reserve(booking("a", CENT, *FOUR, facts=facts(), ttl_ms=TTL_MS))
    clock.advance(TTL_MS - 1)
    assert Expired(()) == store.expire()
    assert [(0, CENT)] * 4 == [amounts(store, account) for account in FOUR]
    clock.advance(1)
    assert Expired(("a",)) == store.expire()
    assert Expired(()) == store.expire()
    assert [(CENT, 0)] * 4 == [amounts(store, account) for account in FOUR]
    (record,) = store.usage()
    assert ("unresolved", CENT, CENT, clock()) == (
        record.state, record.estimated_pusd, record.actual_pusd, record.settled_at_ms
    )  # fmt: skip


@pytest.mark.parametrize("actual", [0, 1, CENT, 3 * CENT])
@pytest.mark.parametrize("on_expiry", ["charge", "release"])
def test_late_settle_corrects_exactly(store: FullStore, clock: ManualClock, on_expiry: str, actual: int) -> None:
    """However an expiry resolved a hold, a late settle leaves exactly the true cost in the books; once."""
    store.reserve(booking("a", CENT, *FOUR, on_expiry=on_expiry, ttl_ms=TTL_MS))
    clock.advance(TTL_MS)
    store.expire()
    assert (0 if on_expiry == "release" else CENT, 0) == amounts(store)
    assert Settled("a", "late", actual, CENT) == store.settle("a", actual)
    assert Settled("a", "late", actual, CENT, replayed=True) == store.settle("a", actual)
    assert [(actual, 0)] * 4 == [amounts(store, account) for account in FOUR]
    with pytest.raises(ReservationMismatch):
        store.settle("a", actual + 1)
    assert [(actual, 0)] * 4 == [amounts(store, account) for account in FOUR]


def test_late_settle_corrects_units_too(store: FullStore, clock: ManualClock) -> None:
    """A late settle corrects every unit by its own difference."""
    store.reserve(booking("a", 100, USER, TOKENS, ttl_ms=5))
    clock.advance(5)
    store.expire()
    store.settle("a", 40, units={"tokens": 90})
    assert ((40, 0), (90, 0)) == (amounts(store, USER), amounts(store, TOKENS))


def test_stand_in_is_corrected_once(store: FullStore) -> None:
    """A cut stream settles at a stand-in, which the true cost replaces, once and exactly."""
    store.reserve(booking("a", CENT, *FOUR))
    assert Settled("a", "unresolved", 7, CENT) == store.settle("a", 7, unresolved=True)
    assert Settled("a", "unresolved", 7, CENT, replayed=True) == store.settle("a", 7, unresolved=True)
    assert [(7, 0)] * 4 == [amounts(store, account) for account in FOUR]
    assert Settled("a", "late", 9, CENT) == store.settle("a", 9)
    assert [(9, 0)] * 4 == [amounts(store, account) for account in FOUR]


def test_owners_stand_in_replaces_the_clocks(store: FullStore, clock: ManualClock) -> None:
    """After an expiry the owner's own stand-in is taken, once; the true cost still corrects it."""
    store.reserve(booking("a", CENT, ttl_ms=5))
    clock.advance(5)
    store.expire()
    assert Settled("a", "unresolved", 7, CENT) == store.settle("a", 7, unresolved=True)
    with pytest.raises(ReservationMismatch):
        store.settle("a", 8, unresolved=True)
    assert (7, 0) == amounts(store)
    assert Settled("a", "late", 0, CENT) == store.settle("a", 0)
    assert (0, 0) == amounts(store)


def test_expired_hold_cannot_be_released(store: FullStore, clock: ManualClock) -> None:
    """Once expired, giving back is a settlement with 0, which the error says."""
    store.reserve(booking("a", CENT, ttl_ms=5))
    clock.advance(5)
    store.expire()
    with pytest.raises(ReservationMismatch, match="settle it with"):
        store.release("a")
    assert (CENT, 0) == amounts(store)
    store.settle("a", 0)
    assert (0, 0) == amounts(store)


def test_overdue_but_unswept_hold_is_its_owners(store: FullStore, clock: ManualClock) -> None:
    """Until somebody expires it, an overdue hold can be settled and extended by its owner."""
    store.reserve(booking("a", CENT, ttl_ms=5))
    store.reserve(booking("b", CENT, ttl_ms=5))
    clock.advance(6)
    assert store.extend("b", ttl_ms=5) is True
    assert Settled("a", "settled", 1, CENT) == store.settle("a", 1)
    assert Expired(()) == store.expire()
    assert (1, CENT) == amounts(store)


def test_extend_keeps_a_hold_alive(store: FullStore, clock: ManualClock) -> None:
    """An extended hold lives from now on; extending never shortens, and ends with the hold."""
    store.reserve(booking("a", CENT, ttl_ms=100))
    clock.advance(90)
    assert store.extend("a", ttl_ms=100) is True
    assert store.extend("a", ttl_ms=1) is True
    clock.advance(99)
    assert Expired(()) == store.expire()
    clock.advance(1)
    assert Expired(("a",)) == store.expire()
    assert store.extend("a", ttl_ms=100) is False
    for wrong, error in ((0, ValueError), (1.0, TypeError), (86_400_001, ValueError)):
        with pytest.raises(error):
            store.extend("a", ttl_ms=wrong)  # type: ignore[arg-type]


def test_reserve_sweeps_before_it_decides(store: FullStore, clock: ManualClock) -> None:
    """Room that a dead call's hold took is there again for the reservation that finds it overdue."""
    store.reserve(booking("dead", CENT, limit=CENT, on_expiry="release", ttl_ms=5))
    clock.advance(4)
    assert isinstance(store.reserve(booking("a", CENT)), Refused)
    clock.advance(1)
    assert isinstance(store.reserve(booking("a", CENT)), Reserved)
    assert (0, CENT) == amounts(store)


def test_refusal_keeps_what_it_swept(store: FullStore, clock: ManualClock) -> None:
    """A refused reservation still resolves the overdue holds it met."""
    store.reserve(booking("dead", CENT, limit=CENT, ttl_ms=5))
    clock.advance(5)
    refused = store.reserve(booking("a", 1))
    assert Refused(USER, CENT, CENT, 0, 1) == refused
    assert (CENT, 0) == amounts(store)


def test_sweeps_are_bounded_and_oldest_first(store: FullStore, clock: ManualClock) -> None:
    """A reserve resolves at most 64 overdue holds, the longest overdue first; expire as many as it is told."""
    for n in range(70):
        store.reserve(booking(f"d{n:02}", 1, ttl_ms=1_000 - n))
    clock.advance(1_000)
    store.reserve(booking("a", 1))
    assert (64, 7) == amounts(store)
    assert Expired(("d05", "d04")) == store.expire(count_max=2)
    assert Expired(("d03", "d02", "d01", "d00")) == store.expire()
    for wrong, error in ((0, ValueError), (10_001, ValueError), (True, TypeError)):
        with pytest.raises(error):
            store.expire(count_max=wrong)


def test_clock_stepping_back_expires_nothing(store: FullStore, clock: ManualClock) -> None:
    """After the clock steps back an hour, holds taken before and after are overdue by that clock, not earlier."""
    store.reserve(booking("before", 1, ttl_ms=TTL_MS))
    clock.advance(-3_600_000)
    store.reserve(booking("after", 2, ttl_ms=TTL_MS))
    assert Expired(()) == store.expire()
    clock.advance(TTL_MS)
    assert Expired(("after",)) == store.expire()
    clock.advance(3_600_000)
    assert Expired(("before",)) == store.expire()
    assert (3, 0) == amounts(store)


def test_settle_lands_in_the_month_that_reserved(store: FullStore, clock: ManualClock) -> None:
    """A call from the last millisecond of November that ends in December is November's."""
    clock.set(1_796_083_199_999)
    december = Account("user:alice", "2026-12")
    store.reserve(booking("a", CENT, USER, facts=facts()))
    clock.advance(1)
    store.reserve(booking("b", CENT, december, facts=facts()))
    store.settle("a", 5)
    store.settle("b", 7)
    assert ((5, 0), (7, 0)) == (amounts(store, USER), amounts(store, december))
    assert ["a"] == [record.id for record in store.usage(period=MONTH)]
    assert ["b"] == [record.id for record in store.usage(period="2026-12")]


def test_first_result_is_kept(store: FullStore) -> None:
    """A replayed settlement does not overwrite what is known of the call; a late one may add to it."""
    usage = Usage(input_tokens=10, output_tokens=5)
    store.reserve(booking("a", facts=facts()))
    store.settle("a", 5, unresolved=True, result=ResultFacts(end="cut"))
    store.settle("a", 5, unresolved=True, result=ResultFacts(end="other"))
    assert [ResultFacts(end="cut")] == [record.result for record in store.usage()]
    late = ResultFacts(end="completed", usage=usage, model="gpt-4o", duration_ms=3)
    store.settle("a", 6, result=late)
    assert [late] == [record.result for record in store.usage()]


@pytest.mark.parametrize("odd", [5, "\udc80", "5\0", None, b"5"])
def test_ids_that_cannot_be_are_unknown(store: FullStore, odd: str) -> None:
    """The number 5 is not the id "5"; nothing is settled, extended or changed."""
    store.reserve(booking("5", CENT, limit=DOLLAR))
    before = books(store)
    with pytest.raises(UnknownReservation):
        store.settle(odd, 1)
    with pytest.raises(UnknownReservation):
        store.release(odd)
    assert store.extend(odd, ttl_ms=1_000) is False
    assert before == books(store)
