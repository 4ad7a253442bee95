"""All commands under one root. Each lives in a module of its own, and only the one that is asked for is loaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Protocol, cast

import typer
from typer.main import get_command

from runrails.autoguard.plan import STOP_CODE as STOPPED
from runrails.cli.examples import example_of
from runrails.cli.output import EXIT_CODES
from runrails.cli.unsaid import hushed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["COMMANDS", "ENTRY_POINTS", "Command", "build", "is_command"]

ENTRY_POINTS = "runrails.commands"
"""Commands of integrations: the name is the command, the value a function or group of commands like those below."""

COMMANDS: Mapping[str, str] = {
    "demo": "runrails.cli.demo:demo",
    "run": "runrails.cli.run:run",
    "audit": "runrails.cli.audit:audit",
    "budget": "runrails.cli.ledger_commands:budget",
    "usage": "runrails.cli.usage:app",
    "ledger": "runrails.cli.ledger:ledger",
    "byok": "runrails.cli.byok:byok",
    "prices": "runrails.cli.prices:app",
    "runs": "runrails.cli.runs:runs",
    "report": "runrails.cli.runs:report",
    "keys": "runrails.cli.keys:keys",
    "tokens": "runrails.cli.tokens:tokens",
    "watch": "runrails.cli.watch:watch",
    "init": "runrails.cli.init:init",
    "doctor": "runrails.cli.doctor:doctor",
}
"""Name of a command, and the function or group of commands behind it. Help shows them in this order."""


class Command(Protocol):
    """What the shell needs of a built command line. Typer brings its own click, whose types it does not publish."""

    help: str | None
    epilog: str | None
    make_context: Callable[..., object]
    """Reads the arguments. Raises the errors of bad usage."""
    invoke: Callable[..., object]
    """Does the work; commands in groups read their arguments in there."""

    def main(self, *, args: list[str], prog_name: str) -> object:
        """Run it. Raises SystemExit with the exit code."""
        ...


def build(wanted: str | None = None) -> Command:
    """The command line; with the name of a command, only that one (loading the others would take time for nothing)."""
    app = typer.Typer(
        help="A stop-loss for AI agents: budgets, loop stops, and the books of both.",
        no_args_is_help=True,
        # Typer's tracebacks show local variables, and those may hold prompts and keys.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    homes = COMMANDS if wanted in COMMANDS else {**_contributed(), **COMMANDS}
    for name in (*COMMANDS, *sorted(homes.keys() - COMMANDS.keys())):
        if wanted is None or name == wanted:
            _mount(app, name, homes[name])
    root = cast("Command", get_command(app))
    _complete_help(root)
    root.epilog = f"{EXIT_CODES} `runrails run` leaves with the program's own code, or {STOPPED} if it was stopped."
    root.make_context, root.invoke = hushed(root.make_context), hushed(root.invoke)
    return root


def is_command(name: str) -> bool:
    """Whether there is a command of that name, here or in an integration."""
    return name in COMMANDS or name in _contributed()


def _contributed() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}


def _mount(app: typer.Typer, name: str, home: str) -> None:
    module, _, attribute = home.partition(":")
    command: object = getattr(import_module(module), attribute)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        # What comes after a program's name are its own options.
        settings = {"allow_interspersed_args": False} if name == "run" else None
        app.command(name, context_settings=settings)(cast("Callable[..., None]", command))


def _complete_help(command: Command, name: str = "") -> None:
    """Every command tells of an example and of its exit codes, whether its own text does or not."""
    if "Exit codes" not in (command.help or ""):
        command.epilog = command.epilog or EXIT_CODES
    example = example_of(name)
    if example is not None and example not in (command.help or ""):
        command.help = f"{command.help or ''}\n\nExample: {example}"
    inner: Mapping[str, Command] = getattr(command, "commands", {})
    for word, child in inner.items():
        _complete_help(child, f"{name} {word}".lstrip())


def _print_version(value: bool) -> None:
    if not value:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"runrails {version('runrails')}")
    except PackageNotFoundError:
        print("runrails, not installed: running from a source tree")
    raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours, as with NO_COLOR=1; FORCE_COLOR=1 has them in pipes too.")
    ] = False,
) -> None:
    del version, no_color  # a callback and `shell.run` have done everything
