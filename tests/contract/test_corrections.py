"""Putting the books right by a provider's bill: exact, once, and told by an audit line. On every engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rr_ledger import (
    CENT,
    DOLLAR,
    FOUR,
    RUN,
    TOKENS,
    TTL_MS,
    USER,
    Books,
    amounts,
    booking,
    books,
    facts,
)
from runrails.errors import LedgerError, ReservationMismatch, UnknownReservation
from runrails.ledger import (
    AMOUNT_MAX,
    Account,
    Correction,
    Discount,
    FullStore,
    Refused,
    Reserved,
    ResultFacts,
    Settled,
    SupportsCorrections,
)
from runrails.testing import ManualClock
from runrails.usage import Usage

Verb = Callable[[FullStore], object]
BILL = "ops: openai-2026-11.csv sha256:0123"


def correct(store: FullStore, actual: int, reservation_id: str = "a") -> Settled:
    """Correct by the usual bill."""
    assert isinstance(store, SupportsCorrections)
    return store.correct(reservation_id, actual, source=BILL)


def trail(store: FullStore) -> list[Correction]:
    """The whole audit trail."""
    assert isinstance(store, SupportsCorrections)
    return list(store.corrections())


def everything(store: FullStore) -> tuple[Books, list[Correction]]:
    """All that a store shows, audit lines included."""
    return books(store), trail(store)


@pytest.mark.parametrize("billed", [0, CENT // 2, CENT, 3 * CENT])
def test_a_settled_amount_gives_way_to_the_bill(store: FullStore, clock: ManualClock, billed: int) -> None:
    """More or less, the difference lands in every account of the call, in the period it was charged in."""
    store.reserve(booking("a", 2 * CENT, *FOUR, limit=DOLLAR, facts=facts()))
    store.settle("a", CENT // 3)
    clock.advance(40 * 86_400_000)
    assert Settled("a", "settled", billed, 2 * CENT) == correct(store, billed)
    assert [(billed, 0)] * 4 == [amounts(store, account) for account in FOUR]
    (record,) = store.usage()
    assert (billed, "settled", True) == (record.actual_pusd, record.state, record.corrected)
    assert [
        Correction(
            reservation_id="a", at_ms=clock(), source=BILL, state_before="settled", before_pusd=CENT // 3,
            after_pusd=billed,
        )
    ] == trail(store)  # fmt: skip


def test_the_same_bill_again_changes_nothing(store: FullStore) -> None:
    """A file that is imported twice posts once; what it agrees with leaves no trace at all."""
    store.reserve(booking("a", CENT, *FOUR, facts=facts()))
    store.settle("a", 5)
    before = everything(store)
    assert Settled("a", "settled", 5, CENT, replayed=True) == correct(store, 5)
    assert before == everything(store)
    correct(store, 7)
    before = everything(store)
    assert Settled("a", "settled", 7, CENT, replayed=True) == correct(store, 7)
    assert before == everything(store)


def test_a_corrected_bill_posts_the_difference(store: FullStore) -> None:
    """The newest bill counts; each correction has its line."""
    store.reserve(booking("a", CENT, RUN, USER, facts=facts()))
    store.settle("a", 5)
    for billed in (9, 2, 5):
        correct(store, billed)
        assert (billed, 0) == amounts(store, RUN) == amounts(store, USER)
    assert [(5, 9), (9, 2), (2, 5)] == [(line.before_pusd, line.after_pusd) for line in trail(store)]
    assert next(store.usage()).corrected


UNRESOLVED: list[tuple[Verb, str]] = [
    (lambda s: s.settle("a", 5, unresolved=True), "unresolved"),
    (lambda s: s.release("a"), "released"),
    (lambda s: s.expire(), "unresolved"),
]


@pytest.mark.parametrize(("verb", "state"), UNRESOLVED)
def test_what_was_open_is_resolved(store: FullStore, clock: ManualClock, verb: Verb, state: str) -> None:
    """A stand-in, an expired hold and a call that was taken for never sent become what the provider billed."""
    store.reserve(booking("a", CENT, *FOUR, facts=facts()))
    clock.advance(TTL_MS)
    verb(store)
    assert Settled("a", "late", 7, CENT) == correct(store, 7)
    assert [(7, 0)] * 4 == [amounts(store, account) for account in FOUR]
    assert [state] == [line.state_before for line in trail(store)]


def test_a_bill_of_nothing_agrees_with_a_release(store: FullStore) -> None:
    """What was given back and is billed at 0 stays as it is; a stand-in of the billed amount becomes final."""
    store.reserve(booking("a", CENT, facts=facts()))
    store.release("a")
    before = everything(store)
    assert Settled("a", "released", 0, CENT, replayed=True) == correct(store, 0)
    assert before == everything(store)
    store.reserve(booking("b", CENT, facts=facts()))
    store.settle("b", CENT, unresolved=True)
    assert Settled("b", "late", CENT, CENT) == correct(store, CENT, "b")
    assert [(CENT, CENT)] == [(line.before_pusd, line.after_pusd) for line in trail(store)]


def test_a_call_in_flight_is_not_corrected(store: FullStore) -> None:
    """Its owner may still settle it; nothing is changed."""
    store.reserve(booking("a", CENT, *FOUR, facts=facts()))
    before = everything(store)
    with pytest.raises(ReservationMismatch, match="in flight"):
        correct(store, 5)
    assert before == everything(store)


LATER: list[Verb] = [
    lambda s: s.settle("a", 5), lambda s: s.settle("a", 9), lambda s: s.settle("a", 9, unresolved=True),
    lambda s: s.release("a"),
]  # fmt: skip


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("first", [lambda s: s.settle("a", 5), lambda s: s.settle("a", 5, unresolved=True), LATER[-1]])
def test_the_bill_stands(store: FullStore, first: Verb, later: Verb) -> None:
    """A repeated or late word of the call's owner is answered with what was billed, and changes nothing."""
    store.reserve(booking("a", CENT, RUN, USER, facts=facts()))
    first(store)
    settled = correct(store, 7)
    before = everything(store)
    assert settled._replace(replayed=True) == later(store)
    assert before == everything(store)


def test_other_units_stay(store: FullStore) -> None:
    """A bill is of money: the tokens of the call are what its owner counted."""
    store.reserve(booking("a", 1_000, RUN, TOKENS, facts=facts()))
    store.settle("a", 5, units={"tokens": 321})
    correct(store, 7)
    assert ((7, 0), (321, 0)) == (amounts(store, RUN), amounts(store, TOKENS))
    correct(store, 3)
    assert ((3, 0), (321, 0)) == (amounts(store, RUN), amounts(store, TOKENS))


def test_money_that_comes_back_can_be_spent(store: FullStore) -> None:
    """A smaller bill makes room under the limit at once, a larger one takes it, also past the limit."""
    store.reserve(booking("a", CENT, limit=CENT, facts=facts()))
    store.settle("a", CENT)
    assert isinstance(store.reserve(booking("b", 1)), Refused)
    correct(store, CENT - 1)
    assert isinstance(store.reserve(booking("b", 1)), Reserved)
    correct(store, 2 * CENT)
    balance = store.balance(USER)
    assert (2 * CENT, 1, -CENT - 1, "blocked") == (balance.spent, balance.held, balance.available, balance.status)


WRONG: list[tuple[object, object, type[Exception]]] = [
    (-1, BILL, ValueError), (AMOUNT_MAX + 1, BILL, ValueError), (1.0, BILL, TypeError), (True, BILL, TypeError),
    ("1", BILL, TypeError), (5, "", ValueError), (5, "x" * 257, ValueError), (5, "a\nb", ValueError),
    (5, None, ValueError),
]  # fmt: skip


@pytest.mark.parametrize(("actual", "source", "error"), WRONG)
def test_malformed_corrections_change_nothing(
    store: FullStore, actual: object, source: object, error: type[Exception]
) -> None:
    """An amount is an int of picodollars, a source short printable text."""
    store.reserve(booking("a", CENT, facts=facts()))
    store.settle("a", 5)
    before = everything(store)
    assert isinstance(store, SupportsCorrections)
    with pytest.raises(error):
        store.correct("a", actual, source=source)  # type: ignore[arg-type]
    assert before == everything(store)


@pytest.mark.parametrize("unknown", ["nobody", "ü", "", "a b", 5])
def test_unknown_ids_are_told(store: FullStore, unknown: object) -> None:
    """What nobody reserved cannot be corrected."""
    assert isinstance(store, SupportsCorrections)
    with pytest.raises(UnknownReservation):
        store.correct(unknown, 5, source=BILL)  # type: ignore[arg-type]
    assert ([], []) == (trail(store), list(store.balances()))


def test_a_sum_that_no_ledger_counts_is_refused_whole(store: FullStore) -> None:
    """If one account could not count the difference, none gets it, and no line says so."""
    org = Account("org:big", "2026-11")
    store.reserve(booking("big", AMOUNT_MAX - 10, org))
    store.settle("big", AMOUNT_MAX - 10)
    store.reserve(booking("a", 5, USER, org, facts=facts()))
    store.settle("a", 5)
    before = everything(store)
    with pytest.raises(LedgerError):
        correct(store, 11)
    assert before == everything(store)
    assert 10 == correct(store, 10).actual


def test_the_trail_of_one_reservation(store: FullStore) -> None:
    """The trail can be asked about one id, and about ids that it has nothing of."""
    assert isinstance(store, SupportsCorrections)
    for name in ("a", "b"):
        store.reserve(booking(name, CENT, facts=facts()))
        store.settle(name, 1)
        correct(store, 2, name)
    assert ["b"] == [line.reservation_id for line in store.corrections(reservation_id="b")]
    assert [] == list(store.corrections(reservation_id="c"))


def test_more_lines_than_a_page(store: FullStore) -> None:
    """A long trail is read in pages, none lost and none twice."""
    store.reserve(booking("a", CENT, facts=facts()))
    store.settle("a", 0)
    for billed in range(1, 1_003):
        correct(store, billed)
    assert list(range(1, 1_003)) == [line.after_pusd for line in trail(store)]


def test_what_is_known_of_the_answer_is_kept(store: FullStore) -> None:
    """The answer's id and the contract's discount come back as they were written, with a card or without."""
    for n, card in enumerate(("", "card-2")):
        result = ResultFacts(
            usage=Usage(input_tokens=3), price_card=card, answer_id="chatcmpl-ü\udc80", discount=Discount(-7, "list-1"),
        )  # fmt: skip
        store.reserve(booking(f"a{n}", CENT, facts=facts()))
        store.settle(f"a{n}", 5, result=result)
        (kept,) = [record.result for record in store.usage() if record.id == f"a{n}"]
        assert result == kept
