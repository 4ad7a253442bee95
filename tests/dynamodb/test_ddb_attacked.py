"""The ledger in DynamoDB attacked: amounts that somebody changed, accounts that are gone, limits that were half set."""

from __future__ import annotations

from typing import Any

import pytest

from rr_dynamo import needs_server, new_table, open_dynamodb, shared_client
from rr_ledger import CENT, DOLLAR, FOUR, ORG, USER, booking, facts
from runrails.clocks import system_ms
from runrails.errors import StoreUnavailable
from runrails.ledger import Account
from runrails.stores.records import Difference, differences
from runrails_aws.dynamodb.items import account_key

pytestmark = needs_server


def spent_in(table: str) -> Any:
    """A store in whose table two cents were spent, and one is held."""
    store = open_dynamodb(system_ms, table=table)
    for name in ("a", "b", "c"):
        store.reserve(booking(name, CENT, *FOUR, limit=DOLLAR, facts=facts()))
    for name in ("a", "b"):
        store.settle(name, CENT)
    return store


def change(table: str, account: Account, expression: str) -> None:
    """What somebody does to an account behind the ledger's back: ``avail + 1``."""
    name = expression.split(maxsplit=1)[0]
    shared_client().update_item(
        TableName=table, Key=account_key(account), UpdateExpression=f"SET {name} = {expression.replace('1', ':n')}",
        ExpressionAttributeValues={":n": {"N": "1"}},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("spent + 1", [("spent", 1, 0), ("left", 0, -1)]),
        ("held - 1", [("held", -1, 0), ("left", 0, 1)]),
        ("avail + 1", [("left", 1, 0)]),
        ("room - 1", [("left", -1, 0)]),
    ],
)
def test_verify_sees_whatever_was_changed(expression: str, found: list[tuple[str, int, int]]) -> None:
    """Also what is left, by which calls are let in: it stands by itself, since conditions cannot add."""
    table = new_table()
    store = spent_in(table)
    assert (4, []) == differences(store.sums())
    change(table, ORG, expression)

    count, wrong = differences(store.sums())
    assert 4 == count
    assert [(ORG, what) for what, *_ in found] == [each[:2] for each in wrong]
    for each, (_, kept, should) in zip(wrong, found, strict=True):
        assert each.balance - each.records == kept - should


def test_verify_sees_an_account_that_was_deleted() -> None:
    """Its limit would begin anew, though its records say what was spent."""
    table = new_table()
    store = spent_in(table)
    shared_client().delete_item(TableName=table, Key=account_key(USER))

    wrong = [Difference(USER, "spent", 0, 2 * CENT), Difference(USER, "held", 0, CENT)]
    assert (4, wrong) == differences(store.sums())


def test_verify_sees_a_limit_that_was_set_by_half() -> None:
    """The command was killed before it came to this account, which would go on by the limit before."""
    table = new_table()
    store = spent_in(table)
    stopped: list[str] = []
    store._archive._apply_limit = lambda row, limit: stopped.append(row.account.scope)
    store.set_limit("org:acme", 50 * CENT)

    assert ["org:acme"] == stopped
    assert (4, [Difference(ORG, "left", 97 * CENT, 47 * CENT)]) == differences(store.sums())
    del store._archive._apply_limit
    store.set_limit("org:acme", 50 * CENT)
    assert (4, []) == differences(store.sums())


def test_verify_accuses_nobody_who_is_busy() -> None:
    """Calls are made all the while: it looks again, and says so if that does not help."""
    table = new_table()
    store = spent_in(table)
    busy = [True]
    scan = store._archive.scan

    def disturbed(prefix: str, **filters: Any) -> Any:
        yield from scan(prefix, **filters)
        if prefix == "R#" and busy:
            busy.append(True)
            store.reserve(booking(f"d{len(busy)}", len(busy), USER))
            if len(busy) == 3:
                busy.clear()

    store._archive.scan = disturbed
    assert (4, []) == differences(store.sums())
    busy.extend([True] * 10)
    with pytest.raises(StoreUnavailable, match="1 accounts changed each time"):
        differences(store.sums())
