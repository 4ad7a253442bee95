"""API keys made, listed, changed and rotated: what is refused, what two do at once, and that no request is dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rr_keys import START_MS, CountingDocuments, make_keys, open_documents_of
from runrails.documents import Address, Document
from runrails.errors import ConfigError, StoreUnavailable
from runrails.identity.apikeys import ApiKeys
from runrails.identity.apikeys.making import OVERLAP_MS_MAX
from runrails.identity.apikeys.records import ApiKeyRecord, Previous
from runrails.identity.errors import Unauthenticated, UnknownKey
from runrails.rates import Rates
from runrails.testing import ManualClock

HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> ManualClock:
    """Both clocks, stopped."""
    return ManualClock(START_MS)


@pytest.fixture(params=["memory", "sqlite"])
def documents(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> CountingDocuments:
    """Every engine of documents on this machine."""
    return open_documents_of(request.param, tmp_path, clock)


def is_good(keys: ApiKeys, text: str) -> bool:
    """Whether a key is taken."""
    try:
        keys.verify(text)
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize(
    "terms",
    [
        {"user": ""}, {"user": "al ice"}, {"user": "ал"}, {"user": None}, {"user": "x" * 129}, {"user": "alice\n"},
        {"org": "a/b"}, {"org": ""}, {"scopes": ["ai:*"]}, {"scopes": ["AI:complete"]}, {"scopes": "ai:complete"},
        {"scopes": ["ai:complete "]}, {"scopes": [None]}, {"scopes": ["*"]}, {"scopes": None},
        {"scopes": [["ai:embed"]]},
        {"name": "x" * 129}, {"name": "a\nb"}, {"name": None}, {"name": "\ud800"}, {"expires_ms": START_MS},
        {"expires_ms": 0}, {"expires_ms": 1.5e13}, {"expires_ms": True}, {"expires_ms": 2**53},
        {"expires_ms": "tomorrow"},
        {"month_pusd": 0}, {"month_pusd": -1}, {"month_pusd": 2**63}, {"month_pusd": 1.0}, {"month_pusd": True},
        {"month_pusd": "50"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_terms_make_no_key(terms: dict[str, object]) -> None:
    """The error names what is wrong, and nothing was written."""
    clock = ManualClock(START_MS)
    documents = open_documents_of("memory", Path(), clock)
    given: dict[str, object] = {"user": "alice", "scopes": ["ai:complete"], **terms}
    with pytest.raises(ConfigError):
        make_keys(documents, clock=clock).create(given.pop("user"), **given)  # type: ignore[arg-type]
    assert documents.everything() == []
    assert documents.writes == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "a/b"}, {"id": ""}, {"environment": "prod"}, {"status": "deleted"}, {"scopes": frozenset({"*"})},
        {"name": "a\n"}, {"created_ms": -1}, {"rotated_ms": 2**53}, {"previous_until_ms": "x"}, {"hash": ""},
        {"hash": "é"}, {"hash": "x" * 129}, {"previous": (Previous("", 1),)},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_record_cannot_be_made(wrong: dict[str, object]) -> None:
    """Not even by who may write records: each field is looked at when one is made and when one is read."""
    info = make_keys().create("alice", scopes=())[0]
    outer = {"hash", "previous"}
    given = {"hash": "hs256$p1$0", **{name: value for name, value in wrong.items() if name in outer}}
    ApiKeyRecord(info=info, hash="hs256$p1$0")
    with pytest.raises((ValueError, TypeError)):
        changed = replace(info, **{name: value for name, value in wrong.items() if name not in outer})
        ApiKeyRecord(info=changed, **given)  # type: ignore[arg-type]


def test_what_may_be_shown_of_a_key() -> None:
    """How it begins, and its terms as JSON."""
    info = make_keys().create("alice", scopes={"ai:embed"}, rates=Rates(tokens_per_minute=7))[0]
    assert info.prefix == f"rr_live_{info.id}"
    shown = info.as_dict()
    assert (shown["scopes"], shown["prefix"]) == (["ai:embed"], info.prefix)
    assert shown["rates"] == {
        "requests_per_minute": None, "tokens_per_minute": 7, "requests_burst": None, "tokens_burst": None,
    }  # fmt: skip
    assert make_keys().create("alice", scopes=())[0].as_dict()["rates"] is None


def test_terms_at_their_limits_make_a_key(documents: CountingDocuments, clock: ManualClock) -> None:
    """The longest names, the next millisecond, the smallest and the largest budget, no scope at all."""
    keys = make_keys(documents, clock=clock)
    for terms in (
        {"name": "x" * 128}, {"expires_ms": START_MS + 1}, {"expires_ms": 2**53 - 1}, {"month_pusd": 1},
        {"month_pusd": 2**63 - 1}, {"scopes": []}, {"org": "x" * 128}, {"rates": Rates()}, {"name": "Büro 3 €"},
    ):  # fmt: skip
        info, secret = keys.create("x" * 128, **{"scopes": ["ai:complete"], **terms})  # type: ignore[arg-type]
        assert keys.verify(secret.reveal()).key_id == info.id
    assert len(keys.list("x" * 128)) == 9


@pytest.mark.parametrize("key_id", ["", "nobody", "A" * 16, "../x", "a b", "\ud800", "x" * 500])
def test_there_is_no_such_key(documents: CountingDocuments, clock: ManualClock, key_id: str) -> None:
    """Whatever is to be done with it; nothing is written."""
    keys = make_keys(documents, clock=clock)
    keys.create("alice", scopes=())
    before = documents.everything()
    verbs: tuple[Callable[[str], object], ...] = (keys.show, keys.suspend, keys.resume, keys.revoke, keys.rotate)
    for verb in verbs:
        with pytest.raises(UnknownKey):
            verb(key_id)
    assert before == documents.everything()


def test_status_goes_its_ways(documents: CountingDocuments, clock: ManualClock) -> None:
    """Suspending and resuming as often as one likes; revoking is the end."""
    keys = make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=())
    text = secret.reveal()
    for change, good in ((keys.suspend, False), (keys.suspend, False), (keys.resume, True), (keys.resume, True),
                         (keys.suspend, False), (keys.revoke, False), (keys.revoke, False)):  # fmt: skip
        changed = change(info.id)
        assert is_good(keys, text) is good
        assert changed == keys.show(info.id) or changed.status == keys.show(info.id).status
    before = documents.everything()
    keys.revoke(info.id)
    assert before == documents.everything()
    for verb in (keys.suspend, keys.resume, keys.rotate):
        with pytest.raises(ConfigError, match="revoked"):
            verb(info.id)
    assert before == documents.everything()
    assert keys.show(info.id).status == "revoked"


def test_keys_are_listed_by_their_user(documents: CountingDocuments, clock: ManualClock) -> None:
    """Oldest first; a listed key that was never written, or belongs to somebody else, is not there."""
    keys = make_keys(documents, clock=clock)
    made: list[str] = []
    for user in ("alice", "bob", "alice"):
        made.append(keys.create(user, scopes=())[0].id)
        clock.advance(1)
    documents.inner.put(Address("api-key-of", "alice", "A" * 16), b"1", expected=0)
    documents.inner.put(Address("api-key-of", "alice", made[1]), b"1", expected=0)
    assert [made[0], made[2]] == [info.id for info in keys.list("alice")]
    assert made == [info.id for info in keys.list()]


def test_a_key_that_cannot_be_listed_does_not_work(documents: CountingDocuments, clock: ManualClock) -> None:
    """The user's list is written first: a store that fails between leaves no key that nobody knows of."""
    keys = make_keys(documents, clock=clock)
    documents.kinds_away = frozenset({"api-key-of"})
    with pytest.raises(StoreUnavailable):
        keys.create("alice", scopes=())
    documents.kinds_away = frozenset()
    assert documents.everything() == []


def test_an_id_that_is_taken_is_drawn_again(clock: ManualClock) -> None:
    """And a source that only repeats itself ends in an error, with the first key as it was."""
    documents = open_documents_of("memory", Path(), clock)
    first = make_keys(documents, clock=clock)
    first._random = lambda count: b"\x05" * count
    info, secret = first.create("alice", scopes=())
    before = documents.everything()[0]
    with pytest.raises(ConfigError, match="No free id"):
        first.create("bob", scopes=())
    assert first.verify(secret.reveal()).user == "alice"
    assert documents.inner.get(before.address) == before
    assert first.list("bob") == []
    assert info.id == "5" * 15 + "F"


def test_a_rotation_keeps_the_id_and_ends_the_old_secret_in_time(
    documents: CountingDocuments, clock: ManualClock
) -> None:
    """Both are good during the overlap; at its end, to the millisecond, the old one is not, although it was known."""
    keys = make_keys(documents, clock=clock)
    info, old = keys.create("alice", scopes={"ai:embed"}, month_pusd=5, org="acme")
    changed, new = keys.rotate(info.id, 4_000)
    assert (changed.id, changed.scopes, changed.month_pusd, changed.org) == (info.id, info.scopes, 5, "acme")
    assert (changed.rotated_ms, changed.previous_until_ms) == (START_MS, START_MS + 4_000)
    assert keys.verify(old.reveal()).expires_ms == START_MS + 4_000
    assert keys.verify(new.reveal()).expires_ms is None
    clock.advance(3_999)
    assert is_good(keys, old.reveal())
    clock.advance(1)
    assert not is_good(keys, old.reveal())
    assert not is_good(make_keys(documents, clock=clock), old.reveal())
    assert is_good(keys, new.reveal())


def test_an_overlap_does_not_outlive_the_key(clock: ManualClock) -> None:
    """The old secret ends with the key, if that is sooner."""
    keys = make_keys(clock=clock)
    info, old = keys.create("alice", scopes=(), expires_ms=START_MS + 1_000)
    keys.rotate(info.id, 4_000)
    assert keys.verify(old.reveal()).expires_ms == START_MS + 1_000
    clock.advance(1_000)
    assert not is_good(keys, old.reveal())


def test_who_loses_the_new_secret_may_rotate_again(documents: CountingDocuments, clock: ManualClock) -> None:
    """What is in use stays good for as long as it was promised; of three, the oldest ends."""
    keys = make_keys(documents, clock=clock)
    info, in_use = keys.create("alice", scopes=())
    lost = keys.rotate(info.id, HOUR_MS)[1]
    clock.advance(1_000)
    changed, new = keys.rotate(info.id, 60_000)
    assert changed.previous_until_ms == START_MS + HOUR_MS
    assert [is_good(keys, each.reveal()) for each in (in_use, lost, new)] == [True, True, True]
    clock.advance(60_000)
    assert [is_good(keys, each.reveal()) for each in (in_use, lost, new)] == [True, False, True]
    keys.rotate(info.id, HOUR_MS)
    assert [is_good(keys, each.reveal()) for each in (in_use, lost, new)] == [True, False, True]
    keys.rotate(info.id, HOUR_MS)
    assert [is_good(keys, each.reveal()) for each in (in_use, lost, new)] == [False, False, True]


def test_a_rotation_without_overlap_ends_all_that_was(documents: CountingDocuments, clock: ManualClock) -> None:
    """Somebody has seen a secret: no earlier one is good any more, here at once and elsewhere within five seconds."""
    keys, elsewhere = make_keys(documents, clock=clock), make_keys(documents, clock=clock)
    info, first = keys.create("alice", scopes=())
    second = keys.rotate(info.id, HOUR_MS)[1]
    for each in (first, second):
        elsewhere.verify(each.reveal())
    changed, third = keys.rotate(info.id, 0)
    assert changed.previous_until_ms is None
    assert [is_good(keys, each.reveal()) for each in (first, second, third)] == [False, False, True]
    clock.advance(5_000)
    assert [is_good(elsewhere, each.reveal()) for each in (first, second, third)] == [False, False, True]


@pytest.mark.parametrize("overlap", [-1, OVERLAP_MS_MAX + 1, 1.0, True, None, "1h"])
def test_a_wrong_overlap_changes_nothing(clock: ManualClock, overlap: object) -> None:
    """The secret in use stays the only one."""
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=())
    before = documents.everything()
    with pytest.raises(ConfigError):
        keys.rotate(info.id, overlap)  # type: ignore[arg-type]
    assert before == documents.everything()
    assert is_good(keys, secret.reveal())
    keys.rotate(info.id, OVERLAP_MS_MAX)


def test_a_rotation_drops_no_request(documents: CountingDocuments, clock: ManualClock) -> None:
    """Users in two processes change over one request late, while the key is rotated eight times."""
    here, elsewhere = make_keys(documents, clock=clock), make_keys(documents, clock=clock, cache_ms=0)
    info, secret = here.create("alice", scopes=())
    newest = [secret.reveal()]
    dropped: list[str] = []
    rounds = [0] * 4
    done = threading.Event()

    def use(place: int, keys: ApiKeys) -> None:
        text = newest[-1]
        while not done.is_set():
            following = newest[-1]
            dropped.extend(each for each in (text, following) if not is_good(keys, each))
            text = following
            rounds[place] += 1

    users = [threading.Thread(target=use, args=(place, (here, elsewhere)[place % 2])) for place in range(4)]
    for user in users:
        user.start()
    try:
        for _ in range(8):
            newest.append(here.rotate(info.id, HOUR_MS)[1].reveal())
            clock.advance(1)
            before = list(rounds)
            while not all(now > then + 1 for now, then in zip(rounds, before, strict=True)):
                assert is_good(elsewhere, newest[-2])
    finally:
        done.set()
        for user in users:
            user.join()
    assert dropped == []
    assert len(newest) == 9
    here.close()
    elsewhere.close()


def test_changes_made_at_once_are_all_there(documents: CountingDocuments, clock: ManualClock) -> None:
    """Four threads rotate and suspend one key; the record has the last rotation and the suspension."""
    keys = make_keys(documents, clock=clock)
    info, _ = keys.create("alice", scopes=())
    made: list[str] = []

    def rotate() -> None:
        made.extend(keys.rotate(info.id, HOUR_MS)[1].reveal() for _ in range(2))

    threads = [threading.Thread(target=rotate) for _ in range(3)] + [
        threading.Thread(target=keys.suspend, args=(info.id,))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys.show(info.id).status == "suspended"
    keys.resume(info.id)
    assert 3 == sum(is_good(make_keys(documents, clock=clock), text) for text in made)


def test_a_change_that_others_keep_overtaking_ends(clock: ManualClock) -> None:
    """After sixteen attempts it says so, and nothing of it was written."""
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock)
    info, _ = keys.create("alice", scopes=())
    put = documents.inner.put

    def overtaken(address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        known = documents.inner.get(address)
        assert known is not None
        put(address, known.data, expected=known.version)
        return put(address, data, expected=expected)

    documents.inner.put = overtaken  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="changed by others"):
        keys.suspend(info.id)
    assert keys.show(info.id).status == "active"
