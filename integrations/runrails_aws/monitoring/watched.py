"""What a dashboard and alarms are about: one gateway, and what of AWS's it runs on."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from runrails.errors import ConfigError

__all__ = ["Watched", "check_watched", "prefix_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_BALANCER = re.compile(r"app/[A-Za-z0-9-]{1,32}/[0-9a-f]{16}")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_BASELINE_MAX = Decimal(10**6)


class Watched(NamedTuple):
    """What is watched. What is None is not there, and no widget or alarm is about it."""

    region: str
    service: str = "gateway"
    """As in `RUNRAILS_EMF_SERVICE`."""
    table: str | None = None
    """The ledger's table on DynamoDB."""
    cluster: str | None = None
    ecs_service: str | None = None
    balancer: str | None = None
    """The load balancer as CloudWatch names it: ``app/NAME/ID``, the end of its ARN."""
    function: str | None = None
    """A Lambda function."""
    baseline_usd: str | None = None
    """What an ordinary hour costs, in dollars."""


def check_watched(watched: Watched) -> Watched:
    """
    The same, if every name is one.

    Raises:
        ConfigError: One is not, or half of a pair is missing.
    """
    checks = (
        (_REGION, watched.region, "region", "for instance eu-west-1"), (_NAME, watched.service, "service", "a name"),
        (_TABLE, watched.table, "table", "a table's name"), (_NAME, watched.cluster, "cluster", "a cluster's name"),
        (_NAME, watched.ecs_service, "ecs-service", "a service's name"),
        (_BALANCER, watched.balancer, "load-balancer", "app/NAME/ID, the end of its ARN"),
        (_NAME, watched.function, "function", "a function's name"),
    )  # fmt: skip
    for pattern, value, what, form in checks:
        if value is not None and not pattern.fullmatch(value):
            raise ConfigError(f"--{what} is malformed.", next_step=f"Write {form}.")
    if (watched.cluster is None) != (watched.ecs_service is None):
        raise ConfigError("A service on ECS is named by its cluster and its own name.", next_step="Give both.")
    if watched.baseline_usd is not None:
        _check_baseline(watched.baseline_usd)
    return watched


def _check_baseline(text: str) -> None:
    try:
        dollars = Decimal(text)
        fits = dollars.is_finite() and 0 < dollars <= _BASELINE_MAX
    except InvalidOperation:
        fits = False
    # It becomes part of an expression, which knows plain numbers alone.
    if not fits or not re.fullmatch(r"\d{1,7}(?:\.\d{1,12})?", text):
        raise ConfigError("--baseline must be dollars an hour, more than 0.", next_step="Write it as 4.00.")


def prefix_of(watched: Watched) -> str:
    """What the names of all that is made begin with."""
    return f"runrails-{watched.service}"
