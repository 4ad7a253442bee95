"""
Parallel calls: what one answer of the model asked for is one attempt, however often it holds the same call.

A retry layer that runs a call of the batch once more (the same call id after its result) is an attempt of its own.
"""

from __future__ import annotations

from base64 import b64encode
from struct import Struct
from typing import Literal, Self

from runrails.loops.digest import digest64
from runrails.loops.memory import MASK64, SCOPES_MAX, bytes_of

__all__ = ["Arrival", "Batch", "Batches"]

BATCHES_SPARE = 6
"""Kept beside the newest one of every agent: what is still to come of older answers."""
BATCHES_MAX = SCOPES_MAX + BATCHES_SPARE
ENTRIES_MAX = 128
ENTRIES_TOTAL_MAX = 1_024
"""Of all batches together; a new one finds room for at least one of full size."""
_LAYOUT = Struct("<QB")
_ORDINAL = 0x7F
_BLOCKED = 0x80

Arrival = Literal["first", "sibling", "retry"]


class Batch:
    """
    What was seen of one answer's calls. Mutable, of bounded size.

    A batch whose memory is `lost` (too large, or evicted) counts nothing more: that can delay a stop, never cause one.
    """

    __slots__ = ("_room", "entries", "lost")

    def __init__(self, room: list[int], entries: dict[int, int] | None = None, *, lost: bool = False) -> None:
        self._room = room
        """How many entries all batches may still get, shared by them."""
        self.entries = {} if entries is None else entries
        self.lost = lost

    def arrive(self, call: int, call_id: str | None) -> Arrival:
        """A call of the batch is about to start."""
        started = _key(call, 1)
        if started not in self.entries:
            self._put(started, 1)
            if call_id is not None:
                self._put(_id_key(call, call_id), 0)
            return "sibling" if self.lost else "first"
        if call_id is not None:
            known = self.entries.get(_id_key(call, call_id))
            if known is not None:
                return "retry" if known else "sibling"
            self._put(_id_key(call, call_id), 0)
        self.entries[started] = min(_ORDINAL, (self.entries[started] & _ORDINAL) + 1) | self.entries[started] & _BLOCKED
        return "sibling"

    def equal_calls(self, call: int) -> int:
        """How often the batch holds the call so far."""
        return self.entries.get(_key(call, 1), 0) & _ORDINAL

    def is_blocked(self, call: int) -> bool:
        """Whether the call was blocked in this batch; then its siblings are."""
        return bool(self.entries.get(_key(call, 1), 0) & _BLOCKED)

    def block(self, call: int, call_id: str | None) -> None:
        """The call was blocked; the same id again is a retry."""
        keys = [_key(call, 1)] if call_id is None else [_key(call, 1), _id_key(call, call_id)]
        for key in keys:
            if key in self.entries:
                self.entries[key] |= _BLOCKED

    def finish(self, call: int, call_id: str | None) -> int:
        """A call of the batch has its result: the how-manieth of this call id."""
        if call_id is None:
            return 1
        key = _id_key(call, call_id)
        ordinal = min(_ORDINAL, (self.entries.get(key, 0) & _ORDINAL) + 1)
        self._put(key, ordinal)
        return ordinal

    def counts(self, what: int, ordinal: int) -> bool:
        """Whether `what` is to be counted: the first time, and once more with every further round of retries."""
        key = _key(what, 2)
        if self.entries.get(key, 0) >= ordinal:
            return False
        return self._put(key, ordinal)

    def _put(self, key: int, value: int) -> bool:
        if key not in self.entries:
            if len(self.entries) >= ENTRIES_MAX or self._room[0] <= 0:
                self.lost = True
            if self.lost:
                return False
            self._room[0] -= 1
        self.entries[key] = value
        return True


class Batches:
    """The batches seen last: the newest one of every agent, and some more."""

    __slots__ = ("_room", "table")

    def __init__(self) -> None:
        self.table: dict[int, Batch] = {}
        self._room = [ENTRIES_TOTAL_MAX]

    def get(self, key: int, *, latest: bool, agents: int) -> Batch:
        """
        The batch under `key`, made if need be.

        Args:
            key: Of the answer, in its agent.
            latest: Whether its agent was busy with it a moment ago.
            agents: How many there are. Each needs its own, or those side by side would push out each other's.
        """
        batch = self.table.pop(key, None)
        if batch is None:
            table, room = self.table, self._room
            while table and (len(table) >= agents + BATCHES_SPARE or room[0] < ENTRIES_MAX):
                room[0] += len(table.pop(next(iter(table))).entries)
            # A batch that was begun but is not in the table has been evicted: it is not begun again.
            batch = Batch(room, lost=latest)
        self.table[key] = batch
        return batch

    def pack(self) -> list[list[str | bool]]:
        """As JSON values, the oldest first."""
        return [
            [
                f"{key:x}",
                batch.lost,
                b64encode(b"".join(_LAYOUT.pack(*item) for item in batch.entries.items())).decode(),
            ]
            for key, batch in self.table.items()
        ]

    @classmethod
    def unpack(cls, rows: list[list[object]]) -> Self:
        """What `pack` wrote; a ValueError or TypeError for anything else."""
        batches = cls()
        if len(rows) > BATCHES_MAX:
            raise ValueError("too many batches")
        for key, lost, text in rows:
            entries = dict(_LAYOUT.iter_unpack(bytes_of(text)))
            if len(entries) > ENTRIES_MAX or type(lost) is not bool:
                raise ValueError("a batch of the wrong form")
            batches._room[0] -= len(entries)
            batches.table[int(str(key), 16)] = Batch(batches._room, entries, lost=lost)
        if batches._room[0] < 0:
            raise ValueError("too many entries in batches")
        return batches


def _key(what: int, kind: int) -> int:
    return (what * 4 + kind) & MASK64


def _id_key(call: int, call_id: str) -> int:
    return (digest64(call_id) ^ call) & MASK64
