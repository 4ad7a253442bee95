"""
Leases: how much of a hot budget one process takes at a time to spend by itself, and when it renews or returns it. Pure.

A *slice* is an ordinary reservation in the shared store. What these functions decide changes how often the shared store
is asked and how soon others see what is left; no decision here can make a limit be passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.errors import ConfigError
from runrails.ledger import AMOUNT_MAX
from runrails.money import usd
from runrails.stores.checks import MONEY, TTL_MS_MAX, check_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from runrails.ledger import Account

__all__ = ["IDLE_MS", "KINDS", "Age", "Fate", "Lease", "Terms", "fate", "low_mark", "parse", "slice_size", "terms"]

KINDS = ("run", "user", "key", "org")
"""The scopes that calls are counted in."""
CALLS_MIN = 2
"""A slice that would not serve that many calls is not taken: the call goes to the shared store by itself."""
TTL_MS_MIN = 5_000
IDLE_MS = 2_000
"""A slice nobody has drawn on for so long goes back, for others to spend."""
SERVED_MIN = 4
COLD_MS = 10_000
"""Where a slice has gone back idle after fewer calls than that, the next ones go without for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    How a kind of scope is leased.

    Args:
        slice: The most that one process takes at a time, in dollars. After a crash, what it had not reported of it is
            charged as unresolved.
        ttl_ms: How long a slice lives in the shared store if its process dies (5 s to 24 h). It is replaced after half
            of it, so a lowered limit is seen within that time.
        share: A slice is at most one in so many parts of what is known to be left, so that the last money goes round.
        checkpoint_calls: The calls that are written at the latest when there are so many.
        checkpoint_ms: The calls that are written at the latest after so long.
    """

    slice: str | int | Decimal = "0.50"
    ttl_ms: int = 60_000
    share: int = 8
    checkpoint_calls: int = 64
    checkpoint_ms: int = 2_000

    def __post_init__(self) -> None:
        """Raise ConfigError unless every number is in its range."""
        try:
            check_count(usd(self.slice, what="A slice"), what="A slice", count_max=AMOUNT_MAX)
            check_count(self.ttl_ms - TTL_MS_MIN + 1, what="ttl_ms beyond 5 s", count_max=TTL_MS_MAX - TTL_MS_MIN + 1)
            check_count(self.share, what="share", count_max=1_000)
            check_count(self.checkpoint_calls, what="checkpoint_calls")
            check_count(self.checkpoint_ms, what="checkpoint_ms", count_max=60_000)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error), next_step='Write for instance Lease(slice="0.50", ttl_ms=60_000).') from error

    @property
    def slice_pusd(self) -> int:
        """The slice in picodollars."""
        return usd(self.slice, what="A slice")


class Terms(NamedTuple):
    """What holds for a set of accounts that one slice covers: of each kind's lease the more careful value."""

    slice_pusd: int
    ttl_ms: int
    shares: tuple[int, ...]
    """One for each account."""
    checkpoint_calls: int
    checkpoint_ms: int


def terms(leases: Mapping[str, Lease], accounts: Sequence[Account]) -> Terms | None:
    """
    The terms for calls that draw on all of these accounts; None if one of them is not leased, or is not money.

    Runs are leased along with whatever else is, unless they are named: nearly all of a run's calls are one process's.
    """
    found: list[Lease] = []
    shares: list[int] = []
    for account in accounts:
        kind = account.scope.partition(":")[0]
        lease = leases.get(kind)
        if lease is None and kind == "run" and leases:
            lease = min(leases.values(), key=lambda each: each.slice_pusd)
        if lease is None or account.unit != MONEY:
            return None
        found.append(lease)
        shares.append(min(lease.share, 2) if kind == "run" else lease.share)
    return Terms(
        min(lease.slice_pusd for lease in found), min(lease.ttl_ms for lease in found), tuple(shares),
        min(lease.checkpoint_calls for lease in found), min(lease.checkpoint_ms for lease in found),
    )  # fmt: skip


def slice_size(
    given: Terms, limits: Sequence[int | None], need: int, *, left: int | None = None, share: int = 1
) -> int:  # fmt: skip
    """
    How large a slice to take for a call that needs `need`; 0: none, the call is better reserved by itself.

    Args:
        given: The terms.
        limits: The limit that code gives each account.
        need: What the call at hand holds.
        left: What the shared store has just said is left in the tightest account, if it has refused a larger slice.
        share: In how many parts that is split.
    """
    size = given.slice_pusd
    for limit, parts in zip(limits, given.shares, strict=True):
        if limit is not None:
            size = min(size, limit // parts)
    if left is not None:
        size = min(size, left // share)
    return size if size >= CALLS_MIN * need and size > 0 else 0


def low_mark(size: int) -> int:
    """A slice with less room than this is about to run dry, and the next one is fetched beforehand."""
    return size // 4


class Age(NamedTuple):
    """What there is to know of a slice before its fate is decided; times are monotonic."""

    taken_ms: int
    used_ms: int
    """When a call of its accounts began last."""
    written_ms: int
    """When the oldest call ended that is not written, or 0."""
    unwritten: int
    open: int
    """Calls in flight that it pays for."""
    dry: bool
    """Another slice has taken its place."""


Fate = Literal["keep", "write", "return"]


def fate(given: Terms, age: Age, now_ms: int) -> Fate:
    """What to do with a slice now: nothing, write its calls, or write them and give back what is left of it."""
    if now_ms - age.taken_ms >= given.ttl_ms // 2 or now_ms - age.used_ms >= IDLE_MS:
        return "return"
    if age.dry and age.open == 0:
        return "return"
    if age.unwritten >= given.checkpoint_calls:
        return "write"
    return "write" if age.unwritten and now_ms - age.written_ms >= given.checkpoint_ms else "keep"


def parse(query: str) -> tuple[str, dict[str, Lease]]:
    """
    Take the lease's options out of a store URL's query: ``lease=user,org&lease_slice=0.50&lease_ttl_s=60``.

    Returns:
        The other options, and a lease for each kind that was named; none if there is no ``lease=``.

    Raises:
        ConfigError: An option is malformed, or there is no ``lease=`` for it to belong to.
    """
    others: list[str] = []
    told: dict[str, str] = {}
    twice = False
    for option in query.split("&"):
        name, _, value = option.partition("=")
        if name in {"lease", "lease_slice", "lease_ttl_s"}:
            twice = twice or name in told
            told[name] = value
        elif option:
            others.append(option)
    kinds = told.pop("lease", "").split(",") if "lease" in told else []
    ttl = told.get("lease_ttl_s", "60")
    unknown = any(kind not in KINDS for kind in kinds)
    if twice or unknown or (told and not kinds) or not (ttl.isascii() and ttl.isdigit()):
        raise ConfigError(
            "The options of a leased store's URL are malformed.",
            next_step="Write for instance ?lease=user,key,org&lease_slice=0.50&lease_ttl_s=60.",
        )
    lease = Lease(slice=told.get("lease_slice", "0.50"), ttl_ms=int(ttl[:9]) * 1_000)
    return "&".join(others), dict.fromkeys(kinds, lease)
