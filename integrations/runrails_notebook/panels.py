"""How a cell ends that was stopped: a readable panel, and a short error, so that `Run all` stops there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from runrails.autoguard.telling import uncaught
from runrails.boundary import Trip
from runrails.errors import CallRefused, GuardrailStopped, RunrailsError
from runrails.showing.stops import stop_panel, stop_text
from runrails_notebook.display import show
from runrails_notebook.drawing import Picture
from runrails_notebook.shell import is_notebook
from runrails_notebook.telling import retold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from runrails_notebook.cells import Cell
    from runrails_notebook.kernel import KernelGuard
    from runrails_notebook.shell import CellResult, Shell

__all__ = ["Panels", "ours", "rendered", "short"]

OURS: tuple[type[BaseException], ...] = (GuardrailStopped, CallRefused, Trip, BaseExceptionGroup)
_Error = TypeVar("_Error", bound=BaseException)
_SHOWN: tuple[type[RunrailsError], ...] = (GuardrailStopped, CallRefused)
_RENDER = "_render_traceback_"
"""IPython's own protocol for exceptions that know how to be shown."""
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def ours(error: BaseException | None) -> GuardrailStopped | CallRefused | None:
    """The stop or the refusal that an exception is; a group of nothing but stops is the first of them."""
    found = uncaught(error)
    return found if isinstance(found, GuardrailStopped | CallRefused) else None


class Panels:
    """Stands between a shell and the exceptions that leave its cells."""

    def __init__(
        self, shell: Shell, kernel: KernelGuard, cell_here: Callable[[], Cell | None],
        telling: Callable[[Cell | None], None],
    ) -> None:  # fmt: skip
        self._shell, self._kernel = shell, kernel
        self._cell_here, self._telling = cell_here, telling
        self._told: tuple[BaseException, RunrailsError] | None = None
        """The newest exception that was shown, and as what."""
        self._others = shell.custom_exceptions, shell.CustomTB

    def install(self) -> None:
        """Have stops and refusals handled here, beside what others handle."""
        self._shell.set_custom_exc((*OURS, *self._others[0]), self._handle)

        def render(error: RunrailsError) -> list[str]:  # a function, so that it becomes a method of theirs
            return self._rendered(error)

        for kind in _SHOWN:
            setattr(kind, _RENDER, render)

    def remove(self) -> None:
        """As it was before."""
        self._shell.custom_exceptions, self._shell.CustomTB = self._others
        for kind in _SHOWN:
            if _RENDER in vars(kind):
                delattr(kind, _RENDER)

    def cell_ended(self, result: CellResult | None, cell: Cell | None) -> None:
        """Name the stop in the cell's result; show one that was answered in a tool's place and never raised."""
        error = None if result is None else result.error_in_exec
        told, self._told = self._told, None
        if result is not None and told is not None and told[0] is error:
            result.error_in_exec = told[1]
        if result is None or cell is None or cell.run is None or error is not None or result.error_before_exec:
            return
        unsaid = cell.run.entry.unsaid
        if unsaid is not None:
            result.error_in_exec = self._tell(unsaid, unsaid, None)

    def _handle(
        self, shell: object, kind: type[BaseException], error: BaseException, trace: TracebackType | None,
        tb_offset: int | None = None,
    ) -> list[str]:  # fmt: skip
        """As `set_custom_exc` wants it. Must not fail: IPython would take it out."""
        del shell  # the one that this was made for
        stop = ours(error)
        if stop is not None:
            self._tell(stop, error, trace)
        elif isinstance(error, self._others[0]):
            self._others[1](kind, error, trace, tb_offset=tb_offset)
        else:
            self._shell.showtraceback((kind, error, trace), running_compiled_code=True)
        return []

    def _rendered(self, error: RunrailsError) -> list[str]:
        """Where IPython shows it by itself, as `%run` of a program does, which goes on after that. Must not fail."""
        try:
            return [stop_text(retold(error, self._kernel, self._cell_here()))]
        except Exception:  # noqa: BLE001 -- as with any other exception's text
            return [f"{type(error).__name__}: {error}"]

    def _tell(
        self, stop: GuardrailStopped | CallRefused, error: BaseException, trace: TracebackType | None
    ) -> RunrailsError:  # fmt: skip
        cell = self._cell_here()
        self._telling(cell)
        shown = retold(stop, self._kernel, cell)
        line = line_of(trace, self._shell.user_ns)
        lines = short(shown, line)
        if is_notebook(self._shell):
            report = None if cell is None or cell.run is None else cell.run.report()
            try:
                show(self._shell, Picture(stop_panel(shown, report), stop_text(shown, report)))
            except Exception:  # noqa: BLE001 -- where nothing can be displayed, the error says it in full
                lines = [stop_text(shown)]
        else:
            lines = [stop_text(shown) + ("" if line is None else f"\n(in line {line} of the cell)")]
        for each in (shown, error):  # IPython's history asks the first one, too
            rendered(each, lines)
        self._shell.showtraceback((type(shown), shown, trace))
        self._told = (error, shown)
        return shown


def rendered(error: _Error, lines: list[str]) -> _Error:
    """An exception that IPython is to show as these lines."""
    setattr(error, _RENDER, lambda: lines)
    return error


def short(error: RunrailsError, line: int | None) -> list[str]:
    """The error in one line, as notebooks show errors."""
    where = "" if line is None else f" in line {line} of the cell"
    return [f"{_RED}{type(error).__name__}{_PLAIN}{where}: {error.what}"]


def line_of(trace: TracebackType | None, namespace: Mapping[str, object]) -> int | None:
    """The line of the cell that the exception came through."""
    while trace is not None:
        frame = trace.tb_frame
        name = frame.f_code.co_name  # some versions of IPython give it one of their own
        if frame.f_globals is namespace and (name == "<module>" or name.startswith("<cell line")):
            return trace.tb_lineno
        trace = trace.tb_next
    return None
