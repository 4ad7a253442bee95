"""One door for keys, tokens and AWS identities: the real verifiers behind one `Authenticator`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rr_jwt import NOW_MS, Desk, token
from rr_keys import make_keys, open_documents_of, with_secret
from runrails.documents.memory import MemoryDocuments
from runrails.identity.authenticate import Authenticator
from runrails.identity.errors import Forbidden, Unauthenticated
from runrails.identity.jwt import RemoteKeys
from runrails.identity.principal import Principal
from runrails.testing import ManualClock


def test_keys_and_tokens_come_in_by_one_door() -> None:
    """Each is proven by its own verifier, and what it proves may do what its scopes say."""
    keys, desk = make_keys(), Desk()
    info, secret = keys.create("alice", scopes={"ai:embed"})
    door = Authenticator(keys, desk.tokens, clock=desk.clock)
    by_key = door.authenticate([("x-api-key", secret.reveal())])
    by_token = door.authenticate([("authorization", f"Bearer {token()}")])
    assert (by_key.method, by_key.key_id, by_token.method) == ("api_key", info.id, "jwt")
    issued = desk.tokens.issue(replace(by_key, key_id=None), 60_000).reveal()
    again = door.authenticate([("authorization", f"Bearer {issued}")])
    assert (again.user, again.scopes, again.method) == ("alice", by_key.scopes, "jwt")
    with pytest.raises(Forbidden):
        door.enter([("authorization", f"Bearer {issued}")], "chat.complete")
    keys.close()


def test_their_refusals_cannot_be_told_apart() -> None:
    """A wrong key, a wrong token, and a kind that is not taken here: one answer."""
    keys, desk = make_keys(), Desk()
    wrong_key = with_secret(keys.create("alice", scopes=())[1].reveal(), "0" * 43)
    door = Authenticator(keys, desk.tokens)
    told: set[str] = set()
    for text in (wrong_key, token()[:-2], "runrails-aws-v1.x", "anything"):
        with pytest.raises(Unauthenticated) as caught:
            door.authenticate([("authorization", f"Bearer {text}")])
        told.add(f"{caught.value} {caught.value.as_dict()} {caught.value.http_status}")
    assert len(told) == 1


def test_who_is_known_comes_in_without_asking_anybody() -> None:
    """For an event loop: no read where it answers, and nobody comes in whom the store has taken back or time has."""
    clock = ManualClock(NOW_MS)
    documents = open_documents_of("memory", Path(), clock)
    keys, desk = make_keys(documents, clock=clock), Desk(documents=documents)
    door = Authenticator(keys, desk.tokens, clock=clock)
    info, secret = keys.create("alice", scopes=(), expires_ms=NOW_MS + 3_000)
    by_key, by_token = [("x-api-key", secret.reveal())], [("authorization", f"Bearer {token()}")]
    wrong = [("x-api-key", with_secret(secret.reveal(), "0" * 43))]
    documents.reads = 0
    assert [None] * 3 == [door.recall(each) for each in (by_key, by_token, wrong)]
    assert 0 == documents.reads
    known = [door.authenticate(by_key), door.authenticate(by_token)]
    keys.flush()
    documents.reads = 0
    assert known == [door.recall(by_key), door.recall(by_token)]
    for bad in ([("authorization", f"Bearer {token()[:-2]}")], [*by_key, *by_token], []):
        with pytest.raises(Unauthenticated):
            door.recall(bad)
    assert 0 == documents.reads
    clock.advance(3_000)
    assert door.recall(by_key) is None
    desk.clock.advance(4_999)
    assert door.recall(by_token) == known[1]
    desk.clock.advance(1)
    assert door.recall(by_token) is None
    door.authenticate(by_token)
    desk.tokens.revoke(known[1].session_id or "")
    assert door.recall(by_token) is None
    clock.advance(-3_000)
    keys.verify(secret.reveal())
    keys.revoke(info.id)
    assert door.recall(by_key) is None
    keys.close()


def test_a_door_says_whether_it_may_wait() -> None:
    """For a network, or for slow checks: of its parts, the slowest counts, and who does not say is taken for slow."""

    def check(password: bytes, hashed: bytes, /) -> bool:
        raise AssertionError(password, hashed)

    class Far(MemoryDocuments):
        remote = True

    near, far = make_keys(), make_keys(Far())
    assert [False, True, True] == [
        Authenticator(each).waits for each in (near, far, make_keys(legacy=True, check_hash=check))
    ]
    assert [False, True, True] == [
        Authenticator(near, each).waits
        for each in (Desk(documents=MemoryDocuments()).tokens, Desk(documents=Far()).tokens,
                     Desk(RemoteKeys("https://keys.example.com/"), documents=MemoryDocuments()).tokens)
    ]  # fmt: skip
    assert Authenticator(near, aws=near).waits is False
    assert Authenticator(near, aws=Silent()).waits
    remote = Desk(RemoteKeys("https://keys.example.com/"))
    assert Authenticator(tokens=remote.tokens).recall([("authorization", f"Bearer {token()}")]) is None
    assert Authenticator(aws=Silent()).recall([("authorization", "Bearer runrails-aws-v1.x")]) is None


class Silent:
    """Proves somebody, and says no more."""

    def verify(self, text: str, /) -> Principal:
        raise Unauthenticated("silent") from None
