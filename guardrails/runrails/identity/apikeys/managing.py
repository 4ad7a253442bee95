"""The records of keys in a store: written, found and changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runrails.documents import Address
from runrails.errors import ConfigError, StoreUnavailable
from runrails.identity.apikeys.records import KIND, KIND_OF_USER, ApiKeyInfo, ApiKeyRecord, decode, encode
from runrails.identity.errors import UnknownKey
from runrails.ids import check_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runrails.documents import Document, DocumentStore
    from runrails.identity.apikeys.hashing import Peppers

__all__ = ["KeyBook", "address_of"]

CHANGES_MAX = 16
"""How often a change is tried when others change the same record."""
_NAME = "key"


def address_of(key_id: str) -> Address:
    """Where the record of a key is."""
    return Address(KIND, key_id, _NAME)


class KeyBook:
    """What is kept of keys. Safe in many threads and processes: nobody's change is lost."""

    def __init__(self, documents: DocumentStore, peppers: Peppers) -> None:
        self.documents = documents
        self._peppers = peppers

    def read(self, key_id: str) -> Document | None:
        """The bytes of a key's record."""
        return self.documents.get(address_of(key_id))

    def add(self, record: ApiKeyRecord) -> bool:
        """Keep a new key. False: there is one with that id, and nothing was changed but the user's list."""
        info = record.info
        # Before the record: a key that nobody can list must not work.
        self.documents.put(Address(KIND_OF_USER, info.user, info.id), b"1", expected=0)
        return self.documents.put(address_of(info.id), encode(record, self._peppers), expected=0) is not None

    def replace(self, document: Document, record: ApiKeyRecord) -> bool:
        """Replace a record that was read. False: somebody has changed it meanwhile."""
        data = encode(record, self._peppers)
        return self.documents.put(document.address, data, expected=document.version) is not None

    def find(self, user: str | None) -> Iterator[ApiKeyRecord]:
        """The keys of a user, or all."""
        if user is None:
            for document in self.documents.find(KIND):
                yield self._opened(document)
            return
        if not _is_id(user):  # nobody is called that
            return
        for listed in self.documents.find(KIND_OF_USER, user):
            found = self.read(listed.address.name)
            # The list may name a key that was never written, or another user's: then it is not this one's.
            if found is not None and (record := self._opened(found)).info.user == user:
                yield record

    def get(self, key_id: str) -> tuple[Document, ApiKeyRecord]:
        """A key's record. Raises UnknownKey, and ConfigError if it cannot be read."""
        document = self.read(key_id) if _is_id(key_id) else None
        if document is None:
            raise UnknownKey
        return document, self._opened(document)

    def change(self, key_id: str, change: Callable[[ApiKeyRecord], ApiKeyRecord]) -> ApiKeyInfo:
        """
        Change a record, over what others do to it at the same time.

        Raises:
            UnknownKey: There is none.
            StoreUnavailable: Others are changing it all the time.
        """
        for _ in range(CHANGES_MAX):
            document, record = self.get(key_id)
            changed = change(record)
            if changed == record or self.replace(document, changed):
                return changed.info
        raise StoreUnavailable("The key is being changed by others; nothing was changed here.", next_step="Try again.")

    def with_status(self, key_id: str, change: Callable[[ApiKeyInfo], ApiKeyInfo]) -> ApiKeyInfo:
        """Change what is known of a key, and not what proves it."""
        return self.change(key_id, lambda record: replace(record, info=change(record.info)))

    def _opened(self, document: Document) -> ApiKeyRecord:
        key_id = document.address.owner
        record = decode(document.data, key_id, self._peppers)
        if record is None:
            raise ConfigError(
                f"The record of the key {key_id} was not written with one of these peppers, or was changed since.",
                next_step="Name every pepper that keys were made with; if none is missing, restore the store.",
                key_id=key_id,
            )
        return record


def _is_id(text: object) -> bool:
    try:
        return bool(check_id(text, what="An id"))
    except ValueError:
        return False
