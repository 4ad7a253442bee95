"""Making a dashboard and alarms on AWS. Each call replaces what has the same name, so again is nothing new."""

from __future__ import annotations

import json
import re
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from runrails.errors import ConfigError, RunrailsError
from runrails_aws.monitoring.alarms import alarms_of, detector_of
from runrails_aws.monitoring.dashboard import dashboard_of
from runrails_aws.monitoring.watched import check_watched, prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails_aws.monitoring.watched import Watched

__all__ = ["CloudWatch", "Topics", "client_of", "put_alarms", "put_dashboard", "topic_of"]

_T = TypeVar("_T")
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,256}")
_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}")
_CODE = re.compile(r"[A-Za-z.]{1,64}")
"""What is none of AWS's own words is not told."""


class CloudWatch(Protocol):
    """A client of boto3's `cloudwatch`, as far as it is used."""

    def put_dashboard(self, **request: object) -> dict[str, object]:
        """See AWS."""
        ...

    def put_metric_alarm(self, **request: object) -> object:
        """See AWS."""
        ...

    def put_anomaly_detector(self, **request: object) -> object:
        """See AWS."""
        ...


class Topics(Protocol):
    """A client of boto3's `sns`, as far as it is used."""

    def create_topic(self, **request: object) -> dict[str, object]:
        """See AWS."""
        ...


def put_dashboard(cloudwatch: CloudWatch, watched: Watched) -> str:
    """
    Make it, or replace it. Its name.

    Raises:
        ConfigError: A name is malformed, or AWS does not take the dashboard.
    """
    name = prefix_of(check_watched(watched))
    body = json.dumps(dashboard_of(watched))
    answer = _asked(lambda: cloudwatch.put_dashboard(DashboardName=name, DashboardBody=body))
    if answer.get("DashboardValidationMessages"):
        raise ConfigError("CloudWatch has objections to the dashboard.", next_step="Compare it with --dry-run's.")
    return name


def put_alarms(cloudwatch: CloudWatch, watched: Watched, topic: str | None) -> list[str]:
    """
    Make what learns the cost of an hour, and every alarm, or replace them. Their names.

    Raises:
        ConfigError: A name is malformed, or AWS refuses.
    """
    requests = alarms_of(check_watched(watched), topic)
    _asked(lambda: cloudwatch.put_anomaly_detector(**detector_of(watched)))
    for each in requests:
        _asked(partial(cloudwatch.put_metric_alarm, **each))
    return [str(each["AlarmName"]) for each in requests]


def topic_of(named: str, topics: Callable[[], Topics]) -> str:
    """
    The ARN of a topic: itself, or that of the topic of this name, which is made if it is not there.

    Raises:
        ConfigError: It is neither, or AWS refuses.
    """
    if _ARN.fullmatch(named):
        return named
    if not _TOPIC.fullmatch(named):
        raise ConfigError("--topic is neither a topic's name nor its ARN.", next_step="Write runrails-alarms.")
    return str(_asked(lambda: topics().create_topic(Name=named))["TopicArn"])


def client_of(service: str, *, region: str, profile: str | None) -> object:
    """
    A client of AWS.

    Raises:
        ConfigError: boto3 is not installed, or there is no such profile.
    """
    try:
        session = cast("Callable[..., object]", import_module("boto3.session").Session)
    except ImportError as error:
        raise ConfigError("boto3 is not installed.", next_step='pip install "runrails[aws]"') from error
    return _asked(lambda: cast("_Session", session(profile_name=profile)).client(service, region_name=region))


class _Session(Protocol):
    def client(self, service: str, **settings: object) -> object: ...


def _asked(ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except RunrailsError:
        raise
    except Exception as error:
        told = cast("dict[str, dict[str, object]]", getattr(error, "response", None) or {})
        code = str(told.get("Error", {}).get("Code", type(error).__name__))
        raise ConfigError(
            f"AWS refused: {code if _CODE.fullmatch(code) else 'for a reason of its own'}.",
            next_step="Check the credentials, the region, and what they may do; --dry-run prints what would be sent.",
        ) from error
