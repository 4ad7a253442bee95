"""
API keys as they are kept: values, and the bytes of a document.

::

    rrk1 <pepper id> <HMAC of the rest> {"id": …, "user": …, "scopes": …, "hash": …, …}

The record is authenticated with a pepper: who can write to the store and has no pepper can neither give a key more
scopes, nor put one user's record in the place of another's. An older copy of the same record is not told apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from runrails.identity.apikeys.format import ENVIRONMENTS, Environment, prefix_of
from runrails.identity.principal import Principal, check_expiry, check_month, check_scopes
from runrails.ids import check_id
from runrails.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.identity.apikeys.hashing import Peppers

__all__ = [
    "KIND", "KIND_OF_USER", "KIND_USED", "ApiKeyInfo", "ApiKeyRecord", "Previous", "Status", "decode", "encode",
]  # fmt: skip

KIND = "api-key"
"""A key's record; its id is the owner, so that it is found without knowing whose it is."""
KIND_OF_USER = "api-key-of"
"""Which keys a user has: an empty document of the user's for each."""
KIND_USED = "api-key-used"
"""When a key was used last. Apart from the record, so that using a key never gets in the way of who changes it."""
Status = Literal["active", "suspended", "revoked"]
_STATUSES: frozenset[str] = frozenset(get_args(Status))
NAME_CHARS_MAX = 128
_MAGIC = b"rrk1"
_HASH_CHARS_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyInfo:
    """What is known of a key. Nothing in it is secret."""

    id: str
    name: str
    """What it is for, in its owner's words."""
    user: str
    org: str | None
    environment: Environment
    scopes: frozenset[str]
    status: Status
    created_ms: int
    expires_ms: int | None
    rates: Rates | None
    """Requests and tokens a minute of this key."""
    month_pusd: int | None
    """Picodollars it may spend in a calendar month."""
    rotated_ms: int | None
    """When its secret was replaced last."""
    previous_until_ms: int | None
    """Until when a secret of before is taken as well."""
    last_used_ms: int | None = None
    """To the minute; None: never, or not looked up."""
    legacy: bool = False
    """Whether it came from an older platform, and still has its older text."""

    @property
    def prefix(self) -> str:
        """How the key begins; the rest is secret."""
        return self.id if self.legacy else prefix_of(self.environment, self.id)

    def as_dict(self) -> dict[str, str | int | list[str] | dict[str, int | None] | None]:
        """JSON-ready fields."""
        rates = None if self.rates is None else _rates_fields(self.rates)
        return {
            "id": self.id, "prefix": self.prefix, "name": self.name, "user": self.user, "org": self.org,
            "environment": self.environment, "scopes": sorted(self.scopes), "status": self.status,
            "created_ms": self.created_ms, "expires_ms": self.expires_ms, "rates": rates,
            "month_pusd": self.month_pusd, "rotated_ms": self.rotated_ms,
            "previous_until_ms": self.previous_until_ms, "last_used_ms": self.last_used_ms,
        }  # fmt: skip


class Previous(NamedTuple):
    """What is kept of a secret that was replaced."""

    hash: str
    until_ms: int
    """It is good until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRecord:
    """
    A key with what proves it.

    Raises:
        ValueError: A field is malformed. The message never has the value.
        TypeError: A field is of another type.
    """

    info: ApiKeyInfo
    hash: str
    """Of the whole text of the key; see `runrails.identity.apikeys.hashing`."""
    previous: tuple[Previous, ...] = ()
    """Of its texts before rotations, newest first, while they are still good."""

    def __post_init__(self) -> None:
        info = self.info
        check_id(info.id, what="A key's id")
        check_id(info.user, what="A key's user")
        if info.org is not None:
            check_id(info.org, what="A key's organisation")
        if info.environment not in ENVIRONMENTS or info.status not in _STATUSES:
            raise ValueError("A key's environment must be live or test, and its status one of ours.")
        check_scopes(info.scopes)
        _check_name(info.name)
        for moment in (info.created_ms, info.expires_ms, info.rotated_ms, info.previous_until_ms):
            check_expiry(moment)
        check_month(info.month_pusd)
        for text in (self.hash, *(each.hash for each in self.previous)):
            if not (text.isascii() and 0 < len(text) <= _HASH_CHARS_MAX):
                raise ValueError("A key's hash is malformed.")

    def __repr__(self) -> str:
        return f"ApiKeyRecord(id={self.info.id!r})"

    def principal(self, *, expires_ms: int | None) -> Principal:
        """Whom the key proves."""
        info = self.info
        return Principal(
            user=info.user, org=info.org, key_id=info.id, scopes=info.scopes, method="api_key",
            expires_ms=expires_ms, rates=info.rates, month_pusd=info.month_pusd,
        )  # fmt: skip


def encode(record: ApiKeyRecord, peppers: Peppers) -> bytes:
    """The bytes of a record, authenticated with the active pepper."""
    info = record.info
    plain = {each.name: getattr(info, each.name) for each in fields(info) if each.name != "last_used_ms"}
    rates = None if info.rates is None else _rates_fields(info.rates)
    plain |= {"scopes": sorted(info.scopes), "rates": rates}
    plain |= {"hash": record.hash, "previous": record.previous}
    body = json.dumps(plain, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode("ascii")
    pepper_id = peppers.active
    tag = peppers.authenticate(pepper_id, body)
    return b" ".join((_MAGIC, pepper_id.encode("ascii"), tag or b"", body))


def decode(data: bytes, key_id: str, peppers: Peppers) -> ApiKeyRecord | None:
    """The record of that key; None: these bytes are not one that was written with a pepper of ours."""
    parts = data.split(b" ", 3)
    if len(parts) != 4 or parts[0] != _MAGIC:
        return None
    pepper_id = parts[1].decode("latin-1")
    if not peppers.is_authentic(pepper_id, parts[3], parts[2]):
        return None
    try:
        record = _from_json(cast("dict[str, object]", json.loads(parts[3])))
    except (ValueError, TypeError, KeyError, AttributeError):  # written by a version that is not ours
        return None
    return record if record.info.id == key_id else None


def _from_json(plain: Mapping[str, object]) -> ApiKeyRecord:
    rest = dict(plain)
    kept = cast("str", rest.pop("hash"))
    previous = [Previous(*each) for each in cast("list[tuple[str, int]]", rest.pop("previous"))]
    scopes = check_scopes(cast("list[str]", rest.pop("scopes")))
    given = cast("dict[str, int | None] | None", rest.pop("rates"))
    rates = None if given is None else Rates(**given)
    info = ApiKeyInfo(**rest, scopes=scopes, rates=rates)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] -- authenticated, and checked below
    return ApiKeyRecord(info=info, hash=kept, previous=tuple(previous))


def _rates_fields(rates: Rates) -> dict[str, int | None]:
    return {
        "requests_per_minute": rates.requests_per_minute, "tokens_per_minute": rates.tokens_per_minute,
        "requests_burst": rates.requests_burst, "tokens_burst": rates.tokens_burst,
    }  # fmt: skip


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and len(name) <= NAME_CHARS_MAX and name.isprintable()):
        raise ValueError(f"A key's name must be printable text of at most {NAME_CHARS_MAX} characters.")
