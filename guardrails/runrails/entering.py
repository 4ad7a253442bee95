"""Entering a run with `with`: makes it the current one, attaches the adapters, and undoes both at the end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import ref

from runrails.current import Stay, current, stay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import Token

    from runrails.errors import GuardrailStopped
    from runrails.run import Run

__all__ = ["Entry", "boundaries"]

boundaries: list[Callable[[Run], Callable[[], None]]] = []
"""What adapters do when a run is entered by `with`; each returns what undoes it, called before the run is closed."""


class Entry:
    """The way into one run and out again, one stay at a time."""

    def __init__(self, run: Run) -> None:
        # Not held: a run that nobody has any more is gone at once, and no collector of garbage has to look for it.
        self._ref = ref(run)
        self._leave: list[Callable[[], None]] = []
        self._tokens: tuple[Token[Run | None], Token[Stay | None]] | None = None
        self.stay: Stay | None = None
        """The newest stay; what was begun in an older one may still be running, left alone."""
        self.postponed: list[Callable[[], None]] = []
        """What must be done before the run's first call, as it may wait for the store."""
        self.answered: GuardrailStopped | None = None
        """A stop that was answered in a tool's place, until it is raised where nobody answers for it."""
        self.before_close: list[Callable[[], None]] = []
        """What adapters do once before the run is closed; it may write to the store."""

    @property
    def _run(self) -> Run:
        run = self._ref()
        if run is None:
            raise TypeError("a run is entered and left by somebody who has it")
        return run

    def enter(self) -> None:
        """Make the run the current one. Whatever an adapter raises, nothing is left attached."""
        try:
            self._run.accounts.entered()
            self._run.guard.enter_boundaries()
            for enter in tuple(boundaries):
                self._leave.append(enter(self._run))
        except BaseException:
            self._detach()
            raise
        self.answered = None
        self.stay = Stay(stay.get())
        self._tokens = (current.set(self._run), stay.set(self.stay))

    def leave(self) -> None:
        """Undo it."""
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            try:
                current.reset(tokens[0])
                stay.reset(tokens[1])
            except ValueError:  # entered in another context, as async generators do that another task finalises
                if current.get() is self._run:
                    current.set(self._run.parent)
                    stay.set(None if self.stay is None else self.stay.outer)
        self._detach()

    def prepare(self) -> None:
        """Do what was postponed. What fails is done again before the next call."""
        for task in tuple(self.postponed):
            task()
            with suppress(ValueError):  # another thread did it as well, which does no harm
                self.postponed.remove(task)

    def finish(self) -> None:
        """Do what adapters have to do before the run is closed."""
        tasks, self.before_close = self.before_close, []
        self._do(tasks)

    @property
    def unsaid(self) -> GuardrailStopped | None:
        """The stop that ended the run, if it was only answered so far."""
        return None if self.answered is None else self._run.stopped

    @property
    def busy(self) -> bool:
        """Whether something still runs in the newest stay that cannot be cancelled."""
        return self.stay is not None and bool(self.stay.threads)

    def _detach(self) -> None:
        leave, self._leave = self._leave, []
        self._do(reversed(leave))
        self._run.owned = False

    def _do(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Whatever one of them raises: the run must end and its stop must become public."""
        run = self._run
        for task in tasks:
            try:
                task()
            except Exception as exc:  # noqa: BLE001 -- see above
                run.guard.emit("adapter_failed", "error", run=run.id, hook="leave", error=type(exc).__name__)
