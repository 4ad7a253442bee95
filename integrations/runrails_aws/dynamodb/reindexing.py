"""
What a table of an older version lacks besides its indexes: how its records are found, and that its accounts stay.

Made before the indexes are: that these are there is what tells that all is found. It may be interrupted and done again,
and harms nothing while calls are made; only what older versions write meanwhile is not found until it is done again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails_aws.dynamodb import requests
from runrails_aws.dynamodb.items import KEEP_S
from runrails_aws.dynamodb.places import id_of, marks
from runrails_aws.dynamodb.schema import TTL
from runrails_aws.dynamodb.wire import Item, Operation, integer, n, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails_aws.dynamodb.calling import Caller

__all__ = ["lacking", "reindex"]

_AT_ONCE = 16


def reindex(caller: Caller, *, tell: Callable[[int], object] | None = None) -> int:
    """Bring every record and account up to date; how many there were to bring. `tell` hears of each thousandth."""
    from concurrent.futures import ThreadPoolExecutor

    for item in caller.pages(requests.query(caller.table, "C")):
        scope, _, unit = text(item, "sk").partition("#")
        if scope.startswith("run:"):
            caller.write(requests.mark_run(caller.table, scope, unit), caller.begin())
    count = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        group: list[Operation] = []

        def write(one: Operation) -> None:
            caller.write(requests.update(caller.table, one), caller.begin())

        def flush() -> None:
            list(pool.map(write, group))
            group.clear()

        for prefix in ("R#", "B#"):
            for item in caller.pages(requests.scan(caller.table, prefix)):
                operation = lacking(item)
                if operation is not None:
                    group.append(operation)
                    count += 1
                    if tell is not None and count % 1_000 == 0:
                        tell(count)
                if len(group) == _AT_ONCE:
                    flush()
        flush()
    return count


def lacking(item: Item) -> Operation | None:
    """What brings an item up to date; None if it is."""
    account = text(item, "pk").startswith("B#")
    more: Item = {}
    if "fa" in item:
        told = marks(id_of(item), text(item, "us"), text(item, "rn"), integer(item, "ts"))
        more = {name: value for name, value in told.items() if name not in item}
    ends_s = integer(item, TTL)
    # Older versions let everything be deleted 400 days after it was made.
    dated = bool(ends_s) and (account or ends_s == integer(item, "ts") // 1_000 + KEEP_S)
    if account and dated and "cr" not in item:
        more["cr"] = n(ends_s - KEEP_S)
    if not more and not dated:
        return None
    changes = [f"SET {', '.join(f'{name} = :{name}' for name in more)}"] if more else []
    if dated:
        changes.append("REMOVE #t")
    operation = Operation(
        Key={"pk": item["pk"], "sk": item["sk"]}, UpdateExpression=" ".join(changes),
        ConditionExpression="attribute_exists(pk)",
    )  # fmt: skip
    if more:
        operation["ExpressionAttributeValues"] = {f":{name}": value for name, value in more.items()}
    if dated:
        operation["ExpressionAttributeNames"] = {"#t": TTL}
    return operation
