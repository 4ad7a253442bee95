"""
The templates as they are printed: a file for people to read, and in it what is decided elsewhere in this package, so
that it is written once: the table, what a process must be allowed, the alarms and the dashboard.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from runrails_aws.dynamodb.schema import TTL, definition, policy
from runrails_aws.monitoring.alarms import alarms_of, detector_of
from runrails_aws.monitoring.dashboard import dashboard_of
from runrails_aws.monitoring.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["VARIANTS", "Variant", "template"]

Variant = Literal["fargate", "lambda"]
VARIANTS: tuple[Variant, ...] = ("fargate", "lambda")
Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | bool | None"

_NAME = "runrails-${Service}"
_BASELINE = "${HourlyBaseline}"
_WITH_BASELINE = "cost-over-baseline"
_PLACED = "RUNRAILS-LEDGER"
"""A name that a table may have, to be replaced by the parameter."""


def template(variant: Variant) -> str:
    """A template's text, in YAML."""
    text = resources.files("runrails_aws.deploy").joinpath(f"{variant}.yaml").read_text("utf-8")
    text = text.replace("@TABLE@", _flow(_table())).replace("@LEDGER@", _flow(_ledger_policy()))
    return text.replace("@MONITORING@\n", "".join(_lines(_monitoring(variant))))


def _flow(value: Json) -> str:
    """As JSON, which is YAML."""
    return json.dumps(value)


def _lines(named: dict[str, Json]) -> Iterator[str]:
    for name, resource in named.items():
        yield f"  {name}: {_flow(resource)}\n"


def _table() -> Json:
    made = cast("dict[str, Json]", definition(_PLACED))
    encrypted = made.pop("SSESpecification")
    del made["TableName"]
    return {
        "TableName": {"Fn::Sub": _NAME}, **made,
        "SSESpecification": {"SSEEnabled": cast("dict[str, Json]", encrypted)["Enabled"]},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "TimeToLiveSpecification": {"AttributeName": TTL, "Enabled": True},
    }  # fmt: skip


def _ledger_policy() -> Json:
    allowed = policy(_PLACED, region="${AWS::Region}", account="${AWS::AccountId}")
    return _substituted(
        cast("Json", allowed), ("arn:aws:", "arn:${AWS::Partition}:"), (f"table/{_PLACED}", f"table/{_NAME}")
    )


def _monitoring(variant: Variant) -> dict[str, Json]:
    watched = _watched(variant)
    made: dict[str, Json] = {
        "CostAnomalies": _resource("AWS::CloudWatch::AnomalyDetector", cast("dict[str, Json]", detector_of(watched))),
        "Dashboard": _resource(
            "AWS::CloudWatch::Dashboard",
            {"DashboardName": _NAME, "DashboardBody": json.dumps(dashboard_of(watched), separators=(",", ":"))},
        ),
    }
    for alarm in cast("Sequence[dict[str, Json]]", alarms_of(watched, "TOPIC")):
        name = str(alarm["AlarmName"]).removeprefix(f"{_NAME}-")
        resource = _resource("AWS::CloudWatch::Alarm", alarm)
        if name == _WITH_BASELINE:
            resource["Condition"] = "WithBaseline"
        made[f"{name.title().replace('-', '')}Alarm"] = resource
    return made


def _watched(variant: Variant) -> Watched:
    watched = Watched("${AWS::Region}", "${Service}", "${Table}", baseline_usd=_BASELINE)
    if variant == "lambda":
        return watched._replace(function="${Function}")
    balancer = "${Balancer.LoadBalancerFullName}"
    return watched._replace(cluster="${Cluster}", ecs_service="${Gateway.Name}", balancer=balancer)


def _resource(kind: str, properties: dict[str, Json]) -> dict[str, Json]:
    return {"Type": kind, "Properties": _substituted(properties)}


def _substituted(value: Json, *replaced: tuple[str, str]) -> Json:
    """The same, with names of other resources put in where texts ask for them."""
    if isinstance(value, dict):
        return {name: _substituted(part, *replaced) for name, part in value.items()}
    if isinstance(value, list):
        return [_substituted(part, *replaced) for part in value]
    if not isinstance(value, str):
        return value
    if value == "TOPIC":
        return {"Ref": "Topic"}
    for old, new in replaced:
        value = value.replace(old, new)
    # A dashboard's own placeholders are not CloudFormation's.
    kept = value.replace("${PROP(", "${!PROP(")
    return {"Fn::Sub": kept} if "${" in kept else value
