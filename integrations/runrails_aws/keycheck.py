"""
Asking AWS whose access keys these are: `sts:GetCallerIdentity`, which is free and which no policy can deny.

A key of the vault for Bedrock is ``ACCESS_KEY_ID:SECRET_ACCESS_KEY``, with ``:SESSION_TOKEN`` behind it if it ends.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from runrails.credentials.validation import Validation
from runrails.secretvalue import Secret
from runrails_aws.dynamodb.failures import code_of
from runrails_aws.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.credentials.records import Credential

__all__ = ["AccessKeys", "access_keys", "check"]

_FORM = re.compile(r"((?:AKIA|ASIA)[A-Z0-9]{12,124}):([A-Za-z0-9/+=]{16,128})(?::([A-Za-z0-9/+=]{16,8192}))?")
_REGION = "us-east-1"
_UNKNOWN = frozenset({
    "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidAccessKeyId",
})  # fmt: skip
"""By which AWS says that it does not know a key, or that its secret is another one."""


class _STS(Protocol):
    def get_caller_identity(self) -> object: ...


class _Session(Protocol):
    def client(self, name: str, **settings: object) -> _STS: ...


class AccessKeys(NamedTuple):
    """What signs a request to AWS. Its repr shows nothing."""

    key_id: str
    secret: Secret
    token: Secret | None

    def __repr__(self) -> str:
        return "AccessKeys(…)"


def access_keys(text: str) -> AccessKeys | None:
    """The parts of a key of the vault; None if it is none of that form."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    return AccessKeys(found[1], Secret(found[2]), Secret(found[3]) if found[3] else None)


def check(credential: Credential, *, timeout_ms: int) -> Validation:
    """Ask STS in the key's region. See `runrails.credentials.validation.Check`."""
    keys = access_keys(credential.secret.reveal())
    if keys is None:
        return Validation("invalid", "malformed")
    if credential.info.base_url is not None:
        return Validation("unverified", "address_not_allowed")
    return _asked(keys, credential.info.region or _REGION, timeout_ms)


def _asked(keys: AccessKeys, region: str, timeout_ms: int) -> Validation:
    try:
        client = _sts(keys, region, timeout_ms)
        with quietly():
            client.get_caller_identity()
        return Validation("valid", "accepted")
    except Exception as error:  # noqa: BLE001 -- botocore makes its errors as it goes, and their words may have the key
        code = code_of(error) if hasattr(error, "response") else None  # without one nobody has answered
    if code is None:
        return Validation("unverified", "connection")
    if code in _UNKNOWN:
        return Validation("invalid", "refused")
    return Validation("unverified", "expired" if code == "ExpiredToken" else "provider_error")


def _sts(keys: AccessKeys, region: str, timeout_ms: int) -> _STS:
    session = cast("Callable[..., _Session]", import_module("boto3.session").Session)(
        aws_access_key_id=keys.key_id, aws_secret_access_key=keys.secret.reveal(),
        aws_session_token=None if keys.token is None else keys.token.reveal(),
    )  # fmt: skip
    config = cast("Callable[..., object]", import_module("botocore.config").Config)
    suffix = ".cn" if region.startswith("cn-") else ""
    # Everything is said here that the environment could say otherwise: the address, proxies, how often it is asked.
    return session.client(
        "sts", region_name=region, endpoint_url=f"https://sts.{region}.amazonaws.com{suffix}",
        config=config(
            connect_timeout=timeout_ms / 1_000, read_timeout=timeout_ms / 1_000, retries={"total_max_attempts": 1},
            proxies={}, signature_version="v4",
        ),
    )  # fmt: skip
