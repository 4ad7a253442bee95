"""The vault: keys in, keys out to their owners alone, and nothing of them anywhere else."""

from __future__ import annotations

import threading
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
    new_vault,
    overwrite,
    raw,
    refused,
    ring,
)
from runrails.credentials import (
    CredentialChanged,
    CredentialExists,
    CredentialId,
    CredentialNotFound,
    CredentialSuspended,
    Vault,
)
from runrails.credentials.records import REMOVED
from runrails.credentials.vault import CREDENTIALS_MAX, REMOVED_FOR_MS, REWRAP_PAUSE_MS, Rewrapped, Unreadable
from runrails.documents import DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.errors import CredentialError, RunrailsError, StoreUnavailable
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


def test_what_is_added_is_got(vault: Vault) -> None:
    """The key itself, and what may be told of it."""
    info = vault.add(ALICE, Secret(CANARY), base_url="https://gw.example/v1", region="eu-west-1")
    got = vault.get(ALICE)

    assert CANARY == got.secret.reveal()
    assert info == got.info == vault.peek(ALICE)
    assert [info] == vault.list("user:alice") == vault.list()
    assert ("RtXy0"[-4:], 1, "k1", START_MS, START_MS, "unverified", None, True) == (
        info.hint, info.version, info.key_id, info.created_ms, info.rotated_ms, info.status, info.checked_ms,
        info.readable,
    )  # fmt: skip
    assert ("https://gw.example/v1", "eu-west-1") == (info.base_url, info.region)


def test_what_is_not_there_is_an_error_of_its_own(vault: Vault) -> None:
    """For every verb that needs it; it names the key and the command that adds it."""
    vault.add(BOB, Secret(CANARY))
    for verb in (
        lambda: vault.get(ALICE), lambda: vault.rotate(ALICE, Secret(OTHER)), lambda: vault.mark(ALICE, "valid"),
        lambda: vault.resume(ALICE),
    ):  # fmt: skip
        with pytest.raises(CredentialNotFound) as caught:
            verb()
        assert "runrails byok add openai --owner user:alice" in caught.value.next_step
        assert ("user:alice", "openai", "default") == tuple(caught.value.fields.values())
    assert vault.peek(ALICE) is None
    assert vault.remove(ALICE) is False
    assert [] == vault.list("user:alice")


def test_a_key_is_added_once(vault: Vault) -> None:
    """A second one changes nothing; another label or provider is another key."""
    vault.add(ALICE, Secret(CANARY))
    with pytest.raises(CredentialExists, match="byok rotate"):
        vault.add(ALICE, Secret(OTHER))
    vault.add(CredentialId("user:alice", "openai", "work"), Secret(OTHER))
    vault.add(CredentialId("user:alice", "anthropic"), Secret(OTHER))

    assert (CANARY, 1) == (vault.get(ALICE).secret.reveal(), vault.get(ALICE).info.version)
    assert [("anthropic", "default"), ("openai", "default"), ("openai", "work")] == [
        (info.id.provider, info.id.label) for info in vault.list("user:alice")
    ]


def test_owners_of_one_name_are_different_owners(vault: Vault) -> None:
    """A user, an organisation and the platform never see each other's keys, whatever they are called."""
    owners = ["user:acme", "org:acme", "platform", "user:platform", "org:platform"]
    for count, owner in enumerate(owners):
        vault.add(CredentialId(owner, "openai"), Secret(f"{count}-{CANARY}"))
    for count, owner in enumerate(owners):
        assert f"{count}-{CANARY}" == vault.get(CredentialId(owner, "openai")).secret.reveal()
        assert [owner] == [info.id.owner for info in vault.list(owner)]
    assert sorted(owners) == [info.id.owner for info in vault.list()]


def test_a_rotated_key_is_another_one(vault: Vault, clock: ManualClock) -> None:
    """Base URL and region stay, what was known of the old one does not."""
    first = vault.add(ALICE, Secret(CANARY), base_url="https://gw.example/v1", region="eu-west-1")
    vault.mark(ALICE, "valid", START_MS + 1)
    clock.advance(5)
    second = vault.rotate(ALICE, Secret(OTHER))

    assert OTHER == vault.get(ALICE).secret.reveal()
    assert second == vault.peek(ALICE)
    assert (2, START_MS, START_MS + 5, "unverified", None, "https://gw.example/v1", "eu-west-1") == (
        second.version, second.created_ms, second.rotated_ms, second.status, second.checked_ms, second.base_url,
        second.region,
    )  # fmt: skip
    assert first.secret_id != second.secret_id
    third = vault.rotate(ALICE, Secret(CANARY), base_url="https://other.example", region="us-east-1")
    assert ("https://other.example", "us-east-1") == (third.base_url, third.region)


def test_a_removed_key_is_gone(vault: Vault, documents: DocumentStore, clock: ManualClock) -> None:
    """Nothing of it is left, sealed or not; it may be added anew, then and when its version is forgotten."""
    vault.add(ALICE, Secret(CANARY))
    vault.mark(ALICE, "invalid", START_MS)
    vault.get(ALICE)
    assert vault.remove(ALICE) is True
    assert 0 == len(vault._opened)
    assert vault.remove(ALICE) is False
    assert REMOVED == raw(documents).data
    assert ([], None) == (vault.list(), vault.peek(ALICE))
    with pytest.raises(CredentialNotFound):
        vault.get(ALICE)
    again = vault.add(ALICE, Secret(OTHER))
    assert (3, "unverified") == (again.version, again.status)
    vault.remove(ALICE)
    clock.advance(REMOVED_FOR_MS)
    assert documents.get(ALICE.address) is None
    assert 1 == vault.add(ALICE, Secret(OTHER)).version


@pytest.mark.parametrize("status", ["valid", "invalid", "unverified"])
def test_a_check_is_noted(vault: Vault, status: str) -> None:
    """With its time, for `get`, `peek` and `list`; the key itself is not written again."""
    vault.add(ALICE, Secret(CANARY))
    marked = vault.mark(ALICE, status, START_MS + 7)  # type: ignore[arg-type]

    assert (status, START_MS + 7, 1) == (marked.status, marked.checked_ms, marked.version)
    assert [marked] * 3 == [vault.get(ALICE).info, vault.peek(ALICE), *vault.list()]
    again = vault.mark(ALICE, "invalid")
    assert ("invalid", START_MS + 7) == (again.status, again.checked_ms)


def test_a_check_of_the_key_before_says_nothing_of_this_one(vault: Vault) -> None:
    """A slow check that ends after a rotation is not noted."""
    checked = vault.add(ALICE, Secret(CANARY))
    vault.rotate(ALICE, Secret(OTHER))
    after = vault.mark(ALICE, "invalid", START_MS, secret_id=checked.secret_id)

    assert "unverified" == after.status == vault.get(ALICE).info.status
    assert "suspended" != vault.mark(ALICE, "suspended", secret_id=checked.secret_id).status
    assert "invalid" == vault.mark(ALICE, "invalid", START_MS, secret_id=after.secret_id).status


def test_a_suspended_key_stays_so_until_it_is_resumed(vault: Vault) -> None:
    """Neither a check nor rotating, nor removing and adding, brings it back; nothing opens it meanwhile."""
    vault.add(ALICE, Secret(CANARY))
    assert "suspended" == vault.mark(ALICE, "suspended").status
    assert "suspended" == vault.mark(ALICE, "valid", START_MS).status
    assert "suspended" == vault.rotate(ALICE, Secret(OTHER)).status
    with pytest.raises(CredentialSuspended):
        vault.get(ALICE)
    vault.remove(ALICE)
    assert "suspended" == vault.add(ALICE, Secret(OTHER)).status
    with pytest.raises(CredentialSuspended):
        vault.get(ALICE)
    assert "unverified" == vault.resume(ALICE).status
    assert OTHER == vault.get(ALICE).secret.reveal()
    assert "valid" == vault.mark(ALICE, "valid").status
    assert "valid" == vault.resume(ALICE).status


def test_the_longest_names_fit(vault: Vault) -> None:
    """An owner of 128 characters with the longest provider and label."""
    for owner in ("user:" + "u" * 128, "org:" + "o" * 128, "platform"):
        which = CredentialId(owner, "p" * 32, "l" * 64)
        vault.add(which, Secret(CANARY))
        vault.mark(which, "valid")
        assert CANARY == vault.get(which).secret.reveal()
        assert [which] == [info.id for info in vault.list(owner)]


def test_how_large_and_how_many_is_limited(vault: Vault) -> None:
    """The largest key fits, a larger one does not; the last key of an owner fits, one more does not."""
    vault.add(ALICE, Secret("x" * 16_384))
    with pytest.raises(ValueError):
        vault.rotate(ALICE, Secret("x" * 16_385))
    assert "x" * 16_384 == vault.get(ALICE).secret.reveal()
    for count in range(CREDENTIALS_MAX - 1):
        vault.add(CredentialId("user:alice", "openai", f"l{count}"), Secret(CANARY))
    with pytest.raises(CredentialError, match="which is the most"):
        vault.add(CredentialId("user:alice", "openai", "more"), Secret(CANARY))
    vault.add(CredentialId("org:alice", "openai", "more"), Secret(CANARY))


@pytest.mark.parametrize(
    ("secret", "hint"),
    [(CANARY, "tXy0"), ("x" * 19, None), ("x" * 16 + "abcd", "abcd"), ("x" * 18 + "äb", None), (b"\xff" * 40, None),
     ("x" * 30 + "\n", None)],
)  # fmt: skip
def test_a_hint_is_four_characters_of_a_long_key(vault: Vault, secret: str | bytes, hint: str | None) -> None:
    """Never more, and none of a short one, or one that a terminal would obey."""
    assert hint == vault.add(ALICE, Secret(secret)).hint


def test_reading_seals_anew_with_the_active_key(documents: DocumentStore, clock: ManualClock) -> None:
    """Once; nothing else of the key changes, and the old master key may go."""
    old = new_vault(documents)
    old.add(ALICE, Secret(CANARY), base_url="https://gw.example/v1")
    old.mark(ALICE, "valid", START_MS)
    before = old.peek(ALICE)
    assert before is not None
    both = new_vault(documents, "k2", "k1")
    clock.advance(1_000)
    got = [both.get(ALICE) for _ in range(3)]

    assert [CANARY] * 3 == [each.secret.reveal() for each in got]
    assert [(2, "k2", "valid")] * 3 == [(each.info.version, each.info.key_id, each.info.status) for each in got]
    assert before.secret_id == got[0].info.secret_id
    assert (START_MS, START_MS) == (got[0].info.created_ms, got[0].info.rotated_ms)
    assert CANARY == new_vault(documents, "k2").get(ALICE).secret.reveal()
    assert "unknown_key" == refused(old)


def test_a_half_rotated_ring_reads_and_never_breaks(documents: DocumentStore) -> None:
    """A process that has the new key but seals with the old one leaves records as they are, of either key."""
    new_vault(documents).add(ALICE, Secret(CANARY))
    new_vault(documents, "k2", "k1").add(BOB, Secret(OTHER))
    first_step = new_vault(documents, "k1", "k2")

    assert (CANARY, OTHER) == (first_step.get(ALICE).secret.reveal(), first_step.get(BOB).secret.reveal())
    assert ("k1", "k1") == tuple(info.key_id for info in first_step.list())
    assert Rewrapped(0, 2, ()) == first_step.rewrap()
    assert Rewrapped(2, 0, ()) == new_vault(documents, "k2", "k1").rewrap()


def test_all_keys_are_sealed_anew_by_command(documents: DocumentStore) -> None:
    """Those of one owner or of all; what does not open stays as it is and is named, the rest goes on."""
    vault = new_vault(documents)
    for count in range(20):
        vault.add(CredentialId(f"user:u{count:02d}", "openai"), Secret(f"{count}-{CANARY}"))
    vault.mark(CredentialId("user:u07", "openai"), "suspended")
    broken = CredentialId("user:u05", "openai")
    overwrite(documents, b"noise", broken)
    lost = CredentialId("user:u06", "openai")
    overwrite(documents, raw(documents, CredentialId("user:u07", "openai")).data, lost)
    both = new_vault(documents, "k2", "k1")

    assert Rewrapped(1, 0, ()) == both.rewrap("user:u00")
    assert Rewrapped(0, 1, ()) == both.rewrap("user:u00")
    done = both.rewrap()
    assert (17, 1) == done[:2]
    assert (Unreadable(broken, "malformed"), Unreadable(lost, "wrong_key")) == done.unreadable
    assert b"noise" == raw(documents, broken).data
    assert "suspended" == both.list("user:u07")[0].status
    alone = new_vault(documents, "k2")
    assert "10-" + CANARY == alone.get(CredentialId("user:u10", "openai")).secret.reveal()
    # A record of an older key that is opened meanwhile is sealed once, not twice.
    assert (0, 18) == both.rewrap()[:2]


def test_sealing_anew_never_keeps_a_key_from_being_read(clock: ManualClock) -> None:
    """If it fails, or somebody else is quicker, the key is read all the same; it is not tried again for a minute."""
    documents = Interposed(MemoryDocuments(clock=clock))
    new_vault(documents).add(ALICE, Secret(CANARY))
    wrapper = CountingWrapper(ring("k2", "k1"))
    vault = Vault(documents, wrapper, clock=clock, monotonic=clock, cache_ms=0)

    def away() -> None:
        raise StoreUnavailable("Read only.", next_step="-")

    documents.before = [away]
    assert CANARY == vault.get(ALICE).secret.reveal()
    made = wrapper.made
    assert CANARY == vault.get(ALICE).secret.reveal()
    clock.advance(REWRAP_PAUSE_MS - 1)
    assert CANARY == vault.get(ALICE).secret.reveal()
    assert made == wrapper.made
    clock.advance(1)
    documents.before = [lambda: new_vault(documents.inner, "k2", "k1").rewrap()]
    for version in (1, 2):
        got = vault.get(ALICE)
        assert (CANARY, version) == (got.secret.reveal(), got.info.version)


@pytest.mark.parametrize(
    ("verb", "error"),
    [
        (lambda vault: vault.add(BOB, Secret(CANARY)), CredentialExists),
        (lambda vault: vault.rotate(ALICE, Secret(CANARY)), CredentialChanged),
    ],
)
def test_who_is_slower_is_told(verb: Callable[[Vault], object], error: type[RunrailsError], clock: ManualClock) -> None:
    """Somebody else writes between reading and writing: nothing of theirs is overwritten."""
    documents = Interposed(MemoryDocuments(clock=clock))
    other = new_vault(documents.inner)
    other.add(ALICE, Secret("before " + CANARY))

    def meanwhile() -> None:
        other.rotate(ALICE, Secret(OTHER))
        other.add(BOB, Secret(OTHER))

    documents.before = [meanwhile]
    with pytest.raises(error):
        verb(new_vault(documents))
    assert [OTHER, OTHER] == [other.get(which).secret.reveal() for which in (ALICE, BOB)]


def test_removing_and_marking_try_again(clock: ManualClock) -> None:
    """They do not depend on what was read; after eight times they give up."""
    documents = Interposed(MemoryDocuments(clock=clock))
    other, vault = new_vault(documents.inner), new_vault(documents)
    other.add(ALICE, Secret(CANARY))
    documents.before = [lambda: other.mark(ALICE, "valid", START_MS)] * 3
    assert "invalid" == vault.mark(ALICE, "invalid").status
    documents.before = [lambda: other.rotate(ALICE, Secret(OTHER))] * 3
    assert vault.remove(ALICE) is True
    other.add(ALICE, Secret(CANARY))
    documents.before = [lambda: other.rotate(ALICE, Secret(OTHER))] * 8
    with pytest.raises(CredentialChanged):
        vault.remove(ALICE)
    assert OTHER == other.get(ALICE).secret.reveal()


def test_an_opened_key_is_kept_for_a_minute(documents: DocumentStore, clock: ManualClock) -> None:
    """One opening, then none for sixty seconds, then one again."""
    wrapper = CountingWrapper()
    vault = Vault(documents, wrapper, clock=clock, monotonic=clock)
    vault.add(ALICE, Secret(CANARY))
    for _ in range(5):
        vault.get(ALICE)
    clock.advance(59_999)
    vault.get(ALICE)
    assert 1 == wrapper.unwrapped
    clock.advance(1)
    vault.get(ALICE)
    assert 2 == wrapper.unwrapped


@pytest.mark.parametrize(
    ("change", "others"),
    [
        (lambda vault: vault.rotate(ALICE, Secret(CANARY)), 0), (lambda vault: vault.mark(ALICE, "valid"), 0),
        (lambda vault: (vault.remove(ALICE), vault.add(ALICE, Secret(CANARY))), 0), (lambda vault: vault.close(), 1),
    ],
    ids=["rotate", "mark", "remove", "close"],
)  # fmt: skip
def test_changes_forget_the_opened_key(clock: ManualClock, change: Callable[[Vault], object], others: int) -> None:
    """The next look opens it anew; other keys stay in memory, but for closing."""
    wrapper = CountingWrapper()
    vault = Vault(MemoryDocuments(clock=clock), wrapper, clock=clock, monotonic=clock)
    for which in (ALICE, BOB):
        vault.add(which, Secret(CANARY))
        vault.get(which)
    change(vault)
    assert [BOB] * (1 - others) == [entry.id for entry in vault._opened._entries.values()]
    before = wrapper.unwrapped
    vault.get(ALICE)
    assert before + 1 == wrapper.unwrapped
    vault.get(BOB)
    assert before + 1 + others == wrapper.unwrapped


def test_no_more_opened_keys_than_allowed(clock: ManualClock) -> None:
    """The one that was used longest ago goes first; what is over goes with the next that comes."""
    wrapper = CountingWrapper()
    vault = Vault(MemoryDocuments(clock=clock), wrapper, clock=clock, monotonic=clock, cache_max=3)
    ids = [CredentialId("user:alice", "openai", f"l{count}") for count in range(4)]
    for which in ids:
        vault.add(which, Secret(CANARY))
    for which in (*ids[:3], ids[0], ids[3]):
        vault.get(which)
    assert (3, 4) == (len(vault._opened), wrapper.unwrapped)
    vault.get(ids[0])
    assert 4 == wrapper.unwrapped
    vault.get(ids[1])
    assert 5 == wrapper.unwrapped
    clock.advance(60_000)
    vault.get(ids[0])
    assert 1 == len(vault._opened)
    none = Vault(vault._documents, wrapper, clock=clock, cache_max=0)
    none.get(ids[0])
    assert 0 == len(none._opened)


def test_many_threads_use_one_vault(documents: DocumentStore) -> None:
    """Reading while keys are rotated, marked and sealed anew: always a key that was stored, and no other error."""
    keys = [f"{count}-{CANARY}" for count in range(4)]
    new_vault(documents).add(ALICE, Secret(keys[0]))
    vault, wrong = new_vault(documents, "k2", "k1", cache_max=2), list[object]()

    def work(number: int) -> None:
        for count in range(40):
            try:
                if number == 0:
                    vault.rotate(ALICE, Secret(keys[count % 4]))
                elif number == 1:
                    vault.mark(ALICE, "valid", START_MS)
                elif number == 2:
                    vault.rewrap()
                elif vault.get(ALICE).secret.reveal() not in keys:
                    wrong.append("another key")
            except CredentialChanged:
                pass
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong
