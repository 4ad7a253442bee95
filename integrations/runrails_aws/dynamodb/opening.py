"""From a URL to a store: ``dynamodb://TABLE?region=eu-west-1&endpoint=http://127.0.0.1:8000``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.clocks import system_ms
from runrails.errors import ConfigError
from runrails_aws.dynamodb.failures import no_driver
from runrails_aws.dynamodb.retention import check_days
from runrails_aws.dynamodb.schema import check_name
from runrails_aws.dynamodb.store import DynamoDBStore

if TYPE_CHECKING:
    from runrails.clocks import Clock

__all__ = ["Parts", "open_url", "parse_url"]

_FORM = (
    "Write dynamodb://TABLE?region=eu-west-1; profile=NAME, endpoint=http://HOST:PORT and retention_days=90 may follow "
    "after &."
)


class Parts(NamedTuple):
    """What a URL says."""

    table: str
    region: str | None
    endpoint: str | None
    profile: str | None
    retention_days: int | None = None


def open_url(url: str, clock: Clock | None = None) -> DynamoDBStore:
    """
    The store of a URL. Nothing is sent before its first verb.

    Raises:
        ConfigError: It names no table, or has an option that there is not.
    """
    parts = parse_url(url)
    return DynamoDBStore(
        parts.table, region=parts.region, endpoint=parts.endpoint, profile=parts.profile,
        retention_days=parts.retention_days,
        # A host's own clock is what a guard gives by default, and what hosts do not agree on: the server's counts.
        clock=None if clock is system_ms else clock,
    )  # fmt: skip


def parse_url(url: str) -> Parts:
    """What a URL says. Raises ConfigError as `open_url`."""
    from importlib.util import find_spec
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True)
    except ValueError as error:
        raise ConfigError("This is no URL of a DynamoDB store.", next_step=_FORM) from error
    given = dict(options)
    if parts.scheme != "dynamodb" or parts.path not in {"", "/"} or parts.fragment or "@" in parts.netloc:
        raise ConfigError("A DynamoDB store's URL has a table and options, nothing else.", next_step=_FORM)
    unknown = sorted(set(given) - {"region", "endpoint", "profile", "retention_days"})
    if unknown or len(given) != len(options):
        raise ConfigError(
            "A DynamoDB store's options are region, endpoint, profile and retention_days, each once.", next_step=_FORM
        )
    days = given.get("retention_days", "")
    if days and not (days.isascii() and days.isdigit() and len(days) <= 5):
        raise ConfigError("retention_days of a DynamoDB store is a whole number.", next_step=_FORM)
    endpoint = given.get("endpoint") or None
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError("The endpoint of a DynamoDB store is an http or https URL.", next_step=_FORM)
    if find_spec("boto3") is None:
        raise no_driver()
    return Parts(
        check_name(parts.netloc), given.get("region") or None, endpoint, given.get("profile") or None,
        check_days(int(days) if days else None),
    )  # fmt: skip
