"""One door for keys, tokens and AWS identities: the real verifiers behind one `Authenticator`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rr_jwt import Desk, token
from rr_keys import make_keys, with_secret
from runrails.identity.authenticate import Authenticator
from runrails.identity.errors import Forbidden, Unauthenticated


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
