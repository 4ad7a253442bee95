"""
Secrets in AWS Systems Manager's Parameter Store: `ssm:///name` and `ssm:///name:version`.

Only a SecureString is taken, and only decrypted. An answer that was not decrypted is a text like any other, and would
silently become a key that everybody who may read parameters knows.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from runrails.errors import ConfigError
from runrails_aws.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["read"]

_REST = re.compile(r"//(/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*)(?::([1-9][0-9]{0,8}))?")
_NAME_CHARS_MAX = 1_011
"""https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-parameter-name-constraints.html"""
_SEALED = ("kms:", "AQICA")
"""How a value begins that was not decrypted: with moto's own mark, and with the base64 of KMS's header."""


class _Client(Protocol):
    def get_parameter(self, **request: object) -> Mapping[str, object]: ...


def read(rest: str, *, what: str, client: _Client | None = None) -> str:
    """
    Read a parameter.

    Args:
        rest: ``///name`` or ``///name:version``.
        what: The setting that refers to it, for the error.
        client: A client of boto3's `ssm`; by default one is made, for the region and credentials that boto3 finds.

    Raises:
        ConfigError: There is no such parameter, it cannot be read, or it is not a decrypted SecureString.
    """
    found = _REST.fullmatch(rest)
    if found is None or len(found[1]) > _NAME_CHARS_MAX:
        raise ConfigError(
            f"{what} must name a parameter: ssm:///name or ssm:///name:version.",
            next_step="Write the parameter's full name after ssm://, and a version only as a number.",
            setting=what,
        )
    name, version = found[1], found[2]
    asked = name if version is None else f"{name}:{version}"
    parameter = _ask(client or _connect(what), asked, what)
    if parameter.get("Name") != name or (version is not None and parameter.get("Version") != int(version)):
        raise _unusable(what, name, "the answer is for another parameter")
    if parameter.get("Type") != "SecureString":
        raise _unusable(what, name, "it is not a SecureString")
    value = parameter.get("Value")
    if not isinstance(value, str) or not value:
        raise _unusable(what, name, "it has no value")
    if value.startswith(_SEALED):
        raise _unusable(what, name, "it came without having been decrypted")
    return value


def _ask(client: _Client, asked: str, what: str) -> Mapping[str, object]:
    try:
        with quietly():
            answer = client.get_parameter(Name=asked, WithDecryption=True)
    except Exception as error:  # noqa: BLE001 -- botocore makes its errors as it goes, and their text may quote anything
        code = _code(error)
    else:
        parameter = answer.get("Parameter")
        return cast("Mapping[str, object]", parameter) if isinstance(parameter, dict) else {}
    raise ConfigError(
        f"The parameter {asked} that {what} refers to cannot be read: {code}.",
        next_step="Check its name and version, the region, and that ssm:GetParameter and kms:Decrypt are allowed.",
        setting=what,
        reason=code,
    )


def _connect(what: str) -> _Client:
    try:
        connect = cast("Callable[..., _Client]", import_module("boto3").client)
        config = cast("Callable[..., object]", import_module("botocore.config").Config)
    except ImportError:
        raise ConfigError(f"{what} needs boto3.", next_step="pip install 'runrails[aws]'", setting=what) from None
    try:
        # A program that starts may wait a moment, not minutes.
        return connect("ssm", config=config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 3}))
    except Exception as error:  # noqa: BLE001 -- as above: no region, or a broken profile
        code = _code(error)
    raise ConfigError(
        f"boto3 cannot reach the Parameter Store that {what} refers to: {code}.",
        next_step="Set AWS_REGION and credentials for this process.",
        setting=what,
        reason=code,
    )


def _code(error: Exception) -> str:
    """AWS's own code where it answered; else what kind of error it was."""
    response: object = getattr(error, "response", None)
    found: object = response.get("Error") if isinstance(response, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- botocore publishes no types
    code: object = found.get("Code") if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- as above
    return code if isinstance(code, str) and re.fullmatch(r"[A-Za-z.]{1,64}", code) else type(error).__name__


def _unusable(what: str, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"The parameter {name} that {what} refers to cannot be used: {why}.",
        next_step="Store it as a SecureString, and allow this process kms:Decrypt for its key.",
        setting=what,
    )
