"""
Which run a request belongs to, without any change to the client: its history says so, or the header X-Runrails-Run.

A conversation is sent anew with every request. What this process has answered it knows by name (`places`); what other
processes have, and this one before it was started anew, is in documents (`runnotes`), one small write an answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.ids import check_id
from runrails_gateway.canonical import call_digest, spelled
from runrails_gateway.chain import chain, extend, root
from runrails_gateway.errors import BadRequest
from runrails_gateway.history import EMPTY
from runrails_gateway.places import Place, Places, Seen
from runrails_gateway.runnotes import RunNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runrails.calls import ToolCall
    from runrails.clocks import Clock
    from runrails.documents import DocumentStore
    from runrails.events import Emitter
    from runrails.identity.principal import Principal
    from runrails_gateway.continuing import Continued
    from runrails_gateway.history import AnswerMark, History, Turn

__all__ = ["How", "Recognised", "Runs"]

How = Literal["header", "chain", "tool_call", "response", "derived", "new"]
"""
How a run was found: by the header; the history's prefix; a tool call in it; the answer it names; made from the history
itself, because the documents are away; or not at all, so it is a new one.
"""
KEPT_MAX = 5_000
"""In memory, at three quarters of a kilobyte each; all others are read from the documents."""
TTL_MS = 24 * 3_600_000
OWNERS_MAX = 512
"""Whose names are remembered."""
LOOKED_MAX = 64
"""Answers of a history that are looked for in memory, the newest first."""
NOTED_LOOKED_MAX = 3
"""Answers that are looked for in documents."""
CALLS_NAMED_MAX = 16
"""Tool calls of one answer by which it is known."""


_owner = lru_cache(OWNERS_MAX)(root)


class Recognised(NamedTuple):
    """A request whose run is known."""

    run_id: str
    name: str
    """What the header says; empty without one."""
    how: How
    steps_before: int
    """Model calls and results of tools that the run has behind it, as far as the history shows."""
    keys: tuple[bytes, ...]
    """The names of the history's prefixes, for `LoopCheck.check`."""
    seen: Seen
    steps: int
    owner: tuple[str, bytes]
    heard: str | None
    """What another process has noted of the conversation before the history begins, for `LoopCheck.recall`."""
    keeps: Continued | None = None
    """What its provider keeps of the conversation before that, where the request names an answer."""

    @property
    def key(self) -> bytes:
        """The name of the whole history."""
        return self.keys[-1]


class Runs:
    """
    Knows runs by their conversations. For one event loop.

    Nobody gets into a run of somebody else: every name begins with its owner, who is a user in an organisation.

    Args:
        documents: What all processes share; None: nothing. SQLite's may have `synchronous="NORMAL"`, as nothing in it
            is money.
        clock: Wall clock in milliseconds since the epoch.
        new_id: Makes the id of a new run of a user, as `Guard.run_id`.
        kept_max: How many runs are remembered in memory.
        ttl_ms: How long after its newest request a run is known.
        emit: Told when the documents are away, and when they are back.
    """

    def __init__(
        self,
        documents: DocumentStore | None,
        *,
        clock: Clock,
        new_id: Callable[[str], str],
        kept_max: int = KEPT_MAX,
        ttl_ms: int = TTL_MS,
        emit: Emitter | None = None,
    ) -> None:
        self._clock = clock
        self._new_id = new_id
        self._places = Places(kept_max=kept_max, ttl_ms=ttl_ms)
        self._notes = RunNotes(documents, clock=clock, ttl_ms=ttl_ms, emit=emit)

    def __len__(self) -> int:
        """How many runs are remembered in memory."""
        return len(self._places)

    def close(self) -> None:
        """Let go of threads, if there are any. The documents stay open."""
        self._notes.close()

    async def recognise(
        self,
        principal: Principal,
        history: History | None,
        *,
        header: str | None = None,
        previous_id: str | None = None,
    ) -> Recognised:
        """
        The run of a request.

        Args:
            principal: Who asks.
            history: The conversation it brings along; None if it is none, as for embeddings.
            header: The request's X-Runrails-Run.
            previous_id: The answer it goes on from, in the provider's keeping.

        Raises:
            BadRequest: The header is no identifier.
        """
        now_ms = self._clock()
        history = EMPTY if history is None else history
        user, org = principal.user, principal.org or ""
        owner = _owner(user, org)
        name = "" if header is None else _checked(header)
        before: Place | None = None
        if previous_id is not None:
            before = await self._find_response(user, _name(owner, "response", previous_id), now_ms)
            # Where nobody knows it, the conversation still has a name of its own.
            keys = chain(_name(owner, "after", previous_id) if before is None else before.key, history)
        else:
            keys = chain(owner, history)
        how: How
        steps = history.answers + history.results + (0 if before is None else before.steps)
        if header is not None:
            seen, how = self._seen(_run_id("h", owner, name), name, 0, now_ms), "header"
        elif previous_id is not None:
            seen = self._seen(_run_id("p", owner, previous_id), "", 0, now_ms) if before is None else before.seen
            how = "derived" if before is None else "response"
        else:
            seen, how = await self._by_history(user, owner, keys, history, now_ms)
        if keys[-1] != keys[0]:  # What has no history yet is no place to go on from.
            self._places.add(keys[-1], Place(seen, keys[-1], steps))
        return Recognised(
            seen.id, seen.name, how, max(0, steps - seen.base), keys, seen, steps, (user, owner),
            None if before is None else before.heard, None if before is None else before.keeps,
        )  # fmt: skip

    async def answered(
        self, recognised: Recognised, mark: AnswerMark | None, *, heard: str | None = None,
        keeps: Continued | None = None,
    ) -> None:  # fmt: skip
        """
        Remember an answer, before its last byte is handed out: with that the next request may come, to any process.

        Never raises for documents that are away.

        Args:
            recognised: The request.
            mark: Its answer; None if there was none.
            heard: What `LoopCheck.answered` has said of it.
            keeps: What its provider keeps with it.
        """
        if mark is None:
            return
        user, owner = recognised.owner
        key = extend(recognised.key, mark.digest)
        # It may have been forgotten meanwhile.
        place = Place(self._places.use(recognised.seen, self._clock()), key, recognised.steps + 1, keeps=keeps)
        called = _calls_named(owner, mark.calls, mark.spelled)
        names = [key, *called]
        response = None if mark.answer_id is None else _name(owner, "response", mark.answer_id)
        if response is not None:
            names.append(response)
        for name in names:
            self._places.add(name, place)
        if recognised.how != "header":  # which says it in any process
            await self._notes.add(user, called[0] if called else key, place)
        if response is not None:
            await self._notes.add(user, response, Place(place.seen, key, place.steps, heard=heard, keeps=keeps))

    # Finding.

    async def _by_history(
        self, user: str, owner: bytes, keys: tuple[bytes, ...], history: History, now_ms: int
    ) -> tuple[Seen, How]:
        if not history.answers:
            if keys[-1] == keys[0]:  # Embeddings: nobody comes back to them, so nothing is remembered.
                return Seen(self._new_id(user), "", 0, now_ms), "new"
            return self._new(user, 0, now_ms), "new"
        found = await self._known(user, owner, keys, history, now_ms)
        if found is not None:
            return self._places.use(found[0], now_ms), found[1]
        base = history.answers + history.results
        if self._notes.away:
            first = history.roles.index("assistant")
            return self._seen(_run_id("d", keys[first + 1], ""), "", 0, now_ms), "derived"
        # Examples in front of a question, or a conversation from elsewhere.
        return self._new(user, base, now_ms), "new"

    async def _known(
        self, user: str, owner: bytes, keys: tuple[bytes, ...], history: History, now_ms: int
    ) -> tuple[Seen, How] | None:
        """The newest answer says it best, wherever that is known; then whatever else this process remembers."""
        answers = _answers(history)
        place = self._places.find(keys[answers[0] + 1], now_ms)
        if place is not None:
            place.claimed = True
            return place.seen, "chain"
        return (
            await self._noted(user, owner, keys, history, answers[0])
            or self._in_memory(owner, keys, history, answers, now_ms)
            or await self._noted(user, owner, keys, history, *answers[1:NOTED_LOOKED_MAX])
        )

    def _in_memory(
        self, owner: bytes, keys: tuple[bytes, ...], history: History, answers: list[int], now_ms: int
    ) -> tuple[Seen, How] | None:
        """By the longest prefix that is known: one that ends with an answer, or the request which that one answered."""
        for at in answers[:LOOKED_MAX] + answers[LOOKED_MAX:][-2:]:
            for name in (keys[at + 1], keys[at]):
                place = None if name == keys[0] else self._places.find(name, now_ms)
                if place is not None:
                    place.claimed = True
                    return place.seen, "chain"
        for at in answers[:NOTED_LOOKED_MAX]:
            for name in _turn_named(owner, history.turn(at)):
                place = self._places.find(name, now_ms)
                if place is not None:
                    return place.seen, "tool_call"
        return None

    async def _noted(
        self, user: str, owner: bytes, keys: tuple[bytes, ...], history: History, *answers: int
    ) -> tuple[Seen, How] | None:
        """By what other processes have noted of some of its answers."""
        for at in answers:
            key, called = keys[at + 1], _turn_named(owner, history.turn(at))
            place = await self._notes.find(user, called[0] if called else key, key)
            if place is not None:
                return place.seen, "chain" if place.key == key else "tool_call"
        return None

    async def _find_response(self, user: str, name: bytes, now_ms: int) -> Place | None:
        found = self._places.find(name, now_ms)
        if found is None:
            found = await self._notes.find(user, name, None)
            if found is not None:
                found.seen = self._places.use(found.seen, now_ms)
        return found

    def _new(self, user: str, base: int, now_ms: int) -> Seen:
        return self._seen(self._new_id(user), "", base, now_ms)

    def _seen(self, run_id: str, name: str, base: int, now_ms: int) -> Seen:
        return self._places.use(Seen(run_id, name, base, now_ms), now_ms)


def _answers(history: History) -> list[int]:
    """Where the answers are, the newest first."""
    roles = history.roles
    return [place for place in range(len(roles) - 1, -1, -1) if roles[place] == "assistant"]


def _turn_named(owner: bytes, turn: Turn) -> list[bytes]:
    calls = turn.calls[:CALLS_NAMED_MAX]
    return _calls_named(owner, calls, [spelled(call.args) for call in calls])


def _calls_named(owner: bytes, calls: Sequence[ToolCall], args: Sequence[str]) -> list[bytes]:
    """Names of calls by their spelled arguments; one without an id is like any other of the same kind."""
    several = zip(calls[:CALLS_NAMED_MAX], args, strict=False)
    return [call_digest(owner, call, spelling) for call, spelling in several if call.id]


def _checked(header: str) -> str:
    try:
        return check_id(header, what="X-Runrails-Run")
    except ValueError:
        raise BadRequest(
            "invalid_run", "The header X-Runrails-Run is no identifier.",
            next_step="Use 1 to 128 ASCII letters, digits or . _ @ + = - and start with a letter or digit.",
        ) from None  # fmt: skip


def _name(owner: bytes, kind: str, value: str) -> bytes:
    return root(kind, owner.hex(), value)


def _run_id(kind: str, owner: bytes, value: str) -> str:
    """An id that every process makes alike, and nobody can choose."""
    return f"{kind}{_name(owner, 'run', value).hex()}"
