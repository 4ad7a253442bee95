"""What the tests of the vault share: rings, vaults, canaries, and a look for what must appear nowhere."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable
from hashlib import sha256
from types import TracebackType

import pytest

from rr_ledger import START_MS
from runrails.credentials import Context, CredentialId, CredentialUnreadable, DataKey, KeyRing, Vault
from runrails.credentials.errors import Reason
from runrails.documents import Address, Document, DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

CANARY = "sk-proj-Q7fJ2mXw9KdLr4TzVb6NcYh8Gs3Ea5PuWq1RtXy0"
"""A provider key that must appear nowhere."""
ALICE = CredentialId("user:alice", "openai")
BOB = CredentialId("user:bob", "openai")
OTHER = "sk-ant-" + CANARY[::-1]


def raw(documents: DocumentStore, which: CredentialId = ALICE) -> Document:
    """A key's document as it stands."""
    document = documents.get(which.address)
    assert document is not None
    return document


def overwrite(documents: DocumentStore, data: bytes, which: CredentialId = ALICE) -> None:
    """What somebody writes who has the store but no keys, version and all."""
    there = documents.get(which.address)
    assert documents.put(which.address, data, expected=there.version if there else 0)


def refused(vault: Vault, which: CredentialId = ALICE) -> str:
    """Why a key does not open."""
    with pytest.raises(CredentialUnreadable) as caught:
        vault.get(which)
    return caught.value.reason


def master(name: str = "k1") -> Secret:
    """A master key that is always the same for a name."""
    return Secret(sha256(b"master " + name.encode()).digest())


def ring(*names: str) -> KeyRing:
    """A ring of such keys; the first seals."""
    names = names or ("k1",)
    return KeyRing(names[0], {name: master(name) for name in names})


def new_vault(documents: DocumentStore | None = None, *names: str, **options: object) -> Vault:
    """A vault with stopped clocks."""
    clock = ManualClock(START_MS)
    return Vault(
        documents or MemoryDocuments(clock=clock), ring(*names), **{"clock": clock, "monotonic": clock, **options}
    )  # type: ignore[arg-type]


class CountingWrapper:
    """A ring that counts what it is asked, and fails with a reason when told to."""

    remote = False

    def __init__(self, inner: KeyRing | None = None) -> None:
        self.inner = inner or ring()
        self.made = self.unwrapped = 0
        self.fails: Reason | Exception | None = None

    @property
    def active(self) -> str:
        """As the ring."""
        return self.inner.active

    def knows(self, key_id: str) -> bool:
        """As the ring."""
        return self.inner.knows(key_id)

    def new_data_key(self, context: Context) -> DataKey:
        """As the ring, counted."""
        self.made += 1
        self._fail()
        return self.inner.new_data_key(context)

    def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
        """As the ring, counted."""
        self.unwrapped += 1
        self._fail()
        return self.inner.unwrap(wrapped, key_id, context)

    def _fail(self) -> None:
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails is not None:
            raise CredentialUnreadable(self.fails)


class Interposed:
    """Documents in front of others: something happens just before the n-th write."""

    remote = False

    def __init__(self, inner: DocumentStore) -> None:
        self.inner = inner
        self.before: list[Callable[[], object]] = []

    def get(self, address: Address) -> Document | None:
        """As the others."""
        return self.inner.get(address)

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        """As the others, after what happens before."""
        if self.before:
            self.before.pop(0)()
        return self.inner.put(address, data, expected=expected, expires_ms=expires_ms)

    def delete(self, address: Address, *, expected: int) -> bool:
        """As the others."""
        return self.inner.delete(address, expected=expected)

    def find(self, kind: str, owner: str | None = None) -> Iterable[Document]:
        """As the others."""
        return self.inner.find(kind, owner)

    def close(self) -> None:
        """As the others."""
        self.inner.close()


def pieces(*secrets: str, size: int = 12) -> set[str]:
    """Every substring of that size, as it stands and as repr and hexadecimal digits would show it."""
    forms = [form for secret in secrets for form in (secret, secret.encode().hex())]
    return {form[start : start + size] for form in forms for start in range(len(form) - size + 1)}


def leaks(text: str, *secrets: str) -> list[str]:
    """What of the secrets is in a text."""
    return sorted(piece for piece in pieces(*secrets) if piece in text)


def everything_of(error: BaseException) -> str:
    """All that a logger could print of an error: its text, fields, causes, and the local variables of every frame."""
    texts = [repr(error), str(error), repr(vars(error)), "".join(traceback.format_exception(error))]
    told: BaseException | None = error
    while told is not None:
        texts.append(_frames(told.__traceback__))
        told = told.__cause__ or told.__context__
    return "\n".join(texts)


def _frames(trace: TracebackType | None) -> str:
    texts = []
    while trace is not None:
        # Test functions hold the secret themselves.
        if f"{os.sep}tests{os.sep}" not in trace.tb_frame.f_code.co_filename:
            texts += [f"{name}={value!r}" for name, value in trace.tb_frame.f_locals.items()]
        trace = trace.tb_next
    return "\n".join(texts)
