"""
What the detector remembers: numbers under fingerprints, in tables of fixed size.

Forgetting is safe by construction. A forgotten pair, word or batch looks new, and news only ever steps the ladder down;
eras and epochs come from one counter that never repeats, so nothing remembered can match a later one by accident.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from struct import Struct, pack, unpack
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, TypeVar, cast
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MASK64",
    "CallMemory",
    "FailureMemory",
    "PairMemory",
    "Scope",
    "Units",
    "bytes_of",
    "pack_records",
    "recall",
    "unpack_records",
]

PAIRS_MAX = 384
CALLS_MAX = 192
FAILURES_MAX = 64
SCOPES_MAX = 48
UNITS_MAX = 768
"""Of each of two generations."""
MASK64 = (1 << 64) - 1
_COUNT_MAX = 0xFFFF
_NUMBER_MAX = 0xFFFFFFFF


class Record(Protocol):
    """A row of a table: numbers only, of a fixed layout."""

    LAYOUT: ClassVar[Struct]

    def numbers(self) -> tuple[int, ...]:
        """Every field, in the layout's order."""
        ...


@dataclass(slots=True)
class PairMemory:
    """A call with one of its outcomes."""

    LAYOUT: ClassVar[Struct] = Struct("<QIHIHIII")

    era: int = 0
    count: int = 0
    """Results in this era."""
    first: int = 0
    """Tool result at which `count` began."""
    total: int = 0
    """Failures, whatever came between."""
    total_first: int = 0
    epoch: int = 0
    """Of `total`; another epoch makes it 0."""
    turn: int = 0
    """When it came last."""

    def numbers(self) -> tuple[int, ...]:
        """See `Record`."""
        return (
            self.era, min(self.count, _COUNT_MAX), self.first, min(self.total, _COUNT_MAX), self.total_first,
            self.epoch, self.turn,
        )  # fmt: skip


@dataclass(slots=True)
class CallMemory:
    """A call, whatever came of it: what the next attempt is judged by."""

    LAYOUT: ClassVar[Struct] = Struct("<QQQIHIHIIIIB")

    pair: int = 0
    """Its last outcome's row in the table of pairs."""
    outcome: int = 0
    """Fingerprint of its last outcome."""
    era: int = 0
    count: int = 0
    """The highest count of its pairs in this era."""
    first: int = 0
    total: int = 0
    total_first: int = 0
    epoch: int = 0
    turn: int = 0
    blocked_era: int = 0
    """The era in which it was blocked last."""
    flags: int = 0

    FAILED: ClassVar[int] = 1
    BARE: ClassVar[int] = 2
    TERMINAL: ClassVar[int] = 4
    BARRED: ClassVar[int] = 8
    """It was blocked for failing again and again in spite of news between."""

    def numbers(self) -> tuple[int, ...]:
        """See `Record`."""
        return (
            self.pair, self.outcome, self.era, min(self.count, _COUNT_MAX), self.first, min(self.total, _COUNT_MAX),
            self.total_first, self.epoch, self.turn, self.blocked_era, self.flags,
        )  # fmt: skip


@dataclass(slots=True)
class FailureMemory:
    """One failure text, whichever calls gave it."""

    LAYOUT: ClassVar[Struct] = Struct("<QIHIQQQQ")

    ok_era: int = 0
    count: int = 0
    first: int = 0
    # Fingerprints of the tools that gave it last, the latest in front; 0 for none.
    tool_1: int = 0
    tool_2: int = 0
    tool_3: int = 0
    tool_4: int = 0

    def tools(self) -> tuple[int, ...]:
        """The tools that gave it last."""
        return self.tool_1, self.tool_2, self.tool_3, self.tool_4

    def add_tool(self, tool: int) -> None:
        """A tool gave it; of more than four the one that has not for longest is forgotten."""
        others = [known for known in self.tools() if known != tool]
        self.tool_1, self.tool_2, self.tool_3, self.tool_4 = (tool, *others, 0)[:4]

    def numbers(self) -> tuple[int, ...]:
        """See `Record`."""
        return self.ok_era, min(self.count, _COUNT_MAX), self.first, *self.tools()


@dataclass(slots=True)
class Scope:
    """One agent of the run."""

    LAYOUT: ClassVar[Struct] = Struct("<QQQQQ11I")

    last_batch: int = 0
    blocked_batch: int = 0
    """The answer in which something was blocked; its other calls are blocked too, not stopped."""
    stuck_failure: int = 0
    """Row of the failure text that came too often, in the table of failures; 0 for none."""
    touched: int = 0
    """What the latest call that changed something was about, as by `units.names`."""
    epoch: int = 0
    """Changes with every user message."""
    era: int = 0
    """Changes with every news."""
    previous_era: int = 0
    ok_era: int = 0
    """Changes with every news that is not a failure."""
    steps: int = 0
    """Tool results so far."""
    turns: int = 0
    """The same, a parallel batch counted once."""
    points: int = 0
    """Grow with every result that holds nothing new."""
    streak: int = 0
    """Results that `points` came from."""
    streak_first: int = 0
    poll_turn: int = 0
    """When a declared poll with some allowance left was answered last; 0 for never."""
    blocked: int = 0
    """1 if something was blocked and nothing new came since."""

    def numbers(self) -> tuple[int, ...]:
        """See `Record`."""
        return (
            self.last_batch, self.blocked_batch, self.stuck_failure, self.touched, self.epoch, self.era,
            self.previous_era, self.ok_era, self.steps, self.turns, self.points, self.streak, self.streak_first,
            self.poll_turn, self.blocked,
        )  # fmt: skip


_R = TypeVar("_R", bound=Record)


def recall(table: dict[int, _R], key: int, new: type[_R], limit: int) -> _R:
    """The row under `key`, made if need be, as the most recently used; where there are too many, the oldest goes."""
    row = table.pop(key, None)
    if row is None:
        row = new()
        if len(table) >= limit:
            del table[next(iter(table))]
    table[key] = row
    return row


def pack_records(table: dict[int, _R], layout: Struct) -> str:
    """A table as text, in order of use."""
    return b64encode(b"".join(layout.pack(key, *row.numbers()) for key, row in table.items())).decode()


def unpack_records(text: object, kind: type[_R], limit: int) -> dict[int, _R]:
    """
    The table that `pack_records` wrote.

    Raises:
        ValueError: It is not such a text, or has more rows than the table may have.

    """
    data = bytes_of(text)
    layout = kind.LAYOUT
    if len(data) % layout.size or len(data) > limit * layout.size:
        raise ValueError("a table of the wrong size")
    return {row[0]: kind(*row[1:]) for row in layout.iter_unpack(data)}


def bytes_of(text: object) -> bytes:
    """The bytes of base64 text; a ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError("a table that is no text")  # noqa: TRY004 -- one type for all damage
    return b64decode(text, validate=True)


class Units:
    """
    Words and lines seen lately, in two generations: a full young one becomes the old one, which is then forgotten.

    What is asked for again moves to the young one, so that what recurs stays known.
    """

    __slots__ = ("old", "young")

    def __init__(self, young: Iterable[int] = (), old: Iterable[int] = ()) -> None:
        self.young: set[int] = set(young)
        self.old: set[int] = set(old)

    def learn(self, units: Iterable[bytes], seed: int) -> bool:
        """Remember all of them; True if one was not known."""
        seed &= _NUMBER_MAX
        news = False
        young = self.young
        for unit in units:
            number = crc32(unit, seed)
            if number not in young:
                news = news or number not in self.old
                if len(young) >= UNITS_MAX:
                    self.old = young
                    young = self.young = set()
                young.add(number)
        return news

    def knows(self, units: Iterable[bytes], seed: int) -> bool:
        """Whether all of them are known; nothing is learnt."""
        seed &= _NUMBER_MAX
        return all((number := crc32(unit, seed)) in self.young or number in self.old for unit in units)

    def pack(self) -> list[str]:
        """As text; the order within a generation means nothing."""
        return [
            b64encode(pack(f"<{len(generation)}I", *sorted(generation))).decode()
            for generation in (self.young, self.old)
        ]

    @classmethod
    def unpack(cls, texts: object) -> Self:
        """What `pack` wrote; a ValueError for anything else."""
        if not isinstance(texts, list) or len(cast("list[object]", texts)) != 2:
            raise ValueError("units that are no pair")
        young, old = (bytes_of(text) for text in cast("list[object]", texts))
        if max(len(young), len(old)) > 4 * UNITS_MAX:
            raise ValueError("too many units")
        return cls(*(unpack(f"<{len(data) // 4}I", data) for data in (young, old)))
