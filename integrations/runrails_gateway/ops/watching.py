"""The watchers that a gateway of the environment has: metrics and the log always, traces where they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.clocks import monotonic_ms, system_ms
from runrails_gateway.ops.metrics import Metrics
from runrails_gateway.ops.requestlog import RequestLog

if TYPE_CHECKING:
    from runrails_gateway.config import Closable
    from runrails_gateway.exchange import Watcher

__all__ = ["Ops", "ops_of_environment"]


class Ops(NamedTuple):
    """What operators see."""

    metrics: Metrics
    watchers: tuple[Watcher, ...]
    owned: tuple[Closable, ...]


def ops_of_environment() -> Ops:
    """
    As the environment says.

    Raises:
        ConfigError: Traces are asked for, and what sends them is not installed.
    """
    from runrails_gateway.ops.exporting import open_tracing

    metrics = Metrics(monotonic_ms)
    log = RequestLog(system_ms, monotonic_ms)
    tracing = open_tracing()
    if tracing is None:
        return Ops(metrics, (metrics, log), (metrics,))
    return Ops(metrics, (metrics, log, tracing), (tracing, metrics))
