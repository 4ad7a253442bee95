"""Money, now: a polling endpoint that reads the newest calls only, however many there are."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from runrails.accounts import OWN_KEY
from runrails.periods import month_of
from runrails.plainfields import usd_text
from runrails.recent import usage_since
from runrails_gateway.admin.models import Live, Minute
from runrails_gateway.admin.routing import CallerOf, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.ledger import Balance, FullStore, UsageRecord

__all__ = ["LIVE", "Tape", "month_spend"]

MINUTE_MS = 60_000
DAY_MS = 86_400_000
MINUTES = 60
WHOLE_EVERY_MS = 600_000
"""So often everything of today is read again, for what was corrected later."""
CHANGING_MS = 120_000
"""Calls that began so long ago may still be written by other machines, whose clocks differ."""


class Moment(NamedTuple):
    """What calls that began in one minute came to."""

    calls: int = 0
    cost_pusd: int = 0
    open_calls: int = 0
    open_pusd: int = 0


class Tape:
    """
    What calls came to, minute by minute, from the beginning of the day (UTC) or an hour ago on.

    A reading begins where something may have changed since the last one: at the oldest call that was still in flight,
    and two minutes back at least. Thread-safe.
    """

    def __init__(self, org: str | None = None) -> None:
        self._org = org
        self._lock = Lock()
        self._minutes: dict[int, Moment] = {}
        self._from_ms = 0
        self._whole_ms: int | None = None

    def read(self, store: FullStore, now_ms: int) -> dict[int, Moment]:
        """The minutes, by their first millisecond. Raises StoreUnavailable with what was read before kept."""
        with self._lock:
            first_ms = min(now_ms - now_ms % DAY_MS, now_ms - now_ms % MINUTE_MS - (MINUTES - 1) * MINUTE_MS)
            whole = self._whole_ms is None or not 0 <= now_ms - self._whole_ms < WHOLE_EVERY_MS
            from_ms = first_ms if whole else max(first_ms, self._from_ms)
            fresh, open_ms = self._sums(usage_since(store, from_ms, now_ms))
            kept = {at: each for at, each in self._minutes.items() if first_ms <= at < from_ms}
            self._minutes = kept | fresh
            self._from_ms = _minute(min(now_ms - CHANGING_MS, now_ms if open_ms is None else open_ms))
            self._whole_ms = now_ms if whole else self._whole_ms
            return dict(self._minutes)

    def _sums(self, records: Iterable[UsageRecord]) -> tuple[dict[int, Moment], int | None]:
        fresh: dict[int, Moment] = {}
        open_ms: int | None = None
        for record in records:
            if record.state == "released" or self._org not in (None, record.facts.org):
                continue
            at_ms = _minute(record.at_ms)
            calls, cost, open_calls, open_pusd = fresh.get(at_ms, Moment())
            if record.actual_pusd is None:
                open_calls, open_pusd = open_calls + 1, open_pusd + record.estimated_pusd
                open_ms = at_ms if open_ms is None else min(open_ms, at_ms)
            fresh[at_ms] = Moment(calls + 1, cost + (record.actual_pusd or 0), open_calls, open_pusd)
        return fresh, open_ms


def show_live(caller: CallerOf) -> Live:
    """Spend of today, of this month and of each minute of the last hour. Cheap to poll: made once a second at most."""
    tape = caller.desk.tape(caller.org)
    return caller.desk.kept.get(("live", caller.org), lambda: _live(caller, tape))


LIVE = (Endpoint("GET", "/live", "usage.show", show_live, errors=(409,)),)


def month_spend(balances: Iterable[Balance], org: str | None = None) -> tuple[int, int]:
    """What was spent of the platform's money, and on keys of the users' own, by the accounts of a month."""
    platform = own_key = 0
    for each in balances:
        kind, _, name = each.account.scope.partition(":")
        if each.account.unit != "pusd":
            continue
        if (kind == "user" and org is None) or (kind == "org" and name == org):
            platform += each.spent
        elif kind == OWN_KEY and org is None:
            own_key += each.spent
    return platform, own_key


def _live(caller: CallerOf, tape: Tape) -> Live:
    services, store = caller.desk.services, caller.desk.store
    now_ms = services.clock()
    minutes = tape.read(store, now_ms)
    month = month_of(now_ms, services.guard.zone)
    scope = None if caller.org is None else f"org:{caller.org}"
    spent, own_key = month_spend(store.balances(scope=scope, period=month), caller.org)
    day_ms, hour_ms = now_ms - now_ms % DAY_MS, _minute(now_ms) - (MINUTES - 1) * MINUTE_MS
    today = [each for at, each in minutes.items() if at >= day_ms]
    hour = [(at, minutes.get(at, Moment())) for at in range(hour_ms, hour_ms + MINUTES * MINUTE_MS, MINUTE_MS)]
    open_runs = None if services.runs is None or caller.org is not None else sum(1 for _ in services.runs.open_runs())
    return Live(
        as_of_ms=now_ms, month=month, month_usd=_usd(spent), month_own_key_usd=_usd(own_key),
        today_usd=_usd(sum(each.cost_pusd for each in today)), today_calls=sum(each.calls for each in today),
        hour_usd=_usd(sum(each.cost_pusd for _, each in hour)), hour_calls=sum(each.calls for _, each in hour),
        in_flight=sum(each.open_calls for _, each in hour), in_flight_usd=_usd(sum(each.open_pusd for _, each in hour)),
        open_runs=open_runs,
        minutes=[
            Minute(at_ms=at, calls=each.calls, cost_pusd=each.cost_pusd, cost_usd=_usd(each.cost_pusd))
            for at, each in hour
        ],
    )  # fmt: skip


def _minute(at_ms: int) -> int:
    return at_ms - at_ms % MINUTE_MS


def _usd(amount: int) -> str:
    return usd_text(amount) or ""
