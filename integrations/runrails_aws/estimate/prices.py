"""
On-demand prices in us-east-1, in US dollars, without free tiers, discounts or taxes.

AWS's own pages were out of reach when this was written, so each is what third parties give that quote them. They change
seldom and differ by region (a tenth to a third more in most): `runrails aws estimate --price NAME=USD` says another.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

__all__ = ["AS_OF", "PRICES", "REGION", "Price"]

AS_OF = "2026-11"
REGION = "us-east-1"


class Price(NamedTuple):
    """A price of one unit."""

    usd: Decimal
    unit: str
    page: str
    """AWS's own page about it, to compare with."""


_FARGATE = "https://aws.amazon.com/fargate/pricing/"
_ALB = "https://aws.amazon.com/elasticloadbalancing/pricing/"
_VPC = "https://aws.amazon.com/vpc/pricing/"
_WAF = "https://aws.amazon.com/waf/pricing/"
_DYNAMODB = "https://aws.amazon.com/dynamodb/pricing/on-demand/"
_CLOUDWATCH = "https://aws.amazon.com/cloudwatch/pricing/"
_LAMBDA = "https://aws.amazon.com/lambda/pricing/"

PRICES: dict[str, Price] = {
    "fargate-vcpu": Price(Decimal("0.03238"), "vCPU-hour, ARM", _FARGATE),
    "fargate-gb": Price(Decimal("0.00356"), "GB-hour, ARM", _FARGATE),
    "alb": Price(Decimal("0.0225"), "hour", _ALB),
    "alb-lcu": Price(Decimal("0.008"), "LCU-hour", _ALB),
    "ipv4": Price(Decimal("0.005"), "public address and hour", _VPC),
    "nat": Price(Decimal("0.045"), "hour", _VPC),
    "nat-gb": Price(Decimal("0.045"), "GB", _VPC),
    "waf-acl": Price(Decimal(5), "month", _WAF),
    "waf-rule": Price(Decimal(1), "rule and month", _WAF),
    "waf-million": Price(Decimal("0.60"), "million requests", _WAF),
    "dynamodb-writes": Price(Decimal("0.625"), "million write units", _DYNAMODB),
    "dynamodb-reads": Price(Decimal("0.125"), "million read units", _DYNAMODB),
    "dynamodb-gb": Price(Decimal("0.25"), "GB-month", _DYNAMODB),
    "dynamodb-recovery-gb": Price(Decimal("0.20"), "GB-month of point-in-time recovery", _DYNAMODB),
    "kms-key": Price(Decimal(1), "key and month", "https://aws.amazon.com/kms/pricing/"),
    "metric": Price(Decimal("0.30"), "metric and month", _CLOUDWATCH),
    "alarm-metric": Price(Decimal("0.10"), "metric of an alarm and month", _CLOUDWATCH),
    "dashboard": Price(Decimal(3), "month", _CLOUDWATCH),
    "log-gb": Price(Decimal("0.50"), "GB taken in", _CLOUDWATCH),
    "log-kept-gb": Price(Decimal("0.03"), "GB-month kept", _CLOUDWATCH),
    "lambda-million": Price(Decimal("0.20"), "million invocations", _LAMBDA),
    "lambda-gb-second": Price(Decimal("0.0000133334"), "GB-second, ARM", _LAMBDA),
    "out-gb": Price(Decimal("0.09"), "GB to the internet", "https://aws.amazon.com/ec2/pricing/on-demand/"),
}
