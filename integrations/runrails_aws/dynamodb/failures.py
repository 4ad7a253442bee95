"""What went wrong between here and DynamoDB: whether trying again may help, and what mends it. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.errors import ConfigError, LedgerError, RunrailsError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runrails_aws.dynamodb.wire import Item

__all__ = [
    "Failed",
    "Reason",
    "Trouble",
    "code_of",
    "failed",
    "is_about_credentials",
    "no_driver",
    "no_table",
    "out_of_patience",
    "status_of",
    "trouble_of",
    "unread",
    "unusable",
]

FAILED = "ConditionalCheckFailed"


class Trouble(Enum):
    """Why an attempt came to nothing that stands."""

    THROTTLED = "DynamoDB throttles this table"
    CONFLICT = "other processes write the same accounts all the time"
    LOST = "DynamoDB did not answer"
    FATAL = "trying again does not help"


class Reason(NamedTuple):
    """What became of one write of a transaction that came to nothing."""

    code: str | None
    item: Item | None = None

    @property
    def failed(self) -> bool:
        """Its condition did not hold; `item` is what stands there, None if nothing does."""
        return self.code == FAILED


class Failed(NamedTuple):
    """Conditions did not hold, and nothing was written. In the order of the writes."""

    reasons: tuple[Reason, ...]

    @property
    def first(self) -> Item | None:
        """What stands where the first write failed; None if it did not fail."""
        return self.reasons[0].item


_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "Throttling",
        "ThrottlingError", "ProvisionedThroughputExceeded", "LimitExceededException", "SlowDown",
    }
)  # fmt: skip
_CONFLICT = frozenset(
    {
        "TransactionConflictException",
        "TransactionConflict",
        "TransactionInProgressException",
        "ReplicatedWriteConflictException",
    }
)
_CREDENTIALS = frozenset(
    {
        "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "ExpiredToken",
        "MissingAuthenticationTokenException", "MissingAuthenticationToken", "InvalidClientTokenId",
        "IncompleteSignatureException", "IncompleteSignature", "SignatureDoesNotMatch", "RequestExpired",
        "CredentialRetrievalError", "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError",
        "SSOError", "MetadataRetrievalError",
    }
)  # fmt: skip
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"})
_LOST = frozenset(
    {
        "InternalServerError", "InternalFailure", "InternalError", "ServiceUnavailable", "ServiceUnavailableException",
        "RequestTimeout", "RequestTimeoutException",
    }
)  # fmt: skip


def code_of(error: BaseException) -> str:
    """The service's code, or the name of the driver's own error."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        told = cast("Mapping[str, Mapping[str, str]]", response).get("Error", {})
        return told.get("Code", "").rpartition("#")[2]
    return type(error).__name__


def is_about_credentials(error: BaseException) -> bool:
    """Whether AWS does not accept who asks, or nobody says who does."""
    return code_of(error) in _CREDENTIALS | _NO_CREDENTIALS


def status_of(error: BaseException) -> int:
    """The HTTP status of the answer; 0 if there was none."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0
    return cast("Mapping[str, Mapping[str, int]]", response).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def failed(error: BaseException) -> Failed | None:
    """
    The conditions that did not hold, if that is why the write came to nothing; None if it is worth trying again.

    One answer may tell of failed conditions and of conflicts. A failed first condition stands whatever the others say;
    of the others a conflict leaves open whether they would have failed as well.
    """
    code = code_of(error)
    response = cast("Mapping[str, object]", getattr(error, "response", {}))
    if code == "ConditionalCheckFailedException":
        return Failed((Reason(FAILED, cast("Item | None", response.get("Item"))),))
    if code != "TransactionCanceledException":
        return None
    told = cast("Sequence[Mapping[str, object]]", response.get("CancellationReasons", ()))
    reasons = tuple(
        Reason(None if each.get("Code") in {None, "None"} else str(each["Code"]), cast("Item | None", each.get("Item")))
        for each in told
    )
    if reasons and reasons[0].failed:
        return Failed(reasons)
    if any(reason.failed for reason in reasons) and all(reason.failed or reason.code is None for reason in reasons):
        return Failed(reasons)
    return None


def trouble_of(error: BaseException) -> Trouble:
    """Whether the attempt is to be made again, and how patiently."""
    codes = {code_of(error)}
    if codes == {"TransactionCanceledException"}:
        told = cast("Mapping[str, Sequence[Mapping[str, str]]]", getattr(error, "response", {}))
        codes = {each.get("Code", "None") for each in told.get("CancellationReasons", ())} - {"None", FAILED}
        if not codes - _CONFLICT - _THROTTLED:
            return Trouble.THROTTLED if codes & _THROTTLED else Trouble.CONFLICT
        return Trouble.FATAL
    if codes & _THROTTLED:
        return Trouble.THROTTLED
    if codes & _CONFLICT:
        return Trouble.CONFLICT
    if codes & _LOST or status_of(error) >= 500 or _is_transport(error):
        return Trouble.LOST
    return Trouble.FATAL


def _is_transport(error: BaseException) -> bool:
    """Whether the connection, not the service, failed: the request may have arrived, or not."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"HTTPClientError", "ConnectionError", "OSError", "ResponseStreamingError"})


def out_of_patience(trouble: Trouble, table: str, error: BaseException, *, waited_ms: int) -> StoreUnavailable:
    """The error once there is no time left for another attempt."""
    hints = {
        Trouble.THROTTLED: "Raise the table's or the account's maximum throughput, or see which scope is that hot.",
        Trouble.CONFLICT: "Spread the calls over more scopes, or make fewer at a time.",
        Trouble.LOST: "Check the network, the region and the endpoint.",
        Trouble.FATAL: "",
    }
    return StoreUnavailable(
        f"The ledger in table {table} could not be reached for {waited_ms} ms: {trouble.value} ({code_of(error)}).",
        next_step=f"{hints[trouble]} Repeating the call with the same id is safe.".strip(),
        table=table,
        reason=code_of(error),
    )


def unread(table: str, *, waited_ms: int) -> StoreUnavailable:
    """The error where DynamoDB has answered with a part only, again and again."""
    return StoreUnavailable(
        f"DynamoDB throttles reads of table {table}: in {waited_ms} ms it has not told all that was asked.",
        next_step="Raise the table's or the account's maximum throughput, or try again in a moment.",
        table=table,
        reason="UnprocessedKeys",
    )


def unusable(error: BaseException, table: str, operation: str) -> RunrailsError:
    """The error for what trying again does not mend, with what does."""
    code = code_of(error)
    if code in {"ResourceNotFoundException", "TableNotFoundException"}:
        return no_table(table)
    if code in {"ValidationException", "ParamValidationError"} and "size" in str(error).lower():
        return LedgerError(
            "A record is larger than the 400 KB that DynamoDB keeps in one item; nothing was written.",
            next_step="Keep less in it: a shorter report, or shorter facts of a call.",
            table=table,
            operation=operation,
        )
    what, next_step = _told(code, table, operation)
    return _unavailable(what, code, table, next_step)


def _told(code: str, table: str, operation: str) -> tuple[str, str]:
    """What happened, and what mends it."""
    if code in _CREDENTIALS:
        fix = (
            "Renew them (aws sso login, a new session token, the instance's role), check the clock of this host and "
            "the region in the store's URL."
        )
        return f"AWS does not accept the credentials for table {table} ({code}).", fix
    if code in _NO_CREDENTIALS:
        fix = (
            "Log in (aws sso login, aws configure), name a profile that there is (profile=NAME in the store's URL), or "
            "give this host a role."
        )
        return f"There are no AWS credentials for table {table} ({code}).", fix
    if code in {"AccessDeniedException", "AccessDenied"}:
        return (
            f"These credentials may not do {operation} on table {table}.",
            f"Give their role the policy that `runrails aws policy {table}` prints.",
        )
    if code in {"NoRegionError", "InvalidRegionError"}:
        return (
            "No AWS region is known.",
            "Write it into the store's URL (dynamodb://TABLE?region=eu-west-1), or set AWS_REGION.",
        )
    check = f"Check that the table is a ledger: runrails aws table check {table}."
    if code in {"ValidationException", "ParamValidationError"}:
        return f"DynamoDB found {operation} on table {table} malformed.", f"{check} If it is, please report this."
    return f"DynamoDB refused {operation} on table {table} ({code}).", check


def _unavailable(what: str, code: str, table: str, next_step: str) -> StoreUnavailable:
    return StoreUnavailable(what, next_step=next_step, table=table, reason=code)


def no_table(table: str) -> StoreUnavailable:
    """The error where there is no such table."""
    return _unavailable(
        f"There is no table {table} in this region and account, or its index is missing.",
        "ResourceNotFoundException", table,
        f"Check the region in the store's URL, or make the table: runrails aws table create {table}.",
    )  # fmt: skip


def no_driver() -> ConfigError:
    """The error where boto3 is not installed."""
    return ConfigError(
        "The DynamoDB store needs boto3, which is not installed.", next_step="pip install 'runrails[aws]'"
    )
