"""
Several leased clients share one store; they crash, fall silent, lose requests and answers, and their clocks move.

The truth is what calls really cost, which the machine knows and the clients of a crashed process never told. At every
moment the shared books must cover it, no limit may be passed, and in the end, once everything has expired, nothing is
missing: what was not told is charged, and never more than was outstanding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rr_lease import VerbStore, WholeFlakyStore, lease_of
from rr_ledger import START_MS, facts
from runrails.errors import LedgerError, StoreUnavailable
from runrails.ledger import RUN_PERIOD, Account, Hold, Refused, Reservation, Reserved
from runrails.stores.leased import LeasedStore
from runrails.stores.leases import Lease
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock

T = TypeVar("T")
RUN = Account("run:r1", RUN_PERIOD)
USERS = (Account("user:a", "2026-11"), Account("user:b", "2026-11"), Account("user:a", "2026-12"))
ORG = Account("org:o", "2026-11")
TOKENS = Account("user:a", "2026-11", "tokens")
LIMITS = {RUN: 400, USERS[0]: 300, USERS[1]: 200, USERS[2]: 90, ORG: 500}
CLIENTS = st.integers(0, 2)
AMOUNTS = st.integers(0, 12)
FATES = st.lists(st.sampled_from(["ok", "request_lost", "response_lost"]), max_size=4)
SLICE = 60
LEASE = Lease(slice="0.00000000006", ttl_ms=60_000, share=3, checkpoint_calls=3)
"""Sixty picodollars at a time."""


class Truth:
    """One call as it really was."""

    def __init__(self, client: int, reservation: Reservation) -> None:
        self.client = client
        self.reservation = reservation
        self.amount = self.asked = reservation.holds[0].amount
        """What it holds as far as it was told, and the most it has asked for."""
        self.cost: int | None = None
        """None while it is in flight."""
        self.gone = False
        """Its client crashed before it was told of the end."""
        self.moved = False
        """Its client was closed: another one would not know that the id was used before."""

    def accounts(self) -> set[Account]:
        return {hold.account for hold in self.reservation.holds}


class Leases(RuleBasedStateMachine):
    """Every verb on every client, in any order."""

    @initialize(draws=st.booleans(), stale_ms=st.sampled_from([0, 1_000]))
    def begin(self, draws: bool, stale_ms: int) -> None:
        self.draws = draws
        self.stale_ms = stale_ms
        self.wall, self.mono = ManualClock(START_MS), ManualClock(0)
        self.shared = MemoryStore(clock=self.wall)
        for account, limit in LIMITS.items():
            self.shared.set_limit(account.scope, limit)
        self.fates: list[str] = []
        self.clients = [self.client() for _ in range(3)]
        self.calls: dict[str, Truth] = {}
        self.overrun = dict.fromkeys(LIMITS, 0)
        self.crashed = dict.fromkeys(LIMITS, 0)
        self.named = 0

    def client(self) -> LeasedStore:
        def plan() -> str:
            return self.fates.pop(0) if self.fates else "ok"

        kind = WholeFlakyStore if self.draws else type("Verbs", (VerbStore, WholeFlakyStore), {})
        flaky = kind(self.shared, iter(plan, None))  # type: ignore[arg-type]
        return lease_of(flaky, self.wall, lease=LEASE, stale_ms=self.stale_ms, monotonic=self.mono, owns_store=False)  # type: ignore[arg-type]

    def surely(self, verb: Callable[[], T]) -> T:
        """A caller repeats what got no answer."""
        for _ in range(8):
            try:
                return verb()
            except StoreUnavailable:
                self.fates.clear()
        raise AssertionError("a store that answers is unavailable")

    def open_calls(self, client: int | None = None) -> list[Truth]:
        return [c for c in self.calls.values() if c.cost is None and not c.gone and client in (None, c.client)]

    def used(self, account: Account) -> int:
        return sum(c.amount if c.cost is None else c.cost for c in self.calls.values() if account in c.accounts())

    @rule(n=CLIENTS, amount=AMOUNTS, user=st.sampled_from(USERS), org=st.booleans(), tokens=st.booleans(),
          ttl=st.sampled_from([5_000, 120_000]))  # fmt: skip
    def reserve(self, n: int, amount: int, user: Account, org: bool, tokens: bool, ttl: int) -> None:
        accounts = (RUN, user, *([ORG] if org else []), *([TOKENS] if tokens and amount % 3 == 0 else []))
        self.named += 1
        reservation = Reservation(f"c{self.named}", tuple(Hold(account, amount) for account in accounts), ttl, facts())
        answer = self.surely(lambda: self.clients[n].reserve(reservation))
        if isinstance(answer, Refused):
            assert answer.available < answer.needed == amount
            return
        assert (answer.state, answer.would_refuse) == ("held", None)
        self.calls[reservation.id] = Truth(n, reservation)
        for account, limit in LIMITS.items():
            assert self.used(account) <= limit + self.overrun[account], "a limit was passed"

    @rule(n=CLIENTS, pick=st.integers(0, 99), share=st.integers(0, 6), unresolved=st.booleans())
    def settle(self, n: int, pick: int, share: int, unresolved: bool) -> None:
        calls = self.open_calls(n)
        if not calls:
            return
        call = calls[pick % len(calls)]
        unresolved = unresolved and self.draws  # else what the clock ended counts as the owner's word
        cost = call.amount * share // 5
        settled = self.surely(lambda: self.clients[n].settle(call.reservation.id, cost, unresolved=unresolved))
        assert cost == settled.actual
        for account in call.accounts() & set(LIMITS):
            self.overrun[account] += max(0, cost - call.amount)
        call.cost = cost
        again = self.surely(lambda: self.clients[n].settle(call.reservation.id, cost, unresolved=unresolved))
        assert (cost, True) == (again.actual, again.replayed)
        if unresolved:
            final = cost // 2
            assert final == self.surely(lambda: self.clients[n].settle(call.reservation.id, final)).actual
            call.cost = final

    @rule(n=CLIENTS, pick=st.integers(0, 99))
    def release(self, n: int, pick: int) -> None:
        calls = self.open_calls(n)
        if calls:
            call = calls[pick % len(calls)]
            try:
                self.surely(lambda: self.clients[n].release(call.reservation.id))
            except LedgerError:  # it has expired
                self.surely(lambda: self.clients[n].settle(call.reservation.id, 0))
            call.cost = 0

    @rule(n=CLIENTS, pick=st.integers(0, 99), more=AMOUNTS)
    def raise_hold(self, n: int, pick: int, more: int) -> None:
        calls = self.open_calls(n)
        if calls:
            call = calls[pick % len(calls)]
            answer = self.surely(lambda: self.clients[n].raise_hold(call.reservation.id, call.amount + more))
            if isinstance(answer, Reserved) and answer.state == "held":
                call.amount += more
                for account, limit in LIMITS.items():
                    assert self.used(account) <= limit + self.overrun[account], "a limit was passed"

    @rule(n=CLIENTS, pick=st.integers(0, 99), more=AMOUNTS, fates=FATES)
    def raise_in_vain(self, n: int, pick: int, more: int, fates: list[str]) -> None:
        """The store does not answer, and the caller goes on without."""
        calls = self.open_calls(n)
        if calls:
            call = calls[pick % len(calls)]
            self.fates = fates
            call.asked = max(call.asked, call.amount + more)
            with suppress(StoreUnavailable):
                answer = self.clients[n].raise_hold(call.reservation.id, call.amount + more)
                call.amount += more if isinstance(answer, Reserved) and answer.state == "held" else 0
            self.fates.clear()

    @rule(n=CLIENTS, pick=st.integers(0, 99), bill=AMOUNTS)
    def correct(self, n: int, pick: int, bill: int) -> None:
        done = [c for c in self.calls.values() if c.cost is not None and not c.gone and c.client == n]
        if done:
            call = done[pick % len(done)]
            self.surely(lambda: self.clients[n].correct(call.reservation.id, bill, source="bill"))
            for account in call.accounts() & set(LIMITS):
                self.overrun[account] += max(0, bill - (call.cost or 0))
            call.cost = bill

    @rule(n=CLIENTS, pick=st.integers(0, 99))
    def reserve_again(self, n: int, pick: int) -> None:
        own = [c for c in self.calls.values() if c.client == n and not c.gone and not c.moved]
        if own:
            call = own[pick % len(own)]
            answer = self.surely(lambda: self.clients[n].reserve(call.reservation))
            assert isinstance(answer, Reserved)
            assert answer.replayed

    @rule(n=CLIENTS, pick=st.integers(0, 99))
    def extend(self, n: int, pick: int) -> None:
        calls = self.open_calls(n)
        if calls:
            self.surely(lambda: self.clients[n].extend(calls[pick % len(calls)].reservation.id, ttl_ms=30_000))

    @rule(n=CLIENTS)
    def look_after(self, n: int) -> None:
        self.clients[n].tick()

    @rule(n=CLIENTS)
    def expire(self, n: int) -> None:
        self.surely(self.clients[n].expire)

    @rule(n=CLIENTS)
    def write(self, n: int) -> None:
        self.surely(self.clients[n].write)

    @rule(ms=st.sampled_from([1, 500, 2_500, 31_000, 70_000, 200_000]))
    def pass_time(self, ms: int) -> None:
        self.wall.advance(ms)
        self.mono.advance(ms)

    @rule(ms=st.sampled_from([-3_600_000, -120_000, -1, 120_000, 3_600_000]))
    def turn_the_clock(self, ms: int) -> None:
        self.wall.advance(ms)

    @rule(fates=FATES)
    def fail_soon(self, fates: list[str]) -> None:
        self.fates = fates

    def outstanding(self, n: int) -> None:
        books = self.clients[n]._books
        for account in LIMITS:
            for group in books.by_account.get(account, ()):
                slices = [*group.slices, *group.leaving]
                # What could not be taken for certain may be held as well; its size was a slice's at most.
                self.crashed[account] += sum(max(one.held, SLICE if one.low and not one.room else 0) for one in slices)
                if not self.draws:
                    self.crashed[account] += SLICE * len(slices)

    @rule(n=CLIENTS, share=st.integers(0, 5))
    def crash(self, n: int, share: int) -> None:
        self.outstanding(n)
        for call in self.open_calls(n):
            if call.reservation.id not in self.clients[n]._books.calls:  # else its slice is charged
                for account in call.accounts() & set(LIMITS):
                    self.crashed[account] += max(call.amount, call.asked)
            call.cost = call.amount * share // 5
        for call in self.calls.values():
            call.gone = call.gone or call.client == n
        self.clients[n] = self.client()

    @rule(n=CLIENTS)
    def close(self, n: int) -> None:
        """Calls in flight are the shared store's then: whoever is next may settle them."""
        self.fates.clear()
        self.clients[n].close()
        for call in self.calls.values():
            call.moved = call.moved or call.client == n
        self.clients[n] = self.client()

    @rule(amount=st.integers(1, 9), user=st.sampled_from(USERS[:2]))
    def exhaust(self, amount: int, user: Account) -> None:
        """Spend until nobody is let in: less than one call is left unused, wherever slices were."""
        self.fates.clear()
        refused = 0
        while refused < 3:
            refused = 0
            for n in range(3):
                self.named += 1
                reservation = Reservation(f"c{self.named}", (Hold(user, amount),), 120_000, facts())
                answer = self.clients[n].reserve(reservation)
                if isinstance(answer, Refused):
                    refused += 1
                    continue
                self.calls[reservation.id] = Truth(n, reservation)
                self.clients[n].settle(reservation.id, amount)
                self.calls[reservation.id].cost = amount
            self.mono.advance(1_000)
            self.wall.advance(1_000)
        balance = self.shared.balance(user)
        assert balance.available is not None
        assert balance.available < amount
        assert self.used(user) <= LIMITS[user] + self.overrun[user]

    @invariant()
    def the_books_cover_what_was_spent(self) -> None:
        if not hasattr(self, "shared"):
            return
        for account, limit in LIMITS.items():
            balance = self.shared.balance(account)
            assert balance.spent + balance.held >= self.used(account), "money is missing in the books"
            if self.draws:
                assert balance.spent + balance.held <= limit + self.overrun[account], "a limit was passed"

    def teardown(self) -> None:
        if not hasattr(self, "shared"):
            return
        self.fates.clear()
        for n, client in enumerate(self.clients):
            for call in self.open_calls(n):
                client.settle(call.reservation.id, call.amount)
                call.cost = call.amount
            client.close()
        self.wall.advance(1_000_000_000)  # it may have been put back by hours, again and again
        while self.shared.expire().ids:
            pass
        for account in LIMITS:
            balance = self.shared.balance(account)
            assert 0 == balance.held
            more = balance.spent - self.used(account)
            assert 0 <= more <= self.crashed[account], "a crash was not charged for what was outstanding"
        records = self.shared._books.records.values()
        for account in LIMITS:
            charged = sum(
                charge for record in records
                for hold, charge in zip(record.reservation.holds, record.entry().charges, strict=True)
                if hold.account == account
            )  # fmt: skip
            assert charged == self.shared.balance(account).spent, "the records do not add up to the balance"


TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
