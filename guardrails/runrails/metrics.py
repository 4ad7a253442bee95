"""
Every metric there is: one list for what counts them, for dashboards and alarms that are made of them, and for the docs.

Names are Prometheus's (without the ``_total`` that counters get there); those that go to CloudWatch have a second name
of its kind. A label becomes a dimension there only where the list says so: CloudWatch bills each combination of values
as a metric of its own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["METRICS", "NAMESPACE", "Kind", "Metric", "Unit", "metric", "sent_to_cloudwatch"]

NAMESPACE = "Runrails"
"""Where CloudWatch keeps them."""

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["Count", "Seconds", "Bytes", "None"]
"""CloudWatch's words; it has none for money."""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
"""Models answer in half a second to some minutes."""
_STORE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""A ledger answers in half a millisecond to its deadline."""


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    cloudwatch: str | None = None
    """Its name there; None: it is not sent."""
    unit: Unit = "Count"
    dimension: str | None = None
    """The label that becomes a dimension; the others are summed over."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram."""


METRICS = (
    Metric("runrails_requests_open", "gauge", "Requests under way.", (), "RequestsOpen"),
    Metric(
        "runrails_requests", "counter", "Requests that ended.", ("operation", "model", "status", "ending"), "Requests"
    ),
    Metric(
        "runrails_failures", "counter", "Requests that ended without an answer, by fault of ours or of a provider.",
        ("operation",), "Failures",
    ),
    Metric(
        "runrails_request_seconds", "histogram", "From a request's headers to the end of its answer.", ("operation",),
        "RequestDuration", "Seconds", buckets=_SECONDS,
    ),
    Metric(
        "runrails_tokens", "counter", "Tokens, as providers report them.", ("model", "kind"), "Tokens",
        dimension="kind",
    ),
    Metric(
        "runrails_cost_usd", "counter", "What calls cost; a sum of rounded numbers, the ledger has the exact one.",
        ("model", "payer"), "CostUSD", "None",
    ),
    Metric(
        "runrails_avoided_usd", "counter",
        "What refused calls would at least have cost: their bounds, or after a loop what its attempts cost each.",
        ("code",), "AvoidedUSD", "None",
    ),
    Metric(
        "runrails_refused", "counter", "Requests that ended with an error of ours, by its code.", ("code",), "Refusals",
        dimension="code",
    ),
    Metric("runrails_stops", "counter", "Runs that were stopped.", ("reason",), "RunStops", dimension="reason"),
    Metric("runrails_events", "counter", "Events of the guard.", ("name", "level")),
    Metric(
        "runrails_hold_oldest_seconds", "gauge", "How long the oldest hold of a call under way has been open.", (),
        "OldestHold", "Seconds",
    ),
    Metric(
        "runrails_holds_abandoned", "counter", "Holds that nobody settled: they expire and are charged.", (),
        "HoldsAbandoned",
    ),
    Metric(
        "runrails_store_seconds", "histogram", "How long the ledger took to hold or to settle.", ("verb",),
        "StoreLatency", "Seconds", buckets=_STORE_SECONDS,
    ),
    Metric("runrails_store_throttled", "counter", "Attempts that the shared store throttled.", (), "StoreThrottles"),
    Metric(
        "runrails_store_unavailable", "counter", "Requests refused because the ledger could not be asked.", (),
        "StoreUnavailable",
    ),
    Metric("runrails_memory_bytes", "gauge", "Resident memory of the process.", (), "Memory", "Bytes"),
)  # fmt: skip
_BY_NAME = {each.name: each for each in METRICS}


def metric(name: str) -> Metric:
    """The metric of that name. Raises KeyError: a name is never made up elsewhere."""
    return _BY_NAME[name]


def sent_to_cloudwatch() -> tuple[Metric, ...]:
    """Those that go to CloudWatch."""
    return tuple(each for each in METRICS if each.cloudwatch is not None)
