"""
Metrics for Prometheus, of one process or, with ``PROMETHEUS_MULTIPROC_DIR``, of all workers together.

No label has a word of a request's own: models are those that were let through, so somebody has priced them, and only
the first few hundred of them; users and keys are in the ledger, not here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from runrails.money import PUSD_PER_USD

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.clocks import Clock
    from runrails.events import Event
    from runrails_gateway.exchange import Exchange

__all__ = ["CONTENT_TYPE", "MULTIPROCESS", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers of one gateway keep their figures."""
MODELS_MAX = 300
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
"""Bounds of the buckets: models answer in half a second to some minutes."""


class Metrics:
    """
    Counts requests, tokens and money. A watcher of the gateway and a sink of its guard.

    Args:
        monotonic: The clock that exchanges are timed by, in milliseconds.
    """

    content_type = CONTENT_TYPE

    def __init__(self, monotonic: Clock) -> None:
        self._monotonic = monotonic
        self._registry = registry = CollectorRegistry()
        self._models: set[str] = set()
        self._open = Gauge(
            "runrails_requests_open", "Requests under way.", registry=registry, multiprocess_mode="livesum"
        )  # fmt: skip
        self._requests = Counter(
            "runrails_requests", "Requests that ended.", ["operation", "model", "status", "ending"], registry=registry
        )
        self._seconds = Histogram(
            "runrails_request_seconds", "From a request's headers to the end of its answer.", ["operation"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._tokens = Counter(
            "runrails_tokens", "Tokens, as providers report them.", ["model", "kind"], registry=registry
        )
        self._dollars = Counter(
            "runrails_cost_usd", "What calls cost; a sum of rounded numbers, the ledger has the exact one.",
            ["model", "payer"], registry=registry,
        )  # fmt: skip
        self._refused = Counter("runrails_refused", "Requests that were not sent on.", ["code"], registry=registry)
        self._events = Counter("runrails_events", "Events of the guard.", ["name", "level"], registry=registry)

    def began(self, exchange: Exchange) -> None:
        """See `runrails_gateway.exchange.Watcher`."""
        del exchange
        self._open.inc()

    def ended(self, exchange: Exchange) -> None:
        """See `runrails_gateway.exchange.Watcher`."""
        self._open.dec()
        operation, started_ms = exchange.dialect.operation, exchange.started_ms
        model = self._model(exchange)
        self._requests.labels(operation, model, str(exchange.status), exchange.ending).inc()
        self._seconds.labels(operation).observe((self._monotonic() - started_ms) / 1_000)
        if exchange.told is not None:
            self._refused.labels(exchange.told.code).inc()
        ticket = exchange.ticket
        if ticket is not None and ticket.settlement is not None:
            route = ticket.permit.route
            payer = "platform" if route is None else route.payer
            self._dollars.labels(model, payer).inc(ticket.settlement.actual_pusd / PUSD_PER_USD)
            self._count_tokens(exchange, model)

    def __call__(self, event: Event) -> None:
        """A sink: each event of the guard, by its name, of which there are as many as there are in the code."""
        self._events.labels(event.name, event.level).inc()

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        if os.environ.get(MULTIPROCESS):
            _forget_the_dead(os.environ[MULTIPROCESS])
            together = CollectorRegistry()
            cast("Callable[[CollectorRegistry], object]", multiprocess.MultiProcessCollector)(together)
            return generate_latest(together)
        return generate_latest(self._registry)

    def close(self) -> None:
        """This process ends: what it had under way is not counted on."""
        if os.environ.get(MULTIPROCESS):
            _mark_dead(os.getpid())

    def _model(self, exchange: Exchange) -> str:
        if exchange.ticket is None:
            return ""
        if exchange.model not in self._models:
            if len(self._models) >= MODELS_MAX:
                return "(other)"
            self._models.add(exchange.model)
        return exchange.model

    def _count_tokens(self, exchange: Exchange, model: str) -> None:
        usage = None if exchange.result is None else exchange.result.usage
        if usage is None:
            return
        self._tokens.labels(model, "input").inc(usage.input_tokens)
        self._tokens.labels(model, "output").inc(usage.output_tokens)
        if usage.cache_read_tokens:
            self._tokens.labels(model, "cache_read").inc(usage.cache_read_tokens)


def _forget_the_dead(directory: str) -> None:
    """What workers had under way that were killed: nobody else takes that out of the sum."""
    for path in Path(directory).glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not _lives(int(pid)):
            _mark_dead(int(pid))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's by now, or none of ours to ask
        return True
    return True


def _mark_dead(pid: int) -> None:
    cast("Callable[[int], None]", vars(multiprocess)["mark_process_dead"])(pid)
