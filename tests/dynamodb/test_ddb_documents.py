"""Documents on DynamoDB under faults: a lost answer is known again, and time is the server's."""

from __future__ import annotations

import pytest

from rr_documents import ALICE, open_dynamodb_documents
from rr_dynamo import Fate, FaultyClient, needs_server, new_table, shared_client
from rr_ledger import START_MS
from rr_vault import ALICE as KEY
from rr_vault import CANARY, new_vault
from runrails.clocks import system_ms
from runrails.credentials import CredentialUnreadable
from runrails.documents import Document
from runrails.errors import StoreUnavailable
from runrails.secretvalue import Secret
from runrails.testing import ManualClock
from runrails_aws.dynamodb.calling import Patience

pytestmark = needs_server


def lost(*fates: Fate) -> FaultyClient:
    """A client whose writes meet these fates one after the other, and then work."""
    return FaultyClient(lambda _, count: fates[count] if count < len(fates) else "ok", reads=False)


@pytest.mark.parametrize("fate", ["response_lost", "request_lost", "throttled"])
def test_a_verb_knows_itself_again(fate: Fate) -> None:
    """Put, replaced and removed once each, although the first answer to each never came."""
    table, clock = new_table(), ManualClock(START_MS)
    for verb, answer in (
        (lambda it: it.put(ALICE, b"a", expected=0), Document(ALICE, b"a", 1, None)),
        (lambda it: it.put(ALICE, b"b", expected=1), Document(ALICE, b"b", 2, None)),
        (lambda it: it.delete(ALICE, expected=2), True),
        (lambda it: it.put(ALICE, b"c", expected=0), Document(ALICE, b"c", 1, None)),
    ):
        client = lost(fate)
        documents = open_dynamodb_documents(
            clock, table=table, client=lambda client=client: client, patience=Patience(sleep=lambda _: None)
        )
        assert answer == verb(documents)
        assert 2 <= client.writes()


def test_somebody_elses_write_is_not_taken_for_ones_own() -> None:
    """After a lost answer, what another process has written since is left alone."""
    table, clock = new_table(), ManualClock(START_MS)
    other = open_dynamodb_documents(clock, table=table)
    other.put(ALICE, b"a", expected=0)

    def between(_: str, count: int) -> Fate:
        if count == 0:
            other.put(ALICE, b"other", expected=1)
            return "request_lost"
        return "ok"

    documents = open_dynamodb_documents(
        clock, table=table, client=lambda: FaultyClient(between, reads=False), patience=Patience(sleep=lambda _: None)
    )
    assert documents.put(ALICE, b"mine", expected=1) is None
    assert Document(ALICE, b"other", 2, None) == documents.get(ALICE)


def test_credentials_that_may_not_are_an_error_of_ours() -> None:
    """StoreUnavailable, with what mends it; nothing was written."""
    table = new_table()
    documents = open_dynamodb_documents(ManualClock(START_MS), table=table, client=lambda: lost("denied"))
    with pytest.raises(StoreUnavailable) as caught:
        documents.put(ALICE, b"a", expected=0)
    assert "runrails aws policy" in caught.value.next_step
    assert documents.get(ALICE) is None


def test_time_is_the_servers() -> None:
    """Without a clock of its own an engine hears the time from the first answer, also before it removes."""
    table = new_table()
    documents = open_dynamodb_documents(None, table=table)
    assert documents.put(ALICE, b"a", expected=0, expires_ms=system_ms() + 60_000) is not None
    assert documents.get(ALICE) is not None
    other = ALICE._replace(name="other")
    documents.put(other, b"a", expected=0, expires_ms=system_ms() - 60_000)
    assert open_dynamodb_documents(None, table=table).get(other) is None
    assert open_dynamodb_documents(None, table=table).delete(other, expected=1) is False
    assert open_dynamodb_documents(None, table=table).delete(ALICE, expected=1) is True


def test_a_vault_lives_in_a_table() -> None:
    """Added, rotated, noted, sealed anew and removed by vaults of two hosts; what is opened is what is there."""
    table, clock = new_table(), ManualClock(START_MS)
    one = new_vault(open_dynamodb_documents(clock, table=table))
    other = new_vault(open_dynamodb_documents(clock, table=table), "k2", "k1")
    one.add(KEY, Secret(CANARY))
    got = other.get(KEY)
    assert (CANARY, "k2") == (got.secret.reveal(), got.info.key_id)
    with pytest.raises(CredentialUnreadable):
        one.get(KEY)
    other.rotate(KEY, Secret("another"))
    other.mark(KEY, "valid", START_MS)
    assert [("valid", 3)] == [(info.status, info.version) for info in one.list()] == [
        (info.status, info.version) for info in one.list("user:alice")
    ]  # fmt: skip
    assert (0, 1, (), ()) == other.rewrap()
    assert one.remove(KEY) is True
    assert ([], None) == (other.list(), other.peek(KEY))
    assert 5 == other.add(KEY, Secret(CANARY)).version
    assert one.remote is True


def test_the_item_says_when_dynamodb_may_delete_it() -> None:
    """An hour after it has expired, never before; and removed bytes are gone at once."""
    table = new_table()
    documents = open_dynamodb_documents(ManualClock(START_MS), table=table)
    documents.put(ALICE, b"a", expected=0, expires_ms=START_MS + 500)
    key = {"pk": {"S": "D#credential#alice"}, "sk": {"S": "user.openai.default"}}
    item = shared_client().get_item(TableName=table, Key=key)["Item"]
    assert (START_MS + 500) // 1_000 + 3_600 == int(item["ttl"]["N"])
    documents.delete(ALICE, expected=1)
    item = shared_client().get_item(TableName=table, Key=key)["Item"]
    assert {"pk", "sk", "v", "x", "tk", "ttl"} == item.keys()
