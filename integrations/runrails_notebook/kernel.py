"""The guard of a kernel: which run the code belongs to that is being executed, whichever cell, thread or task it is."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING

from runrails import current
from runrails.autoguard import boot
from runrails.autoguard.patience import Patience
from runrails.autoguard.plan import GRACE_S
from runrails.clocks import monotonic_ms
from runrails.errors import ConfigError
from runrails_notebook.cells import Cell, cell_around, here, is_by_itself, same_text
from runrails_notebook.late import LateGuard
from runrails_notebook.settings import CellWish, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.clocks import Clock
    from runrails.errors import GuardrailStopped
    from runrails.events import Event
    from runrails.guard import Guard
    from runrails.ledger import Balance
    from runrails.limits import Limits
    from runrails.run import Run

__all__ = ["KernelGuard"]

CELLS_KEPT_MAX = 1_000
MESSAGES_KEPT_MAX = 20
_GRACE_MS = GRACE_S * 1_000


class KernelGuard:
    """
    One guard and one run for the kernel, with a child run for each cell that calls anything. Thread-safe.

    Args:
        settings: What may be used.
        monotonic: Milliseconds, for what lasts.
    """

    def __init__(self, settings: Settings | None = None, *, monotonic: Clock = monotonic_ms) -> None:
        self.settings = settings or Settings()
        self.monotonic = monotonic
        self._session = boot.session
        """Where the environment guards this process already; then the kernel's run is a part of that one's."""
        self._late = LateGuard(self._make_guard) if self._session is None else None
        self.on = False
        self.run: Run | None = None
        """Of the whole kernel; opened by the first call."""
        self._run_id: str | None = None
        self.rest = Cell(0)
        self.cells: deque[Cell] = deque(maxlen=CELLS_KEPT_MAX)
        """Those that called something, the newest last."""
        self.dropped_pusd = 0
        """What cells cost that are not kept any more."""
        self.running: list[Cell] = []
        self.messages: deque[str] = deque(maxlen=MESSAGES_KEPT_MAX)
        """Of budgets that are used up or nearly so."""
        self.opened: Callable[[Cell], None] = lambda _: None
        """Called when a cell makes its first call, in whatever thread it does."""
        self._lock = threading.RLock()
        self._making = False
        self._pid = os.getpid()
        if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
            os.register_at_fork(after_in_child=self._forked)

    @property
    def guard(self) -> Guard:
        """The kernel's guard, for what wants one: `GuardrailMiddleware(runrails_notebook.kernel_guard().guard)`."""
        if self._late is not None:
            return self._late
        assert self._session is not None  # noqa: S101 -- for the type checker: it is one or the other
        return self._session.guard()

    @property
    def attaches(self) -> bool:
        """Whether SDKs are to be attached here; the environment may have done so."""
        return self._late is not None

    @property
    def spent_pusd(self) -> int:
        """What the kernel has spent so far."""
        return 0 if self.run is None else self.run.tally.cost_pusd

    @property
    def is_used(self) -> bool:
        """Whether anything was called or may be, so that the ledger cannot be another any more."""
        return self.run is not None or (self._late is not None and self._late.is_made and bool(self._late.adapters))

    # Which run.

    def run_here(self) -> Run | None:
        """The run that the asking code belongs to; None while it is being made, since making asks for it."""
        cell = self._cell_here()
        run = cell.run
        return run if run is not None else self._open(cell)

    def _cell_here(self) -> Cell:
        cell = here.get()
        if cell is None:  # a thread, which has no context of its own
            running = self.running
            cell = running[-1] if running else None
        return self.rest if cell is None or cell.ended else cell

    def _open(self, cell: Cell) -> Run | None:
        with self._lock:
            if self._making:
                return None
            if cell.run is not None:
                return cell.run
            self._making = True
            try:
                around = self._kernel_run()
                limits = self._limits_of(cell)
                name = around.name if cell is self.rest else f"{around.name} {cell.title}"
                cell.patience = Patience(_GRACE_MS, self.monotonic)
                cell.opened(Context().run(self._inside, around, name, limits, cell.run_id))
                if cell is not self.rest:
                    self._keep(cell)
            finally:
                self._making = False
        if cell is not self.rest:
            self.opened(cell)
        return cell.run

    def _kernel_run(self) -> Run:
        if self.run is None:
            around = None if self._session is None else self._session.run()
            run = Context().run(self._inside, around, _notebook(), self.settings.kernel_limits, self._run_id)
            run.latch.refuse = self._refuse
            self.run, self._run_id = run, run.id
        return self.run

    def _inside(self, around: Run | None, name: str, limits: Limits, run_id: str | None) -> Run:
        if around is None:
            return self.guard.run(name, limits=limits, id=run_id)
        with current.inside(around):
            return self.guard.run(name, limits=limits, id=run_id)

    def _limits_of(self, cell: Cell) -> Limits:
        return self.settings.rest_limits if cell is self.rest else self.settings.cell_limits(cell.wish)

    def _refuse(self, stop: GuardrailStopped) -> BaseException:
        """What is raised for one more attempt after a stop: a loop that swallows every exception must end as well."""
        patience = self._cell_here().patience
        return stop.again() if patience is None else patience.refuse(stop)

    def _keep(self, cell: Cell) -> None:
        if len(self.cells) == CELLS_KEPT_MAX:
            self.dropped_pusd += self.cells[0].cost_pusd
        self.cells.append(cell)

    # Cells.

    def begin(self, number: int, *, info: object = None, wish: CellWish | None = None) -> Cell:
        """A cell is about to be executed in this thread and context."""
        thread = threading.get_ident()
        around = cell_around()
        if around is not None and not is_by_itself(info, around):
            around.inner.append(info)
            return around
        if around is not None:
            self._let_go(around)
        cell = Cell(number, wish=wish, info=info, thread=thread, started_ms=self.monotonic())
        here.set(cell)
        with self._lock:
            self.running = [*self.running, cell]
            if self.rest.run is not None and self.rest.run.latch.own is not None:
                self._renew_rest()
        return cell

    def end(self, info: object = None) -> Cell | None:
        """The execution `info` is over; the cell that ends with it, or None if one around it goes on."""
        with self._lock:
            cell = self._ending(info)
            if cell is None:
                return None
            self.running = [each for each in self.running if each is not cell]
        cell.took_ms = self.monotonic() - cell.started_ms
        cell.finish()
        return cell

    def _let_go(self, cell: Cell) -> None:
        """Its end was never told: an interrupt came in between. Another one begins, so it has ended."""
        with self._lock:
            self.running = [each for each in self.running if each is not cell]
        cell.outcome = "interrupted"
        cell.finish()

    def abandon(self) -> None:
        """Nobody will tell the end of what runs now: it ends here."""
        with self._lock:
            cells, self.running = self.running, []
        for cell in cells:
            cell.finish()

    def _ending(self, info: object) -> Cell | None:
        for cell in self.running:
            if info is not None and cell.info is info:
                return cell
            if info is not None and info in cell.inner:
                cell.inner.remove(info)
                return None
        # An interrupt leaves no result, or one that IPython has made for it; and nothing that runs in this thread.
        thread = threading.get_ident()
        last = next((each for each in reversed(self.running) if each.thread == thread), None)
        return last if last is None or info is None or same_text(info, last.info) else None

    def _renew_rest(self) -> None:
        """What was stopped outside of cells stays stopped until the next cell begins, or the settings change."""
        rest = self.rest
        if rest.run is not None:
            rest.finish()
        rest.run = rest.run_id = rest.patience = None
        rest.ended = False

    # Settings.

    def start(self) -> None:
        """Guard the kernel."""
        current.default = self.run_here
        if self._late is not None and self._late.is_made:
            self._late.mode = "enforce"
        self.on = True

    def use(self, settings: Settings) -> None:
        """
        Apply settings from now on; a stop that they make obsolete is undone.

        Raises:
            ConfigError: Calls have been made, and the ledger or the user would be another.
        """
        with self._lock:
            if self.settings.opens_another(settings):
                self._open_another(settings)
            self.settings = settings
            guard = self.guard if self._late is None or self._late.is_made else None
            if guard is not None:
                self._apply(guard)
            if self.run is not None:
                self.run.resume(limits=settings.kernel_limits)
            self._renew_rest()
            for cell in self.running:
                if cell.run is not None:
                    cell.run.resume(limits=settings.cell_limits(cell.wish))

    def off(self) -> None:
        """Stop nothing any more. What guarded clients spend is still written down."""
        with self._lock:
            self._give_back()
            if self._late is not None:
                self._late.mode = "observe"

    def close(self) -> None:
        """The kernel ends: every run does, and the books are closed."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._give_back()
            for cell in (*self.running, self.rest):
                cell.finish()
            self.running = []
            if self.run is not None:
                self.run.close()
            if self._late is not None:
                self._late.close()

    def month(self) -> Balance:
        """What the user has spent this month. Raises StoreUnavailable."""
        from runrails.ledger import Account
        from runrails.periods import month_of

        guard = self.guard
        return guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock(), guard.zone)))

    # Inside.

    def _give_back(self) -> None:
        current.default = None if self._session is None else self._session.run
        self.on = False

    def _open_another(self, settings: Settings) -> None:
        if self._late is None or self.is_used:
            given = {"user": settings.user, "org": settings.org, "store": settings.store}
            before = {"user": self.settings.user, "org": self.settings.org, "store": self.settings.store}
            names = [f"--{name}" for name, value in given.items() if value != before[name]]
            what = " and ".join(names)
            if self._late is None:
                raise ConfigError(
                    f"{what} cannot be said here: the environment in which this kernel was started does.",
                    next_step="Start it with RUNRAILS_USER, RUNRAILS_ORG or RUNRAILS_STORE.",
                )
            raise ConfigError(
                f"{what} cannot change any more: this kernel has begun to spend.",
                next_step="Restart the kernel and say it before the first call.",
            )
        self._late.make_anew()

    def _apply(self, guard: Guard) -> None:
        from runrails import settings as environment
        from runrails.loops import ToolRule
        from runrails.pricing.book import PriceBook

        wanted = self.settings
        guard.tools.update({name: ToolRule(poll=True) for name in wanted.polls})
        if wanted.prices:
            guard.prices = PriceBook.load(wanted.prices, environment.price_file())
        if self._late is not None:
            guard.limits = wanted.kernel_limits

    def _make_guard(self) -> Guard:
        from runrails.guard import Guard
        from runrails.loops import ToolRule

        wanted = self.settings
        return Guard(
            wanted.kernel_limits, user=wanted.user, org=wanted.org, store=wanted.store, prices=wanted.prices,
            tools={name: ToolRule(poll=True) for name in wanted.polls}, sinks=[self._hear],
            mode="enforce" if self.on else "observe",
        )  # fmt: skip

    def _hear(self, event: Event) -> None:
        """Budgets that near their end are told on the meter; logs are written where somebody has set up logging."""
        import logging

        from runrails.events import log_sink

        if event.name in ("runrails.budget_warned", "runrails.budget_limit_reached"):
            self.messages.append(str(event.fields.get("message")))
        if logging.getLogger("runrails").hasHandlers():
            log_sink(event)

    def _forked(self) -> None:
        """In a child of this process: the same runs, held by the ledger, but counts and locks of its own."""
        self._lock = threading.RLock()
        self._making = False
        self.opened = lambda _: None
        self.run = None
        for cell in (*self.running, self.rest):
            cell.run = None
        if self._late is not None:
            self._late.forget_lock()
            if self._late.is_made:
                self._late.adapters.clear()  # they follow what the parent runs


def _notebook() -> str:
    """The notebook's name, where the server tells it."""
    path = os.environ.get("JPY_SESSION_NAME", "")
    name = path.replace("\\", "/").rpartition("/")[2]
    return name if name.isprintable() and 0 < len(name) <= 100 else "notebook"
