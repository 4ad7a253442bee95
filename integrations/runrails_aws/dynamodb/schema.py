"""The table's definition, what a table lacks of it, and the least that a process must be allowed. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "BY_RUN", "BY_USER", "INDEX", "TTL", "check_name", "definition", "differences", "export_commands", "index_update",
    "missing_indexes", "policy",
]  # fmt: skip

INDEX = "held"
BY_USER, BY_RUN = "usage", "runs"
"""
Indexes of the calls that are not found by their keys. A table without them was made by a version before them: that they
are there is what tells that the records in it can all be found, so they are made last.
"""
TTL = "ttl"
_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_BUCKET, _REGION, _ACCOUNT = (re.compile(form) for form in (r"[a-z0-9.-]{3,63}", r"[a-z0-9-]{5,30}", r"[0-9]{12}"))
_KEYS = {"pk": "HASH", "sk": "RANGE"}
_INDEXES = {
    INDEX: {"hs": "HASH", "hx": "RANGE"}, BY_USER: {"uk": "HASH", "sq": "RANGE"}, BY_RUN: {"rk": "HASH", "sq": "RANGE"}
}  # fmt: skip


def check_name(table: str) -> str:
    """Return the name if DynamoDB takes it for a table. Raises ConfigError."""
    if _NAME.fullmatch(table):
        return table
    raise ConfigError(
        "A table's name has 3 to 255 letters, digits or one of _ . -",
        next_step="Write dynamodb://TABLE?region=eu-west-1.",
    )


def definition(table: str) -> dict[str, object]:
    """Parameters of CreateTable: billed by request, sparse indexes of keys alone."""
    return {
        "TableName": check_name(table),
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": _attributes(*_INDEXES),
        "KeySchema": _schema(_KEYS),
        "GlobalSecondaryIndexes": [_index(name) for name in _INDEXES],
        "SSESpecification": {"Enabled": True},
        "DeletionProtectionEnabled": True,
    }


def index_update(table: str, index: str) -> dict[str, object]:
    """Parameters of UpdateTable that give a table an index it lacks. It takes one at a time."""
    return {
        "TableName": table, "AttributeDefinitions": _attributes(index),
        "GlobalSecondaryIndexUpdates": [{"Create": _index(index)}],
    }  # fmt: skip


def _attributes(*indexes: str) -> list[dict[str, str]]:
    names = dict.fromkeys(name for keys in (_KEYS, *(_INDEXES[index] for index in indexes)) for name in keys)
    return [{"AttributeName": name, "AttributeType": "S"} for name in names]


def _index(index: str) -> dict[str, object]:
    keys = _schema(_INDEXES[index])
    return {"IndexName": index, "KeySchema": keys, "Projection": {"ProjectionType": "KEYS_ONLY"}}


def _schema(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()]


def differences(described: Mapping[str, object], ttl: Mapping[str, object]) -> list[tuple[str, str]]:
    """What keeps a table, as DescribeTable and DescribeTimeToLive tell of it, from being a ledger, and the fix."""
    again = "Make another table: runrails aws table create NAME."
    found: list[tuple[str, str]] = []
    if _keys_of(described) != _KEYS or not {("pk", "S"), ("sk", "S")} <= _types_of(described):
        found.append(("Its key is not pk (S), sk (S).", again))
    indexes = _indexes_of(described)
    lacking = missing_indexes(described)
    for name, keys in _INDEXES.items():
        if name in lacking:
            over = ", ".join(f"{key} (S)" for key in keys)
            found.append((f"It has no index {name} over {over}.", "Run `runrails aws table create` on it."))
        elif indexes[name].get("IndexStatus", "ACTIVE") != "ACTIVE":
            found.append((f"Its index {name} is {indexes[name]['IndexStatus']}.", "Wait until it is ACTIVE."))
    if described.get("TableStatus") not in {"ACTIVE", "UPDATING"}:
        found.append((f"It is {described.get('TableStatus')}.", "Wait until it is ACTIVE."))
    if ttl.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"} or ttl.get("AttributeName") != TTL:
        what = f"What is out of date is not deleted: TTL is not on, by the attribute {TTL}."
        found.append((what, "Run `runrails aws table create` on it."))
    if described.get("Replicas"):
        found.append(("It is a global table: two regions can spend the same money.", "Keep the ledger in one region."))
    return found


def missing_indexes(described: Mapping[str, object]) -> list[str]:
    """The indexes that a table does not have."""
    indexes = _indexes_of(described)
    return [name for name, keys in _INDEXES.items() if name not in indexes or _keys_of(indexes[name]) != keys]


def _indexes_of(described: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    listed = cast("Sequence[Mapping[str, object]]", described.get("GlobalSecondaryIndexes") or ())
    return {str(index["IndexName"]): index for index in listed}


def _keys_of(described: Mapping[str, object]) -> dict[str, str]:
    schema = cast("Sequence[Mapping[str, str]]", described.get("KeySchema") or ())
    return {each["AttributeName"]: each["KeyType"] for each in schema}


def _types_of(described: Mapping[str, object]) -> set[tuple[str, str]]:
    attributes = cast("Sequence[Mapping[str, str]]", described.get("AttributeDefinitions") or ())
    return {(each["AttributeName"], each["AttributeType"]) for each in attributes}


def policy(table: str, *, region: str = "*", account: str = "*", administer: bool = False) -> dict[str, object]:
    """
    The least an IAM policy must allow a process that uses the ledger.

    No statement lets a process delete the table, or single accounts and reservations. `administer` adds what
    `runrails aws table create` and `check` do.
    """
    arn = f"arn:aws:dynamodb:{region}:{account}:table/{check_name(table)}"
    statements: list[dict[str, object]] = [
        {
            "Sid": "RunrailsLedger",
            "Effect": "Allow",
            "Action": [
                "dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:GetItem", "dynamodb:PutItem",
                "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem",
            ],
            "Resource": arn,
        },
        {
            "Sid": "RunrailsIndexes",
            "Effect": "Allow",
            "Action": "dynamodb:Query",
            "Resource": [f"{arn}/index/{index}" for index in _INDEXES],
        },
        {
            "Sid": "RunrailsLimitsAndRuns",
            "Effect": "Allow",
            "Action": "dynamodb:DeleteItem",
            "Resource": arn,
            "Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["C", "C#*", "NL"]}},
        },
    ]  # fmt: skip
    if administer:
        statements.append(
            {
                "Sid": "RunrailsTable",
                "Effect": "Allow",
                "Action": [
                    "dynamodb:CreateTable", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive",
                    "dynamodb:UpdateTable", "dynamodb:UpdateTimeToLive",
                ],
                "Resource": arn,
            }
        )  # fmt: skip
    return {"Version": "2012-10-17", "Statement": statements}


def export_commands(table: str, bucket: str, *, region: str, account: str, prefix: str) -> list[str]:
    """Commands of AWS's own command line that export a table to S3. Raises ConfigError."""
    if not (_BUCKET.fullmatch(bucket) and _REGION.fullmatch(region) and _ACCOUNT.fullmatch(account)):
        raise ConfigError(
            "A bucket, a region like eu-west-1 and an account of twelve digits are needed.",
            next_step="See `aws s3 ls` and `aws sts get-caller-identity`.",
        )
    from shlex import join

    arn = f"arn:aws:dynamodb:{region}:{account}:table/{table}"
    recovery = "PointInTimeRecoveryEnabled=true"
    return [
        join(
            ["aws", "dynamodb", "update-continuous-backups", "--region", region, "--table-name", table,
             "--point-in-time-recovery-specification", recovery]
        ),
        join(
            ["aws", "dynamodb", "export-table-to-point-in-time", "--region", region, "--table-arn", arn,
             "--s3-bucket", bucket, "--s3-prefix", prefix, "--export-format", "DYNAMODB_JSON"]
        ),
    ]  # fmt: skip
