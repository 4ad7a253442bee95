"""
What happens when a Python starts in which programs are to be guarded. Nothing is loaded here that is not needed.

A guard that cannot be set up ends the process before the program begins: exceptions would be printed by Python's
start-up code, and the program would run without the guard.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.autoguard.session import Session

__all__ = ["COULD_NOT_START", "serving_options", "session", "start"]

COULD_NOT_START = 2
"""The exit code of a process whose guard could not be set up, as for every wrong setting."""

session: Session | None = None
"""The guard of this process, if it is guarded as a whole."""


def start() -> None:
    """Guard this process if the environment asks for it. The second time does nothing."""
    global session  # noqa: PLW0603 -- a process is guarded once
    if session is not None:
        return
    from runrails.autoguard.variables import is_wanted

    if not is_wanted(os.environ) or serving_options(sys.orig_argv) is not None:
        return
    try:
        session = _begin()
    except Exception as exc:  # noqa: BLE001 -- whatever went wrong, the program must not run without its guard
        _refuse_to_start(exc)


def serving_options(argv: Sequence[str]) -> list[str] | None:
    """
    Python's own options, if this is `runrails serve` as it is started, and None otherwise. There the limits of the
    environment are those of its callers' runs, and not of the process.
    """
    words = iter(argv[1:])
    options: list[str] = []
    for word in words:
        if word in {"-X", "-W"}:
            options += [word, next(words, "")]
        elif word == "-m":
            named = next(words, "") in {"runrails", "runrails.cli"}
            return options if named and next(words, "") == "serve" else None
        elif word.startswith("-"):
            options.append(word)
        else:
            name = word.replace("\\", "/").rpartition("/")[2].removesuffix(".exe")
            return options if name == "runrails" and next(words, "") == "serve" else None
    return None


def _begin() -> Session:
    from runrails.autoguard.ending import Ending
    from runrails.autoguard.imports import ImportWatcher
    from runrails.autoguard.session import Session, make_default
    from runrails.autoguard.starting import inherited, modules_of
    from runrails.autoguard.variables import SESSION

    before = dict(os.environ) if SESSION not in os.environ else None
    if before is not None:
        os.environ.update(inherited(before))
    begun = Session(os.environ, before)
    ending = Ending(begun)
    ending.install()
    make_default(begun)
    begun.folder.started()
    ImportWatcher(modules_of(os.environ), begun.attach).install()
    ImportWatcher(("multiprocessing.util",), ending.in_worker).install()
    return begun


def _refuse_to_start(error: Exception) -> None:
    from runrails.errors import RunrailsError

    if isinstance(error, RunrailsError):
        text = f"runrails cannot guard this program, so it was not started: {error.what}\n  {error.next_step}"
    else:
        import traceback

        text = "".join(traceback.format_exception(error)) + "runrails failed to start; this is a bug. Please report it."
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
    # Python's start-up code swallows what is raised here, SystemExit included. Nothing has begun that could be lost.
    os._exit(COULD_NOT_START)
