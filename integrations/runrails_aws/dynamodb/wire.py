"""DynamoDB's JSON as this ledger uses it: texts and integers, single writes, and requests that hold them."""

from __future__ import annotations

from typing import NamedTuple, Required, TypeAlias, TypedDict, cast

__all__ = [
    "Item",
    "Operation",
    "Placing",
    "Request",
    "Value",
    "Write",
    "integer",
    "maybe_integer",
    "maybe_text",
    "n",
    "s",
    "text",
]

Value: TypeAlias = dict[str, str]
"""``{"N": "5"}`` or ``{"S": "five"}``; nothing else is kept."""
Item: TypeAlias = dict[str, Value]


class Operation(TypedDict, total=False):
    """The inside of one write of an item that its key names."""

    Key: Required[Item]
    TableName: str
    UpdateExpression: str
    ConditionExpression: str
    ExpressionAttributeNames: dict[str, str]
    ExpressionAttributeValues: Item
    ReturnValuesOnConditionCheckFailure: str


class Placing(TypedDict, total=False):
    """The inside of one write of a whole item."""

    Item: Required[dict[str, Value]]
    TableName: str
    ConditionExpression: str
    ExpressionAttributeValues: dict[str, Value]
    ReturnValuesOnConditionCheckFailure: str


class Write(TypedDict, total=False):
    """One of the writes of a transaction; has exactly one key."""

    Put: Placing
    Update: Operation
    Delete: Operation
    ConditionCheck: Operation


class Request(NamedTuple):
    """An operation's name as boto3 spells it, and its parameters."""

    operation: str
    parameters: dict[str, object]

    @property
    def writes(self) -> list[Write]:
        """The writes of a transaction."""
        return cast("list[Write]", self.parameters["TransactItems"])


def n(amount: int) -> Value:
    """An integer: as text, which is exact, and never by way of Decimal or float."""
    return {"N": str(amount)}


def s(name: str) -> Value:
    """A text."""
    return {"S": name}


def maybe_integer(item: Item, name: str) -> int | None:
    """The integer of that name, if it is there."""
    value = item.get(name)
    return None if value is None else int(value["N"])


def integer(item: Item, name: str, default: int = 0) -> int:
    """The integer of that name."""
    value = item.get(name)
    return default if value is None else int(value["N"])


def maybe_text(item: Item, name: str) -> str | None:
    """The text of that name, if it is there."""
    value = item.get(name)
    return None if value is None else value["S"]


def text(item: Item, name: str, default: str = "") -> str:
    """The text of that name."""
    value = item.get(name)
    return default if value is None else value["S"]
