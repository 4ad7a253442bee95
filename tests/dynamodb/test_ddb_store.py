"""The store on DynamoDB Local: round trips, lost answers, other processes' limits and holds, the server's time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from rr_dynamo import ENDPOINT, REGION, Fate, FaultyClient, needs_server, new_table, open_dynamodb, shared_client
from rr_ledger import CENT, DOLLAR, FOUR, RUN, START_MS, TOKENS, USER, amounts, booking, books, facts
from runrails.cli.shell import NEGATIVE, OK, USAGE, run
from runrails.clocks import monotonic_ms
from runrails.errors import LedgerError, StoreUnavailable
from runrails.ledger import Account, Expired, Refused, Reserved, Settled
from runrails.testing import ManualClock
from runrails_aws.dynamodb import DynamoDBStore, clockwork
from runrails_aws.dynamodb.calling import Patience

pytestmark = needs_server


def never_sleep(_: float) -> None:
    """Attempts follow each other at once."""


AT_ONCE = Patience(sleep=never_sleep)


def planned(*fates: Fate) -> Callable[[str, int], Fate]:
    """The fates of the first requests; all later ones work."""
    return lambda _, number: fates[number] if number < len(fates) else "ok"


def faulty(fate: Callable[[str, int], Fate], **options: Any) -> tuple[Any, FaultyClient]:
    """A store in a fresh table whose requests fail as planned, and its client."""
    client = FaultyClient(fate, **({"reads": options.pop("reads")} if "reads" in options else {}))
    given = {"clock": ManualClock(START_MS), "patience": AT_ONCE} | options
    store = open_dynamodb(given.pop("clock"), client=lambda: client, **given)
    return store, client


def warmed(**options: Any) -> tuple[Any, FaultyClient]:
    """A store that has met all four accounts, and has just looked for overdue holds."""
    store, client = faulty(planned(), **options)
    store.reserve(booking("warm", CENT, *FOUR, limit=DOLLAR, facts=facts()))
    store.settle("warm", 1)
    client.log.clear()
    return store, client


def test_one_round_trip_to_reserve_and_one_to_settle() -> None:
    """Also in a run whose account is new, and when refused because others hold the rest; four scopes at once."""
    store, client = warmed()
    fresh = Account("run:r2", "-")
    for name, accounts in (("a", FOUR), ("b", (fresh, *FOUR[1:]))):
        assert Reserved(name) == store.reserve(booking(name, CENT, *accounts, limit=DOLLAR, facts=facts()))
        assert ["TransactWriteItems"] == [operation for operation, _ in client.log]
        assert Settled(name, "settled", 7, CENT) == store.settle(name, 7)
        assert ["TransactWriteItems"] * 2 == [operation for operation, _ in client.log]
        client.log.clear()
    assert isinstance(store.reserve(booking("c", DOLLAR, *FOUR, limit=DOLLAR)), Refused)
    assert 1 == client.writes()
    assert [(CENT * 0 + 15, 0)] * 3 == [amounts(store, account) for account in FOUR[1:]]


def test_a_settle_by_another_process_looks_first() -> None:
    """Whoever has not reserved reads what was; the books are the same."""
    store, _ = warmed()
    store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR))
    client = FaultyClient(planned())
    other = open_dynamodb(ManualClock(START_MS), table=store.table, client=lambda: client)
    assert Settled("a", "settled", 7, CENT) == other.settle("a", 7)
    assert ["GetItem", "TransactWriteItems"] == [operation for operation, _ in client.log]
    assert Settled("a", "settled", 7, CENT, replayed=True) == store.settle("a", 7)


VERBS: dict[str, Callable[[Any], object]] = {
    "reserve": lambda store: store.reserve(booking("b", CENT, *FOUR, limit=DOLLAR)),
    "reserve anew": lambda store: store.reserve(booking("b", CENT, Account("user:new", "-"), RUN, limit=DOLLAR)),
    "reserve, limit changed": lambda store: store.reserve(booking("b", CENT, *FOUR, limit=2 * DOLLAR)),
    "observe": lambda store: store.reserve(booking("b", 2 * DOLLAR, *FOUR, limit=DOLLAR, enforce=False)),
    "refuse": lambda store: store.reserve(booking("b", 2 * DOLLAR, *FOUR, limit=DOLLAR)),
    "settle": lambda store: store.settle("a", 7),
    "settle above": lambda store: store.settle("a", 2 * CENT, unresolved=True),
    "release": lambda store: store.release("a"),
    "raise": lambda store: store.raise_hold("a", 3 * CENT),
    "extend": lambda store: store.extend("a", ttl_ms=1_000_000),
    "correct": lambda store: store.correct("done", 5, source="bill"),
    "claim": lambda store: store.claim_warning(USER, "limit"),
    "limit": lambda store: store.set_limit(USER.scope, 5 * CENT),
    "limit of a run": lambda store: store.set_limit("run:r7", 5 * CENT),
    "zone": lambda store: store.fix_zone("user:x", "UTC"),
    "expire": lambda store: store.expire(),
}


def stage(
    fate: Callable[[str, int], Fate] = planned(),  # noqa: B008 -- it keeps nothing
    **options: bool,
) -> tuple[Any, FaultyClient, ManualClock]:
    """A store with one call in flight, one that has ended and one that is overdue."""
    clock = ManualClock(START_MS)
    plain = open_dynamodb(clock)
    for name in ("a", "done"):
        plain.reserve(booking(name, CENT, *FOUR, limit=DOLLAR, facts=facts()))
    plain.reserve(booking("dead", CENT, TOKENS, ttl_ms=5))
    plain.settle("done", 3)
    client = FaultyClient(fate, **options)
    store = open_dynamodb(clock, table=plain.table, client=lambda: client, patience=AT_ONCE)
    clock.advance(10)
    return store, client, clock


def everything(store: Any) -> tuple[object, ...]:
    """All that the books say, but for in which order they were written."""
    return (*books(store), list(store.corrections()))


STRUCK: list[tuple[str, Fate]] = [
    *((name, "response_lost") for name in VERBS), *((name, "conflict") for name in ("reserve anew", "settle", "raise")),
    *((name, "request_lost") for name in ("observe", "release")), ("correct", "in_progress"), ("expire", "throttled"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fate"), STRUCK)
def test_a_fault_at_any_write_changes_nothing(name: str, fate: Fate) -> None:
    """Whatever befalls whichever write of a verb, it answers and does what it does without faults; never twice."""
    verb = VERBS[name]
    quiet, client, _ = stage()
    expected = verb(quiet)
    count, after = client.writes(), everything(quiet)
    for nth in range(count):
        struck, log, _ = stage(lambda _, number, nth=nth: fate if number == nth else "ok", reads=False)
        assert expected == verb(struck), (nth, log.log)
        assert fate in {each for _, each in log.log}
        assert after == everything(struck), (nth, log.log)
    assert 1 <= count <= 4


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_whose_requests_all_fail_at_first_works(name: str) -> None:
    """Every other request is throttled, lost, or done without an answer, reads as well; the books are the same."""
    fates: tuple[Fate, ...] = ("throttled", "request_lost", "response_lost", "conflict")
    quiet, _, _ = stage()
    expected = VERBS[name](quiet)
    struck, log, _ = stage(lambda _, number: "ok" if number % 2 else fates[number // 2 % 4])
    assert expected == VERBS[name](struck), log.log
    log.over = True
    assert everything(quiet) == everything(struck), log.log


@pytest.mark.parametrize(
    ("fate", "fix"),
    [("throttled", "throughput"), ("conflict", "scopes"), ("request_lost", "endpoint"), ("denied", "aws policy")],
)
def test_a_store_that_stays_away_fails_closed(fate: Fate, fix: str) -> None:
    """After the deadline, or at once where trying does not help, with an error that names the fix; nothing is held."""
    clock = ManualClock(0)
    patience = Patience(sleep=lambda s: clock.advance(int(s * 1_000) + 1), monotonic=clock, chance=lambda: 1.0)
    store, client = faulty(lambda _, number: fate, patience=patience)
    with pytest.raises(StoreUnavailable) as caught:
        store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR))
    assert fix in caught.value.next_step
    assert "botocore" not in type(caught.value).__module__
    attempts, waited_ms = len(client.log), clock()
    assert (
        (1, 0) == (attempts, waited_ms) if fate == "denied" else (10 <= attempts <= 30, 10_000 <= waited_ms <= 10_100)
    )
    assert [] == list(open_dynamodb(ManualClock(START_MS), table=store.table).balances())


def test_a_missing_table_is_not_an_empty_ledger() -> None:
    """No verb takes it for one; each names the command that makes it."""
    store = open_dynamodb(ManualClock(START_MS), table="rr-nowhere")
    for verb in (*VERBS.values(), lambda s: s.balance(USER), lambda s: list(s.balances()), lambda s: list(s.usage())):
        with pytest.raises(StoreUnavailable, match="aws table create rr-nowhere"):
            verb(store)


def test_nobody_listening_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint is wrong or down: refused at the deadline, fail closed."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    ticks = ManualClock(0)
    patience = Patience(
        deadline_ms=300, sleep=lambda s: (ticks.advance(int(s * 1_000) + 1), None)[1], monotonic=ticks,
        chance=lambda: 1.0,
    )  # fmt: skip
    store = DynamoDBStore("books", region=REGION, endpoint="http://127.0.0.1:9", patience=patience)
    with pytest.raises(StoreUnavailable) as caught:
        store.reserve(booking("a"))
    assert "EndpointConnectionError" == caught.value.fields["reason"]
    assert 300 <= ticks() <= 310


def test_an_operators_limit_reaches_accounts_that_another_process_makes() -> None:
    """A process that has never heard of the limit makes next month's account with it, and is told by the first."""
    store, _ = warmed()
    december = Account("user:alice", "2026-12")
    other = open_dynamodb(ManualClock(START_MS), table=store.table)
    store.set_limit("user:alice", 2 * CENT)
    assert isinstance(other.reserve(booking("a", 3 * CENT, december, limit=DOLLAR)), Refused)
    assert Reserved("a") == other.reserve(booking("a", 2 * CENT, december, limit=DOLLAR))
    assert ("operator", 2 * CENT) == (store.balance(december).limit_source, store.balance(december).limit)
    assert isinstance(store.reserve(booking("b", 1, december, limit=DOLLAR)), Refused)
    store.set_limit("user:alice", None)
    assert Reserved("b") == other.reserve(booking("b", 1, december, limit=DOLLAR))


def test_a_limit_set_while_an_account_is_made_holds() -> None:
    """Between the look and the write of a reservation an operator sets a limit: the account is not made without it."""
    table = new_table()
    operator = open_dynamodb(ManualClock(START_MS), table=table)

    def meddle(operation: str, number: int) -> Fate:
        if operation == "TransactWriteItems" and operator is not None:
            meddle.__dict__.setdefault("done", operator.set_limit("user:alice", CENT))
        return "ok"

    client = FaultyClient(meddle)
    store = open_dynamodb(ManualClock(START_MS), table=table, client=lambda: client)
    assert Refused(USER, CENT, 0, 0, 2 * CENT) == store.reserve(booking("a", 2 * CENT, limit=DOLLAR))
    assert [] == list(store.balances())


def test_an_account_that_is_gone_is_no_room() -> None:
    """Deleted by age or by hand, an account this process knows is made anew, or told; a hold in it is never lost."""
    store, _ = warmed()
    store.reserve(booking("held", CENT, limit=DOLLAR))
    key = {"pk": {"S": "B#user:alice"}, "sk": {"S": "2026-11#pusd"}}
    shared_client().delete_item(TableName=store.table, Key=key)
    before = books(store)
    with pytest.raises(LedgerError, match="no longer"):
        store.settle("held", 1)
    assert before == books(store)
    assert Reserved("a") == store.reserve(booking("a", CENT, limit=DOLLAR))
    assert (0, CENT) == amounts(store)


def test_other_processes_dead_holds_are_found() -> None:
    """A store that was busy meanwhile looks again after a while, and at once when it would have to refuse."""
    clock, ticks = ManualClock(START_MS), ManualClock(0)
    store = open_dynamodb(clock, patience=Patience(monotonic=ticks))
    other = open_dynamodb(clock, table=store.table)
    store.reserve(booking("first", 1, limit=CENT))
    store.settle("first", 1)
    other.reserve(booking("dead", CENT - 1, limit=CENT, on_expiry="release", ttl_ms=5))
    clock.advance(6)
    ticks.advance(1_000)
    assert Reserved("a") == store.reserve(booking("a", 1, limit=CENT))
    other.reserve(booking("dead2", 1, limit=CENT, ttl_ms=5))
    clock.advance(6)
    assert (1, 2) == amounts(store)
    store.reserve(booking("b", 1, limit=CENT))
    assert (1, 3) == amounts(store)
    ticks.advance(15_000)
    store.reserve(booking("c", 1, limit=CENT))
    assert (2, 3) == amounts(store)


def test_expiry_goes_by_the_servers_time() -> None:
    """With nobody's clock believed, a hold ends its time and the grace after it was made, not earlier."""
    store = open_dynamodb(None, grace_ms=400)
    began = time.monotonic()
    store.reserve(booking("dead", CENT, ttl_ms=200))
    reserved = time.monotonic()
    while True:
        looked = time.monotonic()
        if store.expire().ids:
            break
        # Dates are cut to the second, so it may be known only that late.
        assert looked - reserved <= 0.6 + 2.5 + (reserved - began)
        time.sleep(0.05)
    assert 0.6 <= time.monotonic() - began
    assert (CENT, 0) == amounts(store)
    assert 1 == store.swept


@pytest.mark.parametrize("wrong_ms", [-120_000, 120_000])
def test_a_hosts_wrong_clock_ends_nobodys_hold(wrong_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes off either way, a host neither takes others' live holds for dead nor makes holds that are."""
    store = open_dynamodb(None)
    real = clockwork.system_ms
    monkeypatch.setattr(clockwork, "system_ms", lambda: real() + wrong_ms)
    other = open_dynamodb(None, table=store.table)
    began_ms = monotonic_ms()
    store.reserve(booking("a", CENT, ttl_ms=60_000))
    other.reserve(booking("b", CENT, ttl_ms=60_000))
    took_ms = monotonic_ms() - began_ms
    assert [Expired(()), Expired(())] == [store.expire(), other.expire()]
    assert (0, 2 * CENT) == amounts(store)
    (early, late) = sorted(
        int(item["hx"]["S"][:15]) for item in shared_client().scan(TableName=store.table)["Items"] if "hx" in item
    )
    assert late - early < 3_000 + took_ms


def test_without_the_servers_time_nothing_is_reclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy that drops the date nobody knows what is overdue: holds stay, and settle as ever."""
    store = open_dynamodb(None, grace_ms=0)
    monkeypatch.setattr(store.caller.server_time, "heard", lambda *_: None)
    store.reserve(booking("a", CENT, ttl_ms=1))
    time.sleep(0.01)
    assert Expired(()) == store.expire()
    assert (0, CENT) == amounts(store)
    assert Settled("a", "settled", 1, CENT) == store.settle("a", 1)


def test_the_command_makes_checks_and_explains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """create, again, check, doctor; a table that is missing or something else is told, with the fix."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    table = f"rr-{uuid4().hex[:8]}"
    where = ["--region", REGION, "--endpoint", ENDPOINT]
    url = f"dynamodb://{table}?region={REGION}&endpoint={ENDPOINT}"
    assert USAGE == run(["aws", "table", "check", table, *where, "--json"])
    assert f"aws table create {table}" in capsys.readouterr().err
    assert [OK, OK] == [run(["aws", "table", "create", table, "--no-protect", *where]) for _ in range(2)]
    assert [OK, OK] == [run(["aws", "table", "check", url]), run(["doctor", "--store", url])]
    assert OK == run(["aws", "policy", table, "--json"])
    assert '"Version": "2012-10-17"' in capsys.readouterr().out
    other = f"rr-other-{table}"
    key = [{"AttributeName": "id", "KeyType": "HASH"}]
    shared_client().create_table(
        TableName=other, KeySchema=key, BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    assert NEGATIVE == run(["aws", "table", "check", other, "--json", *where])
    assert '"ok": false' in capsys.readouterr().out


FORKING = """
import os, sys, threading
from rr_dynamo import new_client, open_dynamodb
from rr_ledger import START_MS, booking
from runrails.testing import ManualClock
store = open_dynamodb(ManualClock(START_MS), table=sys.argv[1], client=new_client)
store.reserve(booking("first", 1)); store.settle("first", 1)  # Python cannot fork while a thread imports what it needs
stop = threading.Event()
count = 0
def busy():
    global count
    while not stop.is_set():
        store.reserve(booking(f"t{count}", 1)); store.settle(f"t{count}", 1); count += 1
threads = [threading.Thread(target=busy)]
[thread.start() for thread in threads]
children = []
for n in range(4):
    pid = os.fork()
    if pid == 0:
        for k in range(5):
            store.reserve(booking(f"f{n}-{k}", 1)); store.settle(f"f{n}-{k}", 1)
        os._exit(0)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
stop.set(); [thread.join() for thread in threads]
print(count, *codes)
"""


def test_a_fork_gets_connections_of_its_own() -> None:
    """A store made before a fork works on both sides of it, while another thread uses it, and loses nothing."""
    table = new_table()
    command = [sys.executable, "-c", FORKING, table]
    paths = {"PYTHONPATH": ":".join(sys.path), "RUNRAILS_DDB_ENDPOINT": ENDPOINT, "PATH": "/usr/bin:/bin"}
    said = subprocess.run(command, capture_output=True, text=True, env=paths, timeout=60, check=True).stdout
    count, *codes = map(int, said.split())
    assert [0] * 4 == codes
    assert (count + 21, 0) == amounts(open_dynamodb(ManualClock(START_MS), table=table))
