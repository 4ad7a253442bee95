"""
What one run knows of its conversations: who is speaking in which, which tool calls an answer asked for, which of their
results have been counted. It only observes for the loop detector; money does not pass through here.

A conversation is one agent's exchange with its model, and its `agent` is the loop detector's scope. The first one of a
run is `""`. A sub-agent that is called in a tool, or a subgraph of LangGraph, has conversations of its own; one that
goes on with the same tool messages is the same conversation, and so is the same question asked again later. Agents that
are asked side by side in one tool are as many conversations; one that is asked there after another takes over its.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from runrails.calls import ToolCall, ToolOutcome
from runrails.loops.explain import MARK, without_advice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

__all__ = ["Asked", "Conversation", "Conversations", "Heard", "Place"]

_K = TypeVar("_K")
_V = TypeVar("_V")

ASKED_KEPT_MAX = 4_096
SEEN_KEPT_MAX = 4_096
CONVERSATIONS_MAX = 1_024
RECENT_MAX = 32
TOOL_MESSAGES_LOOKED_AT_MAX = 8


class Place(NamedTuple):
    """Where a model call happens."""

    root: UUID | None
    """The root chain it is in, if any."""
    enclosure: UUID | None
    """The innermost tool call it is in, else the root chain."""
    graph: str
    """LangGraph's namespace of the subgraph it is in, `""` for the outermost graph."""
    base: str
    """Agent path of what encloses it."""
    tool: UUID | None = None
    """The tool call around, where the enclosure is an agent in it."""
    shared: bool = False
    """Whether the enclosure is a tool call itself, so that loops of somebody's own may share it."""


class Conversation:
    """One agent's exchange with its model. Mutable; the lock of its `Conversations` guards it."""

    __slots__ = ("agent", "held_by", "question", "waits_for")

    def __init__(self, agent: str, question: int, held_by: UUID | None) -> None:
        self.agent = agent
        self.question = question
        """Hash of the newest message a person wrote; kept in memory only."""
        self.held_by = held_by
        """The root chain, or the agent inside a tool, that is in it now, if any."""
        self.waits_for = 1
        """How many answers are to come: the model's, or those of the tools that it has asked for."""


class Asked:
    """A tool call that an answer asked for."""

    __slots__ = ("agent", "args", "batch", "done", "id", "name", "started", "stops")

    def __init__(self, name: str, args: object, call_id: str | None, *, batch: str, agent: str) -> None:
        self.name = name
        self.args = args
        self.id = call_id
        self.batch = batch
        self.agent = agent
        self.started = False
        self.done = False
        """Whether a result of it has been counted."""
        self.stops = 0
        """How many stops were answered in its place."""


class Heard(NamedTuple):
    """What a model call's messages tell."""

    agent: str
    user_spoke: bool
    taken_over: bool
    """Another agent goes on in a conversation that one before it has left."""
    results: tuple[tuple[ToolCall, ToolOutcome], ...]
    """Results of tool calls that no tool hook has seen."""


class Conversations:
    """The conversations of one run. Thread-safe and bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_place: dict[tuple[UUID, str], Conversation] = {}
        self._by_tool: dict[UUID, list[Conversation]] = {}
        """Those inside a tool call: of its agents, or of loops of somebody's own."""
        self._by_question: dict[int, Conversation] = {}
        self._by_agent: dict[str, Conversation] = {}
        self._asked: dict[str, Asked] = {}
        """The newest of each id."""
        self._asked_by: dict[tuple[str, str], Asked] = {}
        """The same for each agent: those side by side may number their calls alike."""
        self._recent: deque[Asked] = deque(maxlen=RECENT_MAX)
        self._seen: dict[str, str] = {}
        self._count = 0

    def hear(self, place: Place, messages: Sequence[BaseMessage]) -> Heard:
        """A model is about to be called with these messages."""
        with self._lock:
            known = None if place.enclosure is None else self._by_place.get((place.enclosure, place.graph))
            spoke = taken_over = baseline = False
            if known is not None and place.shared:
                known, baseline = self._loop_in(known, place, messages)
            elif known is None:
                question = _question(messages)
                left = self._left(place)
                if left is None:
                    known, spoke, baseline = self._recognise(place, messages, question)
                else:
                    known, taken_over, baseline = left, left.question != question, True
                    known.question, known.held_by = question, place.root
                self._settle_in(known, place)
            known.waits_for = 1
            return Heard(known.agent, spoke, taken_over, tuple(self._new_results(known, messages, baseline=baseline)))

    def answered(self, agent: str, messages: Sequence[AIMessage], *, batch: str) -> None:
        """A model has answered; remember which tool calls it asked for."""
        with self._lock:
            known = self._by_agent.get(agent)
            if known is not None:
                known.waits_for = sum(len(said.tool_calls) + len(said.invalid_tool_calls) for said in messages)
            for message in messages:
                for call in message.tool_calls:
                    self._ask(Asked(call["name"], call["args"], call["id"], batch=batch, agent=agent))
                for broken in message.invalid_tool_calls:
                    self._ask(Asked(broken["name"] or "", broken["args"], broken["id"], batch=batch, agent=agent))

    def tool_starts(self, place: Place, name: str, args: object, call_id: str | None) -> tuple[ToolCall, Asked | None]:
        """The tool call that starts, joined with the answer that asked for it."""
        with self._lock:
            known = None if place.enclosure is None else self._by_place.get((place.enclosure, place.graph))
            if call_id is not None and place.shared:
                known = self._asking(place, name, args, call_id) or known
            asked = self._claim(known, name, args, call_id)
            if asked is None:
                agent = place.base if known is None else known.agent
                return ToolCall(name=name, args=args, id=call_id, agent=agent), None
            asked.started = True
            # Without what LangChain injects: state, a runtime or the call's id would make every call look new.
            given = asked.args if _holds(args, asked.args) else args
            return ToolCall(name=name, args=given, id=asked.id, batch=asked.batch, agent=asked.agent), asked

    def tool_ended(self, asked: Asked | None, call_id: str | None, agent: str) -> None:
        """A tool call's result has been counted."""
        with self._lock:
            if asked is not None:
                self._has_answer(asked)
            elif call_id is not None:
                _keep(self._seen, call_id, agent, SEEN_KEPT_MAX)

    def root_ended(self, root: UUID) -> None:
        """A root chain, or an agent of its own in it, is over: another may go on in the same conversation."""
        with self._lock:
            for key in [key for key in self._by_place if key[0] == root]:
                del self._by_place[key]
            for known in self._by_agent.values():
                if known.held_by == root:
                    known.held_by = None

    def enclosure_ended(self, enclosure: UUID) -> None:
        """A tool call is over, and with it the conversations of its sub-agents."""
        with self._lock:
            self._by_tool.pop(enclosure, None)
            for key in [key for key in self._by_place if key[0] == enclosure]:
                del self._by_place[key]

    def _settle_in(self, known: Conversation, place: Place) -> None:
        """Know it again by its place."""
        if place.enclosure is not None:
            _keep(self._by_place, (place.enclosure, place.graph), known, CONVERSATIONS_MAX)
        beside = self._beside(place)
        if len(beside) < CONVERSATIONS_MAX and not any(known is one for one in beside):
            beside.append(known)

    def _beside(self, place: Place) -> list[Conversation]:
        """Which conversations there are in the same tool call."""
        tool = place.enclosure if place.shared else place.tool
        if tool is None:
            return []
        found = self._by_tool.get(tool)
        if found is None:
            found = list[Conversation]()
            _keep(self._by_tool, tool, found, CONVERSATIONS_MAX)
        return found

    def _loop_in(self, known: Conversation, place: Place, messages: Sequence[BaseMessage]) -> tuple[Conversation, bool]:
        """Which of the loops that share a tool call this is, and whether it begins here."""
        beside, question = self._beside(place), _question(messages)
        same = next((one for one in beside if one.question == question), None)
        if same is not None:
            return same, False
        agent = self._continued(messages)
        if agent is not None:
            return self._by_agent.get(agent, known), False
        if known.waits_for == 0 or any(isinstance(message, AIMessage) for message in messages):
            return known, False
        begun = Conversation(self._name(place), question, known.held_by)
        _keep(self._by_agent, begun.agent, begun, CONVERSATIONS_MAX)
        if len(beside) < CONVERSATIONS_MAX:
            beside.append(begun)
        return begun, True

    def _asking(self, place: Place, name: str, args: object, call_id: str) -> Conversation | None:
        """Which of the loops that share a tool call has asked for a call; they may number theirs alike."""
        for known in self._beside(place):
            asked = self._asked_by.get((known.agent, call_id))
            if asked is not None and not asked.started and asked.name == name and _holds(args, asked.args):
                return known
        return None

    def _has_answer(self, asked: Asked) -> None:
        known = None if asked.done else self._by_agent.get(asked.agent)
        if known is not None:
            known.waits_for = max(0, known.waits_for - 1)
        asked.done = True

    def _left(self, place: Place) -> Conversation | None:
        """The conversation of an agent that has ended in the same tool call."""
        if place.tool is None:
            return None
        return next((known for known in self._beside(place) if known.held_by is None), None)

    def _recognise(
        self, place: Place, messages: Sequence[BaseMessage], question: int
    ) -> tuple[Conversation, bool, bool]:
        """The conversation, whether a person has spoken in it, and whether it begins here."""
        agent = self._continued(messages)
        if agent is not None:
            going_on = self._by_agent.get(agent) or Conversation(agent, question, place.root)
            spoke, going_on.question, going_on.held_by = going_on.question != question, question, place.root
            return going_on, spoke, False
        outermost = not place.graph and place.enclosure == place.root and place.tool is None
        again = self._by_question.get(question) if outermost else None
        # Asked again later it is a retry; at the same time it is another sample, which must not count as one.
        if again is not None and (place.root is None or again.held_by is None):
            again.held_by = place.root
            return again, False, False
        known = Conversation(self._name(place), question, place.root)
        _keep(self._by_agent, known.agent, known, CONVERSATIONS_MAX)
        if outermost:
            _keep(self._by_question, question, known, CONVERSATIONS_MAX)
        return known, False, True

    def _continued(self, messages: Sequence[BaseMessage]) -> str | None:
        looked_at = 0
        for message in reversed(messages):
            if isinstance(message, ToolMessage):
                asked = self._asked.get(message.tool_call_id)
                if asked is not None:
                    return asked.agent
                if message.tool_call_id in self._seen:
                    return self._seen[message.tool_call_id]
                looked_at += 1
                if looked_at == TOOL_MESSAGES_LOOKED_AT_MAX:
                    return None
        return None

    def _name(self, place: Place) -> str:
        self._count += 1
        if place.enclosure != place.root or place.tool is not None:
            return f"{place.base}#{self._count}"
        if not place.graph:
            return "" if self._count == 1 else f"#{self._count}"
        return f"{'/'.join(node.partition(':')[0] for node in place.graph.split('|'))}#{self._count}"

    def _ask(self, asked: Asked) -> None:
        self._recent.append(asked)
        if asked.id:
            # Some providers number their calls anew in every answer; then the id means the newest call.
            self._asked.pop(asked.id, None)
            _keep(self._asked, asked.id, asked, ASKED_KEPT_MAX)
            self._asked_by.pop((asked.agent, asked.id), None)
            _keep(self._asked_by, (asked.agent, asked.id), asked, ASKED_KEPT_MAX)

    def _asked_in(self, known: Conversation | None, call_id: str) -> Asked | None:
        own = None if known is None else self._asked_by.get((known.agent, call_id))
        return self._asked.get(call_id) if own is None else own

    def _claim(self, known: Conversation | None, name: str, args: object, call_id: str | None) -> Asked | None:
        if call_id is not None:
            return self._asked_in(known, call_id)
        # Some executors do not tell the tool whose call it is; then the newest answers do.
        waiting = [asked for asked in self._recent if asked.name == name and not asked.started]
        if known is not None:
            waiting = [asked for asked in waiting if asked.agent == known.agent] or waiting
        for asked in waiting:
            if _holds(args, asked.args):
                return asked
        return waiting[-1] if waiting else None

    def _new_results(
        self, known: Conversation, messages: Sequence[BaseMessage], *, baseline: bool
    ) -> list[tuple[ToolCall, ToolOutcome]]:
        """The results after the newest answer that no hook has counted; what a run begins with is not counted."""
        found: list[ToolMessage] = []
        answer: AIMessage | None = None
        for message in reversed(messages):
            if isinstance(message, ToolMessage):
                found.append(message)
            elif isinstance(message, AIMessage):
                answer = message
                break
        results: list[tuple[ToolCall, ToolOutcome]] = []
        for message in reversed(found):
            call_id = message.tool_call_id
            asked = self._asked_in(known, call_id)
            if asked is not None:
                fresh, asked.done = not asked.done, True
            else:
                fresh = call_id not in self._seen
                _keep(self._seen, call_id, known.agent, SEEN_KEPT_MAX)
            if fresh and not baseline:
                results.append((_call(known, message, asked, answer), _outcome(message)))
        return results


def _holds(args: object, given: object) -> bool:
    """Whether a tool's arguments are those that the model gave, or those and more."""
    try:
        if isinstance(args, Mapping) and isinstance(given, Mapping):
            told, all_args = cast("Mapping[object, object]", given), cast("Mapping[object, object]", args)
            return all(key in all_args and bool(all_args[key] == value) for key, value in told.items())
        return bool(args == given)
    except Exception:  # noqa: BLE001 -- a user's object may raise when compared (an array does); the call must go on
        return False


def _call(known: Conversation, message: ToolMessage, asked: Asked | None, answer: AIMessage | None) -> ToolCall:
    call_id = message.tool_call_id
    if asked is not None:
        return ToolCall(name=asked.name, args=asked.args, id=call_id, batch=asked.batch, agent=asked.agent)
    batch = answer.id if answer is not None else None
    for call in answer.tool_calls if answer is not None else ():
        if call["id"] == call_id:
            return ToolCall(name=call["name"], args=call["args"], id=call_id, batch=batch, agent=known.agent)
    return ToolCall(name=message.name or "", id=call_id, batch=batch, agent=known.agent)


def _outcome(message: ToolMessage) -> ToolOutcome:
    return ToolOutcome(ok=message.status != "error", result=message.content)


def _question(messages: Sequence[BaseMessage]) -> int:
    for message in reversed(messages):
        if message.type == "human":
            content = message.content
            # A note of ours to the model is not something else that the person said.
            if isinstance(content, str):
                return hash(without_advice(content).rstrip())
            return hash(repr([block for block in content if not _is_note(block)]))
    return 0


def _is_note(block: object) -> bool:
    text = cast("Mapping[str, object]", block).get("text") if isinstance(block, Mapping) else None
    return isinstance(text, str) and text.startswith(MARK)


def _keep(kept: dict[_K, _V], key: _K, value: _V, count_max: int) -> None:
    kept[key] = value
    if len(kept) > count_max:
        del kept[next(iter(kept))]
