"""Raising an open hold: in every account or in none, for good only upwards, and still one reservation. Every engine."""

from __future__ import annotations

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, RUN, TOKENS, TTL_MS, USER, amounts, booking, books, facts
from runrails.errors import ReservationMismatch, UnknownReservation
from runrails.ledger import AMOUNT_MAX, Expired, FullStore, Refused, Reserved, Settled
from runrails.testing import ManualClock


def test_hold_is_raised_in_every_account(store: FullStore) -> None:
    """Every account holds the new amount; asking again, or for less, changes nothing."""
    store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR))
    assert Reserved("a") == store.raise_hold("a", 3 * CENT)
    assert [(0, 3 * CENT)] * 4 == [amounts(store, account) for account in FOUR]
    before = books(store)
    assert [Reserved("a")] * 2 == [store.raise_hold("a", amount) for amount in (3 * CENT, CENT)]
    assert before == books(store)


def test_refusal_names_the_account_and_changes_nothing(store: FullStore) -> None:
    """One account without room for the difference is enough, whoever holds the rest of it."""
    store.reserve(booking("a", CENT, *FOUR, limits={USER: 4 * CENT, RUN: DOLLAR}))
    store.reserve(booking("b", CENT))
    before = books(store)
    assert Refused(USER, 4 * CENT, 0, 2 * CENT, 3 * CENT) == store.raise_hold("a", 4 * CENT)
    assert before == books(store)
    assert Reserved("a") == store.raise_hold("a", 3 * CENT)
    assert (0, 4 * CENT) == amounts(store)


def test_operators_limit_counts(store: FullStore) -> None:
    """A limit that an operator has set meanwhile wins over the one the reservation came with."""
    store.reserve(booking("a", CENT, limit=DOLLAR))
    store.set_limit(USER.scope, 2 * CENT)
    assert isinstance(store.raise_hold("a", 3 * CENT), Refused)
    assert (0, CENT) == amounts(store)


def test_observing_raises_all_the_same(store: FullStore) -> None:
    """Not enforced it is raised, and tells of the refusal; what no integer can count is refused."""
    store.reserve(booking("a", CENT, limit=CENT))
    answer = store.raise_hold("a", 3 * CENT, enforce=False)
    assert Reserved("a", would_refuse=Refused(USER, CENT, 0, CENT, 2 * CENT)) == answer
    assert (0, 3 * CENT) == amounts(store)
    store.reserve(booking("b", AMOUNT_MAX - 4 * CENT, enforce=False))
    assert isinstance(store.raise_hold("a", 5 * CENT, enforce=False), Refused)


def test_it_stays_one_reservation(store: FullStore) -> None:
    """Settled once, at or below what it holds by then without an overrun; one usage record, which has that amount."""
    store.reserve(booking("a", CENT, *FOUR, facts=facts()))
    store.raise_hold("a", 3 * CENT)
    settled = store.settle("a", 2 * CENT)
    assert (Settled("a", "settled", 2 * CENT, 3 * CENT), 0) == (settled, settled.overrun)
    assert [(2 * CENT, 0)] * 4 == [amounts(store, account) for account in FOUR]
    (record,) = store.usage()
    assert (3 * CENT, 2 * CENT) == (record.estimated_pusd, record.actual_pusd)
    assert Settled("a", "settled", 2 * CENT, 3 * CENT, replayed=True) == store.settle("a", 2 * CENT)


def test_made_again_it_gets_its_first_answer(store: FullStore) -> None:
    """What identifies a reservation is what it first asked for."""
    store.reserve(booking("a", CENT, *FOUR))
    store.raise_hold("a", 3 * CENT)
    store.raise_hold("a", 5 * CENT)
    assert Reserved("a", replayed=True) == store.reserve(booking("a", CENT, *FOUR))
    with pytest.raises(ReservationMismatch):
        store.reserve(booking("a", 3 * CENT, *FOUR))


def test_other_units_stay(store: FullStore) -> None:
    """It is about money."""
    store.reserve(booking("a", 7, USER, TOKENS))
    store.raise_hold("a", CENT)
    assert ((0, CENT), (0, 7)) == (amounts(store), amounts(store, TOKENS))


def test_release_and_expiry_are_of_all_it_holds(store: FullStore, clock: ManualClock) -> None:
    """Given back in full; charged in full when its owner died; its time to live is not touched."""
    for name in ("a", "b"):
        store.reserve(booking(name, CENT))
        store.raise_hold(name, 3 * CENT)
    store.release("a")
    assert (0, 3 * CENT) == amounts(store)
    clock.advance(TTL_MS)
    assert Expired(("b",)) == store.expire()
    assert (3 * CENT, 0) == amounts(store)


@pytest.mark.parametrize("end", ["settle", "release", "expire"])
def test_what_has_ended_is_not_raised(store: FullStore, clock: ManualClock, end: str) -> None:
    """The answer says how it ended."""
    store.reserve(booking("a", CENT))
    if end == "settle":
        store.settle("a", 5)
    elif end == "release":
        store.release("a")
    else:
        clock.advance(TTL_MS)
        store.expire()
    state = {"settle": "settled", "release": "released", "expire": "unresolved"}[end]
    before = books(store)
    assert Reserved("a", state, replayed=True) == store.raise_hold("a", DOLLAR)  # type: ignore[arg-type]
    assert before == books(store)


def test_bad_input_changes_nothing(store: FullStore) -> None:
    """Unknown ids and amounts that are none."""
    store.reserve(booking("a", CENT))
    before = books(store)
    with pytest.raises(UnknownReservation):
        store.raise_hold("b", CENT)
    for wrong, error in ((-1, ValueError), (AMOUNT_MAX + 1, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error):
            store.raise_hold("a", wrong)  # type: ignore[arg-type]
    assert before == books(store)
