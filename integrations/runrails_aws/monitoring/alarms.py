"""
Alarms as `PutMetricAlarm` takes them.

Missing data is normal for what is only told when it happens: then nothing is wrong. Only of the process's memory is
something told every minute, so when nothing is, nobody is there.
Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast

from runrails_aws.monitoring.metrics import SERVICE, stat
from runrails_aws.monitoring.watched import prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails_aws.monitoring.watched import Watched

__all__ = ["ANOMALY_BAND", "Request", "alarms_of", "detector_of"]

Request: TypeAlias = "dict[str, object]"
ANOMALY_BAND = 2
"""Standard deviations: how far beyond what was learned an hour may cost."""
BASELINE_PERCENT = 150
MEMORY_PERCENT = 80
FAILURES_PERCENT = 5
FAILURES_REQUESTS_MIN = 20
"""Fewer requests in five minutes say nothing of a rate."""
HOLD_S_MAX = 1_800
STORE_P99_S_MAX = 0.75
"""Between two bounds of its buckets, 0.5 and 1: percentiles are estimated, and one of 0.5 may come out above it."""
_HOUR_S = 3_600
_FIVE_S = 300
_Missing = Literal["notBreaching", "breaching"]


class _Rule(NamedTuple):
    name: str
    why: str
    metrics: list[Request]
    threshold: float
    times: int = 1
    missing: _Missing = "notBreaching"
    comparison: str = "GreaterThanThreshold"


def alarms_of(watched: Watched, topic: str | None) -> list[Request]:
    """Every alarm, as arguments of `put_metric_alarm`; `topic` is the ARN of who is told, also when it is over."""
    return [_anomaly(watched, topic), *(_request(watched, topic, rule) for rule in _rules(watched))]


def detector_of(watched: Watched) -> Request:
    """What learns what an hour ordinarily costs, as arguments of `put_anomaly_detector`."""
    measured = _cost(watched)
    described = cast("Request", measured["Metric"])
    return {"SingleMetricAnomalyDetector": {**described, "Stat": measured["Stat"]}}


def _cost(watched: Watched) -> Request:
    return stat("runrails_cost_usd", {SERVICE: watched.service}, statistic="Sum", period_s=_HOUR_S)


def _anomaly(watched: Watched, topic: str | None) -> Request:
    return {
        **_named(watched, topic, "cost-anomaly", "An hour costs more than hours like it did; see who spends."),
        "ComparisonOperator": "GreaterThanUpperThreshold", "EvaluationPeriods": 2, "ThresholdMetricId": "band",
        "TreatMissingData": "notBreaching",
        "Metrics": [
            {"Id": "cost", "MetricStat": _cost(watched), "ReturnData": True},
            {"Id": "band", "Expression": f"ANOMALY_DETECTION_BAND(cost, {ANOMALY_BAND})", "ReturnData": True},
        ],
    }  # fmt: skip


def _request(watched: Watched, topic: str | None, rule: _Rule) -> Request:
    return {
        **_named(watched, topic, rule.name, rule.why), "ComparisonOperator": rule.comparison,
        "EvaluationPeriods": rule.times, "DatapointsToAlarm": rule.times, "Threshold": rule.threshold,
        "TreatMissingData": rule.missing, "Metrics": rule.metrics,
    }  # fmt: skip


def _named(watched: Watched, topic: str | None, name: str, why: str) -> Request:
    told = [] if topic is None else [topic]
    return {
        "AlarmName": f"{prefix_of(watched)}-{name}", "AlarmDescription": why, "ActionsEnabled": True,
        "AlarmActions": told, "OKActions": told,
    }  # fmt: skip


def _rules(watched: Watched) -> Iterator[_Rule]:
    yield from _money(watched)
    yield from _gateway(watched)
    if watched.table is not None:
        yield from _table(watched.table)
    if watched.cluster is not None and watched.ecs_service is not None:
        where = {"ClusterName": watched.cluster, "ServiceName": watched.ecs_service}
        yield _Rule(
            "memory", "The tasks are short of memory; see whether it grows with the conversations.",
            _one(stat("MemoryUtilization", where, statistic="Average", period_s=_FIVE_S, namespace="AWS/ECS")),
            MEMORY_PERCENT, times=3,
        )  # fmt: skip
    if watched.function is not None:
        where = {"FunctionName": watched.function}
        yield _Rule(
            "function-errors", "Invocations fail; see the function's log.",
            _one(stat("Errors", where, statistic="Sum", period_s=_FIVE_S, namespace="AWS/Lambda")), 0,
        )  # fmt: skip


def _money(watched: Watched) -> Iterator[_Rule]:
    if watched.baseline_usd is not None:
        share: Request = {
            "Id": "share", "Expression": f"100 * cost / {watched.baseline_usd}", "ReturnData": True,
            "Label": "Percent of an ordinary hour",
        }  # fmt: skip
        yield _Rule(
            "cost-over-baseline", f"Two hours each cost over {BASELINE_PERCENT} % of an ordinary one; see who spends.",
            [{"Id": "cost", "MetricStat": _cost(watched), "ReturnData": False}, share], BASELINE_PERCENT, times=2,
        )  # fmt: skip


def _gateway(watched: Watched) -> Iterator[_Rule]:
    own = {SERVICE: watched.service}

    def measured(name: str, statistic: str) -> Request:
        return stat(name, own, statistic=statistic, period_s=_FIVE_S)

    rate = f"IF(requests >= {FAILURES_REQUESTS_MIN}, 100 * FILL(failures, 0) / requests, 0)"
    yield _Rule(
        "failures", f"Over {FAILURES_PERCENT} % of the requests fail; see the log and the providers' state.",
        [
            {"Id": "requests", "MetricStat": measured("runrails_requests", "Sum"), "ReturnData": False},
            {"Id": "failures", "MetricStat": measured("runrails_failures", "Sum"), "ReturnData": False},
            {"Id": "rate", "Expression": rate, "Label": "Percent that failed", "ReturnData": True},
        ],
        FAILURES_PERCENT, times=2,
    )  # fmt: skip
    yield _Rule(
        "holds-abandoned", "Holds were left to expire, and are charged; see whether workers are killed.",
        _one(measured("runrails_holds_abandoned", "Sum")), 0,
    )  # fmt: skip
    yield _Rule(
        "hold-age", f"A hold has been open for over {HOLD_S_MAX // 60} minutes; see `runrails watch`.",
        _one(measured("runrails_hold_oldest_seconds", "Maximum")), HOLD_S_MAX, times=2,
    )  # fmt: skip
    yield _Rule(
        "store-unavailable", "Requests are refused because the ledger cannot be asked; see `runrails doctor`.",
        _one(measured("runrails_store_unavailable", "Sum")), 0,
    )  # fmt: skip
    yield _Rule(
        "store-slow", "The ledger is slow; see its throttles and the network.",
        _one(measured("runrails_store_seconds", "p99")), STORE_P99_S_MAX, times=3,
    )  # fmt: skip
    if watched.function is not None and watched.ecs_service is None:
        return  # where nobody asks, no function runs that could tell of itself
    yield _Rule(
        "silent", "Nobody tells of anything; see whether the gateway runs.",
        _one(measured("runrails_memory_bytes", "SampleCount")), 1, times=3, missing="breaching",
        comparison="LessThanThreshold",
    )  # fmt: skip


def _table(table: str) -> Iterator[_Rule]:
    where = {"TableName": table}
    stats = {
        each: stat(f"{kind}ThrottleEvents", where, statistic="Sum", period_s=_FIVE_S, namespace="AWS/DynamoDB")
        for each, kind in (("reads", "Read"), ("writes", "Write"))
    }
    parts: list[Request] = [{"Id": each, "MetricStat": told, "ReturnData": False} for each, told in stats.items()]
    both = "FILL(reads, 0) + FILL(writes, 0)"
    yield _Rule(
        "table-throttles", "DynamoDB throttles the ledger's table; see which scope is hot.",
        [*parts, {"Id": "both", "Expression": both, "Label": "Throttled", "ReturnData": True}], 0, times=2,
    )  # fmt: skip


def _one(measured: Request) -> list[Request]:
    return [{"Id": "it", "MetricStat": measured, "ReturnData": True}]
