"""Between the shell and the commands: exit codes, errors without tracebacks, broken pipes, Ctrl-C."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, TextIO, cast

from runrails.errors import GuardrailStopped, RunrailsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "BROKEN_PIPE",
    "BUG",
    "INTERRUPTED",
    "NEGATIVE",
    "OK",
    "USAGE",
    "exit_code_of",
    "outcome_of",
    "run",
    "without_colours",
]

OK = 0
NEGATIVE = 1
"""The question was understood and the answer is no: not found, problems found, something stopped."""
USAGE = 2
"""The command could not do its work: bad usage, bad input, a store out of reach."""
BUG = 70
"""A bug of ours, as BSD's sysexits.h numbers it (EX_SOFTWARE)."""
INTERRUPTED = 130
"""Ctrl-C, as shells number it: 128 + SIGINT."""
BROKEN_PIPE = 141
"""Nobody reads any more, as in `runrails usage | head`: 128 + SIGPIPE."""


NO_COLOR = "--no-color"


def run(args: Sequence[str]) -> int:
    """Run one command line. Returns the exit code; prints any error on stderr, as JSON if `--json` was given."""
    from runrails.cli.root import build, is_command

    args = without_colours(args)
    # Help and mistakes need every command; `--version` needs none and is quick with any.
    named = bool(args) and not args[0].startswith("-") and is_command(args[0])
    wanted = args[0] if named else "doctor" if "--version" in args[:1] else None
    # With `run` it names a file, or is the program's.
    as_json = "--json" in args and args[0] != "run"
    return outcome_of(lambda: build(wanted).main(args=list(args), prog_name="runrails"), as_json=as_json)


def outcome_of(work: Callable[[], object], *, as_json: bool) -> int:
    """Do the work of a command. Returns the exit code; prints any error on stderr."""
    for stream in (sys.stdout, sys.stderr):
        _never_choke(stream)
    try:
        work()
    except SystemExit as exc:
        # Typer and Rich both leave with 1 when nobody reads any more, which here would read as a negative result.
        return _hush() if isinstance(exc.__context__, BrokenPipeError) else _flushed(_as_code(exc.code))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _hush()
    except RunrailsError as error:
        _show(error, as_json=as_json)
        return _flushed(exit_code_of(error))
    except Exception:  # noqa: BLE001 -- the last line of defence: a bug must not look like a negative result
        traceback.print_exc()
        print("This is a bug in runrails. Please report it.", file=sys.stderr)
        return BUG
    return _flushed(OK)


def without_colours(args: Sequence[str]) -> Sequence[str]:
    """`--no-color` may stand anywhere, but not among the words of a program that is run."""
    own = args[: args.index("run")] if "run" in args else args
    if NO_COLOR not in own:
        return args
    os.environ["NO_COLOR"] = "1"  # what Rich and Typer ask, for results, errors and help alike
    return [*(word for word in own if word != NO_COLOR), *args[len(own) :]]


def exit_code_of(error: RunrailsError) -> int:
    """1 for a stop, which is an answer; 2 for everything that kept the command from its work."""
    return NEGATIVE if isinstance(error, GuardrailStopped) else USAGE


def _never_choke(stream: TextIO) -> None:
    """A terminal that cannot show a character shows a question mark instead of ending the command."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")


def _as_code(code: str | int | None) -> int:
    if code is None:
        return OK
    return code if isinstance(code, int) else NEGATIVE


def _show(error: RunrailsError, *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(error.as_dict()), file=sys.stderr)
        return
    from runrails.cli.output import error_panel, stderr

    stderr().print(error_panel(error))


def _flushed(code: int) -> int:
    """Flush now, while a broken pipe can still be told from a result."""
    stream = cast("TextIO | None", sys.stdout)  # none where it was closed before we began
    try:
        if stream is not None:
            stream.flush()
    except BrokenPipeError:
        return _hush()
    return code


def _hush() -> int:
    """Point stdout at nothing, so that the interpreter's last flush does not complain."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- lives until the process ends
    return BROKEN_PIPE
