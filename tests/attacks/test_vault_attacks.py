"""The vault attacked: whoever has the store, but no master key, gets nothing and changes nothing unseen."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rr_documents import open_documents_kind
from rr_ledger import START_MS
from rr_vault import (
    ALICE,
    BOB,
    CANARY,
    OTHER,
    CountingWrapper,
    Interposed,
    everything_of,
    leaks,
    master,
    new_vault,
    overwrite,
    raw,
    refused,
    ring,
)
from runrails.credentials import (
    CredentialId,
    CredentialSuspended,
    CredentialUnreadable,
    KeyRing,
    Vault,
)
from runrails.credentials.errors import advice
from runrails.credentials.records import Record, StatusRecord
from runrails.credentials.vault import Rewrapped, Unreadable
from runrails.documents import Address, Document, DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.errors import StoreUnavailable
from runrails.secretvalue import Secret
from runrails.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A stopped clock."""
    return ManualClock(START_MS)


@pytest.fixture(params=("memory", "sqlite"))
def documents(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[DocumentStore]:
    """A fresh engine."""
    opened = open_documents_kind(request.param, tmp_path, clock)
    yield opened
    opened.close()


@pytest.fixture
def vault(documents: DocumentStore, clock: ManualClock) -> Vault:
    """A vault in it."""
    return new_vault(documents, clock=clock, monotonic=clock)


def test_a_damaged_status_suspends(vault: Vault, documents: DocumentStore) -> None:
    """Nobody knows what it said, so it is taken for the worst."""
    vault.add(ALICE, Secret(CANARY))
    vault.mark(ALICE, "suspended")
    good = documents.get(ALICE.status_address)
    assert good is not None
    for data in (b"", b"null", b"[]", b"{", b'{"status":"fine"}', good.data.replace(b"suspended", b"Valid"),
                 b'{"status":"valid","checked_ms":true,"secret_id":"x"}', b'{"status":"valid","checked_ms":1}',
                 b"[" * 50_000):  # fmt: skip
        assert "suspended" == StatusRecord.parse(data).status
    version = good.version
    assert documents.put(ALICE.status_address, b"{", expected=version)
    with pytest.raises(CredentialSuspended):
        vault.get(ALICE)


MALFORMED = [
    ("", "openai", "x"), ("alice", "openai", "x"), ("user:", "openai", "x"), ("key:a", "openai", "x"),
    ("user:a/b", "openai", "x"), ("user:ä", "openai", "x"), ("platform:x", "openai", "x"), ("user:a\n", "openai", "x"),
    ("user:a", "", "x"), ("user:a", "OpenAI", "x"), ("user:a", "open.ai", "x"), ("user:a", CANARY, "x"),
    ("user:a", "openai", ""), ("user:a", "openai", "a b"), ("user:a", "openai", "x" * 65), ("user:a", "openai", "-x"),
    (CANARY, "openai", "x"), ("user:a", "openai", CANARY + "/" * 20),
]  # fmt: skip


@pytest.mark.parametrize(("owner", "provider", "label"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_id_is_refused(owner: str, provider: str, label: str) -> None:
    """The error never has the value, which may be a key in the wrong place."""
    with pytest.raises(ValueError) as caught:
        CredentialId(owner, provider, label)
    assert [] == leaks(str(caught.value), CANARY)


@pytest.mark.parametrize(
    "where",
    [
        {"base_url": "gw.example"}, {"base_url": "ftp://gw.example"}, {"base_url": "https://user:pw@gw.example"},
        {"base_url": "https://gw.example?x=1"}, {"base_url": "https://gw.example/#x"},
        {"base_url": "https://gw.example\\@e"},
        {"base_url": "https://gw.example/\n"}, {"base_url": "https://ä.example"},
        {"base_url": "https://h/" + "x" * 1_024},
        {"base_url": ""}, {"region": "eu"}, {"region": "eu-west-1; x"}, {"region": ""}, {"region": "EU-WEST-1"},
    ],
)  # fmt: skip
def test_malformed_places_are_refused(vault: Vault, where: dict[str, str]) -> None:
    """And nothing is written."""
    with pytest.raises(ValueError):
        vault.add(ALICE, Secret(CANARY), **where)
    assert vault.peek(ALICE) is None


def test_every_flipped_bit_of_a_record_is_refused(clock: ManualClock) -> None:
    """In what is sealed, in what stands beside it, and in how it is put together."""
    documents = MemoryDocuments(clock=clock)
    vault = new_vault(documents, cache_ms=0)
    vault.add(ALICE, Secret(CANARY), base_url="https://gw.example/v1")
    good = raw(documents)
    assert CANARY == vault.get(ALICE).secret.reveal()
    for bit in range(8 * len(good.data)):
        flipped = bytearray(good.data)
        flipped[bit // 8] ^= 1 << bit % 8
        documents._documents[ALICE.address] = good._replace(data=bytes(flipped))
        refused(vault)
    documents._documents[ALICE.address] = good
    assert CANARY == vault.get(ALICE).secret.reveal()


def test_every_truncation_of_a_record_is_refused(clock: ManualClock) -> None:
    """From either end, and nothing at all; listing goes on and says that it is damaged."""
    documents = MemoryDocuments(clock=clock)
    vault = new_vault(documents, cache_ms=0)
    vault.add(ALICE, Secret(CANARY))
    vault.add(BOB, Secret(CANARY))
    good = raw(documents)
    for length in range(len(good.data)):
        for data in (good.data[:length], good.data[length + 1 :]):
            documents._documents[ALICE.address] = good._replace(data=data)
            refused(vault)
            assert ["user:alice", "user:bob"] == [info.id.owner for info in vault.list()]
    documents._documents[ALICE.address] = good._replace(data=b"")
    (info,) = vault.list("user:alice")
    assert (False, "") == (info.readable, info.key_id)


def test_a_record_in_anothers_place_is_refused(vault: Vault, documents: DocumentStore) -> None:
    """Of another user, provider, label or kind of owner: whole, or its envelope beside what stands there."""
    places = [
        ALICE, BOB, CredentialId("org:alice", "openai"), CredentialId("platform", "openai"),
        CredentialId("user:alice", "anthropic"), CredentialId("user:alice", "openai", "work"),
    ]  # fmt: skip
    for count, which in enumerate(places):
        vault.add(which, Secret(f"{count}-{CANARY}"))
    records = {which: raw(documents, which) for which in places}
    plain = MemoryDocuments()
    thief = new_vault(plain)
    for place in places:
        for origin in places:
            here, there = (Record.parse(records[each].data) for each in (place, origin))
            assert here is not None
            assert there is not None
            spliced = Record.encode(here.public_bytes, there.envelope)
            for data in (records[origin].data, spliced):
                plain._documents[place.address] = Document(place.address, data, 1, None)
                if origin == place:
                    assert thief.get(place).secret == vault.get(place).secret
                else:
                    assert "wrong_key" == refused(thief, place)


def test_an_older_version_is_refused(vault: Vault, documents: DocumentStore) -> None:
    """A record put back after it was rotated, whatever version the store gives it but its own."""
    vault.add(ALICE, Secret(CANARY))
    first = raw(documents)
    vault.rotate(ALICE, Secret(OTHER))
    second = raw(documents)
    overwrite(documents, first.data)
    assert "wrong_key" == refused(vault)
    overwrite(documents, second.data)
    assert "wrong_key" == refused(vault)
    vault.remove(ALICE)
    overwrite(documents, first.data)
    assert "wrong_key" == refused(vault)


def test_a_base_url_is_not_changed_behind_our_back(vault: Vault, documents: DocumentStore) -> None:
    """Whoever writes another one into the store has a record that neither opens nor passes it on to the next key."""
    vault.add(ALICE, Secret(CANARY), base_url="https://gw.example/v1")
    record = Record.parse(raw(documents).data)
    assert record is not None
    evil = record.public._replace(base_url="https://evil.example/v1").encoded()
    plain = MemoryDocuments()
    plain._documents[ALICE.address] = raw(documents)._replace(data=Record.encode(evil, record.envelope))
    attacked = new_vault(plain)

    assert "wrong_key" == refused(attacked)
    with pytest.raises(CredentialUnreadable):
        attacked.rotate(ALICE, Secret(OTHER))
    assert Rewrapped(0, 0, (Unreadable(ALICE, "wrong_key"),)) == new_vault(plain, "k2", "k1").rewrap()
    assert 1 == raw(plain).version


def test_a_ring_with_the_wrong_key_opens_nothing(documents: DocumentStore) -> None:
    """Closed, for every verb that opens; the store is as it was."""
    new_vault(documents).add(ALICE, Secret(CANARY))
    before = raw(documents)
    for wrapper, reason in ((KeyRing("k1", {"k1": master("x")}), "wrong_key"), (ring("k2"), "unknown_key")):
        vault = Vault(documents, wrapper)
        assert reason == refused(vault)
        with pytest.raises(CredentialUnreadable):
            vault.rotate(ALICE, Secret(OTHER))
        assert before == raw(documents)
        assert "RUNRAILS_MASTER_KEYS" in advice(reason)  # type: ignore[arg-type]


def test_a_late_rewrap_never_brings_a_removed_key_back(clock: ManualClock) -> None:
    """Read before, removed and added anew meanwhile, sealed after: the new key stays."""
    documents = Interposed(MemoryDocuments(clock=clock))
    old = new_vault(documents.inner)
    old.add(ALICE, Secret(CANARY))

    def meanwhile() -> None:
        old.remove(ALICE)
        old.add(ALICE, Secret(OTHER))

    documents.before = [meanwhile]
    assert CANARY == new_vault(documents, "k2", "k1").get(ALICE).secret.reveal()
    assert OTHER == new_vault(documents, "k2", "k1").get(ALICE).secret.reveal()


def test_a_disabled_master_key_ends_within_a_minute(documents: DocumentStore, clock: ManualClock) -> None:
    """What is in memory opens until then, nothing else does."""
    wrapper = CountingWrapper()
    vault = Vault(documents, wrapper, clock=clock, monotonic=clock)
    vault.add(ALICE, Secret(CANARY))
    vault.add(BOB, Secret(OTHER))
    vault.get(ALICE)
    wrapper.fails = "kms_disabled"
    assert "kms_disabled" == refused(vault, BOB)
    assert CANARY == vault.get(ALICE).secret.reveal()
    clock.advance(60_000)
    assert "kms_disabled" == refused(vault)


def test_the_cache_is_never_asked_for_another_place(clock: ManualClock) -> None:
    """An opened key is not given for a record that would not open: same envelope, other owner, version or base URL."""
    documents = MemoryDocuments(clock=clock)
    vault = new_vault(documents)
    vault.add(ALICE, Secret(CANARY), base_url="https://gw.example")
    vault.get(ALICE)
    good = raw(documents)
    record = Record.parse(good.data)
    assert record is not None
    evil = Record.encode(record.public._replace(base_url="https://evil.example").encoded(), record.envelope)
    for which, data, version in ((BOB, good.data, 1), (ALICE, good.data, 2), (ALICE, evil, 1)):
        documents._documents[which.address] = Document(which.address, data, version, None)
        refused(vault, which)
    documents._documents[ALICE.address] = good
    assert CANARY == vault.get(ALICE).secret.reveal()


@pytest.mark.parametrize("reason", ["kms_unreachable", "kms_denied", "kms_disabled", "kms_unusable", "wrapper_failed"])
def test_all_that_fails_looks_the_same_outside(clock: ManualClock, reason: str) -> None:
    """One message, one code, one status; the operator's reason is no part of what is told, and survives pickling."""
    wrapper = CountingWrapper()
    vault = Vault(MemoryDocuments(clock=clock), wrapper, clock=clock)
    vault.add(ALICE, Secret(CANARY))
    wrapper.fails = reason  # type: ignore[assignment]
    for verb in (
        lambda: vault.get(ALICE),
        lambda: vault.rotate(ALICE, Secret(OTHER)),
        lambda: vault.add(BOB, Secret(OTHER)),
    ):
        with pytest.raises(CredentialUnreadable) as caught:
            verb()
        error = caught.value
        assert {
            "error": "credential_unreadable",
            "message": "The provider key cannot be used at the moment.",
            "next_step": "Ask the operator, whom `runrails byok list --open` tells why.",
        } == error.as_dict()
        assert (reason, 503) == (error.reason, error.http_status)
        assert reason == error.again().reason == pickle.loads(pickle.dumps(error)).reason
        assert advice(error.reason)
    assert vault.peek(BOB) is None


def test_a_canary_is_in_no_error_and_no_repr(documents: DocumentStore, clock: ManualClock) -> None:
    """Every verb, every way to fail: not in the error, its frames and causes, nor in what any part of a vault shows."""
    wrapper = CountingWrapper()
    vault = Vault(documents, wrapper, clock=clock, monotonic=clock)
    shown: list[str] = [repr(vault.add(ALICE, Secret(CANARY), base_url="https://gw.example"))]
    got = vault.get(ALICE)
    shown += [repr(got), str(got), repr(got.info), repr(vars(vault)), repr(vault._opened._entries), repr(vault.list())]
    shown += [repr(list(documents.find("credential"))), repr(vault.mark(ALICE, "valid")), repr(raw(documents))]
    data = raw(documents).data
    shown += [data.hex(), data.decode("latin-1")]

    def fail(verb: Callable[[], object]) -> None:
        with pytest.raises(Exception) as caught:
            verb()
        shown.append(everything_of(caught.value))

    fail(lambda: vault.add(ALICE, Secret(CANARY)))
    fail(lambda: vault.add(BOB, Secret(CANARY), base_url="nonsense"))
    fail(lambda: vault.add(BOB, Secret(CANARY * 400)))
    fail(lambda: vault.rotate(BOB, Secret(CANARY)))
    fail(lambda: json.dumps(got))
    fail(lambda: pickle.dumps(got))
    wrapper.fails = RuntimeError(CANARY)
    fail(lambda: vault.add(BOB, Secret(CANARY)))
    fail(lambda: vault.rotate(ALICE, Secret(CANARY)))
    clock.advance(60_000)
    fail(lambda: vault.get(ALICE))
    wrapper.fails = None
    away = Interposed(documents)
    for raised in (StoreUnavailable("Away.", next_step="-"), RuntimeError("a bug")):
        away.before = [lambda raised=raised: (_ for _ in ()).throw(raised)]
        fail(lambda: Vault(away, ring(), clock=clock).rotate(ALICE, Secret(CANARY)))
    for broken in (data[:-1], data[:-1] + b"\0", b"noise"):
        overwrite(documents, broken)
        fail(lambda: vault.get(ALICE))
        fail(lambda: vault.rotate(ALICE, Secret(CANARY)))
    assert [[]] * len(shown) == [leaks(text, CANARY) for text in shown]


@pytest.mark.parametrize(
    "changed",
    [
        {"created_ms": "0"}, {"created_ms": -1}, {"created_ms": 2**53}, {"created_ms": True}, {"rotated_ms": None},
        {"rotated_ms": 1.5}, {"secret_id": 5}, {"hint": 5}, {"base_url": []}, {"region": {}}, {"more": 1},
    ],
)  # fmt: skip
def test_what_stands_beside_an_envelope_is_not_believed(clock: ManualClock, changed: dict[str, object]) -> None:
    """Anybody with the store may write it: of another form it is damage, and breaks no listing."""
    documents = MemoryDocuments(clock=clock)
    vault = new_vault(documents)
    vault.add(ALICE, Secret(CANARY))
    good = raw(documents)
    record = Record.parse(good.data)
    assert record is not None
    public = json.dumps({**record.public._asdict(), **changed}).encode()
    documents._documents[ALICE.address] = good._replace(data=Record.encode(public, record.envelope))

    assert [(False, 0)] == [(info.readable, info.created_ms) for info in vault.list()]
    assert "malformed" == refused(vault)


def test_foreign_documents_are_left_alone(vault: Vault, documents: DocumentStore) -> None:
    """What has a name that is no key's is neither listed, sealed anew nor an error."""
    for name in ("x", "user.openai", "user.OPENAI.x", "key.openai.default", "user.openai.", "platform.openai.default"):
        documents.put(Address("credential", "alice", name), b"foreign", expected=0)
    vault.add(ALICE, Secret(CANARY))

    assert [ALICE] == [info.id for info in vault.list()]
    assert Rewrapped(0, 1, ()) == vault.rewrap()
    assert CANARY == vault.get(ALICE).secret.reveal()
