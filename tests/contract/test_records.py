"""A ledger read record by record: its balances are what the records add up to, and it moves into any other engine."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from rr_dynamo import ENDPOINT
from rr_lease import lease_of
from rr_ledger import CENT, DOLLAR, FOUR, KINDS, RUN, START_MS, TOKENS, USER, amounts, booking, books, facts, open_kind
from runrails.errors import ConfigError, LedgerError, ReservationMismatch, RunrailsError
from runrails.ledger import Account, Refused, ResultFacts, RunRecord, SupportsCorrections
from runrails.stores.memory import MemoryStore
from runrails.stores.migrating import Migratable, Migrated, check_migratable, migrate
from runrails.stores.records import differences
from runrails.testing import FlakyStore, ManualClock
from runrails.usage import Usage

SHARED = ("dynamodb",) if ENDPOINT else ()
MOVES = (
    ("memory", "sqlite-normal"), ("sqlite-normal", "memory"), ("sqlite-normal", "sqlite-full"),
    *(pair for kind in SHARED for pair in (("sqlite-normal", kind), (kind, "memory"))),
)  # fmt: skip


def opened(kind: str, directory: Path, clock: ManualClock) -> Migratable:
    """A fresh store."""
    directory.mkdir(exist_ok=True)
    return check_migratable(open_kind(kind, directory, clock))


def lived_in(store: Migratable, clock: ManualClock, *, seed: int = 1, steps: int = 150) -> None:
    """Fill a store with everything that can become of a call, and everything else that a ledger keeps."""
    rnd = random.Random(seed)
    store.set_limit("org:acme", 90 * DOLLAR)
    store.set_limit("user:nobody", 5 * DOLLAR)
    store.fix_zone("user:alice", "Asia/Tokyo")
    ids = [f"call-{number}" for number in range(steps)]
    for number, name in enumerate(ids):
        clock.advance(rnd.randrange(0, 3_000))
        accounts = rnd.choice([FOUR, (USER,), (RUN, USER, TOKENS), (Account("user:bob", "2026-12"), RUN)])
        store.reserve(
            booking(
                name, rnd.randrange(0, 5 * CENT), *accounts, limit=rnd.choice([None, DOLLAR, 50 * DOLLAR]),
                facts=facts(run=f"r{number % 7}") if rnd.random() < 0.9 else None, enforce=rnd.random() < 0.5,
                on_expiry=rnd.choice(["charge", "release"]), ttl_ms=rnd.choice([5_000, 120_000]),
            )
        )  # fmt: skip
        if rnd.random() < 0.3:
            _try(partial(store.raise_hold, name, rnd.randrange(0, 9 * CENT), enforce=False))
        for _ in range(rnd.randrange(0, 3)):
            _try(partial(_end_somehow, store, rnd.choice(ids[: number + 1]), rnd))
    store.claim_warning(USER, "warning")
    report = {"steps": 3, "text": "ü"}
    store.save_run(
        RunRecord(
            id="r1", name="nightly", user="alice", started_ms=START_MS, ended_ms=START_MS + 5, mode="enforce",
            stop_reason=None, report=report,
        )
    )  # fmt: skip


def _end_somehow(store: Migratable, name: str, rnd: random.Random) -> None:
    amount = rnd.randrange(0, 6 * CENT)
    result = ResultFacts(usage=Usage(input_tokens=rnd.randrange(9)), model="m", price_card="card-1")
    match rnd.randrange(4):
        case 0:
            store.settle(name, amount, result=result)
        case 1:
            store.settle(name, amount, unresolved=True)
        case 2:
            store.release(name)
        case _:
            assert isinstance(store, SupportsCorrections)
            store.correct(name, amount, source="bill of November")


def _try(verb: Callable[[], object]) -> None:
    with suppress(RunrailsError):
        verb()


def ended(store: Migratable, clock: ManualClock) -> None:
    """Let every call that is in flight run out of time."""
    clock.advance(200_000)
    while store.expire(count_max=64).ids:
        pass


def everything(store: Migratable) -> tuple[object, ...]:
    """All that two ledgers must agree on."""
    corrections = store.corrections() if hasattr(store, "corrections") else ()
    records = sorted(store.records(), key=lambda record: record.id)
    return (
        sorted(books(store)[0], key=str), sorted(store.usage(), key=lambda each: each.id), list(store.limits()),
        records, list(store.runs()), sorted(corrections, key=str), store.fix_zone("user:alice", "UTC"),
    )  # fmt: skip


@pytest.fixture(params=(*KINDS, *SHARED))
def filled(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Migratable]:
    """A store of each kind that has been lived in."""
    store = opened(request.param, tmp_path / "filled", clock)
    lived_in(store, clock)
    yield store
    store.close()


def test_the_balances_are_what_the_records_add_up_to(filled: Migratable, clock: ManualClock) -> None:
    """With calls in every state, and again when all have ended; asking writes nothing."""
    states = {record.state for record in filled.records()}
    assert {"held", "settled", "released", "unresolved", "late"} == states
    before = books(filled)
    accounts, wrong = differences(filled.sums())
    assert (len(before[0]), []) == (accounts, wrong)
    assert before == books(filled)
    ended(filled, clock)
    assert [] == differences(filled.sums())[1]


def test_records_come_oldest_first_and_say_what_the_verbs_said(filled: Migratable) -> None:
    """Of the calls among them the usage records say the same."""
    records = list(filled.records())
    assert [record.at_ms for record in records] == sorted(record.at_ms for record in records)
    by_id = {record.id: record for record in records}
    for usage in filled.usage():
        record = by_id[usage.id]
        assert (usage.state, usage.at_ms, usage.settled_at_ms, usage.actual_pusd or 0, usage.corrected) == (
            record.state, record.at_ms, record.resolved_ms, record.actual, record.corrected,
        )  # fmt: skip
        assert (usage.facts, usage.result) == (record.facts, record.result)


@pytest.mark.parametrize(("source_kind", "target_kind"), MOVES)
def test_a_ledger_moves_into_another_engine(
    source_kind: str, target_kind: str, tmp_path: Path, clock: ManualClock
) -> None:
    """Everything is the same there, and the ledger goes on there as it would have here."""
    source, target = opened(source_kind, tmp_path / "a", clock), opened(target_kind, tmp_path / "b", clock)
    lived_in(source, clock)
    ended(source, clock)
    before = everything(source)
    done = migrate(source, target)

    assert before == everything(source) == everything(target)
    spent = sum(
        each.spent for each in before[0] if each.account.scope.startswith("user:") and each.account.unit == "pusd"
    )  # type: ignore[attr-defined]
    count = sum(1 for _ in source.records())
    assert 100 < count
    assert (count, count, spent) == (done.records, done.new, done.spent_pusd)
    assert not target.claim_warning(USER, "warning")
    for verb in ("settle", "release", "correct"):
        for record in itertools.islice(source.records(), 60):
            assert _answer(source, verb, record.id) == _answer(target, verb, record.id)
    assert everything(source)[0] == everything(target)[0]
    assert [] == differences(target.sums())[1]
    for store in (source, target):
        store.close()


def _answer(store: Migratable, verb: str, name: str) -> object:
    try:
        if verb == "settle":
            return store.settle(name, CENT)
        return store.release(name) if verb == "release" else store.correct(name, 2 * CENT, source="bill")
    except RunrailsError as error:
        return error.as_dict()


@pytest.mark.parametrize(("source_kind", "target_kind"), MOVES)
def test_an_interrupted_migration_goes_on(
    source_kind: str, target_kind: str, tmp_path: Path, clock: ManualClock
) -> None:
    """Half of the records are there, from whatever batch: the rest is added, and running it again adds nothing."""
    source, target = opened(source_kind, tmp_path / "a", clock), opened(target_kind, tmp_path / "b", clock)
    lived_in(source, clock)
    ended(source, clock)
    records = list(source.records())
    target.put_records(records[1::2])
    first = migrate(source, target)
    again = migrate(source, target)

    assert (len(records), len(records[::2])) == (first.records, first.new)
    assert again == Migrated(len(records), 0, first.accounts, first.spent_pusd)
    assert everything(source) == everything(target)
    for store in (source, target):
        store.close()


@pytest.mark.parametrize("kind", [*KINDS, *SHARED])
def test_a_target_that_disagrees_is_left_alone(kind: str, tmp_path: Path, clock: ManualClock) -> None:
    """A call of its own, a call with another end, or another limit: nothing is written."""
    source = opened("memory", tmp_path / "a", clock)
    source.reserve(booking("a", CENT, limit=DOLLAR))
    source.settle("a", CENT)

    def own_call(store: Migratable) -> None:
        store.reserve(booking("b", CENT))
        store.settle("b", CENT)

    def other_end(store: Migratable) -> None:
        store.reserve(booking("a", CENT, limit=DOLLAR))
        store.settle("a", CENT - 1)

    def other_limit(store: Migratable) -> None:
        store.set_limit("user:alice", 3 * DOLLAR)

    for number, spoil in enumerate((own_call, other_end, other_limit)):
        target = opened(kind, tmp_path / str(number), clock)
        spoil(target)
        before = everything(target)
        with pytest.raises(LedgerError, match="disagrees"):
            migrate(source, target)
        assert before[:-1] == everything(target)[:-1]
        target.close()


def test_a_call_in_flight_refuses(clock: ManualClock) -> None:
    """Its owner would settle it in the ledger that nobody looks at any more."""
    source, target = MemoryStore(clock=clock), MemoryStore(clock=clock)
    source.reserve(booking("a", CENT))
    with pytest.raises(LedgerError, match="in flight"):
        migrate(source, target)

    assert ((), (), ()) == books(target)
    clock.advance(200_000)
    source.expire()
    assert 1 == migrate(source, target).new


def test_a_ledger_that_does_not_add_up_is_not_moved(clock: ManualClock) -> None:
    """Its difference would be carried along and never be found."""
    source, target = MemoryStore(clock=clock, records_max=1), MemoryStore(clock=clock)
    for name in ("a", "b"):
        source.reserve(booking(name, CENT))
        source.settle(name, CENT)
    (wrong,) = differences(source.sums())[1]
    assert (USER, "spent", 2 * CENT, CENT) == wrong
    with pytest.raises(LedgerError, match="balances of the source"):
        migrate(source, target)
    assert ((), (), ()) == books(target)


@pytest.mark.parametrize("kind", [*KINDS, *SHARED])
def test_records_are_put_all_or_none(kind: str, tmp_path: Path, clock: ManualClock) -> None:
    """One of them is there with other content, or an account could not count the sum: none is added."""
    source, target = opened("memory", tmp_path / "a", clock), opened(kind, tmp_path / "b", clock)
    for name, cents in (("a", 1), ("b", 2), ("c", 3)):
        source.reserve(booking(name, cents * CENT))
        source.settle(name, cents * CENT)
    records = list(source.records())
    target.put_records(records[:1])
    before = books(target)
    with pytest.raises(ReservationMismatch):
        target.put_records([records[1], records[0]._replace(actual=7), records[2]])
    assert before == books(target)
    held = records[2].holds[0]._replace(charge=2**63 - 1, amount=0)
    with pytest.raises(LedgerError):
        target.put_records([records[1], records[2]._replace(actual=2**63 - 1, holds=(held,))])
    assert before == books(target)
    assert 2 == target.put_records(records)
    assert (6 * CENT, 0) == amounts(target)
    target.close()


def test_a_hold_that_is_put_is_a_hold(clock: ManualClock) -> None:
    """It can be settled, expires at its time, and counts against the limit meanwhile."""
    source, target = MemoryStore(clock=clock), MemoryStore(clock=clock)
    for name in ("a", "b"):
        source.reserve(booking(name, 3 * CENT))
    target.put_records(list(source.records()))
    assert isinstance(target.reserve(booking("c", 3 * CENT, limit=8 * CENT)), Refused)
    target.settle("a", CENT)
    clock.advance(130_000)
    assert ("b",) == target.expire().ids
    assert (4 * CENT, 0) == amounts(target)


def test_a_bounded_store_keeps_the_newest_records_that_are_put(clock: ManualClock) -> None:
    """Its balances count them all, as they do what it drops otherwise."""
    source, target = MemoryStore(clock=clock), MemoryStore(clock=clock, records_max=2)
    for name in ("a", "b", "c"):
        source.reserve(booking(name, CENT))
        source.settle(name, CENT)
        clock.advance(1)
    target.put_records(list(source.records()))

    assert ["b", "c"] == [record.id for record in target.records()]
    assert (3 * CENT, 0) == amounts(target)


def test_a_store_that_cannot_be_read_says_so(clock: ManualClock) -> None:
    """Its name, and which can."""
    with pytest.raises(ConfigError, match="FlakyStore"):
        check_migratable(FlakyStore(MemoryStore(clock=clock)))


@pytest.mark.parametrize(("source_kind", "target_kind"), MOVES)
def test_a_ledger_that_was_leased_from_moves_like_any_other(
    source_kind: str, target_kind: str, tmp_path: Path, clock: ManualClock
) -> None:
    """Calls that slices paid for, and slices that were charged or given back, are records as others are."""
    source, target = opened(source_kind, tmp_path / "a", clock), opened(target_kind, tmp_path / "b", clock)
    for crashed in (False, True):
        leased = lease_of(source, clock, owns_store=False)
        for number, ended in enumerate(("settled", "released", "expired", "open")):
            name = f"{number}{crashed}"
            leased.reserve(booking(name, CENT, *FOUR, limit=100 * DOLLAR, facts=facts(), ttl_ms=5_000 + number))
            if ended == "settled":
                leased.settle(name, CENT // 2, result=ResultFacts())
            elif ended == "released":
                leased.release(name)
            clock.advance(5_002 if ended == "expired" else 0)
        leased.tick()
        if not crashed:
            leased.close()
    clock.advance(200_000)
    while source.expire().ids:
        pass
    assert migrate(source, target).records == len(list(target.records()))
    assert everything(source)[0] == everything(target)[0]
    assert [] == differences(target.sums())[1]
    for store in (source, target):
        store.close()
