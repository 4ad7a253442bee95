"""The extension: what happens before and after each cell, and the magics."""

from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING, cast

from runrails.autoguard.imports import ImportWatcher
from runrails.autoguard.session import ENTRY_POINTS
from runrails.errors import ConfigError, RunrailsError
from runrails.money import format_usd
from runrails_notebook.cells import cell_around, here
from runrails_notebook.display import screen_for, show
from runrails_notebook.drawing import Picture, cells_picture, state_picture
from runrails_notebook.existing import Found, guard_existing
from runrails_notebook.kernel import KernelGuard
from runrails_notebook.meter import LiveMeter
from runrails_notebook.options import WrongUse, guarded_options, guardrails_options
from runrails_notebook.panels import Panels, ours, rendered, short

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.guard import Guard
    from runrails.ledger import Balance
    from runrails_notebook.cells import Cell
    from runrails_notebook.settings import CellWish
    from runrails_notebook.shell import CellInfo, CellResult, Shell

__all__ = ["Extension", "guarding", "load", "unload"]

LINE, CELL = "guardrails", "guarded"
_kernel: KernelGuard | None = None
"""SDKs are attached once a process, so there is one."""
_extension: Extension | None = None
_attached: list[Callable[[], object]] = []
"""What takes the SDKs back that are attached."""


def guarding() -> KernelGuard | None:
    """What guards this kernel."""
    return _kernel


def load(shell: Shell) -> None:
    """
    Guard the kernel of this shell from now on.

    Raises:
        ConfigError: An SDK that is imported already cannot be guarded in the version that is installed.
    """
    global _kernel, _extension  # noqa: PLW0603 -- see above
    if _extension is not None:
        unload(shell)
    kernel = _kernel or KernelGuard()
    found = attach(kernel)
    if _kernel is None:
        _kernel = kernel
        atexit.register(kernel.close)
    kernel.start()
    _extension = Extension(shell, kernel)
    _extension.install()
    sys.stdout.write(greeting(kernel, found) + "\n")


def unload(shell: Shell) -> None:
    """Stop nothing any more in this kernel, and guard no client that is made from now on."""
    global _extension  # noqa: PLW0603 -- see above
    del shell
    if _extension is not None:
        _extension.remove()
        _extension = None
    detach()
    if _kernel is not None:
        _kernel.off()


def detach() -> None:
    """Let go of the SDKs. Clients that are guarded stay so: what they spend is written down."""
    while _attached:
        _attached.pop()()


def attach(kernel: KernelGuard) -> Found:
    """Have every SDK patched that is imported or will be; then guard the clients that there are."""
    if not kernel.attaches:
        return Found(0, ())
    from importlib.metadata import entry_points

    guard = kernel.guard
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}

    def imported(module: str) -> None:
        ends = cast("Callable[[Guard], object]", found[module].load())(guard)
        if callable(ends):
            _attached.append(ends)

    watcher = ImportWatcher(found, imported)
    _attached.append(lambda: sys.meta_path.remove(watcher))
    try:
        watcher.install()
    except BaseException:
        detach()
        raise
    tops = frozenset(name for name in found if name in sys.modules and "." not in name)
    return guard_existing(guard, tops) if tops else Found(0, ())


def greeting(kernel: KernelGuard, found: Found | None) -> str:
    """What is said when the extension is loaded, in a line."""
    settings = kernel.settings
    limit = settings.kernel_limits.run_pusd
    budget = "without a budget" if limit is None else f"{format_usd(limit)} until it is restarted"
    steps = "" if settings.steps is None else f", {settings.steps:,} steps a cell"
    text = f"runrails guards this kernel: {budget}{steps}. Change it with %guardrails --budget AMOUNT."
    if found is not None and found.guarded:
        text += f" Clients made before: {found.guarded}, guarded as well."
    if found is not None and found.missed:
        text += f" NOT guarded, as nobody knows how: {', '.join(found.missed)}."
    return text


class Extension:
    """One shell's part of it."""

    def __init__(self, shell: Shell, kernel: KernelGuard) -> None:
        self.shell, self.kernel = shell, kernel
        self.panels = Panels(shell, kernel, self._cell, self._finish_meter)
        self._meters: dict[int, LiveMeter] = {}
        self._seen, self._ahead = shell.execution_count, 0

    def install(self) -> None:
        """Register everything."""
        shell = self.shell
        shell.events.register("pre_run_cell", self.before)
        shell.events.register("post_run_cell", self.after)
        shell.input_transformers_cleanup.append(self.without_magic)
        shell.register_magic_function(self.guardrails, "line", LINE)
        shell.register_magic_function(self.guarded, "cell", CELL)
        self.panels.install()
        self.kernel.opened = self._opened
        loading = shell.displayhook.exec_result
        if loading is not None:  # what comes after `%load_ext` in its cell
            number = loading.execution_count
            self.kernel.begin(self._seen if number is None else number, info=loading.info)

    def remove(self) -> None:
        """Undo it."""
        shell = self.shell
        shell.events.unregister("pre_run_cell", self.before)
        shell.events.unregister("post_run_cell", self.after)
        shell.input_transformers_cleanup.remove(self.without_magic)
        shell.magics_manager.magics["line"].pop(LINE, None)
        shell.magics_manager.magics["cell"].pop(CELL, None)
        self.panels.remove()
        self.kernel.opened = lambda _: None
        for meter in list(self._meters.values()):
            meter.finish()
        self._meters.clear()
        self.kernel.abandon()

    # Cells.

    def before(self, info: CellInfo) -> None:
        """A cell is about to be executed."""
        try:
            self._begin(info)
        except KeyboardInterrupt:
            self._begin(info)  # IPython tells of it and executes the cell all the same
            raise

    def _begin(self, info: CellInfo) -> None:
        self._seen = self.shell.execution_count
        self.kernel.begin(self._seen - self._ahead, info=info, wish=_wish_of(info.raw_cell))
        for meter in list(self._meters.values()):
            if meter.cell.ended:  # an interrupt has kept its end from us
                self._finish_meter(meter.cell)

    def after(self, result: CellResult | None = None) -> None:
        """A cell was executed; an interrupt may leave no result."""
        cell = self.kernel.end(None if result is None else result.info)
        if cell is not None:
            cell.outcome = _outcome(result)
        self.panels.cell_ended(result, cell)
        if result is not None and result.execution_count is not None:
            # Some versions of IPython count a cell before it is executed, others after.
            self._ahead = min(1, max(0, self._seen - result.execution_count))
        self._finish_meter(cell, told=False)
        if cell is not None:
            cell.forget()

    def without_magic(self, lines: list[str]) -> list[str]:
        """
        A cell under `%%guarded` is executed like any other, with `await` and all; `before` has read its first line.

        What cannot be read stays, and so does what another magic executes in its own cell (`%%time`, `%run` of a
        notebook), where these limits would not hold: it becomes the magic, which says so.
        """
        if not lines or _wish_of(lines[0]) is None or cell_around() is not None:
            return lines
        rest = lines[1:]
        return rest if rest and rest[0].startswith("%%") else ["\n", *rest]

    def _opened(self, cell: Cell) -> None:
        """Its first call; in whatever thread that is."""
        screen = screen_for(self.shell) if self.kernel.settings.meter else None
        meter = self._meters[id(cell)] = LiveMeter(self.kernel, cell, screen, monotonic=self.kernel.monotonic)
        meter.start()

    def _finish_meter(self, cell: Cell | None, *, told: bool = True) -> None:
        """What comes after the meter is the panel, which tells it all; one that was not drawn yet is not needed."""
        meter = None if cell is None else self._meters.pop(id(cell), None)
        if meter is not None and cell is not None:
            cell.context.copy().run(lambda: meter.finish(told=told))

    def _cell(self) -> Cell | None:
        cell = here.get()
        if cell is None or cell.ended:
            running = self.kernel.running
            return running[-1] if running else cell
        return cell

    # Magics.

    def guardrails(self, line: str) -> None:
        """
        Set or show what this kernel may spend.

        %guardrails --budget 5            what the kernel may spend until it is restarted; goes on after a stop
        %guardrails --month 50            what the user may spend in a calendar month, over all kernels
        %guardrails --cell 0.50 --steps 100   what each cell may
        %guardrails                       how it stands
        %guardrails table                 what each cell has cost
        %guardrails off | on              stop nothing any more, and again

        Also --user, --org, --store (before the first call), --price MODEL=IN/OUT, --poll TOOL, --loops on|off,
        --meter on|off. `none` is no limit.
        """
        try:
            asked = guardrails_options(line, self.kernel.settings)
            if asked.changes:
                self.kernel.use(asked.settings)
        except (WrongUse, RunrailsError) as error:
            raise _usage_error(error) from None
        match asked.action:
            case "off":
                self.kernel.off()
            case "on":
                self.kernel.start()
            case _:
                pass
        show(self.shell, cells_picture(self.kernel) if asked.action == "table" else self._state())

    def guarded(self, line: str, cell: str) -> None:
        """
        Give one cell limits of its own: %%guarded --run 0.50 --steps 20 --name "first try".

        It draws on the kernel's budget as well. With such a first line the cell is otherwise like any other.
        """
        try:
            guarded_options(line)
        except WrongUse as error:
            raise _usage_error(error) from None
        misplaced = ConfigError(
            f"%%{CELL} must be the first line of a cell, and nothing but a cell: the limits of what another magic "
            f"executes are those of the cell around it. Nothing of this was executed ({len(cell)} characters).",
            next_step="Write it above the other magic.",
        )
        # Not as IPython's own words for wrong use, which `%%capture` would keep from whoever wrote this.
        raise rendered(misplaced, short(misplaced, None))

    def _state(self) -> Picture:
        month: Balance | None = None
        heard = ""
        try:
            month = self.kernel.month()
        except RunrailsError as error:
            heard = error.what
        return state_picture(self.kernel, month, heard=heard)


def _wish_of(text: str) -> CellWish | None:
    """What a cell's first line asks for; None if it is no `%%guarded` that can be read."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    word, _, rest = first.partition(" ")
    if word.rstrip() != f"%%{CELL}":
        return None
    try:
        return guarded_options(rest)
    except WrongUse:
        return None


def _outcome(result: CellResult | None) -> str:
    error = KeyboardInterrupt() if result is None else result.error_before_exec or result.error_in_exec
    if error is None:
        return "done"
    refusal = ours(error)
    if refusal is not None:
        return refusal.code.replace("_", " ")
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _usage_error(error: Exception) -> Exception:
    """What IPython shows in one line."""
    from IPython.core.error import UsageError

    return UsageError(str(error))
