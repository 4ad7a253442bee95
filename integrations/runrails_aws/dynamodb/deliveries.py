"""What became of notifications: an item for each sender, all in one partition, counted up where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.deliveries import Delivery
from runrails.stores._codec import plain
from runrails_aws.dynamodb import requests
from runrails_aws.dynamodb.items import key
from runrails_aws.dynamodb.wire import Item, Operation, integer, maybe_integer, maybe_text, n, s, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails.clocks import Clock
    from runrails.deliveries import Delivered
    from runrails_aws.dynamodb.calling import Caller

__all__ = ["Deliveries"]

_PARTITION = "V"
_NAME_CHARS_MAX = 200


class Deliveries:
    """The accounts of senders. Thread-safe."""

    def __init__(self, table: str, caller: Caller, now_ms: Clock) -> None:
        self._table = table
        self._caller = caller
        self._now_ms = now_ms

    def note(self, sender: str, what: Delivered) -> None:
        """Add it to the sender's account. What was written without an answer is known again by its signature."""
        verb = self._caller.begin()
        now_ms = n(self._now_ms())
        values: Item = {":k": s(verb.writer), ":s": n(what.sent), ":f": n(what.failed), ":d": n(what.dropped)}
        changes = ["tk = :k"]
        if what.sent or what.failed or what.dropped:
            # Two hosts' clocks differ: which of the two is the newest is told by the order of writes.
            changes.append("mn = :m")
            values[":m"] = n(0 if what.sent else 1)
        if what.sent:
            changes.append("sm = :n")
        if what.failed or what.dropped:
            changes.append("em = :n")
            if what.error is not None:
                changes.append("er = :e")
                values[":e"] = s(what.error)
        removes = "" if what.error is not None or not (what.failed or what.dropped) else " REMOVE er"
        if len(changes) > 1:
            values[":n"] = now_ms
        operation = Operation(
            Key=key(_PARTITION, plain(sender)[:_NAME_CHARS_MAX]),
            UpdateExpression=f"SET {', '.join(changes)}{removes} ADD sent :s, failed :f, dropped :d",
            ConditionExpression="attribute_not_exists(tk) OR tk <> :k", ExpressionAttributeValues=values,
        )  # fmt: skip
        self._caller.write(requests.update(self._table, operation), verb)

    def all(self) -> Iterator[Delivery]:
        """Every sender's account, by name."""
        return map(_delivery_of, self._caller.pages(requests.query(self._table, _PARTITION)))


def _delivery_of(item: Item) -> Delivery:
    sent_ms, error_ms, missed_newest = (maybe_integer(item, name) for name in ("sm", "em", "mn"))
    if sent_ms is not None and error_ms is not None and missed_newest is not None:
        if missed_newest:
            error_ms = max(error_ms, sent_ms + 1)
        else:
            sent_ms = max(sent_ms, error_ms)
    return Delivery(
        text(item, "sk"), integer(item, "sent"), integer(item, "failed"), integer(item, "dropped"),
        sent_ms, maybe_text(item, "er"), error_ms,
    )  # fmt: skip
