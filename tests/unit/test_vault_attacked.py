"""The vault and the router under attack: rings that are half rotated, writers that meet, forks, clocks that jump."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from rr_ledger import START_MS
from rr_vault import ALICE, BOB, CANARY, OTHER, Interposed, new_vault
from runrails.attribution import Attribution
from runrails.calls import ModelCall
from runrails.credentials import CredentialId, Vault
from runrails.credentials.revalidation import Revalidator
from runrails.credentials.router import Router
from runrails.credentials.validation import Validation
from runrails.documents.memory import MemoryDocuments
from runrails.keyroutes import KeyPlace
from runrails.secretvalue import Secret
from runrails.testing import ManualClock
from runrails_aws.kms import KMSWrapper

ARN = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
CALL = ModelCall(model="m", place=KeyPlace("openai", None))


def in_a_fork(act: Callable[[], object]) -> int:
    """How a forked child ends that does this: 0 if it comes to its end in five seconds."""
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        try:
            act()
        except BaseException:  # a child of a test must never go on as the test
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_two_orders_of_one_ring_do_not_fight() -> None:
    """While half of the processes have the new key first, each seals a record anew once, and not at every look."""
    documents = MemoryDocuments()
    new, old = new_vault(documents, "k2", "k1"), new_vault(documents, "k1", "k2")
    old.add(ALICE, Secret(CANARY))
    versions = [vault.get(ALICE).info.version for _ in range(10) for vault in (new, old)]
    assert versions[-1] <= 3
    assert [CANARY] * 2 == [vault.get(ALICE).secret.reveal() for vault in (new, old)]


def test_sealing_all_anew_is_not_done_while_one_is_sealed_with_an_older_key() -> None:
    """Somebody with the old ring replaces a key at that moment: it is looked at again, as the old key will be gone."""
    documents = Interposed(MemoryDocuments())
    old, new = new_vault(documents.inner, "k1"), new_vault(documents, "k2", "k1")
    old.add(ALICE, Secret(CANARY))
    documents.before = [lambda: old.rotate(ALICE, Secret(OTHER))] * 3
    done = new.rewrap()
    assert (1, 0, (), ()) == done
    assert OTHER == new_vault(documents.inner, "k2").get(ALICE).secret.reveal()


def test_what_is_never_left_alone_is_named() -> None:
    """After eight times it is given up, and is no success; what is removed meanwhile needs nothing."""
    documents = Interposed(MemoryDocuments())
    old, new = new_vault(documents.inner, "k1"), new_vault(documents, "k2", "k1")
    old.add(ALICE, Secret(CANARY))
    old.add(BOB, Secret(CANARY))
    documents.before = [lambda: old.rotate(ALICE, Secret(OTHER))] * 8
    assert (1, 0, (), (ALICE,)) == new.rewrap()
    documents.before = [lambda: old.remove(ALICE)]
    assert (0, 2, (), ()) == new.rewrap()


def test_a_half_done_rewrap_goes_on_where_it_was() -> None:
    """The store went away in between: what is done stays, the rest is done the next time."""
    from runrails.errors import StoreUnavailable

    documents = Interposed(MemoryDocuments())
    old, new = new_vault(documents.inner, "k1"), new_vault(documents, "k2", "k1")
    for owner in ("alice", "bob", "carol"):
        old.add(CredentialId(f"user:{owner}", "openai"), Secret(CANARY))

    def away() -> None:
        raise StoreUnavailable("Away.", next_step="-")

    documents.before = [lambda: None, away]
    with pytest.raises(StoreUnavailable):
        new.rewrap()
    assert (2, 1, (), ()) == new.rewrap()
    assert ["k2"] * 3 == [info.key_id for info in new_vault(documents.inner, "k2").list()]


def test_a_router_keeps_no_key_longer_than_it_believes_it() -> None:
    """Not even if nobody asks for that one again."""
    clock = ManualClock(START_MS)
    vault = new_vault()
    for owner in (ALICE, BOB):
        vault.add(owner, Secret(CANARY))
    router = Router(vault, monotonic=clock)
    assert router.route(CALL, Attribution(user="alice")).byok
    clock.advance(5_000)
    assert router.route(CALL, Attribution(user="bob")).byok
    assert [BOB] == list(router._known)
    nothing = Router(vault, fresh_ms=0)
    assert nothing.route(CALL, Attribution(user="bob")).byok
    assert {} == nothing._known


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("what", ["router", "vault", "kms", "documents"])
def test_a_fork_is_not_held_up_by_the_parents_threads(what: str) -> None:
    """One of them was in the middle of something: in the child it never ends."""
    documents = MemoryDocuments()
    vault = new_vault(documents)
    vault.add(ALICE, Secret(CANARY))
    router = Router(vault)
    wrapper = KMSWrapper(ARN)
    lock: Any = {"router": router, "vault": vault._opened, "kms": wrapper, "documents": documents}[what]

    def ask_again() -> None:
        assert wrapper._lock.acquire(timeout=1)

    act: Callable[[], object] = {
        "router": lambda: router.route(CALL, Attribution(user="alice")), "vault": lambda: vault.get(ALICE),
        "kms": ask_again, "documents": lambda: documents.get(ALICE.address),
    }[what]  # fmt: skip
    with lock._lock:
        assert 0 == in_a_fork(act)


class _Valid:
    """Says that every key is good, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def validate(self, credential: object) -> Validation:
        """It is."""
        del credential
        self.count += 1
        return Validation("valid", "accepted")


def test_a_clock_that_was_ahead_does_not_end_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock was years ahead has noted a check of the future: it is checked all the same."""
    monkeypatch.setattr("runrails.credentials.revalidation._PAUSE_S", 0)
    vault: Vault = new_vault()
    vault.add(ALICE, Secret(CANARY))
    vault.mark(ALICE, "valid", START_MS + 10**11)
    clock, says = ManualClock(START_MS), _Valid()
    checker = Revalidator(vault, says, every_ms=1_000, clock=clock)
    assert 1 == len(checker.round())
    assert [] == checker.round()
    info = vault.peek(ALICE)
    assert info is not None
    assert START_MS == info.checked_ms


def test_a_bug_of_a_check_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next round asks again."""
    import threading

    monkeypatch.setattr("runrails.credentials.revalidation.ROUND_MS", 1)
    vault = new_vault()
    vault.add(ALICE, Secret(CANARY))
    again = threading.Event()

    class Failing(_Valid):
        def validate(self, credential: object) -> Validation:
            if self.count:
                again.set()
            super().validate(credential)
            raise KeyError("a bug")

    with Revalidator(vault, Failing(), every_ms=0):
        assert again.wait(10)
