"""
Detectors that follow conversations: awake, asleep in a tenth of the room, or written down for another process.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.calls import Stop, ToolCall
from runrails.loops import LoopDetector, LoopPolicy
from runrails.loops.explain import MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runrails.calls import Finding
    from runrails.loops import ToolRule
    from runrails_gateway.history import Turn

__all__ = ["AWAKE_MAX", "BYTES_MAX", "Heard", "Kept", "Listener", "Packed"]

AWAKE_MAX = 64
"""Detectors that are kept as they are; the others are packed, which makes them ten times smaller."""
BYTES_MAX = 4_000_000
"""Of all that are packed."""
WAITING_MAX = 128
INTERJECTIONS_MAX = 3
"""What is said between a result and the next answer comes from programs as often (a picture, a reminder at every step)
as from a person, who may so let a stopped conversation go on: so often, until a final answer, it is taken for that."""
_PACKED_BYTES = 600
"""What a packed detector takes besides its tables."""


class Heard(NamedTuple):
    """What is known of a conversation beside what its detector knows."""

    answers: int = 0
    """How many there were: the number of the newest batch."""
    asked: bool = False
    """Whether the newest answer asked for calls."""
    interjections: int = 0
    """How often a person seems to have spoken while calls were made, since the last final answer."""
    said: bytes = b""
    """The digest of the newest of those; a program says the same again and again."""


class Listener:
    """A detector, and what it needs to follow a conversation."""

    __slots__ = ("detector", "heard", "waiting")

    def __init__(self, detector: LoopDetector, heard: Heard, waiting: Iterable[ToolCall] = ()) -> None:
        self.detector = detector
        self.heard: Heard = heard
        self.waiting: dict[str, ToolCall] = {call.id or "": call for call in waiting}
        """Calls whose results have not come, by their ids."""

    def hear(self, turns: Iterable[Turn]) -> None:
        """Take in the next turns."""
        for turn in turns:
            if turn.role == "assistant":
                self._hear_answer(turn.calls)
            elif turn.role == "user":
                self._hear_user(turn.digest)
            elif turn.role == "tool":
                for call_id, outcome in turn.results:
                    call = self.waiting.pop(call_id, None)
                    result = outcome.result
                    # What a guard in the caller's process said in a blocked call's place is no result.
                    if call is not None and not (isinstance(result, str) and result.startswith(MARK)):
                        self.detector.after_tool(call, outcome, can_block=False)

    def verdict(self) -> Finding | None:
        """Why there may be no next answer."""
        said = self.detector.before_model(can_block=False)
        return said.finding if isinstance(said, Stop) else None

    def _hear_answer(self, calls: tuple[ToolCall, ...]) -> None:
        before = self.heard
        heard = self.heard = Heard(before.answers + 1, bool(calls), before.interjections, before.said)
        if len(self.waiting) + len(calls) > WAITING_MAX:
            self.waiting.clear()
        for call in calls[:WAITING_MAX]:
            asked = call if len(calls) == 1 else replace(call, batch=heard.answers)
            self.detector.before_tool(asked, can_block=False)
            self.waiting[asked.id or ""] = asked

    def _hear_user(self, digest: bytes) -> None:
        heard = self.heard
        if not heard.asked:
            self.heard = heard._replace(interjections=0, said=b"")
            self.detector.user_message()
        elif heard.interjections < INTERJECTIONS_MAX and digest != heard.said:
            self.heard = heard._replace(interjections=heard.interjections + 1, said=digest)
            self.detector.user_message()
        else:
            self.detector.user_message(taken_over=True)


class Packed(NamedTuple):
    """A listener that sleeps."""

    state: dict[str, object]
    heard: Heard
    waiting: tuple[ToolCall, ...]
    size: int

    @classmethod
    def of(cls, listener: Listener) -> Packed:
        """A listener as it is now; it may go on."""
        state = listener.detector.state()
        waiting = tuple(listener.waiting.values())
        size = _PACKED_BYTES + _size(state) + sum(200 + len(str(call.args)) for call in waiting)
        return cls(state, listener.heard, waiting, size)

    def written(self) -> str:
        """As text, without anything that was said but the names of tools. Calls are those of `LoopCheck.answered`."""
        heard, waiting = self.heard, [[call.id, call.name, call.args, call.batch] for call in self.waiting]
        return json.dumps([self.state, [*heard[:3], heard.said.hex()], waiting], separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Packed:
        """
        What `written` gave.

        Raises:
            ValueError, TypeError: It is nothing of the kind.
        """
        state, heard, waiting = cast("tuple[dict[str, object], list[int], list[list[str]]]", json.loads(text))
        LoopDetector.restore(state)
        answers, asked, interjections, said = heard
        calls = tuple(ToolCall(id=i, name=str(name), args=args, batch=batch) for i, name, args, batch in waiting)
        known = Heard(int(answers), bool(asked), int(interjections), bytes.fromhex(str(said)))
        return cls(state, known, calls, _PACKED_BYTES + len(text))

    def wake(self, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> Listener:
        """A listener as that one was."""
        return Listener(LoopDetector.restore(self.state, policy, tools), self.heard, self.waiting)


class Kept:
    """Listeners by the name of what they have heard: the latest used ones awake, the others packed, the rest gone."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._awake: OrderedDict[bytes, Listener] = OrderedDict()
        self._packed: OrderedDict[bytes, Packed] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: object) -> bool:
        return key in self._awake or key in self._packed

    def take(self, key: bytes, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> Listener | None:
        """The listener that has heard this. One that is awake goes on to what it hears next, a packed one stays."""
        listener = self._awake.pop(key, None)
        return self._wake(key, policy, tools) if listener is None else listener

    def copy(self, key: bytes, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> Listener | None:
        """As `take`, but nothing moves."""
        listener = self._awake.get(key)
        return self._wake(key, policy, tools) if listener is None else Packed.of(listener).wake(policy, tools)

    def put(self, key: bytes, listener: Listener) -> None:
        """Keep a listener; whoever was used least lately goes to sleep for it."""
        self._awake[key] = listener
        self._awake.move_to_end(key)
        while len(self._awake) > min(AWAKE_MAX, self._kept_max):
            self.pack(*self._awake.popitem(last=False))

    def pack(self, key: bytes, listener: Listener) -> Packed:
        """Keep a listener as it is now, in little room."""
        packed = Packed.of(listener)
        self.add(key, packed)
        return packed

    def add(self, key: bytes, packed: Packed) -> None:
        """Keep one that sleeps."""
        self._drop(key)
        self._packed[key] = packed
        self._bytes += packed.size
        while self._packed and (self._bytes > BYTES_MAX or len(self._packed) + len(self._awake) > self._kept_max):
            self._drop(next(iter(self._packed)))

    def _wake(self, key: bytes, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> Listener | None:
        packed = self._packed.get(key)
        if packed is None:
            return None
        self._packed.move_to_end(key)
        return packed.wake(policy, tools)

    def _drop(self, key: bytes) -> None:
        old = self._packed.pop(key, None)
        if old is not None:
            self._bytes -= old.size


def _size(value: object) -> int:
    if isinstance(value, str):
        return 50 + len(value)
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] -- JSON
    if isinstance(value, list):
        return sum(_size(item) for item in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] -- JSON
    return 32
