"""What a hostile reader of the identity rooms found: each of these let somebody in, or kept somebody out, once."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rr_jwt import EC, ED, Desk, b64, header, pem, shared_keys, token
from rr_keys import PEPPER, PEPPERS, START_MS, CountingDocuments, make_keys, open_documents_of, with_secret
from runrails.cli.keys import _id_of
from runrails.cli.shell import USAGE, run
from runrails.documents import Address, Document
from runrails.documents.memory import MemoryDocuments
from runrails.documents.sqlite import SQLiteDocuments
from runrails.errors import ConfigError, StoreUnavailable
from runrails.identity.apikeys import ApiKeys, Peppers
from runrails.identity.apikeys.desk import KeyDesk
from runrails.identity.apikeys.used import EVERY_MS, KEPT_MAX, LastUsed
from runrails.identity.errors import Forbidden, Unauthenticated, UnknownKey
from runrails.identity.jwt import Key, KeySet, RemoteKeys
from runrails.identity.jwt.jwk import read_jwks
from runrails.identity.jwt.revocation import Revocations
from runrails.identity.jwt.strict import read_envelope
from runrails.identity.operations import authorise_new
from runrails.identity.principal import SCOPES, Principal
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

OLD_ID, OLD_REST = "sk-aB3xYz90a", "b" * 39
OLD_HASH = "$2b$12$" + "a" * 53


def person(*scopes: str, user: str = "alice", org: str | None = None) -> Principal:
    """Somebody."""
    return Principal(user=user, org=org, scopes=frozenset(scopes), method="api_key")


def refusal(verify: Callable[[str], object], text: str) -> str:
    """Why a credential is refused."""
    with pytest.raises(Unauthenticated) as caught:
        verify(text)
    return caught.value.reason


def in_child(act: Callable[[], bool]) -> bool:
    """Whether something is so in a forked process, and not only after seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: that threads are there is the point
        child = os.fork()
    if child == 0:  # pragma: no cover -- another process
        said = [False]
        asking = threading.Thread(target=lambda: said.__setitem__(0, act()), daemon=True)
        asking.start()
        asking.join(10)
        os._exit(0 if said[0] else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Powers that are handed on


def a_desk() -> tuple[KeyDesk, CountingDocuments]:
    """A desk whose store has a key of bob of acme with all powers, one of carol of globex, and one of nobody's."""
    documents = open_documents_of("memory", Path(), ManualClock(START_MS))
    keys = make_keys(documents)
    for user, org in (("bob", "acme"), ("carol", "globex"), ("root", None)):
        keys.create(user, scopes=SCOPES, org=org)
    return KeyDesk(keys), documents


def id_of(documents: CountingDocuments, user: str) -> str:
    """The id of somebody's one key."""
    return next(documents.inner.find("api-key-of", user)).address.name


def test_who_may_manage_keys_gains_no_powers_by_rotating_a_stronger_one() -> None:
    """A rotation hands out a secret, so it takes every scope of that key; suspending and revoking do not."""
    desk, documents = a_desk()
    weak = person("admin:keys", org="acme")
    before = documents.everything()
    with pytest.raises(Forbidden, match="admin:budgets"):
        desk.rotate(weak, id_of(documents, "bob"))
    assert before == documents.everything()
    assert "suspended" == desk.suspend(weak, id_of(documents, "bob")).status
    assert "active" == desk.resume(weak, id_of(documents, "bob")).status
    info, _ = desk.rotate(person(*SCOPES, org="acme"), id_of(documents, "bob"))
    assert info.rotated_ms == START_MS


@pytest.mark.parametrize("org", [None, "globex"])
def test_an_organisations_administrator_makes_no_key_of_the_platform(org: str | None) -> None:
    """A key without an organisation and with `admin:keys` would reach everybody's; one of another's, theirs."""
    desk, documents = a_desk()
    before = documents.everything()
    with pytest.raises(Forbidden):
        desk.create(person(*SCOPES, org="acme"), "bob", scopes={"admin:keys"}, org=org)
    assert before == documents.everything()
    info, _ = desk.create(person(*SCOPES, org="acme"), "bob", scopes={"admin:keys"}, org="acme")
    assert ("bob", "acme") == (info.user, info.org)
    assert desk.create(person(*SCOPES), "bob", scopes=(), org=org)[0].org == org


@pytest.mark.parametrize("user", ["carol", "root", "nobody-knows", "dave"])
def test_an_organisations_administrator_makes_no_key_for_a_user_of_others(user: str) -> None:
    """It would spend that user's money and provider keys: of whom no record says so, or two disagree, none is made."""
    desk, documents = a_desk()
    for org in ("acme", "globex"):
        desk.create(person(*SCOPES), "dave", scopes=(), org=org)
    before = documents.everything()
    with pytest.raises(Forbidden):
        desk.create(person(*SCOPES, org="acme"), user, scopes={"ai:complete"}, org="acme")
    assert before == documents.everything()
    made, _ = desk.create(person(*SCOPES, org="acme", user="zoe"), "zoe", scopes={"ai:complete"}, org="acme")
    assert made.user == "zoe"  # of themselves their own credential says it


def test_scopes_that_one_has_not_are_in_no_new_key() -> None:
    """Whoever may make keys, with or without an organisation, makes none stronger than their own."""
    desk, documents = a_desk()
    before = documents.everything()
    for org in (None, "acme"):
        with pytest.raises(Forbidden, match="ai:agent"):
            desk.create(person("admin:keys", org=org), "bob", scopes={"ai:agent"}, org="acme")
        with pytest.raises(Forbidden, match="admin:keys"):
            reads = documents.reads
            try:
                desk.create(person("ai:agent", org=org), "bob", scopes={"ai:agent"}, org="acme")
            finally:
                assert reads == documents.reads  # nothing is looked up for who may not
    assert before == documents.everything()


def test_tokens_hand_out_no_more_than_keys() -> None:
    """Whoever makes a token for somebody is asked the same: the user's organisation, the token's, and its scopes."""

    def issue(**changed: Any) -> None:
        told = {"scopes": {"ai:agent"}, "user": "bob", "org": "acme", "user_org": "acme"} | changed
        authorise_new(person("admin:tokens", "ai:agent", org="acme"), "tokens.issue", **told)

    issue()
    for wrong in ({"org": None}, {"org": "globex"}, {"user_org": None}, {"user_org": "globex"}, {"scopes": SCOPES}):
        with pytest.raises(Forbidden):
            issue(**wrong)


@pytest.mark.parametrize("verb", ["show", "suspend", "resume", "revoke", "rotate"])
def test_ids_of_others_keys_look_like_none(verb: str) -> None:
    """Theirs, the platform's and one that nobody has: the same answer, and nothing is changed."""
    desk, documents = a_desk()
    admin = person(*SCOPES, org="acme")
    before = documents.everything()
    told = set[str]()
    for key_id in (id_of(documents, "carol"), id_of(documents, "root"), "A" * 16, "no id at all"):
        with pytest.raises(UnknownKey) as caught:
            getattr(desk, verb)(admin, key_id)
        told.add(f"{caught.value} {caught.value.as_dict()}")
        with pytest.raises(Forbidden):
            getattr(desk, verb)(person("ai:complete", org="acme"), key_id)
    assert 1 == len(told)
    assert before == documents.everything()
    getattr(desk, verb)(person(*SCOPES), id_of(documents, "carol"))


def test_the_platform_looks_nothing_up_and_scopes_are_read_once() -> None:
    """Whose organisation it is decides nothing for it; scopes may be given as anything that can be gone through."""
    desk, documents = a_desk()
    documents.reads = 0
    assert desk.org_of(person(*SCOPES), "bob") is None
    assert 0 == documents.reads
    assert "acme" == desk.org_of(person(org="acme", user="zoe"), "bob")
    info, _ = desk.create(person(*SCOPES), "bob", scopes=(each for each in ("ai:complete", "ai:embed")))
    assert {"ai:complete", "ai:embed"} == info.scopes


def test_a_list_has_what_one_may_see() -> None:
    """An organisation's administrator sees its keys; others' users have none there."""
    desk, documents = a_desk()
    admin = person("admin:keys", org="acme")
    assert ["bob"] == [each.user for each in desk.list(admin)]
    assert ["bob"] == [each.user for each in desk.list(admin, "bob")]
    assert [] == desk.list(admin, "carol")
    assert {"bob", "carol", "root"} == {each.user for each in desk.list(person("admin:keys"))}
    reads = documents.reads
    with pytest.raises(Forbidden):
        desk.list(person("ai:complete"))
    assert reads == documents.reads


def test_a_token_from_a_token_ends_with_it() -> None:
    """Who steals one and has it exchanged in time does not keep what came of it when the first is taken back."""
    desk = Desk()
    first = token()
    second = desk.tokens.issue(desk.tokens.verify(first), 60_000).reveal()
    assert desk.tokens.verify(first).session_id == desk.tokens.verify(second).session_id
    desk.tokens.revoke(desk.tokens.verify(first).session_id or "")
    assert ["token-revoked"] * 2 == [refusal(desk.tokens.verify, each) for each in (first, second)]


# What is taken back


@pytest.mark.parametrize("change", ["revoke", "suspend"])
def test_a_slow_check_lets_nobody_in_who_was_taken_back_meanwhile(change: str) -> None:
    """An older key may wait for seconds to be checked; what its record says after that counts."""
    clock = ManualClock(START_MS)
    documents = open_documents_of("memory", Path(), clock)
    elsewhere = make_keys(documents, clock=clock)

    def slowly(password: bytes, hashed: bytes, /) -> bool:
        getattr(elsewhere, change)(OLD_ID)
        clock.advance(11_000)
        return True

    keys = make_keys(documents, clock=clock, legacy=True, check_hash=slowly)
    keys.adopt(OLD_ID, OLD_HASH, user="alice", scopes={"ai:complete"})
    assert "not_active" == refusal(keys.verify, OLD_ID + OLD_REST)
    keys.close()


def test_a_slow_check_lets_nobody_in_whose_key_is_over_meanwhile() -> None:
    """The time of the answer counts, not that of the question."""
    clock = ManualClock(START_MS)

    def slowly(password: bytes, hashed: bytes, /) -> bool:
        clock.advance(11_000)
        return True

    keys = make_keys(clock=clock, legacy=True, check_hash=slowly)
    keys.adopt(OLD_ID, OLD_HASH, user="alice", scopes={"ai:complete"}, expires_ms=START_MS + 5_000)
    assert "expired" == refusal(keys.verify, OLD_ID + OLD_REST)
    keys.close()


def test_two_processes_that_check_an_older_key_at_once_both_let_it_in() -> None:
    """The one that comes second finds it hashed anew, and proves it by that."""
    documents = open_documents_of("memory", Path(), ManualClock(START_MS))
    elsewhere = make_keys(documents, legacy=True, check_hash=lambda _password, _hashed: True)

    def meanwhile(password: bytes, hashed: bytes, /) -> bool:
        return elsewhere.verify(OLD_ID + OLD_REST).user == "alice"

    keys = make_keys(documents, legacy=True, check_hash=meanwhile)
    keys.adopt(OLD_ID, OLD_HASH, user="alice", scopes={"ai:complete"})
    assert "alice" == keys.verify(OLD_ID + OLD_REST).user
    for each in (keys, elsewhere):
        each.close()


@pytest.mark.parametrize("change", ["revoke", "suspend"])
def test_who_still_sends_an_older_key_that_was_taken_back_costs_one_slow_check(change: str) -> None:
    """A client that nobody told goes on for weeks; it must not keep the others of its kind out."""
    clock = ManualClock(START_MS)
    documents = open_documents_of("memory", Path(), clock)
    checks: list[bytes] = []
    keys = make_keys(
        documents, clock=clock, legacy=True, check_hash=lambda password, _hashed: not checks.append(password)
    )
    keys.adopt(OLD_ID, OLD_HASH, user="alice", scopes={"ai:complete"})
    getattr(keys, change)(OLD_ID)
    for _ in range(5):
        refusal(keys.verify, OLD_ID + OLD_REST)
        clock.advance(5_000)
    assert 1 == len(checks)
    if change == "suspend":
        keys.resume(OLD_ID)
        assert "alice" == keys.verify(OLD_ID + OLD_REST).user
        assert 1 == len(checks)
    keys.close()


@pytest.mark.parametrize("change", ["revoke", "expire", "elsewhere"])
def test_who_still_sends_a_key_that_is_over_costs_a_read_in_five_seconds(change: str) -> None:
    """As any other wrong key does. Only a suspended one is looked up each time, since it may be resumed."""
    clock = ManualClock(START_MS)
    documents = open_documents_of("memory", Path(), clock)
    other = make_keys(documents, clock=clock, environment="test")
    keys = other if change == "elsewhere" else make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=(), expires_ms=START_MS + 1_000)
    if change == "revoke":
        keys.revoke(info.id)
    if change == "expire":
        clock.advance(1_000)
    live = make_keys(documents, clock=clock)
    documents.reads = 0
    for _ in range(100):
        refusal(live.verify, secret.reveal())
    assert 1 == documents.reads


def test_a_wall_clock_that_is_set_back_does_not_keep_a_revoked_token_alive() -> None:
    """What is remembered of a revocation is timed by the monotonic clock, as it is for keys."""
    wall, monotonic = ManualClock(START_MS), ManualClock(0)
    documents = MemoryDocuments(clock=wall)
    here = Revocations(documents, clock=wall, monotonic=monotonic)
    assert not here.has("j1")
    Revocations(documents, clock=wall, monotonic=monotonic).revoke("j1")
    monotonic.advance(4_999)
    assert not here.has("j1")
    monotonic.advance(1)
    wall.advance(-1)
    assert here.has("j1")


class Meanwhile:
    """Documents in which something happens just after one was read."""

    def __init__(self, clock: ManualClock) -> None:
        self._inner = MemoryDocuments(clock=clock)
        self.act: Callable[[], object] | None = None

    def get(self, address: Address) -> Document | None:
        found = self._inner.get(address)
        act, self.act = self.act, None
        if act is not None:
            act()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_what_was_read_before_it_was_taken_back_here_is_not_remembered() -> None:
    """The one request that was on its way may come in; the next one may not, as it is done at once where it is done."""
    clock = ManualClock(START_MS)
    documents = Meanwhile(clock)
    keys = make_keys(documents, clock=clock)  # type: ignore[arg-type]
    info, secret = keys.create("alice", scopes=())
    documents.act = lambda: keys.revoke(info.id)
    assert "alice" == keys.verify(secret.reveal()).user
    keys.flush()
    assert "not_active" == refusal(keys.verify, secret.reveal())
    revocations = Revocations(documents, clock=clock, monotonic=clock)  # type: ignore[arg-type]
    documents.act = lambda: revocations.revoke("j1")
    assert not revocations.has("j1")
    assert revocations.has("j1")


@pytest.mark.parametrize(
    ("wall_ms", "monotonic_ms", "asks"),
    [(4_999, 4_999, False), (0, 4_999, False), (4_999, 0, False), (5_000, 0, True), (0, 5_000, True), (-1, 0, True)],
)
def test_both_clocks_must_find_an_answer_young(wall_ms: int, monotonic_ms: int, *, asks: bool) -> None:
    """Of keys that were proven, keys that were refused and tokens that were not revoked, to the millisecond."""
    wall, monotonic = ManualClock(START_MS), ManualClock(0)
    looked: list[str] = []

    class Looked(MemoryDocuments):
        def get(self, address: Address) -> Document | None:
            looked.append(address.kind)
            return super().get(address)

    documents = Looked(clock=wall)
    keys = ApiKeys(documents, PEPPERS, clock=wall, monotonic=monotonic)
    revocations = Revocations(documents, clock=wall, monotonic=monotonic)
    text = keys.create("alice", scopes=())[1].reveal()
    wrong = with_secret(text, "0" * 43)
    keys.verify(text)
    refusal(keys.verify, wrong)
    revocations.has("j1")
    keys.flush()
    wall.advance(wall_ms)
    monotonic.advance(monotonic_ms)
    known = keys.recall(text) is not None, revocations.is_known_good("j1")
    assert (not asks, not asks) == known
    looked.clear()
    keys.verify(text)
    refusal(keys.verify, wrong)
    revocations.has("j1")
    keys.flush()
    assert ["api-key", "api-key", "revoked"] * asks == [kind for kind in looked if kind != "api-key-used"]


def test_other_keys_stay_known_when_one_is_changed() -> None:
    """Changing one is no reason to look all up again. Without a memory each is looked up."""
    documents = open_documents_of("memory", Path(), ManualClock(START_MS))
    keys = make_keys(documents)
    (first, _), (_, other) = [keys.create("alice", scopes=()) for _ in range(2)]
    keys.verify(other.reveal())
    keys.flush()
    keys.suspend(first.id)
    documents.reads = 0
    assert "alice" == keys.verify(other.reveal()).user
    assert 0 == documents.reads
    revocations = Revocations(documents, cache_ms=0)
    assert [False] * 3 == [revocations.has("j1") for _ in range(3)]
    assert 3 == documents.reads


def test_a_machine_that_slept_asks_again() -> None:
    """The monotonic clock may have stood still; what was remembered before is an hour old all the same."""
    wall, monotonic = ManualClock(START_MS), ManualClock(0)
    documents = MemoryDocuments(clock=wall)
    keys = ApiKeys(documents, PEPPERS, clock=wall, monotonic=monotonic)
    revocations = Revocations(documents, clock=wall, monotonic=monotonic)
    info, secret = keys.create("alice", scopes=())
    assert "alice" == keys.verify(secret.reveal()).user
    assert not revocations.has("j1")
    ApiKeys(documents, PEPPERS, clock=wall, monotonic=monotonic).revoke(info.id)
    Revocations(documents, clock=wall).revoke("j1")
    wall.advance(3_599_999)
    assert "not_active" == refusal(keys.verify, secret.reveal())
    assert revocations.has("j1")


# What grows and what waits


class Uses:
    """Documents that count uses written, and may be slow and away."""

    def __init__(self, *, away: bool = False, takes_s: float = 0) -> None:
        self._inner = MemoryDocuments()
        self.away, self.takes_s, self.asked = away, takes_s, 0

    def get(self, address: Address) -> Document | None:
        return self._inner.get(address)

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        self.asked += 1
        time.sleep(self.takes_s)
        if self.away:
            raise StoreUnavailable("Away.", next_step="Wait.")
        return self._inner.put(address, data, expected=expected, expires_ms=expires_ms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_store_that_is_away_does_not_hold_a_server_at_its_end() -> None:
    """What waits to be written is a courtesy: with the first failure all of it is given up, not one after another."""
    documents = Uses(away=True, takes_s=0.05)
    used = LastUsed(documents)
    for number in range(200):
        used.note(f"k{number}", START_MS)
    used.flush()
    assert documents.asked <= 200 // 10
    assert 200 == used.failures
    documents.away = False
    used.note("k0", START_MS + EVERY_MS)
    used.flush()
    assert START_MS + EVERY_MS == used.read_ms("k0")


def test_many_keys_in_one_minute_cost_no_more_each() -> None:
    """Beyond what is kept, the oldest is forgotten: no use looks through all others, and nothing grows."""
    used = LastUsed(Uses())
    looked = 0

    class Noted(dict[str, int]):
        def items(self) -> Any:
            nonlocal looked
            looked += len(self)
            return super().items()

    used._noted = Noted()
    for number in range(KEPT_MAX + 500):
        used.note(f"k{number}", START_MS)
    used.flush()
    assert len(used._noted) == KEPT_MAX
    assert looked <= 2 * KEPT_MAX


def test_a_thread_that_could_not_be_started_is_made_up_for() -> None:
    """A machine without room for a thread does not end the noting of uses, nor the process that waits for it."""
    used = LastUsed(MemoryDocuments())
    used._writer = threading.Thread(target=print)
    used.note("k1", START_MS)
    used.flush()
    assert START_MS == used.read_ms("k1")
    used._writer = threading.Thread(target=print)
    used.flush()
    used._writer = threading.Thread(target=print)
    used.note("k2", START_MS)
    for _ in range(6_000):
        if used.read_ms("k2") is not None:
            break
        time.sleep(0.005)
    assert START_MS == used.read_ms("k2")


def test_uses_are_noted_after_a_clock_was_set_back() -> None:
    """Not only when it has come to where it once was."""
    used = LastUsed(MemoryDocuments())
    used.note("k1", START_MS + 86_400_000)
    used.flush()
    used.note("k1", START_MS)
    used.flush()
    assert START_MS == used.read_ms("k1")


def test_nobody_who_reads_waits_for_who_writes(tmp_path: Path) -> None:
    """
    While another program holds the file, the note of a key's use waits; a key that has to be looked up does not. An
    event loop may have asked for it, and would have stood still for a minute.
    """
    documents = SQLiteDocuments(tmp_path / "vault.db", synchronous="NORMAL", busy_timeout_ms=60_000)
    keys = make_keys(documents, cache_ms=0)
    texts = [keys.create("alice", scopes=())[1].reveal() for _ in range(2)]
    other = sqlite3.connect(tmp_path / "vault.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    keys.verify(texts[0])  # its use is written in another thread, which waits now
    writer = keys._used._writer
    while not documents._file._lock.locked():
        time.sleep(0.001)
    began = time.monotonic()
    assert "alice" == keys.verify(texts[1]).user
    assert ["alice"] * 2 == [info.user for info in keys.list("alice")]
    assert time.monotonic() - began < 20
    assert writer is not None and writer.is_alive()
    other.execute("ROLLBACK")
    other.close()
    keys.flush()
    assert [START_MS] * 2 == [info.last_used_ms for info in keys.list("alice")]
    documents.close()
    documents.close()
    with pytest.raises(StoreUnavailable):
        documents.get(Address("k", "o", "n"))


def test_hashing_anew_lets_nobody_wait(tmp_path: Path) -> None:
    """With a new pepper each key is hashed anew at its first use: not while its caller, or an event loop, waits."""
    documents = SQLiteDocuments(tmp_path / "vault.db", synchronous="NORMAL", busy_timeout_ms=60_000)
    both = Peppers("p2", {"p2": Secret("Zq8Lw1nR5vTy0uKe3aHs7dGf9jXcBm2P"), "p1": PEPPER})
    text = make_keys(documents).create("alice", scopes=())[1].reveal()
    other = sqlite3.connect(tmp_path / "vault.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    keys = make_keys(documents, peppers=both)
    began = time.monotonic()
    assert "alice" == keys.verify(text).user
    assert time.monotonic() - began < 20
    other.execute("ROLLBACK")
    other.close()
    keys.flush()
    only = Peppers("p2", {"p2": Secret("Zq8Lw1nR5vTy0uKe3aHs7dGf9jXcBm2P")})
    assert "alice" == make_keys(documents, peppers=only).verify(text).user
    documents.close()


def test_a_fork_in_the_middle_of_anything_leaves_a_child_that_works() -> None:
    """Locks that other threads held are not inherited, nor threads that are not there."""
    documents = open_documents_of("memory", Path(), ManualClock(START_MS))
    keys = make_keys(documents, legacy=True, check_hash=lambda _password, _hashed: True)
    text = keys.create("alice", scopes=())[1].reveal()
    for key_id in (OLD_ID, OLD_ID[:-1] + "b"):
        keys.adopt(key_id, OLD_HASH, user="alice", scopes={"ai:complete"})
    keys.verify(OLD_ID + OLD_REST)  # makes the pool's threads
    keys.flush()
    desk = Desk()
    asked = threading.Event()
    leave = threading.Event()

    def fetch(_url: str, /) -> Any:
        asked.set()
        leave.wait(20)
        raise StoreUnavailable("Nothing.", next_step="Wait.")

    remote = RemoteKeys("https://keys.example.com/jwks", fetch=fetch)
    fetching = threading.Thread(target=lambda: remote.find("k1"))
    fetching.start()
    asked.wait(20)
    held = (keys._known._lock, keys._used._lock, keys._pool._lock, desk.tokens._revocations._lock)  # type: ignore[union-attr]
    for lock in held:
        lock.acquire()

    def act() -> bool:
        leave.set()
        return (
            keys.verify(text).user == "alice"
            and keys.verify(OLD_ID[:-1] + "b" + OLD_REST).user == "alice"
            and desk.tokens.verify(token()).user == "worker-7"
            and remote.find("k1") is None
        )

    try:
        assert in_child(act)
    finally:
        for lock in held:
            lock.release()
        leave.set()
        fetching.join()
        keys.close()


# What a careless hand writes


@pytest.mark.parametrize(
    ("alg", "verifying"),
    [
        ("HS256", Secret("x")), ("HS256", Secret("changeme" * 8)),
        ("HS256", Secret(b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAkq0hT9sJ")),
        ("EdDSA", Secret("vM3kq0hT9sJx2bYcW7nLdRf5ZgUaEoPi")), ("HS512", Secret("vM3kq0hT9sJx2bYcW7nLdRf5ZgUaEoPi")),
        ("HS256", "ed25519"), ("ES256", "ed25519"), ("EdDSA", "p256"), ("ES256", "p384"), ("EdDSA", "ed448"),
    ],
    ids=str,
)  # fmt: skip
def test_a_set_takes_no_key_that_does_not_fit_its_algorithm(alg: Any, verifying: Any) -> None:
    """However it was put together: a weak secret, or a key for something else, is refused before any token comes."""
    if isinstance(verifying, str):
        verifying = public(verifying)
    with pytest.raises(ConfigError) as caught:
        KeySet([Key("k1", alg, verifying)])
    assert "BEGIN" not in str(caught.value)
    shared_keys()


def public(kind: str) -> Any:
    """A public key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    if kind == "ed448":
        return ed448.Ed448PrivateKey.from_private_bytes(bytes(range(57))).public_key()
    return ec.derive_private_key(12345, ec.SECP256R1() if kind == "p256" else ec.SECP384R1()).public_key()


@pytest.mark.parametrize("user", ["Zoë", "", "a b", "../x", "x" * 129, "\ud800"])
def test_nobody_of_a_malformed_name_has_keys(user: str) -> None:
    """It is an answer, not a bug: of a list, of a desk, and of a command."""
    desk, documents = a_desk()
    assert [] == make_keys(documents).list(user)
    assert [] == desk.list(person("admin:keys"), user)
    with pytest.raises(Forbidden):
        desk.create(person(*SCOPES, org="acme"), user, scopes=(), org="acme")


def test_a_command_does_not_say_that_it_took_something_back_that_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vault in memory ends with the command. Once it said that the token ends everywhere within five seconds."""
    monkeypatch.delenv("RUNRAILS_VAULT", raising=False)
    monkeypatch.setenv("RUNRAILS_STORE", "memory:")
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:env:RR_PEPPER")
    monkeypatch.setenv("RR_PEPPER", "vM3kq0hT9sJx2bYcW7nLdRf5ZgUaEoPi")
    for arguments in (
        ["tokens", "revoke", "0123456789abcdef"],
        ["keys", "create", "alice"],
        ["keys", "revoke", "A" * 16],
    ):
        assert USAGE == run(arguments)
        told = capsys.readouterr()
        assert "" == told.out and "memory" in told.err


def test_an_id_that_is_longer_is_another_key() -> None:
    """What stands between rr_live_ and the next underscore is the id: of a longer text its beginning is not."""
    assert "A" * 16 == _id_of("rr_live_" + "A" * 16) == _id_of("rr_test_" + "A" * 16 + "_rest")
    assert "rr_live_" + "A" * 17 == _id_of("rr_live_" + "A" * 17)


# The two names of Ed25519 (RFC 9864)


def test_a_key_is_for_one_name_of_ed25519() -> None:
    """Tokens say the name that their key is for; the other one is another algorithm, though the mathematics is one."""
    for alg, other in (("EdDSA", "Ed25519"), ("Ed25519", "EdDSA")):
        desk = Desk(KeySet([Key("ed1", alg, ED.public_key(), ED)], signing="ed1"))  # type: ignore[arg-type]
        good = token(header(alg=alg, kid="ed1"))
        assert "worker-7" == desk.tokens.verify(good).user
        assert alg == read_envelope(desk.tokens.issue(person("ai:complete"), 60_000).reveal()).header.alg
        assert "token-alg" == refusal(desk.tokens.verify, token(header(alg=other, kid="ed1")))
        for wrong in ("ed25519", "Ed25519 ", "EDDSA", "HS256", "Ed448"):
            assert "token-alg" == refusal(desk.tokens.verify, token(header(alg=wrong, kid="ed1")))


@pytest.mark.parametrize(("said", "meant"), [("EdDSA", "EdDSA"), ("Ed25519", "Ed25519"), (None, "EdDSA")])
def test_a_published_key_says_which_name(said: str | None, meant: str) -> None:
    """One that says neither is for the older name. One for the newer name was once left out, and its tokens refused."""
    x = ED.public_key().public_bytes_raw()
    entry = {"kid": "ed1", "kty": "OKP", "crv": "Ed25519", "x": b64(x)} | ({} if said is None else {"alg": said})
    found = read_jwks(json.dumps({"keys": [entry]}).encode())
    key = found.find("ed1")
    assert key is not None and meant == key.alg
    assert {"keys": [entry | {"alg": meant, "use": "sig"}]} == found.public_jwks()
    with pytest.raises(ConfigError):
        read_jwks(json.dumps({"keys": [entry | {"alg": "ES256"}]}).encode())


def test_a_setting_may_ask_for_the_newer_name(tmp_path: Path) -> None:
    """And gets it only for a key of Ed25519."""
    for name, private in (("ed", ED), ("ec", EC)):
        (tmp_path / name).write_bytes(pem(private))
    found = KeySet.parse(f"k1:Ed25519:file:{tmp_path / 'ed'}").signer
    assert found is not None and found.alg == "Ed25519"
    with pytest.raises(ConfigError, match="not for Ed25519"):
        KeySet.parse(f"k1:Ed25519:file:{tmp_path / 'ec'}")
