"""
Stored provider keys as values, and as the bytes of a document.

::

    magic | what may be read without opening it, as JSON | envelope

The JSON is authenticated with the envelope: whoever changes a base URL there has a record that does not open.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast

from runrails.credentials.wrapping import Context
from runrails.documents import Address
from runrails.ids import check_id

if TYPE_CHECKING:
    from runrails.secretvalue import Secret

__all__ = [
    "KIND",
    "LABEL",
    "REMOVED",
    "SECRET_BYTES_MAX",
    "STATUSES",
    "STATUS_KIND",
    "Credential",
    "CredentialId",
    "CredentialInfo",
    "Public",
    "Record",
    "StatusRecord",
    "check_base_url",
    "check_region",
    "check_secret",
    "hint_of",
    "id_of",
    "scope_of",
]

KIND = "credential"
STATUS_KIND = "credential-status"
LABEL = "default"
REMOVED = b"removed"
"""What stands where a record was, for a while: so that versions go on and a late writer cannot bring it back."""
SECRET_BYTES_MAX = 16_384
Status: TypeAlias = Literal["valid", "invalid", "unverified", "suspended"]
STATUSES: tuple[Status, ...] = ("valid", "invalid", "unverified", "suspended")
_MAGIC = b"rrc1"
_PURPOSE = "provider key"
_HINT_CHARS = 4
_HINT_FROM_CHARS = 20
"""Of a shorter secret, four characters would tell too much."""
_SCOPE = re.compile(r"(user|org):(.+)")
_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BASE_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")
_BASE_URL_CHARS_MAX = 1_024
_TIME_MS_MAX = 2**53


@dataclass(frozen=True, slots=True)
class CredentialId:
    """
    Which key of whose.

    Raises:
        ValueError: A part is malformed. The message never has its value.
    """

    owner: str
    """A scope: ``user:alice``, ``org:acme`` or ``platform``."""
    provider: str
    label: str = LABEL

    def __post_init__(self) -> None:
        _owner(self.owner)
        if not _PROVIDER.fullmatch(self.provider):
            raise ValueError("A provider is 1 to 32 of a-z, 0-9, _ and -, the first a letter.")
        if not _LABEL.fullmatch(self.label):
            raise ValueError("A label is 1 to 64 letters, digits or one of . _ -, the first a letter or digit.")

    @property
    def address(self) -> Address:
        """Where its document is."""
        return self._at(KIND)

    @property
    def status_address(self) -> Address:
        """Where it says what became of the last check."""
        return self._at(STATUS_KIND)

    def context(self, version: int, public: bytes) -> Context:
        """What its envelope is bound to."""
        return Context(self.owner, self.provider, self.label, version, _PURPOSE, public)

    def _at(self, kind: str) -> Address:
        # The scope's kind is part of the name, not of the owner: both have the length that they need, and neither
        # kinds nor providers have a dot, so one text is never two ids.
        scope, name = _owner(self.owner)
        return Address(kind, name, f"{scope}.{self.provider}.{self.label}")


def _owner(owner: str) -> tuple[str, str]:
    """The kind and the name of a scope that owns keys."""
    if owner == "platform":
        return "platform", "platform"
    found = _SCOPE.fullmatch(owner)
    if found is None:
        raise ValueError("A key's owner is user:NAME, org:NAME or platform.")
    return found[1], check_id(found[2], what="The name of a key's owner")


def scope_of(owner: str) -> tuple[str, str]:
    """The owner of an owner's documents, and how the names of those begin. Raises ValueError."""
    scope, name = _owner(owner)
    return name, f"{scope}."


def id_of(address: Address) -> CredentialId | None:
    """The id that has this address; None if none has."""
    scope, _, rest = address.name.partition(".")
    provider, _, label = rest.partition(".")
    try:
        found = CredentialId("platform" if scope == "platform" else f"{scope}:{address.owner}", provider, label)
    except ValueError:
        return None
    return found if found.address[1:] == address[1:] else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialInfo:
    """What may be told of a stored key. Nothing here opens anything."""

    id: CredentialId
    version: int
    """One more at every change of the record, also when it is only sealed anew."""
    key_id: str
    """The master key that it is sealed with; empty if the record is damaged."""
    created_ms: int
    status: Status
    checked_ms: int | None
    """When the provider was last asked about it."""
    hint: str | None
    """Its last four characters, if it is long enough to tell them."""
    rotated_ms: int
    """When this secret came to be the key."""
    secret_id: str
    """Names the secret: another one after a rotation, the same after being sealed anew."""
    base_url: str | None = None
    region: str | None = None
    readable: bool = True
    """False: the record is damaged. True does not say that it opens."""


class Credential(NamedTuple):
    """A key that is open."""

    info: CredentialInfo
    secret: Secret


class Public(NamedTuple):
    """What stands beside an envelope."""

    created_ms: int
    rotated_ms: int
    secret_id: str
    hint: str | None
    base_url: str | None
    region: str | None

    def encoded(self) -> bytes:
        """As bytes, always the same."""
        return json.dumps(self._asdict(), separators=(",", ":"), sort_keys=True).encode()


class Record(NamedTuple):
    """A document's content, taken apart; the envelope is still closed."""

    public: Public
    public_bytes: bytes
    envelope: bytes

    @staticmethod
    def encode(public: bytes, envelope: bytes) -> bytes:
        """The content of a document."""
        return _MAGIC + len(public).to_bytes(2, "big") + public + envelope

    @classmethod
    def parse(cls, data: bytes) -> Record | None:
        """Take a document's content apart; None if it is damaged."""
        start = len(_MAGIC) + 2
        if data[: len(_MAGIC)] != _MAGIC:
            return None
        end = start + int.from_bytes(data[len(_MAGIC) : start], "big")
        public = _public(data[start:end]) if end < len(data) else None
        return None if public is None else cls(public, data[start:end], data[end:])


class StatusRecord(NamedTuple):
    """What became of the last check of a secret."""

    status: Status
    checked_ms: int | None
    secret_id: str

    def encoded(self) -> bytes:
        """As the content of a document."""
        return json.dumps(self._asdict(), separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def parse(cls, data: bytes) -> StatusRecord:
        """What a document says; of a damaged one that the key is suspended, which is what it may have said."""
        said = _object(data)
        status, checked_ms, secret_id = said.get("status"), said.get("checked_ms"), said.get("secret_id")
        sound = (checked_ms is None or _is_time(checked_ms)) and isinstance(secret_id, str)
        if status not in STATUSES or not sound:
            return cls("suspended", None, "")
        return cls(status, cast("int | None", checked_ms), cast("str", secret_id))


def check_secret(secret: Secret) -> Secret:
    """Return a secret that can be stored. Raises ValueError."""
    if len(secret.reveal_bytes()) > SECRET_BYTES_MAX:
        raise ValueError(f"A provider key has at most {SECRET_BYTES_MAX:,} bytes.")
    return secret


def check_base_url(url: str | None) -> str | None:
    """Return it if it can be one; where it may lead is judged when it is used. Raises ValueError."""
    if url is None or (len(url) <= _BASE_URL_CHARS_MAX and _BASE_URL.fullmatch(url)):
        return url
    raise ValueError("A base URL is https://HOST/PATH in ASCII, without user, query or fragment.")


def check_region(region: str | None) -> str | None:
    """Return it if it can be one. Raises ValueError."""
    if region is None or _REGION.fullmatch(region):
        return region
    raise ValueError("A region is written like eu-west-1.")


def hint_of(secret: Secret) -> str | None:
    """The last four characters of a secret that is text of at least twenty."""
    held = secret.reveal_bytes()
    if len(held) < _HINT_FROM_CHARS or not held.isascii():
        return None
    hint = held[-_HINT_CHARS:].decode("ascii")
    return hint if hint.isprintable() else None


def _public(text: bytes) -> Public | None:
    said = _object(text)
    created_ms, rotated_ms, secret_id = said.get("created_ms"), said.get("rotated_ms"), said.get("secret_id")
    others = [said.get(name) for name in ("hint", "base_url", "region")]
    if not _is_time(created_ms) or not _is_time(rotated_ms) or not isinstance(secret_id, str):
        return None
    if said.keys() != set(Public._fields) or not all(other is None or isinstance(other, str) for other in others):
        return None
    hint, base_url, region = cast("list[str | None]", others)
    return Public(cast("int", created_ms), cast("int", rotated_ms), secret_id, hint, base_url, region)


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value < _TIME_MS_MAX


def _object(text: bytes) -> dict[str, object]:
    """The JSON object in a text; an empty one if there is none."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
