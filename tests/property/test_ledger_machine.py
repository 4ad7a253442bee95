"""
Two engines and a small model are driven with the same trace. They must give the same answers and keep the same books:
memory and SQLite, and where a server is (`.ci/dynamodb`), memory and DynamoDB.

The invariants are those of a two-phase ledger: what is held is the sum of the open holds, what is spent is the sum of
the charges, a refusal changes nothing and happens only where room was lacking, a reservation is resolved once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rr_dynamo import needs_server, new_table, open_dynamodb, shared_client
from rr_ledger import START_MS, books, facts
from runrails.errors import RunrailsError
from runrails.ledger import (
    AMOUNT_MAX,
    Account,
    Balance,
    Expired,
    FullStore,
    Hold,
    Refused,
    Reservation,
    Reserved,
    Settled,
    SupportsCorrections,
)
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

ACCOUNTS = (
    Account("run:r1", "-"), Account("user:a", "2026-11"), Account("user:a", "2026-12"), Account("org:o", "2026-11"),
    Account("user:a", "2026-11", "tokens"),
)  # fmt: skip
IDS = st.integers(0, 11).map(lambda n: f"id{n}")
SMALL = st.integers(0, 40)
AMOUNTS = st.one_of(SMALL, SMALL, SMALL, st.sampled_from([AMOUNT_MAX, AMOUNT_MAX - 20]))
LIMITS = st.one_of(st.none(), st.integers(0, 100), st.just(AMOUNT_MAX))
HOLDS = st.lists(
    st.builds(Hold, st.sampled_from(ACCOUNTS), AMOUNTS, LIMITS), min_size=1, max_size=5, unique_by=lambda h: h.account
)  # fmt: skip


class Model:
    """The ledger in as few lines as say what it means."""

    def __init__(self) -> None:
        self.code: dict[Account, int] = {}
        self.operator: dict[tuple[str, str], int] = {}
        self.open: dict[str, tuple[Reservation, int]] = {}
        self.done: dict[str, tuple[Reservation, tuple[int, ...]]] = {}

    def held(self, account: Account) -> int:
        return sum(h.amount for r, _ in self.open.values() for h in r.holds if h.account == account)

    def spent(self, account: Account) -> int:
        pairs = [pair for r, charges in self.done.values() for pair in zip(r.holds, charges, strict=True)]
        return sum(charge for hold, charge in pairs if hold.account == account)

    def limit(self, account: Account, code: int | None = None) -> int:
        operator = self.operator.get((account.scope, account.unit))
        given = self.code.get(account, AMOUNT_MAX) if code is None else code
        return given if operator is None else operator

    def poor(self, reservation: Reservation) -> set[Account]:
        return {
            h.account for h in reservation.holds
            if self.spent(h.account) + self.held(h.account) + h.amount > self.limit(h.account, h.limit)
        }  # fmt: skip

    def overdue(self, now_ms: int) -> list[str]:
        return [i for _, i in sorted((expires, i) for i, (_, expires) in self.open.items() if expires <= now_ms)]

    def expire(self, now_ms: int, count_max: int) -> tuple[str, ...]:
        ids = self.overdue(now_ms)[:count_max]
        for i in ids:
            reservation, _ = self.open.pop(i)
            charged = reservation.on_expiry == "charge"
            self.done[i] = reservation, tuple(h.amount if charged else 0 for h in reservation.holds)
        return tuple(ids)


class Ledgers(RuleBasedStateMachine):
    """Every verb, in any order, on both engines at once."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.clock = ManualClock(START_MS)
        self.engines: list[FullStore] = [MemoryStore(clock=self.clock), self.opened()]
        self.model = Model()
        self.states: dict[str, str] = {}
        self.asked: dict[str, dict[Account, int]] = {}

    def opened(self) -> FullStore:
        """The second engine, opened; again in the same place if it has been open before."""
        return SQLiteStore(self.directory / "ledger.db", clock=self.clock, synchronous="NORMAL")

    def teardown(self) -> None:
        for engine in self.engines:
            engine.close()
        shutil.rmtree(self.directory)

    def both(self, verb: Callable[[FullStore], object]) -> object:
        """Both engines' common answer; an error counts as its type and fields."""
        answers: list[object] = []
        for engine in self.engines:
            before = books(engine)
            try:
                answers.append(verb(engine))
            except (RunrailsError, ValueError) as error:
                answers.append((type(error), str(error)))
                assert before == books(engine), "an error changed the books"
        assert answers[0] == answers[1], "the engines differ"
        return answers[0]

    @rule(
        i=IDS, holds=HOLDS, enforce=st.booleans(), policy=st.sampled_from(["charge", "release"]), ttl=st.integers(1, 9)
    )
    def reserve(self, i: str, holds: list[Hold], enforce: bool, policy: str, ttl: int) -> None:
        reservation = Reservation(i, tuple(holds), ttl, facts(), policy, enforce)  # type: ignore[arg-type]
        first = self.model.open.get(i, self.model.done.get(i))
        answer = self.both(lambda engine: engine.reserve(reservation))
        if first is not None:
            same = self.asked[i] == {h.account: h.amount for h in holds}
            if same and first[0].on_expiry == policy:
                assert isinstance(answer, Reserved)
                assert (True, self.states[i]) == (answer.replayed, answer.state)
            else:
                assert isinstance(answer, tuple)
                assert "other content" in str(answer)
            return
        self.swept(64)
        poor = self.model.poor(reservation)
        impossible = any(
            self.model.spent(h.account) + self.model.held(h.account) + h.amount > AMOUNT_MAX for h in holds
        )
        if (poor and enforce) or impossible:
            assert isinstance(answer, Refused)
            assert answer.account in (poor | {h.account for h in holds} if impossible else poor)
            assert answer.available < answer.needed
            return
        assert isinstance(answer, Reserved)
        assert bool(poor) == (answer.would_refuse is not None)
        for hold in holds:
            if hold.limit is not None:
                self.model.code[hold.account] = hold.limit
        self.model.open[i] = reservation, self.clock() + ttl
        self.states[i] = "held"
        self.asked[i] = {h.account: h.amount for h in holds}
        for hold in holds if enforce else ():
            account = hold.account
            assert self.model.spent(account) + self.model.held(account) <= self.model.limit(account)

    @rule(i=IDS, actual=AMOUNTS, unresolved=st.booleans(), tokens=st.one_of(st.none(), SMALL))
    def settle(self, i: str, actual: int, unresolved: bool, tokens: int | None) -> None:
        units = None if tokens is None else {"tokens": tokens}
        answer = self.both(lambda engine: engine.settle(i, actual, units=units, unresolved=unresolved))
        if not isinstance(answer, Settled) or answer.replayed:
            return
        state = self.states[i]
        assert state in {"held", "unresolved"}
        reservation = (self.model.open.pop(i, None) or self.model.done.pop(i))[0]
        charges = tuple(
            actual if h.account.unit == "pusd" else h.amount if tokens is None else tokens for h in reservation.holds
        )
        self.model.done[i] = reservation, charges
        self.states[i] = "unresolved" if unresolved else "settled" if state == "held" else "late"
        assert (self.states[i], actual) == (answer.state, answer.actual)

    @rule(i=IDS)
    def release(self, i: str) -> None:
        answer = self.both(lambda engine: engine.release(i))
        if isinstance(answer, Settled) and not answer.replayed:
            assert "held" == self.states[i]
            reservation, _ = self.model.open.pop(i)
            self.model.done[i] = reservation, (0,) * len(reservation.holds)
            self.states[i] = "released"

    @rule(i=IDS, actual=AMOUNTS)
    def correct(self, i: str, actual: int) -> None:
        answer = self.both(lambda engine: cast("SupportsCorrections", engine).correct(i, actual, source="bill"))
        if not isinstance(answer, Settled) or answer.replayed:
            return
        assert self.states[i] != "held"
        reservation, before = self.model.done[i]
        charges = tuple(
            actual if h.account.unit == "pusd" else charge for h, charge in zip(reservation.holds, before, strict=True)
        )
        self.model.done[i] = reservation, charges
        self.states[i] = "settled" if self.states[i] == "settled" else "late"
        assert (self.states[i], actual) == (answer.state, answer.actual)
        for engine in self.engines:
            line = list(cast("SupportsCorrections", engine).corrections(reservation_id=i))[-1]
            assert (actual, self.clock(), "bill") == (line.after_pusd, line.at_ms, line.source)

    @rule(count=st.integers(1, 5))
    def expire(self, count: int) -> None:
        answer = self.both(lambda engine: engine.expire(count_max=count))
        assert Expired(self.swept(count)) == answer

    @rule(i=IDS, amount=AMOUNTS, enforce=st.booleans())
    def raise_hold(self, i: str, amount: int, enforce: bool) -> None:
        answer = self.both(lambda engine: engine.raise_hold(i, amount, enforce=enforce))
        if i not in self.model.open:
            assert not isinstance(answer, Reserved) or (self.states[i], True) == (answer.state, answer.replayed)
            return
        reservation, expires = self.model.open[i]
        raised = tuple(
            h._replace(amount=max(h.amount, amount) if h.account.unit == "pusd" else h.amount)
            for h in reservation.holds
        )
        more = {new.account: new.amount - old.amount for new, old in zip(raised, reservation.holds, strict=True)}
        used = {a: self.model.spent(a) + self.model.held(a) + add for a, add in more.items() if add}
        poor = {a for a, sum_ in used.items() if sum_ > self.model.limit(a)}
        if (poor and enforce) or any(sum_ > AMOUNT_MAX for sum_ in used.values()):
            assert isinstance(answer, Refused)
            assert answer.available < answer.needed == more[answer.account]
            return
        assert isinstance(answer, Reserved)
        assert ("held", bool(poor)) == (answer.state, answer.would_refuse is not None)
        self.model.open[i] = reservation._replace(holds=raised), expires

    def swept(self, count: int) -> tuple[str, ...]:
        ids = self.model.expire(self.clock(), count)
        self.states |= dict.fromkeys(ids, "unresolved")
        return ids

    @rule(i=IDS, ttl=st.integers(1, 9))
    def extend(self, i: str, ttl: int) -> None:
        answer = self.both(lambda engine: engine.extend(i, ttl_ms=ttl))
        assert (i in self.model.open) == answer
        if answer:
            reservation, expires = self.model.open[i]
            self.model.open[i] = reservation, max(expires, self.clock() + ttl)

    @rule(ms=st.integers(-3, 8))
    def pass_time(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(account=st.sampled_from(ACCOUNTS), limit=LIMITS)
    def set_limit(self, account: Account, limit: int | None) -> None:
        self.both(lambda engine: engine.set_limit(account.scope, limit, unit=account.unit))
        if limit is None:
            self.model.operator.pop((account.scope, account.unit), None)
        else:
            self.model.operator[account.scope, account.unit] = limit

    @rule(account=st.sampled_from(ACCOUNTS), mark=st.sampled_from(["warning", "limit"]))
    def claim(self, account: Account, mark: str) -> None:
        self.both(lambda engine: engine.claim_warning(account, mark, window_ms=5))  # type: ignore[arg-type]

    @rule(names=st.permutations([0, 1]))
    def reopen(self, names: list[int]) -> None:
        """The file keeps everything: a new connection sees the same books."""
        before = books(self.engines[1])
        self.engines[1].close()
        self.engines[1] = self.opened()
        assert before == books(self.engines[1])

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "engines"):
            return
        assert books(self.engines[0]) == books(self.engines[1])
        for account in ACCOUNTS:
            balance = self.both(lambda engine, account=account: engine.balance(account))
            assert isinstance(balance, Balance)
            assert (self.model.spent(account), self.model.held(account)) == (balance.spent, balance.held)
            assert self.model.limit(account) == (AMOUNT_MAX if balance.limit is None else balance.limit)
            assert balance.spent + balance.held <= AMOUNT_MAX
            if balance.available is not None:
                assert balance.limit == balance.available + balance.held + balance.spent


class LedgersInTurns(Ledgers):
    """The same with two stores of one file, as two processes have them: neither believes what it remembers."""

    other: FullStore | None = None

    @rule()
    def take_turns(self) -> None:
        """From now on the other one is asked."""
        self.engines[1], self.other = self.other or self.opened(), self.engines[1]

    def teardown(self) -> None:
        """Of both."""
        if self.other is not None:
            self.other.close()
        super().teardown()


class SharedLedgers(Ledgers):
    """The same on DynamoDB; a new store knows nothing but the table."""

    table = ""

    def opened(self) -> FullStore:
        """A store of its own in this trace's table."""
        self.table = self.table or new_table()
        store: FullStore = open_dynamodb(self.clock, table=self.table)
        return store

    def teardown(self) -> None:
        """Also the table's end."""
        super().teardown()
        shared_client().delete_table(TableName=self.table)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedgersInTurns = LedgersInTurns.TestCase
TestLedgersInTurns.settings = settings(TestLedgers.settings, max_examples=40)
TestSharedLedgers = needs_server(SharedLedgers.TestCase)
TestSharedLedgers.settings = settings(
    TestLedgers.settings, max_examples=int(os.environ.get("RUNRAILS_DDB_EXAMPLES", "12"))
)
