"""
What every engine accepts: ids, amounts, accounts, reservations. Pure; nothing is written before it has passed here.

Amounts are strict integers 0 ≤ x < 2^63: SQLite's largest integer caps every engine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runrails.attribution import Tags, check_tags
from runrails.ids import check_id
from runrails.ledger import AMOUNT_MAX, SCOPES_MAX, Account, CallFacts, Reservation

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = [
    "EXPIRED_MAX",
    "FACTS_CHARS_MAX",
    "MONEY",
    "SWEEP_MAX",
    "TTL_MS_MAX",
    "check_account",
    "check_amount",
    "check_count",
    "check_facts",
    "check_head",
    "check_limit_key",
    "check_price_card",
    "check_reservation",
    "check_source",
    "check_ttl",
    "check_warning",
    "check_zone_of",
    "known_ids",
]

MONEY = "pusd"
"""The unit that a settlement's `actual` is in."""
SWEEP_MAX = 64
"""Most overdue reservations that one reserve resolves on the way."""
EXPIRED_MAX = 10_000
"""Most reservations that one `expire` may be asked to resolve."""
TTL_MS_MAX = 86_400_000
"""Longest life of a hold without being extended: 24 hours."""
FACTS_CHARS_MAX = 4_096
"""Most characters in a call's endpoint, user agent, model and agent path together."""
PRICE_CARD_CHARS_MAX = 65_536
SOURCE_CHARS_MAX = 256

_KNOWN_IDS_MAX = 4_096
_SCOPE_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_PERIOD = re.compile(r"-|[0-9]{4}-(0[1-9]|1[0-2])(-[0-3][0-9])?")
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}")


def check_amount(value: object, *, what: str) -> int:
    """
    Return `value` if it is an amount.

    Raises:
        TypeError: Not an int; bool and float are not amounts.
        ValueError: Negative, or 2^63 and more.
    """
    if type(value) is not int:
        raise TypeError(
            f"{what} must be an int (picodollars for money), not {type(value).__name__}. Write usd('0.10') for dollars."
        )
    if not 0 <= value <= AMOUNT_MAX:
        raise ValueError(f"{what} must be at least 0 and at most {AMOUNT_MAX} (2^63 - 1).")
    return value


def check_count(value: object, *, what: str, count_max: int = EXPIRED_MAX) -> int:
    """
    Return `value` if it is an int from 1 to `count_max`.

    Raises:
        TypeError: Not an int.
        ValueError: Out of range.
    """
    if type(value) is not int:
        raise TypeError(f"{what} must be an int, not {type(value).__name__}.")
    if not 1 <= value <= count_max:
        raise ValueError(f"{what} must be at least 1 and at most {count_max}.")
    return value


def check_ttl(ttl_ms: object) -> int:
    """Return `ttl_ms` if it is an int from 1 ms to 24 h. Raises TypeError or ValueError."""
    return check_count(ttl_ms, what="ttl_ms", count_max=TTL_MS_MAX)


def check_warning(mark: object, window_ms: object) -> None:
    """Check a warning's mark and its window (1 ms to 366 days). Raises TypeError or ValueError."""
    if mark not in {"warning", "limit"}:
        raise ValueError("A warning's mark must be 'warning' or 'limit'.")
    check_count(window_ms, what="window_ms", count_max=366 * 86_400_000)


def check_source(source: object) -> None:
    """Check what an audit line says of its source: printable text of 1 to 256 characters. Raises ValueError."""
    if not isinstance(source, str) or not 1 <= len(source) <= SOURCE_CHARS_MAX or not source.isprintable():
        raise ValueError(f"the source of a correction must be printable text of 1 to {SOURCE_CHARS_MAX} characters.")


def check_limit_key(scope: object, unit: object) -> None:
    """
    Check the two parts that name an operator's limit.

    Raises:
        TypeError: One of them is not text.
        ValueError: It is not of the form ``kind:id``, or not a unit.
    """
    if not isinstance(scope, str) or not isinstance(unit, str):
        raise TypeError("A scope and a unit must be strings.")
    kind, colon, name = scope.partition(":")
    if not colon or not _SCOPE_KIND.fullmatch(kind):
        raise ValueError("A scope must be written kind:id, for instance user:alice or org:acme.")
    check_id(name, what=f"The id of a {kind} scope")
    if not _UNIT.fullmatch(unit):
        raise ValueError("A unit must be a short lower-case word, for instance pusd or tokens.")


def check_zone_of(scope: object, zone: object) -> None:
    """Check a scope and the form of its zone's name. Raises like `check_limit_key`."""
    check_limit_key(scope, MONEY)
    if not isinstance(zone, str) or not _ZONE.fullmatch(zone):
        raise ValueError('A zone must be named as the IANA database does, for instance "UTC" or "Europe/Berlin".')


def check_account(account: Account) -> None:
    """Check every part of an account's key. Raises like `check_limit_key`."""
    if not isinstance(account, Account):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers without types exist
        raise TypeError("An account must be an Account(scope, period, unit).")
    scope, period, unit = account
    check_limit_key(scope, unit)
    if not isinstance(period, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers without types exist
        raise TypeError("A period must be a string.")
    if not _PERIOD.fullmatch(period):
        raise ValueError("A period must be '-', a month like 2026-11 or a day like 2026-11-30.")


known_ids: set[str] = set()
"""Users and runs that were checked before."""
_known_tags: set[Tags] = set()


def check_price_card(fingerprint: object, text: object) -> None:
    """
    Check that a price card's fingerprint is of its text.

    Raises:
        ValueError: It is not, or the text is longer than `PRICE_CARD_CHARS_MAX`.
    """
    import hashlib

    if not isinstance(text, str) or not text.isascii() or len(text) > PRICE_CARD_CHARS_MAX:
        raise ValueError(f"a price card must be ASCII text of at most {PRICE_CARD_CHARS_MAX:,} characters.")
    if fingerprint != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError("a price card's fingerprint must be the SHA-256 of its text.")


def check_facts(facts: CallFacts) -> None:
    """
    Check the ids, the tags and the size of a call's facts.

    Raises:
        TypeError: An id is not text.
        ValueError: An id or a tag is outside its grammar, or the texts are longer than `FACTS_CHARS_MAX`.
    """
    # Users and runs repeat from call to call; remembering good ones spares the hot path the grammar.
    if facts.user not in known_ids or facts.run not in known_ids:
        _remember_id(facts.user)
        _remember_id(facts.run)
    if facts.tags and (type(facts.tags) is not tuple or facts.tags not in _known_tags):
        check_tags(facts.tags)
        if len(_known_tags) >= _KNOWN_IDS_MAX:
            _known_tags.clear()
        _known_tags.add(facts.tags)
    # The texts that come from outside. The others are ids and names of ours.
    if len(facts.endpoint) + len(facts.user_agent) + len(facts.model) + len(facts.agent) > FACTS_CHARS_MAX:
        raise ValueError(
            f"endpoint, user_agent, model and agent of a call must be at most {FACTS_CHARS_MAX} characters together."
        )


def _remember_id(name: str) -> None:
    check_id(name, what="The user or run of a call")
    if len(known_ids) >= _KNOWN_IDS_MAX:
        known_ids.clear()
    known_ids.add(name)


def check_reservation(reservation: Reservation, *, known: Container[Account] = ()) -> None:
    """
    Check everything about a reservation that does not depend on the books. The keys of `known` accounts are good.

    Raises:
        TypeError: A part has the wrong type; floats and bools are not amounts.
        ValueError: An id outside the grammar, an amount out of range, no hold or more than 16, an account named twice.
    """
    check_head(reservation)
    for hold in reservation.holds:
        account, amount, limit = hold
        if type(account) is not Account or account not in known:
            check_account(account)
        if type(amount) is not int or not 0 <= amount <= AMOUNT_MAX:
            check_amount(amount, what=f"The amount to hold for {account.scope}")
        if limit is not None:
            check_amount(limit, what=f"The limit of {account.scope}")
    if len({hold.account for hold in reservation.holds}) != len(reservation.holds):
        raise ValueError("A reservation may name each account only once.")


def check_head(reservation: Reservation) -> None:
    """The part of `check_reservation` that does not look at the single holds."""
    reservation_id, holds, ttl_ms, facts, on_expiry, _ = reservation
    if not (
        type(reservation_id) is str
        and len(reservation_id) <= 128
        and reservation_id.isascii()
        and reservation_id.isalnum()
    ):
        check_id(reservation_id, what="A reservation's id")
    if not 1 <= len(holds) <= SCOPES_MAX:
        raise ValueError(f"A reservation must have 1 to {SCOPES_MAX} holds.")
    if not (type(ttl_ms) is int and 0 < ttl_ms <= TTL_MS_MAX):
        check_ttl(ttl_ms)
    if on_expiry != "charge" and on_expiry != "release":
        raise ValueError("on_expiry must be 'charge' or 'release'.")
    if facts is not None:
        check_facts(facts)
