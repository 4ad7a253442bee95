"""Stored answers: exact keys per tenant, bounds, expiry, damage, and a file that only its owner can read."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrails.savers.caching import ResponseCache, Tenant, key_of
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

ALICE = Tenant("alice", None, None)
ASKED = {"provider": "openai", "address": "https://api.openai.com/v1", "path": "/chat/completions"}
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
KEY = "k" * 64


def _silent(reason: str) -> None:
    raise AssertionError(reason)


@pytest.fixture(params=["memory", "file"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Makes a cache of either kind."""
    place = None if request.param == "memory" else tmp_path / "answers.db"
    return lambda **options: ResponseCache(place, **options)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"}, {"temperature": 1}, {"temperature": 0.0}, {"temperature": False}, {"temperature": "0"},
        {"top_p": 0.5}, {"seed": 1}, {"n": 2}, {"max_tokens": 5}, {"tools": []}, {"response_format": {"type": "text"}},
        {"messages": [{"role": "user", "content": "hi "}]}, {"messages": []}, {"stop": None}, {"unheard_of": 1},
    ],
)  # fmt: skip
def test_everything_that_can_change_an_answer_is_in_its_key(other: dict[str, Any]) -> None:
    """Another model, message, tool, format or parameter of any name or type is another question."""
    assert key_of(ALICE, ASKED, BODY) != key_of(ALICE, ASKED, {**BODY, **other})


@pytest.mark.parametrize("name", ["stream", "stream_options", "user", "metadata", "prompt_cache_key"])
def test_what_cannot_change_an_answer_is_not_in_its_key(name: str) -> None:
    """How the answer is sent and labels for the provider are no part of the question; nor is the order of names."""
    again = {name: "x", **dict(reversed(BODY.items()))}

    assert key_of(ALICE, ASKED, BODY) == key_of(ALICE, ASKED, again)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_who_is_asked_is_in_the_key(name: str) -> None:
    """The same body at another provider, address or path is another question."""
    assert key_of(ALICE, ASKED, BODY) != key_of(ALICE, {**ASKED, name: "other"}, BODY)


def test_no_tenant_has_the_key_of_another() -> None:
    """User, key and organisation each make another tenant, and a name in another place is another one too."""
    tenants = [
        Tenant(*names)
        for names in [("a", None, None), (None, "a", None), (None, None, "a"), ("a", "a", None), ("a", "", "a"),
                      ("b", None, None), (None, None, None), ("a,None", None, None)]
    ]  # fmt: skip

    assert len(tenants) == len({key_of(tenant, ASKED, BODY) for tenant in tenants})


@pytest.mark.parametrize("odd", [object(), float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_is_no_plain_json_has_no_key(odd: object) -> None:
    """A request whose bytes cannot be told beforehand is never answered from the cache."""
    assert key_of(ALICE, ASKED, {**BODY, "x": odd}) is None


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_json_has_a_key_and_the_same_one_twice(value: object) -> None:
    """Lone surrogates and huge numbers are JSON as well."""
    body = {**BODY, "x": value}

    assert key_of(ALICE, ASKED, body) is not None
    assert key_of(ALICE, ASKED, body) == key_of(ALICE, ASKED, dict(body))


def test_an_answer_is_found_until_it_expires(made: Any) -> None:
    """One millisecond decides."""
    clock = ManualClock()
    cache = made(ttl_s=60, clock=clock)
    cache.put(KEY, b"answer", _silent)
    clock.advance(59_999)

    assert b"answer" == cache.get(KEY, _silent)
    clock.advance(1)
    assert cache.get(KEY, _silent) is None


def test_what_was_used_longest_ago_makes_room(made: Any) -> None:
    """Being read is being used; the newest answer is always kept."""
    cache = made(entries_max=2)
    cache.put("a", b"1", _silent)
    cache.put("b", b"2", _silent)
    cache.get("a", _silent)
    cache.put("c", b"3", _silent)

    assert [b"1", None, b"3"] == [cache.get(key, _silent) for key in "abc"]


def test_bytes_are_bounded(made: Any) -> None:
    """Long answers push others out; one that is too long by itself is not kept at all."""
    cache = made(bytes_max=2_600, body_bytes_max=1_000)
    for key in "abc":
        cache.put(key, b"x" * 1_000, _silent)
    cache.put("d", b"x" * 1_001, _silent)

    assert [False, True, True, False] == [cache.get(key, _silent) is not None for key in "abcd"]


def test_an_answer_is_replaced_dropped_and_cleared(made: Any) -> None:
    """The newest one counts."""
    cache = made()
    for body in (b"1", b"2"):
        cache.put("a", body, _silent)
    cache.put("b", b"3", _silent)
    assert b"2" == cache.get("a", _silent)

    cache.drop("a", _silent)
    assert [None, b"3"] == [cache.get(key, _silent) for key in "ab"]

    cache.clear()
    assert cache.get("b", _silent) is None


class _Dict:
    """A storage of somebody else's."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get(self, key: str, *, now_ms: int) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, body: bytes, *, now_ms: int, ttl_ms: int) -> None:
        self.kept[key] = body

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def clear(self) -> None:
        self.kept.clear()


@pytest.mark.parametrize("damage", [lambda kept: kept[:-1], lambda kept: b"", lambda kept: kept + b"x",
                                    lambda kept: b"\0" * len(kept)])  # fmt: skip
def test_a_damaged_answer_is_a_miss_and_told(damage: Any) -> None:
    """It is forgotten, so that it is told once."""
    storage = _Dict()
    cache = ResponseCache(storage=storage)
    cache.put(KEY, b"answer", _silent)
    storage.kept[KEY] = damage(storage.kept[KEY])
    told: list[str] = []

    assert cache.get(KEY, told.append) is None
    assert (["damaged"], {}) == (told, storage.kept)


def test_an_answer_under_the_key_of_another_is_damage() -> None:
    """Whoever mixes up rows gives nobody somebody else's answer."""
    storage = _Dict()
    cache = ResponseCache(storage=storage)
    cache.put("a", b"answer", _silent)
    storage.kept["b"] = storage.kept["a"]
    told: list[str] = []

    assert cache.get("b", told.append) is None
    assert ["damaged"] == told


def test_a_file_that_is_none_is_a_miss_and_told(tmp_path: Path) -> None:
    """What cannot be read or written is no reason to fail; the file is left as it is."""
    path = tmp_path / "answers.db"
    path.write_bytes(b"this is no database, whatever its name says" * 30)
    before = path.read_bytes()
    cache = ResponseCache(path)
    told: list[str] = []

    assert cache.get(KEY, told.append) is None
    cache.put(KEY, b"answer", told.append)
    cache.drop(KEY, told.append)

    assert ["DatabaseError"] * 3 == told
    assert before == path.read_bytes()


def test_a_file_is_shared_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Two processes would see the same as these two caches; nobody else sees anything."""
    path = tmp_path / "answers.db"
    ResponseCache(path).put(KEY, b"answer", _silent)

    assert b"answer" == ResponseCache(path).get(KEY, _silent)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_another_writes_is_a_miss(tmp_path: Path) -> None:
    """Nobody waits for long."""
    path = tmp_path / "answers.db"
    cache = ResponseCache(path)
    cache.put(KEY, b"answer", _silent)
    told: list[str] = []
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        assert cache.get(KEY, told.append) is None
    finally:
        other.close()

    assert ["OperationalError"] == told
    assert b"answer" == cache.get(KEY, _silent)


@pytest.mark.parametrize("name", ["ttl_s", "entries_max", "bytes_max", "body_bytes_max"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
def test_a_number_that_is_none_is_refused_by_name(name: str, value: object) -> None:
    """Which one is said."""
    options: Any = {name: value}
    with pytest.raises((TypeError, ValueError), match=name):
        ResponseCache(**options)


def test_a_cache_is_in_one_place(tmp_path: Path) -> None:
    """A file and a storage contradict each other; no file is made."""
    with pytest.raises(ValueError, match="not both"):
        ResponseCache(tmp_path / "a.db", storage=_Dict())

    assert [] == list(tmp_path.iterdir())


def test_a_file_made_anew_is_its_owners_alone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes it, and wherever the program works by then: no copy of it that others can read comes to be."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    cache = ResponseCache("answers.db")
    (tmp_path / "answers.db").unlink()
    monkeypatch.chdir(elsewhere)
    cache.put(KEY, b"answer", _silent)

    assert [] == list(elsewhere.iterdir())
    assert 0o600 == stat.S_IMODE((tmp_path / "answers.db").stat().st_mode)
    assert b"answer" == cache.get(KEY, _silent)


def test_a_ledger_is_no_place_for_answers(tmp_path: Path) -> None:
    """A cache does not wait for the disk, which would put the books beside it at risk; the ledger is left as it was."""
    path = tmp_path / "ledger.db"
    store = SQLiteStore(path, synchronous="NORMAL")
    with pytest.raises(ValueError, match="a ledger"):
        ResponseCache(path)
    assert [] == list(store.usage())
    store.close()
