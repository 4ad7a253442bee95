"""Documents, on every engine: one writer wins, versions are never skipped, what has expired is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rr_documents import ALICE, DOCUMENT_KINDS, open_documents_kind
from rr_ledger import START_MS
from runrails.documents import DATA_BYTES_MAX, Address, Document, DocumentStore
from runrails.errors import StoreUnavailable
from runrails.testing import ManualClock


@pytest.fixture(params=DOCUMENT_KINDS)
def documents(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[DocumentStore]:
    """A fresh engine."""
    opened = open_documents_kind(request.param, tmp_path, clock)
    yield opened
    opened.close()


def test_what_is_put_is_found(documents: DocumentStore) -> None:
    """Version 1 when it is new, one more at each write; bytes come back as they were."""
    data = bytes(range(256))

    assert documents.get(ALICE) is None
    assert Document(ALICE, data, 1, None) == documents.put(ALICE, data, expected=0)
    assert Document(ALICE, data, 1, None) == documents.get(ALICE)
    assert Document(ALICE, b"", 2, None) == documents.put(ALICE, b"", expected=1)
    assert Document(ALICE, b"", 2, None) == documents.get(ALICE)


@pytest.mark.parametrize("expected", [0, 1, 3, 2**53 - 1])
def test_another_version_is_refused(documents: DocumentStore, expected: int) -> None:
    """Whoever names a version that is not there has changed nothing, by writing or removing."""
    documents.put(ALICE, b"a", expected=0)
    there = documents.put(ALICE, b"b", expected=1)

    assert documents.put(ALICE, b"c", expected=expected) is None
    assert documents.delete(ALICE, expected=expected) is False
    assert there == documents.get(ALICE)


def test_nothing_has_no_version(documents: DocumentStore) -> None:
    """What is not there is neither replaced nor removed."""
    assert documents.put(ALICE, b"a", expected=1) is None
    assert documents.delete(ALICE, expected=1) is False
    assert documents.delete(ALICE, expected=0) is False
    assert documents.get(ALICE) is None


def test_removed_is_gone_and_may_begin_again(documents: DocumentStore) -> None:
    """Removing works once; afterwards it is as if it had never been."""
    documents.put(ALICE, b"a", expected=0)
    documents.put(ALICE, b"b", expected=1)

    assert documents.delete(ALICE, expected=2) is True
    assert documents.get(ALICE) is None
    assert [] == list(documents.find("credential", "alice")) == list(documents.find("credential"))
    assert documents.delete(ALICE, expected=2) is False
    assert documents.put(ALICE, b"c", expected=2) is None
    assert Document(ALICE, b"c", 1, None) == documents.put(ALICE, b"c", expected=0)
    assert Document(ALICE, b"c", 1, None) == documents.get(ALICE)


def test_expired_is_gone_to_the_millisecond(documents: DocumentStore, clock: ManualClock) -> None:
    """One millisecond before its time it is there, at that time no verb finds it, and it may be made anew."""
    documents.put(ALICE, b"a", expected=0, expires_ms=START_MS + 1_000)
    clock.advance(999)

    assert Document(ALICE, b"a", 1, START_MS + 1_000) == documents.get(ALICE)
    assert documents.put(ALICE, b"b", expected=0) is None
    clock.advance(1)
    assert documents.get(ALICE) is None
    assert [] == list(documents.find("credential")) == list(documents.find("credential", "alice"))
    assert documents.delete(ALICE, expected=1) is False
    assert documents.put(ALICE, b"b", expected=1) is None
    assert Document(ALICE, b"b", 1, None) == documents.put(ALICE, b"b", expected=0)
    clock.advance(10_000)
    assert Document(ALICE, b"b", 1, None) == documents.get(ALICE)


def test_a_write_says_anew_when_it_expires(documents: DocumentStore, clock: ManualClock) -> None:
    """The time of the write before does not stay."""
    documents.put(ALICE, b"a", expected=0, expires_ms=START_MS + 1_000)
    documents.put(ALICE, b"b", expected=1)
    clock.advance(1_000)

    assert Document(ALICE, b"b", 2, None) == documents.get(ALICE)


def test_a_document_may_be_born_expired(documents: DocumentStore) -> None:
    """It is written, and not there."""
    assert documents.put(ALICE, b"a", expected=0, expires_ms=START_MS) is not None
    assert documents.get(ALICE) is None
    assert documents.put(ALICE, b"b", expected=0) is not None


def test_many_expired_are_no_burden(documents: DocumentStore, clock: ManualClock) -> None:
    """What has expired is not found, and what has not is, however many there are."""
    for count in range(150):
        documents.put(Address("proof", "sts", f"p{count:03d}"), b"", expected=0, expires_ms=START_MS + count)
    clock.advance(100)

    assert [f"p{count:03d}" for count in range(101, 150)] == [each.address.name for each in documents.find("proof")]
    assert documents.put(Address("proof", "sts", "p000"), b"", expected=0) is not None
    assert documents.put(Address("proof", "sts", "p149"), b"", expected=0) is None


def test_find_is_by_owner_and_name(documents: DocumentStore) -> None:
    """In the order of ASCII, of one kind, of one owner or of all."""
    names = ["Z", "a", "a.b", "a-b", "a_b", "a0", "B"]
    for owner in ("bob", "Bob", "alice", "alice.x"):
        for name in names:
            documents.put(Address("api-key", owner, name), f"{owner}/{name}".encode(), expected=0)
    documents.put(Address("api-keys", "alice", "a"), b"another kind", expected=0)

    assert sorted(names) == [each.address.name for each in documents.find("api-key", "alice")]
    every = [each.address[1:] for each in documents.find("api-key")]
    assert sorted((owner, name) for owner in ("bob", "Bob", "alice", "alice.x") for name in names) == every
    assert all(each.data == "/".join(each.address[1:]).encode() for each in documents.find("api-key"))
    assert [] == list(documents.find("api-key", "carol"))
    assert [] == list(documents.find("api"))


def test_find_has_pages(documents: DocumentStore) -> None:
    """More than any page holds, in number and in bytes; removing while reading hurts nobody."""
    large = b"x" * DATA_BYTES_MAX
    for count in range(20):
        documents.put(Address("large", "alice", f"n{count:02d}"), large, expected=0)
    for count in range(600):
        documents.put(Address("small", f"u{count % 2}", f"n{count:03d}"), b"", expected=0)

    assert 20 * [large] == [each.data for each in documents.find("large", "alice")]
    assert 300 == len(list(documents.find("small", "u1")))
    found = []
    for each in documents.find("small"):
        found.append(each.address.name)
        documents.delete(each.address, expected=1)
    assert 600 == len(set(found)) == len(found)
    assert [] == list(documents.find("small"))


BAD = [
    Address("", "a", "b"), Address("Kind", "a", "b"), Address("k" * 33, "a", "b"), Address("k#", "a", "b"),
    Address("k", "", "b"), Address("k", "a/b", "b"), Address("k", "a#b", "b"), Address("k", "ä", "b"),
    Address("k", "a", ""), Address("k", "a", "b\n"), Address("k", "a", "b" * 129), Address("k", "a", "\ud800"),
]  # fmt: skip


@pytest.mark.parametrize("address", BAD, ids=range(len(BAD)))
def test_a_malformed_address_is_refused(documents: DocumentStore, address: Address) -> None:
    """By every verb, before anything is asked, and the value is not told."""
    for verb in (
        lambda: documents.get(address),
        lambda: documents.put(address, b"", expected=0),
        lambda: documents.delete(address, expected=1),
        lambda: documents.find(address.kind, address.owner)
        if address.name == "b"
        else documents.get(address),
    ):  # fmt: skip
        with pytest.raises(ValueError) as caught:
            verb()
        assert all(part not in str(caught.value) for part in address if len(part) > 2)


def test_bad_writes_are_refused(documents: DocumentStore) -> None:
    """Too large, no bytes, no version, no time: nothing is written. The largest is."""
    with pytest.raises(ValueError):
        documents.put(ALICE, b"x" * (DATA_BYTES_MAX + 1), expected=0)
    for expected in (-1, True, 2**53, 1.0):
        with pytest.raises(ValueError):
            documents.put(ALICE, b"", expected=expected)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            documents.delete(ALICE, expected=expected)  # type: ignore[arg-type]
    for expires_ms in (-1, 1.5, True, 2**53):
        with pytest.raises(ValueError):
            documents.put(ALICE, b"", expected=0, expires_ms=expires_ms)  # type: ignore[arg-type]
    for data in ("text", bytearray(b"x"), None):
        with pytest.raises(TypeError):
            documents.put(ALICE, data, expected=0)  # type: ignore[arg-type]
    assert documents.get(ALICE) is None
    assert documents.put(ALICE, b"x" * DATA_BYTES_MAX, expected=0) is not None


def test_of_many_writers_one_wins(documents: DocumentStore) -> None:
    """Eight threads put the first and then the second version at one moment: one of them each time."""
    barrier, won = threading.Barrier(8), [list[int](), list[int]()]

    def race(number: int) -> None:
        for version in (0, 1):
            barrier.wait()
            if documents.put(ALICE, f"{version}/{number}".encode(), expected=version):
                won[version].append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [1, 1] == [len(each) for each in won]
    assert Document(ALICE, f"1/{won[1][0]}".encode(), 2, None) == documents.get(ALICE)


def test_of_many_removers_one_wins(documents: DocumentStore) -> None:
    """Exactly one is told that it removed it."""
    documents.put(ALICE, b"a", expected=0)
    barrier, told = threading.Barrier(6), list[bool]()

    def race() -> None:
        barrier.wait()
        told.append(documents.delete(ALICE, expected=1))

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [False] * 5 + [True] == sorted(told)


def test_a_closed_engine_says_so(documents: DocumentStore) -> None:
    """Closing twice is fine; a shared engine is of no use afterwards."""
    documents.put(ALICE, b"a", expected=0)
    documents.close()
    documents.close()
    if type(documents).__name__ != "MemoryDocuments":
        with pytest.raises(StoreUnavailable):
            documents.get(ALICE)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete", "wait"]), st.sampled_from(["a", "b"]), st.integers(0, 3),
        st.sampled_from([None, 5, 20]),
    ),
    max_size=25,
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_every_engine_is_the_same_dictionary(documents: DocumentStore, clock: ManualClock, steps: list[tuple]) -> None:
    """Any sequence of verbs and moments gives what a dictionary with versions gives."""
    for name in ("a", "b"):
        left = documents.get(Address("k", "o", name))
        if left:
            documents.delete(left.address, expected=left.version)
    model: dict[str, Document] = {}
    for verb, name, expected, lasts_ms in steps:
        address = Address("k", "o", name)
        known = model.get(name)
        version = known.version if known else 0
        if verb == "wait":
            clock.advance(expected * 5)
        elif verb == "put":
            expires_ms = None if lasts_ms is None else clock() + lasts_ms
            written = documents.put(address, name.encode(), expected=expected, expires_ms=expires_ms)
            assert (expected == version) == (written is not None)
            if written:
                model[name] = Document(address, name.encode(), expected + 1, expires_ms)
        else:
            assert (known is not None and expected == version) == documents.delete(address, expected=expected)
            if known and expected == version:
                del model[name]
        model = {each: it for each, it in model.items() if it.expires_ms is None or it.expires_ms > clock()}

        assert [model[each] for each in sorted(model)] == list(documents.find("k", "o"))
        assert model.get(name) == documents.get(address)
