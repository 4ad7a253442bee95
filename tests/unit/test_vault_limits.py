"""The edges of the vault's rules: the last that is good, the first that is not, and what its form alone refuses."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from rr_ledger import START_MS
from rr_vault import ALICE, BOB, CANARY, CountingWrapper, Interposed, master, new_vault, ring
from runrails.credentials import Context, CredentialId, CredentialUnreadable, DataKey, KeyRing, Vault, primitives
from runrails.credentials import vault as vaults
from runrails.credentials.cache import Opened
from runrails.credentials.envelope import KEY_ID_BYTES_MAX, MAGIC, WRAPPED_BYTES_MAX, key_id_of, open_, seal
from runrails.credentials.opening import open_wrapper
from runrails.credentials.records import Record, StatusRecord, check_base_url
from runrails.documents import Address, check_address, check_write
from runrails.documents.memory import MemoryDocuments
from runrails.documents.opening import open_documents
from runrails.errors import ConfigError
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

CONTEXT = ALICE.context(1, b"{}")
TIME_MS_MAX = 2**53


class Named(CountingWrapper):
    """A wrapper whose data keys have a name and a wrapping of one's choice."""

    def __init__(self, key_id: str, wrapped: bytes) -> None:
        super().__init__()
        self.key = DataKey(Secret(b"\x81" * 32), wrapped, key_id)

    def knows(self, key_id: str) -> bool:
        """Its own."""
        return key_id == self.key.key_id

    def new_data_key(self, context: Context) -> DataKey:
        """Always the same."""
        return self.key

    def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
        """The same again."""
        return self.key.plain


def test_what_is_not_kept_is_not_in_memory() -> None:
    """A cache whose entries are over at once holds no key until the next one comes."""
    cache = Opened(ttl_ms=0, count_max=10, monotonic=ManualClock(0))
    cache.keep(b"1", ALICE, Secret(CANARY))
    assert 0 == len(cache)


def test_the_longest_names_and_wrappings_seal_and_open() -> None:
    """One more of either is none that a wrapper may give."""
    longest = Named("k" * KEY_ID_BYTES_MAX, b"w" * WRAPPED_BYTES_MAX)
    assert CANARY == open_(seal(Secret(CANARY), CONTEXT, longest), CONTEXT, longest).reveal()
    for over in (Named("k" * (KEY_ID_BYTES_MAX + 1), b"w"), Named("k", b"w" * (WRAPPED_BYTES_MAX + 1))):
        with pytest.raises(CredentialUnreadable):
            seal(Secret(CANARY), CONTEXT, over)


def test_an_envelope_has_a_name_a_wrapping_and_at_least_a_byte() -> None:
    """Without one of them it is no envelope: nobody is asked for a key without a name."""
    rest = bytes(32 + 12 + 16 + 1)
    assert "k" == key_id_of(MAGIC + b"\x01k" + b"\x00\x01w" + rest)
    for blob in (
        MAGIC + b"\x00" + b"\x00\x01w" + rest,
        MAGIC + b"\x01k" + b"\x00\x00" + rest,
        MAGIC + b"\x01k" + b"\x00\x01w" + rest[:-1],
    ):
        assert key_id_of(blob) is None


def test_a_nonce_of_another_size_seals_nothing() -> None:
    """Whatever draws it."""
    with pytest.raises(ValueError, match="nonce"):
        seal(Secret(CANARY), CONTEXT, ring(), random=lambda size: b"\x00" * (size + 1))
    with pytest.raises(ValueError, match="nonce"):
        primitives.decrypt(primitives.aead(bytes(32)), bytes(13), bytes(17), b"")


@pytest.mark.parametrize("setting", ["", " "])
def test_without_a_master_key_the_error_says_how_to_make_one(setting: str) -> None:
    """Rather than that an empty setting is malformed."""
    with pytest.raises(ConfigError, match="No master key is set"):
        open_wrapper(setting)


def test_a_record_without_an_envelope_is_none() -> None:
    """A document that ends with its public part was cut."""
    public = new_vault().add(ALICE, Secret(CANARY))
    text = json.dumps(
        {
            "created_ms": public.created_ms, "rotated_ms": public.rotated_ms, "secret_id": public.secret_id,
            "hint": None, "base_url": None, "region": None,
        }
    ).encode()  # fmt: skip
    assert Record.parse(Record.encode(text, b"")) is None
    assert Record.parse(Record.encode(text, b"e")) is not None


def test_no_check_was_at_a_time_that_cannot_be() -> None:
    """A status that says so is damaged, which may have been a suspension."""
    for checked_ms, status in ((0, "valid"), (TIME_MS_MAX - 1, "valid"), (TIME_MS_MAX, "suspended"), (-1, "suspended")):
        told = StatusRecord.parse(StatusRecord("valid", checked_ms, "s").encoded())
        assert (status, checked_ms) == (told.status, told.checked_ms if status == "valid" else checked_ms)


def test_the_longest_base_url_is_one() -> None:
    """1,024 characters, and not one more."""
    url = "https://gw.example/" + "v" * (1_024 - 19)
    assert url == check_base_url(url)
    with pytest.raises(ValueError, match="base URL"):
        check_base_url(url + "v")


@pytest.mark.parametrize("size", [16, 31, 33, 48])
def test_a_master_key_of_another_size_is_refused_for_that(size: int) -> None:
    """Not for looking like a pass phrase, and not by the cipher."""
    key = bytes(range(200, 200 + 48))[:size]
    with pytest.raises(ConfigError, match="is not 32 random bytes"):
        KeyRing("k1", {"k1": Secret(base64.b64encode(key))})


@pytest.mark.parametrize("phrase", [b"q7Zp0Wm4Xc9Vn2Bk 8Lj5Hg1Fd6Sa3Ty", b"~!@#$%^&*()_+{}|:<>?~abcdefghijk"])
def test_a_pass_phrase_is_no_master_key(phrase: bytes) -> None:
    """With blanks as well as with the last character that can be typed."""
    assert 32 == len(phrase)
    with pytest.raises(ConfigError, match="pass phrase"):
        KeyRing("k1", {"k1": Secret(phrase)})


def test_one_byte_that_nobody_types_makes_a_key() -> None:
    """What cannot be typed was not thought up."""
    assert "k1" == KeyRing("k1", {"k1": Secret(master().reveal_bytes())}).active
    assert "k1" == KeyRing("k1", {"k1": Secret(b"q7Zp0Wm4Xc9Vn2Bk8Lj5Hg1Fd6Sa3Ty\x7f")}).active


@pytest.mark.parametrize("setting", ["Not_A_Name:env:GONE", "sk-verysecretvalue-0123456789-0123456789:env:GONE"])
def test_a_wrong_name_of_a_key_is_told_before_anything_is_looked_up(setting: str) -> None:
    """It may be the key itself, at the wrong place: no message has it."""
    with pytest.raises(ConfigError, match="A master key's name") as caught:
        KeyRing.parse(setting)
    assert setting.partition(":")[0] not in str(caught.value)


@pytest.mark.parametrize("setting", ["k1", "k1:", ""])
def test_a_key_without_a_reference_is_malformed(setting: str) -> None:
    """And the setting is named, not what stands in it."""
    with pytest.raises(ConfigError, match="is malformed"):
        KeyRing.parse(setting)


@pytest.mark.parametrize("kind", [b"credential", None, 7])
def test_a_kind_that_is_no_text_is_refused_as_malformed(kind: Any) -> None:
    """Callers without types exist."""
    with pytest.raises(ValueError, match="kind"):
        check_address(Address(kind, "alice", "openai"))


def test_nothing_expires_at_a_time_that_cannot_be() -> None:
    """The first moment is that of the epoch, the last one before what fits a double."""
    address = Address("credential", "alice", "openai")
    for moment_ms in (0, TIME_MS_MAX - 1):
        check_write(address, b"", 0, moment_ms)
    with pytest.raises(ValueError, match="expires"):
        check_write(address, b"", 0, TIME_MS_MAX)


def test_memory_forgets_what_has_expired() -> None:
    """Not only to who asks for it: it is not there any more."""
    clock = ManualClock(START_MS)
    documents = MemoryDocuments(clock=clock)
    for number in range(10):
        documents.put(Address("proof", "any", f"n{number}"), b"1", expected=0, expires_ms=START_MS + 1)
    clock.advance(1)
    for number in range(3_000):
        documents.put(Address("proof", "any", "same"), b"2", expected=number)
    assert 1 == len(documents._documents)


@pytest.mark.parametrize("url", ["sqlite", "postgres:///x.db", "memory", ":", "sqlit:///x.db"])
def test_no_other_word_opens_a_vault(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a scheme alone nor one that is not known makes a file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="No vault is called"):
        open_documents(url)
    assert [] == list(tmp_path.iterdir())


def test_a_user_and_an_organisation_of_one_name_have_statuses_of_their_own() -> None:
    """Listing one owner's keys shows nothing of another's."""
    vault: Vault = new_vault()
    org = CredentialId("org:alice", "openai")
    vault.add(ALICE, Secret(CANARY))
    vault.add(org, Secret(CANARY))
    vault.mark(org, "suspended", START_MS)
    assert ["unverified"] == [info.status for info in vault.list("user:alice")]
    assert ["suspended"] == [info.status for info in vault.list("org:alice")]


def test_a_key_that_is_removed_meanwhile_needs_no_sealing() -> None:
    """It is neither unreadable nor in anybody's way."""
    documents = Interposed(MemoryDocuments(clock=ManualClock(START_MS)))
    new_vault(documents, "k1").add(ALICE, Secret(CANARY))
    other = new_vault(documents.inner, "k1")
    documents.before = [lambda: other.remove(ALICE)]
    done = new_vault(documents, "k2", "k1").rewrap()
    assert (0, (), ()) == (done.renewed, done.unreadable, done.contended)
    assert [] == documents.before


def test_what_was_sealed_anew_is_remembered_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys there are."""
    monkeypatch.setattr(vaults, "REWRAPPED_MAX", 1)
    documents = MemoryDocuments(clock=ManualClock(START_MS))
    for which in (ALICE, BOB):
        new_vault(documents, "k1").add(which, Secret(CANARY))
    vault = new_vault(documents, "k2", "k1")
    assert {"k2"} == {vault.get(which).info.key_id for which in (ALICE, BOB)}
    assert 1 == len(vault._rewrapped_once)
