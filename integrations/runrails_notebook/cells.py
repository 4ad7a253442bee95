"""One cell: the runs that its calls belong to, and what they came to."""

from __future__ import annotations

import inspect
import threading
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

from runrails.money import format_usd
from runrails_notebook.settings import CellWish
from runrails_notebook.waking import Waker

if TYPE_CHECKING:
    from runrails.autoguard.patience import Patience
    from runrails.errors import GuardrailStopped
    from runrails.run import Run
    from runrails.tally import Tally

__all__ = ["Cell", "cell_around", "here", "is_by_itself", "same_text"]

_EXECUTING = "run_cell_async"
"""IPython's own function that executes a cell, whose local `info` it is."""
here: ContextVar[Cell | None] = ContextVar("runrails_notebook_cell", default=None)
"""The cell that this code was started in. It may have ended since: tasks take their context with them."""


class Cell:
    """A cell while it works and after; or, with number 0, everything that goes on outside of cells."""

    def __init__(
        self, number: int, *, wish: CellWish | None = None, info: object = None, thread: int = 0, started_ms: int = 0
    ) -> None:
        self.number = number
        """As in `In [3]`."""
        self.wish = wish or CellWish()
        self.info = info
        """IPython's own object for this execution."""
        self.thread = thread
        self.started_ms = started_ms
        """By a clock that never goes back."""
        self.took_ms = 0
        self.ended = False
        self.inner: list[object] = []
        """Executions inside of this one, such as `%run other.ipynb`."""
        self.run: Run | None = None
        """Opened by the first call."""
        self.run_id: str | None = None
        self.patience: Patience | None = None
        self.waker = Waker()
        self.context: Context = copy_context()
        """In which display messages find their way to this cell, whichever thread sends them."""
        self.tallies: list[Tally] = []
        """Of the cell's runs. What was in flight when it ended still counts."""
        self.stop: GuardrailStopped | None = None
        self.outcome = "done"
        """How it ended, if it was not stopped."""

    @property
    def title(self) -> str:
        """What people call it."""
        if self.number == 0:
            return "outside of cells"
        return f"[{self.number}] {self.wish.name}" if self.wish.name else f"[{self.number}]"

    @property
    def cost_pusd(self) -> int:
        """So far."""
        return sum(tally.cost_pusd for tally in self.tallies)

    @property
    def state(self) -> str:
        """In one word."""
        if self.stop is not None:
            return self.stop.code.replace("_", " ")
        return self.outcome if self.ended else "working"

    def opened(self, run: Run) -> None:
        """Calls belong to `run` from now on."""
        self.run, self.run_id = run, run.id
        self.tallies.append(run.tally)

    def finish(self) -> None:
        """Nothing that begins from now on belongs to it."""
        self.ended = True
        run = self.run
        if run is not None:
            self.stop = run.latch.own or self.stop
            run.close()

    def forget(self) -> None:
        """Keep the counts alone: a thousand cells are kept, and what they ran may be large."""
        if self.ended and self.number:
            self.run = self.patience = self.info = None
            self.context = Context()

    def row(self) -> tuple[str, ...]:
        """One line of the kernel's table."""
        counts = [0, 0, 0]
        for tally in self.tallies:
            counts = [a + b for a, b in zip(counts, (tally.model_calls, tally.tool_calls, tally.tokens), strict=True)]
        took = "" if self.number == 0 else f"{self.took_ms / 1000:.1f} s"
        return (self.title, *(f"{count:,}" for count in counts), format_usd(self.cost_pusd), took, self.state)


def cell_around() -> Cell | None:
    """The cell that works in this thread and context, in which whatever is executed now would be executed."""
    cell = here.get()
    return None if cell is None or cell.ended or cell.thread != threading.get_ident() else cell


def is_by_itself(info: object, around: Cell) -> bool:
    """
    Whether somebody has sent this execution, and what looks like a cell around it has ended without a word.

    Executions inside of cells (`%%capture`) leave no history, or IPython is found at work on the one around them.
    """
    if getattr(info, "store_history", False) is not True:
        return False
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == _EXECUTING and frame.f_locals.get("info") is around.info:
            return False
        frame = frame.f_back
    return True


def same_text(one: object, other: object) -> bool:
    """Whether two executions are of the same text, though IPython has made another object for one of them."""
    text: object = getattr(one, "raw_cell", None)
    return isinstance(text, str) and bool(text.strip()) and text == getattr(other, "raw_cell", None)
