"""What is remembered of API keys for a moment, how soon a change counts, and when a key was used last."""

from __future__ import annotations

from pathlib import Path

import pytest

from rr_keys import PEPPERS, START_MS, CountingDocuments, make_keys, open_documents_of, resealed, with_secret
from runrails.documents import Address
from runrails.errors import ConfigError
from runrails.identity.apikeys import ApiKeys
from runrails.identity.apikeys.format import make_key
from runrails.identity.errors import Unauthenticated
from runrails.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Both clocks, stopped."""
    return ManualClock(START_MS)


@pytest.fixture(params=["memory", "sqlite"])
def documents(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> CountingDocuments:
    """Every engine of documents on this machine."""
    return open_documents_of(request.param, tmp_path, clock)


def refusal(keys: ApiKeys, text: str) -> Unauthenticated:
    """How a key is refused."""
    with pytest.raises(Unauthenticated) as caught:
        keys.verify(text)
    return caught.value


def test_what_was_proven_is_known_for_five_seconds(documents: CountingDocuments, clock: ManualClock) -> None:
    """One read in five seconds, and at 5,000 ms another."""
    keys = make_keys(documents, clock=clock)
    text = keys.create("alice", scopes=())[1].reveal()
    keys.verify(text)
    keys.flush()
    documents.reads = 0
    clock.advance(4_999)
    keys.verify(text)
    assert documents.reads == 0
    clock.advance(1)
    keys.verify(text)
    assert documents.reads == 1


def test_a_key_that_will_expire_is_known_as_well(documents: CountingDocuments, clock: ManualClock) -> None:
    """Its end is looked at each time, the store is not."""
    keys = make_keys(documents, clock=clock)
    text = keys.create("alice", scopes=(), expires_ms=START_MS + 60_000)[1].reveal()
    keys.verify(text)
    keys.flush()
    documents.reads = 0
    keys.verify(text)
    assert documents.reads == 0


@pytest.mark.parametrize("change", ["suspend", "revoke"])
def test_a_taken_back_key_is_refused_within_five_seconds_everywhere(
    documents: CountingDocuments, clock: ManualClock, change: str
) -> None:
    """At once where it was done, and after 5,000 ms in a process that has just seen it."""
    here, elsewhere = make_keys(documents, clock=clock), make_keys(documents, clock=clock)
    info, secret = here.create("alice", scopes=())
    text = secret.reveal()
    for keys in (here, elsewhere):
        keys.verify(text)
    getattr(here, change)(info.id)
    assert refusal(here, text).reason == "not_active"
    clock.advance(4_999)
    assert elsewhere.verify(text).user == "alice"
    clock.advance(1)
    assert refusal(elsewhere, text).reason == "not_active"


def test_a_wall_clock_set_back_does_not_keep_a_revoked_key_alive(clock: ManualClock) -> None:
    """The cache is timed by the monotonic clock."""
    documents = open_documents_of("memory", Path(), clock)
    wall = ManualClock(START_MS)
    keys = ApiKeys(documents, PEPPERS, clock=wall, monotonic=clock)
    info, secret = make_keys(documents, clock=wall).create("alice", scopes=())
    keys.verify(secret.reveal())
    make_keys(documents, clock=wall).revoke(info.id)
    wall.advance(-3_600_000)
    clock.advance(5_000)
    assert refusal(keys, secret.reveal()).reason == "not_active"


def test_an_answer_counts_from_before_the_store_was_asked(clock: ManualClock) -> None:
    """A read that took four seconds may be used for one more."""
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock)
    text = keys.create("alice", scopes=())[1].reveal()
    read = documents.inner.get

    def slowly(address: Address):  # type: ignore[no-untyped-def]
        clock.advance(4_000 if address.kind == "api-key" else 0)
        return read(address)

    documents.inner.get = slowly  # type: ignore[method-assign]
    keys.verify(text)
    keys.flush()
    documents.reads = 0
    clock.advance(999)
    keys.verify(text)
    assert documents.reads == 0
    clock.advance(1)
    keys.verify(text)
    assert documents.reads == 1


def test_a_key_expires_to_the_millisecond_also_while_it_is_known(clock: ManualClock) -> None:
    """It is good before its moment, and not at it."""
    keys = make_keys(clock=clock)
    text = keys.create("alice", scopes=(), expires_ms=clock() + 2_000)[1].reveal()
    keys.verify(text)
    clock.advance(1_999)
    assert keys.verify(text).expires_ms == clock() + 1
    clock.advance(1)
    assert refusal(keys, text).reason == "expired"


def test_a_suspended_key_is_taken_again_at_once(documents: CountingDocuments, clock: ManualClock) -> None:
    """What was refused for its status is not remembered."""
    keys, elsewhere = make_keys(documents, clock=clock), make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=())
    keys.suspend(info.id)
    for each in (keys, elsewhere):
        refusal(each, secret.reveal())
    keys.resume(info.id)
    assert keys.verify(secret.reveal()) == elsewhere.verify(secret.reveal())


def test_the_same_wrong_key_is_looked_up_once_in_five_seconds(documents: CountingDocuments, clock: ManualClock) -> None:
    """Unknown or wrong: repeats cost no read, for as long."""
    keys = make_keys(documents, clock=clock)
    right = keys.create("alice", scopes=())[1].reveal()
    documents.reads = 0
    for text in (with_secret(right, "0" * 43), make_key("live", "A" * 16, bytes).reveal()):
        for _ in range(100):
            refusal(keys, text)
    assert documents.reads == 2
    clock.advance(5_000)
    refusal(keys, with_secret(right, "0" * 43))
    assert documents.reads == 3


def test_both_caches_are_bounded(clock: ManualClock) -> None:
    """At the limit the oldest is forgotten; a flood of wrong keys drives no good one out."""
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock, cache_max=10)
    texts = [keys.create("alice", scopes=())[1].reveal() for _ in range(11)]
    for text in texts[:10]:
        keys.verify(text)
    for number in range(500):
        refusal(keys, make_key("live", "A" * 16, lambda n, seed=number: seed.to_bytes(2, "big") * n).reveal())
    assert keys._known.sizes() == (10, 10)
    keys.flush()
    documents.reads = 0
    for text in texts[:10]:
        keys.verify(text)
    assert documents.reads == 0
    keys.verify(texts[10])
    assert keys._known.sizes()[0] == 10
    keys.flush()
    documents.reads = 0
    keys.verify(texts[1])
    assert documents.reads == 0
    keys.verify(texts[0])
    assert documents.reads == 1


def test_what_was_asked_again_is_not_the_oldest(clock: ManualClock) -> None:
    """A full cache forgets what was looked up longest ago, of good keys and of bad ones."""
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock, cache_max=3)
    good = [keys.create("alice", scopes=())[1].reveal() for _ in range(4)]
    bad = [with_secret(each, "0" * 43) for each in good]
    for texts, ask in ((good, keys.verify), (bad, lambda text: refusal(keys, text))):
        for text in texts[:2]:
            ask(text)
        clock.advance(5_000)
        for text in (texts[0], texts[2], texts[3]):
            ask(text)
        keys.flush()
        documents.reads = 0
        for text in (texts[0], texts[2], texts[3]):
            ask(text)
        assert documents.reads == 0


def test_the_cache_knows_a_key_by_all_of_it(clock: ManualClock) -> None:
    """Two credentials that are equal but for their last characters are two; each process has a cache of its own."""
    keys = make_keys(clock=clock)
    text = keys.create("alice", scopes=())[1].reveal()
    keys.verify(text)
    last = "1" if text[67] == "0" else "0"
    assert refusal(keys, resealed(text[:67] + last + text[68:])).reason == "wrong_secret"
    assert keys._known.digest(text) != make_keys(clock=clock)._known.digest(text)


def test_without_a_cache_every_question_is_asked(clock: ManualClock) -> None:
    """`cache_ms=0` is allowed, longer than five seconds is not."""
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock, cache_ms=0)
    info, secret = keys.create("alice", scopes=())
    keys.verify(secret.reveal())
    make_keys(documents, clock=clock).revoke(info.id)
    assert refusal(keys, secret.reveal()).reason == "not_active"
    for wrong in (5_001, -1, True, 1.0):
        with pytest.raises(ConfigError):
            make_keys(cache_ms=wrong)  # type: ignore[arg-type]
    for wrong in (0, -1, True):
        with pytest.raises(ConfigError):
            make_keys(cache_max=wrong)
    with pytest.raises(ConfigError, match="Write environment"):
        make_keys(environment="prod")  # type: ignore[arg-type]


def test_last_use_is_written_once_a_minute(documents: CountingDocuments, clock: ManualClock) -> None:
    """However often and in however many processes a key is used."""
    keys, elsewhere = make_keys(documents, clock=clock), make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=())
    assert keys.show(info.id).last_used_ms is None
    documents.writes = 0
    for _ in range(50):
        for each in (keys, elsewhere):
            each.verify(secret.reveal())
            each.flush()
        clock.advance(1_000)
    assert documents.writes == 1
    assert keys.show(info.id).last_used_ms == START_MS
    clock.advance(10_000)
    for each in (keys, elsewhere):
        each.verify(secret.reveal())
        each.flush()
    assert documents.writes == 2
    assert [each.last_used_ms for each in keys.list("alice")] == [START_MS + 60_000]


def test_last_use_that_cannot_be_written_keeps_nobody_out(documents: CountingDocuments, clock: ManualClock) -> None:
    """It is counted, and the next use in a minute is written."""
    keys = make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=())
    documents.kinds_away = frozenset({"api-key-used"})
    assert keys.verify(secret.reveal()).user == "alice"
    keys.flush()
    assert keys._used.failures == 1
    documents.kinds_away = frozenset()
    clock.advance(60_000)
    keys.verify(secret.reveal())
    keys.close()
    assert keys.show(info.id).last_used_ms == START_MS + 60_000
    keys.close()


def test_a_damaged_last_use_harms_nothing(documents: CountingDocuments, clock: ManualClock) -> None:
    """It reads as never, and is written over."""
    keys = make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=())
    for data in (b"\xff", b"[]", b"{}", b'{"at_ms": "x"}', b"null"):
        address = Address("api-key-used", info.id, "used")
        known = documents.inner.get(address)
        documents.inner.put(address, data, expected=0 if known is None else known.version)
        assert keys.show(info.id).last_used_ms is None
    keys.verify(secret.reveal())
    keys.flush()
    assert keys.show(info.id).last_used_ms == START_MS
