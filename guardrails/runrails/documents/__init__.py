"""
Small records that are not money: sealed credentials, API keys, revocations, proofs that were used.

A document is opaque bytes under an address of three parts, with a version that a writer must name: what somebody else
has changed meanwhile is never overwritten. What the bytes mean is the business of the room that wrote them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from runrails.ids import check_id

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DATA_BYTES_MAX",
    "Address",
    "Document",
    "DocumentStore",
    "check_address",
    "check_find",
    "check_version",
    "check_write",
]

DATA_BYTES_MAX = 65_536
"""A document is a record, not a file."""
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TIME_MS_MAX = 2**53


class Address(NamedTuple):
    """Where a document is. Documents of one owner can be listed quickly; all of a kind cannot."""

    kind: str
    """What it is: ``[a-z][a-z0-9-]{0,31}``."""
    owner: str
    """Whose it is; an identifier, see `runrails.ids`."""
    name: str
    """Which of them; an identifier."""


class Document(NamedTuple):
    """A document as it was found."""

    address: Address
    data: bytes
    version: int
    """1 when it is new, one more at every write."""
    expires_ms: int | None
    """Since the epoch; from then on it is as if it had never been."""


class DocumentStore(Protocol):
    """
    An engine. Safe in many threads.

    Every verb raises ValueError for an address or data outside the rules and StoreUnavailable if the engine cannot be
    reached; nothing was written then, or, over a network, it may have been: `get` tells.
    """

    def get(self, address: Address) -> Document | None:
        """The newest document at an address, as all finished writes have left it; None if there is none."""
        ...

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        """
        Write, if the version there is still `expected` (0: nothing is there). None: it is not, and nothing was changed.

        A write with ``expected=0`` succeeds for exactly one of any number of writers.
        """
        ...

    def delete(self, address: Address, *, expected: int) -> bool:
        """Remove, if the version there is still `expected`; False: it is not, and nothing was changed."""
        ...

    def find(self, kind: str, owner: str | None = None) -> Iterator[Document]:
        """All documents of a kind, or of one owner, by owner and name. Without an owner this reads the whole store."""
        ...

    def close(self) -> None:
        """Let go of what is held. Closing twice is fine."""
        ...


def check_address(address: Address) -> Address:
    """Check that an address is well formed. Raises ValueError; the message never has the value."""
    kind, owner, name = address
    if type(kind) is not str or not _KIND.fullmatch(kind):  # pyright: ignore[reportUnnecessaryComparison] -- callers without types exist
        raise ValueError("A document's kind must be 1 to 32 of a-z, 0-9 and -, the first a letter.")
    check_id(owner, what="A document's owner")
    check_id(name, what="A document's name")
    return address


def check_find(kind: str, owner: str | None) -> None:
    """Check what is looked for. Raises ValueError."""
    check_address(Address(kind, "any" if owner is None else owner, "any"))


def check_write(address: Address, data: bytes, expected: int, expires_ms: int | None) -> None:
    """Check what is to be written. Raises ValueError or TypeError; the message never has the value."""
    check_address(address)
    if type(data) is not bytes:  # pyright: ignore[reportUnnecessaryComparison] -- callers without types exist
        raise TypeError("A document's data must be bytes.")
    if len(data) > DATA_BYTES_MAX:
        raise ValueError(f"A document holds at most {DATA_BYTES_MAX:,} bytes.")
    check_version(expected)
    if expires_ms is not None and (type(expires_ms) is not int or not 0 <= expires_ms < _TIME_MS_MAX):
        raise ValueError("A document expires at a whole number of milliseconds since the epoch, or never.")


def check_version(expected: int) -> None:
    """Check a version that a writer names. Raises ValueError."""
    if type(expected) is not int or not 0 <= expected < _TIME_MS_MAX:
        raise ValueError("The expected version must be 0 or the version of a document that was read.")
