"""Metrics as CloudWatch's calls name them: ours by the list, AWS's own by their names."""

from __future__ import annotations

from runrails.metrics import NAMESPACE, metric

__all__ = ["SERVICE", "Dimensions", "cloudwatch_name", "stat"]

SERVICE = "Service"
"""The dimension that all of ours have; see `runrails_gateway.ops.emf`."""
Dimensions = dict[str, str]


def cloudwatch_name(name: str) -> str:
    """CloudWatch's name of one of our metrics. Raises KeyError if it is not sent there."""
    listed = metric(name).cloudwatch
    if listed is None:
        raise KeyError(name)
    return listed


def stat(
    name: str, dimensions: Dimensions, *, statistic: str, period_s: int, namespace: str = NAMESPACE
) -> dict[str, object]:  # fmt: skip
    """A `MetricStat`: ours by its name in the list, AWS's by its own."""
    listed = [{"Name": each, "Value": value} for each, value in dimensions.items()]
    own = cloudwatch_name(name) if namespace == NAMESPACE else name
    described = {"Namespace": namespace, "MetricName": own, "Dimensions": listed}
    return {"Metric": described, "Period": period_s, "Stat": statistic}
