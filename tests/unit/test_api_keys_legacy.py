"""Keys of an older platform: a bcrypt hash each, checked by two threads at most, once."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from rr_keys import START_MS, holds_part, make_keys, open_documents_of, resealed, with_secret
from runrails.errors import ConfigError
from runrails.identity.apikeys import ApiKeys
from runrails.identity.apikeys.legacy import BCRYPT, CHECKS_MAX, WAITING_MAX, BcryptPool, CheckHash
from runrails.identity.errors import AuthBusy, Unauthenticated
from runrails.testing import ManualClock

bcrypt = pytest.importorskip("bcrypt", minversion="5", reason="the extra legacy is not installed")

TEXT = "sk-" + "aB3xYz90" * 6
KEY_ID = TEXT[:12]
KEPT = bcrypt.hashpw(TEXT.encode(), bcrypt.gensalt(4, prefix=b"2b")).decode()


class Checks:
    """The real check, counted, which waits for leave where a test holds it."""

    def __init__(self) -> None:
        self.count = 0
        self.at_once = 0
        self.most = 0
        self.lock = threading.Lock()
        self.leave = threading.Event()
        self.leave.set()

    def __call__(self, password: bytes, hashed: bytes, /) -> bool:
        with self.lock:
            self.count += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.leave.wait(20)
        try:
            # Cost 12, which refusals are measured by, would take a third of a second here.
            return bool(bcrypt.checkpw(password, hashed.replace(b"$12$", b"$04$")))
        finally:
            with self.lock:
                self.at_once -= 1


def adopted(checks: CheckHash | None = None, **settings: object) -> tuple[ApiKeys, object]:
    clock = ManualClock(START_MS)
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock, legacy=True, check_hash=checks, **settings)  # type: ignore[arg-type]
    keys.adopt(KEY_ID, KEPT, user="alice", scopes={"ai:complete"}, name="old")
    return keys, documents


def refused(keys: ApiKeys, text: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        keys.verify(text)
    return caught.value.reason


def test_without_leave_older_keys_are_malformed() -> None:
    """They cost no read where nobody asked for them."""
    documents = open_documents_of("memory", Path(), ManualClock(START_MS))
    assert refused(make_keys(documents), TEXT) == "malformed"
    assert documents.reads == 0


def test_an_older_key_is_checked_the_slow_way_once() -> None:
    """The first use proves and hashes it anew: the second costs 0 checks, in another process too."""
    checks = Checks()
    keys, documents = adopted(checks, cache_ms=0)
    assert keys.verify(TEXT).user == "alice"
    assert checks.count == 1
    assert keys.verify(TEXT).scopes == {"ai:complete"}
    assert make_keys(documents, legacy=True, check_hash=checks).verify(TEXT).key_id == KEY_ID  # type: ignore[arg-type]
    assert checks.count == 1
    assert keys.show(KEY_ID).prefix == KEY_ID
    keys.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux only")
def test_checks_have_a_low_priority() -> None:
    """Calls with good keys go before them; afterwards no thread is left."""
    seen: list[int] = []

    def look(password: bytes, hashed: bytes, /) -> bool:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return False

    keys, _ = adopted(look)
    assert refused(keys, TEXT) == "wrong_secret"
    assert seen[0] >= 10
    pool = keys._pool
    assert pool is not None and pool._threads is not None
    threads = set(pool._threads._threads)
    assert len(threads) == 1
    keys.close()
    assert not any(thread.is_alive() for thread in threads)


def test_the_package_bcrypt_does_it() -> None:
    """With its own check in place of the counted one."""
    keys, _ = adopted()
    assert keys.verify(TEXT).user == "alice"
    keys.close()


def test_every_refusal_of_an_older_key_costs_one_check() -> None:
    """Unknown, wrong, wrong for a key that was hashed anew: time tells nothing."""
    checks = Checks()
    keys, _ = adopted(checks)
    wrong = TEXT[:-1] + "1"
    assert refused(keys, wrong) == "wrong_secret"
    assert checks.count == 1
    assert refused(keys, "sk-" + "Q" * 48) == "unknown"
    assert checks.count == 2
    keys.verify(TEXT)
    assert checks.count == 3
    assert refused(keys, TEXT[:-1] + "2") == "wrong_secret"
    assert checks.count == 4
    assert refused(keys, wrong) == "wrong_secret"
    assert checks.count == 4
    keys.close()


def test_keys_of_today_never_wait_for_older_ones() -> None:
    """Wrong or unknown, they cost no check."""
    checks = Checks()
    keys, _ = adopted(checks)
    right = keys.create("bob", scopes=())[1].reveal()
    assert refused(keys, with_secret(right, "0" * 43)) == "wrong_secret"
    assert refused(keys, resealed(right[:8] + "A" * 16 + right[24:])) == "unknown"
    assert checks.count == 0
    keys.close()


def test_status_holds_for_older_keys() -> None:
    """Revoked, whether it was hashed anew or not; and an older key is not rotated."""
    for used_before in (False, True):
        keys, _ = adopted(Checks())
        if used_before:
            keys.verify(TEXT)
        with pytest.raises(ConfigError, match="no room for its id"):
            keys.rotate(KEY_ID)
        keys.revoke(KEY_ID)
        assert refused(keys, TEXT) == "not_active"
        keys.close()


@pytest.mark.parametrize(
    ("key_id", "kept"),
    [
        (KEY_ID, ""), (KEY_ID, "$2a$" + KEPT[4:]), (KEY_ID, KEPT[:-1]), (KEY_ID, KEPT + "x"),
        (KEY_ID, "$2b$15" + KEPT[6:]),
        (KEY_ID, "$2b$31" + KEPT[6:]), (KEY_ID, "$2b$03" + KEPT[6:]), (KEY_ID, KEPT + "\n"),
        (KEY_ID, "hs256$p1$" + "0" * 64), ("A" * 16, KEPT), (KEY_ID[:-1], KEPT),
        (KEY_ID + "x", KEPT), ("pk" + KEY_ID[2:], KEPT), (KEY_ID[:-1] + "\n", KEPT),
    ],
    ids=map(str, range(14)),
)  # fmt: skip
def test_what_is_no_older_key_is_not_taken_over(key_id: str, kept: str) -> None:
    """Another hash, a dearer one, another id; the error has neither, and nothing is written."""
    documents = open_documents_of("memory", Path(), ManualClock(START_MS))
    keys = make_keys(documents, legacy=True)
    with pytest.raises(ConfigError) as caught:
        keys.adopt(key_id, kept, user="alice", scopes=())
    assert not holds_part(str(caught.value), KEPT)
    assert documents.everything() == []


def test_a_key_is_taken_over_once() -> None:
    """A second time would let somebody replace another's hash."""
    keys, documents = adopted(Checks())
    before = documents.everything()[0]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="already"):
        keys.adopt(KEY_ID, KEPT, user="mallory", scopes={"admin:keys"})
    assert documents.everything()[0] == before  # type: ignore[attr-defined]
    assert keys.verify(TEXT).user == "alice"
    assert keys.list("mallory") == []
    keys.close()


def test_a_flood_keeps_two_threads_busy_and_no_more() -> None:
    """Beyond eighteen it is told to come again; keys of today, and older ones hashed anew, do not wait at all."""
    checks = Checks()
    keys, documents = adopted(checks)
    keys.verify(TEXT)
    good = keys.create("bob", scopes=())[1].reveal()
    before = documents.everything()  # type: ignore[attr-defined]
    checks.leave.clear()
    outcomes: list[str] = []

    def attack(number: int) -> None:
        try:
            keys.verify(f"sk-{number:048d}")
        except (AuthBusy, Unauthenticated) as error:
            outcomes.append(error.code)

    attackers = [threading.Thread(target=attack, args=(number,)) for number in range(60)]
    for thread in attackers:
        thread.start()
    while len(outcomes) < 60 - CHECKS_MAX - WAITING_MAX:
        threading.Event().wait(0.01)
    assert set(outcomes) == {"auth_busy"}
    assert len(outcomes) == 42
    fresh = make_keys(documents, legacy=True, check_hash=checks)  # type: ignore[arg-type]
    fresh._pool = keys._pool
    for _ in range(100):
        assert keys.verify(good).user == "bob"
    assert [fresh.verify(text).user for text in (good, TEXT)] == ["bob", "alice"]
    checks.leave.set()
    for thread in attackers:
        thread.join()
    assert outcomes.count("unauthenticated") == CHECKS_MAX + WAITING_MAX
    assert checks.most == CHECKS_MAX
    assert checks.count == 1 + CHECKS_MAX + WAITING_MAX
    assert before == documents.everything()  # type: ignore[attr-defined]
    assert keys.verify(TEXT).user == "alice"
    keys.close()


def test_who_uses_one_older_key_in_many_threads_is_let_in_by_one_check() -> None:
    """A fleet that starts at once is not turned away."""
    checks = Checks()
    keys, _ = adopted(checks)
    pool = keys._pool
    assert pool is not None
    submit, asked = pool._submit, list[None]()

    def noted(password: bytes, hashed: str, digest: bytes) -> Future[bool]:
        asked.append(None)
        return submit(password, hashed, digest)

    pool._submit = noted  # type: ignore[method-assign]
    checks.leave.clear()
    users: list[str] = []
    threads = [threading.Thread(target=lambda: users.append(keys.verify(TEXT).user)) for _ in range(40)]
    for thread in threads:
        thread.start()
    while checks.at_once == 0 or len(asked) < 40:
        threading.Event().wait(0.01)
    checks.leave.set()
    for thread in threads:
        thread.join()
    assert users == ["alice"] * 40
    assert checks.count <= 3
    keys.close()


def test_more_than_72_bytes_prove_nothing() -> None:
    """bcrypt says ValueError, and would once have cut them off: both lengths are refused and nothing crashes."""
    long = "x" * 73
    kept = bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode()
    pool = BcryptPool()
    with pytest.raises(ValueError, match="72"):
        bcrypt.checkpw(long.encode(), kept.encode())
    assert pool.proves(long, kept, b"1") is False
    assert pool.proves(long[:72], kept, b"2") is True
    assert pool.proves(long[:72], None, b"3") is False
    assert pool.proves(long[:72], "$2b$04$short", b"4") is False
    pool.close()


def test_only_hashes_of_bcrypt_that_are_not_too_dear_are_ever_checked() -> None:
    """Whatever a record says: another hash is not tried, and what is not there is never proven."""
    asked: list[bytes] = []

    def yes(password: bytes, hashed: bytes, /) -> bool:
        asked.append(hashed)
        return True

    pool = BcryptPool(yes)
    for number, kept in enumerate((None, "$2b$31$" + KEPT[7:], "hs256$p1$" + "0" * 64, "", KEPT + "x")):
        assert pool.proves(TEXT, kept, bytes([number])) is False
    assert all(BCRYPT.fullmatch(each.decode()) and each.startswith(b"$2b$12$") for each in asked)
    assert len(asked) == 5
    assert pool.proves(TEXT, KEPT, b"right") is True
    assert asked[-1] == KEPT.encode()
    pool.close()


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only where older keys are wanted."""
    monkeypatch.setitem(__import__("sys").modules, "bcrypt", None)
    make_keys()
    with pytest.raises(ConfigError, match=r"runrails\[legacy\]"):
        make_keys(legacy=True)


def test_a_check_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told to come again."""
    monkeypatch.setattr("runrails.identity.apikeys.legacy.WAIT_S", 0.01)
    checks = Checks()
    keys, _ = adopted(checks)
    checks.leave.clear()
    with pytest.raises(AuthBusy):
        keys.verify(TEXT)
    checks.leave.set()
    keys.close()
    assert keys._pool is not None
    assert keys._pool._threads is None
