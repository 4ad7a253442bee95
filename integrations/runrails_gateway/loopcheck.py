"""
Does a conversation go round in circles? The loop detector over the whole history that a request brings along.

A history is sent anew with every request, so a detector that has heard a prefix of it goes on from there: only the
turns after the longest prefix that is known are read. What it finds is what one finds that hears all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runrails.loops import LoopDetector, LoopPolicy, ToolRule
from runrails.loops.digest import hex64
from runrails.loops.fingerprint import print_call
from runrails_gateway.chain import extend
from runrails_gateway.history import Turn
from runrails_gateway.listening import Heard, Kept, Listener, Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runrails.calls import Finding, ToolCall
    from runrails_gateway.history import AnswerMark, History

__all__ = ["LoopCheck"]

KEPT_MAX = 1_000
WAITING_CHARS_MAX = 65_536
"""Of arguments whose results have not come; a conversation with more of them is not kept, but read again."""
READ_TURNS_MAX = 1_000
READ_CHARS_MAX = 2_000_000
"""Of a history that nobody knows the newest part is read, as all others wait meanwhile. Loops are shorter."""
FORK_TURNS_MIN = 8
"""A history of which so many turns had to be read is remembered before its newest answer as well."""
_DEFAULT_POLICY = LoopPolicy()
WRITTEN_CHARS_MAX = 48_000
"""Of what is written for another process."""
_NO_RULE = ToolRule()


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
        self._kept = Kept(kept_max)

    def check(
        self, keys: Sequence[bytes], history: History, *, nameable: bool = False, named: bool = False
    ) -> Finding | None:
        """
        Why the conversation may not go on; None if it may.

        Args:
            keys: The names of its prefixes, as `chain` made them.
            history: The conversation, or what is new since the one that the first key names.
            nameable: Whether a next request may name its answer instead of sending all (Responses API).
            named: Whether this one does, so that only what is new has come.
        """
        policy = self._policy
        if policy is None or not (history.answers or history.results):
            return None
        try:
            found = None if named else self._check(policy, keys, history)
            if named or nameable:
                by_name = self._check(policy, list(map(_by_name, keys)), history, printed=True)
                found = by_name if named else found
        except Exception as exc:  # noqa: BLE001 -- it observes: a bug of its own must not change a user's result
            self._failed(type(exc).__name__)
            return None
        return found

    def answered(self, keys: Sequence[bytes], mark: AnswerMark) -> str | None:
        """
        An answer was given that a next request may name instead of sending it (Responses API): what it asks for is
        remembered, as only the results will come. Of other answers nothing need be told.

        Returns:
            The same for another process, for `recall`; None if there is nothing, or it cannot be written.
        """
        policy = self._policy
        if policy is None or mark.answer_id is None:
            return None
        try:
            return self._answered(policy, list(map(_by_name, keys[-1:])), mark)
        except Exception as exc:  # noqa: BLE001 -- as in `check`
            self._failed(type(exc).__name__)
            return None

    def recall(self, key: bytes, written: str) -> None:
        """What another process has heard of the conversation with that name."""
        if self._policy is None or _by_name(key) in self._kept:
            return
        try:
            self._kept.add(_by_name(key), Packed.read(written))
        except Exception as exc:  # noqa: BLE001 -- as in `check`
            self._failed(type(exc).__name__)

    def _answered(self, policy: LoopPolicy, keys: Sequence[bytes], mark: AnswerMark) -> str | None:
        listener = self._kept.copy(keys[-1], policy, self._tools) or Listener(
            LoopDetector(policy, self._tools), Heard()
        )
        listener.hear((Turn("assistant", mark.digest, tuple(map(self._printed, mark.calls))),))
        written = self._kept.pack(_by_name(extend(keys[-1].removeprefix(_NAMED), mark.digest)), listener).written()
        keyed = any(self._rule(call.name).loop_key is not None for call in listener.waiting.values())
        return None if keyed or len(written) > WRITTEN_CHARS_MAX else written

    def _as_printed(self, turn: Turn) -> Turn:
        return turn._replace(calls=tuple(map(self._printed, turn.calls))) if turn.calls else turn

    def _printed(self, call: ToolCall) -> ToolCall:
        """A call whose arguments are a fingerprint, so nothing of them is kept; an owner's key needs them whole."""
        rule = self._rule(call.name)
        return call if rule.loop_key is not None else replace(call, args=hex64(print_call(call).key))

    def _rule(self, tool: str) -> ToolRule:
        return (self._tools or {}).get(tool, _NO_RULE)

    def _check(
        self, policy: LoopPolicy, keys: Sequence[bytes], history: History, *, printed: bool = False
    ) -> Finding | None:
        place = len(history)
        while place > 0 and keys[place] not in self._kept:
            place -= 1
        listener = self._kept.take(keys[place], policy, self._tools)
        if listener is None:
            place, listener = 0, Listener(LoopDetector(policy, self._tools), Heard())
        place = _where_to_begin(history, place)
        if len(history) - place > FORK_TURNS_MIN:
            place = self._hear_to_fork(keys, history, place, listener, printed=printed)
        turns = history.turns_from(place)
        listener.hear(map(self._as_printed, turns) if printed else turns)
        if sum([len(str(call.args)) for call in listener.waiting.values()]) <= WAITING_CHARS_MAX:
            self._kept.put(keys[-1], listener)
        return listener.verdict()

    def _hear_to_fork(
        self, keys: Sequence[bytes], history: History, place: int, listener: Listener, *, printed: bool
    ) -> int:
        """Hear all before the newest answer, and remember that, if it is much. How far it was heard."""
        fork = _before_newest_answer(history)
        if fork - place < FORK_TURNS_MIN:
            return place
        turns = map(history.turn, range(place, fork))
        listener.hear(map(self._as_printed, turns) if printed else turns)
        self._kept.pack(keys[fork], listener)
        return fork


_NAMED = b"named "


def _by_name(key: bytes) -> bytes:
    """
    What is heard of a conversation whose answers may be named is kept apart: there all calls are fingerprints, so that
    those of requests that bring all along and of those that name what came before are the same.
    """
    return _NAMED + key


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
