"""What a leased store asks of the shared one about slices: taking them, writing their calls, giving back the rest."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING

from runrails.errors import StoreUnavailable, UnknownReservation
from runrails.ids import new_id
from runrails.ledger import Refused, Reservation, Reserved
from runrails.stores import rules
from runrails.stores._lease_books import Slice, holds_of
from runrails.stores.checks import SWEEP_MAX
from runrails.stores.draws import DRAWS_MAX, DrawsByVerbs, SupportsDraws
from runrails.stores.leases import COLD_MS, SERVED_MIN, fate, low_mark, slice_size

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Lock

    from runrails.clocks import Clock
    from runrails.ledger import Account, FullStore
    from runrails.stores._lease_books import Books, Call, Group

__all__ = ["Moves"]

UNWRITTEN_MAX = 1_024
"""With more calls to be written, whoever needs a slice writes some of them first."""
_LOOK_S = 0.1
"""How often a move that waits looks by itself whether it may begin."""
ALONE_MS = 1_000
"""After a refused slice, calls go to the shared store by themselves for so long before another is asked for."""


class Moves:
    """Thread-safe. Slices of one group are moved one after the other; `lock` is never held while the store is asked."""

    def __init__(self, shared: FullStore, books: Books, lock: Lock, *, clock: Clock, monotonic: Clock) -> None:
        self._shared = shared
        self._draws: SupportsDraws = shared if isinstance(shared, SupportsDraws) else DrawsByVerbs(shared, clock=clock)
        self._books = books
        self._lock = lock
        self._clock = clock
        self._monotonic = monotonic
        self.under_way = 0
        """Moves that have begun and not ended: what the shared store shows may have them or not."""
        self.count = 0
        """Of those that have ended."""
        self.closing = False
        """No slice is taken any more."""
        self._gate = Condition(lock)
        self._pauses = 0

    def renew(self, group: Group, need: int, *, spare: bool = False) -> bool:
        """
        Take a slice that can pay for `need`; True if there is one. `spare`: beside the one that is about to run dry.

        Raises:
            StoreUnavailable: Nothing can be spent of what may have been taken; it goes back once the store is there.
        """
        with group.moves:
            mono_ms = self._monotonic()
            with self._lock:
                if self.closing or self._books.groups.get(group.key) is not group:
                    return False  # The call goes by itself.
                group.wants = False
                if spare:
                    if any(one.room >= max(need, one.low) and mono_ms < one.fresh_ms for one in group.slices):
                        return True
                elif group.with_room(need, mono_ms) is not None:
                    return True
            if not spare:
                self._catch_up(group)
            with self._moved():
                if self._take(group, need, mono_ms, spare=spare):
                    return True
            if not spare:
                group.alone_until_ms = mono_ms + ALONE_MS
            return False

    def _catch_up(self, group: Group) -> None:
        """Write of the fullest slice if the background has fallen behind. The group's slices are the caller's."""
        with self._lock:
            found = max((*group.slices, *group.leaving), key=lambda one: len(one.ended), default=None)
            unwritten = sum(len(one.ended) for one in (*group.slices, *group.leaving))
            calls = [] if found is None or unwritten < UNWRITTEN_MAX else found.ended[:DRAWS_MAX]
        if found is not None and calls:
            self._draw(found, calls)

    def _take(self, group: Group, need: int, mono_ms: int, *, spare: bool) -> bool:
        """Let a slice that is there hold more, or take another one; a smaller one if the first is refused."""
        limits = [limit for _, limit in group.key]
        left, share = None, 1
        for _ in range(1 if spare else 2):
            size = slice_size(group.terms, limits, need, left=left, share=share)
            if size == 0:
                return False
            answer = self._grow(group, size, mono_ms) or self._add(group, size, mono_ms)
            if isinstance(answer, Reserved):
                return True
            left = answer.available
            share = group.terms.shares[[account for account, _ in group.key].index(answer.account)]
        return False

    def _grow(self, group: Group, size: int, mono_ms: int) -> Reserved | Refused | None:
        """Raise the hold of a slice that is fresh; None if there is none, or it was lost."""
        with self._lock:
            one = next((one for one in group.slices if mono_ms < one.fresh_ms and one.lowers), None)
        if one is None:
            return None
        try:
            # What it holds by then, and not how much more: asking again after a lost answer changes nothing. If it
            # holds more than is known here, because the answer to a draw was lost, that comes back when it is closed.
            answer = self._shared.raise_hold(one.id, one.held + size)
        except UnknownReservation:
            answer = Reserved(one.id, "released")
        with self._lock:
            if isinstance(answer, Reserved) and answer.state == "held":
                group.grow(one, size)
            elif isinstance(answer, Reserved):
                if answer.state == "unresolved":
                    group.lose(one)
                group.leave(one)
                return None
        return answer

    def _add(self, group: Group, size: int, mono_ms: int) -> Reserved | Refused:
        """Take a slice. If the store's answer does not come it may be held; nothing is spent of it, so it goes back."""
        one = Slice(f"lease.{new_id()}", group, 0, low=low_mark(size), taken_ms=mono_ms)
        one.lowers = not isinstance(self._draws, DrawsByVerbs)
        with self._lock:
            group.leaving.append(one)
        try:
            answer = self._shared.reserve(Reservation(one.id, holds_of(group.key, size), group.terms.ttl_ms))
        finally:
            one.asked = False
        with self._lock:
            if isinstance(answer, Reserved):
                group.add(one, size)
            group.leaving.remove(one)
        return answer

    def write(self, group: Group, one: Slice) -> None:
        """Write the calls of a slice that have ended. Raises StoreUnavailable with nothing lost."""
        with group.moves:
            with self._lock:
                calls = one.ended[:DRAWS_MAX]
            if calls:
                self._draw(one, calls)

    def hand_over(self, call: Call) -> None:
        """
        See that a call is in the shared store by itself. Raises StoreUnavailable with nothing changed here.

        Raises:
            ReservationMismatch: Somebody else has used its id. What it costs stays charged to its slice.
        """
        one = call.slice
        with one.group.moves:
            try:
                with self._lock:
                    if self._books.calls.get(call.reservation.id) is not call:
                        return
                    call.moving = call.handed = True
                if self._draw(one, [call]):
                    raise rules.taken(call.reservation.id)
            finally:
                call.moving = False

    def give_back(self, group: Group, one: Slice, *, left: bool = False) -> bool:
        """
        Close a slice: write all its calls, those in flight as open reservations, and give back the rest.

        False if somebody else has, or it is `left` to be closed no more. Raises StoreUnavailable: its calls are still
        here, but it admits no more.
        """
        with group.moves:
            try:
                with self._lock:
                    if one not in group.leaving and (left or one not in group.slices):
                        return False
                    group.leave(one)
                    for call in one.open.values():
                        call.moving = call.handed = True
                    # Ctrl-C may have left a call in both.
                    calls = list({call.reservation.id: call for call in (*one.ended, *one.open.values())}.values())
                again: list[Call] = []
                while len(calls) + len(again) > DRAWS_MAX and calls:
                    again += self._draw(one, calls[:DRAWS_MAX])
                    del calls[:DRAWS_MAX]
                self._draw(one, (calls + again)[:DRAWS_MAX], close=True)
            finally:
                with self._lock:
                    for call in one.open.values():
                        call.moving = False
            return True

    def _draw(self, one: Slice, calls: list[Call], *, close: bool = False) -> list[Call]:
        """Draw calls; returns those whose ids were taken, which stay with the slice until it is closed."""
        with self._moved():
            drawing = self._draws.draw(one.id, [call.drawn() for call in calls], close=close)
            group, taken = one.group, set(drawing.taken)
            with self._lock:
                if drawing.lost:
                    group.lose(one)
                one.lowers = one.lowers and drawing.lowered
                done = [call for call in calls if close or call.reservation.id not in taken]
                self._books.forget(done)  # first: what is left behind by Ctrl-C is written again, and changes nothing
                for name in taken:
                    self._books.note(name, taken=True)
                group.written(one, done, lowered=drawing.lowered)
                if close:
                    group.gone(one)
            return [call for call in calls if not close and call.reservation.id in taken]

    def give_back_all(self, account: Account | None = None) -> bool:
        """Close every slice that holds money of an account, or every slice. True if there was one."""
        closed = [self.give_back(group, one) for group, one in self._slices(account)]
        return any(closed)

    def _slices(self, account: Account | None = None) -> list[tuple[Group, Slice]]:
        with self._lock:
            groups = list(self._books.groups.values() if account is None else self._books.by_account.get(account, ()))
            return [(group, one) for group in groups for one in (*group.slices, *group.leaving)]

    def end(self) -> None:
        """
        Take no slice any more, and close every one; what fails is tried once more, since nobody else will.

        Raises:
            StoreUnavailable: What is left expires, and is charged.
        """
        with self._lock:
            self.closing = True
            groups = list(self._books.groups.values())
        for group in groups:
            with group.moves:  # A slice that was being fetched is there after that.
                pass
        for last in (False, True):
            wrong: Exception | None = None
            for group, one in self._slices():
                try:
                    self.give_back(group, one)
                except StoreUnavailable as error:
                    wrong = error
                    break  # The others would wait for as long.
                except Exception as error:  # noqa: BLE001 -- raised below
                    wrong = wrong or error
            if wrong is None:
                return
            if last:
                raise wrong

    def tick(self, *, sweep: bool = True) -> bool:
        """
        One round over all slices; with `sweep`, also over calls whose time is over.

        False if the shared store could not be reached: the rest waits for the next round. What one group's slices
        cannot do keeps no other group's from being written; the first such error is raised in the end.
        """
        mono_ms = self._monotonic()
        with self._lock:
            if sweep:
                self._books.expire(self._clock(), SWEEP_MAX)
            groups = list(self._books.groups.values())
        wrong: Exception | None = None
        for group in groups:
            try:
                self._look_after(group, mono_ms)
            except StoreUnavailable:
                return False
            except Exception as error:  # noqa: BLE001 -- raised below
                wrong = wrong or error
        if wrong is not None:
            raise wrong
        return True

    def _look_after(self, group: Group, mono_ms: int) -> None:
        with self._lock:
            leaving = [one for one in group.leaving if not one.asked]
            due = [(one, fate(group.terms, one.age(mono_ms), mono_ms)) for one in group.slices]
            low = group.current.low if group.wants and group.current is not None else 0
            if group.is_idle() and mono_ms - group.used_ms >= COLD_MS:
                if not group.moves.locked():  # else a slice is being fetched
                    self._books.drop_group(group)
                return
        for one in leaving:
            self.give_back(group, one, left=True)
        for one, what in due:
            if what == "return":
                idle = one.served < SERVED_MIN
                self.give_back(group, one)
                if idle:
                    group.alone_until_ms = mono_ms + COLD_MS
            elif what == "write":
                self.write(group, one)
        if low:
            self.renew(group, low, spare=True)

    # Ctrl-C strikes where something is called. So what is counted is counted inside of `try`, and with the lock itself:
    # a Condition's own `with` is Python, in which the lock may be taken and not given back.

    @contextmanager
    def paused(self, timeout_s: float) -> Generator[bool]:
        """Let no move begin meanwhile; yields False if one that had begun did not end in time."""
        begun = False
        try:
            with self._lock:
                self._pauses += 1
                begun = True
                still = self._gate.wait_for(lambda: not self.under_way, timeout_s)
            yield still
        finally:
            if begun:
                with self._lock:
                    self._pauses -= 1
                    self._gate.notify_all()

    @contextmanager
    def _moved(self) -> Generator[None]:
        begun = False
        try:
            with self._lock:
                while self._pauses:
                    self._gate.wait(_LOOK_S)
                self.under_way += 1
                begun = True
            yield
        finally:
            if begun:
                with self._lock:
                    self.under_way -= 1
                    self.count += 1
                    if self._pauses:
                        self._gate.notify_all()
