"""
Master keys in AWS KMS: the key itself never leaves it, and whoever disables it there ends every record sealed with it.

Every request names the key by its ARN and carries owner, provider, label, version and purpose as encryption context:
KMS opens a data key only with the key and for the context that it was made for, and CloudTrail says for which that was.
"""

from __future__ import annotations

import re
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Protocol, cast

from runrails.clocks import Clock, monotonic_ms
from runrails.credentials.errors import CredentialUnreadable, Reason
from runrails.credentials.wrapping import DataKey
from runrails.errors import ConfigError
from runrails.forks import renew_after_fork
from runrails.secretvalue import Secret
from runrails_aws.dynamodb.failures import Trouble, code_of, is_about_credentials, trouble_of
from runrails_aws.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.credentials.wrapping import Context

__all__ = ["AWAY_MS", "KMSWrapper", "open_wrapper"]

AWAY_MS = 2_000
_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]{3,32}):[0-9]{12}:key/[A-Za-z0-9-]{1,64}")
_REASONS: Mapping[str, Reason] = {
    "AccessDeniedException": "kms_denied",
    "AccessDenied": "kms_denied",
    "DisabledException": "kms_disabled",
    "KMSInvalidStateException": "kms_disabled",
    "NotFoundException": "kms_disabled",
    "InvalidCiphertextException": "wrong_key",
    "IncorrectKeyException": "wrong_key",
    "KeyUnavailableException": "kms_unreachable",
    "DependencyTimeoutException": "kms_unreachable",
    "KMSInternalException": "kms_unreachable",
}


class _Client(Protocol):
    def generate_data_key(self, **request: object) -> Mapping[str, object]: ...

    def decrypt(self, **request: object) -> Mapping[str, object]: ...


class KMSWrapper:
    """
    A `KeyWrapper` with one key of AWS KMS. Safe in many threads; a fork gets a client of its own.

    Args:
        key_arn: The key's ARN. No alias: whoever may move one would decide which key opens records.
        client: A client of boto3's `kms`; by default one is made with the first request, for the key's own region, with
            short timeouts. `AWS_ENDPOINT_URL_KMS` sends it to another server.
        monotonic: Milliseconds of a clock that never jumps. For `AWAY_MS` after nobody has answered, nobody is asked:
            else every call that needs a key waits for all the time limits, and takes a thread that others could use.

    Raises:
        ConfigError: That is no key's ARN.
    """

    remote = True

    def __init__(self, key_arn: str, client: _Client | None = None, *, monotonic: Clock = monotonic_ms) -> None:
        found = _ARN.fullmatch(key_arn)
        if found is None:
            raise ConfigError(
                "A master key in AWS KMS is named by its ARN, not by an id or an alias.",
                next_step="Write kms:arn:aws:kms:REGION:ACCOUNT:key/ID; `aws kms describe-key --key-id …` prints it.",
            )
        self._key_arn = key_arn
        self._region = found[1]
        self._given = client
        self._client: _Client | None = None
        self._lock = Lock()
        self._monotonic = monotonic
        self._away_until_ms: int | None = None
        renew_after_fork(self)

    @property
    def active(self) -> str:
        """The key's ARN."""
        return self._key_arn

    def knows(self, key_id: str) -> bool:
        """Whether that is this key."""
        return key_id == self._key_arn

    def new_data_key(self, context: Context) -> DataKey:
        """A data key that KMS has made for this context. Raises CredentialUnreadable."""
        answer = self._ask(
            lambda client: client.generate_data_key(
                KeyId=self._key_arn, KeySpec="AES_256", EncryptionContext=context.fields()
            )
        )
        return DataKey(_plain(answer), _bytes(answer, "CiphertextBlob"), self._key_arn)

    def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
        """The data key, if it was made with this key for this context. Raises CredentialUnreadable."""
        if key_id != self._key_arn:
            raise CredentialUnreadable("unknown_key")
        answer = self._ask(
            lambda client: client.decrypt(
                KeyId=self._key_arn, CiphertextBlob=wrapped, EncryptionContext=context.fields(),
                EncryptionAlgorithm="SYMMETRIC_DEFAULT",
            )
        )  # fmt: skip
        return _plain(answer)

    def _ask(self, request: Callable[[_Client], Mapping[str, object]]) -> Mapping[str, object]:
        """One answer by this very key. No error of boto3's leaves this, not even as a cause."""
        reason: Reason
        if self._away_until_ms is not None and self._monotonic() < self._away_until_ms:
            raise CredentialUnreadable("kms_unreachable")
        try:
            client = self._connected()
            with quietly():
                answer = request(client)
        except (CredentialUnreadable, ConfigError):
            raise
        except Exception as error:  # noqa: BLE001 -- botocore makes its errors as it goes
            reason = _reason_of(error)
            if reason == "kms_unreachable" and not hasattr(error, "response"):
                self._away_until_ms = self._monotonic() + AWAY_MS
        else:
            self._away_until_ms = None
            if answer.get("KeyId") == self._key_arn:
                return answer
            reason = "kms_unusable"
        raise CredentialUnreadable(reason)

    def _connected(self) -> _Client:
        if self._given is not None:
            return self._given
        with self._lock:
            if self._client is None:
                self._client = _make_client(self._region)
            return self._client

    def after_fork(self) -> None:
        """In a child: connections are the parent's, and another thread of it may have held the lock."""
        self._lock = Lock()
        self._client = None

    def __repr__(self) -> str:
        return f"KMSWrapper({self._key_arn!r})"


def open_wrapper(key: str) -> KMSWrapper:
    """The wrapper of a key's ARN, as ``RUNRAILS_MASTER_KEYS=kms:ARN`` names it. Raises ConfigError."""
    return KMSWrapper(key)


def _make_client(region: str) -> _Client:
    try:
        session = cast("Callable[[], _Session]", import_module("boto3.session").Session)
        config = cast("Callable[..., object]", import_module("botocore.config").Config)
    except ImportError as error:
        raise ConfigError(
            "AWS KMS needs boto3, which is not installed.", next_step="pip install 'runrails[aws]'"
        ) from error
    quick = config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 3, "mode": "standard"})
    # A session of its own: boto3's default one is not for several threads.
    return session().client("kms", region_name=region, config=quick)


class _Session(Protocol):
    def client(self, service: str, **settings: object) -> _Client: ...


def _reason_of(error: Exception) -> Reason:
    known = _REASONS.get(code_of(error))
    if known is not None:
        return known
    if is_about_credentials(error):
        return "kms_denied"
    return "kms_unusable" if trouble_of(error) is Trouble.FATAL else "kms_unreachable"


def _plain(answer: Mapping[str, object]) -> Secret:
    plain = _bytes(answer, "Plaintext")
    return Secret(plain)


def _bytes(answer: Mapping[str, object], name: str) -> bytes:
    value = answer.get(name)
    if isinstance(value, bytes) and value:
        return value
    raise CredentialUnreadable("kms_unusable")
