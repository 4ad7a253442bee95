"""
What counting a request costs the gateway, and what telling CloudWatch of it does.

    python tests/benchmarks/bench_metrics.py

The yardstick is one labelled counter of prometheus_client in the same run. Nothing is written to CloudWatch for a
request: a thread writes a few lines a minute, whatever the number of requests; its time is given for each of 1,000.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from rr_bench import Row, best, main

from runrails.calls import ModelResult, Permit
from runrails.clocks import monotonic_ms, system_ms
from runrails.settlement import Settlement
from runrails.usage import Usage
from runrails_gateway.dialects import CHAT
from runrails_gateway.exchange import Exchange
from runrails_gateway.ops.emitting import Emitting
from runrails_gateway.ops.metrics import Metrics
from runrails_gateway.ticket import Ticket

CALLS = 2_000
BETWEEN_FLUSHES = 1_000
"""Requests: 17 a second for a minute."""


async def _send(message: object) -> None:
    raise AssertionError(message)


def _request(usage: Usage) -> Exchange:
    """One that was answered and paid."""
    exchange = Exchange({"headers": []}, _send, CHAT, request_id="req_1", started_ms=monotonic_ms())  # type: ignore[arg-type]
    call: object = None
    permit = Permit(id="x", call=call, bound_pusd=1, max_tokens=1, started_ms=0, step=1)  # type: ignore[arg-type]
    run: object = None
    exchange.ticket = Ticket(run, permit, 0.000_4)  # type: ignore[arg-type]
    exchange.ticket.settlement = Settlement(1_000_000, False, usage)
    exchange.ticket.settle_s = 0.000_3
    exchange.model, exchange.status, exchange.ending = "gpt-4.1-mini", 200, "answered"
    exchange.result = ModelResult(end="completed", usage=usage)
    return exchange


def measure() -> list[Row]:
    """One row for each thing that is done."""
    exchange = _request(Usage(input_tokens=10, output_tokens=5))
    metrics = Metrics(monotonic_ms)
    written: list[str] = []
    emitting = Emitting(metrics, written.append, clock=system_ms, service="gateway")
    counter = Counter("plain", "x", ["model"], registry=CollectorRegistry())

    def count() -> None:
        for _ in range(CALLS):
            metrics.began(exchange)
            metrics.ended(exchange)

    def yardstick() -> None:
        for _ in range(CALLS):
            counter.labels("gpt-4.1-mini").inc()

    def flush() -> None:
        written.clear()
        for _ in range(BETWEEN_FLUSHES):
            metrics.ended(exchange)
        emitting.flush()

    count_s, plain_s = best(count, calls=CALLS), best(yardstick, calls=CALLS)
    only_s = best(lambda: [metrics.ended(exchange) for _ in range(BETWEEN_FLUSHES)], calls=1)
    flush_s = max(0.0, best(flush, calls=1) - only_s)
    a_counter = "one labelled counter"
    return [
        Row("metrics, a request", 1e6 * count_s, "us", count_s / plain_s, a_counter, gate=25),
        Row("CloudWatch's share, a request", 1e6 * flush_s / BETWEEN_FLUSHES, "us",
            flush_s / BETWEEN_FLUSHES / plain_s, a_counter, gate=5),
        Row("CloudWatch's lines, each minute", float(sum(map(len, written))), "bytes"),
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(measure))
