"""What the DynamoDB store asks, reads and costs: functions of values, without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, MONTH, RUN, START_MS, TOKENS, USER, booking, facts
from runrails.clocks import system_ms
from runrails.errors import ConfigError, LedgerError, ReservationMismatch, StoreUnavailable
from runrails.ids import call_id, run_id
from runrails.ledger import AMOUNT_MAX, Account, Hold, Refused, Reservation, ResultFacts
from runrails.periods import month_of
from runrails.stores import open_store, rules, same_books
from runrails.testing import ManualClock
from runrails.usage import Usage
from runrails_aws.dynamodb import items, requests
from runrails_aws.dynamodb.failures import Trouble, failed, out_of_patience, trouble_of, unusable
from runrails_aws.dynamodb.items import Found, Row, found_of, new_found, reservation_item
from runrails_aws.dynamodb.opening import open_url
from runrails_aws.dynamodb.places import id_of, reservation_key, run_parts, user_parts
from runrails_aws.dynamodb.retention import may_lack_records
from runrails_aws.dynamodb.schema import definition, differences, policy
from runrails_aws.dynamodb.servertime import ServerTime, date_ms
from runrails_aws.dynamodb.store import DynamoDBStore
from runrails_aws.dynamodb.units import item_bytes, write_units
from runrails_aws.dynamodb.wire import Item, Request

RESULT = ResultFacts(
    usage=Usage(input_tokens=1_200, output_tokens=300), model="gpt-4o-mini-2024-07-18", duration_ms=900
)


def made(reservation: Reservation, **given: Any) -> tuple[Found, Item]:
    """A reservation as it is written."""
    found = new_found(reservation, "w1")
    options = {"now_ms": START_MS, "expires_ms": START_MS + 5, "stamp": 7, "would_refuse": None} | given
    return found, reservation_item(reservation, found, **options)


def reserve(reservation: Reservation, *, known: bool) -> Request:
    """The transaction of an ordinary reserve."""
    takings = [requests.take(hold, known=known, now_ms=START_MS) for hold in reservation.holds]
    assert None not in takings
    writes = [requests.make(made(reservation)[1]), *(taking.write for taking in takings if taking)]
    return requests.transaction("t", [*writes, *(taking.check for taking in takings if taking and taking.check)])


def settle(reservation: Reservation) -> tuple[Request, int]:
    """The transaction of an ordinary settle, and the size of the reservation's item after it."""
    found, item = made(reservation)
    change = rules.settled(found.entry, CENT // 3, units=None, unresolved=False)
    assert change is not None
    writes = requests.change(found, change, now_ms=START_MS, writer="w" * 32, result=RESULT)
    update = writes[0]["Update"]
    grown = item_bytes(item) + item_bytes(update["ExpressionAttributeValues"])
    return requests.transaction("t", writes), grown


def guarded(user: str = "alice", run: str | None = None, accounts: tuple[Account, ...] = FOUR) -> Reservation:
    """A call as a guard books it, in a run of alice's that begins then."""
    run = run or then(run_id("alice"))
    own = tuple(Account(f"run:{run}", "-") if account == RUN else account for account in accounts)
    return booking(then(call_id(user, run)), CENT, *own, limit=DOLLAR, facts=facts(user=user, run=run))


def then(name: str) -> str:
    """An id as it would have been made at the tests' time."""
    return f"{START_MS * 1_000_000:016x}{name[16:]}"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("accounts", "units_max"), [(FOUR, 24), ((USER,), 10), ((RUN,), 10), (FOUR[:2], 16)])
def test_a_guarded_call_costs_what_it_may(accounts: tuple[Account, ...], units_max: int, known: bool) -> None:
    """Reserve and settle together, by formula, indexes included: 22 units over four scopes, 10 for one; a run's first
    call costs no more."""
    reservation = guarded(accounts=accounts)
    settling, size = settle(reservation)
    assert size < 1_024
    takings = [requests.take(hold, known=known or hold.account.period != "-", now_ms=0) for hold in reservation.holds]
    writes = [requests.make(made(reservation)[1])]
    for taking in takings:
        assert taking is not None
        writes += [taking.write] if taking.check is None else [taking.write, taking.check]
    units = write_units(requests.transaction("t", writes)) + write_units(settling, reservation_bytes=size)
    assert 4 * (1 + len(accounts)) + 2 == units <= units_max


@pytest.mark.parametrize(
    ("reservation", "late_ms", "more"),
    [
        (guarded(), 0, set()), (guarded("bob"), 0, {"rk"}), (guarded(run="nightly-7"), 0, {"rk"}),
        (booking("call-1", facts=facts()), 0, {"uk", "rk"}), (guarded(), 59_000, set()), (guarded(), -59_000, set()),
        (guarded(), 61_000, {"uk", "rk"}), (guarded(), 40 * 86_400_000, {"uk", "rk"}), (booking("call-1"), 0, set()),
    ],
)  # fmt: skip
def test_what_a_key_does_not_tell_an_index_does(reservation: Reservation, late_ms: int, more: set[str]) -> None:
    """A run with an id of its own, a call for another user, an id of anybody's, a clock that is off: a unit each."""
    item = made(reservation, now_ms=START_MS + late_ms)[1]
    assert more == {"uk", "rk"} & set(item)
    assert 3 + len(more) == write_units(requests.transaction("t", [requests.make(item)]))


def test_ids_lead_to_keys_and_back() -> None:
    """Whatever an id looks like; those of one run are in one partition, in order of time."""
    run = run_id("alice")
    ours = [call_id("alice", run) for _ in range(3)]
    for name in (*ours, run, "a", "call-1.x", ours[0].upper(), "0" * 37, "f" * 16 + "g" + "0" * 20):
        assert name == id_of(reservation_key(name)), name
    keys = [reservation_key(name) for name in ours]
    assert 1 == len({key["pk"]["S"] for key in keys})
    assert ours == sorted(ours)
    now_ms = system_ms()
    assert keys[0]["pk"]["S"] in {part.partition for part in run_parts(run, now_ms)}
    assert keys[0]["pk"]["S"] in {part.partition for part in user_parts("alice", month_of(now_ms))}
    assert [] == run_parts("nightly-7", START_MS)
    assert 13 == len({part.partition for part in run_parts(then(run), START_MS + 366 * 86_400_000)})


def test_large_items_cost_more() -> None:
    """A user agent of two kilobytes is three units a write; what is counted is what is written."""
    from dataclasses import replace

    large = replace(facts(), user_agent="x" * 2_048)
    assert 3 * 2 + 3 + 2 == write_units(reserve(booking("a", CENT, facts=large), known=True))


def test_sizes_are_those_that_are_billed() -> None:
    """Names and texts by their bytes in UTF-8, numbers by their digits."""
    assert 3 + 4 + 2 + 3 == item_bytes({"abc": {"S": "ab語"[:2] + "ü"}, "nn": {"N": "12"}})
    assert item_bytes({"n": {"N": "1" * 38}}) == 1 + 19 + 2


def test_transactions_name_every_item_once_and_the_reservation_first() -> None:
    """DynamoDB refuses two operations on one item, and we look at the first condition first."""
    for known in (True, False):
        request = reserve(booking("a", CENT, *FOUR, limit=DOLLAR), known=known)
        operations = [next(iter(write.values())) for write in request.writes]
        keys = [str(each.get("Key") or {name: each["Item"][name] for name in ("pk", "sk")}) for each in operations]  # type: ignore[attr-defined]
        assert sorted(set(keys)) == sorted(keys)
        assert "R#a" in keys[0]
        assert {"ALL_OLD"} == {each.get("ReturnValuesOnConditionCheckFailure") for each in operations}  # type: ignore[attr-defined]


def test_no_amount_is_ever_a_float_or_a_decimal() -> None:
    """Integers go out as text, also the largest."""
    request = reserve(booking("a", AMOUNT_MAX, *FOUR), known=True)
    assert json.loads(json.dumps(request.parameters)) == request.parameters
    assert str(AMOUNT_MAX) in json.dumps(request.parameters)


def test_a_hold_above_the_limit_is_looked_up() -> None:
    """A new account cannot be made for what its limit does not allow: an operator may allow more."""
    assert requests.take(Hold(USER, 6, 5), known=False, now_ms=0) is None
    assert requests.take(Hold(USER, 5, 5), known=False, now_ms=0) is not None
    assert requests.take(Hold(USER, 6, 5), known=True, now_ms=0) is not None


@pytest.mark.parametrize(
    "reservation",
    [
        booking("a", CENT, *FOUR, limit=DOLLAR, facts=facts()), booking("a", 3, USER, TOKENS, on_expiry="release"),
        booking("a", 0), booking("a", AMOUNT_MAX, *(Account(f"user:u{n}", MONTH) for n in range(16))),
    ],
)  # fmt: skip
def test_what_is_written_is_read_back(reservation: Reservation) -> None:
    """A reservation comes back out of its item as it went in, and is the same one again; others are not."""
    found, item = made(reservation)
    assert found == found_of(item)
    assert found == items.check_same(reservation, item)
    with pytest.raises(ReservationMismatch):
        items.check_same(reservation._replace(facts=facts(step=9)), item)
    more = [Hold(hold.account, 5) for hold in reservation.holds]
    raised, writes = requests.raising(found, more, writer="w2", enforce=True)
    item["h"] = writes[0]["Update"]["ExpressionAttributeValues"][":h"]
    assert (raised.entry.amounts, found.asked) == (found_of(item).entry.amounts, found_of(item).asked)
    assert items.check_same(reservation, item).asked == found.asked


def test_an_observed_refusal_is_read_back() -> None:
    """What an observing reservation was told it is told again."""
    refused = Refused(USER, 5, 1, 2, 3)
    _, item = made(booking("a", 3), would_refuse=refused)
    assert refused == items.would_refuse_of(item)
    assert items.would_refuse_of(made(booking("a", 3))[1]) is None


def test_a_transition_signs_and_counts() -> None:
    """It names the version it was decided on, leaves the index, and writes only accounts that change."""
    found, _ = made(booking("a", 5, USER, RUN))
    (first, *others) = requests.change(found, rules.Change("settled", (5, 3), 5), now_ms=9, writer="w")
    update = first["Update"]
    assert "v = :v" == update["ConditionExpression"]
    assert update["UpdateExpression"].endswith("REMOVE hs")
    assert 2 == len(others)
    late = found._replace(entry=found.entry._replace(state="unresolved", charges=(5, 5), actual=5), version=2)
    writes = requests.change(late, rules.Change("late", (5, 3), 5), now_ms=9, writer="w")
    assert 2 == len(writes)  # one account is charged what it was
    assert {"N": "2"} == writes[1]["Update"]["ExpressionAttributeValues"][":d"]


@pytest.mark.parametrize(
    ("row", "limit", "expected"),
    [
        (Row(USER, 10, None, 3, 4), None, 3), (Row(USER, 10, None, 3, 4), 20, 13), (Row(USER, 10, 8, 3, 4), 20, 1),
        (Row(USER, None, None, 3, 4), None, AMOUNT_MAX - 7), (Row(USER, 10, None, 3, 4), 5, -2),
    ],
)  # fmt: skip
def test_a_changed_limit_moves_what_is_left(row: Row, limit: int | None, expected: int) -> None:
    """The newest limit from code counts, an operator's wins; what is left afterwards is what the rules say."""
    taking = requests.take_as_seen(row, Hold(USER, 2, limit), enforce=True, now_ms=0)
    values = taking.write["Update"]["ExpressionAttributeValues"]
    before = row.most() - row.spent - row.held
    assert before + int(values[":d"]["N"]) == expected - 2
    standing = row.standing(limit)
    room = (AMOUNT_MAX if standing.limit is None else standing.limit) - standing.spent - standing.held
    assert (room >= 2) == (before >= int(values[":n"]["N"]))


class Denied(Exception):
    """An error as botocore's ClientError is read: by its response."""

    def __init__(self, code: str, **response: object) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, **response}


def cancelled(*codes: str | None) -> Denied:
    """A transaction that came to nothing."""
    return Denied("TransactionCanceledException", CancellationReasons=[{"Code": code or "None"} for code in codes])


FAILED = "ConditionalCheckFailed"


@pytest.mark.parametrize(
    ("codes", "definite"),
    [
        ((FAILED, None), True), ((None, FAILED, FAILED), True), ((FAILED, "TransactionConflict"), True),
        ((None, FAILED, "TransactionConflict"), False), ((None, "TransactionConflict"), False),
        (("ThrottlingError", FAILED), False), ((None, None), False),
    ],
)  # fmt: skip
def test_mixed_reasons_are_refusals_only_where_that_is_sure(codes: tuple[str | None, ...], definite: bool) -> None:
    """The reservation's own condition stands; an account's does not beside a conflict, which is tried again."""
    error = cancelled(*codes)
    assert definite == (failed(error) is not None)
    if not definite:
        assert trouble_of(error) in {Trouble.CONFLICT, Trouble.THROTTLED}


class HTTPClientError(Exception):
    """Base of botocore's transport errors."""


class Lost(HTTPClientError):
    """One of them."""


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (Denied("ProvisionedThroughputExceededException"), Trouble.THROTTLED),
        (Denied("ThrottlingException"), Trouble.THROTTLED),
        (cancelled(None, "ThrottlingError"), Trouble.THROTTLED), (cancelled("TransactionConflict"), Trouble.CONFLICT),
        (Denied("TransactionConflictException"), Trouble.CONFLICT),
        (Denied("TransactionInProgressException"), Trouble.CONFLICT),
        (Denied("InternalServerError"), Trouble.LOST),
        (Denied("x", ResponseMetadata={"HTTPStatusCode": 503}), Trouble.LOST),
        (Lost(), Trouble.LOST), (ConnectionResetError(), Trouble.LOST), (OSError(), Trouble.LOST),
        (Denied("ResourceNotFoundException"), Trouble.FATAL), (Denied("AccessDeniedException"), Trouble.FATAL),
        (cancelled("ValidationError"), Trouble.FATAL), (ValueError(), Trouble.FATAL),
    ],
)  # fmt: skip
def test_what_is_worth_another_attempt(error: Exception, trouble: Trouble) -> None:
    """Throttling, conflicts and lost messages are; everything else is told at once."""
    assert trouble is trouble_of(error)
    assert failed(error) is None


class NoCredentialsError(Exception):
    """botocore's, by name."""


class NoRegionError(Exception):
    """botocore's, by name."""


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (Denied("ResourceNotFoundException"), "runrails aws table create books"),
        (Denied("AccessDeniedException"), "runrails aws policy books"), (Denied("ExpiredTokenException"), "Renew them"),
        (Denied("UnrecognizedClientException"), "Renew them"), (NoCredentialsError(), "Log in"),
        (NoRegionError(), "region="), (Denied("ValidationException"), "runrails aws table check books"),
        (Denied("SomethingNew"), "runrails aws table check books"),
    ],
)  # fmt: skip
def test_every_error_names_its_fix(error: Exception, fix: str) -> None:
    """None is the driver's, and none reads as "no budget, so all is allowed"."""
    told = unusable(error, "books", "transact_write_items")
    assert isinstance(told, StoreUnavailable)
    assert fix in told.next_step
    assert "books" == told.fields["table"]


def test_a_record_that_is_too_large_is_told_as_such() -> None:
    """It is the caller's, not the store's, to mend."""
    assert isinstance(unusable(Denied("ValidationException"), "t", "put_item"), StoreUnavailable)
    error = Denied("ValidationException")
    error.args = ("Item size has exceeded the maximum allowed size",)
    assert isinstance(unusable(error, "t", "put_item"), LedgerError)


@pytest.mark.parametrize("trouble", [Trouble.THROTTLED, Trouble.CONFLICT, Trouble.LOST])
def test_giving_up_says_that_repeating_is_safe(trouble: Trouble) -> None:
    """Whatever kept the store from answering."""
    told = out_of_patience(trouble, "books", Denied("X"), waited_ms=10_000)
    assert "same id is safe" in told.next_step
    assert "10000 ms" in told.what


class Ticks:
    """A clock that never jumps, set by hand."""

    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        return self.ms


def test_the_servers_time_is_known_to_the_second_and_better() -> None:
    """Answers narrow it down: by their cut seconds, and by how long they were under way."""
    ticks = Ticks()
    server = ServerTime(ticks)
    assert server.now() is None
    server.heard(60_000, 1_000, 1_040)  # somewhere in 60,000 … 60,999 at 1,000 … 1,040
    moment = server.now()
    assert moment is not None
    assert (59_960, 61_000) == tuple(moment)
    ticks.ms = 1_500
    server.heard(61_000, 1_480, 1_500)  # the second has turned: it is known to 540 ms now
    moment = server.now()
    assert moment is not None
    assert (61_000, 61_500) == tuple(moment)


def test_a_server_whose_clock_was_set_is_believed_anew() -> None:
    """What contradicts what was known replaces it."""
    ticks = Ticks()
    server = ServerTime(ticks)
    server.heard(60_000, 1_000, 1_000)
    server.heard(5_000_000, 1_000, 1_000)
    moment = server.now()
    assert moment is not None
    assert 5_000_000 == moment.earliest_ms


def test_old_knowledge_is_trusted_less() -> None:
    """Clocks drift: after an hour without an answer the bounds are wider, never narrower."""
    ticks = Ticks()
    server = ServerTime(ticks)
    server.heard(60_000, 1_000, 1_000)
    ticks.ms += 3_600_000
    moment = server.now()
    assert moment is not None
    assert (60_000 + 3_600_000 - 1_800, 61_000 + 3_600_000 + 1_800) == tuple(moment)


@pytest.mark.parametrize("header", [None, "", "yesterday", "0"])
def test_dates_that_are_none_tell_nothing(header: str | None) -> None:
    """A proxy that drops or garbles the date leaves the time unknown, not wrong."""
    assert date_ms(header) is None


def test_a_date_is_read() -> None:
    """As HTTP writes it."""
    assert 1_795_317_749_000 == date_ms("Sun, 22 Nov 2026 03:22:29 GMT")


def described(**other: object) -> dict[str, object]:
    """A table as DescribeTable tells of it."""
    told = definition("books") | {"TableStatus": "ACTIVE"}
    return {**told, **other}


TTL = {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}


def test_a_ledgers_table_lacks_nothing() -> None:
    """What `create` asks for is what `check` wants."""
    assert [] == differences(described(), TTL)


@pytest.mark.parametrize(
    ("other", "ttl", "what"),
    [
        ({"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}, TTL, "key"),
        ({"GlobalSecondaryIndexes": definition("books")["GlobalSecondaryIndexes"][:2]}, TTL, "index runs"),  # type: ignore[index]
        ({"TableStatus": "CREATING"}, TTL, "CREATING"), ({}, {"TimeToLiveStatus": "DISABLED"}, "TTL"),
        ({}, TTL | {"AttributeName": "other"}, "TTL"), ({"Replicas": [{"RegionName": "us-east-1"}]}, TTL, "global"),
    ],
)  # fmt: skip
def test_what_a_table_lacks_is_named(other: dict[str, object], ttl: dict[str, object], what: str) -> None:
    """Each with what mends it."""
    ((told, fix),) = differences(described(**other), ttl)
    assert what in told
    assert fix


def test_the_policy_is_the_least() -> None:
    """One table, its one index, no way to delete an account or a reservation, nothing with a wildcard action."""
    told = policy("books", region="eu-west-1", account="123456789012")
    text = json.dumps(told)
    assert ":table/books" in text
    assert "dynamodb:*" not in text
    assert "DeleteTable" not in text
    deletes = [each for each in told["Statement"] if "dynamodb:DeleteItem" in str(each["Action"])]  # type: ignore[attr-defined]
    assert all("LeadingKeys" in json.dumps(each["Condition"]) for each in deletes)
    assert "CreateTable" in json.dumps(policy("books", administer=True))
    assert "CreateTable" not in text


def test_urls_open_stores_without_asking_anybody() -> None:
    """Table, region and endpoint are taken from the URL; two of the same URL keep the same books."""
    store = open_store("dynamodb://books?region=eu-west-1&endpoint=http://127.0.0.1:9")
    other = open_url("dynamodb://other?region=eu-west-1")
    again = open_url("dynamodb://books?region=eu-west-1&endpoint=http://127.0.0.1:9")
    assert isinstance(store, DynamoDBStore)
    assert ("books", True) == (store.table, store.remote)
    assert (True, False) == (same_books(store, again), same_books(store, other))
    for each in (store, other, again):
        each.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            each.balance(USER)


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb:", "dynamodb://", "dynamodb://ab", "dynamodb://books/x", "dynamodb://books?region=a&region=b",
        "dynamodb://books?mode=ro", "dynamodb://books?retention_days=ten", "dynamodb://books?retention_days=-40",
        "dynamodb://books?endpoint=ftp://x", "dynamodb://user:secret@books",
        "dynamodb://books#x", "dynamodb://books?region", "dynamodb://bo%20oks",
    ],
)  # fmt: skip
def test_urls_that_name_no_table(url: str) -> None:
    """They are refused with the form that is right, and without a password."""
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert "dynamodb://TABLE" in caught.value.next_step


def test_a_guards_own_clock_is_not_believed() -> None:
    """The system's clock, which a guard gives by default, is what hosts disagree on; one that a test gives counts."""
    for clock, known in ((None, False), (system_ms, False), (ManualClock(START_MS), True)):
        store = open_url("dynamodb://books?region=eu-west-1", clock)
        assert known == (store._time.judged_ms() is not None)
        assert known == (store._time.written_ms() == START_MS)


def test_opening_a_store_loads_no_sdk() -> None:
    """boto3 is loaded by the first verb; a program that only names a store does not pay for it."""
    text = (
        "import sys; from runrails.stores import open_store; open_store('dynamodb://books?region=eu-west-1').close(); "
        "print(sorted({'boto3', 'botocore', 'tenacity'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    ).stdout
    assert "[]" == said.strip()


def test_accounts_and_open_holds_are_not_deleted_by_age() -> None:
    """Whatever the retention: a budget would otherwise begin anew, and what is held be lost."""
    for account in (USER, RUN, Account("key:k1", "-")):
        for taking in (
            requests.take(Hold(account, 5, 9), known=False, now_ms=START_MS),
            requests.take_as_seen(
                Row(account, None, None, 0, 0, exists=False), Hold(account, 5), enforce=True, now_ms=0
            ),
        ):
            assert taking is not None
            assert "ttl" not in str(taking.write)
    found, item = made(booking("a", facts=facts()))
    assert "ttl" not in item
    change = rules.Change("settled", (5,), 5)
    assert "'ttl'" not in str(requests.change(found, change, now_ms=START_MS, writer="w"))
    (first, *_) = requests.change(found, change, now_ms=START_MS, writer="w", keep_s=60)
    assert {"N": str(START_MS // 1_000 + 60)} == first["Update"]["ExpressionAttributeValues"][":t"]


@pytest.mark.parametrize("days", [0, -1, 34, 36_501, True, 90.0, "90"])
def test_a_retention_that_forgets_too_soon(days: Any) -> None:
    """Less than a month and its bill, or no whole number of days, is refused."""
    with pytest.raises(ConfigError, match="35"):
        DynamoDBStore("books", region="eu-west-1", retention_days=days)


def test_which_accounts_may_lack_records() -> None:
    """Those that are older than what is kept; none before anybody has said that records are deleted."""
    day_s = 86_400
    november_s = 1_793_491_200
    for account, made_s, horizon_s, expected in (
        (USER, 0, None, False), (USER, 0, november_s - 2 * day_s, False), (USER, 0, november_s + 1, True),
        (USER, november_s + 9, november_s + 5, False), (RUN, 0, 1, True), (RUN, 7, 7, False), (RUN, 6, 7, True),
        (Account("user:x", "then"), 0, 1, True),
    ):  # fmt: skip
        assert expected == may_lack_records(account, made_s, horizon_s), (account, made_s, horizon_s)
