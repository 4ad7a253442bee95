"""
Where reservations stand in the table, so that those of a user's month, or of a run, are found by asking for them. Pure.

An id that we have made says when, and for which user and run (`runrails.ids.Told`). Such a reservation stands in the
partition of its user's tag, month and place: its key is its index, which costs nothing to write. A partition takes some
500 calls a second of a run, twice what its account takes, and eight times that of a user. Any other id is alone in a
partition of its own. Whatever a key does not tell truly, an attribute tells, which alone is in an index (a unit
more for each):

- ``uk`` where the key is not that of the user and of the ledger's month;
- ``rk`` where the ids of run and call do not lead to each other, for instance in a run that was given an id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from runrails.ids import PLACES, place_of, tag_of, told_by
from runrails.periods import month_of, next_month
from runrails_aws.dynamodb.wire import Item, s, text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SLACK_MS",
    "Part",
    "id_of",
    "marks",
    "reservation_key",
    "run_parts",
    "user_marks",
    "user_parts",
]

SLACK_MS = 60_000
"""How far the moment in an id may be from the ledger's time; one that is farther off goes to the index."""
USER_MARKS = 4
"""Partitions of the index for a user's month. One takes 1,000 records a second."""
_ALONE = "0"
_MONTHS_MAX = 240


class Part(NamedTuple):
    """A partition of reservations, from an id on."""

    partition: str
    since: str = ""


def reservation_key(reservation_id: str) -> Item:
    """A reservation is found by its id alone."""
    told = told_by(reservation_id)
    if told is None or not told.place:
        return {"pk": s(f"R#{reservation_id}"), "sk": s(_ALONE)}
    return {"pk": s(_partition(told.tag, month_of(told.ns // 1_000_000), told.place)), "sk": s(reservation_id)}


def id_of(item: Item) -> str:
    """Whose item it is."""
    alone = text(item, "sk")
    return text(item, "pk")[2:] if alone == _ALONE else alone


def marks(reservation_id: str, user: str, run: str, at_ms: int) -> Item:
    """What an index must tell of a call because its key does not: nothing, for a call of an ordinary run."""
    call, whole = told_by(reservation_id), told_by(run)
    month = month_of(max(0, at_ms))
    near = call is not None and bool(call.place) and abs(call.ns // 1_000_000 - at_ms) <= SLACK_MS
    told: Item = {}
    if not (near and call is not None and call.tag == tag_of(user) and month_of(call.ns // 1_000_000) == month):
        told["uk"] = s(f"{user}#{month}#{crc32(reservation_id.encode()) % USER_MARKS}")
    if not (
        near and call is not None and whole is not None and not whole.place
        and call.tag == whole.tag and call.place == place_of(run) and call.ns // 1_000_000 >= _begin_ms(whole.ns)
    ):  # fmt: skip
        told["rk"] = s(run)
    return told


def user_parts(user: str, month: str) -> list[Part]:
    """Where the calls of a user's month are."""
    return [Part(_partition(tag_of(user), month, place)) for place in PLACES]


def user_marks(user: str, month: str) -> list[str]:
    """The partitions of the index with those that are not there."""
    return [f"{user}#{month}#{shard}" for shard in range(USER_MARKS)]


def run_parts(run: str, now_ms: int) -> list[Part]:
    """Where the calls of a run are, a part for each month from its beginning until now."""
    told = told_by(run)
    if told is None or told.place:
        return []
    begin_ms = _begin_ms(told.ns)
    place, since = place_of(run), f"{begin_ms * 1_000_000:016x}"
    return [Part(_partition(told.tag, month, place), since) for month in _months(begin_ms, now_ms + SLACK_MS)]


def _begin_ms(ns: int) -> int:
    """The first moment that a call of a run may have in its id, as clocks of several hosts go."""
    return max(0, ns // 1_000_000 - SLACK_MS)


def _months(first_ms: int, last_ms: int) -> Iterator[str]:
    month, last = month_of(first_ms), month_of(max(0, last_ms))
    for _ in range(_MONTHS_MAX):
        if month > last:
            return
        yield month
        month = next_month(month)


def _partition(tag: str, month: str, place: str) -> str:
    return f"R#{tag}#{month}#{place}"
