"""
Metrics for Prometheus, of one process or, with ``PROMETHEUS_MULTIPROC_DIR``, of all workers together.

What there is to count is listed in `runrails.metrics`. No label has a word of a request's own: models are those that
were let through, so somebody has priced them, and only the first few hundred of them; users and keys are in the ledger,
not here.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from runrails.errors import RunrailsError
from runrails.metrics import metric
from runrails.money import PUSD_PER_USD
from runrails_gateway.ops.process import memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.clocks import Clock
    from runrails.events import Event
    from runrails.guard import Guard
    from runrails_gateway.exchange import Exchange
    from runrails_gateway.ticket import Ticket

__all__ = ["CONTENT_TYPE", "MULTIPROCESS", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers of one gateway keep their figures."""
MODELS_MAX = 300
_CALLERS_FAULTS = frozenset({400, 404, 405, 409, 413, 415, 422})
"""What a provider says of a request that nobody else would answer either; 401 and 429 are about our keys."""
_Together = Literal["livesum", "livemax"]
_Family = TypeVar("_Family", Counter, Histogram)


class Metrics:
    """
    Counts requests, tokens and money. A watcher of the gateway and a sink of its guard.

    Args:
        monotonic: The clock that exchanges are timed by, in milliseconds.
    """

    content_type = CONTENT_TYPE

    def __init__(self, monotonic: Clock) -> None:
        self._monotonic = monotonic
        self.registry = CollectorRegistry()
        """The figures of this process."""
        self._models: set[str] = set()
        self._children: dict[tuple[object, ...], object] = {}
        """Counters with their labels, which every request needs eight of; there are as many as there are figures."""
        self._guard: Guard | None = None
        self._sampling = threading.Lock()
        """Whoever asks for the figures samples, and so does the thread that tells CloudWatch."""
        self._seen = {"throttled": 0, "swept": 0}
        self._open = self._gauge("runrails_requests_open", "livesum")
        self._requests = self._counter("runrails_requests")
        self._failures = self._counter("runrails_failures")
        self._seconds = self._histogram("runrails_request_seconds")
        self._tokens = self._counter("runrails_tokens")
        self._dollars = self._counter("runrails_cost_usd")
        self._avoided = self._counter("runrails_avoided_usd")
        self._refused = self._counter("runrails_refused")
        self._stops = self._counter("runrails_stops")
        self._events = self._counter("runrails_events")
        self._oldest = self._gauge("runrails_hold_oldest_seconds", "livemax")
        self._abandoned = self._counter("runrails_holds_abandoned")
        self._store_seconds = self._histogram("runrails_store_seconds")
        self._throttles = self._counter("runrails_store_throttled")
        self._unavailable = self._counter("runrails_store_unavailable")
        self._memory = self._gauge("runrails_memory_bytes", "livesum")

    def watch(self, guard: Guard) -> None:
        """Look at the holds and the ledger of this guard as well."""
        self._guard = guard

    def began(self, exchange: Exchange) -> None:
        """See `runrails_gateway.exchange.Watcher`."""
        del exchange
        self._open.inc()

    def ended(self, exchange: Exchange) -> None:
        """See `runrails_gateway.exchange.Watcher`."""
        self._open.dec()
        operation, started_ms = exchange.dialect.operation, exchange.started_ms
        model = self._model(exchange)
        self._of(self._requests, operation, model, str(exchange.status), exchange.ending).inc()
        self._of(self._seconds, operation).observe((self._monotonic() - started_ms) / 1_000)
        if _is_failure(exchange):
            self._failures.labels(operation).inc()
        if exchange.told is not None:
            self._count_refusal(exchange, exchange.told.code)
        if exchange.ticket is not None:
            self._count_call(exchange, exchange.ticket, model)

    def __call__(self, event: Event) -> None:
        """A sink: each event of the guard, by its name, of which there are as many as there are in the code."""
        self._events.labels(event.name, event.level).inc()
        if event.name == "runrails.run_stopped":
            self._stops.labels(str(event.fields.get("error"))).inc()
        elif event.name == "runrails.hold_abandoned" and not self._sweeps():
            self._abandoned.inc()

    def sample(self) -> None:
        """Look at what is not counted as it happens. Cheap, but reads files of the kernel: not for every request."""
        self._memory.set(memory_bytes())
        guard = self._guard
        if guard is None:
            return
        opened_ms = next((held.opened_ms for held in tuple(guard.housekeeper.open.values())), None)
        self._oldest.set(0 if opened_ms is None else max(0, guard.monotonic() - opened_ms) / 1_000)
        with self._sampling:
            self._catch_up(self._throttles, "throttled")
            self._catch_up(self._abandoned, "swept")

    def _catch_up(self, counter: Counter, name: str) -> None:
        """Count what a store has counted by itself since the last look."""
        told = self._told_by_store(name)
        if told is not None and told > self._seen[name]:
            counter.inc(told - self._seen[name])
            self._seen[name] = told

    def _sweeps(self) -> bool:
        # It sees every hold that expires, also those of processes that died; an event would count some of them twice.
        return self._told_by_store("swept") is not None

    def _told_by_store(self, name: str) -> int | None:
        if self._guard is None:
            return None
        store: object = self._guard.store
        told: object = getattr(getattr(store, "shared", store), name, None)  # leases stand before what they share
        return told if isinstance(told, int) else None

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        self.sample()
        if os.environ.get(MULTIPROCESS):
            _forget_the_dead(os.environ[MULTIPROCESS])
            together = CollectorRegistry()
            cast("Callable[[CollectorRegistry], object]", multiprocess.MultiProcessCollector)(together)
            return generate_latest(together)
        return generate_latest(self.registry)

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

    def _count_refusal(self, exchange: Exchange, code: str) -> None:
        self._refused.labels(code).inc()
        if not isinstance(exchange.error, RunrailsError):
            return
        if exchange.error.code == "store_unavailable":
            self._unavailable.inc()
        avoided_pusd = _avoided_pusd(exchange.error)
        if avoided_pusd:
            self._avoided.labels(code).inc(avoided_pusd / PUSD_PER_USD)

    def _count_call(self, exchange: Exchange, ticket: Ticket, model: str) -> None:
        self._of(self._store_seconds, "reserve").observe(ticket.reserve_s)
        if ticket.settlement is None:
            return
        self._of(self._store_seconds, "settle").observe(ticket.settle_s)
        route = ticket.permit.route
        payer = "platform" if route is None else route.payer
        self._of(self._dollars, model, payer).inc(ticket.settlement.actual_pusd / PUSD_PER_USD)
        usage = None if exchange.result is None else exchange.result.usage
        if usage is None:
            return
        self._of(self._tokens, model, "input").inc(usage.input_tokens)
        self._of(self._tokens, model, "output").inc(usage.output_tokens)
        if usage.cache_read_tokens:
            self._of(self._tokens, model, "cache_read").inc(usage.cache_read_tokens)

    def _of(self, family: _Family, *labels: str) -> _Family:
        child = self._children.get((family, *labels))
        if child is None:
            child = self._children[family, *labels] = family.labels(*labels)
        return cast("_Family", child)

    def _counter(self, name: str) -> Counter:
        listed = metric(name)
        return Counter(listed.name, listed.help, listed.labels, registry=self.registry)

    def _gauge(self, name: str, together: _Together) -> Gauge:
        listed = metric(name)
        return Gauge(listed.name, listed.help, listed.labels, registry=self.registry, multiprocess_mode=together)

    def _histogram(self, name: str) -> Histogram:
        listed = metric(name)
        return Histogram(listed.name, listed.help, listed.labels, registry=self.registry, buckets=listed.buckets)


def _is_failure(exchange: Exchange) -> bool:
    """Whether a caller got no answer by fault of ours or of a provider."""
    told = exchange.told
    if told is None:
        return exchange.ending == "failed" and exchange.status not in _CALLERS_FAULTS
    # What goes wrong in here ends as a refusal does, and a stop within a stream as a failure: the error itself tells.
    return told.status >= 500 or told.code.startswith("upstream_")


def _avoided_pusd(error: RunrailsError) -> int:
    """What the call would at least have cost that was refused so; 0 where nobody knows."""
    fields = error.fields
    needed, spent, count = fields.get("needed"), fields.get("spent_pusd"), fields.get("count")
    if fields.get("unit") == "pusd" and isinstance(needed, int):
        return max(0, needed)
    if isinstance(spent, int) and isinstance(count, int):  # a loop: each attempt costs what those before did
        return max(0, spent) // max(1, count)
    return 0


def _forget_the_dead(directory: str) -> None:
    """What workers had under way that were killed: nobody else takes that out of the sum."""
    for path in Path(directory).glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not _lives(int(pid)):
            _mark_dead(int(pid))


def _lives(pid: int) -> bool:
    if sys.platform == "win32":  # where such a signal would be one
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's by now, or none of ours to ask
        return True
    return True


def _mark_dead(pid: int) -> None:
    cast("Callable[[int], None]", vars(multiprocess)["mark_process_dead"])(pid)
