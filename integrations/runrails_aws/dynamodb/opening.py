"""From a URL to a store: ``dynamodb://TABLE?region=eu-west-1&endpoint=http://127.0.0.1:8000``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.clocks import system_ms
from runrails.errors import ConfigError
from runrails_aws.dynamodb.failures import no_driver
from runrails_aws.dynamodb.schema import check_name
from runrails_aws.dynamodb.store import DynamoDBStore

if TYPE_CHECKING:
    from runrails.clocks import Clock

__all__ = ["open_url"]

_FORM = "Write dynamodb://TABLE?region=eu-west-1; profile=NAME and endpoint=http://HOST:PORT may follow after &."


def open_url(url: str, clock: Clock | None = None) -> DynamoDBStore:
    """
    The store of a URL. Nothing is sent before its first verb.

    Raises:
        ConfigError: It names no table, or has an option that there is not.
    """
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
    unknown = sorted(set(given) - {"region", "endpoint", "profile"})
    if unknown or len(given) != len(options):
        raise ConfigError("A DynamoDB store's options are region, endpoint and profile, each once.", next_step=_FORM)
    endpoint = given.get("endpoint") or None
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError("The endpoint of a DynamoDB store is an http or https URL.", next_step=_FORM)
    if find_spec("boto3") is None:
        raise no_driver()
    return DynamoDBStore(
        check_name(parts.netloc), region=given.get("region") or None, endpoint=endpoint,
        profile=given.get("profile") or None,
        # A host's own clock is what a guard gives by default, and what hosts do not agree on: the server's counts.
        clock=None if clock is system_ms else clock,
    )  # fmt: skip
