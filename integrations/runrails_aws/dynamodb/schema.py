"""The table's definition, what a table lacks of it, and the least that a process must be allowed. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["INDEX", "TTL", "check_name", "definition", "differences", "index_update", "policy"]

INDEX = "held"
TTL = "ttl"
_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_KEYS = {"pk": "HASH", "sk": "RANGE"}
_INDEX_KEYS = {"hs": "HASH", "hx": "RANGE"}


def check_name(table: str) -> str:
    """Return the name if DynamoDB takes it for a table. Raises ConfigError."""
    if _NAME.fullmatch(table):
        return table
    raise ConfigError(
        "A table's name has 3 to 255 letters, digits or one of _ . -",
        next_step="Write dynamodb://TABLE?region=eu-west-1.",
    )


def definition(table: str) -> dict[str, object]:
    """Parameters of CreateTable: billed by request, one sparse index of keys alone."""
    return {
        "TableName": check_name(table),
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in (*_KEYS, *_INDEX_KEYS)],
        "KeySchema": _schema(_KEYS),
        "GlobalSecondaryIndexes": [_index()],
        "SSESpecification": {"Enabled": True},
        "DeletionProtectionEnabled": True,
    }


def index_update(table: str) -> dict[str, object]:
    """Parameters of UpdateTable that give a table the index it lacks."""
    attributes = [{"AttributeName": name, "AttributeType": "S"} for name in (*_KEYS, *_INDEX_KEYS)]
    return {
        "TableName": table, "AttributeDefinitions": attributes, "GlobalSecondaryIndexUpdates": [{"Create": _index()}]
    }  # fmt: skip


def _index() -> dict[str, object]:
    return {"IndexName": INDEX, "KeySchema": _schema(_INDEX_KEYS), "Projection": {"ProjectionType": "KEYS_ONLY"}}


def _schema(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()]


def differences(described: Mapping[str, object], ttl: Mapping[str, object]) -> list[tuple[str, str]]:
    """What keeps a table, as DescribeTable and DescribeTimeToLive tell of it, from being a ledger, and the fix."""
    again = "Make another table: runrails aws table create NAME."
    found: list[tuple[str, str]] = []
    if _keys_of(described) != _KEYS or not {("pk", "S"), ("sk", "S")} <= _types_of(described):
        found.append(("Its key is not pk (S), sk (S).", again))
    indexes = {
        str(index["IndexName"]): index
        for index in cast("Sequence[Mapping[str, object]]", described.get("GlobalSecondaryIndexes") or ())
    }
    index = indexes.get(INDEX)
    if index is None or _keys_of(index) != _INDEX_KEYS:
        found.append((f"It has no index {INDEX} over hs (S), hx (S).", "Run `runrails aws table create` on it."))
    elif index.get("IndexStatus", "ACTIVE") != "ACTIVE":
        found.append((f"Its index {INDEX} is {index['IndexStatus']}.", "Wait until it is ACTIVE."))
    if described.get("TableStatus") not in {"ACTIVE", "UPDATING"}:
        found.append((f"It is {described.get('TableStatus')}.", "Wait until it is ACTIVE."))
    if ttl.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"} or ttl.get("AttributeName") != TTL:
        found.append(("Old records are not deleted: TTL is off.", "Run `runrails aws table create` on it."))
    if described.get("Replicas"):
        found.append(("It is a global table: two regions can spend the same money.", "Keep the ledger in one region."))
    return found


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
            "Sid": "RunrailsOverdueHolds",
            "Effect": "Allow",
            "Action": "dynamodb:Query",
            "Resource": f"{arn}/index/{INDEX}",
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
