"""
What a guard knows of LangChain's runs: which chains are open and in which `Run`, which model and tool calls are in
flight. One tracker serves every handler of a guard, so that an event that reaches two of them counts once. Thread-safe;
everything it keeps is bounded.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

from runrails.calls import ModelResult, Permit, ToolCall
from runrails.errors import ConfigError
from runrails.run import Run, current_run
from runrails_langchain.conversations import Asked, Conversations, Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from runrails.guard import Guard

__all__ = ["Anchor", "ModelEntry", "Spot", "ToolEntry", "Tracker"]

CHAINS_MAX = 50_000
CALLS_MAX = 10_000
SHARED_RUNS_MAX = 1_000
RUNS_KEPT_MAX = 64
IN_FLIGHT_MS_MAX = 3_600_000
"""A call LangChain never told the end of (a cancelled task, a crashed thread) is settled as unknown after this long."""


class Anchor:
    """A root chain or a tool call: what happens inside belongs to it."""

    __slots__ = ("base", "calls", "ended", "id", "opened", "root", "run")

    def __init__(self, run: Run, anchor_id: UUID, root: UUID | None, *, base: str, opened: bool) -> None:
        self.run = run
        self.id = anchor_id
        self.root = root
        self.base = base
        """Agent path of what is inside."""
        self.opened = opened
        """Whether the run was opened for it and ends with it."""
        self.ended = False
        self.calls: set[UUID] = set()
        """Model calls in flight."""


class Spot(NamedTuple):
    """Where an event happens."""

    run: Run
    anchor: Anchor | None
    talks: Conversations
    place: Place


class ModelEntry:
    """A model call in flight."""

    __slots__ = ("agent", "anchor", "permit", "reasoning", "since_ms", "talks")

    def __init__(self, spot: Spot, since_ms: int) -> None:
        self.talks = spot.talks
        self.anchor = spot.anchor
        self.since_ms = since_ms
        self.agent = ""
        self.permit: Permit | None = None
        self.reasoning = False


class ToolEntry(NamedTuple):
    """A tool call in flight."""

    run: Run
    talks: Conversations
    call: ToolCall
    asked: Asked | None


class Tracker:
    """Shared by all handlers of one guard."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.recent: deque[Run] = deque(maxlen=RUNS_KEPT_MAX)
        self.new_key = itertools.count(1).__next__
        """Makes a handler's key; an id() would come back when a handler is gone."""
        self._lock = threading.Lock()
        self._anchors: OrderedDict[UUID, Anchor] = OrderedDict()
        self._calls: OrderedDict[UUID, tuple[Run, ModelEntry]] = OrderedDict()
        self._tools: OrderedDict[UUID, ToolEntry] = OrderedDict()
        self._talks: OrderedDict[str, Conversations] = OrderedDict()
        self._shared: OrderedDict[tuple[int, str], Run] = OrderedDict()
        self._groups: OrderedDict[int, tuple[object, list[UUID]]] = OrderedDict()

    # Chains.

    def chain_started(self, run_id: UUID, parent_id: UUID | None) -> None:
        """A chain starts; one without a parent opens a run, unless the code is inside one already."""
        joined = self._joined()
        with self._lock:
            if run_id in self._anchors:
                return
            # A handler that is attached below the root sees a parent it does not know; its topmost chain is its root.
            anchor = self._anchor(parent_id)
            if anchor is None:
                run = joined if joined is not None else self._open()
                anchor = Anchor(run, run_id, run_id, base="", opened=joined is None)
            self._keep_anchor(run_id, anchor)

    def chain_ended(self, run_id: UUID) -> None:
        """A chain is over; with a root chain everything in it is."""
        with self._lock:
            anchor = self._anchors.pop(run_id, None)
        if anchor is not None and anchor.id == run_id:
            self._end(anchor)

    def locate(self, handler: int, parent_id: UUID | None, metadata: Mapping[str, object] | None) -> Spot:
        """
        Where an event happens.

        Raises:
            ConfigError: Inside a run of another guard.
        """
        joined = self._joined()
        with self._lock:
            anchor = self._anchor(parent_id)
        if joined is not None:
            run = joined
            if anchor is not None and anchor.run is not joined:
                anchor = Anchor(joined, anchor.id, anchor.root, base=anchor.base, opened=False)
        elif anchor is not None:
            run = anchor.run
        else:
            run = self._share(handler, metadata)
        graph = "" if metadata is None else metadata.get("langgraph_checkpoint_ns")
        inside = graph.rpartition("|")[0] if isinstance(graph, str) else ""
        place = Place(None, None, inside, "") if anchor is None else Place(anchor.root, anchor.id, inside, anchor.base)
        return Spot(run, anchor, self._talk(run), place)

    # Model calls.

    def model_starts(self, run_id: UUID, spot: Spot) -> ModelEntry | None:
        """Claim a model call; None if another handler has it already."""
        now_ms = self.guard.monotonic()
        entry = ModelEntry(spot, now_ms)
        lost: tuple[Run, ModelEntry] | None = None
        with self._lock:
            if run_id in self._calls:
                return None
            if self._calls:
                oldest = next(iter(self._calls))
                if len(self._calls) >= CALLS_MAX or now_ms - self._calls[oldest][1].since_ms > IN_FLIGHT_MS_MAX:
                    lost = self._calls.pop(oldest)
            self._calls[run_id] = (spot.run, entry)
            if spot.anchor is not None:
                spot.anchor.calls.add(run_id)
        if lost is not None:
            _settle_unknown(*lost)
        return entry

    def model_ended(self, run_id: UUID) -> tuple[Run, ModelEntry] | None:
        """Take a model call out of flight; None if it is not in flight, or another handler took it."""
        with self._lock:
            found = self._calls.pop(run_id, None)
            if found is not None and found[1].anchor is not None:
                found[1].anchor.calls.discard(run_id)
            return found

    def group_started(self, run_id: UUID, params: object, size: int) -> None:
        """This call may start together with others: LangChain announces them all before it sends any."""
        with self._lock:
            group = self._groups.setdefault(id(params), (params, []))
            group[1].append(run_id)
            if len(group[1]) >= size:
                del self._groups[id(params)]
            elif len(self._groups) > CALLS_MAX:
                self._groups.popitem(last=False)

    def group_refused(self, params: object) -> None:
        """One of a group may not start, so none of it is sent: give back what the others hold."""
        with self._lock:
            group = self._groups.pop(id(params), None)
        for run_id in group[1] if group is not None else ():
            found = self.model_ended(run_id)
            if found is not None and found[1].permit is not None:
                found[0].after_model(found[1].permit, ModelResult(end="failed"))

    # Tool calls.

    def tool_starts(self, run_id: UUID, spot: Spot, name: str, args: object, call_id: str | None) -> ToolEntry | None:
        """Claim a tool call; None if another handler has it already. What happens inside belongs to a sub-agent."""
        with self._lock:
            if run_id in self._tools:
                return None
            call, asked = spot.talks.tool_starts(spot.place, name, args, call_id)
            if len(self._tools) >= CALLS_MAX:
                self._tools.popitem(last=False)
            entry = self._tools[run_id] = ToolEntry(spot.run, spot.talks, call, asked)
            base = f"{call.agent}/{name}" if call.agent else name
            self._keep_anchor(run_id, Anchor(spot.run, run_id, spot.place.root, base=base, opened=False))
            return entry

    def tool_ended(self, run_id: UUID) -> ToolEntry | None:
        """Take a tool call out of flight; None if it is not in flight."""
        with self._lock:
            entry = self._tools.pop(run_id, None)
            anchor = self._anchors.pop(run_id, None)
        if anchor is not None and entry is not None:
            entry.talks.anchor_ended(run_id)
            self._settle(list(anchor.calls))
        return entry

    # Runs.

    def left(self, run: Run) -> None:
        """A run is over: what is still in flight has an unknown end."""
        with self._lock:
            ids = [run_id for run_id, (owner, _) in self._calls.items() if owner is run]
        self._settle(ids)
        self._forget(run)

    def close(self, handler: int) -> None:
        """End the runs that a handler's calls without a root chain share."""
        with self._lock:
            keys = [key for key in self._shared if key[0] == handler]
            runs = [self._shared.pop(key) for key in keys]
        for run in runs:
            self.left(run)
            run.close()

    def _joined(self) -> Run | None:
        run = current_run()
        if run is not None and run.guard is not self.guard:
            raise ConfigError(
                "A GuardrailCallbackHandler of one guard is used inside a run of another: calls would be paid twice.",
                next_step="Use the same Guard for both, or leave the handler away: the run guards what is inside it.",
            )
        return run

    def _open(self) -> Run:
        run = self.guard.run()
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
            run = self._shared[key] = self._open()
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

    def _anchor(self, parent_id: UUID | None) -> Anchor | None:
        # What outlives its root chain (a task left in the background) has no chain around it any more.
        anchor = None if parent_id is None else self._anchors.get(parent_id)
        return None if anchor is None or anchor.ended else anchor

    def _keep_anchor(self, run_id: UUID, anchor: Anchor) -> None:
        self._anchors[run_id] = anchor
        if len(self._anchors) > CHAINS_MAX:
            self._anchors.popitem(last=False)

    def _end(self, anchor: Anchor) -> None:
        anchor.ended = True
        if anchor.opened:
            self.left(anchor.run)
            anchor.run.close()
        else:
            self._settle(list(anchor.calls))
            self._talk(anchor.run).root_ended(anchor.id)

    def _settle(self, ids: list[UUID]) -> None:
        """LangChain does not tell the end of every call; for a cancelled task, for instance, it tells nothing."""
        for run_id in ids:
            found = self.model_ended(run_id)
            if found is not None:
                _settle_unknown(*found)

    def _forget(self, run: Run) -> None:
        with self._lock:
            self._talks.pop(run.id, None)
            for run_id in [run_id for run_id, entry in self._tools.items() if entry.run is run]:
                del self._tools[run_id]
                self._anchors.pop(run_id, None)


def _settle_unknown(run: Run, entry: ModelEntry) -> None:
    if entry.permit is not None:
        run.after_model(entry.permit, ModelResult(end="unknown"))
