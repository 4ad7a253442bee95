"""Hosts whose clocks differ by minutes or jump, at the edges of months and in nights when clocks are changed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from rr_core import PRICES, cent_call, done
from rr_dynamo import needs_server, new_table, open_dynamodb
from rr_lease import lease_of
from rr_ledger import CENT, booking
from runrails import BudgetBusy, BudgetExceeded, Guard, Limits
from runrails.clocks import monotonic_ms, system_ms
from runrails.ledger import Account
from runrails.stores.records import differences
from runrails.testing import ManualClock
from runrails_aws.dynamodb import clockwork

if TYPE_CHECKING:
    from runrails.run import Run

pytestmark = needs_server

MINUTE_MS = 60_000
OFF_MS = 120_000
CENTS_A_MONTH = 7
EDGES = [
    ("Asia/Tokyo", "2026-11", "2026-11-30T15:00"),
    ("Asia/Tokyo", "2027-02", "2027-02-28T15:00"),
    # Clocks are put back two hours after this edge, and put forward a week after that one.
    ("America/St_Johns", "2026-10", "2026-11-01T02:30"),
    ("America/St_Johns", "2026-02", "2026-03-01T03:30"),
    # Until 2010 clocks were put back at 00:01: this first of November began twice.
    ("America/St_Johns", "2009-10", "2009-11-01T02:30"),
    ("Pacific/Kiritimati", "2026-11", "2026-11-30T10:00"),
    ("Pacific/Kiritimati", "2026-12", "2026-12-31T10:00"),
]


class Host:
    """A process with a wall clock of its own, on a table that others use as well."""

    def __init__(self, table: str, zone: str, now_ms: int, *, leased: bool = False) -> None:
        self.clock = ManualClock(now_ms)
        self.store: Any = open_dynamodb(None, table=table)
        if leased:
            self.store = lease_of(self.store, system_ms, monotonic=monotonic_ms)
        limits = Limits(run=None, month=f"0.{CENTS_A_MONTH:02d}", steps=None, hold_wait_ms=0)
        self.guard = Guard(
            limits, user="alice", store=self.store, prices=PRICES, zone=zone, clock=self.clock, sinks=[]
        )  # fmt: skip
        self.run: Run = self.guard.run()

    def month(self, zone: str) -> str:
        """The month on this host's wall, as the standard library says it."""
        return f"{datetime.fromtimestamp(self.clock() / 1_000, ZoneInfo(zone)):%Y-%m}"

    def close(self) -> None:
        """End the run and the store."""
        self.run.close()
        self.guard.close()
        self.store.close()


def moment(iso: str) -> int:
    """Milliseconds since the epoch."""
    return round(datetime.fromisoformat(iso).replace(tzinfo=UTC).timestamp()) * 1_000


def month_after(period: str) -> str:
    """The next one."""
    year, month = map(int, period.split("-"))
    return f"{year + month // 12:04d}-{month % 12 + 1:02d}"


def stand(books: Any) -> dict[str, tuple[int, int]]:
    """Cents spent and held in each of alice's months; no account is above its limit."""
    found: dict[str, tuple[int, int]] = {}
    for balance in books.balances(scope="user:alice"):
        assert balance.limit is None or balance.spent + balance.held <= balance.limit
        found[balance.account.period] = (balance.spent // CENT, balance.held // CENT)
    return found


@pytest.mark.parametrize(
    ("zone", "before", "edge", "leased"), [*((*edge, False) for edge in EDGES), (*EDGES[2], True), (*EDGES[6], True)]
)
def test_hosts_minutes_apart_at_the_edge_of_a_month(zone: str, before: str, edge: str, leased: bool) -> None:
    """
    Three hosts, one two minutes fast, one two minutes slow, live through the turn of a month while calls are under way.

    Each call ends in the month that it began in by the clock of its own host; both months are spent to the last cent
    or less, never above; the fast host's clock jumps back over the edge, and its calls are of the old month again.
    """
    turn_ms, after = moment(edge), month_after(before)
    table = new_table()
    hosts = [Host(table, zone, turn_ms - 3 * MINUTE_MS + off, leased=leased) for off in (0, OFF_MS, -OFF_MS)]
    begun: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    told: list[tuple[str, str]] = []
    for minute in range(8):
        open_calls = []
        for host in hosts:
            month = after if host.clock() >= turn_ms else before
            if zone != "America/St_Johns" or before != "2009-10":  # there the wall shows October once more
                assert month == host.month(zone)
            try:
                permit = host.run.before_model(cent_call())
            except (BudgetExceeded, BudgetBusy) as stop:
                refused[month] += 1
                told.append((month, str(stop.fields["period"])))
                host.run = host.guard.run()
                continue
            begun[month] += 1
            open_calls.append((host, permit))
        for host in hosts:
            host.clock.advance(MINUTE_MS)
        if minute == 3:
            hosts[1].clock.advance(-2 * OFF_MS)
        for host, permit in open_calls:
            host.run.after_model(permit, done())
    for host in hosts:
        host.close()

    books = open_dynamodb(None, table=table)
    assert {month: (calls, 0) for month, calls in begun.items()} == stand(books)
    assert {before, after} == set(begun)
    assert all(asked == answered for asked, answered in told)
    assert max(begun.values()) <= CENTS_A_MONTH
    assert sum(begun.values()) + sum(refused.values()) == 24
    if not leased:  # a slice of another host may hold the last cents when they are asked for
        assert all(begun[month] == CENTS_A_MONTH for month in refused)
    assert [] == differences(books.sums())[1]
    assert sum(begun.values()) == len({record.id for record in books.usage()})


CHANGES: list[tuple[str, str, dict[str, int]]] = [
    ("America/St_Johns", "2026-03-08T05:30", {"2026-03": 18}),
    ("America/St_Johns", "2026-11-01T04:30", {"2026-10": 1, "2026-11": 17}),
    ("America/St_Johns", "2009-11-01T02:31", {"2009-10": 9, "2009-11": 9}),
    ("Asia/Tokyo", "2026-03-31T14:30", {"2026-03": 11, "2026-04": 7}),
    ("Pacific/Kiritimati", "2026-11-01T04:30", {"2026-11": 18}),
]


@pytest.mark.parametrize(("zone", "change", "expected"), CHANGES)
def test_a_night_in_which_clocks_are_changed(zone: str, change: str, expected: dict[str, int]) -> None:
    """Calls of a quarter of an hour each, two hours before it to two after: none is missed, doubled or moved."""
    table = new_table()
    host = Host(table, zone, moment(change) - 9 * 15 * MINUTE_MS)
    run = host.guard.run(limits=Limits(run=None, month="50.00", steps=None))
    for _ in range(18):
        permit = run.before_model(cent_call())
        host.clock.advance(15 * MINUTE_MS)
        run.after_model(permit, done())
    run.close()
    host.close()
    books = open_dynamodb(None, table=table)
    assert {month: (calls, 0) for month, calls in expected.items()} == stand(books)
    assert 18 == len(list(books.usage(user="alice")))


@pytest.mark.parametrize("leased", [False, True], ids=["exact", "leased"])
def test_a_clock_that_jumps_back_while_calls_are_under_way(leased: bool) -> None:
    """
    A host's wall clock goes back by two minutes and by three days: no hold ends early, none lives longer for it.

    The ledger goes by the server's time, the host's own clock says only in which month a call begins.
    """
    zone, table = "Pacific/Kiritimati", new_table()
    host = Host(table, zone, moment("2026-12-01T10:00"), leased=leased)
    permits = []
    for jump_ms in (0, -OFF_MS, -3 * 86_400_000):
        host.clock.advance(jump_ms)
        permits.append(host.run.before_model(cent_call()))
        assert () == host.store.expire().ids
    for permit in permits:
        host.run.after_model(permit, done())
    host.close()
    assert {"2026-12": (2, 0), "2026-11": (1, 0)} == stand(open_dynamodb(None, table=table))


@pytest.mark.parametrize("wrong_ms", [-OFF_MS, OFF_MS])
def test_a_jump_of_the_hosts_clock_between_two_requests(wrong_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of a hold that is extended after the jump is where it would be without."""
    store = open_dynamodb(None)
    hold = Account("user:alice", "2026-11")
    began_ms = monotonic_ms()
    store.reserve(booking("a", CENT, hold, ttl_ms=60_000))
    real = clockwork.system_ms
    monkeypatch.setattr(clockwork, "system_ms", lambda: real() + wrong_ms)
    assert store.extend("a", ttl_ms=60_000)
    store.reserve(booking("b", CENT, hold, ttl_ms=60_000))
    took_ms = monotonic_ms() - began_ms
    ends = sorted(record.expires_ms for record in store.records())
    assert ends[1] - ends[0] < 3_000 + took_ms
    assert () == store.expire().ids
