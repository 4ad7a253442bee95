"""
What our design costs a month: what is paid for being there, and what comes with each request. Pure.

A month has 730 hours. Write units a call are those of the ledger's formula; see "Many hosts: DynamoDB" in the docs.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from runrails.metrics import sent_to_cloudwatch
from runrails_aws.estimate.prices import PRICES
from runrails_aws.monitoring.alarms import alarms_of
from runrails_aws.monitoring.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ARTICLE", "HOURS", "Estimate", "Ledger", "Line", "Plan", "Variant", "estimate"]

HOURS = 730
Variant = Literal["fargate", "lambda"]
Ledger = Literal["exact", "leased"]

ARTICLE = (
    ("API Gateway", Decimal("3.50")), ("Lambda", Decimal("8.20")), ("ECS Fargate", Decimal("15.40")),
    ("DynamoDB", Decimal("6.80")), ("Application Load Balancer", Decimal("16.20")), ("CloudWatch", Decimal("4.30")),
)  # fmt: skip
"""What a platform of this kind was reported to cost at 1,500 requests a day; without NAT gateway, addresses or WAF."""

_WRITE_UNITS = {"exact": {1: Decimal(10), 4: Decimal(22)}, "leased": {1: Decimal("2.4"), 4: Decimal("2.4")}}
_NOTE_UNITS, _READ_UNITS = 1, 3
"""Which run a conversation belongs to is noted with each answer; keys and notes are read, if another task made them."""
_RECORD_BYTES = 1_024
_LOG_LINE_BYTES = 420
"""A request's line, were all of them logged."""
_EMF_BYTES = 1_200
"""What a process tells of its metrics, each minute; a function tells it with each request."""
_VALUES = {"kind": 3, "code": 4, "reason": 3}
"""Values that a dimension has in a month, as a rule."""
_ANOMALY_METRICS = 3
"""An alarm on a learned band is billed as its metric and the band's two bounds."""
_WAIT_S = Decimal(3)
"""A function waits for the model, and is billed for it."""
_GB = Decimal(10**9)
_MILLION = Decimal(10**6)
_DAYS = Decimal(HOURS) / 24


class Plan(NamedTuple):
    """What is to be served, and how."""

    variant: Variant = "fargate"
    requests_per_day: int = 1_500
    ledger: Ledger = "exact"
    scopes: Literal[1, 4] = 4
    """Budgets that a call draws on: a run alone, or run, user, key and organisation."""
    tasks: int = 2
    task_vcpu: Decimal = Decimal("0.25")
    task_gb: Decimal = Decimal("0.5")
    nat_gateways: int = 1
    """One for each zone survives the loss of a zone."""
    geo_rule: bool = False
    request_kb: int = 8
    """Of a request and its answer together, each way to the model and to the caller."""
    call_usd: Decimal = Decimal("0.01")
    """What the model asks for a call, on average."""


class Line(NamedTuple):
    """What one thing costs a month."""

    service: str
    what: str
    fixed_usd: Decimal
    variable_usd: Decimal
    """At the plan's traffic."""


class Estimate(NamedTuple):
    """The whole table."""

    plan: Plan
    lines: tuple[Line, ...]
    guard_usd_per_call: Decimal
    """What the ledger asks for one call."""

    @property
    def fixed_usd(self) -> Decimal:
        """What is paid without a single request."""
        return sum((line.fixed_usd for line in self.lines), Decimal(0))

    @property
    def variable_usd(self) -> Decimal:
        """What the requests of a month add."""
        return sum((line.variable_usd for line in self.lines), Decimal(0))

    @property
    def models_usd(self) -> Decimal:
        """What models ask a month, which is passed on to whoever calls them."""
        return _requests(self.plan) * self.plan.call_usd

    @property
    def guard_percent(self) -> Decimal:
        """That beside what the model asks for it, in percent."""
        return 100 * self.guard_usd_per_call / self.plan.call_usd


def estimate(plan: Plan, prices: Mapping[str, Decimal] | None = None) -> Estimate:
    """What it costs; `prices` replaces some of `PRICES`, by name."""
    usd = {name: price.usd for name, price in PRICES.items()} | dict(prices or {})
    lines = _fargate(plan, usd) if plan.variant == "fargate" else _lambda(plan, usd)
    guard = _units_per_call(plan) * usd["dynamodb-writes"] / _MILLION
    return Estimate(plan, (*lines, *_common(plan, usd)), guard)


def _requests(plan: Plan) -> Decimal:
    return plan.requests_per_day * _DAYS


def _traffic_gb(plan: Plan) -> Decimal:
    return _requests(plan) * plan.request_kb * 1_024 / _GB


def _units_per_call(plan: Plan) -> Decimal:
    return _WRITE_UNITS[plan.ledger][plan.scopes]


def _fargate(plan: Plan, usd: Mapping[str, Decimal]) -> Iterator[Line]:
    hourly = plan.task_vcpu * usd["fargate-vcpu"] + plan.task_gb * usd["fargate-gb"]
    size = f"{plan.tasks} tasks of {plan.task_vcpu} vCPU and {plan.task_gb} GB"
    yield Line("ECS Fargate", size, plan.tasks * hourly * HOURS, Decimal(0))
    # Its capacity units are counted by the greatest of four measures; for a gateway that is bytes, 1 GB an hour.
    yield Line("Application Load Balancer", "", usd["alb"] * HOURS, _traffic_gb(plan) * usd["alb-lcu"])
    gateways = plan.nat_gateways
    yield Line("NAT gateway", f"{gateways}", gateways * usd["nat"] * HOURS, _traffic_gb(plan) * usd["nat-gb"])
    addresses, what = 2 + gateways, "two of the balancer, one a NAT gateway"
    yield Line("Public IPv4", f"{addresses}: {what}", addresses * usd["ipv4"] * HOURS, Decimal(0))
    rules = 2 if plan.geo_rule else 1
    waf = usd["waf-acl"] + rules * usd["waf-rule"]
    yield Line("WAF", f"{rules} rule{'s' * (rules > 1)}", waf, _requests(plan) / _MILLION * usd["waf-million"])


def _lambda(plan: Plan, usd: Mapping[str, Decimal]) -> Iterator[Line]:
    seconds = _requests(plan) * _WAIT_S * plan.task_gb
    cost = seconds * usd["lambda-gb-second"] + _requests(plan) / _MILLION * usd["lambda-million"]
    yield Line("Lambda", f"{plan.task_gb} GB for {_WAIT_S} s a request, function URL", Decimal(0), cost)


def _common(plan: Plan, usd: Mapping[str, Decimal]) -> Iterator[Line]:
    requests = _requests(plan)
    kept_gb = requests * _RECORD_BYTES / _GB
    written = requests * (_units_per_call(plan) + _NOTE_UNITS) / _MILLION * usd["dynamodb-writes"]
    read = requests * _READ_UNITS / _MILLION * usd["dynamodb-reads"]
    stored = kept_gb * (usd["dynamodb-gb"] + usd["dynamodb-recovery-gb"])
    what = f"{plan.ledger}, {plan.scopes} budgets a call; a month's records"
    yield Line("DynamoDB", what, Decimal(0), written + read + stored)
    yield Line("KMS", "one key", usd["kms-key"], Decimal(0))
    metrics, alarms = _metrics(), _alarm_metrics(plan)
    fixed = metrics * usd["metric"] + alarms * usd["alarm-metric"] + usd["dashboard"]
    logged = usd["log-gb"] + usd["log-kept-gb"]
    by_request = plan.variant == "lambda"
    emf_gb = Decimal(0 if by_request else plan.tasks * HOURS * 60 * _EMF_BYTES) / _GB
    lines_gb = requests * (_LOG_LINE_BYTES + (_EMF_BYTES if by_request else 0)) / _GB
    told = f"{metrics} metrics, {alarms} of alarms, a dashboard, logs"
    yield Line("CloudWatch", told, fixed + emf_gb * logged, lines_gb * logged)
    yield Line("Data transfer", "to callers and models", Decimal(0), _traffic_gb(plan) * usd["out-gb"])


def _metrics() -> int:
    return sum(1 if each.dimension is None else _VALUES[each.dimension] for each in sent_to_cloudwatch())


def _alarm_metrics(plan: Plan) -> int:
    """As CloudWatch bills them: each metric that an alarm looks at."""
    watched = Watched("us-east-1", "gateway", "ledger", baseline_usd="1.00")
    if plan.variant == "fargate":
        watched = watched._replace(cluster="agents", ecs_service="gateway")
    else:
        watched = watched._replace(function="gateway")
    count = 0
    for alarm in alarms_of(watched, None):
        looked_at = sum("MetricStat" in each for each in cast("list[dict[str, object]]", alarm["Metrics"]))
        count += _ANOMALY_METRICS if "ThresholdMetricId" in alarm else looked_at
    return count
