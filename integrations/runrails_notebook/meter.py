"""What the meter under a working cell shows, and when it is drawn anew."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from runrails.clocks import Clock
    from runrails.report import Report
    from runrails_notebook.cells import Cell
    from runrails_notebook.kernel import KernelGuard

__all__ = ["LiveMeter", "MeterView", "Screen", "view_of"]

INTERVAL_MS = 250
"""Four times a second is as quick as anybody reads."""
PATIENCE_S = 2.0
"""How long the end of a cell waits for a display that is being sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterView:
    """A cell at one moment, as the meter shows it. Times in whole seconds: nothing is drawn for less."""

    title: str
    state: str
    """`working`, `done`, or how else it ended."""
    stopped: bool
    spent_pusd: int
    limit_pusd: int | None
    kernel_spent_pusd: int
    kernel_limit_pusd: int | None
    input_tokens: int
    output_tokens: int
    model_calls: int
    tool_calls: int
    steps: int
    steps_max: int | None
    tool: str
    """The last tool and how it ended; empty before the first."""
    ladder: str
    """What the loop detector has said last; empty while it is content."""
    refusals: int
    seconds: int
    note: str = ""
    """What is to be said of budgets."""


class Screen(Protocol):
    """Where a meter is drawn. What it raises ends the meter, never the cell."""

    def draw(self, view: MeterView) -> None: ...

    def close(self) -> None: ...


def view_of(kernel: KernelGuard, cell: Cell, *, over: bool = False) -> MeterView | None:
    """What is to be shown of a cell that goes on or is `over`; None before its first call."""
    run, kernel_run = cell.run, kernel.run
    if run is None or kernel_run is None:
        return None
    report = run.report()
    took_ms = cell.took_ms if cell.ended else kernel.monotonic() - cell.started_ms
    stop = run.stopped
    state = cell.state if stop is None else stop.code.replace("_", " ")
    return MeterView(
        title=cell.title, state="done" if over and state == "working" else state, stopped=stop is not None,
        spent_pusd=report.cost_pusd, limit_pusd=report.limit_pusd,
        kernel_spent_pusd=kernel_run.tally.cost_pusd, kernel_limit_pusd=kernel_run.limits.run_pusd,
        input_tokens=report.input_tokens, output_tokens=report.output_tokens, model_calls=report.model_calls,
        tool_calls=report.tool_calls, steps=report.steps, steps_max=run.limits.steps, tool=_last_tool(report),
        ladder=_ladder(report), refusals=report.refusals, seconds=took_ms // 1_000,
        note=kernel.messages[-1] if kernel.messages else "",
    )  # fmt: skip


class LiveMeter:
    """
    Draws what changes, so often at most. Thread-safe: one thread ticks, another finishes.

    Args:
        kernel: Whose cell it is.
        cell: The cell.
        screen: Where to draw; None draws nothing.
        monotonic: Milliseconds.
        interval_ms: The shortest time between two drawings.
    """

    def __init__(
        self,
        kernel: KernelGuard,
        cell: Cell,
        screen: Screen | None,
        *,
        monotonic: Clock,
        interval_ms: int = INTERVAL_MS,
    ) -> None:
        self._kernel, self.cell, self._screen = kernel, cell, screen
        self._monotonic = monotonic
        self._interval_ms = interval_ms
        self._lock = threading.Lock()
        self._shown: MeterView | None = None
        self._drawn_ms = monotonic()
        self._over = threading.Event()
        self.failure: str | None = None
        """Why nothing is drawn any more."""

    def start(self) -> None:
        """Tick in a thread of its own, whose messages belong to the cell."""
        context = self.cell.context
        threading.Thread(target=context.run, args=(self._watch,), name="runrails-meter", daemon=True).start()

    def tick(self) -> bool:
        """Draw if there is anything new and it is time. Whether it was drawn."""
        with self._lock:
            now_ms = self._monotonic()
            if self._over.is_set() or self.failure is not None or now_ms - self._drawn_ms < self._interval_ms:
                return False
            return self._draw(now_ms)

    def finish(self, *, told: bool = False) -> None:
        """Draw how it ended, unless nothing was drawn and a panel has told it. Nothing is drawn after that."""
        if self._over.is_set():
            return
        self._over.set()
        if not self._lock.acquire(timeout=PATIENCE_S):
            self.failure = "TimeoutError"  # a display that does not come back: the cell has ended, meter or not
            return
        try:
            if self.failure is None and not (told and self._shown is None):
                self._draw(self._monotonic(), over=True)
            if self._screen is not None:
                self._screen.close()
        except Exception as exc:  # noqa: BLE001 -- as in _draw
            self.failure = type(exc).__name__
        finally:
            self._lock.release()

    def _watch(self) -> None:
        while not self._over.wait(self._interval_ms / 1_000):
            self.tick()
            self.cell.waker.wake()

    def _draw(self, now_ms: int, *, over: bool = False) -> bool:
        if self._screen is None:
            return False
        try:
            view = view_of(self._kernel, self.cell, over=over)
            if view is None or view == self._shown:
                return False
            self._screen.draw(view)
        except Exception as exc:  # noqa: BLE001 -- it shows: its bug, or a broken display, is nothing to the cell
            self.failure = type(exc).__name__
            return False
        self._shown, self._drawn_ms = view, now_ms
        return True


def _last_tool(report: Report) -> str:
    for row in reversed(report.rows):
        if row.kind == "tool":
            return f"{row.name} ({row.end})"
    return ""


def _ladder(report: Report) -> str:
    if not report.findings:
        return ""
    last = report.findings[-1]
    return f"{last.level}: {last.tool}, {last.count} times the same"
