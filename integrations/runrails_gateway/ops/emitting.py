"""A thread that writes metrics for CloudWatch now and then. Whoever reads them may be slow: no request waits for it."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from runrails.errors import ConfigError
from runrails_gateway.ops.emf import documents, figures_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from runrails.clocks import Clock
    from runrails_gateway.ops.emf import Figures

__all__ = ["EMF", "Emitting", "Sampled", "emf_of_environment"]

EMF = "RUNRAILS_EMF"
SERVICE_NAME = "RUNRAILS_EMF_SERVICE"
EVERY_S = 60.0
"""CloudWatch's own step; oftener would be summed there, and paid for as log."""
CLOSE_S = 2.0
_SERVICE_MAX = 255


class Sampled(Protocol):
    """Has a registry, and brings it up to date."""

    @property
    def registry(self) -> CollectorRegistry:
        """The figures of this process."""
        ...

    def sample(self) -> None:
        """Look at what is not counted as it happens."""
        ...


class Emitting:
    """
    Writes what was counted since the last time. What could not be written is in the next ones.

    Args:
        metrics: What is counted.
        write: Takes one line, with its end; it may block or fail.
        clock: Wall clock in milliseconds since the epoch.
        service: Which gateway this is, a dimension in CloudWatch.
    """

    def __init__(
        self, metrics: Sampled, write: Callable[[str], object], *, clock: Clock, service: str, every_s: float = EVERY_S
    ) -> None:
        self._metrics = metrics
        self._write = write
        self._clock = clock
        self._service = service
        self._every_s = every_s
        self._before: Figures = {}
        self._round = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runrails-emf", daemon=True)

    def start(self) -> Emitting:
        """Begin, in this process."""
        self._thread.start()
        return self

    def flush(self) -> bool:
        """Write now. Whether all could be written; what could not is told of the next time."""
        with self._round:
            self._metrics.sample()
            now = figures_of(self._metrics.registry)
            for keys, content in documents(self._before, now, time_ms=self._clock(), service=self._service):
                try:
                    self._write(json.dumps(content, separators=(",", ":")) + "\n")
                except (OSError, ValueError):  # a pipe that is closed, a file that is
                    return False
                self._before = {**self._before, **{key: now[key] for key in keys}}
            return True

    def close(self) -> None:
        """Write a last time, unless somebody who reads is as slow as that."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(self._every_s)
            with suppress(Exception):  # one bad look must not end all later ones; what it missed is in the next
                self.flush()


def emf_of_environment(metrics: Sampled, clock: Clock) -> Emitting | None:
    """
    As `RUNRAILS_EMF` says: `stdout`, or nothing at all.

    Raises:
        ConfigError: It says something else.
    """
    choice = os.environ.get(EMF, "").strip().lower()
    if not choice or choice == "off":
        return None
    if choice != "stdout":
        raise ConfigError(f"{EMF} must be stdout or off.", next_step="Leave it out.", setting=EMF)
    service = os.environ.get(SERVICE_NAME, "").strip() or "gateway"
    if len(service) > _SERVICE_MAX or not service.isascii() or not service.isprintable() or service.startswith(":"):
        raise ConfigError(
            f"{SERVICE_NAME} must be printable ASCII, {_SERVICE_MAX} characters at most, and not begin with a colon.",
            next_step="Leave it out for `gateway`.", setting=SERVICE_NAME,
        )  # fmt: skip
    return Emitting(metrics, _to_stdout, clock=clock, service=service).start()


def _to_stdout(line: str) -> None:
    # A line is shorter than what a pipe takes at once, so those of several workers do not run into each other.
    left = line.encode()
    while left:
        left = left[os.write(sys.stdout.fileno(), left) :]
