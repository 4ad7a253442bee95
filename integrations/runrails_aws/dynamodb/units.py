"""
What requests cost, by DynamoDB's published formula. Pure.

A write of an item takes one unit for each KB begun, in a transaction two; a failed condition costs as much as a written
item. An entry of an index takes one to be made and one to be removed. Servers under test report other figures for
transactions, so nothing here asks one. The public prices that amounts are worked out with belong to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_aws.dynamodb.wire import Item, Request, Write

__all__ = ["item_bytes", "write_units"]

_KB = 1_024
_INDEXED = ("hs", "uk", "rk")
"""Each of these puts an item into an index of its own."""
_ACCOUNT_BYTES_MAX = _KB
"""An account is smaller than this whatever its amounts: eight integers and a key of at most 330 bytes."""


def item_bytes(item: Item) -> int:
    """The size that an item is billed by: its names and texts in UTF-8, and its numbers by their digits."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: dict[str, str]) -> int:
    number = value.get("N")
    # Two digits a byte, one more byte, and another one for the sign.
    return len(value["S"].encode()) if number is None else (len(number.lstrip("-")) + 1) // 2 + 2


def write_units(request: Request, *, reservation_bytes: int = _KB) -> int:
    """
    Write units of a transaction of the ledger, indexes included.

    Args:
        request: Of `requests.transaction`.
        reservation_bytes: How large the reservation's item is that it changes, and afterwards.
    """
    return sum(_units(write, reservation_bytes) for write in request.writes)


def _units(write: Write, reservation_bytes: int) -> int:
    placed = write.get("Put")
    if placed is not None:
        return 2 * _kilobytes(item_bytes(placed["Item"])) + sum(name in placed["Item"] for name in _INDEXED)
    operation = write.get("Update") or write.get("ConditionCheck") or write.get("Delete")
    if operation is None:
        return 0
    is_reservation = operation["Key"]["pk"]["S"].startswith("R#")
    leaves_index = " hs" in operation.get("UpdateExpression", "").partition("REMOVE")[2]
    return 2 * _kilobytes(reservation_bytes if is_reservation else _ACCOUNT_BYTES_MAX) + leaves_index


def _kilobytes(size: int) -> int:
    return max(1, -(-size // _KB))
