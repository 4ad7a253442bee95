"""
What stands in the table, and how it is read: accounts, reservations and their keys. Pure.

Names of attributes are short, since every write is billed by the size of its item:

===========  ====================================================================================================
account      ``avail room held spent``; ``cl`` limit from code, ``ol`` limit of an operator, ``cr`` seconds when it
             was made. Without ``avail`` it is none: an operator has limited a run that is still to begin
reservation  ``st`` state, ``v`` version, ``tk`` who wrote it last, ``h`` holds, ``oe`` what an expiry does, ``wr`` the
             refusal an observing one would have got, ``ts`` when, ``sq`` order, ``us rn fa`` user, run and facts;
             ``hx`` when its hold ends, ``hs`` its part of the index while held; ``ac`` charged, ``ch`` charges where
             they differ, ``rs`` when it was resolved, ``sf`` stand-in or corrected, ``re`` result; ``uk rk`` what an
             index must tell of it (see `places`); ``ttl`` once it is resolved, if records are not kept for good
===========  ====================================================================================================
"""

from __future__ import annotations

import json
from typing import NamedTuple, cast
from zlib import crc32

from runrails.ledger import AMOUNT_MAX, Account, Balance, Refused, Reservation, State, UsageRecord
from runrails.stores import rules
from runrails.stores._codec import facts_from_text, facts_text, refused_from_text, refused_text, result_from_text
from runrails_aws.dynamodb.places import id_of, marks, reservation_key
from runrails_aws.dynamodb.wire import Item, integer, maybe_integer, maybe_text, n, s, text

__all__ = [
    "CORRECTED",
    "HELD_SHARDS",
    "KEEP_S",
    "STAND_IN",
    "Found",
    "Row",
    "account_key",
    "account_of",
    "check_same",
    "deadline",
    "deadline_of",
    "found_of",
    "key",
    "limit_key",
    "new_found",
    "order",
    "reservation_item",
    "reservation_key",
    "row_of",
    "shard_of",
    "shards",
    "usage_of",
    "would_refuse_of",
]

HELD_SHARDS = 4
"""Partitions of the index of open holds. One takes 1,000 writes a second, a guarded call makes two."""
KEEP_S = 400 * 86_400
"""What only prevents repetition, like the mark of a warning, is deleted by age after 400 days."""
STAND_IN, CORRECTED = 1, 2
ALONE = "0"
"""The sort key of items that are alone in their partition."""


def key(partition: str, sort: str = ALONE) -> Item:
    """A key of the table."""
    return {"pk": s(partition), "sk": s(sort)}


def account_key(account: Account) -> Item:
    """Accounts of one scope are neighbours; ``#`` is in no scope, period or unit."""
    return key(f"B#{account.scope}", f"{account.period}#{account.unit}")


def account_of(item: Item) -> Account:
    """Whose item it is."""
    period, _, unit = text(item, "sk").partition("#")
    return Account(text(item, "pk")[2:], period, unit)


def limit_key(scope: str, unit: str) -> Item:
    """Where an operator's limit stands."""
    return key(f"C#{scope}", unit)


def shards() -> list[str]:
    """The partitions of the index of open holds."""
    return [f"H{shard}" for shard in range(HELD_SHARDS)]


def shard_of(reservation_id: str) -> str:
    """The partition an open hold is in."""
    return f"H{crc32(reservation_id.encode()) % HELD_SHARDS}"


def deadline(at_ms: int, reservation_id: str = "") -> str:
    """A moment as the index sorts it. Without an id it sorts before every hold that ends in that millisecond."""
    return f"{max(0, at_ms):015d}#{reservation_id}"


def deadline_of(mark: str) -> tuple[int, str]:
    """The moment and the id in what `deadline` wrote."""
    moment, _, reservation_id = mark.partition("#")
    return int(moment), reservation_id


def order(at_ms: int, stamp: int) -> str:
    """Sorts by time of the ledger, and within a millisecond as things happened."""
    return f"{max(0, at_ms):015d}#{stamp:020d}"


class Row(NamedTuple):
    """An account as it stands in the table."""

    account: Account
    code: int | None
    operator: int | None
    spent: int
    held: int
    exists: bool = True
    made_s: int = 0
    """When it was made, in seconds since the epoch; 0 if nobody knows."""

    def most(self, code: int | None = None) -> int:
        """The limit that counts if code gives `code`, or the largest amount there is."""
        limit = rules.effective_limit(operator=self.operator, code=code, code_before=self.code)
        return AMOUNT_MAX if limit is None else limit

    def standing(self, code: int | None = None) -> rules.Standing:
        """The row as a decision sees it."""
        limit = rules.effective_limit(operator=self.operator, code=code, code_before=self.code)
        return rules.Standing(limit, self.spent, self.held)

    def balance(self) -> Balance:
        """The row as callers see it."""
        return Balance(
            account=self.account,
            limit=self.standing().limit,
            spent=self.spent,
            held=self.held,
            limit_source=rules.limit_source(operator=self.operator, code=self.code),
        )


def row_of(item: Item) -> Row:
    """The account in an item."""
    return Row(
        account_of(item), maybe_integer(item, "cl"), maybe_integer(item, "ol"), integer(item, "spent"),
        integer(item, "held"), "avail" in item, integer(item, "cr"),
    )  # fmt: skip


class Found(NamedTuple):
    """A reservation as this process knows it. Writes are made on condition that its version is still this one."""

    entry: rules.Entry
    accounts: tuple[Account, ...]
    asked: tuple[int, ...]
    """What it was made with; what it holds may have been raised since."""
    on_expiry: str
    version: int = 1
    writer: str = ""
    """The signature of who wrote it last."""

    def holds_text(self) -> str:
        """The holds as the table has them."""
        rows = zip(self.accounts, self.entry.amounts, self.asked, strict=True)
        return json.dumps(
            [[*account, amount] if amount == asked else [*account, amount, asked] for account, amount, asked in rows],
            separators=(",", ":"),
        )


def new_found(reservation: Reservation, writer: str) -> Found:
    """A reservation as it is made."""
    amounts = tuple([hold.amount for hold in reservation.holds])
    units = tuple([hold.account.unit for hold in reservation.holds])
    entry = rules.Entry(reservation.id, "held", units, amounts, (0,) * len(amounts))
    return Found(
        entry, tuple([hold.account for hold in reservation.holds]), amounts, reservation.on_expiry, writer=writer
    )


def reservation_item(
    reservation: Reservation, found: Found, *, now_ms: int, expires_ms: int, stamp: int, would_refuse: Refused | None
) -> Item:
    """The item of a reservation that is made now."""
    item: Item = {
        **reservation_key(reservation.id),
        "st": s("held"), "v": n(found.version), "tk": s(found.writer), "h": s(found.holds_text()),
        "ts": n(now_ms), "sq": s(order(now_ms, stamp)),
        "hs": s(shard_of(reservation.id)), "hx": s(deadline(expires_ms, reservation.id)),
    }  # fmt: skip
    if reservation.on_expiry != "charge":
        item["oe"] = s(reservation.on_expiry)
    if would_refuse is not None:
        item["wr"] = s(refused_text(would_refuse))
    facts = reservation.facts
    if facts is not None:
        item |= {"us": s(facts.user), "rn": s(facts.run), "fa": s(facts_text(facts))}
        item |= marks(reservation.id, facts.user, facts.run, now_ms)
    return item


def found_of(item: Item) -> Found:
    """The reservation in an item."""
    holds = cast("list[tuple[str, str, str, int, int]]", json.loads(text(item, "h")))
    accounts = tuple([Account(*hold[:3]) for hold in holds])
    actual = integer(item, "ac")
    charges = maybe_text(item, "ch")
    flag = integer(item, "sf")
    entry = rules.Entry(
        id_of(item),
        cast("State", text(item, "st")),
        tuple([account.unit for account in accounts]),
        tuple([hold[3] for hold in holds]),
        # Charges are written only where accounts were charged differently.
        (actual,) * len(holds) if charges is None else tuple(cast("list[int]", json.loads(charges))),
        actual,
        flag == STAND_IN,
        flag == CORRECTED,
    )
    return Found(
        entry, accounts, tuple([hold[-1] for hold in holds]), text(item, "oe", "charge"), integer(item, "v"),
        text(item, "tk"),
    )  # fmt: skip


def check_same(reservation: Reservation, item: Item) -> Found:
    """The reservation in an item, which must be the one that is made again. Raises ReservationMismatch."""
    found = found_of(item)
    facts = maybe_text(item, "fa")
    rules.check_same(
        reservation,
        holds=zip(found.accounts, found.asked, strict=True),
        on_expiry=found.on_expiry,
        same_facts=reservation.facts
        == (None if facts is None else facts_from_text(text(item, "us"), text(item, "rn"), facts)),
    )
    return found


def would_refuse_of(item: Item) -> Refused | None:
    """The refusal that a reservation would have got, had it been enforced."""
    kept = maybe_text(item, "wr")
    return None if kept is None else refused_from_text(kept)


def usage_of(item: Item) -> UsageRecord:
    """The usage record in a reservation's item."""
    entry = found_of(item).entry
    held = entry.state == "held"
    result = maybe_text(item, "re")
    return UsageRecord(
        id=entry.id,
        state=entry.state,
        at_ms=integer(item, "ts"),
        settled_at_ms=None if held else integer(item, "rs"),
        estimated_pusd=entry.answer(replayed=False).held,
        actual_pusd=None if held else entry.actual,
        facts=facts_from_text(text(item, "us"), text(item, "rn"), text(item, "fa")),
        result=None if result is None else result_from_text(result),
        corrected=entry.corrected,
    )
