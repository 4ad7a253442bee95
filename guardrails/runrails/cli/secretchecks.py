"""
What `runrails doctor` looks at of who may come in: each secret that a setting names is there, strong, and for one
thing; and callers with AWS credentials, if settings speak of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.cli.checks import Finding
from runrails.errors import ConfigError
from runrails.identity.opening import aws_of_environment
from runrails.identity.startup import examine_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_secrets"]


def check_secrets(vault: str | None = None) -> Iterator[Finding]:
    """One row for each setting; none shows more than the names of secrets."""
    found = examine_secrets(vault)
    for each in found:
        if each.fault is None:
            yield Finding("secrets", "ok", f"{each.setting}: {each.told}")
        else:
            yield Finding("secrets", "problem", each.fault.what, each.fault.next_step)
    if not found:
        yield Finding("secrets", "ok", "none are set: no API keys, tokens or provider keys of users")
    yield from _check_aws()


def _check_aws() -> Iterator[Finding]:
    try:
        aws = aws_of_environment()
    except ConfigError as error:
        yield Finding("AWS callers", "problem", error.what, error.next_step)
        return
    if aws is not None:
        yield Finding("AWS callers", "ok", aws.told)
