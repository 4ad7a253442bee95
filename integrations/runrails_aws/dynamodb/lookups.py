"""The calls of a user's month, or of a run: asked for by key, some pages at a time, merged by time. Never a scan."""

from __future__ import annotations

from heapq import heappop, heappush, merge
from typing import TYPE_CHECKING

from runrails.errors import StoreUnavailable
from runrails.ids import told_by
from runrails.stores._codec import month_bounds
from runrails_aws.dynamodb import places, requests, schema
from runrails_aws.dynamodb.items import order
from runrails_aws.dynamodb.wire import Item, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runrails.clocks import Clock
    from runrails_aws.dynamodb.calling import Caller
    from runrails_aws.dynamodb.places import Part
    from runrails_aws.dynamodb.wire import Request

__all__ = ["Lookups", "in_order"]

_MS_MAX, _STAMP_MAX = 10**15 - 1, 10**20 - 1
_Filters = tuple[tuple[str, str, str], ...]


class Lookups:
    """
    Finds reservations with facts. Thread-safe.

    What only an index knows of (see `places`) is a moment late, as indexes of DynamoDB are; all else is as it is.
    """

    def __init__(self, table: str, caller: Caller, now_ms: Clock) -> None:
        self._table = table
        self._caller = caller
        self._now_ms = now_ms

    def of_user(self, user: str, period: str) -> Iterator[Item]:
        """A user's calls of a month, oldest first."""
        filters = (("us", "=", user), ("uk", "absent", ""))
        streams = [self._part([part], filters) for part in places.user_parts(user, period)]
        between = _between(period)
        streams += [
            self._named(schema.BY_USER, "uk", name, between, lambda item: text(item, "us") == user)
            for name in places.user_marks(user, period)
        ]
        return merge(*streams, key=_order)

    def of_run(self, run: str, user: str | None, period: str | None) -> Iterator[Item]:
        """A run's calls, oldest first: all of them, or those for one user, or of one month."""
        between = _between(period)
        filters: _Filters = (("rn", "=", run), ("rk", "absent", ""), ("sq", ">=", between[0]), ("sq", "<=", between[1]))
        if user is not None:
            filters += (("us", "=", user),)

        def fits(item: Item) -> bool:
            return text(item, "rn") == run and user in (None, text(item, "us"))

        own = self._part(places.run_parts(run, self._now_ms()), filters)
        return merge(own, self._named(schema.BY_RUN, "rk", run, between, fits), key=_order)

    def _part(self, parts: Iterable[Part], filters: _Filters) -> Iterator[Item]:
        for part in parts:
            asked = requests.part(self._table, part.partition, part.since, filters=filters)
            yield from in_order(self._caller.pages(asked))

    def _named(
        self, index: str, name: str, partition: str, between: tuple[str, str], fits: Callable[[Item], bool]
    ) -> Iterator[Item]:
        asked = requests.named(self._table, index, name, partition, between)
        keys: list[Item] = []
        for entry in self._entries(asked, index):
            keys.append({"pk": entry["pk"], "sk": entry["sk"]})
            if len(keys) == requests.BATCH_MAX:
                yield from self._whole(keys, fits)
                keys = []
        if keys:
            yield from self._whole(keys, fits)

    def _entries(self, asked: Request, index: str) -> Iterator[Item]:
        try:
            yield from self._caller.pages(asked)
        except StoreUnavailable as error:
            if error.fields.get("reason") != "ValidationException":
                raise
            raise StoreUnavailable(
                f"Table {self._table} was made by an older version: it cannot be asked for usage by its index {index}.",
                next_step=f"Stop older versions, and run `runrails aws table create {self._table}`.",
                table=self._table,
            ) from error

    def _whole(self, keys: list[Item], fits: Callable[[Item], bool]) -> list[Item]:
        found = self._caller.batch(requests.get_many(self._table, keys), self._caller.begin())
        return sorted((item for item in found if "fa" in item and fits(item)), key=_order)


def in_order(found: Iterable[Item]) -> Iterator[Item]:
    """Items in the order of their ids, by many clocks, put into that of the ledger's one. Keeps two minutes of them."""
    waiting: list[tuple[str, str, Item]] = []
    for item in found:
        name = places.id_of(item)
        told = told_by(name)
        sure_ms = 0 if told is None else told.ns // 1_000_000 - places.SLACK_MS
        while waiting and waiting[0][0] < order(sure_ms, 0):
            yield heappop(waiting)[2]
        heappush(waiting, (_order(item), name, item))
    while waiting:
        yield heappop(waiting)[2]


def _order(item: Item) -> str:
    return text(item, "sq")


def _between(period: str | None) -> tuple[str, str]:
    """The first and the last mark of order that a call of a month can have."""
    if period is None:
        return order(0, 0), order(_MS_MAX, _STAMP_MAX)
    first_ms, end_ms = month_bounds(period)
    return order(first_ms, 0), order(end_ms - 1, _STAMP_MAX)
