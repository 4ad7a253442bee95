"""One process of a guarded program: its guard, its part of the run, and what it leaves word of."""

from __future__ import annotations

import os
import threading
from contextvars import Context
from typing import TYPE_CHECKING, cast

from runrails import current
from runrails.autoguard.folder import Folder
from runrails.autoguard.patience import Patience
from runrails.autoguard.plan import Plan, read_plan
from runrails.autoguard.stops import stop_from, word_of
from runrails.autoguard.variables import SESSION
from runrails.clocks import monotonic_ms, system_ms
from runrails.errors import ConfigError
from runrails.stores import absolute_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runrails.events import Event, Sink
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["ENTRY_POINTS", "RUN_ID", "STARTED", "Session", "make_default", "make_guard"]

ENTRY_POINTS = "runrails.autoguard"
"""
Name of a module, and a function that is called with the guard once that module has been imported. What it returns ends
it, for those who guard a process for a while.
"""
RUN_ID = "RUNRAILS_RUN_ID"
STARTED = "RUNRAILS_STARTED_MS"
"""When the run began. Set by us, as RUNRAILS_SESSION is."""
MESSAGES_KEPT_MAX = 20


class Session:
    """
    Thread-safe. Nothing but the imports is watched until an SDK is imported; the guard is made then.

    Args:
        environment: What it said when the process started; what the program does to it later changes nothing.
        before: What it said before the run began, in the run's first process.
    """

    def __init__(self, environment: Mapping[str, str], before: Mapping[str, str] | None = None) -> None:
        self.environment = dict(environment)
        self.before = {} if before is None else dict(before)
        self.is_first = before is not None
        """Whether the run begins here, and nobody started this process who sums up."""
        self.folder = Folder(environment[SESSION])
        self.run_id = environment[RUN_ID]
        self._plan: Plan | None = None
        self._guard: Guard | None = None
        self.messages: list[str] = []
        """Of budgets that are used up or nearly so."""
        self.forget()

    def forget(self) -> None:
        """Start anew in a forked child: what was counted is its parent's, and locks may be taken for ever."""
        self._lock = threading.RLock()
        self._run: Run | None = None
        self._making = False
        self._ended = False
        self.refused: dict[str, tuple[int, str]] = {}
        if self._guard is not None:
            self._guard.adapters.clear()  # they follow what the parent runs

    @property
    def plan(self) -> Plan:
        """What the environment says. Raises ConfigError."""
        if self._plan is None:
            self._plan = read_plan(self.environment)
        return self._plan

    def attach(self, module: str) -> None:
        """
        An SDK was imported: have it patched.

        Raises:
            ConfigError: No adapter can guard it as it is; it must not be used then.
            StoreUnavailable: The ledger cannot be opened.
        """
        from importlib.metadata import entry_points

        found = [entry for entry in entry_points(group=ENTRY_POINTS) if entry.name == module]
        if not found:
            raise ConfigError(
                f"The runrails installed for this Python has no adapter that guards {module} in a program as it is.",
                next_step="Install the same version of runrails here as where the program was started from.",
            )
        for entry in found:
            cast("Callable[[Guard], None]", entry.load())(self.guard())
        self.folder.guarded(module)

    def guard(self) -> Guard:
        """The guard of this process, made when it is first needed."""
        with self._lock:
            if self._guard is None:
                if self.is_first:  # the processes that are started from here may have another home
                    os.environ.setdefault("RUNRAILS_STORE", absolute_url())
                self._guard = make_guard(self.plan, sinks=[self._hear])
            return self._guard

    def run(self) -> Run | None:
        """The part of the run that is this process; None while it is being made, since making asks for it."""
        run = self._run
        if run is not None:
            return run
        with self._lock:
            if self._run is None and not self._making:
                self._making = True
                try:
                    self._run = self._make_run()
                finally:
                    self._making = False
            return self._run

    def end(self) -> None:
        """Leave word of what this process did. The second time does nothing."""
        with self._lock:
            if self._ended or self._guard is None:
                return
            self._ended = True
            run, guard = self._run, self._guard
        guard.flush()
        fields: dict[str, object] = {
            "pid": os.getpid(),
            "messages": self.messages,
            "refused": [{"code": code, "count": n, "message": text} for code, (n, text) in self.refused.items()],
        }
        if run is not None:
            fields["report"] = run.report().as_dict()
        self.folder.report(f"{os.getpid()}.{os.urandom(4).hex()}", fields)
        guard.close()

    # Inside.

    def _make_run(self) -> Run:
        plan, guard = self.plan, self.guard()
        # Outside of whatever run the asking code is in.
        run = Context().run(guard.run, plan.name, id=self.run_id)
        # The time counts from the start of the program, whichever of its processes this is.
        run.tally.started_ms -= max(0, system_ms() - int(self.environment.get(STARTED) or system_ms()))
        latch, tripped = run.latch, run.latch.tripped
        latch.elsewhere = lambda: stop_from(self.folder.stopped())
        latch.refuse = Patience(plan.grace_s * 1_000, monotonic_ms).refuse

        def tell() -> None:
            tripped()
            if latch.own is not None:
                self.folder.stop(word_of(latch.own))

        latch.tripped = tell
        return run

    def _hear(self, event: Event) -> None:
        name, fields = event.name.removeprefix("runrails."), event.fields
        if name == "call_refused":
            code = str(fields.get("error"))
            self.refused[code] = (self.refused.get(code, (0, ""))[0] + 1, str(fields.get("message")))
        elif name in ("budget_warned", "budget_limit_reached") and len(self.messages) < MESSAGES_KEPT_MAX:
            self.messages.append(str(fields.get("message")))
        _log(event)


def make_default(session: Session) -> None:
    """Everything in this process belongs to the session's run, unless the code says something else."""
    current.default = session.run
    current.opened = session.folder.opened


def make_guard(plan: Plan, *, sinks: Iterable[Sink] = ()) -> Guard:
    """
    The guard that a plan describes.

    Raises:
        ConfigError: Together the settings make no sense.
        StoreUnavailable: The ledger is out of reach.
    """
    from runrails.guard import Guard
    from runrails.loops import ToolRule

    made = Guard(
        plan.limits, user=plan.user, key=plan.key, org=plan.org, tags=plan.tags, store=plan.store, prices=plan.prices,
        price_file=plan.price_file, mode="observe" if plan.observe else "enforce", zone=plan.zone,
        tools={name: ToolRule(poll=True) for name in plan.polls}, sinks=sinks, markup_bp=plan.markup_bp,
    )  # fmt: skip
    made.yields = True
    return made


def _log(event: Event) -> None:
    """Where the program has set up logging, events are logged; where not, the summary tells what matters."""
    import logging

    from runrails.events import log_sink

    if logging.getLogger("runrails").hasHandlers():
        log_sink(event)
