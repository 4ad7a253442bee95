"""
What is asked of DynamoDB, as values. Pure: every expression of the ledger is here, and none anywhere else.

In every transaction the reservation stands first and the accounts follow in the order of its holds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from runrails.ledger import AMOUNT_MAX, RUN_PERIOD, Account
from runrails.stores._codec import result_text
from runrails_aws.dynamodb import items
from runrails_aws.dynamodb.items import (
    Found,
    Row,
    account_key,
    deadline,
    key,
    limit_key,
    reservation_key,
)
from runrails_aws.dynamodb.schema import INDEX, TTL
from runrails_aws.dynamodb.wire import Item, Operation, Placing, Request, Write, n, s

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runrails.ledger import Hold, ResultFacts
    from runrails.stores.rules import Change

__all__ = [
    "BATCH_MAX",
    "TRANSACTION",
    "Taking",
    "change",
    "check_limit",
    "delete",
    "extend",
    "found_account",
    "get",
    "get_many",
    "is_of_run",
    "keep",
    "latest_run_key",
    "make",
    "mark_run",
    "named",
    "open_holds",
    "outcome",
    "part",
    "put",
    "query",
    "raising",
    "replace",
    "scan",
    "shift",
    "snapshot",
    "take",
    "take_as_seen",
    "transaction",
    "update",
    "write_code_limit",
    "write_limit",
]

TRANSACTION = "transact_write_items"
BATCH_MAX = 100
"""Most items that DynamoDB reads at once."""
_NEW = "attribute_not_exists(pk)"
_NO_ACCOUNT = "attribute_not_exists(avail)"


class Taking(NamedTuple):
    """How one account's part of a reservation is written."""

    write: Write
    check: Write | None = None
    """What else must be true, for an account that this process has not met before."""


def transaction(table: str, writes: Iterable[Write]) -> Request:
    """All of the writes or none. Whatever condition fails, the answer has the item it failed on."""
    asked = list(writes)
    for write in asked:
        operation = write.get("Put") or write.get("Update") or write.get("ConditionCheck") or write.get("Delete")
        if operation is not None:
            _address(table, operation)
    return Request(TRANSACTION, {"TransactItems": asked})


def update(table: str, operation: Operation, *, answer: str | None = None) -> Request:
    """A single update on its condition."""
    _address(table, operation)
    parameters: dict[str, object] = {**operation}
    if answer is not None:
        parameters["ReturnValues"] = answer
    return Request("update_item", parameters)


def put(table: str, item: Item, *, condition: str | None = None, values: Item | None = None) -> Request:
    """A single item, on its condition."""
    operation = Placing(Item=item)
    if condition is not None:
        operation["ConditionExpression"] = condition
    if values:
        operation["ExpressionAttributeValues"] = values
    _address(table, operation)
    return Request("put_item", {**operation})


def _address(table: str, operation: Operation | Placing) -> None:
    operation["TableName"] = table
    if "ConditionExpression" in operation:
        operation["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"


def delete(item_key: Item) -> Write:
    """An item's end."""
    return {"Delete": {"Key": item_key}}


def get(table: str, item_key: Item) -> Request:
    """One item as it is now."""
    return Request("get_item", {"TableName": table, "Key": item_key, "ConsistentRead": True})


def get_many(table: str, keys: Sequence[Item]) -> Request:
    """At most `BATCH_MAX` items, each as it is now."""
    return Request("batch_get_item", {"RequestItems": {table: {"Keys": list(keys), "ConsistentRead": True}}})


def snapshot(table: str, keys: Iterable[Item]) -> Request:
    """Items as they are at one and the same moment."""
    return Request("transact_get_items", {"TransactItems": [{"Get": {"TableName": table, "Key": k}} for k in keys]})


def query(table: str, partition: str, *, newest_first: bool = False) -> Request:
    """The items of one partition in order of their sort keys, a page of them."""
    return Request(
        "query",
        {
            "TableName": table, "KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": s(partition)},
            "ConsistentRead": True, "ScanIndexForward": not newest_first,
        },
    )  # fmt: skip


def open_holds(table: str, shard: str, *, count_max: int) -> Request:
    """The open holds of one part of the index, those that end first."""
    return Request(
        "query",
        {
            "TableName": table, "IndexName": INDEX, "KeyConditionExpression": "hs = :h",
            "ExpressionAttributeValues": {":h": s(shard)}, "Limit": count_max,
        },
    )  # fmt: skip


def part(table: str, partition: str, since: str, *, filters: Sequence[tuple[str, str, str]]) -> Request:
    """Reservations of one partition whose keys tell all there is to know, from an id on; whole, a page of them."""
    condition, values = _filter("attribute_exists(fa)", {":p": s(partition), ":s": s(since or "0")}, filters)
    return Request(
        "query",
        {
            "TableName": table, "KeyConditionExpression": "pk = :p AND sk >= :s", "FilterExpression": condition,
            "ExpressionAttributeValues": values, "ConsistentRead": True,
        },
    )  # fmt: skip


def named(table: str, index: str, name: str, partition: str, between: tuple[str, str]) -> Request:
    """Keys of the reservations that an index names in one partition, oldest first, a page of them."""
    values = {":p": s(partition), ":a": s(between[0]), ":b": s(between[1])}
    return Request(
        "query",
        {
            "TableName": table, "IndexName": index, "ExpressionAttributeValues": values,
            "KeyConditionExpression": f"{name} = :p AND sq BETWEEN :a AND :b",
        },
    )  # fmt: skip


def _filter(condition: str, values: Item, filters: Sequence[tuple[str, str, str]]) -> tuple[str, Item]:
    for place, (name, comparison, wanted) in enumerate(filters):
        if comparison == "absent":
            condition += f" AND attribute_not_exists({name})"
        else:
            condition += f" AND {name} {comparison} :f{place}"
            values[f":f{place}"] = s(wanted)
    return condition, values


def scan(table: str, prefix: str, *, filters: Sequence[tuple[str, str, str]] = ()) -> Request:
    """Every item whose partition begins so, and for which (attribute, comparison, text) hold. Reads the whole table."""
    condition, values = _filter("begins_with(pk, :p)", {":p": s(prefix)}, filters)
    return Request(
        "scan",
        {
            "TableName": table, "FilterExpression": condition, "ExpressionAttributeValues": values,
            "ConsistentRead": True,
        },
    )  # fmt: skip


def take(hold: Hold, *, known: bool, now_ms: int) -> Taking | None:
    """
    Hold an amount if there is room and the limit is the one this process knows; None if that must be looked up.

    An account this process has met is there. One it has not met may be made, if no operator has a word in it: for a
    run, that is told by its account's place alone (see `mark_run`).
    """
    account, amount, limit = hold
    values: Item = {":a": n(amount)}
    room = "avail >= :a"
    if limit is not None:
        room, values = room + " AND cl = :l", values | {":l": n(limit)}
    if known:
        return Taking(_account(account, "avail = avail - :a, room = room - :a, held = held + :a", room, values))
    most = AMOUNT_MAX if limit is None else limit
    if amount > most:
        return None
    values |= {":m": n(most), ":x": n(AMOUNT_MAX), ":z": n(0)}
    changes = (
        "avail = if_not_exists(avail, :m) - :a, room = if_not_exists(room, :x) - :a, "
        "held = if_not_exists(held, :z) + :a, spent = if_not_exists(spent, :z)"
    )
    if limit is not None:
        changes += ", cl = :l"
    write = _new_account(account, changes, f"{_NEW} OR ({room})", values, now_ms)
    return Taking(write, None if is_of_run(account) else check_limit(account.scope, account.unit, None))


def take_as_seen(row: Row, hold: Hold, *, enforce: bool, now_ms: int) -> Taking:
    """Hold an amount in an account that is what it was when it was looked at; its limit becomes the newest one."""
    account, amount, limit = hold
    most, before = row.most(limit), row.most()
    if not row.exists:
        values: Item = {":v": n(most - amount), ":r": n(AMOUNT_MAX - amount), ":a": n(amount), ":z": n(0)}
        changes = "avail = :v, room = :r, held = :a, spent = :z"
        for name, value in (("cl", limit), ("ol", row.operator)):
            if value is not None:
                changes, values = f"{changes}, {name} = :{name}", values | {f":{name}": n(value)}
        write = _new_account(account, changes, _NO_ACCOUNT, values, now_ms)
        return Taking(write, check_limit(account.scope, account.unit, row.operator))
    raised = most - before
    values = {":a": n(amount), ":d": n(raised - amount)}
    changes = "avail = avail + :d, room = room - :a, held = held + :a"
    if limit is not None:
        changes, values = changes + ", cl = :l", values | {":l": n(limit)}
    conditions = [_as_seen("cl", row.code, values), _as_seen("ol", row.operator, values)]
    if enforce:
        # Compared in one go, though conditions cannot add: what is left may be less than nothing before the raise.
        conditions.append("avail >= :n")
        values[":n"] = n(amount - raised)
    else:
        conditions.append("room >= :a")
    return Taking(_account(account, changes, " AND ".join(conditions), values))


def _account(account: Account, changes: str, condition: str, values: Item) -> Write:
    return {
        "Update": Operation(
            Key=account_key(account), UpdateExpression=f"SET {changes}", ConditionExpression=condition,
            ExpressionAttributeValues=values,
        )
    }  # fmt: skip


def _new_account(account: Account, changes: str, condition: str, values: Item, now_ms: int) -> Write:
    """An account is never deleted by age: whoever came back to it would find all of its limit again."""
    values |= {":cr": n(now_ms // 1_000)}
    return {
        "Update": Operation(
            Key=account_key(account), UpdateExpression=f"SET {changes}, cr = if_not_exists(cr, :cr)",
            ConditionExpression=condition, ExpressionAttributeValues=values,
        )
    }  # fmt: skip


def is_of_run(account: Account) -> bool:
    """Whether its scope can have no other account of this unit."""
    return account.period == RUN_PERIOD and account.scope.startswith("run:")


def mark_run(table: str, scope: str, unit: str) -> Request:
    """
    Take the place of a run's account while there is none.

    Whoever makes the account finds that something is there, and asks what an operator has said. So the first call of a
    run need not.
    """
    operation = Operation(
        Key=account_key(Account(scope, RUN_PERIOD, unit)), UpdateExpression="SET mk = :m",
        ConditionExpression=_NO_ACCOUNT, ExpressionAttributeValues={":m": n(1)},
    )  # fmt: skip
    return update(table, operation)


def _as_seen(name: str, value: int | None, values: Item) -> str:
    if value is None:
        return f"attribute_not_exists({name})"
    values[f":o{name}"] = n(value)
    return f"{name} = :o{name}"


def check_limit(scope: str, unit: str, limit: int | None) -> Write:
    """An operator's limit of a scope is this one, or there is none."""
    check = Operation(Key=limit_key(scope, unit))
    if limit is None:
        check["ConditionExpression"] = _NEW
    else:
        check["ConditionExpression"], check["ExpressionAttributeValues"] = "lim = :l", {":l": n(limit)}
    return {"ConditionCheck": check}


def found_account(row: Row, held: int, spent: int) -> Taking:
    """Add to an account what another ledger held and spent in it, whatever its limit; or make it with that."""
    if row.exists:
        return Taking(shift(row.account, held, spent))
    used = held + spent
    values: Item = {":v": n(row.most() - used), ":r": n(AMOUNT_MAX - used), ":h": n(held), ":s": n(spent)}
    changes = "avail = :v, room = :r, held = :h, spent = :s"
    for name, value in (("cl", row.code), ("ol", row.operator)):
        if value is not None:
            changes, values = f"{changes}, {name} = :{name}", values | {f":{name}": n(value)}
    # How old its records are nobody knows here.
    write = _new_account(row.account, changes, _NO_ACCOUNT, values, 0)
    return Taking(write, check_limit(row.account.scope, row.account.unit, row.operator))


def write_code_limit(row: Row, limit: int) -> Taking:
    """The limit from code, in an account that has been looked at, or in a new one."""
    changed = row._replace(code=limit)
    if not row.exists:
        return found_account(changed, 0, 0)
    values: Item = {":d": n(changed.most() - row.most()), ":l": n(limit)}
    conditions = [_as_seen("cl", row.code, values), _as_seen("ol", row.operator, values)]
    return Taking(_account(row.account, "avail = avail + :d, cl = :l", " AND ".join(conditions), values))


def write_limit(row: Row, limit: int | None) -> Write:
    """An operator's limit, in an account that has been looked at."""
    changed = row._replace(operator=limit)
    values: Item = {":d": n(changed.most() - row.most())}
    conditions = [_as_seen("cl", row.code, values), _as_seen("ol", row.operator, values)]
    changes = "avail = avail + :d"
    if limit is None:
        changes += " REMOVE ol"
    else:
        changes, values[":l"] = changes + ", ol = :l", n(limit)
    return _account(row.account, changes, " AND ".join(conditions), values)


def change(
    found: Found,
    change: Change,
    *,
    now_ms: int,
    writer: str,
    result: ResultFacts | None = None,
    overdue_before: str | None = None,
    keep_s: int | None = None,
) -> list[Write]:
    """
    What becomes of a reservation, if nobody has changed it since it was looked at; in it and in its accounts.

    `keep_s`: how long it is kept from now on; for good by default.
    """
    entry = found.entry
    values: Item = {
        ":s": s(change.state), ":v": n(found.version), ":w": n(found.version + 1), ":k": s(writer),
        ":c": n(change.actual), ":r": n(now_ms),
    }  # fmt: skip
    changes, condition = "st = :s, v = :w, tk = :k, ac = :c, rs = :r", "v = :v"
    gone: list[str] = []
    told = outcome(change) | ({} if result is None else {"re": s(result_text(result))})
    for name, value in told.items():
        changes, values[f":{name}"] = f"{changes}, {name} = :{name}", value
    if entry.state != "held":
        gone += [name for name in ("ch", "sf") if name not in told]
    if entry.state == "held":
        gone.append("hs")  # which alone is its place in the index
    if overdue_before is not None:
        # An extension does not make a new version.
        condition, values[":x"] = condition + " AND hx < :x", s(overdue_before)
    if keep_s is not None:
        changes, values[":t"] = f"{changes}, #t = :t", n(now_ms // 1_000 + keep_s)
    first = Operation(
        Key=reservation_key(entry.id), ConditionExpression=condition, ExpressionAttributeValues=values,
        UpdateExpression=f"SET {changes}" + (f" REMOVE {', '.join(gone)}" if gone else ""),
    )  # fmt: skip
    if keep_s is not None:
        first["ExpressionAttributeNames"] = {"#t": TTL}
    accounts = zip(found.accounts, change.deltas(entry), strict=True)
    return [{"Update": first}, *(shift(account, held, spent) for account, (held, spent) in accounts if held or spent)]


def outcome(change: Change) -> Item:
    """What a reservation's item has of its end only where it is out of the ordinary."""
    told: Item = {}
    if change.charges.count(change.actual) != len(change.charges):
        told["ch"] = s(json.dumps(change.charges, separators=(",", ":")))
    flag = items.CORRECTED if change.corrected else items.STAND_IN if change.stand_in else 0
    if flag:
        told["sf"] = n(flag)
    return told


def shift(account: Account, held: int, spent: int) -> Write:
    """Add to what is held and spent; only as far as it can be counted."""
    values: Item = {":d": n(-held - spent), ":h": n(held), ":s": n(spent)}
    condition = "attribute_exists(avail)"
    if held + spent > 0:
        condition, values[":n"] = "room >= :n", n(held + spent)
    return _account(
        account, "avail = avail + :d, room = room + :d, held = held + :h, spent = spent + :s", condition, values
    )


def raising(found: Found, more: Sequence[Hold], *, writer: str, enforce: bool) -> tuple[Found, list[Write]]:
    """Let an open reservation hold more; gives it as it is then, too."""
    amounts = tuple([held + hold.amount for held, hold in zip(found.entry.amounts, more, strict=True)])
    raised = found._replace(entry=found.entry._replace(amounts=amounts), version=found.version + 1, writer=writer)
    first = Operation(
        Key=reservation_key(found.entry.id), UpdateExpression="SET h = :h, v = :w, tk = :k",
        ConditionExpression="v = :v",
        ExpressionAttributeValues={
            ":h": s(raised.holds_text()), ":v": n(found.version), ":w": n(raised.version), ":k": s(writer),
        },
    )  # fmt: skip
    grown = [
        _account(
            hold.account, "avail = avail - :a, room = room - :a, held = held + :a",
            "avail >= :a" if enforce else "room >= :a", {":a": n(hold.amount)},
        )
        for hold in more
        if hold.amount
    ]  # fmt: skip
    return raised, [{"Update": first}, *grown]


def extend(reservation_id: str, expires_ms: int) -> Operation:
    """Let a hold live until then, if it is open and would end sooner."""
    return Operation(
        Key=reservation_key(reservation_id), UpdateExpression="SET hx = :x",
        ConditionExpression="attribute_exists(hs) AND hx < :x",
        ExpressionAttributeValues={":x": s(deadline(expires_ms, reservation_id))},
    )  # fmt: skip


def keep(item: Item) -> Write:
    """An item in the place of whatever was there."""
    return {"Put": Placing(Item=item)}


def make(item: Item) -> Write:
    """An item where none was."""
    return {"Put": Placing(Item=item, ConditionExpression=_NEW)}


def replace(item: Item, name: str, value: str) -> Write:
    """An item in the place of one that has this text under that name."""
    values = {":o": s(value)}
    return {"Put": Placing(Item=item, ConditionExpression=f"{name} = :o", ExpressionAttributeValues=values)}


def latest_run_key(ended_ms: int, run_id: str) -> Item:
    """Where the list of runs has one."""
    return key("NL", f"{max(0, ended_ms):015d}#{run_id}")
