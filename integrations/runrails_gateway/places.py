"""
What one process remembers of the conversations it has served: which run goes on from which prefix. Bounded; no I/O.

Two conversations of one user may be equal up to some answer. So a name may stand for several runs, and whoever goes on
from there is taken for the newest of them that nobody has gone on with yet.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails_gateway.continuing import Continued

__all__ = ["SAME_MAX", "Place", "Places", "Seen", "choose"]

SAME_MAX = 8
"""Runs under one name; the oldest goes for another one."""
NAMES_MAX = 24
"""Names of one run, beside its first two: the newest ones, where it goes on or forks."""
_FIRST = 2
_NAMES_A_RUN = 4
"""How many names a run has room for on average."""


class Seen:
    """A run that was seen here."""

    __slots__ = ("base", "id", "name", "names", "seen_ms")

    def __init__(self, run_id: str, name: str, base: int, seen_ms: int) -> None:
        self.id = run_id
        self.name = name
        self.base = base
        """Steps that its first request brought along, which are not its own: examples, or what was imported."""
        self.seen_ms = seen_ms
        self.names: list[bytes] = []


class Place:
    """A point of a conversation from which a run goes on."""

    __slots__ = ("claimed", "heard", "keeps", "key", "seen", "steps")

    def __init__(
        self, seen: Seen, key: bytes, steps: int, *, claimed: bool = False, heard: str | None = None,
        keeps: Continued | None = None,
    ) -> None:  # fmt: skip
        self.seen = seen
        self.key = key
        """The name of the conversation up to there."""
        self.steps = steps
        """Model calls and results of tools up to there, those included that are not the run's own."""
        self.claimed = claimed
        """Whether somebody has gone on from there with this run."""
        self.heard = heard
        """What a loop detector knew there, for another process."""
        self.keeps = keeps
        """What its provider keeps up to there, where a request may name it instead of sending it."""


class Places:
    """By name, all that is remembered; the run that was used least lately is forgotten first. For one event loop."""

    def __init__(self, *, kept_max: int, ttl_ms: int) -> None:
        self._kept_max = kept_max
        self._ttl_ms = ttl_ms
        self._places: dict[bytes, tuple[Place, ...]] = {}
        self._runs: OrderedDict[str, Seen] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def names(self) -> int:
        """How many names there are, of all runs together."""
        return len(self._places)

    def find(self, name: bytes, now_ms: int) -> Place | None:
        """Where a conversation of that name goes on; None if nobody knows."""
        places = self._places.get(name)
        if places is None:
            return None
        fresh = [place for place in places if now_ms - place.seen.seen_ms < self._ttl_ms]
        place = choose(fresh)
        if place is not None:
            self.use(place.seen, now_ms)
        return place

    def use(self, seen: Seen, now_ms: int) -> Seen:
        """A run goes on: what is remembered of it, under its id."""
        seen = self._runs.setdefault(seen.id, seen)
        seen.seen_ms = now_ms
        self._runs.move_to_end(seen.id)
        runs, names_max = self._runs, self._kept_max * _NAMES_A_RUN
        while len(runs) > 1 and (len(runs) > self._kept_max or len(self._places) > names_max):
            self._forget(next(iter(runs.values())))
        return seen

    def run(self, run_id: str) -> Seen | None:
        """A run that is remembered."""
        return self._runs.get(run_id)

    def add(self, name: bytes, place: Place) -> None:
        """A run goes on from a place of that name as well. Its `seen` is one that `use` gave, just now."""
        seen = place.seen
        known = self._places.get(name, ())
        others = tuple(other for other in known if other.seen is not seen)
        if len(others) == len(known):
            seen.names.append(name)
            if len(seen.names) > NAMES_MAX + _FIRST:
                self._remove(seen.names.pop(_FIRST), seen)
        self._places[name] = (*others, place)[-SAME_MAX:]

    def _forget(self, seen: Seen) -> None:
        del self._runs[seen.id]
        for name in seen.names:
            self._remove(name, seen)
        seen.names.clear()

    def _remove(self, name: bytes, seen: Seen) -> None:
        left = tuple(place for place in self._places.get(name, ()) if place.seen is not seen)
        if left:
            self._places[name] = left
        else:
            self._places.pop(name, None)


def choose(places: Iterable[Place]) -> Place | None:
    """The newest that nobody has gone on from, else the newest; None if there is none."""
    chosen: Place | None = None
    for place in places:
        if chosen is None or chosen.claimed or not place.claimed:
            chosen = place
    return chosen
