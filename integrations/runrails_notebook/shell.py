"""What is used of IPython's shell, whose own types leave most of this open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from types import TracebackType

__all__ = ["CellInfo", "CellResult", "Events", "Shell", "is_notebook"]


class CellInfo(Protocol):
    """What is known of a cell before it is executed."""

    raw_cell: str


class CellResult(Protocol):
    """What came of a cell."""

    info: CellInfo
    execution_count: int | None
    error_before_exec: BaseException | None
    error_in_exec: BaseException | None


class Events(Protocol):
    """Where to be told of what happens."""

    def register(self, event: str, function: Callable[..., None]) -> None: ...
    def unregister(self, event: str, function: Callable[..., None]) -> None: ...


class Magics(Protocol):
    """The magics there are, by kind and name."""

    magics: dict[str, dict[str, Callable[..., object]]]


class DisplayHook(Protocol):
    """Who shows the value of a cell's last line."""

    exec_result: CellResult | None
    """That of the cell which is being executed, if one is."""


class Shell(Protocol):
    """IPython's `InteractiveShell`."""

    events: Events
    displayhook: DisplayHook
    magics_manager: Magics
    execution_count: int
    user_ns: MutableMapping[str, object]
    input_transformers_cleanup: list[Callable[[list[str]], list[str]]]
    custom_exceptions: tuple[type[BaseException], ...]
    CustomTB: Callable[..., object]

    def set_custom_exc(self, exc_tuple: tuple[type[BaseException], ...], handler: Callable[..., object] | None) -> None:
        """Have exceptions of these classes that leave a cell handled by `handler`."""
        ...

    def showtraceback(
        self, exc_tuple: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
        *, running_compiled_code: bool = False,
    ) -> None:  # fmt: skip
        """Show an exception as IPython does."""
        ...

    def register_magic_function(
        self, func: Callable[..., object], magic_kind: str = "line", magic_name: str | None = None
    ) -> None:
        """Add a magic."""
        ...

    def run_cell(self, raw_cell: str) -> CellResult:
        """Execute a cell."""
        ...


def is_notebook(shell: Shell) -> bool:
    """Whether somebody looks at it who can show HTML; a terminal cannot."""
    return hasattr(shell, "kernel")
