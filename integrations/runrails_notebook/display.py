"""Where a meter is drawn: HTML that is updated in place, or a live table in a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, cast

from runrails_notebook.drawing import meter_picture, meter_rich
from runrails_notebook.shell import is_notebook

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.live import Live

    from runrails_notebook.drawing import Picture
    from runrails_notebook.meter import MeterView, Screen
    from runrails_notebook.shell import Shell

__all__ = ["HtmlScreen", "TerminalScreen", "screen_for", "show"]


class _Handle(Protocol):
    def update(self, data: dict[str, str], *, raw: bool) -> None: ...


def _display() -> Callable[..., object]:
    from importlib import import_module

    # Not by name: IPython's own types leave open what it takes and what comes back.
    return cast("Callable[..., object]", vars(import_module("IPython.display"))["display"])


def show(shell: Shell, picture: Picture) -> None:
    """Show a picture once."""
    if is_notebook(shell):
        _display()(picture.bundle, raw=True)
    else:
        sys.stdout.write(picture.text + "\n")


def screen_for(shell: Shell) -> Screen | None:
    """Where the meter of a cell may be drawn; None where nobody looks."""
    if is_notebook(shell):
        return HtmlScreen()
    return TerminalScreen() if sys.stdout.isatty() else None


class HtmlScreen:
    """One output of the cell, which is replaced. Works in Jupyter, VS Code and Colab."""

    def __init__(self) -> None:
        self._handle: _Handle | None = None

    def draw(self, view: MeterView) -> None:
        """Show it, or replace what is shown."""
        bundle = meter_picture(view).bundle
        if self._handle is None:
            self._handle = cast("_Handle | None", _display()(bundle, raw=True, display_id=True))
        else:
            self._handle.update(bundle, raw=True)

    def close(self) -> None:
        """What is shown stays."""


class TerminalScreen:
    """A live table of Rich under what the cell prints."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._live: Live | None = None

    def draw(self, view: MeterView) -> None:
        """Show it, or replace what is shown."""
        if self._live is None:
            from rich.live import Live

            self._live = Live(meter_rich(view), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._live.update(meter_rich(view), refresh=True)

    def close(self) -> None:
        """Leave what is shown, and give the terminal back."""
        if self._live is not None:
            self._live.stop()
