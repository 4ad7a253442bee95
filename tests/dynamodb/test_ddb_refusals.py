"""Refusals that are given again without asking: at most a second old, never an admission, and only if asked for."""

from __future__ import annotations

import pytest

from rr_dynamo import FaultyClient, needs_server, new_table, open_dynamodb
from rr_ledger import CENT, FOUR, START_MS, amounts, booking, books
from runrails import ConfigError
from runrails.ledger import Refused, Reserved
from runrails.testing import ManualClock
from runrails_aws.dynamodb import DynamoDBStore
from runrails_aws.dynamodb.calling import Patience

pytestmark = needs_server


class Asked:
    """A store that remembers refusals, how often it has asked, and another process's on the same table."""

    def __init__(self, refusals_ms: int = 1_000) -> None:
        self.ticks = ManualClock(0)
        self.client = FaultyClient(lambda *_: "ok")
        self.store = open_dynamodb(
            ManualClock(START_MS), client=lambda: self.client, patience=Patience(monotonic=self.ticks),
            refusals_ms=refusals_ms,
        )  # fmt: skip
        self.other = open_dynamodb(ManualClock(START_MS), table=self.store.table)
        self.store.reserve(booking("first", CENT, *FOUR, limit=CENT))
        self.client.log.clear()

    def refused(self, name: str, amount: int = CENT) -> object:
        """What the store says to a call of the same accounts and limit."""
        return self.store.reserve(booking(name, amount, *FOUR, limit=CENT))


def test_a_loop_of_refused_calls_costs_a_write_a_second() -> None:
    """A hundred calls in five seconds: five writes, each refusal the one that the store would have given."""
    asked = Asked()
    before = books(asked.other)
    for number in range(100):
        answer = asked.refused(f"c{number}")
        assert isinstance(answer, Refused)
        assert (CENT, 0, CENT, CENT) == (answer.limit, answer.spent, answer.held, answer.needed)
        asked.ticks.advance(50)
    assert 5 == asked.client.writes()
    assert before == books(asked.other)


def test_by_default_every_call_is_asked_for() -> None:
    """Nothing is remembered unless it is wanted."""
    asked = Asked(0)
    assert all(isinstance(asked.refused(f"c{number}"), Refused) for number in range(3))
    assert 3 == asked.client.writes()


def test_what_is_remembered_admits_nothing_and_refuses_no_smaller_call() -> None:
    """A call that fits into what was left is asked for, and so is one that only observes, or of other accounts."""
    asked = Asked()
    asked.store.settle("first", CENT - 5)
    assert isinstance(asked.refused("big", 6), Refused)
    asked.client.log.clear()
    assert isinstance(asked.refused("big2", 6), Refused)
    assert 0 == asked.client.writes()
    asked.other.reserve(booking("theirs", 3, *FOUR, limit=CENT))
    assert isinstance(asked.refused("small", 5), Refused)
    assert Reserved("fits") == asked.refused("fits", 2)
    watched = asked.store.reserve(booking("observed", CENT, *FOUR, limit=CENT, enforce=False))
    assert isinstance(watched, Reserved)
    assert isinstance(watched.would_refuse, Refused)
    assert Reserved("mine") == asked.store.reserve(booking("mine", CENT, FOUR[0], limit=9 * CENT))


@pytest.mark.parametrize("how", ["settle", "release", "limit", "time"])
def test_room_that_this_process_makes_is_seen_at_once(how: str) -> None:
    """What others give back is seen a second later at most."""
    asked = Asked()
    assert isinstance(asked.refused("a"), Refused)
    if how == "settle":
        asked.store.settle("first", 0)
    elif how == "release":
        asked.store.release("first")
    elif how == "limit":
        for account in FOUR:
            asked.store.set_limit(account.scope, 2 * CENT)
    else:
        asked.other.release("first")
        assert isinstance(asked.refused("a"), Refused)
        asked.ticks.advance(1_000)
    assert Reserved("a") == asked.refused("a")


def test_a_call_that_is_open_here_is_answered_as_before() -> None:
    """The same id again is no new call, whatever is remembered."""
    asked = Asked()
    assert isinstance(asked.refused("a"), Refused)
    assert Reserved("first", replayed=True) == asked.refused("first")
    assert (0, CENT) == amounts(asked.other)


@pytest.mark.parametrize("wrong", [-1, 1_001])
def test_it_is_never_older_than_a_second(wrong: int) -> None:
    """Refused by name."""
    with pytest.raises(ConfigError, match="refusals_ms"):
        DynamoDBStore(new_table(), refusals_ms=wrong)
