"""Reserving: all holds or none, the same answer to the same id, and who sets the limit. On every engine."""

from __future__ import annotations

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, KEY, MONTH, ORG, RUN, TOKENS, USER, amounts, booking, books, facts
from runrails.errors import ReservationMismatch
from runrails.ledger import AMOUNT_MAX, SCOPES_MAX, Account, FullStore, Hold, Refused, Reservation, Reserved
from runrails.testing import ManualClock


def test_new_account_is_empty(store: FullStore) -> None:
    """An account nobody has used has zeroes and no limit, and looking at it does not make it."""
    balance = store.balance(USER)
    assert (None, 0, 0, "none", None) == (
        balance.limit, balance.spent, balance.held, balance.limit_source, balance.available
    )  # fmt: skip
    assert [] == list(store.balances())


def test_reserve_holds_in_every_account(store: FullStore) -> None:
    """One reservation takes its hold in all four accounts."""
    assert Reserved("a") == store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR))
    assert [(0, CENT)] * 4 == [amounts(store, account) for account in FOUR]


@pytest.mark.parametrize("poor", FOUR)
def test_refusal_takes_nothing_anywhere(store: FullStore, poor: Account) -> None:
    """One account without room refuses all; neither a hold, nor a limit, nor an account is left behind."""
    store.reserve(booking("first", CENT, RUN, USER))
    before = books(store)
    refused = store.reserve(booking("a", 2 * CENT, *FOUR, limits={poor: CENT}))
    assert isinstance(refused, Refused)
    held = CENT if poor in {RUN, USER} else 0
    assert (poor, CENT, 0, held, 2 * CENT) == refused
    assert before == books(store)


def test_refused_id_may_be_tried_again(store: FullStore) -> None:
    """A refusal leaves no trace of its id: the same id gets in once there is room, and with another amount."""
    assert isinstance(store.reserve(booking("a", 2 * CENT, limit=CENT)), Refused)
    assert Reserved("a") == store.reserve(booking("a", CENT, limit=CENT))


def test_exactly_what_fits_is_admitted(store: FullStore) -> None:
    """One hundred one-cent calls fit in a dollar; the next picodollar does not."""
    answers = [store.reserve(booking(f"c{n}", CENT, limit=DOLLAR)) for n in range(100)]
    assert all(isinstance(answer, Reserved) for answer in answers)
    refused = store.reserve(booking("one-more", 1, limit=DOLLAR))
    assert Refused(USER, DOLLAR, 0, DOLLAR, 1) == refused
    assert isinstance(refused, Refused)
    assert (0, True) == (refused.available, refused.only_held)


def test_refusal_names_what_waiting_cannot_help(store: FullStore) -> None:
    """Of two accounts without room, the one that lacks it even without open holds is named."""
    store.reserve(booking("spent", CENT, ORG, limit=CENT))
    store.settle("spent", CENT)
    store.reserve(booking("held", CENT, USER, limit=CENT))
    refused = store.reserve(booking("a", CENT, USER, ORG))
    assert isinstance(refused, Refused)
    assert (ORG, False) == (refused.account, refused.only_held)


def test_replay_gets_the_first_answer(store: FullStore) -> None:
    """The same reservation again takes nothing more, whatever its limits, time to live or enforcement now."""
    store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR, facts=facts()))
    before = books(store)
    again = store.reserve(booking("a", CENT, *FOUR, limit=1, facts=facts(), ttl_ms=5, enforce=False))
    assert Reserved("a", "held", replayed=True) == again
    assert before == books(store)


def test_replay_ignores_the_order_of_holds(store: FullStore) -> None:
    """Holds are a set: naming the same accounts in another order is the same reservation."""
    store.reserve(booking("a", CENT, USER, RUN))
    again = store.reserve(booking("a", CENT, RUN, USER))
    assert Reserved("a", replayed=True) == again


def test_replay_tells_what_has_become_of_it(store: FullStore) -> None:
    """A reservation repeated after it was settled says so and takes no new hold."""
    store.reserve(booking("a"))
    store.settle("a", 3)
    assert Reserved("a", "settled", replayed=True) == store.reserve(booking("a"))
    assert (3, 0) == amounts(store)


@pytest.mark.parametrize(
    "other",
    [
        booking("a", CENT + 1, USER, RUN, facts=facts()),
        booking("a", CENT, USER, facts=facts()),
        booking("a", CENT, USER, KEY, facts=facts()),
        booking("a", CENT, USER, RUN, ORG, facts=facts()),
        booking("a", CENT, USER, RUN, facts=facts(step=2)),
        booking("a", CENT, USER, RUN, facts=facts(user="bob")),
        booking("a", CENT, USER, RUN),
        booking("a", CENT, USER, RUN, facts=facts(), on_expiry="release"),
    ],
)
def test_same_id_with_other_content_is_an_error(store: FullStore, other: Reservation) -> None:
    """An id stands for one content; anything else raises and changes nothing."""
    store.reserve(booking("a", CENT, USER, RUN, facts=facts()))
    before = books(store)
    with pytest.raises(ReservationMismatch, match="fresh id"):
        store.reserve(other)
    assert before == books(store)


def test_newest_limit_from_code_wins(store: FullStore) -> None:
    """A limit in code is applied to a balance that is there already; None leaves it alone."""
    store.reserve(booking("a", CENT, limit=DOLLAR))
    store.reserve(booking("b", CENT, limit=5 * CENT))
    store.reserve(booking("c", CENT))
    balance = store.balance(USER)
    assert (5 * CENT, "code", 3 * CENT, 2 * CENT) == (
        balance.limit, balance.limit_source, balance.held, balance.available
    )  # fmt: skip


def test_limit_below_what_is_spent_refuses(store: FullStore) -> None:
    """Lowering a limit below what is spent refuses what comes, and takes nothing back."""
    store.reserve(booking("a", 9 * CENT, limit=DOLLAR))
    store.settle("a", 9 * CENT)
    refused = store.reserve(booking("b", 1, limit=CENT))
    assert Refused(USER, CENT, 9 * CENT, 0, 1) == refused
    assert (9 * CENT, 0) == amounts(store)
    assert DOLLAR == store.balance(USER).limit


def test_raising_a_full_limit_lets_calls_in_again(store: FullStore) -> None:
    """A full budget takes calls again as soon as its limit is raised."""
    store.reserve(booking("a", CENT, limit=CENT))
    assert isinstance(store.reserve(booking("b", CENT, limit=CENT)), Refused)
    assert isinstance(store.reserve(booking("b", CENT, limit=2 * CENT)), Reserved)


def test_operator_wins_over_code(store: FullStore) -> None:
    """An operator's limit holds in every period, now and later; removing it gives the code's one back."""
    store.reserve(booking("a", CENT, limit=DOLLAR))
    store.set_limit("user:alice", 2 * CENT)
    december = Account("user:alice", "2026-12")
    assert isinstance(store.reserve(booking("b", 2 * CENT, limit=DOLLAR)), Refused)
    assert isinstance(store.reserve(booking("b", 3 * CENT, december, limit=DOLLAR)), Refused)
    assert isinstance(store.reserve(booking("b", 2 * CENT, december, limit=DOLLAR)), Reserved)
    assert ["operator", "operator"] == [store.balance(account).limit_source for account in (USER, december)]
    assert (2 * CENT, "operator") == (
        store.balance(Account("user:alice", "2030-01")).limit,
        store.balance(Account("user:alice", "2030-01")).limit_source,
    )
    assert [("user:alice", "pusd", 2 * CENT)] == list(store.limits())
    store.set_limit("user:alice", None)
    assert (DOLLAR, "code") == (store.balance(USER).limit, store.balance(USER).limit_source)
    assert [] == list(store.limits())


def test_operator_limit_is_per_unit(store: FullStore) -> None:
    """A limit on tokens does not touch money."""
    store.set_limit("user:alice", 100, unit="tokens")
    store.reserve(booking("a", 100, USER, TOKENS))
    refused = store.reserve(booking("b", 1, USER, TOKENS))
    assert isinstance(refused, Refused)
    assert (TOKENS, 100) == (refused.account, refused.limit)


def test_observing_holds_and_reports(store: FullStore) -> None:
    """With enforce=False the holds are taken, and the refusal that would have been is told, also on a replay."""
    would = Refused(USER, CENT, 0, 0, 2 * CENT)
    observed = booking("a", 2 * CENT, limit=CENT, enforce=False)
    assert Reserved("a", would_refuse=would) == store.reserve(observed)
    assert (0, 2 * CENT) == amounts(store)
    assert Reserved("a", replayed=True, would_refuse=would) == store.reserve(observed)
    assert Reserved("b") == store.reserve(booking("b", 1, RUN, enforce=False))


def test_accounts_without_a_limit_are_counted(store: FullStore) -> None:
    """No limit means counted, not free: the money is in the books."""
    store.reserve(booking("a", CENT, *FOUR))
    store.settle("a", 7)
    assert [(7, 0)] * 4 == [amounts(store, account) for account in FOUR]


def test_zero_is_an_amount(store: FullStore) -> None:
    """A free call holds nothing but has its record; it is refused only where more is spent than allowed."""
    assert isinstance(store.reserve(booking("a", 0, limit=0, facts=facts())), Reserved)
    store.settle("a", 1)
    assert isinstance(store.reserve(booking("b", 0)), Refused)
    assert ["a"] == [record.id for record in store.usage()]


def test_sums_past_the_largest_amount_are_refused(store: FullStore) -> None:
    """What no 64-bit integer could count is refused, also without a limit and also when only observing."""
    store.reserve(booking("a", AMOUNT_MAX))
    before = books(store)
    assert Refused(USER, AMOUNT_MAX, 0, AMOUNT_MAX, 1) == store.reserve(booking("b", 1))
    assert Refused(USER, AMOUNT_MAX, 0, AMOUNT_MAX, 1) == store.reserve(booking("b", 1, RUN, USER, enforce=False))
    assert before == books(store)
    store.settle("a", AMOUNT_MAX)
    assert (AMOUNT_MAX, 0) == amounts(store)
    assert int is type(store.balance(USER).spent)


def test_sixteen_holds_and_no_more(store: FullStore) -> None:
    """Sixteen accounts may be held at once; none, and seventeen, are refused as malformed."""
    accounts = [Account(f"user:u{n}", MONTH) for n in range(SCOPES_MAX + 1)]
    assert isinstance(store.reserve(booking("a", 1, *accounts[:SCOPES_MAX])), Reserved)
    before = books(store)
    for wrong in (Reservation("b", ()), booking("b", 1, *accounts)):
        with pytest.raises(ValueError, match="1 to 16 holds"):
            store.reserve(wrong)
    assert before == books(store)


BAD = [
    (booking("b", 1.5), TypeError),  # type: ignore[arg-type]
    (booking("b", True), TypeError),
    (booking("b", -1), ValueError),
    (booking("b", AMOUNT_MAX + 1), ValueError),
    (booking("b", 1, limit=-1), ValueError),
    (booking("b", 1, limit=1.0), TypeError),  # type: ignore[arg-type]
    (booking("b", 1, USER, USER), ValueError),
    (booking("b", 1, USER, RUN, USER), ValueError),
    (booking("b", 1, ttl_ms=0), ValueError),
    (booking("b", 1, ttl_ms=1.0), TypeError),
    (booking("b", 1, ttl_ms=86_400_001), ValueError),
    (booking("b", 1, on_expiry="forget"), ValueError),
    (booking("", 1), ValueError),
    (booking("b" * 129, 1), ValueError),
    (booking("b b", 1), ValueError),
    (booking("bé", 1), ValueError),
    (booking("b", 1, Account("alice", MONTH)), ValueError),
    (booking("b", 1, Account("user:", MONTH)), ValueError),
    (booking("b", 1, Account("user:al ice", MONTH)), ValueError),
    (booking("b", 1, Account("user:ａｌｉｃｅ", MONTH)), ValueError),
    (booking("b", 1, Account("User:alice", MONTH)), ValueError),
    (booking("b", 1, Account("user:alice", "2026-13")), ValueError),
    (booking("b", 1, Account("user:alice", "")), ValueError),
    (booking("b", 1, Account("user:alice", MONTH, "")), ValueError),
    (booking("b", 1, Account("user:alice", MONTH, "US Dollars")), ValueError),
    (booking("b", 1, Account(["user:alice"], MONTH)), TypeError),  # type: ignore[arg-type]
    (Reservation("b", (Hold(USER, 1), Hold(("user:alice", MONTH, "pusd"), 1))), TypeError),  # type: ignore[arg-type]
    (booking("b", 1, facts=facts(user="")), ValueError),
    (booking("b", 1, facts=facts(run="r\udc80")), ValueError),
]


@pytest.mark.parametrize(("wrong", "error"), BAD)
def test_malformed_reservations_change_nothing(store: FullStore, wrong: Reservation, error: type[Exception]) -> None:
    """Floats, bools, out-of-range amounts, bad ids and an account named twice raise before anything is written."""
    store.reserve(booking("a", 1, USER, RUN, limit=DOLLAR))
    before = books(store)
    with pytest.raises(error):
        store.reserve(wrong)
    assert before == books(store)
    assert Reserved("b") == store.reserve(booking("b", 1, USER, RUN))


def test_facts_have_a_largest_size(store: FullStore) -> None:
    """A user agent of any length would fill the books; beyond 4,096 characters the reservation is refused."""
    from dataclasses import replace

    size = 4_096 - sum(map(len, (facts().endpoint, facts().model, facts().agent)))
    assert isinstance(store.reserve(booking("a", facts=replace(facts(), user_agent="x" * size))), Reserved)
    with pytest.raises(ValueError, match="4096"):
        store.reserve(booking("b", facts=replace(facts(), user_agent="x" * (size + 1))))


def test_reservation_of_a_closed_store_is_refused(store: FullStore, clock: ManualClock) -> None:
    """A closed store says so, and may be closed again."""
    from runrails.errors import StoreUnavailable

    store.close()
    store.close()
    for use in (lambda: store.reserve(booking("a")), lambda: store.settle("a", 1), lambda: store.balance(USER)):
        with pytest.raises(StoreUnavailable, match="closed"):
            use()


@pytest.mark.parametrize("limit", [float(DOLLAR), True])
def test_a_limit_equal_to_the_known_one_must_be_an_int_too(store: FullStore, limit: int) -> None:
    """1.0 and True equal 1, and are no amounts: refused also where that limit is in the books already."""
    store.reserve(booking("a", 0, limit=int(limit)))
    before = books(store)
    with pytest.raises(TypeError, match="limit"):
        store.reserve(booking("b", 0, limit=limit))
    assert before == books(store)
    assert type(store.balance(USER).limit) is int
