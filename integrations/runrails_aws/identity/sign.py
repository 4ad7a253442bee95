"""The caller's side: a proof from the AWS credentials it has, made without asking anybody."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from runrails.clocks import Clock, system_ms
from runrails.errors import ConfigError
from runrails.secretvalue import Secret
from runrails_aws.identity.canonical import BODY, METHOD, PATH, check_server_id, unsigned_request
from runrails_aws.identity.proof import Proof
from runrails_aws.identity.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails_aws.identity.canonical import STSRequest
    from runrails_aws.identity.regions import Region

__all__ = ["Credentials", "Session", "sign_proof"]


_LOG_IN = "Set AWS_PROFILE, or log in with `aws sso login`."


class Credentials(Protocol):
    """An access key: botocore's, once frozen."""

    @property
    def access_key(self) -> str:
        """Its public id."""
        ...

    @property
    def secret_key(self) -> str:
        """Its secret."""
        ...

    @property
    def token(self) -> str | None:
        """The session's token, if it is temporary."""
        ...


class _Refreshing(Protocol):
    def get_frozen_credentials(self) -> Credentials: ...


class Session(Protocol):
    """A session of boto3, or one of botocore: wherever it has its credentials from."""

    def get_credentials(self) -> _Refreshing | None:
        """Its credentials, if it finds any."""
        ...


class _Request(Protocol):
    context: dict[str, object]


class _Signer(Protocol):
    def canonical_request(self, request: _Request) -> str: ...
    def string_to_sign(self, request: _Request, canonical_request: str) -> str: ...
    def signature(self, string_to_sign: str, request: _Request) -> str: ...


def sign_proof(
    server_id: str,
    region: str,
    *,
    session: Session | None = None,
    credentials: Credentials | None = None,
    profile: str | None = None,
    clock: Clock = system_ms,
) -> Proof:
    """
    Prove to one server who the AWS credentials of this process belong to. Nothing is sent; the secret stays here.

    The proof is good for one login within five minutes. One key makes one proof a second: two of the same second are
    the same.

    Args:
        server_id: The server's name for itself, as its operator gives it. Never take it from the server: another one
            could ask for a proof in its name.
        region: Whose STS the server shall ask, one that it allows.
        session: A boto3 session; by default one is made, which looks where AWS's tools look.
        credentials: Credentials instead of a session's.
        profile: A profile of the AWS configuration, for a session that is made here.
        clock: Wall clock in milliseconds since the epoch.

    Raises:
        ConfigError: No credentials that can be used, no such region or profile, a malformed server id, or boto3 is not
            installed.
    """
    check_server_id(server_id)
    where = REGIONS.get(region)
    if where is None:
        # Not as it was given: what somebody puts into a wrong place may be a secret.
        raise ConfigError("There is no region of that name.", next_step="Give one that the server allows.")
    key = credentials or _found(session, profile)
    date = _date(clock())
    token = key.token or None
    signature = _signature(unsigned_request(where, server_id, date, token), where, date, key)
    try:
        return Proof(
            region=region, key_id=key.access_key, date=date, signature=Secret(signature),
            token=None if token is None else Secret(token),
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"These are no credentials of AWS. {error}", next_step=_LOG_IN) from None


def _found(session: Session | None, profile: str | None) -> Credentials:
    try:
        make = cast("Callable[..., Session]", import_module("boto3.session").Session)
        expected = cast("type[Exception]", import_module("botocore.exceptions").BotoCoreError)
    except ImportError:
        raise ConfigError("boto3 is missing.", next_step="pip install 'runrails[aws]'") from None
    try:
        found = (session or make(profile_name=profile)).get_credentials()
        frozen = None if found is None else found.get_frozen_credentials()
    except expected as error:
        raise ConfigError(f"AWS gives no credentials: {type(error).__name__}.", next_step=_LOG_IN) from None
    if frozen is None:
        raise ConfigError("There are no AWS credentials here.", next_step=_LOG_IN)
    return frozen


def _signature(request: STSRequest, region: Region, date: str, key: Credentials) -> str:
    make_signer = cast("Callable[..., _Signer]", import_module("botocore.auth").SigV4Auth)
    make_request = cast("Callable[..., _Request]", import_module("botocore.awsrequest").AWSRequest)
    signer = make_signer(key, "sts", region.name)
    wanted = make_request(method=METHOD, url=f"https://{request.host}{PATH}", data=BODY, headers=dict(request.headers))
    wanted.context["timestamp"] = date
    # Not its `add_auth`, which logs the session's token and the signature where logging is at DEBUG.
    return signer.signature(signer.string_to_sign(wanted, signer.canonical_request(wanted)), wanted)


def _date(now_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(now_ms // 1_000, UTC).strftime("%Y%m%dT%H%M%SZ")
