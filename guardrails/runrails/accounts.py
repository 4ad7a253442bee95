"""Whose money the calls of one run are, and which accounts, under which limits, each of them draws on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runrails.ledger import RUN_PERIOD, Account
from runrails.periods import month_of, newest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.attribution import Attribution
    from runrails.calls import ModelCall
    from runrails.guard import Guard
    from runrails.limits import Limits
    from runrails.tally import Tally

__all__ = ["OWN_KEY", "Accounts", "Drawn"]

PAYERS_KEPT_MAX = 256
OWN_KEY = "byok"
"""The kind of scope in which a user's calls count that are paid on keys which are not the platform's."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Every account a call draws on, and for whom, which month and limits that was worked out."""

    by: Attribution | None
    limits: Limits | None
    month: str
    run_limits: tuple[int | None, ...]
    pairs: tuple[tuple[Account, int | None], ...]
    """With the limit that code gives each."""
    months: tuple[Account, ...]
    """Those with a calendar, which are watched for warnings."""
    month_limits: tuple[int | None, ...]
    around: Drawn | None = None
    """What is drawn on beside that, since the run is part of one of another guard."""


_NOTHING = Drawn(None, None, "", (), (), (), ())


class Accounts:
    """Thread-safe: what two threads work out at once is the same."""

    def __init__(
        self, guard: Guard, given: Attribution, *, limits: Limits, tally: Tally, outer: Accounts | None = None
    ) -> None:
        self.own = self.fixed = given
        """Whose the run is; and for whom calls need no more `check`, as the zones of what a run is given are fixed."""
        self._given = given
        self.guard = guard
        self._opened_in = guard.ambient.get()
        self.limits = limits
        """Applied from now on when they are replaced."""
        self.tally = tally
        self.outer = outer
        """Those of the run of another guard that the run is part of."""
        self._newest = _NOTHING
        self._known: dict[Attribution, Drawn] = {}

    def entered(self) -> None:
        """The run is entered by `with`: it belongs to the code around it. Others may serve many, as a client's does."""
        own = self._given
        for around in (self._opened_in, self.guard.ambient.get()):
            own = own if around is None else around.over(own)
        if own != self.own:
            self.own = own

    def payer(self, call: ModelCall) -> Attribution:
        """
        Whose money `call` is: what it says itself, over what the code around it says, over whose the run is.

        Raises:
            ConfigError: Together they have too many tags.
        """
        own, around = self.own, self.guard.ambient.get()
        if call.by is None and around is None:
            return own
        by = own if around is None else around.over(own)
        by = by if call.by is None else call.by.over(by)
        return own if by == own else by

    def check(self, by: Attribution) -> None:
        """
        See that calls for `by` may be counted here.

        Raises:
            ConfigError: The months of one of its scopes begin in another time zone.
            StoreUnavailable: A scope is new to this guard and the ledger out of reach.
        """
        self.guard.zones.fix(by)
        if by is self.own:
            self.fixed = by

    def is_own(self, scope: str) -> bool:
        """Whether money of this scope is the run's own, and not that of somebody a single call is made for."""
        kind, _, name = scope.partition(":")
        own = self.own
        if {"user": own.user, OWN_KEY: own.user, "key": own.key, "org": own.org}.get(kind, name) == name:
            return True
        return self.outer is not None and self.outer.is_own(scope)

    def of(self, by: Attribution, now_ms: int) -> Drawn:
        """The accounts that a call made for `by` at that time draws on."""
        span = newest.get(self.guard.zone)
        month = span[2] if span is not None and span[0] <= now_ms < span[1] else month_of(now_ms, self.guard.zone)
        tally = self.tally
        run_limits = (tally.limits.run_pusd,) if tally.parent is None else self._run_limits()
        around = None if self.outer is None else self.outer.of(self.outer.own, now_ms)
        drawn = self._newest
        if drawn.by is not by:
            drawn = self._newest = self._known.get(by, _NOTHING)
        if (
            drawn.month != month
            or drawn.run_limits != run_limits
            or drawn.limits is not self.limits
            or drawn.around is not around
        ):
            drawn = self._newest = self._work_out(by, month, run_limits, around)
            if len(self._known) >= PAYERS_KEPT_MAX:
                self._known = {}
            self._known[by] = drawn
        return drawn

    def _run_limits(self) -> tuple[int | None, ...]:
        return tuple([tally.limits.run_pusd for tally in self.tally.chain()])

    def _work_out(self, by: Attribution, month: str, run_limits: tuple[int | None, ...], around: Drawn | None) -> Drawn:
        limits, usual = self.limits, self.guard.limits
        scopes = [tally.scope for tally in self.tally.chain()]
        runs = [(Account(scope, RUN_PERIOD), limit) for scope, limit in zip(scopes, run_limits, strict=True)]
        # A run's own limits are about the run; months they do not name stay as the guard has them.
        rows: tuple[tuple[str, str | None, int | None, int | None], ...] = (
            ("user", by.user, limits.month_pusd, usual.month_pusd),
            ("key", by.key, limits.key_month_pusd, usual.key_month_pusd),
            ("org", by.org, limits.org_month_pusd, usual.org_month_pusd),
        )
        if by.byok:  # The platform pays nothing: its budgets are not drawn on.
            rows = ((OWN_KEY, by.user, limits.byok_month_pusd, usual.byok_month_pusd),)
        months = [(Account(f"{kind}:{name}", month), b if a is None else a) for kind, name, a, b in rows if name]
        if around is not None:
            months = _stricter(months, zip(around.months, around.month_limits, strict=True))
        return Drawn(
            by, limits, month, run_limits, (*runs, *months), tuple([a for a, _ in months]),
            tuple([limit for _, limit in months]), around,
        )  # fmt: skip


def _stricter(
    own: Iterable[tuple[Account, int | None]], others: Iterable[tuple[Account, int | None]]
) -> list[tuple[Account, int | None]]:
    """Every account once; of two limits the lower one holds both."""
    pairs = dict(own)
    for account, limit in others:
        known = pairs.get(account)
        pairs[account] = limit if known is None else known if limit is None else min(known, limit)
    return list(pairs.items())
