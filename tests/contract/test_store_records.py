"""Usage, balances, limits, warnings, zones and the archive of runs, on every engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rr_ledger import CENT, DOLLAR, KEY, MONTH, ORG, RUN, START_MS, TOKENS, USER, booking, books, facts
from runrails.errors import ReservationMismatch
from runrails.ledger import Account, FullStore, ResultFacts, RunRecord
from runrails.testing import ManualClock
from runrails.usage import Usage

DAY_MS = 86_400_000


def test_a_record_has_every_field(store: FullStore, clock: ManualClock) -> None:
    """A usage record gives back what was known before and after the call, lone surrogates included."""
    store.reserve(booking("a", CENT, RUN, USER, KEY, ORG, facts=facts()))
    (open_record,) = store.usage()
    assert ("a", "held", START_MS, None, CENT, None, facts(), None) == (
        open_record.id, open_record.state, open_record.at_ms, open_record.settled_at_ms, open_record.estimated_pusd,
        open_record.actual_pusd, open_record.facts, open_record.result,
    )  # fmt: skip
    clock.advance(1_500)
    usage = Usage(input_tokens=100, cache_read_tokens=40, output_tokens=9, reasoning_tokens=3)
    result = ResultFacts(usage=usage, model="gpt-4o-mini-2024", duration_ms=1_500)
    store.settle("a", 7, result=result)
    (record,) = store.usage()
    assert ("settled", START_MS + 1_500, CENT, 7, facts(), result) == (
        record.state, record.settled_at_ms, record.estimated_pusd, record.actual_pusd, record.facts, record.result
    )  # fmt: skip


def test_tags_are_part_of_what_is_repeated(store: FullStore) -> None:
    """The same reservation again gets the first answer; with other tags, or none, it is another one."""
    tagged = booking("a", CENT, facts=facts())
    store.reserve(tagged)
    assert store.reserve(tagged).replayed  # type: ignore[union-attr]
    before = books(store)
    for tags in ((), (("env", "prod"),), (("env", "prod"), ("team", "ads"))):
        with pytest.raises(ReservationMismatch):
            store.reserve(booking("a", CENT, facts=replace(facts(), tags=tags)))
    assert before == books(store)


@pytest.mark.parametrize(
    "wrong",
    [
        (("team", "ads"), ("env", "prod")), (("team", "ads"), ("team", "search")), (("te am", "ads"),),
        (("team", "a\nb"),), (("team", "\udc80"),), (("team",),), ("team",), [("team", "ads")], {"team": "ads"},
        tuple((f"t{n:02}", "x") for n in range(17)),
    ],
)  # fmt: skip
def test_malformed_tags_are_not_written(store: FullStore, wrong: object) -> None:
    """Tags that are no sorted pairs of the grammar are refused by every engine, and nothing is held."""
    with pytest.raises((TypeError, ValueError)):
        store.reserve(booking("a", CENT, facts=replace(facts(), tags=wrong)))  # type: ignore[arg-type]
    assert ((), (), ()) == books(store)


def test_records_are_found_by_user_month_and_run(store: FullStore, clock: ManualClock) -> None:
    """Each filter narrows; together they narrow more. Oldest first, also within a millisecond."""
    for n, (user, run) in enumerate([("alice", "r1"), ("bob", "r2"), ("alice", "r3"), ("alice", "r1")]):
        store.reserve(booking(f"x{n}", facts=facts(user, run)))
        if n == 1:
            clock.advance(14 * DAY_MS)
    store.reserve(booking("wrap-up"))

    def ids(**given: str) -> list[str]:
        return [record.id for record in store.usage(**given)]

    assert ["x0", "x1", "x2", "x3"] == ids()
    assert ["x0", "x2", "x3"] == ids(user="alice")
    assert ["x0", "x1"] == ids(period=MONTH)
    assert ["x2", "x3"] == ids(user="alice", period="2026-12")
    assert ["x0", "x3"] == ids(run="r1")
    assert ["x3"] == ids(run="r1", user="alice", period="2026-12")
    assert [] == ids(user="nobody")


def test_records_are_in_order_of_time_after_a_step_back(store: FullStore, clock: ManualClock) -> None:
    """A clock that steps back does not disorder the books."""
    store.reserve(booking("later", facts=facts()))
    clock.advance(-DAY_MS)
    store.reserve(booking("earlier", facts=facts()))
    assert ["earlier", "later"] == [record.id for record in store.usage()]


def test_long_listings_are_whole(store: FullStore, clock: ManualClock) -> None:
    """A listing longer than a page, over one standing millisecond and many moving ones, has every record once."""
    for n in range(1_201):
        store.reserve(booking(f"x{n}", 1, facts=facts()))
        clock.advance(n % 2)
    assert [f"x{n}" for n in range(1_201)] == [record.id for record in store.usage(user="alice")]


@pytest.mark.parametrize("wrong", ["2026-13", "november", "2026-11-01", ""])
def test_malformed_months_are_refused(store: FullStore, wrong: str) -> None:
    """Usage of something that is no month is an error, not an empty list."""
    with pytest.raises(ValueError, match=r"(?i)month|period"):
        list(store.usage(period=wrong))


def test_balances_list_every_account(store: FullStore) -> None:
    """Newest month first, runs last, then by scope and unit; narrowed by scope and period."""
    december = Account("user:alice", "2026-12")
    store.reserve(booking("a", CENT, RUN, ORG, USER, TOKENS, december, limit=DOLLAR))
    assert [december, ORG, USER, TOKENS, RUN] == [balance.account for balance in store.balances()]
    assert [december, USER, TOKENS] == [balance.account for balance in store.balances(scope="user:alice")]
    assert [USER, TOKENS] == [b.account for b in store.balances(scope="user:alice", period=MONTH)]
    assert [(DOLLAR, CENT, "code")] * 5 == [(b.limit, b.held, b.limit_source) for b in store.balances()]


def test_malformed_operator_limits_change_nothing(store: FullStore) -> None:
    """Floats, negative limits and bad scopes raise and set nothing."""
    for scope, limit, unit in (
        ("user:alice", 1.0, "pusd"), ("user:alice", -1, "pusd"), ("alice", 1, "pusd"), ("user:alice", 1, "US$"),
        ("user:alice", True, "pusd"), (None, 1, "pusd"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            store.set_limit(scope, limit, unit=unit)  # type: ignore[arg-type]
    assert [] == list(store.limits())


def test_status_follows_the_balance(store: FullStore) -> None:
    """Active, warning from 80 % spent or held, blocked at the limit; and back when money is given back."""
    seen = []
    for n in range(10):
        store.reserve(booking(f"c{n}", CENT, limit=10 * CENT))
        seen.append(store.balance(USER).status)
    assert ["active"] * 7 + ["warning"] * 2 + ["blocked"] == seen
    for n in range(3):
        store.release(f"c{n}")
    assert "active" == store.balance(USER).status


def test_a_warning_is_claimed_once_a_window(store: FullStore, clock: ManualClock) -> None:
    """One claim per account, mark and window; the next window, another mark and another account have their own."""
    window = 6 * 3_600_000
    assert store.claim_warning(USER, "warning") is True
    assert store.claim_warning(USER, "warning") is False
    assert store.claim_warning(USER, "limit") is True
    assert store.claim_warning(ORG, "warning") is True
    clock.advance(window - 1)
    assert store.claim_warning(USER, "warning") is False
    clock.advance(1)
    assert store.claim_warning(USER, "warning") is True
    assert store.claim_warning(USER, "warning") is False
    assert [] == list(store.balances())
    with pytest.raises(ValueError, match="mark"):
        store.claim_warning(USER, "half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window_ms"):
        store.claim_warning(USER, "warning", window_ms=0)


def test_a_zone_is_fixed_at_first_use(store: FullStore) -> None:
    """The first zone of a scope stays; others are told it."""
    assert "Asia/Tokyo" == store.fix_zone("user:alice", "Asia/Tokyo")
    assert "Asia/Tokyo" == store.fix_zone("user:alice", "UTC")
    assert "UTC" == store.fix_zone("user:bob", "UTC")


def record(run_id: str, ended_ms: int, *, user: str = "alice", name: str = "nightly") -> RunRecord:
    """A run's record."""
    return RunRecord(
        id=run_id, name=name, user=user, started_ms=START_MS, ended_ms=ended_ms, mode="enforce",
        stop_reason="loop_detected", report={"cost_pusd": CENT, "rows": [{"step": 1, "name": "ünïcode \udc80"}]},
    )  # fmt: skip


def test_runs_are_kept_and_replaced(store: FullStore) -> None:
    """Runs come back as they were saved, those that ended last first; the same id again replaces."""
    for run_id, ended in (("r1", 10), ("r2", 30), ("r3", 20)):
        store.save_run(record(run_id, ended, user="bob" if run_id == "r3" else "alice"))
    assert ["r2", "r3", "r1"] == [run.id for run in store.runs()]
    assert ["r2", "r1"] == [run.id for run in store.runs(user="alice")]
    assert ["r2"] == [run.id for run in store.runs(count_max=1)]
    assert record("r1", 10) == store.run("r1")
    assert store.run("r9") is None
    store.save_run(record("r1", 40, name="again"))
    assert record("r1", 40, name="again") == store.run("r1")
    assert ["r1", "r2", "r3"] == [run.id for run in store.runs()]


def test_a_report_is_out_of_its_makers_reach(store: FullStore) -> None:
    """Changing a report after it was saved does not change the books; what is not JSON is refused."""
    report: dict[str, object] = {"steps": 1}
    kept = record("r1", 10)
    store.save_run(
        RunRecord(**{field: getattr(kept, field) for field in kept.__slots__ if field != "report"}, report=report)
    )
    report["steps"] = 2
    found = store.run("r1")
    assert found is not None
    assert {"steps": 1} == found.report
    for wrong in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises((TypeError, ValueError)):
            store.save_run(RunRecord(**{f: getattr(kept, f) for f in kept.__slots__ if f != "report"}, report=wrong))
    assert found == store.run("r1")


@pytest.mark.parametrize("jump_ms", [30 * 86_400_000, -30 * 86_400_000])
def test_a_warning_of_a_wrong_clock_is_not_the_last(store: FullStore, clock: ManualClock, jump_ms: int) -> None:
    """A claim made while the clock was a month ahead or behind silences nobody once the clock is right again."""
    clock.advance(jump_ms)
    assert store.claim_warning(USER, "warning") is True
    clock.advance(-jump_ms)
    assert store.claim_warning(USER, "warning") is True
    assert store.claim_warning(USER, "warning") is False


def test_names_no_file_can_keep_are_kept_alike(store: FullStore) -> None:
    """Lone surrogates in a run's name become U+FFFD in every engine, and a search with one finds nothing and works."""
    odd = record("r1", 10, name="nightly \udc80\0ü😀")
    store.save_run(odd)
    assert ["nightly \ufffd\0ü😀"] == [run.name for run in store.runs()]
    store.reserve(booking("a", CENT, facts=facts()))
    found = [
        list(store.usage(user="\udc80")), list(store.usage(run="\udc80")), list(store.balances(scope="\udc80")),
        list(store.runs(user="\udc80")),
    ]  # fmt: skip
    assert [[]] * 4 == found
    assert store.run("\udc80") is None
    with pytest.raises(ValueError, match="zone"):
        store.fix_zone("user:alice", "\udc80")


def test_one_users_calls_among_many_are_found(store: FullStore, clock: ManualClock) -> None:
    """A user's calls come back whole and in order, however many of others' lie between them and in whichever month."""
    for n in range(60):
        store.reserve(booking(f"c{n}", 1, facts=facts(user="bob" if n % 20 else "alice", run=f"r{n % 2}")))
        clock.advance(86_400_000)
    assert ["c0", "c20", "c40"] == [usage.id for usage in store.usage(user="alice")]
    assert ["c20", "c40"] == [usage.id for usage in store.usage(user="alice", period="2026-12")]
    assert [30, 57] == [sum(1 for _ in store.usage(run="r1")), sum(1 for _ in store.usage(user="bob"))]
