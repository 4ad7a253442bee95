"""Making the table, and looking at one that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.errors import StoreUnavailable
from runrails_aws.dynamodb import schema
from runrails_aws.dynamodb.failures import code_of, no_table
from runrails_aws.dynamodb.reindexing import reindex as bring_up
from runrails_aws.dynamodb.wire import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails_aws.dynamodb.calling import Caller

__all__ = ["create", "faults_of", "wait"]

WAIT_MS = 60_000
INDEX_WAIT_MS = 3_600_000
"""DynamoDB fills an index from the records that are there, which takes its time."""
_PAUSE_S = 0.5


def create(
    caller: Caller, *, protect: bool = True, reindex: bool = False, wait_ms: int = WAIT_MS,
    tell: Callable[[int], object] | None = None,
) -> list[str]:  # fmt: skip
    """
    Make the table, or what a table lacks of a ledger, and wait until it can be used. Returns what was done.

    Args:
        caller: Of the table.
        protect: Whether a new table is protected from being deleted.
        reindex: Look again for records that older versions have written since the table was brought up to date.
        wait_ms: How long to wait for a table or an index; an index over many records takes longer than a table.
        tell: Hears how many records were brought up to date, now and then.

    Raises:
        StoreUnavailable: It may not be made, or is something else; with what mends it.
    """
    done: list[str] = []
    if _described(caller) is None:
        wanted = schema.definition(caller.table)
        if not protect:
            wanted["DeletionProtectionEnabled"] = False
        _ask(caller, "create_table", wanted, harmless="ResourceInUseException")
        done.append(f"made table {caller.table}")
    wait(caller, wait_ms=wait_ms)
    described = _described(caller) or {}
    faults = [what for what, _ in schema.differences(described, _ttl(caller))]
    if faults and "key" in faults[0]:
        _refuse(caller)
    missing = schema.missing_indexes(described)
    if reindex or missing:
        count = bring_up(caller, tell=tell)
        done += [f"brought {count} items up to date"] if count else []
    for index in missing:
        _ask(caller, "update_table", schema.index_update(caller.table, index))
        done.append(f"made index {index}")
        wait(caller, wait_ms=INDEX_WAIT_MS)
    if any("TTL" in what for what in faults):
        specification = {"Enabled": True, "AttributeName": schema.TTL}
        asked: dict[str, object] = {"TableName": caller.table, "TimeToLiveSpecification": specification}
        _ask(caller, "update_time_to_live", asked, harmless="ValidationException")
        done.append("turned on the deletion of old records")
    _refuse(caller)
    return done


def _refuse(caller: Caller) -> None:
    """Raise if something keeps the table from being a ledger."""
    left = faults_of(caller)
    if left:
        raise StoreUnavailable(f"Table {caller.table} is no ledger: {left[0][0]}", next_step=left[0][1])


def wait(caller: Caller, *, wait_ms: int = WAIT_MS) -> None:
    """Until table and index are active. Raises StoreUnavailable after `wait_ms`."""
    began_ms = caller.server_time.monotonic()
    while True:
        described = _described(caller) or {}
        indexes = cast("list[Mapping[str, object]]", described.get("GlobalSecondaryIndexes") or [])
        if described.get("TableStatus") == "ACTIVE" and all(i.get("IndexStatus") == "ACTIVE" for i in indexes):
            return
        if caller.server_time.monotonic() - began_ms >= wait_ms:
            raise StoreUnavailable(
                f"Table {caller.table} is not ready after {wait_ms // 1_000} s.", next_step="Run the command again."
            )
        caller.patience.sleep(_PAUSE_S)


def faults_of(caller: Caller) -> list[tuple[str, str]]:
    """What keeps the table from being a ledger, each with what mends it. Raises StoreUnavailable if it is not there."""
    described = _described(caller)
    if described is None:
        raise no_table(caller.table)
    return schema.differences(described, _ttl(caller))


def _described(caller: Caller) -> Mapping[str, object] | None:
    answer = _ask(caller, "describe_table", {"TableName": caller.table}, harmless="ResourceNotFoundException")
    return None if answer is None else cast("Mapping[str, object]", answer["Table"])


def _ttl(caller: Caller) -> Mapping[str, object]:
    answer = _ask(caller, "describe_time_to_live", {"TableName": caller.table}) or {}
    return cast("Mapping[str, object]", answer.get("TimeToLiveDescription") or {})


def _ask(
    caller: Caller, operation: str, parameters: dict[str, object], *, harmless: str = ""
) -> Mapping[str, object] | None:
    """One request with the caller's patience; None if it fails in the way that does not matter here."""
    try:
        return caller.read(Request(operation, parameters), caller.begin())
    except StoreUnavailable as error:
        cause = error.__cause__
        if harmless and cause is not None and code_of(cause) == harmless:
            return None
        raise
