"""
Does a conversation go round in circles? The loop detector over the whole history that a request brings along.

A history is sent anew with every request, so a detector that has heard a prefix of it goes on from there: only the
turns after the longest prefix that is known are read. What it finds is what one finds that hears all of it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from runrails.calls import Stop, ToolCall
from runrails.loops import LoopDetector, LoopPolicy
from runrails.loops.explain import MARK
from runrails_gateway.chain import extend
from runrails_gateway.history import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from runrails.calls import Finding
    from runrails.loops import ToolRule
    from runrails_gateway.history import AnswerMark, History

__all__ = ["LoopCheck"]

KEPT_MAX = 1_000
AWAKE_MAX = 64
"""Detectors that are kept as they are; the others are packed, which makes them ten times smaller."""
BYTES_MAX = 4_000_000
"""Of all that are packed."""
WAITING_MAX = 128
WAITING_CHARS_MAX = 65_536
"""Of arguments whose results have not come; a conversation with more of them is not kept, but read again."""
READ_TURNS_MAX = 1_000
READ_CHARS_MAX = 2_000_000
"""Of a history that nobody knows the newest part is read, as all others wait meanwhile. Loops are shorter."""
INTERJECTIONS_MAX = 3
"""What is said between a result and the next answer comes from programs as often (a picture, a reminder at every step)
as from a person, who may so let a stopped conversation go on: so often, until a final answer, it is taken for that."""
FORK_TURNS_MIN = 8
"""A history of which so many turns had to be read is remembered before its newest answer as well."""
_DEFAULT_POLICY = LoopPolicy()
_PACKED_BYTES = 600
"""What a packed detector takes besides its tables."""


class LoopCheck:
    """
    Hears conversations. For one event loop, or one thread.

    Nothing of a conversation is kept but the detectors' fingerprints and, of calls whose results have not come yet,
    the arguments. Of a conversation that was forgotten the next request is read from its beginning.

    Args:
        policy: The numbers; None switches it off.
        tools: What is known of single tools.
        kept_max: How many conversations are remembered.
        failed: Told the name of the error, if a detector has a bug; the conversation then goes on.
    """

    def __init__(
        self,
        policy: LoopPolicy | None = _DEFAULT_POLICY,
        tools: Mapping[str, ToolRule] | None = None,
        *,
        kept_max: int = KEPT_MAX,
        failed: Callable[[str], None] = lambda _error: None,
    ) -> None:
        self._policy = policy
        self._tools = tools
        self._failed = failed
        self._kept = _Kept(kept_max)

    def check(self, keys: Sequence[bytes], history: History) -> Finding | None:
        """
        Why the conversation may not go on; None if it may.

        Args:
            keys: The names of its prefixes, as `chain` made them.
            history: The conversation, or what is new since the one that the first key names.
        """
        policy = self._policy
        if policy is None or not (history.answers or history.results):
            return None
        try:
            return self._check(policy, keys, history)
        except Exception as exc:  # noqa: BLE001 -- it observes: a bug of its own must not change a user's result
            self._failed(type(exc).__name__)
            return None

    def answered(self, keys: Sequence[bytes], mark: AnswerMark) -> None:
        """
        An answer was given that a next request may name instead of sending it (Responses API): what it asks for is
        remembered, as only the results will come. Of other answers nothing need be told.
        """
        policy = self._policy
        if policy is None or mark.answer_id is None:
            return
        listener = self._kept.copy(keys[-1], policy, self._tools)
        if listener is None:
            listener = _Listener(LoopDetector(policy, self._tools), _Heard())
        listener.hear((Turn("assistant", mark.digest, mark.calls),))
        self._kept.pack(extend(keys[-1], mark.digest), listener)

    def _check(self, policy: LoopPolicy, keys: Sequence[bytes], history: History) -> Finding | None:
        place = len(history)
        while place > 0 and keys[place] not in self._kept:
            place -= 1
        listener = self._kept.take(keys[place], policy, self._tools)
        if listener is None:
            place, listener = 0, _Listener(LoopDetector(policy, self._tools), _Heard())
        place = _where_to_begin(history, place)
        fork = _before_newest_answer(history)
        if fork - place >= FORK_TURNS_MIN:
            listener.hear(history.turn(at) for at in range(place, fork))
            self._kept.pack(keys[fork], listener)
            place = fork
        listener.hear(history.turns_from(place))
        if sum(len(str(call.args)) for call in listener.waiting.values()) <= WAITING_CHARS_MAX:
            self._kept.put(keys[-1], listener)
        return listener.verdict()


class _Heard(NamedTuple):
    """What is known of a conversation beside what its detector knows."""

    answers: int = 0
    """How many there were: the number of the newest batch."""
    asked: bool = False
    """Whether the newest answer asked for calls."""
    interjections: int = 0
    """How often a person seems to have spoken while calls were made, since the last final answer."""
    said: bytes = b""
    """The digest of the newest of those; a program says the same again and again."""


class _Listener:
    """A detector, and what it needs to follow a conversation."""

    __slots__ = ("detector", "heard", "waiting")

    def __init__(self, detector: LoopDetector, heard: _Heard, waiting: Iterable[ToolCall] = ()) -> None:
        self.detector = detector
        self.heard = heard
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
        heard = self.heard = self.heard._replace(answers=self.heard.answers + 1, asked=bool(calls))
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


class _Packed(NamedTuple):
    """A listener that sleeps."""

    state: dict[str, object]
    heard: _Heard
    waiting: tuple[ToolCall, ...]
    size: int

    @classmethod
    def of(cls, listener: _Listener) -> _Packed:
        """A listener as it is now; it may go on."""
        state = listener.detector.state()
        waiting = tuple(listener.waiting.values())
        size = _PACKED_BYTES + _size(state) + sum(200 + len(str(call.args)) for call in waiting)
        return cls(state, listener.heard, waiting, size)

    def wake(self, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> _Listener:
        """A listener as that one was."""
        return _Listener(LoopDetector.restore(self.state, policy, tools), self.heard, self.waiting)


class _Kept:
    """Listeners by the name of what they have heard: the latest used ones awake, the others packed, the rest gone."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._awake: OrderedDict[bytes, _Listener] = OrderedDict()
        self._packed: OrderedDict[bytes, _Packed] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: object) -> bool:
        return key in self._awake or key in self._packed

    def take(self, key: bytes, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> _Listener | None:
        """The listener that has heard this. One that is awake goes on to what it hears next, a packed one stays."""
        listener = self._awake.pop(key, None)
        return self._wake(key, policy, tools) if listener is None else listener

    def copy(self, key: bytes, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> _Listener | None:
        """As `take`, but nothing moves."""
        listener = self._awake.get(key)
        return self._wake(key, policy, tools) if listener is None else _Packed.of(listener).wake(policy, tools)

    def put(self, key: bytes, listener: _Listener) -> None:
        """Keep a listener; whoever was used least lately goes to sleep for it."""
        self._awake[key] = listener
        self._awake.move_to_end(key)
        while len(self._awake) > min(AWAKE_MAX, self._kept_max):
            self.pack(*self._awake.popitem(last=False))

    def pack(self, key: bytes, listener: _Listener) -> None:
        """Keep a listener as it is now, in little room."""
        packed = _Packed.of(listener)
        self._drop(key)
        self._packed[key] = packed
        self._bytes += packed.size
        while self._packed and (self._bytes > BYTES_MAX or len(self._packed) + len(self._awake) > self._kept_max):
            self._drop(next(iter(self._packed)))

    def _wake(self, key: bytes, policy: LoopPolicy, tools: Mapping[str, ToolRule] | None) -> _Listener | None:
        packed = self._packed.get(key)
        if packed is None:
            return None
        self._packed.move_to_end(key)
        return packed.wake(policy, tools)

    def _drop(self, key: bytes) -> None:
        old = self._packed.pop(key, None)
        if old is not None:
            self._bytes -= old.size


def _where_to_begin(history: History, place: int) -> int:
    """So far back as is read at once."""
    if len(history) - place <= READ_TURNS_MAX // 10:
        return place
    chars = 0
    for at in range(len(history) - 1, max(place, len(history) - READ_TURNS_MAX) - 1, -1):
        if history.roles[at] == "tool":
            chars += sum(_length(outcome.result) for _, outcome in history.turn(at).results)
            if chars > READ_CHARS_MAX:
                return at
    return max(place, len(history) - READ_TURNS_MAX)


def _length(result: object) -> int:
    return len(result) if isinstance(result, str) else 1_000


def _before_newest_answer(history: History) -> int:
    """Where a fork would begin: several answers to the same request."""
    for place in range(len(history) - 1, -1, -1):
        if history.roles[place] == "assistant":
            return place
    return 0


def _size(value: object) -> int:
    if isinstance(value, str):
        return 50 + len(value)
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] -- JSON
    if isinstance(value, list):
        return sum(_size(item) for item in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] -- JSON
    return 32
