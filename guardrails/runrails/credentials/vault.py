"""The vault: users' own provider keys, sealed, each bound to whose it is and to what it is for."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.credentials.cache import Opened
from runrails.credentials.envelope import key_id_of, open_, seal
from runrails.credentials.errors import (
    CredentialChanged,
    CredentialExists,
    CredentialNotFound,
    CredentialSuspended,
    CredentialUnreadable,
    Reason,
)
from runrails.credentials.records import (
    KIND,
    REMOVED,
    STATUS_KIND,
    Credential,
    CredentialId,
    CredentialInfo,
    Public,
    Record,
    StatusRecord,
    check_base_url,
    check_region,
    check_secret,
    hint_of,
    id_of,
    scope_of,
)
from runrails.errors import CredentialError, StoreUnavailable
from runrails.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails.credentials.records import Status
    from runrails.credentials.wrapping import KeyWrapper
    from runrails.documents import Document, DocumentStore
    from runrails.secretvalue import Secret

__all__ = ["CREDENTIALS_MAX", "Rewrapped", "Unreadable", "Vault"]

CREDENTIALS_MAX = 100
"""Keys of one owner. Adding looks before it writes, so that many at one moment may pass it by a few."""
REMOVED_FOR_MS = 86_400_000
"""How long a removed key's version is remembered, which no writer outlives."""
REWRAPPED_MAX = 10_000
"""So many keys that it has sealed anew on reading does a vault remember."""
REWRAP_PAUSE_MS = 60_000
"""After sealing anew has failed once, reading does not try again for so long."""
_TRIES_MAX = 8
_UNVERIFIED = StatusRecord("unverified", None, "")


class Unreadable(NamedTuple):
    """A key that could not be opened."""

    id: CredentialId
    reason: Reason


class Rewrapped(NamedTuple):
    """What became of sealing everything anew."""

    renewed: int
    """How many were sealed anew with the active master key."""
    current: int
    """How many were already."""
    unreadable: tuple[Unreadable, ...]
    """What could not be opened, and stays as it is."""
    contended: tuple[CredentialId, ...] = ()
    """What others changed all the time, and may still be sealed with an older master key."""


class Vault:
    """
    Users' own provider keys. Safe in many threads; every verb reads the store, so that what others do counts at once.

    Args:
        documents: Where they are kept.
        wrapper: The master keys.
        clock: Wall clock in milliseconds since the epoch.
        cache_ms: How long an opened key is used again, and so how long a disabled master key still opens it; 0: not at
            all. It is forgotten with the next key that is opened after that.
        cache_max: Most opened keys in memory.
        monotonic: Milliseconds of a clock that never jumps, for the cache.
    """

    def __init__(
        self,
        documents: DocumentStore,
        wrapper: KeyWrapper,
        *,
        clock: Clock = system_ms,
        cache_ms: int = 60_000,
        cache_max: int = 1_000,
        monotonic: Clock = monotonic_ms,
    ) -> None:
        self._documents = documents
        self._wrapper = wrapper
        self._clock = clock
        self._monotonic = monotonic
        self._opened = Opened(ttl_ms=cache_ms, count_max=cache_max, monotonic=monotonic)
        self._rewrap_from_ms: int | None = None
        self._rewrapped_once: set[CredentialId] = set()
        """What is sealed with another key once more is so by somebody whose active key that is: nobody wins a fight."""

    @property
    def remote(self) -> bool:
        """Whether a verb may ask somebody over a network."""
        return self._wrapper.remote or bool(getattr(self._documents, "remote", True))

    def add(
        self, which: CredentialId, secret: Secret, *, base_url: str | None = None, region: str | None = None
    ) -> CredentialInfo:
        """
        Store a new key.

        Args:
            which: Whose, and what for.
            secret: The key.
            base_url: Where it is used, if not at the provider's own address.
            region: Where it is used, for providers that have regions.

        Raises:
            ValueError: Something is malformed.
            CredentialExists: There is one.
            CredentialError: The owner has `CREDENTIALS_MAX`.
            CredentialUnreadable: It cannot be sealed.
            StoreUnavailable: Nothing was written, or over a network it may have been.
        """
        _check(secret, base_url, region)
        before = self._documents.get(which.address)
        if before is not None and before.data != REMOVED:
            raise CredentialExists(**_names(which))
        if sum(1 for _ in self._found(which.owner)) >= CREDENTIALS_MAX:
            raise CredentialError(
                f"{which.owner} has {CREDENTIALS_MAX} keys, which is the most.",
                next_step="Remove one that is not used.",
            )
        now_ms = self._clock()
        public = Public(now_ms, now_ms, new_id(), hint_of(secret), base_url, region)
        written = self._write(which, secret, public, expected=0 if before is None else before.version)
        if written is None:
            raise CredentialExists(**_names(which))
        return self._info(which, written, self._status(which))

    def get(self, which: CredentialId) -> Credential:
        """
        A key, opened. One that is sealed with another master key than the active one is sealed anew on the way, once.

        Raises:
            CredentialNotFound: There is none.
            CredentialSuspended: It may not be used.
            CredentialUnreadable: It does not open, for a reason that is the operator's to know.
            StoreUnavailable: The store cannot be reached.
        """
        document = self._existing(which)
        status = self._status(which)
        if status.status == "suspended":
            raise CredentialSuspended(**_names(which))
        record, secret = self._open(which, document)
        if key_id_of(record.envelope) != self._wrapper.active and self._may_rewrap(which):
            document = self._rewrapped(which, document, record, secret) or document
        return Credential(self._info(which, document, status), secret)

    def peek(self, which: CredentialId) -> CredentialInfo | None:
        """What may be told of a key, unopened; None if there is none."""
        document = self._documents.get(which.address)
        if document is None or document.data == REMOVED:
            return None
        return self._info(which, document, self._status(which))

    def list(self, owner: str | None = None) -> list[CredentialInfo]:
        """What may be told of an owner's keys, or of everybody's, by owner, provider and label. Opens none."""
        found = list(self._found(owner))
        name = None if owner is None else scope_of(owner)[0]
        found_statuses = self._documents.find(STATUS_KIND, name)
        statuses = {each.address[1:]: StatusRecord.parse(each.data) for each in found_statuses}
        infos = [self._info(which, document, statuses.get(which.address[1:], _UNVERIFIED)) for which, document in found]
        return sorted(infos, key=lambda info: (info.id.owner, info.id.provider, info.id.label))

    def rotate(
        self, which: CredentialId, secret: Secret, *, base_url: str | None = None, region: str | None = None
    ) -> CredentialInfo:
        """
        Replace a key by another one; base URL and region stay as they are unless others are given.

        Raises:
            ValueError: Something is malformed.
            CredentialNotFound: There is none.
            CredentialUnreadable: The old one does not open, so nobody knows whether its base URL is what it was.
            CredentialChanged: Somebody else was quicker. Nothing was written.
            StoreUnavailable: Nothing was written, or over a network it may have been.
        """
        _check(secret, base_url, region)
        document = self._existing(which)
        old = self._open(which, document)[0].public
        public = Public(
            old.created_ms, self._clock(), new_id(), hint_of(secret), base_url or old.base_url, region or old.region
        )
        written = self._write(which, secret, public, expected=document.version)
        if written is None:
            raise CredentialChanged(**_names(which))
        return self._info(which, written, self._status(which))

    def remove(self, which: CredentialId) -> bool:
        """
        Remove a key; False if there is none. A suspension outlives it.

        Raises:
            CredentialChanged: Somebody else changes it all the time.
            StoreUnavailable: Nothing was written, or over a network it may have been.
        """
        for _ in range(_TRIES_MAX):
            document = self._documents.get(which.address)
            if document is None or document.data == REMOVED:
                return False
            gone_ms = self._clock() + REMOVED_FOR_MS
            if self._documents.put(which.address, REMOVED, expected=document.version, expires_ms=gone_ms):
                self._opened.forget(which)
                self._drop_status(which)
                return True
        raise CredentialChanged(**_names(which))

    def mark(
        self, which: CredentialId, status: Status, checked_ms: int | None = None, *, secret_id: str | None = None
    ) -> CredentialInfo:
        """
        Note what became of a check, or suspend a key. Only `resume` ends a suspension.

        Args:
            which: Which key.
            status: What is so now.
            checked_ms: When the provider was asked; None leaves that as it is.
            secret_id: The secret that was checked, from `CredentialInfo`. If another one has taken its place meanwhile,
                nothing is noted.

        Raises:
            CredentialNotFound: There is none.
            CredentialChanged: Others note something about it all the time.
            StoreUnavailable: It may not be noted.
        """
        return self._note(which, status, checked_ms, secret_id, resume=False)

    def resume(self, which: CredentialId) -> CredentialInfo:
        """End a suspension; the key counts as unverified. Raises as `mark`."""
        return self._note(which, "unverified", None, None, resume=True)

    def rewrap(self, owner: str | None = None) -> Rewrapped:
        """
        Seal an owner's keys, or everybody's, with the active master key, so that an older one can be given up: once it
        is nobody's active one any more, and nothing is unreadable or contended.

        Raises:
            StoreUnavailable: The store cannot be reached; what was sealed anew stays so.
        """
        renewed = current = 0
        unreadable: list[Unreadable] = []
        contended: list[CredentialId] = []
        for which, document in self._found(owner):
            try:
                done = self._rewrap(which, document)
            except CredentialUnreadable as error:
                unreadable.append(Unreadable(which, error.reason))
            except CredentialChanged:
                contended.append(which)
            else:
                renewed, current = (renewed + 1, current) if done else (renewed, current + 1)
        return Rewrapped(renewed, current, tuple(unreadable), tuple(contended))

    def close(self) -> None:
        """Forget opened keys and let go of the store. Closing twice is fine."""
        self._opened.clear()
        self._documents.close()

    def _note(
        self, which: CredentialId, status: Status, checked_ms: int | None, secret_id: str | None, *, resume: bool
    ) -> CredentialInfo:
        self._opened.forget(which)
        for _ in range(_TRIES_MAX):
            document = self._existing(which)
            info = self._info(which, document, _UNVERIFIED)
            noted = self._documents.get(which.status_address)
            before = _UNVERIFIED if noted is None else StatusRecord.parse(noted.data)
            outdated = secret_id not in {None, info.secret_id}
            if outdated or (before.status == "suspended") != resume:
                return self._info(which, document, before)
            now = StatusRecord(status, before.checked_ms if checked_ms is None else checked_ms, info.secret_id)
            version = 0 if noted is None else noted.version
            if self._documents.put(which.status_address, now.encoded(), expected=version):
                return self._info(which, document, now)
        raise CredentialChanged(**_names(which))

    def _drop_status(self, which: CredentialId) -> None:
        """Forget what was noted of a removed key; a suspension is of the owner's right to use it, and stays."""
        noted = self._documents.get(which.status_address)
        if noted is not None and StatusRecord.parse(noted.data).status != "suspended":
            self._documents.delete(which.status_address, expected=noted.version)

    def _rewrap(self, which: CredentialId, found: Document) -> bool:
        """Whether it was sealed anew; False if that was not needed. Raises CredentialChanged."""
        document: Document | None = found
        for _ in range(_TRIES_MAX):
            if document is None or document.data == REMOVED:
                return False
            record = Record.parse(document.data)
            if record is None:
                raise CredentialUnreadable("malformed")
            if key_id_of(record.envelope) == self._wrapper.active:
                return False
            record, secret = self._open(which, document)
            if self._write(which, secret, record.public, expected=document.version) is not None:
                return True
            # Whoever was quicker may have another active key.
            document = self._documents.get(which.address)
        raise CredentialChanged(**_names(which))

    def _rewrapped(self, which: CredentialId, document: Document, record: Record, secret: Secret) -> Document | None:
        """Seal anew, if it works at once: a key that can be read is read whatever becomes of this."""
        try:
            written = self._write(which, secret, record.public, expected=document.version)
        except (CredentialUnreadable, StoreUnavailable):
            self._rewrap_from_ms = self._monotonic() + REWRAP_PAUSE_MS
            return None
        if len(self._rewrapped_once) < REWRAPPED_MAX:
            self._rewrapped_once.add(which)
        return written

    def _may_rewrap(self, which: CredentialId) -> bool:
        if which in self._rewrapped_once:
            return False
        return self._rewrap_from_ms is None or self._monotonic() >= self._rewrap_from_ms

    def _write(self, which: CredentialId, secret: Secret, public: Public, *, expected: int) -> Document | None:
        """Seal for the version that is about to be, and write that; None if somebody else has."""
        text = public.encoded()
        data = Record.encode(text, seal(secret, which.context(expected + 1, text), self._wrapper))
        try:
            return self._documents.put(which.address, data, expected=expected)
        finally:
            self._opened.forget(which)

    def _open(self, which: CredentialId, document: Document) -> tuple[Record, Secret]:
        """A record with its secret, which is bound to this id and to this version. Raises CredentialUnreadable."""
        record = Record.parse(document.data)
        if record is None:
            raise CredentialUnreadable("malformed")
        context = which.context(document.version, record.public_bytes)
        key = sha256(sha256(record.envelope).digest() + context.encoded()).digest()
        secret = self._opened.find(key)
        if secret is None:
            secret = open_(record.envelope, context, self._wrapper)
            self._opened.keep(key, which, secret)
        return record, secret

    def _existing(self, which: CredentialId) -> Document:
        document = self._documents.get(which.address)
        if document is None or document.data == REMOVED:
            raise CredentialNotFound(**_names(which))
        return document

    def _found(self, owner: str | None) -> Iterator[tuple[CredentialId, Document]]:
        name, start = (None, "") if owner is None else scope_of(owner)
        for document in self._documents.find(KIND, name):
            found = id_of(document.address)
            if found is not None and document.data != REMOVED and document.address.name.startswith(start):
                yield found, document

    def _status(self, which: CredentialId) -> StatusRecord:
        noted = self._documents.get(which.status_address)
        return _UNVERIFIED if noted is None else StatusRecord.parse(noted.data)

    def _info(self, which: CredentialId, document: Document, status: StatusRecord) -> CredentialInfo:
        record = Record.parse(document.data)
        if record is None:
            return CredentialInfo(
                id=which, version=document.version, key_id="", created_ms=0, status="unverified", checked_ms=None,
                hint=None, rotated_ms=0, secret_id="", readable=False,
            )  # fmt: skip
        public = record.public
        # A check of another secret says nothing of this one; a suspension is of whichever there is.
        of_this = status.status == "suspended" or status.secret_id == public.secret_id
        noted = status if of_this else _UNVERIFIED
        key_id = key_id_of(record.envelope)
        return CredentialInfo(
            id=which, version=document.version, key_id=key_id or "", created_ms=public.created_ms, status=noted.status,
            checked_ms=noted.checked_ms, hint=public.hint, rotated_ms=public.rotated_ms, secret_id=public.secret_id,
            base_url=public.base_url, region=public.region, readable=key_id is not None,
        )  # fmt: skip


def _check(secret: Secret, base_url: str | None, region: str | None) -> None:
    check_secret(secret)
    check_base_url(base_url)
    check_region(region)


def _names(which: CredentialId) -> dict[str, str]:
    return {"owner": which.owner, "provider": which.provider, "label": which.label}
