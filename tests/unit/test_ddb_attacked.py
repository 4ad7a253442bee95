"""The DynamoDB engine attacked without a server: partial answers, lost answers to what may not be repeated."""

from __future__ import annotations

from typing import Any

import pytest

from rr_ledger import START_MS, USER
from runrails.errors import StoreUnavailable
from runrails.rates import Cost, Granted
from runrails.rates.limiter import Taken
from runrails.testing import ManualClock
from runrails_aws.dynamodb import DynamoDBStore
from runrails_aws.dynamodb.calling import Patience


class Scripted:
    """A client that answers as it is told to, and counts."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __getattr__(self, operation: str) -> Any:
        def send(**parameters: Any) -> Any:
            self.asked.append(operation)
            answer = self.answers[operation]
            return answer(parameters) if callable(answer) else answer

        return send


def opened(client: Scripted) -> DynamoDBStore:
    """A store whose pauses take a second of its own time, and none of ours."""
    clock = ManualClock(START_MS)
    patience = Patience(sleep=lambda _: clock.advance(1_000), monotonic=clock)
    return DynamoDBStore("ledger", clock=clock, client=lambda: client, patience=patience)


def test_what_was_not_read_is_not_absent() -> None:
    """Throttled for longer than anybody waits: an error, and no empty account."""
    client = Scripted(batch_get_item=lambda asked: {"Responses": {}, "UnprocessedKeys": asked["RequestItems"]})
    store = opened(client)
    with pytest.raises(StoreUnavailable, match="throttles reads"):
        store.balance(USER)
    assert 2 <= len(client.asked) == store.throttled <= 12


def test_what_was_throttled_is_counted() -> None:
    """Each attempt, for whoever watches the table; not what failed for another reason."""

    class Refused(Exception):
        def __init__(self, code: str) -> None:
            super().__init__(code)
            self.response = {"Error": {"Code": code}}

    for code, counted in (("ThrottlingException", True), ("InternalServerError", False)):

        def refuse(_: object, code: str = code) -> None:
            raise Refused(code)

        client = Scripted(batch_get_item=refuse)
        store = opened(client)
        with pytest.raises(StoreUnavailable):
            store.balance(USER)
        assert (len(client.asked) if counted else 0) == store.throttled


def test_nothing_is_given_back_twice() -> None:
    """An answer that is lost leaves open whether it was: once more would grant more than the rate."""

    def lost(_: object) -> None:
        raise OSError("read timed out")

    client = Scripted(update_item=lost)
    taken = Taken("user:alice", 0, (START_MS + 60_000) * 1_000_000, 0, 1_000_000)
    with pytest.raises(StoreUnavailable):
        opened(client).rates().give_back(Granted(None, None, (taken,)), Cost(0, 10))
    assert ["update_item"] == client.asked
