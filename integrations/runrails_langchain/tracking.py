"""
What a guard knows of LangChain's runs: which chains are open and in which `Run`, which model and tool calls are in
flight. One tracker serves every handler of a guard, so that an event that reaches two of them counts once. Thread-safe;
everything it keeps is bounded.
"""

from __future__ import annotations

import itertools
import threading
from asyncio import get_running_loop
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from runrails.aio import waits
from runrails.boundary import Trip
from runrails.calls import ModelResult, Permit, ToolCall
from runrails.current import current_run, is_of
from runrails.errors import ConfigError
from runrails_langchain.arriving import Arriving, settle_untold
from runrails_langchain.conversations import Asked, Conversations, Place
from runrails_langchain.enclosures import Enclosure
from runrails_langchain.payers import open_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from runrails.guard import Guard
    from runrails.run import Run
    from runrails_langchain.chains import Part
    from runrails_langchain.drive import ToolDrive

__all__ = ["ModelEntry", "Spot", "ToolEntry", "Tracker"]

CHAINS_MAX = 50_000
CALLS_MAX = 10_000
SHARED_RUNS_MAX = 1_000
RUNS_KEPT_MAX = 64
IN_FLIGHT_MS_MAX = 3_600_000
"""A call LangChain never told the end of (a cancelled task, a crashed thread) is settled as unknown after this long."""


class Spot(NamedTuple):
    """Where an event happens."""

    run: Run
    enclosure: Enclosure | None
    talks: Conversations
    place: Place


class ModelEntry:
    """A model call in flight."""

    __slots__ = ("agent", "arriving", "enclosure", "lifeline", "permit", "reasoning", "since_ms", "talks")

    def __init__(self, spot: Spot, since_ms: int, lifeline: object) -> None:
        self.lifeline = lifeline
        """Tells when LangChain itself has lost the call."""
        self.talks = spot.talks
        self.enclosure = spot.enclosure
        self.since_ms = since_ms
        self.agent = ""
        self.permit: Permit | None = None
        self.arriving: Arriving | None = None
        """What has come of its answer, if that is streamed."""
        self.reasoning = False


class _Group:
    """Calls that LangChain announces together, found by the parameters they share."""

    __slots__ = ("count", "ids", "params", "refused")

    def __init__(self, params: object) -> None:
        self.params = params
        self.count = 0
        self.ids: list[int] = []
        self.refused = False


class ToolEntry(NamedTuple):
    """A tool call in flight."""

    run: Run
    talks: Conversations
    call: ToolCall
    asked: Asked | None
    drive: ToolDrive | None = None
    """Where a middleware stands around the call."""
    admitted: bool = False
    """Whether that one has asked for it already."""

    @property
    def is_bare(self) -> bool:
        """Whether only the callback can answer for it: a guarded model asked for it, and nobody stands around it."""
        return self.drive is None and self.asked is not None


class Tracker:
    """Shared by all handlers of one guard."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.recent: deque[Run] = deque(maxlen=RUNS_KEPT_MAX)
        self.new_key = itertools.count(1).__next__
        """Makes a handler's key; an id() would come back when a handler is gone."""
        self._lock = threading.Lock()
        self._enclosures: OrderedDict[UUID, Enclosure] = OrderedDict()
        self._calls: OrderedDict[int, tuple[Run, ModelEntry]] = OrderedDict()
        self._lost: deque[int] = deque()
        """Calls whose end nobody can tell any more."""
        self._tools: OrderedDict[UUID, ToolEntry] = OrderedDict()
        self._talks: OrderedDict[str, Conversations] = OrderedDict()
        self._shared: OrderedDict[tuple[int, str], Run] = OrderedDict()
        self._groups: OrderedDict[int, _Group] = OrderedDict()

    # Chains.

    def chain_started(
        self, run_id: UUID, parent_id: UUID | None, part: Part | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        """A chain starts; one without a parent opens a run, unless the code is inside one already."""
        joined = self._joined()
        with self._lock:
            if run_id in self._enclosures:
                return
            # A handler that is attached below the root sees a parent it does not know; its topmost chain is its root.
            enclosure = self._enclosure(parent_id)
            if enclosure is None:
                run = joined if joined is not None else self._open(metadata)
                enclosure = Enclosure(run, run_id, run_id, base="", opened=joined is None)
            elif part is not None:
                enclosure = self._agent_in(enclosure, run_id, parent_id, part)
            self._keep_enclosure(run_id, enclosure)

    def chain_ended(self, run_id: UUID) -> None:
        """A chain is over; with a root chain everything in it is."""
        with self._lock:
            enclosure = self._drop_enclosure(run_id)
        if enclosure is not None and enclosure.id == run_id:
            self._end(enclosure)

    def locate(self, handler: int, parent_id: UUID | None, metadata: Mapping[str, object] | None) -> Spot:
        """
        Where an event happens.

        Raises:
            ConfigError: Inside a run of another guard.
            Trip: Inside what was left alone.
        """
        joined = self._joined()
        with self._lock:
            enclosure = self._enclosure(parent_id)
        stop = None if enclosure is None else enclosure.given_up
        if stop is not None:
            raise Trip(stop.again())
        if joined is not None:
            run = joined
            if enclosure is not None and enclosure.run is not joined:
                enclosure = Enclosure(
                    joined, enclosure.id, enclosure.root, base=enclosure.base, opened=False, outer=enclosure.outer
                )
        elif enclosure is not None:
            run = enclosure.run
        else:
            run = self._share(handler, metadata)
        graph = "" if metadata is None else metadata.get("langgraph_checkpoint_ns")
        inside = graph.rpartition("|")[0] if isinstance(graph, str) else ""
        return Spot(run, enclosure, self._talk(run), _place(enclosure, inside))

    def run_around(self, parent_id: UUID | None) -> Run | None:
        """
        The run that a boundary or a handler has opened around an event; None if nobody has.

        Raises:
            ConfigError: Inside a run of another guard.
        """
        joined = self._joined()
        if joined is not None:
            return joined
        with self._lock:
            enclosure = self._enclosure(parent_id)
        return None if enclosure is None else enclosure.run

    # Model calls.

    def settle_open(self, calls: list[int]) -> None:
        """Whoever made these calls is done with them: what is still in flight was broken off."""
        self._settle(calls, over=True)

    def model_starts(self, run_id: UUID, spot: Spot) -> ModelEntry | None:
        """Claim a model call; None if another handler has it already."""
        if self._lost:
            self._settle_lost()
        now_ms, key = self.guard.monotonic(), run_id.int
        lost: tuple[Run, ModelEntry] | None = None
        with self._lock:
            if key in self._calls:
                return None
            entry = ModelEntry(spot, now_ms, self._lifeline(run_id))
            if self._calls:
                oldest = next(iter(self._calls))
                if len(self._calls) >= CALLS_MAX or now_ms - self._calls[oldest][1].since_ms > IN_FLIGHT_MS_MAX:
                    lost = self._take(oldest)
            self._calls[key] = (spot.run, entry)
            if spot.enclosure is not None:
                spot.enclosure.hold(key, open=True)
        if lost is not None:
            settle_untold(*lost)
        return entry

    def in_flight(self, run_id: UUID) -> tuple[Run, ModelEntry] | None:
        """A model call that is in flight."""
        return self._calls.get(run_id.int)

    def model_ended(self, run_id: UUID) -> tuple[Run, ModelEntry] | None:
        """Take a model call out of flight; None if it is not in flight, or another handler took it."""
        with self._lock:
            return self._take(run_id.int)

    def group_started(self, run_id: UUID, params: object, size: int) -> None:
        """This call may start together with others: LangChain announces them all before it sends any."""
        with self._lock:
            group = self._in_group(params, size)
            group.ids.append(run_id.int)
            refused = group.refused
        if refused:
            self._give_back([run_id.int])

    def group_refused(self, params: object, size: int) -> None:
        """One of a group may not start, so none of it is sent: give back what the others hold, or will hold."""
        with self._lock:
            group = self._in_group(params, size)
            group.refused = True
            ids, group.ids = group.ids, []
        self._give_back(ids)

    # Tool calls.

    def tool_starts(
        self, run_id: UUID, spot: Spot, name: str, args: object, call_id: str | None, *, drive: ToolDrive | None = None
    ) -> ToolEntry | None:
        """Claim a tool call; None if another handler has it already. What happens inside belongs to a sub-agent."""
        with self._lock:
            if run_id in self._tools:
                return None
            call, asked = spot.talks.tool_starts(spot.place, name, args, call_id)
            admitted = None if drive is None else drive.take()
            call = call if admitted is None else admitted
            if len(self._tools) >= CALLS_MAX:
                self._tools.popitem(last=False)
            entry = self._tools[run_id] = ToolEntry(
                spot.run, spot.talks, call, asked, drive, admitted=admitted is not None
            )
            base = f"{call.agent}/{name}" if call.agent else name
            enclosure = Enclosure(spot.run, run_id, spot.place.root, base=base, opened=False, bare=entry.is_bare)
            self._keep_enclosure(run_id, enclosure)
            return entry

    def tool_ended(self, run_id: UUID) -> ToolEntry | None:
        """Take a tool call out of flight; None if it is not in flight."""
        with self._lock:
            entry = self._tools.pop(run_id, None)
            enclosure = self._drop_enclosure(run_id)
        if enclosure is not None and entry is not None:
            entry.talks.enclosure_ended(run_id)
            self._settle(list(enclosure.calls))
        return entry

    # Runs.

    def left(self, run: Run) -> None:
        """A run is over: what is still in flight has an unknown end."""
        with self._lock:
            ids = [call for call, (owner, _) in self._calls.items() if owner is run]
        self._settle(ids)
        self._forget(run)

    def close(self, handler: int | None = None) -> None:
        """End the runs that a handler's calls without a root chain share; those of every handler if none is named."""
        with self._lock:
            keys = [key for key in self._shared if handler is None or key[0] == handler]
            runs = [self._shared.pop(key) for key in keys]
        for run in runs:
            self.left(run)
            run.close()

    def _joined(self) -> Run | None:
        run = current_run()
        if run is not None and not is_of(run, self.guard):
            if run.guard.yields:
                return None
            raise ConfigError(
                "A GuardrailCallbackHandler of one guard is used inside a run of another: calls would be paid twice.",
                next_step="Use the same Guard for both, or leave the handler away: the run guards what is inside it.",
            )
        return run

    def _open(self, metadata: Mapping[str, object] | None) -> Run:
        run = open_run(self.guard, metadata)
        self.recent.append(run)
        return run

    def _share(self, handler: int, metadata: Mapping[str, object] | None) -> Run:
        thread = None if metadata is None else metadata.get("thread_id")
        key = (handler, thread if isinstance(thread, str) else "" if thread is None else str(thread))
        with self._lock:
            run = self._shared.get(key)
            if run is not None:
                self._shared.move_to_end(key)
                return run
            # Whoever calls first must not pay for all: whose a call is, it says itself.
            run = self._shared[key] = self.guard.run()
            self.recent.append(run)
            oldest = self._shared.popitem(last=False)[1] if len(self._shared) > SHARED_RUNS_MAX else None
        if oldest is not None:
            self.left(oldest)
            oldest.close()
        return run

    def _talk(self, run: Run) -> Conversations:
        with self._lock:
            talks = self._talks.get(run.id)
            if talks is None:
                talks = self._talks[run.id] = Conversations()
                if len(self._talks) > CALLS_MAX:
                    self._talks.popitem(last=False)
            return talks

    def _enclosure(self, parent_id: UUID | None) -> Enclosure | None:
        # What outlives its root chain (a task left in the background) has no chain around it any more.
        enclosure = None if parent_id is None else self._enclosures.get(parent_id)
        while enclosure is not None and enclosure.ended and enclosure.given_up is None:
            enclosure = enclosure.outer
        return enclosure

    def _drop_enclosure(self, run_id: UUID) -> Enclosure | None:
        """What was left alone is remembered: a thread without a context of ours may still start something in it."""
        enclosure = self._enclosures.get(run_id)
        if enclosure is not None and enclosure.given_up is None:
            del self._enclosures[run_id]
        return enclosure

    def _agent_in(self, around: Enclosure, chain: UUID, parent_id: UUID | None, part: Part) -> Enclosure:
        """The enclosure of a chain that is an agent of its own inside a root chain or a tool."""
        agent = parent_id if part in ("graph_node", "inner_node") else chain
        if agent is None or around.id == agent or around.outer is not None:
            return around
        if not around.is_tool and part == "inner_node":  # a subgraph of the root chain's
            return around
        inner = Enclosure(around.run, agent, agent, base=around.base, opened=False, outer=around)
        self._keep_enclosure(agent, inner)
        return inner

    def _take(self, call: int) -> tuple[Run, ModelEntry] | None:
        found = self._calls.pop(call, None)
        if found is not None and found[1].enclosure is not None:
            found[1].enclosure.hold(call, open=False)
        return found

    def _lifeline(self, run_id: UUID) -> object:
        # LangChain tells nothing of a cancelled `agenerate`, but then nobody holds the call's id any more. Synchronous
        # calls always tell their end. A garbage collection may come at any time, so nothing is done in there.
        if not waits(self.guard) and not _on_event_loop():
            return None
        key, lost = run_id.int, self._lost
        return ref(run_id, lambda _: lost.append(key))

    def _settle_lost(self) -> None:
        while self._lost:
            try:
                call = self._lost.popleft()
            except IndexError:  # another thread has just taken it
                return
            self._settle([call], over=True)

    def _in_group(self, params: object, size: int) -> _Group:
        group = self._groups.setdefault(id(params), _Group(params))
        group.count += 1
        if group.count >= size:
            del self._groups[id(params)]
        elif len(self._groups) > CALLS_MAX:
            self._groups.popitem(last=False)
        return group

    def _give_back(self, ids: list[int]) -> None:
        for call in ids:
            with self._lock:
                found = self._take(call)
            if found is not None and found[1].permit is not None:
                found[0].after_model(found[1].permit, ModelResult(end="failed"))

    def _keep_enclosure(self, run_id: UUID, enclosure: Enclosure) -> None:
        self._enclosures[run_id] = enclosure
        if len(self._enclosures) > CHAINS_MAX:
            self._enclosures.popitem(last=False)

    def _end(self, enclosure: Enclosure) -> None:
        enclosure.ended = True
        if enclosure.opened:
            self.left(enclosure.run)
            enclosure.run.close()
        else:
            self._settle(list(enclosure.calls))
            self._talk(enclosure.run).root_ended(enclosure.id)

    def _settle(self, ids: list[int], *, over: bool = False) -> None:
        """
        LangChain does not tell the end of every call; for a cancelled task, for instance, it tells nothing.

        Where it is `over` for sure, what came of a stream is all that came; else its end is unknown.
        """
        for call in ids:
            with self._lock:
                found = self._take(call)
            if found is not None:
                settle_untold(*found, over=over)

    def _forget(self, run: Run) -> None:
        with self._lock:
            self._talks.pop(run.id, None)
            for run_id in [run_id for run_id, entry in self._tools.items() if entry.run is run]:
                del self._tools[run_id]
                self._drop_enclosure(run_id)


def _place(enclosure: Enclosure | None, graph: str) -> Place:
    if enclosure is None:
        return Place(None, None, graph, "")
    outer = enclosure.outer
    return Place(
        enclosure.root, enclosure.id, graph, enclosure.base, shared=enclosure.is_tool,
        tool=outer.id if outer is not None and outer.is_tool else None,
    )  # fmt: skip


def _on_event_loop() -> bool:
    try:
        get_running_loop()
    except RuntimeError:
        return False
    return True
