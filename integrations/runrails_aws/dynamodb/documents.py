"""
Documents in the ledger's table: one item each, the items of one owner in one partition.

``d`` the bytes, ``v`` the version, ``x`` when it expires, ``tk`` who wrote it last, ``ttl`` for DynamoDB's own
deletion, which decides nothing: what has expired is as good as gone before, by the server's time as its answers tell.

A write names the version it was decided on and signs itself. After a lost answer the next attempt finds its signature,
and knows that it was itself. For that reason removing is a write, too: the bytes go, and what is left has expired.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

from runrails.clocks import Clock, system_ms
from runrails.documents import Address, Document, check_address, check_find, check_version, check_write
from runrails.errors import StoreUnavailable
from runrails_aws.dynamodb import requests
from runrails_aws.dynamodb.calling import Caller, Client, Patience, make_client
from runrails_aws.dynamodb.clockwork import LedgerTime
from runrails_aws.dynamodb.items import key
from runrails_aws.dynamodb.opening import parse_url
from runrails_aws.dynamodb.wire import integer, maybe_integer, n, s, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runrails_aws.dynamodb.calling import Verb
    from runrails_aws.dynamodb.failures import Failed
    from runrails_aws.dynamodb.wire import Item, Operation, Value

__all__ = ["DynamoDBDocuments", "open_url"]

KEEP_S = 3_600
"""DynamoDB may delete an item so long after it has expired: by any clock's reckoning it has by then."""
_TRIES_MAX = 16
_LIVE = "(attribute_not_exists(x) OR x > :now)"


class DynamoDBDocuments:
    """
    An engine of documents in a table that `runrails aws table create` makes, for any number of hosts. Thread-safe.

    Args:
        table: Its name; a ledger may be in it as well.
        region: AWS region; what boto3 finds by default.
        endpoint: Another server than AWS's, for instance DynamoDB Local.
        profile: A profile of the AWS configuration.
        clock: Milliseconds since the epoch, that is believed. None, as it should be: the server's own time; then
            nothing expires before the earliest moment that it may be.
        patience: How long a verb goes on trying.
        client: Makes the boto3 client; it must attempt a request only once.
    """

    remote = True

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        profile: str | None = None,
        clock: Clock | None = None,
        patience: Patience | None = None,
        client: Callable[[], Client] | None = None,
    ) -> None:
        make = client or (lambda: make_client(region=region, endpoint=endpoint, profile=profile))
        self.table = table
        self.caller = Caller(table, make, patience or Patience())
        self._time = LedgerTime(self.caller.server_time, clock, 0)
        _engines.add(self)

    def get(self, address: Address) -> Document | None:
        """The document at an address. See `runrails.documents.DocumentStore.get`."""
        check_address(address)
        return self._live(self._item(address, self.caller.begin()))

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        """Write if nobody else has. See `runrails.documents.DocumentStore.put`."""
        check_write(address, data, expected, expires_ms)
        verb = self.caller.begin()
        written = Document(address, data, expected + 1, expires_ms)
        item = _item_of(written, verb.writer)
        if expected:
            values = {":v": n(expected), ":now": n(self._now_ms(address, verb))}
            failed = self.caller.write(
                requests.put(self.table, item, condition=f"v = :v AND {_LIVE}", values=values), verb
            )
            return written if _is_done(failed, verb) else None
        return written if self._put_new(item, verb) else None

    def delete(self, address: Address, *, expected: int) -> bool:
        """Remove if nobody else has changed it. See `runrails.documents.DocumentStore.delete`."""
        check_address(address)
        check_version(expected)
        verb = self.caller.begin()
        now_ms = self._now_ms(address, verb)
        operation: Operation = {
            "Key": _key(address),
            "UpdateExpression": "SET x = :x, tk = :tk, #ttl = :ttl REMOVE d",
            "ConditionExpression": f"v = :v AND {_LIVE}",
            "ExpressionAttributeNames": {"#ttl": "ttl"},
            "ExpressionAttributeValues": {
                ":v": n(expected), ":now": n(now_ms), ":x": n(0), ":tk": s(verb.writer), ":ttl": _ttl(now_ms),
            },
        }  # fmt: skip
        return _is_done(self.caller.write(requests.update(self.table, operation), verb), verb)

    def find(self, kind: str, owner: str | None = None) -> Iterator[Document]:
        """All of a kind, or of one owner, page by page. See `runrails.documents.DocumentStore.find`."""
        check_find(kind, owner)
        if owner is not None:
            items = self.caller.pages(requests.query(self.table, f"D#{kind}#{owner}"))
            return (document for item in items if (document := self._live(item)) is not None)
        return self._all(kind)

    def close(self) -> None:
        """Let go of connections. Closing twice is fine."""
        self.caller.close()

    def after_fork(self) -> None:
        """In a child process: connections and locks of its own."""
        self.caller.after_fork()

    def _all(self, kind: str) -> Iterator[Document]:
        # A scan comes in no order.
        found = map(self._live, self.caller.pages(requests.scan(self.table, f"D#{kind}#")))
        yield from sorted(document for document in found if document is not None)

    def _put_new(self, item: Item, verb: Verb) -> bool:
        """Place an item where nothing is; what has expired there is nothing."""
        request = requests.put(self.table, item, condition="attribute_not_exists(pk)")
        for _ in range(_TRIES_MAX):
            failed = self.caller.write(request, verb)
            if _is_done(failed, verb):
                return True
            there = None if failed is None else failed.first
            if there is not None and self._live(there) is not None:
                return False
            # Exactly what has expired is replaced; if it is gone by now, there is nothing again.
            mark = "" if there is None else text(there, "tk")
            request = requests.put(
                self.table, item, condition="attribute_not_exists(pk) OR tk = :tk", values={":tk": s(mark)}
            )
        raise StoreUnavailable(
            f"A document in table {self.table} changed faster than it could be written; nothing was.",
            next_step="Try again in a moment.",
            table=self.table,
        )

    def _item(self, address: Address, verb: Verb) -> Item | None:
        return cast("Item | None", self.caller.read(requests.get(self.table, _key(address)), verb).get("Item"))

    def _live(self, item: Item | None) -> Document | None:
        """The document in an item, unless it has expired."""
        if item is None:
            return None
        expires_ms = maybe_integer(item, "x")
        if expires_ms is not None and expires_ms <= self._heard_ms():
            return None
        _, kind, owner = text(item, "pk").split("#")
        data = cast("bytes", item["d"]["B"])
        return Document(Address(kind, owner, text(item, "sk")), data, integer(item, "v"), expires_ms)

    def _now_ms(self, address: Address, verb: Verb) -> int:
        """The earliest moment that it may be. Asks, if nobody has told the time yet."""
        if self._time.earliest_ms() is None:
            self._item(address, verb)
        return self._heard_ms()

    def _heard_ms(self) -> int:
        earliest_ms = self._time.earliest_ms()
        return system_ms() if earliest_ms is None else earliest_ms


def open_url(url: str, clock: Clock | None = None) -> DynamoDBDocuments:
    """The engine of a URL like ``dynamodb://TABLE?region=eu-west-1``. Raises ConfigError if it names no table."""
    parts = parse_url(url)
    return DynamoDBDocuments(
        parts.table, region=parts.region, endpoint=parts.endpoint, profile=parts.profile,
        clock=None if clock is system_ms else clock,
    )  # fmt: skip


def _is_done(failed: Failed | None, verb: Verb) -> bool:
    """Whether it is written: now, or by an attempt whose answer was lost."""
    return failed is None or (failed.first is not None and text(failed.first, "tk") == verb.writer)


def _key(address: Address) -> Item:
    # `#` is in no part of an address.
    return key(f"D#{address.kind}#{address.owner}", address.name)


def _item_of(document: Document, writer: str) -> Item:
    # Bytes are the one value that is no text on its way.
    data = cast("Value", {"B": document.data})
    item = {**_key(document.address), "d": data, "v": n(document.version), "tk": s(writer)}
    if document.expires_ms is not None:
        item |= {"x": n(document.expires_ms), "ttl": _ttl(document.expires_ms)}
    return item


def _ttl(expires_ms: int) -> Value:
    return n(expires_ms // 1_000 + KEEP_S)


_engines: WeakSet[DynamoDBDocuments] = WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
