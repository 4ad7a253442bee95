"""What becomes of a key: new, suspended, resumed, revoked, rotated. Functions of values."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from runrails.errors import ConfigError
from runrails.identity.apikeys.legacy import BCRYPT
from runrails.identity.apikeys.records import ApiKeyInfo, ApiKeyRecord, Previous
from runrails.identity.principal import check_scopes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.identity.apikeys.format import Environment
    from runrails.rates import Rates

__all__ = ["OVERLAP_MS_MAX", "PREVIOUS_MAX", "Terms", "adopted", "made", "resumed", "revoked", "rotated", "suspended"]

OVERLAP_MS_MAX = 30 * 86_400_000
PREVIOUS_MAX = 2
"""So many secrets of before may still be good."""
_LEGACY_ID = re.compile(r"sk-[0-9A-Za-z_-]{9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a key is given to whom."""

    user: str
    scopes: Iterable[str]
    name: str = ""
    org: str | None = None
    expires_ms: int | None = None
    rates: Rates | None = None
    month_pusd: int | None = None


def made(terms: Terms, *, key_id: str, environment: Environment, kept: str, now_ms: int) -> ApiKeyRecord:
    """A new key, of which the hash `kept` is kept. Raises ConfigError."""
    return _made(terms, key_id, environment, kept, now_ms, legacy=False)


def adopted(terms: Terms, *, key_id: str, environment: Environment, kept: str, now_ms: int) -> ApiKeyRecord:
    """A key of an older platform. Raises ConfigError."""
    if not _LEGACY_ID.fullmatch(key_id):
        _refuse("An older key's id is its first 12 characters, and begins with sk-.", "Give the id as it was stored.")
    if not BCRYPT.fullmatch(kept):
        _refuse("An older key's hash must be of bcrypt ($2b$), with a cost of 4 to 14.", "Give it as it was stored.")
    return _made(terms, key_id, environment, kept, now_ms, legacy=True)


def suspended(info: ApiKeyInfo) -> ApiKeyInfo:
    """Not taken until it is resumed. Raises ConfigError for a revoked key."""
    return replace(_living(info), status="suspended")


def resumed(info: ApiKeyInfo) -> ApiKeyInfo:
    """Taken again. Raises ConfigError for a revoked key."""
    return replace(_living(info), status="active")


def revoked(info: ApiKeyInfo) -> ApiKeyInfo:
    """Never taken again."""
    return replace(info, status="revoked")


def rotated(record: ApiKeyRecord, *, kept: str, now_ms: int, overlap_ms: int) -> ApiKeyRecord:
    """
    The same key with another secret; those of before stay good for a while, two at most. Raises ConfigError.

    Who loses the new secret rotates again, and what is in use must outlive that.
    """
    if type(overlap_ms) is not int or not 0 <= overlap_ms <= OVERLAP_MS_MAX:
        _refuse(
            f"The overlap of a rotation is 0 to {OVERLAP_MS_MAX:,} milliseconds (30 days).",
            "0 is right for a secret that somebody has seen: no earlier one is good any more then.",
        )
    info = _living(record.info)
    if info.legacy:
        _refuse("An older key cannot be rotated: its text has no room for its id.", "Make a new one and revoke it.")
    until_ms = now_ms + overlap_ms
    earlier = [each for each in record.previous if each.until_ms > now_ms]
    previous = (Previous(record.hash, until_ms), *earlier[: PREVIOUS_MAX - 1]) if overlap_ms else ()
    last_ms = max((each.until_ms for each in previous), default=None)
    info = replace(info, rotated_ms=now_ms, previous_until_ms=last_ms)
    return ApiKeyRecord(info=info, hash=kept, previous=previous)


def _made(terms: Terms, key_id: str, environment: Environment, kept: str, now_ms: int, *, legacy: bool) -> ApiKeyRecord:
    if type(terms.expires_ms) is int and terms.expires_ms <= now_ms:
        _refuse("The key would have expired already.", "Name a moment to come, in milliseconds since the epoch.")
    try:
        scopes = check_scopes(terms.scopes)
        info = ApiKeyInfo(
            id=key_id, name=terms.name, user=terms.user, org=terms.org, environment=environment, scopes=scopes,
            status="active", created_ms=now_ms, expires_ms=terms.expires_ms, rates=terms.rates,
            month_pusd=terms.month_pusd, rotated_ms=None, previous_until_ms=None, legacy=legacy,
        )  # fmt: skip
        return ApiKeyRecord(info=info, hash=kept)
    except (ValueError, TypeError) as error:
        wrong = str(error)  # of ours: it names what is wrong, and never the value
    raise ConfigError(wrong, next_step="Nothing was written.")


def _living(info: ApiKeyInfo) -> ApiKeyInfo:
    if info.status == "revoked":
        _refuse("This key is revoked, which is final.", "Make a new one.")
    return info


def _refuse(what: str, next_step: str) -> NoReturn:
    raise ConfigError(what, next_step=next_step)
