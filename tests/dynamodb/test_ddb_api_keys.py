"""API keys in a table: the same answers as from a file, in as many processes as one likes."""

from __future__ import annotations

import pytest

from rr_documents import open_dynamodb_documents
from rr_dynamo import needs_server, new_table
from rr_keys import START_MS, CountingDocuments, make_keys, with_secret
from runrails.identity.errors import Unauthenticated
from runrails.testing import ManualClock

pytestmark = needs_server


def test_a_key_goes_its_ways_in_a_table() -> None:
    """Made, proven, listed, rotated with an overlap and revoked, seen by two processes on one table."""
    table, clock = new_table(), ManualClock(START_MS)
    engines = [CountingDocuments(open_dynamodb_documents(clock, table=table)) for _ in range(2)]
    here, elsewhere = (make_keys(engine, clock=clock) for engine in engines)
    info, old = here.create("alice", scopes={"ai:complete"}, org="acme", month_pusd=5)
    assert here.verify(old.reveal()) == elsewhere.verify(old.reveal())
    here.flush()
    assert [each.id for each in elsewhere.list("alice")] == [each.id for each in elsewhere.list()] == [info.id]
    assert elsewhere.show(info.id).last_used_ms == START_MS
    new = elsewhere.rotate(info.id, 60_000)[1]
    for keys in (here, elsewhere):
        for text in (old.reveal(), new.reveal()):
            assert keys.verify(text).key_id == info.id
        with pytest.raises(Unauthenticated):
            keys.verify(with_secret(new.reveal(), "0" * 43))
    elsewhere.revoke(info.id)
    clock.advance(5_000)
    for keys in (here, elsewhere):
        for text in (old.reveal(), new.reveal()):
            with pytest.raises(Unauthenticated):
                keys.verify(text)
        keys.close()


def test_what_is_written_wrong_is_never_asked_of_the_table() -> None:
    """No guess without a right checksum costs a read."""
    documents = CountingDocuments(open_dynamodb_documents(ManualClock(START_MS), table=new_table()))
    keys = make_keys(documents)
    for number in range(200):
        with pytest.raises(Unauthenticated):
            keys.verify(f"rr_live_{number:066d}")
    assert documents.reads == 0
