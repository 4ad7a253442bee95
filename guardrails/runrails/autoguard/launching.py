"""Starting a program, handing it the signals that come for it, and telling how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runrails.autoguard.folder import Folder
from runrails.autoguard.stops import word_of
from runrails.autoguard.variables import SESSION
from runrails.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from runrails.autoguard.plan import Plan

__all__ = ["CANNOT_EXECUTE", "NOT_FOUND", "Ended", "launch", "path_with_bootstrap"]

NOT_FOUND = 127
CANNOT_EXECUTE = 126
"""As shells number them."""
KILL_AFTER_S = 10
"""How long a program may take to end after it was asked to."""
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2")


_Handler: TypeAlias = "Callable[[int, FrameType | None], object] | int | signal.Handlers | None"


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    """Its exit code; 128 + the signal that killed it, as shells number it."""
    by_signal: bool
    """Whether a signal killed it that did not come from here."""


def path_with_bootstrap(environment: Mapping[str, str]) -> str:
    """The PYTHONPATH under which every Python of the program loads the guard."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap")  # noqa: PTH100, PTH118, PTH120 -- a str for the environment
    before = environment.get("PYTHONPATH")
    return here if not before else os.pathsep.join((here, before))


def launch(command: Sequence[str], environment: Mapping[str, str], plan: Plan, *, run_id: str) -> Ended:
    """
    Run a program to its end. Standard input, output and error are its own.

    Raises:
        OSError: It cannot be started.
    """
    forwarding = _Forwarding()
    try:
        with subprocess.Popen(list(command), env=dict(environment)) as process:  # noqa: S603 -- running it is what was asked for
            forwarding.to(process)
            ended_by_us = _wait(process, environment, plan, run_id)
    finally:
        forwarding.restore()
    code = process.returncode
    return Ended(code, by_signal=False) if code >= 0 else Ended(128 - code, by_signal=not ended_by_us)


def _wait(process: subprocess.Popen[bytes], environment: Mapping[str, str], plan: Plan, run_id: str) -> bool:
    """Wait for the end; whether we had to bring it about since the time is over."""
    seconds = plan.limits.seconds
    if seconds is None or plan.observe:
        process.wait()
        return False
    if _ends(process, seconds):
        return False
    # First nothing starts any more; then there is time to save what was done; then what hangs is ended.
    late = LimitReached(scope=f"run:{run_id}", unit="seconds", limit=seconds, used=seconds, setting="seconds")
    Folder(environment[SESSION]).stop(word_of(late))
    if _ends(process, plan.grace_s):
        return False
    process.terminate()
    if not _ends(process, KILL_AFTER_S):
        process.kill()
        process.wait()
    return True


def _ends(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


class _Forwarding:
    """Signals that come for the program come to us, who start it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._before: list[tuple[int, _Handler]] = []
        for name in _FORWARDED:
            number: int | None = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before.append((number, signal.signal(number, self._forward)))

    def to(self, process: subprocess.Popen[bytes]) -> None:
        """The program has started."""
        self._process = process
        while self._early:
            process.send_signal(self._early.pop())

    def restore(self) -> None:
        """It has ended."""
        for number, handler in self._before:
            signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number in (signal.SIGINT, getattr(signal, "SIGQUIT", None)) and _from_terminal():
            return  # The terminal has sent it to both of us.
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


def _from_terminal() -> bool:
    """Whether Ctrl-C in a terminal reaches the program without us: we are in its foreground, with the program."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except (OSError, AttributeError):  # no terminal, or Windows
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
