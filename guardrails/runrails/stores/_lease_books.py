"""What a leased store keeps in memory: slices, and the calls they pay for. No I/O; callers hold the store's lock."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from threading import Lock
from typing import TYPE_CHECKING, Literal

from runrails.ledger import Account, Hold, Reservation, Settled, UsageRecord
from runrails.stores import rules
from runrails.stores.draws import Drawn
from runrails.stores.leases import Age

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.ledger import ResultFacts
    from runrails.stores.leases import Terms

__all__ = ["Books", "Call", "Group", "Key", "Slice", "check_same_call", "holds_of", "key_of"]

Key = tuple[tuple[Account, "int | None"], ...]
"""Accounts with the limit that code gives each: calls with the same key share slices."""
_DEADLINES_SLACK = 1_024


class Call:
    """A call that a slice pays for, until it is written."""

    __slots__ = (
        "actual", "amount", "at_ms", "ended_ms", "expires_ms", "handed", "moving", "reservation", "result", "slice",
        "stand_in", "state",
    )  # fmt: skip

    def __init__(self, reservation: Reservation, amount: int, slice_: Slice, at_ms: int, expires_ms: int) -> None:
        self.reservation = reservation
        self.amount = amount
        self.slice = slice_
        self.at_ms = at_ms
        self.expires_ms = expires_ms
        self.state: Literal["held", "settled", "released", "unresolved"] = "held"
        self.moving = False
        """It is being handed over to the shared store; whoever wants something of it waits for that."""
        self.handed = False
        """That was tried, and the answer may be lost: the shared store may have it as a reservation of its own."""
        self.actual = 0
        self.ended_ms = 0
        self.stand_in = False
        self.result: ResultFacts | None = None

    def end(
        self, state: Literal["settled", "released", "unresolved"], actual: int, at_ms: int,
        result: ResultFacts | None = None, *, stand_in: bool = False,
    ) -> Settled:  # fmt: skip
        """It ended; what it did not cost can be spent on other calls."""
        slice_, group, amount = self.slice, self.slice.group, self.amount
        left = amount - actual
        self.actual, self.ended_ms, self.result, self.stand_in = actual, at_ms, result, stand_in
        # Nothing is called before all is counted, so that Ctrl-C finds all of it or nothing.
        self.state = state
        group.open -= amount
        group.unwritten += actual
        group.spent += actual
        if not self.handed:
            slice_.room += left
        else:
            # Where it is a reservation of its own its rest goes back to the accounts, not to this slice.
            slice_.keep_less(left)
        slice_.ended.append(self)
        slice_.open.pop(self.reservation.id, None)
        return Settled(self.reservation.id, state, actual, amount)

    def is_moving(self) -> bool:
        """Whether it is being handed over at this moment. Ctrl-C may have left the mark without the lock."""
        return self.moving and self.slice.group.moves.locked()

    def drawn(self) -> Drawn:
        """The call as it is written."""
        return Drawn(
            self.reservation, self.state, self.amount, self.actual, self.at_ms,
            self.expires_ms if self.state == "held" else self.ended_ms, self.stand_in, self.result,
        )  # fmt: skip

    def entry(self) -> rules.Entry:
        """The call as the rules see it."""
        holds = self.reservation.holds
        return rules.Entry(
            self.reservation.id, self.state, (rules.MONEY,) * len(holds), (self.amount,) * len(holds),
            (self.actual,) * len(holds), self.actual, self.stand_in,
        )  # fmt: skip

    def usage(self) -> UsageRecord | None:
        """The record of a call that is not written; None if nothing is known of it."""
        facts, held = self.reservation.facts, self.state == "held"
        if facts is None:
            return None
        return UsageRecord(
            id=self.reservation.id, state=self.state, at_ms=self.at_ms, settled_at_ms=None if held else self.ended_ms,
            estimated_pusd=self.amount, actual_pusd=None if held else self.actual, facts=facts, result=self.result,
        )  # fmt: skip


class Slice:
    """Money that is held in the shared store for the calls of one group."""

    __slots__ = (
        "asked", "dead_ms", "ended", "ended_ms", "fresh_ms", "group", "held", "id", "lost", "low", "lowers", "open",
        "room", "served", "taken_ms",
    )  # fmt: skip

    def __init__(self, slice_id: str, group: Group, size: int, *, low: int, taken_ms: int) -> None:
        self.id = slice_id
        self.group = group
        self.room = size
        """What can be spent on further calls; ``room + open holds + unwritten costs = held`` at every moment."""
        self.held = size
        """What the shared store holds, or has charged when it was lost, as far as is known."""
        self.low = low
        self.taken_ms = taken_ms
        """Monotonic, before the shared store was asked: its own count began later."""
        self.fresh_ms = taken_ms + group.terms.ttl_ms // 2
        self.dead_ms = taken_ms + group.terms.ttl_ms * 9 // 10
        """From then on it may have expired."""
        self.open: dict[str, Call] = {}
        self.ended: list[Call] = []
        """Calls that ended and are not written yet."""
        self.ended_ms = 0
        """When such calls were first noticed, monotonic; 0 if there are none."""
        self.served = 0
        self.asked = True
        """The shared store is being asked for it."""
        self.lost = False
        self.lowers = True
        """What is written comes out of it, so that it can be raised again; see `draws.Drawing.lowered`."""

    def keep_less(self, amount: int) -> None:
        """So much less of it is counted on. If the shared store holds it all the same, it comes back at the close."""
        self.held -= amount
        if self.lost:
            self.group.charged -= amount
        else:
            self.group.held -= amount

    def age(self, mono_ms: int) -> Age:
        """What its fate is decided by."""
        if self.ended and self.ended_ms == 0:
            self.ended_ms = mono_ms
        dry = self.group.current is not self and self.room < self.low
        return Age(self.taken_ms, self.group.used_ms, self.ended_ms, len(self.ended), len(self.open), dry)


class Group:
    """Calls that draw on the same accounts under the same limits, and the slices that pay for them."""

    def __init__(self, key: Key, terms: Terms) -> None:
        self.key = key
        self.terms = terms
        self.moves = Lock()
        """Held while its slices are taken, written or given back in the shared store."""
        self.current: Slice | None = None
        self.slices: list[Slice] = []
        self.leaving: list[Slice] = []
        """Nothing more is admitted from them; they are in the shared store until that has been told."""
        self.used_ms = 0
        self.alone_until_ms = 0
        """Calls go to the shared store by themselves until then: there is too little left, or too little to do."""
        self.wants = False
        """The next slice should be fetched."""
        self.open = 0
        """Sum of the open holds."""
        self.unwritten = 0
        """Sum of the costs that are not written."""
        self.spent = 0
        """Sum of the costs of all calls that its slices have ever paid for."""
        self.held = 0
        """What its slices hold in the shared store."""
        self.charged = 0
        """What the shared store has charged for slices that were lost, without what was written of it since."""

    def with_room(self, amount: int, mono_ms: int, *, stale: bool = False) -> Slice | None:
        """A slice that can pay for a call; `stale`: also one that should have been replaced, but is not dead."""
        current = self.current
        if current is not None and current.room >= amount and mono_ms < current.fresh_ms:
            return current
        for one in self.slices:
            if one.room >= amount and mono_ms < (one.dead_ms if stale else one.fresh_ms) and not one.lost:
                self.current = one
                return one
        return None

    def add(self, one: Slice, size: int) -> None:
        """A slice was taken."""
        self.grow(one, size)
        self.slices.append(one)

    def grow(self, one: Slice, size: int) -> None:
        """A slice holds more."""
        one.room += size
        one.held += size
        self.held += size

    def leave(self, one: Slice) -> None:
        """Admit nothing more from a slice."""
        if self.current is one:
            self.current = None
        if one in self.slices:
            if one not in self.leaving:
                self.leaving.append(one)
            self.slices.remove(one)

    def gone(self, one: Slice) -> None:
        """A slice is closed in the shared store."""
        one.keep_less(one.held)
        if one in self.leaving:
            self.leaving.remove(one)

    def lose(self, one: Slice) -> None:
        """The shared store has charged what was left of a slice: nothing more is admitted from it."""
        self.leave(one)
        if not one.lost:
            one.lost = True
            self.held -= one.held
            self.charged += one.held

    def written(self, one: Slice, calls: Iterable[Call], *, lowered: bool) -> None:
        """These calls are in the shared store, and, if it was `lowered`, no longer in the slice there."""
        done = list(calls)
        ids = {call.reservation.id for call in done}
        one.ended = [call for call in one.ended if call.reservation.id not in ids]
        one.ended_ms = 0
        for call in done:
            one.open.pop(call.reservation.id, None)
            if call.state == "held":
                self.open -= call.amount
                cost = call.amount
            else:
                self.unwritten -= call.actual
                cost = call.actual
            if lowered:
                one.keep_less(cost)

    def is_idle(self) -> bool:
        """Whether it holds nothing."""
        return not self.slices and not self.leaving


class Books:
    """All groups and calls of one leased store."""

    def __init__(self, *, records_max: int) -> None:
        self.groups: dict[Key, Group] = {}
        self.by_account: dict[Account, list[Group]] = {}
        self.calls: dict[str, Call] = {}
        self.written: dict[str, None] = {}
        """Ids that this process has given to the shared store, the newest last: nothing else tells a repetition."""
        self.taken: dict[str, None] = {}
        """Ids of those under which the shared store has reservations of others."""
        self.records_max = records_max
        self.dropped = 0
        """Groups that were forgotten, and what they have spent with them."""
        self.deadlines: list[tuple[int, str]] = []
        self._deadlines_max = _DEADLINES_SLACK

    def take(self, one: Slice, reservation: Reservation, amount: int, now_ms: int) -> None:
        """A slice pays for a call."""
        reservation_id = reservation.id
        expires_ms = now_ms + reservation.ttl_ms
        one.room -= amount
        one.group.open += amount
        one.served += 1
        self.calls[reservation_id] = one.open[reservation_id] = Call(reservation, amount, one, now_ms, expires_ms)
        self.add_deadline(expires_ms, reservation_id)

    def add_group(self, key: Key, terms: Terms) -> Group:
        """A new group."""
        group = self.groups[key] = Group(key, terms)
        for account, _ in key:
            self.by_account.setdefault(account, []).append(group)
        return group

    def drop_group(self, group: Group) -> None:
        """Forget a group that holds nothing."""
        if self.groups.pop(group.key, None) is None:
            return
        self.dropped += 1
        for account, _ in group.key:
            others = self.by_account[account]
            others.remove(group)
            if not others:
                del self.by_account[account]

    def forget(self, calls: Iterable[Call]) -> None:
        """These calls are the shared store's from now on."""
        for call in calls:
            reservation_id = call.reservation.id
            if self.calls.pop(reservation_id, None) is not None:
                self.note(reservation_id)

    def note(self, reservation_id: str, *, taken: bool = False) -> None:
        """The shared store knows this id, or may know it; `taken`: as somebody else's."""
        for ids in (self.written, self.taken) if taken else (self.written,):
            ids[reservation_id] = None
            if len(ids) > self.records_max:
                del ids[next(iter(ids))]

    def view(self, account: Account) -> tuple[int, int]:
        """What to add to (spent, held) of the shared store, so that slices count as what was done with them."""
        spent = held = 0
        for group in self.by_account.get(account, ()):
            spent += group.unwritten - group.charged
            held += group.open - group.held
        return spent, held

    def own(self, account: Account) -> tuple[int, int]:
        """All that calls of this process have cost and hold by themselves."""
        groups = self.by_account.get(account, ())
        return sum(group.spent for group in groups), sum(group.open for group in groups)

    def expire(self, now_ms: int, count_max: int) -> list[str]:
        """End at most `count_max` overdue calls, the longest overdue first, and name them."""
        ids: list[str] = []
        deadlines = self.deadlines
        while deadlines and deadlines[0][0] <= now_ms and len(ids) < count_max:
            expires_ms, reservation_id = heappop(deadlines)
            call = self.calls.get(reservation_id)
            if call is None or call.state != "held" or call.expires_ms != expires_ms or call.is_moving():
                continue
            charged = call.reservation.on_expiry == "charge"
            call.end("unresolved", call.amount if charged else 0, now_ms)
            ids.append(reservation_id)
        return ids

    def add_deadline(self, expires_ms: int, reservation_id: str) -> None:
        """Note when a call is overdue."""
        heappush(self.deadlines, (expires_ms, reservation_id))
        if len(self.deadlines) > self._deadlines_max:
            calls = self.calls
            fresh = [
                (expires, name) for expires, name in set(self.deadlines)
                if (call := calls.get(name)) is not None and call.state == "held" and call.expires_ms == expires
            ]  # fmt: skip
            heapify(fresh)
            self.deadlines = fresh
            self._deadlines_max = 2 * len(fresh) + _DEADLINES_SLACK


def holds_of(key: Key, amount: int) -> tuple[Hold, ...]:
    """The same amount in every account of a group."""
    return tuple([Hold(account, amount, limit) for account, limit in key])


def check_same_call(call: Call, reservation: Reservation) -> None:
    """Check that a reservation made again is what it was. Raises ReservationMismatch."""
    first = call.reservation
    rules.check_same(
        reservation, holds=[(hold.account, hold.amount) for hold in first.holds], on_expiry=first.on_expiry,
        same_facts=first.facts == reservation.facts,
    )  # fmt: skip


def key_of(reservation: Reservation) -> tuple[Key, int]:
    """The group's key and the amount of an ordinary reservation; an empty key for one that only the rules can judge."""
    holds = reservation.holds
    amount = holds[0][1]
    pairs: list[tuple[Account, int | None]] = []
    for account, wanted, limit in holds:
        if (
            wanted != amount
            or type(wanted) is not int
            or wanted < 0
            or type(account) is not Account  # pyright: ignore[reportUnnecessaryComparison] -- callers without types exist
            or (limit is not None and type(limit) is not int)
        ):
            return (), 0
        pairs.append((account, limit))
    return tuple(pairs), amount
