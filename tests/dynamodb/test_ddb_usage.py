"""The records of calls on DynamoDB: what they cost, how they are found without a scan, and when they are deleted."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from rr_core import PRICES, model_step
from rr_dynamo import ENDPOINT, REGION, FaultyClient, needs_server, new_table, open_dynamodb, shared_client
from rr_ledger import CENT, DOLLAR, FOUR, MONTH, RUN, START_MS, USER, amounts, booking, facts
from runrails import Guard, Limits
from runrails.cli.shell import OK, USAGE
from runrails.cli.shell import run as shell
from runrails.clocks import system_ms
from runrails.errors import LedgerError, StoreUnavailable, UnknownReservation
from runrails.ids import call_id, run_id
from runrails.ledger import Account, Refused, Reserved, ResultFacts, UsageRecord
from runrails.periods import month_of
from runrails.recent import SupportsRecent, usage_since
from runrails.stores.memory import MemoryStore
from runrails.stores.migrating import migrate
from runrails.stores.records import differences
from runrails.testing import ManualClock
from runrails_aws.dynamodb import table as tables
from runrails_aws.dynamodb.schema import definition
from runrails_aws.dynamodb.units import item_bytes, write_units
from runrails_aws.dynamodb.wire import Request

pytestmark = needs_server
DAY_MS = 86_400_000


def watched(**options: Any) -> tuple[Any, FaultyClient]:
    """A store, and all that it asks."""
    client = FaultyClient(lambda operation, count: "ok")
    return open_dynamodb(options.pop("clock", None), client=lambda: client, **options), client


def asked(client: FaultyClient) -> list[str]:
    """The operations since the last time."""
    sent, client.sent = client.sent, []
    return [operation for operation, _ in sent]


def units_of(client: FaultyClient) -> int:
    """Write units of all that was written since the last time, by formula, with the sizes that items really have."""
    sent, client.sent = client.sent, []
    writing = [(operation, json.loads(body)) for operation, body in sent if not operation.startswith(("Get", "Batch"))]
    assert ["TransactWriteItems"] * 2 == [operation for operation, _ in writing]
    units = 0
    for _, body in writing:
        first = body["TransactItems"][0]
        key = first["Put"]["Item"] if "Put" in first else first["Update"]["Key"]
        where = {
            "TableName": next(iter(first.values()))["TableName"],
            "Key": {name: key[name] for name in ("pk", "sk")},
        }
        size = item_bytes(shared_client().get_item(**where)["Item"])
        units += write_units(Request("", body), reservation_bytes=size)
    return units


@pytest.mark.parametrize(("accounts", "most"), [(FOUR, 24), ((USER,), 10), ((RUN,), 10)])
def test_what_is_sent_for_a_call_costs_what_it_may(accounts: tuple[Account, ...], most: int) -> None:
    """Two transactions, of a run's first call as of later ones: 22 units over four scopes, 10 for one."""
    store, client = watched()
    for number in range(4):
        if number in {0, 2}:
            run = run_id("alice")
        own = tuple(Account(f"run:{run}", "-") if account == RUN else account for account in accounts)
        name = call_id("alice", run)
        asked(client)
        store.reserve(booking(name, CENT, *own, limit=DOLLAR, facts=facts(run=run)))
        store.settle(name, 7, result=ResultFacts(model="gpt-4o-mini-2024-07-18", duration_ms=900, answer_id="a" * 30))
        if number:  # the first has met nobody yet, and looks for overdue holds
            assert 4 * (1 + len(accounts)) + 2 == units_of(client) <= most
    assert 4 == len(list(store.usage(user="alice", period=month_of(int(name[:16], 16) // 1_000_000))))


def test_a_guards_call_costs_the_same() -> None:
    """Through the door: two transactions and 22 units, in a run that has begun and in a new one."""
    store, client = watched()
    with Guard(Limits(run="1.00", month="5.00", steps=None), user="alice", key="k1", org="o", store=store,
               prices=PRICES) as guard:  # fmt: skip
        model_step(guard.run())
        for _ in range(2):
            run = guard.run()
            for _ in range(2):
                asked(client)
                model_step(run)
                assert 22 == units_of(client)
        assert 2 == len(list(store.usage(run=run.id)))
        assert "Scan" not in asked(client)


def calls(seed: int) -> Iterator[tuple[str, str, str, int]]:
    """(id, user, run, time): ids and runs of ours, of somebody's, of other users, by clocks that are off."""
    rnd = random.Random(seed)
    users = ["alice", "bob", "alice.b"]
    runs = [at(START_MS - rnd.randrange(40) * DAY_MS, run_id(rnd.choice(users))) for _ in range(6)] + ["nightly", "a.b"]
    at_ms = START_MS - 45 * DAY_MS
    for number in itertools.count():
        at_ms += rnd.choice([1, 50, 20_000, DAY_MS])
        user, run = rnd.choice(users), rnd.choice(runs)
        own = at(at_ms + rnd.choice([0, 0, 0, -50_000, 50_000, 90_000, 40 * DAY_MS]), call_id(user, run))
        yield rnd.choice([own, own, own, f"call-{number}", call_id("zoe", run)]), user, run, at_ms


def at(ms: int, name: str) -> str:
    """An id as it would have been made at another moment."""
    return f"{ms * 1_000_000:016x}{name[16:]}"


@pytest.mark.parametrize("seed", [1, 2])
def test_every_call_is_found_once_in_order_and_without_a_scan(seed: int) -> None:
    """By user and month, by run, and by both, whatever ids look like: as the store in memory finds them."""
    clock = ManualClock(START_MS - 46 * DAY_MS)
    oracle = MemoryStore(clock=clock)
    store, client = watched(clock=clock)
    months, runs, users = set(), set(), set()
    for name, user, run, at_ms in itertools.islice(calls(seed), 90):
        clock.advance(at_ms - clock())
        for each in (store, oracle):
            each.reserve(booking(name, CENT, Account(f"user:{user}", MONTH), facts=facts(user=user, run=run)))
            each.settle(name, at_ms % 1_000)
        months.add(month_of(at_ms))
        runs.add(run)
        users.add(user)
    asked(client)
    assert 90 == len(list(oracle.usage()))
    wanted: list[dict[str, str]] = [
        {"run": run} for run in (*runs, "none", run_id("alice"), "", "x" * 3_000, "\ud800#")
    ]
    wanted += [
        {"user": user, "period": month} for user in (*users, "none", "", "alice#2026-11#0", "ü") for month in months
    ]
    wanted += [{"user": "bob", "run": run, "period": max(months)} for run in runs]
    for query in wanted:
        assert list(oracle.usage(**query)) == list(store.usage(**query)), query
    assert {"Query", "BatchGetItem"} == set(asked(client))
    assert list(oracle.usage(user="bob")) == list(store.usage(user="bob"))
    assert ["Scan"] == asked(client)


def test_a_month_is_read_page_by_page() -> None:
    """Whoever wants the first records asks once for each part of the month; the rest comes as it is read."""
    clock = ManualClock(START_MS)
    store, client = watched(clock=clock)
    run = at(START_MS, run_id("alice"))
    for _ in range(40):
        clock.advance(180_000)
        name = at(clock(), call_id("alice", run))
        store.reserve(booking(name, 1, Account("user:alice", MONTH), facts=facts(run=run)))
        store.settle(name, 1)
    query = client.real.query
    client.real.query = lambda **given: query(**given | {"Limit": 10})
    asked(client)
    found = store.usage(user="alice", period=MONTH)
    assert isinstance(next(found), UsageRecord)
    assert ["Query"] * 12 == asked(client)
    assert 39 == len(list(found))
    assert ["Query"] * 4 == asked(client)


def old_table() -> str:
    """A table as the first version made it, with its one index."""
    name = f"rr-old-{run_id('x')}"
    made = definition(name) | {"DeletionProtectionEnabled": False}
    made["GlobalSecondaryIndexes"] = made["GlobalSecondaryIndexes"][:1]  # type: ignore[index]
    made["AttributeDefinitions"] = [
        each
        for each in made["AttributeDefinitions"]
        if each["AttributeName"] in {"pk", "sk", "hs", "hx"}  # type: ignore[index, union-attr]
    ]
    shared_client().create_table(**made)
    return name


def test_a_table_of_an_older_version_is_brought_up_to_date() -> None:
    """Calls go on; usage says what to run; afterwards everything is found, and nothing is deleted by age any more."""
    clock, table = ManualClock(START_MS), old_table()
    store = open_dynamodb(clock, table=table)
    store.set_limit("run:r9", CENT)
    for name in ("a", "b"):
        assert Reserved(name) == store.reserve(booking(name, CENT, *FOUR, limit=DOLLAR, facts=facts()))
    store.settle("a", 3)
    made_old(table, run="r9")
    with pytest.raises(StoreUnavailable, match=f"aws table create {table}"):
        list(store.usage(run="r1"))
    done = tables.create(store.caller)
    assert ["brought 6 items up to date", "made index usage", "made index runs"] == done[:3]
    assert ["a", "b"] == [record.id for record in store.usage(run="r1")]
    assert ["a", "b"] == [record.id for record in store.usage(user="alice", period=MONTH)]
    kept = shared_client().scan(TableName=table)["Items"]
    assert not [item for item in kept if item["pk"]["S"][:2] in {"B#", "R#"} and "ttl" in item]
    assert [] == tables.faults_of(store.caller)
    assert [] == tables.create(store.caller)
    assert isinstance(store.reserve(booking("c", 2 * CENT, Account("run:r9", "-"), limit=DOLLAR)), Refused)


def made_old(table: str, run: str) -> None:
    """Take from a table what the first version did not write, and add what it did."""
    for item in shared_client().scan(TableName=table)["Items"]:
        where = {"TableName": table, "Key": {"pk": item["pk"], "sk": item["sk"]}}
        kind, ends = item["pk"]["S"][:2], {":t": {"N": str(START_MS // 1_000 + 400 * 86_400)}}
        if item["pk"]["S"] == f"B#run:{run}":
            shared_client().delete_item(**where)
        elif kind == "R#":
            change = "SET #t = :t REMOVE uk, rk"
            shared_client().update_item(
                **where, UpdateExpression=change, ExpressionAttributeValues=ends, ExpressionAttributeNames={"#t": "ttl"}
            )
        elif kind == "B#":
            change = "SET #t = :t REMOVE cr"
            shared_client().update_item(
                **where, UpdateExpression=change, ExpressionAttributeValues=ends, ExpressionAttributeNames={"#t": "ttl"}
            )


def test_an_operators_limit_of_a_run_that_is_still_to_begin_holds() -> None:
    """The first call of a run does not ask for it, and is refused all the same; once it is removed, it is not."""
    store = open_dynamodb(ManualClock(START_MS))
    store.set_limit("run:r1", CENT)
    assert [] == list(store.balances())
    assert ("operator", CENT) == (store.balance(RUN).limit_source, store.balance(RUN).limit)
    assert isinstance(store.reserve(booking("a", 2 * CENT, *FOUR, limit=DOLLAR)), Refused)
    assert Reserved("b") == store.reserve(booking("b", CENT, *FOUR, limit=DOLLAR))
    assert isinstance(store.reserve(booking("c", 1, RUN, limit=DOLLAR)), Refused)
    store.set_limit("run:r1", None)
    assert Reserved("c") == store.reserve(booking("c", 1, RUN, limit=DOLLAR))
    store.set_limit("run:r2", CENT)
    store.set_limit("run:r2", None)
    assert Reserved("d") == store.reserve(booking("d", 2 * CENT, Account("run:r2", "-"), limit=DOLLAR))
    assert [] == differences(store.sums())[1]


def kept_by_age(store: Any) -> dict[str, int]:
    """When items are deleted, by the kind and the end of their key."""
    listed = shared_client().scan(TableName=store.table)["Items"]
    return {
        item["pk"]["S"][:2] + item["pk"]["S"][-1]: int(item["ttl"]["N"]) for item in listed if "ttl" in item
    }  # fmt: skip


def test_only_what_is_resolved_is_deleted_by_age() -> None:
    """With a retention, settled, released, expired and corrected calls; never a hold, a balance or a correction."""
    clock = ManualClock(START_MS)
    store = open_dynamodb(clock, retention_days=40)
    for name in ("a", "b", "c", "d"):
        store.reserve(booking(name, CENT, *FOUR, limit=DOLLAR, facts=facts(), ttl_ms=5 if name == "c" else 120_000))
    assert {} == kept_by_age(store)
    store.settle("a", 3)
    store.release("b")
    clock.advance(10)
    assert ("c",) == store.expire().ids
    ends_s = START_MS // 1_000 + 40 * 86_400
    assert {"R#a": ends_s, "R#b": ends_s, "R#c": ends_s} == kept_by_age(store)
    clock.advance(5 * DAY_MS)
    store.correct("a", 5, source="bill")
    assert {"R#a": ends_s + 5 * 86_400, "R#b": ends_s, "R#c": ends_s} == kept_by_age(store)
    assert {} == kept_by_age(open_dynamodb(clock))


def forget(store: Any, *names: str) -> None:
    """Delete records as DynamoDB does."""
    for name in names:
        shared_client().delete_item(TableName=store.table, Key={"pk": {"S": f"R#{name}"}, "sk": {"S": "0"}})


def test_verify_tells_deleted_records_from_wrong_balances() -> None:
    """An account older than what is kept may lack records of what it spent: that is said, and is no difference."""
    clock = ManualClock(START_MS)
    store = open_dynamodb(clock, retention_days=40)
    for name in ("a", "b", "c"):
        store.reserve(booking(name, CENT, *FOUR, limit=DOLLAR, facts=facts()))
    store.settle("a", 3)
    store.settle("b", 4)
    clock.advance(39 * DAY_MS)
    forget(store, "a")
    # The accounts are too young for that: somebody has taken it away.
    assert {("spent", 7, 4)} == {(each.what, each.balance, each.records) for each in differences(store.sums())[1]}
    clock.advance(30 * DAY_MS)
    assert (4, []) == differences(store.sums())
    assert {3} == {each.unproven for each in store.sums()}
    with pytest.raises(LedgerError, match="deleted by age"):
        migrate(open_dynamodb(clock, table=store.table), MemoryStore(clock=clock))
    forget(store, "c")  # held: such a record is never deleted by age
    assert {"held"} == {each.what for each in differences(store.sums())[1]}
    with pytest.raises(UnknownReservation):
        store.correct("a", 9, source="bill")
    assert (7, CENT) == amounts(store)


def test_the_command_says_what_it_cannot_prove(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, the amount without a record, and the accounts that are proven; by URL, with its retention."""
    for name, value in (("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    clock = ManualClock(system_ms() - 100 * DAY_MS)
    store = open_dynamodb(clock, retention_days=40)
    old, new = month_of(clock()), month_of(system_ms())
    for name, month in (("a", old), ("b", old), ("c", new)):
        store.reserve(booking(name, CENT, Account("user:alice", month), facts=facts()))
        store.settle(name, 3)
    forget(store, "a")
    url = f"dynamodb://{store.table}?region={REGION}&endpoint={ENDPOINT}"
    assert OK == shell(["ledger", "verify", "--store", url, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (True, 2, []) == (told["ok"], told["accounts"], told["differences"])
    assert [("user:alice", old, 3)] == [
        (each["scope"], each["period"], each["without_record"]) for each in told["deleted_by_age"]
    ]
    assert OK == shell(["ledger", "verify", "--store", f"{url}&retention_days=90"])
    assert "1 accounts: every balance" in (out := capsys.readouterr().out)
    assert "not proven" in out
    assert USAGE == shell(["ledger", "verify", "--store", f"{url}&retention_days=9"])
    assert [OK, OK] == [shell(["aws", "table", "create", url, "--reindex"]), shell(["aws", "table", "check", url])]
    export = ["aws", "table", "export", store.table, "bucket", "--region", REGION, "--account"]
    assert [OK, USAGE] == [shell([*export, "123456789012"]), shell([*export, "12; rm -rf /"])]
    assert "export-table-to-point-in-time" in capsys.readouterr().out


def test_more_in_the_records_than_in_the_balance_is_wrong_at_any_age() -> None:
    """Deletion by age explains less, never more."""
    clock, table = ManualClock(START_MS), new_table()
    store = open_dynamodb(clock, table=table, retention_days=40)
    store.reserve(booking("a", CENT, USER, facts=facts()))
    store.settle("a", 7)
    clock.advance(90 * DAY_MS)
    shared_client().update_item(
        TableName=table, Key={"pk": {"S": "B#user:alice"}, "sk": {"S": f"{MONTH}#pusd"}},
        UpdateExpression="SET spent = :s", ExpressionAttributeValues={":s": {"N": "5"}},
    )  # fmt: skip
    assert "spent" in {each.what for each in differences(store.sums())[1]}


def test_the_newest_calls_are_told_from_older_ones_where_they_are() -> None:
    """Over the end of a month too, oldest first, whatever their ids; the table sends only these."""
    clock = ManualClock(START_MS)
    store, client = watched(clock=clock)
    assert isinstance(store, SupportsRecent)
    for place in range(12):
        name = call_id("alice", "r1") if place % 2 else f"call-{place}"
        store.reserve(booking(name, CENT, Account("user:alice", MONTH), facts=facts(step=place)))
        clock.advance(DAY_MS)
    returned: list[int] = []
    client.real.meta.events.register(
        "after-call.dynamodb.Scan", lambda parsed, **_: returned.append(len(parsed["Items"]))
    )
    for first in (0, 5, 11, 12):
        found = [each.facts.step for each in usage_since(store, START_MS + first * DAY_MS, clock())]
        assert list(range(first, 12)) == found
    assert [12, 7, 1, 0] == returned
