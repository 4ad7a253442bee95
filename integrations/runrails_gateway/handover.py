"""
From the command line to the server: the process goes on as a new Python, which loads only what serving takes.

What reads a command line and prints tables stays loaded as long as a process lives, and would be a fifth of its memory.
The socket is handed on, already bound; all else that was asked for is in the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from runrails.autoguard.boot import serving_options

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from socket import socket

__all__ = ["Handed", "figures_together", "go_on", "main", "options_here"]

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Handed(NamedTuple):
    """How a socket is served."""

    workers: int
    tls_cert: str | None
    tls_key: str | None
    as_json: bool
    """Whether an error is told as JSON."""


def options_here() -> list[str] | None:
    """
    Python's options for the process to go on with. None: it has to stay the one it is, as it was started in some other
    way than `runrails serve`, by a debugger say, or something was put into it that would be lost.
    """
    options = serving_options(sys.orig_argv)
    if options is None or os.name != "posix" or not sys.executable or _is_instrumented():
        return None
    # `python -m` imports from the working directory, the command does not; so it stays.
    return options if Path(sys.argv[0]).name == "__main__.py" else [*options, "-P"]


def go_on(bound: socket, handed: Handed, options: Sequence[str]) -> NoReturn:
    """Serve on a socket as a new Python in this very process. What was printed is on its way."""
    sys.stdout.flush()
    sys.stderr.flush()
    bound.set_inheritable(True)
    told = json.dumps([bound.fileno(), *handed])
    os.execv(sys.executable, [sys.executable, *options, "-m", "runrails_gateway", told])  # noqa: S606 -- no shell


def main() -> None:
    """What `go_on` goes on with (`python -m runrails_gateway`)."""
    from runrails.cli.shell import USAGE, outcome_of

    if len(sys.argv) != 2:
        sys.stderr.write("The gateway is started with `runrails serve`.\n")
        sys.exit(USAGE)
    number, *rest = json.loads(sys.argv[1])
    handed = Handed(*rest)
    sys.exit(outcome_of(lambda: _serve(number, handed), as_json=handed.as_json))


def _serve(number: int, handed: Handed) -> None:
    from socket import socket

    from runrails_gateway.ops.loglines import configure

    configure()
    with figures_together(handed.workers), socket(fileno=number) as bound:
        bound.set_inheritable(False)
        from runrails_gateway.serving import serve_on

        serve_on(bound, workers=handed.workers, tls_cert=handed.tls_cert, tls_key=handed.tls_key)


@contextmanager
def figures_together(workers: int) -> Generator[None]:
    """
    Around all that several workers do: a directory in which their metrics come together, unless a setting names one.
    It has to be there before anything of Prometheus is loaded.
    """
    if workers == 1 or os.environ.get(MULTIPROCESS):
        yield
        return
    directory = tempfile.mkdtemp(prefix="runrails-metrics-")
    os.environ[MULTIPROCESS] = directory
    try:
        yield
    finally:
        del os.environ[MULTIPROCESS]
        shutil.rmtree(directory, ignore_errors=True)


def _is_instrumented() -> bool:
    """Whether `opentelemetry-instrument` or the like has prepared this process: it does so with the first one only."""
    if "opentelemetry.trace" not in sys.modules:
        return False
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
