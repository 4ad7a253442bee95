"""
The watchers that a gateway of the environment has: metrics and the log always, traces and metrics for CloudWatch where
they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.clocks import monotonic_ms, system_ms
from runrails_gateway.ops.emitting import emf_of_environment
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
        ConfigError: Traces are asked for, and what sends them is not installed; or a setting is wrong.
    """
    from runrails_gateway.ops.exporting import open_tracing

    metrics = Metrics(monotonic_ms)
    log = RequestLog(system_ms, monotonic_ms)
    tracing = open_tracing()
    emitting = emf_of_environment(metrics, system_ms)
    owned = tuple(each for each in (emitting, tracing, metrics) if each is not None)
    return Ops(metrics, (metrics, log) if tracing is None else (metrics, log, tracing), owned)
