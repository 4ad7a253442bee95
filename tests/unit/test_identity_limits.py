"""The edges of keys, peppers and tokens: what its form alone refuses, and the last that is good."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from rr_jwt import EC, ED, SECRETS, Desk, b64, claims, drawn, pem, token
from rr_keys import PEPPERS, START_MS, CountingDocuments, make_keys
from runrails.documents.memory import MemoryDocuments
from runrails.egress import EgressFailed
from runrails.errors import ConfigError
from runrails.identity.apikeys import Peppers, used
from runrails.identity.apikeys.making import Terms, made
from runrails.identity.apikeys.opening import peppers_of_environment
from runrails.identity.apikeys.records import ApiKeyRecord, decode, encode
from runrails.identity.apikeys.used import EVERY_MS, KEPT_MAX, LastUsed
from runrails.identity.jwt import Key, KeySet, RemoteKeys, Tokens, keyset
from runrails.identity.jwt.jwk import read_jwks
from runrails.identity.jwt.keyset import KEYS_MAX, is_algorithm, load_key
from runrails.identity.jwt.revocation import Revocations
from runrails.identity.principal import Principal
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

RECORD = made(
    Terms(user="alice", scopes=("ai:complete",), name="x"), key_id="k" * 16, environment="live",
    kept=PEPPERS.hash("text"), now_ms=START_MS,
)  # fmt: skip


@pytest.mark.parametrize("setting", ["Not_A_Name:env:GONE", "a secret:env:GONE", "vM3kq0hT9sJx2bYcW7nLdRf5ZgUaEoPi"])
def test_a_wrong_name_of_a_pepper_is_told_before_anything_is_looked_up(setting: str) -> None:
    """It may be the pepper itself: no message has it."""
    with pytest.raises(ConfigError, match="is malformed, or names one twice") as caught:
        Peppers.parse(setting)
    assert setting.partition(":")[0] not in str(caught.value)


def test_a_change_of_one_key_leaves_others_known() -> None:
    """Whoever suspends theirs does not make everybody ask the store again."""
    clock = ManualClock(START_MS)
    documents = CountingDocuments(MemoryDocuments(clock=clock))
    keys = make_keys(documents, clock=clock)
    first, (_, other) = keys.create("alice", scopes={"ai:complete"})[0], keys.create("bob", scopes={"ai:complete"})
    keys.verify(other.reveal())
    keys.flush()
    keys.suspend(first.id)
    documents.reads = 0
    assert "bob" == keys.verify(other.reveal()).user
    assert 0 == documents.reads


def test_the_longest_hash_is_kept() -> None:
    """128 characters, and not one more."""
    assert 128 == len(ApiKeyRecord(info=RECORD.info, hash="h" * 128).hash)
    for wrong in ("h" * 129, "", "\u0131" * 8):
        with pytest.raises(ValueError, match="hash is malformed"):
            ApiKeyRecord(info=RECORD.info, hash=wrong)


@pytest.mark.parametrize("name", [7, None, b"name", ["n"]])
def test_a_name_that_is_no_text_is_refused_as_malformed(name: Any) -> None:
    """Callers without types exist."""
    with pytest.raises(ValueError, match="name must be printable text"):
        ApiKeyRecord(info=replace(RECORD.info, name=name), hash="h")


def test_when_a_key_was_used_is_no_part_of_its_record() -> None:
    """It is kept beside it, so that using a key never changes what proves it."""
    used = replace(RECORD, info=replace(RECORD.info, last_used_ms=START_MS))
    assert encode(RECORD, PEPPERS) == encode(used, PEPPERS)


@pytest.mark.parametrize("change", [{"hash": 7}, {"scopes": ["all"]}, {"new": 1}, {"user": None}, {"rates": {"x": 1}}])
def test_an_authentic_record_of_another_version_is_none(change: dict[str, Any]) -> None:
    """Written with our pepper, and not by this version: the key is refused, and nothing crashes."""
    magic, pepper_id, _, body = encode(RECORD, PEPPERS).split(b" ", 3)
    other = json.dumps({**json.loads(body), **change}).encode()
    tag = PEPPERS.authenticate(pepper_id.decode(), other)
    assert tag is not None
    assert decode(b" ".join((magic, pepper_id, tag, other)), RECORD.info.id, PEPPERS) is None


def published(count: int) -> bytes:
    """A set of so many keys."""
    keys = [ed25519.Ed25519PrivateKey.from_private_bytes(drawn(f"set {n}")).public_key() for n in range(count)]
    listed = [
        {"kid": f"k{n}", "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": b64(key.public_bytes_raw())}
        for n, key in enumerate(keys)
    ]
    return json.dumps({"keys": listed}).encode()


def test_the_largest_published_set_is_read() -> None:
    """32 keys, and not one more."""
    assert read_jwks(published(KEYS_MAX)).find(f"k{KEYS_MAX - 1}") is not None
    with pytest.raises(ConfigError, match=f"more than {KEYS_MAX} keys"):
        read_jwks(published(KEYS_MAX + 1))


@pytest.mark.parametrize("alg", [["EdDSA"], {"EdDSA": 1}, 7, None, "none", "EdDSA "])
def test_only_a_word_is_an_algorithm(alg: Any) -> None:
    """What cannot be one is none, and a published key that names it is nobody's."""
    assert not is_algorithm(alg)
    entry = {**json.loads(published(1))["keys"][0], "alg": alg}
    with pytest.raises(ConfigError, match="has no key for"):
        read_jwks(json.dumps({"keys": [entry]}).encode())


def test_a_wrong_id_of_a_shared_secret_is_told_first() -> None:
    """It may be the secret itself: neither that two are equal nor that one is weak is said with it."""
    weak = {"not an id": Secret(b"x"), "other": Secret(b"x")}
    with pytest.raises(ConfigError) as caught:
        KeySet.shared(weak)
    assert "not an id" not in str(caught.value)


def test_a_token_with_every_claim_is_taken() -> None:
    """Also with those that need not be there."""
    full = claims(org="acme", nbf=claims()["iat"])
    found = Desk().tokens.verify(token(body=full))
    assert ("worker-7", "acme") == (found.user, found.org)


def test_no_token_is_made_with_an_id_that_is_none() -> None:
    """It could never be taken back by it."""
    tokens = Tokens(
        KeySet.shared({"hs1": Secret(SECRETS["hs1"])}), "https://a.example", "b",
        documents=MemoryDocuments(), make_id=lambda: "not an id",
    )  # fmt: skip
    with pytest.raises(ValueError, match="A token's id"):
        tokens.issue(Principal(user="alice", scopes=frozenset({"ai:complete"}), method="local"))


def test_no_more_uses_are_remembered_than_there_is_room_for() -> None:
    """Of 10,000 keys; the one that was used longest ago is forgotten, and only costs a look at the store."""
    noted = LastUsed(MemoryDocuments(clock=ManualClock(START_MS)))
    for number in range(KEPT_MAX + 1):
        noted.note(f"key-{number}", START_MS)
    noted.flush()
    assert KEPT_MAX == len(noted._noted)
    assert "key-0" not in noted._noted


class Ending(MemoryDocuments):
    """Ends the thread that writes first."""

    ends = 1

    def put(self, *args: Any, **options: Any) -> Any:
        """Once it does."""
        self.ends -= 1
        if self.ends >= 0:
            raise SystemExit
        return super().put(*args, **options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_followed_by_another() -> None:
    """Whatever ended it: the next use is written."""
    noted = LastUsed(Ending(clock=ManualClock(START_MS)))
    noted.note("key-1", START_MS)
    writer = noted._writer
    assert writer is None or writer.join(5) is None
    noted.note("key-2", START_MS)
    writer = noted._writer
    assert writer is None or writer.join(5) is None
    assert START_MS == noted.read_ms("key-2")


def test_without_a_thread_uses_are_written_when_they_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no more of them goes on, and writes what waits before it ends."""

    class None_(Thread):  # noqa: N801 -- there is none
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(used, "Thread", None_)
    noted = LastUsed(MemoryDocuments(clock=ManualClock(START_MS)))
    noted.note("key-1", START_MS)
    assert noted.read_ms("key-1") is None
    noted.flush()
    assert START_MS == noted.read_ms("key-1")


def test_the_other_minute_begins_after_sixty_seconds() -> None:
    """A use is written at once, not again within the minute, and again when it is over or the clock was set back."""
    documents = CountingDocuments(MemoryDocuments(clock=ManualClock(START_MS)))
    noted = LastUsed(documents)
    for now_ms, writes in ((0, 1), (0, 1), (EVERY_MS - 1, 1), (EVERY_MS, 2), (EVERY_MS - 1, 3)):
        noted.note("key-1", START_MS + now_ms)
        noted.flush()
        assert writes == documents.writes
    other = LastUsed(documents)
    other.note("key-1", START_MS + 2 * EVERY_MS - 2)  # written by another process within the minute
    other.flush()
    assert 3 == documents.writes
    other.note("key-1", START_MS + 3 * EVERY_MS)
    other.flush()
    assert 4 == documents.writes


def test_what_is_recalled_ends_when_the_key_does() -> None:
    """To the millisecond, within the five seconds for which the answer is known."""
    clock = ManualClock(START_MS)
    keys = make_keys(clock=clock)
    text = keys.create("alice", scopes={"ai:complete"}, expires_ms=START_MS + 1_000)[1].reveal()
    lasting = keys.create("bob", scopes={"ai:complete"})[1].reveal()
    assert [None, None] == [keys.recall(text), keys.recall(lasting)]
    known = [keys.verify(text), keys.verify(lasting)]
    clock.advance(999)
    assert known == [keys.recall(text), keys.recall(lasting)]
    clock.advance(1)
    assert [None, known[1]] == [keys.recall(text), keys.recall(lasting)]


@pytest.mark.parametrize(
    "key",
    [
        Key("not an id", "HS256", Secret(SECRETS["hs1"])),
        Key("k1", "HS256", Secret(b"short")),
        Key("k1", "HS256", ED.public_key()),
        Key("k1", "EdDSA", EC.public_key()),
        Key("k1", "EdDSA", Secret(SECRETS["hs1"])),
        Key("k1", "EdDSA", ed448.Ed448PrivateKey.from_private_bytes(bytes(57)).public_key()),  # type: ignore[arg-type]
        Key("k1", "ES256", ec.derive_private_key(7, ec.SECP384R1()).public_key()),
        Key("k1", "ES256", ED.public_key()),
        Key("k1", "none", Secret(SECRETS["hs1"])),  # type: ignore[arg-type]
    ],
    ids=["id", "weak", "public as shared", "P-256", "shared as public", "Ed448", "P-384", "Ed25519", "none"],
)
def test_a_key_that_was_put_together_by_hand_must_fit(key: Key) -> None:
    """Whoever makes it, and not only what a setting says."""
    with pytest.raises(ConfigError):
        KeySet([key])


@pytest.mark.parametrize(("alg", "private"), [("ES256", ED), ("EdDSA", EC), ("Ed25519", EC)])
def test_a_setting_with_the_wrong_key_is_named(alg: str, private: Any) -> None:
    """Which of them it is, and for what it is not."""
    with pytest.raises(ConfigError, match=f"The key in RUNRAILS_X is not for {alg}"):
        load_key("k1", alg, Secret(pem(private)), what="RUNRAILS_X")


def test_without_pyjwt_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that a token is none of ours."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.setattr(keyset, "_engines", {})
    with pytest.raises(ConfigError, match="need PyJWT"):
        Desk().tokens.verify(token())


def test_keys_that_never_came_are_none() -> None:
    """Also where so much time went by meanwhile that they may be asked for again: nobody is let in, nothing crashes."""
    clock = ManualClock(0)

    def fetch(url: str, /) -> Any:
        clock.advance(120_000)
        raise EgressFailed("timeout", host="keys.example.com")

    assert RemoteKeys("https://keys.example.com/jwks.json", fetch=fetch, clock=clock).find("k1") is None


class Meanwhile(MemoryDocuments):
    """Something happens while it is asked."""

    happens: Any = None

    def get(self, address: Any) -> Any:
        """What is there, as of before."""
        found = super().get(address)
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        return found


def test_what_is_revoked_while_the_store_is_asked_is_not_known_to_be_good() -> None:
    """The answer is of before: the next question asks again."""
    documents = Meanwhile(clock=ManualClock(START_MS))
    revocations = Revocations(documents, clock=ManualClock(START_MS), monotonic=ManualClock(0))
    documents.happens = lambda: revocations.revoke("token-1")
    assert not revocations.has("token-1")
    assert not revocations.is_known_good("token-1")
    assert revocations.has("token-1")


def test_both_clocks_must_find_an_answer_young() -> None:
    """One that stands still does not make a revoked token live longer; with no time nothing is believed."""
    for advancing in range(2):
        clocks = [ManualClock(START_MS), ManualClock(0)]
        documents = CountingDocuments(MemoryDocuments(clock=clocks[0]))
        revocations = Revocations(documents, clock=clocks[0], monotonic=clocks[1])
        assert not revocations.has("token-1")
        clocks[advancing].advance(4_999)
        assert revocations.is_known_good("token-1")
        assert (False, 1) == (revocations.has("token-1"), documents.reads)
        clocks[advancing].advance(1)
        assert not revocations.is_known_good("token-1")
        assert (False, 2) == (revocations.has("token-1"), documents.reads)
    never = Revocations(documents, clock=clocks[0], monotonic=clocks[1], cache_ms=0)
    assert (False, False) == (never.has("token-1"), never.is_known_good("token-1"))


def test_only_a_tokens_own_id_is_passed_on() -> None:
    """The session of another way in is not the id of the token that is made for it."""
    tokens = Desk().tokens
    for method, same in (("jwt", True), ("aws", False), ("local", False)):
        who = Principal(
            user="alice", scopes=frozenset({"ai:complete"}), method=method, session_id="session-of-alice"  # type: ignore[arg-type]
        )  # fmt: skip
        found = tokens.verify(tokens.issue(who).reveal())
        assert same is (found.session_id == "session-of-alice")


def test_tokens_wait_for_a_network_if_their_keys_or_revocations_do() -> None:
    """Only what is all on this machine may be asked on an event loop."""
    near, far = MemoryDocuments(), CountingDocuments(MemoryDocuments())
    far.remote = True
    shared = KeySet.shared({"hs1": Secret(SECRETS["hs1"])})
    published = RemoteKeys("https://keys.example.com/jwks.json")
    made = [Tokens(keys, "a", "b", documents=each) for keys in (shared, published) for each in (near, far)]
    assert [False, True, True, True] == [each.waits for each in made]


def test_a_key_that_is_loaded_is_checked_where_its_setting_is_known() -> None:
    """So that the error names the setting; a set of keys would look at them again, and not know it."""
    with pytest.raises(ConfigError, match="key's id must be"):
        load_key("not an id", "HS256", Secret(SECRETS["hs1"]), what="RUNRAILS_X")
    for weak in (b"short", b"-----BEGIN PUBLIC KEY-----" + SECRETS["hs1"]):
        with pytest.raises(ConfigError, match="RUNRAILS_X"):
            load_key("k1", "HS256", Secret(weak), what="RUNRAILS_X")


def test_without_a_pepper_the_error_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that an empty setting is malformed."""
    for setting in ("", "  "):
        monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", setting)
        with pytest.raises(ConfigError, match="names none"):
            peppers_of_environment()


def test_a_use_within_the_minute_asks_nobody() -> None:
    """It is on the way of every request: neither the store nor another thread has to do with it."""
    documents = CountingDocuments(MemoryDocuments(clock=ManualClock(START_MS)))
    noted = LastUsed(documents)
    noted.note("key-1", START_MS)
    noted.flush()
    before = documents.reads
    for later_ms in (0, 1, EVERY_MS - 1):
        noted.note("key-1", START_MS + later_ms)
    noted.flush()
    assert before == documents.reads
