"""
Which run goes on from which answer, in documents that all processes share: so that another worker, or this one after a
restart, knows a conversation. Small, short-lived, and no money: while they are away, memory has to do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar, cast

from runrails.documents import Address
from runrails_gateway.continuing import continued_of
from runrails_gateway.places import SAME_MAX, Place, Seen, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.clocks import Clock
    from runrails.crew import Crew
    from runrails.documents import Document, DocumentStore
    from runrails.events import Emitter

__all__ = ["KIND", "RunNotes"]

KIND = "gateway-run"
"""Of the documents."""
REST_MS = 5_000
"""After a failure the documents are left alone for so long, or every request would wait for them."""
MISSES_MAX = 2_048
MISS_MS = 60_000
THREADS_MAX = 16
_TRIES_MAX = 4
_compact = json.JSONEncoder(separators=(",", ":")).encode
_R = TypeVar("_R")


class RunNotes:
    """Places in documents. For one event loop; those of a remote engine are asked in threads."""

    def __init__(
        self, documents: DocumentStore | None, *, clock: Clock, ttl_ms: int, emit: Emitter | None = None
    ) -> None:
        self._documents = documents
        self._remote = bool(getattr(documents, "remote", True))
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._emit = emit
        self._crew: Crew | None = None
        self._misses: dict[bytes, int] = {}
        """
        Names that nobody had noted, and until when that is believed: those of examples, which stand in front of every
        question. An answer is noted before anybody can send it back, so what is missing need not be looked for again.
        """
        self._away_until_ms: int | None = None

    @property
    def away(self) -> bool:
        """Whether they failed lately."""
        return self._away_until_ms is not None

    def close(self) -> None:
        """Let go of the threads."""
        if self._crew is not None:
            self._crew.dismiss()

    async def find(self, user: str, name: bytes, key: bytes | None) -> Place | None:
        """
        The place under a name; None if nobody has noted one, or the documents are away.

        Args:
            user: Whose.
            name: The name.
            key: The conversation; of several places the ones of it are meant, if there are any.
        """
        documents = self._documents
        if documents is None or self._misses.get(name, 0) > self._clock() or self._rests():
            return None
        found = await self._ask(lambda: _find(documents, Address(KIND, user, name.hex()), key, self._expiry()))
        if found is None and not self.away:
            if len(self._misses) >= MISSES_MAX:
                self._misses.clear()
            self._misses[name] = self._clock() + MISS_MS
        return found

    async def add(self, user: str, name: bytes, place: Place) -> None:
        """Note a place under a name."""
        documents = self._documents
        self._misses.pop(name, None)
        if documents is not None and not self._rests():
            await self._ask(lambda: _add(documents, Address(KIND, user, name.hex()), place, self._expiry()))

    def _expiry(self) -> int:
        return self._clock() + self._ttl_ms

    def _rests(self) -> bool:
        return self._away_until_ms is not None and self._clock() < self._away_until_ms

    async def _ask(self, job: Callable[[], _R]) -> _R | None:
        """Ask the documents; None if they cannot be reached."""
        try:
            answer = await self._off_loop(job) if self._remote else job()
        except Exception as exc:  # noqa: BLE001 -- whatever an engine raises: no request may fail for this
            if not self.away and self._emit is not None:
                self._emit("recognition_degraded", "warning", error=type(exc).__name__)
            self._away_until_ms = self._clock() + REST_MS
            return None
        if self.away:
            self._away_until_ms = None
            if self._emit is not None:
                self._emit("recognition_restored")
        return answer

    async def _off_loop(self, job: Callable[[], _R]) -> _R:
        import asyncio

        if self._crew is None:
            from runrails.crew import Crew

            self._crew = Crew(THREADS_MAX, "runrails-gateway-runs")
        # A request that is cancelled does not break off what is being written.
        future = asyncio.wrap_future(self._crew.do(job))
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(future)


def _find(documents: DocumentStore, address: Address, key: bytes | None, expires_ms: int) -> Place | None:
    place: Place | None = None
    for _ in range(_TRIES_MAX):
        document = documents.get(address)
        if document is None:
            return None
        places = _decoded(document)
        same = [place for place in places if key is None or place.key == key]
        place = choose(same or places)
        if place is None or place.claimed or len(places) == 1:
            return place
        place.claimed = True
        if documents.put(address, _encoded(places), expected=document.version, expires_ms=expires_ms) is not None:
            return place
    return place


def _add(documents: DocumentStore, address: Address, place: Place, expires_ms: int) -> None:
    """A new name, nearly always; else one more run under it."""
    if documents.put(address, _encoded([place]), expected=0, expires_ms=expires_ms) is not None:
        return
    for _ in range(_TRIES_MAX):
        document = documents.get(address)
        known = [] if document is None else _decoded(document)
        others = [other for other in known if other.seen.id != place.seen.id]
        for other in others:
            other.heard = None  # There is room for one.
        data = _encoded([*others, place][-SAME_MAX:])
        version = 0 if document is None else document.version
        if documents.put(address, data, expected=version, expires_ms=expires_ms) is not None:
            return


def _encoded(places: list[Place]) -> bytes:
    rows = [
        [
            place.seen.id, place.seen.name, place.seen.base, place.key.hex(), place.steps, int(place.claimed),
            *(() if place.heard is None and place.keeps is None else (place.heard,)),
            *(() if place.keeps is None else (place.keeps,)),
        ]
        for place in places
    ]  # fmt: skip
    return _compact(rows).encode()


def _decoded(document: Document) -> list[Place]:
    """What is written there; nothing, if it is not ours."""
    places: list[Place] = []
    try:
        for row in cast("list[list[object]]", json.loads(document.data)):
            run_id, name, base, key, steps, claimed, *more = row
            if isinstance(base, int) and isinstance(steps, int):
                seen = Seen(str(run_id), str(name), base, 0)
                said = str(more[0]) if more and more[0] is not None else None
                keeps = continued_of(more[1]) if len(more) > 1 else None
                place = Place(seen, bytes.fromhex(str(key)), steps, claimed=bool(claimed), heard=said, keeps=keeps)
                places.append(place)
    except (ValueError, TypeError):
        return []
    return places
