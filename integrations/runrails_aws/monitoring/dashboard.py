"""
A dashboard as `PutDashboard` takes it: what is spent and stopped above, what it runs on below.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.metrics import NAMESPACE
from runrails_aws.monitoring.metrics import SERVICE, cloudwatch_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runrails_aws.monitoring.watched import Watched

__all__ = ["dashboard_of"]

_COLUMNS = 24
_WIDTH, _HEIGHT = 8, 6
_HOUR_S, _FIVE_S = 3_600, 300


class _Widget(NamedTuple):
    title: str
    metrics: list[list[object]]
    statistic: str = "Sum"
    period_s: int = _FIVE_S
    label: str = ""
    """Of the left axis: its unit."""


def dashboard_of(watched: Watched) -> dict[str, object]:
    """The body of a dashboard."""
    told = [*_business(watched.service), *_gateway(watched.service), *_infrastructure(watched)]
    return {"start": "-PT12H", "widgets": list(_placed(told, watched.region))}


def _placed(widgets: Iterable[_Widget], region: str) -> Iterator[dict[str, object]]:
    in_a_row = _COLUMNS // _WIDTH
    for place, widget in enumerate(widgets):
        properties: dict[str, object] = {
            "title": widget.title, "region": region, "view": "timeSeries", "stacked": False,
            "stat": widget.statistic, "period": widget.period_s, "metrics": widget.metrics,
            "yAxis": {"left": {"min": 0, "label": widget.label, "showUnits": not widget.label}},
        }  # fmt: skip
        yield {
            "type": "metric", "x": place % in_a_row * _WIDTH, "y": place // in_a_row * _HEIGHT, "width": _WIDTH,
            "height": _HEIGHT, "properties": properties,
        }  # fmt: skip


def _own(service: str, name: str, **options: object) -> list[object]:
    return [NAMESPACE, cloudwatch_name(name), SERVICE, service, *([options] if options else [])]


def _by(service: str, name: str, dimension: str) -> list[list[object]]:
    found = f'{{{NAMESPACE},{SERVICE},{dimension}}} MetricName="{cloudwatch_name(name)}" {SERVICE}="{service}"'
    return [[{"expression": f"SEARCH('{found}', 'Sum')", "id": "found", "label": f"${{PROP('Dim.{dimension}')}}"}]]


def _business(service: str) -> Iterator[_Widget]:
    yield _Widget("Cost an hour", [_own(service, "runrails_cost_usd")], period_s=_HOUR_S, label="USD")
    yield _Widget("Requests", [_own(service, "runrails_requests"), _own(service, "runrails_failures")])
    yield _Widget("Tokens", _by(service, "runrails_tokens", "Kind"), label="Tokens")
    yield _Widget("Refused, by reason", _by(service, "runrails_refused", "Code"), label="Requests")
    yield _Widget("Runs stopped, by reason", _by(service, "runrails_stops", "Reason"), label="Runs")
    yield _Widget("Not spent", [_own(service, "runrails_avoided_usd")], period_s=_HOUR_S, label="USD")
    failed = {"expression": "100 * FILL(failures, 0) / requests", "id": "rate", "label": "Percent that failed"}
    parts = [
        _own(service, "runrails_requests", id="requests", visible=False),
        _own(service, "runrails_failures", id="failures", visible=False),
    ]
    yield _Widget("Error rate", [[failed], *parts], label="Percent")


def _gateway(service: str) -> Iterator[_Widget]:
    yield _Widget(
        "How long requests take",
        [_own(service, "runrails_request_seconds", stat=each, label=each) for each in ("p50", "p95", "p99")],
        label="Seconds",
    )
    yield _Widget(
        "How long the ledger takes",
        [_own(service, "runrails_store_seconds", stat=each, label=each) for each in ("p50", "p99")], label="Seconds",
    )  # fmt: skip
    yield _Widget(
        "Holds", [_own(service, "runrails_hold_oldest_seconds"), _own(service, "runrails_holds_abandoned", stat="Sum")],
        statistic="Maximum",
    )  # fmt: skip
    yield _Widget(
        "Ledger in trouble",
        [_own(service, "runrails_store_throttled"), _own(service, "runrails_store_unavailable")], label="Times",
    )  # fmt: skip
    yield _Widget(
        "Gateway's process", [_own(service, "runrails_memory_bytes"),
                              _own(service, "runrails_requests_open", yAxis="right")], statistic="Maximum",
    )  # fmt: skip


def _infrastructure(watched: Watched) -> Iterator[_Widget]:
    if watched.cluster is not None and watched.ecs_service is not None:
        where = ["ClusterName", watched.cluster, "ServiceName", watched.ecs_service]
        used = [["AWS/ECS", name, *where] for name in ("CPUUtilization", "MemoryUtilization")]
        yield _Widget("Tasks", [list(each) for each in used], "Average", label="Percent")
    if watched.balancer is not None:
        names = ("HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count", "HTTPCode_Target_4XX_Count")
        yield _Widget(
            "Load balancer", [["AWS/ApplicationELB", name, "LoadBalancer", watched.balancer] for name in names]
        )
    if watched.function is not None:
        where = ["FunctionName", watched.function]
        yield _Widget(
            "Function",
            [["AWS/Lambda", "Duration", *where, {"stat": "p99", "yAxis": "right"}], ["AWS/Lambda", "Errors", *where],
             ["AWS/Lambda", "Throttles", *where]],
        )  # fmt: skip
    if watched.table is not None:
        told = ("ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits", "ReadThrottleEvents", "WriteThrottleEvents")
        yield _Widget("Table", [["AWS/DynamoDB", name, "TableName", watched.table] for name in told], label="Units")
