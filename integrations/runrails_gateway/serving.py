"""How `runrails serve` serves: one process, or several workers on one socket, each ended in good order."""

from __future__ import annotations

import gc
import logging
import os
import signal
from importlib import import_module
from typing import TYPE_CHECKING

from uvicorn import Config, Server

from runrails.errors import RunrailsError
from runrails_gateway.environment import limited_of_environment
from runrails_gateway.protocol import BoundedProtocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from types import FrameType

__all__ = ["BEHIND_PROXY", "kept_alive_s", "serve_on"]

KEPT_ALIVE_S = 75
"""How long a caller's idle connection is kept."""
BEHIND_PROXY = "RUNRAILS_BEHIND_PROXY"
PROXY_KEPT_ALIVE_S = 990
"""Longer than load balancers keep theirs, ours on AWS 930 s: so we never close one that it is about to use, a 502."""
_YES = frozenset({"1", "true", "yes", "on"})
_log = logging.getLogger("runrails.workers")
MARGIN_S = 15
"""What a worker has beyond the time for open requests, to settle those it broke off."""


def serve_on(bound: socket, *, workers: int, tls_cert: str | None, tls_key: str | None) -> None:
    """
    Serve on a socket until SIGTERM or SIGINT; what is under way is waited for and settled. For several workers it has
    to be within `runrails_gateway.handover.figures_together`.

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

    supervisor = Supervisor(work, workers, patience_s=patience_s + MARGIN_S)
    import_module("runrails_gateway.app")  # here, once for all workers
    gc.collect()
    gc.freeze()  # What is shared stays shared: looking through it would copy it.
    supervisor.run()


def kept_alive_s() -> int:
    """How long an idle connection is kept: a proxy's longer, and it has few."""
    behind = os.environ.get(BEHIND_PROXY, "").strip().lower() in _YES
    return PROXY_KEPT_ALIVE_S if behind else KEPT_ALIVE_S


class _Server(Server):
    """Says when it begins to end: what it waits for open requests is a part of what they are given."""

    def __init__(self, config: Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """As uvicorn's."""
        self._ending()
        await super().shutdown(sockets)


def _serve(bound: socket, *, tls_cert: str | None, tls_key: str | None, patience_s: float) -> None:
    from runrails_gateway.app import app_of_environment

    app = app_of_environment()
    config = Config(
        app, http=BoundedProtocol, ws="none", lifespan="on",
        access_log=False, log_config=None, server_header=False, date_header=True, proxy_headers=False,
        timeout_keep_alive=kept_alive_s(), timeout_graceful_shutdown=max(1, round(patience_s)),
        ssl_certfile=tls_cert, ssl_keyfile=tls_key,
    )  # fmt: skip
    server = _Server(config, app.ending)

    def end(number: int, frame: FrameType | None) -> None:
        """For signals that come before the server listens for them, and for those that it repeats when it ends."""
        del number, frame
        server.should_exit = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server.run(sockets=[bound])
