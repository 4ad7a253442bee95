"""How `runrails serve` serves: one process, or several workers on one socket, each ended in good order."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from uvicorn import Config, Server

from runrails.errors import RunrailsError
from runrails_gateway.environment import limited_of_environment
from runrails_gateway.protocol import BoundedProtocol

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from socket import socket
    from types import FrameType

__all__ = ["figures_together", "serve_on"]

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
KEPT_ALIVE_S = 75
"""Longer than load balancers keep connections, so that it is never we who close one that is about to be used."""
_log = logging.getLogger("runrails.workers")
MARGIN_S = 15
"""What a worker has beyond the time for open requests, to settle those it broke off."""


def serve_on(bound: socket, *, workers: int, tls_cert: Path | None, tls_key: Path | None) -> None:
    """
    Serve on a socket until SIGTERM or SIGINT; what is under way is waited for and settled.

    Raises:
        ConfigError: A setting is wrong, or this system cannot have several workers.
        StoreUnavailable: A store is out of reach, where there is one process.
    """
    patience_s = limited_of_environment().shutdown_ms_max / 1_000

    def serve() -> None:
        _serve(bound, tls_cert=tls_cert, tls_key=tls_key, patience_s=patience_s)

    def work() -> None:
        try:
            serve()
        except RunrailsError as error:
            _log.error("%s %s", error.what, error.next_step)
            raise SystemExit(1) from None

    if workers == 1:
        serve()
        return
    from runrails_gateway.supervisor import Supervisor

    supervisor = Supervisor(work, workers, patience_s=2 * patience_s + MARGIN_S)
    import_module("runrails_gateway.app")  # here, once for all workers
    gc.collect()
    gc.freeze()  # What is shared stays shared: looking through it would copy it.
    supervisor.run()


def _serve(bound: socket, *, tls_cert: Path | None, tls_key: Path | None, patience_s: float) -> None:
    from runrails_gateway.app import app_of_environment

    config = Config(
        app_of_environment(), http=BoundedProtocol, ws="none", lifespan="on",
        access_log=False, log_config=None, server_header=False, date_header=True, proxy_headers=False,
        timeout_keep_alive=KEPT_ALIVE_S, timeout_graceful_shutdown=max(1, round(patience_s)),
        ssl_certfile=tls_cert, ssl_keyfile=tls_key,
    )  # fmt: skip
    server = Server(config)

    def end(number: int, frame: FrameType | None) -> None:
        """For signals that come before the server listens for them, and for those that it repeats when it ends."""
        del number, frame
        server.should_exit = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server.run(sockets=[bound])


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
